"""The queue with a cluster of Dask's."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ..base import TaskQueue
from ._worker import DaskWorker


class DaskQueue(TaskQueue):
    """
    A task queue with a cluster of Dask's. When its scheduler is lost, it's tried to
    connect again, and calls wait until that is done.

    @ivar d: A Deferred that fires with the ID of the worker when it's connected first.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cluster: Any = None,
        schedulerFile: str | None = None,
        security: Any = None,
        allowInsecure: bool = False,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        N_concurrent: int | None = None,
        bundle: float = 0.05,
        resources: Mapping[Hashable, Mapping[str, float]] | None = None,
        restrictions: Mapping[Hashable, list[str]] | None = None,
        connectTimeout: float = 10.0,
        heartbeat: float = 2.0,
        noWorkersTimeout: float | None = None,
        reconnect: bool = True,
        backoff: Callable[[int], float] | None = None,
        **kw: Any,
    ) -> None:
        """
        Begin to connect.

        @param address: Where the scheduler is. Without it, a cluster is made on this
            machine. This and what follows is as for L{DaskWorker}.

        @param reconnect: C{False} not to connect again when the scheduler is lost, nor
            to go on trying when there's none.

        @param kw: Keywords of L{TaskQueue}.

        @raise TypeError: As L{DaskWorker} does.

        @raise ValueError: If a number is out of range.

        @raise AuthenticationError: If the scheduler isn't on this machine, and there's
            no C{security}.
        """
        worker = DaskWorker(
            address,
            cluster=cluster,
            schedulerFile=schedulerFile,
            security=security,
            allowInsecure=allowInsecure,
            series=series,
            raw=raw,
            N_concurrent=N_concurrent,
            bundle=bundle,
            resources=resources,
            restrictions=restrictions,
            connectTimeout=connectTimeout,
            heartbeat=heartbeat,
            noWorkersTimeout=noWorkersTimeout,
            reconnect=reconnect,
            backoff=backoff,
            reactor=kw.get("reactor"),
        )
        super().__init__(**kw)
        self.d: Deferred[int] = self.attachWorker(worker)

    @property
    def worker(self) -> DaskWorker | None:
        """The present worker, C{None} if there's none."""
        for worker in self.workers():
            if isinstance(worker, DaskWorker):
                return worker
        return None
