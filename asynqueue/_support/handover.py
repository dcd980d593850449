"""What threads hand over to the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from .log import log
from .reactor import IReactorAll
from .timeslice import TimeSlice

__all__ = ["Handover"]

_T = TypeVar("_T")


class Handover(Generic[_T]):
    """
    Takes things in any thread, and has each dealt with in the reactor's, in their
    order. The reactor is woken up once for all that come together, and has its turn
    every few milliseconds.
    """

    # Threads append to _items and then raise _isWoken. The reactor's thread lowers it
    # before it takes them, so none is ever left behind.

    def __init__(self, take: Callable[[_T], object], reactor: Any) -> None:
        """
        @param take: Called with each thing. What it raises is logged.

        @param reactor: The reactor, which no thread may install.
        """
        self._take = take
        self._items: deque[_T] = deque()
        self._isWoken = False
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
        items, timeSlice = self._items, TimeSlice(self._reactor.seconds)
        while items:
            try:
                self._take(items.popleft())
            except Exception:  # noqa: BLE001 - others wait behind it
                log.failure("What a thread has handed over can't be dealt with")
            if items and timeSlice.hasExpired():  # each may take long
                self._isWoken = True
                self._reactor.callLater(0, self._takeAll)
                return
