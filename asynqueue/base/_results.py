"""From what becomes of tasks to the results of calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._child.describe import callText
from .._child.status import RAN, ErrorText, Status
from .._support.checks import checkSeconds
from .._support.log import log
from .._support.reactor import Deadline, orGlobalReactor
from ..errors import (
    QueueStopped,
    RemoteTraceback,
    TimeoutError,
    WorkerError,
    WorkerLost,
)
from ..iteration import IterationProducer
from ..tasks import Task
from ..tasks._task import RETRIED
from ._options import UNSET, CallOptions, Defaults
from ._queue import Queue

_T = TypeVar("_T")

#: A task goes to so many workers that go away before they run it, and no more.
_MAX_MOVES = 10

_DEFAULT = CallOptions()

#: The reactor stops so long after an error under the policy I{stop}.
_STOP_DELAY_SECONDS = 1.0


class TaskFailure(Failure):
    """A failure whose traceback includes the one from where the task ran."""

    def printTraceback(
        self,
        file: Any = None,
        elideFrameworkCode: bool = False,
        detail: str = "default",
    ) -> None:
        """Write the remote traceback, if there's one, and then the local one."""
        remote = getattr(self.value, "__cause__", None)
        if (
            file is not None
            and detail != "brief"
            and isinstance(remote, RemoteTraceback)
        ):
            file.write(f"{str(remote).strip()}\n\nWhich has brought about here:\n\n")
        super().printTraceback(file, elideFrameworkCode, detail)


def failureOf(text: object) -> Failure:
    """
    Make a failure from what a worker handed back for a task that raised: the task's own
    where that is known, else a L{WorkerError} with the text.
    """
    if isinstance(text, ErrorText):
        if isinstance(text.failure, Failure):
            return text.failure
        error = text.exception
        if error is not None and not isinstance(error, Exception):
            # SystemExit and its like would end whoever awaits the call.
            error = WorkerError(str(text))
            error.__cause__ = text.exception
        if error is not None:
            return TaskFailure(error)
    return Failure(WorkerError(str(text)))


class ErrorPolicy:
    """Applies the policy for errors: I{raise}, I{wrap}, I{warn}, or I{stop}."""

    def __init__(self, defaults: Defaults, reactor: IReactorTime | None) -> None:
        self._defaults = defaults
        self._reactor = reactor
        self._stopping = Deadline(self._stop, reactor)

    def apply(
        self, failure: Failure, text: str, call: str, returnFailure: bool | None
    ) -> Failure | str:
        """
        Find what the Deferred of a call fires with whose task has failed. For the call
        itself, C{returnFailure} may be L{UNSET}.
        """
        defaults = self._defaults
        if defaults.warn or defaults.spew:
            if defaults.verbose or defaults.spew:
                log.error("{call} failed: {text}", call=call, text=text)
            else:
                log.error("{text}", text=text)
        if returnFailure is UNSET:
            returnFailure = defaults.returnFailure
            if defaults.warn and not returnFailure:
                return text
        if returnFailure is None:
            return failure
        if returnFailure:
            if failure.check(WorkerError):
                return failure
            error = WorkerError(text)
            error.__cause__ = failure.value
            return TaskFailure(error)
        if not defaults.warn:
            sys.stderr.write(
                f"ERROR: {text}\nThe reactor stops in {_STOP_DELAY_SECONDS:g} second\n"
            )
            self._stopping.within(_STOP_DELAY_SECONDS)
        return text

    def callOff(self) -> None:
        """Let the reactor run on."""
        self._stopping.callOff()
        self._stopping = Deadline(self._stop, self._reactor)

    def _stop(self) -> None:
        reactor: Any = orGlobalReactor(self._reactor)
        if getattr(reactor, "running", True):
            reactor.stop()


def notRun(task: Task) -> QueueStopped:
    """Make the error of a task that hasn't been run before the shutdown."""
    return QueueStopped(f"The queue was shut down before {task!r} was run")


def _late(task: Task, seconds: float) -> TimeoutError:
    return TimeoutError(f"{task!r} had no result within {seconds} seconds")


def _stopTimer(result: _T, timer: IDelayedCall) -> _T:
    if timer.active():
        timer.cancel()
    return result


class Results:
    """Makes the result of each call of what its tasks, one an attempt, come to."""

    # A call is finished when its Deferred is about to fire, not when one of its tasks
    # has failed; each way through resolve ends in _finish or in RETRIED.

    def __init__(
        self,
        defaults: Defaults,
        queue: Queue,
        queueAgain: Callable[[Task], object],
        reactor: IReactorTime | None,
    ) -> None:
        self.policy = ErrorPolicy(defaults, reactor)
        # Whether a task may be queued again.
        self.accepting = True
        # Called when a call has its result, and by callsChanged.
        self.onFinished: Callable[[], object] | None = None
        self._defaults = defaults
        self._queueAgain = queueAgain
        self._oneLess = queue.loadInfoProducer.oneLess
        self._watcher = queue.watcher
        # Tasks that wait for their next attempt, which have this as their owner.
        self._delayed: dict[Task, IDelayedCall] = {}
        self._reactor = reactor

    @property
    def delayed(self) -> list[Task]:
        """The tasks that wait for their next attempt."""
        return list(self._delayed)

    def resolve(self, statusResult: Any, task: Task) -> object:
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

    def limit(self, d: Deferred[object], seconds: float) -> None:
        """Fail the Deferred of a call that has no result within some time from now."""
        if not d.called:
            timer = orGlobalReactor(self._reactor).callLater(
                seconds, self._expire, d, seconds
            )
            d.addBoth(_stopTimer, timer)

    def _expire(self, d: Any, seconds: float) -> None:
        task: Task | None = d.task
        if task is not None:
            task.drop()
            task.errback(_late(task, seconds))
        elif d.inner is not None:
            d.expired = seconds
            d.inner.cancel()

    def _finish(self, result: object, task: Task) -> object:
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

    def _log(self, result: object, task: Task) -> None:
        log.info("{call} -> {result!r}", call=callText(*task.callTuple), result=result)

    def _finishFailed(
        self, failure: Failure, task: Task, text: str | None = None
    ) -> Failure | str:
        self._watcher.noteFailed(failure, task, raised=text is not None)
        self._noteFinished()
        if failure.check(CancelledError, QueueStopped, TimeoutError):
            # What the queue itself says isn't for the policies.
            return failure
        return self.policy.apply(
            failure,
            failure.getErrorMessage() if text is None else text,
            callText(*task.callTuple),
            (task.options or _DEFAULT).returnFailure,
        )

    def _noteFinished(self) -> None:
        self._oneLess()
        self.callsChanged()

    def callsChanged(self) -> None:
        """Look whether a drain is over, as there are other calls or workers now."""
        if self.onFinished is not None:
            self.onFinished()

    def _resolveFailure(self, failure: Failure, task: Task) -> object:
        if failure.check(WorkerLost):
            return self._giveUpOrRetry(task, failure)
        return self._finishFailed(failure, task)

    def _giveUpOrRetry(self, task: Task, failure: Failure) -> object:
        """Queue a task again whose worker was lost, or whose time was up."""
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

    def _move(self, task: Task) -> object:
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
