"""
Which parts of a file are in use. No input or output here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from mmap import ALLOCATIONGRANULARITY

__all__ = ["PAGE", "Regions"]

#: Regions begin at multiples of this, and are as long, because only whole pages can be
#: given back to the system.
PAGE = ALLOCATIONGRANULARITY


class Regions:
    """
    Hands out regions of a file: the first that is large enough, so that the end of the
    file stays free.

    @ivar used: How many bytes are in use.

    @ivar end: Where the last region in use ends. All before that is in use, or one of
        the gaps.

    @ivar written: No byte from here on has been in use since L{trim}.
    """

    __slots__ = ("_gaps", "_lengths", "end", "used", "written")

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}
        # Begin and end of each, in order.
        self._gaps: list[tuple[int, int]] = []
        self.used = 0
        self.end = 0
        self.written = 0

    def allocate(self, length: int) -> int:
        """
        Find a region.

        @param length: How long it must be.

        @return: Its offset in the file, where no other region in use begins.
        """
        length = max(-(-length // PAGE), 1) * PAGE
        for i, (start, end) in enumerate(self._gaps):
            if end - start >= length:
                if end - start == length:
                    del self._gaps[i]
                else:
                    self._gaps[i] = (start + length, end)
                break
        else:
            start = self.end
            self.end = start + length
            self.written = max(self.written, self.end)
        self._lengths[start] = length
        self.used += length
        return start

    def free(self, offset: int) -> None:
        """
        Take a region back.

        @param offset: Its offset.

        @raise KeyError: If there's no such region in use.
        """
        length = self._lengths.pop(offset)
        self.used -= length
        start, end = offset, offset + length
        gaps = self._gaps
        i = bisect_left(gaps, (start, end))
        if i < len(gaps) and gaps[i][0] == end:
            end = gaps.pop(i)[1]
        if i and gaps[i - 1][1] == start:
            start = gaps.pop(i - 1)[0]
        if end < self.end:
            insort(gaps, (start, end))
        else:
            self.end = start

    def trim(self, keep: int) -> tuple[int, int] | None:
        """
        Take out what has been in use at the end of the file and isn't, for its memory
        to be given back. It's in use until it's freed, and counts as not written then.

        @param keep: How many bytes there are left as they are, to be used again soon.

        @return: Offset and length, or C{None} if it's no more than that.
        """
        start = self.end + keep
        length = self.written - start
        if length <= 0:
            return None
        if keep:
            insort(self._gaps, (self.end, start))
        self._lengths[start] = length
        self.used += length
        self.end = self.written
        self.written = start
        return start, length
