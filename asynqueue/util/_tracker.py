"""Waiting for any number of Deferreds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.awaitable import AwaitableDeferred
from .._support.checks import checkSeconds
from .._support.reactor import AtShutdown, orGlobalReactor

__all__ = ["DeferredTracker"]

_D = TypeVar("_D", bound="Deferred[Any]")


class DeferredTracker:
    """
    Counts Deferreds that haven't fired, so that one can wait for all of them, or any,
    or until there are fewer than so many.

    A wait ends in the reactor's next turn after what it's for has come about, if it's
    still so then. So the Deferred that has brought it about has run all its callbacks.
    All waits end with C{False} when the reactor begins to shut down.

    A wait that is itself tracked by the same tracker is one of those it waits for.

    @ivar dCount: The number of Deferreds that haven't fired, and of waits that were
        added and not removed.
    """

    def __init__(
        self,
        interval: float | None = None,
        backoff: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Track nothing yet.

        @param interval: Without effect, like C{backoff}: nothing polls any longer.

        @param reactor: What keeps the time. By default, the global reactor.
        """
        self.dCount = 0
        # Those of them that were added,
        self._added = 0
        # and how many have fired, or have been removed, in all.
        self._firings = 0
        self._quit = False
        # The waits, each with what tells whether it has come about.
        self._waits: dict[Deferred[bool], Callable[[], bool]] = {}
        # Set if something has fired since they were looked at.
        self._turn: IDelayedCall | None = None
        self._reactor = reactor
        self._atShutdown = AtShutdown(partial(self._endAll, False), reactor)

    def put(self, d: _D) -> _D:
        """
        Track a Deferred, and return it. Its result, or failure, passes through
        untouched.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"Only a Deferred can be tracked, not {d!r}")
        self.dCount += 1
        d.addBoth(self._fired)
        return d

    def addWait(self) -> None:
        """Count something that isn't a Deferred, until L{removeWait}."""
        self.dCount += 1
        self._added += 1

    def removeWait(self) -> None:
        """
        Count one thing that isn't a Deferred as done. More calls than there were of
        L{addWait} raise RuntimeError.
        """
        if not self._added:
            raise RuntimeError("removeWait() was called more often than addWait()")
        self._added -= 1
        self._fired(None)

    def notWaiting(self) -> bool:
        """
        Tell whether nothing is tracked that hasn't fired, or waiting has been quit.
        """
        return self._quit or not self.dCount

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until nothing is tracked that hasn't fired, which includes what is tracked
        from now on. See L{deferUntilFewer}.
        """
        return self._wait(lambda: not self.dCount, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until something that is tracked fires; not at all if nothing is tracked.
        See L{deferUntilFewer}.
        """
        firings = self._firings if self.dCount else -1
        return self._wait(lambda: self._firings > firings, timeout)

    def deferUntilFewer(self, N: float, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until fewer Deferreds are tracked that haven't fired.

        @param N: Fewer than how many. There are never fewer than 0.

        @param timeout: Seconds to wait, C{None} or 0 for any time.

        @return: A Deferred that fires with C{True} when that is so, at once if it is;
            with C{False} when the time is up first. Cancelling it ends the wait only.
        """
        return self._wait(lambda: self.dCount < N, timeout)

    def quitWaiting(self) -> None:
        """End all waits with C{True}, and all future ones at once."""
        self._quit = True
        self._endAll(True)

    def _wait(
        self, hasCome: Callable[[], bool], timeout: float | None
    ) -> Deferred[bool]:
        if timeout:
            checkSeconds("timeout", timeout)
        if self._quit or hasCome():
            return succeed(True)
        d: Deferred[bool] = AwaitableDeferred(self._forget)
        self._waits[d] = hasCome
        self._atShutdown.want()
        if timeout:
            d.addTimeout(timeout, orGlobalReactor(self._reactor), lambda *_: False)
        return d

    def _forget(self, d: Deferred[bool]) -> None:
        del self._waits[d]
        if not self._waits:
            self._atShutdown.forgo()

    def _fired(self, result: Any) -> Any:
        self.dCount -= 1
        self._firings += 1
        if self._waits and self._turn is None:
            # Not now, for callbacks that were added after put() are yet to run.
            self._turn = orGlobalReactor(self._reactor).callLater(0, self._endSome)
        return result

    def _endSome(self) -> None:
        """End the waits for what has come about."""
        self._turn = None
        for d, hasCome in list(self._waits.items()):
            self._end(d, True, hasCome)

    def _endAll(self, result: bool) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        for d in list(self._waits):
            self._end(d, result, lambda: True)

    def _end(
        self, d: Deferred[bool], result: bool, hasCome: Callable[[], bool]
    ) -> None:
        """
        End a wait, unless the callbacks of another have cancelled it, or have undone
        what it's for.
        """
        if d in self._waits and hasCome():
            self._forget(d)
            d.callback(result)
