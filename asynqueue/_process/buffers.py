"""
Large things go from one process to another through a file that both have open, and
that nobody else can, because it has no name. When both have gone, so has the file.

The side that writes hands out the regions of the file. It tells the other, through the
pipe, where the buffers are, and is told when they're not needed any longer. So each
region has one side that may write to it, and one at a time that may read it. What can't
be put into the file goes through the pipe.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pickle import PickleBuffer
from typing import Any

from .payloads import loads
from .pickling import Buffer, Packed
from .regions import Regions

__all__ = [
    "SLICE",
    "THRESHOLD",
    "Arrival",
    "Boxes",
    "Inbox",
    "Outbox",
    "SharedFile",
    "anonymousFile",
]

#: With fewer bytes than this, the pipe is as fast.
THRESHOLD = 1 << 18

#: So many bytes are copied at a time. Meanwhile, other threads run.
SLICE = 1 << 20

#: So much of what isn't in use is kept to be used again: new memory takes longer.
_KEPT = 1 << 26

#: Files are as long as this, or twice as long, and so on. They take up the space that
#: has been written to.
_LENGTH = 1 << 26

#: The system puts at least so many bytes into large pages.
_HUGE = 1 << 21

#: How many buffers there are; then for each: what it is, where it is, its length; then
#: those that aren't in the file; then the pickle.
_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<BQQ")

#: Where regions begin that aren't needed any longer.
_OFFSET = struct.Struct("<Q")

#: The offset of what isn't in the file.
_INLINE = (1 << 64) - 1


class _What(IntEnum):
    """
    What a buffer is.
    """

    #: Something of an object that knows how to be pickled without its contents.
    VIEW = 0

    #: C{bytes}.
    BYTES = 1

    #: C{bytearray}.
    BYTEARRAY = 2


_TYPES = {bytes: _What.BYTES, bytearray: _What.BYTEARRAY, PickleBuffer: _What.VIEW}


def anonymousFile() -> int:
    """
    Make a file without a name.

    @return: Its descriptor.

    @raise OSError: If it can't be made.
    """
    with suppress(AttributeError, OSError):
        return os.memfd_create("asynqueue")
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
        Close the file, as soon as nobody uses it.
        """
        if self._open:
            self._open = False
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
        """
        views = [_flat(buffer) for buffer in packed.buffers]
        try:
            small = sum(view.nbytes for view in views) < THRESHOLD
            table, inline = [head, _COUNT.pack(len(views))], []
            for buffer, view in zip(packed.buffers, views, strict=True):
                offset = None if small else self._put(view, givenUp)
                if offset is None:
                    inline.append(view)
                    offset = _INLINE
                table.append(_ENTRY.pack(_TYPES[type(buffer)], offset, view.nbytes))
            return b"".join([*table, *inline, packed.pickle])
        finally:
            for view in views:
                view.release()

    def discard(self, payload: bytes, head: int = 0) -> None:
        """
        Take back all that a payload is about, because it isn't sent.

        @param payload: The payload.

        @param head: The length of what it begins with.
        """
        [count] = _COUNT.unpack_from(payload, head)
        start = head + _COUNT.size
        entries = memoryview(payload)[start : start + count * _ENTRY.size]
        offsets = [offset for _, offset, _ in _ENTRY.iter_unpack(entries)]
        self._free([offset for offset in offsets if offset != _INLINE])

    def release(self, payload: bytes | memoryview) -> bool:
        """
        Take back what the other side doesn't need any longer.

        @param payload: What it has said.

        @return: Whether it's time to L{trim}.
        """
        self._free([offset for (offset,) in _OFFSET.iter_unpack(payload)])
        regions = self._regions
        return regions.written > regions.end + _KEPT

    def trim(self) -> None:
        """
        Give memory back that hasn't been in use for a while. Any thread may.
        """
        with self._lock:
            region = self._regions.trim(_KEPT)
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
            return None
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
        self._mapping: mmap.mmap | None = None
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
        with self.file.use() as fd:
            if what == _What.BYTES:
                reader = io.BufferedReader(_Source(fd, offset))
                found: Any = reader.read(length)
            else:
                found = _newByteArray(length)
                with memoryview(found) as view:
                    _fill(fd, offset, view)
        if len(found) != length:
            raise OSError("The file isn't as long as it should be")
        return found

    def view(self, offset: int, length: int) -> memoryview:
        """
        View a buffer where it is. When nobody does any longer, the other side is told.

        @param offset: Where it begins.

        @param length: Its length.

        @return: The view.

        @raise OSError: If it can't be.
        """
        import ctypes

        end = offset + length
        mapping = self._mapping
        if mapping is None or len(mapping) < end:
            with self.file.use() as fd:
                size = os.fstat(fd).st_size
                if size < end:
                    raise OSError("The file isn't as long as it should be")
                mapping = self._mapping = mmap.mmap(fd, size)
        # Views of views keep what is at their beginning, and nothing in between.
        keeper = (ctypes.c_char * length).from_buffer(mapping, offset)
        weakref.finalize(keeper, self._done, offset).atexit = False
        return memoryview(keeper).cast("B")


class Boxes:
    """
    Both boxes of a child.

    @ivar done: Isn't empty if the parent is to be told what isn't needed any longer.
    """

    def __init__(
        self, reads: int, writes: int, wake: Callable[[], object] | None = None
    ) -> None:
        """
        Make them.

        @param reads: The descriptor of the file of arguments.

        @param writes: The descriptor of the file of results.

        @param wake: See L{Inbox}.
        """
        self.inbox = Inbox(SharedFile(reads), wake)
        self.done = self.inbox.offsets
        self.outbox = Outbox(SharedFile(writes))

    def load(self, payload: memoryview) -> Any:
        """
        Get what has come.

        @param payload: What the parent has told of it.

        @return: The thing.

        @raise OSError: If something isn't there.

        @raise MemoryError: If there's no room for it.
        """
        arrival = self.inbox.open(payload)
        arrival.read()
        return arrival.loads()

    def release(self, payload: memoryview) -> None:
        """
        Take back what the parent doesn't need any longer.

        @param payload: What it has told.
        """
        if self.outbox.release(payload):
            self.outbox.trim()


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
                parts.append(_OFFSET.pack(offsets.popleft()))
        return b"".join(parts)


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
        [count] = _COUNT.unpack_from(payload)
        end = _COUNT.size + count * _ENTRY.size
        self._entries = list(_ENTRY.iter_unpack(payload[_COUNT.size : end]))
        self._rest = payload[end:]
        self._found: dict[int, Any] = {}
        self._error: OSError | MemoryError | None = None
        self.ready = False
        self.copied = sum(
            length
            for what, offset, length in self._entries
            if what != _What.VIEW and offset != _INLINE
        )

    def read(self) -> None:
        """
        Copy what is to be C{bytes} and C{bytearray}. Any thread may. If that fails,
        L{loads} raises the error.
        """
        try:
            for what, offset, length in self._entries:
                if what != _What.VIEW and offset != _INLINE:
                    self._found[offset] = self._inbox.read(what, offset, length)
                    self._inbox.free(offset)
        except (OSError, MemoryError) as error:
            self._error = error
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
        for what, offset, length in self._entries:
            if offset == _INLINE:
                piece, rest = rest[:length], rest[length:]
                buffers.append(
                    bytes(piece) if what == _What.BYTES else bytearray(piece)
                )
            elif what == _What.VIEW:
                buffers.append(self._view(offset, length))
            else:
                buffers.append(self._found.pop(offset))
        # An error's traceback may keep this frame, but not buffers that are taken out.
        buffers.reverse()
        return loads(rest, buffers=_popped(buffers))

    def _view(self, offset: int, length: int) -> Any:
        """
        Get something to view a buffer.

        @param offset: Where it begins.

        @param length: Its length.

        @return: A view, or a copy where there can't be one.

        @raise OSError: If it isn't there.
        """
        try:
            return self._inbox.view(offset, length)
        except (ImportError, OSError, ValueError):
            copied = self._inbox.read(_What.VIEW, offset, length)
            self._inbox.free(offset)
            return copied


def _popped(things: list[Any]) -> Iterator[Any]:
    """
    Take things out of a list, the last first.

    @param things: The list.

    @return: An iterator of them.
    """
    while things:
        yield things.pop()


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
        got = os.preadv(fd, [view[done : done + SLICE]], offset + done)
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


def _flat(buffer: Buffer) -> memoryview:
    """
    View the bytes of a buffer.

    @param buffer: The buffer.

    @return: The view.
    """
    return buffer.raw() if isinstance(buffer, PickleBuffer) else memoryview(buffer)
