"""The contenders: this library, its peers, and the floors of the machine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from .base import Pool

#: The names of those that have the same package name: this library as it is here, as it
#: is in another checkout, and the reference.
OURS, BEFORE, REFERENCE = "ours", "before", "reference"


class Contender(NamedTuple):
    """
    Who takes part.

    @ivar title: What it's called in tables.

    @ivar pool: Module and class of its pool of children, if it has one.

    @ivar needs: The package that must be installed.

    @ivar floor: Whether it's no library but a floor.

    @ivar own: Whether it's this library.
    """

    title: str
    pool: str = ""
    needs: str = ""
    floor: bool = False
    own: bool = False

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return not self.needs or find_spec(self.needs) is not None


CONTENDERS = {
    OURS: Contender("asynqueue", "queues:Ours", own=True),
    BEFORE: Contender("asynqueue before", "queues:Ours", own=True),
    "consumer": Contender("asynqueue, consumer", "queues:Consuming", own=True),
    "cf": Contender("concurrent.futures", "executors:FuturesExecutor"),
    "cf-spawn": Contender("concurrent.futures, spawn", "executors:SpawnExecutor"),
    "cf-forkserver": Contender(
        "concurrent.futures, forkserver", "executors:ForkServerExecutor"
    ),
    "pool": Contender("multiprocessing.Pool", "executors:MultiprocessingPool"),
    "pool-100": Contender("multiprocessing.Pool, chunks", "executors:ChunkedPool"),
    "loky": Contender("loky", "executors:LokyExecutor", "loky"),
    "mpire": Contender("mpire", "executors:MpirePool", "mpire"),
    "ampoule": Contender("ampoule", "amppool:AmpoulePool", "ampoule"),
    "ray": Contender("ray", "executors:RayPool", "ray"),
    REFERENCE: Contender("AsynQueue 0.9.9", "queues:Reference"),
    "dask": Contender("bare Dask client", needs="distributed"),
    "deferToThread": Contender("twisted deferToThread"),
    "amp": Contender("bare AMP"),
    "amp-chunks": Contender("bare AMP, chunks"),
    "bare": Contender("bare reactor pipe", "floors:BareReactorPipe", floor=True),
    "pipe": Contender("blocking pipe", "floors:BlockingPipe", floor=True),
    "shm": Contender("copy to shared memory", needs="numpy", floor=True),
    "memcpy": Contender("memcpy", needs="numpy", floor=True),
    "thread": Contender("bare thread", floor=True),
    "heap": Contender("heapq + maybeDeferred", floor=True),
    "quiet": Contender("idle reactor", floor=True),
    "socket": Contender("bare socket", floor=True),
    "machine": Contender("this machine", needs="numpy", floor=True),
}


def makePool(name: str) -> Pool:
    """Make the pool of a contender, without any children yet."""
    module, _, cls = CONTENDERS[name].pool.partition(":")
    pool: Pool = getattr(import_module(f".{module}", __name__), cls)()
    return pool
