"""
The task: one call, its place in the order, and the Deferred of its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextvars import Context, copy_context
from itertools import count
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.describe import PLAIN, callText
from .._child.status import Status, StatusResult
from .._support.checks import checkSeconds
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..interfaces import ITask

__all__ = ["MOVED", "Holder", "Task", "TaskFactory"]

#: Returned by an outcome: another task has the Deferred now.
MOVED: Any = object()

#: Numbers all tasks in the order of their making, to break ties of priority.
_orders = count(1)

#: By what the serial number of a task is multiplied, for each niceness.
_FACTORS = {n: 1.0 + ((n + 20) / 10.0) ** 2 for n in range(-20, 21)}

#: A factory remembers the serial numbers of so many series.
_MOST_SERIES = 10_000


class Holder(Protocol):
    """
    Who has a task at the moment: the backlog, or the worker that runs it.
    """

    def cancelTask(self, task: Any) -> None:
        """
        Drop the task, stopping the work on it where possible.

        @param task: The task.
        """


class _ResultDeferred(Deferred[Any]):
    """
    The Deferred of a task. Its canceller is L{_cancelled}, one function for all: that's
    less to keep, for each queued task, than a method of each.

    @ivar task: The task that is to give it its result, C{None} if none is any longer.
        So nothing is left then that only a garbage collection could clear away.

    @ivar coming: A Deferred that is to give it its result, or C{None}.
    """

    task: Task | None = None
    coming: Deferred[Any] | None = None

    def fire(self, result: Any) -> None:
        """
        Fire with something, as a callback's result: a failure, or what a Deferred will
        fire with.

        @param result: It.
        """
        if self.called:
            return
        if type(result) in PLAIN:
            self.callback(result)
        elif isinstance(result, Deferred):
            self.coming = result
            result.addBoth(self._came)
        elif isinstance(result, Failure):
            self.errback(result)
        else:
            self.callback(result)

    def _came(self, result: Any) -> None:
        """
        Fire with what was waited for.

        @param result: It.
        """
        self.coming = None
        self.fire(result)


def _cancelled(d: Any) -> None:
    """
    Stop the work on a task whose Deferred is being cancelled, and fails after this.

    @param d: The Deferred.
    """
    if d.coming is not None:
        d.coming.cancel()
    elif d.task is not None:
        d.task.cancel(d)


@implementer(ITask)
class Task:
    """
    A call that waits to be run, or is being run, by a worker.

    Tasks are ordered by priority, lower first, then by age. Equality and hash are
    identity.

    @ivar callTuple: The callable, its positional arguments, and its keywords.

    @ivar priority: A number; the lower it is, the sooner the task is run.

    @ivar order: A serial number that breaks ties of priority.

    @ivar series: The series that the task belongs to.

    @ivar timeout: Seconds that the task may run, or C{None}.

    @ivar d: A Deferred that fires with the status/result pair, or with what L{outcome}
        makes of it, and then with whatever its callbacks make of that.

    @ivar outcome: Called with the status/result pair, or with a failure, and with the
        task. What it returns is what the Deferred fires with, unless that is L{MOVED}.
        C{None} for the pair to stay as it is. Cheaper than a callback, of which there
        are as many as tasks are queued.

    @ivar holder: Who has the task now, or C{None}.

    @ivar accepted: Whether a worker has accepted the task.

    @ivar direct: Whether it's for one certain worker, as an update is, and no other
        runs it.

    @ivar assignment: The assignment of the task until it is accepted, if somebody
        waits to hear of that.

    @ivar context: The context variables as they were when the call was queued, C{None}
        if they don't travel with it.

    @ivar attempt: How many times the call was queued before this task of it.

    @ivar options: Whatever who made the task wants to know when its result comes.
    """

    __slots__ = (
        "_args",
        "_callbacks",
        "_f",
        "_kw",
        "_reactor",
        "_timer",
        "accepted",
        "assignment",
        "attempt",
        "context",
        "d",
        "direct",
        "holder",
        "options",
        "order",
        "outcome",
        "priority",
        "series",
        "timeout",
    )

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
        Make a task.

        @param f: The callable, or for remote workers the name of a method.

        @param args: Positional arguments.

        @param kw: Keywords. The task keeps the dict itself and never changes it.

        @param priority: The priority; lower is sooner.

        @param series: The series, any hashable.

        @param timeout: Seconds that the task may run once a worker has accepted it,
            C{None} for no limit.

        @param reactor: What keeps the time for the timeout. By default, the global
            reactor.

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
        self.order = next(_orders)
        self.series = series
        self.timeout = timeout
        self.holder: Holder | None = None
        self.accepted = False
        self.direct = False
        self.assignment: Any = None
        self.context: Context | None = None
        self.attempt = 0
        self.options: Any = None
        self.outcome: Callable[[Any, Task], Any] | None = None
        self._callbacks: list[tuple[Any, Any, Any]] | None = None
        self._timer: IDelayedCall | None = None
        self._reactor = reactor
        self.d = _ResultDeferred(_cancelled)
        self.d.task = self

    def __lt__(self, other: Task | None) -> bool:
        """
        Compare by priority, then by age. Any task is less than C{None}.

        @param other: Another task, or C{None} as the sentinel of shutdown.
        """
        if other is None:
            return True
        if not isinstance(other, Task):
            return NotImplemented
        return (self.priority, self.order) < (other.priority, other.order)

    def __gt__(self, other: Task | None) -> bool:
        """
        Compare the other way round, so that C{None < task} is C{False}.

        @param other: Another task, or C{None}.
        """
        if other is None:
            return False
        if not isinstance(other, Task):
            return NotImplemented
        return other < self

    def __repr__(self) -> str:
        """
        Name the call.
        """
        return f"<Task {callText(*self.callTuple)}>"

    @property
    def callTuple(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """
        The call. Made when it's asked for: it's one object less, for each task that
        waits, to keep and for the garbage collector to look at.
        """
        return self._f, self._args, self._kw

    def copy(self) -> Task:
        """
        Make a task of the same call, with the same callbacks but a Deferred and a
        dict of keywords of its own.

        @return: The new task.
        """
        f, args, kw = self.callTuple
        task = self.__class__(
            f,
            args,
            dict(kw),
            self.priority,
            self.series,
            self.timeout,
            reactor=self._reactor,
        )
        task.context = self.context and self.context.copy()
        for callback, cbArgs, cbKw in self._callbacks or ():
            task.addCallback(callback, *cbArgs, **cbKw)
        return task

    def again(self) -> Task:
        """
        Make the task of the next attempt at the same call. It keeps the place in the
        order, and takes over the Deferred.

        A task of its own is safe from what the last attempt may still hand back.

        @return: The new task. An L{outcome} that makes it returns L{MOVED}.
        """
        f, args, kw = self.callTuple
        task = self.__class__(
            f,
            args,
            kw,
            self.priority,
            self.series,
            self.timeout,
            reactor=self._reactor,
        )
        # A copy, since the thread of the last attempt may still be in that one.
        task.context = self.context and self.context.copy()
        task.order = self.order
        task.attempt = self.attempt + 1
        task.options = self.options
        task.outcome = self.outcome
        task.d = self.d
        task.d.task = task
        return task

    @property
    def settled(self) -> bool:
        """
        Whether the task has its result: another is ignored.
        """
        return self.d.task is not self or self.d.called

    def addCallback(self, f: Callable[..., Any], *args: Any, **kw: Any) -> None:
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

    def accept(self) -> None:
        """
        Note that a worker has accepted the task, and start its clock.
        """
        self.accepted = True
        if self.timeout is not None:
            self.startTimer()

    def startTimer(self) -> None:
        """
        Start the clock of the timeout, if there is one. A worker has accepted the
        task.
        """
        if self.timeout is None or self.settled:
            return
        self.stopTimer()
        self._timer = orGlobalReactor(self._reactor).callLater(
            self.timeout, self._timedOut
        )

    def stopTimer(self) -> None:
        """
        Stop the clock of the timeout, if it runs.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def callback(self, statusResult: StatusResult | Failure) -> None:
        """
        Implement L{ITask.callback}.

        @param statusResult: The status and the result, or a failure to be run.
        """
        d = self.d
        if d.task is not self or d.called:
            return
        if self._timer is not None:
            self.stopTimer()
        if self.accepted:
            self.holder = None
        else:
            # It waits to be run again, and a worker that had it before is late.
            self.release()
        d.task = None
        result: Any = statusResult
        if self.outcome is not None:
            try:
                result = self.outcome(result, self)
            except Exception:  # noqa: BLE001 - as a callback, it fails the Deferred
                result = Failure()
            if result is MOVED:
                return
        d.fire(result)

    def errback(self, failure: Failure | BaseException) -> None:
        """
        Implement L{ITask.errback}.

        @param failure: The failure, or the exception.
        """
        if not self.settled:
            if not isinstance(failure, Failure):
                failure = Failure(failure)
            self.callback(failure)

    def cancel(self, d: Deferred[Any]) -> None:
        """
        Stop the work: the Deferred is being cancelled.

        @param d: The Deferred. Nothing happens if it isn't that of the task any longer.
        """
        if d is self.d:
            self.release()
            if self.outcome is None:
                self.d.task = None
            else:
                self.callback(Failure(CancelledError()))

    def reset(self) -> Deferred[Any]:
        """
        Give the task a new Deferred, so that it can have a result again.

        @return: The new Deferred.
        """
        self.stopTimer()
        self.accepted = False
        self.d = _ResultDeferred(_cancelled)
        self.d.task = self
        return self.d

    def rush(self) -> None:
        """
        Put the task before everything else, after others so rushed before.
        """
        self.priority = -math.inf

    def relax(self) -> None:
        """
        Put the task after everything else, after others so relaxed before.
        """
        self.priority = math.inf

    def release(self) -> None:
        """
        Have whoever holds the task drop it, and stop its clock.
        """
        self.stopTimer()
        holder, self.holder = self.holder, None
        if holder is not None:
            try:
                holder.cancelTask(self)
            except Exception:  # noqa: BLE001 - a worker may be of anybody's making
                log.failure("{holder} failed to drop {task}", holder=holder, task=self)

    def _timedOut(self) -> None:
        """
        Stop the work, then give the task its result.
        """
        self._timer = None
        self.release()
        self.callback(
            (Status.TIMEOUT, f"{self!r} took longer than {self.timeout} seconds")
        )


class TaskFactory:
    """
    Makes tasks, and gives each its priority.

    Each series counts its tasks on its own, and a new series starts at the largest
    number in use. With C{k} the number of a task in its series and C{n} its
    niceness, its priority is C{k * (1 + ((n + 20) / 10)**2)}. So two series
    interleave though each was queued in one batch, tasks of niceness C{n + 10} run at
    about half the rate of those of C{n}, and a task that waits comes up at last,
    because C{k} grows for all.
    """

    def __init__(
        self,
        TaskClass: type[Task] = Task,
        *,
        contexts: bool = False,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a factory.

        @param TaskClass: The class of the tasks.

        @param contexts: C{True} for context variables to travel with the tasks.

        @param reactor: What keeps the time for them.
        """
        self.TaskClass = TaskClass
        self.seriesNumbers: dict[Hashable, float] = {}
        self._contexts = contexts
        self._largest = 0.0
        self._reactor = reactor

    def _serial(self, series: Hashable) -> float:
        """
        Count one more task of a series.

        @param series: The series.

        @return: Its serial number.

        @raise TypeError: If the series isn't hashable.
        """
        try:
            number = self.seriesNumbers.get(series)
        except TypeError as error:
            raise TypeError(
                f"A series must be hashable, and {series!r} isn't: use a string, a"
                " number, or a tuple of such"
            ) from error
        if number is None:
            number = self._largest
            if len(self.seriesNumbers) >= _MOST_SERIES:
                self._forgetSeries()
        number += 1.0
        self.seriesNumbers[series] = number
        if number > self._largest:
            self._largest = number
        return number

    def _forgetSeries(self) -> None:
        """
        Forget the half of the series that have the lowest numbers. Should one of them
        be used again, it starts at the largest number, as a new one does.
        """
        numbers = sorted(self.seriesNumbers.items(), key=lambda item: item[1])
        self.seriesNumbers = dict(numbers[len(numbers) // 2 :])

    def new(
        self,
        func: Any,
        args: tuple[Any, ...] | list[Any],
        kw: dict[str, Any],
        niceness: Any,
        series: Hashable = None,
        timeout: float | None = None,
    ) -> Task:
        """
        Make a task.

        @param func: The callable.

        @param args: Positional arguments.

        @param kw: Keywords.

        @param niceness: An integer from -20 (first) to 20 (last), as in Unix.

        @param series: The series, any hashable.

        @param timeout: Seconds that the task may run, C{None} for no limit.

        @return: The task.

        @raise ValueError: If the niceness isn't an integer from -20 to 20, or the
            timeout not a positive number.

        @raise TypeError: If the series isn't hashable.
        """
        factor = _FACTORS.get(niceness) if isinstance(niceness, int) else None
        if factor is None or isinstance(niceness, bool):
            raise ValueError(
                f"niceness must be an integer from -20 to 20, not {niceness!r}"
            )
        if timeout is not None:
            checkSeconds("timeout", timeout)
        priority = self._serial(series) * factor
        task = self.TaskClass(
            func, args, kw, priority, series, timeout, reactor=self._reactor
        )
        if self._contexts:
            task.context = copy_context()
        return task


def forWorker(
    callTuple: tuple[Any, tuple[Any, ...], dict[str, Any]], raw: bool
) -> tuple[Any, tuple[Any, ...], dict[str, Any], bool, Any]:
    """
    Tell what is meant for the worker from what is meant for the callable.

    @param callTuple: The C{callTuple} of a task. It's left as it is.

    @param raw: Whether the worker gives iterators back as they are, unless the call
        says otherwise.

    @return: The callable, its arguments, its keywords; whether an iterator is given
        back as it is; the consumer of an iterator, or C{None}.
    """
    f, args, kw = callTuple
    if not kw or ("raw" not in kw and "consumer" not in kw):
        return f, args, kw, raw, None
    kw = dict(kw)
    return f, args, kw, bool(kw.pop("raw", raw)), kw.pop("consumer", None)
