"""
The meeting of tasks and workers: requests and assignments, one queue per series.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ._backlog import Backlog
from ._log import log
from ._reactor import orGlobalReactor
from ._task import Task
from .errors import ImplementationError
from .interfaces import ISendsAhead, ITaskCanceller, IWorker

__all__ = ["Assignment", "AssignmentFactory"]

#: Seconds that tasks are handed out at a stretch before the reactor gets its turn.
_STRETCH = 0.004

#: Calls may be nested so deep before the reactor hands tasks out. Programs whose
#: callbacks make calls that complete at once, and add themselves to those, nest them.
_DEEPEST = 250

#: Seconds between looks whether a worker has tasks ahead that one with nothing to do
#: could run.
_RELIEF = 0.002

#: At each so many occasions it's looked how deep they are.
_GLANCE = 16


class Assignment:
    """
    A task on its way to a worker.

    @ivar task: The task.
    """

    __slots__ = ("_d", "_worker", "task")

    def __init__(self, task: Task) -> None:
        """
        Make an assignment.

        @param task: The task.
        """
        self.task = task
        # Made when somebody asks for it: mostly nobody does.
        self._d: Deferred[Any] | None = None
        self._worker: Any = None

    @property
    def d(self) -> Deferred[Any]:
        """
        A Deferred that fires with the worker when one accepts.
        """
        if self._d is None:
            self._d = Deferred()
            if self._worker is not None:
                self._d.callback(self._worker)
        return self._d

    def accept(self, worker: Any) -> Deferred[object]:
        """
        Have a worker accept the task: start the task's clock, and run it.

        @param worker: The worker, which provides L{IWorker}.

        @return: A Deferred that fires when the worker is ready for another task.
        """
        task = self.task
        task.assignment = None
        task.accept()
        self._worker = worker
        if self._d is not None and not self._d.called:
            self._d.callback(worker)
            if task.settled:
                # Who heard that it's accepted has cancelled it.
                return succeed(None)
        return _run(worker, task)


def _run(worker: Any, task: Task) -> Deferred[object]:
    """
    Have a worker run a task.

    @param worker: The worker.

    @param task: The task.

    @return: A Deferred that fires when the worker is ready for another.

    @raise ImplementationError: If the worker gives something else.
    """
    ready: object = worker.run(task)
    if isinstance(ready, Deferred):
        return ready
    raise ImplementationError(
        f"The method run of {worker!r} must return a Deferred, not {ready!r}"
    )


class _Post:
    """
    What is known of a worker while tasks are handed to it.

    @ivar worker: The worker.

    @ivar canceller: The worker, if it can cancel tasks, else C{None}.

    @ivar series: The series it asks for tasks of, in the order of asking.

    @ivar running: The number of tasks that it isn't ready after.

    @ivar listed: Whether it's in line to be looked at.

    @ivar open: Whether it's to get tasks at all.

    @ivar ahead: Whether it may have tasks that it could give back.

    @ivar ready: Notes that the worker is ready for another task.
    """

    __slots__ = (
        "ahead",
        "canceller",
        "listed",
        "open",
        "ready",
        "running",
        "series",
        "worker",
    )

    def __init__(self, worker: Any, ready: Callable[[object, _Post], object]) -> None:
        self.worker = worker
        self.ready = partial(ready, None, self)
        self.canceller = worker if ITaskCanceller.providedBy(worker) else None
        self.series: list[Hashable] = []
        self.running = 0
        self.listed = False
        self.open = True
        self.ahead = ISendsAhead.providedBy(worker)

    @property
    def free(self) -> bool:
        """
        Whether the worker can be given another task.
        """
        return self.open and self.running < getattr(self.worker, "capacity", 1)


def _isDeep() -> bool:
    """
    Tell whether calls are nested deeply.

    @return: Whether they are.
    """
    try:
        sys._getframe(_DEEPEST)
    except ValueError:
        return False
    return True


class AssignmentFactory:
    """
    Hands tasks to workers.

    Guarantees:

      - A task waits for workers of its own series only.
      - A worker that becomes ready gets the task that is first among all waiting
        tasks of all its series, at that moment and not before. If none waits, its
        requests are entered, one for each series; they are withdrawn while the worker
        has as many tasks as its capacity.
      - No task waits for long with a worker that has been given it ahead while another
        that could run it has nothing to do.
      - Whatever completes at once is handed out from one loop, never from within the
        callbacks of the last task, and the reactor has its turn every few
        milliseconds, and before calls are nested too deeply.

    @ivar backlog: The waiting tasks.

    @ivar requests: For each series, the outstanding requests, oldest first.
    """

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        """
        Make a factory.

        @param reactor: Gives the time, and the turns. By default, the global reactor.
        """
        self.backlog = Backlog()
        self.requests: dict[Hashable, dict[Deferred[Assignment], _Post]] = {}
        self._posts: dict[int, _Post] = {}
        self._line: deque[_Post] = deque()
        self._busy = False
        self._resumption: IDelayedCall | None = None
        self._relief: IDelayedCall | None = None
        self._occasions = 0
        self._reactor = reactor

    def request(self, worker: IWorker, series: Hashable) -> None:
        """
        Have a worker ask for tasks of a series, from now on: whenever it's ready, and
        hired.

        @param worker: The worker.

        @param series: The series.
        """
        self.requestAll(worker, [series])

    def requestAll(self, worker: IWorker, seriesList: list[Hashable]) -> None:
        """
        Have a worker ask for tasks of several series.

        @param worker: The worker.

        @param seriesList: The series.
        """
        post = self._post(worker)
        post.open = True
        post.series += [series for series in seriesList if series not in post.series]
        self._withdraw(post)
        self._enlist(post)
        self._handOut()

    def new(self, task: Task) -> Deferred[Any]:
        """
        Add a task.

        @param task: The task.

        @return: A Deferred that fires with the worker that has accepted the task.
        """
        assignment = task.assignment = Assignment(task)
        self.add(task)
        return assignment.d

    def add(self, task: Task) -> None:
        """
        Add a task without anybody waiting to hear that it's accepted.

        @param task: The task.
        """
        requests = self.requests.get(task.series)
        if requests and not (self._busy or self._line or self._resumption):
            post = next(iter(requests.values()))
            if post.free and not self.backlog:
                self._meet(post, task)
                return
        self.backlog.put(task)
        if requests:
            self._enlist(next(iter(requests.values())))
            self._handOut()

    def _meet(self, post: _Post, task: Task) -> None:
        """
        Hand a task to a worker that has waited for one, when nothing else waits: the
        same as by way of the backlog, in half the time.

        @param post: The worker's post.

        @param task: The task.
        """
        self._busy = True
        try:
            self._fill(post, task)
        finally:
            self._busy = False
        if post.free:
            self._enlist(post)
        if self._line or self.backlog:
            self._handOut()

    def cancelRequests(self, worker: IWorker) -> None:
        """
        Withdraw all outstanding requests of a worker, and hand it no more tasks until
        it makes a request again.

        @param worker: The worker.
        """
        post = self._posts.pop(id(worker), None)
        if post is not None:
            post.open = False
            self._withdraw(post)

    def runDirectly(self, worker: Any, task: Task) -> None:
        """
        Have a certain worker run a task now, whatever else it's doing.

        @param worker: The worker.

        @param task: The task.
        """
        post = self._post(worker)
        task.direct = True
        self._start(post, task)
        if not post.free:
            # A request of a worker that is busy would keep a task from another one.
            self._withdraw(post)

    def together(self, f: Callable[[], object]) -> None:
        """
        Call something, and hand out tasks after that, to all workers that have become
        ready meanwhile, at one go. It saves much of what each of them would cost.

        @param f: The callable.
        """
        if self._busy:
            f()
            return
        self._busy = True
        try:
            f()
        finally:
            self._busy = False
            self._handOut()

    def withdrawTasks(self, selected: Any) -> list[Task]:
        """
        Take waiting tasks out.

        @param selected: Called with each task; true to take it out.

        @return: The tasks, which nobody has now, in their order.
        """
        return self.backlog.remove(selected)

    def stop(self) -> None:
        """
        Leave nothing behind in the reactor.
        """
        calls = (self._resumption, self._relief)
        self._resumption = self._relief = None
        for call in calls:
            if call is not None and call.active():
                call.cancel()

    def _post(self, worker: Any) -> _Post:
        """
        Find or make what is known of a worker.

        @param worker: The worker.

        @return: Its post.
        """
        post = self._posts.get(id(worker))
        if post is None:
            post = self._posts[id(worker)] = _Post(worker, self._ready)
            if getattr(worker, "assignments", None) is None:
                worker.assignments = {}
        return post

    def _enlist(self, post: _Post) -> None:
        """
        Put a worker in line to be looked at, once.

        @param post: The worker's post.
        """
        if not post.listed:
            post.listed = True
            self._line.append(post)

    def _handOut(self) -> None:
        """
        Hand tasks to the workers in line.
        """
        if self._busy or self._resumption is not None:
            return
        self._occasions += 1
        if self._occasions % _GLANCE == 0 and _isDeep():
            self._yield()
            return
        self._busy = True
        try:
            if not self._handOutSome():
                self._yield()
        finally:
            self._busy = False

    def _yield(self) -> None:
        """
        Go on when the reactor has had its turn.
        """
        self._resumption = orGlobalReactor(self._reactor).callLater(0, self._resume)

    def _resume(self) -> None:
        """
        Go on after the reactor has had its turn.
        """
        self._resumption = None
        self._handOut()

    def _handOutSome(self) -> bool:
        """
        Hand tasks to workers until none can be handed out, or it has taken long.

        @return: Whether all is done.
        """
        line, backlog = self._line, self.backlog
        if self._reactor is None:
            self._reactor = orGlobalReactor(None)
        seconds = self._reactor.seconds
        end = seconds() + _STRETCH
        while line or self._match():
            post = line.popleft()
            post.listed = False
            if not post.free:
                if post.open:
                    self._withdraw(post)
                continue
            task = backlog.pop(post.series)
            if task is None:
                self._enter(post)
                continue
            if self.requests:
                self._fill(post, task)
            else:
                self._start(post, task)
            if backlog.onShrink is not None:
                backlog.onShrink()
            if post.free:
                self._enlist(post)
            if line and seconds() >= end:
                return False
        return True

    def _match(self) -> bool:
        """
        Put a worker in line whose request could be filled. There may be one when tasks
        have come while others were being handed out.

        @return: Whether there's one.
        """
        if self.requests and self.backlog:
            for series, requests in self.requests.items():
                if self.backlog.waits(series):
                    self._enlist(next(iter(requests.values())))
                    return True
        return False

    def _enter(self, post: _Post) -> None:
        """
        Enter the worker's requests, one for each of its series. They're one Deferred,
        as only one of them can be met before all are withdrawn.

        @param post: The worker's post.
        """
        d: Deferred[Assignment] = Deferred()
        assignments, requests = post.worker.assignments, self.requests
        for series in post.series:
            if series not in assignments:
                assignments[series] = [d]
                if series in requests:
                    requests[series][d] = post
                else:
                    requests[series] = {d: post}
        relief = self._relief
        if relief is not None and not self._crowded():
            self._relief = None
            relief.cancel()

    def _crowded(self) -> list[_Post]:
        """
        Find workers that have tasks ahead.

        @return: Their posts.
        """
        return [p for p in self._posts.values() if p.ahead and p.running > 1]

    def _relieve(self) -> None:
        """
        Have workers with tasks ahead give them back, for those with nothing to do.
        """
        self._relief = None
        for post in self._crowded():
            for task in post.worker.takeBack():
                task.stopTimer()
                task.accepted = False
                self.backlog.put(task)
        if self._crowded():
            self._watch()
        self._handOut()

    def _watch(self) -> None:
        """
        Look in a moment whether tasks are stuck that were given ahead.
        """
        self._relief = orGlobalReactor(self._reactor).callLater(_RELIEF, self._relieve)

    def _withdraw(self, post: _Post) -> None:
        """
        Withdraw the worker's requests.

        @param post: The worker's post.
        """
        assignments = post.worker.assignments
        for series, mine in assignments.items():
            requests = self.requests.get(series)
            if requests:
                for d in mine:
                    requests.pop(d, None)
                if not requests:
                    del self.requests[series]
        assignments.clear()

    def _fill(self, post: _Post, task: Task) -> None:
        """
        Start a task on a worker that may have requests outstanding, and fire the one
        that the task meets.

        @param post: The worker's post.

        @param task: The task.
        """
        mine = post.worker.assignments.get(task.series)
        request = mine[0] if mine else None
        self._withdraw(post)
        if request is None:
            self._start(post, task)
            return
        assignment = task.assignment = task.assignment or Assignment(task)
        self._start(post, task)
        request.callback(assignment)

    def _start(self, post: _Post, task: Task) -> None:
        """
        Have a worker accept a task.

        @param post: The worker's post.

        @param task: The task.
        """
        post.running += 1
        if post.running > 1 and self._relief is None and post.ahead:
            self._watch()
        task.holder = post.canceller
        assignment = task.assignment
        try:
            if assignment is not None:
                d = assignment.accept(post.worker)
            elif post.ahead:
                task.accept()
                post.worker.runThen(task, post.ready)
                return
            else:
                task.accept()
                d = _run(post.worker, task)
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            task.errback(Failure())
            self._ready(None, post)
            return
        if d.called and not d.paused and not isinstance(d.result, Failure):
            # As good as a callback, for a fraction of the time.
            self._ready(None, post)
        else:
            d.addBoth(self._ready, post)

    def _ready(self, result: object, post: _Post) -> None:
        """
        Note that a worker is ready after a task.

        @param result: What the worker's Deferred fired with; a failure is logged.

        @param post: The worker's post.
        """
        post.running -= 1
        if isinstance(result, Failure):
            log.failure("{worker} failed to run a task", result, worker=post.worker)
        if post.open and post.series:
            if not post.listed:
                post.listed = True
                self._line.append(post)
            if not self._busy:
                self._handOut()
