"""
The encoding of values for a connection: plain data, which can't run anything.

A value becomes a main part of tagged pieces, and buffers beside it for large binary
data, which isn't copied. Where both ends allow it, what isn't plain becomes a pickle,
with buffers in the same way.

Nothing here does I/O. What encodes or decodes a large value is for a thread: it never
does much between two chances for the interpreter to go on in another one.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

from .._child.describe import describe, message
from ._decoder import Decoder
from ._encoder import Encoder
from ._plain import PLAIN, NotPlain

__all__ = ["INLINE", "Codec", "NotEncodable", "Payload", "TooLarge"]

#: What is no larger is encoded and decoded at once, in the reactor's thread.
INLINE = 60_000

_PROTOCOL = 5

_PLAIN, _PICKLE = b"P", b"K"

#: Of these, pickles have no advantage.
_AS_PLAIN = frozenset((bytes, bytearray, str, int, float, bool, type(None)))

#: A value as it's sent: pieces end to end.
Payload = list[Any]


class NotEncodable(Exception):
    """
    A value can't be encoded. The message says why, and what helps.
    """


class TooLarge(Exception):
    """
    A value is too large to be encoded at once.
    """


class Codec:
    """
    Encodes and decodes values for one connection.

    @ivar pickles: Whether pickles may be sent, and are accepted.
    """

    def __init__(self, allowed: Iterable[type] = (), pickles: bool = False) -> None:
        """
        Make a codec.

        @param allowed: Classes of which instances may be sent, and are accepted.

        @param pickles: Whether pickles may be sent, and are accepted.
        """
        self.pickles = pickles
        self._allowed = {nameOfClass(kind): kind for kind in allowed}

    def withoutPickles(self) -> Codec:
        """
        Get a codec for a connection whose other end accepts no pickles.

        @return: It.
        """
        return Codec(self._allowed.values()) if self.pickles else self

    def encode(self, value: Any, most: int = INLINE) -> bytes:
        """
        Encode a small value.

        @param value: The value.

        @param most: How many bytes it may become.

        @return: The bytes.

        @raise TooLarge: If it becomes more.

        @raise NotEncodable: If it can't be encoded.
        """
        payload = self._payload(value, most)
        if len(payload) == 1:
            return bytes(payload[0])
        data = b"".join(payload)
        if len(data) > most:
            raise TooLarge
        return data

    def encodeLarge(self, value: Any) -> Payload:
        """
        Encode a value of any size. For a thread.

        @param value: The value. It mustn't be changed until what it has become has been
            sent.

        @return: Bytes and memoryviews end to end.

        @raise NotEncodable: If it can't be encoded.
        """
        return self._payload(value, None)

    def decode(self, data: bytes) -> Any:
        """
        Decode a small value.

        @param data: What it has become.

        @return: The value.

        @raise ValueError: If that is no value, or may not be accepted.
        """
        return self.decodePieces([data])

    def decodePieces(self, pieces: list[bytes]) -> Any:
        """
        Decode a value of any size.

        @param pieces: What it has become, cut anywhere. The list is used up.

        @return: The value.

        @raise ValueError: If that is no value, or may not be accepted.
        """
        source = _Pieces(pieces)
        mode = source.take(1)
        if mode not in (_PLAIN, _PICKLE):
            raise ValueError("not the encoding of a value")
        if mode == _PICKLE and not self.pickles:
            raise ValueError("a pickle, which isn't accepted on this connection")
        count = source.take(1)[0]
        if count == 255:
            count = int.from_bytes(source.take(4), "big")
        if count * 8 > source.left:
            raise ValueError("a value that is cut off")
        sizes = [int.from_bytes(source.take(8), "big") for _ in range(count)]
        main = source.left - sum(sizes)
        if main < 0:
            raise ValueError("a value that is cut off")
        if mode == _PICKLE:
            return self._unpickle(source, main, sizes)
        head = source.take(main)
        buffers = [source.pieces(size) for size in sizes]
        return Decoder(head, buffers, self._allowed).decode()

    def _payload(self, value: Any, most: int | None) -> Payload:
        """
        Encode a value.

        @param value: The value.

        @param most: How many bytes it may become at once, C{None} for any number.

        @return: Pieces end to end.
        """
        if self.pickles and type(value) not in _AS_PLAIN:
            return self._pickle(value, most)
        encoder = Encoder(self._allowed, most)
        try:
            encoder.encode(value)
        except OverflowError:
            raise TooLarge from None
        except NotPlain as error:
            if self.pickles:
                return self._pickle(value, most)
            raise NotEncodable(
                f"{error}. Plain data can be sent ({PLAIN}); instances of classes that"
                " the universe lists in its attribute allowed; and anything that can"
                " be pickled where both ends have pickle=True"
            ) from error.__cause__
        return [_head(_PLAIN, encoder.buffers), *encoder.pieces()]

    def _pickle(self, value: Any, most: int | None) -> Payload:
        """
        Pickle a value.

        @param value: The value.

        @param most: How many bytes it may become at once, C{None} for any number.

        @return: Pieces end to end.
        """
        sink = _Sink(most)
        buffers: list[list[Any]] = []

        def outOfBand(buffer: Any) -> bool:
            view = buffer.raw()
            sink.count(view.nbytes)
            buffers.append([view])
            return False

        try:
            pickle.Pickler(sink, _PROTOCOL, buffer_callback=outOfBand).dump(value)
        except TooLarge:
            raise
        except Exception as error:
            raise NotEncodable(
                f"{describe(value)} can't be pickled: {type(error).__name__}:"
                f" {message(error)}"
            ) from error
        pieces = [piece for buffer in buffers for piece in buffer]
        return [_head(_PICKLE, buffers), *sink.pieces, *pieces]

    def _unpickle(self, source: _Pieces, main: int, sizes: list[int]) -> Any:
        """
        Unpickle a value.

        @param source: The rest of it.

        @param main: The size of the pickle itself.

        @param sizes: The sizes of the buffers beside it.

        @return: The value.
        """
        pickled = source.pieces(main)
        buffers = [_writable(source.pieces(size), size) for size in sizes]
        try:
            return pickle.Unpickler(_PiecesFile(pickled), buffers=buffers).load()
        except Exception as error:
            raise ValueError(
                f"a pickle that can't be loaded: {type(error).__name__}:"
                f" {message(error)}"
            ) from error


def nameOfClass(kind: type) -> str:
    """
    Name a class as both ends do.

    @param kind: The class.

    @return: The name, with that of the module.
    """
    return f"{kind.__module__}.{kind.__qualname__}"


def _head(mode: bytes, buffers: list[list[Any]]) -> bytes:
    """
    Make what goes before a value.

    @param mode: What it is.

    @param buffers: The buffers beside it.

    @return: The head.
    """
    if not buffers:
        return mode + b"\0"
    count = len(buffers)
    number = bytes([count]) if count < 255 else b"\xff" + count.to_bytes(4, "big")
    sizes = [
        sum(memoryview(piece).nbytes for piece in buffer).to_bytes(8, "big")
        for buffer in buffers
    ]
    return b"".join((mode, number, *sizes))


def _writable(pieces: list[bytes], size: int) -> bytearray:
    """
    Put a buffer together so that it can be written to.

    @param pieces: What it's made of.

    @param size: Its size.

    @return: The buffer.
    """
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
    if len(buffer) != size:
        raise ValueError("a value that is cut off")
    return buffer


class _Sink:
    """
    A file that keeps what is written as it is.

    @ivar pieces: What was written.
    """

    def __init__(self, most: int | None) -> None:
        """
        Make a file.

        @param most: How many bytes may be written, C{None} for any number.
        """
        self.pieces: list[Any] = []
        self._left = most

    def write(self, data: Any) -> None:
        """
        Keep something.

        @param data: It.
        """
        # The pickler writes what is large as it is, and reuses nothing of the rest.
        self.count(len(data))
        self.pieces.append(data)

    def count(self, size: int) -> None:
        """
        Count bytes.

        @param size: How many there are.

        @raise TooLarge: If there are more than may be.
        """
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise TooLarge


class _Pieces:
    """
    Bytes in pieces, taken from the beginning.

    @ivar left: How many are left.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        """
        Begin.

        @param pieces: The pieces. The list is used up.
        """
        pieces.reverse()
        self._pieces = pieces
        self.left = sum(map(len, pieces))

    def take(self, size: int) -> bytes:
        """
        Take some bytes.

        @param size: How many.

        @return: The bytes.

        @raise ValueError: If there are fewer.
        """
        taken = self.pieces(size)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def pieces(self, size: int) -> list[bytes]:
        """
        Take some bytes as they come.

        @param size: How many.

        @return: Pieces of them.

        @raise ValueError: If there are fewer.
        """
        if size > self.left:
            raise ValueError("a value that is cut off")
        self.left -= size
        taken: list[bytes] = []
        while size:
            piece = self._pieces.pop()
            if len(piece) > size:
                self._pieces.append(piece[size:])
                piece = piece[:size]
            if piece:
                taken.append(piece)
            size -= len(piece)
        return taken


class _PiecesFile(io.RawIOBase):
    """
    A file of bytes in pieces, for pickles of any size to be loaded from without their
    being put together.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        """
        Make a file.

        @param pieces: The pieces.
        """
        super().__init__()
        pieces.reverse()
        self._pieces = pieces
        self._at = 0

    def readable(self) -> bool:
        """
        Tell that it can be read.

        @return: C{True}.
        """
        return True

    def readinto(self, target: Any) -> int:
        """
        Read as much as there's room for.

        @param target: Where to.

        @return: How many bytes have been read.
        """
        view = memoryview(target).cast("B")
        room, done = len(view), 0
        while done < room and self._pieces:
            piece, at = self._pieces[-1], self._at
            size = min(room - done, len(piece) - at)
            view[done : done + size] = memoryview(piece)[at : at + size]
            done += size
            self._at += size
            if self._at == len(piece):
                self._pieces.pop()
                self._at = 0
        return done

    def read(self, size: int = -1) -> bytes:
        """
        Read.

        @param size: How many bytes.

        @return: The bytes, fewer at the end.
        """
        if not self._pieces:
            return b""
        piece, at = self._pieces[-1], self._at
        if 0 <= size <= len(piece) - at:
            self._at += size
            if self._at == len(piece):
                self._pieces.pop()
                self._at = 0
            return piece[at : at + size]
        buffer = bytearray(self._rest if size < 0 else min(size, self._rest))
        self.readinto(buffer)
        return bytes(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        """
        Read a line.

        @param size: How many bytes at most.

        @return: The line.
        """
        line = bytearray()
        while size is None or size < 0 or len(line) < size:
            byte = self.read(1)
            line += byte
            if not byte or byte == b"\n":
                break
        return bytes(line)

    @property
    def _rest(self) -> int:
        """
        How many bytes are left.
        """
        return sum(map(len, self._pieces)) - self._at
