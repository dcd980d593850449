"""
Workers in place of those that are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from .._support.log import log
from ..interfaces import IReplaceableWorker
from ..tasks import Task, TaskHandler
from ._watching import Watcher

__all__ = ["Replacing"]


class Replacing:
    """
    Hires a worker in place of each that has gone and names another.

    @ivar unreplaced: Lost workers that were not replaced since there was no use in
        trying, and that may name another if they are asked again.
    """

    def __init__(self, handler: TaskHandler, watcher: Watcher) -> None:
        self._handler = handler
        self._watcher = watcher
        self.unreplaced: list[Any] = []

    def replace(self, worker: Any) -> None:
        """
        Hire a worker in place of one, if it names another.
        """
        isDismissed = getattr(worker, "isDismissed", False)
        if isDismissed or not IReplaceableWorker.providedBy(worker):
            return
        self._hire(worker, worker.replacement)

    def giveUp(self, worker: Any, failure: Failure) -> None:
        """
        Fail the tasks that only a certain worker could have run.
        """
        if IReplaceableWorker.providedBy(worker):
            self.unreplaced.append(worker)
        for task in self._handler.withdraw(self._isUnserved):
            task.errback(failure)

    def retry(self) -> None:
        """
        Hire workers in place of those that were not replaced: there may be some use in
        it now.
        """
        workers, self.unreplaced = self.unreplaced, []
        for worker in workers:
            self._hire(worker, worker.retryReplacement)

    def _hire(self, worker: Any, make: Callable[[], Any]) -> None:
        """
        Hire what is made in place of a worker, unless that's C{None}.
        """
        try:
            replacement = make()
            if replacement is not None:
                # If it can't be put to work, that is logged, and giveUp called.
                self._handler.hire(replacement).addErrback(lambda _: None)
                self._watcher.noteReplaced(worker)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            failure = Failure()
            log.failure("{worker} is lost and isn't replaced", failure, worker=worker)
            self.giveUp(worker, failure)

    def _isUnserved(self, task: Task) -> bool:
        return not self._handler.roster(task.series)
