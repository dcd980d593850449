"""
Tests of queues that get more workers, or fewer, and of children on cores of their own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from asynqueue import ProcessQueue, ProcessWorker, ThreadQueue, ThreadWorker
from asynqueue.errors import QueueRunError, WorkerStartError
from asynqueue.events import EventKind
from asynqueue.process._options import coreSets


class ThreadQueueTests(TestCase):
    """Tests of resizing a queue with threads."""

    timeout = 30

    def setUp(self) -> None:
        """Make a queue."""
        self.q = ThreadQueue()
        self.addCleanup(self.q.shutdown)

    async def test_more(self) -> None:
        """New workers take what waits."""
        barrier = threading.Barrier(3)
        results = [self.q.call(barrier.wait) for _ in range(3)]
        await self.q.resize(3)
        self.assertEqual(len(self.q), 3)
        self.assertEqual(self.q.N, 3)
        self.assertEqual(sorted(await gatherResults(results)), [0, 1, 2])

    async def test_firstGone(self) -> None:
        """Calls past the queue go to the thread that is first now."""
        await self.q.resize(2)
        await self.q.detachWorker(self.q.worker)
        self.assertEqual(await self.q.deferToThread(abs, -1), 1)

    async def test_fewer(self) -> None:
        """Those that are too many run what they have accepted."""
        await self.q.resize(2)
        gates = [threading.Event() for _ in range(2)]
        results = [self.q.call(gate.wait) for gate in gates]
        done = self.q.resize(1)
        self.assertEqual(self.q.workers(), [self.q.worker])
        gates[0].set()
        await results[0]
        self.assertFalse(done.called)
        gates[1].set()
        await done
        self.assertEqual(await results[1], True)
        self.assertEqual(await self.q.call(abs, -1), 1)

    async def test_others(self) -> None:
        """Workers that others have attached don't count."""
        other = ThreadWorker(["other"], exclusive=True)
        await self.q.attachWorker(other)
        await self.q.resize(2)
        self.assertEqual(len(self.q), 3)
        await self.q.resize(1)
        self.assertEqual(self.q.workers(), [self.q.worker, other])

    async def test_bad(self) -> None:
        """There's one at least, and none after the shutdown."""
        self.assertRaises(ValueError, self.q.resize, 0)
        self.assertRaises(ValueError, self.q.resize, 1.5)
        await self.q.shutdown()
        self.assertRaises(QueueRunError, self.q.resize, 2)


class ProcessQueueTests(TestCase):
    """Tests of resizing a queue with children."""

    timeout = 60

    async def pids(self, q: ProcessQueue) -> list[int]:
        """List the process IDs of the children."""
        return await q.update(os.getpid, ephemeral=True)

    async def test_resizedByObserver(self) -> None:
        """An observer that hears of a lost child may set the number of children."""
        q = ProcessQueue(2)
        self.addCleanup(q.shutdown)
        await self.pids(q)
        sizes: list[Any] = []
        q.addObserver(lambda event: sizes.append(q.resize(1)), [EventKind.LOST])
        lost: ProcessWorker = q.workers(1)
        lost.process.kill()
        await lost.deferUntilGone()
        await sizes[0]
        self.assertEqual((len(q), q.N), (1, 1))

    async def test_slowUpdate(self) -> None:
        """Children whose stored update runs out of time aren't started for ever."""
        q = ProcessQueue(1)
        self.addCleanup(q.shutdown)
        q.update(time.sleep, 60, timeout=0.1)
        with self.assertRaisesRegex(WorkerStartError, "out of time"):
            await q.call(abs, -1)
        self.flushLoggedErrors(WorkerStartError)

    async def test_resize(self) -> None:
        """
        Children come and go, down to none, and one that is lost is still replaced.
        """
        q = ProcessQueue(1)
        self.addCleanup(q.shutdown)
        await q.resize(2)
        self.assertEqual((len(q), q.N), (2, 2))
        first, second = await self.pids(q)
        lost: ProcessWorker = q.workers(1)
        os.kill(first, signal.SIGKILL)
        await lost.deferUntilGone()
        self.assertEqual(len(q), 2)
        await q.resize(1)
        self.assertEqual(await self.pids(q), [second])
        await q.resize(0)
        self.assertEqual(len(q), 0)
        self.assertRaises(ProcessLookupError, os.kill, second, 0)
        waiting = q.call(os.getpid)
        await q.resize(1)
        self.assertEqual([await waiting], await self.pids(q))

    async def test_unreplaced(self) -> None:
        """
        Where children that could not be started have been given up, those are started
        that are missing, and no more.
        """
        q = ProcessQueue(1, initializer=(int, ("x",)))
        self.addCleanup(q.shutdown)
        await q.call(os.getpid).addErrback(lambda _: None)
        self.flushLoggedErrors()
        self.assertEqual(len(q), 0)
        q.resize(2)
        self.assertEqual(len(q), 2)
        await q.shutdown(timeout=0)


class AffinityTests(TestCase):
    """Tests of children that are bound to cores."""

    timeout = 60

    def setUp(self) -> None:
        """Look which cores there are."""
        if not hasattr(os, "sched_getaffinity"):
            raise SkipTest("The system can't bind processes to cores")
        self.cores = sorted(os.sched_getaffinity(0))

    async def bound(self, q: ProcessQueue) -> list[set[int]]:
        """List the cores that the children of a queue are bound to."""
        return sorted(await q.update(os.sched_getaffinity, 0, ephemeral=True), key=min)

    async def queue(self, *args: Any, **kw: Any) -> ProcessQueue:
        """Make a queue, and wait for its children."""
        q = ProcessQueue(0, **kw)
        self.addCleanup(q.shutdown)
        await q.resize(*args)
        return q

    async def test_eachItsOwn(self) -> None:
        """Each child has a core of its own, also those that come later."""
        q = await self.queue(1, affinity=True)
        self.assertEqual(await self.bound(q), [{self.cores[0]}])
        if len(self.cores) > 1:
            await q.resize(2)
            self.assertEqual(await self.bound(q), [{core} for core in self.cores[:2]])
            await q.resize(1)
            await q.resize(2)
            self.assertEqual(await self.bound(q), [{core} for core in self.cores[:2]])

    async def test_replacement(self) -> None:
        """A child that takes the place of one has its core."""
        q = await self.queue(2, affinity=True)
        before = await self.bound(q)
        worker: ProcessWorker = q.workers()[0]
        pid = worker.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await worker.deferUntilGone()
        await gatherResults([each.deferUntilReady() for each in q.workers()])
        self.assertEqual(await self.bound(q), before)

    async def test_list(self) -> None:
        """The cores may be told, one or several for each."""
        q = await self.queue(2, affinity=[self.cores[-1], self.cores])
        bound = await q.update(os.sched_getaffinity, 0, ephemeral=True)
        self.assertEqual(bound, [{self.cores[-1]}, set(self.cores)])


class CoreSetTests(SynchronousTestCase):
    """Tests of what may be said of cores."""

    def setUp(self) -> None:
        """Have three cores."""
        self.patchGetter(lambda pid: {0, 1, 5})

    def patchGetter(self, getter: Any) -> None:
        """Have the system tell which cores there are, whether it can or not."""
        if not hasattr(os, "sched_getaffinity"):
            os.sched_getaffinity = getter
            self.addCleanup(delattr, os, "sched_getaffinity")
        self.patch(os, "sched_getaffinity", getter)

    def test_sets(self) -> None:
        """All are taken in turn, or what is said."""
        self.assertEqual(coreSets(False), [])
        self.assertEqual(coreSets(True), [{0}, {1}, {5}])
        self.assertEqual(coreSets([5, (0, 1)]), [{5}, {0, 1}])

    def test_bad(self) -> None:
        """Cores that this process may not use are refused, and none."""
        wrong: list[Any] = [[], [2], [[]], [(0, 2)], 0, 1.5, [1.5], "0"]
        for bad in wrong:
            self.assertRaises(ValueError, coreSets, bad)
        self.assertRaises(ValueError, ProcessQueue, 1, affinity=[2])

    def test_otherSystems(self) -> None:
        """So is everything where the system can't do it."""
        self.patchGetter(None)
        del os.sched_getaffinity
        self.assertRaises(ValueError, coreSets, True)
        os.sched_getaffinity = lambda pid: set()
