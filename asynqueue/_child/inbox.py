"""
The side of a shared file that reads. What becomes C{bytes} and C{bytearray} is copied;
all else is viewed where it is, and the other side told when nobody does any longer.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .memfd import SharedFile, readByteArray, readBytes
from .parcels import COUNT, ENTRY, INLINE, OFFSET, What
from .payloads import loads

__all__ = ["Arrival", "Inbox"]

#: What is raised where there can't be a view.
_NO_VIEW = (ImportError, AttributeError, OSError, OverflowError, ValueError)


class Inbox:
    """
    The side that reads.
    """

    def __init__(
        self, file: SharedFile, wake: Callable[[], object] | None = None
    ) -> None:
        """
        Take the file.

        @param file: The file.

        @param wake: Called, in any thread, when there is something to be told the
            other side.
        """
        self.file = file
        self._mapping: Any = None
        self._done = _Done(wake)

    @property
    def offsets(self) -> deque[int]:
        """
        Where the regions begin that L{done} will tell of.
        """
        return self._done.offsets

    def open(self, payload: memoryview) -> Arrival:
        """
        Look at what has come.

        @param payload: The payload.

        @return: What is to be read.
        """
        return Arrival(self, payload)

    def done(self) -> bytes:
        """
        Tell what isn't needed any longer.

        @return: What is to be told the other side, if it isn't empty.
        """
        return self._done.take()

    def close(self) -> None:
        """
        Have nobody told any longer. What somebody still uses of the file stays.
        """
        self._done.wake = None
        self._mapping = None

    def free(self, offset: int) -> None:
        """
        Note that a region isn't needed any longer.

        @param offset: Where it begins.
        """
        self._done(offset)

    def read(self, what: int, offset: int, length: int) -> Any:
        """
        Copy a buffer out of the file.

        @param what: What it is.

        @param offset: Where it begins.

        @param length: Its length.

        @return: A new object.

        @raise OSError: If it isn't there.
        """
        read: Callable[[int, int, int], Any]
        read = readBytes if what == What.BYTES else readByteArray
        with self.file.use() as fd:
            return read(fd, offset, length)

    def view(self, offset: int, length: int) -> memoryview:
        """
        View a buffer where it is. When nobody does any longer, the other side is told.

        @param offset: Where it begins.

        @param length: Its length.

        @return: The view.

        @raise OSError: If it can't be.

        @raise ValueError: If it isn't there.
        """
        import ctypes

        end = offset + length
        mapping = self._mapping
        if mapping is None or len(mapping) < end:
            with self.file.use() as fd:
                mapping = self._mapping = _map(fd, os.fstat(fd).st_size)
        # Views of views keep what is at their beginning, and nothing in between.
        keeper = (ctypes.c_char * length).from_buffer(mapping, offset)
        view = memoryview(keeper).cast("B")
        weakref.finalize(keeper, self._done, offset).atexit = False
        return view


class Arrival:
    """
    Something large that has come.

    @ivar copied: How many bytes L{read} has to copy.

    @ivar ready: Whether it has.
    """

    def __init__(self, inbox: Inbox, payload: memoryview) -> None:
        """
        Look at it.

        @param inbox: Where it is.

        @param payload: What the other side tells of it.
        """
        self._inbox = inbox
        [count] = COUNT.unpack_from(payload)
        end = COUNT.size + count * ENTRY.size
        self._entries = list(ENTRY.iter_unpack(payload[COUNT.size : end]))
        self._rest = payload[end:]
        self._found: dict[int, Any] = {}
        # The regions that the other side hasn't been told of, nor will be by itself.
        self._held = {offset for _, offset, _ in self._entries} - {INLINE}
        self._error: Exception | None = None
        self.ready = False
        self.copied = sum(
            length
            for what, offset, length in self._entries
            if what != What.VIEW and offset != INLINE
        )

    def read(self) -> None:
        """
        Copy what is to be C{bytes} and C{bytearray}. Any thread may. If that fails,
        L{loads} raises the error.
        """
        try:
            for what, offset, length in self._entries:
                if what != What.VIEW and offset != INLINE:
                    self._found[offset] = self._copy(what, offset, length)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._error = error
            self._letGo()
        self.ready = True

    def loads(self) -> Any:
        """
        Unpickle it, after L{read}. It can be done once.

        @return: The thing.

        @raise OSError: If something isn't there.

        @raise MemoryError: If there's no room for it.
        """
        if self._error is not None:
            raise self._error
        buffers: list[Any] = []
        rest = self._rest
        try:
            for what, offset, length in self._entries:
                if offset == INLINE:
                    piece, rest = rest[:length], rest[length:]
                    buffers.append(
                        bytes(piece) if what == What.BYTES else bytearray(piece)
                    )
                elif what == What.VIEW:
                    buffers.append(self._view(offset, length))
                else:
                    buffers.append(self._found.pop(offset))
        except BaseException:
            # An error's traceback may keep this frame, but not what isn't in it.
            buffers.clear()
            self._letGo()
            raise
        # The same goes for buffers that are taken out.
        buffers.reverse()
        return loads(rest, buffers=_popped(buffers))

    def _copy(self, what: int, offset: int, length: int) -> Any:
        """
        Copy a buffer, which isn't needed any longer then.

        @param what: What it is.

        @param offset: Where it begins.

        @param length: Its length.

        @return: A new object.

        @raise OSError: If it isn't there.
        """
        copied = self._inbox.read(what, offset, length)
        self._held.discard(offset)
        self._inbox.free(offset)
        return copied

    def _letGo(self) -> None:
        """
        Note that none of it is needed any longer, as it can't be had as a whole.
        """
        self._found.clear()
        while self._held:
            self._inbox.free(self._held.pop())

    def _view(self, offset: int, length: int) -> Any:
        """
        Get something to view a buffer.

        @param offset: Where it begins.

        @param length: Its length.

        @return: A view, or a copy where there can't be one.

        @raise OSError: If it isn't there.
        """
        try:
            view = self._inbox.view(offset, length)
        except _NO_VIEW:
            return self._copy(What.VIEW, offset, length)
        self._held.discard(offset)
        return view


class _Done:
    """
    What isn't needed any longer. Things end in any thread, and anywhere in the code.

    @ivar wake: Called when there's something, unless it was before L{take}.

    @ivar offsets: Where the regions begin.
    """

    def __init__(self, wake: Callable[[], object] | None) -> None:
        """
        Make it.

        @param wake: See above.
        """
        self.wake = wake
        self.offsets: deque[int] = deque()
        self._woken = False

    def __call__(self, offset: int) -> None:
        """
        Note a region.

        @param offset: Where it begins.
        """
        self.offsets.append(offset)
        wake = self.wake
        if wake is not None and not self._woken:
            self._woken = True
            wake()

    def take(self) -> bytes:
        """
        Take all regions.

        @return: Where they begin.
        """
        self._woken = False
        offsets = self.offsets
        parts = []
        with suppress(IndexError):
            while True:
                parts.append(OFFSET.pack(offsets.popleft()))
        return b"".join(parts)


def _popped(things: list[Any]) -> Iterator[Any]:
    """
    Take things out of a list, the last first.

    @param things: The list.

    @return: An iterator of them.
    """
    while things:
        yield things.pop()


def _map(fd: int, size: int) -> Any:
    """
    Have a file in memory until nobody refers to that any longer. Unlike a C{mmap}, this
    has no descriptor of its own, which would stay open for as long as results are kept.

    @param fd: The descriptor of the file.

    @param size: How long it is.

    @return: An array of bytes.

    @raise OSError: If it can't be.
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
    address = libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0
    )
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "The file can't be had in memory")
    mapping = kind.from_address(address)
    weakref.finalize(mapping, libc.munmap, address, size).atexit = False
    return mapping
