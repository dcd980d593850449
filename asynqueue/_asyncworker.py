"""The worker in the reactor's own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from contextvars import Context
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ._child.calls import ContextIterator, isIteration
from ._child.describe import PLAIN, callText, failureText
from ._child.status import RAN, ErrorText, Status
from ._support.awaitable import OneShot
from ._support.log import log
from .errors import WorkerError
from .interfaces import ICancellingWorker, ITask, IWorker
from .iteration import Deferator, IterationProducer
from .tasks._workerbase import WorkerBase, forWorker


@implementer(IWorker, ICancellingWorker)
class AsyncWorker(WorkerBase):
    """
    Runs one task at a time in the reactor's thread. The callable may return a
    Deferred, or be a coroutine function.

    @ivar cQualified: The series C{'async'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar exclusive: Whether it runs calls of its further series only.
    """

    # _task is the one that runs, _inner the Deferred that its callable has returned.
    # Tasks that come meanwhile, updates, are in _waiting, each with the Deferred that
    # run has returned. _dropped is a task whose result nobody wants any longer.

    cQualified: list[Hashable] = ["async", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        *,
        exclusive: bool = False,
    ) -> None:
        """
        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are.

        @param exclusive: C{True} to reserve it for calls of C{series}.
        """
        super().__init__(series, raw, exclusive)
        self._task: ITask | None = None
        self._inner: Deferred[object] | None = None
        self._dropped: ITask | None = None
        self._waiting: deque[tuple[ITask, Deferred[None]]] = deque()
        self._idle: OneShot[None] | None = None
        self._isLooping = False

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that were accepted and have no result yet."""
        tasks = [task for task, _ in self._waiting]
        return tasks if self._task is None else [self._task, *tasks]

    def run(self, task: ITask) -> Deferred[None]:
        if self._task is not None:
            ready: Deferred[None] = Deferred()
            self._waiting.append((task, ready))
            return ready
        self._task = task
        f, args, kw = task.callTuple
        raw, consumer = self.raw, None
        if kw:
            f, args, kw, raw, consumer = forWorker((f, args, kw), raw)
        context = Context() if task.context is None else task.context
        try:
            result = context.run(f, *args, **kw)
            if iscoroutine(result):
                result = context.run(Deferred.fromCoroutine, result)
        except BaseException:  # noqa: BLE001 - the callable is the user's
            self._raised(Failure(), task)
        else:
            if type(result) in PLAIN:  # Saves 0.7 us for most results.
                if task is not self._dropped:
                    task.callback((RAN, result))
            elif isinstance(result, Deferred):
                return self._await(result, task, raw, consumer)
            else:
                self._ran(result, task, raw, consumer)
        self._ended(None, task)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        if self._task is None:
            return self._resignAfter(succeed(None))
        if self._idle is None:
            self._idle = OneShot()
        return self._resignAfter(self._idle.wait())

    def crash(self) -> list[ITask]:
        tasks = self.tasks
        self._waiting.clear()
        self._dropped, inner = self._task, self._inner
        self._task = self._inner = None
        if inner is not None:
            _cancel(inner)
        self._becameIdle()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        if task is self._task:
            self._dropped = task
            if self._inner is not None:
                _cancel(self._inner)
            return
        for entry in self._waiting:
            if entry[0] is task:
                self._waiting.remove(entry)
                entry[1].callback(None)
                return

    def _await(
        self,
        inner: Deferred[object],
        task: ITask,
        raw: bool,
        consumer: IConsumer | None,
    ) -> Deferred[None]:
        """Wait for what the callable has returned."""
        if task is self._dropped:
            _cancel(inner)  # It was cancelled by its own callable.
        elif task is self._task:
            self._inner = inner
        inner.addCallbacks(
            self._ran,
            self._raised,
            callbackArgs=(task, raw, consumer),
            errbackArgs=(task,),
        )
        return inner.addBoth(self._ended, task)

    def _ran(
        self, result: Any, task: ITask, raw: bool, consumer: IConsumer | None
    ) -> None:
        """Give the task what the callable has returned."""
        if task is self._dropped:
            return
        if raw or not isIteration(result):
            task.callback((RAN, result))
            return
        context = Context() if task.context is None else task.context
        deferator = Deferator(ContextIterator(result, context))
        if consumer is None:
            deferator.peek().addBoth(self._peeked, task, deferator)
            return
        try:
            producer = IterationProducer(deferator, consumer)
        except Exception:  # noqa: BLE001 - the consumer is the user's
            deferator.stop()
            self._raised(Failure(), task)
        else:
            task.callback((Status.ITERATOR, producer))

    def _peeked(self, more: object, task: ITask, deferator: Deferator[object]) -> None:
        """
        Give the task an iteration, of which it's known now whether it's an empty one.
        If it has failed, whoever iterates will hear of that.
        """
        task.callback((Status.ITERATOR, deferator if more else []))

    def _raised(self, failure: Failure, task: ITask) -> None:
        if task is self._dropped:
            return
        error = failure.value
        text = failureText(failure, callText(*task.callTuple))
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            task.callback((Status.ERROR, ErrorText(text, error, failure)))
            return
        # Raised where somebody waits for the call, these would end what they have
        # nothing to do with: a generator, or the program.
        carrier = WorkerError(text)
        carrier.__cause__ = error
        task.callback((Status.ERROR, ErrorText(text, carrier)))

    def _ended(self, _: object, task: ITask) -> None:
        """Go on after a task has been run, or crashed while it was."""
        if task is self._dropped:
            self._dropped = None
        if self._task is not task:
            return
        self._task = self._inner = None
        if (self._waiting or self._idle) and not self._isLooping:
            self._runWaiting()

    def _runWaiting(self) -> None:
        """Run the tasks that wait, in a loop, until one takes time."""
        self._isLooping = True
        while self._waiting and self._task is None:
            waiting, ready = self._waiting.popleft()
            self.run(waiting).chainDeferred(ready)
        self._isLooping = False
        if self._task is None:
            self._becameIdle()

    def _becameIdle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.fire(None)


def _cancel(d: Deferred[object]) -> None:
    """Cancel what a callable has returned."""
    try:
        d.cancel()
    except Exception:  # noqa: BLE001 - the canceller is the user's
        log.failure("{d} failed to be cancelled", d=d)
