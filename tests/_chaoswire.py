"""What the chaos run has servers do, and the servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from asynqueue import TaskQueue, WireWorker
from asynqueue.wire import ServerManager, WireWorkerUniverse

from . import _chaosjobs as jobs


class World(WireWorkerUniverse):
    """The jobs of the chaos run, as methods."""

    exceptions = (jobs.Ordinary,)

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        # A server that was frozen is prepared again when it's back.
        self._prepared: dict[str, None] = {}

    def square(self, x: int) -> int:
        """Do next to nothing."""
        return jobs.square(x)

    def once(self, path: str, number: int) -> int:
        """Note that this is run."""
        return jobs.once(path, number)

    def count(self, x: int) -> int:
        """Keep a core busy for a moment."""
        return jobs.count(x)

    def nap(self, x: int) -> int:
        """Take some time."""
        return jobs.nap(x)

    def large(self, x: int) -> bytes:
        return jobs.large(x)

    def fail(self, x: int) -> None:
        jobs.fail(x)

    def leave(self, x: int) -> None:
        """End the server."""
        jobs.leave(x)

    def prepare(self, what: str) -> None:
        """Set up this universe."""
        self._prepared[what] = None

    def isPrepared(self, x: int) -> list[str]:
        """Tell how this universe is set up."""
        return list(self._prepared)

    def items(self, x: int) -> Iterator[int]:
        return jobs.items(x)


class Servers:
    """Servers on this machine, each with a worker."""

    def __init__(self, reactor: Any, number: int) -> None:
        self.q = TaskQueue(timeout=5.0)
        self._number = number
        self._manager = ServerManager(
            "tests._chaoswire.World",
            backoff=lambda attempt: min(0.02 * attempt, 0.3),
            timeout=2.0,
            reactor=reactor,
        )

    async def start(self) -> None:
        for i in range(self._number):
            place = self._manager.newSocket()
            await self._manager.spawn(place, heartbeat=0.2)
            worker = WireWorker(
                World,
                place,
                thread=bool(i % 2),
                N_concurrent=1 + i % 3,
                reconnect=True,
                heartbeat=0.1,
                backoff=lambda attempt: 0.05,
            )
            await self.q.attachWorker(worker)
        for what in ("first", "second"):
            await self.q.update("prepare", what)

    def pids(self) -> list[int]:
        return list(self._manager.servers)

    def what(self, f: Callable[..., Any]) -> str:
        """Say what is to be called."""
        return f.__name__

    async def stop(self) -> None:
        await self._manager.shutdown()
