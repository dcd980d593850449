"""
The interfaces by which workers of any kind are plugged in, and the status bytes that
workers hand back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, invariant

from ._child.status import Status
from .errors import InvariantError

__all__ = [
    "ICancellingWorker",
    "IPrefetchingWorker",
    "IReplaceableWorker",
    "ITask",
    "IWorker",
    "Status",
    "WorkerLike",
]


class ITask(Interface):
    """
    What a worker needs to know of a task. L{Task<asynqueue.tasks.Task>} provides it.
    """

    callTuple: tuple[Any, tuple[Any, ...], dict[str, Any]] = Attribute(
        "The callable, its positional arguments and its keywords. They belong to the"
        " task, so a worker must not change them."
    )
    series: Hashable = Attribute("The series the task was queued in.")
    timeout: float | None = Attribute("Seconds that the task may run, or C{None}.")
    context: Context | None = Attribute(
        "The caller's context variables, for the callable to be run in. C{None} if"
        " there are none."
    )
    direct: bool = Attribute(
        "Whether the task is for this worker alone, as an update is: no other runs it."
    )
    isLasting: bool = Attribute(
        "Whether the task is an update that workers that come later will run, too."
    )
    d: Deferred[Any] = Attribute(
        "The Deferred of the result. Firing it with a status and a result, or with a"
        " failure, is the same as L{callback} and L{errback}. Callbacks that a worker"
        " adds see the result of the call, and must return it."
    )

    watch: Any = Attribute(
        "C{None}, or an object with two attributes. C{seconds}: a worker that measures"
        " how long the call is run, where it's run, sets that before it gives the"
        " result. C{headers}: C{None}, or a dict of headers, as of W3C Trace Context,"
        " that carries the context of a trace to where C{context} can't go."
    )

    def startTimer() -> None:
        """
        Start the clock of the time limit from the beginning. That has been done when
        the worker is given the task; a worker in which it has to wait first stops it,
        and starts it again when the task's turn comes.
        """

    def stopTimer() -> None:
        """Stop the clock of the time limit."""

    def callback(result: tuple[bytes, Any]) -> None:
        """
        Give the task its result. All but the first are ignored.

        @param result: A L{Status}, or the plain byte that it stands for, and the
            result that goes with it.
        """

    def errback(failure: Failure | BaseException) -> None:
        """
        Fail the call with an exception: the callable's own, or the worker's. With
        L{WorkerLost<asynqueue.errors.WorkerLost>} the task may have begun, and is tried
        again if it has retries left.

        @param failure: A L{Failure<twisted.python.failure.Failure>} or an exception.
        """


def _qualificationsAreLists(worker: object) -> None:
    for name in ("cQualified", "iQualified"):
        value = getattr(worker, name, None)
        if not isinstance(value, list):
            raise InvariantError(
                f"{name} of {worker!r} must be a list of series, not {value!r}"
            )


class IWorker(Interface):
    """
    A worker: takes tasks and runs each of them, somewhere.

    It has the attributes C{cQualified} and C{iQualified}, two lists of series, and the
    methods C{setResignator(callableObject)}, C{run(task)}, C{stop()} and C{crash()}.

    A worker that can run several tasks at once says how many in a further attribute,
    C{capacity}. Without it, C{run} isn't called for a queued task again before its last
    Deferred has fired. Updates may come at any time.

    One that stands for several, such as the processes of a pool, says in an attribute
    C{concurrency} how many calls keep it busy: so many parts of a C{map} are given to
    it as to so many workers.

    A worker that is reserved for the series in C{iQualified} says so in an attribute
    C{exclusive}, C{True}. It's given calls of no others, nor of C{None}.

    A worker that has iterations under way may say so in an attribute C{isIterating}:
    tasks are then given to others, if any are ready.

    One that may need a while to end after C{crash} has a method C{deferUntilGone}, as
    L{IReplaceableWorker} describes it. The shutdown waits for that.

    What a worker is at is shown by the queue's C{stats()} if it has an attribute
    C{running}, a list of tasks, or C{tasks}; C{state}, an C{Enum}; and C{process} with
    a C{pid}.

    While a worker is hired, the C{TaskHandler} keeps three attributes on it: C{ID}, an
    C{int}; C{hired}, a C{bool}; and C{assignments}, a C{dict} with a list of Deferreds,
    its outstanding requests, for each series.
    """

    cQualified: list[Hashable] = Attribute(
        "List of the series that all instances of the class are qualified for,"
        " besides C{None}."
    )
    iQualified: list[Hashable] = Attribute(
        "List of the series that this instance is qualified for besides those."
    )

    invariant(_qualificationsAreLists)

    def setResignator(callableObject: Callable[[], object]) -> None:
        """
        Take the callable by which the worker can resign.

        The worker calls it, without arguments, when it can't work any longer: its
        connection is lost, its child process has ended. It is then crashed, and the
        tasks that its C{crash} returns are given to others. Those that may have begun
        it fails before, with L{WorkerLost<asynqueue.errors.WorkerLost>}.
        """

    def run(task: ITask) -> Deferred[Any]:
        """
        Run a task, and give it its result with C{task.callback((status, result))}.

        The result may come before or after the Deferred fires, and the Deferred must
        not wait for consumers of the result. Iterators become a
        L{Deferator<asynqueue.iteration.Deferator>} unless the worker, or the call
        with C{raw=True} among its keywords, says that they are wanted as they are.
        With an C{IConsumer} as the keyword C{consumer}, they become an
        L{IterationProducer<asynqueue.iteration.IterationProducer>}.

        @return: A Deferred that fires when the worker is ready for another task.
        """

    def stop() -> Deferred[Any]:
        """
        Stop gracefully. If somebody else than the employer calls this, the worker
        resigns when it has stopped.

        @return: A Deferred that fires once every task that was accepted has its
            result, and all resources are gone. At once if the worker has stopped.
        """

    def crash() -> list[ITask]:
        """
        Give up at once and synchronously, whatever is being done.

        @return: The tasks that were accepted and have no result.
        """


class WorkerLike(Protocol):
    """
    What an L{IWorker} looks like to type checkers that know nothing of interfaces:
    pyright, and mypy without the plugin C{mypy-zope}.
    """

    cQualified: list[Any]
    iQualified: list[Any]

    def setResignator(self, callableObject: Callable[[], object], /) -> object:
        """See L{IWorker.setResignator}."""

    def run(self, task: Any, /) -> Deferred[Any]:
        """See L{IWorker.run}."""

    def stop(self) -> Deferred[Any]:
        """See L{IWorker.stop}."""

    def crash(self) -> Any:
        """See L{IWorker.crash}."""


class ICancellingWorker(Interface):
    """A worker that can also stop a task that it has accepted."""

    def cancelTask(task: ITask) -> None:
        """
        Stop the work on a task, or at least forget it.

        The task has been cancelled or has timed out: whatever result comes for it is
        ignored. Does nothing if the worker doesn't have the task.

        @param task: A task that was given to C{run}.
        """


class IPrefetchingWorker(Interface):
    """
    A worker that may be given tasks in advance, though it runs one after the other, and
    can give those back that it hasn't started.
    """

    backlogPerWorker: Callable[[], int] | None = Attribute(
        "Set by the employer: a callable that tells how many tasks wait, for each"
        " worker. C{None} while the worker isn't hired."
    )

    batch: Callable[[Callable[[], object]], object] = Attribute(
        "Set by the employer: a callable that calls what it's given, and hands tasks"
        " out after that, to all workers that have become ready meanwhile. Until then,"
        " something that just calls it."
    )

    def reclaim() -> list[ITask]:
        """
        Give back tasks that have certainly not been started, and won't be.

        Called when another worker is idle. The Deferreds that C{run} has returned for
        these tasks have fired when this returns.

        @return: The tasks, to be given to any worker. None if the worker is about to
            start them.
        """


class IReplaceableWorker(Interface):
    """
    A worker that stands for something that can be lost and made again, as a child
    process or a connection.

    One that somebody else than its employer has stopped says so in an attribute
    C{isDismissed}, C{True}, and isn't replaced.
    """

    def deferUntilReady() -> Deferred[None]:
        """
        Wait until the worker can be given tasks, for instance is connected.

        @return: A Deferred that fires with C{None} then. It fails if that will never
            be, and the worker has stopped by itself then.
        """

    def setRecycler(callableObject: Callable[[], object]) -> None:
        """
        Take the callable by which the worker can ask to be replaced.

        The worker calls it, without arguments, when it should get no more tasks. It's
        then told to C{stop}, which it does when it has done what it has accepted, and
        another is hired in its place.
        """

    def updatesApplied(text: str | None) -> None:
        """
        Hear how the stored updates have gone that are run before anything else.

        @param text: C{None} if they have gone well, or if there are none. Else, text
            about the failure; a worker that has done nothing else yet resigns then.
        """

    def replacement() -> Any:
        """
        Make a worker like this one, which has resigned.

        @return: The new worker, to be hired in place of this one. C{None} if there's
            to be none, so that tasks wait for other workers.

        @raise Exception: If there's no use in trying. The queue has lost a worker, and
            tasks that no other worker is qualified for fail with the exception.
        """

    def retryReplacement() -> Any:
        """
        Make a worker like this one although L{replacement} has seen no use in it, or
        this one could not be put to work, since that may have changed: another call has
        been made. It waits before it starts, each time longer.

        @return: The new worker, to be hired.

        @raise Exception: If there's still no use in trying, as L{replacement} does.
        """

    def deferUntilGone() -> Deferred[None]:
        """
        Wait until all resources of the worker are gone, after C{stop} or C{crash}.

        @return: A Deferred that fires with C{None} then.
        """
