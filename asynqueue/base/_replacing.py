"""Workers in place of those that are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import WorkerStartError
from ..interfaces import IReplaceableWorker
from ..tasks import Task, TaskHandler
from ._watching import Watcher

__all__ = ["Replacing"]


class Replacing:
    """
    Hires a worker in place of each that has gone and names another.

    @ivar unreplaced: Lost workers that were not replaced since there was no use in
        trying, and that may name another if they are asked again.

    @ivar onSettled: Called when tasks have failed that nobody could run. C{None} for
        nobody.
    """

    # _givenUp are workers that there's to be no other for, and why, until the reactor's
    # next turn, for which _settling is.

    def __init__(
        self,
        handler: TaskHandler,
        watcher: Watcher,
        reactor: IReactorTime | None,
    ) -> None:
        self.unreplaced: list[Any] = []
        self.onSettled: Callable[[], object] | None = None
        self._handler = handler
        self._watcher = watcher
        self._givenUp: list[tuple[Any, Failure]] = []
        self._settling: IDelayedCall | None = None
        self._reactor = reactor

    def replace(self, worker: Any) -> None:
        """Hire a worker in place of one, if it names another."""
        isDismissed = getattr(worker, "isDismissed", False)
        if isDismissed or not IReplaceableWorker.providedBy(worker):
            return
        self._hire(worker, worker.replacement, known=False)

    def giveUp(self, worker: Any, failure: Failure) -> None:
        """
        Fail the tasks that only a certain worker could have run, in the reactor's next
        turn: it may be about to give some back, and calls may be made because of that.
        """
        self._givenUp.append((worker, failure))
        if self._settling is None:
            reactor = orGlobalReactor(self._reactor)
            self._settling = reactor.callLater(0, self._settle)

    def settle(self) -> None:
        """Fail now what is to fail in the next turn."""
        if self._settling is not None:
            self._settling.cancel()
            self._settle()

    def retry(self) -> None:
        """
        Hire workers in place of those that were not replaced: there may be some use in
        it now.
        """
        workers, self.unreplaced = self.unreplaced, []
        for worker in workers:
            self._hire(worker, worker.retryReplacement, known=True)

    def _settle(self) -> None:
        self._settling = None
        givenUp, self._givenUp = self._givenUp, []
        self.unreplaced += [
            worker for worker, _ in givenUp if IReplaceableWorker.providedBy(worker)
        ]
        waiting = self._handler.assignmentFactory.backlog.series()
        if not all(map(self._handler.roster, waiting)):
            _, failure = givenUp[0]
            for task in self._handler.withdraw(self._isUnserved):
                task.errback(failure)
        if self.onSettled is not None:
            self.onSettled()

    def _hire(self, worker: Any, make: Callable[[], Any], known: bool) -> None:
        """
        Hire what is made in place of a worker, unless that's C{None}. It may be known
        that none could be started.
        """
        try:
            replacement = make()
            if replacement is not None:
                # If it can't be put to work, that is logged, and giveUp called.
                self._handler.hire(replacement).addErrback(lambda _: None)
                self._watcher.noteReplaced(worker)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            failure = Failure()
            if not (known and failure.check(WorkerStartError)):
                text = "{worker} is lost and isn't replaced"
                log.failure(text, failure, worker=worker)
            self.giveUp(worker, failure)

    def _isUnserved(self, task: Task) -> bool:
        return not self._handler.roster(task.series)
