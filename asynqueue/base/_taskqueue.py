"""
The task queue: calls go in, their results come out as Deferreds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.checks import checkCount, checkSeconds
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import (
    ImplementationError,
    QueueFull,
    QueueRunError,
    QueueStopped,
    WorkerLost,
)
from ..info import Info
from ..interfaces import IReplaceableWorker, IWorker
from ..iteration._deferator import Deferator
from ..iteration._sources import BufferedSource
from ..tasks import TaskHandler
from ..tasks._task import Task, TaskFactory
from ._mapping import Mapping, Progress, progressOf
from ._options import OWN_KEYWORDS, CallDefaults, RetryDelay
from ._queue import Queue
from ._results import Outcomes, notRun

__all__ = ["TaskQueue"]

#: So many results of an C{imap} may wait to be taken before more chunks are queued.
_MOST_UNTAKEN = 1_000

_UNSET: Any = object()


class TaskQueue:
    """
    Queues calls, has workers run them in the order of their priorities, and gives the
    result of each as a Deferred.

    A queue is true while it's running with at least one worker, and its length is the
    number of its workers. As an asynchronous context manager, it is shut down at the
    end of the block, after what is queued has been run, or without that if the block
    raises.

    @ivar timeout: Seconds after which, at shutdown or detaching, a worker that hasn't
        stopped is crashed. C{None} for never.

    @ivar q: The L{Queue}.

    @ivar th: The L{TaskHandler}.

    @ivar taskFactory: What makes the tasks.

    @ivar maxQueued: How many calls may wait, or C{None}.
    """

    def __init__(
        self,
        *workers: IWorker,
        timeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool | None = None,
        maxQueued: int | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay = 0.0,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a queue.

        @param workers: Workers to begin with.

        @param timeout: Seconds after which, at shutdown or detaching, a worker that
            hasn't stopped is crashed. C{None} to wait as long as it takes.

        @param warn: C{True} for errors of tasks to be logged (standard logger
            C{asynqueue}, level ERROR) and the Deferred of the call to fire with the
            text.

        @param verbose: C{True} to log which call it was that failed.

        @param spew: C{True} to log every call with its result (level INFO). Implies
            C{verbose}.

        @param returnFailure: C{True} for the Deferreds of failed calls to fail with
            L{WorkerError}, the task's own exception chained as its cause. C{False},
            said outright and without C{warn}, for the text to be printed to stderr and
            the reactor to stop a second later. By default, Deferreds fail with the
            task's own exception.

        @param maxQueued: How many calls may wait for a worker before L{call} raises
            L{QueueFull}. C{None} for any number.

        @param retries: How many further attempts a call has when its worker is lost
            or its time is up. By default none, or 1 for calls with a C{timeout}.

        @param retryDelay: Seconds before each further attempt, or a callable that is
            given its number, from 1, and returns the seconds.

        @param reactor: What keeps the time. By default, the global reactor.

        @raise ValueError: If a number is out of range.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        if maxQueued is not None:
            checkCount("maxQueued", maxQueued, 1)
        self.timeout = timeout
        self.maxQueued = maxQueued
        self.info = Info()
        self._defaults = CallDefaults(warn, returnFailure, retries, retryDelay)
        self._reactor = reactor
        self._running = True
        self._stopping: list[Deferred[list[Task]]] | None = None
        self._unfinished: list[Task] | None = None
        self._draining = False
        self._drainTimer: IDelayedCall | None = None
        # When workers that haven't stopped by then are crashed, from shutdown on.
        self._deadline: float | None = None
        self._waiters: deque[Deferred[None]] = deque()
        # Lost workers that were not replaced, since there was no use in trying.
        self._vacancies: list[Any] = []
        self.taskFactory = TaskFactory(reactor=reactor)
        self.th = TaskHandler(reactor=reactor)
        self.th.onGone = self._workerGone
        self.th.onRefused = self._workerRefused
        self.q = Queue(self.th, timeout)
        self._outcomes = Outcomes(
            self.th,
            self.q.loadInfoProducer,
            self._defaults,
            verbose=verbose or spew,
            spew=spew,
            reactor=reactor,
        )
        for worker in workers:
            # If one can't be connected, that has been logged.
            self.attachWorker(worker).addErrback(lambda _: None)

    def __len__(self) -> int:
        """
        The number of workers.
        """
        return len(self.th.workers)

    def __bool__(self) -> bool:
        """
        Whether the queue is running with at least one worker.
        """
        return self._running and bool(self.th.workers)

    async def __aenter__(self) -> TaskQueue:
        """
        Begin a block at whose end the queue is shut down.
        """
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

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes calls.

        @return: C{False} once it is being shut down.
        """
        return self._running

    def attachWorker(self, worker: IWorker) -> Deferred[int]:
        """
        Employ a worker.

        @param worker: The worker.

        @return: A Deferred that fires with its ID when it's ready for tasks. It fails
            with L{WorkerStartError<asynqueue.errors.WorkerStartError>} or
            L{AuthenticationError<asynqueue.errors.AuthenticationError>} if it can't be
            connected to where it's to have them run.

        @raise ImplementationError: If it doesn't provide L{IWorker}.

        @raise InvariantError: If its lists of qualifications aren't lists.

        @raise QueueRunError: If the queue has been shut down.
        """
        if not self._running:
            raise QueueRunError(
                f"{worker!r} can't be attached to a queue that has been shut down"
            )
        return self.th.hire(worker)

    def detachWorker(
        self, workerOrID: Any, reassign: bool = False, crash: bool = False
    ) -> Deferred[list[Task]]:
        """
        Let a worker go, by default when it has run what it has accepted.

        @param workerOrID: The worker, or its ID. Nothing happens if it isn't attached.

        @param reassign: C{True} to give tasks that it leaves unfinished to others.

        @param crash: C{True} to crash it at once.

        @return: A Deferred that fires when it has gone, with a list of the tasks left
            unfinished and not reassigned. The Deferreds of their calls fail with
            L{WorkerLost}.
        """
        d = self.th.terminate(self.th.idOf(workerOrID), self.timeout, crash, reassign)
        return d.addCallback(self._hasLeft)

    def qualifyWorker(self, worker: Any, series: Hashable) -> None:
        """
        Have a worker run tasks of one more series.

        @param worker: The worker.

        @param series: The series.

        @raise TypeError: If it isn't hashable.
        """
        self.th.qualify(worker, series)

    def workers(self, ID: int | None = None) -> Any:
        """
        Look up workers.

        @param ID: The ID of one, C{None} for all.

        @return: A list of all; or the one, C{None} if there's none of that ID.
        """
        if ID is None:
            return list(self.th.workers.values())
        return self.th.workers.get(ID)

    def call(self, f: Callable[..., Any] | str, *args: Any, **kw: Any) -> Deferred[Any]:
        """
        Queue a call.

        These keywords are the queue's own, and never reach the callable:

          - C{niceness}: an C{int} from -20 (first) to 20 (last), 0 by default;
          - C{series}: the series, any hashable. Only workers qualified for it run the
            call. All are for C{None}, the default;
          - C{doNext}, C{doLast}: C{True} to run it before, or after, everything else;
          - C{timeout}: seconds that it may run, from when a worker starts it. The work
            is then stopped, and run once more unless C{retries} says otherwise;
          - C{retries}: how many further attempts there are when its time is up or its
            worker is lost;
          - C{retryDelay}: seconds before each, or a callable that is given its number,
            from 1;
          - C{consumer}: an C{IConsumer} for the items of an iterator that the call
            returns;
          - C{raw}: C{True} for an iterator to come back as it is;
          - C{returnFailure}: as for the queue. C{None} for the Deferred to fail with
            the task's own exception.

        @param f: The callable, or for remote workers the name of a method.

        @param args: Positional arguments.

        @param kw: Keywords.

        @return: A Deferred that fires with what the call returns: a
            L{Deferator<asynqueue.iteration.Deferator>} for an iterator, or with the
            consumer once it has all the items. It can be cancelled.

            Whatever happens, it fires exactly once. It fails with
            L{TimeoutError<asynqueue.errors.TimeoutError>} when its
            time is up, L{WorkerLost} when its worker has gone while it may have been
            running, L{QueueStopped} when the queue is shut down before it has run,
            C{CancelledError} when it's cancelled,
            L{SerializationError<asynqueue.errors.SerializationError>} when it can't
            be sent to where it's to be run.

        @raise QueueRunError: If the queue isn't running.

        @raise QueueFull: If C{maxQueued} calls are waiting. See L{ready}.

        @raise TypeError: If the callable isn't callable, or the series not hashable.

        @raise ValueError: If a number is out of range.

        @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.
        """
        if not self._running:
            raise QueueRunError(
                f"The queue has been shut down and can't take the call of {f!r}"
            )
        if not callable(f) and not isinstance(f, str):
            raise TypeError(f"A callable is needed to queue a call of, not {f!r}")
        if self.maxQueued is not None and self.th.waiting >= self.maxQueued:
            raise QueueFull(
                f"{self.th.waiting} calls are queued, and maxQueued={self.maxQueued}:"
                " wait for the Deferred of ready() before the next call"
            )
        if self._vacancies:
            self._tryAgain()
        task = self._taskOf(f, args, kw) if kw else self.taskFactory.new(f, args, kw, 0)
        return self._outcomes.put(task)

    def ready(self) -> Deferred[None]:
        """
        Wait until the queue has room for a call.

        @return: A Deferred that fires when fewer calls are waiting than C{maxQueued}
            allows, at once if so many aren't. It fails with L{QueueStopped} if the
            queue is shut down before that.

        @raise QueueRunError: If the queue isn't running.
        """
        if not self._running:
            raise QueueRunError("The queue has been shut down and takes no more calls")
        if self.maxQueued is None or self.th.waiting < self.maxQueued:
            return succeed(None)
        d: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(d)
        self.th.assignmentFactory.backlog.onShrink = self._admit
        return d

    def update(
        self,
        f: Callable[..., Any] | str,
        *args: Any,
        ephemeral: bool = False,
        sequential: bool = False,
        **kw: Any,
    ) -> Deferred[list[Any]]:
        """
        Run a call on each worker that is qualified for its series, and first of all on
        each that is attached later.

        @param f: The callable.

        @param args: Positional arguments.

        @param ephemeral: C{True} not to keep it for workers that come later.

        @param sequential: C{True} to run it on one worker after the other.

        @param kw: Keywords. C{series}, C{timeout} and C{raw} are as for L{call}.

        @return: A Deferred that fires with a list of the results, one for each worker
            there is now. Where it failed, the result is text about the failure.

        @raise ValueError: If there is a keyword C{consumer}.

        @raise QueueRunError: If the queue isn't running.

        @raise TypeError: If the callable isn't callable, or the series not hashable.
        """
        if "consumer" in kw:
            raise ValueError("An update can't have a consumer: it runs on every worker")
        if not self._running:
            raise QueueRunError(
                f"The queue has been shut down and can't take the update {f!r}"
            )
        if not callable(f) and not isinstance(f, str):
            raise TypeError(f"A callable is needed for an update, not {f!r}")
        kw = dict(kw)
        series = kw.pop("series", None)
        timeout = kw.pop("timeout", None)
        task = self.taskFactory.new(f, args, kw, 0, series, timeout)
        return self.th.update(task, ephemeral, sequential)

    def map(
        self,
        f: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> Deferred[list[Any]]:
        """
        Call a function for each item of an iterable, or for the first items of
        several, then the second ones, and so on.

        Items go to the workers in chunks, and so many at a time that all have
        something to do, so that the iterable is read as the work goes on.

        @param f: The function. For remote workers, the name of a method.

        @param iterables: Iterables, one for each argument of the function.

        @param chunksize: Items in a chunk. By default it's found by measuring: a chunk
            is to take some milliseconds.

        @param ordered: C{False} for the results in the order in which they come.

        @param progress: Called with the number of items that are done and that of all,
            C{None} if it isn't known. C{True} for a bar by the extra
            C{asynqueue[progress]}.

        @param options: Keywords C{niceness}, C{series}, C{timeout}, C{retries},
            C{retryDelay}, C{doNext}, C{doLast}, which are as for L{call} and hold for
            each chunk.

        @return: A Deferred that fires with the list of results. It fails with the
            first failure, whatever the queue's policy for errors is; the exception has
            a note with the index of the item. When it's cancelled, chunks that haven't
            been started aren't.

        @raise TypeError: If there's no iterable, or an unknown keyword.

        @raise ValueError: If a number is out of range.

        @raise QueueRunError: If the queue isn't running.
        """
        results: list[Any] = []
        d: Deferred[list[Any]] = Deferred(lambda _: mapping.stop())

        def finish(failure: Failure | None) -> None:
            if failure is None:
                d.callback(results)
            else:
                d.errback(failure)

        mapping = self._mapping(
            f,
            iterables,
            options,
            chunksize=chunksize,
            ordered=ordered,
            progress=progressOf(progress),
            deliver=results.extend,
            finish=finish,
        )
        mapping.fill()
        return d

    def imap(
        self,
        f: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> Deferator:
        """
        Call a function for each item as L{map} does, and get the results one after the
        other. The input may be endless: it's read so far as results are taken.

        @param f: See L{map}, as for the others.

        @param iterables: See there.

        @param chunksize: See there.

        @param ordered: See there.

        @param progress: See there.

        @param options: See there.

        @return: An iterator of Deferreds, and an asynchronous iterator, of the results.
            After the results of the items before it, it fails as the item did.

        @raise TypeError: If there's no iterable, or an unknown keyword.

        @raise ValueError: If a number is out of range.

        @raise QueueRunError: If the queue isn't running.
        """
        source = BufferedSource(
            lambda count: mapping.taken(count), lambda: mapping.stop()
        )

        def finish(failure: Failure | None) -> None:
            if failure is None:
                source.end()
            else:
                source.fail(failure)

        mapping = self._mapping(
            f,
            iterables,
            options,
            chunksize=chunksize,
            ordered=ordered,
            progress=progressOf(progress),
            deliver=source.push,
            finish=finish,
            most=_MOST_UNTAKEN,
        )
        mapping.fill()
        return Deferator(source)

    def subscribe(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer whenever it changes: the number of calls that are
        queued or running, and have no result yet.

        @param consumer: The consumer; it is written C{int}s.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.
        """
        self.q.subscribe(consumer)

    def cancelSeries(self, series: Hashable) -> list[Task]:
        """
        Take out all waiting calls of a series, also those that wait for a further
        attempt. Their Deferreds fail with C{CancelledError}.

        @param series: The series.

        @return: The tasks.
        """
        delayed = [task for task in self._outcomes.delayed if task.series == series]
        return self.q.cancelSeries(series) + self._cancel(delayed)

    def cancelAll(self) -> list[Task]:
        """
        Take out all waiting calls, also those that wait for a further attempt. Their
        Deferreds fail with C{CancelledError}.

        @return: The tasks.
        """
        delayed = self._outcomes.delayed
        return self.q.cancelAll() + self._cancel(delayed)

    def shutdown(
        self, drain: bool = False, timeout: float | None = None
    ) -> Deferred[list[Task]]:
        """
        Take no more calls, and let all workers go once they have run what they have
        accepted. Must be done before the reactor stops.

        @param drain: C{True} to run all that is queued first, as far as there are
            workers for it. Else, the Deferreds of calls that no worker has accepted
            fail with L{QueueStopped}.

        @param timeout: Seconds for all that, after which workers are crashed. The
            Deferreds of calls that they were running fail with L{WorkerLost}. By
            default as it was given to the queue.

        @return: A Deferred that fires when all workers have gone, with a list of the
            tasks left unfinished. Calling again gives the same, sooner if a C{timeout}
            is given that is up before that of the first call.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        if self._unfinished is not None:
            return succeed(list(self._unfinished))
        d: Deferred[list[Task]] = Deferred()
        if self._stopping is not None:
            self._stopping.append(d)
            if timeout is not None:
                self._hurry(timeout)
            if not drain:
                self._stopDraining()
            return d
        self._running = False
        self._stopping = [d]
        timeout = self.timeout if timeout is None else timeout
        if timeout is not None:
            self._deadline = orGlobalReactor(self._reactor).seconds() + timeout
        self._refuseWaiters()
        self._draining = True
        if drain and self._canDrain():
            self._outcomes.onFinished = self._checkDrained
            if timeout is not None:
                self._drainFor(timeout)
        else:
            self._stopDraining()
        return d

    def makeTask(
        self, f: Any, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> tuple[Task, Deferred[Any]]:
        """
        Queue a call, and tell its task, too.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: The queue's own keywords.

        @return: The task, and the Deferred that L{call} would have returned.

        @raise QueueRunError: If the queue isn't running.
        """
        if not self._running:
            raise QueueStopped(f"The queue was shut down before all calls of {f!r}")
        task = self._taskOf(f, args, dict(kw))
        return task, self._outcomes.put(task)

    def room(self) -> Deferred[None] | None:
        """
        Tell whether the queue has room for a call.

        @return: C{None} if it has, or is shut down. Else, a Deferred as from L{ready}.
        """
        if (
            self._running
            and self.maxQueued is not None
            and self.th.waiting >= self.maxQueued
        ):
            return self.ready()
        return None

    def _mapping(
        self,
        f: Any,
        iterables: tuple[Iterable[Any], ...],
        options: dict[str, Any],
        *,
        chunksize: int | None,
        **kw: Any,
    ) -> Mapping:
        """
        Make a mapping.

        @param f: The function.

        @param iterables: Where the arguments come from.

        @param options: Keywords for L{call}.

        @param chunksize: Items in a chunk.

        @param kw: Further keywords of L{Mapping}.

        @return: The mapping.
        """
        if not self._running:
            raise QueueRunError(
                f"The queue has been shut down and can't map {f!r} over anything"
            )
        if not callable(f) and not isinstance(f, str):
            raise TypeError(f"A callable is needed to map over items, not {f!r}")
        if not iterables:
            raise TypeError(f"Items are needed to map {f!r} over")
        for iterable in iterables:
            iter(iterable)
        unknown = options.keys() - (OWN_KEYWORDS - {"returnFailure"})
        if unknown:
            raise TypeError(f"Unknown keywords for a map: {', '.join(sorted(unknown))}")
        if chunksize is not None:
            checkCount("chunksize", chunksize, 1)
        options = {**options, "returnFailure": None}
        self._taskOf(f, (), dict(options))  # To complain here, if at all.
        return Mapping(self, f, iterables, options, chunksize=chunksize, **kw)

    def _taskOf(
        self, f: Callable[..., Any] | str, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Task:
        """
        Make a task of a call with keywords.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Keywords, those of the queue among them.

        @return: The task.
        """
        consumer = kw.get("consumer", _UNSET)
        if consumer is None:
            del kw["consumer"]
        elif consumer is not _UNSET and not IConsumer.providedBy(consumer):
            raise ImplementationError(
                f"The consumer {consumer!r} doesn't provide IConsumer: is its class"
                " marked with @implementer(IConsumer)?"
            )
        if OWN_KEYWORDS.isdisjoint(kw):
            return self.taskFactory.new(f, args, kw, 0)
        own = {name: kw.pop(name) for name in OWN_KEYWORDS.intersection(kw)}
        timeout = own.get("timeout")
        options = self._defaults.optionsOf(own, timeout)
        task = self.taskFactory.new(
            f, args, kw, own.get("niceness", 0), own.get("series"), timeout
        )
        task.options = options
        if own.get("doNext"):
            task.rush()
        elif own.get("doLast"):
            task.relax()
        return task

    def _fail(self, tasks: list[Task]) -> list[Task]:
        """
        Fail the Deferreds of tasks that were left unfinished.

        @param tasks: The tasks.

        @return: The same.
        """
        for task in tasks:
            if task.accepted:
                task.errback(
                    WorkerLost(
                        f"The worker of {task!r} was let go before it was done",
                        task=task,
                    )
                )
            else:
                task.errback(notRun(task))
        return tasks

    def _cancel(self, tasks: list[Task]) -> list[Task]:
        """
        Cancel tasks.

        @param tasks: The tasks.

        @return: The same.
        """
        for task in tasks:
            task.d.cancel()
        return tasks

    def _hasLeft(self, unfinished: list[Task]) -> list[Task]:
        """
        Note that a worker has gone.

        @param unfinished: The tasks that it has left unfinished.

        @return: The same.
        """
        self._fail(unfinished)
        self._checkDrained()
        return unfinished

    def _workerGone(self, worker: Any) -> None:
        """
        Hire a worker in place of one that has resigned, if it names one.

        @param worker: The one that has gone.
        """
        if self._outcomes.accepting and IReplaceableWorker.providedBy(worker):
            self._replace(worker)
        self._checkDrained()

    def _workerRefused(self, worker: Any, failure: Failure) -> None:
        """
        Fail the tasks that only a worker could have run that can't be connected.

        @param worker: The worker.

        @param failure: Why it can't.
        """
        if IReplaceableWorker.providedBy(worker):
            self._vacancies.append(worker)
        for task in self.th.withdraw(self._unserved):
            task.errback(failure)
        self._checkDrained()

    def _replace(self, worker: Any) -> None:
        """
        Hire a worker in place of one, if it names another.

        @param worker: The one that has gone.
        """
        try:
            replacement = worker.replacement()
            if replacement is not None:
                self.th.hire(replacement).addErrback(lambda _: None)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            failure = Failure()
            log.failure("{worker} is lost and isn't replaced", failure, worker=worker)
            if IReplaceableWorker.providedBy(worker):
                self._vacancies.append(worker)
            for task in self.th.withdraw(self._unserved):
                task.errback(failure)

    def _tryAgain(self) -> None:
        """
        Hire workers in place of those that were not replaced: there may be some use in
        it now.
        """
        vacancies, self._vacancies = self._vacancies, []
        for worker in vacancies:
            self.th.hire(worker.retryReplacement()).addErrback(lambda _: None)

    def _unserved(self, task: Task) -> bool:
        """
        Tell whether there's no worker for a task.

        @param task: The task.

        @return: Whether there's none.
        """
        return not self.th.roster(task.series)

    def _admit(self) -> None:
        """
        Tell those who wait for room that there is some, one after the other.
        """
        while self._waiters and (
            self.maxQueued is None or self.th.waiting < self.maxQueued
        ):
            self._waiters.popleft().callback(None)
        if not self._waiters:
            self.th.assignmentFactory.backlog.onShrink = None

    def _refuseWaiters(self) -> None:
        """
        Tell those who wait for room that there will be none.
        """
        while self._waiters:
            self._waiters.popleft().errback(
                QueueStopped("The queue was shut down before it had room for a call")
            )

    def _checkDrained(self) -> None:
        """
        Go on with the shutdown when no call is left that could be run.
        """
        if self._draining and not self._canDrain():
            self._stopDraining()

    def _canDrain(self) -> bool:
        """
        Tell whether any call is running, or waits and can be run.

        @return: Whether one does.
        """
        waiting = self.th.waiting
        if self.q.loadInfoProducer.load > waiting:
            return True
        series = self.th.assignmentFactory.backlog.waiting() if waiting else []
        return any(map(self.th.roster, series))

    def _hurry(self, timeout: float) -> None:
        """
        Have a shutdown that goes on be over sooner, unless it will be anyway.

        @param timeout: Seconds from now.
        """
        deadline = orGlobalReactor(self._reactor).seconds() + timeout
        if self._deadline is not None and self._deadline <= deadline:
            return
        self._deadline = deadline
        if self._draining:
            self._drainFor(timeout)
        else:
            self.q.shutdown(timeout)

    def _drainFor(self, timeout: float) -> None:
        """
        Go on to let the workers go after some time, whatever is queued then.

        @param timeout: Seconds from now.
        """
        if self._drainTimer is not None:
            self._drainTimer.cancel()
        self._drainTimer = orGlobalReactor(self._reactor).callLater(
            timeout, self._stopDraining
        )

    def _stopDraining(self) -> None:
        """
        Go on to let the workers go.
        """
        if not self._draining:
            return
        self._draining = False
        timer, self._drainTimer = self._drainTimer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._outcomes.accepting = False
        waiting = self.th.withdraw(lambda task: True) + self._outcomes.delayed
        self._fail(waiting)
        timeout = None
        if self._deadline is not None:
            now = orGlobalReactor(self._reactor).seconds()
            timeout = max(0.0, self._deadline - now)
        self.q.shutdown(timeout).addCallback(self._hasShutDown, waiting)

    def _hasShutDown(self, unfinished: list[Task], waiting: list[Task]) -> None:
        """
        Tell all who wait for the shutdown.

        @param unfinished: Tasks that workers left unfinished.

        @param waiting: Tasks that no worker had accepted.
        """
        self._unfinished = waiting + self._fail(unfinished)
        stopping, self._stopping = self._stopping or [], None
        for d in stopping:
            d.callback(list(self._unfinished))
