"""
Tests of the task queue: its workers, calls, and what it says of itself. Other files
have those of errors, order, cancelling, retries, shutdown, and feeding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import base
from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import Status
from asynqueue.base import TaskQueue
from asynqueue.errors import (
    ImplementationError,
    InvariantError,
    QueueRunError,
    WorkerError,
    WorkerLost,
)
from asynqueue.iteration import Deferator
from asynqueue.tasks import TaskHandler
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import QueueTestCase, ids, logged, same


def upTo(n: int, raises: bool = False) -> Iterator[int]:
    """Count, and raise an exception at the end if that's wanted."""
    yield from range(n)
    if raises:
        raise ValueError("oops")


def received(*args: Any, **kw: Any) -> tuple[Any, Any]:
    """Return what was received."""
    return args, kw


class TaskQueueTests(QueueTestCase):
    """Tests of what a queue says of itself."""

    def test_length(self) -> None:
        """The length of a queue is the number of its workers."""
        self.assertEqual(len(self.q), 1)
        self.q.attachWorker(MemoryWorker())
        self.assertEqual(len(self.q), 2)

    def test_true(self) -> None:
        """A queue is true while it runs with at least one worker, by a bool."""
        self.assertIs(bool(self.q), True)
        self.assertIs(bool(self.queue()), False)
        self.assertIs(bool(TaskQueue(AsyncWorker(), reactor=self.clock)), True)
        self.q.shutdown()
        self.assertIs(bool(self.q), False)

    def test_running(self) -> None:
        """It's running until it's shut down, with workers or without."""
        for q in (self.q, self.queue()):
            self.assertIs(q.isRunning(), True)
            q.shutdown()
            self.assertIs(q.isRunning(), False)

    def test_parts(self) -> None:
        """Its Queue and its handler can be reached, as existing programs do."""
        self.assertIsInstance(self.q.q, base.Queue)
        self.assertIsInstance(self.q.th, TaskHandler)
        self.assertIs(self.q.q.handler, self.q.th)
        self.assertTrue(self.q.q.isRunning())

    def test_subclass(self) -> None:
        """Subclasses may have attributes of their own."""

        class Special(TaskQueue):
            def __init__(self) -> None:
                self.own = 1
                super().__init__(AsyncWorker(), reactor=Clock())
                self.other = 2

        q = Special()
        self.assertEqual(self.successResultOf(q.call(same, 5)), 5)

    def test_idle(self) -> None:
        """An idle queue has nothing in the reactor, after calls neither."""
        d = self.q.call(same, timeout=5)
        self.worker.complete()
        self.successResultOf(d)
        q = self.queue(AsyncWorker())
        for _ in range(100):
            q.call(same)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_badNumbers(self) -> None:
        """Numbers that make no sense are refused by name."""
        bad: list[dict[str, Any]] = [
            {"timeout": -1},
            {"timeout": "5"},
            {"maxQueued": 0},
            {"maxQueued": 1.5},
            {"maxQueued": True},
            {"retries": -1},
            {"retries": "1"},
            {"retryDelay": -1},
            {"retryDelay": None},
        ]
        for kw in bad:
            with self.assertRaisesRegex(ValueError, next(iter(kw))):
                self.queue(**kw)


class WorkersTests(QueueTestCase):
    """Tests of attaching and detaching workers."""

    def test_attach(self) -> None:
        """The Deferred of attaching fires with the worker's ID."""
        worker = MemoryWorker()
        self.assertEqual(self.successResultOf(self.q.attachWorker(worker)), 2)
        self.assertEqual(worker.ID, 2)

    def test_badWorkers(self) -> None:
        """
        What isn't a proper worker is refused at once, by attaching and by a new queue.
        """
        bad: Any = MemoryWorker()
        bad.iQualified = None
        for worker, error in ((5, ImplementationError), (bad, InvariantError)):
            self.assertRaises(error, self.q.attachWorker, worker)
            self.assertRaises(error, self.queue, worker)

    def test_attachAfterShutdown(self) -> None:
        """No worker can be attached after the shutdown, also while it's going on."""
        self.fillWorker().addErrback(lambda _: None)
        self.q.shutdown()
        self.assertRaises(QueueRunError, self.q.attachWorker, MemoryWorker())

    def test_workers(self) -> None:
        """Workers can be listed, or looked up by ID."""
        self.assertEqual(self.q.workers(), [self.worker])
        self.assertIs(self.q.workers(1), self.worker)
        self.assertIsNone(self.q.workers(2))

    def test_detach(self) -> None:
        """
        A worker can be let go, by itself or by its ID; the Deferred fires when it has
        done what it has accepted, after the call's.
        """
        order: list[str] = []
        for which in (lambda worker: worker, lambda worker: worker.ID):
            worker = MemoryWorker()
            q = self.queue(worker)
            call = q.call(same)
            call.addCallback(lambda _: order.append("call"))
            d = q.detachWorker(which(worker))
            self.assertEqual(len(q), 0)
            self.assertNoResult(d)
            d.addCallback(lambda tasks: order.append(f"detached, {tasks}"))
            worker.complete()
            self.successResultOf(d)
        self.assertEqual(order, ["call", "detached, []"] * 2)

    def test_detachStranger(self) -> None:
        """
        Detaching a worker of another queue, or of none, does nothing, though it has an
        ID that a worker here has.
        """
        stranger = MemoryWorker()
        self.queue(stranger)
        for which in (stranger, MemoryWorker(), 7, None):
            self.assertEqual(self.successResultOf(self.q.detachWorker(which)), [])
        self.assertEqual(self.q.workers(), [self.worker])
        self.assertFalse(self.worker.stopping)

    def test_detachCrash(self) -> None:
        """
        With C{crash} it's crashed at once. The calls that it was running are in the
        list, and fail with WorkerLost.
        """
        d = self.q.call(same, 1)
        (job,) = self.successResultOf(self.q.detachWorker(self.worker, crash=True))
        failure = self.failureResultOf(d, WorkerLost)
        self.assertIn("same(1)", failure.getErrorMessage())
        self.assertIs(failure.value.task, job)

    def test_detachTimeout(self) -> None:
        """The queue's time limit holds for detaching."""
        worker = MemoryWorker()
        q = self.queue(worker, timeout=3)
        call = q.call(same)
        d = q.detachWorker(worker)
        self.clock.advance(3)
        self.assertEqual(len(self.successResultOf(d)), 1)
        self.failureResultOf(call, WorkerLost)

    def test_detachReassign(self) -> None:
        """With C{reassign} its calls go to other workers, present or future."""
        d = self.q.call(same, 1)
        left = self.q.detachWorker(self.worker, reassign=True, crash=True)
        self.assertEqual(self.successResultOf(left), [])
        worker = MemoryWorker()
        self.q.attachWorker(worker)
        worker.complete("done")
        self.assertEqual(self.successResultOf(d), "done")

    def test_detachAsyncWorker(self) -> None:
        """That works for an AsyncWorker too."""
        worker = AsyncWorker()
        q = self.queue(worker)
        d: Deferred[Any] = q.call(Deferred)
        left = q.detachWorker(worker, reassign=True, crash=True)
        self.assertEqual(self.successResultOf(left), [])
        other = MemoryWorker()
        q.attachWorker(other)
        other.complete(5)
        self.assertEqual(self.successResultOf(d), 5)

    def test_qualify(self) -> None:
        """
        A worker can be qualified for one more series, and then runs its calls and
        updates.
        """
        d = self.q.call(same, 1, series="x")
        self.q.qualifyWorker(self.worker, "x")
        self.worker.complete("x")
        self.assertEqual(self.successResultOf(d), "x")
        updated = self.q.update(same, series="x")
        self.worker.complete("updated")
        self.assertEqual(self.successResultOf(updated), ["updated"])

    def test_qualifyUnhashable(self) -> None:
        """A series must be hashable."""
        bad: Any = []
        self.assertRaises(TypeError, self.q.qualifyWorker, self.worker, bad)

    def test_resigns(self) -> None:
        """When a worker resigns, the calls that it had go to others."""
        d = self.q.call(same, 1)
        self.worker.resign()
        self.assertEqual(len(self.q), 0)
        self.assertNoResult(d)
        worker = MemoryWorker()
        self.q.attachWorker(worker)
        self.assertEqual(ids(worker), [1])


class CallTests(QueueTestCase):
    """Tests of L{TaskQueue.call}."""

    def test_result(self) -> None:
        """The Deferred fires with the result."""
        d = self.q.call(pow, 2, 3)
        self.assertNoResult(d)
        self.worker.step()
        self.assertEqual(self.successResultOf(d), 8)

    def test_ownKeywords(self) -> None:
        """
        None of the queue's own keywords reaches the callable, whatever the worker.
        """
        own: dict[str, Any] = {
            "niceness": 5,
            "series": "local",
            "doNext": True,
            "doLast": False,
            "timeout": 5,
            "retries": 2,
            "retryDelay": 1,
            "consumer": RecordingConsumer(),
            "returnFailure": True,
            "raw": True,
        }
        for q in (self.q, self.queue(AsyncWorker())):
            d = q.call(received, 1, x=2, **own)
            if q is self.q:
                self.worker.step()
            self.assertEqual(self.successResultOf(d), ((1,), {"x": 2}))

    def test_ownKeywordsByThemselves(self) -> None:
        """Each by itself, as well as set to nothing."""
        q = self.queue(AsyncWorker())
        own: list[dict[str, Any]] = [
            {"niceness": 5},
            {"series": None},
            {"doNext": False},
            {"doLast": True},
            {"timeout": None},
            {"consumer": None},
            {"returnFailure": None},
            {"raw": False},
        ]
        for kw in own:
            d = q.call(received, **kw)
            self.assertEqual(self.successResultOf(d), ((), {}))

    def test_keywordsUnchanged(self) -> None:
        """The caller's own dict of keywords isn't changed."""
        kw: dict[str, Any] = {"niceness": 5, "raw": True, "x": 1}
        d = self.q.call(received, **kw)
        self.worker.step()
        self.assertEqual(self.successResultOf(d), ((), {"x": 1}))
        self.assertEqual(kw, {"niceness": 5, "raw": True, "x": 1})

    def test_name(self) -> None:
        """A method of a remote worker can be called by its name."""
        self.q.call("add", 1, 2)
        self.assertEqual(self.worker.calls, [("add", 1, 2)])

    def test_notCallable(self) -> None:
        """What can't be called is refused at the call, and shown."""
        bad: list[Any] = [None, 5, b"add", []]
        for f in bad:
            with self.assertRaises(TypeError) as raised:
                self.q.call(f)
            self.assertIn(repr(f), str(raised.exception))

    def test_notRunning(self) -> None:
        """
        A call after the shutdown is refused at once, named in the message, also while
        the shutdown goes on.
        """
        self.fillWorker().addErrback(lambda _: None)
        self.q.shutdown()
        with self.assertRaisesRegex(QueueRunError, "received"):
            self.q.call(received, 1)

    def test_badValues(self) -> None:
        """
        Bad values for the queue's own keywords are refused at the call, and leave
        nothing behind.
        """
        bad: list[tuple[type[Exception], str, Any]] = [
            (ValueError, "niceness", 21),
            (ValueError, "niceness", -21),
            (ValueError, "niceness", "5"),
            (ValueError, "niceness", 1.0),
            (TypeError, "series", []),
            (TypeError, "series", {}),
            (ValueError, "timeout", -1),
            (ValueError, "timeout", "1"),
            (ValueError, "retries", -1),
            (ValueError, "retries", 1.5),
            (ValueError, "retryDelay", "1"),
            (ImplementationError, "consumer", []),
        ]
        consumer = RecordingConsumer()
        self.q.subscribe(consumer)
        for error, name, value in bad:
            with self.subTest(value=value), self.assertRaisesRegex(error, name):
                self.q.call(same, **{name: value})
        self.assertEqual((self.worker.running, consumer.items), ([], []))
        self.assertEqual(self.q.th.waiting, 0)

    def test_statuses(self) -> None:
        """
        Of each status that a worker hands back, as plain bytes too, the result is what
        the API says.
        """
        for pair, result in (
            ((b"r", 1), 1),
            ((b"r", None), None),
            ((Status.RAN, (b"e", 1)), (b"e", 1)),
            ((b"n", "ignored"), None),
            ((b"i", []), []),
            ((b"c", "value"), "value"),
        ):
            d = self.q.call(same)
            self.worker.answer(pair)
            self.assertEqual(self.successResultOf(d), result)

    def test_chunks(self) -> None:
        """
        A large result that is still coming in is waited for, and the call counts until
        then; if that fails, the call does.
        """
        for result in (b"large", Failure(ValueError("cut off"))):
            consumer = RecordingConsumer()
            self.q.subscribe(consumer)
            coming: Deferred[Any] = Deferred()
            d = self.q.call(same)
            self.worker.answer((b"c", coming))
            self.assertNoResult(d)
            self.assertEqual(consumer.items, [1])
            coming.callback(result)
            if isinstance(result, Failure):
                self.failureResultOf(d, ValueError)
            else:
                self.assertEqual(self.successResultOf(d), result)
            self.assertEqual(consumer.items, [1, 0])

    def test_nonsense(self) -> None:
        """
        Whatever else a worker hands back is an error that shows it; the call doesn't
        hang.
        """
        for answer in ((b"x", 1), None, 5, ("r", 1), (b"r",), (b"r", 1, 2)):
            nonsense: Any = answer
            d = self.q.call(same)
            self.worker.answer(nonsense)
            failure = self.failureResultOf(d, WorkerError)
            self.assertIn(repr(answer), str(failure.value))

    def test_workerFails(self) -> None:
        """A failure that is no fault of the callable is the call's."""
        d = self.q.call(same)
        self.worker.lose(ImplementationError("no"))
        self.failureResultOf(d, ImplementationError)

    def test_disconnected(self) -> None:
        """
        A call that a worker says it hasn't run goes to the next one, and has its result
        from that.
        """
        d = self.q.call(same, 1)
        first = self.worker.running[0]
        self.worker.disconnect()
        self.assertEqual(ids(self.worker), [1])
        self.worker.complete("late", first)
        self.assertNoResult(d)
        self.worker.complete("x")
        self.assertEqual(self.successResultOf(d), "x")

    def test_alwaysDisconnected(self) -> None:
        """But not for ever."""
        d = self.q.call(same, 1)
        for _ in range(10):
            self.worker.disconnect()
            self.assertNoResult(d)
        self.worker.disconnect()
        failure = self.failureResultOf(d, WorkerError)
        self.assertIn("same(1)", str(failure.value))
        self.assertEqual(self.worker.running, [])

    def test_fromCallback(self) -> None:
        """A callback may queue more calls, which count like all others."""
        results: list[int] = []
        q = self.queue(AsyncWorker())

        def more(n: int) -> Deferred[Any] | None:
            results.append(n)
            return q.call(same, n + 1).addCallback(more) if n < 5 else None

        d = q.call(same, 0).addCallback(more)
        self.successResultOf(d)
        self.assertEqual(results, [0, 1, 2, 3, 4, 5])

    def test_asynchronous(self) -> None:
        """
        It can be awaited, and the queue used as a context, at whose end everything
        queued has been run and the queue is shut down.
        """
        results: list[Any] = []

        async def main() -> None:
            """Make calls as a program would."""
            async with self.queue(AsyncWorker()) as q:
                results.append(await q.call(same, 1))
                q.call(results.append, 2)
            results.append(q.isRunning())

        self.successResultOf(Deferred.fromCoroutine(main()))
        self.assertEqual(results, [1, 2, False])

    def test_contextRaises(self) -> None:
        """
        If the block raises, what is queued isn't run, and the exception comes out.
        """
        waiting: list[Deferred[Any]] = []

        async def main() -> None:
            """Make calls as a program would."""
            async with self.queue() as q:
                waiting.append(q.call(same))
                raise KeyError(1)

        self.failureResultOf(Deferred.fromCoroutine(main()), KeyError)
        self.failureResultOf(waiting[0], QueueRunError)


class IterationTests(QueueTestCase):
    """Tests of calls that return iterators."""

    def setUp(self) -> None:
        """Make a queue with a worker in the reactor."""
        super().setUp()
        self.q = self.queue(AsyncWorker())
        self.loads = RecordingConsumer()
        self.q.subscribe(self.loads)

    def test_deferator(self) -> None:
        """The Deferred fires with a Deferator."""
        deferator = self.successResultOf(self.q.call(upTo, 3))
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual([self.successResultOf(d) for d in deferator], [0, 1, 2])

    def test_raw(self) -> None:
        """Or with the iterator as it is."""
        iterator = self.successResultOf(self.q.call(upTo, 3, raw=True))
        self.assertEqual(list(iterator), [0, 1, 2])

    def test_consumer(self) -> None:
        """With a consumer, it fires with that when all items have been written."""
        consumer = RecordingConsumer()
        d = self.q.call(upTo, 3, consumer=consumer)
        self.assertIs(self.successResultOf(d), consumer)
        self.assertEqual(consumer.items, [0, 1, 2])
        self.assertEqual(self.loads.items, [1, 0])

    def test_slowConsumer(self) -> None:
        """
        Not before that; the call counts until then, and the worker is ready meanwhile.
        """

        class Pausing(RecordingConsumer):
            """Pauses its producer with each item."""

            def write(self, data: Any) -> None:
                super().write(data)
                self.producer.pauseProducing()

        consumer = Pausing()
        d = self.q.call(upTo, 2, consumer=consumer)
        self.assertNoResult(d)
        self.assertEqual(self.successResultOf(self.q.call(same, 5)), 5)
        consumer.producer.resumeProducing()
        self.assertNoResult(d)
        self.assertEqual(self.loads.items, [1, 2, 1])
        consumer.producer.resumeProducing()
        self.assertIs(self.successResultOf(d), consumer)
        self.assertEqual(self.loads.items[-1], 0)

    def test_failsMidway(self) -> None:
        """
        If the iterator raises after some items, these are written, and the call fails
        with that.
        """
        consumer = RecordingConsumer()
        d = self.q.call(upTo, 3, raises=True, consumer=consumer)
        self.failureResultOf(d, ValueError)
        self.assertEqual(consumer.items, [0, 1, 2])
        self.assertEqual(self.loads.items, [1, 0])

    def test_badConsumer(self) -> None:
        """A consumer that can't be written to fails the call."""

        class Breaking(RecordingConsumer):
            def write(self, data: Any) -> None:
                raise KeyError(data)

        d = self.q.call(upTo, 3, consumer=Breaking())
        self.failureResultOf(d, KeyError)
        self.assertEqual(self.loads.items, [1, 0])

    def test_cancel(self) -> None:
        """Cancelling the call ends the iteration."""
        closed: list[int] = []

        def iterate() -> Iterator[Any]:
            try:
                yield 1
                yield Deferred()
            finally:
                closed.append(1)

        consumer = RecordingConsumer()
        d = self.q.call(iterate, consumer=consumer)
        self.assertEqual(consumer.items, [1])
        self.assertNoResult(d)
        d.cancel()
        self.assertEqual(closed, [1])
        self.assertEqual(self.loads.items, [1, 0])
        d.addErrback(lambda _: None)


class UpdateTests(QueueTestCase):
    """Tests of L{TaskQueue.update}."""

    def test_results(self) -> None:
        """
        Each worker runs it, those attached later too; the Deferred fires with the
        results of those there are now.
        """
        d = self.q.update(received, 1, x=2)
        self.worker.step()
        self.assertEqual(self.successResultOf(d), [((1,), {"x": 2})])
        late = MemoryWorker()
        self.q.attachWorker(late)
        self.assertEqual(late.calls, [(received, 1)])

    def test_ephemeral(self) -> None:
        """With C{ephemeral}, those attached later don't."""
        self.q.update(same, ephemeral=True)
        late = MemoryWorker()
        self.q.attachWorker(late)
        self.assertEqual(late.running, [])

    def test_sequential(self) -> None:
        """With C{sequential}, one worker after the other runs it."""
        other = MemoryWorker()
        self.q.attachWorker(other)
        self.q.update(same, sequential=True)
        self.assertEqual(other.running, [])
        self.worker.complete()
        self.assertEqual(len(other.running), 1)

    def test_series(self) -> None:
        """Only workers that qualify for its series run it."""
        self.assertEqual(self.successResultOf(self.q.update(same, series="x")), [])

    def test_raw(self) -> None:
        """C{raw} holds for every worker."""
        q = self.queue(AsyncWorker(), AsyncWorker(), AsyncWorker())
        results = self.successResultOf(q.update(upTo, 3, raw=True))
        self.assertEqual([list(result) for result in results], [[0, 1, 2]] * 3)

    def test_pair(self) -> None:
        """A result that looks like a status with a result is one all the same."""
        q = self.queue(AsyncWorker())
        d = q.update(lambda: (b"r", 1))
        self.assertEqual(self.successResultOf(d), [(b"r", 1)])

    def test_timeout(self) -> None:
        """It may have a time limit."""
        d = self.q.update(same, timeout=3)
        self.clock.advance(3)
        (text,) = self.successResultOf(d)
        self.assertIn("3 seconds", text)

    def test_failure(self) -> None:
        """Where it fails the result is text."""
        q = self.queue(AsyncWorker())
        (text,) = self.successResultOf(q.update(fail, ValueError("oops")))
        self.assertIn("oops", text)

    def test_refused(self) -> None:
        """
        It can't have a consumer, nor a series that isn't hashable, nor be of what
        can't be called, nor come after the shutdown.
        """
        bad: Any = []
        consumer: Any = RecordingConsumer()
        with self.assertRaisesRegex(ValueError, "consumer"):
            self.q.update(same, consumer=consumer)
        self.assertRaises(TypeError, self.q.update, same, series=bad)
        self.assertRaises(TypeError, self.q.update, bad)
        self.q.shutdown()
        with self.assertRaisesRegex(QueueRunError, "update"):
            self.q.update(same)


class LoadTests(QueueTestCase):
    """Tests of L{TaskQueue.subscribe}."""

    def setUp(self) -> None:
        """Subscribe a consumer."""
        super().setUp()
        self.consumer = RecordingConsumer()
        self.q.subscribe(self.consumer)

    def test_load(self) -> None:
        """The load is the number of calls that are queued or running."""
        for n in range(3):
            self.q.call(same, n)
        self.assertEqual(self.consumer.items, [1, 2, 3])
        self.runAll()
        self.assertEqual(self.consumer.items, [1, 2, 3, 2, 1, 0])

    def test_everyEnd(self) -> None:
        """It comes back to zero however calls end, with attempts counted once."""
        calls = [
            self.q.call(same, timeout=1, retries=1),
            self.q.call(same),
            self.q.call(same),
            self.q.call(same),
            self.q.call(same, series="nobody"),
        ]
        for d in calls:
            d.addErrback(lambda _: None)
        self.clock.advance(1)
        self.worker.fail(ValueError())
        self.clock.advance(1)
        self.worker.disconnect()
        self.worker.complete()
        calls[3].cancel()
        self.q.shutdown()
        self.assertEqual(self.consumer.items, [1, 2, 3, 4, 5, 4, 3, 2, 1, 0])

    def test_ofTheQueue(self) -> None:
        """The load can also be had from the queue's Queue."""
        other = RecordingConsumer()
        self.q.q.subscribe(other)
        self.q.call(same)
        self.assertEqual(other.items, [1])

    def test_afterShutdown(self) -> None:
        """After the shutdown the consumer has no producer."""
        self.q.shutdown()
        self.assertIsNone(self.consumer.producer)

    def test_notAConsumer(self) -> None:
        """Who isn't a consumer is refused."""
        bad: Any = []
        with self.assertRaisesRegex(ImplementationError, "IConsumer"):
            self.q.subscribe(bad)


class LogTests(QueueTestCase):
    """Tests of what is logged."""

    def test_spew(self) -> None:
        """With C{spew} every call is logged with its result, at level INFO."""
        q = self.queue(AsyncWorker(), spew=True)
        with logged() as events:
            q.call(pow, 2, 3)
            q.call(upTo, 2, consumer=RecordingConsumer())
            q.call(upTo, 0)
        texts = [event["log_format"].format(**event) for event in events]
        self.assertEqual(texts[0], "pow(2, 3) -> 8")
        self.assertIn("upTo(2, consumer=<", texts[1])
        self.assertIn(") -> <", texts[1])
        self.assertEqual(texts[2], "upTo(0) -> []")
        self.assertEqual({event["log_level"].name for event in events}, {"info"})

    def test_silent(self) -> None:
        """Without it, nothing is."""
        with logged() as events:
            self.queue(AsyncWorker()).call(pow, 2, 3)
        self.assertEqual(events, [])
