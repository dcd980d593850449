"""Tests of the queue without a pool of workers."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._asyncworker import AsyncWorker
from asynqueue.errors import WorkerError
from asynqueue.null import NullQueue
from asynqueue.testing import RecordingConsumer


def nothing() -> Iterator[int]:
    """Yield nothing."""
    yield from ()


def divide(x: float, y: float) -> float:
    """Divide."""
    return x / y


class NullQueueTests(SynchronousTestCase):
    """Tests of L{NullQueue}."""

    def setUp(self) -> None:
        """Make a queue."""
        self.q = NullQueue(reactor=Clock())

    def test_worker(self) -> None:
        """It has one worker, in the reactor."""
        self.assertIsInstance(self.q.worker, AsyncWorker)
        self.assertEqual(self.q.workers(), [self.q.worker])
        self.assertEqual(len(self.q), 1)

    def test_call(self) -> None:
        """A call is run."""
        self.assertEqual(self.successResultOf(self.q.call(divide, 6, 3)), 2)

    def test_afterFailure(self) -> None:
        """After a call that has failed, the next one is run."""
        self.failureResultOf(self.q.call(divide, 1, 0), ZeroDivisionError)
        self.assertEqual(self.successResultOf(self.q.call(divide, 6, 3)), 2)

    def test_keywords(self) -> None:
        """It takes the keywords of every queue."""
        q = NullQueue(reactor=Clock(), returnFailure=True)
        self.failureResultOf(q.call(divide, 1, 0), WorkerError)

    def test_emptyIterator(self) -> None:
        """An empty generator gives an empty list, not an item that isn't there."""
        self.assertEqual(self.successResultOf(self.q.call(nothing)), [])

    def test_emptyIteratorWithConsumer(self) -> None:
        """With a consumer, it gives the consumer, which has no producer any longer."""
        consumer = RecordingConsumer()
        d = self.q.call(nothing, consumer=consumer)
        self.assertIs(self.successResultOf(d), consumer)
        self.assertEqual((consumer.items, consumer.producer), ([], None))

    def test_shutdown(self) -> None:
        """It can be shut down."""
        self.assertEqual(self.successResultOf(self.q.shutdown()), [])
