"""Items on their way from a source to whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .._support.log import log
from ._sources import Item, ItemSource

__all__ = ["Buffer"]


class Buffer:
    """
    What has been fetched from a source and not been taken yet.

    The L{Deferator<asynqueue.iteration.Deferator>} that has it takes C{items}, tells
    and clears C{failure}, and sets C{onAnswer}.
    """

    # Something is fetched only while there are no items and nothing is pending, so
    # there are never both.
    __slots__ = (
        "_fetchMany",
        "_source",
        "failure",
        "isStopped",
        "items",
        "looksAhead",
        "more",
        "onAnswer",
        "pending",
    )

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
        self._fetchMany: Callable[[], Collection[Any] | None] | None = getattr(
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
        """
        Fetch something unless something is at hand, or pending. Tell whether an item
        is at hand then.
        """
        if not self.items and self.more and self.pending is None:
            self._fetch()
        return bool(self.items)

    def stop(self, keepPending: bool) -> None:
        """
        End early: forget the items, and have the source release everything.

        @param keepPending: Whether somebody still waits for the one that is pending.
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

    def _arrived(self, value: Any) -> None:
        self.pending = None
        if not self.isStopped or self.onAnswer is not None:
            self.items.append(value)
        self._answer()

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
