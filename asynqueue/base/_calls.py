"""Calls, whose results come as Deferreds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sized
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime

from .._support.checks import checkConsumer, checkFlag
from ..errors import QueueRunError
from ..iteration import Deferator
from ..tasks import Task, TaskFactory, TaskHandler
from ._admission import Admission
from ._options import (
    UNSET,
    CallOptions,
    Defaults,
    RetryDelay,
    takesKeyword,
    warnOfSameNames,
)
from ._queue import Queue
from ._replacing import Replacing
from ._results import Results

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: What is certainly neither an iterator nor a coroutine.
_Plain = TypeVar("_Plain", bound="int | float | complex | Sized | None")


def _option(name: str) -> Any:
    """An attribute that is a field of the queue's defaults."""

    def get(self: Calls) -> object:
        return getattr(self._defaults, name)

    def put(self: Calls, value: object) -> None:
        setattr(self._defaults, name, value)
        self._setLogLevel()

    return property(get, put)


class Calls:
    """The half of a L{TaskQueue} that takes calls."""

    # Not set in __init__, so that subclasses may have set theirs before.
    name: str | None = None
    warn: bool = _option("warn")
    verbose: bool = _option("verbose")
    spew: bool = _option("spew")
    returnFailure: bool | None = _option("returnFailure")

    def __init__(
        self, defaults: Defaults, maxQueued: int | None, reactor: IReactorTime | None
    ) -> None:
        self._defaults = defaults
        self._setLogLevel()
        self._running = True
        self.taskFactory = TaskFactory(reactor=reactor)
        self.th = TaskHandler(reactor=reactor)
        self.q = Queue(self.th)
        self._results = Results(defaults, self.q, self._queueAgain, reactor)
        self._limit = self._results.limit
        # Made once: a bound method for each task that waits would take 64 bytes.
        self._resolve = self._results.resolve
        self._admission = Admission(self.q, maxQueued, reactor)
        self._replacing = Replacing(self.q, self._results.callsChanged, reactor)
        self.th.onEvent = self.q.watcher.observers.tell

    @property
    def maxQueued(self) -> int | None:
        """How many calls may wait, or C{None}."""
        return self._admission.maxQueued

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes calls.

        @return: C{False} once it is being shut down.
        """
        return self._running

    # Nothing is said of the arguments: no type can have both those of the callable and
    # the queue's own keywords. With functools.partial, they are checked. The first two
    # of each pair that could match say Callable[_P, ...], not (...): else an overloaded
    # function that returns Any for some arguments, such as pow, would match all, and
    # mypy would take the result for Any.

    @overload
    def call(
        self, f: Callable[_P, _Plain], /, *args: _P.args, **kw: _P.kwargs
    ) -> Deferred[_Plain]: ...
    @overload
    def call(
        self,
        f: Callable[_P, Coroutine[Any, Any, _T] | Deferred[_T]],
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = ...,
        name: str | None = ...,
        raw: bool | None = None,
        consumer: None = None,
        **kw: object,
    ) -> Deferred[_T]: ...
    @overload
    def call(
        self,
        f: Callable[_P, Iterator[_T]],
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = ...,
        name: str | None = ...,
        raw: Literal[False] | None = None,
        consumer: None = None,
        **kw: object,
    ) -> Deferred[Deferator[_T]]: ...
    @overload
    def call(
        self,
        f: Callable[..., _T],
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = ...,
        name: str | None = ...,
        raw: bool | None = None,
        consumer: None = None,
        **kw: object,
    ) -> Deferred[_T]: ...
    @overload
    def call(
        self,
        f: Callable[..., object] | str,
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = ...,
        name: str | None = ...,
        raw: bool | None = None,
        consumer: _T,
        **kw: object,
    ) -> Deferred[_T]: ...
    @overload
    def call(
        self,
        f: str,
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = ...,
        name: str | None = ...,
        raw: bool | None = None,
        consumer: None = None,
        **kw: object,
    ) -> Deferred[Any]: ...
    def call(  # type: ignore[misc]  # it takes what the first and fifth do, too
        self,
        f: Callable[..., object] | str,
        /,
        *args: object,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        within: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = UNSET,
        name: str | None = UNSET,
        raw: bool | None = None,
        consumer: IConsumer | None = None,
        **kw: object,
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
        if raw is None and name is UNSET:
            name = None
        else:
            name = self._takeOwn(f, name, raw, kw)
        if consumer is not None:
            checkConsumer(consumer)
            kw["consumer"] = consumer
        if (
            niceness or timeout or within or doNext or doLast or series is not None
        ) or (retries, retryDelay, returnFailure, name) != (None, None, UNSET, None):
            options = CallOptions(
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
        d = task.d
        self._put(task)
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

    def _takeOwn(
        self, f: object, name: str | None, raw: bool | None, kw: dict[str, object]
    ) -> str | None:
        """Add keywords that callable or worker are given. Returns the call's name."""
        if raw is not None:
            checkFlag("raw", raw)
            kw["raw"] = raw
        if name is UNSET:
            return None
        if takesKeyword(f, "name"):
            kw["name"], name = name, None
        return name

    def _put(self, task: Task) -> None:
        """Queue the task of a call."""
        task.resolve = self._resolve
        self.q.put(task)
        if self._replacing.unreplaced:
            self._replacing.retry()
        if not self._running:  # An observer has shut the queue down.
            self._results.callsChanged()

    def _queueAgain(self, task: Task) -> None:
        self.th(task)
        if self._replacing.unreplaced:
            self._replacing.retry()

    def _setLogLevel(self) -> None:
        """Have what is to be logged reach handlers of the standard logger."""
        if self._defaults.spew:
            logging.getLogger("asynqueue").setLevel(logging.INFO)
        elif self._defaults.warn:
            logging.getLogger("asynqueue").setLevel(logging.ERROR)

    def _refuse(self, what: str) -> NoReturn:
        name = f" {self.name!r}" if self.name else ""
        raise QueueRunError(f"The queue{name} has been shut down and can't take {what}")

    def _checkName(self, f: object) -> None:
        if not isinstance(f, str):
            raise TypeError(f"A callable is needed, or a method's name, not {f!r}")
