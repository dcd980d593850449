"""The floors of the machine: blocking pipes, and bare pipes in a reactor."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ..work import absolutes, countTo
from .base import BlockingPool, Pool
from .deferreds import countWakeUps, runInReactor
from .pipes import AHEAD, Calls, PipeChild, frame

T = TypeVar("T")

#: Items in a chunk of a map, and chunks that are under way, so that no pipe gets full.
CHUNK, CHUNKS_AHEAD = 2_000, 4


class _Pipes(Pool):
    """
    Children at pipes. To each, C{ahead} calls are under way, if there are so many.
    """

    def __init__(self) -> None:
        self.children: list[PipeChild] = []
        self.ahead = AHEAD

    async def start(self, children: int) -> None:
        self.children = [PipeChild() for _ in range(children)]

    async def stop(self) -> None:
        for child in self.children:
            child.stop()


class BlockingPipe(_Pipes, BlockingPool):
    """The floor of the machine: writing to pipes and waiting at them."""

    def submit(self, f: Callable[..., Any], *args: Any) -> Any:
        """Implement L{BlockingPool.submit} by sending to the first child."""
        child = self.children[0]
        os.write(child.to, frame((f, args)))
        return child

    def result(self, future: Any) -> Any:
        pickles: list[bytes] = []
        while not pickles:
            pickles = future.receive()
        return pickle.loads(pickles[0])

    async def several(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """
        Implement L{Pool.several}, serving the children in turn. Results are in the
        order that they came in.
        """
        calls = Calls(f, argses)
        ahead = -(-len(argses) // len(self.children))
        under = {c: calls.give(c, min(self.ahead, ahead)) for c in self.children}
        while not calls.done:
            for child in self.children:
                if under[child]:
                    taken = calls.take(child)
                    under[child] += calls.give(child, taken) - taken
        return calls.results


@implementer(IReadDescriptor)
class _Reader:
    """The pipe from a child, in the reactor."""

    def __init__(self, child: PipeChild, received: Callable[[PipeChild], None]) -> None:
        self._child = child
        self._received = received

    def fileno(self) -> int:
        return self._child.back

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        self._received(self._child)

    def connectionLost(self, reason: Failure) -> None:
        """Implement C{IReadDescriptor.connectionLost}."""


class BareReactorPipe(_Pipes):
    """The floor of the reactor: it watches pipes, and nothing else is done."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[_Reader] = []
        self._heard: Callable[[PipeChild], None] = self._nothing

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return runInReactor(main)

    async def start(self, children: int) -> None:
        from twisted.internet import reactor as it

        reactor: Any = it
        await super().start(children)
        self._readers = [_Reader(child, self._received) for child in self.children]
        for reader in self._readers:
            reactor.addReader(reader)

    async def stop(self) -> None:
        from twisted.internet import reactor as it

        reactor: Any = it
        for reader in self._readers:
            reactor.removeReader(reader)
        await super().stop()

    async def call(self, f: Callable[..., Any], *args: Any) -> Any:
        """Implement L{Pool.call} by sending to the first child."""
        d: Deferred[Any] = Deferred()

        def heard(child: PipeChild) -> None:
            """Take what has come."""
            for answer in child.receive():
                d.callback(pickle.loads(answer))

        self._heard = heard
        os.write(self.children[0].to, frame((f, args)))
        return await d

    async def several(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """
        Implement L{Pool.several}, with one Deferred for all. Results are in the order
        that they came in.
        """
        d: Deferred[list[Any]] = Deferred()
        calls = Calls(f, argses)

        def heard(child: PipeChild) -> None:
            """Take what has come."""
            calls.give(child, calls.take(child))
            if calls.done:
                d.callback(calls.results)

        self._heard = heard
        ahead = -(-len(argses) // len(self.children))
        for child in self.children:
            calls.give(child, min(self.ahead, ahead))
        return await d

    async def map(self, f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Implement L{Pool.map} for C{abs} and numbers in their order."""
        starts = range(0, len(items), CHUNK)
        chunks = [(items[start : start + CHUNK],) for start in starts]
        self.ahead = CHUNKS_AHEAD
        results = await self.several(absolutes, chunks)
        results.sort(key=itemgetter(0))
        return list(chain.from_iterable(results))

    async def stream(self, count: int) -> int:
        """Implement L{Pool.stream}, giving credit for what has come."""
        d: Deferred[int] = Deferred()
        total = 0

        def heard(child: PipeChild) -> None:
            """Take what has come."""
            nonlocal total
            pickles = child.receive()
            if pickles and not pickles[-1]:
                pickles.pop()
                total += sum(map(pickle.loads, pickles))
                d.callback(total)
            else:
                total += sum(map(pickle.loads, pickles))
                os.write(child.to, frame(len(pickles)))

        self._heard = heard
        os.write(self.children[0].to, frame((countTo, (count,))))
        return await d

    async def wakeUps(self, seconds: float) -> int | None:
        return await countWakeUps(seconds)

    def _received(self, child: PipeChild) -> None:
        """Tell whoever waits that something has come."""
        self._heard(child)

    def _nothing(self, child: PipeChild) -> None:
        """Nobody waits."""
