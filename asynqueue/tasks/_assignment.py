"""Where tasks and workers meet: requests and assignments."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._child.status import Status
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import ImplementationError
from ..interfaces import IWorker, WorkerLike
from ._backlog import Backlog
from ._loop import DispatchLoop
from ._requests import IEmployee, Rebalancing, RequestLines, WorkerState
from ._task import Task


class Assignment:
    """
    A task on its way to a worker.

    @ivar task: The task.

    @ivar d: A Deferred that fires with the worker when one accepts; with C{None} when
        the task is cancelled before.
    """

    __slots__ = ("d", "task")

    def __init__(self, task: Task) -> None:
        """@param task: The task."""
        self.task = task
        self.d: Deferred[Any] = task.accepting or Deferred()

    def accept(self, worker: IWorker | WorkerLike) -> Deferred[object]:
        """
        Have a worker accept the task: fire L{d}, start the task's clock, and run it.

        @param worker: The worker, which provides L{IWorker}.

        @return: A Deferred that fires when the worker is ready for another task.

        @raise ImplementationError: If the worker's C{run} doesn't return one.
        """
        task = self.task
        result = task.d
        task.accepting = None
        task.worker = worker
        if task.timeout is not None:
            task.startTimer()
        wasHired = getattr(worker, "hired", False)
        if not self.d.called:
            self.d.callback(worker)
        watch = task.watch
        if watch is not None:
            watch.started(task)
        # Who has heard of it may have cancelled the task, or let the worker go.
        if result.task is not task:
            return succeed(None)
        if wasHired and not getattr(worker, "hired", False):
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        ready: Deferred[object] = worker.run(task)
        if watch is None and result.task is task:
            # For who asks how long it has run. One that is done needs none, which
            # saves 0.13 of 9 us.
            task.startedAt = perf_counter()
        if not isinstance(ready, Deferred):
            raise ImplementationError(
                f"run() of {worker!r} must return a Deferred, not {ready!r}"
            )
        return ready


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
      - Tasks are assigned from one loop, never from within the callbacks of the last
        one, and the reactor has its turn every few milliseconds.

    @ivar backlog: The waiting tasks.

    @ivar requests: For each series that a worker requests tasks of, the requests that
        stand in line, oldest first: Deferreds, each with what is known of its worker.
    """

    # While the loop is running or waits for its turn, tasks and workers that could
    # meet are noted in it, and meet later. Otherwise nothing is noted there, and no
    # task waits that a worker whose request stands in line could run.

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        """
        @param reactor: Gives the time, and the turns. By default, the global reactor.
        """
        self.backlog = Backlog()
        self._lines = RequestLines(self._requestFired)
        self.requests = self._lines.lines
        self._states: dict[int, WorkerState] = {}
        # The worker whose request is being entered and fired. Nobody else need look at
        # it: _assign does that.
        self._serving: WorkerState | None = None
        self._loop = DispatchLoop(self._serve, self.backlog, self._lines, reactor)
        self._rebalancing = Rebalancing(
            self._lines, self._states.values, self.takeBack, reactor
        )
        # Workers that request again in the reactor's next turn.
        self._withdrawn: list[WorkerState] = []
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
        accepting = task.accepting = Deferred()
        loop = self._loop
        if not self.requests.get(task.series):
            self.backlog.put(task)
            return accepting
        if self.backlog.gate is None and not (loop.isRunning or loop.resumption):
            # Saves 2 us of the way by the backlog.
            state = self._lines.oldest(task.series)
            if (
                state is not None
                and (not state.running or state.isFree)
                and loop.run(self._assign, state, task)
            ):
                return accepting
        self.backlog.put(task)
        self.reconsider(task.series)
        return accepting

    def request(self, worker: IWorker | WorkerLike, series: Hashable) -> None:
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
            self.requests.setdefault(series, {})
        if series in state.inLine:
            return
        if state is self._serving:
            self._lines.enter(state, series)
        elif state.isFree:
            self._lines.enter(state, series)
            if self.backlog.size and self.backlog.first(series) is not None:
                self._loop.matches[series] = None
                self._loop.run()

    def cancelRequests(self, worker: IWorker | WorkerLike) -> None:
        """
        Withdraw all requests of a worker, by firing them with C{None}, and give it no
        more tasks until it makes a request again.

        @param worker: The worker.
        """
        state = self._states.pop(id(worker), None)
        if state is None:
            return
        state.isOpen = False
        self._lines.leaveAll(state)
        if state.prefetches and state.running > 1:
            # It may never be ready after what it has.
            self._rebalancing.count(-1)
        state.prefetches = False
        for request in list(state.requests.values()):
            if not request.called:
                request.callback(None)
        served = {s for other in self._states.values() for s in other.series}
        for series in state.series:
            if series not in served:
                self.requests.pop(series, None)

    def runDirectly(self, worker: IWorker | WorkerLike, task: Task) -> None:
        """
        Have a certain worker run a task now, whatever else it's doing.

        @param worker: The worker.

        @param task: The task.
        """
        task.direct = True
        state = self._states.get(id(worker)) or self._newState(worker)
        self._accept(state, Assignment(task))

    def takeBack(self, task: Task) -> None:
        """
        Have a task that its worker hasn't run wait for another one.

        @param task: The task, whose place in the order is as before.
        """
        task.stopTimer()
        task.worker = None
        self.backlog.put(task)
        self.reconsider(task.series)

    def reconsider(self, series: Hashable) -> None:
        """
        Look again at the tasks of a series, which were held back.

        @param series: The series.
        """
        if self.requests.get(series):
            self._loop.matches[series] = None
            self._loop.run()

    def batch(self, f: Callable[[], object]) -> None:
        """
        Call something, and assign tasks after that, to all workers that have become
        ready meanwhile.

        @param f: The callable.
        """
        self._loop.batch(f)

    def runningOn(self, worker: object) -> int:
        """
        Count the tasks that a worker isn't ready after.

        @param worker: The worker.

        @return: The number.
        """
        state = self._states.get(id(worker))
        return 0 if state is None else state.running

    def stop(self) -> None:
        """Leave nothing behind in the reactor."""
        self._loop.stop()
        self._rebalancing.stop()
        call, self._renewal = self._renewal, None
        if call is not None:
            call.cancel()

    def _newState(self, worker: IWorker | WorkerLike) -> WorkerState:
        state = self._states[id(worker)] = WorkerState(cast(IEmployee, worker))
        return state

    def _assign(self, state: WorkerState, task: Task) -> None:
        """Fire a worker's request with an assignment, and look at the worker again."""
        self._serving = state
        state.requests[task.series].callback(Assignment(task))
        self._serving = None
        if state.isFree:
            if self.backlog.size:
                self._loop.note(state)
            else:
                self._enterRequests(state)
        elif state.inLine:
            self._lines.leaveAll(state)

    def _requestFired(
        self, result: object, state: WorkerState, series: Hashable
    ) -> Assignment | None:
        """
        Have the worker accept the assignment, unless there's none: the request has been
        withdrawn.
        """
        del state.requests[series]
        if series in state.inLine:
            self._lines.leave(state, series)
        if isinstance(result, Assignment):
            self._accept(state, result)
            return result
        if state.isOpen:
            self._withdrawn.append(state)
            if self._renewal is None:
                reactor = orGlobalReactor(self._reactor)
                self._renewal = reactor.callLater(0, self._renew)
        return None

    def _renew(self) -> None:
        """Look again at workers whose requests somebody has withdrawn."""
        self._renewal = None
        states, self._withdrawn = self._withdrawn, []
        for state in states:
            self._loop.note(state)
        self._loop.run()

    def _accept(self, state: WorkerState, assignment: Assignment) -> None:
        """Have a worker accept an assignment."""
        task = assignment.task
        task.owner = state.canceller
        state.running += 1
        if state.prefetches and state.running == 2:
            self._rebalancing.count(1)
        try:
            ready = assignment.accept(state.worker)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            task.errback(Failure())
            ready = succeed(None)
        if ready.called and not ready.paused and not isinstance(ready.result, Failure):
            self._becameReady(None, state)  # Saves 0.5 us of a callback.
        else:
            ready.addBoth(self._becameReady, state)
        if state is not self._serving and state.inLine and not state.isFree:
            self._lines.leaveAll(state)

    def _becameReady(self, result: object, state: WorkerState) -> None:
        """Note that a worker is ready after a task."""
        state.running -= 1
        if state.prefetches and state.running == 1:
            self._rebalancing.count(-1)
        if isinstance(result, Failure):
            log.failure("{worker} failed to run a task", result, worker=state.worker)
        if not state.isOpen or state is self._serving:
            return
        if not self.backlog.size:
            self._enterRequests(state)
        elif not self._loop.run(self._serve, state):
            self._loop.note(state)

    def _serve(self, state: WorkerState) -> None:
        """
        Assign the first of all tasks of a worker's series to it, or, if there's none,
        enter its requests.
        """
        series = state.series
        while state.isFree:
            task = self.backlog.take(series) if self.backlog.size else None
            if task is None:
                self._enterRequests(state)
                return
            if task.series not in state.inLine:
                self._serving = state
                self._requestFor(state, task.series)
                self._serving = None
            if task.series in state.inLine:
                self._assign(state, task)
                if self.backlog.onShrink is not None:
                    self.backlog.onShrink()
                return
            # A subclass has refused. Others may have come to stand in line meanwhile.
            self.backlog.put(task)
            self._loop.matches[task.series] = None
            series = {each: None for each in series if each != task.series}
        self._lines.leaveAll(state)

    def _requestFor(self, state: WorkerState, series: Hashable) -> None:
        """Make a worker's request."""
        try:
            self.request(state.worker, series)
        except Exception:  # noqa: BLE001 - a subclass's may do anything
            log.failure("A request of {worker} failed", worker=state.worker)
            if state.isOpen:
                AssignmentFactory.request(self, state.worker, series)

    def _enterRequests(self, state: WorkerState) -> None:
        """
        Have a worker request tasks of each series for which it has no request in line.
        """
        if len(self._states) > 1:
            self._lines.moveBehind(state)  # Others come first.
        for series in list(state.series):
            if series in state.inLine:
                continue
            if not state.isFree:  # A subclass has given it a task, or let it go.
                break
            if series in state.requests:  # It has only been out of line.
                self._lines.enter(state, series)
            else:
                self._requestFor(state, series)
        if self.backlog.size:  # A subclass may have made calls.
            self._loop.matches.update(dict.fromkeys(state.inLine))
            self._loop.run()
        if self._rebalancing.prefetching:
            self._rebalancing.later()
