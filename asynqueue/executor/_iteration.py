"""Iterations whose items are made in threads of an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextvars import Context
from time import perf_counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from .._child.calls import raisable
from .._child.describe import nameOf
from .._support.checks import checkDeliverable
from .._support.log import log
from ..errors import WorkerLost
from ..iteration._sources import BufferedSource

__all__ = ["PoolItems", "PoolIteration"]

#: So many items are made in advance.
WINDOW = 16

#: Items are made for so many seconds before other calls have their turn.
SLICE_SECONDS = 0.001


class PoolItems:
    """
    The items of an iterator that's iterated over in threads, one of which has it at a
    time.

    @ivar made: Items that have been made, and not been taken.

    @ivar isOver: Whether there are no more.

    @ivar error: What the iterator has raised, C{None} for nothing.
    """

    def __init__(self, iterator: Iterator[Any], context: Context) -> None:
        self.made: list[Any] = []
        self.isOver = False
        self.error: BaseException | None = None
        self._iterator = iterator
        self._context = context

    def make(self, most: int) -> None:
        """Make items, not more than so many, and as they have come after a moment."""
        end = perf_counter() + SLICE_SECONDS
        try:
            for _ in range(most):
                item = self._context.run(next, self._iterator)
                checkDeliverable(item)
                self.made.append(item)
                if perf_counter() >= end:
                    break
        except StopIteration:
            self.isOver = True
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self.isOver = True
            self.error = raisable(error, nameOf(self._iterator))

    def close(self) -> None:
        """Close the iterator, so that its C{finally} runs here."""
        self.isOver = True
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._context.run(close)


class PoolIteration:
    """
    The reactor's side of an iteration. It has one job with the executor at a time, so
    that other calls get in between, and none while nobody takes its items.

    @ivar source: Gives its items.
    """

    def __init__(self, items: PoolItems, call: Callable[..., Deferred[None]]) -> None:
        """@param call: Has the executor make a call."""
        self._items = items
        self._call = call
        # How many more items may be made, and who waits for that to be some.
        self._room = WINDOW
        self._waiting: Deferred[None] | None = None
        self.source = BufferedSource(self._taken, self._wake, every=WINDOW // 2)

    async def run(self) -> None:
        """
        Have items made as they're taken, until the end, or until nobody wants more.
        """
        items, source = self._items, self.source
        try:
            while not (items.isOver or source.stopped):
                self._push()
                if self._room > 0:
                    await self._call(items.make, self._room)
                else:
                    self._waiting = Deferred()
                    await self._waiting
            self._push()
            if not items.isOver:
                await self._call(items.close)
        except Exception as error:  # noqa: BLE001 - closing calls code of users
            if not source.stopped:
                items.error = WorkerLost("The executor was lost during an iteration")
                items.error.__cause__ = error
            elif not isinstance(error, (BrokenExecutor, CancelledError)):
                log.failure("An iterator failed to be closed")
        if items.error is None:
            source.end()
        else:
            source.fail(items.error)

    def _push(self) -> None:
        made, self._items.made = self._items.made, []
        self._room -= len(made)
        self.source.push(made)

    def _taken(self, count: int) -> None:
        self._room += count
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
