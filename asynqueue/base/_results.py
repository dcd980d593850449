"""From what becomes of tasks to the results of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._child.describe import callText
from .._child.status import RAN, Status
from .._support.checks import checkSeconds
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import QueueStopped, TimeoutError, WorkerError, WorkerLost
from ..iteration import IterationProducer
from ..tasks import Task
from ..tasks._task import RETRIED
from ._options import CallOptions, Defaults
from ._policy import ErrorPolicy, failureOf
from ._watching import Watcher

#: A task goes to so many workers that go away before they run it, and no more.
_MAX_MOVES = 10

_DEFAULT = CallOptions()


def notRun(task: Task) -> QueueStopped:
    """Make the error of a task that hasn't been run before the shutdown."""
    return QueueStopped(f"The queue was shut down before {task!r} was run")


def _late(task: Task, seconds: float) -> TimeoutError:
    return TimeoutError(f"{task!r} had no result within {seconds} seconds")


class Results:
    """
    Sees to it that the Deferred of each call fires once, with what its tasks, one for
    each attempt, come to.

    @ivar accepting: Whether a task may be queued again.

    @ivar onFinished: Called when a call has its result. C{None} for nobody.
    """

    # A call is finished when its Deferred is about to fire, not when one of its tasks
    # has failed; each way through resolve ends in _finish or in RETRIED.

    def __init__(
        self,
        defaults: Defaults,
        policy: ErrorPolicy,
        queueAgain: Callable[[Task], object],
        oneLess: Callable[[], object],
        watcher: Watcher,
        reactor: IReactorTime | None,
    ) -> None:
        self.accepting = True
        self.onFinished: Callable[[], object] | None = None
        self._defaults = defaults
        self._policy = policy
        self._queueAgain = queueAgain
        self._oneLess = oneLess
        self._watcher = watcher
        # Tasks that wait for their next attempt, which have this as their owner.
        self._delayed: dict[Task, IDelayedCall] = {}
        self._reactor = reactor

    @property
    def delayed(self) -> list[Task]:
        """The tasks that wait for their next attempt."""
        return list(self._delayed)

    def resolve(self, statusResult: Any, task: Task) -> Any:
        """
        Make the result of a call of what its task has come to.

        @param statusResult: A status and a result, or a failure.

        @param task: The task.

        @return: What the Deferred fires with, a Deferred of that, or L{RETRIED}.
        """
        if isinstance(statusResult, Failure):
            return self._resolveFailure(statusResult, task)
        try:
            status, result = statusResult
        except (TypeError, ValueError):
            status, result = None, None
        if status is RAN or status == RAN:
            if self._defaults.spew:
                self._log(result, task)
            if task.watch is not None:
                task.watch.done(task)
            self._oneLess()
            if self.onFinished is not None:
                self.onFinished()
            return result
        if status == Status.NONE:
            return self._finish(None, task)
        if status == Status.DISCONNECTED:
            return self._move(task)
        if status == Status.TIMEOUT:
            return self._giveUpOrRetry(task, Failure(TimeoutError(str(result))))
        if status == Status.ERROR:
            return self._finishFailed(failureOf(result), task, str(result))
        if status == Status.ITERATOR:
            if isinstance(result, IterationProducer):
                return maybeDeferred(result.run).addBoth(self._finish, task)
            return self._finish(result, task)
        if status == Status.CHUNKS:
            if isinstance(result, Deferred):
                return result.addBoth(self._finish, task)
            return self._finish(result, task)
        error = WorkerError(
            f"A worker handed back {statusResult!r} for {task!r}, which is no status"
            " and result"
        )
        return self._finishFailed(Failure(error), task)

    def cancelTask(self, task: Task) -> None:
        """Drop a task that waits for its next attempt."""
        self._delayed.pop(task).cancel()

    def expire(self, d: Any, seconds: float) -> None:
        """
        Fail the Deferred of a call that has not had its result within some time from
        when it was made.
        """
        task: Task | None = d.task
        if task is not None:
            task.drop()
            task.errback(_late(task, seconds))
        elif d.inner is not None:
            d.expired = seconds
            d.inner.cancel()

    def _finish(self, result: Any, task: Task) -> Any:
        """Take the result of a call, or the failure of a consumer or on the way."""
        if isinstance(result, Failure):
            seconds = task.d.expired
            if seconds is not None and result.check(CancelledError):
                result = Failure(_late(task, seconds))
            return self._finishFailed(result, task)
        if self._defaults.spew:
            self._log(result, task)
        if task.watch is not None:
            task.watch.done(task)
        self._noteFinished()
        return result

    def _log(self, result: Any, task: Task) -> None:
        log.info("{call} -> {result!r}", call=callText(*task.callTuple), result=result)

    def _finishFailed(
        self, failure: Failure, task: Task, text: str | None = None
    ) -> Any:
        self._watcher.noteFailed(failure, task, raised=text is not None)
        self._noteFinished()
        if failure.check(CancelledError, QueueStopped, TimeoutError):
            # What the queue itself says isn't for the policies.
            return failure
        return self._policy.apply(
            failure,
            failure.getErrorMessage() if text is None else text,
            callText(*task.callTuple),
            (task.options or _DEFAULT).returnFailure,
        )

    def _noteFinished(self) -> None:
        self._oneLess()
        self.callsChanged()

    def callsChanged(self) -> None:
        """Look whether calls are left that can be run, if there is a drain."""
        if self.onFinished is not None:
            self.onFinished()

    def _resolveFailure(self, failure: Failure, task: Task) -> Any:
        if failure.check(WorkerLost):
            return self._giveUpOrRetry(task, failure)
        return self._finishFailed(failure, task)

    def _giveUpOrRetry(self, task: Task, failure: Failure) -> Any:
        """
        Queue a task again whose worker was lost, or whose time was up, if its call has
        an attempt left.
        """
        options: CallOptions = task.options or _DEFAULT
        retries = options.retries
        if retries is None:
            retries = self._defaults.retries
        if task.attempt >= retries or not self.accepting:
            return self._finishFailed(failure, task)
        delay = options.retryDelay
        if delay is None:
            delay = self._defaults.retryDelay
        try:
            seconds = delay(task.attempt + 1) if callable(delay) else delay
            checkSeconds("retryDelay", seconds, zero=True)
        except Exception:  # noqa: BLE001 - the callable is the user's
            return self._finishFailed(Failure(), task)
        if task.d.called:  # The callable has cancelled the call.
            return self._finishFailed(Failure(CancelledError()), task)
        again = task.nextAttempt()
        self._watcher.noteRetried(failure, task)
        self._tryAgain(again, seconds)
        return RETRIED

    def _tryAgain(self, task: Task, seconds: float) -> None:
        """
        Queue the next attempt, unless an observer has cancelled the call or shut the
        queue down.
        """
        if task.hasResult:
            return
        if not self.accepting:
            task.errback(notRun(task))
        elif seconds:
            task.owner = self
            self._delayed[task] = orGlobalReactor(self._reactor).callLater(
                seconds, self._retry, task
            )
        else:
            self._queue(task)

    def _retry(self, task: Task) -> None:
        del self._delayed[task]
        task.owner = None
        self._queue(task)

    def _queue(self, task: Task) -> None:
        try:
            self._queueAgain(task)
        except Exception:  # noqa: BLE001 - the handler may be anybody's subclass
            task.errback(Failure())
        self.callsChanged()  # There may be nobody left to run it.

    def _move(self, task: Task) -> Any:
        """Queue a task again whose worker went away before it ran."""
        options: CallOptions = task.options or _DEFAULT
        if not self.accepting:
            return self._finishFailed(Failure(notRun(task)), task)
        if options.moves >= _MAX_MOVES:
            error = WorkerError(
                f"{_MAX_MOVES} workers went away without running {task!r}"
            )
            return self._finishFailed(Failure(error), task)
        again = task.nextAttempt()
        again.attempt = task.attempt
        again.options = evolve(options, moves=options.moves + 1)
        self._queue(again)
        return RETRIED
