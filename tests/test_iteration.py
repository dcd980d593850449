"""Tests of iterations: L{Deferator}, L{Prefetcherator} and what they are fed from."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.errors import NotReadyError
from asynqueue.iteration import Deferator, Prefetcherator, _deferator
from asynqueue.iteration._sources import BufferedSource, ItemSource, IteratorSource

from ._cases import turnAll


class Recorder:
    """A source of generators that count when they are closed."""

    def __init__(self) -> None:
        self.closed = 0

    def numbers(self, limit: int | None = None) -> Generator[int, None, None]:
        """Yield so many numbers from 0, or without end."""
        try:
            yield from count() if limit is None else range(limit)
        finally:
            self.closed += 1

    def failing(self, good: int) -> Generator[int, None, None]:
        """Yield numbers from 0, then raise C{ZeroDivisionError}."""
        yield from range(good)
        raise ZeroDivisionError("at last")


def collect(deferator: Deferator[Any]) -> tuple[list[Any], Deferred[None]]:
    """
    Iterate with C{async for}. Returns a list that the items are appended to as they
    come, and a Deferred that fires when the loop has ended.
    """
    items: list[Any] = []

    async def loop() -> None:
        async for item in deferator:
            items.append(item)  # noqa: PERF401 - seen as they come

    return items, Deferred.fromCoroutine(loop())


def pending(source: ItemSource) -> Deferred[Any]:
    """Ask a source for an item that isn't at hand."""
    answer = source.fetch()
    assert isinstance(answer, Deferred)
    return answer


class IteratorSourceTests(SynchronousTestCase):
    """Tests of L{IteratorSource}."""

    def test_protocol(self) -> None:
        """It's a source that tells at once of what is at hand."""
        self.assertIsInstance(IteratorSource(iter(())), ItemSource)

    def test_items(self) -> None:
        """It gives what the iterator yields, then tells its end."""
        source = IteratorSource(iter("ab"))
        self.assertEqual(source.fetch(), ("a", True, True))
        self.assertEqual(source.fetch(), ("b", True, True))
        self.assertEqual(source.fetch(), (None, False, False))

    def test_failure(self) -> None:
        """What the iterator raises is told by a Deferred."""
        source = IteratorSource(Recorder().failing(0))
        self.failureResultOf(pending(source), ZeroDivisionError)

    def test_stop(self) -> None:
        """
        Stopping closes the generator, so that its C{finally} runs. It does so once.
        """
        recorder = Recorder()
        source = IteratorSource(recorder.numbers())
        source.fetch()
        source.stop()
        source.stop()
        self.assertEqual(recorder.closed, 1)
        self.assertEqual(source.fetch(), (None, False, False))

    def test_stopRaises(self) -> None:
        """What a generator raises when it's closed is logged."""

        def stubborn() -> Iterator[int]:
            try:
                yield 1
            finally:
                raise ZeroDivisionError

        source = IteratorSource(stubborn())
        source.fetch()
        source.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_notClosable(self) -> None:
        """An iterator that can't be closed is let go of."""
        source = IteratorSource(iter([1]))
        source.stop()
        self.assertEqual(source.fetch(), (None, False, False))


class BufferedSourceTests(SynchronousTestCase):
    """Tests of L{BufferedSource}."""

    def setUp(self) -> None:
        """Make a source that notes what its hooks are told."""
        self.told: list[object] = []
        self.source = BufferedSource(
            self.told.append, lambda: self.told.append("stop"), every=3
        )

    def test_protocol(self) -> None:
        """It's a source that tells at once of what is at hand."""
        self.assertIsInstance(self.source, ItemSource)

    def test_atHand(self) -> None:
        """Items that were pushed are taken in order."""
        self.source.push("ab")
        self.assertEqual(self.source.atHand, 2)
        self.assertEqual(self.source.fetch(), ("a", True, True))
        self.assertEqual(self.source.fetch(), ("b", True, True))
        self.assertNoResult(pending(self.source))

    def test_awaited(self) -> None:
        """
        Who waits gets the first item that is pushed. Pushing none changes nothing.
        """
        d = pending(self.source)
        self.source.push([])
        self.assertNoResult(d)
        self.source.push("ab")
        self.assertEqual(self.successResultOf(d), ("a", True, True))
        self.assertEqual(self.source.atHand, 1)

    def test_end(self) -> None:
        """The end comes after the items."""
        self.source.push("a")
        self.source.end()
        self.assertEqual(self.source.fetch(), ("a", True, True))
        self.assertEqual(self.source.fetch(), (None, False, False))

    def test_endAwaited(self) -> None:
        """Who waits is told of the end."""
        d = pending(self.source)
        self.source.end()
        self.assertEqual(self.successResultOf(d), (None, False, False))

    def test_fail(self) -> None:
        """A failure comes after the items, and by a Deferred."""
        self.source.push("a")
        self.source.fail(Failure(ZeroDivisionError()))
        self.assertEqual(self.source.fetch(), ("a", True, True))
        self.failureResultOf(pending(self.source), ZeroDivisionError)
        self.assertEqual(self.source.fetch(), (None, False, False))

    def test_failAwaited(self) -> None:
        """Who waits is told of the failure, for which an exception will do."""
        d = pending(self.source)
        self.source.fail(ZeroDivisionError())
        self.failureResultOf(d, ZeroDivisionError)

    def test_onlyOneEnd(self) -> None:
        """After the end, an end and a failure are ignored."""
        self.source.end()
        self.source.fail(ZeroDivisionError())
        self.source.end()
        self.assertEqual(self.source.fetch(), (None, False, False))

    def test_pushAfterEnd(self) -> None:
        """Pushing items after the end is an error."""
        self.source.end()
        with self.assertRaisesRegex(RuntimeError, "had ended"):
            self.source.push([1])

    def test_taken(self) -> None:
        """
        It's told that items were taken when there are as many as asked for, and when
        none is left.
        """
        self.source.push(range(5))
        for _ in range(4):
            self.source.fetch()
        self.assertEqual(self.told, [3])
        self.source.fetch()
        self.assertEqual(self.told, [3, 2])

    def test_many(self) -> None:
        """
        It hands over several items at once, no more than C{every}. They have been taken
        when more are asked for.
        """
        self.assertIsNone(self.source.fetchMany())
        self.source.push(range(5))
        self.assertEqual(list(self.source.fetchMany() or ()), [0, 1, 2])
        self.assertEqual(self.told, [])
        self.assertEqual(list(self.source.fetchMany() or ()), [3, 4])
        self.assertEqual(self.told, [3])
        self.assertIsNone(self.source.fetchMany())
        self.assertEqual(self.told, [3, 2])

    def test_manyAndOne(self) -> None:
        """Those that were handed over count with those that are fetched one by one."""
        self.source.push("ab")
        self.source.fetchMany()
        self.source.push("cd")
        self.assertEqual(self.source.fetch(), ("c", True, True))
        self.assertEqual(self.told, [3])
        self.assertEqual(self.source.fetch(), ("d", True, True))
        self.assertEqual(self.told, [3, 1])

    def test_manyWithoutHooks(self) -> None:
        """Where nobody is to be told, several are handed over, too."""
        source = BufferedSource(every=3)
        source.push("abcd")
        self.assertEqual(list(source.fetchMany() or ()), ["a", "b", "c"])
        self.assertIsNone(source.fetchMany())
        self.assertEqual(source.fetch(), ("d", True, True))

    def test_manyAndStop(self) -> None:
        """What is handed over when it's stopped isn't told."""
        self.source.push("ab")
        self.source.fetchMany()
        self.source.stop()
        self.assertIsNone(self.source.fetchMany())
        self.assertEqual(self.told, ["stop"])

    def test_deferredsAmongMany(self) -> None:
        """Deferreds are handed over one by one, for they're waited for."""
        self.source.push([1, succeed(2), 3])
        self.assertIsNone(self.source.fetchMany())
        d = Deferator(self.source)
        taken = [self.successResultOf(d.__anext__()) for _ in range(3)]
        self.assertEqual(taken, [1, 2, 3])

    def test_takenAfterEnd(self) -> None:
        """It's not told what is taken after the end, when credit is of no use."""
        self.source.push("ab")
        self.source.end()
        self.source.fetch()
        self.source.fetch()
        self.assertEqual(self.told, [])

    def test_stop(self) -> None:
        """
        Stopping is told once. What is at hand, and what comes later, is dropped, and
        who waits is told of the end.
        """
        d = pending(self.source)
        self.source.stop()
        self.source.stop()
        self.source.push("ab")
        self.source.end()
        self.source.fail(ZeroDivisionError())
        self.assertEqual(self.told, ["stop"])
        self.assertEqual(self.source.atHand, 0)
        self.assertEqual(self.successResultOf(d), (None, False, False))

    def test_stopAfterEnd(self) -> None:
        """Stopping after the end isn't told: there's nothing to be released."""
        self.source.push("a")
        self.source.end()
        self.source.stop()
        self.assertEqual(self.told, [])
        self.assertEqual(self.source.atHand, 0)


class DeferatorMakingTests(SynchronousTestCase):
    """Tests of what a L{Deferator} can be made of."""

    def items(self, deferator: Deferator[Any]) -> list[Any]:
        """Iterate over Deferreds that have fired."""
        return [self.successResultOf(d) for d in deferator]

    def test_iterator(self) -> None:
        """It takes an iterator."""
        self.assertEqual(self.items(Deferator(iter("abc"))), ["a", "b", "c"])

    def test_iterable(self) -> None:
        """
        It takes other things that can be iterated over, such as the empty list that is
        the result of an empty iterator.
        """
        self.assertEqual(self.items(Deferator([])), [])
        self.assertEqual(self.items(Deferator(range(2))), [0, 1])

    def test_function(self) -> None:
        """
        It takes a function that returns a Deferred to value, validity, and whether
        there may be more. That is called with the arguments and keywords given.
        """
        calls: list[Any] = []

        def f(*args: Any, **kw: Any) -> Deferred[tuple[int, bool, bool]]:
            calls.append((args, kw))
            return succeed((len(calls), True, len(calls) < 3))

        deferator = Deferator("numbers", f, 1, reactor=2)
        self.assertEqual(self.items(deferator), [1, 2, 3])
        self.assertEqual(calls, [((1,), {"reactor": 2})] * 3)
        self.assertEqual(repr(deferator), "<Deferator wrapping numbers>")

    def test_functionKeywords(self) -> None:
        """Any keyword reaches the function."""
        seen: list[Any] = []

        def f(**kw: Any) -> tuple[Any, bool, bool]:
            seen.append(kw)
            return 1, True, False

        kw = {"f": 1, "objOrRep": 2, "self": 3, "name": 4}
        self.assertEqual(self.items(Deferator("x", f, **kw)), [1])
        self.assertEqual(seen, [kw])

    def test_functionWithoutText(self) -> None:
        """
        For a function, no text that represents the iteration is needed. It may answer
        without a Deferred, and that it has no more.
        """
        answers = iter([(1, True, True), (None, False, False)])
        self.assertEqual(self.items(Deferator(None, lambda: next(answers))), [1])

    def test_functionEnds(self) -> None:
        """
        If the function says that there's none after all, the Deferred that waits fires
        with C{None}, and C{async for} ends.
        """
        for loop in (False, True):
            end: Deferred[Any] = Deferred()
            answers = iter([succeed((1, True, True)), end])
            deferator = Deferator(None, lambda: next(answers))  # noqa: B023
            if loop:
                items, d = collect(deferator)
            else:
                self.assertEqual(self.successResultOf(next(deferator)), 1)
                d = next(deferator)
            end.callback((None, False, False))
            self.assertIsNone(self.successResultOf(d))
            self.assertFalse(deferator.moreLeft)
        self.assertEqual(items, [1])

    def test_functionNotAhead(self) -> None:
        """
        Nothing is fetched ahead: the function is called once for each item, and may
        need that the last has been handled.
        """
        handled = 0
        calls = 0

        def f() -> tuple[Any, bool, bool]:
            nonlocal calls
            self.assertEqual(handled, calls)
            calls += 1
            return calls, True, calls < 6

        for d in Deferator("x", f):
            handled = self.successResultOf(d)
            if handled == 3:
                break
        self.assertEqual(calls, 3)

    def test_isIterator(self) -> None:
        """The class, and each instance, tells whether something is an iterator."""
        recorder = Recorder()
        for isIterator in (Deferator.isIterator, Deferator([]).isIterator):
            self.assertTrue(isIterator(recorder.numbers()))
            self.assertTrue(isIterator(recorder.numbers))
            for other in (None, "xyz", (1,), [3], {1: 2}):
                self.assertFalse(isIterator(other))
            self.assertIn(list, Deferator.builtIns)

    def test_functionRaises(self) -> None:
        """
        What the function raises, or its Deferred fails with, is the failure of the
        iteration.
        """
        for f in (lambda: 1 / 0, lambda: fail(ZeroDivisionError())):
            deferator = Deferator(None, f)
            self.failureResultOf(next(deferator), ZeroDivisionError)
            self.assertRaises(StopIteration, next, deferator)

    def test_functionAnswersWrongly(self) -> None:
        """A function that answers with something else is named in a C{TypeError}."""

        def sheer() -> int:
            return 5

        failure = self.failureResultOf(next(Deferator("x", sheer)), TypeError)
        self.assertIn("sheer", failure.getErrorMessage())
        self.assertIn("(value, isValid, moreLeft)", failure.getErrorMessage())

    def test_prefetcherator(self) -> None:
        """It takes a L{Prefetcherator} that has been set up."""
        prefetcherator = Prefetcherator()
        prefetcherator.setup(iter("abc"))
        self.assertEqual(self.items(Deferator(prefetcherator)), ["a", "b", "c"])

    def test_emptyPrefetcherator(self) -> None:
        """Of a L{Prefetcherator} without items it yields nothing."""
        prefetcherator = Prefetcherator()
        prefetcherator.setup(iter(()))
        self.assertEqual(self.items(Deferator(prefetcherator)), [])

    def test_deferator(self) -> None:
        """It takes another L{Deferator}, which is stopped with it."""
        recorder = Recorder()
        inner = Deferator(recorder.numbers())
        outer = Deferator(inner)
        self.assertEqual(self.successResultOf(next(outer)), 0)
        outer.stop()
        self.assertEqual(recorder.closed, 1)

    def test_source(self) -> None:
        """It takes an L{ItemSource} that can't tell without a Deferred."""

        class Source:
            def fetch(self) -> Deferred[tuple[Any, bool, bool]]:
                return succeed((7, True, False))

            def stop(self) -> None:
                pass

        source = Source()
        self.assertIsInstance(source, ItemSource)
        self.assertEqual(self.items(Deferator(source)), [7])

    def test_badSource(self) -> None:
        """
        A source whose C{fetch} raises fails the iteration. What its C{stop} raises is
        logged.
        """

        class Source:
            def fetch(self) -> Deferred[tuple[Any, bool, bool]]:
                raise ZeroDivisionError

            def stop(self) -> None:
                raise KeyError

        self.failureResultOf(next(Deferator(Source())), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_nothing(self) -> None:
        """
        What can't be iterated over is named in a C{TypeError} at once. So is text
        without a function.
        """
        for bad in (5, None, "text", b"bytes"):
            with self.assertRaisesRegex(TypeError, f"{bad!r} can't be iterated over"):
                Deferator(bad)

    def test_deferred(self) -> None:
        """For a Deferred, the C{TypeError} says that it must be waited for."""
        with self.assertRaisesRegex(TypeError, "wait for it"):
            Deferator(succeed([]))

    def test_notCallable(self) -> None:
        """So is what is given for a function and isn't one."""
        with self.assertRaisesRegex(TypeError, "f must be callable, which 5"):
            Deferator("x", 5)  # type: ignore[call-overload]

    def test_repr(self) -> None:
        """It shows what is iterated over: generators by name, other things by type."""
        self.assertRegex(repr(Deferator(Recorder().numbers())), "Recorder.numbers")
        self.assertRegex(repr(Deferator(iter([]))), "list_iterator")


class DeferatorTests(SynchronousTestCase):
    """Tests of L{Deferator} as an iterator of Deferreds."""

    def setUp(self) -> None:
        """Make a deferator of items that are pushed."""
        self.told: list[object] = []
        self.source = BufferedSource(onStop=lambda: self.told.append("stop"))
        self.deferator = Deferator(self.source)
        self.ended: list[object] = []
        self.deferator.addCallback(self.ended.append)

    def test_lookAhead(self) -> None:
        """
        Each Deferred fires when it's known whether there's another item, so the
        iterator ends right after the last.
        """
        d = next(self.deferator)
        self.source.push("a")
        self.assertNoResult(d)
        self.source.push("b")
        self.assertEqual(self.successResultOf(d), "a")
        d = next(self.deferator)
        self.assertNoResult(d)
        self.source.end()
        self.assertEqual(self.successResultOf(d), "b")
        self.assertRaises(StopIteration, next, self.deferator)

    def test_empty(self) -> None:
        """Of an empty source it yields nothing."""
        self.source.end()
        self.assertEqual(list(self.deferator), [])
        self.assertEqual(self.ended, [True])

    def test_emptyAfterAll(self) -> None:
        """
        If it turns out only later that there's no item at all, the Deferred that has
        been yielded fails with C{StopAsyncIteration}.
        """
        d = next(self.deferator)
        self.source.end()
        self.failureResultOf(d, StopAsyncIteration)
        self.assertEqual(self.ended, [True])
        self.assertRaises(StopIteration, next, self.deferator)

    def test_notReady(self) -> None:
        """
        Asking for the next before the last has fired raises L{NotReadyError}, and does
        no harm.
        """
        d = next(self.deferator)
        with self.assertRaisesRegex(NotReadyError, "wait for each Deferred"):
            next(self.deferator)
        with self.assertRaises(NotReadyError):
            self.deferator.__anext__()
        self.source.push("ab")
        self.assertEqual(self.successResultOf(d), "a")
        self.assertEqual(self.successResultOf(self.deferator.__anext__()), "b")

    def test_exhausted(self) -> None:
        """
        Its own Deferred fires with C{True} when it's exhausted and who iterates has
        been told so, not while the last item is still being handed out. It does so
        once.
        """
        self.source.push("a")
        self.source.end()
        next(self.deferator).addCallback(lambda _: self.assertEqual(self.ended, []))
        self.assertEqual(self.ended, [])
        self.assertRaises(StopIteration, next, self.deferator)
        self.assertRaises(StopIteration, next, self.deferator)
        self.deferator.stop()
        self.assertEqual(self.ended, [True])

    def test_toldByMoreLeft(self) -> None:
        """Who has seen that C{moreLeft} is false has been told of the end, too."""
        self.source.push("a")
        self.source.end()
        while self.deferator.moreLeft:
            next(self.deferator).addCallback(self.told.append)
        self.assertEqual(self.told, ["a"])
        self.assertEqual(self.ended, [True])

    def test_moreLeft(self) -> None:
        """
        C{moreLeft} is true as long as there may be more, and exact once that's known.
        """
        self.assertTrue(self.deferator.moreLeft)
        d = next(self.deferator)
        self.assertTrue(self.deferator.moreLeft)
        self.source.push("ab")
        self.assertEqual(self.successResultOf(d), "a")
        self.assertTrue(self.deferator.moreLeft)
        d = next(self.deferator)
        self.source.end()
        self.assertFalse(self.deferator.moreLeft)
        self.assertEqual(self.successResultOf(d), "b")

    def test_moreLeftOfIterator(self) -> None:
        """
        For an iterator at hand it's exact from the beginning, and takes no item away.
        """
        self.assertFalse(Deferator(iter(())).moreLeft)
        deferator = Deferator(iter("a"))
        self.assertTrue(deferator.moreLeft)
        self.assertEqual([self.successResultOf(d) for d in deferator], ["a"])
        failing = Deferator(Recorder().failing(0))
        self.assertTrue(failing.moreLeft)
        self.assertTrue(failing.moreLeft)
        self.failureResultOf(next(failing), ZeroDivisionError)
        self.assertFalse(failing.moreLeft)

    def test_moreLeftOfFunction(self) -> None:
        """For a function it's true until that says otherwise, and doesn't call it."""
        deferator = Deferator(None, lambda: (1, True, False))
        self.assertTrue(deferator.moreLeft)
        self.assertEqual(self.successResultOf(next(deferator)), 1)
        self.assertFalse(deferator.moreLeft)

    def test_fails(self) -> None:
        """
        An error of the source comes after the items before it, as the failure of one
        more Deferred. Then there are no more, and its own Deferred fires with C{False}.
        """
        deferator = Deferator(Recorder().failing(3))
        deferator.addCallback(self.ended.append)
        for i in range(3):
            self.assertEqual(self.successResultOf(next(deferator)), i)
        self.assertTrue(deferator.moreLeft)
        self.assertEqual(self.ended, [])
        self.failureResultOf(next(deferator), ZeroDivisionError)
        self.assertEqual(self.ended, [False])
        self.assertRaises(StopIteration, next, deferator)

    def test_failsLater(self) -> None:
        """So does one that comes when it's waited for."""
        d = next(self.deferator)
        self.source.push("a")
        self.source.fail(ZeroDivisionError())
        self.assertEqual(self.successResultOf(d), "a")
        self.failureResultOf(next(self.deferator), ZeroDivisionError)
        self.assertEqual(self.ended, [False])

    def test_failsAtOnce(self) -> None:
        """If there's no item before it, the Deferred that waits fails with it."""
        d = next(self.deferator)
        self.source.fail(ZeroDivisionError())
        self.failureResultOf(d, ZeroDivisionError)

    def test_baseException(self) -> None:
        """Exceptions that aren't C{Exception}s are failures as well."""

        def leave() -> Iterator[int]:
            yield 1
            raise SystemExit(3)

        deferator = Deferator(leave())
        self.assertEqual(self.successResultOf(next(deferator)), 1)
        self.failureResultOf(next(deferator), SystemExit)

    def test_noNoise(self) -> None:
        """
        A deferator that nobody consumes, or not to its end, leaves nothing in the log,
        though its source has failed.
        """
        for takes in range(3):
            deferator = Deferator(Recorder().failing(2))
            self.assertTrue(deferator.moreLeft)
            for _ in range(takes):
                self.successResultOf(next(deferator))
            del deferator
        self.source.fail(ZeroDivisionError())
        self.deferator.peek()
        self.deferator.stop()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop(self) -> None:
        """
        Stopping ends it, closes the generator, and its own Deferred fires with
        C{False}. The second time nothing happens.
        """
        recorder = Recorder()
        deferator = Deferator(recorder.numbers())
        deferator.addCallback(self.ended.append)
        self.successResultOf(next(deferator))
        deferator.stop()
        deferator.stop()
        self.assertEqual(recorder.closed, 1)
        self.assertEqual(self.ended, [False])
        self.assertFalse(deferator.moreLeft)
        self.assertRaises(StopIteration, next, deferator)
        self.assertFalse(self.successResultOf(deferator.peek()))

    def test_stopByItem(self) -> None:
        """
        Each Deferred that it yields can stop it, and still fires with its item if that
        is there.
        """
        d = next(self.deferator)
        self.source.push("a")
        d.stop()  # type: ignore[attr-defined]
        self.assertEqual(self.successResultOf(d), "a")
        self.assertEqual(self.told, ["stop"])
        self.assertEqual(list(self.deferator), [])

    def test_stopInCallback(self) -> None:
        """It can be stopped in the callback of an item, with the loop going on."""
        recorder = Recorder()
        items = []
        deferator = Deferator(recorder.numbers())
        for d in deferator:
            items.append(self.successResultOf(d))
            if len(items) == 3:
                d.addCallback(lambda _: deferator.stop())
        self.assertEqual(items, [0, 1, 2])
        self.assertEqual(recorder.closed, 1)

    def test_stopWhileWaiting(self) -> None:
        """
        A Deferred that waits for an item that can't come any longer when it's stopped
        fails with C{CancelledError}. What comes later is dropped.
        """
        d = next(self.deferator)
        self.deferator.stop()
        self.failureResultOf(d, CancelledError)
        self.source.push("a")
        self.assertEqual(self.ended, [False])

    def test_stopQuietly(self) -> None:
        """That isn't logged if nobody handles it."""
        for callbacks in range(2):
            deferator = Deferator(BufferedSource())
            d = next(deferator)
            for _ in range(callbacks):
                d.addCallback(lambda item: item)
            self.assertRaises(NotReadyError, next, deferator)
            deferator.stop()
            del d, deferator
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stopFunctionWhileWaiting(self) -> None:
        """
        With a function, the Deferred that waits fires with its item when that comes,
        and then the iteration is over.
        """
        answer: Deferred[Any] = Deferred()
        deferator = Deferator("x", lambda: answer)
        deferator.addCallback(self.ended.append)
        d = next(deferator)
        deferator.stop()
        self.assertEqual(self.ended, [False])
        self.assertNoResult(d)
        answer.callback((1, True, True))
        self.assertEqual(self.successResultOf(d), 1)
        self.assertEqual(list(deferator), [])

    def test_stopFunctionAndCancel(self) -> None:
        """If that is cancelled then, the function's own Deferred is, too."""
        answer: Deferred[Any] = Deferred(self.told.append)
        deferator = Deferator("x", lambda: answer)
        d = next(deferator)
        deferator.stop()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.told, [answer])

    def test_stopFunctionFails(self) -> None:
        """If the function fails then, so does the Deferred."""
        answer: Deferred[Any] = Deferred()
        deferator = Deferator("x", lambda: answer)
        d = next(deferator)
        deferator.stop()
        answer.errback(ZeroDivisionError())
        self.failureResultOf(d, ZeroDivisionError)

    def test_stopInGenerator(self) -> None:
        """
        A generator may itself stop the deferator. It's closed when it has yielded.
        """
        closed: list[bool] = []

        def numbers() -> Iterator[int]:
            try:
                yield 0
                deferator.stop()
                yield 1
            finally:
                closed.append(True)

        deferator = Deferator(numbers())
        self.assertEqual([self.successResultOf(d) for d in deferator], [0])
        self.assertEqual(closed, [True])

    def test_stopInFunction(self) -> None:
        """A function may stop the deferator when it's called for an item."""

        def f() -> Any:
            deferator.stop()
            return 2, True, True

        deferator = Deferator(None, f)
        self.assertEqual(list(deferator), [])

    def test_pushInCallback(self) -> None:
        """
        An item that is pushed in the callback of another is handed out when that has
        returned.
        """
        order: list[str] = []

        def push(_: object) -> None:
            self.deferator.__anext__().addCallback(order.append)
            self.source.push("b")
            order.append("pushed")

        self.source.push("a")
        self.deferator.__anext__().addCallback(push)
        self.assertEqual(order, ["pushed", "b"])

    def test_cancelInStop(self) -> None:
        """What has the source released may cancel the Deferred that waits."""
        source = BufferedSource(onStop=lambda: d.cancel())
        deferator = Deferator(source)
        d = next(deferator)
        deferator.stop()
        self.failureResultOf(d, CancelledError)

    def test_closing(self) -> None:
        """It can be closed like a generator, so C{contextlib.closing} works."""
        with closing(self.deferator):
            pass
        self.assertEqual(self.told, ["stop"])

    def test_callbacks(self) -> None:
        """Adding callbacks to it adds them to its own Deferred."""
        seen: list[object] = []
        other: Deferred[bool] = Deferred()
        self.assertIs(self.deferator.addCallback(seen.append), self.deferator.d)
        self.deferator.addCallbacks(lambda _: 1 / 0, seen.append)
        self.deferator.addErrback(lambda failure: failure.type)
        self.deferator.addBoth(lambda result: result)
        self.deferator.chainDeferred(other)
        self.deferator.stop()
        self.assertEqual(seen, [None])
        self.assertIs(self.successResultOf(other), ZeroDivisionError)

    def test_attributes(self) -> None:
        """
        Attributes that it doesn't have are those of its own Deferred, but for private
        ones.
        """
        self.assertFalse(self.deferator.called)
        self.deferator.stop()
        self.assertTrue(self.deferator.called)
        self.assertIs(self.deferator.result, self.deferator.d.result)
        self.assertRaises(AttributeError, lambda: self.deferator.other)
        self.assertRaises(AttributeError, lambda: self.deferator._runCallbacks)

    def test_ownDeferredCancelled(self) -> None:
        """
        Whoever cancels its own Deferred gets C{CancelledError}, and nothing else is
        disturbed.
        """
        self.deferator.d.cancel()
        self.failureResultOf(self.deferator.d, CancelledError)
        self.source.push("a")
        self.source.end()
        self.assertEqual(self.successResultOf(next(self.deferator)), "a")
        self.assertRaises(StopIteration, next, self.deferator)

    def test_cancel(self) -> None:
        """Cancelling a Deferred that waits gives up the waiting, and loses no item."""
        d = next(self.deferator)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.source.push("a")
        d = next(self.deferator)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        d = next(self.deferator)
        self.source.push("b")
        self.assertEqual(self.successResultOf(d), "a")
        self.source.end()
        self.assertEqual(self.successResultOf(next(self.deferator)), "b")

    def test_timeout(self) -> None:
        """A Deferred with a time limit that passes can be followed by another."""
        clock = Clock()
        d = next(self.deferator).addTimeout(5, clock)
        clock.advance(5)
        self.failureResultOf(d)
        d = next(self.deferator)
        self.source.push("a")
        self.source.end()
        self.assertEqual(self.successResultOf(d), "a")

    def test_peek(self) -> None:
        """It can be found out whether there's an item, without taking it."""
        d = self.deferator.peek()
        self.assertNoResult(d)
        self.source.push("a")
        self.assertTrue(self.successResultOf(d))
        self.assertTrue(self.successResultOf(self.deferator.peek()))
        self.assertEqual(self.successResultOf(self.deferator.__anext__()), "a")
        d = self.deferator.peek()
        self.source.end()
        self.assertFalse(self.successResultOf(d))

    def test_peekEmpty(self) -> None:
        """Of an empty source it's found out, and that's being told of the end."""
        self.source.end()
        self.assertFalse(self.successResultOf(self.deferator.peek()))
        self.assertEqual(self.ended, [True])

    def test_peekFailure(self) -> None:
        """A failure is something to come."""
        self.source.fail(ZeroDivisionError())
        self.assertTrue(self.successResultOf(self.deferator.peek()))
        self.failureResultOf(next(self.deferator), ZeroDivisionError)

    def test_peekAndStop(self) -> None:
        """If it's stopped, there's nothing to come."""
        d = self.deferator.peek()
        self.deferator.stop()
        self.assertFalse(self.successResultOf(d))

    def test_peekAndCancel(self) -> None:
        """It's found out also if a Deferred that waits for the item is cancelled."""
        peek, d = self.deferator.peek(), next(self.deferator)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.source.push("a")
        self.assertTrue(self.successResultOf(peek))

    def test_peekersAct(self) -> None:
        """Who finds out that there's something may ask for it at once."""
        items: list[object] = []

        def ask(_: object) -> None:
            next(self.deferator).addCallback(items.append)

        self.deferator.peek().addCallback(ask)
        self.source.push("a")
        self.assertEqual(items, [])
        self.source.push("b")
        self.assertEqual(items, ["a"])

    def test_deferredItems(self) -> None:
        """Items that are Deferreds are waited for."""
        items: list[Deferred[str]] = [Deferred(), succeed("b")]
        deferator = Deferator(iter(items))
        d = next(deferator)
        self.assertNoResult(d)
        items[0].callback("a")
        self.assertEqual(self.successResultOf(d), "a")
        self.assertEqual(self.successResultOf(next(deferator)), "b")
        self.assertRaises(StopIteration, next, deferator)

    def test_deferredItemFails(self) -> None:
        """One that fails is an error of the source, and ends the iteration."""
        recorder = Recorder()
        deferator = Deferator(
            succeed(i) if i < 2 else fail(ZeroDivisionError())
            for i in recorder.numbers()
        )
        self.assertEqual(self.successResultOf(next(deferator)), 0)
        self.assertEqual(self.successResultOf(next(deferator)), 1)
        self.failureResultOf(next(deferator), ZeroDivisionError)
        self.assertRaises(StopIteration, next, deferator)

    def test_stopWhileItemWaits(self) -> None:
        """
        When it's stopped while a Deferred waits for an item that is one itself, the
        Deferred still fires with it.
        """
        recorder = Recorder()
        item: Deferred[str] = Deferred()
        deferator = Deferator(item for _ in recorder.numbers())
        d = next(deferator)
        deferator.stop()
        self.assertEqual(recorder.closed, 1)
        item.callback("a")
        self.assertEqual(self.successResultOf(d), "a")
        self.assertEqual(list(deferator), [])

    def test_nobodyWaits(self) -> None:
        """An item, or an answer, that nobody waits for is cancelled."""
        item: Deferred[Any] = Deferred(self.told.append)
        answer: Deferred[Any] = Deferred(self.told.append)
        for deferator in (Deferator(iter([item])), Deferator("x", lambda: answer)):
            d = next(deferator)
            d.cancel()
            self.failureResultOf(d, CancelledError)
            deferator.stop()
        self.assertEqual(self.told, [item, answer])


class AsyncForTests(SynchronousTestCase):
    """Tests of L{Deferator} in C{async for}."""

    def setUp(self) -> None:
        """Iterate over items that are pushed."""
        self.told: list[object] = []
        self.source = BufferedSource(onStop=lambda: self.told.append("stop"))
        self.deferator = Deferator(self.source)
        self.ended: list[object] = []
        self.deferator.addCallback(self.ended.append)
        self.items, self.d = collect(self.deferator)

    def test_noLookAhead(self) -> None:
        """It gets each item the moment it's there."""
        self.source.push("a")
        self.assertEqual(self.items, ["a"])
        self.source.push("bc")
        self.assertEqual(self.items, ["a", "b", "c"])
        self.assertNoResult(self.d)
        self.source.end()
        self.successResultOf(self.d)
        self.assertEqual(self.ended, [True])

    def test_empty(self) -> None:
        """An empty source means no turn of the loop."""
        self.source.end()
        self.successResultOf(self.d)
        self.assertEqual(self.items, [])

    def test_fails(self) -> None:
        """An error of the source is raised after the items before it."""
        self.source.push("a")
        self.source.fail(ZeroDivisionError())
        self.failureResultOf(self.d, ZeroDivisionError)
        self.assertEqual(self.items, ["a"])
        self.assertEqual(self.ended, [False])

    def test_iteratorFails(self) -> None:
        """So is one of an iterator at hand."""
        items, d = collect(Deferator(Recorder().failing(3)))
        self.failureResultOf(d, ZeroDivisionError)
        self.assertEqual(items, [0, 1, 2])

    def test_stop(self) -> None:
        """Stopping ends a loop that waits."""
        self.source.push("a")
        self.deferator.stop()
        self.successResultOf(self.d)
        self.assertEqual(self.items, ["a"])
        self.assertEqual(self.told, ["stop"])

    def test_cancel(self) -> None:
        """Cancelling the coroutine that waits loses no item: another loop gets it."""
        self.d.cancel()
        self.failureResultOf(self.d, CancelledError)
        self.source.push("a")
        items, _ = collect(self.deferator)
        self.assertEqual(items, ["a"])

    def test_mixed(self) -> None:
        """Both ways of iterating can follow one another."""
        deferator = Deferator(iter("abcd"))
        self.assertEqual(self.successResultOf(deferator.__anext__()), "a")
        self.assertEqual(self.successResultOf(next(deferator)), "b")
        items, d = collect(deferator)
        self.successResultOf(d)
        self.assertEqual(items, ["c", "d"])


class AbandonTests(SynchronousTestCase):
    """Tests of a L{Deferator} that nobody has any longer."""

    def test_released(self) -> None:
        """
        A source at another end is told at once when C{async for} is left and the
        deferator gone, without waiting for garbage to be collected.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        told: list[object] = []
        source = BufferedSource(onStop=lambda: told.append("stop"))

        async def leave(deferator: Deferator[Any]) -> None:
            async for item in deferator:
                if item == "b":
                    break

        d = Deferred.fromCoroutine(leave(Deferator(source)))
        source.push("a")
        self.assertEqual(told, [])
        source.push("bc")
        self.successResultOf(d)
        self.assertEqual(told, ["stop"])

    def test_otherThread(self) -> None:
        """
        The source is told in the reactor's thread, whichever thread collects garbage.
        """
        told: list[object] = []
        calls: list[Callable[[], None]] = []

        class Reactor:
            def callFromThread(self, f: Callable[..., None], *args: Any) -> None:
                calls.append(lambda: f(*args))

        self.patch(_deferator, "globalReactor", Reactor)
        deferator = Deferator(BufferedSource(onStop=lambda: told.append("stop")))
        self.patch(_deferator, "get_ident", lambda: None)
        del deferator
        self.assertEqual(told, [])
        for f in calls:
            f()
        self.assertEqual(told, ["stop"])

    def test_peeked(self) -> None:
        """Who waits to hear whether there's an item has it kept."""
        source = BufferedSource()
        d = Deferator(source).peek()
        gc.collect()
        source.push([1])
        self.assertIs(self.successResultOf(d), True)

    def test_iterator(self) -> None:
        """An iterator that somebody else has can be used on."""
        iterator = Recorder().numbers()
        self.successResultOf(next(Deferator(iterator)))
        self.assertEqual(next(iterator), 2)


class StartingClock(Clock):
    """A clock that says that it doesn't run, as a reactor does before its start."""

    running = False


class EndlessTests(SynchronousTestCase):
    """Tests of what many items that are at hand do to stack and reactor."""

    def setUp(self) -> None:
        """Make a clock that moves 0.1 ms with each item."""
        self.clock = Clock()
        self.count = 0
        self.pushed = 0

    def numbers(self, limit: int | None = None) -> Iterator[int]:
        """Yield numbers while time passes."""
        for i in count() if limit is None else range(limit):
            self.clock.rightNow += 0.0001
            yield i

    def step(self, deferator: Deferator[Any]) -> None:
        """Take one item, and have the callback take the next."""

        def took(_: object) -> None:
            self.count += 1
            self.step(deferator)

        try:
            d = next(deferator)
        except StopIteration:
            return
        d.addCallback(took)

    def test_stack(self) -> None:
        """
        Callbacks that ask for one item after the other don't fill the stack, if all
        items are at hand.
        """
        deferator = Deferator(iter(range(20_000)))
        deferator.reactor = self.clock
        self.step(deferator)
        self.assertEqual(self.count, 20_000)

    def test_stackWhenPushed(self) -> None:
        """Nor do they if the items have been waited for."""
        source = BufferedSource()
        deferator = Deferator(source)
        deferator.reactor = self.clock
        self.step(deferator)
        source.push(range(20_000))
        source.end()
        self.assertEqual(self.count, 20_000)

    def test_stackWhenAsked(self) -> None:
        """Nor do they if each item is pushed because the one before it was taken."""
        source = BufferedSource(lambda _: self.pushOne(source))
        deferator = Deferator(source)
        deferator.reactor = self.clock
        self.step(deferator)
        self.pushOne(source)
        self.assertEqual(self.count, 5_000)

    def pushOne(self, source: BufferedSource) -> None:
        """Push one item, or end after 5,000."""
        self.pushed += 1
        if self.pushed <= 5_000:
            source.push([0])
        else:
            source.end()

    def test_stackWithFunction(self) -> None:
        """Nor do they if a function answers at once."""
        numbers = iter(range(5_000))
        self.step(Deferator(None, lambda: succeed((next(numbers), True, True))))
        self.assertEqual(self.count, 5_000)

    def test_turns(self) -> None:
        """
        Of an endless iterator, callbacks take items for a few milliseconds, then the
        reactor has its turn, and they go on.
        """
        deferator = Deferator(self.numbers())
        deferator.reactor = self.clock
        self.step(deferator)
        first = self.count
        self.assertLess(first, 100)
        self.assertGreater(first, 20)
        self.assertEqual(
            self.clock.getDelayedCalls()[0].getTime(), self.clock.seconds()
        )
        with self.assertRaises(NotReadyError):
            next(deferator)
        self.assertTrue(deferator.moreLeft)
        turnAll(self.clock)
        self.assertGreater(self.count, first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        deferator.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turnsOfCoroutine(self) -> None:
        """So it is with C{async for}."""
        deferator = Deferator(self.numbers(300))
        deferator.reactor = self.clock
        items, d = collect(deferator)
        self.assertNoResult(d)
        turns = 0
        while self.clock.getDelayedCalls():
            turns += 1
            turnAll(self.clock)
        self.successResultOf(d)
        self.assertEqual(items, list(range(300)))
        self.assertGreater(turns, 4)

    def test_turnsWhenPushed(self) -> None:
        """
        So it is with C{async for} if all items are there already, and take their time.
        """
        source = BufferedSource(every=1_000)
        source.push(list(range(100)))
        source.end()
        deferator = Deferator(source)
        deferator.reactor = self.clock
        items: list[int] = []

        async def loop() -> None:
            async for item in deferator:
                self.clock.rightNow += 0.002
                items.append(item)

        d = Deferred.fromCoroutine(loop())
        stretches: list[int] = []
        while not d.called:
            stretches.append(len(items) - sum(stretches))
            turnAll(self.clock)
        self.assertLess(max(stretches), 10)
        self.assertEqual(items, list(range(100)))

    def test_timeOfFastItems(self) -> None:
        """
        When items come fast, the time isn't looked at after each of them, but soon
        enough when they don't any longer.
        """
        looks = []
        seconds = self.clock.seconds

        def look() -> float:
            looks.append(len(items))
            return seconds()

        source = BufferedSource(every=1_000)
        source.push(list(range(1_000)))
        deferator = Deferator(source)
        deferator.reactor = self.clock
        self.patch(self.clock, "seconds", look)
        items: list[int] = []

        async def loop() -> None:
            """Take items, slowly in the end."""
            async for item in deferator:
                items.append(item)
                if item >= 500:
                    self.clock.rightNow += 0.001

        d = Deferred.fromCoroutine(loop())
        self.assertLess(len(looks), 60)
        self.assertNoResult(d)
        self.assertLess(len(items), 525)
        deferator.stop()
        self.successResultOf(d)

    def test_twoLoops(self) -> None:
        """
        While one waits for an item, another mustn't ask for it, nor while one is to be
        handed out after the reactor's turn.
        """
        source = BufferedSource(every=100)
        deferator = Deferator(source)
        deferator.reactor = self.clock
        items, d = collect(deferator)
        self.failureResultOf(collect(deferator)[1], NotReadyError)
        source.push(["a", "b"])
        self.assertEqual(items, ["a", "b"])
        source.end()
        self.successResultOf(d)

    def test_loopGoesOn(self) -> None:
        """A loop goes on where another has left off."""
        source = BufferedSource(every=100)
        source.push(list(range(10)))
        source.end()
        deferator = Deferator(source)
        deferator.reactor = self.clock

        async def first() -> Any:
            async for item in deferator:
                return item
            return None

        taken = [self.successResultOf(Deferred.fromCoroutine(first()))]
        taken.append(self.successResultOf(next(deferator)))
        taken.append(self.successResultOf(deferator.__anext__()))
        items, d = collect(deferator)
        self.successResultOf(d)
        self.assertEqual(taken + items, list(range(10)))

    def test_cancelDuringTurn(self) -> None:
        """
        An item that is held back for the reactor's turn isn't lost if its Deferred is
        cancelled.
        """
        deferator = Deferator(self.numbers())
        deferator.reactor = self.clock
        d = next(deferator)
        expected = 0
        while d.called:
            expected += 1
            d = next(deferator)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        d = next(deferator)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(d), expected)
        deferator.stop()

    def test_lastDuringTurn(self) -> None:
        """
        If it's found out during the reactor's turn that the item that is held back is
        the last, the end isn't told before that is handed out.
        """
        ended: list[bool] = []
        for find in (
            lambda deferator: self.successResultOf(deferator.peek()),
            lambda deferator: deferator.peek() and deferator.moreLeft,
        ):
            deferator = Deferator(self.numbers(2))
            deferator.reactor = self.clock
            deferator.addCallback(ended.append)
            d = deferator.__anext__()
            self.assertEqual(self.successResultOf(d), 0)
            self.clock.rightNow += 0.01
            d = deferator.__anext__()
            self.assertNoResult(d)
            self.assertFalse(find(deferator))
            self.assertEqual(ended, [])
            turnAll(self.clock)
            self.assertEqual(self.successResultOf(d), 1)
            self.assertRaises(StopIteration, next, deferator)
            self.assertTrue(ended.pop())

    def test_noReactorRuns(self) -> None:
        """
        While no reactor runs, as in a test without one, there's no turn for half a
        second. But then there is, for it may be about to be started.
        """
        clock = StartingClock()
        self.clock = clock
        deferator = Deferator(self.numbers())
        deferator.reactor = clock
        self.step(deferator)
        self.assertGreater(self.count, 4_900)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        deferator.stop()


class PrefetcheratorTests(SynchronousTestCase):
    """Tests of L{Prefetcherator}."""

    def setUp(self) -> None:
        """Make one."""
        self.prefetcherator = Prefetcherator("x")

    def assertNext(self, value: object, isValid: bool, moreLeft: bool) -> None:
        """Check the next item."""
        result = self.successResultOf(self.prefetcherator.getNext())
        self.assertEqual(result, (value, isValid, moreLeft))

    def test_ID(self) -> None:
        """It has the ID that it was given, or one of its own."""
        self.assertEqual(self.prefetcherator.ID, "x")
        self.assertEqual(repr(self.prefetcherator), "<Prefetcherator x>")
        other = Prefetcherator()
        self.assertNotEqual(Prefetcherator().ID, other.ID)

    def test_iterator(self) -> None:
        """Each item of an iterator comes along with whether there's another."""
        self.assertTrue(self.successResultOf(self.prefetcherator.setup(iter("ab"))))
        self.assertTrue(self.prefetcherator.isBusy())
        self.assertNext("a", True, True)
        self.assertNext("b", True, False)
        self.assertNext(None, False, False)
        self.assertFalse(self.prefetcherator.isBusy())

    def test_empty(self) -> None:
        """Of an empty iterator, setting up tells that it's empty."""
        self.assertFalse(self.successResultOf(self.prefetcherator.setup(iter(()))))
        self.assertFalse(self.prefetcherator.isBusy())
        self.assertNext(None, False, False)

    def test_notSetUp(self) -> None:
        """Without having been set up it has no items."""
        self.assertFalse(self.prefetcherator.isBusy())
        self.assertEqual(self.prefetcherator.lastFetch, (None, False))
        self.prefetcherator.stop()
        self.assertNext(None, False, False)

    def test_lastFetch(self) -> None:
        """
        C{lastFetch} is the item that has been fetched ahead, and whether there's one.
        """
        self.prefetcherator.setup(iter("ab"))
        self.assertEqual(self.prefetcherator.lastFetch, ("a", True))
        self.assertNext("a", True, True)
        self.assertEqual(self.prefetcherator.lastFetch, ("b", True))
        self.assertNext("b", True, False)
        self.assertEqual(self.prefetcherator.lastFetch, (None, False))

    def test_callable(self) -> None:
        """
        It takes a callable, with arguments, that raises C{IndexError} or
        C{StopIteration} when there are no more.
        """
        letters = ["b", "a"]
        self.prefetcherator.setup(letters.pop, -1)
        self.assertNext("a", True, True)
        self.assertNext("b", True, False)
        self.prefetcherator.setup(iter("c").__next__)
        self.assertNext("c", True, False)

    def test_deferredCallable(self) -> None:
        """
        The callable may return Deferreds. The next item can be asked for before it's
        known whether there's one.
        """
        answers: list[Deferred[str]] = [Deferred(), Deferred()]
        waiting = iter(answers)
        setup = self.prefetcherator.setup(lambda: next(waiting))
        d = self.prefetcherator.getNext()
        self.assertNoResult(setup)
        answers[0].callback("a")
        self.assertTrue(self.successResultOf(setup))
        self.assertNoResult(d)
        self.assertRaises(NotReadyError, self.prefetcherator.getNext)
        answers[1].errback(IndexError())
        self.assertEqual(self.successResultOf(d), ("a", True, False))

    def test_emptyAfterAll(self) -> None:
        """
        Who asked before it was known gets C{(None, False, False)} if there's none.
        """
        answer: Deferred[str] = Deferred()
        setup = self.prefetcherator.setup(lambda: answer)
        d = self.prefetcherator.getNext()
        answer.errback(IndexError())
        self.assertFalse(self.successResultOf(setup))
        self.assertEqual(self.successResultOf(d), (None, False, False))

    def test_fails(self) -> None:
        """An error comes after the items before it."""
        self.assertTrue(
            self.successResultOf(self.prefetcherator.setup(Recorder().failing(1)))
        )
        self.assertNext(0, True, True)
        self.failureResultOf(self.prefetcherator.getNext(), ZeroDivisionError)
        self.assertNext(None, False, False)

    def test_callableFails(self) -> None:
        """So does one of a callable."""
        self.assertTrue(self.successResultOf(self.prefetcherator.setup(lambda: 1 / 0)))
        self.failureResultOf(self.prefetcherator.getNext(), ZeroDivisionError)

    def test_iteratorRaisesIndexError(self) -> None:
        """An C{IndexError} that a generator raises is an error, not its end."""

        def careless() -> Iterator[int]:
            yield 1
            raise IndexError

        self.prefetcherator.setup(careless())
        self.assertNext(1, True, True)
        self.failureResultOf(self.prefetcherator.getNext(), IndexError)

    def test_busy(self) -> None:
        """
        It can't be set up again before its iteration is over, or has been stopped, and
        says so.
        """
        recorder = Recorder()
        self.prefetcherator.setup(recorder.numbers())
        self.assertFalse(self.successResultOf(self.prefetcherator.setup(iter("a"))))
        self.assertEqual(self.prefetcherator.lastFetch, (0, True))
        self.prefetcherator.stop()
        self.assertEqual(recorder.closed, 1)
        self.assertTrue(self.successResultOf(self.prefetcherator.setup(iter("a"))))
        self.assertNext("a", True, False)

    def test_neither(self) -> None:
        """What is neither an iterator nor callable isn't taken."""
        things: list[Any] = [None, 5, "xyz", (1, 2), [3], {}]
        for neither in things:
            d = self.prefetcherator.setup(neither)
            self.assertFalse(self.successResultOf(d))
        self.assertFalse(self.successResultOf(self.prefetcherator.setup()))
        self.assertFalse(self.prefetcherator.isBusy())
