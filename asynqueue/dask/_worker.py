"""The worker that has a cluster of Dask's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum, auto
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.status import Status
from .._support.log import log
from ..errors import AuthenticationError, SerializationError, WorkerStartError
from ..interfaces import ICancellingWorker, IReplaceableWorker, ITask, IWorker
from ..tasks._workerbase import ConnectingWorker

try:
    from ._accepted import Accepted
    from ._bundles import callOf
    from ._connection import ClusterOptions
    from ._session import ClusterSession, SessionThread
except ModuleNotFoundError as error:
    raise ImportError(
        f"Dask isn't installed ({error}): install the extra asynqueue[dask]"
    ) from error

#: What keeps a connection from being made, and may not do so the next time.
_TRANSIENT = (OSError, asyncio.TimeoutError)


class ClusterState(Enum):
    """The life of a worker, in order."""

    #: There's no connection yet, and it's being tried.
    CONNECTING = auto()

    #: There's a connection.
    READY = auto()

    #: The worker has been told to stop, and will when it has done what it has accepted.
    STOPPING = auto()

    #: There's no connection any longer, nor will there be.
    DEAD = auto()


@implementer(IWorker, ICancellingWorker, IReplaceableWorker)
class DaskWorker(ConnectingWorker):
    """
    Has a cluster of Dask's run its tasks, as many at once as that has threads.

    Functions, arguments and results are pickled, by cloudpickle if they need it. The
    package must be installed in the cluster, too, for the same version of Python.

    When the scheduler is lost, the tasks that the cluster may have been running fail
    with L{WorkerLost}, the worker resigns, and those that weren't sent go to others.
    When a worker of the cluster is lost, Dask has another one run its tasks again: see
    the page "From one core to a cluster" for what else an engine does its own way.

    @ivar cQualified: The series C{'dask'} and C{'remote'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar state: A L{ClusterState}.
    """

    cQualified: list[Hashable] = ["dask", "remote"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        address: str | None = None,
        *,
        cluster: object = None,
        schedulerFile: str | None = None,
        security: object = None,
        allowInsecure: bool = False,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        exclusive: bool = False,
        N_concurrent: int | None = None,
        bundle: float = 0.05,
        resources: Mapping[Hashable, Mapping[str, float]] | None = None,
        restrictions: Mapping[Hashable, list[str]] | None = None,
        connectTimeout: float = 10.0,
        heartbeat: float = 2.0,
        noWorkersTimeout: float | None = None,
        reconnect: bool = False,
        backoff: Callable[[int], float] | None = None,
        reactor: Any = None,
    ) -> None:
        """
        Begin to connect. For other options, and what is raised for them, see
        L{DaskQueue<asynqueue.dask.DaskQueue>}.

        @param series: Series that it's qualified for besides those of its class.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param reconnect: C{True} to connect again after a while when the scheduler is
            lost, and to go on trying when there's none.

        @param reactor: The reactor. By default, the global one.
        """
        self._options = options = ClusterOptions(
            address=address,
            cluster=cluster,
            schedulerFile=schedulerFile,
            security=security,
            allowInsecure=allowInsecure,
            N_concurrent=N_concurrent,
            bundle=bundle,
            resources=resources,
            restrictions=restrictions,
            connectTimeout=connectTimeout,
            heartbeat=heartbeat,
            noWorkersTimeout=noWorkersTimeout,
            reconnect=reconnect,
            backoff=backoff,
        )
        options.check()
        super().__init__(series, raw, exclusive, reconnect, backoff, reactor)
        self._where = options.where
        self.state = ClusterState.CONNECTING
        self._accepted = Accepted(
            bundle, self._ask, self._maybeClose, self._lostError, self._reactor
        )
        self._thread: SessionThread | None = None
        self._beginToConnect()

    def __repr__(self) -> str:
        return f"<DaskWorker {self.ID}, {self._where}, {self.state.name.lower()}>"

    @property
    def threads(self) -> int:
        """How many threads the cluster has, as far as that is known."""
        return self._accepted.queue.threads

    @property
    def capacity(self) -> int:
        """How many tasks it wants to have been given."""
        return self._options.N_concurrent or self._accepted.queue.capacity

    @property
    def concurrency(self) -> int:
        """
        How many calls keep it busy: some for each thread, as those and their answers
        are on their way for 11 ms.
        """
        return 4 * max(1, self.threads)

    @property
    def hasStopped(self) -> bool:
        isAlive = self.state in (ClusterState.CONNECTING, ClusterState.READY)
        return self.ID is not None and not isAlive

    @property
    def tasks(self) -> list[ITask]:
        """The tasks accepted that have no result yet."""
        return self._accepted.tasks

    @property
    def running(self) -> list[ITask]:
        """Those of them that were sent to the cluster."""
        return [call.task for call in self._accepted.sent]

    @property
    def isIterating(self) -> bool:
        """Whether iterations go on in the cluster."""
        return self._accepted.isIterating

    def run(self, task: ITask) -> Deferred[None]:
        if self.state is ClusterState.DEAD:
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        try:
            call = callOf(task, self.raw)
        except SerializationError as error:
            task.errback(error)
            return succeed(None)
        self._accepted.add(call)
        return call.ready

    def stop(self) -> Deferred[None]:
        """Implement L{IWorker.stop}. Iterations that go on are waited for, too."""
        if self.state is ClusterState.CONNECTING:
            self._giveUp(Failure(WorkerStartError(f"{self!r} was stopped before")))
        elif self.state is ClusterState.READY:
            self.state = ClusterState.STOPPING
            self._maybeClose()
        return self._resignAfter(self._gone.wait())

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: end the connection. What the cluster runs, it goes
        on running, but nothing comes of that.
        """
        calls = self._accepted.takeCalls()
        tasks = [call.task for call in calls]
        tasks += self._accepted.releaseIterations("It was crashed")
        if self.state is ClusterState.CONNECTING:
            self._giveUp(Failure(WorkerStartError(f"{self!r} was crashed before")))
        elif self.state is not ClusterState.DEAD:
            self._close()
        for call in calls:
            call.fireReady()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: what the cluster hasn't begun isn't
        run. It can't be stopped from running what it has begun, nor a call that travels
        with others.
        """
        self._accepted.drop(task)

    # What the session tells.

    def connected(self) -> None:
        """Begin to work: the cluster is there."""
        if self.state is ClusterState.CONNECTING:
            self._attempts = 0
            self.state = ClusterState.READY
            self._accepted.open()
            self._connection.fire(None)

    def lost(self, error: BaseException) -> None:
        """Resign, or connect again: there's no connection, or no longer."""
        if self.state is ClusterState.CONNECTING:
            self._hasNoConnection(error)
        elif self.state is not ClusterState.DEAD:
            log.warn("{worker} is lost: {why}", worker=self, why=error)
            self._accepted.lose(str(error), self._resign)
            for task in self.crash():
                task.callback((Status.DISCONNECTED, None))

    # The connection.

    def _ask(self, method: Callable[..., object], *args: object) -> None:
        if self._thread is not None:
            self._thread.ask(method, *args)

    def _another(self) -> DaskWorker:
        return self.__class__(
            series=self.iQualified,
            raw=self.raw,
            exclusive=self.exclusive,
            reactor=self._reactor,
            **asdict(self._options, recurse=False),
        )

    async def _connect(self) -> None:
        await self._waitToConnect()
        self._thread = SessionThread(self._options, self, self._accepted, self._reactor)
        self._thread.ended.addCallback(self._threadEnded)

    def _hasNoConnection(self, error: BaseException) -> None:
        if self._reconnect and isinstance(error.__cause__, _TRANSIENT):
            # When the thread has ended.
            log.info("{worker}: {why}. It's tried again", worker=self, why=error)
        elif isinstance(error, AuthenticationError):
            self._giveUp(Failure(error))
        else:
            failed = WorkerStartError(f"{self!r} can't connect: {error}")
            failed.__cause__ = error
            self._giveUp(Failure(failed))

    def _threadEnded(self, _: object) -> None:
        self._thread = None
        if self.state is ClusterState.CONNECTING:
            self._beginToConnect()
        else:
            self._gone.fire(None)

    def _giveUp(self, failure: Failure) -> None:
        calls = self._accepted.takeCalls()
        self._close()
        for call in calls:
            call.task.errback(failure)
            call.fireReady()
        self._connection.fire(failure)

    def _maybeClose(self) -> None:
        """End the connection if the worker is to stop and has nothing left to do."""
        if self.state is ClusterState.STOPPING and self._accepted.isEmpty:
            self._close()

    def _close(self) -> None:
        self.state = ClusterState.DEAD
        self._connecting.cancel()
        self._accepted.close()
        self._ask(ClusterSession.close)
        if self._thread is None:
            self._gone.fire(None)
