"""
Items on their way from a source to whoever takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ._sources import Item, ItemSource, PlentifulSource, PromptSource

__all__ = ["Feed", "Stretch"]

#: Seconds that items are handed out at a stretch before the reactor gets its turn.
_STRETCH = 0.004

#: The same while the reactor doesn't run yet, or doesn't in a test without one, and so
#: has nothing else to do that would be late.
_LONG_STRETCH = 0.5

#: After so many items the time is looked at,
_GLANCE = 4

#: and after so many at most if they are handed out fast,
_RARE_GLANCE = 16

#: which they are if it takes no longer than so many seconds from one look to the next.
_FAST = 0.0001


class Feed:
    """
    What has been fetched from a source and not been taken yet.

    @ivar held: The values that are at hand. Who takes one removes it.

    @ivar more: Whether the source may have more items than it has been asked for.

    @ivar failure: How the source has failed, which is told after what is held. Who
        tells it sets it to C{None}.

    @ivar fetching: A Deferred that is waited for: for what the source is to say, or
        for a Deferred that is an item itself. C{None} if nothing is waited for.

    @ivar over: Whether nothing is to be taken any longer.

    @ivar onAnswer: Called when there's nothing to be waited for any longer. Unlike
        what is at hand when it's looked for, which is told by C{fetching} alone. Kept
        only while somebody waits, so that a feed doesn't keep its owner alive.
    """

    __slots__ = (
        "_fetchMany",
        "_fetchNow",
        "_source",
        "failure",
        "fetching",
        "held",
        "more",
        "onAnswer",
        "over",
    )

    def __init__(self, source: ItemSource) -> None:
        """
        Make a feed of which nothing has been fetched.

        @param source: The source.
        """
        self.held: deque[Any] = deque()
        self.more = True
        self.failure: Failure | None = None
        self.fetching: Deferred[Any] | None = None
        self.over = False
        self.onAnswer: Callable[[], object] | None = None
        self._source = source
        self._fetchNow: Callable[[], Item | None] | None = (
            source.fetchNow if isinstance(source, PromptSource) else None
        )
        self._fetchMany: Callable[[], Collection[Any] | None] | None = (
            source.fetchMany if isinstance(source, PlentifulSource) else None
        )

    def look(self) -> bool:
        """
        Fetch an item, or several. They are held if they are at hand, else one is waited
        for.

        Call it only if there may be more, and nothing is held or waited for.

        @return: Whether something is waited for.
        """
        if self._fetchMany is not None:
            items = self._fetchMany()
            if items is not None:
                self._acceptMany(items)
                return False
        if self._fetchNow is not None:
            item = self._fetchNow()
            if item is not None:
                self._accept(item)
                return self.fetching is not None
        try:
            d = self.fetching = self._source.fetch()
        except Exception:  # noqa: BLE001 - the source may be of anybody's making
            self._failed(Failure())
        else:
            d.addCallbacks(self._fetched, self._failed)
        return self.fetching is not None

    def lookNow(self) -> bool:
        """
        Fetch an item if it's at hand, and don't wait for it if it isn't.

        Call it only if there may be more, and nothing is held or waited for.

        @return: Whether there may be something to come.
        """
        if self._fetchNow is not None:
            item = self._fetchNow()
            if item is not None:
                self._accept(item)
        return self.more or self.fetching is not None or self.ahead

    @property
    def ahead(self) -> bool:
        """
        Whether there's certainly something to be told: an item, or a failure.
        """
        return bool(self.held) or self.failure is not None

    def stop(self) -> None:
        """
        End early: forget what is held, and have the source release everything.
        """
        self.over = True
        self.more = False
        self.failure = None
        self.held.clear()
        self._stopSource()
        fetching, self.fetching = self.fetching, None
        if fetching is not None:
            fetching.cancel()

    def _acceptMany(self, items: Collection[Any]) -> None:
        """
        Take in several items.

        @param items: They.
        """
        if not self.over:
            self.held.extend(items)

    def _accept(self, item: Item) -> None:
        """
        Take in what the source has told.

        @param item: It.
        """
        if self.over:  # it was stopped by the source itself
            return
        value, isValid, more = item
        if not isValid:
            self.more = False
            return
        if not more:
            self.more = False
        if isinstance(value, Deferred):
            self.fetching = value
            value.addCallbacks(self._arrived, self._failed)
        else:
            self.held.append(value)

    def _fetched(self, item: Item) -> None:
        """
        Take in what the source has told at last.

        @param item: It.
        """
        self.fetching = None
        self._accept(item)
        self._answer()

    def _arrived(self, value: Any) -> None:
        """
        Take in the value of an item that was a Deferred.

        @param value: It.
        """
        self.fetching = None
        if not self.over:
            self.held.append(value)
        self._answer()

    def _failed(self, failure: Failure) -> None:
        """
        Take in that the source, or an item that was a Deferred, has failed.

        @param failure: How it failed. Those that are raised to end an iteration do.
        """
        self.fetching = None
        if self.over:
            return
        self.more = False
        if not failure.check(StopIteration, StopAsyncIteration):
            self.failure = failure
        self._stopSource()
        self._answer()

    def _answer(self) -> None:
        """
        Tell who waits that there's nothing to be waited for any longer.
        """
        if self.fetching is None and self.onAnswer is not None:
            self.onAnswer()

    def _stopSource(self) -> None:
        """
        Have the source release everything.
        """
        try:
            self._source.stop()
        except Exception:  # noqa: BLE001 - the source may be of anybody's making
            log.failure("{source} failed to stop", source=self._source)


class Stretch:
    """
    The time for which items have been handed out at a stretch.

    @ivar left: So many items may be handed out before L{isOver} must be asked. Who
        hands one out counts it.
    """

    __slots__ = ("_glance", "_last", "_since", "left")

    def __init__(self) -> None:
        self._since: float | None = None
        self._last = 0.0
        self._glance = _GLANCE
        self.left = _GLANCE - 1

    def begin(self) -> None:
        """
        Begin a new stretch.
        """
        self._since = None

    def isOver(self, reactor: IReactorTime | None) -> bool:
        """
        Tell whether it's time for the reactor to have its turn.

        @param reactor: The reactor, C{None} for the global one.

        @return: Whether it is, until L{begin} is called. If not, an item may be handed
            out, and L{left} more.
        """
        reactor = orGlobalReactor(reactor)
        now = reactor.seconds()
        last, self._last = self._last, now
        if self._since is None:
            self._since = now
            self.left = self._glance - 1
            return False
        if not 0 <= now - last < _FAST:
            self._glance = _GLANCE
        elif self._glance < _RARE_GLANCE:
            self._glance *= 2
        running = getattr(reactor, "running", True)
        limit = _STRETCH if running else _LONG_STRETCH
        over = not 0 <= now - self._since < limit  # clocks may be set back
        self.left = 0 if over else self._glance - 1
        return over
