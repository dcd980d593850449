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
        cluster: object = None,
        schedulerFile: str | None = None,
        security: object = None,
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
        Begin to connect. Without an address, a cluster or a file, a cluster is made on
        this machine, with a process for each core, and ended with the queue.

        @param address: Where the scheduler is: C{tls://HOST:PORT} with C{security};
            C{tcp://HOST:PORT} on this machine.

        @param cluster: A cluster object of Dask's, such as a C{SLURMCluster}, which is
            left running.

        @param schedulerFile: The path of a file that the scheduler has written.

        @param security: The paths of an authority's certificate, of an own one, and of
            its key; or a C{Security} of Dask's.

        @param allowInsecure: C{True} for C{tcp} to other machines: whoever is in that
            network can run code in the cluster and here.

        @param series: Series that it's qualified for besides C{'dask'} and
            C{'remote'}.

        @param raw: C{True} for iterators to come back as they are, which the few that
            can be pickled do.

        @param N_concurrent: How many tasks it accepts at once. By default, that follows
            the threads of the cluster, and how short the calls are.

        @param bundle: Short calls of the same function travel together, for about so
            many seconds of work. 0 for each to travel alone: when a process of the
            cluster ends, all calls of a bundle are run again, also those that were
            done.

        @param resources: For some series, the resources of Dask workers that their
            calls need and take up meanwhile: C{{'train': {'GPU': 1}}}.

        @param restrictions: For some series, the addresses or hosts of the Dask workers
            that may run their calls.

        @param connectTimeout: Seconds for the connection to be made.

        @param heartbeat: The scheduler is asked for a sign of life every so many
            seconds. It's lost when it takes three times as long to answer.

        @param noWorkersTimeout: After so many seconds without any workers, the cluster
            counts as lost. By default, calls wait.

        @param reconnect: C{False} not to connect again when the scheduler is lost, nor
            to go on trying when there's none.

        @param backoff: Called with how many attempts have failed; gives the seconds
            until the next. By default, that's from one second to a minute.

        @param kw: Keywords of L{TaskQueue}.

        @raise TypeError: If more than one cluster is given, or C{backoff} isn't
            callable.

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
