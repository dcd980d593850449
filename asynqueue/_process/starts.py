"""
How the starting of children goes, and when it's given up.
"""

from __future__ import annotations

__all__ = ["Starts"]

#: Children that end by themselves before they're ready, in a row, until no other is
#: started.
_MOST_FAILURES = 3

#: The same for children that a signal ends. Somebody may be killing them, which says
#: little about the next one.
_MOST_KILLED = 30

#: Seconds to wait before another is started, doubled each time, and the most of that.
_BACK_OFF = 0.1
_MOST_BACK_OFF = 0.8

#: The same before the first of another row, after one has been given up.
_ROW_BACK_OFF = 1.0
_MOST_ROW_BACK_OFF = 8.0


class Starts:
    """
    Counts the starts in a row that have failed, of all the children of a queue.

    @ivar failures: Children that have ended by themselves.

    @ivar killed: Children that a signal has ended.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.killed = 0
        self._rows = 0

    @property
    def hopeless(self) -> bool:
        """
        Whether there's no use in starting another child.
        """
        return self.failures >= _MOST_FAILURES or self.killed >= _MOST_KILLED

    @property
    def delay(self) -> float:
        """
        Seconds to wait before another child is started.
        """
        number = self.failures + self.killed
        if number:
            return min(_BACK_OFF * 2.0 ** (number - 1), _MOST_BACK_OFF)
        if self._rows:
            return min(_ROW_BACK_OFF * 2.0 ** (self._rows - 1), _MOST_ROW_BACK_OFF)
        return 0.0

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
            self.killed += 1
