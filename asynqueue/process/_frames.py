"""
Frames to and from a child process, any of which may carry large buffers. Those go
through memory files: they're copied in threads, and frames behind them wait, so that
all keep their order.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from functools import partial

from attrs import define
from twisted.internet.defer import Deferred

from .._child.buffers import BufferReader, BufferWriter, Incoming
from .._child.pickling import Packed
from .._child.protocol import (
    BUFFERS,
    ClaimWriter,
    Decoder,
    Frame,
    FrameError,
    Kind,
)
from ._copying import CopyThreads
from ._pipes import PipeWriter

__all__ = ["FrameReceiver", "FrameSender"]

#: What has fewer bytes is copied at once: starting a thread takes as long.
_MAX_SYNC_COPY = 1 << 20


@define(eq=False)
class _Outgoing:
    """A frame that waits to be sent, unless it's revoked."""

    kind: int
    number: int
    payload: bytes | Packed
    isRevoked: bool = False


class FrameSender:
    """
    Sends frames to a child process.

    @ivar writer: The pipe. Holding it, to send frames all at once, must be ended by
        L{flush}.
    """

    # _outgoing has frames while the first of them is being copied; only _sendOutgoing
    # takes from it. _offered has calls that were sent while the writer was held, so
    # that the child can't have them yet. When the process _hasExited, _unbegun has
    # those that it never began.

    def __init__(
        self,
        writer: PipeWriter,
        claims: ClaimWriter,
        buffers: BufferWriter,
        threads: CopyThreads,
        unsent: Callable[[int, Exception], object],
    ) -> None:
        """
        @param unsent: Called with the number of a call whose buffers can't be sent, and
            why.
        """
        self.writer = writer
        self._claims = claims
        self._buffers = buffers
        self._threads = threads
        self._unsent = unsent
        self._outgoing: deque[_Outgoing] = deque()
        self._offered: list[int] = []
        self._hasExited = False
        self._unbegun: list[int] = []

    @property
    def isCopying(self) -> bool:
        """Whether frames wait until buffers have been copied."""
        return bool(self._outgoing)

    def send(self, kind: int, number: int, payload: bytes | Packed) -> None:
        """Send a frame."""
        if self._outgoing or type(payload) is Packed:
            self._outgoing.append(_Outgoing(kind, number, payload))
            if len(self._outgoing) == 1:
                Deferred.fromCoroutine(self._sendOutgoing())
            return
        if kind == Kind.CALL:
            self._offered.append(number)
            if not self.writer.isHeld:
                self._offer()
        self.writer.send(kind, number, payload)  # type: ignore[arg-type]  # bytes

    def flush(self) -> None:
        """Send what was held."""
        # The child must find that it may have a call when it comes to it.
        if self._offered:
            self._offer()
        self.writer.flush()

    def revoke(self, *, copied: bool = True) -> set[int]:
        """
        Take back all calls that the child hasn't begun. It won't, though it may have
        them.

        @param copied: Whether also the one whose buffers are being copied.

        @return: Their numbers.
        """
        if self._offered:
            self._offer()
        numbers = set(self._unbegun if self._hasExited else self._claims.revoke())
        for i, frame in enumerate(self._outgoing):
            if frame.kind == Kind.CALL and not frame.isRevoked and (i or copied):
                frame.isRevoked = True
                numbers.add(frame.number)
        return numbers

    def exited(self) -> None:
        """Note that the process has ended."""
        self.writer.close()
        self._hasExited = True
        self._unbegun = self._claims.revoke()
        self._claims.close()

    def giveUp(self) -> None:
        """Copy nothing any longer."""
        for frame in self._outgoing:
            frame.isRevoked = True

    def _offer(self) -> None:
        """Let the child have the calls that were sent."""
        offered, self._offered = self._offered, []
        if self._hasExited:
            self._unbegun += offered
        else:
            self._claims.offer(offered)

    async def _sendOutgoing(self) -> None:
        """Send frames, the first of which has buffers, until none waits."""
        while self._outgoing:
            frame = self._outgoing[0]
            kind, payload = frame.kind, frame.payload
            error: Exception | None = None
            try:
                if isinstance(payload, Packed):
                    kind, payload = kind | BUFFERS, await self._put(payload, frame)
            except Exception as caught:  # noqa: BLE001 - what is copied is the user's
                error = caught
            self._outgoing.popleft()
            if frame.isRevoked:
                continue
            if error is not None:
                self._unsent(frame.number, error)
                continue
            if frame.kind == Kind.CALL:
                self._offered.append(frame.number)
                self._offer()
            self.writer.send(kind, frame.number, payload)  # type: ignore[arg-type]

    async def _put(self, packed: Packed, frame: _Outgoing) -> bytes:
        """Copy buffers to the memory file, and return the payload of the frame."""
        if packed.size <= _MAX_SYNC_COPY:
            return self._buffers.put(packed)
        put = partial(self._buffers.put, packed, lambda: frame.isRevoked)
        payload = await self._threads.run(put)
        if frame.isRevoked:
            self._buffers.discard(payload)
        return payload


class FrameReceiver:
    """
    Takes frames that come from a child process.

    @ivar frames: What has come, to be taken by the worker: kind, number of the call,
        and the payload, an L{Incoming} if it has buffers.
    """

    # _incoming has frames while the first of them is being copied; only _readIncoming
    # takes from it.

    def __init__(
        self,
        reader: BufferReader,
        threads: CopyThreads,
        *,
        received: Callable[[], object],
        released: Callable[[memoryview], object],
        read: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """
        @param received: Called when there are L{frames}.

        @param released: Called with what the child doesn't need any longer.

        @param read: Called when nothing is being copied any longer.

        @param failed: Called with an error if something else than frames has come:
            nothing can be made of what comes after that.
        """
        self.frames: deque[tuple[int, int, memoryview | Incoming]] = deque()
        self._reader = reader
        self._threads = threads
        self._received = received
        self._released = released
        self._read = read
        self._failed = failed
        self._decoder = Decoder()
        self._hasFailed = False
        self._incoming: deque[Frame] = deque()

    @property
    def isCopying(self) -> bool:
        """
        Whether there's more than L{frames}, which waits until buffers have been copied.
        """
        return bool(self._incoming)

    def hasFrame(self, number: int) -> bool:
        """Tell whether a frame of a call has come that isn't taken yet."""
        return any(frame[1] == number for frame in (*self.frames, *self._incoming))

    def dataReceived(self, data: bytes) -> None:
        """Take what has come through the pipe."""
        if self._hasFailed:
            return
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self._fail(error)
            return
        if self._incoming:
            self._incoming += frames
            return
        for frame in frames:
            if not Kind.HELLO <= frame[0] < BUFFERS:
                self._incoming += frames
                Deferred.fromCoroutine(self._readIncoming())
                return
        if frames:
            self.frames += frames
            self._received()

    async def _readIncoming(self) -> None:
        """Read frames, one of which has buffers or is for us, until none waits."""
        while self._incoming:
            kind, number, payload = self._incoming[0]
            content: memoryview | Incoming = payload
            try:
                if kind & BUFFERS:
                    content = Incoming(self._reader, payload)
                    if content.copied > _MAX_SYNC_COPY:
                        await self._threads.run(content.read)
                    else:
                        content.read()
                elif kind == Kind.RELEASE:
                    self._released(payload)
                elif kind < Kind.HELLO:
                    raise FrameError(f"No child sends a frame of kind {kind}")
            except (FrameError, KeyError, struct.error) as error:
                self._fail(error)
                self._incoming.clear()
                break
            self._incoming.popleft()
            if kind != Kind.RELEASE:
                self.frames.append((kind & ~BUFFERS, number, content))
                self._received()
        self._read()

    def _fail(self, error: Exception) -> None:
        self._hasFailed = True
        self._failed(error)
