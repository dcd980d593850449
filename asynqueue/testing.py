"""
A worker that a test single-steps, and other helpers for tests of programs that use
queues.

With them and L{Clock<twisted.internet.task.Clock>}, all that a queue does can be
tested without a reactor, threads, child processes, or waiting::

    worker = MemoryWorker()
    q = TaskQueue(worker, reactor=Clock())
    d = q.call(divide, 1, 0)
    worker.fail(ZeroDivisionError())
    self.failureResultOf(d, ZeroDivisionError)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ._child.calls import CallRunner
from ._child.describe import callText, errorText
from ._child.status import ErrorText, Status, StatusResult
from ._support.awaitable import OneShot
from .interfaces import ICancellingWorker, ITask, IWorker
from .iteration import Deferator, IterationProducer
from .tasks._workerbase import WorkerBase

__all__ = ["MemoryWorker", "RecordingConsumer"]


@implementer(IWorker, ICancellingWorker)
class MemoryWorker(WorkerBase):
    """
    Accepts tasks, and does nothing about them until it's told to.

    Each method that does something to a task takes it as C{task}; without that, it's
    the one that was accepted first of those that have no result. Tests may also name
    a task that has one, or that the worker has left behind in a crash: real workers
    are late, too. With C{ready=False}, the worker isn't L{ready} after the task.

    @ivar cQualified: The series C{'memory'} and C{'local'}.

    @ivar capacity: How many tasks it wants at once.

    @ivar accepted: All tasks that were ever accepted, in order.

    @ivar cancelled: The tasks that it was told to stop work on.

    @ivar stopping: Whether it has been told to stop.

    @ivar crashed: Whether it has been crashed.
    """

    cQualified: list[Hashable] = ["memory", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        capacity: int = 1,
        *,
        exclusive: bool = False,
    ) -> None:
        """
        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for L{step} to give iterators as they are.

        @param capacity: How many tasks it wants at once.

        @param exclusive: C{True} to reserve it for calls of C{series}.
        """
        super().__init__(series, raw, exclusive)
        self.capacity = capacity
        self.accepted: list[ITask] = []
        self.cancelled: list[ITask] = []
        self.stopping = False
        self.crashed = False
        self._running: list[ITask] = []
        self._unready: dict[ITask, Deferred[None]] = {}
        self._stopped: OneShot[None] = OneShot()

    @property
    def running(self) -> list[ITask]:
        """The tasks that have no result, in the order in which they were accepted."""
        return list(self._running)

    @property
    def calls(self) -> list[tuple[Any, ...]]:
        """
        The callable and the positional arguments, in one tuple, of each task that
        has no result.
        """
        return [(task.callTuple[0], *task.callTuple[1]) for task in self._running]

    @property
    def busy(self) -> int:
        """The number of tasks that the worker isn't ready after."""
        return len(self._unready)

    def run(self, task: ITask) -> Deferred[None]:
        d: Deferred[None] = Deferred()
        self.accepted.append(task)
        self._running.append(task)
        self._unready[task] = d
        return d

    def stop(self) -> Deferred[None]:
        self.stopping = True
        self._mayStop()
        return self._resignAfter(self._stopped.wait())

    def crash(self) -> list[ITask]:
        self.crashed = True
        tasks, self._running = self._running, []
        self._unready.clear()
        self._mayStop()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """Forget a task, and be ready."""
        if task in self._running:
            self.cancelled.append(task)
            self._done(task)
            self._makeReady(task)
            self._mayStop()

    def resign(self) -> None:
        """
        Say that the worker can't work any longer.

        @raise RuntimeError: If nobody has hired it.
        """
        if self._resignator is None:
            raise RuntimeError("A worker that nobody has hired can't resign")
        self._resign()

    def ready(self, task: ITask | None = None) -> None:
        """
        Be ready for another task, whether the last has its result or not.

        @param task: The task after which it's ready, by default the first of those
            after which it isn't.

        @raise RuntimeError: If the worker is ready.
        """
        if task is None:
            if not self._unready:
                raise RuntimeError("The worker is ready after each of its tasks")
            task = next(iter(self._unready))
        self._makeReady(task)

    def answer(
        self, statusResult: StatusResult, task: ITask | None = None, ready: bool = True
    ) -> None:
        """
        Give a task a status and a result.

        @raise RuntimeError: If no task is running, and none is given.
        """
        task = self._chosen(task)
        self._done(task)
        task.callback(statusResult)
        self._after(task, ready)

    def complete(
        self, result: object = None, task: ITask | None = None, ready: bool = True
    ) -> None:
        """Give a task a result, without calling its callable."""
        self.answer((Status.RAN, result), task, ready)

    def fail(
        self,
        exception: BaseException,
        task: ITask | None = None,
        ready: bool = True,
    ) -> None:
        """Have a task raise an exception, without calling its callable."""
        task = self._chosen(task)
        text = errorText(exception, callText(*task.callTuple))
        self.answer((Status.ERROR, ErrorText(text, exception)), task, ready)

    def timeOut(self, task: ITask | None = None, ready: bool = True) -> None:
        """
        Say that a task has taken too long, as workers that watch the time themselves
        do.
        """
        task = self._chosen(task)
        text = f"{task!r} took longer than {task.timeout} seconds"
        self.answer((Status.TIMEOUT, text), task, ready)

    def disconnect(self, task: ITask | None = None, ready: bool = True) -> None:
        """Say that a task has not been run."""
        self.answer((Status.DISCONNECTED, None), task, ready)

    def lose(
        self,
        failure: BaseException,
        task: ITask | None = None,
        ready: bool = True,
    ) -> None:
        """
        Give a task a failure that is no fault of the callable, such as
        L{WorkerLost<asynqueue.errors.WorkerLost>}.
        """
        task = self._chosen(task)
        self._done(task)
        task.errback(failure)
        self._after(task, ready)

    def step(self, task: ITask | None = None, ready: bool = True) -> None:
        """Run a task: call its callable, and give it what that returns or raises."""
        task = self._chosen(task)
        f, args, kw = task.callTuple
        kw = dict(kw)
        raw = kw.pop("raw", self.raw)
        consumer = kw.pop("consumer", None)
        status, result = CallRunner(raw)((f, args, kw))
        if status == Status.ITERATOR:
            result = Deferator(result)
            if consumer is not None:
                result = IterationProducer(result, consumer)
            elif not result.moreLeft:
                result = []
        self.answer((status, result), task, ready)

    def _chosen(self, task: ITask | None) -> ITask:
        if task is not None:
            return task
        if not self._running:
            raise RuntimeError("The worker has no task without a result")
        return self._running[0]

    def _done(self, task: ITask) -> None:
        if task in self._running:
            self._running.remove(task)

    def _after(self, task: ITask, ready: bool) -> None:
        if ready:
            self._makeReady(task)
        self._mayStop()

    def _makeReady(self, task: ITask) -> None:
        ready = self._unready.pop(task, None)
        if ready is not None:
            ready.callback(None)

    def _mayStop(self) -> None:
        if self.stopping and not self._running:
            self._stopped.fire(None)


@implementer(IConsumer)
class RecordingConsumer:
    """
    Keeps all that is written to it.

    @ivar items: What was written, in order.

    @ivar producer: Its producer, or C{None}.

    @ivar streaming: Whether that is a push producer, C{None} without one.

    @ivar unregistered: How many times a producer has left it.
    """

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.producer: Any = None
        self.streaming: bool | None = None
        self.unregistered = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"{self!r} has a producer already, {self.producer!r}")
        self.producer = producer
        self.streaming = streaming

    def unregisterProducer(self) -> None:
        self.producer = None
        self.streaming = None
        self.unregistered += 1

    def write(self, data: object) -> None:
        self.items.append(data)
