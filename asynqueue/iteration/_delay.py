"""Waiting for time to pass, or for something to become true that tells nobody."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .._support.awaitable import AwaitableDeferred
from .._support.checks import checkCallable, checkSeconds
from .._support.reactor import AtShutdown, orGlobalReactor

_T = TypeVar("_T")

_INTERVAL = 0.001
_BACKOFF = 1.10


def deferToDelay(
    delay: float | None, *, reactor: IReactorTime | None = None
) -> Deferred[None]:
    """
    Wait for so many seconds, C{None} for the usual 0.001.

    @param reactor: What keeps the time. By default, the global reactor.

    @return: A Deferred that fires with C{None} after that time, or when the reactor
        begins to shut down. It can be cancelled.
    """
    return (_delay if reactor is None else Delay(reactor=reactor))(delay)


class Delay:
    """
    Delays, and waiting for events by polling.

    Looking again and again costs time, and notices events late. It's for events that
    give no other notice.
    """

    def __init__(
        self,
        interval: float | None = _INTERVAL,
        backoff: float | None = _BACKOFF,
        timeout: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Set the lengths. For any of them C{None} stands for the default.

        @param interval: Seconds of the usual delay, and of the first between two looks.

        @param backoff: How many times as long as the last each delay between two looks
            is, from 1.0 to 1.3.

        @param timeout: Seconds after which an event isn't waited for any longer,
            C{None} or 0 for never.
        """
        self.interval = _INTERVAL if interval is None else interval
        self.backoff = _BACKOFF if backoff is None else backoff
        self.timeout = timeout or None
        checkSeconds("interval", self.interval, zero=True)
        if self.timeout is not None:
            checkSeconds("timeout", self.timeout)
        if not 1.0 <= self.backoff <= 1.3:
            raise ValueError(
                f"backoff must be a number from 1.0 to 1.3, not {backoff!r}"
            )
        self._reactor = reactor
        # What has been handed out and has not fired, with what it waits for, and what
        # it fires with upon shutdown.
        self._pending: dict[Deferred[Any], tuple[Deferred[Any], object]] = {}
        self._atShutdown = AtShutdown(self.shutdown, reactor)

    def __call__(self, delay: float | None = None) -> Deferred[None]:
        """
        Wait for so many seconds, C{None} for the usual interval.

        @return: A Deferred that fires with C{None} after that time, or upon
            L{shutdown}. It can be cancelled.
        """
        seconds = self.interval if delay is None else delay
        checkSeconds("delay", seconds, zero=True)
        return self._track(deferLater(self._clock, seconds), None)

    def untilEvent(
        self, eventChecker: Callable[..., object], *args: object, **kw: object
    ) -> Deferred[bool | None]:
        """
        Wait until what a callable returns is true, which says that something has
        happened. It's called at once, and then again and again. It may return a
        Deferred, which is waited for.

        @return: A Deferred that fires with C{True} when it has happened; with
            C{False} when the time is up, or upon L{shutdown}; with C{None} when the
            callable raised an exception. It can be cancelled.
        """
        checkCallable("eventChecker", eventChecker)
        d = Deferred.fromCoroutine(self._poll(partial(eventChecker, *args, **kw)))
        if self.timeout is not None:
            d.addTimeout(self.timeout, self._clock, lambda *_: False)
        return self._track(d, False)

    def shutdown(self) -> None:
        """
        Fire all pending Deferreds: of delays with C{None}, of events with C{False}.
        This is also done when the reactor begins to shut down.
        """
        for d, (awaited, result) in list(self._pending.items()):
            if d in self._pending:  # not cancelled by the callbacks of another
                self._forget(d)
                d.callback(result)
                awaited.cancel()

    @property
    def _clock(self) -> IReactorTime:
        return orGlobalReactor(self._reactor)

    async def _poll(self, check: Callable[[], object]) -> bool | None:
        interval = self.interval
        while True:
            try:
                if await maybeDeferred(check):
                    return True
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - runs code of users
                return None
            await deferLater(self._clock, interval)
            interval *= self.backoff

    def _track(self, awaited: Deferred[_T], atShutdown: _T) -> Deferred[_T]:
        """Make a Deferred that fires as another one does, or upon shutdown."""
        d: Deferred[_T] = AwaitableDeferred(lambda _: awaited.cancel())

        def fired(result: _T | Failure) -> None:
            if d in self._pending:
                self._forget(d)
                d.callback(result)

        self._pending[d] = awaited, atShutdown
        self._atShutdown.want()
        awaited.addBoth(fired)
        return d

    def _forget(self, d: Deferred[_T]) -> None:
        del self._pending[d]
        if not self._pending:
            self._atShutdown.forgo()


#: All delays of deferToDelay share it, and so one trigger in the reactor.
_delay = Delay()
