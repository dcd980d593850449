"""
Tests of L{asynqueue.threads._jobs}, C{_calls}, and C{_looper}, with threads that exist
in the mind only.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue._child.calls import isIterator
from asynqueue._child.status import Status
from asynqueue.errors import ThreadError
from asynqueue.iteration import Deferator, IterationProducer, ListConsumer
from asynqueue.threads._jobs import Job, JobThread
from asynqueue.threads._looper import ThreadLooper

from ._fakethreads import ThreadCase, ThreadReactor

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Thing(Job):
    """A job that notes what is done with it."""

    def __init__(self, notes: list[Any], name: Any) -> None:
        self.error = None
        self.finished = False
        self.notes = notes
        self.name = name

    def work(self) -> None:
        """Implement L{Job.work}."""
        self.notes.append(("work", self.name))

    def deliver(self) -> None:
        """Implement L{Job.deliver}."""
        self.notes.append(self.name)


class JobThreadTests(SynchronousTestCase):
    """Tests of L{JobThread}."""

    def setUp(self) -> None:
        """Start a thread."""
        self.reactor = ThreadReactor()
        self.reactor.threads.install(self)
        self.thread = JobThread(self.reactor)
        self.notes: list[Any] = []

    def thing(self, name: Any) -> Thing:
        """Make a job."""
        return Thing(self.notes, name)

    def worked(self) -> list[Any]:
        """
        Let things happen. Returns the names of jobs in the order in which they were
        done.
        """
        self.reactor.settle()
        return [note[1] for note in self.notes if isinstance(note, tuple)]

    def test_wakeUp(self) -> None:
        """The reactor is woken up once for all results that come before its turn."""
        for i in range(100):
            self.thread.put(self.thing(i))
        self.reactor.threads.run()
        self.assertEqual(self.reactor.wakeUps, 1)
        self.reactor.turn()
        self.assertEqual(self.notes[100:], list(range(100)))
        self.thread.post(lambda: None)
        self.assertEqual(self.reactor.wakeUps, 2)

    def test_meanwhile(self) -> None:
        """What is posted while results are delivered is not left behind."""
        self.thread.post(lambda: self.thread.post(lambda: self.notes.append(2)))
        self.reactor.turn()
        self.assertEqual(self.notes, [2])

    def test_turns(self) -> None:
        """The reactor has its turn every few milliseconds."""

        def slow(i: int) -> None:
            self.reactor.rightNow += 0.001
            self.notes.append(i)

        for i in range(64):
            self.thread.post(partial(slow, i))
        self.reactor._calls.popleft()[0]()
        self.assertLess(len(self.notes), 64)
        while len(self.notes) < 64:
            self.reactor.turn()
        self.assertEqual(self.notes, list(range(64)))
        self.assertEqual(self.reactor.wakeUps, 1)

    def test_badResult(self) -> None:
        """A result that can't be delivered doesn't hold up those behind it."""
        self.thread.post(lambda: self.notes[0])
        self.thread.post(lambda: self.notes.append("next"))
        self.reactor.turn()
        self.assertEqual(self.notes, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)

    def test_badJob(self) -> None:
        """Nothing that a job raises ends the thread. It's delivered with its error."""
        job = self.thing(1)
        self.patch(job, "work", lambda: sys.exit(3))
        self.thread.put(job)
        self.thread.put(self.thing(2))
        self.assertEqual(self.worked(), [2])
        self.assertEqual(self.notes[1:], [1, 2])
        self.assertIsInstance(job.error, SystemExit)

    def test_order(self) -> None:
        """
        Jobs are done in their order, then delivered in the same. Those to be done
        first are, in order among themselves, but never before one that came while
        there was nothing to do.
        """
        for name, first in (("idle", False), (1, False), ("A", True), ("B", True)):
            self.thread.put(self.thing(name), first)
        self.assertTrue(self.thread.isWanted())
        self.assertEqual(self.worked(), ["idle", "A", "B", 1])
        self.assertEqual(self.notes[4:], ["idle", "A", "B", 1])
        self.assertFalse(self.thread.isWanted())

    def test_cancel(self) -> None:
        """A job that is cancelled before it was begun isn't done."""
        jobs = [self.thing(i) for i in range(3)]
        for job in jobs:
            self.thread.put(job, first=job is jobs[2])
        for job in (jobs[0], jobs[2], jobs[0]):
            self.thread.cancel(job)
        self.assertEqual(self.worked(), [1])

    def test_abandon(self) -> None:
        """When the thread is abandoned, another does what waits, in the same order."""
        jobs = [self.thing(i) for i in range(4)]

        def stuck() -> None:
            for job in jobs:
                self.thread.put(job, first=job is jobs[2])
            self.thread.cancel(jobs[1])
            self.thread.cancel(first, abandon=True)
            self.assertEqual(self.worked(), [2, 0, 3])

        first = self.thing("stuck")
        self.patch(first, "work", stuck)
        self.thread.put(first)
        self.assertEqual(self.worked(), [2, 0, 3])
        self.assertEqual(self.thread.abandoned, 1)
        self.assertEqual(len(self.reactor.threads.alive), 1)

    def test_again(self) -> None:
        """A job may be given again when it's done."""
        job = self.thing(1)
        for _ in range(2):
            self.thread.put(job)
            self.reactor.settle()
            self.thread.jobs.clear()
        self.assertEqual(self.worked(), [1, 1])

    def test_stop(self) -> None:
        """
        The thread ends after what it was given. It's told when it has really ended.
        """
        job = self.thing(1)
        self.thread.put(job)
        d = self.thread.stop()
        self.worked()
        self.assertNoResult(d)
        del self.thread.jobs[job]
        self.thread.post(lambda: None)
        self.assertEqual(self.worked(), [1])
        self.successResultOf(d)
        self.assertEqual(self.reactor.threads.alive, [])
        self.assertEqual(self.reactor.threads.joined, 1)

    def test_letsGo(self) -> None:
        """A thread that waits holds none of its jobs."""
        for first in (False, True):
            job = self.thing(1)
            reference = weakref.ref(job)
            self.thread.put(job, first)
            del job
            self.worked()
            self.thread.jobs.clear()
            gc.collect()
            self.assertIsNone(reference())


class LooperCase(ThreadCase):
    """A looper with a thread of the mind."""

    def setUp(self) -> None:
        """Make a looper."""
        super().setUp()
        self.looper = self.newLooper()

    def newLooper(self, **kw: Any) -> ThreadLooper:
        """Make a looper."""
        return ThreadLooper(reactor=self.reactor, **kw)

    def taken(self, deferator: Deferator[Any]) -> list[Any]:
        """Take all items. An exception that is raised is the last."""
        items: list[Any] = []

        async def take() -> None:
            try:
                async for item in deferator:
                    items.append(item)  # noqa: PERF401 - some come before an error
            except Exception as error:  # noqa: BLE001 - whatever it was
                items.append(error)

        d = Deferred.fromCoroutine(take())
        self.resultOf(d)
        return items


class CallTests(LooperCase):
    """Tests of calls."""

    def test_result(self) -> None:
        """The Deferred fires with what the callable returns in the thread."""
        d = self.looper.deferToThread(lambda *args, **kw: (args, kw), 1, x=2)
        self.assertNoResult(d)
        self.assertEqual(self.resultOf(d), ((1,), {"x": 2}))

    def test_raises(self) -> None:
        """
        It fails with the very exception that is raised, whose traceback begins in the
        callable.
        """
        error = KeyError("k")

        def f() -> None:
            raise error

        failure = self.looper.deferToThread(f)
        self.reactor.settle()
        value = self.failureResultOf(failure, KeyError).value
        self.assertIs(value, error)
        self.assertIs(value.__traceback__.tb_frame.f_code, f.__code__)

    def test_exits(self) -> None:
        """Nor does C{SystemExit} end the thread."""
        d = self.looper.deferToThread(exec, "raise SystemExit(3)")
        self.assertEqual(self.failureOf(d, SystemExit).code, 3)
        self.assertEqual(self.resultOf(self.looper.deferToThread(self.note, 1)), 1)

    def test_wrapped(self) -> None:
        """
        Where it's wished, it fails with L{ThreadError} and text about the call, the
        exception being the cause.
        """
        calls = [
            self.looper.deferToThread(self.divide, 1, returnFailure=True),
            self.newLooper(returnFailure=True).deferToThread(self.divide, 1),
        ]
        for d in calls:
            error = self.failureOf(d, ThreadError)
            self.assertIn("divide(1)", str(error))
            self.assertIsInstance(error.__cause__, ZeroDivisionError)
        own = self.newLooper(returnFailure=True)
        self.failureOf(
            own.deferToThread(self.divide, 1, returnFailure=False), ZeroDivisionError
        )

    @staticmethod
    def divide(x: Any) -> None:
        """Raise an exception."""
        raise ZeroDivisionError

    def test_stopIteration(self) -> None:
        """
        C{StopIteration} stays what it is, so that functions that raise it for the end
        can be iterated over.
        """
        iterator = iter([1, 2])
        deferator = Deferator("rep", self.nextOf, iterator)
        self.assertEqual(self.taken(deferator), [1, 2])

    def nextOf(self, iterator: Iterator[Any]) -> Deferred[Any]:
        """Get the next item by way of the thread."""
        d = self.looper.deferToThread(iterator.__next__)
        return d.addCallback(lambda item: (item, True, True))

    def test_pair(self) -> None:
        """
        C{call} gives status and result, and text for an exception. C{StopIteration}
        comes as the cause of an exception that can be raised anywhere.
        """
        self.assertEqual(self.resultOf(self.looper.call(self.note, 1)), (Status.RAN, 1))
        status, text = self.resultOf(self.looper.call(self.divide, {1: 1, "a": 2}))
        self.assertEqual(status, Status.ERROR)
        self.assertTrue(text.startswith("Exception '"))
        self.assertIn("divide({1: 1, 'a': 2})", text)
        self.assertIsInstance(text.exception, ZeroDivisionError)
        status, text = self.resultOf(self.looper.call(next, iter(())))
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, RuntimeError)
        self.assertIsInstance(text.exception.__cause__, StopIteration)

    def test_order(self) -> None:
        """
        Calls are made one after the other, those that are to be next before those that
        wait, but not before one that came when the thread had nothing to do.
        """
        for _ in range(2):
            for i in range(3):
                self.looper.deferToThread(self.note, i)
            self.looper.deferToThread(self.note, "next", doNext=True)
            self.reactor.settle()
        self.assertEqual(self.notes, [0, "next", 1, 2] * 2)

    def test_wakeUp(self) -> None:
        """The reactor is woken up once for many results."""
        calls = [self.looper.deferToThread(self.note, i) for i in range(1_000)]
        self.threads.run()
        self.assertEqual(self.reactor.wakeUps, 1)
        self.reactor.settle()
        self.assertEqual([self.successResultOf(d) for d in calls], self.notes)

    def test_context(self) -> None:
        """
        Context variables have the values that they had where the call was asked for,
        also while items are made. What a call sets is its own.
        """

        def generate() -> Iterator[str]:
            yield variable.get()
            yield variable.get()

        token = variable.set("asked")
        d = self.looper.deferToThread(variable.get)
        items = self.looper.deferToThread(generate)
        variable.reset(token)
        self.looper.deferToThread(variable.set, "in the call")
        self.assertEqual(self.resultOf(d), "asked")
        self.assertEqual(self.taken(self.resultOf(items)), ["asked", "asked"])
        self.assertEqual(variable.get(), "unset")
        d = self.looper.deferToThread(variable.get)
        self.assertEqual(self.resultOf(d), "unset")

    def test_deferred(self) -> None:
        """Should a callable return a Deferred, it's waited for."""
        inner: Deferred[int] = Deferred()
        d = self.looper.deferToThread(lambda: inner)
        self.reactor.settle()
        self.assertNoResult(d)
        inner.callback(3)
        self.assertEqual(self.resultOf(d), 3)

    def test_cancelWaiting(self) -> None:
        """A call that is cancelled while it waits isn't made."""
        d = self.looper.deferToThread(self.note, 1)
        d.cancel()
        self.failureOf(d, CancelledError)
        self.assertEqual(self.notes, [])
        self.assertEqual(self.resultOf(self.looper.deferToThread(self.note, 2)), 2)

    def test_cancelRunning(self) -> None:
        """
        When the thread is at the call, the result is dropped, and no thread abandoned.
        """
        calls: list[Deferred[Any]] = []
        calls.append(self.looper.deferToThread(lambda: calls[0].cancel()))
        self.failureOf(calls[0], CancelledError)
        self.assertEqual(self.looper.abandoned, 0)

    def test_cancelDone(self) -> None:
        """So it is when the result is on its way."""
        d = self.looper.deferToThread(self.note, 1)
        self.threads.run()
        d.cancel()
        self.failureOf(d, CancelledError)
        self.assertEqual(self.notes, [1])

    def test_keywords(self) -> None:
        """
        All keywords but ours reach the callable, also those that are parameters here.
        """
        kw = {"f": 1, "func": 2, "self": 3}
        self.assertEqual(self.resultOf(self.looper.deferToThread(dict, **kw)), kw)
        pair = self.resultOf(self.looper.call(dict, doNext=True, **kw))
        self.assertEqual(pair, (Status.RAN, kw))

    def test_coroutine(self) -> None:
        """
        Asynchronous functions are refused in words: a thread can't await anything.
        """

        async def f() -> None:
            raise AssertionError

        async def g() -> AsyncIterator[int]:
            yield 1

        for kw in ({}, {"raw": True}):
            for called, text in ((f, "f returned a coroutine"), (g, "g.*generator")):
                d = self.looper.deferToThread(called, **kw)
                error = self.failureOf(d, TypeError)
                self.assertRegex(str(error), f"{text}.*AsyncWorker")
        self.assertEqual(self.resultOf(self.looper.deferToThread(self.note, 1)), 1)

    def test_hostile(self) -> None:
        """Whatever a result or an exception is like, it harms its own call alone."""

        class Meta(type):
            def __getattr__(cls, name: str) -> Any:
                raise SystemExit

            def __hash__(cls) -> int:
                raise SystemExit

        class Odd(metaclass=Meta):
            pass

        def refuse(self: Any) -> Any:
            raise SystemExit

        names = ("__class__", "__str__", "__traceback__", "with_traceback")
        Bad: Any = type("Bad", (Exception,), dict.fromkeys(names, property(refuse)))

        def raiseBad() -> None:
            raise Bad

        def generateBad() -> Iterator[int]:
            yield 1
            raise Bad

        class Refusing:
            def __getattribute__(self, name: str) -> Any:
                raise SystemExit

        def generateOdd() -> Iterator[Any]:
            yield 1
            yield Refusing()

        for f in (Odd, Refusing, raiseBad):
            for method in (self.looper.call, self.looper.deferToThread):
                d = method(f)
                self.reactor.settle()
                self.assertTrue(d.called)
                d.addErrback(lambda _: None)
        for generator in (generateBad, generateOdd):
            deferator = self.resultOf(self.looper.deferToThread(generator))
            self.assertEqual(self.resultOf(deferator.__anext__()), 1)
            self.reactor.settle()
            self.failureResultOf(deferator.__anext__())
        self.assertEqual(self.resultOf(self.looper.deferToThread(self.note, 1)), 1)
        self.resultOf(self.looper.stop())

    def test_hostileMethod(self) -> None:
        """An exception is what is told, whatever its class makes of its methods."""

        class Bad(Exception):
            def with_traceback(self, tb: Any) -> Any:
                raise SystemExit

        def f() -> None:
            raise Bad

        self.failureOf(self.looper.deferToThread(f), Bad)

    def test_hostileClose(self) -> None:
        """Nor does an iterator that can't even be asked whether it can be closed."""

        class Endless:
            def __iter__(self) -> Endless:
                return self

            def __next__(self) -> int:
                return 1

            def __getattr__(self, name: str) -> Any:
                raise SystemExit

        deferator = self.resultOf(self.looper.deferToThread(Endless))
        deferator.stop()
        self.resultOf(self.looper.stop())
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_notCallable(self) -> None:
        """What can't be called is refused at once."""
        for method in (self.looper.call, self.looper.deferToThread):
            with self.assertRaisesRegex(TypeError, "which 7 isn't"):
                method(7)  # type: ignore[arg-type]

    def test_noThread(self) -> None:
        """That no thread can be started is told at once."""
        self.threads.most = len(self.threads.names)
        with self.assertRaisesRegex(ThreadError, "can't start new thread"):
            self.newLooper()

    def test_letsGo(self) -> None:
        """When a call has been made, nothing holds its arguments or its result."""

        class Big:
            """Something that is big."""

        big = Big()
        reference = weakref.ref(big)
        d = self.looper.deferToThread(lambda x: x, big)
        del big
        self.reactor.settle()
        self.assertIsNotNone(self.successResultOf(d))
        del d
        gc.collect()
        self.assertIsNone(reference())


class IterationTests(LooperCase):
    """Tests of iterators that calls return."""

    def test_items(self) -> None:
        """They come as Deferators of all their items."""
        items = list(range(100))
        d = self.looper.deferToThread(self.generate, *items)
        deferator = self.resultOf(d)
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual(self.taken(deferator), items)
        self.assertEqual(self.notes[-1], "end")

    def test_firstInThread(self) -> None:
        """Nothing of them is made in the reactor's thread, the first item neither."""
        d = self.looper.deferToThread(self.generate, 1, 2)
        self.reactor.turn()
        self.assertEqual(self.notes, [])
        self.threads.run()
        self.assertEqual(self.notes, [1])
        self.reactor.turn()
        deferator = self.successResultOf(d)
        first = deferator.__anext__()
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.notes, [1])

    def test_empty(self) -> None:
        """One without items comes as an empty list."""
        self.assertEqual(self.resultOf(self.looper.deferToThread(self.generate)), [])
        pair = self.resultOf(self.looper.call(self.generate))
        self.assertEqual(pair, (Status.ITERATOR, []))

    def test_raises(self) -> None:
        """
        What is raised along the way comes after the items before it, and at once if
        there are none.
        """
        error = ValueError("v")
        d = self.looper.deferToThread(self.generate, 1, 2, 3, error)
        self.assertEqual(self.taken(self.resultOf(d)), [1, 2, 3, error])
        d = self.looper.deferToThread(self.generate, error)
        self.assertEqual(self.taken(self.resultOf(d)), [error])

    def test_raw(self) -> None:
        """Iterators come as they are if that's wished."""
        for looper, kw in (
            (self.looper, {"raw": True}),
            (self.newLooper(raw=True), {}),
        ):
            d = looper.deferToThread(self.generate, 1, **kw)
            iterator = self.resultOf(d)
            self.assertTrue(isIterator(iterator))
            self.assertEqual(list(iterator), [1])

    def test_window(self) -> None:
        """No more than a few items are made that nobody has taken."""
        d = self.looper.deferToThread(self.generate, *range(1_000))
        deferator = self.resultOf(d)
        self.reactor.settle()
        self.assertEqual(len(self.notes), 16)
        for i in range(100):
            self.assertEqual(self.resultOf(deferator.__anext__()), i)
            self.assertLessEqual(len(self.notes) - i, 18)

    def test_wakeUps(self) -> None:
        """Several items come with one wake-up."""
        d = self.looper.deferToThread(self.generate, *range(320))
        deferator = self.resultOf(d)
        before = self.reactor.wakeUps
        self.taken(deferator)
        self.assertLess(self.reactor.wakeUps - before, 100)

    def test_turns(self) -> None:
        """While items of one iteration are made, other calls have their turn."""

        def slowly() -> Iterator[int]:
            for i in range(10):
                ticks.append(1)
                yield i

        ticks: list[int] = []
        times = iter(range(1_000))
        self.patch(
            __import__("asynqueue.threads._calls", fromlist=["x"]),
            "perf_counter",
            lambda: next(times),
        )
        self.resultOf(self.looper.deferToThread(slowly))
        ticks.clear()
        deferator = self.resultOf(self.looper.deferToThread(slowly))
        self.looper.deferToThread(lambda: self.note(len(ticks)))
        ticks.clear()
        self.taken(deferator)
        self.assertLess(self.notes[0], 5)

    def test_stop(self) -> None:
        """A Deferator that is stopped has the generator closed in the thread."""
        d = self.looper.deferToThread(self.generate, *range(1_000))
        deferator = self.resultOf(d)
        deferator.stop()
        self.assertNotIn("end", self.notes)
        self.reactor.settle()
        self.assertEqual(self.notes[-1], "end")
        self.assertLess(len(self.notes), 20)

    def test_stopWhileMaking(self) -> None:
        """So it is when the thread is just making an item."""

        def generate() -> Iterator[int]:
            try:
                yield 1
                yield 2
                deferators[0].stop()
                yield 3
                self.notes.append("too many")
            finally:
                self.notes.append("end")

        deferators = [self.resultOf(self.looper.deferToThread(generate))]
        self.reactor.settle()
        self.assertEqual(self.notes, ["end"])

    def test_forgotten(self) -> None:
        """One that nobody has any longer is closed, too."""
        d = self.looper.deferToThread(self.generate, *range(1_000))
        self.reactor.settle()
        self.assertNotIn("end", self.notes)
        self.successResultOf(d)
        del d
        gc.collect()
        self.reactor.settle()
        self.assertEqual(self.notes[-1], "end")

    def test_closingRaises(self) -> None:
        """What is raised when it's closed is logged."""

        def generate() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise KeyError

        deferator = self.resultOf(self.looper.deferToThread(generate))
        deferator.stop()
        self.reactor.settle()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_cancelled(self) -> None:
        """
        When the call is cancelled, the iterator is closed in the thread, whether the
        first item is being made or is on its way, with a consumer or without.
        """
        for kw in ({}, {"consumer": ListConsumer()}):
            self.notes.clear()
            d = self.looper.deferToThread(self.generate, 1, 2, **kw)
            self.threads.run()
            d.cancel()
            self.failureOf(d, CancelledError)
            if not kw:
                self.assertEqual(self.notes, [1, "end"])
            calls: list[Deferred[Any]] = []

            def generate(calls: list[Deferred[Any]] = calls) -> Iterator[int]:
                calls[0].cancel()
                return self.generate(1, 2)

            self.notes.clear()
            calls.append(self.looper.deferToThread(generate, **kw))
            self.failureOf(calls[0], CancelledError)
            self.assertNotIn(2, self.notes)
        self.resultOf(self.looper.stop())

    def test_consumer(self) -> None:
        """With a consumer, the Deferred fires with it when it has all items."""
        consumer = ListConsumer()
        d = self.looper.deferToThread(self.generate, *range(40), consumer=consumer)
        self.assertIs(self.resultOf(d), consumer)
        self.assertEqual(self.successResultOf(consumer()), list(range(40)))
        d = self.looper.deferToThread(self.generate, consumer=ListConsumer())
        self.assertIsInstance(self.resultOf(d), ListConsumer)

    def test_consumerFails(self) -> None:
        """
        It fails when the iterator raises, and when the consumer does. The generator is
        closed then.
        """

        class Failing(ListConsumer):
            def processItem(self, item: Any) -> None:
                raise LookupError

        d = self.looper.deferToThread(
            self.generate, 1, ValueError(), consumer=ListConsumer()
        )
        self.failureOf(d, ValueError)
        d = self.looper.deferToThread(self.generate, *range(100), consumer=Failing())
        self.failureOf(d, LookupError)
        self.assertEqual(self.notes[-1], "end")

    def test_consumerRefuses(self) -> None:
        """
        A consumer that doesn't take the producer fails the call, and no iterator is
        left open.
        """

        @implementer(IConsumer)
        class Refusing:
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                raise LookupError

            def unregisterProducer(self) -> None:
                """Do nothing."""

            def write(self, data: Any) -> None:
                """Do nothing."""

        d = self.looper.deferToThread(self.generate, 1, consumer=Refusing())
        self.failureOf(d, LookupError)
        self.resultOf(self.looper.stop())

    def test_consumerCancelled(self) -> None:
        """Cancelling the Deferred ends the iteration."""

        class Slow(ListConsumer):
            """A consumer that never gets on."""

            def processItem(self, item: Any) -> Any:
                """Never come to an end."""
                return Deferred()

        d = self.looper.deferToThread(self.generate, *range(999), consumer=Slow())
        self.reactor.settle()
        self.assertNoResult(d)
        d.cancel()
        self.failureOf(d, CancelledError)
        self.assertEqual(self.notes[-1], "end")

    def test_pairConsumer(self) -> None:
        """C{call} gives a producer, which is to be told to run."""
        consumer = ListConsumer()
        d = self.looper.call(self.generate, 1, 2, consumer=consumer)
        status, producer = self.resultOf(d)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(producer, IterationProducer)
        self.assertIs(self.resultOf(producer.run()), consumer)
        self.assertEqual(self.successResultOf(consumer()), [1, 2])

    def test_dr2ip(self) -> None:
        """
        The items of a Deferator can be written to a consumer. Without one, there's a
        producer that is to be given one.
        """
        deferator = self.resultOf(self.looper.deferToThread(self.generate, 1, 2))
        consumer = ListConsumer()
        d: Any = self.looper.dr2ip(dr=deferator, consumer=consumer)
        self.assertIs(self.resultOf(d), consumer)
        self.assertEqual(self.successResultOf(consumer()), [1, 2])
        deferator = self.resultOf(self.looper.deferToThread(self.generate, 1, 2))
        producer: Any = self.looper.dr2ip(deferator)
        self.assertIsInstance(producer, IterationProducer)
        self.assertIsNone(producer.consumer)


class StopTests(LooperCase):
    """Tests of the end."""

    def test_stop(self) -> None:
        """
        The thread ends when all calls have been made. It's known whether it's there.
        """
        self.assertTrue(self.looper.threadRunning)
        call = self.looper.deferToThread(self.note, 1)
        d = self.looper.stop()
        self.assertNoResult(d)
        self.assertIsNone(self.resultOf(d))
        self.assertEqual(self.successResultOf(call), 1)
        self.assertFalse(self.looper.threadRunning)
        self.assertEqual(self.threads.alive, [])
        self.assertIsNone(self.successResultOf(self.looper.stop()))

    def test_stopTwice(self) -> None:
        """Any number may wait for it, and leave again."""
        first, second, third = (self.looper.stop() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addCallback(lambda _: third.cancel())
        self.resultOf(second)
        self.failureResultOf(third, CancelledError)

    def test_stopInCallback(self) -> None:
        """
        It may be told to stop by the callback of a call, whose iteration is waited
        for.
        """
        stopped: list[Deferred[None]] = []

        def stop(deferator: Deferator[Any]) -> Deferator[Any]:
            stopped.append(self.looper.stop())
            return deferator

        d = self.looper.deferToThread(self.generate, *range(50)).addCallback(stop)
        deferator = self.resultOf(d)
        self.assertNoResult(stopped[0])
        self.assertEqual(self.taken(deferator), list(range(50)))
        self.resultOf(stopped[0])

    def test_stopWaitsForIterations(self) -> None:
        """Iterations that go on are waited for, until they're over or stopped."""
        first = self.resultOf(self.looper.deferToThread(self.generate, *range(40)))
        other = self.resultOf(self.looper.deferToThread(self.generate, *range(40)))
        d = self.looper.stop()
        self.taken(first)
        self.assertNoResult(d)
        other.stop()
        self.resultOf(d)

    def test_refused(self) -> None:
        """A looper that is being stopped, or has stopped, takes no calls."""
        self.looper.stop()
        self.failureOf(self.looper.deferToThread(self.note), ThreadError)
        self.failureOf(self.looper.call(self.note), ThreadError)

    def test_crash(self) -> None:
        """After a crash, calls that wait aren't made, all fail, and the thread ends."""
        stopped = self.looper.stop
        calls = [self.looper.deferToThread(self.note, i) for i in range(2)]
        d = stopped()
        self.looper.crash()
        self.assertIsNone(self.successResultOf(d))
        for call in calls:
            self.failureOf(call, ThreadError)
        self.assertEqual(self.notes, [])
        self.assertFalse(self.looper.threadRunning)
        self.assertEqual(self.threads.alive, [])
        self.looper.crash()

    def test_crashWhileIterating(self) -> None:
        """
        Iterations fail after the items that are there, and are closed in the thread.
        """
        d = self.looper.deferToThread(self.generate, *range(40))
        deferator = self.resultOf(d)
        self.looper.crash()
        items = self.taken(deferator)
        self.assertIsInstance(items.pop(), ThreadError)
        self.assertEqual(items, list(range(16)))
        self.assertEqual(self.notes[-1], "end")
        self.assertEqual(self.threads.alive, [])

    def test_crashInIterator(self) -> None:
        """
        An iterator is closed in its thread if a crash comes while that's at the first
        item.
        """
        case = self

        class Crashing:
            def __iter__(self) -> Any:
                return self

            def __next__(self) -> int:
                case.looper.crash()
                return 1

            def close(self) -> None:
                case.note(len(case.threads._running))

        self.failureOf(self.looper.deferToThread(Crashing), ThreadError)
        self.assertEqual(self.notes, [1])

    def test_crashInCall(self) -> None:
        """What a call comes to that was being made during a crash is dropped."""
        d = self.looper.deferToThread(self.looper.crash)
        self.failureOf(d, ThreadError)
        d = self.looper.deferToThread(self.note)
        self.failureOf(d, ThreadError)
