"""How long a loop may go on before the reactor has its turn."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

__all__ = ["SLICE_SECONDS", "TimeSlice"]

#: A loop of ours holds the reactor no longer than this.
SLICE_SECONDS = 0.004

#: Steps between looks at the clock, each of which takes longer than a short step.
_CHECK_EVERY = 16


class TimeSlice:
    """A stretch of time that a loop has."""

    __slots__ = ("_clock", "_end", "_steps")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin anew: the reactor has had its turn."""
        self._steps = 0
        self._end = self._clock() + SLICE_SECONDS

    def isOver(self) -> bool:
        """
        Tell whether the reactor should have its turn now. Call it once a step, in a
        loop of short steps: the clock is looked at now and then.
        """
        self._steps += 1
        return self._steps % _CHECK_EVERY == 0 and self._clock() >= self._end

    def hasExpired(self) -> bool:
        """Tell the same by the clock, where each step may take long."""
        return self._clock() >= self._end
