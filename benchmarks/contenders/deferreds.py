"""What the contenders under Twisted have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .base import Lost, Pool

T = TypeVar("T")

#: Calls that aren't answered after so many seconds are lost.
LIMIT = 40.0


def runInReactor(main: Coroutine[Any, Any, T]) -> T:
    """Run the reactor until a coroutine is done. Returns what that does."""
    from twisted.internet import reactor as it

    reactor: Any = it
    outcome: list[Any] = []

    def begin() -> None:
        d = Deferred.fromCoroutine(main)
        d.addBoth(outcome.append)
        d.addBoth(lambda _: reactor.stop() if reactor.running else None)

    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcome:
        raise RuntimeError("The reactor was stopped on the way")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


async def countWakeUps(seconds: float) -> int:
    """Count how often the reactor wakes up in so many seconds, but for their end."""
    from twisted.internet import reactor as it

    reactor: Any = it
    iterate, count = reactor.doIteration, 0

    def counting(timeout: float | None) -> None:
        """Count one, afterwards."""
        nonlocal count
        iterate(timeout)
        count += 1

    reactor.doIteration = counting
    await deferLater(reactor, seconds)
    reactor.doIteration = iterate
    return count - 1


class _Gathering:
    """Waits for several Deferreds, but not for ever."""

    def __init__(
        self, ds: Sequence[Deferred[Any]], limit: float, reactor: IReactorTime
    ) -> None:
        self.d: Deferred[list[Any]] = Deferred()
        self._ds = ds
        self._left = len(ds)
        self._timer = reactor.callLater(limit, self._giveUp)
        for d in ds:
            d.addCallbacks(self._one, self._failed)

    def _one(self, result: Any) -> Any:
        """Note a result."""
        self._left -= 1
        if not self._left and self._timer.active():
            self._timer.cancel()
            self.d.callback([d.result for d in self._ds])
        return result

    def _failed(self, failure: Failure) -> None:
        """Fail with the first that fails."""
        if self._timer.active():
            self._timer.cancel()
            self.d.errback(failure)

    def _giveUp(self) -> None:
        """Fail because of those that are lost."""
        count = len(self._ds)
        self.d.errback(Lost(f"{self._left:,} of {count:,} calls were never answered"))


def gather(
    ds: Sequence[Deferred[Any]],
    limit: float = LIMIT,
    *,
    reactor: IReactorTime | None = None,
) -> Deferred[list[Any]]:
    """
    Wait for several Deferreds, but not for ever: fire with their results, or fail with
    L{Lost} if some haven't fired within so many seconds.
    """
    if reactor is None:
        from twisted.internet import reactor as it

        reactor = cast(IReactorTime, it)
    return _Gathering(ds, limit, reactor).d


class TwistedPool(Pool):
    """A pool whose calls give Deferreds."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return runInReactor(main)

    @abstractmethod
    def begin(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Queue a call."""

    async def call(self, f: Callable[..., Any], *args: Any) -> Any:
        return await self.begin(f, *args)

    async def several(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        return await gather([self.begin(f, *args) for args in argses])

    async def wakeUps(self, seconds: float) -> int | None:
        return await countWakeUps(seconds)
