"""A time limit that may be brought forward."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .reactor import orGlobalReactor

__all__ = ["Deadline"]


class Deadline:
    """
    Calls something at the earliest of the times that were said, unless it's called off.

    For the waits of coroutines, in place of C{Deferred.addTimeout}: of a Deferred that
    a coroutine awaits already, that would cancel its delayed call only after the
    coroutine has gone on.
    """

    def __init__(self, f: Callable[[], object], reactor: IReactorTime | None) -> None:
        self._f = f
        self._call: IDelayedCall | None = None
        self._reactor = reactor

    def within(self, seconds: float) -> None:
        """Have it called in so many seconds, unless that is to be sooner already."""
        reactor = orGlobalReactor(self._reactor)
        if self._call is None:
            self._call = reactor.callLater(seconds, self._f)
        elif self._call.active() and seconds < self._call.getTime() - reactor.seconds():
            self._call.reset(seconds)

    def callOff(self) -> None:
        """Have it not called any longer."""
        if self._call is not None and self._call.active():
            self._call.cancel()
