"""
A worker that runs its tasks in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.status import Status
from .._support.checks import seriesList
from ..interfaces import ICancellingWorker, IPrompt, ITask, IWorker
from ..tasks._task import forWorker
from ._call import Call
from ._loop import ThreadSystem, realThreads
from ._looper import ThreadLooper

__all__ = ["ThreadWorker"]

#: Where tasks that wait are for this worker only, it's given so many at once,
_MOST_AHEAD = 32

#: but only as many as take this many seconds, going by how long the last ones took.
_AHEAD = 0.001

#: How much weight the last call has in that.
_WEIGHT = 0.5

#: After so many calls, or one that took longer, it's looked at.
_GLANCE = 8


class _Timed(Protocol):
    """
    What a task with a time limit can do besides.
    """

    def startTimer(self) -> None:
        """
        Start its clock, from the beginning.
        """

    def stopTimer(self) -> None:
        """
        Stop its clock.
        """


class _TaskCall(Call):
    """
    A call that is a task's.

    @ivar task: The task.

    @ivar ready: Called when the worker is ready after it.
    """

    __slots__ = ("_worker", "ready", "task")

    def __init__(
        self,
        worker: ThreadWorker,
        task: ITask,
        context: Context,
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        raw: bool,
        consumer: Any,
        ready: Callable[[], object],
    ) -> None:
        """
        Make a call.

        @param worker: The worker.

        @param task: The task.

        @param context: See L{Call}.

        @param call: See L{Call}.

        @param raw: See L{Call}.

        @param consumer: See L{Call}.

        @param ready: Called when the worker is ready after it.
        """
        super().__init__(worker.t, context, call, raw, consumer)
        self._worker = worker
        self.task = task
        self.ready = ready

    def finish(self) -> None:
        """
        Give the task its result.
        """
        self._worker.finished(self)

    def lose(self, failure: Failure) -> None:
        """
        Do nothing: the worker knows what's to become of its tasks.

        @param failure: What has become of the thread.
        """


@implementer(IWorker, IPrompt, ICancellingWorker)
class ThreadWorker:
    """
    Runs its tasks in a thread of its own, one after the other.

    A thread can't be killed. If the worker is to drop the task that it's at, it leaves
    the thread alone with it and goes on in another one.

    @ivar cQualified: The series C{'thread'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar capacity: How many tasks it wants to have been given. One, unless there's
        a L{backlogPerWorker} for short ones.

    @ivar backlogPerWorker: Tells how many tasks wait that no other worker could
        run. C{None} where there may be others.

    @ivar t: What has the thread, a L{ThreadLooper<asynqueue.threads.ThreadLooper>}.
    """

    cQualified: list[Hashable] = ["thread", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        *,
        reactor: IReactorTime | None = None,
        system: ThreadSystem = realThreads,
    ) -> None:
        """
        Start the thread.

        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are.

        @param reactor: The reactor. By default, the global one.

        @param system: Where threads come from.

        @raise ThreadError: If no thread can be started.
        """
        self.iQualified = seriesList(series)
        self.raw = raw
        self.ID: int | None = None
        self.hired = False
        self.assignments: dict[Hashable, list[Deferred[Any]]] = {}
        self.t = ThreadLooper(raw, reactor=reactor, system=system)
        self.t.onLost = self._lost
        self.capacity = 1
        self.backlogPerWorker: Callable[[], int] | None = None
        self._seconds = _AHEAD
        self._count = 0
        self._calls: dict[ITask, _TaskCall] = {}
        # The task that the thread is at, as far as is known here.
        self._first: ITask | None = None
        self._stopping = False
        self._resign: Callable[[], object] | None = None

    def __repr__(self) -> str:
        """
        Name the worker by its ID.
        """
        return f"<ThreadWorker {self.ID}>"

    @property
    def tasks(self) -> list[ITask]:
        """
        The tasks that it has accepted and that have no result, oldest first.
        """
        return list(self._calls)

    @property
    def abandoned(self) -> int:
        """
        How many threads have been given up because they were stuck.
        """
        return self.t.abandoned

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        """
        Implement L{IWorker.setResignator}. It's called when a stuck thread can't be
        replaced.

        @param callableObject: The callable.
        """
        self._resign = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        """
        Implement L{IWorker.run}. A task that comes while another one runs waits for
        it.

        @param task: The task.

        @return: A Deferred that fires with C{None} when it has been run.
        """
        d: Deferred[None] = Deferred()
        self.runThen(task, partial(d.callback, None))
        return d

    def runThen(self, task: ITask, ready: Callable[[], object]) -> None:
        """
        Implement L{IPrompt.runThen}.

        @param task: The task.

        @param ready: Called when it has been run.
        """
        if self._stopping or not self.t.threadRunning:
            task.callback((Status.DISCONNECTED, None))
            ready()
            return
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        mine: Context | None = getattr(task, "context", None)
        # An abandoned thread may still be in the one that the task has.
        context = copy_context() if mine is None else mine.copy()
        job = _TaskCall(self, task, context, (f, args, kw), raw, consumer, ready)
        if not self._calls:
            self._first = task
        elif task.timeout is not None:
            cast(_Timed, task).stopTimer()
        self._calls[task] = job
        self.t.submit(job)

    def stop(self) -> Deferred[None]:
        """
        Implement L{IWorker.stop}. Iterations that go on are waited for, too.

        @return: A Deferred that fires with C{None} when the thread has ended.
        """
        self._stopping = True
        return self.t.stop()

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: abandon the thread.

        @return: The tasks that have no result.
        """
        self._stopping = True
        calls, self._calls = self._calls, {}
        self._first = None
        self.t.crash()
        for call in calls.values():
            call.ready()
        return list(calls)

    def cancelTask(self, task: ITask) -> None:
        """
        If the thread is at the task, it's left
        alone with it.

        @param task: The task.
        """
        call = self._calls.pop(task, None)
        if call is not None:
            self.t.cancel(call, abandon=True)
            self._startTimer()
            call.ready()

    def finished(self, call: _TaskCall) -> None:
        """
        Give a task its result, and be ready for another one.

        @param call: The call, which has been made.
        """
        task = call.task
        self._calls.pop(task, None)
        self._count += 1
        if self.backlogPerWorker is not None and (
            call.seconds > self._seconds or not self._count % _GLANCE
        ):
            self._adapt(call.seconds, self.backlogPerWorker())
        if self._calls:
            self._startTimer()
        else:
            self._first = None
        try:
            statusResult = call.outcome()
        except Exception:  # noqa: BLE001 - the consumer may be of anybody's making
            task.errback(Failure())
        else:
            task.callback(statusResult)
        call.ready()

    def _adapt(self, seconds: float, waiting: int) -> None:
        """
        Adapt the capacity to how long calls take.

        @param seconds: How long the last one took.

        @param waiting: How many tasks wait.
        """
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            self._seconds += _WEIGHT * (seconds - self._seconds)
        if waiting:
            self.capacity = 1 + min(waiting, _MOST_AHEAD, int(_AHEAD / self._seconds))
        else:
            self.capacity = 1

    def _startTimer(self) -> None:
        """
        Start the clock of the task that the thread is at now, if it has just begun.
        """
        first = next(iter(self._calls), None)
        if first is not self._first:
            self._first = first
            if first is not None and first.timeout is not None:
                cast(_Timed, first).startTimer()

    def _lost(self) -> None:
        """
        Resign, since there's no thread any longer.
        """
        if self._resign is not None:
            self._resign()
        for task in self.crash():
            task.callback((Status.DISCONNECTED, None))
