"""
Frames to and from a child process, any of which may carry large buffers. Those go
through memory files: they're copied in threads, and frames behind them wait, so that
all keep their order.
"""

from __future__ import annotations

import os
import signal
import struct
import threading

# C's own: signal.getsignal makes an enum of what this returns, which takes 0.3 us more.
from _signal import getsignal  # type: ignore[import-not-found]
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorFromThreads,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.buffers import BufferReader, BufferWriter, Incoming
from .._child.pickling import Packed
from .._child.protocol import (
    BUFFERS,
    HEADER,
    READ_BYTES,
    ClaimWriter,
    Decoder,
    Frame,
    FrameError,
    Kind,
)
from .._support.childprocess import withoutSigpipe

#: What has fewer bytes is copied at once: starting a thread takes as long.
_MAX_SYNC_COPY = 1 << 20
#: So many pieces are written at a time; more than any system takes would be an error.
_MAX_PIECES = 64
_CALLS = (Kind.CALL, Kind.CALL | BUFFERS)
#: Kinds of frames for the worker that have no buffers.
_PLAIN_REPLIES = range(Kind.HELLO, BUFFERS)

_T = TypeVar("_T")


@define(eq=False, repr=False)
class CopyThreads:
    """
    Threads that each do one thing that takes long, and end. A full pool, such as the
    reactor's may be, would hold up payloads.
    """

    _reactor: IReactorFromThreads
    _threads: set[threading.Thread] = field(factory=set, init=False)
    _waiters: list[Deferred[None]] = field(factory=list, init=False)

    def run(self, f: Callable[[], _T]) -> Deferred[_T]:
        d: Deferred[_T] = Deferred()

        def target() -> None:
            result: _T | Failure
            try:
                result = f()
            except BaseException:  # noqa: BLE001 - nobody else would hear
                result = Failure()
            self._reactor.callFromThread(self._ended, thread, d, result)

        thread = threading.Thread(target=target, name="asynqueue copy", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # There are as many threads as there may be.
            target()
        return d

    def whenIdle(self) -> Deferred[None]:
        if not self._threads:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._waiters.append(d)
        return d

    def _ended(
        self, thread: threading.Thread, d: Deferred[_T], result: _T | Failure
    ) -> None:
        if thread.ident is not None:
            # Telling so was the last that it had to do.
            thread.join()
        self._threads.discard(thread)
        d.callback(result)
        while self._waiters and not self._threads:
            self._waiters.pop(0).callback(None)


@define(eq=False)
class _Outgoing:
    """A frame that waits to be sent, unless it's revoked."""

    kind: int
    number: int
    payload: bytes | Packed
    isRevoked: bool = False


@implementer(IWriteDescriptor)
@define(eq=False, repr=False)
class FrameSender:
    """
    Sends frames to a child process, through a pipe that is in the reactor, when it's
    full, without a transport around it. While it C{isHeld}, nothing is written, but
    C{pending}: L{doWrite}, which must be called then if anything is, writes it at once.
    """

    # _outgoing has frames while isCopying the first of them; only _sendOutgoing takes
    # from it. pending is what the pipe hasn't taken, for which the reactor _isWaiting.
    # _offered has calls that were sent while frames were held, so that the child can't
    # have them yet. _offer and _revoke are those of the claims; when the process has
    # ended, those of a list of what it never began.

    _fd: int
    _claims: ClaimWriter
    _buffers: BufferWriter
    _threads: CopyThreads
    _unsent: Callable[[int, Exception], object]
    _reactor: IReactorFDSet
    isHeld: bool = field(default=False, init=False)
    isCopying: bool = field(default=False, init=False)
    pending: deque[bytes | memoryview] = field(factory=deque, init=False)
    _outgoing: deque[_Outgoing] = field(factory=deque, init=False)
    _isWaiting: bool = field(default=False, init=False)
    _isOpen: bool = field(default=True, init=False)
    _offered: list[int] = field(factory=list, init=False)
    _offer: Callable[[list[int]], object] = field(init=False)
    _revoke: Callable[[], list[int]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        os.set_blocking(self._fd, False)
        self._offer, self._revoke = self._claims.offer, self._claims.revoke

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "asynqueue"

    def send(self, kind: int, number: int, payload: bytes | Packed) -> None:
        """Send a frame, now as far as the pipe takes it."""
        if self.isCopying or type(payload) is Packed:
            self._outgoing.append(_Outgoing(kind, number, payload))
            if not self.isCopying:
                Deferred.fromCoroutine(self._sendOutgoing())
            return
        if kind in _CALLS:
            self._offered.append(number)
        if self._isOpen:
            data: bytes = payload  # type: ignore[assignment]  # it's no Packed
            head = HEADER.pack(len(data), kind, number)
            self.pending += (head + data,) if len(data) < READ_BYTES else (head, data)
        if not self.isHeld:
            self.doWrite()

    def revoke(self, *, copied: bool = True) -> set[int]:
        """
        Take back all calls that the child hasn't begun, and return their numbers. It
        won't begin them, though it may have them. The one whose buffers are being
        C{copied} may stay.
        """
        if self._offered:
            offered, self._offered = self._offered, []
            self._offer(offered)
        numbers = set(self._revoke())
        for i, frame in enumerate(self._outgoing):
            if frame.kind == Kind.CALL and not frame.isRevoked and (i or copied):
                frame.isRevoked = True
                numbers.add(frame.number)
        return numbers

    def exited(self) -> None:
        self.close()
        unbegun = self._claims.revoke()
        self._claims.close()
        self._offer, self._revoke = unbegun.extend, unbegun.copy

    def giveUp(self) -> None:
        """Copy nothing any longer."""
        for frame in self._outgoing:
            frame.isRevoked = True

    def close(self) -> None:
        """Close the pipe, forgetting what it hasn't taken."""
        if self._isOpen:
            self._isOpen = self._isWaiting = False
            self.pending.clear()
            self._reactor.removeWriter(self)
            os.close(self._fd)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def doWrite(self) -> None:
        # The child must find that it may have a call when it comes to it.
        if self._offered:
            offered, self._offered = self._offered, []
            self._offer(offered)
        pending = self.pending
        # Whether a child that has gone is no more than an error.
        isSafe = getsignal(signal.SIGPIPE) != signal.SIG_DFL
        write: Any
        data: Any
        try:
            while pending:
                if len(pending) == 1:  # which saves 0.4 us of 1.1
                    write, data = os.write, pending[0]
                else:
                    write, data = os.writev, list(islice(pending, _MAX_PIECES))
                if isSafe:
                    written = write(self._fd, data)
                else:
                    written = withoutSigpipe(write, self._fd, data)
                while pending and written >= len(pending[0]):
                    written -= len(pending.popleft())
                if written:
                    pending[0] = memoryview(pending[0])[written:]
        except BlockingIOError:
            pass
        except OSError:
            # The child has gone, which is noticed at its other pipe.
            pending.clear()
        if pending:
            if not self._isWaiting:
                self._isWaiting = True
                self._reactor.addWriter(self)
        elif self._isWaiting:
            self._isWaiting = False
            self._reactor.removeWriter(self)

    async def _sendOutgoing(self) -> None:
        """Send frames, the first of which has buffers, until none waits."""
        self.isCopying = True
        while self._outgoing:
            frame = self._outgoing[0]
            kind, payload = frame.kind, frame.payload
            error: Exception | None = None
            try:
                if isinstance(payload, Packed):
                    kind, payload = kind | BUFFERS, await self._copy(payload, frame)
            except Exception as caught:  # noqa: BLE001 - what is copied is the user's
                error = caught
            self._outgoing.popleft()
            if frame.isRevoked:
                continue
            if error is not None:
                self._unsent(frame.number, error)
            else:
                self.isCopying = False  # of this one
                self.send(kind, frame.number, payload)
                self.isCopying = True
        self.isCopying = False

    async def _copy(self, packed: Packed, frame: _Outgoing) -> bytes:
        """Copy buffers to the memory file, and return the payload of the frame."""
        if packed.size <= _MAX_SYNC_COPY:
            return self._buffers.put(packed)
        put = partial(self._buffers.put, packed, lambda: frame.isRevoked)
        payload = await self._threads.run(put)
        if frame.isRevoked:
            self._buffers.discard(payload)
        return payload


@define(eq=False, repr=False)
class FrameReceiver:
    """Takes frames that come from a child process."""

    # frames are for the worker to take. _incoming has frames while the first of them is
    # being copied; only _readIncoming takes from it, and fires _waiter at the end.
    # _closed is called with an error if something else than frames has come, None at
    # the end.

    _reader: BufferReader
    _threads: CopyThreads
    _received: Callable[[], object] = field(kw_only=True)
    _released: Callable[[memoryview], object] = field(kw_only=True)
    _closed: Callable[[Exception | None], object] = field(kw_only=True)
    frames: deque[tuple[int, int, memoryview | Incoming]] = field(
        factory=deque, init=False
    )
    _decoder: Decoder = field(factory=Decoder, init=False)
    _hasFailed: bool = field(default=False, init=False)
    _incoming: deque[Frame] = field(factory=deque, init=False)
    _waiter: Deferred[None] | None = field(default=None, init=False)

    def whenRead(self) -> Deferred[None]:
        """Wait until all frames are for the worker to take. Only one may wait."""
        if not self._incoming:
            return succeed(None)
        self._waiter = Deferred()
        return self._waiter

    def hasFrame(self, number: int) -> bool:
        return any(frame[1] == number for frame in (*self.frames, *self._incoming))

    def dataReceived(self, data: bytes) -> None:
        """Take what has come through the pipe, empty at its end."""
        if not data:
            self._closed(None)
        if not data or self._hasFailed:
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
            if frame[0] not in _PLAIN_REPLIES:
                self._incoming += frames
                Deferred.fromCoroutine(self._readIncoming())
                return
        if frames:
            self.frames += frames
            self._received()

    async def _readIncoming(self) -> None:
        while self._incoming:
            kind, number, payload = self._incoming[0]
            content: memoryview | Incoming = payload
            try:
                if kind & BUFFERS:
                    content = Incoming(self._reader, payload)
                    if content.copied > _MAX_SYNC_COPY:
                        await self._threads.run(content.read)
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
        if self._waiter is not None:
            self._waiter.callback(None)

    def _fail(self, error: Exception) -> None:
        self._hasFailed = True
        self._closed(error)
