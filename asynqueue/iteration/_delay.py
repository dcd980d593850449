"""
Waiting for time to pass, or for something to become true that tells nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.reactor import orGlobalReactor

__all__ = ["Delay", "deferToDelay"]


def deferToDelay(
    seconds: float, *, reactor: IReactorTime | None = None
) -> Deferred[None]:
    """
    Wait for some time.

    @param seconds: How long.

    @param reactor: What keeps the time. By default, the global reactor.

    @return: A Deferred that fires with C{None} after that time. It can be cancelled.

    @raise ValueError: If it's not a number of seconds.
    """
    _checkSeconds("seconds", seconds)
    d: Deferred[None] = Deferred(lambda _: delayed.cancel())
    delayed = orGlobalReactor(reactor).callLater(seconds, d.callback, None)
    return d


class Delay:
    """
    Delays of a usual length, and waiting for events by looking again and again.

    Looking again and again costs time, and notices events late. It's for events that
    give no other notice.

    @ivar interval: Seconds of the usual delay, and of the first between two looks.

    @ivar backoff: How many times as long as the last each delay between two looks is.

    @ivar timeout: Seconds after which an event isn't waited for any longer, C{None}
        for never.
    """

    def __init__(
        self,
        interval: float = 0.001,
        backoff: float = 1.10,
        timeout: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Set the lengths.

        @param interval: Seconds of the usual delay, and of the first between two looks.

        @param backoff: How many times as long as the last each delay between two looks
            is, from 1.0 to 1.3.

        @param timeout: Seconds after which an event isn't waited for any longer,
            C{None} for never.

        @param reactor: What keeps the time. By default, the global reactor.

        @raise ValueError: If a number is out of range.
        """
        _checkSeconds("interval", interval)
        if timeout is not None:
            _checkSeconds("timeout", timeout)
        if not 1.0 <= backoff <= 1.3:
            raise ValueError(
                f"backoff must be a number from 1.0 to 1.3, not {backoff!r}"
            )
        self.interval = interval
        self.backoff = backoff
        self.timeout = timeout
        self._reactor = reactor
        self._pending: dict[_Wait, None] = {}

    def __call__(self, delay: float | None = None) -> Deferred[None]:
        """
        Wait for some time.

        @param delay: Seconds, C{None} for the usual interval.

        @return: A Deferred that fires with C{None} after that time, or upon
            L{shutdown}. It can be cancelled.

        @raise ValueError: If it's not a number of seconds.
        """
        seconds = self.interval if delay is None else delay
        _checkSeconds("delay", seconds)
        wait = _Wait(self._pending, None)
        wait.timer = orGlobalReactor(self._reactor).callLater(
            seconds, wait.finish, None
        )
        return wait.d

    def untilEvent(
        self, checker: Callable[..., Any], *args: Any, **kw: Any
    ) -> Deferred[bool | None]:
        """
        Wait until a callable says that something has happened. It's called at once,
        and then again and again. It may return a Deferred, which is waited for.

        @param checker: The callable. What it returns is true when it has happened.

        @param args: Arguments for it.

        @param kw: Keywords for it.

        @return: A Deferred that fires with C{True} when it has happened; with
            C{False} when the time is up, or upon L{shutdown}; with C{None} when the
            callable raised an exception. It can be cancelled.

        @raise TypeError: If it isn't callable.
        """
        if not callable(checker):
            raise TypeError(f"checker must be callable, not {checker!r}")
        wait = _Wait(self._pending, False)
        if self.timeout is not None:
            wait.timer = orGlobalReactor(self._reactor).callLater(
                self.timeout, wait.finish, False
            )
        self._look(wait, lambda: maybeDeferred(checker, *args, **kw), self.interval)
        return wait.d

    def shutdown(self) -> None:
        """
        Fire all that is pending: delays with C{None}, events with C{False}.
        """
        for wait in list(self._pending):
            wait.finish(wait.atShutdown)

    def _look(
        self, wait: _Wait, check: Callable[[], Deferred[Any]], interval: float
    ) -> None:
        """
        Look whether an event has happened.

        @param wait: Who waits for it.

        @param check: What tells.

        @param interval: Seconds until the next look.
        """

        def seen(happened: Any) -> None:
            if happened:
                wait.finish(True)
            elif wait in self._pending:
                wait.nextLook = orGlobalReactor(self._reactor).callLater(
                    interval, self._look, wait, check, interval * self.backoff
                )

        wait.nextLook = None
        check().addCallbacks(seen, lambda _: wait.finish(None))


class _Wait:
    """
    One thing that is waited for.

    @ivar d: A Deferred that tells when it's over.

    @ivar atShutdown: What that fires with upon shutdown.

    @ivar timer: What ends the wait in time, or C{None}.

    @ivar nextLook: When to look next, or C{None}.
    """

    __slots__ = ("_pending", "atShutdown", "d", "nextLook", "timer")

    def __init__(self, pending: dict[_Wait, None], atShutdown: Any) -> None:
        self.d: Deferred[Any] = Deferred(lambda _: self._stop())
        self.atShutdown = atShutdown
        self.timer: IDelayedCall | None = None
        self.nextLook: IDelayedCall | None = None
        self._pending = pending
        pending[self] = None

    def finish(self, result: Any) -> None:
        """
        End the wait, if it hasn't ended yet.

        @param result: How it has ended.
        """
        if self in self._pending:
            self._stop()
            self.d.callback(result)

    def _stop(self) -> None:
        """
        Leave nothing behind.
        """
        self._pending.pop(self, None)
        for delayed in (self.timer, self.nextLook):
            if delayed is not None and delayed.active():
                delayed.cancel()


def _checkSeconds(name: str, value: Any) -> None:
    """
    Check that something is a number of seconds.

    @param name: What it's called.

    @param value: The number.

    @raise ValueError: If it isn't.
    """
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
