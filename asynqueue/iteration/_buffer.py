"""Items on their way from a source to whoever takes them, by Deferreds or without."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import AwaitableDeferred, Waiters
from .._support.log import log
from .._support.reactor import TimeSlice, orGlobalReactor
from ..errors import NotReadyError
from ._sources import NO_ITEM, Item, ItemSource

_T = TypeVar("_T")

#: Callbacks may ask for the next item within those of the last so many times, before
#: they are made to return. A coroutine that goes on within such callbacks does so
#: without being suspended for each item.
_MAX_NESTING = 8

#: So many slices of time may pass before the reactor's turn while it doesn't run yet,
#: or doesn't at all, as in a test, and so has nothing else to do that would be late.
_SLICES_BEFORE_RUNNING = 125


class Buffer:
    """
    What has been fetched from a source and not been taken yet.

    Who has it takes C{items}, tells and clears C{failure}, and sets C{onAnswer}.
    Something is fetched only while there are no items and nothing is pending, so there
    are never both.
    """

    def __init__(self, source: ItemSource) -> None:
        self.items: deque[Any] = deque()
        # Whether the source may have more than it has been asked for.
        self.more = True
        # How the source has failed, which is told after the items.
        self.failure: Failure | None = None
        # What is waited for: the source's answer, or an item that is a Deferred itself.
        self.pending: Deferred[Any] | None = None
        # Called when nothing is pending any longer. Kept only while somebody waits, so
        # that a buffer doesn't keep its owner alive.
        self.onAnswer: Callable[[], object] | None = None
        self.isStopped = False
        # Whether the next item must be fetched to know that there's one.
        self.looksAhead = not getattr(source, "tellsMore", False)
        self._source = source
        self._fetchMany: Callable[[], Collection[object] | None] | None = getattr(
            source, "fetchMany", None
        )

    @property
    def hasNext(self) -> bool:
        """Whether there's something to tell of for certain: an item, or a failure."""
        return bool(self.items) or self.failure is not None

    @property
    def isExhausted(self) -> bool:
        """Whether there's nothing to tell of for certain."""
        return not (self.more or self.pending is not None or self.hasNext)

    def fill(self) -> bool:
        """Fetch if there's no item, and none pending. Tell whether there's one then."""
        if not self.items and self.more and self.pending is None:
            self._fetch()
        return bool(self.items)

    def stop(self, keepPending: bool) -> None:
        """
        End early: forget the items, but for one that is pending and still waited for,
        and have the source release everything.
        """
        self.isStopped = True
        self.more = False
        self.failure = None
        self.items.clear()
        if not keepPending:
            self.onAnswer = None
        self._stopSource()
        if not keepPending and self.pending is not None:
            pending, self.pending = self.pending, None
            pending.cancel()

    def _fetch(self) -> None:
        if self._fetchMany is not None:
            items = self._fetchMany()
            if items is not None:
                if not self.isStopped:
                    self.items.extend(items)
                return
        try:
            item = self._source.fetch()
        except Exception:  # noqa: BLE001 - the source may be of anybody's making
            self._failed(Failure())
            return
        if isinstance(item, tuple):
            self._accept(item)
        else:
            self.pending = item
            item.addCallbacks(self._fetched, self._failed)

    def _accept(self, item: Item) -> None:
        """Take in what the source has told. After L{stop}, only if it's waited for."""
        value, isValid, more = item
        self.more = bool(isValid and more) and not self.isStopped
        if not isValid or (self.isStopped and self.onAnswer is None):
            return
        if isinstance(value, Deferred):
            self.pending = value
            value.addCallbacks(self._arrived, self._failed)
        else:
            self.items.append(value)

    def _fetched(self, item: Item) -> None:
        self.pending = None
        self._accept(item)
        self._answer()

    def _arrived(self, value: object) -> None:
        self._fetched((value, True, self.more))

    def _failed(self, failure: Failure) -> None:
        """Take in that the source, or an item that was a Deferred, has failed."""
        self.pending = None
        self.more = False
        if self.isStopped and self.onAnswer is None:
            return
        if not failure.check(StopIteration, StopAsyncIteration):
            self.failure = failure
        self._stopSource()
        self._answer()

    def _answer(self) -> None:
        if self.pending is None and self.onAnswer is not None:
            self.onAnswer()

    def _stopSource(self) -> None:
        try:
            self._source.stop()
        except Exception:  # noqa: BLE001 - the source may be of anybody's making
            log.failure("{source} failed to stop", source=self._source)


class ItemDeferred(AwaitableDeferred[Any]):
    """A Deferred for an item. It's refused while the last one has not fired."""

    def __init__(self, deferator: Any, byNext: bool) -> None:
        requests: ItemRequests = deferator._requests
        if requests.deferred is not None:
            raise NotReadyError(
                f"{deferator!r} was asked for its next item before the last one had"
                " arrived: wait for each Deferred that it yields before asking for the"
                " next"
            )
        super().__init__(requests.cancelled)
        # That has the requests, not the other way round: without a cycle, it's released
        # when its user lets go of it.
        self._deferator = deferator
        # The item, once it's there.
        self.item = NO_ITEM
        # Whether it's from next(deferator), so that it has to be known whether there's
        # another when it fires. Else it's from anext(deferator).
        self.byNext = byNext

    def stop(self) -> None:
        """End the iteration, as the Deferator's method does."""
        self._deferator.stop()

    # Callbacks that are added when it has fired run at once, and may ask for the next.

    def addCallbacks(self, *args: object, **kw: object) -> Any:
        return self._add(super().addCallbacks, args, kw)

    def addCallback(self, *args: object, **kw: object) -> Any:
        return self._add(super().addCallback, args, kw)

    def addBoth(self, *args: object, **kw: object) -> Any:
        return self._add(super().addBoth, args, kw)

    def _add(
        self, add: Callable[..., _T], args: tuple[object, ...], kw: dict[str, object]
    ) -> _T:
        if not self.called:
            return add(*args, **kw)
        requests: ItemRequests = self._deferator._requests
        requests.depth += 1
        try:
            return add(*args, **kw)
        finally:
            requests.depth -= 1
            if requests.deferred is not None:
                requests.fireNested()

    def failQuietly(self) -> None:
        """Fail with C{CancelledError}, which isn't logged if nobody handles it."""
        self.errback(CancelledError("The iteration has been stopped"))
        # Twisted has no public way to say so that leaves the failure to later errbacks.
        if self._debugInfo is not None:
            self._debugInfo.failResult = None


class Stage(Enum):
    """How far the Deferred of L{ItemRequests} has come."""

    #: Nobody waits for an item.
    IDLE = auto()

    #: A Deferred waits for what the source is to tell.
    WAITING = auto()

    #: It has its item, and fires when the callbacks that run have returned.
    NESTED = auto()

    #: It has its item, and fires when the reactor has had its turn.
    YIELDING = auto()


class ItemRequests:
    """
    Who asks for the items of a buffer, one after the other: the Deferred that has been
    handed out and has not fired, if there is one.

    However many items are at hand, callbacks that ask for one after the other neither
    fill the stack nor keep the reactor from its other work.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        # None in IDLE.
        self.deferred: ItemDeferred | None = None
        self._stage = Stage.IDLE
        # Who wants to know whether there's something to come.
        self._peekers: Waiters[bool] = Waiters()
        # How many calls of callbacks are on the stack that may ask for the next item.
        # ItemDeferred counts them, too.
        self.depth = 0
        # Set in YIELDING only.
        self._turn: IDelayedCall | None = None
        self.reactor: IReactorTime | None = None
        self._slice = TimeSlice()
        # Whether the reactor is to have its turn before another item.
        self._isOver = False
        self._slicesLeft = _SLICES_BEFORE_RUNNING

    def useReactor(self, reactor: IReactorTime | None) -> None:
        self.reactor = reactor
        self._slice = TimeSlice() if reactor is None else TimeSlice(reactor.seconds)

    def advance(self, d: ItemDeferred) -> None:
        """Take a Deferred as far as it gets."""
        buffer = self._buffer
        items = buffer.items
        if d.item is NO_ITEM and (items or buffer.fill()):
            d.item = items.popleft()
        # Who iterates by next must know whether there's another, to ask for it.
        if d.item is not NO_ITEM and (
            items
            or not d.byNext
            or not buffer.looksAhead
            or buffer.fill()
            or buffer.pending is None
        ):
            self._deliver(d)
        elif buffer.pending is not None:
            self.deferred = d
            self._stage = Stage.WAITING
            buffer.onAnswer = self._answered
        else:
            self._withdraw()
            self._tellEnd(d)

    def peek(self) -> Deferred[bool]:
        """Wait for what is pending. Tell whether there's something to come then."""
        self._buffer.onAnswer = self._answered
        return self._peekers.wait()

    def stop(self) -> None:
        """End early, but for an item that is waited for and can still come."""
        d = self.deferred
        if d is not None and d.byNext and d.item is NO_ITEM:
            self._buffer.stop(True)
        else:
            self._withdraw()
            self._buffer.stop(False)
            # The source may have cancelled it.
            if d is not None and not d.called:
                if d.item is NO_ITEM:
                    d.errback(StopAsyncIteration())
                else:
                    d.callback(d.item)
        self._peekers.fire(False)

    def cancelled(self, d: Deferred[object]) -> None:
        """Keep the item of a Deferred that is being cancelled for the next one."""
        if d is not self.deferred:  # It's being stopped.
            return
        self._withdraw()
        assert isinstance(d, ItemDeferred)
        if self._buffer.isStopped:
            self._buffer.stop(False)
        elif d.item is not NO_ITEM:
            self._buffer.items.appendleft(d.item)
        if not self._peekers.waiting:
            self._buffer.onAnswer = None

    def mayGoOn(self) -> bool:
        """Tell whether the reactor needn't have its turn before another item."""
        if not self._isOver and self._slice.hasExpired():
            reactor = orGlobalReactor(self.reactor)
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
            while self._stage is Stage.NESTED:
                d = self._withdraw()
                assert d is not None
                d.callback(d.item)
        finally:
            self.depth -= 1

    def _withdraw(self) -> ItemDeferred | None:
        """Wait no longer. Gives the Deferred, if there was one."""
        d, self.deferred = self.deferred, None
        self._stage = Stage.IDLE
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        return d

    def _answered(self) -> None:
        """Go on with what was pending."""
        self._buffer.onAnswer = None
        if self._peekers.waiting:
            self._peekers.fire(self._buffer.hasNext)
        if self._stage is Stage.WAITING:
            assert self.deferred is not None
            self.advance(self.deferred)

    def _deliver(self, d: ItemDeferred) -> None:
        """Fire a Deferred that has its item, as soon as that may be."""
        mayGoOn = self.mayGoOn()
        if mayGoOn and d is not self.deferred and self.depth < _MAX_NESTING:
            d.callback(d.item)  # It's new, so this runs no callbacks.
            return
        self.deferred = d
        if mayGoOn:
            self._stage = Stage.NESTED
            self.fireNested()
        else:
            self._stage = Stage.YIELDING
            self._turn = orGlobalReactor(self.reactor).callLater(0, self._hadTurn)

    def _hadTurn(self) -> None:
        self._turn = None
        self._isOver = False
        self._slice.restart()
        self._stage = Stage.NESTED
        self.fireNested()

    def _tellEnd(self, d: ItemDeferred) -> None:
        """Tell who waits how the source has failed, or that it has ended."""
        buffer = self._buffer
        failure, buffer.failure = buffer.failure, None
        if failure is not None:
            d.errback(failure)
        elif buffer.isStopped and d.byNext:
            d.failQuietly()
        elif d.byNext and not buffer.looksAhead:
            d.callback(None)
        else:
            d.errback(StopAsyncIteration())
        d._deferator._conclude(failure is None)
