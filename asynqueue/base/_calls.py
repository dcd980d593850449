"""
Calls, whose results come as Deferreds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import AwaitableDeferred, awaitable
from .._support.checks import checkConsumer, checkCount, checkFlag
from .._support.reactor import orGlobalReactor
from ..errors import QueueRunError, QueueStopped
from ..iteration import Deferator
from ..iteration._sources import BufferedSource
from ..tasks import Task, TaskFactory, TaskHandler
from ._admission import Admission
from ._mapping import Mapping, Progress, progressOf
from ._options import (
    UNSET,
    Defaults,
    RetryDelay,
    TaskOptions,
    takesKeyword,
    warnOfSameNames,
)
from ._policy import ErrorPolicy
from ._queue import Queue
from ._replacing import Replacing
from ._results import Results

__all__ = ["Calls"]

#: So many results of an C{imap} may wait to be taken before more chunks are queued.
_MAX_UNTAKEN = 1_000

#: The queue's own keywords that hold for each chunk of a map.
_MAP_OPTIONS = frozenset(
    [
        "doLast",
        "doNext",
        "name",
        "niceness",
        "retries",
        "retryDelay",
        "series",
        "timeout",
    ]
)


def _option(name: str) -> Any:
    """
    An attribute that is a field of the queue's defaults.
    """

    def get(self: Calls) -> Any:
        return getattr(self._defaults, name)

    def put(self: Calls, value: Any) -> None:
        setattr(self._defaults, name, value)
        self._setLogLevel()

    return property(get, put)


class Calls:
    """
    The half of a L{TaskQueue} that takes calls.

    @ivar q: The L{Queue}.

    @ivar th: The L{TaskHandler}.

    @ivar taskFactory: What makes the tasks.
    """

    # Not set in __init__, so that subclasses may have set theirs before.
    name: str | None = None
    warn: bool = _option("warn")
    verbose: bool = _option("verbose")
    spew: bool = _option("spew")
    returnFailure: bool | None = _option("returnFailure")

    def __init__(
        self, defaults: Defaults, maxQueued: int | None, reactor: IReactorTime | None
    ) -> None:
        """
        @param defaults: What holds for calls of which nothing else is said.

        @param maxQueued: How many calls may wait, or C{None}.

        @param reactor: The clock. By default, the global reactor.
        """
        self._defaults = defaults
        self._setLogLevel()
        self._running = True
        self._reactor = reactor
        self.taskFactory = TaskFactory(reactor=reactor)
        self.th = TaskHandler(reactor=reactor)
        self.q = Queue(self.th)
        self._policy = ErrorPolicy(defaults, reactor)
        self._results = Results(
            defaults,
            self._policy,
            lambda task: self.th(task),
            self.q.loadInfoProducer.oneLess,
            self.q.watcher,
            reactor,
        )
        # Made once: a bound method for each task that waits would take 64 bytes.
        self._resolve = self._results.resolve
        self._admission = Admission(self.th, maxQueued, self.q.watcher, reactor)
        self._replacing = Replacing(self.th, self.q.watcher)
        self.th.onEvent = self.q.watcher.observers.tell

    @property
    def maxQueued(self) -> int | None:
        """
        How many calls may wait, or C{None}.
        """
        return self._admission.maxQueued

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes calls.

        @return: C{False} once it is being shut down.
        """
        return self._running

    def call(
        self,
        f: Callable[..., Any] | str,
        /,
        *args: Any,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = UNSET,
        name: Any = UNSET,
        raw: bool | None = None,
        consumer: IConsumer | None = None,
        **kw: Any,
    ) -> Deferred[Any]:
        """
        Queue a call. The keywords that are named here are the queue's own, and never
        reach the callable; C{functools.partial} passes one on to it.

        @param f: The callable, or for remote workers the name of a method.

        @param args: Positional arguments.

        @param niceness: From -20 (first) to 20 (last).

        @param series: The series, any hashable. Only workers qualified for it run the
            call. All are for C{None}.

        @param doNext: C{True} to run it before everything else.

        @param doLast: C{True} to run it after everything else.

        @param timeout: Seconds that it may run, from when a worker starts it. The work
            is then stopped. C{None}, or 0, for any time.

        @param within: Seconds from now within which there must be a result, waiting
            and further attempts included.

        @param retries: How many further attempts there are when its time is up or its
            worker is lost.

        @param retryDelay: Seconds before each, or a callable that is given its number,
            from 1.

        @param returnFailure: As for the queue. C{None} for the Deferred to fail with
            the task's own exception.

        @param name: What the call is called in messages, statistics and events. If the
            callable itself takes a keyword C{name}, it gets that; so do methods of
            remote workers.

        @param raw: C{True} for an iterator to come back as it is.

        @param consumer: A consumer for the items of an iterator that the call returns.

        @param kw: The callable's keywords.

        @return: A Deferred that fires with what the call returns: a
            L{Deferator<asynqueue.iteration.Deferator>} for an iterator, or with the
            consumer once it has all the items. It can be cancelled.

            Whatever happens, it fires exactly once. It fails with
            L{TimeoutError<asynqueue.errors.TimeoutError>} when its time is up,
            L{WorkerLost<asynqueue.errors.WorkerLost>} when its worker has gone while it
            may have been running, L{QueueStopped<asynqueue.errors.QueueStopped>} when
            the queue is shut down before it has run, C{CancelledError} when it's
            cancelled, L{SerializationError<asynqueue.errors.SerializationError>} when
            it can't be sent to where it's to be run.

        @raise QueueRunError: If the queue isn't running.

        @raise QueueFull: If C{maxQueued} calls are waiting. See L{ready}.

        @raise TypeError: If the callable isn't callable, or the series not hashable.

        @raise ValueError: If a number is out of range.

        @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.
        """
        if not self._running:
            self._refuse(f"the call of {f!r}")
        if not callable(f):
            self._checkName(f)
        if self._admission.maxQueued is not None:
            self._admission.check()
        if name is UNSET:
            name = None
        elif takesKeyword(f, "name"):
            kw["name"], name = name, None
        if raw is not None:
            checkFlag("raw", raw)
            kw["raw"] = raw
        if consumer is not None:
            checkConsumer(consumer)
            kw["consumer"] = consumer
        if (
            niceness or timeout or within or doNext or doLast or series is not None
        ) or (retries, retryDelay, returnFailure, name) != (None, None, UNSET, None):
            options = TaskOptions(
                niceness,
                series,
                doNext,
                doLast,
                timeout,
                within,
                retries,
                retryDelay,
                returnFailure,
                name,
            )
            warnOfSameNames(
                f, {"retries": retries, "retryDelay": retryDelay, "within": within}
            )
            task = options.makeTask(self.taskFactory, f, args, kw)
        else:
            task = self.taskFactory.new(f, args, kw, 0)
        if self._replacing.unreplaced:
            self._replacing.retry()
        task.resolve = self._resolve
        d = task.d
        self.q.put(task)
        if within:
            self._limit(d, within)
        return d

    def ready(self) -> Deferred[None]:
        """
        Wait until the queue has room for a call.

        @return: A Deferred that fires when fewer calls are waiting than C{maxQueued}
            allows, at once if so many aren't. Each place is given to one who waits,
            and to the next one if that one doesn't make a call then. It fails with
            L{QueueStopped<asynqueue.errors.QueueStopped>} if the queue is shut down
            before that.

        @raise QueueRunError: If the queue isn't running.
        """
        if not self._running:
            self._refuse("any more calls")
        return self._admission.wait()

    def update(
        self,
        f: Callable[..., Any] | str,
        /,
        *args: Any,
        ephemeral: bool = False,
        sequential: bool = False,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = UNSET,
        name: Any = UNSET,
        raw: bool | None = None,
        consumer: None = None,
        **kw: Any,
    ) -> Deferred[list[Any]]:
        """
        Run a call on each worker that is qualified for its series, and first of all on
        each that is attached later.

        @param f: The callable.

        @param args: Positional arguments.

        @param ephemeral: C{True} not to keep it for workers that come later.

        @param sequential: C{True} to run it on one worker after the other.

        @param series: As for L{call}, like C{timeout}, C{name} and C{raw}. The other
            keywords of a call are accepted, but an update is run at once, and once.

        @param kw: The callable's keywords.

        @return: A Deferred that fires with a list of the results, one for each worker
            there is now. Where it failed, the result is text about the failure.

        @raise ValueError: If there is a consumer.

        @raise QueueRunError: If the queue isn't running.

        @raise TypeError: If the callable isn't callable, or the series not hashable.
        """
        if consumer is not None:
            raise ValueError("An update can't have a consumer: it runs on every worker")
        if not self._running:
            self._refuse(f"the update {f!r}")
        if not callable(f):
            self._checkName(f)
        if name is UNSET:
            name = None
        elif takesKeyword(f, "name"):
            kw["name"], name = name, None
        if raw is not None:
            checkFlag("raw", raw)
            kw["raw"] = raw
        options = TaskOptions(
            niceness,
            series,
            doNext,
            doLast,
            timeout,
            None,
            retries,
            retryDelay,
            returnFailure,
            name,
        )
        task = options.makeTask(self.taskFactory, f, args, kw)
        return awaitable(self.th.update(task, ephemeral, sequential))

    def map(
        self,
        f: Callable[..., Any] | str,
        /,
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

        @param ordered: C{False} for the results as they finish.

        @param progress: Called with the number of items that are done and that of all,
            C{None} if it isn't known. C{True} for a bar by the extra
            C{asynqueue[progress]}. If it raises, the map fails with that.

        @param options: Keywords C{niceness}, C{series}, C{timeout}, C{retries},
            C{retryDelay}, C{doNext}, C{doLast}, C{name}, which are as for L{call} and
            hold for each chunk.

        @return: A Deferred that fires with the list of results. It fails with the
            first failure, whatever the queue's policy for errors is; the exception has
            a note with the index of the item. When it's cancelled, chunks that haven't
            been started aren't.

        @raise TypeError: If there's no iterable, or an unknown keyword.

        @raise ValueError: If a number is out of range.

        @raise QueueRunError: If the queue isn't running.
        """
        results: list[Any] = []
        d: Deferred[list[Any]] = AwaitableDeferred(lambda _: mapping.stop())

        def finish(failure: Failure | None) -> None:
            if failure is None:
                d.callback(results)
            else:
                d.errback(failure)

        mapping = self._mapping(
            f,
            iterables,
            options,
            chunksize,
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
        /,
        *iterables: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> Deferator[Any]:
        """
        Call a function for each item as L{map} does, and get the results one after the
        other. The input may be endless: it's read as far as results are taken.

        The parameters are those of L{map}.

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
            chunksize,
            ordered=ordered,
            progress=progressOf(progress),
            deliver=source.push,
            finish=finish,
            maxUntaken=_MAX_UNTAKEN,
        )
        mapping.fill()
        return Deferator(source)

    def _setLogLevel(self) -> None:
        """
        Have what is to be logged reach handlers of the standard logger.
        """
        if self._defaults.spew:
            logging.getLogger("asynqueue").setLevel(logging.INFO)
        elif self._defaults.warn:
            logging.getLogger("asynqueue").setLevel(logging.ERROR)

    def _refuse(self, what: str) -> NoReturn:
        name = f" {self.name!r}" if self.name else ""
        raise QueueRunError(f"The queue{name} has been shut down and can't take {what}")

    def _checkName(self, f: Any) -> None:
        if not isinstance(f, str):
            raise TypeError(f"A callable is needed, or a method's name, not {f!r}")

    def _limit(self, d: Deferred[Any], within: float) -> None:
        """
        Have a call fail that has no result in time.
        """
        if not d.called:
            timer = orGlobalReactor(self._reactor).callLater(
                within, self._results.expire, d, within
            )
            d.addBoth(_stopTimer, timer)

    def _mapping(
        self,
        f: Callable[..., Any] | str,
        iterables: tuple[Iterable[Any], ...],
        options: dict[str, Any],
        chunksize: int | None,
        **kw: Any,
    ) -> Mapping:
        if not self._running:
            self._refuse(f"a map of {f!r}")
        if not callable(f):
            self._checkName(f)
        if not iterables:
            raise TypeError(f"Items are needed to map {f!r} over")
        if chunksize is not None:
            checkCount("chunksize", chunksize, 1)
        unknown = options.keys() - _MAP_OPTIONS
        if unknown:
            raise TypeError(f"Unknown keywords for a map: {', '.join(sorted(unknown))}")
        # Errors come as they are: the mapping has to know.
        checked = TaskOptions(**options, returnFailure=None)

        def submit(f: Any, args: tuple[Any, ...]) -> Task:
            if not self._running:
                raise QueueStopped(f"The queue was shut down before all calls of {f!r}")
            task = checked.makeTask(self.taskFactory, f, args, {})
            self._admission.take()
            self._replacing.retry()
            task.resolve = self._resolve
            self.q.put(task)
            return task

        checked.makeTask(TaskFactory(), f, (), {})  # To complain here, if at all.
        return Mapping(
            submit,
            self._roomForChunk,
            self._concurrency,
            f,
            iterables,
            chunksize=chunksize,
            **kw,
        )

    def _concurrency(self) -> int:
        """
        Count the calls that keep all workers busy.
        """
        return sum(getattr(w, "concurrency", 1) for w in self.th.workers.values())

    def _roomForChunk(self) -> Deferred[None] | None:
        """
        Return None if there's room for a call, or a Deferred that fires when there is.
        """
        if not self._running or self.maxQueued is None:
            return None
        if self.th.waiting < self.maxQueued:
            return None
        return self._admission.wait()


def _stopTimer(result: Any, timer: IDelayedCall) -> Any:
    if timer.active():
        timer.cancel()
    return result
