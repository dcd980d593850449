"""A worker that runs its tasks in a thread, and the queue with such workers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.status import Status
from .._support.checks import checkCount, seriesList
from ..base._resizing import SizedQueue
from ..errors import ThreadError
from ..interfaces import ICancellingWorker, ITask, IWorker
from ..tasks._workerbase import WorkerBase, forWorker
from ._calls import ThreadCall
from ._jobs import OPEN
from ._looper import ThreadLooper

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..base._options import QueueOptions

#: How many tasks a worker is given in advance at most,
MAX_PREFETCHED = 32

#: and how long they may take, going by the last ones.
PREFETCHED_SECONDS = 0.001

#: How much the last task counts in that.
WEIGHT = 0.5

#: How many tasks are run between looks at how long they take, unless one takes longer
#: than was expected. To look each time would be two calls more for each.
LOOK_EVERY = 8


@implementer(IWorker, ICancellingWorker)
class ThreadWorker(WorkerBase):
    """
    Runs its tasks in a thread of its own, one after the other.

    A thread can't be killed. When a task is cancelled or runs out of time while the
    thread is at it, the worker leaves the thread alone with it and goes on in another.

    C{_calls} has the tasks without a result, each with the Deferred that L{run} gave
    for it, in the order in which the thread runs them. So the first is the one that
    it's at. Only its clock runs.

    @ivar cQualified: The series C{'thread'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar exclusive: Whether it runs calls of its further series only.

    @ivar capacity: How many tasks it wants to have been given: 1, or more where they
        are short, and there's a L{backlogPerWorker}.

    @ivar backlogPerWorker: Tells how many tasks wait that no other worker could run.
        C{None} where there may be other workers.

    @ivar t: The L{ThreadLooper<asynqueue.threads.ThreadLooper>} of its thread.
    """

    cQualified: list[Hashable] = ["thread", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        *,
        exclusive: bool = False,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Start the thread.

        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param reactor: The reactor. By default, the global one.

        @raise ThreadError: If no thread can be started.
        """
        super().__init__(series, raw, exclusive)
        self.t = ThreadLooper(raw, reactor=reactor)
        self.capacity = 1
        self.backlogPerWorker: Callable[[], int] | None = None
        self._thread = self.t.thread
        self._thread.onLost = self._threadLost
        self._calls: dict[ThreadCall, tuple[ITask, Deferred[None]]] = {}
        # How long the last tasks took, and how many there have been.
        self._seconds = PREFETCHED_SECONDS
        self._count = 0

    def __repr__(self) -> str:
        return f"<ThreadWorker {self.ID}>"

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that it has accepted and that have no result, oldest first."""
        return [task for task, _ in self._calls.values()]

    @property
    def running(self) -> list[ITask]:
        """The one of them that the thread is at, if there is one."""
        return self.tasks[:1]

    @property
    def hasStopped(self) -> bool:
        return self._thread.state is not OPEN

    @property
    def abandoned(self) -> int:
        """How many threads were given up because they were stuck."""
        return self.t.abandoned

    def run(self, task: ITask) -> Deferred[None]:
        ready: Deferred[None] = Deferred()
        thread = self._thread
        if thread.state is not OPEN:
            task.callback((Status.DISCONNECTED, None))
            ready.callback(None)
            return ready
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        # A copy, since an abandoned thread may still be in the one that the task has.
        context = Context() if task.context is None else task.context.copy()
        call = ThreadCall(thread, context, (f, args, kw), raw, consumer, self._called)
        if self._calls and task.timeout is not None:
            task.stopTimer()
        thread.put(call)
        self._calls[call] = task, ready
        return ready

    def stop(self) -> Deferred[None]:
        """Implement L{IWorker.stop}. It also waits for iterations that go on."""
        return self._resignAfter(self.t.stop())

    def crash(self) -> list[ITask]:
        """Implement L{IWorker.crash}: abandon the thread."""
        calls, self._calls = self._calls, {}
        self.t.crash()
        for _, ready in calls.values():
            ready.callback(None)
        return [task for task, _ in calls.values()]

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: if the thread is at the task, leave
        it alone with that.
        """
        for i, (call, (its, ready)) in enumerate(self._calls.items()):
            if its is task:
                del self._calls[call]
                self._thread.cancel(call, abandon=True)
                if i == 0:
                    self._startTimer()
                ready.callback(None)
                break

    def _called(self, call: ThreadCall) -> None:
        """Give a task its result, and be ready for another one."""
        if call not in self._calls:
            return  # The worker has crashed.
        task, ready = self._calls.pop(call)
        self._count += 1
        if self.backlogPerWorker is not None and (
            call.seconds > self._seconds or not self._count % LOOK_EVERY
        ):
            self._adapt(call.seconds, self.backlogPerWorker())
        if task.watch is not None:
            task.watch.seconds = call.seconds
        if self._calls:
            self._startTimer()
        try:
            pair = call.pair or call.begin()
        except Exception:  # noqa: BLE001 - the consumer is the user's
            task.errback(Failure())
        else:
            task.callback(pair)
        ready.callback(None)

    def _startTimer(self) -> None:
        """Start the clock of the task that the thread begins now."""
        for task, _ in self._calls.values():
            if task.timeout is not None:
                task.startTimer()
            break

    def _adapt(self, seconds: float, waiting: int) -> None:
        """Adapt the capacity to how long tasks take."""
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            self._seconds += WEIGHT * (seconds - self._seconds)
        self.capacity = 1
        if waiting:
            several = int(PREFETCHED_SECONDS / self._seconds)
            self.capacity += min(waiting, MAX_PREFETCHED, several)

    def _threadLost(self) -> None:
        """Resign: there's no thread any longer."""
        self._resign()
        for task in self.crash():
            task.callback((Status.DISCONNECTED, None))


class ThreadQueue(SizedQueue):
    """
    A task queue with one thread, or several.

    @ivar worker: The first L{ThreadWorker}.

    @ivar d: A Deferred that fires with the ID of that worker.
    """

    LEAST = 1

    def __init__(
        self,
        raw: bool = False,
        *,
        threads: int = 1,
        series: Iterable[Hashable] = (),
        **kw: Unpack[QueueOptions],
    ) -> None:
        """
        Start the threads.

        @param raw: C{True} for iterators to come back as they are.

        @param threads: How many there are to be. Each has a worker of its own.

        @param series: Series that they are qualified for besides C{'thread'} and
            C{'local'}.

        @param kw: Keywords of L{TaskQueue}.

        @raise ThreadError: If a thread can't be started.
        """
        if type(raw) is int:
            raise TypeError(f"raw must be True or False: threads={raw} makes {raw}")
        checkCount("threads", threads, 1)
        super().__init__(threads, **kw)
        self._makeWorker = partial(
            ThreadWorker, seriesList(series), raw, reactor=kw.get("reactor")
        )
        self._own: WeakSet[object] = WeakSet()
        workers: list[ThreadWorker] = []
        try:
            while len(workers) < threads:
                workers.append(self._newWorker())
        except ThreadError:
            for worker in workers:
                worker.stop()
            raise
        self.worker = workers[0]
        self.worker.backlogPerWorker = self._demand
        self.d, *_ = [self.attachWorker(worker) for worker in workers]

    def deferToThread(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Make a call in the thread of the first worker that there is, before all calls
        that are queued: L{ThreadLooper.deferToThread}, with the C{returnFailure} of the
        queue.
        """
        kw.setdefault("returnFailure", self.returnFailure is True)
        workers = (worker for worker in self.workers() if self._isOwn(worker))
        return next(workers, self.worker).t.deferToThread(f, *args, **kw)

    def _newWorker(self) -> ThreadWorker:
        worker = self._makeWorker()
        self._own.add(worker)
        return worker

    def _isOwn(self, worker: object) -> bool:
        return worker in self._own
