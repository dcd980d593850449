"""
Handing out items by Deferreds, fairly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.reactor import orGlobalReactor
from ._feed import Stretch

__all__ = ["NOTHING", "Handout", "ItemDeferred", "ItemLoop"]

#: Callbacks may ask for the next item within those of the last so many times, before
#: they are made to return.
_DEEPEST = 8

#: Stands for a value that there isn't.
NOTHING: Any = object()


class ItemDeferred(Deferred[Any]):
    """
    A Deferred for an item.

    While it runs callbacks, its L{Handout} knows of it, so that callbacks that ask
    for the next item, and add themselves to its Deferred, don't pile up.

    @ivar deferator: What has handed it out.

    @ivar value: The item, if it's at hand and can't be handed out yet.

    @ivar ahead: Whether it fires only when it's known whether there's another item.
    """

    def __init__(self, deferator: Handout, ahead: bool) -> None:
        super().__init__(deferator._giveUp)
        self.deferator = deferator
        self.ahead = ahead
        self.value: Any = NOTHING

    def stop(self) -> None:
        """
        End the iteration, see L{Handout.stop}.
        """
        self.deferator.stop()

    def addCallbacks(self, *args: Any, **kw: Any) -> Any:
        """
        Do as L{Deferred.addCallbacks}.
        """
        add = super().addCallbacks
        return self.deferator._nest(add, args, kw) if self.called else add(*args, **kw)

    def addCallback(self, *args: Any, **kw: Any) -> Any:
        """
        Do as L{Deferred.addCallback}.
        """
        add = super().addCallback
        return self.deferator._nest(add, args, kw) if self.called else add(*args, **kw)

    def addBoth(self, *args: Any, **kw: Any) -> Any:
        """
        Do as L{Deferred.addBoth}.
        """
        add = super().addBoth
        return self.deferator._nest(add, args, kw) if self.called else add(*args, **kw)


async def _given(value: Any) -> Any:
    """
    Give what is at hand.

    @param value: It.

    @return: The same.
    """
    return value


class ItemLoop:
    """
    Iterates over the items of a L{Handout}, for C{async for}: those at hand come
    without a Deferred.
    """

    __slots__ = ("_handout", "_held")

    def __init__(self, handout: Handout, held: deque[Any]) -> None:
        """
        Begin.

        @param handout: What hands out the items.

        @param held: Those at hand.
        """
        self._handout = handout
        self._held = held

    def __aiter__(self) -> ItemLoop:
        """
        Iterate over the items.

        @return: Itself.
        """
        return self

    def __anext__(self) -> Awaitable[Any]:
        """
        Ask for the next item.

        @return: See C{__anext__} of the handout.
        """
        handout = self._handout
        if self._held and handout._waiter is None and handout._goesOn():
            return _given(self._held.popleft())
        return handout.__anext__()


class Handout:
    """
    What hands out items by Deferreds, one at a time.

    However many items are at hand, callbacks that ask for one after the other don't
    fill the stack: when they are nested too deep, a Deferred is parked, and fires when
    they have returned. Nor do they keep the reactor from its other work: after a few
    milliseconds, a Deferred fires only after the reactor has had its turn.

    @ivar reactor: Gives the time, and its turns. The global reactor, unless set.
    """

    def __init__(self) -> None:
        self.reactor: IReactorTime | None = None
        self._waiter: ItemDeferred | None = None
        self._depth = 0
        self._parked = False
        self._stretch = Stretch()
        self._turn: IDelayedCall | None = None

    def stop(self) -> None:
        """
        End early.
        """
        raise NotImplementedError

    def __anext__(self) -> Deferred[Any]:
        """
        Ask for the next item.

        @return: A Deferred that fires with it.
        """
        raise NotImplementedError

    def _putBack(self, value: Any) -> None:
        """
        Keep an item for the next time.

        @param value: The item, or L{NOTHING} if there wasn't one yet.
        """
        raise NotImplementedError

    @property
    def _heldBack(self) -> bool:
        """
        Whether the Deferred that has not fired has its item, and is about to fire.
        """
        return self._parked or self._turn is not None

    def _handOut(self, value: Any) -> Deferred[Any]:
        """
        Make a Deferred for an item that is at hand.

        @param value: The item.

        @return: A Deferred that has fired, unless callbacks pile up or the reactor
            must have its turn first.
        """
        d = ItemDeferred(self, False)
        if self._goesOn():
            if self._depth < _DEEPEST:
                d.callback(value)
                return d
            self._parked = True
        else:
            self._turn = orGlobalReactor(self.reactor).callLater(0, self._hadTurn)
        d.value = value
        self._waiter = d
        return d

    def _goesOn(self) -> bool:
        """
        Tell whether an item may be handed out now, and count it.

        @return: C{False} if the reactor must have its turn before.
        """
        stretch = self._stretch
        if stretch.left:
            stretch.left -= 1
            return True
        return not stretch.isOver(self.reactor)

    def _hadTurn(self) -> None:
        """
        Go on after the reactor has had its turn.
        """
        self._turn = None
        self._stretch.begin()
        self._fire()

    def _fire(self) -> None:
        """
        Fire the Deferred whose item is at hand, now or when the callbacks that run
        have returned.
        """
        if self._waiter is not None:
            self._parked = True
            if not self._depth:
                self._unpark()

    def _unpark(self) -> None:
        """
        Fire the Deferred whose item is at hand, and those that are asked for in its
        callbacks.
        """
        self._depth += 1
        try:
            while self._parked:
                self._parked = False
                waiter, self._waiter = self._waiter, None
                assert waiter is not None
                waiter.callback(waiter.value)
        finally:
            self._depth -= 1

    def _dontFire(self) -> None:
        """
        Forget about firing a Deferred whose item is at hand.
        """
        self._parked = False
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def _giveUp(self, d: Deferred[Any]) -> None:
        """
        Keep an item for the next time, since its Deferred is being cancelled.

        @param d: The Deferred.
        """
        if d is not self._waiter:  # It's being stopped.
            return
        value = self._waiter.value
        self._waiter = None
        self._dontFire()
        self._putBack(value)

    def _nest(
        self, add: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Any:
        """
        Add callbacks to a Deferred that has fired.

        @param add: Adds them, and so runs them.

        @param args: What to add.

        @param kw: The same.

        @return: What comes of it.
        """
        self._depth += 1
        try:
            return add(*args, **kw)
        finally:
            self._depth -= 1
            if self._parked and not self._depth:
                self._unpark()
