"""
The meeting of tasks and workers: requests and assignments, one queue per series.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import ImplementationError
from ..interfaces import ICancellingWorker, IPrefetchingWorker, IPrompt, IWorker
from ._backlog import Backlog
from ._task import Task

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


def _prompt(worker: Any) -> Callable[[Any, Callable[[], object]], None] | None:
    """
    Find out how a worker runs tasks without a Deferred.

    @param worker: The worker.

    @return: Its C{runThen}. C{None} if it has none, or a subclass has a C{run} of its
        own that C{runThen} knows nothing of.
    """
    if not IPrompt.providedBy(worker):
        return None
    for kind in type(worker).__mro__:
        if "runThen" in vars(kind):
            return worker.runThen
        if "run" in vars(kind):
            break
    return None


class _Request(list["Deferred[Assignment]"]):
    """
    The request of a worker for tasks of any of its series: a list of one Deferred,
    which is made when somebody looks at it, as mostly nobody does.

    @ivar seen: Whether somebody has.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __len__(self) -> int:
        """
        There's always one.
        """
        return 1

    def __getitem__(self, index: Any) -> Any:
        """
        Get the Deferred.

        @param index: Its index.
        """
        self._look()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Deferred[Assignment]]:
        """
        Iterate over the one Deferred.
        """
        self._look()
        return super().__iter__()

    def __repr__(self) -> str:
        """
        Show the Deferred.
        """
        self._look()
        return super().__repr__()

    def _look(self) -> None:
        """
        Make the Deferred.
        """
        if not self.seen:
            self.seen = True
            self.append(Deferred())


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

    @ivar runThen: Has the worker run a task and call L{ready} then. C{None} if it can't
        do that.

    @ivar request: Its request, while it's outstanding, else C{None}.
    """

    __slots__ = (
        "ahead",
        "canceller",
        "listed",
        "open",
        "ready",
        "request",
        "runThen",
        "running",
        "series",
        "worker",
    )

    def __init__(self, worker: Any, ready: Callable[[object, _Post], object]) -> None:
        self.worker = worker
        self.ready = partial(ready, None, self)
        self.canceller = worker if ICancellingWorker.providedBy(worker) else None
        self.series: list[Hashable] = []
        self.running = 0
        self.listed = False
        self.open = True
        self.ahead = IPrefetchingWorker.providedBy(worker)
        self.runThen = _prompt(worker)
        self.request: _Request | None = None

    @property
    def free(self) -> bool:
        """
        Whether the worker can be given another task.
        """
        return self.open and (
            not self.running or self.running < getattr(self.worker, "capacity", 1)
        )


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
        self.requests: dict[Hashable, dict[_Post, _Request]] = {}
        self._asking = 0
        self._posts: dict[int, _Post] = {}
        self._line: deque[_Post] = deque()
        self._busy = False
        self._meeting: _Post | None = None
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
        if not requests:
            self.backlog.put(task)
            return
        post = next(iter(requests))
        if (
            self._busy
            or self._line
            or self._resumption
            or self.backlog
            or not post.free
            or self._isTooDeep()
        ):
            self.backlog.put(task)
            self._enlist(post)
            self._handOut()
        else:
            self._meet(post, task)

    def _meet(self, post: _Post, task: Task) -> None:
        """
        Hand a task to a worker that has waited for one, when nothing else waits: the
        same as by way of the backlog, in half the time. If the worker is done with it
        at once, its requests have never been withdrawn.

        @param post: The worker's post.

        @param task: The task.
        """
        self._busy = True
        self._meeting = post
        try:
            self._fill(post, task)
        finally:
            self._busy = False
            self._meeting = None
        if not post.free:
            self._withdraw(post)
        elif post.request is None or self.backlog:
            self._enlist(post)
        elif self._asking > 1:
            self._goBehind(post)
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
            self.requests = {
                series: posts for series, posts in self.requests.items() if posts
            }

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

    def batch(self, f: Callable[[], object]) -> None:
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
        if self._busy or self._resumption is not None or self._isTooDeep():
            return
        self._busy = True
        try:
            if not self._handOutSome():
                self._yield()
        finally:
            self._busy = False

    def _isTooDeep(self) -> bool:
        """
        Tell whether calls are nested too deeply to hand out anything.

        @return: Whether they are. It goes on when the reactor has had its turn, then.
        """
        self._occasions += 1
        if self._occasions % _GLANCE or not _isDeep():
            return False
        self._yield()
        return True

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
        while line or (self._asking and self._match()):
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
            if post.request is None:
                self._start(post, task)
            else:
                self._fill(post, task)
                self._withdraw(post)
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
        if self.backlog:
            for series, requests in self.requests.items():
                if requests and self.backlog.waits(series):
                    self._enlist(next(iter(requests)))
                    return True
        return False

    def _enter(self, post: _Post) -> None:
        """
        Enter the worker's requests, one for each of its series. They're one Deferred,
        as only one of them can be met before all are withdrawn.

        @param post: The worker's post.
        """
        if post.request is None:
            request = post.request = _Request()
            self._asking += 1
            assignments, requests = post.worker.assignments, self.requests
            for series in post.series:
                assignments[series] = request
                if series in requests:
                    requests[series][post] = request
                else:
                    requests[series] = {post: request}
        relief = self._relief
        if relief is not None and not self._crowded():
            self._relief = None
            relief.cancel()

    def _goBehind(self, post: _Post) -> None:
        """
        Put the worker's requests behind those of others.

        @param post: The worker's post.
        """
        for series in post.worker.assignments:
            requests = self.requests[series]
            requests[post] = requests.pop(post)

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
            for task in post.worker.reclaim():
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
        if post.request is not None:
            post.request = None
            self._asking -= 1
            assignments = post.worker.assignments
            for series in assignments:
                del self.requests[series][post]
            assignments.clear()

    def _fill(self, post: _Post, task: Task) -> None:
        """
        Start a task on a worker that has requests outstanding. If somebody may wait
        for that, it's told so, and the requests are withdrawn.

        @param post: The worker's post.

        @param task: The task.
        """
        request = post.request
        if request is None or not request.seen:
            self._start(post, task)
            return
        self._withdraw(post)
        assignment = task.assignment = task.assignment or Assignment(task)
        self._start(post, task)
        request[0].callback(assignment)

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
            elif post.runThen is not None:
                task.accept()
                post.runThen(task, post.ready)
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
        if post.open and post.series and post is not self._meeting:
            if not post.listed:
                post.listed = True
                self._line.append(post)
            if not self._busy:
                self._handOut()
