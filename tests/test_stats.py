"""Tests of the statistics of queues."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import AsyncWorker, TaskQueue
from asynqueue.base import _observed, _watching
from asynqueue.base._watching import ERROR, WINDOW_SECONDS, Quantiles
from asynqueue.errors import QueueStopped, WorkerLost
from asynqueue.process._queue import ProcessStats
from asynqueue.tasks import _assignment
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, same


class StatsTests(QueueTestCase):
    """Tests of C{stats}."""

    def setUp(self) -> None:
        """Have time given by the clock."""
        super().setUp()
        for module in (_assignment, _observed, _watching):
            self.patch(module, "perf_counter", lambda: self.clock.seconds() + 1)

    def test_plain(self) -> None:
        """All of it is plain data."""
        self.q.call(same, series=("a", 1))
        self.q.call(same)
        stats = self.q.stats()
        self.assertEqual(json.loads(json.dumps(stats)), stats)

    def test_paused(self) -> None:
        """It says whether the queue is paused."""
        self.assertIs(self.q.stats()["paused"], False)
        self.q.pause()
        self.assertIs(self.q.stats()["paused"], True)

    def test_queued(self) -> None:
        """Waiting calls are counted for each series."""
        self.fillWorker()
        for series in ("a", "a", None, ("b", 2)):
            self.q.call(same, series=series)
        self.assertEqual(self.q.stats()["queued"], {"a": 2, "None": 1, "('b', 2)": 1})

    def test_dropped(self) -> None:
        """Calls that were cancelled don't count, nor do series of which none waits."""
        self.fillWorker()
        ds = [self.q.call(same, series=series) for series in ("a", "a", "b")]
        for d in ds[1:]:
            d.cancel()
            self.failureResultOf(d)
        self.assertEqual(self.q.stats()["queued"], {"a": 1})

    def test_droppedMany(self) -> None:
        """
        That is so however many were cancelled, and whichever of them have come up.
        """
        self.fillWorker()
        ds = [
            self.q.call(same, series=series).addErrback(lambda _: None)
            for _ in range(100)
            for series in (None, "memory", "local")
        ]
        for i, d in enumerate(ds):
            if i % 7:
                d.cancel()
            if i % 20 == 0:
                self.worker.complete()
        queued = self.q.stats()["queued"]
        self.assertEqual(
            queued, Counter(str(task.series) for task in self.q.cancelAll())
        )
        self.assertEqual(len(queued), 3)

    def test_urgent(self) -> None:
        """Calls that go before others are counted with them."""
        self.fillWorker()
        for niceness in (0, -10, -20):
            self.q.call(same, niceness=niceness)
        self.assertEqual(self.q.stats()["queued"], {"None": 3})

    def test_workers(self) -> None:
        """There's an entry for each worker."""
        self.q.attachWorker(AsyncWorker(["mine"]))
        first, second = self.q.stats()["workers"]
        self.assertEqual(
            (first["ID"], first["kind"], first["pid"], first["running"]),
            (1, "MemoryWorker", None, 0),
        )
        self.assertEqual(second["series"], ["None", "async", "local", "mine"])
        self.assertEqual(second["state"], "ready")

    def test_oddWorker(self) -> None:
        """Attributes of a worker that mean something else there do no harm."""
        odd: Any = self.worker
        odd.state, odd.process, odd.tasks = "tired", self.clock, 7
        self.patch(MemoryWorker, "running", True)
        self.q.call(same)
        stats = self.q.stats()
        self.assertEqual((stats["running"], stats["workers"][0]["pid"]), ([], None))
        self.assertEqual(stats["workers"][0]["state"], "ready")

    def test_running(self) -> None:
        """It's told what workers are at, and since when."""
        self.q.call(same, 1, 2)
        self.clock.advance(3)
        stats = self.q.stats()
        self.assertEqual(
            stats["running"],
            [
                {
                    "call": "same(1, 2)",
                    "name": None,
                    "series": "None",
                    "worker": self.worker.ID,
                    "seconds": 3.0,
                }
            ],
        )
        self.assertEqual(stats["workers"][0]["running"], 1)

    def test_within(self) -> None:
        """A call that looks for itself is there, and has just been started."""
        q = TaskQueue(AsyncWorker(), reactor=self.clock)
        seen: list[Any] = []
        for _ in range(3):
            q.call(lambda: seen.extend(q.stats()["running"]))
        self.assertEqual([entry["seconds"] for entry in seen], [0.0] * 3)

    def test_inReactor(self) -> None:
        """So it is for calls in the reactor, and for the updates behind them."""
        q = TaskQueue(AsyncWorker())
        d: Deferred[None] = Deferred()
        q.call(lambda: d)
        q.update(same)
        self.assertEqual(len(q.stats()["running"]), 2)
        d.callback(None)
        self.assertEqual(q.stats()["running"], [])

    def test_counts(self) -> None:
        """Calls are counted by what has become of them."""
        calls = [self.q.call(same) for _ in range(3)]
        calls += [self.q.call(same, timeout=1)]
        self.assertEqual(self.q.stats()["load"], 4)
        self.worker.complete()
        self.worker.fail(ValueError())
        self.worker.lose(WorkerLost("gone"))
        self.clock.advance(1)
        waiting = self.fillWorker(), self.q.call(same)
        waiting[1].cancel()
        for d in (*calls[1:], waiting[1]):
            self.failureResultOf(d)
        stats = self.q.stats()
        self.assertEqual((stats["load"], stats["done"]), (1, 1))
        self.assertEqual(
            stats["failed"], {"error": 1, "lost": 1, "timeout": 1, "cancelled": 1}
        )

    def test_stopped(self) -> None:
        """Calls that were not run before the shutdown are counted as such."""
        self.fillWorker()
        d = self.q.call(same)
        self.q.shutdown()
        self.failureResultOf(d, QueueStopped)
        self.assertEqual(self.q.stats()["failed"], {"stopped": 1})

    def test_retried(self) -> None:
        """A call that is tried again is one call."""
        d = self.q.call(same, timeout=1, retries=1)
        self.clock.advance(1)
        self.worker.complete(5)
        self.assertEqual(self.successResultOf(d), 5)
        stats = self.q.stats()
        self.assertEqual((stats["retried"], stats["done"]), (1, 1))
        self.assertEqual(stats["failed"], {})

    def test_seconds(self) -> None:
        """Waiting ends, and running begins, when a worker accepts the call."""
        self.q.call(same)
        self.q.call(same)
        self.clock.advance(1)
        self.worker.complete()
        self.clock.advance(3)
        self.worker.complete()
        stats = self.q.stats()
        self.assertEqual(
            (stats["wait"]["count"], stats["wait"]["mean"], stats["wait"]["max"]),
            (2, 0.5, 1.0),
        )
        self.assertEqual((stats["run"]["mean"], stats["run"]["max"]), (2.0, 3.0))

    def test_measured(self) -> None:
        """What the worker has measured counts more than what is seen here."""
        self.q.call(same)
        job: Any = self.worker.running[0]
        self.clock.advance(3)
        job.watch.seconds = 2.0
        self.worker.complete()
        stats = self.q.stats()
        self.assertEqual((stats["run"]["max"], stats["wait"]["max"]), (2.0, 1.0))

    def test_sampled(self) -> None:
        """
        Of many calls in a short time, only some are measured, but all are counted.
        """
        for _ in range(501):
            self.q.call(same)
            self.worker.complete()
        stats = self.q.stats()
        self.assertEqual((stats["done"], stats["run"]["count"]), (501, 11))

    def test_notSampled(self) -> None:
        """Of those that come one after the other, or come so again, all are."""
        self.test_sampled()
        for _ in range(100):
            self.clock.advance(0.001)
            self.q.call(same)
            self.worker.complete()
        self.assertGreaterEqual(self.q.stats()["run"]["count"], 50)


class QuantileTests(SynchronousTestCase):
    """Tests of L{Quantiles}."""

    def test_empty(self) -> None:
        """Of no values, all figures are 0."""
        self.assertEqual(set(Quantiles().summary().values()), {0})

    def test_error(self) -> None:
        """A quantile is off by 2 % at most, however the values are distributed."""
        rng = random.Random(7)
        quantiles = Quantiles()
        values = [rng.lognormvariate(-6, 3) for _ in range(5_000)]
        for value in values:
            quantiles.add(value, 0.0)
        values.sort()
        summary = quantiles.summary()
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            exact = values[int(q * (len(values) - 1))]
            self.assertLess(abs(summary[name] - exact) / exact, ERROR * 1.001)
        self.assertAlmostEqual(summary["mean"], sum(values) / len(values))
        self.assertEqual(summary["max"], values[-1])

    def test_bounded(self) -> None:
        """Whatever the values, there are fewer than 700 counts."""
        quantiles = Quantiles()
        for i in range(-4_000, 4_000):
            quantiles.add(10 ** (i / 100), 0.0)
        quantiles.add(0.0, 0.0)
        self.assertLess(len(quantiles._buckets), 700)

    def test_one(self) -> None:
        """No quantile is above the maximum."""
        quantiles = Quantiles()
        quantiles.add(1.001, 0.0)
        self.assertEqual(quantiles.summary()["p99"], 1.001)

    def test_windows(self) -> None:
        """Quantiles are of the last minutes, number and mean of all time."""
        quantiles = Quantiles()
        quantiles.add(9.0, 0.0)
        quantiles.add(2.0, WINDOW_SECONDS)
        self.assertEqual(quantiles.summary()["max"], 9.0)
        quantiles.add(4.0, 2 * WINDOW_SECONDS)
        summary = quantiles.summary()
        self.assertEqual((summary["max"], summary["count"], summary["mean"]), (4, 3, 5))
        quantiles.add(1.0, 4 * WINDOW_SECONDS)
        self.assertEqual(quantiles.summary()["max"], 1.0)


class ProcessStatsTests(SynchronousTestCase):
    """Tests of L{ProcessStats}."""

    def setUp(self) -> None:
        """Make one that has fired."""
        self.stats = ProcessStats({"done": 1})
        self.stats.callback([(2.0, 1.0)])

    def test_dict(self) -> None:
        """It's a dict, as the statistics of all queues are."""
        self.assertEqual(self.stats["done"], 1)
        self.assertEqual(json.dumps(self.stats), '{"done": 1}')
        self.assertEqual(list(self.stats), ["done"])

    def test_yielded(self) -> None:
        """It's a Deferred of the times of calls, for programs of AsynQueue 0.9.9."""

        @inlineCallbacks
        def program() -> Any:
            [pair] = yield self.stats
            return pair

        self.assertEqual(self.successResultOf(program()), (2.0, 1.0))

    def test_awaited(self) -> None:
        """So it is in coroutines."""

        async def program() -> Any:
            return await self.stats

        d = Deferred.fromCoroutine(program())
        self.assertEqual(self.successResultOf(d), [(2.0, 1.0)])
