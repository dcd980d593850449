"""
Values as bytes for a connection: plain data, and pickles where both ends accept them.
Exceptions are names, plain arguments and text, never pickles.

A small value is CBOR that any decoder reads (see L{asynqueue.wire._plain}). A large
one is parts end to end: how many there are, their sizes, then CBOR, then the buffers
that stand beside it. A pickle is a tag of CBOR's.

Encoding is done at once, in the reactor's thread, and copies what can be written to:
so a value is sent as it was when it was given, whatever is done to it later. Decoding
a large value is for a thread; it lets others run every few milliseconds.
"""

from __future__ import annotations

import builtins
import io
import pickle
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from cbor2 import dumps
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from .._child import exceptions
from .._child.describe import describe, errorText, message
from .._child.pickling import PROTOCOL
from .._child.status import ErrorText
from ..errors import RemoteTraceback, SerializationError, WorkerError
from ..threads._looper import ThreadLooper
from ._commands import Tag, checkGrowth
from ._plain import (
    LARGE_BYTES,
    Buffers,
    NotPlain,
    PlainDecoder,
    PlainEncoder,
    joined,
    nameOfClass,
)

#: A value of no more bytes goes into the box of its call or answer.
INLINE = 60_000

#: A value of no more bytes is decoded in the reactor's thread: in a few milliseconds,
#: whatever it is.
QUICK = 16_000

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

#: Characters that are brought over of the text of an exception, and of a note.
_MAX_TEXT, _MAX_NOTE = 8_000, 1_000

#: Bytes that the arguments and attributes of an exception may become.
_MAX_PARTS = 6_000

#: Exceptions of a chain, and notes of each, that are brought over.
_MAX_CAUSES, _MAX_NOTES = 5, 5

#: This package's own errors, which come as what they are.
_OWN = {"SerializationError": SerializationError, "WorkerError": WorkerError}


class NotEncodable(Exception):
    """A value can't be encoded. The message says why, and what helps."""


@frozen
class Payload:
    """A large value as it's sent: its bytes, end to end. None can be written to."""

    size: int
    pieces: list[bytes | memoryview]


@frozen
class Encoded:
    """A value that has been encoded, where results and items are expected."""

    data: bytes | Payload


class Codec:
    """Encodes and decodes values for one connection, in one thread at a time."""

    def __init__(self, allowed: Iterable[type] = (), pickles: bool = False) -> None:
        self.pickles = pickles  # whether they're sent and accepted
        # Classes of which instances may be sent, and are accepted.
        self._allowed = {nameOfClass(kind): kind for kind in allowed}
        self._encoder = PlainEncoder(self._allowed)
        self._decoder = PlainDecoder(self._allowed, self._unpickle)

    def copy(self) -> Codec:
        """Get a codec like this one, for another thread."""
        return Codec(self._allowed.values(), self.pickles)

    def withoutPickles(self) -> Codec:
        """Get a codec for a connection whose other end accepts no pickles."""
        return Codec(self._allowed.values()) if self.pickles else self

    def encode(self, value: object, most: int | None = None) -> bytes | Payload:
        """@raise NotEncodable: If it can't be encoded, or becomes too many bytes."""
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
        return sink.payload(sink.pieces, *([buffer] for buffer in buffers))

    def decode(self, data: bytes) -> Any:
        """@raise ValueError: If it's no small value, or may not be accepted."""
        # Past tag and size, without CBOR: saves 3 of 130 microseconds of a call.
        if self.pickles and data[:4] == _PICKLE_SMALL:
            return self._unpickle(data[6:], [])
        return self._decoder.decode(io.BytesIO(data), [])

    def decodePieces(self, pieces: list[bytes]) -> Any:
        """Decode a large value, whose bytes are cut anywhere, as L{decode} does."""
        source = Pieces(pieces)
        (count,) = struct.unpack(">I", b"".join(source.take(4)))
        if not 0 < 8 * count <= source.left:
            raise ValueError("a value that is cut off")
        sizes = struct.unpack(f">{count}Q", b"".join(source.take(8 * count)))
        if sum(sizes) != source.left:
            raise ValueError("a value of another size than it says")
        main, *buffers = [source.take(size) for size in sizes]
        cbor = b"".join(main)
        checkGrowth(cbor)
        return self._decoder.decode(_YieldingFile(cbor), buffers)

    def _pickle(self, value: object, sink: _PieceWriter) -> bytes | Payload:
        buffers: list[list[bytes | memoryview]] = []

        def inBand(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < LARGE_BYTES:
                return True
            sink.count(view.nbytes)
            buffers.append([view if view.readonly else bytes(view)])
            return False

        try:
            pickle.Pickler(sink, PROTOCOL, buffer_callback=inBand).dump(value)
        except NotEncodable:
            raise
        except Exception as error:
            raise NotEncodable(
                f"{describe(value)} can't be pickled: {type(error).__name__}:"
                f" {message(error)}"
            ) from error
        if buffers or sink.size + 6 > INLINE:
            return sink.payload([_PICKLE_BESIDE], sink.pieces, *buffers)
        size = sink.size.to_bytes(2, "big")
        return b"".join((_PICKLE_SMALL, size, *sink.pieces))

    def _unpickle(self, data: bytes | None, buffers: Buffers) -> object:
        if not self.pickles:
            raise ValueError("a pickle, which isn't accepted on this connection")
        try:
            if data is not None:
                return pickle.loads(data)
            source = io.BufferedReader(Pieces(buffers[0]), LARGE_BYTES)
            return pickle.Unpickler(source, buffers=map(joined, buffers[1:])).load()
        except Exception as error:
            # It may have code of anybody's.
            why = f"{type(error).__name__}: {message(error)}"
            raise ValueError(f"a pickle that can't be loaded: {why}") from error


class DecodingThread:
    """
    Decodes values, large ones in a thread of its own, which is started for the first.
    It's not of the reactor's pool: all threads of that may be waiting for the value.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._looper: ThreadLooper | None = None

    async def decode(self, codec: Codec, data: bytes) -> object:
        """Decode what came in a box, at once if that's quick."""
        if len(data) <= QUICK:
            return codec.decode(data)
        return await self._inThread(codec.copy().decode, data)

    def decodeLarge(self, codec: Codec, pieces: list[bytes]) -> Deferred[object]:
        return self._inThread(codec.copy().decodePieces, pieces)

    def stop(self) -> Deferred[None]:
        looper, self._looper = self._looper, None
        return succeed(None) if looper is None else looper.stop()

    def _inThread(self, f: Callable[..., object], data: object) -> Deferred[object]:
        if self._looper is None:
            self._looper = ThreadLooper(True, reactor=self._reactor)
        return self._looper.deferToThread(f, data)


class _YieldingFile(io.BytesIO):
    """A file at each reading of which other threads may run."""

    # cbor2 reads ahead in what can seek: with Pieces, it takes 3.5 times as long.
    def read(self, size: int | None = -1) -> bytes:
        return super().read(size)  # from Python, where the interpreter switches


class _PieceWriter:
    """A file that keeps what is written as it is, of so many bytes at most."""

    def __init__(self, most: int | None) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._most = most

    def writable(self) -> bool:
        return True  # cbor2 asks

    def write(self, data: bytes | bytearray) -> int:
        # Pickles of large bytes come as these bytes, but so do bytearrays.
        self.pieces.append(data if type(data) is bytes else bytes(data))
        self.count(len(data))
        return len(data)

    def count(self, size: int) -> None:
        """@raise NotEncodable: If it's too many bytes now."""
        self.size += size
        if self._most is not None and self.size > self._most:
            raise NotEncodable(
                f"It has more than the {self._most} bytes that may be sent (largest=)"
            )

    def payload(self, *parts: Sequence[bytes | memoryview]) -> Payload:
        """Put parts end to end, with what tells them apart before them."""
        sizes = [sum(memoryview(piece).nbytes for piece in part) for part in parts]
        head = struct.pack(f">I{len(sizes)}Q", len(sizes), *sizes)
        self.count(len(head) + sum(sizes) - self.size)
        return Payload(self.size, [head, *(piece for part in parts for piece in part)])


class Pieces(io.RawIOBase):
    """A file of bytes in pieces, which are taken from its beginning as they are."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        super().__init__()
        self._pieces = deque(memoryview(piece).cast("B") for piece in pieces)
        self.left = sum(map(len, self._pieces))  # bytes that haven't been taken

    def take(self, size: int) -> list[memoryview]:
        """@raise ValueError: If there are fewer bytes."""
        if size > self.left:
            raise ValueError("a value that is cut off")
        self.left -= size
        taken: list[memoryview] = []
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return taken

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._pieces:
            return 0
        [piece] = self.take(min(len(target), len(self._pieces[0])))
        target[: len(piece)] = piece
        return len(piece)


#: Classes that are made again besides those that a universe lists.
_BUILTIN: dict[str, type] = {
    nameOfClass(kind): kind for kind in vars(builtins).values() if type(kind) is type
}

#: For what an exception is made of, but for its arguments and attributes.
_plain = Codec()


def dumpsError(codec: Codec, error: BaseException, call: str) -> bytes:
    """Encode an exception that a call has raised, so that it fits into a box."""
    text = exceptions.cut(errorText(error, call), _MAX_TEXT)
    chain: list[list[object]] = []
    try:
        for relation, link in exceptions.causes(error, _MAX_CAUSES):
            chain.append([relation, nameOfClass(type(link)), *_partsOf(codec, link)])
    except Exception:  # noqa: BLE001 - runs code of the exception
        chain = []
    for links in (chain, chain[:1]):
        data = _plain.encode([text, links])
        if isinstance(data, bytes):
            return data
    return dumpsText("", text)


def dumpsText(name: str, text: str) -> bytes:
    """Encode an error of this package's, by the name of its class."""
    data = _plain.encode([exceptions.cut(text, _MAX_TEXT), [["", name, None, []]]])
    assert isinstance(data, bytes)
    return data


def loadsError(
    codec: Codec, data: bytes, kinds: Iterable[type[Exception]]
) -> ErrorText:
    """
    Make an exception again if it's one of Python's own or of those that are given, else
    a L{WorkerError} with the whole text. Give the text, which carries it. Its cause is
    the traceback at the other end, whose own cause is what it has come from there.
    What is no exception is a ValueError.
    """
    value = _plain.decode(data)
    try:
        text, chain = value
        if not isinstance(text, str):
            raise ValueError("an exception without a text")
        own = _OWN.get(chain[0][1]) if chain else None
        if own is not None:
            return ErrorText(text, own(text))
        known = _BUILTIN | {nameOfClass(kind): kind for kind in kinds}
        links = [(link[0], _make(codec, known, *link[1:])) for link in chain]
    except (IndexError, TypeError) as error:
        raise ValueError(f"an exception that is none: {error}") from error
    exception = links[0][1] if links else None
    if exception is None:
        exception = WorkerError(text)
    exceptions.linkCauses(exception, RemoteTraceback(text), links[1:])
    return ErrorText(text, exception)


def _partsOf(codec: Codec, error: BaseException) -> tuple[bytes | None, list[str]]:
    """Encode arguments and attributes, if they can be, and give the notes."""
    _, args, state, slots = exceptions.takeApart(error)
    notes = state.pop("__notes__", None)
    notes = notes[:_MAX_NOTES] if isinstance(notes, (list, tuple)) else []
    texts = [exceptions.cut(note, _MAX_NOTE) for note in notes if isinstance(note, str)]
    for parts in ((args, state, slots), (args, {}, {})):
        with suppress(NotEncodable):
            data = codec.encode(parts, _MAX_PARTS)
            if isinstance(data, bytes):
                return data, texts
    return None, texts


def _make(
    codec: Codec,
    known: dict[str, type],
    name: str,
    parts: bytes | None,
    notes: list[str],
) -> Exception | None:
    """Make an exception again, without code of its class, if it may be made."""
    kind = known.get(name)
    if kind is None or not issubclass(kind, Exception) or parts is None:
        return None
    try:
        error = exceptions.rebuild((kind, *codec.decode(parts)))
        if notes:
            error.__dict__["__notes__"] = [note for note in notes if type(note) is str]
    except Exception:  # noqa: BLE001 - arguments may be anything
        return None
    if not isinstance(error, Exception) or exceptions.endsIteration(error):
        return None
    return error
