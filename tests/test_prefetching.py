"""Tests of calls that are sent to children before it's their turn."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
from collections import Counter, deque
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from asynqueue import ProcessQueue, ProcessWorker, errors
from asynqueue._child.pickling import loads
from asynqueue._child.protocol import ClaimReader, ClaimWriter, Kind
from asynqueue._child.status import Status
from asynqueue.interfaces import IPrefetchingWorker
from asynqueue.process import _jobs as processjobs, _tasks as processworker
from asynqueue.process._jobs import PREFETCH_SECONDS, PrefetchWindow
from asynqueue.process._life import ChildState
from asynqueue.tasks import Assignment, Task

from . import _jobs as jobs
from ._cases import same
from ._fakes import FakeProcess, FakeReactor
from .test_integration_process import ChildrenTestCase
from .test_process import Sender, WorkerCase


def void(_: object) -> None:
    """Drop a result."""


class ClaimsTests(SynchronousTestCase):
    """Tests of L{ClaimWriter} and L{ClaimReader}."""

    def setUp(self) -> None:
        """Make a pipe of which both have an end."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.parent = ClaimWriter(reader, writer)
        self.addCleanup(self.parent.close)
        self.lost = 0
        self.child = ClaimReader(reader, self.lose)

    def lose(self) -> None:
        """Note that the pipe isn't what it was."""
        self.lost += 1

    def test_inOrder(self) -> None:
        """The child gets what it's offered."""
        self.parent.offer([1, 2])
        self.parent.offer([0x7FFFFFFF])
        for number in (1, 2, 0x7FFFFFFF):
            self.assertTrue(self.child.claim(number))

    def test_revoked(self) -> None:
        """
        What the parent has revoked the child doesn't get, and the other way round.
        """
        self.parent.offer([1, 2, 3])
        self.assertTrue(self.child.claim(1))
        self.assertEqual(self.parent.revoke(), [2, 3])
        self.assertEqual(self.parent.revoke(), [])
        self.assertFalse(self.child.claim(2))
        self.assertFalse(self.child.claim(3))

    def test_another(self) -> None:
        """
        When the child comes to a call that was revoked, and others have been offered
        since, those can still be revoked.
        """
        self.parent.offer([1, 2])
        self.parent.revoke()
        self.parent.offer([3, 4])
        self.assertFalse(self.child.claim(1))
        self.assertEqual(self.parent.revoke(), [3, 4])
        for number in (2, 3, 4):
            self.assertFalse(self.child.claim(number))

    def test_revokedMeanwhile(self) -> None:
        """
        A child that comes to a call when the parent has taken everything out waits
        until that has been put back.
        """
        self.parent.offer([1])
        read = os.read

        def readAndClaim(fd: int, size: int) -> bytes:
            data = read(fd, size)
            if not claiming:
                claiming.append(thread)
                thread.start()
            return data

        claiming: list[Any] = []
        got: list[bool] = []
        thread = threading.Thread(target=lambda: got.append(self.child.claim(1)))
        self.patch(os, "read", readAndClaim)
        self.assertEqual(self.parent.revoke(), [1])
        thread.join(30)
        self.assertEqual(got, [False])

    def test_closed(self) -> None:
        """
        When the parent has gone, or something else is in the pipe, it's an error. There
        is nothing to be offered or revoked then.
        """
        reader = os.dup(self.parent._reader)
        self.addCleanup(os.close, reader)
        self.parent.offer([2])
        child = ClaimReader(reader, self.lose)
        self.assertFalse(child.claim(1))
        self.assertEqual(self.lost, 1)
        self.parent.close()
        self.parent.close()
        self.parent.offer([1])
        self.assertEqual(self.parent.revoke(), [])
        self.assertFalse(child.claim(1))
        self.assertEqual(self.lost, 2)


class PaceTests(SynchronousTestCase):
    """Tests of L{PrefetchWindow}."""

    def setUp(self) -> None:
        """Make one."""
        self.pace = PrefetchWindow()

    def test_unknown(self) -> None:
        """Before anything is known, nothing is sent ahead."""
        self.pace.waiting = 1000
        self.assertEqual(self.pace.capacity, 1)

    def note(self, *seconds: float, waiting: int = 1000) -> int:
        """Note how long tasks took, while others wait. Returns the capacity."""
        self.pace.waiting = waiting
        capacities = [self.pace.note(one) for one in seconds]
        self.assertEqual(self.pace.capacity, capacities[-1])
        return self.pace.capacity

    def test_short(self) -> None:
        """
        Of short tasks, a few are sent ahead and then many, but never more than wait.
        """
        self.assertEqual(self.note(1e-6), 9)
        self.assertEqual(self.note(1e-6), 65)
        self.assertEqual(self.note(1e-6, waiting=3), 4)
        self.assertEqual(self.note(1e-6, waiting=0), 1)

    def test_seconds(self) -> None:
        """It's as many as take a millisecond."""
        self.assertEqual(self.note(PREFETCH_SECONDS / 5.5), 6)
        self.assertEqual(self.note(PREFETCH_SECONDS * 1.01), 1)

    def test_longer(self) -> None:
        """
        A task that takes longer than the short ones before it counts at once, and
        shorter ones little by little.
        """
        self.assertEqual(self.note(1e-6, 1e-6, PREFETCH_SECONDS / 5.5), 6)
        self.assertEqual(self.note(1e-6, 1e-6), 7)
        self.assertEqual(self.note(*[1e-6] * 100), 65)

    def test_mixed(self) -> None:
        """After a long task, nothing is sent ahead before another was short."""
        self.note(1e-6, 1e-6)
        self.assertEqual(self.note(0.1), 1)
        self.assertEqual(self.note(1e-6), 9)


class AheadTests(WorkerCase):
    """Tests of L{ProcessWorker} with tasks sent ahead."""

    def setUp(self) -> None:
        """
        Make a worker whose child is ready and has three tasks, the first of which it
        has started.
        """
        super().setUp()
        self.worker = ProcessWorker(reactor=self.reactor)
        self.unfinished: list[Any] = []
        self.worker.setResignator(lambda: self.unfinished.extend(self.worker.crash()))
        self.process = self.reactor.processes[0]
        self.sender = self.child()
        self.sender.hello()
        self.reactor.serve()
        self.tasks = [self.task(divmod, i, 1) for i in range(3)]
        self.ready = [self.worker.run(task) for task in self.tasks]
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.process.claim(1)
        self.addCleanup(self.forget)

    def forget(self) -> None:
        """Let whatever the child's end makes fail be no error."""
        for task in self.tasks:
            task.d.addErrback(lambda _: None)

    def numbers(self) -> list[int]:
        """
        List the numbers of the calls that the child has been sent and hasn't seen.
        """
        return [
            number for kind, number, _ in self.process.received() if kind == Kind.CALL
        ]

    def answer(self, number: int) -> None:
        """Have the child answer a call."""
        self.sender.result(number, number, 1e-6)

    def begun(self, seconds: float) -> None:
        """Have the worker think that the first task was begun so many seconds ago."""
        self.worker._jobs.jobs[0].since -= seconds

    def test_interface(self) -> None:
        """It provides what such workers provide."""
        verifyClass(IPrefetchingWorker, ProcessWorker)
        self.assertIsNone(self.worker.backlogPerWorker)

    def test_together(self) -> None:
        """
        All that one read of the pipe has brought is handed back while tasks aren't
        handed out.
        """
        results: list[Any] = []
        for task in self.tasks:
            task.d.addCallback(results.append)

        def together(f: Any) -> None:
            results.append("begin")
            f()
            results.append("end")

        self.worker.batch = together
        for number in (1, 2, 3):
            self.answer(number)
        self.reactor.serve()
        self.assertEqual(
            results, ["begin", *((Status.RAN, n) for n in (1, 2, 3)), "end"]
        )

    def test_cancelled(self) -> None:
        """
        A task that the child hasn't started is cancelled without disturbing it. Those
        after it are sent again when that has an answer.
        """
        self.tasks[1].d.addErrback(lambda _: None)
        self.worker.cancelTask(self.tasks[1])
        self.successResultOf(self.ready[1])
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.numbers(), [])
        self.answer(1)
        self.reactor.serve()
        self.assertEqual(self.numbers(), [4])
        self.assertFalse(self.process.claim(2))
        self.assertFalse(self.process.claim(3))
        self.assertTrue(self.process.claim(4))
        self.answer(4)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(self.tasks[2].d), (Status.RAN, 4))
        self.assertNoResult(self.tasks[1].d)

    def test_cancelledAnswered(self) -> None:
        """Nothing is stopped for a task that the child has answered already."""
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.answer(2)
        self.worker.cancelTask(self.tasks[1])
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.successResultOf(self.tasks[0].d), (Status.RAN, 1))
        # The last had been taken back in the meantime.
        self.assertEqual(self.numbers(), [4])
        self.assertNoResult(self.tasks[2].d)

    def test_cancelledFromResult(self) -> None:
        """The same holds when that is done because of another's result."""
        self.tasks[0].d.addCallback(lambda _: self.worker.cancelTask(self.tasks[1]))
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.answer(2)
        self.reactor.serve()
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.successResultOf(self.tasks[1].d), (Status.RAN, 2))
        self.assertEqual(self.numbers(), [4])

    def test_cancelledRunning(self) -> None:
        """
        For a task that runs the child is ended. Tasks that it has answered have their
        results, and those that it hasn't started go to others.
        """
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.worker.cancelTask(self.tasks[1])
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.unfinished, [self.tasks[2]])
        self.assertFalse(self.process.claim(3))
        self.process.end(None, signal.SIGTERM)
        self.assertEqual(self.successResultOf(self.tasks[0].d), (Status.RAN, 1))
        self.assertNoResult(self.tasks[1].d)
        self.assertNoResult(self.tasks[2].d)

    def test_answeredBeforeEnd(self) -> None:
        """
        A task keeps what the child has said of it before it was ended for another,
        though that is read later.
        """
        self.tasks[0].d.addCallback(lambda _: self.worker.cancelTask(self.tasks[1]))
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.reactor.serve()
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.unfinished, [self.tasks[2]])

    def test_givenMeanwhile(self) -> None:
        """
        A task that has been given to the worker because another was answered, which is
        found out when a third is cancelled, goes to others as well.
        """
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        another = self.task()
        self.ready[0].addCallback(lambda _: void(self.worker.run(another)))
        self.worker.cancelTask(self.tasks[1])
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertCountEqual(self.unfinished, [self.tasks[2], another])
        self.process.end(None, signal.SIGTERM)

    def test_iterationCancelled(self) -> None:
        """
        When an iteration is cancelled, for which the child is ended, tasks that were
        sent ahead go to others.
        """
        self.sender.iterator(1)
        self.reactor.serve()
        self.worker.cancelTask(self.tasks[0])
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.unfinished, self.tasks[1:])
        self.process.end(None, signal.SIGTERM)

    def test_unclaimed(self) -> None:
        """
        Tasks that nobody takes back from a worker before its child has been ended are
        known not to have been run.
        """
        self.worker.setResignator(list)
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.worker.cancelTask(self.tasks[1])
        self.process.end(None, signal.SIGTERM)
        self.assertEqual(
            self.successResultOf(self.tasks[2].d), (Status.DISCONNECTED, None)
        )

    def test_lost(self) -> None:
        """
        When a child is lost, the task that it had started fails. Those that were sent
        ahead and not started go to others.
        """
        self.answer(1)
        self.assertTrue(self.process.claim(2))
        self.process.end(None, signal.SIGKILL)
        self.assertEqual(self.successResultOf(self.tasks[0].d), (Status.RAN, 1))
        self.failureResultOf(self.tasks[1].d, errors.WorkerLost)
        self.assertEqual(self.unfinished, [self.tasks[2]])
        self.assertIs(self.worker.state, ChildState.DEAD)

    def test_lostBetween(self) -> None:
        """If it hadn't started another, nothing fails."""
        self.answer(1)
        self.process.end(None, signal.SIGKILL)
        self.assertEqual(self.successResultOf(self.tasks[0].d), (Status.RAN, 1))
        self.assertEqual(self.unfinished, self.tasks[1:])

    def test_timeLimit(self) -> None:
        """The clock of a task runs from when it's its turn."""
        task = self.task(timeout=5)
        Assignment(task).accept(self.worker)
        self.reactor.advance(10)
        self.assertNoResult(task.d)
        for number in (1, 2, 3):
            self.answer(number)
        self.reactor.serve()
        self.reactor.advance(4)
        self.assertNoResult(task.d)
        self.reactor.advance(2)
        self.assertEqual(self.successResultOf(task.d)[0], Status.TIMEOUT)

    def task(
        self, f: Any = jobs.nothing, *args: Any, timeout: float | None = None, **kw: Any
    ) -> Task:
        """Make a task."""
        return Task(f, args, kw, 0, None, timeout, reactor=self.reactor)

    def test_takenBack(self) -> None:
        """
        Tasks are given back if the child has been at one for long, and it gets no more
        ahead until it proves quick again.
        """
        self.worker.backlogPerWorker = lambda: 100
        self.begun(1)
        self.assertEqual(self.worker.reclaim(), self.tasks[1:])
        for d in self.ready[1:]:
            self.successResultOf(d)
        self.assertNoResult(self.ready[0])
        self.assertEqual(self.worker.capacity, 1)
        self.assertFalse(self.process.claim(2))
        self.assertEqual(self.worker.reclaim(), [])

    def test_notTakenBack(self) -> None:
        """They aren't if it has only just begun one."""
        self.worker._jobs.jobs[0].since += 1000
        self.assertEqual(self.worker.reclaim(), [])
        self.assertTrue(self.process.claim(2))

    def test_updatesStay(self) -> None:
        """Updates, which are for this worker alone, are sent again."""
        update = self.task()
        update.direct = True
        self.worker.run(update)
        self.numbers()
        self.begun(1)
        self.assertEqual(self.worker.reclaim(), self.tasks[1:])
        self.answer(1)
        self.reactor.serve()
        self.assertEqual(self.numbers(), [5])
        self.answer(5)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(update.d), (Status.RAN, 5))

    def test_manyUpdates(self) -> None:
        """Of any number of updates, so many are sent at a time."""
        for _ in range(600):
            update = self.task()
            update.direct = True
            self.tasks.append(update)
            self.worker.run(update)
        sent = [1, 2, 3, *self.numbers()]
        self.assertEqual(sent, list(range(1, 257)))
        for number in range(1, 605):
            if number == 100:
                self.tasks.append(self.task())
                self.worker.run(self.tasks[-1])
            self.answer(number)
            self.reactor.serve()
            sent += self.numbers()
        self.assertEqual(sent, list(range(1, 605)))
        for task in self.tasks:
            self.successResultOf(task.d)

    def test_demand(self) -> None:
        """How many it wants depends on how many wait, and how long they take."""
        waiting = 0
        self.worker.backlogPerWorker = lambda: waiting
        capacities = []
        for number, waiting in enumerate((0, 3, 1000), 1):  # noqa: B007 - it's used
            self.answer(number)
            self.reactor.serve()
            capacities.append(self.worker.capacity)
            self.worker.run(self.task())
        self.reactor.serve()
        self.answer(4)
        self.reactor.serve()
        self.assertEqual(capacities, [1, 4, 65])
        self.assertEqual(self.worker.capacity, 65)

    def test_maxTasks(self) -> None:
        """A child that may run so many tasks isn't given more ahead."""
        worker = ProcessWorker(reactor=self.reactor, maxTasks=5)
        sender: Sender = self.child()
        sender.hello()
        self.reactor.serve()
        worker.backlogPerWorker = lambda: 1000
        worker.run(self.task())
        sender.result(1, None, 1e-6)
        self.reactor.serve()
        worker.run(self.task())
        sender.result(2, None, 1e-6)
        self.reactor.serve()
        self.assertEqual(worker.capacity, 3)
        self.tasks.append(self.task())
        worker.run(self.tasks[-1])
        self.assertEqual(worker.capacity, 3)


class ReliefTests(WorkerCase):
    """Tests of workers that have nothing to do while tasks wait with others."""

    def setUp(self) -> None:
        """Make a queue of two, of which the first has many short tasks."""
        super().setUp()
        self.q = ProcessQueue(2, reactor=self.reactor)
        for i in range(2):
            self.child(i).hello()
        self.reactor.serve()
        self.results: list[Deferred[Any]] = []
        self.counts = [0, 0]
        self.addCleanup(self.shutDown)

    def shutDown(self) -> None:
        """Shut the queue down, with whatever fails because of that."""
        self.q.shutdown(timeout=0)
        for d in self.results:
            d.addErrback(lambda _: None)

    def call(self, **kw: Any) -> None:
        """Queue a call."""
        self.results.append(self.q.call(jobs.nothing, **kw))

    def answer(self, i: int) -> None:
        """Have a child answer a call."""
        self.counts[i] += 1
        self.child(i).result(self.counts[i], None, 1e-6)
        self.reactor.serve()

    def outstanding(self) -> list[int]:
        """Count the tasks that the workers have."""
        return [len(worker._jobs.jobs) for worker in self.q.workers()]

    def test_shared(self) -> None:
        """
        What waits is shared out, and a worker that is done is given what another was
        given ahead, unless that is about to do it.
        """
        for _ in range(21):
            self.call()
        self.assertEqual(self.outstanding(), [1, 1])
        self.answer(0)
        ahead = self.outstanding()[0]
        self.assertGreater(ahead, 5)
        self.assertLess(ahead, 12)
        first = self.q.workers()[0]
        self.reactor.processes[0].claim(first._jobs.jobs[0].number)
        while self.outstanding()[1]:
            self.answer(1)
        first._jobs.jobs[0].since -= 1
        self.assertEqual(self.outstanding(), [ahead, 0])
        self.reactor.advance(0.02)
        self.assertEqual(self.outstanding()[0], 1)
        self.assertGreater(self.outstanding()[1], 0)
        while self.outstanding()[1]:
            if self.counts[1] + 1 < self.q.workers()[1]._jobs.jobs[0].number:
                self.counts[1] = self.q.workers()[1]._jobs.jobs[0].number - 1
            self.answer(1)
        self.assertEqual(self.outstanding(), [1, 0])
        self.assertEqual(sum(d.called for d in self.results), 20)
        self.answer(0)
        self.assertEqual(sum(d.called for d in self.results), 21)

    def test_stuck(self) -> None:
        """
        What a worker was given ahead waits in the queue again when it's at a task for
        long, though the others are busy, too. So whoever is ready next takes what is
        first.
        """
        for _ in range(21):
            self.call()
        self.answer(0)
        self.assertGreater(self.outstanding()[0], 5)
        for worker in self.q.workers():
            worker._jobs.jobs[0].since -= 1
        waiting = self.q.th.waiting + self.outstanding()[0] - 1
        self.reactor.advance(0.02)
        self.assertEqual(self.outstanding(), [1, 1])
        self.assertEqual(self.q.th.waiting, waiting)
        self.call(doNext=True)
        self.answer(1)
        self.assertEqual(self.q.workers()[1]._jobs.jobs[0].task.priority, -math.inf)

    def test_nothingWaits(self) -> None:
        """When nobody has anything ahead, nothing is looked for."""
        self.call()
        self.answer(0)
        calls = [c.func for c in self.reactor.getDelayedCalls()]
        self.assertNotIn(self.q.th.assignmentFactory._rebalancing._look, calls)

    def test_shutdown(self) -> None:
        """A queue that's shut down looks no further."""
        for _ in range(8):
            self.call()
        self.answer(0)
        while self.outstanding()[1]:
            self.answer(1)
        self.shutDown()
        self.endAll()


class _Worked:
    """
    A child that is played: it runs calls that only say how many seconds they take, in
    the time of the reactor. C{busy} is how many it has worked.
    """

    def __init__(self, process: FakeProcess, reactor: FakeReactor) -> None:
        self.busy = 0.0
        self._process = process
        self._reactor = reactor
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._works = False
        Sender(process).hello()

    def work(self) -> None:
        """Begin the next call that is there and hasn't been taken back."""
        self._waiting.extend(self._process.received())
        while self._waiting and not self._works:
            kind, number, payload = self._waiting.popleft()
            if kind == Kind.CALL and self._process.claim(number):
                _, (seconds,), _, _ = loads(payload)
                self._works = True
                self._reactor.callLater(seconds, self._done, number, seconds)

    def _done(self, number: int, seconds: float) -> None:
        """Answer a call."""
        self._works = False
        self.busy += seconds
        Sender(self._process).result(number, None, seconds)


class UtilisationTests(WorkerCase):
    """Tests of how well children are used, in a time that is played."""

    def utilisation(self, durations: list[float]) -> float:
        """
        Have two children run calls of so many seconds each that are queued at once.
        Returns how much of the time they have worked.
        """
        for module in (processworker, processjobs):
            self.patch(module, "perf_counter", self.reactor.seconds)
        q = ProcessQueue(2, reactor=self.reactor)
        processes = self.reactor.processes[-2:]
        children = [_Worked(process, self.reactor) for process in processes]
        self.reactor.serve()
        start = self.reactor.seconds()
        calls = [q.call(same, seconds) for seconds in durations]
        while not all(d.called for d in calls):
            for child in children:
                child.work()
            due = min(call.getTime() for call in self.reactor.getDelayedCalls())
            self.reactor.advance(max(0.0, due - self.reactor.seconds()))
            self.reactor.serve()
        taken: float = self.reactor.seconds() - start
        q.shutdown()
        for process in processes:
            process.end()
        busy: float = sum(child.busy for child in children)
        return busy / (2 * taken)

    def test_mixed(self) -> None:
        """
        Where calls of a microsecond and of a tenth of a second come in any order, no
        long one waits behind another while a child has nothing to do.
        """
        for seed in range(5):
            choice = random.Random(seed).choices
            durations = choice([1e-6, 0.1], weights=[20, 1], k=2000)
            self.assertGreaterEqual(self.utilisation(durations), 0.95, seed)

    def test_behindLong(self) -> None:
        """
        What was sent ahead before a long one was begun doesn't wait for it while the
        other child has nothing to do.
        """
        durations = [1e-6] * 1000 + [0.1] + [1e-3] * 100
        self.assertGreaterEqual(self.utilisation(durations), 0.95)


class KilledTests(ChildrenTestCase):
    """Tests with real children that are killed while they have tasks ahead."""

    async def test_atMostOnce(self) -> None:
        """
        Each of many short tasks is run once at most, and has one result. What fails is
        one task for each child that was killed at most, and it is what it was at.
        """
        random.seed(7)
        path = os.path.join(self.folder, "notes")
        q = self.queue(2)
        await DeferredList([q.call(jobs.nothing) for _ in range(50)])
        fired: Counter[int] = Counter()
        lost: list[int] = []
        kills = 0

        def succeeded(result: int, number: int) -> None:
            self.assertEqual(result, number)
            fired[number] += 1

        def failed(failure: Any, number: int) -> None:
            """Note that a task was lost."""
            failure.trap(errors.WorkerLost)
            fired[number] += 1
            lost.append(number)

        def kill(result: Any) -> Any:
            nonlocal kills
            worker = random.choice(q.workers())
            if worker.process.pid is not None:
                os.kill(worker.process.pid, signal.SIGKILL)
                kills += 1
            return result

        calls = []
        for number in range(3000):
            d = q.call(jobs.notes, path, number)
            if number % 250 == 249:
                d.addBoth(kill)
            d.addCallbacks(succeeded, failed, (number,), {}, (number,))
            calls.append(d)
        for success, failure in await DeferredList(calls):
            self.assertTrue(success, failure)
        with open(path) as file:
            runs = Counter(int(line) for line in file)
        self.assertEqual([n for n in range(3000) if fired[n] != 1], [])
        self.assertEqual([n for n, times in runs.items() if times > 1], [])
        self.assertEqual(
            [n for n in range(3000) if n not in runs and n not in lost], []
        )
        self.assertGreater(kills, 5)
        self.assertLessEqual(len(lost), kills)

    async def test_cancelled(self) -> None:
        """Tasks that were sent ahead are cancelled without a child being lost."""
        path = os.path.join(self.folder, "notes")
        q = self.queue(1)
        await DeferredList([q.call(jobs.nothing) for _ in range(50)])
        [worker] = q.workers()
        pid = worker.process.pid
        calls: list[Deferred[Any]] = [q.call(jobs.nothing) for _ in range(100)]
        calls.append(q.call(jobs.waitAtGate, self.gate.path))
        calls += [q.call(jobs.notes, path, number) for number in range(40)]
        await calls[99]
        for d in calls[101:]:
            d.addErrback(lambda _: None)
            d.cancel()
        self.gate.open()
        await calls[100]
        self.assertEqual(await q.call(os.getpid), pid)
        self.assertFalse(os.path.exists(path))
