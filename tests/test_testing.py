"""Tests of the helpers for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from asynqueue._child.status import ErrorText, Status
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ICancellingWorker, IWorker
from asynqueue.iteration import Deferator, IterationProducer
from asynqueue.tasks._task import Task
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import same, task


def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def upTo(n: int) -> Iterator[int]:
    """Count."""
    yield from range(n)


class MemoryWorkerTests(SynchronousTestCase):
    """Tests of L{MemoryWorker}."""

    def setUp(self) -> None:
        """Make a worker."""
        self.worker = MemoryWorker(["x"])

    def step(self, f: Any, *args: Any, **kw: Any) -> Any:
        """Have the worker run a call. Returns the status and the result."""
        job = task(f, *args, **kw)
        self.worker.run(job)
        self.worker.step()
        return self.successResultOf(job.d)

    def test_interfaces(self) -> None:
        """It does all that a worker does, and can cancel tasks."""
        for interface in (IWorker, ICancellingWorker):
            verifyClass(interface, MemoryWorker)
            verifyObject(interface, self.worker)
        IWorker.validateInvariants(self.worker)

    def test_attributes(self) -> None:
        """It's qualified for its class's series and those that it's given."""
        self.assertEqual(self.worker.cQualified, ["memory", "local"])
        self.assertEqual(self.worker.iQualified, ["x"])
        self.assertEqual(MemoryWorker(capacity=3).capacity, 3)

    def test_accepts(self) -> None:
        """A task that it's given is running, and nothing else happens."""
        job = task(double, 2)
        d = self.worker.run(job)
        self.assertNoResult(d)
        self.assertNoResult(job.d)
        self.assertEqual(self.worker.running, [job])
        self.assertEqual(self.worker.calls, [(double, 2)])
        self.assertEqual(self.worker.busy, 1)

    def test_complete(self) -> None:
        """A task that is completed has its result, and the worker is ready."""
        job = task(double, 2)
        d = self.worker.run(job)
        self.worker.complete("done")
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, "done"))
        self.assertIsNone(self.successResultOf(d))
        self.assertEqual((self.worker.running, self.worker.busy), ([], 0))
        self.assertEqual(self.worker.accepted, [job])

    def test_chosenTask(self) -> None:
        """By default it's the task accepted first; any other can be named."""
        first, second, third = jobs = [task(same, n) for n in range(3)]
        for job in jobs:
            self.worker.run(job)
        self.worker.complete(2, second)
        self.worker.complete(1)
        self.worker.complete(3)
        self.assertEqual(
            [self.successResultOf(job.d)[1] for job in (first, second, third)],
            [1, 2, 3],
        )

    def test_readyBeforeResult(self) -> None:
        """It can be ready for another task before the last has its result."""
        job = task()
        d = self.worker.run(job)
        self.worker.ready()
        self.successResultOf(d)
        self.assertNoResult(job.d)
        self.worker.complete()
        self.successResultOf(job.d)

    def test_readyAfterResult(self) -> None:
        """It can be ready some time after the result."""
        job = task()
        d = self.worker.run(job)
        self.worker.complete(ready=False)
        self.successResultOf(job.d)
        self.assertNoResult(d)
        self.worker.ready(job)
        self.successResultOf(d)

    def test_fail(self) -> None:
        """
        A task that fails has text about its exception, which carries the exception.
        """
        error = ValueError("oops")
        job = task(double, 2)
        self.worker.run(job)
        self.worker.fail(error)
        status, text = self.successResultOf(job.d)
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text, ErrorText)
        self.assertIs(text.exception, error)
        self.assertTrue(text.startswith("Exception 'oops'"), text)
        self.assertIn("double(2)", text)

    def test_timeOut(self) -> None:
        """A task can be said to have taken too long."""
        job = Task(same, (), {}, 0, None, 5, reactor=Clock())
        self.worker.run(job)
        self.worker.timeOut()
        status, text = self.successResultOf(job.d)
        self.assertEqual(status, Status.TIMEOUT)
        self.assertIn("5 seconds", text)

    def test_disconnect(self) -> None:
        """A task can be said not to have been run."""
        job = task()
        self.worker.run(job)
        self.worker.disconnect()
        self.assertEqual(self.successResultOf(job.d), (Status.DISCONNECTED, None))

    def test_lose(self) -> None:
        """A task can fail by no fault of its own, and the worker be ready or not."""
        for ready in (True, False):
            job = task()
            d = self.worker.run(job)
            self.worker.lose(WorkerLost("gone"), ready=ready)
            self.failureResultOf(job.d, WorkerLost)
            self.assertEqual(d.called, ready)

    def test_answer(self) -> None:
        """A task can be given any pair, also with plain bytes."""
        job = task()
        self.worker.run(job)
        self.worker.answer((b"n", None))
        self.assertEqual(self.successResultOf(job.d), (b"n", None))

    def test_nothingToDo(self) -> None:
        """
        A mistake of the test is told: there's no task, or nobody has hired the worker.
        """
        self.assertRaisesRegex(RuntimeError, "no task", self.worker.complete)
        self.assertRaisesRegex(RuntimeError, "ready", self.worker.ready)
        self.assertRaisesRegex(RuntimeError, "hired", self.worker.resign)

    def test_stop(self) -> None:
        """It has stopped when all tasks have their results."""
        first, second = task(), task()
        self.worker.run(first)
        self.worker.run(second)
        d = self.worker.stop()
        self.worker.complete()
        self.assertNoResult(d)
        self.worker.lose(WorkerLost("gone"))
        self.failureResultOf(second.d, WorkerLost)
        self.successResultOf(d)
        self.assertTrue(self.worker.stopping)

    def test_stopIdle(self) -> None:
        """It has stopped at once when it has no task."""
        self.successResultOf(self.worker.stop())

    def test_stopTwice(self) -> None:
        """All who stop it hear when it has stopped."""
        self.worker.run(task())
        ends = [self.worker.stop(), self.worker.stop()]
        self.worker.complete()
        for d in ends:
            self.successResultOf(d)

    def test_stopCancelled(self) -> None:
        """A task that is cancelled isn't waited for."""
        job = task()
        self.worker.run(job)
        d = self.worker.stop()
        self.worker.cancelTask(job)
        self.successResultOf(d)

    def test_crash(self) -> None:
        """
        A crash gives the tasks without results, ends a stop that waits for them, and
        can be told a late result.
        """
        first, second = task(), task()
        self.worker.run(first)
        self.worker.run(second)
        self.worker.complete()
        d = self.worker.stop()
        self.assertEqual(self.worker.crash(), [second])
        self.successResultOf(d)
        self.assertTrue(self.worker.crashed)
        self.worker.complete("late", second)
        self.assertEqual(self.successResultOf(second.d), (Status.RAN, "late"))

    def test_cancelTask(self) -> None:
        """
        A task that is cancelled is forgotten, and the worker is ready; one that it
        doesn't have is ignored.
        """
        job, other = task(), task()
        d = self.worker.run(job)
        self.worker.cancelTask(job)
        self.worker.cancelTask(other)
        self.successResultOf(d)
        self.assertEqual(self.worker.cancelled, [job])
        self.assertEqual(self.worker.running, [])

    def test_resign(self) -> None:
        """It resigns by calling what it was given for that."""
        calls: list[int] = []
        self.worker.setResignator(lambda: calls.append(1))
        self.worker.resign()
        self.assertEqual(calls, [1])

    def test_step(self) -> None:
        """A step calls the callable and hands back what it returns."""
        self.assertEqual(self.step(double, 4), (Status.RAN, 8))

    def test_stepRaises(self) -> None:
        """A step hands back what the callable raises."""
        status, text = self.step(double)
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, TypeError)

    def test_stepIterator(self) -> None:
        """
        A step gives an iterator as a Deferator, and an empty one as an empty list.
        """
        status, deferator = self.step(upTo, 2)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual([self.successResultOf(d) for d in deferator], [0, 1])
        self.assertEqual(self.step(upTo, 0), (Status.ITERATOR, []))

    def test_stepRaw(self) -> None:
        """A step gives an iterator as it is if the worker or the call says so."""
        status, iterator = self.step(upTo, 2, raw=True)
        self.assertEqual((status, list(iterator)), (Status.RAN, [0, 1]))
        self.worker.raw = True
        status, iterator = self.step(upTo, 2)
        self.assertEqual((status, list(iterator)), (Status.RAN, [0, 1]))

    def test_stepConsumer(self) -> None:
        """A step gives an iterator as a producer if the call has a consumer."""
        consumer = RecordingConsumer()
        status, producer = self.step(upTo, 3, consumer=consumer)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(producer, IterationProducer)
        self.assertIs(self.successResultOf(producer.run()), consumer)
        self.assertEqual(consumer.items, [0, 1, 2])


class RecordingConsumerTests(SynchronousTestCase):
    """Tests of L{RecordingConsumer}."""

    def test_interface(self) -> None:
        """It's a consumer."""
        verifyClass(IConsumer, RecordingConsumer)
        verifyObject(IConsumer, RecordingConsumer())

    def test_records(self) -> None:
        """It keeps what's written, and knows its producer."""
        consumer = RecordingConsumer()
        producer = object()
        consumer.registerProducer(producer, True)
        self.assertIs(consumer.producer, producer)
        self.assertIs(consumer.streaming, True)
        consumer.write(1)
        consumer.write(2)
        consumer.unregisterProducer()
        self.assertEqual(consumer.items, [1, 2])
        self.assertIsNone(consumer.producer)
        self.assertIsNone(consumer.streaming)
        self.assertEqual(consumer.unregistered, 1)

    def test_oneProducer(self) -> None:
        """It refuses a second producer, as consumers do."""
        consumer = RecordingConsumer()
        consumer.registerProducer(object(), False)
        self.assertRaises(RuntimeError, consumer.registerProducer, object(), True)
