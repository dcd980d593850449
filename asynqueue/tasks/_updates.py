"""
Updates, which are calls that each worker makes before it gets tasks, and what else is
done with a worker before that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from .._child.status import Status
from .._support.log import log
from ..interfaces import IReplaceableWorker, WorkerLike
from ._requests import IEmployee
from ._task import Task

_T = TypeVar("_T")

_STATUSES = frozenset(status.value for status in Status)


@frozen
class UpdateResult:
    """
    What has become of an update on one worker.

    @ivar value: The result, or text about the failure.

    @ivar failed: Whether it has failed.
    """

    value: object
    failed: bool = False


class Updates:
    """The updates that are stored for workers to come, and the running of them."""

    # _running has the copies that are with a worker. Each was meant for that worker
    # alone, so none is ever given to another.

    def __init__(self, runDirectly: Callable[[IEmployee, Task], object]) -> None:
        self.stored: list[Task] = []
        self._running: set[Task] = set()
        self._runDirectly = runDirectly

    def isRunning(self, task: Task) -> bool:
        """Whether a task is an update that a worker is running."""
        return task in self._running

    def run(self, worker: IEmployee, task: Task) -> Deferred[UpdateResult]:
        """Run a copy of an update on a worker. The Deferred doesn't fail."""
        copy = task.copy()
        copy.isLasting = task in self.stored
        self._running.add(copy)
        d: Deferred[object] = copy.d.addBoth(self._ended, copy)
        self._runDirectly(worker, copy)
        return d.addCallbacks(_resultOf, _resultOfFailure)

    async def apply(
        self, worker: IEmployee, tasks: Iterable[Task], series: Iterable[Hashable]
    ) -> str | None:
        """
        Run those updates on a worker that are of some series, all at once.

        @return: Text about one that has failed, C{None} if all have gone well.
        """
        started = [
            self.run(worker, task)
            for task in list(tasks)
            if task.series in series and worker.hired
        ]
        failure: str | None = None
        for result in [await d for d in started]:
            if result.failed:
                failure = str(result.value)
                log.error(
                    "A stored update failed on {worker}: {text}",
                    worker=worker,
                    text=failure,
                )
        return failure

    def _ended(self, result: _T, copy: Task) -> _T:
        self._running.discard(copy)
        return result


def _resultOf(result: object) -> UpdateResult:
    """
    Make the result of an update of what its task's Deferred has fired with: a status
    and a result, unless a callback has made something else of them.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        return UpdateResult(result)
    status, value = result
    if not isinstance(status, bytes) or bytes(status) not in _STATUSES:
        return UpdateResult(result)
    if status == Status.NONE:
        return UpdateResult(None)
    if status == Status.DISCONNECTED:
        return UpdateResult("The worker went away before the update was run", True)
    return UpdateResult(value, status in (Status.ERROR, Status.TIMEOUT))


def _resultOfFailure(failure: Failure) -> UpdateResult | Failure:
    if failure.check(CancelledError):
        return failure  # The whole update has been.
    text = failure.getErrorMessage() or type(failure.value).__name__
    return UpdateResult(text, True)


def qualifications(worker: WorkerLike) -> list[Hashable]:
    """List the series that a worker is qualified for."""
    if getattr(worker, "exclusive", False):
        return list(worker.iQualified)
    return [None, *worker.cQualified, *worker.iQualified]


class _Round:
    """Updates that are being run on a worker before it requests tasks."""

    def __init__(self) -> None:
        # How many sets of updates are being run.
        self.running = 0
        # The series that it'll request tasks of.
        self.series: list[Hashable] = []
        # Text about an update that has failed.
        self.failure: str | None = None


class Preparing:
    """
    Waits until workers are ready, runs the stored updates on them, and has them request
    tasks.
    """

    # A worker that has been hired is in _connecting, with the updates meant for it
    # alone, until it's ready; and in _rounds while updates are being run.

    def __init__(
        self,
        updates: Updates,
        employs: Callable[[IEmployee], bool],
        request: Callable[[IEmployee, list[Hashable]], object],
        refused: Callable[[IEmployee, Failure], object],
    ) -> None:
        """
        @param employs: Tells whether a worker is still employed.

        @param request: Has a worker request tasks of some series.

        @param refused: Called with a worker that can't be put to work, and why.
        """
        self._updates = updates
        self._employs = employs
        self._request = request
        self._refused = refused
        self._connecting: dict[int, list[Task]] = {}
        self._rounds: dict[int, _Round] = {}

    def isConnecting(self, worker: IEmployee) -> bool:
        """Whether a worker isn't ready yet."""
        return worker.ID in self._connecting

    def addUpdate(self, task: Task) -> None:
        """Have workers that aren't ready yet run an update when they are."""
        for tasks in self._connecting.values():
            tasks.append(task)

    async def connect(self, worker: IEmployee) -> int:
        """Wait until a worker is ready, and prepare it. Returns its ID."""
        ID: int = worker.ID
        self._connecting[ID] = []
        try:
            await cast(IReplaceableWorker, worker).deferUntilReady()
        except Exception:
            del self._connecting[ID]
            if not self._employs(worker):
                return ID  # It was let go before.
            self._refused(worker, Failure())
            raise
        own = self._connecting.pop(ID)
        if not self._employs(worker):
            return ID
        updates = [*self._updates.stored, *own]
        return await self.prepare(worker, qualifications(worker), updates)

    def prepare(
        self, worker: IEmployee, series: list[Hashable], updates: list[Task]
    ) -> Deferred[int]:
        """
        Run those updates that are of some series on a worker, and then have it request
        tasks of them. Fires with its ID.
        """
        return Deferred.fromCoroutine(self._prepare(worker, series, updates))

    async def _prepare(
        self, worker: IEmployee, series: list[Hashable], updates: list[Task]
    ) -> int:
        ID: int = worker.ID
        current = self._rounds.setdefault(ID, _Round())
        current.running += 1
        current.series += series
        failure = await self._updates.apply(worker, updates, series)
        current.failure = failure or current.failure
        current.running -= 1
        if current.running:
            return ID  # It isn't ready before the last.
        del self._rounds[ID]
        try:
            if self._employs(worker) and IReplaceableWorker.providedBy(worker):
                worker.updatesApplied(current.failure)
            if self._employs(worker):
                self._request(worker, current.series)
        except Exception:  # a worker, and a factory, may be of anybody's making
            if self._employs(worker):
                self._refused(worker, Failure())
            raise
        return ID
