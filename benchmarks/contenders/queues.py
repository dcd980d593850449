"""This library, and the reference: both have the same API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..work import countTo
from .deferreds import TwistedPool


class _ProcessQueue(TwistedPool):
    """A C{ProcessQueue}."""

    def __init__(self) -> None:
        self._queue: Any = None

    async def start(self, children: int) -> None:
        self._queue = import_module("asynqueue").ProcessQueue(children)

    async def stop(self) -> None:
        await self._queue.shutdown()

    def begin(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        d: Deferred[Any] = self._queue.call(f, *args)
        return d


class Ours(_ProcessQueue):
    """This library."""

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream} by C{async for}."""
        total = 0
        async for item in await self._queue.call(countTo, count):
            total += item
        return total

    async def iterate(self, f: Callable[..., Any], *args: Any) -> None:
        async for _ in await self._queue.call(f, *args):
            pass

    async def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        results: list[Any] = await self._queue.map(f, items)
        return results


@implementer(IConsumer)
class _Adder:
    """A consumer that adds up what is written to it."""

    def __init__(self) -> None:
        self.total = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Implement C{IConsumer.registerProducer}."""

    def unregisterProducer(self) -> None:
        """Implement C{IConsumer.unregisterProducer}."""

    def write(self, item: Any) -> None:
        """Add a number."""
        self.total += item


class Consuming(Ours):
    """This library, feeding a consumer."""

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream} by a consumer."""
        adder = _Adder()
        await self._queue.call(countTo, count, consumer=adder)
        return adder.total


class Reference(_ProcessQueue):
    """AsynQueue 0.9.9."""

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream} by a loop over Deferreds."""
        total = 0
        for d in await self._queue.call(countTo, count):
            total += await d
        return total
