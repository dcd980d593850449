"""Tests of L{asynqueue._child.calls}."""

from __future__ import annotations

import io
import subprocess
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child import calls as _calls
from asynqueue._child.calls import CallRunner, isIteration, isIterator, o2p, p2o
from asynqueue._child.status import ErrorText, Status


def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


def generate(n: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(n)


def throw(error: BaseException) -> None:
    """Raise an exception."""
    raise error


class Counter:
    """An iterator of one's own."""

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> int:
        return 1


class Refusing:
    """An object that fails at whatever it's asked."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no equality")

    def __getattr__(self, name: str) -> Any:
        raise ValueError("no attributes")

    __hash__ = None  # type: ignore[assignment]


class PicklingTests(SynchronousTestCase):
    """Tests of L{o2p} and L{p2o}."""

    def test_roundTrip(self) -> None:
        """Objects come back as what they were, empty containers too."""
        values: list[Any] = [[], (), {}, set(), "", b"", 0, None, [1, {"a": (2,)}], add]
        for value in values:
            with self.subTest(value=value):
                back = p2o(o2p(value), defaultObj="the default")
                self.assertEqual(back, value)
                self.assertIs(type(back), type(value))

    def test_emptyIsDefault(self) -> None:
        """Empty bytes, as other peers send them, are the default."""
        self.assertIsNone(p2o(b""))
        self.assertEqual(p2o(b"", defaultObj=[]), [])

    def test_noTruthAsked(self) -> None:
        """
        Objects whose truth is ambiguous, such as arrays, are pickled like all else.
        """
        self.assertIsInstance(p2o(o2p(Refusing())), Refusing)

    def test_otherBuffers(self) -> None:
        """A pickle may be in any object like bytes."""
        self.assertEqual(p2o(memoryview(o2p([1]))), [1])  # type: ignore[arg-type]
        self.assertEqual(p2o(bytearray(o2p([1]))), [1])  # type: ignore[arg-type]


class IsIteratorTests(SynchronousTestCase):
    """Tests of L{isIterator}."""

    def test_iterators(self) -> None:
        """
        Generators, and objects with both C{__iter__} and C{__next__}, are iterators.
        """
        for value in (
            generate(1),
            iter([1]),
            map(str, [1]),
            Counter(),
            io.StringIO("line"),
        ):
            with self.subTest(value=value):
                self.assertIs(isIterator(value), True)

    def test_others(self) -> None:
        """Containers, strings, Deferreds and all the rest aren't."""
        values: list[Any] = [
            None,
            1,
            "a",
            b"a",
            bytearray(b"a"),
            memoryview(b"a"),
            [1],
            (1,),
            {1: 1},
            {1},
            frozenset([1]),
            range(3),
            OrderedDict(),
            deque([1]),
            Deferred(),
            Counter,
        ]
        for value in values:
            with self.subTest(value=value):
                self.assertIs(isIterator(value), False)

    def test_containerThatIterates(self) -> None:
        """A list is a list, even if a subclass has C{__next__}."""

        class Odd(list[int]):
            def __next__(self) -> int:
                return 1

        self.assertIs(isIterator(Odd()), False)

    def test_deferredThatIterates(self) -> None:
        """A Deferred is never an iterator, even if a subclass has both methods."""

        class Odd(Deferred[int]):
            def __iter__(self) -> Any:
                return self

            def __next__(self) -> int:
                return 1

        self.assertIs(isIterator(Odd()), False)

    def test_refusing(self) -> None:
        """Objects that fail at whatever they're asked aren't asked."""
        self.assertIs(isIterator(Refusing()), False)

    def test_refusingClass(self) -> None:
        """Nor are those whose class fails at whatever it's asked."""

        class Meta(type):
            def __getattr__(cls, name: str) -> Any:
                raise ValueError(name)

        class Odd(metaclass=Meta):
            pass

        self.assertIs(isIterator(Odd()), False)
        self.assertIs(isIteration(Odd()), False)

    def test_generatorFunction(self) -> None:
        """A generator function is one too, but as the result of a call it's a value."""
        self.assertIs(isIterator(generate), True)
        self.assertIs(isIteration(generate), False)
        self.assertIs(isIterator(len), False)
        self.assertEqual(CallRunner()((lambda: generate, (), {})), (b"r", generate))

    def test_blocked(self) -> None:
        """A class that says it has no C{__next__} isn't one of iterators."""

        class Blocked(Counter):
            __next__ = None  # type: ignore[assignment]

        self.assertIs(isIterator(Blocked()), False)


class RunTests(SynchronousTestCase):
    """Tests of L{CallRunner} without a reactor."""

    def failed(self, f: Any, *args: Any, **kw: Any) -> ErrorText:
        """Run a call that fails. Returns the text."""
        status, text = CallRunner()((f, args, kw))
        self.assertIs(status, Status.ERROR)
        self.assertIsInstance(text, ErrorText)
        assert isinstance(text, ErrorText)
        return text

    def test_result(self) -> None:
        """What was returned comes with the status for that."""
        self.assertEqual(CallRunner()((add, (1,), {"b": 2})), (b"r", 3))

    def test_none(self) -> None:
        """C{None} is a result like any other."""
        self.assertEqual(CallRunner()((print, (), {"end": ""})), (b"r", None))

    def test_iterator(self) -> None:
        """An iterator comes as it is, not begun, with the status for that."""
        iterator = generate(3)
        status, result = CallRunner()((lambda: iterator, (), {}))
        self.assertIs(status, Status.ITERATOR)
        self.assertIs(result, iterator)
        self.assertEqual(list(result), [0, 1, 2])

    def test_rawIterator(self) -> None:
        """A runner that is C{raw} has iterators as results."""
        iterator = generate(3)
        status, result = CallRunner(raw=True)((lambda: iterator, (), {}))
        self.assertIs(status, Status.RAN)
        self.assertIs(result, iterator)

    def test_rawKeyword(self) -> None:
        """
        A keyword C{raw} overrides that, and never reaches the callable. The call's
        keywords are left as they are.
        """
        for raw, status in ((True, Status.RAN), (False, Status.ITERATOR)):
            kw = {"raw": raw, "x": 1}
            outcome, result = CallRunner(not raw)((lambda **kw: iter(kw), (), kw))
            self.assertIs(outcome, status)
            self.assertEqual(list(result), ["x"])
            self.assertEqual(kw, {"raw": raw, "x": 1})

    def test_hostileTraceback(self) -> None:
        """
        An exception that doesn't let its traceback be looked at is told all the same.
        """

        class Odd(Exception):
            @property
            def __traceback__(self) -> Any:  # type: ignore[override] # hostile
                raise SystemExit

        error = Odd("boom")
        text = self.failed(throw, error)
        self.assertIs(text.exception, error)
        self.assertTrue(text.startswith("Exception 'boom' (Odd) in throw"))

    def test_error(self) -> None:
        """
        An exception becomes text that has its message, the call and the traceback, and
        carries the exception.
        """
        error = ValueError("see http://x:80")
        text = self.failed(throw, error)
        self.assertTrue(text.startswith("Exception 'see http://x:80' (ValueError) in "))
        self.assertIn("throw(ValueError('see http://x:80'))", text)
        self.assertIn("in throw\n    raise error", text)
        self.assertIs(text.exception, error)

    def test_traceback(self) -> None:
        """The traceback begins where the callable does."""
        text = self.failed(throw, ValueError())
        assert text.exception is not None and text.exception.__traceback__ is not None
        frame = text.exception.__traceback__.tb_frame
        self.assertEqual(frame.f_code.co_name, "throw")
        self.assertNotIn("asynqueue/_calls.py", text)

    def test_wrongArguments(self) -> None:
        """A call that can't be made is an error like those of the callable."""
        for f, args, kw in (
            (add, (), {}),
            (5, (), {}),
            (add, None, {}),
            (add, (1,), {1: 2}),
        ):
            with self.subTest(f=f, args=args, kw=kw):
                status, text = CallRunner()((f, args, kw))
                self.assertIs(status, Status.ERROR)
                self.assertIsInstance(text.exception, TypeError)

    def test_exits(self) -> None:
        """
        What would end the program or the thread is an error, whose class is named.
        """
        for error in (
            SystemExit(),
            KeyboardInterrupt(),
            GeneratorExit(),
            BaseException(),
        ):
            with self.subTest(error=error):
                text = self.failed(throw, error)
                self.assertTrue(
                    text.startswith(f"Exception '' ({type(error).__name__}) in throw(")
                )
                self.assertIs(text.exception, error)

    def test_stopIteration(self) -> None:
        """
        C{StopIteration} comes as the cause of an exception that doesn't end the
        iterations of others.
        """
        text = self.failed(next, iter([]))
        self.assertTrue(text.startswith("Exception '' (StopIteration) in next("))
        error = text.exception
        assert error is not None
        self.assertIs(type(error), RuntimeError)
        self.assertIn("StopIteration", str(error))
        self.assertIsInstance(error.__cause__, StopIteration)

        async def wait() -> None:
            await fail(error)

        self.failureResultOf(Deferred.fromCoroutine(wait()), RuntimeError)

    def test_hostileArguments(self) -> None:
        """An error can be told whatever the arguments are like."""
        text = self.failed(
            lambda *args: throw(ValueError("boom")),
            {1: 1, "a": 2},
            Refusing(),
            "x" * 10**7,
        )
        self.assertTrue(text.startswith("Exception 'boom' (ValueError) in <lambda>("))
        self.assertLess(len(text), 5_000)

    def test_hostileException(self) -> None:
        """An error can be told even if the exception can't tell its message."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

        self.assertIn("(Mute) in throw(", self.failed(throw, Mute()))

    def test_deferredIsResult(self) -> None:
        """Without a reactor, nobody waits for Deferreds."""
        d: Deferred[int] = Deferred()
        status, result = CallRunner()((lambda: d, (), {}))
        self.assertIs(status, Status.RAN)
        self.assertIs(result, d)

    def test_nothingHeld(self) -> None:
        """Once the pair is gone, nothing of a failed call is held."""

        class Argument:
            """Something that can be referred to weakly."""

        argument = Argument()
        reference = weakref.ref(argument)
        pair = CallRunner()((throw, (ValueError(), argument), {}))
        del pair, argument
        self.assertIsNone(reference())


class StatsTests(SynchronousTestCase):
    """Tests of L{CallRunner.callTimes}."""

    def setUp(self) -> None:
        """Have the time stand still."""
        self.clock = Clock()
        self.patch(_calls, "perf_counter", self.clock.seconds)

    def test_times(self) -> None:
        """The seconds of each call are appended, those of failed ones too."""

        def fails() -> None:
            self.clock.advance(2)
            raise ValueError

        run = CallRunner(callStats=True)
        run((self.clock.advance, (3,), {}))
        run((fails, (), {}))
        self.assertEqual(run.callTimes, [3, 2])

    def test_notWanted(self) -> None:
        """Without C{callStats}, there's an empty list."""
        run = CallRunner()
        run((self.clock.advance, (3,), {}))
        self.assertEqual(run.callTimes, [])

    def test_deferred(self) -> None:
        """A call that returns a Deferred takes until that fires, or fails."""
        run = CallRunner(callStats=True, reactor=self.clock)
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        run((lambda: first, (), {}))
        run((lambda: second, (), {}))
        self.clock.advance(4)
        second.callback(None)
        self.assertEqual(run.callTimes, [4])
        self.clock.advance(1)
        first.errback(ValueError())
        self.assertEqual(run.callTimes, [4, 5])


class ReactorTests(SynchronousTestCase):
    """Tests of L{CallRunner} with a reactor."""

    def setUp(self) -> None:
        """Make a runner."""
        self.run_ = CallRunner(reactor=Clock())

    def test_deferred(self) -> None:
        """A Deferred that the callable returns is waited for."""
        d: Deferred[int] = Deferred()
        pair = self.run_((lambda: d, (), {}))
        self.assertNoResult(pair)
        d.callback(7)
        self.assertEqual(self.successResultOf(pair), (b"r", 7))

    def test_deferredIterator(self) -> None:
        """An iterator may come by way of a Deferred."""
        pair = self.successResultOf(self.run_((lambda: succeed(generate(2)), (), {})))
        self.assertIs(pair[0], Status.ITERATOR)
        self.assertEqual(list(pair[1]), [0, 1])

    def test_failure(self) -> None:
        """
        A Deferred that fails comes to an error, which carries exception and failure.
        """
        failure = Failure(ValueError("boom"))
        pair = self.run_((lambda: fail(failure), (), {}))
        status, text = self.successResultOf(pair)
        self.assertIs(status, Status.ERROR)
        self.assertTrue(text.startswith("Exception 'boom' (ValueError) in <lambda>()"))
        self.assertIs(text.exception, failure.value)
        self.assertIs(text.failure, failure)

    def test_stopIteration(self) -> None:
        """A Deferred may fail with C{StopIteration}, too."""
        pair = self.run_((lambda: fail(StopIteration()), (), {}))
        status, text = self.successResultOf(pair)
        self.assertIs(status, Status.ERROR)
        self.assertIs(type(text.exception), RuntimeError)
        self.assertIsNone(text.failure)

    def test_cancelled(self) -> None:
        """Cancelling the Deferred of the pair cancels what the callable waits for."""
        cancelled: list[Deferred[None]] = []
        d: Deferred[None] = Deferred(cancelled.append)
        pair = self.run_((lambda: d, (), {}))
        pair.cancel()
        self.assertEqual(cancelled, [d])
        self.assertIsInstance(self.successResultOf(pair)[1].exception, CancelledError)

    def test_coroutine(self) -> None:
        """A coroutine is waited for as well."""
        d: Deferred[int] = Deferred()

        async def later() -> int:
            return await d

        pair = self.run_((later, (), {}))
        self.assertNoResult(pair)
        d.callback(7)
        self.assertEqual(self.successResultOf(pair), (b"r", 7))

    def test_immediate(self) -> None:
        """What isn't a Deferred comes at once, errors too."""
        self.assertEqual(self.run_((add, (1, 2), {})), (b"r", 3))
        self.assertEqual(self.run_((add, (), {}))[0], b"e")


class ImportTests(SynchronousTestCase):
    """Tests of what the module needs."""

    def test_withoutTwisted(self) -> None:
        """Calls are run, and errors told, without Twisted, zope or attrs."""
        program = (
            "import sys\n"
            "from asynqueue._child.calls import CallRunner, o2p\n"
            "run = CallRunner()\n"
            "print(run((pow, (2, 3), {}))[1], run((iter, ([],), {}))[0].value,"
            " run((int, ('x',), {}))[1].exception)\n"
            "print({'twisted', 'zope', 'attr', 'attrs'} & set(sys.modules))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        self.assertEqual(
            done.stdout.splitlines(),
            ["8 b'i' invalid literal for int() with base 10: 'x'", "set()"],
        )
