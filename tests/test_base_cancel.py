"""Tests of cancelling calls."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from asynqueue._asyncworker import AsyncWorker
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import QueueTestCase, ids, same


class CancelTests(QueueTestCase):
    """Tests of cancelling the Deferred of a call."""

    def test_queued(self) -> None:
        """A call that waits is removed at once, and never runs."""
        self.fillWorker()
        d = self.q.call(same, "cancelled")
        self.q.call(same, "kept")
        self.assertEqual(self.q.th.waiting, 2)
        d.cancel()
        self.assertEqual(self.q.th.waiting, 1)
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.runAll(), ["filler", "kept"])

    def test_running(self) -> None:
        """
        Of one that is running, the worker is told to stop the work, and takes the next.
        """
        d = self.q.call(same, "cancelled")
        job = self.worker.running[0]
        self.q.call(same, "next")
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.worker.cancelled, [job])
        self.assertEqual(ids(self.worker), ["next"])

    def test_runningInReactor(self) -> None:
        """
        Of one that is running in the reactor, the callable's own Deferred is cancelled,
        and the worker takes the next.
        """
        cancelled: list[Any] = []
        inner: Deferred[None] = Deferred(cancelled.append)
        q = self.queue(AsyncWorker())
        d = q.call(lambda: inner)
        following = q.call(same, 5)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(cancelled, [inner])
        self.assertEqual(self.successResultOf(following), 5)

    def test_lateResult(self) -> None:
        """A result that comes nevertheless is ignored."""
        d = self.q.call(same)
        job = self.worker.running[0]
        d.cancel()
        self.worker.complete("late", job)
        self.failureResultOf(d, CancelledError)

    def test_done(self) -> None:
        """Cancelling a call that has its result changes nothing."""
        d = self.q.call(same)
        self.worker.complete(5)
        d.cancel()
        self.assertEqual(self.successResultOf(d), 5)

    def test_twice(self) -> None:
        """Cancelling it twice is like once."""
        for prepare in (lambda: None, self.fillWorker):
            prepare()
            d = self.q.call(same)
            d.cancel()
            d.cancel()
            self.failureResultOf(d, CancelledError)

    def test_insideCallback(self) -> None:
        """A callback may cancel another call, that waits or runs, or its own."""
        other = MemoryWorker()
        self.q.attachWorker(other)
        first = self.q.call(same, 1)
        running = self.q.call(same, 2)
        waiting = self.q.call(same, 3)

        def cancel(result: Any) -> Any:
            for d in (first, running, waiting):
                d.cancel()
            return result

        first.addCallback(cancel)
        self.worker.complete("done")
        self.assertEqual(self.successResultOf(first), "done")
        self.failureResultOf(running, CancelledError)
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(ids(self.worker) + ids(other), [])

    def test_insideCallable(self) -> None:
        """A callable in the reactor may cancel its own call, and what waits."""
        q = self.queue(AsyncWorker())
        gate: Deferred[None] = Deferred()
        q.call(lambda: gate)
        calls: list[Deferred[Any]] = []

        def cancel() -> int:
            for d in calls:
                d.cancel()
            return 5

        calls.extend([q.call(cancel), q.call(self.fail, "It was run.")])
        gate.callback(None)
        for d in calls:
            self.failureResultOf(d, CancelledError)
        self.assertEqual(self.successResultOf(q.call(same, 1)), 1)

    def test_insideErrback(self) -> None:
        """An errback of a cancelled call may queue another, which takes its place."""
        self.fillWorker()
        d = self.q.call(same, 1)
        again: list[Any] = []
        d.addErrback(lambda _: again.append(self.q.call(same, 2)))
        d.cancel()
        self.worker.complete()
        self.assertEqual(ids(self.worker), [2])

    def test_shutdownAfter(self) -> None:
        """A call that is cancelled doesn't keep the queue from being shut down."""
        d = self.q.call(same)
        shutdown = self.q.shutdown()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.successResultOf(shutdown), [])

    def test_many(self) -> None:
        """
        Cancelling many calls that wait costs no more for each than cancelling one, and
        leaves the others as they are.
        """
        self.fillWorker()
        calls = [self.q.call(same, n) for n in range(20_000)]
        for n, d in enumerate(calls):
            if n % 1000:
                d.cancel()
                self.failureResultOf(d, CancelledError)
        self.assertEqual(self.q.th.waiting, 20)
        self.assertEqual(self.runAll(), ["filler", *range(0, 20_000, 1000)])

    def test_load(self) -> None:
        """A cancelled call doesn't count any longer, and counts once."""
        consumer = RecordingConsumer()
        self.q.subscribe(consumer)
        running, waiting = self.q.call(same), self.q.call(same)
        for d in (waiting, running):
            d.cancel()
            self.failureResultOf(d, CancelledError)
        self.assertEqual(consumer.items, [1, 2, 1, 0])


class CancelManyTests(QueueTestCase):
    """Tests of C{cancelSeries} and C{cancelAll}."""

    def setUp(self) -> None:
        """Have one call run, and ten wait of each of two series."""
        super().setUp()
        self.running = self.fillWorker()
        self.a = [self.q.call(same, n, series="memory") for n in range(10)]
        self.b = [self.q.call(same, n, series="local") for n in range(10)]

    def checkCancelled(self, calls: list[Deferred[Any]], tasks: list[Any]) -> None:
        """
        Check that calls were cancelled, and that the method has returned their tasks.
        """
        self.assertEqual(len(tasks), len(calls))
        for d in calls:
            self.failureResultOf(d, CancelledError)
        self.assertNoResult(self.running)

    def test_series(self) -> None:
        """All waiting calls of a series are cancelled, and no others."""
        self.checkCancelled(self.a, self.q.cancelSeries("memory"))
        self.worker.complete()
        self.successResultOf(self.running)
        self.assertEqual(self.runAll(), list(range(10)))
        for d in self.b:
            self.successResultOf(d)

    def test_all(self) -> None:
        """All waiting calls are cancelled; those that run go on."""
        self.checkCancelled(self.a + self.b, self.q.cancelAll())
        self.assertEqual(self.runAll(), ["filler"])
        self.successResultOf(self.running)

    def test_ofTheQueue(self) -> None:
        """The same can be done by the queue's Queue, as existing programs do."""
        self.checkCancelled(self.a, self.q.q.cancelSeries("memory"))
        self.checkCancelled(self.b, self.q.q.cancelAll())

    def test_none(self) -> None:
        """If there are none, nothing happens."""
        self.assertEqual(self.q.cancelSeries("x"), [])
        self.assertEqual(self.q.cancelSeries(None), [])
        self.checkCancelled(self.a + self.b, self.q.cancelAll())
        self.assertEqual(self.q.cancelAll(), [])

    def test_unserved(self) -> None:
        """Calls that nobody serves are cancelled as well."""
        d = self.q.call(same, series="nobody")
        self.q.cancelSeries("nobody")
        self.failureResultOf(d, CancelledError)

    def test_delayed(self) -> None:
        """So are calls that wait for a further attempt."""
        self.q.cancelAll()
        for d in self.a + self.b:
            self.failureResultOf(d, CancelledError)
        self.worker.complete()
        self.successResultOf(self.running)
        first, second = (
            self.q.call(same, n, series=s, timeout=1, retries=1, retryDelay=10)
            for n, s in enumerate(("memory", "local"))
        )
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(len(self.q.cancelSeries("local")), 1)
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(first)
        self.assertEqual(len(self.q.cancelAll()), 1)
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_insideErrback(self) -> None:
        """An errback of a cancelled call may cancel all again, or queue another."""

        def again(_: Any) -> None:
            self.q.cancelAll()
            self.q.call(same, "new")

        self.a[0].addErrback(again)
        self.q.cancelAll()
        for d in self.a[1:] + self.b:
            self.failureResultOf(d, CancelledError)
        self.assertEqual(self.runAll(), ["filler", "new"])
