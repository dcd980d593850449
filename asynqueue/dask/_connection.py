"""
The connection to a cluster.

All of it runs in the loop of the worker's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster

from ..errors import WorkerLost, WorkerStartError
from ._options import ClusterOptions, differences

__all__ = ["SchedulerConnection", "quietly"]

#: Seconds that a client and a cluster of ours have to end by themselves.
_CLOSE_SECONDS = 1.0
_CLOSE_CLUSTER_SECONDS = 10.0

#: Seconds that a cluster of ours that is to end has to become complete.
_MAKE_CLUSTER_SECONDS = 30.0

#: So many signs of life may be missed.
_MISSED_BEATS = 3


class SchedulerConnection:
    """
    A client of Dask's, and the cluster if that is made for it.

    @ivar client: The client, C{None} before there is one.

    @ivar workers: The threads of each Dask worker, by its address.

    @ivar updates: The names of the updates that are stored in the cluster.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self.client: Any = None
        self.workers: dict[str, int] = {}
        self.updates: list[str] = []
        self._options = options
        self._cluster: Any = None
        self._making: asyncio.Task[Any] | None = None
        self._schedulerID = ""

    @property
    def threads(self) -> int:
        """How many threads the cluster has."""
        return sum(self.workers.values())

    async def open(self) -> None:
        options = self._options
        # Each connection would keep its last 1,000 messages: 300 calls of 0.9 MB made
        # the client 259 MB larger.
        with dask.config.set({"distributed.admin.low-level-log-length": 0}):
            if options.isOwn:
                self._cluster = LocalCluster(
                    asynchronous=True,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                )
                # It can't be closed before it's complete: what it has begun would stay.
                self._making = asyncio.create_task(_awaited(self._cluster))
                await asyncio.shield(self._making)
                address = self._cluster.scheduler_address
            else:
                address = options.locate()
            self.client = client = Client(
                address,
                asynchronous=True,
                set_as_default=False,  # collections of others have no use for it
                security=options.credentials(),
                timeout=options.connectTimeout,
                name="asynqueue",
            )
            await asyncio.wait_for(_awaited(client), options.connectTimeout)
        self._schedulerID = client.scheduler_info()["id"]

    async def look(self) -> str:
        """
        See that the scheduler answers, which workers there are, and that they go with
        what is here.

        @return: What versions differ, of workers that have come, and may do no harm.

        @raise WorkerLost: If it's another scheduler.

        @raise WorkerStartError: If what is there is no use.
        """
        client, patience = self.client, _MISSED_BEATS * self._options.heartbeat
        threads = await asyncio.wait_for(client.nthreads(), patience)
        if client.scheduler_info()["id"] != self._schedulerID:
            raise WorkerLost("The scheduler has been started anew")
        vital: list[str] = []
        minor: list[str] = []
        if threads.keys() - self.workers.keys():
            versions = client.get_versions(packages=["asynqueue"])
            vital, minor = differences(await asyncio.wait_for(versions, patience))
            if vital and not self.workers:
                raise WorkerStartError(f"Versions differ: {'; '.join(vital)}")
        self.workers = threads
        return "; ".join(vital + minor)

    async def close(self) -> None:
        """Leave nothing behind, though the scheduler may not answer any longer."""
        client, cluster, making = self.client, self._cluster, self._making
        if client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._forgetUpdates(), _CLOSE_SECONDS)
            with suppress(Exception):
                await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
        if making is not None:
            await asyncio.wait([making], timeout=_MAKE_CLUSTER_SECONDS)
            making.cancel()
        if cluster is not None:
            with suppress(Exception):
                await asyncio.wait_for(cluster.close(), _CLOSE_CLUSTER_SECONDS)

    async def _forgetUpdates(self) -> None:
        for name in self.updates:
            await self.client.unregister_worker_plugin(name)


async def _awaited(what: Any) -> Any:
    """A client or a cluster is awaitable, but no coroutine."""
    return await what


@contextmanager
def quietly() -> Iterator[None]:
    """
    Keep Dask from logging tracebacks of what it tries when a scheduler is lost.
    """
    loggers = [logging.getLogger(f"distributed.{n}") for n in ("client", "core")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
