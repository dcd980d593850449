"""
Tests of L{asynqueue.threads._loop}, C{call}, C{iteration}, and C{looper}, with threads
that exist in the mind only.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue._child.calls import isIterator
from asynqueue._child.status import Status
from asynqueue.errors import ThreadError
from asynqueue.iteration import Deferator, IterationProducer, ListConsumer
from asynqueue.threads._loop import Loop, Outbox
from asynqueue.threads._looper import ThreadLooper

from ._fakethreads import ThreadReactor

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Thing:
    """
    A job, and a message, that notes what is done with it.
    """

    def __init__(self, notes: list[Any], name: Any) -> None:
        """
        Make a thing.

        @param notes: Where to note.

        @param name: Its name.
        """
        self.notes = notes
        self.name = name

    def work(self) -> None:
        """
        Implement C{Job.work}.
        """
        self.notes.append(("work", self.name))

    def deliver(self) -> None:
        """
        Implement C{Message.deliver}.
        """
        self.notes.append(self.name)


class OutboxTests(SynchronousTestCase):
    """
    Tests of L{Outbox}.
    """

    def setUp(self) -> None:
        """
        Make an outbox.
        """
        self.reactor = ThreadReactor()
        self.outbox = Outbox(self.reactor)  # type: ignore[arg-type]
        self.notes: list[Any] = []

    def test_one(self) -> None:
        """
        The reactor is woken up once for all messages that come before it has its turn.
        """
        for i in range(100):
            self.outbox.post(Thing(self.notes, i))
        self.assertEqual(self.reactor.wakeUps, 1)
        self.reactor.turn()
        self.assertEqual(self.notes, list(range(100)))
        self.outbox.post(Thing(self.notes, "next"))
        self.assertEqual(self.reactor.wakeUps, 2)

    def test_meanwhile(self) -> None:
        """
        What is posted while messages are delivered is not left behind.
        """
        thing = Thing(self.notes, 1)
        self.patch(thing, "deliver", lambda: self.outbox.post(Thing(self.notes, 2)))
        self.outbox.post(thing)
        self.reactor.turn()
        self.assertEqual(self.notes, [2])

    def test_turns(self) -> None:
        """
        The reactor has its turn every few milliseconds.
        """
        for i in range(64):
            thing = Thing(self.notes, i)
            deliver = thing.deliver

            def slow(deliver: Any = deliver) -> None:
                self.reactor.rightNow += 0.001
                deliver()

            self.patch(thing, "deliver", slow)
            self.outbox.post(thing)
        self.reactor._calls.popleft()[0]()
        self.assertLess(len(self.notes), 64)
        self.reactor.turn()
        while len(self.notes) < 64:
            self.reactor.turn()
        self.assertEqual(self.notes, list(range(64)))
        self.assertEqual(self.reactor.wakeUps, 1)


class LoopTests(SynchronousTestCase):
    """
    Tests of L{Loop}.
    """

    def setUp(self) -> None:
        """
        Make a loop.
        """
        self.reactor = ThreadReactor()
        self.notes: list[Any] = []
        self.ended: list[Loop] = []
        self.loop = Loop(
            Outbox(self.reactor),  # type: ignore[arg-type]
            self.ended.append,
            "name",
            self.reactor.threads,
        )

    def thing(self, name: Any) -> Thing:
        """
        Make a job.

        @param name: Its name.

        @return: The job.
        """
        return Thing(self.notes, name)

    def worked(self) -> list[Any]:
        """
        Let things happen.

        @return: The names of jobs in the order in which they were done.
        """
        self.reactor.settle()
        return [note[1] for note in self.notes if isinstance(note, tuple)]

    def test_order(self) -> None:
        """
        Jobs are done in their order, then delivered in the same. Those to be done
        first are, in order among themselves.
        """
        for name, first in ((1, False), (2, False), ("A", True), ("B", True)):
            self.loop.put(self.thing(name), first)
        self.assertEqual(len(self.loop), 4)
        self.assertEqual(self.worked(), ["A", "B", 1, 2])
        self.assertEqual(self.notes[4:], ["A", "B", 1, 2])
        self.assertEqual(len(self.loop), 0)

    def test_withdraw(self) -> None:
        """
        A job that is withdrawn isn't done. One that has been done can't be.
        """
        jobs = [self.thing(i) for i in range(3)]
        for job in jobs:
            self.loop.put(job, first=job is jobs[2])
        self.assertTrue(self.loop.withdraw(jobs[0]))
        self.assertTrue(self.loop.withdraw(jobs[2]))
        self.assertFalse(self.loop.withdraw(jobs[0]))
        self.assertEqual(self.worked(), [1])
        self.assertFalse(self.loop.withdraw(jobs[1]))

    def test_withdrawAll(self) -> None:
        """
        All that haven't been begun are withdrawn in the order they would be done in.
        """
        jobs = [self.thing(i) for i in range(4)]
        for job in jobs:
            self.loop.put(job, first=job is jobs[2])
        self.loop.withdraw(jobs[1])
        expected = [jobs[2], jobs[0], jobs[3]]
        self.assertEqual(self.loop.withdrawAll(), expected)
        self.assertEqual(self.worked(), [])

    def test_again(self) -> None:
        """
        A job may be given again when it's done.
        """
        job = self.thing(1)
        self.loop.put(job)
        self.worked()
        self.loop.put(job)
        self.assertEqual(self.worked(), [1, 1])

    def test_end(self) -> None:
        """
        The thread ends after what it was given. It's told when it has really ended.
        """
        self.loop.put(self.thing(1))
        self.loop.end()
        self.assertTrue(self.loop.running)
        self.assertEqual(self.worked(), [1])
        self.assertEqual(self.reactor.threads.alive, [])
        self.assertEqual(self.ended, [self.loop])
        self.assertEqual(self.reactor.threads.joined, 1)
        self.assertFalse(self.loop.running)

    def test_letsGo(self) -> None:
        """
        A thread that waits holds none of its jobs.
        """
        job = self.thing(1)
        reference = weakref.ref(job)
        self.loop.put(job)
        del job
        self.worked()
        gc.collect()
        self.assertIsNone(reference())


class LooperCase(SynchronousTestCase):
    """
    A looper with a thread of the mind.
    """

    def setUp(self) -> None:
        """
        Make a looper.
        """
        self.reactor = ThreadReactor()
        self.threads = self.reactor.threads
        self.looper = self.newLooper()
        self.notes: list[Any] = []

    def newLooper(self, **kw: Any) -> ThreadLooper:
        """
        Make a looper.

        @param kw: Its keywords.

        @return: The looper.
        """
        return ThreadLooper(reactor=self.reactor, system=self.threads, **kw)

    def resultOf(self, d: Deferred[Any]) -> Any:
        """
        Let things happen.

        @param d: A Deferred.

        @return: Its result.
        """
        self.reactor.settle()
        return self.successResultOf(d)

    def failureOf(self, d: Deferred[Any], *errors: type[BaseException]) -> Any:
        """
        Let things happen.

        @param d: A Deferred.

        @param errors: The exceptions that are expected.

        @return: The one it has failed with.
        """
        self.reactor.settle()
        return self.failureResultOf(d, *errors).value

    def note(self, x: Any = None) -> Any:
        """
        Note that a call was made.

        @param x: Its argument.

        @return: The same.
        """
        self.notes.append(x)
        return x

    def generate(self, *items: Any) -> Iterator[Any]:
        """
        Note which items are made, and the end.

        @param items: The items. Exceptions are raised.

        @return: An iterator.
        """
        try:
            for item in items:
                if isinstance(item, BaseException):
                    raise item
                yield self.note(item)
        finally:
            self.notes.append("end")

    def taken(self, deferator: Deferator) -> list[Any]:
        """
        Take all items.

        @param deferator: Where from.

        @return: The items. An exception that is raised is the last.
        """
        items: list[Any] = []

        async def take() -> None:
            """
            Take them.
            """
            try:
                async for item in deferator:
                    items.append(item)  # noqa: PERF401 - some come before an error
            except Exception as error:  # noqa: BLE001 - whatever it was
                items.append(error)

        d = Deferred.fromCoroutine(take())
        self.resultOf(d)
        return items


class CallTests(LooperCase):
    """
    Tests of calls.
    """

    def test_result(self) -> None:
        """
        The Deferred fires with what the callable returns in the thread.
        """
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
        """
        Nor does C{SystemExit} end the thread.
        """
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
        """
        Raise an exception.

        @param x: Anything.
        """
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
        """
        Get the next item by way of the thread.

        @param iterator: The iterator.

        @return: A Deferred for it.
        """
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
        wait.
        """
        for i in range(3):
            self.looper.deferToThread(self.note, i)
        self.looper.deferToThread(self.note, "next", doNext=True)
        self.reactor.settle()
        self.assertEqual(self.notes, ["next", 0, 1, 2])

    def test_wakeUp(self) -> None:
        """
        The reactor is woken up once for many results.
        """
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
        """
        Should a callable return a Deferred, it's waited for.
        """
        inner: Deferred[int] = Deferred()
        d = self.looper.deferToThread(lambda: inner)
        self.reactor.settle()
        self.assertNoResult(d)
        inner.callback(3)
        self.assertEqual(self.resultOf(d), 3)

    def test_cancelWaiting(self) -> None:
        """
        A call that is cancelled while it waits isn't made.
        """
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
        """
        So it is when the result is on its way.
        """
        d = self.looper.deferToThread(self.note, 1)
        self.threads.run()
        d.cancel()
        self.failureOf(d, CancelledError)
        self.assertEqual(self.notes, [1])

    def test_notCallable(self) -> None:
        """
        What can't be called is refused at once.
        """
        for method in (self.looper.call, self.looper.deferToThread):
            with self.assertRaisesRegex(TypeError, "not 7"):
                method(7)  # type: ignore[arg-type]

    def test_noThread(self) -> None:
        """
        That no thread can be started is told at once.
        """
        self.threads.most = len(self.threads.names)
        with self.assertRaisesRegex(ThreadError, "can't start new thread"):
            self.newLooper()

    def test_letsGo(self) -> None:
        """
        When a call has been made, nothing holds its arguments or its result.
        """

        class Big:
            """
            Something that is big.
            """

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
    """
    Tests of iterators that calls return.
    """

    def test_items(self) -> None:
        """
        They come as Deferators of all their items.
        """
        items = list(range(100))
        d = self.looper.deferToThread(self.generate, *items)
        deferator = self.resultOf(d)
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual(self.taken(deferator), items)
        self.assertEqual(self.notes[-1], "end")

    def test_firstInThread(self) -> None:
        """
        Nothing of them is made in the reactor's thread, the first item neither.
        """
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
        """
        One without items comes as an empty list.
        """
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
        """
        Iterators come as they are if that's wished.
        """
        for looper, kw in (
            (self.looper, {"raw": True}),
            (self.newLooper(raw=True), {}),
        ):
            d = looper.deferToThread(self.generate, 1, **kw)
            iterator = self.resultOf(d)
            self.assertTrue(isIterator(iterator))
            self.assertEqual(list(iterator), [1])

    def test_window(self) -> None:
        """
        No more than a few items are made that nobody has taken.
        """
        d = self.looper.deferToThread(self.generate, *range(1_000))
        deferator = self.resultOf(d)
        self.reactor.settle()
        self.assertEqual(len(self.notes), 16)
        for i in range(100):
            self.assertEqual(self.resultOf(deferator.__anext__()), i)
            self.assertLessEqual(len(self.notes) - i, 18)

    def test_wakeUps(self) -> None:
        """
        Several items come with one wake-up.
        """
        d = self.looper.deferToThread(self.generate, *range(320))
        deferator = self.resultOf(d)
        before = self.reactor.wakeUps
        self.taken(deferator)
        self.assertLess(self.reactor.wakeUps - before, 100)

    def test_turns(self) -> None:
        """
        While items of one iteration are made, other calls have their turn.
        """

        def slowly() -> Iterator[int]:
            for i in range(10):
                ticks.append(1)
                yield i

        ticks: list[int] = []
        times = iter(range(1_000))
        self.patch(
            __import__("asynqueue.threads._iteration", fromlist=["x"]),
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
        """
        A Deferator that is stopped has the generator closed in the thread.
        """
        d = self.looper.deferToThread(self.generate, *range(1_000))
        deferator = self.resultOf(d)
        deferator.stop()
        self.assertNotIn("end", self.notes)
        self.reactor.settle()
        self.assertEqual(self.notes[-1], "end")
        self.assertLess(len(self.notes), 20)

    def test_stopWhileMaking(self) -> None:
        """
        So it is when the thread is just making an item.
        """

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
        """
        One that nobody has any longer is closed, too.
        """
        d = self.looper.deferToThread(self.generate, *range(1_000))
        self.reactor.settle()
        self.assertNotIn("end", self.notes)
        self.successResultOf(d)
        del d
        gc.collect()
        self.reactor.settle()
        self.assertEqual(self.notes[-1], "end")

    def test_closingRaises(self) -> None:
        """
        What is raised when it's closed is logged.
        """

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
        """
        With a consumer, the Deferred fires with it when it has all items.
        """
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
            """
            A consumer that raises.
            """

            def processItem(self, item: Any) -> None:
                """
                Raise.

                @param item: An item.
                """
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
            """
            A consumer that raises.
            """

            def registerProducer(self, producer: Any, streaming: bool) -> None:
                """
                Raise.

                @param producer: The producer.

                @param streaming: How it works.
                """
                raise LookupError

            def unregisterProducer(self) -> None:
                """
                Do nothing.
                """

            def write(self, data: Any) -> None:
                """
                Do nothing.

                @param data: An item.
                """

        d = self.looper.deferToThread(self.generate, 1, consumer=Refusing())
        self.failureOf(d, LookupError)
        self.resultOf(self.looper.stop())

    def test_consumerCancelled(self) -> None:
        """
        Cancelling the Deferred ends the iteration.
        """

        class Slow(ListConsumer):
            """
            A consumer that never gets on.
            """

            def processItem(self, item: Any) -> Any:
                """
                Never come to an end.

                @param item: The item.

                @return: A Deferred.
                """
                return Deferred()

        d = self.looper.deferToThread(self.generate, *range(999), consumer=Slow())
        self.reactor.settle()
        self.assertNoResult(d)
        d.cancel()
        self.failureOf(d, CancelledError)
        self.assertEqual(self.notes[-1], "end")

    def test_pairConsumer(self) -> None:
        """
        C{call} gives a producer, which is to be told to run.
        """
        consumer = ListConsumer()
        d = self.looper.call(self.generate, 1, 2, consumer=consumer)
        status, producer = self.resultOf(d)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(producer, IterationProducer)
        self.assertIs(self.resultOf(producer.run()), consumer)
        self.assertEqual(self.successResultOf(consumer()), [1, 2])

    def test_dr2ip(self) -> None:
        """
        A producer can be made of a Deferator, with a consumer or without.
        """
        deferator = self.resultOf(self.looper.deferToThread(self.generate, 1, 2))
        consumer = ListConsumer()
        producer = self.looper.dr2ip(deferator, consumer)
        self.assertIs(self.resultOf(producer.run()), consumer)
        self.assertEqual(self.successResultOf(consumer()), [1, 2])
        deferator = self.resultOf(self.looper.deferToThread(self.generate, 1, 2))
        self.assertIsNone(self.looper.dr2ip(deferator).consumer)


class StopTests(LooperCase):
    """
    Tests of the end.
    """

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
        """
        Any number may wait for it, and leave again.
        """
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

        def stop(deferator: Deferator) -> Deferator:
            stopped.append(self.looper.stop())
            return deferator

        d = self.looper.deferToThread(self.generate, *range(50)).addCallback(stop)
        deferator = self.resultOf(d)
        self.assertNoResult(stopped[0])
        self.assertEqual(self.taken(deferator), list(range(50)))
        self.resultOf(stopped[0])

    def test_stopWaitsForIterations(self) -> None:
        """
        Iterations that go on are waited for, until they're over or stopped.
        """
        first = self.resultOf(self.looper.deferToThread(self.generate, *range(40)))
        other = self.resultOf(self.looper.deferToThread(self.generate, *range(40)))
        d = self.looper.stop()
        self.taken(first)
        self.assertNoResult(d)
        other.stop()
        self.resultOf(d)

    def test_refused(self) -> None:
        """
        A looper that is being stopped, or has stopped, takes no calls.
        """
        self.looper.stop()
        self.failureOf(self.looper.deferToThread(self.note), ThreadError)
        self.failureOf(self.looper.call(self.note), ThreadError)

    def test_crash(self) -> None:
        """
        After a crash, calls that wait aren't made, all fail, and the thread ends.
        """
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

    def test_crashInCall(self) -> None:
        """
        What a call comes to that was being made during a crash is dropped.
        """
        d = self.looper.deferToThread(self.looper.crash)
        self.failureOf(d, ThreadError)
        d = self.looper.deferToThread(self.note)
        self.failureOf(d, ThreadError)
