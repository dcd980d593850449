"""Workers that go: others in place of those that are lost, and the end of a queue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.log import log
from .._support.reactor import Deadline, orGlobalReactor
from ..errors import WorkerLost, WorkerStartError
from ..events import EventKind
from ..interfaces import IReplaceableWorker, IWorker
from ..tasks import Task, TaskHandler
from ..tasks._requests import IEmployee
from ._queue import Queue
from ._results import Results, notRun


class Replacing:
    """Hires a worker in place of each that has gone and names another."""

    # _givenUp are workers that there's to be no other for, and why, until the reactor's
    # next turn, for which _settling is.

    def __init__(
        self,
        queue: Queue,
        settled: Callable[[], object],
        reactor: IReactorTime | None,
    ) -> None:
        # Lost workers that were not replaced since there was no use in trying, and that
        # may name another if they are asked again.
        self.unreplaced: list[IReplaceableWorker] = []
        # Called when tasks have failed that nobody could run.
        self._settled = settled
        self._handler: TaskHandler = queue.handler
        self._watcher = queue.watcher
        self._givenUp: list[tuple[object, Failure]] = []
        self._settling: IDelayedCall | None = None
        self._reactor = reactor

    def replace(self, worker: IEmployee) -> None:
        """Hire a worker in place of one, if it names another."""
        isDismissed = getattr(worker, "isDismissed", False)
        if isDismissed or not IReplaceableWorker.providedBy(worker):
            return
        self._hire(worker, worker.replacement, known=False)

    def giveUp(self, worker: object, failure: Failure) -> None:
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
        """Try again to hire others in place of workers that were not replaced."""
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
            roster = self._handler.roster
            for task in self._handler.withdraw(lambda task: not roster(task.series)):
                task.errback(failure)
        self._settled()

    def _hire(
        self, worker: object, make: Callable[[], IWorker | None], known: bool
    ) -> None:
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


class Shutdown:
    """Runs what is queued, if that is wanted, and lets the workers go."""

    # _deadline is when workers that haven't stopped are crashed, None for never.
    # _drained has fired, or failed, when it's time to let the workers go.

    def __init__(
        self,
        queue: Queue,
        results: Results,
        replacing: Replacing,
        reactor: IReactorTime | None,
    ) -> None:
        # Fires with the tasks left unfinished.
        self.done: OneShot[list[Task]] = OneShot()
        self._queue = queue
        self._handler: TaskHandler = queue.handler
        self._results = results
        self._replacing = replacing
        self._reactor = reactor
        self._deadline: float | None = None
        self._drained: Deferred[None] = Deferred()
        self._draining = Deadline(self._drained.cancel, reactor)

    def start(self, drain: bool, timeout: float | None) -> None:
        """Begin. It takes so many seconds at the most."""
        self._results.onFinished = self._check
        # Before anything else, as hurry, which may have been called before this, takes
        # for granted that it goes on when _drained fires.
        Deferred.fromCoroutine(self._run())
        self.hurry(drain, timeout)
        self._check()

    def hurry(self, drain: bool, timeout: float | None) -> None:
        """Be over in so many seconds, unless it is to be sooner already."""
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

    def _check(self) -> None:
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
        try:
            unfinished += failUnfinished(await self._queue.shutdown(timeout))
        except Exception:  # noqa: BLE001 - the handler may be anybody's subclass
            log.failure("{queue} failed to shut down", queue=self._queue)
        self._queue.watcher.observers.tell(EventKind.STOPPED)
        self.done.fire(unfinished)


def failUnfinished(tasks: list[Task]) -> list[Task]:
    """Fail the Deferreds of tasks that were left unfinished. Returns the tasks."""
    for task in tasks:
        if task.accepted:
            text = f"The worker of {task!r} was let go before it was done"
            task.errback(WorkerLost(text, task=task))
        else:
            task.errback(notRun(task))
    return tasks
