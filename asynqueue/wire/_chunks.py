"""
Large values on their way: cut into chunks, and put together again.

A stream is a sequence of records. Each declares its kind and its size before its bytes.
Who sends a stream sends no more than the other end has given credit for, so whatever
its size it never fills a buffer of the transport, and other boxes get through.

Nothing here does I/O.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, AnyStr, Generic

__all__ = ["CHUNK", "WINDOW", "ChunkyString", "Incoming", "Outgoing", "Overrun"]

#: So many bytes are in a chunk, at most.
CHUNK = 60_000

#: So many bytes are sent ahead of the credit that comes for them.
WINDOW = 1 << 20

#: Credit is given for so many bytes at a time.
_CREDIT = WINDOW // 4

_HEAD = struct.Struct(">cQ")


class ChunkyString(Generic[AnyStr]):
    """
    Iterates over slices of a large string or of bytes.

    @cvar chunkSize: The size of the slices. The last may be shorter.
    """

    chunkSize = CHUNK

    def __init__(self, bigString: AnyStr) -> None:
        """
        Begin.

        @param bigString: What is to be cut.
        """
        self._string: AnyStr = bigString
        self._at = 0

    def __iter__(self) -> Iterator[AnyStr]:
        """
        Iterate.

        @return: Itself.
        """
        return self

    def __next__(self) -> AnyStr:
        """
        Cut off a slice.

        @return: The slice.

        @raise StopIteration: If nothing is left.
        """
        at = self._at
        if at >= len(self._string):
            raise StopIteration
        self._at = at + self.chunkSize
        part: AnyStr = self._string[at : self._at]
        return part


class Overrun(Exception):
    """
    A peer sends more than it has declared, or than it may.
    """


class Outgoing:
    """
    A stream that is being sent.

    @ivar credit: How many bytes may be sent at the moment.

    @ivar size: How many bytes wait to be sent.
    """

    def __init__(self, credit: int = WINDOW) -> None:
        """
        Begin.

        @param credit: How many bytes may be sent at once.
        """
        self.credit = credit
        self.size = 0
        self._pieces: deque[memoryview] = deque()

    def put(self, kind: bytes, payload: list[Any]) -> None:
        """
        Add a record.

        @param kind: What it is, one byte.

        @param payload: The pieces of its content.
        """
        views = [memoryview(piece).cast("B") for piece in payload if len(piece)]
        size = sum(len(view) for view in views)
        self._pieces.append(memoryview(_HEAD.pack(kind, size)))
        self._pieces.extend(views)
        self.size += _HEAD.size + size

    def take(self) -> bytes:
        """
        Take a chunk that may be sent now.

        @return: The chunk, empty if there's none.
        """
        room = min(CHUNK, self.credit, self.size)
        self.credit -= room
        self.size -= room
        taken = []
        pieces = self._pieces
        while room:
            piece = pieces.popleft()
            if len(piece) > room:
                pieces.appendleft(piece[room:])
                piece = piece[:room]
            taken.append(piece)
            room -= len(piece)
        return b"".join(taken)


class Incoming:
    """
    A stream that is being received.

    @ivar held: How many bytes of a record that isn't whole are kept.
    """

    def __init__(self, largest: int, declared: int | None = None) -> None:
        """
        Begin.

        @param largest: How large a record may be.

        @param declared: How large the one record is said to be that comes. C{None} if
            there may be any number.
        """
        self.held = 0
        self._largest = largest
        self._declared = declared
        self._head = b""
        self._kind = b""
        self._left = 0
        self._pieces: list[bytes] = []
        self._uncredited = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """
        Take a chunk.

        @param data: The chunk.

        @return: An iterator of the records that are whole: their kinds, and the pieces
            of their content.

        @raise Overrun: If one is larger than it may be.
        """
        self._uncredited += len(data)
        at, end = 0, len(data)
        while at < end:
            if not self._kind:
                need = _HEAD.size - len(self._head)
                self._head += data[at : at + need]
                at += need
                if len(self._head) < _HEAD.size:
                    return
                self._begin()
            part = data[at : at + self._left] if at or end > self._left else data
            at += self._left
            self._left -= len(part)
            if part:
                self._pieces.append(part)
                self.held += len(part)
            if not self._left:
                kind, self._kind = self._kind, b""
                pieces, self._pieces = self._pieces, []
                self.held = 0
                yield kind, pieces

    def credit(self) -> int:
        """
        Tell how much credit the other end is to be given.

        @return: How many bytes, 0 for none at the moment.
        """
        if self._uncredited < _CREDIT:
            return 0
        credit, self._uncredited = self._uncredited, 0
        return credit

    def _begin(self) -> None:
        """
        Begin a record.
        """
        self._kind, self._left = _HEAD.unpack(self._head)
        self._head = b""
        if self._left > self._largest:
            raise Overrun(
                f"a value of {self._left} bytes, where {self._largest} are accepted"
            )
        if self._declared is not None and self._left != self._declared:
            raise Overrun(
                f"a value of {self._left} bytes, where {self._declared} were declared"
            )
