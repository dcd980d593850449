"""
The worker in the reactor's own thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from ._child.calls import isIteration
from ._child.describe import PLAIN, callText, failureText
from ._child.status import RAN, ErrorText, Status
from ._support.checks import seriesList
from ._support.log import log
from .errors import WorkerError
from .interfaces import ICancellingWorker, IPrompt, ITask, IWorker
from .iteration import Deferator, IterationProducer
from .tasks._task import forWorker

__all__ = ["AsyncWorker"]


@implementer(IWorker, IPrompt, ICancellingWorker)
class AsyncWorker:
    """
    Runs one task at a time in the reactor's thread. The callable may return a
    Deferred.

    @ivar cQualified: The series C{'async'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.
    """

    cQualified: list[Hashable] = ["async", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False) -> None:
        """
        Make a worker.

        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are.
        """
        self.iQualified = seriesList(series)
        self.raw = raw
        self.ID: int | None = None
        self.hired = False
        self.assignments: dict[Hashable, list[Deferred[Any]]] = {}
        self._task: ITask | None = None
        # Its result isn't wanted any longer.
        self._dropped: ITask | None = None
        self._running: Deferred[Any] | None = None
        self._line: deque[tuple[ITask, Callable[[], object]]] = deque()
        self._going = False
        self._idle: list[Deferred[None]] = []

    def setResignator(self, callableObject: Any) -> None:
        """
        Implement L{IWorker.setResignator}. There's nothing that it would resign for.

        @param callableObject: The callable.
        """

    def run(self, task: ITask) -> Deferred[None]:
        """
        Implement L{IWorker.run}. A task that comes while another runs waits for it.

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
        if self._task is None:
            self._start(task, ready)
        else:
            self._line.append((task, ready))

    def stop(self) -> Deferred[None]:
        """
        Implement L{IWorker.stop}.

        @return: A Deferred that fires with C{None} when all tasks have been run.
        """
        if self._task is None:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._idle.append(d)
        return d

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}.

        @return: The tasks that have no result.
        """
        tasks = [task for task, _ in self._line]
        self._line.clear()
        task, running = self._task, self._running
        if task is not None:
            tasks.insert(0, task)
        self._task = self._running = None
        self._dropped = task
        if running is not None:
            _cancel(running)
        self._haveStopped()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: cancel the Deferred that the callable
        has returned.

        @param task: The task.
        """
        if task is self._task:
            self._dropped = task
            if self._running is not None:
                _cancel(self._running)
            return
        for entry in self._line:
            if entry[0] is task:
                self._line.remove(entry)
                entry[1]()
                return

    def _start(self, task: ITask, ready: Callable[[], object]) -> None:
        """
        Run a task.

        @param task: The task.

        @param ready: Called when it has been run.
        """
        self._task = task
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        try:
            result = f(*args, **kw)
        except BaseException:  # noqa: BLE001 - the callable is the user's
            self._raised(Failure(), task)
        else:
            if type(result) in PLAIN:
                if task is not self._dropped:
                    task.callback((RAN, result))
                self._next(None, task, ready)
                return
            if iscoroutine(result):
                result = Deferred.fromCoroutine(result)
            if isinstance(result, Deferred):
                if task is self._dropped:
                    # It was cancelled by its own callable.
                    _cancel(result)
                elif task is self._task:
                    self._running = result
                result.addCallbacks(
                    self._ran,
                    self._raised,
                    callbackArgs=(task, raw, consumer),
                    errbackArgs=(task,),
                )
                result.addBoth(self._next, task, ready)
                return
            self._ran(result, task, raw, consumer)
        self._next(None, task, ready)

    def _ran(self, result: Any, task: ITask, raw: bool, consumer: Any) -> None:
        """
        Hand back what the callable has returned.

        @param result: It.

        @param task: The task.

        @param raw: Whether iterators are handed back as they are.

        @param consumer: The consumer of iterations, or C{None}.
        """
        if task is self._dropped:
            return
        if raw or not isIteration(result):
            task.callback((RAN, result))
            return
        deferator = Deferator(result)
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

    def _peeked(self, more: object, task: ITask, deferator: Deferator) -> None:
        """
        Hand back an iteration, of which it's known now whether it's an empty one.

        @param more: Whether there's an item, or that the iterator has failed, which
            whoever iterates will hear.

        @param task: The task.

        @param deferator: The iteration.
        """
        task.callback((Status.ITERATOR, deferator if more else []))

    def _raised(self, failure: Failure, task: ITask) -> None:
        """
        Hand back the failure of the callable.

        @param failure: The failure.

        @param task: The task.
        """
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

    def _next(self, _: object, task: ITask, ready: Callable[[], object]) -> None:
        """
        Run the next task, if there is one.

        @param _: Nothing.

        @param task: The task that has been run.

        @param ready: Called to tell so.
        """
        if self._task is task:
            self._task = self._running = None
            if self._line or self._idle:
                self._goOn()
        ready()

    def _goOn(self) -> None:
        """
        Run the tasks in line, from a loop, until one takes time.
        """
        if self._going:
            return
        self._going = True
        while self._line and self._task is None:
            self._start(*self._line.popleft())
        self._going = False
        if self._task is None:
            self._haveStopped()

    def _haveStopped(self) -> None:
        """
        Tell those who wait that no task is left.
        """
        idle, self._idle = self._idle, []
        for d in idle:
            d.callback(None)


def _cancel(d: Deferred[Any]) -> None:
    """
    Cancel what a callable has returned.

    @param d: It.
    """
    try:
        d.cancel()
    except Exception:  # noqa: BLE001 - the canceller is the user's
        log.failure("{d} failed to be cancelled", d=d)
