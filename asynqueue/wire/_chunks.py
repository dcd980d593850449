"""
Large values on their way in chunks, and their decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, AnyStr, Generic

from twisted.internet.defer import Deferred, succeed

from ..threads._looper import ThreadLooper
from ._values import QUICK, Codec, Payload

__all__ = [
    "WINDOW",
    "ChunkyString",
    "DecodingThread",
    "Incoming",
    "Outgoing",
    "Violation",
    "numberOf",
]

#: Bytes in a chunk, at most.
CHUNK_SIZE = 60_000

#: Bytes that are sent ahead of being received, and how many more are asked for at once.
WINDOW = 1 << 20
_CREDIT_STEP = WINDOW // 4


class Violation(ValueError):
    """
    A peer breaks the protocol. It's disconnected.
    """


def numberOf(digits: bytes) -> int:
    """
    @raise Violation: If it's no number, or beyond all measure.
    """
    if not digits.isdigit() or len(digits) > 15:
        raise Violation("a number that is none")
    return int(digits)


class ChunkyString(Generic[AnyStr]):
    """
    Iterates over slices of a large string or of bytes.

    @cvar chunkSize: The size of the slices. The last may be shorter.
    """

    chunkSize = 1 << 15

    def __init__(self, bigString: AnyStr) -> None:
        """
        @param bigString: What is to be cut.
        """
        self._string: AnyStr = bigString
        self._at = 0

    def __iter__(self) -> Iterator[AnyStr]:
        return self

    def __next__(self) -> AnyStr:
        at = self._at
        if at >= len(self._string) and at:
            raise StopIteration
        self._at = at + self.chunkSize
        part: AnyStr = self._string[at : self._at]
        return part


class Outgoing:
    """
    A large value that's being sent.
    """

    def __init__(self, payload: Payload, done: Deferred[None]) -> None:
        self.left = payload.size
        self.credit = 0
        self.done = done
        self._pieces = deque(memoryview(piece).cast("B") for piece in payload.pieces)

    def take(self) -> bytes:
        """Take a chunk that may be sent now."""
        room = min(CHUNK_SIZE, self.credit, self.left)
        self.credit -= room
        self.left -= room
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
    A large value that's being received.
    """

    def __init__(self, size: int, done: Deferred[list[bytes]]) -> None:
        self.left = size
        self.done = done
        self._pieces: list[bytes] = []
        # Bytes that the peer may send, and those that it may be allowed to later.
        self._credit = 0
        self._ungranted = size

    def take(self, data: bytes) -> None:
        self.left -= len(data)
        self._credit -= len(data)
        if self._credit < 0:
            raise Violation("more of a value than it may send")
        self._pieces.append(data)
        if not self.left:
            self.done.callback(self._pieces)

    def grant(self) -> int:
        """Tell how many more bytes to ask for now, 0 for none yet."""
        more = min(WINDOW - self._credit, self._ungranted)
        if more < min(_CREDIT_STEP, self._ungranted):
            return 0
        self._credit += more
        self._ungranted -= more
        return more


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
