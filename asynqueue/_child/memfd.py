"""
Files without a name, in memory where the system has such.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["SLICE_BYTES", "openMemoryFile", "punchHole", "readByteArray", "readBytes"]

_T = TypeVar("_T", bytes, bytearray)

#: So many bytes are copied at a time. Meanwhile, other threads run.
SLICE_BYTES = 1 << 20

#: The system puts at least so many bytes into large pages.
_HUGE_PAGE = 1 << 21

#: An object's memory begins 16 bytes off a multiple of 32, where the system copies
#: slowly on some processors: 64 MiB take 21 ms from 16 bytes further, and 44 to 56 ms
#: from there.
_MISALIGNED = 16


def openMemoryFile() -> int:
    """
    Make a file without a name, and return its descriptor.

    Where possible, it can't be made shorter: who looks at what isn't there any longer
    is killed for it, and a task might take the file for one of its own.

    @raise OSError: If it can't be made.
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
    """
    Read C{bytes} from a file. With large pages, 64 MiB take 20 ms; by C{pread}, 55 ms.

    @raise OSError: If they aren't there.
    """
    # This one reads them to where they're going to be.
    return _whole(io.BufferedReader(_Source(fd, offset)).read(length), length)


def readByteArray(fd: int, offset: int, length: int) -> bytearray:
    """
    Read a C{bytearray} from a file.

    @raise OSError: If it isn't there.
    """
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
    """Read from a file, and return how many bytes there were."""
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
