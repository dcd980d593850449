"""
What the package needs of the reactor: getting it, its turns, its time and its shutdown,
and handing over to it what threads have done.

Nothing here or elsewhere in the package imports the global reactor at module level, so
that importing the package never installs one.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Generic, TypeVar, cast
from weakref import WeakSet

from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTime,
)

from .log import log

_R = TypeVar("_R")
_T = TypeVar("_T")

#: A loop of ours holds the reactor no longer than this.
SLICE_SECONDS = 0.004

#: Reactors that have begun to shut down. None of them starts again.
_shutDown: WeakSet[object] = WeakSet()


class IReactorAll(
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTime,
):
    """All that the package asks of a reactor, put together."""


def globalReactor() -> IReactorAll:
    """Get the global reactor, installing the default one if there is none yet."""
    from twisted.internet import reactor

    return cast(IReactorAll, reactor)


def hasGlobalReactor() -> bool:
    """Tell whether a reactor has been installed."""
    return "twisted.internet.reactor" in sys.modules


def orGlobalReactor(reactor: _R | None) -> _R:
    """Get the reactor that was given, or for C{None} the global one."""
    # The global reactor has all the interfaces that the package asks for.
    return cast(_R, globalReactor()) if reactor is None else reactor


class TimeSlice:
    """How long a loop may go on before the reactor has its turn."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin anew: the reactor has had its turn."""
        self._end = self._clock() + SLICE_SECONDS

    def hasExpired(self) -> bool:
        return self._clock() >= self._end


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
        """Have it not called any longer, for good if a time was said."""
        if self._call is not None and self._call.active():
            self._call.cancel()


class AtShutdown:
    """
    Has something called when the reactor begins to shut down, as long as that's wanted.
    Only so long there's a trigger in the reactor.
    """

    def __init__(self, f: Callable[[], object], reactor: object = None) -> None:
        self._f = f
        self._reactor = reactor
        self._trigger: object = None

    def want(self) -> None:
        """Have it called, if the reactor shuts down before L{forgo}."""
        if self._trigger is not None:
            return
        reactor = orGlobalReactor(self._reactor)
        # A trigger that is added while others run is run as well. So those who wait
        # again each time would keep the reactor from its end.
        if IReactorCore.providedBy(reactor) and reactor not in _shutDown:
            self._trigger = reactor.addSystemEventTrigger(
                "before", "shutdown", self._call, reactor
            )

    def forgo(self) -> None:
        """Don't have it called any longer."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            reactor: Any = orGlobalReactor(self._reactor)
            reactor.removeSystemEventTrigger(trigger)

    def _call(self, reactor: object) -> None:
        self._trigger = None
        _shutDown.add(reactor)
        self._f()


class Handover(Generic[_T]):
    """
    Takes things in any thread, and has each dealt with in the reactor's, in their
    order. The reactor is woken up once for all that come together, and has its turn
    every few milliseconds.
    """

    # Threads append to _items and then raise _isWoken. The reactor's thread lowers it
    # before it takes them, so none is ever left behind.

    def __init__(self, take: Callable[[_T], object], reactor: Any) -> None:
        # Called with each thing. What it raises is logged.
        self._take = take
        self._items: deque[_T] = deque()
        self._isWoken = False
        # No thread may install it.
        self._reactor: IReactorAll = reactor

    def put(self, item: _T) -> None:
        """Hand over a thing. Called in any thread."""
        self.putAll((item,))

    def putAll(self, items: Iterable[_T]) -> None:
        """
        Hand over several. Called in any thread. One by one, the two threads might take
        turns with each.
        """
        self._items.extend(items)
        if not self._isWoken:
            self._isWoken = True
            self._reactor.callFromThread(self._takeAll)

    def _takeAll(self) -> None:
        self._isWoken = False
        items, seconds = self._items, self._reactor.seconds
        end = seconds() + SLICE_SECONDS  # A TimeSlice would be two calls for each task.
        while items:
            try:
                self._take(items.popleft())
            except Exception:  # noqa: BLE001 - others wait behind it
                log.failure("What a thread has handed over can't be dealt with")
            if items and seconds() >= end:  # each may take long
                self._isWoken = True
                self._reactor.callLater(0, self._takeAll)
                return
