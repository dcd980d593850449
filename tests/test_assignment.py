"""Tests of the meeting of tasks and workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue._asyncworker import AsyncWorker
from asynqueue.errors import ImplementationError
from asynqueue.interfaces import IPrefetchingWorker, IWorker
from asynqueue.tasks import Assignment, AssignmentFactory
from asynqueue.tasks._task import Task
from asynqueue.testing import MemoryWorker

from ._cases import ids, same, task, turn


@implementer(IWorker)
class BadWorker(AsyncWorker):
    """A worker whose C{run} returns, or raises, what it's told."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def run(self, task: Any) -> Any:
        """Don't run a task."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@implementer(IPrefetchingWorker)
class Prefetching(MemoryWorker):
    """A worker that has nothing to give back, but notes that it was asked."""

    backlogPerWorker = None

    def __init__(self, onReclaim: Callable[[Prefetching], object]) -> None:
        super().__init__(capacity=2)
        self.onReclaim = onReclaim

    def batch(self, f: Callable[[], object]) -> object:
        """Have tasks assigned after something."""
        return f()

    def reclaim(self) -> list[Any]:
        """Tell that tasks were asked for."""
        self.onReclaim(self)
        return []


class AssignmentTests(SynchronousTestCase):
    """Tests of L{Assignment}."""

    def setUp(self) -> None:
        """Make an assignment."""
        self.clock = Clock()
        self.worker = MemoryWorker()
        self.task = Task(same, (), {}, 0, None, 5, reactor=self.clock)
        self.assignment = Assignment(self.task)

    def test_accept(self) -> None:
        """
        On acceptance its Deferred fires with the worker, the task's timer starts, and
        the worker runs the task.
        """
        self.assertIs(self.assignment.task, self.task)
        self.assertNoResult(self.assignment.d)
        ready = self.assignment.accept(self.worker)
        self.assertIs(self.successResultOf(self.assignment.d), self.worker)
        self.assertEqual(self.worker.running, [self.task])
        self.assertTrue(self.task.accepted)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertNoResult(ready)
        self.worker.ready()
        self.successResultOf(ready)

    def test_cancelledOnAcceptance(self) -> None:
        """If the task is cancelled by who hears that it's accepted, it isn't run."""
        self.assignment.d.addCallback(lambda _: self.task.d.cancel())
        ready = self.assignment.accept(self.worker)
        self.failureResultOf(self.task.d, CancelledError)
        self.assertEqual(self.worker.running, [])
        self.successResultOf(ready)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notADeferred(self) -> None:
        """A worker whose C{run} gives anything but a Deferred is told so."""
        with self.assertRaisesRegex(ImplementationError, "a Deferred, not 5"):
            self.assignment.accept(BadWorker(5))


class AssignmentFactoryTests(SynchronousTestCase):
    """Tests of L{AssignmentFactory}."""

    def setUp(self) -> None:
        """Make a factory and a worker."""
        self.clock = Clock()
        self.factory = AssignmentFactory(reactor=self.clock)
        self.worker = MemoryWorker()

    def add(self, *args: Any, **kw: Any) -> Task:
        """Add a task."""
        job = task(same, *args, **kw)
        self.factory.new(job)
        return job

    def request(self, worker: MemoryWorker | AsyncWorker, series: list[Any]) -> None:
        """Have a worker request tasks of several series, as when it's hired."""

        def requestAll() -> None:
            for each in series:
                self.factory.request(worker, each)

        self.factory.batch(requestAll)

    def inLine(self, worker: MemoryWorker | AsyncWorker) -> dict[Any, Any]:
        """
        The requests of a worker that stand in line, by what the factory has, which is
        what the worker shows.
        """
        shown = {series: ds for series, ds in worker.assignments.items() if ds}
        known = {
            series: [d for d, state in ds.items() if state.worker is worker]
            for series, ds in self.factory.requests.items()
        }
        self.assertEqual(shown, {series: ds for series, ds in known.items() if ds})
        return shown

    def test_request(self) -> None:
        """A request is entered for the worker, and is a Deferred in its assignments."""
        self.factory.request(self.worker, "x")
        self.factory.request(self.worker, "y")
        self.assertEqual(list(self.inLine(self.worker)), ["x", "y"])
        for mine in self.worker.assignments.values():
            self.assertEqual(len(mine), 1)
            self.assertIsInstance(mine[0], Deferred)
            self.assertNoResult(mine[0])

    def test_oneRequestPerSeries(self) -> None:
        """A request for a series that there's one for already changes nothing."""
        for _ in range(3):
            self.factory.request(self.worker, "x")
        self.assertEqual(len(self.worker.assignments["x"]), 1)

    def test_withoutAttributes(self) -> None:
        """A worker that was never hired is given its assignments."""
        worker: Any = MemoryWorker()
        del worker.assignments
        self.factory.request(worker, "x")
        self.assertEqual(list(self.inLine(worker)), ["x"])

    def test_taskWaits(self) -> None:
        """A task that was there before the request is handed out at the request."""
        job = self.add(series="x")
        self.factory.request(self.worker, "x")
        self.assertEqual(self.worker.running, [job])

    def test_otherSeries(self) -> None:
        """A task of another series leaves the request alone."""
        self.factory.request(self.worker, "x")
        self.add(series="y")
        self.assertEqual(self.worker.running, [])
        self.assertNoResult(self.worker.assignments["x"][0])

    def test_oldestRequest(self) -> None:
        """The worker whose request is the oldest gets the task."""
        workers = [MemoryWorker() for _ in range(3)]
        for worker in workers:
            self.factory.request(worker, None)
        jobs = [self.add(n) for n in range(3)]
        self.assertEqual([worker.running for worker in workers], [[j] for j in jobs])
        workers[1].complete()
        workers[0].complete()
        last = self.add(3)
        self.assertEqual(workers[1].running, [last])

    def test_new(self) -> None:
        """Who adds a task can hear when a worker has accepted it, and who."""
        job = task()
        d = self.factory.new(job)
        self.assertNoResult(d)
        self.factory.request(self.worker, None)
        self.assertIs(self.successResultOf(d), self.worker)
        self.worker.complete()
        other = task()
        self.assertIs(self.successResultOf(self.factory.new(other)), self.worker)

    def test_doneAtOnce(self) -> None:
        """
        A worker that is done at once with a task requests the next. Each task fires a
        request of its own.
        """
        worker = AsyncWorker()
        self.request(worker, [None, "x"])
        other = worker.assignments[None][0]
        for n in range(3):
            request = worker.assignments["x"][0]
            self.assertNoResult(request)
            job = self.add(n, series="x")
            assignment: Any = self.successResultOf(request)
            self.assertIs(assignment.task, job)
            self.assertIs(self.successResultOf(assignment.d), worker)
            self.assertEqual(self.successResultOf(job.d)[1], n)
        self.assertEqual(list(self.inLine(worker)), [None, "x"])
        self.assertIs(worker.assignments[None][0], other)

    def test_fireWithAssignment(self) -> None:
        """
        Firing a request with an assignment has the worker accept it, and request again
        when it's ready.
        """
        self.request(self.worker, ["x", "y"])
        job = task(series="elsewhere")
        self.worker.assignments["x"][0].callback(Assignment(job))
        self.assertEqual(self.worker.running, [job])
        self.assertEqual(self.inLine(self.worker), {})
        self.worker.complete()
        self.assertEqual(sorted(self.inLine(self.worker)), ["x", "y"])

    def withdraw(self, how: Any) -> None:
        """
        Withdraw one of a worker's requests, and see what becomes of it and of tasks.
        """
        other = MemoryWorker()
        self.request(self.worker, ["x", "y"])
        how(self.worker.assignments["x"][0])
        self.assertEqual(list(self.inLine(self.worker)), ["y"])
        waiting = self.add(series="x")
        self.assertEqual(self.worker.running, [])
        self.factory.request(other, "x")
        self.assertEqual(other.running, [waiting])
        later = self.add(series="x")
        self.clock.advance(0)
        self.assertEqual(self.worker.running, [later])
        self.worker.complete()
        self.assertEqual(sorted(self.inLine(self.worker)), ["x", "y"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelRequest(self) -> None:
        """
        Cancelling a request withdraws it. The worker, which is still employed, requests
        again in the reactor's next turn.
        """
        self.withdraw(lambda request: request.cancel())

    def test_fireWithNothing(self) -> None:
        """So does firing it with C{None}, a fake assignment."""
        self.withdraw(lambda request: request.callback(None))

    def test_withdrawWhileBusy(self) -> None:
        """
        A request that is withdrawn while its worker is busy is replaced by another when
        the worker is ready.
        """
        self.request(self.worker, ["x", "y"])
        request = self.worker.assignments["y"][0]
        self.add(series="x")
        request.cancel()
        self.clock.advance(0)
        self.assertEqual(self.inLine(self.worker), {})
        self.worker.complete()
        self.assertEqual(sorted(self.inLine(self.worker)), ["x", "y"])
        self.assertIsNot(self.worker.assignments["y"][0], request)

    def test_withdrawThenLetGo(self) -> None:
        """
        A worker that is let go after one of its requests was withdrawn doesn't request
        again.
        """
        self.factory.request(self.worker, "x")
        self.worker.assignments["x"][0].cancel()
        self.factory.cancelRequests(self.worker)
        self.add(series="x")
        self.clock.advance(0)
        self.assertEqual(self.worker.running, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_publicDictChanged(self) -> None:
        """What others do to a worker's public dict changes nothing."""
        other = MemoryWorker()
        self.request(self.worker, [None, "x"])
        self.factory.request(other, None)
        self.worker.assignments.clear()
        self.factory.cancelRequests(self.worker)
        job = self.add()
        self.assertEqual((self.worker.running, other.running), ([], [job]))
        other.assignments = {}
        other.complete()
        job = self.add()
        self.assertEqual(other.running, [job])

    def test_subclassSeesRequests(self) -> None:
        """A subclass that overrides C{request} sees a request for each task."""
        seen: list[Any] = []

        class Seeing(AssignmentFactory):
            def request(self, worker: Any, series: Any) -> None:
                seen.append(series)
                super().request(worker, series)

        self.factory = Seeing(reactor=self.clock)
        self.factory.request(self.worker, "x")
        jobs = [self.add(n, series="x") for n in range(3)]
        for _ in jobs:
            self.worker.complete()
        self.assertEqual(self.worker.accepted, jobs)
        self.assertEqual(seen, ["x"] * 4)

    def test_subclassRaises(self) -> None:
        """
        If one that overrides C{request} raises, that's logged, and no task is lost.
        """
        isBroken = False

        class Raising(AssignmentFactory):
            def request(self, worker: Any, series: Any) -> None:
                if isBroken:
                    raise ZeroDivisionError
                super().request(worker, series)

        self.factory = Raising(reactor=self.clock)
        self.factory.request(self.worker, "x")
        jobs = [self.add(n, series="x") for n in range(3)]
        isBroken = True
        for _ in jobs:
            self.worker.complete()
        self.assertEqual(self.worker.accepted, jobs)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_subclassAddsTasks(self) -> None:
        """
        What one that overrides C{request} adds there, of whatever series, is run
        though nothing else happens after that.
        """
        jobs: list[Task] = []

        class Adding(AssignmentFactory):
            first: Any = None
            last: Any = None

            def request(self, worker: Any, series: Any) -> None:
                self.add(self.first)
                super().request(worker, series)
                self.add(self.last)

            def add(self, series: str | None) -> None:
                if series is not None and not jobs:
                    jobs.append(task(same, series=series))
                    self.new(jobs[0])

        for series in ("x", "y"):
            for place in ("first", "last"):
                for worker in (AsyncWorker(), MemoryWorker()):
                    self.factory = Adding(reactor=self.clock)
                    self.request(worker, ["x", "y"])
                    setattr(self.factory, place, series)
                    first = self.add(series="x")
                    if isinstance(worker, MemoryWorker):
                        worker.complete(first)
                    self.assertTrue(jobs.pop().accepted, (series, place, worker))

    def test_subclassLetsGo(self) -> None:
        """
        If one that overrides C{request} lets the worker go there, it's given no more
        tasks, even if that raises.
        """

        class LettingGo(AssignmentFactory):
            leaves = raises = False

            def request(self, worker: Any, series: Any) -> None:
                if not self.leaves:
                    super().request(worker, series)
                    return
                self.leaves = False
                self.cancelRequests(worker)
                if self.raises:
                    raise ZeroDivisionError

        for raises in (False, True):
            self.factory = factory = LettingGo(reactor=self.clock)
            factory.raises = raises
            worker = MemoryWorker()
            self.request(worker, ["x", "y"])
            first = self.add(series="x")
            self.add(series="y")
            second = self.add(series="x")
            factory.leaves = True
            worker.complete()
            self.add(series="y")
            self.assertFalse(second.accepted)
            self.assertEqual(worker.accepted, [first])
            self.assertEqual(self.inLine(worker), {})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_subclassLetsGoIdle(self) -> None:
        """The same if nothing waits."""

        class LettingGo(AssignmentFactory):
            leaves = False

            def request(self, worker: Any, series: Any) -> None:
                if self.leaves:
                    self.leaves = False
                    self.cancelRequests(worker)
                else:
                    super().request(worker, series)

        self.factory = factory = LettingGo(reactor=self.clock)
        self.request(self.worker, ["x", "y"])
        first = self.add(series="x")
        factory.leaves = True
        self.worker.complete()
        self.add(series="x")
        self.add(series="y")
        self.assertEqual(self.worker.accepted, [first])

    def test_subclassRefuses(self) -> None:
        """
        A task for which one that overrides C{request} makes none goes to a worker that
        has become ready meanwhile.
        """
        other = MemoryWorker()

        class Refusing(AssignmentFactory):
            refuses = False

            def request(self, worker: Any, series: Any) -> None:
                if not self.refuses or worker is other:
                    super().request(worker, series)
                elif len(other.accepted) == 1 and other.busy:
                    other.complete()

        self.factory = factory = Refusing(reactor=self.clock)
        for worker in (self.worker, other):
            self.request(worker, ["x"])
        jobs = [self.add(n, series="x") for n in range(3)]
        factory.refuses = True
        self.worker.complete()
        self.assertEqual(other.accepted, jobs[1:])

    def test_subclassFires(self) -> None:
        """
        One that overrides C{request} may fire another request of the worker there,
        which is entered again.
        """
        worker = AsyncWorker()

        class Firing(AssignmentFactory):
            fires = False

            def request(self, worker: Any, series: Any) -> None:
                super().request(worker, series)
                if self.fires:
                    self.fires = False
                    assignment = Assignment(task(same, series="x"))
                    worker.assignments["x"][0].callback(assignment)

        self.factory = factory = Firing(reactor=self.clock)
        self.request(worker, ["x", "y"])
        factory.fires = True
        self.add(series="y")
        self.assertEqual(set(self.inLine(worker)), {"x", "y"})

    def test_takeTurns(self) -> None:
        """Workers that are done at once take turns."""
        ran: list[int] = []

        class Named(AsyncWorker):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.number = number

            def run(self, task: Any) -> Any:
                ran.append(self.number)
                return super().run(task)

        for number in range(3):
            self.request(Named(number), [None, "x"])
        for series in (None, "x", "x", None, "x"):
            self.add(series=series)
        self.assertEqual(ran, [0, 1, 2, 0, 1])

    def test_cancelRequests(self) -> None:
        """
        All requests of a worker can be withdrawn. It's given no task then, and those
        of others stand.
        """
        other = MemoryWorker()
        for series in ("x", "y"):
            self.factory.request(self.worker, series)
        self.factory.request(other, "y")
        request = self.worker.assignments["x"][0]
        self.factory.cancelRequests(self.worker)
        self.assertEqual(self.inLine(self.worker), {})
        self.assertIsNone(self.successResultOf(request))
        self.add(series="x")
        job = self.add(series="y")
        self.assertEqual(self.worker.running, [])
        self.assertEqual(other.running, [job])

    def test_cancelRequestsOfBusy(self) -> None:
        """A busy worker whose requests were cancelled gets no task when it's ready."""
        self.factory.request(self.worker, None)
        self.add()
        self.factory.cancelRequests(self.worker)
        self.worker.complete()
        self.add()
        self.assertEqual(self.worker.running, [])
        self.assertEqual(self.inLine(self.worker), {})

    def test_cancelRequestsOfUnknown(self) -> None:
        """Cancelling the requests of a worker without any does nothing."""
        self.factory.cancelRequests(self.worker)

    def test_requestAgain(self) -> None:
        """After that, a worker may request anew."""
        self.factory.request(self.worker, None)
        self.factory.cancelRequests(self.worker)
        self.factory.request(self.worker, "x")
        self.add()
        job = self.add(series="x")
        self.assertEqual(self.worker.running, [job])

    def test_fullWithdraws(self) -> None:
        """
        While a worker is full its requests in all series are withdrawn, so that a task
        goes to another that is idle.
        """
        other = MemoryWorker()
        for worker in (self.worker, other):
            self.request(worker, [None, "x"])
        first, second = self.add(series="x"), self.add()
        self.assertEqual(self.worker.running, [first])
        self.assertEqual(other.running, [second])

    def test_capacity(self) -> None:
        """A worker is given as many tasks as its capacity, and no more."""
        worker = MemoryWorker(capacity=3)
        self.request(worker, [None, "x"])
        for n in range(5):
            self.add(n, series=(None, "x")[n % 2])
        self.assertEqual(ids(worker), [0, 1, 2])
        worker.complete()
        self.assertEqual(ids(worker), [1, 2, 3])

    def test_capacityShrinks(self) -> None:
        """
        A worker that wants fewer than before is given no more until it's below that,
        and its requests don't stand in the way.
        """
        worker = MemoryWorker(capacity=2)
        self.factory.request(worker, None)
        self.add(0)
        worker.capacity = 1
        other = MemoryWorker()
        self.factory.request(other, None)
        self.add(1)
        self.assertEqual((ids(worker), ids(other)), ([0], [1]))

    def test_sharedOut(self) -> None:
        """
        Tasks are shared out between workers that are ready, not heaped on the first.
        """
        workers = [MemoryWorker(capacity=4), MemoryWorker(capacity=4)]
        for n in range(4):
            self.add(n)

        def requestAll() -> None:
            for worker in workers:
                self.factory.request(worker, None)

        self.factory.batch(requestAll)
        self.assertEqual([ids(worker) for worker in workers], [[0, 2], [1, 3]])

    def test_lowestOfAllSeries(self) -> None:
        """A worker that is ready gets the first of all waiting tasks of its series."""
        self.add(0, series="x", priority=3)
        self.add(1, series="y", priority=1)
        self.add(2, priority=2)
        self.add(3, series="z", priority=0)
        self.request(self.worker, [None, "x", "y"])
        order = []
        while self.worker.running:
            order += ids(self.worker)
            self.worker.complete()
        self.assertEqual(order, [1, 2, 0])

    def test_burstToIdleWorkers(self) -> None:
        """
        Several tasks that are added while another is handed out go to as many idle
        workers.
        """
        idle = [MemoryWorker() for _ in range(3)]
        runner = AsyncWorker()
        self.factory.request(runner, "first")
        for worker in idle:
            self.factory.request(worker, None)

        def addThree(_: Any) -> None:
            for n in range(3):
                self.add(n)

        first = task(series="first")
        first.d.addCallback(addThree)
        self.factory.new(first)
        self.assertEqual([ids(worker) for worker in idle], [[0], [1], [2]])

    def test_burstOfSeries(self) -> None:
        """
        A task isn't left waiting beside an idle worker because the worker that it was
        meant for took another one.
        """
        both, one, runner = MemoryWorker(), MemoryWorker(), AsyncWorker()
        self.factory.request(runner, "first")
        self.request(both, ["x", "y"])
        self.factory.request(one, "x")

        def add(_: Any) -> None:
            self.add("x", series="x", priority=2)
            self.add("y", series="y", priority=1)

        first = task(series="first")
        first.d.addCallback(add)
        self.factory.new(first)
        self.assertEqual((ids(both), ids(one)), (["y"], ["x"]))

    def test_workerLeavesDuringBurst(self) -> None:
        """
        A task isn't left waiting beside an idle worker because the worker that it was
        meant for is let go before it gets it.
        """
        leaving, staying, runner = MemoryWorker(), MemoryWorker(), AsyncWorker()
        self.factory.request(runner, "first")
        self.factory.request(leaving, None)
        self.factory.request(staying, None)

        def addAndDismiss(_: Any) -> None:
            self.add(1)
            self.factory.cancelRequests(leaving)

        first = task(series="first")
        first.d.addCallback(addAndDismiss)
        self.factory.new(first)
        self.assertEqual((ids(leaving), ids(staying)), ([], [1]))

    def test_runRaises(self) -> None:
        """
        If the worker's C{run} raises, the task fails with that, and the worker is given
        the next one.
        """
        self.factory.request(BadWorker(ValueError("no")), None)
        for job in (self.add(), self.add()):
            self.failureResultOf(job.d, ValueError)

    def test_runReturnsNothing(self) -> None:
        """
        If it returns anything but a Deferred, the task fails with an error that says
        so.
        """
        self.factory.request(BadWorker(None), None)
        job = self.add()
        failure = self.failureResultOf(job.d, ImplementationError)
        self.assertIn("must return a Deferred, not None", str(failure.value))

    def test_runFails(self) -> None:
        """If its Deferred fails, that is logged, and the worker counts as ready."""
        self.factory.request(BadWorker(fail(ValueError("no"))), None)
        self.add()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_runFailsLater(self) -> None:
        """Also if it fails later."""
        worker = BadWorker(Deferred())
        self.factory.request(worker, None)
        self.add()
        worker.answer.errback(ValueError("no"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(list(self.inLine(worker)), [None])

    def test_stretches(self) -> None:
        """
        Tasks that complete at once are handed out for a few milliseconds at a stretch;
        then the reactor has its turn. In between, new tasks only join the line.
        """
        done: list[float] = []

        def work() -> None:
            self.clock.rightNow += 0.001
            done.append(self.clock.rightNow)

        for _ in range(20):
            self.factory.new(task(work))
        self.factory.request(AsyncWorker(), None)
        self.assertEqual(len(done), 4)
        self.factory.new(task(work))
        self.assertEqual(len(done), 4)
        turns = 1
        while len(done) < 21:
            turn(self.clock)
            turns += 1
        self.assertEqual(turns, 6)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowTasks(self) -> None:
        """A task that takes long by itself is followed by the reactor's turn."""
        done: list[int] = []

        def work(n: int) -> None:
            self.clock.rightNow += 0.5
            done.append(n)

        for n in range(3):
            self.factory.new(task(work, n))
        self.factory.request(AsyncWorker(), None)
        self.assertEqual(done, [0])
        turn(self.clock)
        self.assertEqual(done, [0, 1])

    def test_prefetchingWorkerLost(self) -> None:
        """
        When a worker with tasks in advance is lost, nobody looks after those any
        longer.
        """

        worker = Prefetching(lambda _: self.fail())
        self.factory.request(worker, None)
        for n in range(2):
            self.add(n)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.factory.cancelRequests(worker)
        worker.crash()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_prefetchingWorkerLetGo(self) -> None:
        """One that is let go because of another's tasks isn't asked for any."""
        asked: list[Any] = []

        def ask(worker: Prefetching) -> None:
            asked.append(worker)
            self.factory.cancelRequests(second)

        first, second = Prefetching(ask), Prefetching(ask)
        for worker in (first, second):
            self.factory.request(worker, None)
        for n in range(4):
            self.add(n)
        self.clock.advance(0.1)
        self.assertEqual(asked, [first])

    def test_stop(self) -> None:
        """Stopping leaves nothing in the reactor."""

        def work() -> None:
            self.clock.rightNow += 1

        for _ in range(3):
            self.factory.new(task(work))
        self.factory.request(AsyncWorker(), None)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.factory.stop()
        self.factory.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_withdrawTasks(self) -> None:
        """Waiting tasks can be taken out, those that a worker has accepted can't."""
        self.factory.request(self.worker, None)
        jobs = [self.add(n) for n in range(4)]
        self.assertEqual(
            self.factory.backlog.remove(lambda job: job is not jobs[2]),
            [jobs[1], jobs[3]],
        )
        self.worker.complete()
        self.assertEqual(self.worker.running, [jobs[2]])

    def test_runDirectly(self) -> None:
        """
        A certain worker can be made to run a task, whatever it's doing. While that
        keeps it busy, it's given no others.
        """
        other = MemoryWorker()
        for worker in (self.worker, other):
            self.factory.request(worker, None)
        direct = task()
        self.factory.runDirectly(self.worker, direct)
        self.assertEqual(self.worker.running, [direct])
        self.assertEqual(self.inLine(self.worker), {})
        job = self.add()
        self.assertEqual(other.running, [job])
        self.factory.runDirectly(other, task())
        self.assertEqual(len(other.running), 2)
        self.worker.complete()
        self.assertEqual(list(self.inLine(self.worker)), [None])

    def test_together(self) -> None:
        """
        While several workers become ready together, nothing is handed out; then
        all get what comes first.
        """
        other = MemoryWorker()
        for worker in (self.worker, other):
            self.factory.request(worker, None)
        first = [self.add(priority=priority) for priority in (1, 2)]
        waiting = [self.add(priority=priority) for priority in (5, 4)]
        sooner: list[Task] = []

        def together() -> None:
            other.ready()
            self.worker.ready()
            self.assertEqual([first[1].accepted, waiting[1].accepted], [True, False])
            self.factory.batch(lambda: sooner.append(self.add(priority=3)))

        self.factory.batch(together)
        self.assertEqual(other.running, [first[1], *sooner])
        self.assertEqual(self.worker.running, [first[0], waiting[1]])

    def test_togetherFails(self) -> None:
        """If that fails, what is ready gets its tasks nevertheless."""
        self.factory.request(self.worker, None)
        with self.assertRaises(ZeroDivisionError):
            self.factory.batch(lambda: self.add(1 // 0))
        self.assertEqual(self.worker.running, [])
        job = self.add()
        self.assertEqual(self.worker.running, [job])

    def test_cancelledTask(self) -> None:
        """
        A waiting task that is cancelled is never handed out; one that runs is
        cancelled at its worker.
        """
        self.factory.request(self.worker, None)
        running, waiting = self.add(), self.add()
        waiting.d.cancel()
        self.failureResultOf(waiting.d, CancelledError)
        running.d.cancel()
        self.failureResultOf(running.d, CancelledError)
        self.assertEqual(self.worker.cancelled, [running])
        self.assertEqual(self.worker.running, [])
