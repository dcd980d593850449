"""The end of a queue."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from .._support.oneshot import OneShot
from .._support.reactor import Deadline, orGlobalReactor
from ..errors import WorkerLost
from ..events import EventKind
from ..tasks import Task, TaskHandler
from ._queue import Queue
from ._replacing import Replacing
from ._results import Results, notRun

__all__ = ["Shutdown", "failUnfinished"]


def failUnfinished(tasks: list[Task]) -> list[Task]:
    """Fail the Deferreds of tasks that were left unfinished. Returns the tasks."""
    for task in tasks:
        if task.accepted:
            text = f"The worker of {task!r} was let go before it was done"
            task.errback(WorkerLost(text, task=task))
        else:
            task.errback(notRun(task))
    return tasks


class Shutdown:
    """
    Runs what is queued, if that is wanted, and lets the workers go.

    @ivar done: Fires with the tasks left unfinished.
    """

    # _deadline is when workers that haven't stopped are crashed, None for never.
    # _drained has fired, or failed, when it's time to let the workers go.

    def __init__(
        self,
        queue: Queue,
        handler: TaskHandler,
        results: Results,
        replacing: Replacing,
        reactor: IReactorTime | None,
    ) -> None:
        self.done: OneShot[list[Task]] = OneShot()
        self._queue = queue
        self._handler = handler
        self._results = results
        self._replacing = replacing
        self._reactor = reactor
        self._deadline: float | None = None
        self._drained: Deferred[None] = Deferred()
        self._draining = Deadline(self._drained.cancel, reactor)

    def start(self, drain: bool, timeout: float | None) -> None:
        """Begin. It takes so many seconds at the most."""
        if timeout is not None:
            self._deadline = orGlobalReactor(self._reactor).seconds() + timeout
            self._draining.within(timeout)
        if not drain or not self._canDrain():
            self._drained.cancel()
        self._results.onFinished = self.check
        Deferred.fromCoroutine(self._run())

    def hurry(self, drain: bool, timeout: float | None) -> None:
        """Be over sooner than it was said before."""
        if timeout is not None:
            deadline = orGlobalReactor(self._reactor).seconds() + timeout
            if self._deadline is None or deadline < self._deadline:
                self._deadline = deadline
                if self._drained.called:
                    self._queue.shutdown(timeout)
                else:
                    self._draining.within(timeout)
        if not drain:
            self._drained.cancel()

    def check(self) -> None:
        """Go on if no call is left that could be run."""
        if not self._drained.called and not self._canDrain():
            self._drained.callback(None)

    def _canDrain(self) -> bool:
        """Whether any call is running, or waits and can be run."""
        if self._queue.loadInfoProducer.queued > self._handler.waiting:
            return True
        waiting = self._handler.assignmentFactory.backlog.series()
        return any(map(self._handler.roster, waiting))

    async def _run(self) -> None:
        with suppress(CancelledError):
            await self._drained
        self._draining.callOff()
        self._results.onFinished = None
        self._replacing.settle()
        self._results.accepting = False
        unfinished = self._handler.withdraw(lambda task: True) + self._results.delayed
        failUnfinished(unfinished)
        timeout = None
        if self._deadline is not None:
            now = orGlobalReactor(self._reactor).seconds()
            timeout = max(0.0, self._deadline - now)
        unfinished += failUnfinished(await self._queue.shutdown(timeout))
        self._queue.watcher.observers.tell(EventKind.STOPPED)
        self.done.fire(unfinished)
