"""
The client's end of an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from ..interfaces import ITask
from ..iteration._remote import RemoteIteration
from ..iteration._sources import BufferedSource

__all__ = ["Iteration"]

#: The server hears of so many items at a time that they have been taken: half of what
#: it may be ahead, so that it needn't wait for that.
_EVERY = 8


class Iteration(RemoteIteration):
    """
    An iteration at the server, from which items are taken here.
    """

    def __init__(
        self,
        task: ITask,
        consumer: Any,
        taken: Callable[[int], object],
        close: Callable[[], object],
    ) -> None:
        """
        Begin.

        @param task: The task.

        @param consumer: The consumer, or C{None}.

        @param taken: Called with a number of items when they have been taken.

        @param close: Called when nobody wants the iteration to go on.
        """
        super().__init__(task, BufferedSource(taken, close, every=_EVERY))
        if consumer is not None:
            self.feed(consumer)

    def push(self, item: Any) -> None:
        """
        Take an item that has come.

        @param item: The item.
        """
        self._begin()
        self._source.push([item])

    def fail(self, failure: Failure) -> None:
        """
        Have the iteration fail after the items that have come.

        @param failure: How.
        """
        self._begin()
        self._source.fail(failure)
