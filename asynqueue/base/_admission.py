"""How many calls may wait, and who waits for room."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.awaitable import AwaitableDeferred
from .._support.checks import checkCount
from .._support.reactor import orGlobalReactor
from ..errors import QueueFull, QueueStopped
from ..tasks import TaskHandler
from ._watching import Watcher

__all__ = ["Admission"]


class Admission:
    """Gives each place in a bounded queue to one of those who wait for it."""

    # _promised places were given to waiters who have not used them by a call yet. They
    # have this and the next turn of the reactor for that, so that a coroutine that
    # awaits its place, also one of asyncio's, comes to it.

    def __init__(
        self,
        handler: TaskHandler,
        maxQueued: int | None,
        watcher: Watcher,
        reactor: IReactorTime | None,
    ) -> None:
        if maxQueued is not None:
            checkCount("maxQueued", maxQueued, 1)
        self.maxQueued = maxQueued
        self._handler = handler
        self._watcher = watcher
        self._waiters: deque[Deferred[None]] = deque()
        self._promised = 0
        self._expiry: IDelayedCall | None = None
        self._reactor = reactor

    def check(self) -> None:
        """Raise QueueFull if a call has no place."""
        waiting = self._handler.waiting
        if self.maxQueued is not None and waiting >= self.maxQueued:
            self._watcher.refused += 1
            name = self._watcher.observers.queue
            where = f" in the queue {name!r}" if name else ""
            raise QueueFull(
                f"{waiting} calls are waiting{where}, and maxQueued={self.maxQueued}:"
                " wait for the Deferred of ready() before the next call"
            )
        self.take()

    def take(self) -> None:
        """Use a place: one that was promised, if there's any."""
        if self._promised:
            self._promised -= 1

    def wait(self) -> Deferred[None]:
        if self._hasRoom() and not self._waiters:
            if self.maxQueued is not None:
                self._promise()
            ready: Deferred[None] = AwaitableDeferred()
            ready.callback(None)
            return ready
        d: Deferred[None] = AwaitableDeferred(self._waiters.remove)
        self._waiters.append(d)
        self._handler.assignmentFactory.backlog.onShrink = self._admit
        return d

    def shutDown(self) -> None:
        """Tell those who wait that there will be no place."""
        self._forget()
        while self._waiters:
            self._waiters.popleft().errback(
                QueueStopped("The queue was shut down before it had room for a call")
            )

    def _hasRoom(self) -> bool:
        return (
            self.maxQueued is None
            or self._handler.waiting + self._promised < self.maxQueued
        )

    def _admit(self) -> None:
        while self._waiters and self._hasRoom():
            self._promise()
            self._waiters.popleft().callback(None)
        if not self._waiters:
            self._handler.assignmentFactory.backlog.onShrink = None

    def _promise(self) -> None:
        self._promised += 1
        if self._expiry is None:
            reactor = orGlobalReactor(self._reactor)
            self._expiry = reactor.callLater(0, self._expireNextTurn)

    def _expireNextTurn(self) -> None:
        self._expiry = orGlobalReactor(self._reactor).callLater(0, self._expire)

    def _expire(self) -> None:
        self._forget()
        self._admit()

    def _forget(self) -> None:
        expiry, self._expiry = self._expiry, None
        if expiry is not None and expiry.active():
            expiry.cancel()
        self._promised = 0
