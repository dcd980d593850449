"""
Tests of what the description of C{TaskHandler} says that this project began with, a
sentence a test, and of the one road that every call takes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue import AsyncWorker, ProcessWorker, TaskQueue, ThreadWorker
from asynqueue._child.pickling import dumpsPlain, loads
from asynqueue._child.protocol import Kind
from asynqueue._child.status import Status
from asynqueue.base import Queue
from asynqueue.errors import ImplementationError, WorkerLost
from asynqueue.interfaces import IWorker
from asynqueue.tasks import Assignment, AssignmentFactory, Task, TaskHandler
from asynqueue.testing import MemoryWorker

from ._cases import HandlerTestCase, same, task
from ._fakes import FakeReactor
from ._fakethreads import ThreadReactor


class Requests(AssignmentFactory):
    """Notes who has requested tasks of which series, in pairs."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.entered: list[tuple[Any, Any]] = []

    def request(self, worker: Any, series: Any) -> None:
        """Note a request."""
        self.entered.append((worker, series))
        super().request(worker, series)


class HandlerCase(HandlerTestCase):
    """A test with a handler whose requests are noted."""

    def setUp(self) -> None:
        """Make a handler without workers."""
        super().setUp()
        self.requests = Requests(reactor=self.clock)
        self.handler.assignmentFactory = self.requests

    def outstanding(self, worker: MemoryWorker) -> dict[Any, list[Deferred[Any]]]:
        """The requests of a worker that it has in its dict, by series."""
        return {series: ds for series, ds in worker.assignments.items() if ds}


class HandlerTests(HandlerCase):
    """What the handler is."""

    def test_queueHandler(self) -> None:
        """It is the handler of a queue: an object that is called with each item."""
        queue = Queue(self.handler)
        worker = self.hire()
        job = task()
        queue.put(job)
        self.assertEqual(worker.running, [job])

    def test_workersProvideIWorker(self) -> None:
        """It manages any number of workers, all of which provide L{IWorker}."""
        first, second = self.hire(), self.hire()
        self.assertEqual(list(self.handler.workers.values()), [first, second])
        with self.assertRaises(ImplementationError):
            self.handler.hire(object())  # type: ignore[arg-type]

    def test_dictByUniqueID(self) -> None:
        """
        The workers it employs are in a dict, by a unique integer ID, which the worker
        has as its attribute C{ID}.
        """
        workers = [self.hire() for _ in range(3)]
        IDs = [worker.ID for worker in workers]
        self.assertEqual(self.handler.workers, dict(zip(IDs, workers, strict=True)))
        self.assertEqual([type(ID) for ID in IDs], [int] * 3)
        self.handler.terminate(3)
        self.assertNotIn(self.hire().ID, IDs)


class HireTests(HandlerCase):
    """What happens when a worker is hired."""

    def test_requestForEachSeries(self) -> None:
        """
        C{AssignmentFactory.request} is called for each series that the new worker is
        qualified for, and there's a queue of requests for each.
        """
        worker = self.hire("x", "y")
        series = [None, "memory", "local", "x", "y"]
        self.assertEqual(self.requests.entered, [(worker, each) for each in series])
        self.assertEqual(list(self.requests.requests), series)
        for each in series:
            [request] = self.requests.requests[each]
            self.assertIsInstance(request, Deferred)

    def test_dictOfDeferreds(self) -> None:
        """
        The worker has a dict with a Deferred for each of its outstanding requests: the
        very ones that stand in the queues.
        """
        worker = self.hire("x")
        for series, mine in self.outstanding(worker).items():
            self.assertEqual(mine, list(self.requests.requests[series]))
        self.assertEqual(len(self.outstanding(worker)), 4)

    def test_ID(self) -> None:
        """
        The Deferred of C{hire} fires with the worker's ID when it's ready for
        assignments.
        """
        worker = MemoryWorker()
        ID = self.successResultOf(self.handler.hire(worker))
        self.assertEqual(worker.ID, ID)
        self.assertIs(self.handler.workers[ID], worker)

    def test_notBeforeItIsReady(self) -> None:
        """
        A worker that still runs the updates of those who were hired before isn't ready
        for assignments, and nor has it requested any.
        """
        self.handler.update(task(same, "update"))
        worker = MemoryWorker()
        hired = self.handler.hire(worker)
        self.assertNoResult(hired)
        self.assertEqual(self.requests.entered, [])
        worker.complete()
        self.assertEqual(self.successResultOf(hired), worker.ID)
        self.assertEqual(len(self.outstanding(worker)), 3)


class AssignmentTests(HandlerCase):
    """How a worker gets its assignment."""

    def test_firesWithWorker(self) -> None:
        """
        A task that meets a request fires it with an assignment. The worker accepts,
        which fires the Deferred of the assignment with the worker, and then runs the
        task.
        """
        worker = self.hire("x")
        [request] = worker.assignments["x"]
        job = task(series="x")
        accepted: list[Any] = []
        d = self.handler(job)
        d.addCallback(lambda by: accepted.append((by, worker.running)))
        assignment: Any = self.successResultOf(request)
        self.assertIsInstance(assignment, Assignment)
        self.assertIs(assignment.task, job)
        self.assertIs(assignment.d, d)
        self.assertEqual([by for by, _ in accepted], [worker])
        self.assertEqual(worker.running, [job])

    def test_firesOnAcceptance(self) -> None:
        """
        What calling the handler returns, fires when the task has been assigned to a
        worker that has accepted it, not before, and not only with its result.
        """
        worker = self.hire()
        self.put("before")
        job = task(same, "job")
        accepted = self.handler(job)
        self.assertNoResult(accepted)
        worker.complete()
        self.assertIs(self.successResultOf(accepted), worker)
        self.assertNoResult(job.d)

    def test_requestsAgain(self) -> None:
        """
        When the worker is ready for another task after this one, and still employed, a
        request for another task of the same series is entered.
        """
        worker = self.hire("x")
        self.put(series="x")
        self.requests.entered.clear()
        self.assertEqual(self.outstanding(worker), {})
        worker.complete(ready=False)
        self.assertEqual(self.requests.entered, [])
        worker.ready()
        self.assertIn((worker, "x"), self.requests.entered)
        self.assertEqual(len(worker.assignments["x"]), 1)

    def test_unlessTerminated(self) -> None:
        """A worker that was terminated in the meantime requests nothing."""
        worker = self.hire("x")
        self.put(series="x")
        self.requests.entered.clear()
        self.handler.terminate(1)
        worker.complete()
        self.assertEqual(self.requests.entered, [])
        self.assertEqual(self.outstanding(worker), {})

    def test_oldestRequest(self) -> None:
        """Requests of a series are filled in the order in which they were entered."""
        workers = [self.hire("x") for _ in range(3)]
        jobs = [self.put(series="x") for _ in workers]
        self.assertEqual([w.running for w in workers], [[job] for job in jobs])


class TerminateTests(HandlerCase):
    """How a worker is let go."""

    def test_firesWithoutTask(self) -> None:
        """
        The outstanding requests of the worker are cancelled by firing their Deferreds
        with no task.
        """
        worker = self.hire("x")
        requests = [d for ds in worker.assignments.values() for d in ds]
        self.handler.terminate(1)
        self.assertEqual([self.successResultOf(d) for d in requests], [None] * 4)
        self.assertEqual(self.outstanding(worker), {})
        self.assertEqual(self.requests.requests, {})
        self.assertEqual(self.handler.workers, {})
        job = self.put(series="x")
        self.assertNoResult(job.d)
        self.assertEqual(worker.accepted, [])
        self.assertEqual(self.hire("x").running, [job])

    def test_anybodyMay(self) -> None:
        """
        A request is withdrawn by whoever fires it without a task, or cancels it. The
        worker is still employed, and requests again in the next turn.
        """
        for withdraw in (lambda d: d.callback(None), Deferred.cancel):
            worker = self.hire("x")
            [request] = worker.assignments["x"]
            withdraw(request)
            self.assertEqual(worker.assignments["x"], [])
            self.clock.advance(0)
            self.assertEqual(len(worker.assignments["x"]), 1)

    def test_stops(self) -> None:
        """
        The worker is told to stop, and is given the time to run what it has accepted.
        The Deferred fires with the tasks left unfinished: none.
        """
        worker = self.hire()
        job = self.put(5)
        gone = self.handler.terminate(1)
        self.assertTrue(worker.stopping)
        self.assertNoResult(gone)
        self.assertEqual(self.handler.workers, {})
        worker.complete(5)
        self.assertEqual(self.successResultOf(gone), [])
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 5))
        self.assertFalse(worker.crashed)

    def test_timeout(self) -> None:
        """
        After C{timeout} seconds it's crashed, if it hasn't stopped. The Deferred fires
        with the tasks left unfinished.
        """
        worker = self.hire()
        job = self.put()
        gone = self.handler.terminate(1, timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(gone)
        self.assertFalse(worker.crashed)
        self.clock.advance(0.1)
        self.assertTrue(worker.crashed)
        self.assertEqual(self.successResultOf(gone), [job])
        self.assertNoResult(job.d)

    def test_timeoutInTime(self) -> None:
        """
        A worker that stops in time isn't crashed, and nothing is left in the reactor.
        """
        worker = self.hire()
        self.put()
        gone = self.handler.terminate(1, timeout=3)
        worker.complete()
        self.assertEqual(self.successResultOf(gone), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(worker.crashed)

    def test_crash(self) -> None:
        """With C{crash=True} it's crashed right away, whatever it has accepted."""
        worker = self.hire(capacity=2)
        jobs = [self.put(), self.put()]
        gone = self.handler.terminate(1, crash=True)
        self.assertTrue(worker.crashed)
        self.assertFalse(worker.stopping)
        self.assertEqual(self.successResultOf(gone), jobs)

    def test_reassigned(self) -> None:
        """Tasks that are given to others aren't among those left unfinished."""
        self.hire()
        job = self.put()
        gone = self.handler.terminate(1, crash=True, reassign=True)
        self.assertEqual(self.successResultOf(gone), [])
        self.assertEqual(self.hire().running, [job])


class RosterTests(HandlerCase):
    """Who is qualified."""

    def test_roster(self) -> None:
        """
        The roster of a series lists the workers that are qualified for it, and that of
        no series all workers.
        """
        x, y, both = self.hire("x"), self.hire("y"), self.hire("x", "y")
        self.assertEqual(self.handler.roster("x"), [x, both])
        self.assertEqual(self.handler.roster("y"), [y, both])
        self.assertEqual(self.handler.roster("z"), [])
        self.assertEqual(self.handler.roster(), [x, y, both])


class UpdateTests(HandlerCase):
    """Tasks that are for every worker."""

    def test_identicalCopies(self) -> None:
        """
        Identical copies of the task are run directly on all current workers that are
        qualified for it, whatever they're doing.
        """
        busy, idle, other = self.hire("x"), self.hire("x"), self.hire()
        before = self.put("before", series="x")
        update = task(same, "update", series="x")
        self.handler.update(update)
        copies = [busy.running[1], idle.running[0]]
        self.assertEqual([c.callTuple for c in copies], [update.callTuple] * 2)
        self.assertEqual(len({id(update), *map(id, copies)}), 3)
        self.assertEqual(busy.running[0], before)
        self.assertEqual(other.running, [])

    def test_results(self) -> None:
        """
        The Deferred fires when the task has run on all of them, with a list of the
        results.
        """
        workers = [self.hire() for _ in range(3)]
        done = self.handler.update(task())
        for result in (2, 1):
            self.assertNoResult(done)
            workers[result].complete(result)
        self.assertNoResult(done)
        workers[0].complete(0)
        self.assertEqual(self.successResultOf(done), [0, 1, 2])

    def test_savedForNewHires(self) -> None:
        """
        The task is saved, and run by those who are hired later, if they're qualified,
        before anything else.
        """
        self.handler.update(task(same, "update", series="x"))
        job = self.put(series="x")
        unqualified = self.hire()
        self.assertEqual(unqualified.accepted, [])
        hired = self.hire("x")
        self.assertEqual(hired.calls, [(same, "update")])
        hired.complete()
        self.assertEqual(hired.running, [job])

    def test_ephemeral(self) -> None:
        """With C{ephemeral=True} it's run by the current workers only."""
        present = self.hire()
        self.handler.update(task(same, "update"), ephemeral=True)
        self.assertEqual(present.calls, [(same, "update")])
        self.assertEqual(self.hire().accepted, [])


class ShutdownTests(HandlerCase):
    """The end."""

    def test_allAreLetGo(self) -> None:
        """
        All workers are told to stop, and are let go when they have. The Deferred fires
        when none is left.
        """
        workers = [self.hire() for _ in range(2)]
        jobs = [self.put(), self.put()]
        down = self.handler.shutdown()
        self.assertEqual([w.stopping for w in workers], [True, True])
        self.assertEqual(self.handler.workers, {})
        for worker in workers:
            self.assertNoResult(down)
            worker.complete()
        self.assertEqual(self.successResultOf(down), [])
        self.assertEqual([len(self.successResultOf(job.d)) for job in jobs], [2, 2])

    def test_unfinished(self) -> None:
        """
        The result is a list of all the tasks left unfinished: those that nobody had
        accepted, and those of workers that were crashed.
        """
        self.hire()
        self.hire()
        accepted = [self.put(), self.put()]
        waiting = [self.put(), self.put()]
        down = self.handler.shutdown(timeout=2)
        self.assertNoResult(down)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(down), waiting + accepted)


class _Kind:
    """A kind of worker with its reactor, which runs its calls when told to."""

    def __init__(self, reactor: Any, worker: Any) -> None:
        self.reactor = reactor
        self.worker = worker

    def settle(self) -> None:
        """Run all calls that the worker is given."""
        self.reactor.advance(0)


class _Memory(_Kind):
    """The worker that is single-stepped."""

    def settle(self) -> None:
        """Run all calls."""
        while self.worker.running:
            self.worker.step()


class _Thread(_Kind):
    """The worker with a thread."""

    def settle(self) -> None:
        """Run all calls."""
        self.reactor.settle()


class _Process(_Kind):
    """The worker with a child, which is played here."""

    def settle(self) -> None:
        """Run all calls."""
        [process] = self.reactor.processes
        if self.worker.state.name == "STARTING":
            process.send(Kind.HELLO, 0)
            self.reactor.serve()
        while calls := [
            (number, loads(payload))
            for kind, number, payload in process.received()
            if kind == Kind.CALL and process.claim(number)
        ]:
            for number, (f, args, kw, *_) in calls:
                process.send(Kind.RESULT, number, dumpsPlain((0.0, f(*args, **kw))))
            self.reactor.serve()


class RoadTests(SynchronousTestCase):
    """
    The road that every call takes: whoever replaces a method on it sees all calls.
    """

    def kinds(self) -> list[_Kind]:
        """Make a worker of each kind."""
        clock, threads, processes = Clock(), ThreadReactor(), FakeReactor()
        threads.threads.install(self)
        self.addCleanup(self.endAll, processes)
        return [
            _Kind(clock, AsyncWorker(["x"])),
            _Memory(Clock(), MemoryWorker(["x"])),
            _Thread(threads, ThreadWorker(["x"], reactor=threads)),
            _Process(processes, ProcessWorker(["x"], reactor=processes)),
        ]

    def endAll(self, reactor: FakeReactor) -> None:
        """End all fake processes."""
        for process in reactor.processes:
            if not process.ended:
                process.end()
        reactor.advance(10)

    def spyOn(self, owner: Any, name: str) -> list[Any]:
        """
        Replace a method by one that notes its first argument. Returns what it has
        noted.
        """
        seen: list[Any] = []
        original = getattr(owner, name)

        def spy(*args: Any, **kw: Any) -> Any:
            seen.append(args[1] if isinstance(owner, type) else args[0])
            return original(*args, **kw)

        self.patch(owner, name, spy)
        return seen

    def queue(self, kind: _Kind) -> TaskQueue:
        """Make a queue with that worker."""
        q = TaskQueue(kind.worker, reactor=kind.reactor)
        self.addCleanup(q.shutdown)
        kind.settle()
        return q

    def callAll(self, kind: _Kind) -> None:
        """
        Make calls to an idle worker, and to a busy one, of several series and
        priorities.
        """
        q = self.queue(kind)
        alone = q.call(same, 0)
        kind.settle()
        options: list[dict[str, Any]] = [
            {},
            {"series": "x"},
            {"niceness": 5},
            {"doNext": True},
            {"doLast": True},
            {"timeout": 9},
        ]
        several = [q.call(same, n, **kw) for n, kw in enumerate(options, 1)]
        kind.settle()
        results = [self.successResultOf(d) for d in [alone, *several]]
        self.assertEqual(results, list(range(7)))
        self.assertEqual(len(q.q), 0)

    def test_everyMethodSeesEveryCall(self) -> None:
        """
        C{Queue.put}, the handler, C{AssignmentFactory.new}, C{Assignment.accept} and
        the worker's C{run} see each call exactly once, whatever the kind of the
        worker.
        """
        for kind in self.kinds():
            put = self.spyOn(Queue, "put")
            handled = self.spyOn(TaskHandler, "__call__")
            new = self.spyOn(AssignmentFactory, "new")
            accepting = self.spyOn(Assignment, "accept")
            run = self.spyOn(kind.worker, "run")
            self.callAll(kind)
            self.assertEqual(
                [job.callTuple[1] for job in put], [(n,) for n in range(7)]
            )
            self.assertEqual(handled, put)
            self.assertEqual(new, put)
            self.assertEqual(accepting, [kind.worker] * 7)
            self.assertEqual(len(run), 7)
            self.assertEqual(set(run), set(put))

    def test_everyTaskIsRequested(self) -> None:
        """
        C{AssignmentFactory.request} is called before each task that a worker is given,
        for the series of the task.
        """
        for kind in self.kinds():
            events: list[tuple[str, Any]] = []
            request, run = AssignmentFactory.request, kind.worker.run

            def noteRequest(
                factory: Any,
                worker: Any,
                series: Any,
                events: Any = events,
                request: Any = request,
            ) -> None:
                events.append(("request", series))
                request(factory, worker, series)

            def noteRun(task: Any, events: Any = events, run: Any = run) -> Any:
                events.append(("run", task.series))
                return run(task)

            self.patch(AssignmentFactory, "request", noteRequest)
            self.patch(kind.worker, "run", noteRun)
            self.callAll(kind)
            requested: set[Any] = set()
            for event, series in events:
                if event == "request":
                    requested.add(series)
                else:
                    self.assertIn(series, requested)
                    requested.discard(series)
            self.assertEqual([event for event, _ in events].count("run"), 7)

    def test_subclassOfRun(self) -> None:
        """
        A subclass of a worker that has a C{run} of its own is given every task by it.
        """

        class Own(AsyncWorker):
            seen = 0

            def run(self, task: Any) -> Any:
                self.seen += 1
                return super().run(task)

        worker = Own(["x"])
        self.callAll(_Kind(Clock(), worker))
        self.assertEqual(worker.seen, 7)

    def test_subclassRefusesRequests(self) -> None:
        """
        A worker gets no task for which it has no request: a factory that doesn't enter
        one keeps it from the worker.
        """

        class Closed(AssignmentFactory):
            def request(self, worker: Any, series: Any) -> None:
                if series != "x":
                    super().request(worker, series)

        q = TaskQueue(reactor=Clock())
        q.th.assignmentFactory = Closed(reactor=Clock())
        q.attachWorker(AsyncWorker(["x"]))
        kept = q.call(same, 1, series="x")
        self.assertEqual(self.successResultOf(q.call(same, 2)), 2)
        self.assertNoResult(kept)

    def test_subclassRefusesOneSeries(self) -> None:
        """
        A factory that refuses a request for one series leaves the worker those for
        others.
        """
        closed: set[Any] = set()

        class Closing(AssignmentFactory):
            def request(self, worker: Any, series: Any) -> None:
                if series not in closed:
                    super().request(worker, series)

        q = TaskQueue(reactor=Clock())
        q.th.assignmentFactory = Closing(reactor=Clock())
        worker = MemoryWorker(["a", "b"])
        q.attachWorker(worker)
        first, kept, other = [q.call(same, series=series) for series in "aab"]
        closed.add("a")
        worker.complete()
        self.successResultOf(first)
        worker.complete("b")
        self.assertEqual(self.successResultOf(other), "b")
        self.assertNoResult(kept)

    def test_subclassOfHandler(self) -> None:
        """
        A subclass of the handler may do something with each task before it's assigned.
        """

        class Urgent(TaskHandler):
            def __call__(self, task: Task) -> Any:
                if task.callTuple[1] == ("urgent",):
                    task.rush()
                return super().__call__(task)

        queue = Queue(Urgent(reactor=Clock()))
        worker = MemoryWorker()
        queue.handler.hire(worker)
        for name in ("first", "usual", "urgent"):
            queue.put(task(same, name))
        worker.complete()
        self.assertEqual(worker.calls, [(same, "urgent")])

    def test_update(self) -> None:
        """
        Updates pass by the queue, as they're for certain workers, but reach those by
        C{Assignment.accept} and C{run}, too.
        """
        for kind in self.kinds():
            put = self.spyOn(Queue, "put")
            accepting = self.spyOn(Assignment, "accept")
            run = self.spyOn(kind.worker, "run")
            q = self.queue(kind)
            done = q.update(same, 5)
            kind.settle()
            self.assertEqual(self.successResultOf(done), [5])
            self.assertEqual(put, [])
            self.assertEqual(accepting, [kind.worker])
            self.assertEqual([job.callTuple[0] for job in run], [same])

    def test_lostWorkersTask(self) -> None:
        """
        A task that is run again passes by the handler and the worker's C{run} again.
        """
        worker = MemoryWorker()
        handled = self.spyOn(TaskHandler, "__call__")
        run = self.spyOn(worker, "run")
        q = TaskQueue(worker, reactor=Clock())
        d = q.call(same, 5, retries=1)
        worker.lose(WorkerLost("it has gone"))
        worker.step()
        self.assertEqual(self.successResultOf(d), 5)
        self.assertEqual(len(handled), 2)
        self.assertEqual(run, handled)


@implementer(IWorker)
class Plain:
    """A worker with what L{IWorker} asks for, and no more."""

    cQualified: list[Any] = []  # noqa: RUF012 - IWorker has it so

    def __init__(self) -> None:
        self.iQualified: list[Any] = []
        self.tasks: list[Any] = []

    def setResignator(self, callableObject: Any) -> None:
        """Take what resigns."""

    def run(self, task: Any) -> Deferred[None]:
        """Take a task."""
        ready: Deferred[None] = Deferred()
        self.tasks.append((task, ready))
        return ready

    def stop(self) -> Deferred[None]:
        """Stop."""
        return Deferred()

    def crash(self) -> list[Any]:
        """Give up."""
        return [task for task, _ in self.tasks]


class PlainTests(SynchronousTestCase):
    """Tests with the plainest worker that L{IWorker} allows."""

    def test_ID(self) -> None:
        """The handler gives it its attributes."""
        worker: Any = Plain()
        handler = TaskHandler(reactor=Clock())
        handler.hire(worker)
        self.assertEqual((worker.ID, worker.hired), (1, True))
        [request] = worker.assignments[None]
        self.assertIsInstance(request, Deferred)

    def test_readyBeforeResult(self) -> None:
        """It's given the next task when it says so, which may be before the result."""
        worker = Plain()
        q = TaskQueue(worker, reactor=Clock())
        results = [q.call(same, n) for n in range(2)]
        [(first, ready)] = worker.tasks
        ready.callback(None)
        self.assertNoResult(results[0])
        self.assertEqual(len(worker.tasks), 2)
        first.callback((b"r", "late"))
        self.assertEqual(self.successResultOf(results[0]), "late")

    def test_firesItsDeferred(self) -> None:
        """It may fire the task's own Deferred with the status and the result."""
        worker = Plain()
        q = TaskQueue(worker, reactor=Clock())
        d = q.call(same)
        worker.tasks[0][0].d.callback((b"r", 7))
        self.assertEqual(self.successResultOf(d), 7)
