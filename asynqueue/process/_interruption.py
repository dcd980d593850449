"""How a call, or an iteration, is stopped whose child is to live on."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Interruption"]

#: Seconds that it has to end after an exception was raised in it, and between attempts:
#: one may come when nothing may be raised.
_GRACE_SECONDS = 0.5
_REPEAT_SECONDS = 0.05


class Interruption:
    """An exception that is raised in a call or an iteration until that is over."""

    def __init__(
        self,
        interrupt: Callable[[], object],
        giveUp: Callable[[], object],
        reactor: IReactorTime,
        *,
        delay: float = 0.0,
    ) -> None:
        """
        @param interrupt: Has it raised.

        @param giveUp: Called if that was of no use.

        @param delay: Seconds until the first attempt.
        """
        self._interrupt = interrupt
        self._giveUp = giveUp
        self._reactor = reactor
        self._deadline = reactor.seconds() + delay + _GRACE_SECONDS
        self._timer: IDelayedCall | None = None
        if delay:
            self._timer = reactor.callLater(delay, self._attempt)
        else:
            self._attempt()

    def over(self) -> None:
        """Leave off."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _attempt(self) -> None:
        self._timer = None
        if self._reactor.seconds() >= self._deadline:
            self._giveUp()
        else:
            self._interrupt()
            self._timer = self._reactor.callLater(_REPEAT_SECONDS, self._attempt)
