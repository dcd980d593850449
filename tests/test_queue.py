"""Tests of the queue between those who put items in and their handler."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.base import Queue
from asynqueue.errors import ImplementationError, QueueStopped
from asynqueue.tasks import TaskHandler
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import task


class Handler:
    """A handler that is single-stepped by firing the Deferred of its last item."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.d: Deferred[Any] = Deferred()

    def __call__(self, item: Any) -> Deferred[Any]:
        """Take an item, and be ready for the next when the Deferred fires."""
        self.items.append(item)
        self.d = Deferred()
        return self.d


class ClosingHandler(Handler):
    """A handler that can be shut down, and notes what it's given for that."""

    def __init__(self) -> None:
        super().__init__()
        self.given: tuple[Any, ...] | None = None

    def shutdown(self, *given: Any) -> list[str]:
        """Shut down, and return items left unhandled."""
        self.given = given
        return ["left"]


class PlainHandlerTests(SynchronousTestCase):
    """Tests of L{Queue} with a handler that is any callable."""

    def setUp(self) -> None:
        """Make a queue."""
        self.handler = Handler()
        self.q = Queue(self.handler)
        self.consumer = RecordingConsumer()
        self.q.subscribe(self.consumer)

    def test_oneByOne(self) -> None:
        """The handler is given the lowest item, and the next when it's ready."""
        for item in (5, 3, 4):
            self.q.put(item)
        self.assertEqual(self.handler.items, [5])
        self.assertEqual(len(self.q), 2)
        self.handler.d.callback(None)
        self.assertEqual(self.handler.items, [5, 3])
        self.handler.d.callback(None)
        self.handler.d.callback(None)
        self.q.put(1)
        self.assertEqual(self.handler.items, [5, 3, 4, 1])

    def test_manyAtOnce(self) -> None:
        """
        A handler that is ready at once is given any number of items, without deep
        recursion.
        """
        gate: Deferred[None] = Deferred()
        items: list[int] = []

        def handle(item: int) -> Deferred[None] | None:
            items.append(item)
            return gate if item == 0 else None

        q = Queue(handle)
        for n in range(5000):
            q.put(n)
        gate.callback(None)
        self.assertEqual(items, list(range(5000)))

    def test_failingHandler(self) -> None:
        """A handler that fails is logged, and is given the next item."""
        items: list[int] = []

        def handle(item: int) -> Deferred[None]:
            items.append(item)
            return fail(ValueError(item))

        q = Queue(handle)
        q.put(1)
        q.put(2)
        self.assertEqual(items, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_none(self) -> None:
        """C{None} can't be queued."""
        self.assertRaises(ValueError, self.q.put, None)

    def test_incomparable(self) -> None:
        """
        An item that can't be compared with those that wait is refused, isn't counted,
        and leaves them as they are.
        """
        self.q.put(1)
        self.q.put(2)
        self.assertRaises(TypeError, self.q.put, "x")
        self.assertEqual(self.consumer.items[-1], 2)
        self.handler.d.callback(None)
        self.assertEqual(self.handler.items, [1, 2])

    def test_load(self) -> None:
        """The load is the number of items that haven't been handled."""
        self.q.put(1)
        self.q.put(2)
        self.handler.d.callback(None)
        self.handler.d.callback(None)
        self.assertEqual(self.consumer.items, [1, 2, 1, 0])

    def test_cancelAll(self) -> None:
        """All waiting items can be taken out, and count no longer."""
        for n in range(10):
            self.q.put(n)
        self.assertEqual(self.q.cancelAll(), list(range(1, 10)))
        self.handler.d.callback(None)
        self.assertEqual(self.handler.items, [0])
        self.assertEqual(self.consumer.items[-1], 0)

    def test_cancelSeries(self) -> None:
        """Items without a series are of the default one."""
        for n in range(3):
            self.q.put(n)
        self.assertEqual(self.q.cancelSeries("x"), [])
        self.assertEqual(self.q.cancelSeries(None), [1, 2])

    def test_true(self) -> None:
        """A queue is true also when it's empty."""
        self.assertTrue(self.q)

    def test_shutdown(self) -> None:
        """
        The shutdown gives the items that haven't been handled, and no more are taken.
        """
        for n in (1, 3, 2):
            self.q.put(n)
        self.assertTrue(self.q.isRunning())
        d = self.q.shutdown()
        self.assertFalse(self.q.isRunning())
        self.q.put(4)
        self.handler.d.callback(None)
        self.assertEqual(self.successResultOf(d), [2, 3])
        self.assertEqual(self.handler.items, [1])
        self.assertEqual(self.consumer.items[-1], 0)
        self.assertIsNone(self.consumer.producer)

    def test_shutdownWaits(self) -> None:
        """The shutdown waits until the handler is done with the item that it has."""
        self.q.put(1)
        d = self.q.shutdown()
        self.assertNoResult(d)
        self.handler.d.callback(None)
        self.assertEqual(self.successResultOf(d), [])

    def test_shutdownIdle(self) -> None:
        """It's over at once if the handler has no item, also the second time."""
        self.assertEqual(self.successResultOf(self.q.shutdown()), [])
        self.assertEqual(self.successResultOf(self.q.shutdown()), [])

    def test_shutdownHandler(self) -> None:
        """
        A handler that can be shut down is, with the time limit if there's one, and
        adds the items that it leaves unhandled.
        """
        for timeout, given in ((None, ()), (5, (5,))):
            handler = ClosingHandler()
            q = Queue(handler, timeout)
            q.put(1)
            q.put(2)
            d = q.shutdown()
            handler.d.callback(None)
            self.assertEqual(self.successResultOf(d), [2, "left"])
            self.assertEqual(handler.given, given)

    def test_shutdownTimeout(self) -> None:
        """The time limit can be given to the shutdown itself."""
        handler = ClosingHandler()
        self.successResultOf(Queue(handler, 5).shutdown(3))
        self.assertEqual(handler.given, (3,))

    def test_notCallable(self) -> None:
        """A handler that isn't callable is refused."""
        with self.assertRaisesRegex(TypeError, "callable, which 5 isn't"):
            Queue(5)  # type: ignore[arg-type]

    def test_badTimeout(self) -> None:
        """So is a time limit that isn't one."""
        self.assertRaises(ValueError, Queue, self.handler, -1)

    def test_badConsumer(self) -> None:
        """Who wants to be told the load must be a consumer."""
        with self.assertRaisesRegex(ImplementationError, "IConsumer"):
            self.q.subscribe([])  # type: ignore[arg-type]


class TaskHandlerTests(SynchronousTestCase):
    """Tests of L{Queue} with a L{TaskHandler}."""

    def setUp(self) -> None:
        """Make a queue with a worker."""
        self.handler = TaskHandler(reactor=Clock())
        self.worker = MemoryWorker()
        self.handler.hire(self.worker)
        self.q = Queue(self.handler)
        self.consumer = RecordingConsumer()
        self.q.subscribe(self.consumer)

    def test_tasks(self) -> None:
        """Tasks are run by workers, and count until they have their results."""
        first, second = task(), task()
        self.q.put(first)
        self.q.put(second)
        self.assertEqual(len(self.q), 1)
        self.worker.complete()
        self.worker.complete()
        self.successResultOf(first.d)
        self.successResultOf(second.d)
        self.assertEqual(self.consumer.items, [1, 2, 1, 0])

    def test_cancelSeries(self) -> None:
        """Every waiting task of a series is taken out, and its Deferred fails."""
        self.q.put(task())
        jobs = [task(series="local") for _ in range(10)]
        other = task(series="memory")
        for job in (*jobs, other):
            self.q.put(job)
        self.assertEqual(self.q.cancelSeries("local"), jobs)
        for job in jobs:
            self.failureResultOf(job.d, CancelledError)
        self.assertNoResult(other.d)
        self.assertEqual(self.consumer.items[-1], 2)

    def test_notATask(self) -> None:
        """What isn't a task is refused."""
        with self.assertRaisesRegex(TypeError, "takes tasks, not 5"):
            self.q.put(5)
        self.assertEqual(self.consumer.items, [])

    def test_unhashable(self) -> None:
        """A task of a series that isn't hashable is refused, and not counted."""
        self.assertRaises(TypeError, self.q.put, task(series=[]))
        self.assertEqual(self.consumer.items, [1, 0])

    def test_shutdown(self) -> None:
        """The shutdown lets the workers go."""
        d = self.q.shutdown()
        self.assertEqual(self.successResultOf(d), [])
        self.assertTrue(self.worker.stopping)
        self.assertEqual(self.handler.workers, {})

    def test_putTwice(self) -> None:
        """
        A task is queued once. One that waits, runs, or has its result, is refused.
        """
        running, waiting, done = task(), task(), task()
        done.callback((b"r", 1))
        for job in (running, waiting):
            self.q.put(job)
        for job in (running, waiting, done):
            with self.assertRaisesRegex(ValueError, "queue its copy"):
                self.q.put(job)
        self.assertEqual((self.worker.running, len(self.q)), ([running], 1))
        self.assertEqual(self.consumer.items, [1, 2])

    def test_shutDownByConsumer(self) -> None:
        """
        If a consumer of the load shuts the queue down when it's told of a task, the
        task fails, and isn't counted any longer.
        """
        self.patch(self.consumer, "write", lambda load: self.q.shutdown())
        job = task()
        self.q.put(job)
        self.failureResultOf(job.d, QueueStopped)
        self.assertEqual(self.q.loadInfoProducer.queued, 0)
