"""
Files without a name, through which two processes give one another large things.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import io
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

__all__ = ["SLICE", "SharedFile", "anonymousFile", "readByteArray", "readBytes"]

T = TypeVar("T", bytes, bytearray)

#: So many bytes are copied at a time. Meanwhile, other threads run.
SLICE = 1 << 20

#: The system puts at least so many bytes into large pages.
_HUGE = 1 << 21


def anonymousFile() -> int:
    """
    Make a file without a name.

    Where possible, it can't be made shorter: who looks at what isn't there any longer
    is killed for it, and a task might take the file for one of its own.

    @return: Its descriptor.

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


class SharedFile:
    """
    A file that is closed when it isn't in use.
    """

    def __init__(self, fd: int) -> None:
        """
        Take a file.

        @param fd: Its descriptor.
        """
        self._fd = fd
        self._users = 1
        self._lock = threading.Lock()
        self._open = True

    @contextmanager
    def use(self) -> Iterator[int]:
        """
        Use the file for a while.

        @return: A context manager that gives the descriptor.

        @raise OSError: If it's closed.
        """
        with self._lock:
            if not self._open:
                raise OSError("The file has been closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            self._drop()

    @property
    def open(self) -> bool:
        """
        Whether the file can be used.
        """
        return self._open

    def size(self) -> int:
        """
        Tell how much is in the file.

        @return: How many bytes of space it takes up.

        @raise OSError: If it's closed.
        """
        with self.use() as fd:
            return os.fstat(fd).st_blocks * 512

    def close(self) -> None:
        """
        Close the file, as soon as nobody uses it. Any thread may.
        """
        with self._lock:
            wasOpen, self._open = self._open, False
        if wasOpen:
            self._drop()

    def _drop(self) -> None:
        """
        Note that there's one fewer to use the file.
        """
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            os.close(self._fd)


def readBytes(fd: int, offset: int, length: int) -> bytes:
    """
    Read C{bytes} from a file.

    @param fd: Its descriptor.

    @param offset: Where they begin.

    @param length: How many there are.

    @return: They.

    @raise OSError: If they aren't there.
    """
    # This one reads them to where they're going to be.
    return _whole(io.BufferedReader(_Source(fd, offset)).read(length), length)


def readByteArray(fd: int, offset: int, length: int) -> bytearray:
    """
    Read a C{bytearray} from a file.

    @param fd: Its descriptor.

    @param offset: Where it begins.

    @param length: How long it is.

    @return: It.

    @raise OSError: If it isn't there.
    """
    found = _newByteArray(length)
    with memoryview(found) as view:
        got = _fill(fd, offset, view)
    # Nobody is to see what was in the memory before.
    del found[got:]
    return _whole(found, length)


def _whole(found: T, length: int) -> T:
    """
    See to it that all was there.

    @param found: What was there.

    @param length: How long it should be.

    @return: It.

    @raise OSError: If it isn't that long.
    """
    if len(found) != length:
        raise OSError("The file isn't as long as it should be")
    return found


class _Source(io.RawIOBase):
    """
    What is at some place of a file, to be read into a new object.
    """

    def __init__(self, fd: int, offset: int) -> None:
        """
        Make it.

        @param fd: The descriptor of the file.

        @param offset: The place.
        """
        self._fd = fd
        self._offset = offset

    def readable(self) -> bool:
        """
        Say that it can be read.

        @return: C{True}.
        """
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read what comes next.

        @param buffer: Takes it.

        @return: How many bytes have been read.
        """
        got = _fill(self._fd, self._offset, buffer)
        self._offset += got
        return got


def _fill(fd: int, offset: int, view: memoryview) -> int:
    """
    Read from a file.

    @param fd: Its descriptor.

    @param offset: Where to begin.

    @param view: Takes what is read.

    @return: How many bytes there were.
    """
    if len(view) >= 2 * _HUGE:
        _wantHugePages(view)
    done = 0
    while done < len(view):
        got = _read(fd, [view[done : done + SLICE]], offset + done)
        if not got:
            break
        done += got
    return done


def _wantHugePages(view: memoryview) -> None:
    """
    Have the system use large pages for something new, which takes it less time.

    @param view: The memory.
    """
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import ctypes

        libc = ctypes.CDLL(None)
        start = ctypes.addressof((ctypes.c_char * len(view)).from_buffer(view))
        first = -(-start // _HUGE) * _HUGE
        length = (start + len(view) - first) // _HUGE * _HUGE
        libc.madvise(
            ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE
        )


def _newByteArray(length: int) -> bytearray:
    """
    Make a C{bytearray} that is going to be filled.

    @param length: Its length.

    @return: It. Where possible, its memory hasn't been touched: doing so takes as
        long as filling it, and no other thread can run.
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
    """
    Read from a file on a system that has no such function.

    @param fd: Its descriptor.

    @param views: A list of one that takes what is read.

    @param offset: Where to begin.

    @return: How many bytes there were.
    """
    [view] = views
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


_read: Callable[[int, list[memoryview], int], int] = getattr(os, "preadv", _preadv)
