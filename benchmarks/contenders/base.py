"""What the contenders that run calls in children have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class CannotDo(Exception):
    """A contender isn't made for what is measured. The message says why."""


class Lost(Exception):
    """Calls were never answered. The message says how many."""


class Pool(ABC):
    """A pool of children."""

    @abstractmethod
    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses the pool. Returns what it does."""

    @abstractmethod
    async def start(self, children: int) -> None:
        """Start children."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the children."""

    @abstractmethod
    async def call(self, f: Callable[..., Any], *args: Any) -> Any:
        """Run a call in a child."""

    @abstractmethod
    async def several(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """
        Queue several calls at once. Returns their results in the order of the calls. If
        some are never answered, that's L{Lost}.
        """

    async def stream(self, count: int) -> int:
        """Take so many items one by one from a child that counts. Returns their sum."""
        raise CannotDo("doesn't stream")

    async def iterate(self, f: Callable[..., Any], *args: Any) -> None:
        """Take all items from a generator in a child, one by one."""
        raise CannotDo("doesn't stream")

    async def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Call a function for each of many items, by the pool's own means for that."""
        raise CannotDo("has no map")

    async def wakeUps(self, seconds: float) -> int | None:
        """
        Count how often the reactor wakes up in so many seconds in which nothing is to
        be done. C{None} if there's no reactor.
        """
        return None


class BlockingPool(Pool):
    """A pool whose calls give futures that are waited for in the calling thread."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Implement L{Pool.run}. The coroutine has nothing to wait for."""
        try:
            main.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise RuntimeError(f"{main!r} waits for something in a pool that blocks")

    @abstractmethod
    def submit(self, f: Callable[..., Any], *args: Any) -> Any:
        """Queue a call. Returns a future of some kind."""

    def result(self, future: Any) -> Any:
        """Wait for the result of a call, by what L{submit} has returned."""
        return future.result()

    async def call(self, f: Callable[..., Any], *args: Any) -> Any:
        return self.result(self.submit(f, *args))

    async def several(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        futures = [self.submit(f, *args) for args in argses]
        return [self.result(future) for future in futures]
