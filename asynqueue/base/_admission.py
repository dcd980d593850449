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
from ._queue import Queue


class Admission:
    """Gives each place in a bounded queue to one of those who wait for it."""

    # Waiters that were given places have this and the next turn of the reactor to use
    # them by a call, so that a coroutine that awaits its place, also one of asyncio's,
    # comes to it. _promised counts places that were given in this turn and weren't
    # used, _promisedBefore those of the last one.

    def __init__(
        self, queue: Queue, maxQueued: int | None, reactor: IReactorTime | None
    ) -> None:
        if maxQueued is not None:
            checkCount("maxQueued", maxQueued, 1)
        self.maxQueued = maxQueued
        self._handler: TaskHandler = queue.handler
        self._watcher = queue.watcher
        self._waiters: deque[Deferred[None]] = deque()
        self._promised = 0
        self._promisedBefore = 0
        self._isOver = False
        self._expiry: IDelayedCall | None = None
        self._reactor = reactor

    def check(self) -> None:
        """Raise QueueFull if a call has no place."""
        waiting = self._handler.waiting
        if self.maxQueued is not None and waiting >= self.maxQueued:
            self._watcher.failed["refused"] += 1
            name = self._watcher.observers.queue
            where = f" in the queue {name!r}" if name else ""
            raise QueueFull(
                f"{waiting} calls are waiting{where}, and maxQueued={self.maxQueued}:"
                " wait for the Deferred of ready() before the next call"
            )
        self.take()

    def take(self) -> None:
        """Use a place: one that was promised, if there's any."""
        if self._promisedBefore:
            self._promisedBefore -= 1
        elif self._promised:
            self._promised -= 1

    def wait(self) -> Deferred[None]:
        if self.hasRoom():
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
        """
        Tell those who wait that there will be no place. Nobody is to wait after that.
        """
        self._isOver = True
        expiry, self._expiry = self._expiry, None
        if expiry is not None and expiry.active():
            expiry.cancel()
        self._promised = self._promisedBefore = 0
        while self._waiters:
            self._waiters.popleft().errback(
                QueueStopped("The queue was shut down before it had room for a call")
            )

    def hasRoom(self) -> bool:
        """Whether there's a place that nobody else waits for, or was promised."""
        return self._isOver or (not self._waiters and self._hasPlace())

    def _hasPlace(self) -> bool:
        taken = self._handler.waiting + self._promised + self._promisedBefore
        return self.maxQueued is None or taken < self.maxQueued

    def _admit(self) -> None:
        while self._waiters and self._hasPlace():
            self._promise()
            self._waiters.popleft().callback(None)
        if not self._waiters:
            self._handler.assignmentFactory.backlog.onShrink = None

    def _promise(self) -> None:
        self._promised += 1
        if self._expiry is None:
            self._expireLater()

    def _expireLater(self) -> None:
        self._expiry = orGlobalReactor(self._reactor).callLater(0, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._promisedBefore, self._promised = self._promised, 0
        if self._promisedBefore:
            self._expireLater()
        self._admit()
