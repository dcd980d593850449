"""
Pickling without copying what is large.

Arrays and the like are pickled out-of-band if they know how to, which is what protocol
5 is for. C{bytes} and C{bytearray} don't: their contents are part of the pickle.
Picklers spare themselves a copy, though, and hand the file to which they write the
object itself. Here, it's kept, and the unpickler told to take it from where it takes
buffers.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections import ChainMap, deque
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "LARGE",
    "PROTOCOL",
    "Buffer",
    "Packed",
    "ViewPickler",
    "pack",
    "packWith",
    "reduceView",
    "restoreView",
    "withViews",
]

#: The protocol of pickle that all frames are in.
PROTOCOL = 5

#: What has fewer bytes is part of the pickle. Picklers have the same limit for what
#: they don't copy.
LARGE = 65_536

#: A pickler that has made longer pickles than this isn't used again: it would go on
#: forgetting as much as it had to know for them.
_MOST_REUSED = 4096

#: The opcodes that are of interest, and lengths that follow them.
_BYTES, _BYTES8, _BYTEARRAY8 = b"B", b"\x8e", b"\x96"
_FRAME, _NEXT_BUFFER = 0x95, b"\x97"
_LENGTH, _LENGTH8 = struct.Struct("<I"), struct.Struct("<Q")

#: Something large.
Buffer: TypeAlias = "bytes | bytearray | PickleBuffer"


class Packed(NamedTuple):
    """
    Something large, pickled.

    @ivar pickle: The pickle.

    @ivar buffers: What it needs besides, in order.
    """

    pickle: bytes
    buffers: list[Buffer]

    @property
    def size(self) -> int:
        """
        How many bytes the buffers have.
        """
        return sum(
            buffer.raw().nbytes if isinstance(buffer, PickleBuffer) else len(buffer)
            for buffer in self.buffers
        )


class _Sink:
    """
    What picklers write to.
    """

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], object]) -> None:
        """
        Make it.

        @param write: Takes what is written.
        """
        self.write = write


class _Packer:
    """
    A pickler that keeps what is large. It can be used again if it hasn't failed.
    """

    __slots__ = ("_chunks", "_kept", "_pickler")

    def __init__(self, make: Callable[..., pickle.Pickler]) -> None:
        """
        Make it.

        @param make: Makes the pickler.
        """
        self._chunks: list[Any] = []
        # Buffers, and how many chunks had been written before each. The last chunk is
        # written after all of them.
        self._kept: deque[tuple[int, PickleBuffer]] = deque()
        self._pickler = make(
            _Sink(self._chunks.append), PROTOCOL, buffer_callback=self._keep
        )

    def pack(self, value: Any) -> bytes | Packed:
        """
        Pickle something.

        @param value: The thing.

        @return: The pickle, with buffers if there's something large.
        """
        self._pickler.dump(value)
        self._pickler.clear_memo()
        chunks = self._chunks
        if len(chunks) == 1 and not self._kept:
            pickled: bytes = chunks.pop()
            return pickled
        return self._assemble()

    def _keep(self, buffer: PickleBuffer) -> bool:
        """
        Look at a buffer that can be kept out of the pickle.

        @param buffer: It.

        @return: Whether it's to be part of the pickle nevertheless.
        """
        # It's contiguous: picklers refuse others before they ask.
        with buffer.raw() as view:
            small = view.nbytes < LARGE
        if not small:
            self._kept.append((len(self._chunks), buffer))
        return small

    def _assemble(self) -> bytes | Packed:
        """
        Make a pickle of chunks, without those that are large objects.

        @return: The pickle, with buffers if there are some.
        """
        pieces: list[bytes] = []
        buffers: list[Buffer] = []
        for i, chunk in enumerate(self._chunks):
            while self._kept and self._kept[0][0] <= i:
                buffers.append(self._kept.popleft()[1])
            head = _head(chunk) if len(chunk) >= LARGE else None
            if head and pieces and pieces[-1].endswith(head):
                pieces[-1] = pieces[-1][: -len(head)] + _NEXT_BUFFER
                buffers.append(chunk)
            else:
                pieces.append(chunk)
        self._chunks.clear()
        pickled = b"".join(pieces)
        return Packed(pickled, buffers) if buffers else pickled


def _head(chunk: Any) -> bytes | None:
    """
    Tell what a pickler must have written before a chunk if that is an object.

    @param chunk: The chunk.

    @return: An opcode and a length, or C{None} if it's something else.
    """
    size = len(chunk)
    if type(chunk) is bytearray:
        return _BYTEARRAY8 + _LENGTH8.pack(size)
    if type(chunk) is not bytes:
        return None
    if chunk[0] == _FRAME and 0 <= size - 9 - _LENGTH8.unpack_from(chunk, 1)[0] <= 9:
        # It looks like what picklers write of everything else.
        return None
    return _bytesHead(size)


def _bytesHead(size: int) -> bytes:
    """
    Tell what a pickler writes before C{bytes}.

    @param size: How many there are.

    @return: An opcode and a length.
    """
    if size <= 0xFFFFFFFF:
        return _BYTES + _LENGTH.pack(size)
    return _BYTES8 + _LENGTH8.pack(size)


#: Picklers that can be used again. A new one for each call takes longer than most
#: calls take to be pickled.
_idle: list[_Packer] = []


def pack(value: Any) -> bytes | Packed:
    """
    Pickle something.

    @param value: The thing.

    @return: The pickle, with buffers if there's something large.
    """
    try:
        packer = _idle.pop()
    except IndexError:
        packer = _Packer(pickle.Pickler)
    packed = packer.pack(value)
    if type(packed) is bytes and len(packed) <= _MOST_REUSED:
        _idle.append(packer)
    return packed


def packWith(make: Callable[..., pickle.Pickler], value: Any) -> bytes | Packed:
    """
    Pickle something with a pickler of another kind.

    @param make: Makes the pickler.

    @param value: The thing.

    @return: The pickle, with buffers if there's something large.
    """
    return _Packer(make).pack(value)


def restoreView(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """
    Make a view of what was pickled of one.

    @param buffer: The contents.

    @param form: The format of its elements.

    @param shape: Its shape.

    @return: The view.
    """
    view = memoryview(buffer)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if len(shape) != 1 and view.nbytes:
        return view.cast(form, shape)  # type: ignore[call-overload, no-any-return]
    return view if form == "B" else view.cast(form)  # type: ignore[call-overload]


def reduceView(view: memoryview) -> tuple[Any, ...]:
    """
    Tell how to pickle a view, which C{pickle} doesn't know.

    @param view: The view.

    @return: A function that makes such a view, and its arguments.

    @raise TypeError: If views can't be made of elements of its format.
    """
    form = view.format.removeprefix("@")
    if len(form) != 1 or form not in "cbB?hHiIlLqQnNfdP":
        raise TypeError(f"cannot pickle a memoryview of elements {view.format!r}")
    if view.c_contiguous:
        contents = PickleBuffer(view)
    else:
        copied = view.tobytes()
        contents = PickleBuffer(copied if view.readonly else bytearray(copied))
    return restoreView, (contents, form, view.shape)


def withViews(kind: type[pickle.Pickler]) -> type[pickle.Pickler]:
    """
    Make a kind of pickler that can pickle views. They're slower.

    @param kind: What they're like besides.

    @return: Their class.
    """
    known = getattr(kind, "dispatch_table", copyreg.dispatch_table)
    table: Any = ChainMap({memoryview: reduceView}, known)
    return type("ViewPickler", (kind,), {"dispatch_table": table})


#: Pickles what C{pickle} does, and views.
ViewPickler = withViews(pickle.Pickler)
