"""
Values as bytes for a connection: plain data, and pickles where both ends accept them.

A small value is CBOR that any decoder reads (see L{asynqueue.wire._plain}). A large
one is parts end to end: how many there are, their sizes, then CBOR, then the buffers
that stand beside it. A pickle is a tag of CBOR's.

Encoding is done at once, in the reactor's thread, and copies what can be written to:
so a value is sent as it was when it was given, whatever is done to it later. Decoding
a large value is for a thread; it lets others run every few milliseconds.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen
from cbor2 import dumps
from twisted.internet.defer import Deferred, succeed

from .._child.describe import describe, message
from ..threads._looper import ThreadLooper
from ._decoding import PlainDecoder, weigh
from ._plain import LARGE_BYTES, NotPlain, PlainEncoder, Tag, nameOfClass

__all__ = [
    "INLINE",
    "QUICK",
    "Codec",
    "DecodingThread",
    "Encoded",
    "NotEncodable",
    "Payload",
    "arrayOf",
]

#: A value of no more bytes goes into the box of its call or answer.
INLINE = 60_000

#: A value of no more bytes is decoded in the reactor's thread: in a few milliseconds,
#: whatever it is.
QUICK = 16_000

#: Bytes of memory that a value may take besides so many times its own: rows of a table
#: take 12 to 20 times as much as their CBOR.
_GROWTH_BYTES, _GROWTH_FACTOR = 128 << 20, 16

_PROTOCOL = 5

#: Values that are small, but for huge integers.
_SCALARS = frozenset((int, float, bool, type(None)))

#: Pickles have no advantage for these.
_AS_PLAIN = _SCALARS | {bytes, bytearray, str}

#: The CBOR of a pickle: what's before its size in two bytes, and of one that is among
#: the buffers.
_PICKLE_HEAD = b"\xd9" + Tag.PICKLE.to_bytes(2, "big")
_PICKLE_SMALL, _PICKLE_BESIDE = _PICKLE_HEAD + b"\x59", _PICKLE_HEAD + b"\xf6"

_PLAIN_DATA = (
    "None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,"
    " frozenset, range, slice, date, time, datetime, timedelta, Decimal, Fraction,"
    " UUID, and arrays and numbers of numpy's"
)


class NotEncodable(Exception):
    """
    A value can't be encoded. The message says why, and what helps.
    """


@frozen
class Payload:
    """
    A large value as it's sent.

    @ivar size: The number of bytes.

    @ivar pieces: The bytes, end to end. None can be written to.
    """

    size: int
    pieces: list[Any]


@frozen
class Encoded:
    """
    A value that has been encoded, where results and items are expected.
    """

    data: bytes | Payload


class Codec:
    """
    Encodes and decodes values for one connection.

    @ivar pickles: Whether pickles are sent and accepted.
    """

    def __init__(self, allowed: Iterable[type] = (), pickles: bool = False) -> None:
        """@param allowed: Classes of which instances may be sent, and are accepted."""
        self.pickles = pickles
        self._allowed = {nameOfClass(kind): kind for kind in allowed}
        self._encoder = PlainEncoder(self._allowed)
        self._decoder = self._makeDecoder()

    def copy(self) -> Codec:
        """Get a codec like this one, for another thread."""
        return Codec(self._allowed.values(), self.pickles)

    def withoutPickles(self) -> Codec:
        """Get a codec for a connection whose other end accepts no pickles."""
        return Codec(self._allowed.values()) if self.pickles else self

    def encode(self, value: Any, most: int | None = None) -> bytes | Payload:
        """
        Encode a value. Not for use in several threads at once.

        @param most: How many bytes it may become.

        @raise NotEncodable: If it can't be encoded, or becomes more.
        """
        if type(value) in _SCALARS and len(data := dumps(value)) < 10:
            return data  # as below would be, but saves 2 of 120 microseconds
        sink = _PieceWriter(most)
        if self.pickles and type(value) not in _AS_PLAIN:
            return self._pickle(value, sink)
        try:
            self._encoder.encode(sink, value)
        except NotPlain as error:
            if self.pickles:
                return self._pickle(value, _PieceWriter(most))
            raise NotEncodable(
                f"{error}. Plain data can be sent ({_PLAIN_DATA}); instances of classes"
                " that the universe lists in its attribute allowed; and anything that"
                " can be pickled where both ends have pickle=True"
            ) from error.__cause__
        buffers = self._encoder.buffers
        if not buffers and sink.size <= INLINE:
            return b"".join(sink.pieces)
        return _payload([sink.pieces, *([buffer] for buffer in buffers)], most)

    def decode(self, data: bytes) -> Any:
        """
        Decode a small value. Not for use in several threads at once.

        @raise ValueError: If it's no value, or may not be accepted.
        """
        # A pickle's own bytes, past its tag and size: saves 3 of some 130 microseconds
        # that a call takes.
        if self.pickles and data[:4] == _PICKLE_SMALL:
            return _loads(data[6:])
        return self._decoder.decode(io.BytesIO(data), [])

    def decodePieces(self, pieces: list[bytes]) -> Any:
        """
        Decode a large value, for which any thread may be used.

        @param pieces: The bytes, cut anywhere. The list is used up.

        @raise ValueError: If it's no value, or may not be accepted.
        """
        source = _Pieces(pieces)
        (count,) = struct.unpack(">I", source.take(4))
        if not 0 < 8 * count <= source.left:
            raise ValueError("a value that is cut off")
        sizes = struct.unpack(f">{count}Q", source.take(8 * count))
        if sum(sizes) != source.left:
            raise ValueError("a value of another size than it says")
        main, *buffers = [source.pieces(size) for size in sizes]
        cbor = b"".join(main)
        limit = _GROWTH_BYTES + _GROWTH_FACTOR * len(cbor)
        if weigh(cbor, limit) > limit:
            raise ValueError(
                f"{len(cbor)} bytes that would become more than {limit} in memory"
            )
        return self._makeDecoder().decode(_Yielding(cbor), buffers)

    def _makeDecoder(self) -> PlainDecoder:
        return PlainDecoder(self._allowed, self._unpickle)

    def _pickle(self, value: Any, sink: _PieceWriter) -> bytes | Payload:
        buffers: list[list[Any]] = []

        def inBand(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < LARGE_BYTES:
                return True
            sink.count(view.nbytes)
            buffers.append([view if view.readonly else bytes(view)])
            return False

        try:
            pickle.Pickler(sink, _PROTOCOL, buffer_callback=inBand).dump(value)
        except NotEncodable:
            raise
        except Exception as error:
            raise NotEncodable(
                f"{describe(value)} can't be pickled: {type(error).__name__}:"
                f" {message(error)}"
            ) from error
        if buffers or sink.size + 6 > INLINE:
            return _payload([[_PICKLE_BESIDE], sink.pieces, *buffers], None)
        size = sink.size.to_bytes(2, "big")
        return b"".join((_PICKLE_SMALL, size, *sink.pieces))

    def _unpickle(self, data: bytes | None, buffers: list[list[bytes]]) -> Any:
        if not self.pickles:
            raise ValueError("a pickle, which isn't accepted on this connection")
        if data is not None:
            return _loads(data)
        beside = (_joinWritable(pieces) for pieces in buffers[1:])
        source = io.BufferedReader(_PiecesFile(buffers[0]), LARGE_BYTES)
        return pickle.Unpickler(source, buffers=beside).load()


class DecodingThread:
    """
    Decodes values, large ones in a thread of its own, which is started for the first.

    It's not of the reactor's pool: all threads of that may be waiting for the value.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._looper: ThreadLooper | None = None

    async def decode(self, codec: Codec, data: bytes) -> Any:
        """Decode what came in a box, at once if that's quick."""
        if len(data) <= QUICK:
            return codec.decode(data)
        return await self._inThread(codec.copy().decode, data)

    def decodeLarge(self, codec: Codec, pieces: list[bytes]) -> Deferred[Any]:
        return self._inThread(codec.decodePieces, pieces)

    def stop(self) -> Deferred[None]:
        looper, self._looper = self._looper, None
        return succeed(None) if looper is None else looper.stop()

    def _inThread(self, f: Callable[[Any], Any], data: Any) -> Deferred[Any]:
        if self._looper is None:
            self._looper = ThreadLooper(True, reactor=self._reactor)
        return self._looper.deferToThread(f, data)


def arrayOf(values: list[bytes]) -> bytes:
    """Make one value, a list, of small ones that have been encoded."""
    return b"".join((b"\x99", len(values).to_bytes(2, "big"), *values))


def _loads(data: bytes) -> Any:
    """@raise ValueError: If it can't be loaded."""
    try:
        return pickle.loads(data)
    except Exception as error:
        # It may have code of anybody's.
        raise ValueError(
            f"a pickle that can't be loaded: {type(error).__name__}: {message(error)}"
        ) from error


def _payload(parts: list[list[Any]], most: int | None) -> Payload:
    """Put parts end to end, with what tells them apart before them."""
    sizes = [sum(len(memoryview(piece).cast("B")) for piece in part) for part in parts]
    head = struct.pack(f">I{len(sizes)}Q", len(sizes), *sizes)
    size = len(head) + sum(sizes)
    if most is not None and size > most:
        raise _tooLarge(most)
    return Payload(size, [head, *(piece for part in parts for piece in part)])


def _tooLarge(most: int) -> NotEncodable:
    return NotEncodable(
        f"It has more than the {most} bytes that may be sent (largest=)"
    )


def _joinWritable(pieces: list[bytes]) -> bytearray:
    """Join pieces so that other threads may run in between."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
    return buffer


class _PieceWriter:
    """
    A file that keeps what is written as it is.
    """

    __slots__ = ("_most", "pieces", "size")

    def __init__(self, most: int | None) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        # Pickles of large bytes come as these bytes, but so do bytearrays.
        self.pieces.append(data if type(data) is bytes else bytes(data))
        self.count(len(data))
        return len(data)

    def count(self, size: int) -> None:
        """@raise NotEncodable: If it's too many bytes now."""
        self.size += size
        if self._most is not None and self.size > self._most:
            raise _tooLarge(self._most)


class _Yielding(io.BytesIO):
    """
    A file at each reading of which other threads may run.
    """

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size)  # from Python, where the interpreter switches


class _Pieces:
    """
    Bytes in pieces, taken from the beginning.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        pieces.reverse()
        self._pieces = pieces
        self.left = sum(map(len, pieces))

    def take(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> list[bytes]:
        """@raise ValueError: If there are fewer bytes."""
        if size > self.left:
            raise ValueError("a value that is cut off")
        self.left -= size
        taken: list[bytes] = []
        while size:
            piece = self._pieces.pop()
            if len(piece) > size:
                self._pieces.append(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return taken


class _PiecesFile(io.RawIOBase):
    """
    A file of bytes in pieces, so that pickles are loaded without joining them.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = [memoryview(piece) for piece in reversed(pieces)]

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop()
        size = min(len(target), len(piece))
        target[:size] = piece[:size]
        if size < len(piece):
            self._pieces.append(piece[size:])
        return size
