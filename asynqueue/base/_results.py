"""
What becomes of calls: from the results of tasks to those of their Deferreds.
"""

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
from ..tasks import TaskHandler
from ..tasks._task import MOVED, Task
from ._load import LoadInfoProducer
from ._options import CallDefaults, CallOptions
from ._policy import ErrorPolicy, failureOf

__all__ = ["Outcomes", "notRun"]

#: A task goes to so many workers that go away before they run it, and no more.
_MOST_MOVES = 10


def notRun(task: Task) -> QueueStopped:
    """
    Make the error of a task that hasn't been run before the shutdown.

    @param task: The task.

    @return: The error.
    """
    return QueueStopped(f"The queue was shut down before {task!r} was run")


class Outcomes:
    """
    Sees to it that the Deferred of each call fires once, with what its tasks, one for
    each attempt, come to.

    @ivar accepting: Whether a task may be put in the queue again.

    @ivar onFinished: Called when a call has come to something. C{None} for nobody.
    """

    def __init__(
        self,
        handler: TaskHandler,
        load: LoadInfoProducer,
        defaults: CallDefaults,
        *,
        verbose: bool,
        spew: bool,
        reactor: IReactorTime | None,
    ) -> None:
        """
        Begin.

        @param handler: Takes the tasks.

        @param load: Counts the calls that have come to nothing yet.

        @param defaults: What holds for calls of which nothing else is said.

        @param verbose: Whether the log says which call has failed.

        @param spew: Whether every call is logged with its result.

        @param reactor: Keeps the time.
        """
        self.accepting = True
        self.onFinished: Callable[[], object] | None = None
        self._load = load
        self._defaults = defaults
        self._verbose = verbose
        self._spew = spew
        self._delayed: dict[Task, IDelayedCall] = {}
        self._reactor = reactor
        # Made once, since each task that waits has it.
        self._cameTo = self._resolve
        self._add = handler.assignmentFactory.add

    def put(self, task: Task) -> Deferred[Any]:
        """
        Queue a task, the first of its call.

        @param task: The task.

        @return: A Deferred that fires with what its result comes to.
        """
        self._load.oneMore()
        task.outcome = self._cameTo
        self._add(task)
        return task.d

    @property
    def delayed(self) -> list[Task]:
        """
        The tasks that wait for their next attempt.
        """
        return list(self._delayed)

    def _resolve(self, statusResult: Any, task: Task) -> Any:
        """
        Make something of what a task has come to.

        @param statusResult: A status and a result, or a failure.

        @param task: The task.

        @return: What the Deferred fires with.
        """
        if isinstance(statusResult, Failure):
            return self._hasFailed(statusResult, task)
        try:
            status, result = statusResult
        except (TypeError, ValueError):
            status, result = None, None
        if status is RAN or status == RAN:
            if self._spew:
                self._tell(task, result)
            self._finished()
            return result
        if status == Status.DISCONNECTED:
            return self._move(task)
        if status == Status.TIMEOUT:
            return self._giveUpOrRetry(
                task, Failure(TimeoutError(str(result))), str(result)
            )
        if status == Status.ITERATOR and isinstance(result, IterationProducer):
            return maybeDeferred(result.run).addBoth(self._arrived, task)
        if status == Status.CHUNKS and isinstance(result, Deferred):
            return result.addBoth(self._arrived, task)
        self._finished()
        if status == Status.ERROR:
            return self._settle(task, failureOf(result), str(result))
        if status == Status.NONE:
            result = None
        elif status not in (Status.ITERATOR, Status.CHUNKS):
            error = WorkerError(
                f"A worker handed back {statusResult!r} for {task!r}, which is no"
                " status and result"
            )
            return self._settle(task, Failure(error), str(error))
        if self._spew:
            self._tell(task, result)
        return result

    def _hasFailed(self, failure: Failure, task: Task) -> Any:
        """
        Make something of the failure of a task to be run.

        @param failure: The failure.

        @param task: The task.

        @return: What the Deferred fires with.
        """
        if failure.check(WorkerLost):
            return self._giveUpOrRetry(task, failure, failure.getErrorMessage())
        self._finished()
        if failure.check(CancelledError, QueueStopped):
            return failure
        return self._settle(task, failure, failure.getErrorMessage())

    def _settle(self, task: Task, failure: Failure, text: str) -> Any:
        """
        Make of a failure what the policy says.

        @param task: The task.

        @param failure: The failure.

        @param text: Text about it.

        @return: What the Deferred fires with.
        """
        if self._verbose:
            log.error("{call} failed: {text}", call=self._about(task), text=text)
        options: CallOptions | None = task.options
        policy = self._defaults.policy if options is None else options.policy
        if policy is ErrorPolicy.WARN and self._verbose:
            return text  # It has just been logged.
        return policy.settle(failure, text, orGlobalReactor(self._reactor))

    def _about(self, task: Task) -> str:
        """
        Describe the call of a task.

        @param task: The task.

        @return: Text like C{f(1, x=2)}.
        """
        return callText(*task.callTuple)

    def _tell(self, task: Task, result: Any) -> None:
        """
        Log a call with its result.

        @param task: The task.

        @param result: Its result.
        """
        log.info("{call} -> {result!r}", call=self._about(task), result=result)

    def _arrived(self, result: Any, task: Task) -> Any:
        """
        Note that a consumer has all items, or a large result has come in whole, or
        that there has been a failure on the way.

        @param result: The consumer or the result, or the failure.

        @param task: The task.

        @return: What the Deferred fires with.
        """
        self._finished()
        if isinstance(result, Failure) and not result.check(CancelledError):
            return self._settle(task, result, result.getErrorMessage())
        if self._spew:
            self._tell(task, result)
        return result

    def _giveUpOrRetry(self, task: Task, failure: Failure, text: str) -> Any:
        """
        Put a task whose worker was lost, or whose time was up, in the queue again,
        if it has an attempt left.

        @param task: The task.

        @param failure: The failure to give up with.

        @param text: Text about it.

        @return: What the Deferred fires with.
        """
        options = self._defaults.optionsOfTask(task)
        if task.attempt >= options.retries or not self.accepting:
            self._finished()
            return self._settle(task, failure, text)
        delay = options.retryDelay
        try:
            seconds = delay(task.attempt + 1) if callable(delay) else delay
            checkSeconds("retryDelay", seconds, zero=True)
        except Exception:  # noqa: BLE001 - the callable is the user's
            self._finished()
            return self._settle(task, Failure(), "retryDelay failed")
        return self._putAgain(task.again(), seconds)

    def _move(self, task: Task) -> Any:
        """
        Put a task whose worker went away before it ran in the queue again.

        @param task: The task.

        @return: What the Deferred fires with.
        """
        options = self._defaults.optionsOfTask(task)
        if not self.accepting:
            failure = Failure(notRun(task))
        elif options.moves >= _MOST_MOVES:
            failure = Failure(
                WorkerError(f"{_MOST_MOVES} workers went away without running {task!r}")
            )
        else:
            again = task.again()
            again.attempt = task.attempt
            again.options = evolve(options, moves=options.moves + 1)
            return self._putAgain(again, 0)
        self._finished()
        if failure.check(QueueStopped):
            return failure
        return self._settle(task, failure, failure.getErrorMessage())

    def _putAgain(self, task: Task, delay: float) -> Any:
        """
        Queue another task of a call.

        @param task: The task.

        @param delay: After so many seconds.

        @return: L{MOVED}.
        """
        if delay:
            self._delayed[task] = orGlobalReactor(self._reactor).callLater(
                delay, self._delayOver, task
            )
            task.holder = self
        else:
            self._add(task)
        return MOVED

    def cancelTask(self, task: Task) -> None:
        """
        Drop a task that waits for its next attempt.

        @param task: The task.
        """
        self._delayed.pop(task).cancel()

    def _delayOver(self, task: Task) -> None:
        """
        Queue a task that has waited for its next attempt.

        @param task: The task.
        """
        del self._delayed[task]
        self._add(task)

    def _finished(self) -> None:
        """
        Count a call that has come to something.
        """
        self._load.oneLess()
        if self.onFinished is not None:
            self.onFinished()
