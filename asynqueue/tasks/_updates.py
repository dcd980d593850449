"""
Calls that each worker makes before it gets tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .._child.status import Status
from .._support.log import log
from ._task import Task

__all__ = ["UpdateResult", "Updates"]

_STATUSES = frozenset(status.value for status in Status)


@frozen
class UpdateResult:
    """
    What has become of an update on one worker.

    @ivar value: The result, or text about the failure.

    @ivar failed: Whether it has failed.
    """

    value: Any
    failed: bool = False


class Updates:
    """
    The updates that are stored for workers to come, and the running of them.
    """

    # _running has the copies that are with a worker. Each was meant for that worker
    # alone, so none is ever given to another.

    def __init__(self, runDirectly: Callable[[Any, Task], object]) -> None:
        self.stored: list[Task] = []
        self._running: set[Task] = set()
        self._runDirectly = runDirectly

    def isRunning(self, task: Task) -> bool:
        """
        Whether a task is an update that a worker is running.
        """
        return task in self._running

    def run(self, worker: Any, task: Task) -> Deferred[UpdateResult]:
        """
        Run a copy of an update on a worker. The Deferred doesn't fail.
        """
        copy = task.copy()
        copy.isLasting = task in self.stored
        self._running.add(copy)
        d = copy.d.addBoth(self._ended, copy)
        self._runDirectly(worker, copy)
        return d.addCallbacks(_resultOf, _resultOfFailure)

    async def apply(
        self, worker: Any, tasks: Iterable[Task], series: Iterable[Hashable]
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

    def _ended(self, result: Any, copy: Task) -> Any:
        self._running.discard(copy)
        return result


def _resultOf(result: Any) -> UpdateResult:
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


def _resultOfFailure(failure: Failure) -> UpdateResult:
    text = failure.getErrorMessage() or type(failure.value).__name__
    return UpdateResult(text, True)
