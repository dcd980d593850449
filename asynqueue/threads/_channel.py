"""
A bounded line of items between two threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Any

__all__ = ["Channel", "Closed", "Empty"]


class Closed(Exception):
    """
    Nothing can be put into a channel that has been closed. Never leaves the package.
    """


class Empty(Exception):
    """
    A channel is empty, and isn't to be waited for. Never leaves the package.
    """


class Channel:
    """
    A line of items, put in at one end and taken out at the other. Either end may be
    used by any number of threads.

    One lock guards all of it. It's held for a few instructions only.

    @ivar limit: How many items fill it.

    @ivar closed: Whether nothing can be put in any longer.

    @ivar isDeserted: Whether those who took items have left.
    """

    def __init__(self, limit: int, onRoom: Callable[[], object]) -> None:
        """
        @param onRoom: Called in the thread of a reader when the channel is half empty,
            after L{put} has told that it was full.
        """
        self.limit = limit
        self.closed = False
        self._onRoom = onRoom
        self._items: deque[Any] = deque()
        self._lock = Condition()
        self._toldFull = False
        # How many readers have come and not left. _isRead from when somebody takes an
        # item until the last reader leaves; from then on isDeserted, until somebody
        # takes an item again.
        self._readers = 0
        self._isRead = False
        self.isDeserted = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Any) -> bool:
        """
        Put an item in, without waiting even if the channel is full.

        @return: Whether the channel is full now.

        @raise Closed: If it has been closed.
        """
        with self._lock:
            self._add(item)
            full = len(self._items) >= self.limit
            self._toldFull = self._toldFull or full
        return full

    def putWaiting(self, item: Any, unread: bool = True) -> None:
        """
        Put an item in. If the channel is full, wait first, unless nobody takes items
        and C{unread} is false.

        @raise Closed: If it has been closed, before or while waiting.
        """
        with self._lock:
            while (
                len(self._items) >= self.limit
                and not self.closed
                and (unread or self._isRead)
            ):
                self._lock.wait()
            self._add(item)

    def get(self, wait: bool = True) -> Any:
        """
        Take an item out. Wait until there's one, or the channel is closed.

        @raise StopIteration: If the channel has been closed and is empty. The first
            time, what it was closed with is raised instead if that was an exception.

        @raise Empty: If there's none and it isn't to be waited for.
        """
        room = False
        with self._lock:
            self._isRead = True
            self.isDeserted = False
            while not self._items:
                if self.closed:
                    error, self._error = self._error, None
                    raise StopIteration if error is None else error
                if not wait:
                    raise Empty
                self._lock.wait()
            item = self._items.popleft()
            self._lock.notify_all()
            if self._toldFull and len(self._items) <= self.limit // 2:
                self._toldFull = False
                room = True
        if room:
            self._onRoom()
        return item

    def readerCame(self) -> None:
        """
        Count one reader more.
        """
        with self._lock:
            self._readers += 1

    def readerLeft(self) -> None:
        """
        Count one reader less.
        """
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._isRead = False
                self.isDeserted = True
                self._lock.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """
        Let nothing more in. What's there can still be taken. The first call counts.

        @param error: What is to be raised after that, C{None} for just the end.
        """
        with self._lock:
            if not self.closed:
                self.closed = True
                self._error = error
                self._lock.notify_all()

    def clear(self) -> None:
        """
        Forget what's in the channel, and the exception that it was closed with.
        """
        with self._lock:
            self._items.clear()
            self._error = None

    def _add(self, item: Any) -> None:
        if self.closed:
            raise Closed
        self._items.append(item)
        self._lock.notify_all()
