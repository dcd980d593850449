"""
Where tasks and workers meet: requests and assignments.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from .._support.timeslice import TimeSlice
from ..errors import ImplementationError
from ..interfaces import ICancellingWorker, IPrefetchingWorker, IWorker
from ._backlog import Backlog
from ._task import Task

__all__ = ["Assignment", "AssignmentFactory"]

#: Calls may be nested so deep before the reactor dispatches tasks. A callback that
#: makes a call that completes at once, and adds itself to that, nests them.
_MAX_NESTING = 250

#: The depth is looked at once in so many times, which makes it cost nothing.
_NESTING_CHECK_EVERY = 16

#: Seconds until tasks are taken back that a worker was given in advance, if it's held
#: up: while another worker is idle, and while all are busy. Most are done by then.
_REBALANCE_SECONDS = 0.002
_BUSY_REBALANCE_SECONDS = 0.02


class Assignment:
    """
    A task on its way to a worker.

    @ivar task: The task.

    @ivar d: A Deferred that fires with the worker when one accepts; with C{None} when
        the task is cancelled before.
    """

    __slots__ = ("d", "task")

    def __init__(self, task: Task) -> None:
        """
        @param task: The task.
        """
        self.task = task
        self.d: Deferred[Any] = Deferred()

    def accept(self, worker: Any) -> Deferred[Any]:
        """
        Have a worker accept the task: fire L{d}, start the task's clock, and run it.

        @param worker: The worker, which provides L{IWorker}.

        @return: A Deferred that fires when the worker is ready for another task.

        @raise ImplementationError: If the worker's C{run} doesn't return one.
        """
        task = self.task
        task.assignment = None
        task.accepted = True
        if task.timeout is not None:
            task.startTimer()
        if not self.d.called:
            self.d.callback(worker)
            if task.d.called:  # A callback has cancelled it.
                return succeed(None)
        ready: Any = worker.run(task)
        if not isinstance(ready, Deferred):
            raise ImplementationError(
                f"run() of {worker!r} must return a Deferred, not {ready!r}"
            )
        return ready

    def withdraw(self) -> None:
        """
        Tell who waits that no worker will accept.
        """
        if not self.d.called:
            self.d.callback(None)


class _WorkerState:
    """
    What the factory knows of a worker.
    """

    __slots__ = (
        "canceller",
        "isOpen",
        "isQueued",
        "missing",
        "prefetches",
        "requests",
        "running",
        "series",
        "worker",
    )

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.canceller = worker if ICancellingWorker.providedBy(worker) else None
        self.prefetches = IPrefetchingWorker.providedBy(worker)
        # Whether it's to get tasks at all.
        self.isOpen = False
        # How many tasks it isn't ready after.
        self.running = 0
        # Whether it's in line to be looked at.
        self.isQueued = False
        # The series it requests tasks of, in the order of asking.
        self.series: dict[Hashable, None] = {}
        # Those of which no request stands in line.
        self.missing: dict[Hashable, None] = {}
        # Its requests that have not fired, whether they stand in line or not.
        self.requests: dict[Hashable, Deferred[Any]] = {}

    @property
    def isFree(self) -> bool:
        """
        Whether the worker can be given another task.
        """
        return self.isOpen and (
            not self.running or self.running < getattr(self.worker, "capacity", 1)
        )


class AssignmentFactory:
    """
    Has tasks and workers meet.

    A worker that can take a task has a request, a Deferred, standing in line for each
    of its series. A task that meets a request fires it with an L{Assignment}, and the
    worker accepts. Firing it with C{None}, or cancelling it, withdraws it; the worker,
    if it's still employed, requests again in the reactor's next turn.

    Guarantees:

      - A task waits for workers of its own series only.
      - A worker that becomes ready gets the task that is first among all waiting
        tasks of all its series, at that moment and not before. While it has as many
        tasks as its capacity, none of its requests stands in line.
      - No task waits for long with a worker that was given it in advance while another
        that could run it is idle.
      - Tasks are dispatched from one loop, never from within the callbacks of the last
        one, and the reactor has its turn every few milliseconds, and before calls are
        nested too deeply.

    @ivar backlog: The waiting tasks.

    @ivar requests: For each series that a worker requests tasks of, the requests that
        stand in line, oldest first: Deferreds, each with what is known of its worker.
    """

    # A request that stands in line is in requests[series], in the requests of its
    # worker's state, and in worker.assignments[series], which is for others to see:
    # whatever they do to that, the first two are what counts.
    # A worker's series that are missing have no request in line. All its series are
    # missing while it isn't free.
    # While _dispatching is true, or _resumption is set, tasks and workers that could
    # meet are noted in _ready (workers) and _matches (series), and meet later.
    # Otherwise, both are empty.

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        """
        @param reactor: Gives the time, and the turns. By default, the global reactor.
        """
        self.backlog = Backlog()
        self.requests: dict[Hashable, dict[Deferred[Any], _WorkerState]] = {}
        self._states: dict[int, _WorkerState] = {}
        self._ready: deque[_WorkerState] = deque()
        self._matches: dict[Hashable, None] = {}
        self._dispatching = False
        self._dispatches = 0
        # The worker whose request is being fired, which _serve itself looks at again.
        self._serving: _WorkerState | None = None
        self._resumption: IDelayedCall | None = None
        # Workers with tasks in advance, and the call that takes them back.
        self._prefetching = 0
        self._rebalancing: IDelayedCall | None = None
        # Workers that request again in the next turn.
        self._withdrawn: list[_WorkerState] = []
        self._renewal: IDelayedCall | None = None
        self._reactor = reactor

    def new(self, task: Task) -> Deferred[Any]:
        """
        Add a task, for which the oldest request of its series is fired as soon as it
        comes up.

        @param task: The task.

        @return: A Deferred that fires with the worker that has accepted the task; with
            C{None} if it's cancelled before.
        """
        assignment = Assignment(task)
        requests = self.requests.get(task.series)
        state = next(iter(requests.values())) if requests else None
        if state and (not state.running or state.isFree) and self._mayAssign():
            # Nothing waits that a worker whose request stands in line could run, so
            # this saves 2 us of the way by the backlog.
            self._dispatching = True
            try:
                self._assign(state, task.series, assignment)
            finally:
                self._dispatching = False
            if self._ready or self._matches:
                self._dispatch()
        else:
            task.assignment = assignment
            self._add(task)
        return assignment.d

    def request(self, worker: IWorker, series: Hashable) -> None:
        """
        Enter a worker's request for a task of a series. Whenever the worker is ready
        after a task, and still employed, its requests are entered again.

        @param worker: The worker.

        @param series: The series.
        """
        state = self._states.get(id(worker)) or self._newState(worker)
        state.isOpen = True
        if series not in state.series:
            state.series[series] = None
            state.missing[series] = None
            self.requests.setdefault(series, {})
        if series not in state.missing or (state.running and not state.isFree):
            return
        del state.missing[series]
        request = state.requests.get(series)
        if request is None:
            request = state.requests[series] = Deferred()
            request.addBoth(self._requestFired, state, series)
        self.requests[series][request] = state
        state.worker.assignments.setdefault(series, []).append(request)
        if self.backlog.size and self.backlog.first(series) is not None:
            self._matches[series] = None
            self._dispatch()

    def cancelRequests(self, worker: IWorker) -> None:
        """
        Withdraw all requests of a worker, by firing them with C{None}, and give it no
        more tasks until it makes a request again.

        @param worker: The worker.
        """
        state = self._states.pop(id(worker), None)
        if state is None:
            return
        state.isOpen = False
        for request in list(state.requests.values()):
            if not request.called:
                request.callback(None)
        served = {s for other in self._states.values() for s in other.series}
        for series in state.series:
            if series not in served:
                self.requests.pop(series, None)

    def runDirectly(self, worker: Any, task: Task) -> None:
        """
        Have a certain worker run a task now, whatever else it's doing.

        @param worker: The worker.

        @param task: The task.
        """
        task.direct = True
        state = self._states.get(id(worker)) or self._newState(worker)
        self._accept(state, Assignment(task))

    def batch(self, f: Callable[[], object]) -> None:
        """
        Call something, and dispatch tasks after that, to all workers that have become
        ready meanwhile.

        @param f: The callable.
        """
        if self._dispatching:
            f()
            return
        self._dispatching = True
        try:
            f()
        finally:
            self._dispatching = False
            self._dispatch()

    def stop(self) -> None:
        """
        Leave nothing behind in the reactor.
        """
        calls = (self._resumption, self._rebalancing, self._renewal)
        self._resumption = self._rebalancing = self._renewal = None
        for call in calls:
            if call is not None and call.active():
                call.cancel()

    def _newState(self, worker: Any) -> _WorkerState:
        state = self._states[id(worker)] = _WorkerState(worker)
        if getattr(worker, "assignments", None) is None:
            worker.assignments = {}
        return state

    def _add(self, task: Task) -> None:
        self.backlog.put(task)
        if self.requests.get(task.series):
            self._matches[task.series] = None
            self._dispatch()

    # A request's way: it stands in line, and fires or leaves it for a while.

    def _leaveLine(self, state: _WorkerState, series: Hashable) -> None:
        """
        Take a worker's request for a series out of the line, if it stands there.
        """
        request = state.requests[series]
        if self.requests[series].pop(request, None) is not None:
            state.missing[series] = None
        shown = state.worker.assignments.get(series)
        if shown and request in shown:
            shown.remove(request)

    def _leaveLines(self, state: _WorkerState) -> None:
        """
        Take all requests of a worker that has become full out of their lines. They
        aren't lost: they stand in line again when it's ready.
        """
        for series in state.requests:
            self._leaveLine(state, series)

    def _requestFired(
        self, result: Any, state: _WorkerState, series: Hashable
    ) -> Assignment | None:
        """
        Have the worker accept the assignment, unless there's none: the request has been
        withdrawn.
        """
        self._leaveLine(state, series)
        del state.requests[series]
        if isinstance(result, Assignment):
            self._accept(state, result)
            return result
        if state.isOpen:
            self._renewLater(state)
        return None

    def _renewLater(self, state: _WorkerState) -> None:
        self._withdrawn.append(state)
        if self._renewal is None:
            self._renewal = orGlobalReactor(self._reactor).callLater(0, self._renew)

    def _renew(self) -> None:
        """
        Look again at workers whose requests somebody has withdrawn.
        """
        self._renewal = None
        states, self._withdrawn = self._withdrawn, []
        for state in states:
            self._markReady(state)
        self._dispatch()

    def _accept(self, state: _WorkerState, assignment: Assignment) -> None:
        """
        Have a worker accept an assignment.
        """
        task = assignment.task
        task.owner = state.canceller
        state.running += 1
        if state.prefetches and state.running == 2:
            self._prefetching += 1
            self._rebalanceLater()
        try:
            ready = assignment.accept(state.worker)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            task.errback(Failure())
            ready = succeed(None)
        if ready.called and not ready.paused and not isinstance(ready.result, Failure):
            self._becameReady(None, state)  # Saves 0.5 us of a callback.
        else:
            ready.addBoth(self._becameReady, state)
        if state.running and not state.isFree:
            self._leaveLines(state)

    def _becameReady(self, result: object, state: _WorkerState) -> None:
        """
        Note that a worker is ready after a task.
        """
        state.running -= 1
        if state.prefetches and state.running == 1:
            self._prefetching -= 1
        if isinstance(result, Failure):
            log.failure("{worker} failed to run a task", result, worker=state.worker)
        if state.isOpen and state is not self._serving:
            self._markReady(state)
            self._dispatch()

    # Dispatching.

    def _markReady(self, state: _WorkerState) -> None:
        """
        Put a worker in line to be looked at.
        """
        if not state.isQueued:
            state.isQueued = True
            self._ready.append(state)

    def _dispatch(self) -> None:
        """
        Have tasks and workers meet until there's none left that could, or a few
        milliseconds have passed.
        """
        if not self._mayAssign():
            return
        self._dispatching = True
        backlog = self.backlog
        try:
            # One task alone needs no clock, which would take 0.4 us of its 7.
            part = self._newSlice() if backlog.size > 1 else None
            while (state := self._nextWorker()) is not None:
                self._serve(state)
                if backlog.size:
                    if part is None:
                        part = self._newSlice()
                    elif part.hasExpired():
                        self._resumeLater()
                        break
        finally:
            self._dispatching = False

    def _mayAssign(self) -> bool:
        """
        Whether tasks and workers may meet now, and not in a loop that goes on, or in
        the reactor's next turn.
        """
        if self._dispatching or self._resumption is not None:
            return False
        self._dispatches += 1
        if self._dispatches % _NESTING_CHECK_EVERY == 0 and _isNestedDeeply():
            self._resumeLater()
            return False
        return True

    def _newSlice(self) -> TimeSlice:
        if self._reactor is None:
            self._reactor = orGlobalReactor(None)
        return TimeSlice(self._reactor.seconds)

    def _resumeLater(self) -> None:
        self._resumption = orGlobalReactor(self._reactor).callLater(0, self._resume)

    def _resume(self) -> None:
        self._resumption = None
        self._dispatch()

    def _nextWorker(self) -> _WorkerState | None:
        """
        Find a worker to look at: the one that has waited longest for a task that has
        come, or one that has become ready.
        """
        while self._matches:
            series = next(iter(self._matches))
            requests = self.requests.get(series)
            if not requests or self.backlog.first(series) is None:
                del self._matches[series]
                continue
            state = next(iter(requests.values()))
            if not state.isFree:  # Its capacity has shrunk.
                self._leaveLines(state)
                continue
            if len(requests) == 1:  # Saves coming back here for nothing.
                del self._matches[series]
            return state
        if not self._ready:
            return None
        state = self._ready.popleft()
        state.isQueued = False
        return state

    def _serve(self, state: _WorkerState) -> None:
        """
        Assign the first of all tasks of a worker's series to it, or, if there's none,
        enter its requests.
        """
        backlog = self.backlog
        if not state.isFree:
            self._leaveLines(state)
            return
        task = backlog.firstOf(state.series) if backlog.size else None
        if task is None:
            self._enterRequests(state)
            return
        series = task.series
        if series in state.missing:
            self.request(state.worker, series)
            if series in state.missing:
                return  # A subclass has refused.
        backlog.pop(task)
        self._assign(state, series, task.assignment)
        if backlog.onShrink is not None:
            backlog.onShrink()

    def _assign(
        self, state: _WorkerState, series: Hashable, assignment: Assignment
    ) -> None:
        """
        Fire a worker's request with an assignment.
        """
        self._serving = state
        state.requests[series].callback(assignment)
        self._serving = None
        if state.isFree:
            if len(self._states) > 1:
                self._moveBehind(state)
            if self.backlog.size:
                self._markReady(state)
            else:
                self._enterRequests(state)

    def _enterRequests(self, state: _WorkerState) -> None:
        """
        Have a worker request tasks of each series for which it has no request in line.
        """
        for series in list(state.missing):
            self.request(state.worker, series)
        if self._prefetching:
            self._rebalanceLater()

    def _moveBehind(self, state: _WorkerState) -> None:
        """
        Put the requests that a worker still has in line behind those of others.
        """
        for series, request in state.requests.items():
            line = self.requests[series]
            if len(line) > 1 and request in line:
                line[request] = line.pop(request)

    # Taking back tasks that were given to a worker in advance.

    def _rebalanceLater(self) -> None:
        """
        Look in a moment whether tasks wait with a worker that is held up.
        """
        reactor = orGlobalReactor(self._reactor)
        idle = any(self.requests.values())
        delay = _REBALANCE_SECONDS if idle else _BUSY_REBALANCE_SECONDS
        call = self._rebalancing
        if call is None:
            self._rebalancing = reactor.callLater(delay, self._rebalance)
        elif call.getTime() > reactor.seconds() + delay:
            call.reset(delay)

    def _rebalance(self) -> None:
        """
        Have workers that are held up give back what they were given in advance.
        """
        self._rebalancing = None
        for state in list(self._states.values()):
            if state.prefetches and state.running > 1:
                for task in state.worker.reclaim():
                    self.takeBack(task)
        if self._prefetching:
            self._rebalanceLater()
        self._dispatch()

    def takeBack(self, task: Task) -> None:
        """
        Have a task that its worker hasn't run wait for another one.

        @param task: The task, whose place in the order is as before.
        """
        task.stopTimer()
        task.accepted = False
        task.assignment = Assignment(task)
        self._add(task)


def _isNestedDeeply() -> bool:
    try:
        sys._getframe(_MAX_NESTING)
    except ValueError:
        return False
    return True
