"""
The employer of the workers that run tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from itertools import count
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._child.status import Status
from .._support.checks import checkSeconds
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import ImplementationError, QueueRunError, WorkerLost
from ..interfaces import IPrefetchingWorker, IReplaceableWorker, IWorker
from ._assignment import AssignmentFactory
from ._task import Task

__all__ = ["TaskHandler"]


_T = TypeVar("_T")

_STATUSES = frozenset(status.value for status in Status)


class _Departure:
    """
    A worker that is being let go.

    @ivar worker: The worker.

    @ivar reassign: Whether its unfinished tasks are given to others.

    @ivar crashed: Whether it has been crashed, and is only waited for.

    @ivar d: Fires with the unfinished tasks once the worker has gone.

    @ivar timer: What crashes it if it takes too long, or C{None}.
    """

    __slots__ = ("crashed", "d", "reassign", "timer", "worker")

    def __init__(self, worker: Any, reassign: bool) -> None:
        self.crashed = False
        self.worker = worker
        self.reassign = reassign
        self.d: Deferred[list[Task]] = Deferred()
        self.timer: IDelayedCall | None = None


class _Settling:
    """
    A worker on which updates are being run before it gets tasks.

    @ivar worker: The worker.

    @ivar ID: Its ID.

    @ivar rounds: How many sets of updates are being run.

    @ivar series: The series that it'll request tasks of.

    @ivar failure: Text about an update that has failed, C{None} if none has.
    """

    __slots__ = ("ID", "failure", "rounds", "series", "worker")

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.ID: int = worker.ID
        self.rounds = 0
        self.series: list[Hashable] = []
        self.failure: str | None = None


@frozen
class _Outcome:
    """
    What has become of an update on one worker.

    @ivar value: The result, or text about the failure.

    @ivar failed: Whether it has failed.
    """

    value: Any
    failed: bool = False


class TaskHandler:
    """
    The handler of a queue of tasks, and the employer of workers.

    A worker that is hired requests tasks of each series that it's qualified for; when
    a task meets a request, the worker accepts it, runs it, and is in line again when
    it's ready. Whatever is accepted from a worker that goes away is either finished,
    given to another, or in the list of those left unfinished.

    @ivar workers: A dict of the workers that are employed now, by unique integer ID.
        IDs count up from 1 and are never used again.

    @ivar isRunning: C{False} once the handler has been shut down.

    @ivar assignmentFactory: Where tasks and requests meet.

    @ivar onGone: Called with a worker that has resigned, after it has been crashed
        and its tasks have been given to others; or that is being let go because it has
        asked to be replaced. C{None} for nobody.

    @ivar onRefused: Called with a worker that was hired and could not be connected, and
        with the failure. C{None} for nobody.
    """

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        """
        Make a handler without workers.

        @param reactor: What keeps the time. By default, the global reactor.
        """
        self.workers: dict[int, Any] = {}
        self.isRunning = True
        self.assignmentFactory = AssignmentFactory(reactor=reactor)
        self.onGone: Callable[[Any], object] | None = None
        self.onRefused: Callable[[Any, Failure], object] | None = None
        self._updates: list[Task] = []
        self._updating: set[Task] = set()
        self._connecting: set[int] = set()
        self._settling: dict[int, _Settling] = {}
        self._departures: dict[int, _Departure] = {}
        self._dying: set[Deferred[None]] = set()
        self._numbers = count(1)
        self._reactor = reactor

    def __call__(self, task: Task) -> Deferred[Any]:
        """
        Give a task to whichever qualified worker is ready first.

        @param task: The task.

        @return: A Deferred that fires with the worker once it has accepted the task.

        @raise QueueRunError: If the handler has been shut down.
        """
        self._checkRunning(task)
        return self.assignmentFactory.new(task)

    def hire(self, worker: IWorker) -> Deferred[int]:
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

        @raise ImplementationError: If it doesn't provide L{IWorker}, or is employed
            already, here or elsewhere.

        @raise InvariantError: If it lacks its lists of qualifications.

        @raise TypeError: If one of the series isn't hashable.

        @raise QueueRunError: If the handler has been shut down.
        """
        self._checkRunning(worker)
        self._inspect(worker)
        employee: Any = worker
        employee.ID = next(self._numbers)
        employee.hired = True
        employee.assignments = {}
        self.workers[employee.ID] = employee
        employee.setResignator(partial(self._resigned, employee.ID))
        if IPrefetchingWorker.providedBy(worker):
            employee.backlogPerWorker = self._demand
            employee.batch = self.assignmentFactory.batch
        if IReplaceableWorker.providedBy(worker):
            employee.setRecycler(partial(self._renew, employee.ID))
            self._connecting.add(employee.ID)
            ready: Deferred[Any] = employee.deferUntilReady()
            return ready.addCallbacks(
                self._connected,
                self._notConnected,
                callbackArgs=(employee,),
                errbackArgs=(employee,),
            )
        return self._bringUpToDate(
            employee, self._qualifications(employee), self._updates
        )

    def terminate(
        self,
        workerID: int,
        timeout: float | None = None,
        crash: bool = False,
        reassign: bool = False,
    ) -> Deferred[list[Task]]:
        """
        Let a worker go. Its requests are withdrawn at once, and it's told to stop.

        @param workerID: The worker's ID. Nothing happens if there's no such worker.

        @param timeout: Seconds after which the worker is crashed if it hasn't
            stopped. C{None} to wait as long as it takes.

        @param crash: C{True} to crash it right away.

        @param reassign: C{True} to give the tasks that it leaves unfinished to other
            workers, present or future.

        @return: A Deferred that fires when the worker has gone, with a list of the
            tasks left unfinished and not reassigned. The same for a worker that is
            being let go already, which C{crash} hurries.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        worker = self.workers.pop(workerID, None)
        if worker is None:
            return self._awaitDeparture(workerID, crash)
        self._dismiss(worker)
        departure = self._departures[workerID] = _Departure(worker, reassign)
        if crash:
            return self._awaitDeparture(workerID, crash)
        self._hurry(departure, workerID, timeout)
        left = _watch(departure.d)
        maybeDeferred(worker.stop).addCallbacks(
            self._stopped,
            self._failedToStop,
            callbackArgs=(workerID,),
            errbackArgs=(workerID,),
        )
        return left

    def roster(self, series: Hashable = None) -> list[Any]:
        """
        List the workers who are qualified for a series.

        @param series: The series. All workers are qualified for C{None}.

        @return: The workers, in the order in which they were hired.
        """
        return [
            worker
            for worker in self.workers.values()
            if series is None or series in self._qualifications(worker)
        ]

    def idOf(self, workerOrID: Any) -> int:
        """
        Find the ID of a worker that is employed here, or is being let go.

        @param workerOrID: The worker, or its ID.

        @return: Its ID; C{0}, which no worker has, for a worker of somebody else.
        """
        if isinstance(workerOrID, int):
            return workerOrID
        ID: int = getattr(workerOrID, "ID", None) or 0
        departure = self._departures.get(ID)
        employed = self.workers.get(ID) if departure is None else departure.worker
        return ID if employed is workerOrID else 0

    def employs(self, worker: Any) -> bool:
        """
        Tell whether a worker is employed here.

        @param worker: The worker.

        @return: C{False} for those of others, and those that are being let go.
        """
        return self.workers.get(getattr(worker, "ID", None)) is worker  # type: ignore[arg-type]

    def qualify(self, worker: Any, series: Hashable) -> None:
        """
        Have an employed worker run tasks of one more series, once the stored updates
        of that series have been run on it.

        @param worker: The worker.

        @param series: The series.

        @raise TypeError: If it isn't hashable.
        """
        _checkHashable(series)
        new = series not in self._qualifications(worker)
        if new:
            worker.iQualified = [*worker.iQualified, series]
        if self.employs(worker):
            self._bringUpToDate(worker, [series], self._updates if new else [])

    def update(
        self, task: Task, ephemeral: bool = False, sequential: bool = False
    ) -> Deferred[list[Any]]:
        """
        Run a copy of a task directly on each worker who is qualified for it.

        @param task: The task.

        @param ephemeral: C{True} not to save it for those who are hired later.

        @param sequential: C{True} to run it on one worker after the other, not on all
            at once.

        @return: A Deferred that fires when all have run it, with a list of the
            results in the order of the L{roster}. Where it failed, the result is text
            about the failure.
        """
        if not ephemeral:
            self._updates.append(task)
        workers = [
            worker
            for worker in self.roster(task.series)
            # Those get it when they're connected.
            if worker.ID not in self._connecting
        ]
        if sequential:
            return Deferred.fromCoroutine(self._updateInTurn(workers, task))
        results = [self._runUpdate(worker, task) for worker in workers]
        return DeferredList(results).addCallback(
            lambda pairs: [outcome.value for _, outcome in pairs]
        )

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
        self._updates.clear()
        unfinished = self.assignmentFactory.withdrawTasks(lambda task: True)
        for workerID, departure in self._departures.items():
            self._hurry(departure, workerID, timeout)
        for workerID in list(self.workers):
            self.terminate(workerID, timeout)
        watched = [_watch(departure.d) for departure in self._departures.values()]
        return Deferred.fromCoroutine(self._seeOff(watched, unfinished))

    def enqueue(self, task: Task) -> None:
        """
        Take a task, without telling anybody when it's accepted.

        @param task: The task.
        """
        self.assignmentFactory.add(task)

    def withdraw(self, selector: Callable[[Task], bool]) -> list[Task]:
        """
        Take out waiting tasks that no worker has accepted.

        @param selector: Called with each waiting task; true to take it out.

        @return: The tasks, in their order.
        """
        return self.assignmentFactory.withdrawTasks(selector)

    @property
    def waiting(self) -> int:
        """
        The number of tasks that no worker has accepted.
        """
        return len(self.assignmentFactory.backlog)

    def _demand(self) -> int:
        """
        Tell how many tasks wait for each worker.

        @return: The number.
        """
        return len(self.assignmentFactory.backlog) // (len(self.workers) or 1)

    def _inspect(self, worker: Any) -> None:
        """
        Check that a worker can be employed.

        @param worker: The worker.

        @raise ImplementationError: See L{hire}.

        @raise InvariantError: See L{hire}.

        @raise TypeError: See L{hire}.
        """
        if not IWorker.providedBy(worker):
            raise ImplementationError(
                f"{worker!r} doesn't provide IWorker: is its class marked with"
                " @implementer(IWorker)?"
            )
        IWorker.validateInvariants(worker)
        for series in (*worker.cQualified, *worker.iQualified):
            _checkHashable(series)
        if getattr(worker, "hired", False) is True or any(
            worker is departure.worker for departure in self._departures.values()
        ):
            raise ImplementationError(
                f"{worker!r} is employed already: detach it, and wait until it has"
                " gone, before it's hired again"
            )

    def _checkRunning(self, candidate: Any) -> None:
        """
        Check that the handler takes workers and tasks.

        @param candidate: Who or what is to be taken.

        @raise QueueRunError: If it doesn't any longer.
        """
        if not self.isRunning:
            raise QueueRunError(
                f"This handler has been shut down and can't take {candidate!r}"
            )

    def _qualifications(self, worker: Any) -> list[Hashable]:
        """
        List the series that a worker is qualified for.

        @param worker: The worker.

        @return: The series.
        """
        return [None, *worker.cQualified, *worker.iQualified]

    def _connected(self, _: object, worker: Any) -> int | Deferred[int]:
        """
        Bring a worker up to date that has been connected, unless it's been let go.

        @param _: Nothing.

        @param worker: The worker.

        @return: Its ID, or a Deferred that fires with it.
        """
        ID: int = worker.ID
        self._connecting.discard(ID)
        if ID not in self.workers:
            return ID
        return self._bringUpToDate(worker, self._qualifications(worker), self._updates)

    def _notConnected(self, failure: Failure, worker: Any) -> int | Failure:
        """
        Let go of a worker that can't be connected.

        @param failure: Why.

        @param worker: The worker.

        @return: The failure, or the worker's ID if it has been let go before.
        """
        ID: int = worker.ID
        self._connecting.discard(ID)
        if self.workers.pop(ID, None) is None:
            return ID
        self._dismiss(worker)
        log.error(
            "{worker} can't be put to work: {text}",
            worker=worker,
            text=failure.getErrorMessage(),
        )
        if self.onRefused is not None:
            self.onRefused(worker, failure)
        return failure

    def _bringUpToDate(
        self, worker: Any, seriesList: list[Hashable], updates: list[Task]
    ) -> Deferred[int]:
        """
        Run updates on a worker, and then have it request tasks.

        @param worker: The worker.

        @param seriesList: The series that it's to request tasks of.

        @param updates: Updates, of which those of other series are left out.

        @return: A Deferred that fires with its ID when that is done.
        """
        settling = self._settling.setdefault(worker.ID, _Settling(worker))
        settling.rounds += 1
        settling.series += seriesList
        outcomes = [
            self._runUpdate(worker, task)
            for task in updates
            if task.series in seriesList and worker.hired
        ]
        if not outcomes:
            return succeed(self._settled([], settling))
        return DeferredList(outcomes).addCallback(self._settled, settling)

    def _settled(
        self, outcomes: list[tuple[bool, _Outcome]], settling: _Settling
    ) -> int:
        """
        Enter the requests of a worker that has been brought up to date.

        @param outcomes: What has become of the updates.

        @param settling: What is known of the worker.

        @return: Its ID.
        """
        worker = settling.worker
        for _, outcome in outcomes:
            if outcome.failed:
                log.error(
                    "A stored update failed on {worker}: {text}",
                    worker=worker,
                    text=outcome.value,
                )
                settling.failure = str(outcome.value)
        settling.rounds -= 1
        if not settling.rounds:
            self._settling.pop(settling.ID, None)
            if settling.ID in self.workers and IReplaceableWorker.providedBy(worker):
                worker.updatesApplied(settling.failure)
            if settling.ID in self.workers:
                self.assignmentFactory.requestAll(worker, settling.series)
        return settling.ID

    def _runUpdate(self, worker: Any, task: Task) -> Deferred[_Outcome]:
        """
        Run a copy of an update on a worker.

        @param worker: The worker.

        @param task: The update.

        @return: A Deferred that fires with what has become of it.
        """
        copy = task.copy()
        self._updating.add(copy)
        d = copy.d.addBoth(self._updated, copy)
        d.addCallbacks(_outcomeOf, _outcomeOfFailure)
        self.assignmentFactory.runDirectly(worker, copy)
        return d

    def _updated(self, result: Any, copy: Task) -> Any:
        """
        Note that an update has been run, or has failed.

        @param result: Its result.

        @param copy: The task.

        @return: The result.
        """
        self._updating.discard(copy)
        return result

    async def _updateInTurn(self, workers: list[Any], task: Task) -> list[Any]:
        """
        Run copies of an update on one worker after the other.

        @param workers: The workers.

        @param task: The update.

        @return: The results, of those workers that were still employed.
        """
        return [
            (await self._runUpdate(worker, task)).value
            for worker in workers
            if self.employs(worker)
        ]

    def _dismiss(self, worker: Any) -> None:
        """
        Have a worker get no more tasks.

        @param worker: The worker.
        """
        worker.hired = False
        self.assignmentFactory.cancelRequests(worker)

    def _resigned(self, workerID: int) -> None:
        """
        Let go of a worker that says that it can't work any longer.

        @param workerID: Its ID.
        """
        if workerID in self._departures:
            self._crash(workerID)
            return
        worker = self.workers.pop(workerID, None)
        if worker is None:
            return
        self._dismiss(worker)
        tasks = self._crashed(worker)
        self._mourn(worker)
        for task in tasks:
            self._reassign(task)
        if self.onGone is not None:
            self.onGone(worker)

    def _renew(self, workerID: int) -> None:
        """
        Let go of a worker that asks to be replaced, when it has done what it has
        accepted.

        @param workerID: Its ID.
        """
        worker = self.workers.get(workerID)
        if worker is None or not self.isRunning:
            return
        self.terminate(workerID, reassign=True)
        if self.onGone is not None:
            self.onGone(worker)

    def _crashed(self, worker: Any) -> list[Task]:
        """
        Crash a worker.

        @param worker: The worker.

        @return: The tasks that it leaves unfinished.
        """
        try:
            return list(worker.crash() or ())
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            log.failure("{worker} failed to crash", worker=worker)
            return []

    def _awaitDeparture(self, workerID: int, crash: bool) -> Deferred[list[Task]]:
        """
        Wait until a worker that is being let go has gone.

        @param workerID: Its ID.

        @param crash: Whether to crash it.

        @return: A Deferred that fires with the tasks that it leaves unfinished, or with
            an empty list at once if there's no such worker.
        """
        departure = self._departures.get(workerID)
        if departure is None:
            return succeed([])
        d = _watch(departure.d)
        if crash:
            self._crash(workerID)
        return d

    def _hurry(
        self, departure: _Departure, workerID: int, timeout: float | None
    ) -> None:
        """
        Have a worker that is being let go crashed after some time, unless that is to
        be sooner already.

        @param departure: What is known of that.

        @param workerID: The worker's ID.

        @param timeout: Seconds, C{None} for as long as it takes.
        """
        if timeout is None or departure.crashed:
            return
        reactor = orGlobalReactor(self._reactor)
        timer = departure.timer
        if timer is not None and timer.active():
            if timer.getTime() <= reactor.seconds() + timeout:
                return
            timer.cancel()
        departure.timer = reactor.callLater(timeout, self._crash, workerID)

    def _stopped(self, _: object, workerID: int) -> None:
        """
        Note that a worker has stopped, unless it has been crashed in the meantime.

        @param _: Nothing.

        @param workerID: The worker's ID.
        """
        departure = self._departures.get(workerID)
        if departure is not None and not departure.crashed:
            self._departed(workerID, [])

    def _failedToStop(self, failure: Failure, workerID: int) -> None:
        """
        Crash a worker whose C{stop} failed.

        @param failure: How it failed.

        @param workerID: The worker's ID.
        """
        log.failure("A worker failed to stop, and is crashed", failure)
        self._crash(workerID)

    def _crash(self, workerID: int) -> None:
        """
        Crash a worker that is being let go.

        @param workerID: The worker's ID.
        """
        departure = self._departures.get(workerID)
        if departure is None or departure.crashed:
            return
        departure.crashed = True
        worker = departure.worker
        tasks = self._crashed(worker)
        if IReplaceableWorker.providedBy(worker):
            worker.deferUntilGone().addCallback(
                lambda _: self._departed(workerID, tasks)
            )
        else:
            self._departed(workerID, tasks)

    def _departed(self, workerID: int, tasks: list[Task]) -> None:
        """
        Note that a worker has gone.

        @param workerID: The worker's ID.

        @param tasks: The tasks that it left unfinished.
        """
        departure = self._departures.pop(workerID, None)
        if departure is None:
            return
        if departure.timer is not None and departure.timer.active():
            departure.timer.cancel()
        moved = departure.reassign and self.isRunning
        # Updates were meant for that worker alone, and are nobody's unfinished tasks.
        settled = [task for task in tasks if moved or task in self._updating]
        unfinished = [task for task in tasks if task not in settled]
        for task in settled:
            self._reassign(task)
        departure.d.callback(unfinished)

    def _reassign(self, task: Task) -> None:
        """
        Give a task that a worker has left unfinished to another.

        @param task: The task.
        """
        if task.settled:
            return
        task.stopTimer()
        task.accepted = False
        task.holder = None
        if task in self._updating:
            # It was meant for that worker alone.
            task.errback(WorkerLost("The worker was lost before the update", task=task))
        elif self.isRunning:
            self.enqueue(task)
        else:
            task.callback((Status.DISCONNECTED, None))

    def _mourn(self, worker: Any) -> None:
        """
        Have the shutdown wait until nothing is left of a worker that has been crashed.

        @param worker: The worker.
        """
        if IReplaceableWorker.providedBy(worker):
            d = worker.deferUntilGone()
            if not d.called:
                self._dying.add(d)
                d.addCallback(lambda _: self._dying.discard(d))

    async def _seeOff(
        self, departures: list[Deferred[list[Task]]], unfinished: list[Task]
    ) -> list[Task]:
        """
        Wait until all workers have gone.

        @param departures: Deferreds that fire when each has, with the tasks that it
            leaves unfinished.

        @param unfinished: The tasks that no worker had accepted.

        @return: All unfinished tasks.
        """
        for departure in departures:
            unfinished += await departure
        for dying in list(self._dying):
            await _watch(dying)
        self.assignmentFactory.stop()
        unfinished += self.assignmentFactory.withdrawTasks(lambda task: True)
        return unfinished


def _checkHashable(series: Any) -> None:
    """
    Check that a series can be one.

    @param series: The series.

    @raise TypeError: If it isn't hashable.
    """
    try:
        hash(series)
    except TypeError as error:
        raise TypeError(
            f"A series must be hashable, and {series!r} isn't: use a string, a number,"
            " or a tuple of such"
        ) from error


def _watch(d: Deferred[_T]) -> Deferred[_T]:
    """
    Make a Deferred that fires with what another one fires with, and leaves it alone.

    @param d: The other one, which doesn't fail.

    @return: The new one.
    """
    watcher: Deferred[_T] = Deferred()

    def passOn(result: _T) -> _T:
        watcher.callback(result)
        return result

    d.addCallback(passOn)
    return watcher


def _outcomeOf(result: Any) -> _Outcome:
    """
    Make of the result of an update's task what the caller gets.

    @param result: A status/result pair, unless a callback of the task has made
        something else of it.

    @return: The outcome.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        return _Outcome(result)
    status, value = result
    if not isinstance(status, bytes) or bytes(status) not in _STATUSES:
        return _Outcome(result)
    if status == Status.NONE:
        return _Outcome(None)
    if status == Status.DISCONNECTED:
        return _Outcome("The worker went away before the update was run", True)
    return _Outcome(value, status in (Status.ERROR, Status.TIMEOUT))


def _outcomeOfFailure(failure: Failure) -> _Outcome:
    """
    Describe the failure of an update's task.

    @param failure: The failure.

    @return: The outcome.
    """
    return _Outcome(failure.getErrorMessage() or type(failure.value).__name__, True)
