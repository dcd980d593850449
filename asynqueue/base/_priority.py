"""An asynchronous heap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from ..errors import QueueRunError


class _Entry:
    """An item in the heap. Those of which none is less are ordered by a number."""

    __slots__ = ("item", "order")

    def __init__(self, item: Any, order: int) -> None:
        self.item = item
        self.order = order

    def __lt__(self, other: _Entry) -> bool:
        # Of the items only < is asked.
        if self.item < other.item:
            return True
        return self.order < other.order and not other.item < self.item


class Priority:
    """
    A heap that is waited on: who gets from it while it's empty has a Deferred that
    fires when something is put in.

    Items that compare equal come out in the order in which they were put in.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._getters: deque[Deferred[Any]] = deque()
        self._order = 0
        self._running = True

    def __len__(self) -> int:
        """The number of pending items."""
        return len(self._heap)

    def put(self, item: Any) -> None:
        """
        Put an item in. The one who has waited longest for an item gets it.

        @param item: The item, which can be compared with the others by C{<}.

        @raise TypeError: If it can't be compared with them.
        """
        if self._getters:
            self._getters.popleft().callback(item)
            return
        self._order += 1
        try:
            heappush(self._heap, _Entry(item, self._order))
        except Exception:
            # It's in the heap, and would have every other item fail as well.
            self._heap = [entry for entry in self._heap if entry.order != self._order]
            heapify(self._heap)
            raise

    def get(self) -> Deferred[Any]:
        """
        Get the lowest item.

        @return: A Deferred that fires with it, at once if there is one. It can be
            cancelled. It fails with L{QueueRunError} after L{shutdown}.
        """
        if self._heap:
            return succeed(heappop(self._heap).item)
        if not self._running:
            return fail(QueueRunError("This heap has been shut down"))
        d: Deferred[Any] = Deferred(self._getters.remove)
        self._getters.append(d)
        return d

    def cancel(self, selector: Callable[[Any], object]) -> list[Any]:
        """
        Remove pending items.

        @param selector: Called with each item; true to remove it.

        @return: The items that were removed, in their order.
        """
        kept: list[_Entry] = []
        removed: list[_Entry] = []
        for entry in sorted(self._heap):
            (removed if selector(entry.item) else kept).append(entry)
        self._heap = kept
        heapify(self._heap)
        return [entry.item for entry in removed]

    def shutdown(self) -> None:
        """Fail all Deferreds that wait for an item, with L{QueueRunError}."""
        self._running = False
        while self._getters:
            self._getters.popleft().errback(
                QueueRunError("This heap has been shut down")
            )
