"""
The side of a shared file that writes. It hands out the regions of the file, tells the
other side through the pipe where the buffers are, and is told when they're not needed
any longer. So each region has one side that may write to it, and one at a time that
may read it. What can't be put into the file goes through the pipe.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pickle import PickleBuffer

from .memfd import SLICE, SharedFile
from .parcels import COUNT, ENTRY, INLINE, OFFSET, THRESHOLD, TYPES
from .pickling import Buffer, Packed
from .regions import Regions

__all__ = ["KEPT", "Outbox"]

#: So much of what isn't in use is kept to be used again: new memory takes longer.
KEPT = 1 << 26

#: Files are as long as this, or twice as long, and so on. They take up the space that
#: has been written to.
_LENGTH = 1 << 26


class Outbox:
    """
    The side that writes.
    """

    def __init__(self, file: SharedFile) -> None:
        """
        Take an empty file.

        @param file: The file.
        """
        self._file = file
        self._lock = threading.Lock()
        self._regions = Regions()
        self._length = 0

    @property
    def used(self) -> int:
        """
        How many bytes of the file are in use.
        """
        return self._regions.used

    def put(
        self, packed: Packed, head: bytes = b"", givenUp: Callable[[], bool] = bool
    ) -> bytes:
        """
        Copy buffers to the file. Any thread may.

        @param packed: The buffers, and the pickle to which they belong.

        @param head: What the payload is to begin with.

        @param givenUp: Asked again and again whether the copy is of no use any longer.
            Then, the payload isn't either, but to be L{discard}ed.

        @return: The payload to be sent through the pipe.

        @raise MemoryError: If there's no room for that. Nothing is in use then.
        """
        views: list[memoryview] = []
        offsets: list[int] = []
        try:
            views += map(_flat, packed.buffers)
            small = sum(view.nbytes for view in views) < THRESHOLD
            table, inline = [head, COUNT.pack(len(views))], []
            for buffer, view in zip(packed.buffers, views, strict=True):
                offset = None if small else self._put(view, givenUp)
                if offset is None:
                    inline.append(view)
                    offset = INLINE
                else:
                    offsets.append(offset)
                table.append(ENTRY.pack(TYPES[type(buffer)], offset, view.nbytes))
            return b"".join([*table, *inline, packed.pickle])
        except BaseException:
            self._free(offsets)
            raise
        finally:
            for view in views:
                view.release()

    def discard(self, payload: bytes) -> None:
        """
        Take back all that a payload is about, because it isn't sent.

        @param payload: The payload. It begins with nothing else.
        """
        [count] = COUNT.unpack_from(payload)
        end = COUNT.size + count * ENTRY.size
        entries = memoryview(payload)[COUNT.size : end]
        offsets = [offset for _, offset, _ in ENTRY.iter_unpack(entries)]
        self._free([offset for offset in offsets if offset != INLINE])

    def release(self, payload: bytes | memoryview) -> bool:
        """
        Take back what the other side doesn't need any longer.

        @param payload: What it has said.

        @return: Whether it's time to L{trim}.
        """
        self._free([offset for (offset,) in OFFSET.iter_unpack(payload)])
        regions = self._regions
        return regions.written > regions.end + KEPT

    def trim(self) -> None:
        """
        Give memory back that hasn't been in use for a while. Any thread may.
        """
        with self._lock:
            region = self._regions.trim(KEPT)
        if region is None:
            return
        start, length = region
        # Some systems can't.
        with (
            suppress(AttributeError, OSError, ValueError),
            self._file.use() as fd,
            mmap.mmap(fd, length, offset=start) as mapping,
        ):
            for at in range(0, length, SLICE):
                mapping.madvise(mmap.MADV_REMOVE, at, min(SLICE, length - at))
        self._free([start])

    def _free(self, offsets: list[int]) -> None:
        """
        Take regions back.

        @param offsets: Where they begin.
        """
        with self._lock:
            for offset in offsets:
                self._regions.free(offset)

    def _put(self, view: memoryview, givenUp: Callable[[], bool]) -> int | None:
        """
        Copy a buffer to the file.

        @param view: The buffer.

        @param givenUp: See L{put}.

        @return: Its offset, C{None} if there's no room for it.
        """
        with self._lock:
            offset = self._regions.allocate(view.nbytes)
        try:
            with self._file.use() as fd:
                self._lengthen(fd, offset + view.nbytes)
                at = 0
                while at < view.nbytes and not givenUp():
                    at += os.pwrite(fd, view[at : at + SLICE], offset + at)
        except OSError:
            self._free([offset])
            # What has been written until there was no room is of no use.
            self.trim()
            return None
        except BaseException:
            self._free([offset])
            raise
        return offset

    def _lengthen(self, fd: int, end: int) -> None:
        """
        Have the file reach as far as it must. It never gets shorter: the other side has
        as much of it in its memory.

        @param fd: Its descriptor.

        @param end: Where it must not end before.

        @raise OSError: If it can't be that long.
        """
        with self._lock:
            if end > self._length:
                length = max(_LENGTH, 1 << (end - 1).bit_length())
                os.ftruncate(fd, length)
                self._length = length


def _flat(buffer: Buffer) -> memoryview:
    """
    View the bytes of a buffer.

    @param buffer: The buffer.

    @return: The view.
    """
    return buffer.raw() if isinstance(buffer, PickleBuffer) else memoryview(buffer)
