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
    Nothing can be put into a channel that has been closed.

    Never leaves the package.
    """


class Empty(Exception):
    """
    There's nothing in a channel, and it isn't to be waited for.

    Never leaves the package.
    """


class Channel:
    """
    A line of items, put in at one end and taken out at the other. Either end may be
    used by any number of threads.

    There's one lock, held for a few instructions only, since both who puts and who
    takes may have to wait for the other.

    @ivar limit: How many items fill it.
    """

    def __init__(self, limit: int, onRoom: Callable[[], object]) -> None:
        """
        Make an empty channel.

        @param limit: How many items fill it.

        @param onRoom: Called in the thread that takes when the channel is half empty,
            once after each L{put} that has told that it was full.
        """
        self.limit = limit
        self._onRoom = onRoom
        self._items: deque[Any] = deque()
        self._lock = Condition()
        self._getters = 0
        self._putters = 0
        self._tell = False
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        """
        The number of items in the channel.
        """
        return len(self._items)

    @property
    def closed(self) -> bool:
        """
        Whether nothing can be put in any longer.
        """
        return self._closed

    def put(self, item: Any) -> bool:
        """
        Put an item in, without waiting even if the channel is full.

        @param item: The item.

        @return: Whether the channel is full now.

        @raise Closed: If it has been closed.
        """
        with self._lock:
            self._add(item)
            full = len(self._items) >= self.limit
            self._tell = self._tell or full
        return full

    def putWaiting(self, item: Any) -> None:
        """
        Put an item in when the channel isn't full.

        @param item: The item.

        @raise Closed: If it has been closed, before or while waiting.
        """
        with self._lock:
            while not self._closed and len(self._items) >= self.limit:
                self._putters += 1
                self._lock.wait()
                self._putters -= 1
            self._add(item)

    def get(self, wait: bool = True) -> Any:
        """
        Take an item out.

        @param wait: C{True} to wait until there's one, or the channel is closed.

        @return: The item.

        @raise StopIteration: If the channel has been closed and is empty. The first
            time, what it was closed with is raised instead if that was an exception.

        @raise Empty: If there's none and it isn't to be waited for.
        """
        room = False
        with self._lock:
            while not self._items:
                if self._closed:
                    error, self._error = self._error, None
                    raise StopIteration if error is None else error
                if not wait:
                    raise Empty
                self._getters += 1
                self._lock.wait()
                self._getters -= 1
            item = self._items.popleft()
            if self._putters:
                self._lock.notify_all()
            if self._tell and len(self._items) <= self.limit // 2:
                self._tell = False
                room = True
        if room:
            self._onRoom()
        return item

    def close(self, error: BaseException | None = None) -> None:
        """
        Let nothing more in. What's there can still be taken. Ignored the second time.

        @param error: What is to be raised when that has been taken, C{None} for just
            the end.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
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
        """
        Put an item in, holding the lock.

        @param item: The item.
        """
        if self._closed:
            raise Closed
        self._items.append(item)
        if self._getters:
            self._lock.notify_all()
