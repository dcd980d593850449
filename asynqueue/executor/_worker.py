"""The worker with an executor, and the queue with one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable
from concurrent.futures import Executor
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from .._child.status import Status
from .._support.awaitable import OneShot
from .._support.checks import checkCount, checkFlag
from .._support.log import log
from ..base import TaskQueue
from ..errors import WorkerStartError
from ..interfaces import ICancellingWorker, IReplaceableWorker, ITask, IWorker
from ..tasks._workerbase import WorkerBase
from ._pool import LossHistory, Pool
from ._runner import PoolRunner

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..base._options import QueueOptions


class ExecutorState(Enum):
    """The life of a worker, in order."""

    #: It takes tasks.
    READY = auto()

    #: It does what it has accepted, and shuts the executor down after that.
    STOPPING = auto()

    #: The executor is broken, shut down, or given up.
    DEAD = auto()


@implementer(IWorker, ICancellingWorker, IReplaceableWorker)
class ExecutorWorker(WorkerBase):
    """
    Has tasks run by an executor of C{concurrent.futures}, as many at once as that can.

    Threads of this interpreter are given the calls as they are. For other executors,
    callables, arguments and results are pickled. Then iterations can't be brought here,
    and updates, which would reach one process of several, are refused.

    A call that is being run can't be stopped. When it's cancelled or its time is up,
    its result is dropped, and it has its place until it's done.

    When the executor breaks, since one of its processes has died, the worker resigns.
    Tasks that were certainly not begun go to others, the rest fail with L{WorkerLost},
    or are tried again if they have C{retries}. In a queue, a worker with a new executor
    takes its place, and runs one at a time to begin with. A task that was there when
    three executors broke isn't tried again.

    @ivar cQualified: The series C{'executor'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar backlogPerWorker: Tells how many tasks wait that no other worker could run.
        C{None} where there may be other workers.

    @ivar portable: Whether calls are pickled.

    @ivar state: A L{ExecutorState}.
    """

    cQualified: list[Hashable] = ["executor"]  # noqa: RUF012 - IWorker has it so

    # _runner has the tasks. In state DEAD, those are the ones that were there when the
    # executor broke, until it has said so of each.

    def __init__(
        self,
        executor: Executor | Callable[[], Executor],
        N_concurrent: int | None = None,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        portable: bool | None = None,
        owned: bool | None = None,
        *,
        exclusive: bool = False,
        reactor: Any = None,
        _history: LossHistory | None = None,
    ) -> None:
        """
        Get the executor. For the options, and what is raised for them, see
        L{ExecutorQueue<asynqueue.executor.ExecutorQueue>}.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param reactor: The reactor. By default, the global one.
        """
        super().__init__(series, raw, exclusive)
        if N_concurrent is not None:
            checkCount("N_concurrent", N_concurrent, 1)
        if portable is not None:
            checkFlag("portable", portable)
        self._pool = Pool(executor, owned, reactor, self._maybeEnd)
        self._most = N_concurrent
        self._isFirst = _history is None
        self._history = _history or LossHistory()
        self.portable = not self._pool.isHere if portable is None else portable
        self.backlogPerWorker: Callable[[], int] | None = None
        self.state = ExecutorState.READY
        self._runner = PoolRunner(
            self._pool,
            N_concurrent,
            self.portable,
            ran=self._ran,
            ended=self._maybeEnd,
            unusable=self._lose,
            lost=self._lost,
        )
        # What the executor has broken with.
        self._error: BaseException | None = None
        self._gone: OneShot[None] = OneShot()

    def __repr__(self) -> str:
        return f"<ExecutorWorker {self.ID}, {type(self.executor).__name__}>"

    @property
    def executor(self) -> Executor:
        """The executor."""
        return self._pool.executor

    @property
    def capacity(self) -> int:
        """
        How many tasks it wants to have been given: as many as the executor can run at
        once, and more where they're short, and there's a L{backlogPerWorker}.
        """
        return 1 if self._history.suspects else self._runner.capacity

    @property
    def concurrency(self) -> int:
        """How many calls the executor runs at once."""
        return self._pool.size

    @property
    def hasStopped(self) -> bool:
        return self.state is not ExecutorState.READY

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that were accepted and have no result yet, oldest first."""
        return self._runner.tasks

    def run(self, task: ITask) -> Deferred[None]:
        if self.state is ExecutorState.DEAD:
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        return self._runner.run(task, self.raw)

    def stop(self) -> Deferred[None]:
        """
        Implement L{IWorker.stop}. It also waits for iterations that go on, and for
        calls that were cancelled.
        """
        if self.state is ExecutorState.READY:
            self.state = ExecutorState.STOPPING
            self._maybeEnd()
        return self._resignAfter(self._gone.wait())

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: give up the executor. Processes are killed.

        @return: The tasks that have no result. If the executor is broken, only those
            that it has certainly not begun.
        """
        before, self.state = self.state, ExecutorState.DEAD
        tasks = self._runner.withdraw(unbegun=self._error is not None)
        if before is not ExecutorState.DEAD:
            self._end(self._pool.giveUp())
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: drop the result, and the call, too,
        if the executor hasn't begun it.
        """
        self._runner.cancel(task)

    def deferUntilReady(self) -> Deferred[None]:
        """
        See whether an executor that replaces a broken one works.

        @return: A Deferred that fires with C{None} when it does, at once for a first
            one. It fails with L{WorkerStartError} if that's broken, too.
        """
        return succeed(None) if self._isFirst else self._pool.begin(self._probe())

    def deferUntilGone(self) -> Deferred[None]:
        return self._gone.wait()

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        """An executor sees to its processes itself."""

    def updatesApplied(self, text: str | None) -> None:
        """The worker works all the same if an update has failed."""

    def replacement(self) -> ExecutorWorker:
        """
        @return: A worker with a new executor.

        @raise WorkerStartError: If there can't be one, as this one's was given.
        """
        if self._pool.factory is None:
            raise WorkerStartError(
                f"{self!r} has lost its executor, and has no callable to make another:"
                f" {self._error}"
            )
        worker = self.__class__(
            self._pool.factory,
            self._most,
            self.iQualified,
            self.raw,
            self.portable,
            self._pool.isOwned,
            exclusive=self.exclusive,
            reactor=self._pool.reactor,
            _history=self._history,
        )
        worker.backlogPerWorker = self.backlogPerWorker
        return worker

    def retryReplacement(self) -> ExecutorWorker:
        return self.replacement()

    async def _probe(self) -> None:
        try:
            await self._pool.call(int)
        except RuntimeError as error:
            self._error = error
            self.crash()
            raise WorkerStartError(
                f"The executor is broken before it has run a call: {error}"
            ) from error

    def _ran(self) -> int:
        """Note that a task has been run. Tells how many wait."""
        self._history.ran()
        return 0 if self.backlogPerWorker is None else self.backlogPerWorker()

    def _lost(self, task: ITask, error: BaseException) -> Exception:
        return self._history.lost(task, self.ID, error)

    def _lose(self, error: BaseException) -> None:
        """Resign: the executor is broken, or somebody has shut it down."""
        if self.state is ExecutorState.DEAD:
            return
        self._error = error
        log.warn("{worker} is lost: {error}", worker=self, error=error)
        # First of all, so that a call that is made because of the failures isn't given
        # to this worker.
        self._resign()
        for task in self.crash():
            task.callback((Status.DISCONNECTED, None))

    def _maybeEnd(self) -> None:
        """
        Shut the executor down if the worker is to stop and has nothing left to do.
        """
        if self.state is ExecutorState.STOPPING and not (
            self._runner or self._pool.isBusy
        ):
            self.state = ExecutorState.DEAD
            self._end(self._pool.shutDown())

    def _end(self, steps: Coroutine[Deferred[object], object, None]) -> None:
        Deferred.fromCoroutine(steps).addBoth(lambda _: self._gone.fire(None))


class ExecutorQueue(TaskQueue):
    """
    A task queue whose calls are run by an executor. One that breaks is replaced if it
    can be made again.
    """

    def __init__(
        self,
        executor: Executor | Callable[[], Executor],
        N_concurrent: int | None = None,
        *,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        portable: bool | None = None,
        owned: bool | None = None,
        **kw: Unpack[QueueOptions],
    ) -> None:
        """
        Get the executor.

        @param executor: The executor, or a callable that makes one, which is called
            again when that is broken.

        @param N_concurrent: How many tasks it's given at once. By default as many as it
            can run; the number of cores, if it doesn't tell.

        @param series: Series that the worker is qualified for besides C{'executor'}.

        @param raw: C{True} for iterators to come back as they are.

        @param portable: C{True} for calls to be pickled, C{False} for them to be given
            as they are. By default, they're pickled unless it's a
            C{ThreadPoolExecutor}.

        @param owned: Whether the executor is shut down with the worker. By default, if
            it was made by a callable.

        @param kw: Keywords of L{TaskQueue}.

        @raise TypeError: If there's no executor.

        @raise ValueError: If a number is out of range.
        """
        super().__init__(**kw)
        worker = ExecutorWorker(
            executor,
            N_concurrent,
            series,
            raw,
            portable,
            owned,
            reactor=kw.get("reactor"),
        )
        worker.backlogPerWorker = self._demand
        self.attachWorker(worker)
