"""Which parts of a memory file are in use. No input or output here."""

from __future__ import annotations

from bisect import bisect_left
from mmap import ALLOCATIONGRANULARITY as PAGE

__all__ = ["PAGE", "Allocator"]

_Gaps = list[tuple[int, int]]


class Allocator:
    """
    Hands out regions of a file: the first that is large enough, of what has been in use
    before if there's such. Regions are whole pages, as only those can be given back to
    the system.

    @ivar used: How many bytes are in use.

    @ivar spare: How many bytes that aren't in use take up memory.
    """

    # All of the file is in one of four places: _lengths (regions in use, by offset),
    # _spare (gaps that take up memory), _clean (gaps that don't; the last has no end),
    # or with the caller of takeSpare. Gaps are begin and end, in order, and never
    # adjoin others of their kind.

    __slots__ = ("_clean", "_lengths", "_spare", "spare", "used")

    def __init__(self, start: int = 0) -> None:
        self._lengths: dict[int, int] = {}
        self._spare: _Gaps = []
        self._clean: _Gaps = [(start, 1 << 62)]
        self.used = 0
        self.spare = 0

    def allocate(self, length: int) -> int:
        """Find a region, and return its offset, where no other region in use begins."""
        length = max(-(-length // PAGE), 1) * PAGE
        start = _take(self._spare, length)
        if start is not None:
            self.spare -= length
        else:
            start = _take(self._clean, length)
            if start is None:
                raise MemoryError("The file is full")
        self._lengths[start] = length
        self.used += length
        return start

    def free(self, offset: int) -> None:
        """
        Take a region back.

        @raise KeyError: If there's no such region in use.
        """
        length = self._lengths.pop(offset)
        self.used -= length
        self.spare += length
        _insert(self._spare, offset, offset + length)

    def takeSpare(self, keep: int) -> tuple[int, int] | None:
        """
        Take out a gap whose memory is to be given back, and that is L{clean} then.

        @param keep: How many bytes of gaps there may be, to be used again soon.

        @return: Offset and length, or C{None} if there are no more than that.
        """
        if self.spare <= keep:
            return None
        start, end = self._spare.pop()
        # What is kept is what is handed out first.
        cut = end - min(end - start, self.spare - keep)
        cut = -(-cut // PAGE) * PAGE
        if cut > start:
            self._spare.append((start, cut))
        if cut >= end:
            return None
        self.spare -= end - cut
        return cut, end - cut

    def clean(self, start: int, length: int) -> None:
        """Take a gap back that doesn't take up memory any longer."""
        _insert(self._clean, start, start + length)


def _take(gaps: _Gaps, length: int) -> int | None:
    """
    Take a region out of the first gap that is large enough, and return its offset.
    """
    for i, (start, end) in enumerate(gaps):
        if end - start >= length:
            if end - start == length:
                del gaps[i]
            else:
                gaps[i] = (start + length, end)
            return start
    return None


def _insert(gaps: _Gaps, start: int, end: int) -> None:
    """Add a gap, and join it with those that adjoin it."""
    i = bisect_left(gaps, (start, end))
    if i < len(gaps) and gaps[i][0] == end:
        end = gaps.pop(i)[1]
    if i and gaps[i - 1][1] == start:
        i -= 1
        start = gaps.pop(i)[0]
    gaps.insert(i, (start, end))
