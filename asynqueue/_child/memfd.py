"""Files without a name, mostly in memory, and which parts of one are in use."""

from __future__ import annotations

import io
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

#: Only whole pages can be given back to the system.
PAGE = mmap.ALLOCATIONGRANULARITY

_Gaps = list[tuple[int, int]]

_T = TypeVar("_T", bytes, bytearray)
#: So many bytes are copied at a time. Meanwhile, other threads run.
SLICE_BYTES = 1 << 20
#: The system puts at least so many bytes into large pages.
_HUGE_PAGE = 1 << 21
#: An object's memory begins 16 bytes off a multiple of 32, where the system copies
#: slowly on some processors: 64 MiB take 21 ms from 16 bytes further, and 44 to 56 ms
#: from there.
_MISALIGNED = 16


class Allocator:
    """
    Hands out regions of a file: the first that is large enough, of what has been in use
    before if there's such.
    """

    # All of the file is in one of four places: _lengths (regions in use, by offset),
    # _spare (gaps that take up memory), _clean (gaps that don't; the last has no end),
    # or with the caller of takeSpare. Gaps are begin and end, in order, and never
    # adjoin others of their kind.

    def __init__(self, start: int = 0) -> None:
        self._lengths: dict[int, int] = {}
        self._spare: _Gaps = []
        self._clean: _Gaps = [(start, 1 << 62)]
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
        return start

    def free(self, offset: int) -> None:
        """Take a region back. It's a L{KeyError} if it isn't in use."""
        length = self._lengths.pop(offset)
        self.spare += length
        _insert(self._spare, offset, offset + length)

    def takeSpare(self, keep: int) -> tuple[int, int] | None:
        """
        Take out a gap whose memory is to be given back, and that is L{clean} then:
        offset and length. C{None} if there are no more bytes of gaps than are kept.
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
    """Take a region out of the first gap that has room, and return its offset."""
    for i, (start, end) in enumerate(gaps):
        if end - start >= length:
            if end - start == length:
                del gaps[i]
            else:
                gaps[i] = (start + length, end)
            return start
    return None


def _insert(gaps: _Gaps, start: int, end: int) -> None:
    i = bisect_left(gaps, (start, end))
    if i < len(gaps) and gaps[i][0] == end:
        end = gaps.pop(i)[1]
    if i and gaps[i - 1][1] == start:
        i -= 1
        start = gaps.pop(i)[0]
    gaps.insert(i, (start, end))


def openMemoryFile() -> int:
    """
    Make a file without a name, and return its descriptor.

    Where possible, it can't be made shorter: who looks at what isn't there any longer
    is killed for it, and a task might take the file for one of its own.
    """
    with suppress(AttributeError, OSError):
        fd = os.memfd_create("asynqueue", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with suppress(ImportError, AttributeError, OSError):
            from fcntl import F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl

            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL)
        return fd
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def punchHole(fd: int, start: int, length: int) -> None:
    """Give memory of a file back to the system, where it can."""
    with (
        suppress(AttributeError, OSError, ValueError),
        mmap.mmap(fd, length, offset=start) as mapping,
    ):
        for at in range(0, length, SLICE_BYTES):
            mapping.madvise(mmap.MADV_REMOVE, at, min(SLICE_BYTES, length - at))


def readBytes(fd: int, offset: int, length: int) -> bytes:
    """With large pages, 64 MiB take 20 ms; by C{pread}, 55 ms."""
    # This one reads them to where they're going to be.
    return _whole(io.BufferedReader(_Source(fd, offset)).read(length), length)


def readByteArray(fd: int, offset: int, length: int) -> bytearray:
    found = _newByteArray(length + _MISALIGNED)
    with memoryview(found) as view:
        got = _fill(fd, offset, view[_MISALIGNED:])
    # Nobody is to see what was in the memory before. This copies nothing.
    del found[_MISALIGNED + got :]
    del found[:_MISALIGNED]
    return _whole(found, length)


def _whole(found: _T, length: int) -> _T:
    if len(found) != length:
        raise OSError("The file isn't as long as it should be")
    return found


class _Source(io.RawIOBase):
    """What is at some place of a file, to be read into a new object."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = _fill(self._fd, self._offset, buffer)
        self._offset += got
        return got


def _fill(fd: int, offset: int, view: memoryview) -> int:
    if len(view) >= 2 * _HUGE_PAGE:
        _useHugePages(view)
    done = 0
    while done < len(view):
        got = _read(fd, [view[done : done + SLICE_BYTES]], offset + done)
        if not got:
            break
        done += got
    return done


def _useHugePages(view: memoryview) -> None:
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import ctypes

        libc = ctypes.CDLL(None)
        start = ctypes.addressof((ctypes.c_char * len(view)).from_buffer(view))
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        length = (start + len(view) - first) // _HUGE_PAGE * _HUGE_PAGE
        libc.madvise(
            ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE
        )


def _newByteArray(length: int) -> bytearray:
    """
    Make a C{bytearray} that is going to be filled. Where possible, its memory hasn't
    been touched: doing so takes as long as filling it, and no other thread can run.
    """
    with suppress(ImportError, AttributeError):
        import ctypes

        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
            ("PyByteArray_FromStringAndSize", ctypes.pythonapi)
        )
        made: bytearray = make(None, length)
        return made
    return bytearray(length)


def _preadv(fd: int, views: list[memoryview], offset: int) -> int:
    """C{os.preadv} for systems that have none."""
    [view] = views
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


_read: Callable[[int, list[memoryview], int], int] = getattr(os, "preadv", _preadv)
