"""Tests of events, and of those who observe them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel, capturedLogs

from asynqueue._asyncworker import AsyncWorker
from asynqueue.base import TaskQueue, _watching
from asynqueue.errors import QueueFull, QueueRunError, QueueStopped, TimeoutError
from asynqueue.events import Event, EventKind, logEvent
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, ReplaceableWorker, same

CALLS = (EventKind.QUEUED, EventKind.STARTED, EventKind.DONE)


class EventTests(QueueTestCase):
    """Tests of what observers are told."""

    def setUp(self) -> None:
        """Observe the queue."""
        super().setUp()
        self.events: list[Event] = []
        self.q.addObserver(self.events.append)

    def kinds(self) -> list[EventKind]:
        """The kinds of the events, which are forgotten then."""
        kinds = [event.kind for event in self.events]
        self.events.clear()
        return kinds

    def test_done(self) -> None:
        """A call is queued, started and done."""
        self.q.call(same, 1, series="memory")
        self.worker.complete()
        for event in self.events:
            self.assertEqual((event.task, event.series), ("same(1)", "memory"))
        self.assertEqual(
            [event.workerID for event in self.events],
            [None, self.worker.ID, self.worker.ID],
        )
        self.assertEqual(self.kinds(), list(CALLS))

    def test_failed(self) -> None:
        """The event of a failure has the exception, and tells where it was."""
        d = self.q.call(same)
        self.worker.fail(ValueError("x"))
        failure = self.failureResultOf(d, ValueError)
        event = self.events[-1]
        self.assertIs(event.kind, EventKind.FAILED)
        self.assertIs(event.failure and event.failure.value, failure.value)
        self.assertEqual(event.workerID, self.worker.ID)
        self.assertIsNotNone(event.seconds)

    def test_timedOut(self) -> None:
        """A call whose time is up is retried, and has timed out in the end."""
        d = self.q.call(same, timeout=1, retries=1)
        self.clock.advance(1)
        self.clock.advance(1)
        self.failureResultOf(d, TimeoutError)
        self.assertEqual(
            self.kinds(),
            [
                EventKind.QUEUED,
                EventKind.STARTED,
                EventKind.RETRIED,
                EventKind.STARTED,
                EventKind.TIMED_OUT,
            ],
        )

    def test_cancelled(self) -> None:
        """A call that is cancelled before it's started says so."""
        self.fillWorker()
        self.events.clear()
        d = self.q.call(same)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.kinds(), [EventKind.QUEUED, EventKind.CANCELLED])

    def test_raisedTimeout(self) -> None:
        """A callable that raises what the queue itself fails calls with has failed."""
        d = self.q.call(same)
        self.worker.fail(TimeoutError("mine"))
        self.failureResultOf(d, TimeoutError)
        self.assertIs(self.events[-1].kind, EventKind.FAILED)
        self.assertEqual(self.q.stats()["failed"], {"error": 1})

    def test_workers(self) -> None:
        """Workers are hired, before they're given tasks, and lost."""
        self.fillWorker()
        d = self.q.call(same)
        self.events.clear()
        worker = MemoryWorker()
        self.q.attachWorker(worker)
        self.assertEqual(self.kinds(), [EventKind.HIRED, EventKind.STARTED])
        worker.resign()
        self.assertEqual(self.events[0].workerID, worker.ID)
        self.assertIs(self.events[0].kind, EventKind.LOST)
        self.assertNoResult(d)

    def test_replaced(self) -> None:
        """A worker that is lost, or that asks for it, is replaced."""
        worker = ReplaceableWorker()
        self.q.attachWorker(worker)
        self.events.clear()
        worker.resign()
        self.assertEqual(
            [(event.kind, event.workerID) for event in self.events],
            [
                (EventKind.LOST, 2),
                (EventKind.HIRED, 3),
                (EventKind.REPLACED, 2),
            ],
        )
        self.events.clear()
        self.q.workers(3).recycle()
        self.assertEqual(self.kinds(), [EventKind.HIRED, EventKind.REPLACED])
        self.assertEqual(self.q.stats()["replaced"], 2)

    def test_qualified(self) -> None:
        """A worker that is qualified for one more series isn't hired again."""
        self.q.qualifyWorker(self.worker, "new")
        self.assertEqual(self.events, [])

    def test_unserved(self) -> None:
        """A series that nobody serves is told once."""
        self.q.call(same, series="nobody")
        self.q.call(same, series="nobody")
        [event] = [e for e in self.events if e.kind is EventKind.UNSERVED]
        self.assertEqual(event.series, "nobody")
        self.assertIsNone(event.task)

    def test_kinds(self) -> None:
        """
        An observer hears of the kinds that it wants, and of none when it's removed.
        """
        failures: list[Event] = []
        observer = failures.append
        self.q.addObserver(observer, [EventKind.FAILED])
        for _ in range(2):
            self.q.call(same).addErrback(lambda _: None)
            self.worker.fail(ValueError())
            self.q.removeObserver(observer)
        self.assertEqual([event.kind for event in failures], [EventKind.FAILED])
        self.q.removeObserver(observer)

    def test_manyCalls(self) -> None:
        """Observers hear of each call, also where only some would be measured."""
        self.q.removeObserver(self.events.append)
        for _ in range(1_100):
            self.q.call(same)
            self.worker.complete()
        self.q.addObserver(self.events.append, [EventKind.DONE])
        for _ in range(20):
            self.q.call(same)
            self.worker.complete()
        self.assertEqual(self.kinds(), [EventKind.DONE] * 20)

    def test_failuresAlone(self) -> None:
        """An observer of failures alone doesn't have each call measured."""
        self.q.removeObserver(self.events.append)
        self.q.addObserver(self.events.append, [EventKind.FAILED])
        self.patch(_watching, "perf_counter", self.clock.seconds)
        for _ in range(501):
            self.q.call(same)
            self.worker.complete()
        self.assertEqual(self.q.stats()["run"]["count"], 11)

    def test_stopped(self) -> None:
        """The last event is the end of the queue, before C{shutdown} fires."""
        self.q.call(same)
        self.events.clear()
        d = self.q.shutdown()
        self.worker.complete()
        self.assertEqual(self.kinds(), [EventKind.DONE, EventKind.STOPPED])
        self.successResultOf(d)

    def test_raises(self) -> None:
        """An observer that raises is logged, and does no harm to calls or to others."""

        def raises(event: Event) -> None:
            raise RuntimeError(event.kind)

        self.q.addObserver(raises)
        self.q.addObserver(list[Event]().append)
        d = self.q.call(same)
        self.worker.complete(3)
        self.assertEqual(self.successResultOf(d), 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_notCallable(self) -> None:
        """What can't be called can't observe."""
        bad: Any = 5
        self.assertRaises(TypeError, self.q.addObserver, bad)

    def test_logged(self) -> None:
        """L{logEvent} logs events with what they have as fields."""
        self.q.addObserver(logEvent, [EventKind.DONE, EventKind.FAILED])
        for exception in (None, ValueError("x")):
            d = self.q.call(same, 1).addErrback(lambda _: None)
            with capturedLogs() as logged:
                if exception is None:
                    self.worker.complete()
                else:
                    self.worker.fail(exception)
            self.successResultOf(d)
            [entry] = [entry for entry in logged if "kind" in entry]
            self.assertEqual((entry["task"], entry["workerID"]), ("same(1)", 1))
        self.assertIs(entry["kind"], EventKind.FAILED)
        self.assertIs(entry["log_level"], LogLevel.warn)


def named(name: str) -> str:
    """Give a name back."""
    return name


class NameTests(QueueTestCase):
    """Tests of the names of calls and queues."""

    def test_call(self) -> None:
        """The name of a call is in its text, in statistics and in events."""
        events: list[Event] = []
        self.q.addObserver(events.append)
        d = self.q.call(same, 1, name="thumbnail", timeout=3)
        self.assertEqual(self.worker.running[0].callTuple[2], {})
        self.assertEqual(self.q.stats()["running"][0]["name"], "thumbnail")
        self.clock.advance(3)
        failure = self.failureResultOf(d, TimeoutError)
        self.assertIn("<Task 'thumbnail' same(1)>", str(failure.value))
        self.assertEqual({event.name for event in events}, {"thumbnail"})

    def test_retried(self) -> None:
        """Further attempts have it, too."""
        self.q.call(same, name="x", timeout=3, retries=1)
        self.clock.advance(3)
        self.assertEqual(self.q.stats()["running"][0]["name"], "x")

    def test_keyword(self) -> None:
        """
        A callable that takes a keyword of this name gets it, as in AsynQueue 0.9.9.
        """

        def anything(**kw: Any) -> None:
            """Take any keywords."""

        for f in (named, anything, "method"):
            self.q.call(f, name="x", series="memory")
            self.assertEqual(self.worker.running[0].callTuple[2], {"name": "x"})
            self.assertIsNone(self.q.stats()["running"][0]["name"])
            self.worker.complete()

    def test_update(self) -> None:
        """An update may have a name."""
        self.q.update(same, name="set up")
        self.assertEqual(self.q.stats()["running"][0]["name"], "set up")

    def test_map(self) -> None:
        """So may a map."""
        self.q.map(same, [1], name="all")
        self.assertEqual(self.q.stats()["running"][0]["name"], "all")

    def test_notText(self) -> None:
        """A name is a string."""
        bad: Any = 5
        self.assertRaises(TypeError, self.q.call, same, name=bad)
        self.assertRaises(TypeError, TaskQueue, name=bad)

    def test_positionalOnly(self) -> None:
        """A parameter of this name that isn't a keyword doesn't get it."""

        def f(name: Any, /, *args: Any) -> Any:
            return name

        q = self.queue(AsyncWorker())
        self.assertEqual(self.successResultOf(q.call(f, 1, name="n")), 1)

    def test_queue(self) -> None:
        """
        The name of a queue is in its statistics, its events, its text and its errors.
        """
        q = TaskQueue(MemoryWorker(), name="thumbs", maxQueued=1, reactor=self.clock)
        events: list[Event] = []
        q.addObserver(events.append)
        calls = [q.call(same) for _ in range(2)]
        self.assertEqual((q.stats()["name"], q.name), ("thumbs", "thumbs"))
        self.assertEqual({event.queue for event in events}, {"thumbs"})
        self.assertEqual(repr(q), "<TaskQueue 'thumbs', 1 workers>")
        self.assertRaisesRegex(QueueFull, "thumbs", q.call, same)
        self.assertEqual(q.stats()["failed"], {"refused": 1})
        q.shutdown(timeout=0)
        self.clock.advance(0)
        self.assertRaisesRegex(QueueRunError, "thumbs", q.call, same)
        for d in calls:
            self.failureResultOf(d)
        self.assertEqual(q.stats()["done"], 0)

    def test_subclass(self) -> None:
        """A subclass may have a C{name} of its own, and set it when it likes."""

        class Named(TaskQueue):
            """A queue with an attribute of this name."""

            def __init__(self) -> None:
                self.name = "mine"
                super().__init__()

        self.assertEqual(Named().name, "mine")


class ActingObserverTests(QueueTestCase):
    """Tests of observers that act on the queue they're told of."""

    def load(self, q: TaskQueue) -> int:
        """How many calls have no result."""
        return q.q.loadInfoProducer.queued

    def test_startedCancels(self) -> None:
        """A call that is cancelled when it's about to be run isn't run."""
        self.q.addObserver(lambda event: calls[0].cancel(), [EventKind.STARTED])
        self.q.pause()
        calls = [self.q.call(same)]
        self.q.resume()
        self.failureResultOf(calls[0], CancelledError)
        self.assertEqual((self.worker.accepted, self.load(self.q)), ([], 0))
        self.assertEqual(self.q.stats()["failed"], {"cancelled": 1})

    def test_startedDetaches(self) -> None:
        """A call whose worker is let go when it's about to be run goes to another."""
        other = MemoryWorker()
        self.q.addObserver(
            lambda event: self.q.detachWorker(self.worker), [EventKind.STARTED]
        )
        d = self.q.call(same, 1)
        self.assertEqual(self.worker.accepted, [])
        self.q.attachWorker(other)
        other.complete(1)
        self.assertEqual(self.successResultOf(d), 1)

    def test_startedShutsDown(self) -> None:
        """A call isn't run any longer if the queue is shut down just before."""
        ends: list[Any] = []
        self.q.addObserver(
            lambda event: ends.append(self.q.shutdown()), [EventKind.STARTED]
        )
        d = self.q.call(same)
        self.failureResultOf(d, QueueStopped)
        self.successResultOf(ends[0])
        self.assertEqual((self.worker.accepted, self.load(self.q)), ([], 0))

    def test_hiredDetaches(self) -> None:
        """A worker that is let go when it has just been hired gets nothing."""
        self.q.addObserver(
            lambda event: self.q.detachWorker(event.workerID), [EventKind.HIRED]
        )
        other = MemoryWorker()
        self.q.attachWorker(other)
        self.q.call(same)
        self.q.call(same)
        self.assertEqual((len(self.worker.accepted), other.accepted), (1, []))

    def test_unservedShutsDown(self) -> None:
        """A call fails if the queue is shut down as nobody can run it."""
        self.q.addObserver(lambda event: self.q.shutdown(), [EventKind.UNSERVED])
        self.failureResultOf(self.q.call(same, series="mail"), QueueStopped)
        self.assertEqual(self.load(self.q), 0)

    def test_unservedCancels(self) -> None:
        """The call is among those that wait already."""
        self.q.addObserver(
            lambda event: self.q.q.cancelSeries(event.series), [EventKind.UNSERVED]
        )
        self.failureResultOf(self.q.call(same, series="mail"), CancelledError)

    def test_queuedDrains(self) -> None:
        """A call that leads to a drain, and that nobody can run, doesn't hold it up."""
        q = self.queue()
        ends: list[Any] = []
        q.addObserver(
            lambda event: ends.append(q.shutdown(drain=True)), [EventKind.QUEUED]
        )
        self.failureResultOf(q.call(same), QueueStopped)
        self.successResultOf(ends[0])

    def test_lastWorkerDetached(self) -> None:
        """A drain ends when the last worker is let go as it's about to run a call."""
        self.q.addObserver(
            lambda event: self.q.detachWorker(self.worker, crash=True),
            [EventKind.STARTED],
        )
        self.q.pause()
        d = self.q.call(same)
        done = self.q.shutdown(drain=True)
        self.failureResultOf(d, QueueStopped)
        self.successResultOf(done)
