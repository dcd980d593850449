"""The task: one call, its place in the order, and the Deferred of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextvars import Context
from itertools import count
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.describe import PLAIN, callText
from .._child.status import Status, StatusResult
from .._support.awaitable import AwaitableDeferred
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..interfaces import ITask

#: Returned by a task's C{resolve}: another task has the Deferred now.
RETRIED = object()

#: Numbers all tasks in the order of their making, to break ties of priority.
_orders = count(1)


class Owner(Protocol):
    """Who has a task at the moment: what it waits in, or the worker that runs it."""

    def cancelTask(self, task: Task) -> None:
        """Drop the task, stopping the work on it where possible."""


class Watch(Protocol):
    """Notes what becomes of a task."""

    #: Seconds that the task was run, if the worker has measured them where it ran.
    seconds: float | None

    #: Headers that carry the context of a trace to where C{context} can't go; C{None}
    #: if there's none.
    @property
    def headers(self) -> dict[str, str] | None: ...

    def started(self, task: Task) -> None:
        """Note that a worker has accepted the task."""

    def done(self, task: Task) -> None:
        """Note that the call has its result."""


class _ResultDeferred(AwaitableDeferred[Any]):
    """
    The Deferred of a task.

    A worker may fire it with a status and a result, or a failure, which is the same as
    giving them to the task: the call's result is made of them before any callback sees
    anything.

    The canceller is one function for all, L{_cancelled}. A bound method of each would
    take 64 bytes for each task that waits.
    """

    #: The task whose result is still to come. C{None} afterwards, so that no cycle is
    #: left for the garbage collector.
    task: Task | None = None

    #: A Deferred whose result is to be this one's.
    inner: Deferred[Any] | None = None

    #: Within how many seconds that should have had one, if it hasn't.
    expired: float | None = None

    def callback(self, result: Any) -> None:
        if self.task is None:
            super().callback(result)
        else:
            self.task.callback(result)

    def errback(self, fail: Failure | BaseException | None = None) -> None:
        if self.task is None:
            super().errback(fail)
        else:
            self.task.callback(fail if isinstance(fail, Failure) else Failure(fail))

    def fire(self, result: object) -> None:
        """Fire with a result, as if a callback had returned it."""
        if self.called:
            return
        if isinstance(result, Deferred):
            self.inner = result
            result.addBoth(self._innerFired)
        elif isinstance(result, Failure):
            super().errback(result)
        else:
            super().callback(result)

    def _innerFired(self, result: object) -> None:
        self.inner = None
        self.fire(result)


def _cancelled(d: Any) -> None:
    """Stop the work on the task of a Deferred that is being cancelled."""
    if d.inner is not None:
        d.inner.cancel()
    elif d.task is not None:
        d.task.cancel()


@implementer(ITask)
class Task:
    """
    A call that waits to be run, or is being run, by a worker.

    Tasks are ordered by priority, lower first, then by age. Equality and hash are
    identity.

    @ivar priority: A number; the lower it is, the sooner the task is run.

    @ivar series: The series that the task belongs to.

    @ivar timeout: Seconds that the task may run, or C{None}.

    @ivar d: A Deferred that fires with the status and the result, or with what the
        queue makes of them, and then with whatever its callbacks make of that.
    """

    # A million tasks may wait: slots save about 200 bytes for each. __dict__ is made
    # only for a task that somebody sets another attribute on.
    __slots__ = (
        "__dict__",
        "_args",
        "_callbacks",
        "_f",
        "_kw",
        "_reactor",
        "_timer",
        "accepting",
        "attempt",
        "context",
        "d",
        "direct",
        "options",
        "order",
        "owner",
        "priority",
        "resolve",
        "series",
        "startedAt",
        "timeout",
        "watch",
        "worker",
    )

    # Whether it's an update that workers to come will run, too. Only copies of updates
    # have it otherwise, so it isn't a slot.
    isLasting = False

    def __init__(
        self,
        f: Any,
        args: tuple[Any, ...] | list[Any],
        kw: dict[str, Any],
        priority: float,
        series: Hashable,
        timeout: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param f: The callable, or for remote workers the name of a method.

        @param args: Positional arguments.

        @param kw: Keywords. The task keeps the dict itself and never changes it.

        @param priority: The priority; lower is sooner.

        @param series: The series, any hashable.

        @param timeout: Seconds that the task may run once a worker has accepted it,
            C{None} for no limit.

        @param reactor: The clock of the timeout. By default, the global reactor.

        @raise TypeError: If C{args} isn't a tuple or list, or C{kw} not a dict.
        """
        if args.__class__ is not tuple:
            if not isinstance(args, (tuple, list)):
                raise TypeError(f"args must be a tuple or a list, not {args!r}")
            args = tuple(args)
        if not isinstance(kw, dict):
            raise TypeError(f"kw must be a dict, not {kw!r}")
        self._f = f
        self._args: tuple[Any, ...] = args
        self._kw = kw
        self.priority = priority
        # Breaks ties of priority.
        self.order = next(_orders)
        self.series = series
        self.timeout = timeout
        # Who drops the task when it's cancelled. Set by whoever takes it.
        self.owner: Owner | None = None
        # Which worker has accepted it; and when, by perf_counter, unless it was done at
        # once.
        self.worker: Any = None
        self.startedAt = 0.0
        # Told of what becomes of it; None for most.
        self.watch: Watch | None = None
        # Whether it's for one certain worker, as an update is.
        self.direct = False
        # Fires when a worker accepts it, None if nobody waits for that. An Assignment
        # is made only then: it would be one object more for each task that waits, for
        # the garbage collector to look at.
        self.accepting: Deferred[Any] | None = None
        # The caller's context variables, None if there were none.
        self.context: Context | None = None
        # How many tasks of the same call there were before this one.
        self.attempt = 0
        # The options of the call, for whoever resolves the result.
        self.options: Any = None
        # Called with the status/result pair or a failure, and the task. The Deferred
        # fires with what it returns, unless that is RETRIED. A callback would take
        # 340 bytes more for each task that waits.
        self.resolve: Callable[[Any, Task], object] | None = None
        self._callbacks: list[tuple[Any, Any, Any]] | None = None
        self._timer: IDelayedCall | None = None
        self._reactor = reactor
        self.d = _ResultDeferred(_cancelled)
        self.d.task = self

    def __lt__(self, other: Task | None) -> bool:
        """Compare by priority, then by age. Any task is less than C{None}."""
        if other is None:
            return True
        if not isinstance(other, Task):
            return NotImplemented
        return (self.priority, self.order) < (other.priority, other.order)

    def __gt__(self, other: Task | None) -> bool:
        """Compare the other way round, so that C{None < task} is C{False}."""
        if other is None:
            return False
        if not isinstance(other, Task):
            return NotImplemented
        return other < self

    def __repr__(self) -> str:
        """Name the call."""
        name = f"{self.name!r} " if self.name else ""
        return f"<Task {name}{callText(*self.callTuple)}>"

    @property
    def callTuple(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """The callable, its positional arguments, and its keywords."""
        return self._f, self._args, self._kw

    @callTuple.setter
    def callTuple(self, value: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> None:
        self._f, self._args, self._kw = value

    @property
    def accepted(self) -> bool:
        """Whether a worker has accepted the task."""
        return self.worker is not None

    @property
    def name(self) -> str | None:
        """The name that was given to the call, C{None} if it has none."""
        name: str | None = getattr(self.options, "name", None)
        return name

    @property
    def hasResult(self) -> bool:
        """Whether the task has its result, so that another one is ignored."""
        return self.d.task is not self or self.d.called

    def copy(self) -> Task:
        """
        Make a task of the same call, with the same callbacks but a Deferred and a
        dict of keywords of its own.
        """
        task = self._another(dict(self._kw))
        for callback, args, kw in self._callbacks or ():
            task.addCallback(callback, *args, **kw)
        return task

    def nextAttempt(self) -> Task:
        """
        Make the task of the next attempt at the same call, which keeps the place in the
        order and takes over the Deferred.

        A task of its own is safe from what the last attempt may still hand back.
        """
        task = self._another(self._kw)
        task.order = self.order
        task.attempt = self.attempt + 1
        task.resolve = self.resolve
        task.watch = self.watch
        task.d = self.d
        task.d.task = task
        return task

    def _another(self, kw: dict[str, Any]) -> Task:
        """Make a task of the same call."""
        task = self.__class__(
            self._f,
            self._args,
            kw,
            self.priority,
            self.series,
            self.timeout,
            reactor=self._reactor,
        )
        task.options = self.options
        # A copy, since a thread may still be in this one.
        task.context = self.context and self.context.copy()
        return task

    def addCallback(self, f: Callable[..., Any], *args: object, **kw: object) -> None:
        """
        Add a callback to L{d}, and remember it for copies.

        @param f: The callback.

        @param args: Further arguments for it.

        @param kw: Keywords for it.
        """
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append((f, args, kw))
        self.d.addCallback(f, *args, **kw)

    def startTimer(self) -> None:
        """Start the clock of the timeout, if there is one, from the beginning."""
        if self.timeout is None or self.hasResult:
            return
        self.stopTimer()
        self._timer = orGlobalReactor(self._reactor).callLater(
            self.timeout, self._timedOut
        )

    def stopTimer(self) -> None:
        """Stop the clock of the timeout, if it runs."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def callback(self, result: StatusResult | Failure) -> None:
        """
        Give the task its result. All but the first are ignored.

        @param result: A status and a result, or a failure of what is no fault of the
            callable.
        """
        d = self.d
        if d.task is not self or d.called:
            return
        if self._timer is not None:
            self.stopTimer()
        if self.worker is not None:
            self.owner = None
        else:
            # It waits to be run again, and a worker that had it before is late.
            self.drop()
        d.task = None
        outcome: object = result
        if self.resolve is not None:
            try:
                outcome = self.resolve(result, self)
            except Exception:  # noqa: BLE001 - as a callback, it fails the Deferred
                outcome = Failure()
            if outcome is RETRIED:
                return
        # The callbacks see the caller's context variables. In a copy, because the
        # callable itself may be what has led here, and a context can't be entered
        # twice.
        context = Context() if self.context is None else self.context.copy()
        if outcome.__class__ in PLAIN and not d.called:
            context.run(Deferred.callback, d, outcome)
        else:
            context.run(d.fire, outcome)

    def errback(self, failure: Failure | BaseException) -> None:
        """
        Give the task a failure as its result, for what is no fault of the callable.

        @param failure: The failure, or the exception.
        """
        if not self.hasResult:
            if not isinstance(failure, Failure):
                failure = Failure(failure)
            self.callback(failure)

    def cancel(self) -> None:
        """Stop the work: the Deferred is being cancelled."""
        self.drop()
        if self.resolve is None:
            self.d.task = None  # It fails with CancelledError by itself.
        else:
            self.callback(Failure(CancelledError()))

    def reset(self) -> Deferred[Any]:
        """
        Give the task a new Deferred, so that it can have a result again.

        @return: The new Deferred.
        """
        self.stopTimer()
        self.worker = None
        self.d.task = None
        self.d = _ResultDeferred(_cancelled)
        self.d.task = self
        return self.d

    def rush(self) -> None:
        """Put the task before everything else, after others so rushed before."""
        self.priority = -math.inf

    def relax(self) -> None:
        """Put the task after everything else, after others so relaxed before."""
        self.priority = math.inf

    def drop(self) -> None:
        """Have whoever owns the task drop it, and stop its clock."""
        self.stopTimer()
        owner, self.owner = self.owner, None
        if owner is not None:
            try:
                owner.cancelTask(self)
            except Exception:  # noqa: BLE001 - a worker may be of anybody's making
                log.failure("{owner} failed to drop {task}", owner=owner, task=self)

    def _timedOut(self) -> None:
        self._timer = None
        log.info(
            "{task} is stopped after {timeout} seconds", task=self, timeout=self.timeout
        )
        self.drop()
        self.callback(
            (Status.TIMEOUT, f"{self!r} took longer than {self.timeout} seconds")
        )
