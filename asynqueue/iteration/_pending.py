"""The Deferreds that a Deferator hands out, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.reactor import orGlobalReactor
from .._support.timeslice import TimeSlice

__all__ = ["NO_ITEM", "ItemDeferred", "PendingItem", "Stage"]

#: Callbacks may ask for the next item within those of the last so many times, before
#: they are made to return. A coroutine that goes on within such callbacks does so
#: without being suspended for each item.
_MAX_NESTING = 8

#: So many slices of time may pass before the reactor's turn while it doesn't run yet,
#: or doesn't at all, as in a test, and so has nothing else to do that would be late.
_SLICES_BEFORE_RUNNING = 125

#: Stands for an item that isn't there.
NO_ITEM: Any = object()


class ItemDeferred(Deferred[Any]):
    """
    A Deferred for an item.

    @ivar item: The item, once it's there.

    @ivar byNext: Whether it's from C{next(deferator)}, so that it has to be known
        whether there's another when it fires. Else it's from C{anext(deferator)}.
    """

    def __init__(self, deferator: Any, byNext: bool) -> None:
        super().__init__(deferator._cancelled)
        # That has the PendingItem, not the other way round: without a cycle, it's
        # released when its user lets go of it.
        self._deferator = deferator
        self.item = NO_ITEM
        self.byNext = byNext

    def stop(self) -> None:
        """
        End the iteration, see L{Deferator.stop<asynqueue.iteration.Deferator.stop>}.
        """
        self._deferator.stop()

    # Callbacks that are added when it has fired run at once, and may ask for the next.

    def addCallbacks(self, *args: Any, **kw: Any) -> Any:
        return self._add(super().addCallbacks, args, kw)

    def addCallback(self, *args: Any, **kw: Any) -> Any:
        return self._add(super().addCallback, args, kw)

    def addBoth(self, *args: Any, **kw: Any) -> Any:
        return self._add(super().addBoth, args, kw)

    def _add(
        self, add: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Any:
        if not self.called:
            return add(*args, **kw)
        pending: PendingItem = self._deferator._pending
        pending.depth += 1
        try:
            return add(*args, **kw)
        finally:
            pending.depth -= 1
            if pending.deferred is not None:
                pending.fireNested()

    def failQuietly(self) -> None:
        """Fail with C{CancelledError}, which isn't logged if nobody handles it."""
        self.errback(CancelledError("The iteration has been stopped"))
        # Twisted has no public way to say so that leaves the failure to later errbacks.
        if self._debugInfo is not None:
            self._debugInfo.failResult = None


class Stage(Enum):
    """How far a L{PendingItem} has come."""

    #: Nobody waits for an item.
    IDLE = auto()

    #: A Deferred waits for what the source is to tell.
    WAITING = auto()

    #: It has its item, and fires when the callbacks that run have returned.
    NESTED = auto()

    #: It has its item, and fires when the reactor has had its turn.
    YIELDING = auto()


class PendingItem:
    """
    The Deferred that has been handed out and has not fired, if there is one.

    However many items are at hand, callbacks that ask for one after the other neither
    fill the stack nor keep the reactor from its other work.

    @ivar deferred: It, C{None} in L{Stage.IDLE}.

    @ivar stage: How far it has come.

    @ivar depth: How many calls of callbacks are on the stack that may ask for the next
        item. L{ItemDeferred} counts them, too.
    """

    def __init__(self) -> None:
        self.deferred: ItemDeferred | None = None
        self.stage = Stage.IDLE
        self.depth = 0
        # Set in YIELDING only.
        self._turn: IDelayedCall | None = None
        self._reactor: IReactorTime | None = None
        self._slice = TimeSlice()
        # Whether the reactor is to have its turn before another item.
        self._isOver = False
        self._slicesLeft = _SLICES_BEFORE_RUNNING

    def useReactor(self, reactor: IReactorTime) -> None:
        """Use the time, and the turns, of another reactor than the global one."""
        self._reactor = reactor
        self._slice = TimeSlice(reactor.seconds)

    def wait(self, d: ItemDeferred) -> None:
        """Have a Deferred wait for the source."""
        self.deferred = d
        self.stage = Stage.WAITING

    def withdraw(self) -> ItemDeferred | None:
        """
        Wait no longer.

        @return: The Deferred, if there was one.
        """
        d, self.deferred = self.deferred, None
        self.stage = Stage.IDLE
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        return d

    def deliver(self, d: ItemDeferred) -> None:
        """Fire a Deferred that has its item, as soon as that may be."""
        mayGoOn = self.mayGoOn()
        if mayGoOn and d is not self.deferred and self.depth < _MAX_NESTING:
            d.callback(d.item)  # It's new, so this runs no callbacks.
            return
        self.deferred = d
        if mayGoOn:
            self.stage = Stage.NESTED
            self.fireNested()
        else:
            self.stage = Stage.YIELDING
            self._turn = orGlobalReactor(self._reactor).callLater(0, self._hadTurn)

    def mayGoOn(self) -> bool:
        """Tell whether the reactor needn't have its turn before another item."""
        if not self._isOver and self._slice.hasExpired():
            reactor = orGlobalReactor(self._reactor)
            if getattr(reactor, "running", True) or not self._slicesLeft:
                self._isOver = True
            else:
                self._slicesLeft -= 1
                self._slice.restart()
        return not self._isOver

    def fireNested(self) -> None:
        """
        If no callbacks run any longer, fire the Deferred that has waited for that, and
        those that its callbacks ask for, in one loop.
        """
        if self.depth:
            return
        self.depth += 1
        try:
            while self.stage is Stage.NESTED:
                d = self.withdraw()
                assert d is not None
                d.callback(d.item)
        finally:
            self.depth -= 1

    def _hadTurn(self) -> None:
        self._turn = None
        self._isOver = False
        self._slice.restart()
        self.stage = Stage.NESTED
        self.fireNested()
