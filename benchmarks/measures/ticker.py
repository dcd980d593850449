"""Notices when the reactor is held up."""

from __future__ import annotations

from time import perf_counter
from typing import Any

#: Seconds between ticks.
INTERVAL = 0.001


class Ticker:
    """
    Ticks in the reactor while its block lasts, and measures by how many seconds a tick
    has come late at most.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor as it

        self._reactor: Any = it
        self._due = 0.0
        self._next: Any = None
        self.longest = 0.0

    def __enter__(self) -> Ticker:
        """Begin to tick."""
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        """Tick no longer. A tick that is due counts."""
        self._next.cancel()
        self._look()

    def _schedule(self) -> None:
        """Have another tick come."""
        self._due = perf_counter() + INTERVAL
        self._next = self._reactor.callLater(INTERVAL, self._tick)

    def _tick(self) -> None:
        """Note how late it is."""
        self._look()
        self._schedule()

    def _look(self) -> None:
        """Note how late a tick is that is due."""
        self.longest = max(self.longest, perf_counter() - self._due)
