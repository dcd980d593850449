"""Tests of pauses, of limits of series, and of workers that are reserved for series."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import AsyncWorker, ProcessWorker, TaskQueue
from asynqueue.errors import TimeoutError, WorkerLost
from asynqueue.interfaces import IWorker
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import same
from ._fakes import FakeReactor


class GateCase(SynchronousTestCase):
    """A test with workers that are single-stepped."""

    def make(self, *workers: IWorker, **kw: Any) -> TaskQueue:
        """Make a queue."""
        self.clock = Clock()
        return TaskQueue(*workers, reactor=self.clock, **kw)

    def values(self, worker: MemoryWorker) -> list[Any]:
        """Tell what tasks the worker was given: the argument of each."""
        return [task.callTuple[1][0] for task in worker.accepted]


class PauseTests(GateCase):
    """Tests of C{pause} and C{resume}."""

    def test_nothingIsGiven(self) -> None:
        """Workers get nothing during a pause, and then what waits, in its order."""
        worker = MemoryWorker()
        q = self.make(worker)
        self.assertFalse(q.isPaused())
        q.pause()
        self.assertTrue(q.isPaused())
        q.call(same, 2)
        q.call(same, 1, doNext=True)
        q.call(same, 3)
        self.clock.advance(1)
        self.assertEqual(self.values(worker), [])
        q.resume()
        self.assertFalse(q.isPaused())
        for _ in range(3):
            worker.step()
        self.assertEqual(self.values(worker), [1, 2, 3])

    def test_acceptedGoesOn(self) -> None:
        """What a worker has accepted goes on, and nothing comes after it."""
        worker = MemoryWorker()
        q = self.make(worker)
        first, second = q.call(same, 1), q.call(same, 2)
        q.pause()
        worker.step()
        self.assertEqual(self.successResultOf(first), 1)
        self.assertNoResult(second)
        self.assertEqual(self.values(worker), [1])
        q.resume()
        worker.step()
        self.assertEqual(self.successResultOf(second), 2)

    def test_newWorker(self) -> None:
        """Nor does a worker get anything that is attached during a pause."""
        q = self.make()
        q.call(same, 1)
        q.pause()
        worker = MemoryWorker()
        q.attachWorker(worker)
        self.assertEqual(self.values(worker), [])
        q.resume()
        self.assertEqual(self.values(worker), [1])

    def test_update(self) -> None:
        """Updates are run."""
        worker = MemoryWorker()
        q = self.make(worker)
        q.pause()
        q.update(same, 1)
        self.assertEqual(self.values(worker), [1])

    def test_cancel(self) -> None:
        """A call that is held back can be cancelled, and its time can be up."""
        q = self.make(MemoryWorker())
        q.pause()
        cancelled, late = q.call(same, 1), q.call(same, 2, within=3)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.clock.advance(3)
        self.failureResultOf(late, TimeoutError)
        self.assertEqual(len(q.q), 0)

    def test_again(self) -> None:
        """To pause or resume a second time changes nothing."""
        worker = MemoryWorker()
        q = self.make(worker)
        q.resume()
        q.pause()
        q.pause()
        q.call(same, 1)
        q.resume()
        q.resume()
        self.assertEqual(self.values(worker), [1])

    def test_drain(self) -> None:
        """A shutdown that runs what is queued ends the pause."""
        worker = MemoryWorker()
        q = self.make(worker)
        q.pause()
        d = q.call(same, 1)
        done = q.shutdown(drain=True)
        worker.step()
        self.assertEqual(self.successResultOf(d), 1)
        self.assertEqual(self.successResultOf(done), [])

    def test_costsNothingAfterwards(self) -> None:
        """After a pause, calls meet waiting requests directly again."""
        q = self.make(MemoryWorker())
        q.pause()
        q.resume()
        self.assertIsNone(q.th.assignmentFactory.backlog.gate)


class LimitTests(GateCase):
    """Tests of C{limits}."""

    def setUp(self) -> None:
        """Make a queue with three workers of which two may run calls of one series."""
        self.workers = [MemoryWorker(["site", "other"]) for _ in range(3)]
        self.q = self.make(*self.workers, limits={"site": 2}, retries=1)

    def running(self) -> list[Any]:
        """List what is running."""
        return sorted(call[1] for worker in self.workers for call in worker.calls)

    def stepWorkerOf(self, value: Any) -> None:
        """Have a call run."""
        for worker in self.workers:
            for task in worker.running:
                if task.callTuple[1][0] == value:
                    worker.step(task)

    def test_heldBack(self) -> None:
        """
        No more calls of a series run at once than the limit says. The others don't
        wait for them, and they are run in their order.
        """
        results = [self.q.call(same, i, series="site") for i in range(4)]
        other = self.q.call(same, "other", series="other")
        self.assertEqual(len(self.q.q), 2)
        self.stepWorkerOf("other")
        self.assertEqual(self.successResultOf(other), "other")
        self.assertEqual(self.running(), [0, 1])
        self.stepWorkerOf(1)
        self.assertEqual(self.running(), [0, 2])
        self.stepWorkerOf(0)
        self.stepWorkerOf(2)
        self.assertEqual(self.running(), [3])
        self.stepWorkerOf(3)
        self.assertEqual([self.successResultOf(d) for d in results], [0, 1, 2, 3])

    def test_first(self) -> None:
        """What is queued to go first does when there's room."""
        for i in range(3):
            self.q.call(same, i, series="site")
        self.q.call(same, 9, series="site", doNext=True)
        self.stepWorkerOf(0)
        self.assertEqual(self.running(), [1, 9])

    def test_failures(self) -> None:
        """A call that fails, is cancelled, or runs out of time makes room."""
        failing = self.q.call(same, 0, series="site")
        cancelled = self.q.call(same, 1, series="site")
        late = self.q.call(same, 2, series="site", timeout=5, retries=0)
        for i in range(3, 5):
            self.q.call(same, i, series="site")
        self.workers[0].fail(ZeroDivisionError())
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertEqual(self.running(), [1, 2])
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.running(), [2, 3])
        self.clock.advance(5)
        self.failureResultOf(late, TimeoutError)
        self.assertEqual(self.running(), [3, 4])

    def test_lostWorker(self) -> None:
        """
        A worker that is lost makes room, and a further attempt is the first to go.
        """
        lost = self.q.call(same, 0, series="site")
        for i in range(1, 4):
            self.q.call(same, i, series="site")
        self.workers[0].lose(WorkerLost("It's gone"))
        self.assertNoResult(lost)
        self.assertEqual(self.running(), [0, 1])

    def test_handedBack(self) -> None:
        """Tasks that a worker hands back, or leaves behind, wait and aren't counted."""
        results = [self.q.call(same, i, series="site") for i in range(3)]
        self.workers[0].disconnect()
        self.assertEqual(self.running(), [0, 1])
        self.workers[1].resign()
        self.assertEqual(self.running(), [0, 1])
        for value in range(3):
            self.stepWorkerOf(value)
        self.assertEqual([self.successResultOf(d) for d in results], [0, 1, 2])

    def test_drain(self) -> None:
        """What is held back is run before the queue is shut down."""
        q = TaskQueue(AsyncWorker(), reactor=self.clock, limits={None: 1})
        inner: Deferred[int] = Deferred()
        first = q.call(lambda: inner)
        second = q.call(same, 2)
        done = q.shutdown(drain=True)
        self.assertNoResult(done)
        inner.callback(1)
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(self.successResultOf(done), [])

    def test_putDirectly(self) -> None:
        """A task that is put into the queue makes room as well."""
        q = self.make(AsyncWorker(), limits={"async": 1})
        tasks = [q.taskFactory.new(same, (i,), {}, 0, "async") for i in range(3)]
        for task in tasks:
            q.q.put(task)
        self.assertEqual([self.successResultOf(task.d)[1] for task in tasks], [0, 1, 2])

    def test_pause(self) -> None:
        """There may be a pause besides."""
        self.q.pause()
        for i in range(3):
            self.q.call(same, i, series="site")
        self.assertEqual(self.running(), [])
        self.q.resume()
        self.assertEqual(self.running(), [0, 1])

    def test_bad(self) -> None:
        """A limit is a positive integer, of a series."""
        self.assertRaises(ValueError, TaskQueue, limits={"site": 0})
        self.assertRaises(ValueError, TaskQueue, limits={"site": 1.5})


class Pausing(RecordingConsumer):
    """A consumer that takes one item, and then no more until it's told to."""

    def write(self, data: Any) -> None:
        """Take an item, and pause."""
        super().write(data)
        self.producer.pauseProducing()


class LimitedIterationTests(GateCase):
    """Tests of limits of series whose calls return iterators."""

    def test_consumer(self) -> None:
        """A call counts until a consumer has all that it gives."""
        q = self.make(AsyncWorker(["db"]), AsyncWorker(["db"]), limits={"db": 1})
        begun: list[int] = []

        def rows(n: int) -> Any:
            begun.append(n)
            yield n

        consumers = [Pausing(), Pausing()]
        calls = [
            q.call(rows, n, series="db", consumer=consumer)
            for n, consumer in enumerate(consumers)
        ]
        self.clock.advance(0)
        self.assertEqual((begun, consumers[0].items), ([0], [0]))
        for consumer in consumers:
            while not consumer.unregistered:
                consumer.producer.resumeProducing()
                self.clock.advance(0)
        self.assertEqual([self.successResultOf(d) for d in calls], consumers)


class ExclusiveTests(GateCase):
    """Tests of workers that are reserved for series."""

    def test_ownOnly(self) -> None:
        """Such a worker gets calls of its own series only."""
        worker = MemoryWorker(["urgent"], exclusive=True)
        q = self.make(worker)
        q.call(same, 1)
        q.call(same, 2, series="memory")
        d = q.call(same, 3, series="urgent")
        worker.step()
        self.assertEqual(self.successResultOf(d), 3)
        self.assertEqual(self.values(worker), [3])
        self.assertEqual(q.th.roster(), [])
        self.assertEqual(q.th.roster("urgent"), [worker])
        self.assertEqual(len(q.q), 2)

    def test_besideOthers(self) -> None:
        """It's free for its own while all others are busy."""
        general, reserved = MemoryWorker(), MemoryWorker(["urgent"], exclusive=True)
        q = self.make(general, reserved)
        for i in range(3):
            q.call(same, i)
        q.call(same, "now", series="urgent")
        self.assertEqual(self.values(general), [0])
        self.assertEqual(self.values(reserved), ["now"])

    def test_update(self) -> None:
        """Updates are run on it if they are of its series."""
        worker = MemoryWorker(["urgent"], exclusive=True)
        q = self.make(worker)
        self.assertEqual(self.successResultOf(q.update(same, 1)), [])
        q.update(same, 2, series="urgent")
        self.assertEqual(self.values(worker), [2])

    def test_qualify(self) -> None:
        """It can be qualified for more."""
        worker = MemoryWorker(["urgent"], exclusive=True)
        q = self.make(worker)
        q.call(same, 1, series="other")
        q.qualifyWorker(worker, "other")
        self.assertEqual(self.values(worker), [1])

    def test_drain(self) -> None:
        """A shutdown doesn't wait for calls that it doesn't run."""
        q = self.make(MemoryWorker(["urgent"], exclusive=True))
        d = q.call(same, 1)
        self.successResultOf(q.shutdown(drain=True))
        self.failureResultOf(d)

    def test_replacement(self) -> None:
        """A worker that takes the place of such a one is reserved, too."""
        worker = ProcessWorker(["urgent"], exclusive=True, reactor=FakeReactor())
        replacement = worker.replacement()
        self.assertTrue(replacement.exclusive)
        self.assertEqual(replacement.iQualified, ["urgent"])
        worker.crash()
        replacement.crash()

    def test_bad(self) -> None:
        """It's true or false."""
        self.assertRaises(TypeError, MemoryWorker, exclusive=["urgent"])
