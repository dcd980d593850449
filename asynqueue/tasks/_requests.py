"""
Workers' requests, which stand in line for tasks; and taking back tasks that were given
to a worker in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Attribute

from .._support.reactor import orGlobalReactor
from ..interfaces import ICancellingWorker, IPrefetchingWorker, IWorker
from ._task import Owner, Task


class IEmployee(IWorker):
    """A worker with what its employer keeps on it."""

    ID: int = Attribute("The number by which its employer knows it.")
    hired: bool = Attribute("Whether it's employed.")
    assignments: dict[Hashable, list[Deferred[object]]] = Attribute(
        "Its outstanding requests, for each series."
    )


class WorkerState:
    """What is known of a worker that requests tasks."""

    __slots__ = (
        "canceller",
        "inLine",
        "isOpen",
        "isQueued",
        "prefetches",
        "requests",
        "running",
        "series",
        "worker",
    )

    def __init__(self, worker: IEmployee) -> None:
        self.worker: Any = worker
        if getattr(worker, "assignments", None) is None:
            worker.assignments = {}
        self.canceller = (
            cast(Owner, worker) if ICancellingWorker.providedBy(worker) else None
        )
        self.prefetches = IPrefetchingWorker.providedBy(worker)
        # Whether it's to get tasks at all.
        self.isOpen = False
        # How many tasks it isn't ready after.
        self.running = 0
        # Whether it waits to be looked at.
        self.isQueued = False
        # The series it requests tasks of, in the order of asking.
        self.series: dict[Hashable, None] = {}
        # Its requests that have not fired; and those of them that stand in line, none
        # while it isn't free.
        self.requests: dict[Hashable, Deferred[object]] = {}
        self.inLine: dict[Hashable, Deferred[object]] = {}

    @property
    def isFree(self) -> bool:
        """Whether the worker can be given another task."""
        return self.isOpen and (
            not self.running or self.running < getattr(self.worker, "capacity", 1)
        )


class RequestLines:
    """
    A line of requests for each series.

    @ivar lines: For each series that a worker requests tasks of, the requests that
        stand in line, oldest first: Deferreds, each with what is known of its worker.
    """

    # A request that stands in line is in lines[series], in its worker's state, and in
    # worker.assignments[series], which is for others to see: whatever they do to that,
    # the first two are what counts.

    def __init__(
        self, fired: Callable[[object, WorkerState, Hashable], object]
    ) -> None:
        """
        @param fired: The first callback, and errback, of each request. Its further
            arguments are what is known of the worker, and the series.
        """
        self.lines: dict[Hashable, dict[Deferred[object], WorkerState]] = {}
        self._fired = fired

    def enter(self, state: WorkerState, series: Hashable) -> None:
        """Have a worker's request for a series stand in line, at the end."""
        request = state.requests.get(series)
        if request is None:
            request = state.requests[series] = Deferred()
            request.addBoth(self._fired, state, series)
        state.inLine[series] = request
        self.lines[series][request] = state
        state.worker.assignments.setdefault(series, []).append(request)

    def leave(self, state: WorkerState, series: Hashable) -> None:
        """Take a worker's request for a series out of its line."""
        request = state.inLine.pop(series)
        del self.lines[series][request]
        shown = state.worker.assignments.get(series)
        if shown and request in shown:
            shown.remove(request)

    def leaveAll(self, state: WorkerState) -> None:
        """
        Take all requests of a worker that has become full out of their lines. They
        aren't lost: they stand in line again when it's ready.
        """
        for series in list(state.inLine):
            self.leave(state, series)

    def moveBehind(self, state: WorkerState) -> None:
        """Put the requests that a worker has in line behind those of others."""
        for series, request in state.inLine.items():
            line = self.lines[series]
            if len(line) > 1:
                line[request] = line.pop(request)

    def oldest(self, series: Hashable) -> WorkerState | None:
        """
        Find the worker whose request of a series has stood in line the longest, among
        those that don't iterate if there are such: what is stopped may harm neighbours.
        """
        line = self.lines.get(series)
        if not line:
            return None
        states = iter(line.values())
        first = next(states)
        if len(line) > 1 and getattr(first.worker, "isIterating", False):
            for state in states:
                if not getattr(state.worker, "isIterating", False):
                    return state
        return first

    def isAnyoneIdle(self) -> bool:
        """Whether any request stands in line."""
        return any(self.lines.values())


#: Seconds until tasks are taken back from a worker that is held up: while another one
#: is idle, and while all are busy. Most are done by then.
_IDLE_SECONDS = 0.002
_BUSY_SECONDS = 0.02


class Rebalancing:
    """
    Sees to it that no task waits for long with a worker that is held up.

    @ivar prefetching: How many workers have tasks in advance.
    """

    def __init__(
        self,
        lines: RequestLines,
        states: Callable[[], Iterable[WorkerState]],
        takeBack: Callable[[Task], object],
        reactor: IReactorTime | None,
    ) -> None:
        self.prefetching = 0
        self._lines = lines
        self._states = states
        self._takeBack = takeBack
        self._call: IDelayedCall | None = None
        self._reactor = reactor

    def count(self, change: int) -> None:
        """Note that one more worker has tasks in advance, or one less."""
        self.prefetching += change
        if change > 0:
            self.later()
        elif not self.prefetching:
            self.stop()

    def later(self) -> None:
        """Look in a moment, at the latest, whether a worker is held up."""
        reactor = orGlobalReactor(self._reactor)
        delay = _IDLE_SECONDS if self._lines.isAnyoneIdle() else _BUSY_SECONDS
        if self._call is None:
            self._call = reactor.callLater(delay, self._look)
        elif self._call.getTime() > reactor.seconds() + delay:
            self._call.reset(delay)

    def stop(self) -> None:
        """Leave nothing behind in the reactor."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        for state in list(self._states()):
            if state.prefetches and state.running > 1:
                for task in state.worker.reclaim():
                    self._takeBack(task)
        if self.prefetching:
            self.later()
