"""The employer of the workers that run tasks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._child.status import Status
from .._support.checks import checkHashable, checkSeconds
from .._support.log import log
from ..errors import ImplementationError, QueueRunError, WorkerLost
from ..events import EventKind
from ..interfaces import IPrefetchingWorker, IReplaceableWorker, IWorker, WorkerLike
from ._assignment import AssignmentFactory
from ._requests import IEmployee
from ._task import Task
from ._termination import Termination, crashWorker, waitUntilGone
from ._updates import Preparing, Updates, qualifications


class TaskHandler:
    """
    The handler of a queue of tasks, and the employer of workers.

    A worker that is hired requests tasks of each series that it's qualified for, by
    L{AssignmentFactory.request}. When it gets an L{Assignment}, it fires the
    assignment's Deferred with itself, runs the task, and requests another of the same
    series when it's ready, unless it has been let go. Its outstanding requests are the
    Deferreds in its C{assignments}; letting it go fires them without a task. What it
    had accepted is then either finished, given to another worker, or in the list of
    those left unfinished.

    @ivar workers: A dict of the workers that are employed now, by unique integer ID.
        IDs count up from 1 and are never used again.

    @ivar isRunning: C{False} once the handler has been shut down.

    @ivar onGone: Called with a worker that has resigned, after it has been crashed
        and its tasks have been given to others; or that is being let go because it has
        asked to be replaced. C{None} for nobody.

    @ivar onRefused: Called with a worker that was hired and could not be put to work,
        and with the failure. C{None} for nobody.

    @ivar onEvent: Called with an L{EventKind<asynqueue.events.EventKind>}, and with the
        keyword C{worker} or C{series}. C{None} for nobody.
    """

    # A worker is in workers from hire to terminate or its resignation, then in
    # _terminations until it has gone, if it was told to stop. One that was crashed
    # outright has a Deferred in _exiting until nothing is left of it.

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        """@param reactor: The clock. By default, the global reactor."""
        self.workers: dict[int, Any] = {}
        self.isRunning = True
        self._factory = AssignmentFactory(reactor=reactor)
        self.onGone: Callable[[Any], object] | None = None
        self.onRefused: Callable[[Any, Failure], object] | None = None
        self.onEvent: Callable[..., object] | None = None
        self._updates = Updates(
            lambda worker, task: self._factory.runDirectly(worker, task)
        )
        self._preparing = Preparing(
            self._updates, self._employs, self._request, self._refused
        )
        self._terminations: dict[int, Termination] = {}
        self._exiting: set[Deferred[object]] = set()
        # Series that were warned of since nobody serves them.
        self._unserved: set[Hashable] = set()
        self._numbers = count(1)
        self._reactor = reactor

    @property
    def assignmentFactory(self) -> AssignmentFactory:
        """
        Where tasks and requests meet. Another one can be set before workers are hired
        and tasks are given.

        @raise RuntimeError: If it's set later.
        """
        return self._factory

    @assignmentFactory.setter
    def assignmentFactory(self, factory: AssignmentFactory) -> None:
        backlog = self._factory.backlog
        if self.workers or backlog.size:
            raise RuntimeError(
                "Another assignmentFactory can be set only before workers are hired and"
                " tasks are given, which the one that is there knows of"
            )
        factory.backlog.gate = backlog.gate
        factory.backlog.onShrink = backlog.onShrink
        self._factory = factory

    def __call__(self, task: Task) -> Deferred[Any]:
        """
        Give a task to whichever qualified worker is ready first.

        @param task: The task.

        @return: A Deferred that fires with the worker once it has accepted the task;
            with C{None} if it's cancelled, or the handler shut down, before that.

        @raise QueueRunError: If the handler has been shut down.
        """
        if not self.isRunning:
            self._refuse(task)
        isUnserved = task.series not in self._factory.requests
        accepting = self._factory.new(task)
        if isUnserved:
            self._warnIfUnserved(task.series)
        return accepting

    def hire(self, worker: IWorker | WorkerLike) -> Deferred[int]:
        """
        Employ a worker.

        The stored updates that it's qualified for are run on it first; then it
        requests tasks of each of its series: C{None}, those of its class, its own.
        Should an update fail, that's logged, and the worker gets tasks all the same,
        unless it provides L{IReplaceableWorker} and prefers to resign.

        A worker that provides L{IReplaceableWorker} is waited for until it's ready.

        @param worker: The worker.

        @return: A Deferred that fires with the worker's ID when it is ready for
            assignments, or is let go before. The same number is the worker's attribute
            C{ID}. It fails if the worker can't be connected.

        @raise ImplementationError: If it doesn't provide L{IWorker}, is employed
            already, here or elsewhere, or has been stopped for good.

        @raise InvariantError: If it lacks its lists of qualifications.

        @raise TypeError: If one of the series isn't hashable.

        @raise QueueRunError: If the handler has been shut down.
        """
        if not self.isRunning:
            self._refuse(worker)
        self._validate(worker)
        employee = cast(IEmployee, worker)
        ID = employee.ID = next(self._numbers)
        employee.hired = True
        employee.assignments = {}
        self.workers[ID] = employee
        employee.setResignator(partial(self._resigned, ID))
        if IPrefetchingWorker.providedBy(employee):
            employee.backlogPerWorker = self._backlogPerWorker
            employee.batch = self._factory.batch
        if not IReplaceableWorker.providedBy(employee):
            return self._preparing.prepare(
                employee, qualifications(employee), self._updates.stored
            )
        employee.setRecycler(partial(self._recycle, ID))
        return Deferred.fromCoroutine(self._preparing.connect(employee))

    def terminate(
        self,
        workerID: int,
        timeout: float | None = None,
        crash: bool = False,
        reassign: bool = False,
    ) -> Deferred[list[Task]]:
        """
        Let a worker go. Its requests are withdrawn at once, by firing their Deferreds
        without a task, and it's told to stop.

        @param workerID: The worker's ID. Nothing happens if there's no such worker.

        @param timeout: Seconds after which the worker is crashed if it hasn't
            stopped. C{None} to wait as long as it takes.

        @param crash: C{True} to crash it right away.

        @param reassign: C{True} to give the tasks that it leaves unfinished to other
            workers, present or future.

        @return: A Deferred that fires when the worker has gone, with a list of the
            tasks left unfinished and not reassigned. The same for a worker that is
            being let go already, which C{timeout} and C{crash} hurry.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        termination = self._terminations.get(workerID)
        if termination is None:
            worker = self.workers.pop(workerID, None)
            if worker is None:
                return succeed([])
            self._unassign(worker)
            _mark(worker, isLeaving=True)
            termination = self._terminations[workerID] = Termination(
                worker, partial(self._handOver, workerID, reassign), self._reactor
            )
            if not crash:
                termination.stop()
        if crash:
            termination.crash()
        elif timeout is not None:
            termination.hurry(timeout)
        return termination.gone.wait()

    def roster(self, series: Hashable = None) -> list[Any]:
        """
        List the workers who are qualified for a series.

        @param series: The series. All workers are qualified for C{None} that aren't
            reserved for their own.

        @return: The workers, in the order in which they were hired.
        """
        return [
            worker
            for worker in self.workers.values()
            if series in qualifications(worker)
        ]

    def update(
        self, task: Task, ephemeral: bool = False, sequential: bool = False
    ) -> Deferred[list[Any]]:
        """
        Run a copy of a task directly on each worker who is qualified for it. Those who
        are still being connected run theirs when they are, and nobody hears of that.

        @param task: The task.

        @param ephemeral: C{True} not to save it for those who are hired later.

        @param sequential: C{True} to run it on one worker after the other, not on all
            at once.

        @return: A Deferred that fires when all have run it, with a list of the
            results in the order of the L{roster}. Where it failed, the result is text
            about the failure.
        """
        if ephemeral:
            self._preparing.addUpdate(task)
        else:
            self._updates.stored.append(task)
        workers = [
            worker
            for worker in self.roster(task.series)
            if not self._preparing.isConnecting(worker)
        ]
        return Deferred.fromCoroutine(self._update(workers, task, sequential))

    def shutdown(self, timeout: float | None = None) -> Deferred[list[Task]]:
        """
        Let all workers go, and take no more.

        @param timeout: Seconds after which a worker that hasn't stopped is crashed.
            C{None} to wait as long as it takes.

        @return: A Deferred that fires when all have gone, with a list of the tasks
            left unfinished: those that no worker had accepted yet, and those that
            crashed workers had accepted.
        """
        self.isRunning = False
        self._updates.stored.clear()
        unfinished = self.withdraw(lambda task: True)
        gone = [
            self.terminate(workerID, timeout)
            for workerID in [*self._terminations, *self.workers]
        ]
        return Deferred.fromCoroutine(self._awaitAll(gone, unfinished))

    # What TaskQueue needs besides.

    @property
    def waiting(self) -> int:
        """The number of tasks that no worker has accepted."""
        return self._factory.backlog.size

    def withdraw(self, selector: Callable[[Task], bool]) -> list[Task]:
        """
        Take out waiting tasks that no worker has accepted.

        @param selector: Called with each waiting task; true to take it out.

        @return: The tasks, in their order.
        """
        return self._factory.backlog.remove(selector)

    def idOf(self, workerOrID: object) -> int:
        """
        Find the ID of a worker that is employed here, or is being let go.

        @param workerOrID: The worker, or its ID.

        @return: Its ID; C{0}, which no worker has, for a worker of somebody else.
        """
        if isinstance(workerOrID, int):
            return workerOrID
        ID: int = getattr(workerOrID, "ID", None) or 0
        termination = self._terminations.get(ID)
        known = self.workers.get(ID) if termination is None else termination.worker
        return ID if known is workerOrID else 0

    def qualify(self, worker: Any, series: Hashable) -> None:
        """
        Have an employed worker run tasks of one more series, once the stored updates
        of that series have been run on it.

        @param worker: The worker.

        @param series: The series.

        @raise TypeError: If it isn't hashable.
        """
        checkHashable(series)
        isNew = series not in qualifications(worker)
        if isNew:
            worker.iQualified = [*worker.iQualified, series]
        if self._employs(worker) and not self._preparing.isConnecting(worker):
            updates = self._updates.stored if isNew else []
            self._preparing.prepare(worker, [series], updates)

    # Hiring.

    def _validate(self, worker: object) -> None:
        if not IWorker.providedBy(worker):
            raise ImplementationError(
                f"{worker!r} doesn't provide IWorker: is its class marked with"
                " @implementer(IWorker)?"
            )
        IWorker.validateInvariants(worker)
        for series in (*worker.cQualified, *worker.iQualified):
            checkHashable(series)
        isLeaving = getattr(worker, "isLeaving", False) is True
        if isLeaving or getattr(worker, "hired", False) is True:
            raise ImplementationError(
                f"{worker!r} is employed already: detach it, and wait until it has"
                " gone, before it's hired again"
            )
        if getattr(worker, "hasStopped", False) is True:
            raise ImplementationError(
                f"{worker!r} has been stopped, and can't work any longer: make another"
            )

    def _refuse(self, candidate: object) -> None:
        raise QueueRunError(
            f"This handler has been shut down and can't take {candidate!r}"
        )

    def _employs(self, worker: object) -> bool:
        return self.workers.get(getattr(worker, "ID", None) or 0) is worker

    def _backlogPerWorker(self) -> int:
        return self._factory.backlog.size // (len(self.workers) or 1)

    def _warnIfUnserved(self, series: Hashable) -> None:
        """Say once that tasks wait which no worker is qualified for."""
        if self.workers and series not in self._unserved and not self.roster(series):
            self._unserved.add(series)
            log.warn(
                "No worker is qualified for the series {series!r}: its calls wait until"
                " one is",
                series=series,
            )
            self._tell(EventKind.UNSERVED, series=series)

    def _request(self, worker: IEmployee, series: Iterable[Hashable]) -> None:
        """Have a worker request tasks of some series, before it's given any."""
        if not worker.assignments:
            self._tell(EventKind.HIRED, worker=worker)
            if not self._employs(worker):  # An observer has let it go.
                return

        def requestAll() -> None:
            for each in series:
                self._factory.request(worker, each)

        self._factory.batch(requestAll)

    def _refused(self, worker: IEmployee, failure: Failure) -> None:
        """Let go of a worker that can't be put to work."""
        del self.workers[worker.ID]
        self._drop(worker)
        log.error(
            "{worker} can't be put to work: {text}",
            worker=worker,
            text=failure.getErrorMessage(),
        )
        if self.onRefused is not None:
            self.onRefused(worker, failure)

    def _tell(self, kind: EventKind, **details: object) -> None:
        if self.onEvent is not None:
            self.onEvent(kind, **details)

    async def _update(
        self, workers: list[IEmployee], task: Task, sequential: bool
    ) -> list[object]:
        if sequential:
            return [
                (await self._updates.run(worker, task)).value
                for worker in workers
                if self._employs(worker)
            ]
        started = [self._updates.run(worker, task) for worker in workers]
        try:
            return [(await d).value for d in started]
        except CancelledError:
            for d in started:
                d.addErrback(lambda _: None).cancel()
            raise

    # Letting go.

    def _unassign(self, worker: IEmployee) -> None:
        """Have a worker get no more tasks."""
        worker.hired = False
        self._factory.cancelRequests(worker)

    def _handOver(self, workerID: int, reassign: bool, tasks: list[Task]) -> list[Task]:
        """
        Note that a worker has gone.

        @return: The tasks it leaves unfinished that aren't given to another.
        """
        _mark(self._terminations.pop(workerID).worker, isLeaving=False)
        unfinished: list[Task] = []
        for task in tasks:
            if (reassign and self.isRunning) or self._updates.isRunning(task):
                self._reassign(task)
            else:
                unfinished.append(task)
        return unfinished

    def _resigned(self, workerID: int) -> None:
        """Let go of a worker that says that it can't work any longer."""
        if workerID in self._terminations:
            self.terminate(workerID, crash=True)
            return
        worker = self.workers.pop(workerID, None)
        if worker is None:
            return
        self._drop(worker)
        self._tell(EventKind.LOST, worker=worker)
        if self.onGone is not None:
            self.onGone(worker)

    def _recycle(self, workerID: int) -> None:
        """
        Let go of a worker that asks to be replaced, when it has done what it has
        accepted.
        """
        worker = self.workers.get(workerID)
        if worker is None or not self.isRunning:
            return
        self.terminate(workerID, reassign=True)
        if self.onGone is not None:
            self.onGone(worker)

    def _drop(self, worker: IEmployee) -> None:
        """
        Crash a worker that can't work, and give its tasks to others. The shutdown waits
        until nothing is left of it.
        """
        self._unassign(worker)
        tasks = crashWorker(worker)
        gone = waitUntilGone(worker)
        if not gone.called:
            self._exiting.add(gone)
            gone.addCallback(lambda _: self._exiting.discard(gone))
        for task in tasks:
            self._reassign(task)

    def _reassign(self, task: Task) -> None:
        """Give a task that a worker has left unfinished to another."""
        if task.hasResult:
            return
        task.owner = None
        if self._updates.isRunning(task):
            # It was meant for that worker alone.
            task.errback(WorkerLost("The worker was lost before the update", task=task))
        elif self.isRunning:
            self._factory.takeBack(task)
        else:
            task.callback((Status.DISCONNECTED, None))

    async def _awaitAll(
        self, terminations: list[Deferred[list[Task]]], unfinished: list[Task]
    ) -> list[Task]:
        """
        Wait until all workers have gone.

        @return: All unfinished tasks.
        """
        for gone in terminations:
            unfinished += await gone
        while self._exiting:
            exited: Deferred[object] = Deferred()
            next(iter(self._exiting)).addCallback(exited.callback)
            await exited
        self._factory.stop()
        unfinished += self.withdraw(lambda task: True)
        return unfinished


def _mark(worker: Any, *, isLeaving: bool) -> None:
    with suppress(AttributeError):  # one of somebody else's may have slots
        worker.isLeaving = isLeaving
