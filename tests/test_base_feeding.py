"""Tests of feeding a queue no faster than it's worked off."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from asynqueue.base import TaskQueue
from asynqueue.errors import QueueFull, QueueRunError, QueueStopped, WorkerLost
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, ids, same, turn


class FeedingTests(QueueTestCase):
    """Tests of C{maxQueued}, C{ready}, and L{QueueFull}."""

    def setUp(self) -> None:
        """Make a queue in which two calls may wait."""
        super().setUp()
        self.worker = MemoryWorker()
        self.q = self.queue(self.worker, maxQueued=2)

    def fill(self) -> list[Deferred[Any]]:
        """Fill the queue. The first of the calls is running."""
        return [self.q.call(same, n) for n in range(3)]

    def test_full(self) -> None:
        """
        So many calls may wait, besides those that run. One more is refused, with the
        number and what to do, and leaves nothing behind.
        """
        self.fill()
        with self.assertRaisesRegex(QueueFull, r"maxQueued=2: wait for .*ready\(\)"):
            self.q.call(same, 3)
        self.assertEqual(self.runAll(), [0, 1, 2])
        self.assertEqual(self.q.q.loadInfoProducer.queued, 0)

    def test_roomAgain(self) -> None:
        """When one has been accepted, another may come."""
        self.fill()
        self.worker.complete()
        self.q.call(same, 3)
        self.assertRaises(QueueFull, self.q.call, same, 4)

    def test_unbounded(self) -> None:
        """Without it, any number may wait."""
        q = self.queue()
        for n in range(100):
            q.call(same, n)
        self.successResultOf(q.ready())

    def test_readyAtOnce(self) -> None:
        """Who waits for room while there is some doesn't wait."""
        self.assertIsNone(self.successResultOf(self.q.ready()))
        self.q.call(same)
        self.q.call(same)
        self.assertIsNone(self.successResultOf(self.q.ready()))

    def test_ready(self) -> None:
        """Else it's told when a call has been accepted, and can make one then."""
        self.fill()
        d = self.q.ready()
        self.assertNoResult(d)
        d.addCallback(lambda _: self.q.call(same, "more"))
        self.worker.complete()
        self.assertEqual(ids(self.worker), [1])
        self.assertEqual(self.q.th.waiting, 2)
        self.assertEqual(self.runAll(), [1, 2, "more"])

    def test_inTurn(self) -> None:
        """Those who wait are told in turn, each when there's room."""
        self.fill()
        order: list[int] = []

        def call(_: Any, n: int) -> None:
            order.append(n)
            self.q.call(same, n)

        for n in range(3):
            self.q.ready().addCallback(call, n)
        self.worker.complete()
        self.assertEqual(order, [0])
        self.worker.complete()
        self.assertEqual(order, [0, 1])
        self.worker.complete()
        self.assertEqual(order, [0, 1, 2])

    def test_cancelledCall(self) -> None:
        """A waiting call that is cancelled makes room, as does cancelling all."""
        calls = self.fill()
        d = self.q.ready()
        calls[1].cancel()
        self.successResultOf(d)
        self.failureResultOf(calls[1], CancelledError)
        calls.append(self.q.call(same))
        d = self.q.ready()
        self.q.cancelAll()
        self.successResultOf(d)
        for call in calls[2:]:
            self.failureResultOf(call, CancelledError)

    def test_cancelReady(self) -> None:
        """Who no longer waits isn't told, and keeps nobody else from being told."""
        self.fill()
        first, second = self.q.ready(), self.q.ready()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.worker.complete()
        self.successResultOf(second)

    def test_shutdown(self) -> None:
        """
        At the shutdown those who wait are told that there will be no room, and nobody
        can wait any longer.
        """
        calls = self.fill()
        d = self.q.ready()
        self.q.shutdown()
        self.failureResultOf(d, QueueStopped)
        self.assertRaises(QueueRunError, self.q.ready)
        for call in calls[1:]:
            self.failureResultOf(call, QueueStopped)

    def test_shutdownWhenReady(self) -> None:
        """
        Who is told may shut down the queue; the call that has made room was accepted
        before, and is finished.
        """
        calls = self.fill()
        shutdowns: list[Deferred[Any]] = []
        self.q.ready().addCallback(lambda _: shutdowns.append(self.q.shutdown()))
        self.worker.complete()
        self.successResultOf(calls[0])
        self.assertEqual(ids(self.worker), [1])
        self.failureResultOf(calls[2], QueueStopped)
        self.worker.complete("done")
        self.assertEqual(self.successResultOf(calls[1]), "done")
        self.assertEqual(len(self.successResultOf(shutdowns[0])), 1)

    def test_cancelWhenReady(self) -> None:
        """Who is told may cancel the call that has made room."""
        calls = self.fill()
        self.q.ready().addCallback(lambda _: calls[1].cancel())
        self.worker.complete()
        self.failureResultOf(calls[1], CancelledError)
        self.assertEqual(len(self.worker.cancelled), 1)
        self.assertEqual(ids(self.worker), [2])

    def test_feeder(self) -> None:
        """
        A coroutine that waits before each call feeds any number, never more than may
        wait.
        """
        most = 0

        async def feed(q: TaskQueue) -> None:
            """Feed the queue as it has room."""
            for n in range(50):
                await q.ready()
                q.call(same, n)

        d = Deferred.fromCoroutine(feed(self.q))
        order = []
        while self.worker.running:
            most = max(most, self.q.th.waiting)
            order += ids(self.worker)
            self.worker.complete()
        self.successResultOf(d)
        self.assertEqual((order, most), (list(range(50)), 2))

    def test_retriesBeyond(self) -> None:
        """A further attempt is never refused, though the queue is full."""
        calls = [self.q.call(same, n, retries=1) for n in range(3)]
        self.worker.lose(WorkerLost("lost"), ready=False)
        self.assertEqual(self.q.th.waiting, 3)
        self.assertRaises(QueueFull, self.q.call, same)
        self.worker.ready()
        self.assertEqual(self.runAll(), [0, 1, 2])
        for d in calls:
            self.successResultOf(d)

    def test_mapWaitsItsTurn(self) -> None:
        """A map doesn't take a place that was promised to somebody else."""
        worker = MemoryWorker()
        q = self.queue(worker, maxQueued=1)
        q.call(same)
        q.call(same, 1)
        ready = q.ready()
        mapped = q.map(same, range(3), chunksize=1)
        worker.complete()
        self.successResultOf(ready)
        q.map(same, range(3), chunksize=1)
        q.call(same, 2)
        self.assertNoResult(mapped)

    def test_promisesLast(self) -> None:
        """Each promise holds for this and the next turn of the reactor."""
        worker = MemoryWorker()
        q = self.queue(worker, maxQueued=1)
        q.call(same)
        q.ready()
        q.call(same)
        first, second = q.ready(), q.ready()
        turn(self.clock)
        worker.complete()
        self.successResultOf(first)
        turn(self.clock)
        self.assertNoResult(second)
        q.call(same)
