"""The task queue: calls and workers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import shielded
from .._support.checks import checkCount, checkSeconds
from ..interfaces import IWorker, WorkerLike
from ..tasks import Task
from ..tasks._backlog import Gate
from ..tasks._requests import IEmployee
from ._observed import Observed
from ._options import Defaults, RetryDelay, checkName, checkRetryDelay
from ._replacing import Shutdown, failUnfinished

_Q = TypeVar("_Q", bound="TaskQueue")


class TaskQueue(Observed):
    """
    Queues calls, has workers run them in the order of their priorities, and gives the
    result of each as a Deferred.

    A queue is true while it's running with at least one worker, and its length is the
    number of its workers. As an asynchronous context manager, it is shut down at the
    end of the block, after what is queued has been run, or without that if the block
    raises.

    C{warn}, C{verbose}, C{spew}, C{returnFailure} and C{timeout} are attributes, too,
    which hold for all results from when they're set.

    @ivar name: What the queue is called, C{None} if it has no name.

    @ivar q: The L{Queue}.

    @ivar th: The L{TaskHandler}.

    @ivar taskFactory: What makes the tasks.
    """

    def __init__(
        self,
        *workers: IWorker | WorkerLike,
        name: str | None = None,
        timeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool | None = None,
        maxQueued: int | None = None,
        limits: Mapping[Hashable, int] | None = None,
        retries: int = 0,
        retryDelay: RetryDelay = 0.0,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param workers: Workers to begin with.

        @param name: What the queue is called in messages, statistics and events.

        @param timeout: Seconds after which, at shutdown or detaching, a worker that
            hasn't stopped is crashed. C{None}, or 0, to wait as long as it takes.

        @param warn: C{True} for errors of tasks to be logged (standard logger
            C{asynqueue}, level ERROR) and the Deferred of the call to fire with the
            text.

        @param verbose: C{True} for what is logged to say which call it was.

        @param spew: C{True} to log every call with its result (level INFO), and errors
            as with C{warn}. Implies C{verbose}.

        @param returnFailure: C{True} for the Deferreds of failed calls to fail with
            L{WorkerError<asynqueue.errors.WorkerError>}, the task's own exception
            chained as its cause. C{False}, said outright and without C{warn}, for the
            text to be printed to stderr and the reactor to stop a second later. By
            default, Deferreds fail with the task's own exception.

        @param maxQueued: How many calls may wait for a worker before C{call} raises
            L{QueueFull<asynqueue.errors.QueueFull>}. C{None} for any number.

        @param limits: How many calls of each of these series may run at once, however
            many workers are ready. A call counts from when a worker accepts it until
            it has its result, whether the worker has started it or not.

        @param retries: How many further attempts a call has when its worker is lost
            or its time is up.

        @param retryDelay: Seconds before each further attempt, or a callable that is
            given its number, from 1, and returns the seconds.

        @param reactor: The clock. By default, the global reactor.

        @raise ValueError: If a number is out of range.

        @raise TypeError: If the name isn't a string.
        """
        checkName(name)
        checkCount("retries", retries, 0)
        checkRetryDelay(retryDelay)
        super().__init__(
            Defaults(warn, verbose, spew, returnFailure, retries, retryDelay),
            maxQueued,
            reactor,
        )
        if name is not None:
            self.name = self.q.watcher.observers.queue = name
        if limits is not None and not isinstance(limits, Mapping):
            raise TypeError(f"limits must map series to numbers, not {limits!r}")
        if limits:
            self._gate.limit(limits)
        self.timeout = timeout
        self.th.onGone = self._workerGone
        self.th.onRefused = self._workerRefused
        self._shutdown = Shutdown(self.q, self._results, self._replacing, reactor)
        for worker in workers:
            # If one can't be put to work, that is logged.
            self.attachWorker(worker).addErrback(lambda _: None)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__}{name}, {len(self)} workers>"

    def __len__(self) -> int:
        """The number of workers."""
        return len(self.th.workers)

    def __bool__(self) -> bool:
        """Whether the queue is running with at least one worker."""
        return self._running and bool(self.th.workers)

    async def __aenter__(self: _Q) -> _Q:
        """Begin a block at whose end the queue is shut down."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Shut the queue down, after running what is queued unless the block has raised.
        """
        await self.shutdown(drain=error is None)

    @property
    def timeout(self) -> float | None:
        """
        Seconds after which, at shutdown or detaching, a worker that hasn't stopped is
        crashed. C{None} for never.
        """
        return self.q.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        if value:
            checkSeconds("timeout", value)
        self.q.timeout = value or None

    def attachWorker(self, worker: IWorker | WorkerLike) -> Deferred[int]:
        """
        Employ a worker.

        @param worker: The worker.

        @return: A Deferred that fires with its ID when it's ready for tasks. It fails
            with L{WorkerStartError<asynqueue.errors.WorkerStartError>} or
            L{AuthenticationError<asynqueue.errors.AuthenticationError>} if it can't be
            connected to where it's to have them run.

        @raise ImplementationError: If it doesn't provide L{IWorker}, is employed
            already, here or elsewhere, or has been stopped for good.

        @raise InvariantError: If its lists of qualifications aren't lists.

        @raise QueueRunError: If the queue has been shut down.
        """
        if not self._running:
            self._refuse(f"the worker {worker!r}")
        return shielded(self.th.hire(worker))

    def detachWorker(
        self, workerOrID: object, reassign: bool = False, crash: bool = False
    ) -> Deferred[list[Task]]:
        """
        Let a worker go, by default when it has run what it has accepted.

        @param workerOrID: The worker, or its ID. Nothing happens if it isn't attached.

        @param reassign: C{True} to give tasks that it leaves unfinished to others.

        @param crash: C{True} to crash it at once.

        @return: A Deferred that fires when it has gone, with a list of the tasks left
            unfinished and not reassigned. The Deferreds of their calls fail with
            L{WorkerLost<asynqueue.errors.WorkerLost>}.
        """
        d = self.th.terminate(self.th.idOf(workerOrID), self.timeout, crash, reassign)
        return shielded(d.addCallback(self._workerDetached))

    def qualifyWorker(self, worker: object, series: Hashable) -> None:
        """
        Have a worker run tasks of one more series.

        @param worker: The worker.

        @param series: The series.

        @raise TypeError: If it isn't hashable.
        """
        self.th.qualify(worker, series)

    def pause(self) -> None:
        """
        Have workers get no more calls. What they have accepted goes on; calls that are
        made meanwhile wait. Updates are run.

        @raise QueueRunError: If the queue isn't running.
        """
        if not self._running:
            self._refuse("a pause")
        self._gate.isPaused = True

    def resume(self) -> None:
        """Have workers get calls again."""
        factory = self.th.assignmentFactory
        backlog, gate = factory.backlog, factory.backlog.gate
        if gate is None or not gate.isPaused:
            return
        gate.isPaused = False
        if not gate.limits:
            backlog.gate = None
        for series in backlog.series():
            factory.reconsider(series)

    def workers(self, ID: int | None = None) -> Any:
        """
        Look up workers.

        @param ID: The ID of one, C{None} for all.

        @return: A list of all; or the one, C{None} if there's none of that ID.
        """
        if ID is None:
            return list(self.th.workers.values())
        return self.th.workers.get(ID)

    def cancelSeries(self, series: Hashable) -> list[Task]:
        """
        Take out all waiting calls of a series, also those that wait for a further
        attempt. Their Deferreds fail with C{CancelledError}.

        @param series: The series.

        @return: The tasks.
        """
        delayed = [task for task in self._results.delayed if task.series == series]
        return self.q.cancelSeries(series) + _cancel(delayed)

    def cancelAll(self) -> list[Task]:
        """
        Take out all waiting calls, also those that wait for a further attempt. Their
        Deferreds fail with C{CancelledError}.

        @return: The tasks.
        """
        delayed = self._results.delayed
        return self.q.cancelAll() + _cancel(delayed)

    def shutdown(
        self, drain: bool = False, timeout: float | None = None
    ) -> Deferred[list[Task]]:
        """
        Take no more calls, and let all workers go once they have run what they have
        accepted. Must be done before the reactor stops.

        @param drain: C{True} to run all that is queued first, as far as there are
            workers for it, which ends a pause. Else, the Deferreds of calls that no
            worker has accepted fail with
            L{QueueStopped<asynqueue.errors.QueueStopped>}.

        @param timeout: Seconds for all that, after which workers are crashed. The
            Deferreds of calls that they were running fail with
            L{WorkerLost<asynqueue.errors.WorkerLost>}. By default as it was given to
            the queue.

        @return: A Deferred that fires when all workers have gone, with a list of the
            tasks left unfinished. Calling again gives the same, sooner if a C{timeout}
            is given that is up before that of the first call.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        self._results.policy.callOff()
        done = self._shutdown.done.wait()
        if self._running:
            self._running = False
            self._admission.shutDown()
            if drain:
                self.resume()
            self._shutdown.start(drain, self.timeout if timeout is None else timeout)
        else:
            self._shutdown.hurry(drain, timeout)
        return done.addCallback(list)

    @property
    def _gate(self) -> Gate:
        """
        What holds calls back. It's made when it's first needed, as it has every call
        wait in the backlog, which takes 2 us.
        """
        factory = self.th.assignmentFactory
        gate = factory.backlog.gate
        if gate is None:
            gate = factory.backlog.gate = Gate(
                lambda series: self.th.assignmentFactory.reconsider(series)
            )
        return gate

    def _demand(self) -> int:
        """Count the waiting tasks if no other worker could run them."""
        return self.th.waiting if len(self.th.workers) == 1 else 0

    def _workerDetached(self, unfinished: list[Task]) -> list[Task]:
        failUnfinished(unfinished)
        self._results.callsChanged()
        return unfinished

    def _workerGone(self, worker: IEmployee) -> None:
        if self._results.accepting:
            self._replacing.replace(worker)
        self._results.callsChanged()

    def _workerRefused(self, worker: IEmployee, failure: Failure) -> None:
        if self._results.accepting:
            self._replacing.giveUp(worker, failure)


def _cancel(tasks: list[Task]) -> list[Task]:
    for task in tasks:
        task.d.cancel()
    return tasks
