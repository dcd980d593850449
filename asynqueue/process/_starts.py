"""
How the starting of children goes, and when it's given up.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ["Starts"]

#: Children that end by themselves before they're ready, in a row, until no other is
#: started.
_MOST_FAILURES = 3

#: The same for children that a signal ends, and how many seconds this must have been
#: going on. Somebody may be killing them, which says little about the next one.
_MOST_KILLED = 30
_KILLED_SECONDS = 30.0

#: Seconds to wait before another is started, doubled each time, and the most of that:
#: after children that have ended by themselves, and after those that were killed.
_BACK_OFF, _MOST_BACK_OFF = 0.1, 0.8
_KILLED_BACK_OFF, _MOST_KILLED_BACK_OFF = 0.05, 0.2

#: The same before the first of another row, after one has been given up.
_ROW_BACK_OFF = 1.0
_MOST_ROW_BACK_OFF = 8.0


class Starts:
    """
    Counts the starts in a row that have failed, of all the children of a queue.

    @ivar failures: Children that have ended by themselves.

    @ivar killed: Children that a signal has ended.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """
        Begin to count.

        @param seconds: Tells the time.
        """
        self.failures = 0
        self.killed = 0
        self._rows = 0
        self._seconds = seconds
        self._firstKilled = 0.0

    @property
    def hopeless(self) -> bool:
        """
        Whether there's no use in starting another child.
        """
        return self.failures >= _MOST_FAILURES or (
            self.killed >= _MOST_KILLED
            and self._seconds() - self._firstKilled >= _KILLED_SECONDS
        )

    @property
    def delay(self) -> float:
        """
        Seconds to wait before another child is started.
        """
        if not self.failures and not self.killed:
            return _doubled(self._rows, _ROW_BACK_OFF, _MOST_ROW_BACK_OFF)
        return max(
            _doubled(self.failures, _BACK_OFF, _MOST_BACK_OFF),
            _doubled(self.killed, _KILLED_BACK_OFF, _MOST_KILLED_BACK_OFF),
        )

    def succeeded(self) -> None:
        """
        Note that a child has been put to work.
        """
        self.failures = self.killed = self._rows = 0

    def again(self) -> None:
        """
        Begin another row, if there's no use in going on with this one.
        """
        if self.hopeless:
            self.failures = self.killed = 0
            self._rows = min(self._rows + 1, 10)

    def failed(self, signal: int | None) -> None:
        """
        Note that a child has ended before it was put to work.

        @param signal: The signal that has ended it, C{None} if it has by itself.
        """
        if signal is None:
            self.failures += 1
        else:
            if not self.killed:
                self._firstKilled = self._seconds()
            self.killed += 1


def _doubled(number: int, first: float, most: float) -> float:
    """
    Say how long to wait after a number of failures.

    @param number: The number.

    @param first: Seconds after the first, doubled with each other.

    @param most: The most seconds.

    @return: The seconds, 0 without a failure.
    """
    return min(first * 2.0 ** (min(number, 20) - 1), most) if number else 0.0
