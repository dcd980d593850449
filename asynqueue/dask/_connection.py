"""Where a cluster is, who may be let near it, and the connection to it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from attrs import frozen
from distributed import Client, LocalCluster, Security

from .._support.checks import checkCallable, checkCount, checkFlag, checkSeconds
from ..errors import AuthenticationError, WorkerLost, WorkerStartError

#: What has to be the same at both ends: pickles of functions are of one version of
#: Python, and calls of one of this package.
_VITAL = ("python", "asynqueue")

#: Seconds that a client and a cluster of ours have to end by themselves.
_CLOSE_SECONDS = 1.0
_CLOSE_CLUSTER_SECONDS = 10.0

#: Seconds that a cluster of ours that is to end has to become complete.
_MAKE_CLUSTER_SECONDS = 30.0

#: So many signs of life may be missed.
_MISSED_BEATS = 3


@frozen(kw_only=True)
class ClusterOptions:
    """
    The keywords of a worker's that its replacement has, too, and that aren't about
    which tasks it takes. L{DaskQueue<asynqueue.dask.DaskQueue>} describes them.
    """

    address: str | None
    cluster: object
    schedulerFile: str | None
    security: Any
    allowInsecure: bool
    N_concurrent: int | None
    bundle: float
    connectTimeout: float
    heartbeat: float
    noWorkersTimeout: float | None
    resources: Mapping[Hashable, Mapping[str, float]] | None
    restrictions: Mapping[Hashable, list[str]] | None
    reconnect: bool
    backoff: Callable[[int], float] | None

    def check(self) -> None:
        """Raise what the queue says that it raises."""
        given = [self.address, self.cluster, self.schedulerFile]
        if sum(each is not None for each in given) > 1:
            raise TypeError(
                "Of an address, a cluster and a schedulerFile only one can be given"
            )
        checkFlag("allowInsecure", self.allowInsecure)
        checkFlag("reconnect", self.reconnect)
        checkSeconds("bundle", self.bundle, zero=True)
        checkSeconds("connectTimeout", self.connectTimeout)
        checkSeconds("heartbeat", self.heartbeat)
        if self.N_concurrent is not None:
            checkCount("N_concurrent", self.N_concurrent, 1)
        if self.noWorkersTimeout is not None:
            checkSeconds("noWorkersTimeout", self.noWorkersTimeout)
        if self.backoff is not None:
            checkCallable("backoff", self.backoff)
        if self._knownAddress is not None:
            checkReach(self._knownAddress, self.credentials(), self.allowInsecure)

    @property
    def isOwn(self) -> bool:
        """Whether the worker makes a cluster itself."""
        return self.address is None and self.cluster is None and not self.schedulerFile

    @property
    def where(self) -> str:
        """The cluster, for texts."""
        if self.cluster is not None:
            return self._knownAddress or str(self.cluster)
        return self.address or self.schedulerFile or "a cluster of its own"

    def credentials(self) -> object:
        """Get the certificates as Dask wants them, C{None} if there are none."""
        security = self.security
        if security is None:
            return getattr(self.cluster, "security", None)
        if not isinstance(security, Security):
            authority, certificate, key = security
            security = Security(
                require_encryption=True,
                tls_ca_file=str(authority),
                tls_client_cert=str(certificate),
                tls_client_key=str(key),
            )
        return security

    def locate(self) -> str:
        """Find the address of the scheduler, and see that it can be reached safely."""
        address = self._knownAddress or ""
        if self.schedulerFile is not None:
            text = Path(self.schedulerFile).read_text(encoding="utf-8")
            address = str(json.loads(text)["address"])
        checkReach(address, self.credentials(), self.allowInsecure)
        return address

    def placement(self, series: Hashable) -> dict[str, object]:
        """Tell Dask where tasks of a series may be run."""
        found: dict[str, object] = {}
        if self.resources and series in self.resources:
            found["resources"] = dict(self.resources[series])
        if self.restrictions and series in self.restrictions:
            found["workers"] = list(self.restrictions[series])
        return found

    @property
    def _knownAddress(self) -> str | None:
        """The address of the scheduler, C{None} as long as it isn't known."""
        if self.cluster is not None:
            return getattr(self.cluster, "scheduler_address", None) or None
        return self.address


def checkReach(address: str, security: object, allowInsecure: bool) -> None:
    """
    Raise AuthenticationError unless the scheduler is on this machine, or certificates
    are used: each end of a connection of Dask's runs what the other sends.
    """
    scheme, _, rest = address.rpartition("://")
    if scheme == "tls":
        if not _isComplete(security):
            raise AuthenticationError(
                f"{address} needs security: the paths of an authority's certificate, of"
                " one of your own, and of its key"
            )
    elif scheme != "inproc" and not (allowInsecure or _isLocal(rest)):
        raise AuthenticationError(
            f"{address or 'The scheduler'} isn't on this machine, and whoever is on the"
            " way to it could run code here and there. Start it with --protocol tls,"
            " and give security; or say allowInsecure=True if the network is your own"
        )


def _isComplete(security: object) -> bool:
    # Dask itself goes on without encryption if one of them lacks.
    return all(
        getattr(security, name, None)
        for name in ("tls_ca_file", "tls_client_cert", "tls_client_key")
    )


def _isLocal(address: str) -> bool:
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def differences(versions: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """
    Tell in words where C{Client.get_versions} has found versions that differ from those
    here: what there's no working with, and what may do no harm.
    """
    vital: list[str] = []
    minor: list[str] = []
    ours = versions["client"]["packages"]
    others = {"the scheduler": versions.get("scheduler")}
    others |= {f"worker {name}": it for name, it in versions["workers"].items()}
    for who, its in others.items():
        packages = its["packages"] if its else {}
        for name in sorted(ours):
            here, there = ours[name], packages.get(name)
            if name == "python":  # functions are pickled as code of x.y
                here, there = _minor(here), _minor(there)
            if here != there:
                text = f"{name} is {here or 'missing'} here and {there or 'missing'}"
                (vital if name in _VITAL else minor).append(f"{text} on {who}")
    return vital, minor


def _minor(version: str | None) -> str | None:
    return version and ".".join(version.split(".")[:2])


class SchedulerConnection:
    """A client of Dask's, and the cluster if that is made for it."""

    def __init__(self, options: ClusterOptions) -> None:
        self.client: Any = None
        # The threads of each Dask worker, by its address.
        self.workers: dict[str, int] = {}
        # The names of the updates that are stored in the cluster.
        self.updates: list[str] = []
        self._options = options
        self._cluster: Any = None
        self._making: asyncio.Future[object] | None = None
        self._schedulerID = ""

    @property
    def threads(self) -> int:
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
                self._making = asyncio.ensure_future(self._cluster)
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
            await asyncio.wait_for(client, options.connectTimeout)
        self._schedulerID = client.scheduler_info()["id"]

    async def look(self) -> str:
        """
        See that the scheduler answers, which workers there are, and that they go with
        what is here. Tells what versions differ, of workers that have come, and may do
        no harm.
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


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Dask from logging tracebacks of what it tries when a scheduler is lost."""
    loggers = [logging.getLogger(f"distributed.{n}") for n in ("client", "core")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
