"""
The executors of C{concurrent.futures} and C{loky}, and the pools that are like them.
"""

from __future__ import annotations

import multiprocessing
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from typing import Any

from .base import BlockingPool


class _Executor(BlockingPool):
    """A pool with the interface of C{concurrent.futures.Executor}."""

    def __init__(self) -> None:
        self._executor: Any = None
        self._children = 0

    @abstractmethod
    def make(self, children: int) -> Any:
        """Make the executor."""

    async def start(self, children: int) -> None:
        self._executor = self.make(children)
        self._children = children

    async def stop(self) -> None:
        self._executor.shutdown()

    def submit(self, f: Callable[..., Any], *args: Any) -> Any:
        return self._executor.submit(f, *args)

    async def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """
        Implement L{Pool.map}, with chunks as large as C{multiprocessing.Pool} has them
        since the executor's own have one item.
        """
        size = -(-len(items) // (4 * self._children))
        return list(self._executor.map(f, items, chunksize=size))


class FuturesExecutor(_Executor):
    """C{concurrent.futures.ProcessPoolExecutor} as it comes."""

    method: str | None = None

    def make(self, children: int) -> Any:
        return ProcessPoolExecutor(
            children, mp_context=multiprocessing.get_context(self.method)
        )


class SpawnExecutor(FuturesExecutor):
    """The same with start method C{spawn}."""

    method = "spawn"


class ForkServerExecutor(FuturesExecutor):
    """The same with start method C{forkserver}."""

    method = "forkserver"


class LokyExecutor(_Executor):
    """The executor of loky."""

    def make(self, children: int) -> Any:
        return import_module("loky").ProcessPoolExecutor(children)


class MultiprocessingPool(BlockingPool):
    """C{multiprocessing.Pool} as it comes, one call with each C{apply_async}."""

    #: How many items go to a child at once when streaming.
    chunk = 1

    def __init__(self) -> None:
        self._pool: Any = None

    async def start(self, children: int) -> None:
        self._pool = multiprocessing.Pool(children)

    async def stop(self) -> None:
        self._pool.close()
        self._pool.join()

    def submit(self, f: Callable[..., Any], *args: Any) -> Any:
        """Implement L{BlockingPool.submit}, with something that has C{get()}."""
        return self._pool.apply_async(f, args)

    def result(self, future: Any) -> Any:
        return future.get()

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream} by C{imap}, since results can't be streamed."""
        from ..work import identity

        return sum(self._pool.imap(identity, range(count), self.chunk))

    async def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(f, items))


class ChunkedPool(MultiprocessingPool):
    """The same, told to stream in chunks."""

    chunk = 100


class MpirePool(MultiprocessingPool):
    """C{mpire.WorkerPool}."""

    async def start(self, children: int) -> None:
        self._pool = import_module("mpire").WorkerPool(children)

    async def stop(self) -> None:
        self._pool.stop_and_join()

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream} by C{imap} with its own choice of chunks."""
        from ..work import identity

        return sum(self._pool.imap(identity, range(count)))


def _runCall(f: Callable[..., Any], *args: Any) -> Any:
    """Run a call, as a task of ray."""
    return f(*args)


class RayPool(BlockingPool):
    """
    The tasks of ray, which is told that it has as many cores as there are children.
    """

    def __init__(self) -> None:
        self._ray: Any = None
        self._call: Any = None

    async def start(self, children: int) -> None:
        self._ray = import_module("ray")
        self._ray.init(
            num_cpus=children,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
        )
        self._call = self._ray.remote(_runCall)

    async def stop(self) -> None:
        self._ray.shutdown()

    def submit(self, f: Callable[..., Any], *args: Any) -> Any:
        return self._call.remote(f, *args)

    def result(self, future: Any) -> Any:
        return self._ray.get(future)
