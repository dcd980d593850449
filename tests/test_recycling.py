"""
Tests of what is said of the children of a queue: how they begin, and when they're
replaced though they aren't lost.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from asynqueue import AsyncWorker, ProcessQueue, ProcessWorker, TaskQueue, errors
from asynqueue._child.pickling import loads
from asynqueue.interfaces import IReplaceableWorker
from asynqueue.process import _options as recycling
from asynqueue.process._options import ChildOptions, RestartPolicy

from . import _faults as faults, _jobs as jobs
from ._cases import ReplaceableWorker
from .test_integration_process import ChildrenTestCase, alive
from .test_process import WorkerCase


class OptionTests(SynchronousTestCase):
    """Tests of L{ChildOptions}."""

    def test_usual(self) -> None:
        """By default, nothing is asked of a child."""
        setup = loads(ChildOptions.checked().setup())
        self.assertEqual((setup["niceness"], setup["initializer"]), (0, None))

    def test_initializer(self) -> None:
        """An initializer is a callable, or comes with its arguments."""
        for said, meant in [
            (jobs.nothing, (jobs.nothing, ())),
            ((jobs.echo, (1, 2)), (jobs.echo, (1, 2))),
            ((jobs.echo, [1]), (jobs.echo, (1,))),
        ]:
            setup = loads(ChildOptions.checked(initializer=said).setup())
            self.assertEqual(loads(setup["initializer"]), meant)

    def test_bad(self) -> None:
        """What can't be is refused before a child is started, with the way out."""
        cases: list[tuple[str, type[Exception], list[Any]]] = [
            ("initializer", TypeError, ["f", (jobs.echo, 1), (jobs.echo,), ()]),
            ("niceness", ValueError, [20, -21, 1.0, True, "1"]),
            ("maxTasks", ValueError, [0, -1, 1.5, True, "1"]),
            ("maxMemory", ValueError, [0, -1, True, "1", float("nan"), float("inf")]),
            ("startTimeout", ValueError, [0, -1, True, "1"]),
        ]
        for name, kind, values in cases:
            for value in values:
                for make in (ChildOptions.checked, ProcessQueue, ProcessWorker):
                    error: Any = self.assertRaises(kind, make, **{name: value})
                    self.assertIn(repr(value), str(error))
                    self.assertIn(name, str(error))

    def test_unpicklable(self) -> None:
        """An initializer that can't be sent is refused, too."""
        error = self.assertRaises(
            errors.SerializationError,
            ProcessQueue,
            1,
            initializer=(jobs.echo, (jobs.givesLock(),)),
        )
        self.assertIn("initializer", str(error))


class StartsTests(SynchronousTestCase):
    """Tests of what L{Starts} says after it has been given up."""

    def test_again(self) -> None:
        """
        The first child of another row waits, each time longer, and those after it as
        in the first row. A child that is put to work ends that.
        """
        starts = RestartPolicy()
        starts.startOver()
        self.assertEqual(starts.delay, 0)
        delays = []
        for _ in range(6):
            for _ in range(3):
                starts.failed(None)
            self.assertTrue(starts.exhausted)
            starts.startOver()
            starts.startOver()
            self.assertFalse(starts.exhausted)
            delays.append(starts.delay)
        self.assertEqual(delays, [1, 2, 4, 8, 8, 8])
        starts.failed(None)
        self.assertEqual(starts.delay, 0.1)
        starts.succeeded()
        self.assertEqual(starts.delay, 0)


class Renewable(ReplaceableWorker):
    """A worker that resigns when an update fails, and is replaced by another such."""

    def updatesApplied(self, text: str | None) -> None:
        """Resign if one has failed."""
        super().updatesApplied(text)
        if text:
            self.resign()

    def deferUntilGone(self) -> Any:
        """It's gone when it has stopped."""
        return self.stop()

    def replacement(self) -> Renewable:
        """Another such."""
        return Renewable()

    retryReplacement = replacement


class RecyclingTests(SynchronousTestCase):
    """Tests of a queue whose workers ask to be replaced."""

    def setUp(self) -> None:
        """Make a queue."""
        self.clock = Clock()
        self.worker = Renewable()
        self.q = TaskQueue(self.worker, reactor=self.clock)

    def test_interface(self) -> None:
        """The worker in a child is such a worker."""
        verifyClass(IReplaceableWorker, ProcessWorker)

    def test_renew(self) -> None:
        """
        Who asks to be replaced gets no more tasks, does what it has accepted, and
        another gets the next.
        """
        first, second = self.q.call(abs, -1), self.q.call(abs, -2)
        self.worker.recycle()
        [heir] = self.q.workers()
        self.assertIsNot(heir, self.worker)
        self.assertTrue(self.worker.stopping)
        self.assertFalse(self.worker.crashed)
        self.worker.step()
        heir.step()
        self.assertEqual(
            (self.successResultOf(first), self.successResultOf(second)), (1, 2)
        )
        self.assertEqual(len(self.q), 1)

    def test_renewTwice(self) -> None:
        """Asking twice makes no difference."""
        self.worker.recycle()
        self.worker.recycle()
        self.assertEqual(len(self.q), 1)

    def test_renewAndLost(self) -> None:
        """Should it be lost before it's done, others get what it hasn't begun."""
        d = self.q.call(abs, -1)
        self.worker.recycle()
        self.worker.resign()
        [heir] = self.q.workers()
        heir.step()
        self.assertEqual(self.successResultOf(d), 1)
        self.assertEqual(len(self.q), 1)

    def test_shutdown(self) -> None:
        """
        A shutdown waits for those who haven't gone, and not for longer than it may.
        """
        d = self.q.call(abs, -1)
        self.worker.recycle()
        shutdown = self.q.shutdown(timeout=3)
        self.assertNoResult(shutdown)
        self.clock.advance(3)
        self.assertEqual(len(self.successResultOf(shutdown)), 1)
        self.failureResultOf(d, errors.WorkerLost)
        self.assertTrue(self.worker.crashed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.worker.recycle()
        self.assertEqual(len(self.q), 0)

    def test_upToDate(self) -> None:
        """A worker hears that there were no updates, or how they have gone."""
        self.assertEqual(self.worker.texts, [None])
        self.q.update(abs, -3)
        self.worker.step()
        self.worker.recycle()
        [heir] = self.q.workers()
        self.assertEqual(heir.texts, [])
        d = self.q.call(abs, -1)
        heir.step()
        self.assertEqual(heir.texts, [None])
        heir.step()
        self.assertEqual(self.successResultOf(d), 1)

    def test_updateFails(self) -> None:
        """One that resigns because of an update gets no task, and is replaced."""
        self.q.update(abs, -3)
        self.worker.step()
        self.worker.recycle()
        d = self.q.call(abs, -1)
        [heir] = self.q.workers()
        heir.fail(LookupError("no"))
        self.assertIn("LookupError", heir.texts[0])
        [other] = self.q.workers()
        self.assertEqual(len(heir.accepted), 1)
        other.step()
        other.step()
        self.assertEqual(self.successResultOf(d), 1)

    def test_updateFailsElsewhere(self) -> None:
        """
        A worker that nobody would replace gets tasks although an update has failed.
        """
        q = TaskQueue()
        q.update(int, "seven")
        q.attachWorker(AsyncWorker())
        self.assertEqual(self.successResultOf(q.call(abs, -1)), 1)
        self.assertEqual(len(q), 1)


class WornTests(WorkerCase):
    """Tests of children that are replaced, which the test plays."""

    def queue(self, **kw: Any) -> ProcessQueue:
        """Make a queue with one child. All its children end when the test is over."""
        q = ProcessQueue(1, reactor=self.reactor, **kw)
        self.addCleanup(q.shutdown)
        return q

    def test_maxTasks(self) -> None:
        """
        A child that has run its last task is let go, by closing its pipe, and another
        gets what waits. Updates don't count.
        """
        q = self.queue(maxTasks=2)
        self.child().hello()
        updated = q.update(jobs.nothing)
        calls = [q.call(jobs.nothing) for _ in range(3)]
        for number in (1, 2, 3):
            self.reactor.serve()
            self.child(0).result(number, number)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(updated), [1])
        self.assertEqual([self.successResultOf(d) for d in calls[:2]], [2, 3])
        old = self.reactor.processes[0]
        self.assertTrue(old.isStopped())
        self.assertEqual(old.signals, [])
        self.assertEqual(len(q), 1)
        old.end()
        self.child(1).hello()
        self.child(1).result(1, "update")
        self.reactor.serve()
        self.child(1).result(2, 4)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(calls[2]), 4)
        self.assertEqual(self.log.lines, [])

    def test_maxMemory(self) -> None:
        """So it is with a child that has come to use too much memory."""
        q = self.queue(maxMemory=50)
        size = 51_200
        [worker] = q.workers()
        self.patch(recycling, "residentSize", lambda pid, private: size)
        self.child().hello()
        d = q.call(jobs.nothing)
        self.reactor.serve()
        self.child().result(1, 1)
        self.reactor.serve()
        self.successResultOf(d)
        self.assertEqual(q.workers(), [worker])
        size += 1
        d = q.call(jobs.nothing)
        self.reactor.serve()
        self.child().result(2, 1)
        self.reactor.serve()
        self.successResultOf(d)
        self.assertNotEqual(q.workers(), [worker])
        self.assertEqual(len(q), 1)

    def test_stats(self) -> None:
        """What was noted of calls isn't lost with the child."""
        q = self.queue(maxTasks=1, callStats=True)
        self.child().hello()
        q.call(jobs.nothing)
        self.reactor.serve()
        self.child().result(1, 1, seconds=7)
        self.reactor.serve()
        [(_, seconds)] = self.successResultOf(q.stats())
        self.assertEqual(seconds, 7)

    def test_iterating(self) -> None:
        """An iteration goes on in the old child, while the new one takes calls."""
        q = self.queue(maxTasks=1)
        self.child().hello()
        d = q.call(jobs.count, 2)
        other = q.call(jobs.nothing)
        self.reactor.serve()
        self.child(0).iterator(1)
        self.child(0).items(1, 5, 6)
        self.reactor.serve()
        iterator = self.successResultOf(d)
        self.child(1).hello()
        self.child(1).result(1, "other")
        self.reactor.serve()
        self.assertEqual(self.successResultOf(other), "other")
        self.assertEqual(self.successResultOf(next(iterator)), 5)
        old = self.reactor.processes[0]
        self.assertFalse(old.isStopped())
        iterator.stop()
        self.reactor.serve()
        self.assertTrue(old.isStopped())

    def test_startTimeout(self) -> None:
        """
        A child that isn't ready in time is killed, and counts as one that has failed to
        start. One that is has any time.
        """
        q = self.queue(startTimeout=5)
        self.reactor.advance(4)
        self.child().hello()
        self.reactor.serve()
        self.reactor.advance(100)
        self.assertEqual(self.reactor.processes[0].signals, [])
        self.reactor.processes[0].end(1)
        self.reactor.advance(5)
        slow = self.reactor.processes[1]
        self.assertEqual(slow.signals[:1], ["KILL"])
        slow.end(None, 9)
        [worker] = q.workers()
        self.assertEqual(worker._config.policy.failures, 1)


class StartTests(ChildrenTestCase):
    """Tests of the beginning and the replacement of real children."""

    async def test_initializer(self) -> None:
        """
        The initializer is run in each child before anything else, with a reactor in
        the child and without.
        """
        for useReactor in (False, True):
            q = ProcessQueue(
                2, initializer=(faults.initialize, ("x",)), useReactor=useReactor
            )
            self.assertEqual(await q.update(faults.initialized), [["x"], ["x"]])
            await q.shutdown()

    async def test_deferred(self) -> None:
        """In a child with a reactor, a Deferred that it returns is waited for."""
        q = self.queue(initializer=(jobs.deferred, ("x", 0.1)), useReactor=True)
        self.assertEqual(await q.call(pow, 2, 3), 8)
        q = ProcessQueue(
            1, initializer=(jobs.deferred, (OSError("no"),)), useReactor=True
        )
        error = await self.failureOf(errors.WorkerStartError, q.call(pow, 2, 3))
        self.assertIn("OSError: no", str(error))
        self.flushLoggedErrors(errors.WorkerStartError)
        await q.shutdown()

    async def test_niceness(self) -> None:
        """Children are as nice as is said."""
        q = self.queue(niceness=3)
        self.assertEqual(await q.call(faults.niceness), os.nice(0) + 3)

    async def test_maxTasks(self) -> None:
        """
        With 2 children that run 3 tasks each, 30 calls need 10 at least, of which only
        the last are left. No call is lost.
        """
        q = self.queue(2, maxTasks=3, initializer=(faults.initialize, (1,)))
        await q.update(faults.initialize, 2)
        results = await gatherResults([q.call(faults.noteTask) for _ in range(30)])
        pids = [pid for pid, _ in results]
        self.assertEqual([ready for _, ready in results], [[1, 2]] * 30)
        self.assertLessEqual(max(pids.count(pid) for pid in pids), 3)
        self.assertEqual(len(q), 2)
        self.assertEqual([line for line in self.log.lines if "lost" in line], [])
        await q.call(pow, 2, 2)
        left = {worker.process.pid for worker in q.workers()}
        # The others had no more to do, and those before them not even then.
        self.assertFalse(any(alive(pid) for pid in pids[:20] if pid not in left))

    async def test_maxMemory(self) -> None:
        """
        A child that has too much in use after a task has done it, and is replaced.
        """
        q = self.queue(maxMemory=100)
        pid = await q.call(faults.hold, 1_000)
        self.assertEqual(await q.call(faults.hold, 150_000_000), pid)
        self.assertNotEqual(await q.call(faults.hold, 1_000), pid)
        self.assertEqual(len(q), 1)
