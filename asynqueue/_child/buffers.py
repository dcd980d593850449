"""
Large buffers go from one process to the other through a memory file: one without a
name, that both have open. The side that writes hands out its regions, and tells the
other in the frame where the buffers are::

    4 bytes    how many buffers there are
    17 bytes   for each: what it is, where it is, its length
               those that aren't in the file
               the pickle

The side that reads copies what becomes C{bytes} and C{bytearray}, views all else where
it is, and says when a region isn't needed any longer. So each region has one side that
may write to it, and one at a time that may read it.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE
from pickle import PickleBuffer
from typing import Any

from .memfd import PAGE, SLICE_BYTES, Allocator, punchHole, readByteArray, readBytes
from .pickling import Packed, flat, loads

#: With fewer bytes than this, the pipe is as fast.
THRESHOLD = 1 << 18
#: So much of what isn't in use is kept to be used again: new memory takes longer.
SPARE_BYTES = 1 << 26
#: Files are as long as this, or twice as long, and so on. They take up the space that
#: has been written to.
_FILE_BYTES = 1 << 26
#: The first region of the file isn't for buffers: see L{BufferWriter.interrupt}.
_FIRST_OFFSET = PAGE

_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<BQQ")
_OFFSET = struct.Struct("<Q")
_NUMBER = struct.Struct("<I")

# What a buffer is: something of an object that knows how to be pickled without its
# contents, C{bytes}, or a C{bytearray}.
_VIEW, _BYTES, _BYTEARRAY = 0, 1, 2
_CODES = {PickleBuffer: _VIEW, memoryview: _VIEW, bytes: _BYTES, bytearray: _BYTEARRAY}

#: The offset of what isn't in the file.
_INLINE = (1 << 64) - 1

#: What is raised where there can't be a view.
_NO_VIEW = (ImportError, AttributeError, OSError, OverflowError, ValueError)


class BufferWriter:
    """The side of a memory file that writes. Whoever has made the file closes it."""

    # The lock is held for _allocator and _length: a thread may be copying while the
    # reactor frees regions.

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lock = threading.Lock()
        self._allocator = Allocator(_FIRST_OFFSET)
        self._length = 0

    def put(self, packed: Packed, isGivenUp: Callable[[], bool] = bool) -> bytes:
        """
        Copy buffers to the file, and return the payload of the frame. Any thread may.
        If it's given up, the payload is of no use, but to be L{discard}ed.
        """
        views: list[memoryview] = []
        offsets: list[int] = []
        try:
            views += map(flat, packed.buffers)
            isSmall = sum(view.nbytes for view in views) < THRESHOLD
            table, inline = [_COUNT.pack(len(views))], []
            for buffer, view in zip(packed.buffers, views, strict=True):
                offset = None if isSmall else self._put(view, isGivenUp)
                if offset is None:
                    inline.append(view)
                    offset = _INLINE
                else:
                    offsets.append(offset)
                table.append(_ENTRY.pack(_CODES[type(buffer)], offset, view.nbytes))
            return b"".join([*table, *inline, packed.pickle])
        except BaseException:
            self._free(offsets)
            raise
        finally:
            for view in views:
                view.release()

    def discard(self, payload: bytes) -> None:
        """Free what a payload is about that isn't sent."""
        entries, _ = _readTable(memoryview(payload))
        self._free([offset for _, offset, _ in entries if offset != _INLINE])

    def release(self, payload: bytes | memoryview) -> bool:
        """Free what the other side doesn't need, and tell whether to L{trim} now."""
        self._free([offset for (offset,) in _OFFSET.iter_unpack(payload)])
        return self._allocator.spare > SPARE_BYTES

    def trim(self) -> None:
        """Give memory back to the system that isn't in use. Any thread may."""
        while True:
            with self._lock:
                region = self._allocator.takeSpare(SPARE_BYTES)
            if region is None:
                return
            punchHole(self.fd, *region)
            with self._lock:
                self._allocator.clean(*region)

    def interrupt(self, number: int) -> None:
        """Say which call or iteration a signal is about."""
        self._lengthen(_FIRST_OFFSET)
        os.pwrite(self.fd, _NUMBER.pack(number), 0)

    def _free(self, offsets: list[int]) -> None:
        with self._lock:
            for offset in offsets:
                self._allocator.free(offset)

    def _put(self, view: memoryview, isGivenUp: Callable[[], bool]) -> int | None:
        """Copy a buffer, and return its offset, C{None} if there's no room."""
        with self._lock:
            offset = self._allocator.allocate(view.nbytes)
        try:
            self._lengthen(offset + view.nbytes)
            at = 0
            while at < view.nbytes and not isGivenUp():
                at += os.pwrite(self.fd, view[at : at + SLICE_BYTES], offset + at)
        except OSError:
            self._free([offset])
            # What has been written until there was no room is of no use.
            self.trim()
            return None
        except BaseException:
            self._free([offset])
            raise
        return offset

    def _lengthen(self, end: int) -> None:
        """
        Have the file reach as far as it must. It never gets shorter: the other side has
        as much of it in its memory.
        """
        with self._lock:
            if end > self._length:
                length = max(_FILE_BYTES, 1 << (end - 1).bit_length())
                os.ftruncate(self.fd, length)
                self._length = length


class BufferReader:
    # _unneeded has the offsets of regions that the other side is to be told of. They're
    # added in any thread, and anywhere in the code, as objects end. _woken is set from
    # the first of them until unneeded() takes them.

    def __init__(self, fd: int, wake: Callable[[], object] | None = None) -> None:
        self.fd = fd
        self.waiting: deque[int] = deque()
        self._mapping: Any = None
        self._wake = wake
        self._woken = False

    def free(self, offset: int) -> None:
        self.waiting.append(offset)
        wake = self._wake
        if wake is not None and not self._woken:
            self._woken = True
            wake()

    def unneeded(self) -> bytes:
        """Take what the other side is to be told, empty if there's nothing."""
        self._woken = False
        parts = []
        with suppress(IndexError):
            while True:
                parts.append(_OFFSET.pack(self.waiting.popleft()))
        return b"".join(parts)

    def interrupted(self) -> int:
        """Tell which call or iteration the last signal was about."""
        data = os.pread(self.fd, _NUMBER.size, 0)
        return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0

    def close(self) -> None:
        """Tell nobody any longer. What somebody still uses of the file stays."""
        self._wake = None
        self._mapping = None

    def view(self, offset: int, length: int) -> memoryview:
        """View a region where it is, which is freed when nobody does any longer."""
        import ctypes

        mapping = self._mapping
        if mapping is None or len(mapping) < offset + length:
            mapping = self._mapping = _map(self.fd, os.fstat(self.fd).st_size)
        # Views of views keep what is at their beginning, and nothing in between.
        keeper = (ctypes.c_char * length).from_buffer(mapping, offset)
        view = memoryview(keeper).cast("B")
        weakref.finalize(keeper, self.free, offset).atexit = False
        return view


class Incoming:
    # _held has the offsets of regions that nothing else will free.

    def __init__(self, reader: BufferReader, payload: memoryview) -> None:
        self._reader = reader
        self._entries, self._rest = _readTable(payload)
        self._found: dict[int, bytes | bytearray] = {}
        self._error: Exception | None = None
        self._held = {offset for _, offset, _ in self._entries} - {_INLINE}
        self.copied = sum(
            length
            for code, offset, length in self._entries
            if code != _VIEW and offset != _INLINE
        )

    def read(self) -> None:
        """
        Copy what is to be C{bytes} and C{bytearray} in advance. Any thread may. If that
        fails, L{loads} raises the error.
        """
        try:
            for code, offset, length in self._entries:
                if code != _VIEW and offset != _INLINE:
                    self._found[offset] = self._copy(code, offset, length)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._error = error
            self.discard()

    def loads(self) -> Any:
        """Unpickle it. It can be done once."""
        if self._error is not None:
            raise self._error
        buffers: list[object] = []
        rest = self._rest
        try:
            for code, offset, length in self._entries:
                if offset == _INLINE:
                    piece, rest = rest[:length], rest[length:]
                    buffers.append(bytes(piece) if code == _BYTES else bytearray(piece))
                elif code == _VIEW:
                    buffers.append(self._view(offset, length))
                elif offset in self._found:
                    buffers.append(self._found.pop(offset))
                else:
                    buffers.append(self._copy(code, offset, length))
        except BaseException:
            # An error's traceback may keep this frame, but not what isn't in it.
            buffers.clear()
            self.discard()
            raise
        # The same goes for buffers that are taken out.
        buffers.reverse()
        return loads(rest, buffers=_popped(buffers))

    def discard(self) -> None:
        """Free all of it, as it isn't wanted or can't be had as a whole."""
        self._found.clear()
        while self._held:
            self._reader.free(self._held.pop())

    def _copy(self, code: int, offset: int, length: int) -> bytes | bytearray:
        read = readBytes if code == _BYTES else readByteArray
        copied = read(self._reader.fd, offset, length)
        self._held.discard(offset)
        self._reader.free(offset)
        return copied

    def _view(self, offset: int, length: int) -> memoryview | bytes | bytearray:
        """View a region, or copy it where there can't be a view."""
        try:
            view = self._reader.view(offset, length)
        except _NO_VIEW:
            return self._copy(_VIEW, offset, length)
        self._held.discard(offset)
        return view


def _readTable(payload: memoryview) -> tuple[list[tuple[int, int, int]], memoryview]:
    [count] = _COUNT.unpack_from(payload)
    end = _COUNT.size + count * _ENTRY.size
    return list(_ENTRY.iter_unpack(payload[_COUNT.size : end])), payload[end:]


def _popped(things: list[object]) -> Iterator[object]:
    while things:
        yield things.pop()


def _map(fd: int, size: int) -> Any:
    """
    Have a file in memory until nobody refers to that any longer, as an array of bytes.

    Unlike a C{mmap}, this has no descriptor of its own, which would stay open for as
    long as results are kept (C{mmap} can do without from Python 3.13).
    """
    import ctypes

    kind = ctypes.c_char * size
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    ]
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "The file can't be had in memory")
    mapping = kind.from_address(address)
    weakref.finalize(mapping, libc.munmap, address, size).atexit = False
    return mapping
