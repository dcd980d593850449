"""
A child process as its worker talks to it.
"""

from __future__ import annotations

import os
import signal
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import Attribute

from .._child import protocol
from .._child.buffers import BufferReader, BufferWriter, Incoming
from .._child.memfd import openMemoryFile
from .._child.pickling import Packed
from .._child.protocol import (
    BUFFERS,
    ChildFD,
    ClaimWriter,
    Decoder,
    Frame,
    FrameError,
    Kind,
)
from .._support.childprocess import ChildProcess, IProcessReactor
from .._support.exitstatus import ExitStatus
from .._support.interpreter import interpreterCommand
from .._support.log import log
from .._support.oneshot import OneShot
from .._support.output import OutputLog
from ._copying import CopyThreads
from ._pipes import PipeReader, PipeWriter

__all__ = ["IReactorChild", "Transport"]

#: Seconds that a child has to end after a signal that it may handle.
_TERM_GRACE_SECONDS = 0.5

#: Seconds that a child has to end after it has closed its pipe.
_EXIT_GRACE_SECONDS = 0.02

#: What has fewer bytes is copied at once: starting a thread takes as long.
_MAX_SYNC_COPY = 1 << 20

#: The same for files that are closed.
_MAX_SYNC_CLOSE = 1 << 24

#: What our end of the pipe of claims, to which only we write, is called.
_OFFERS = -1

#: The program that the child runs.
_PROGRAM = os.path.join(os.path.dirname(protocol.__file__), "child.py")


class IReactorChild(IProcessReactor, IReactorFromThreads):
    """
    What is needed of a reactor to have a child process.
    """

    running: bool = Attribute("See C{IReactorCore}.")

    def callWhenRunning(
        callable: Callable[..., object],  # noqa: A002 - as in IReactorCore
        *args: object,
        **kwargs: object,
    ) -> object:
        """
        See C{IReactorCore}.
        """


@define(eq=False)
class _Outgoing:
    """
    A frame that waits to be sent, unless it's revoked.
    """

    kind: int
    number: int
    payload: bytes | Packed
    isRevoked: bool = False


class Transport:
    """
    Sends frames to a child process, and takes those that come from it. Any frame may
    carry large buffers, which go through memory files: they're copied in threads, and
    frames behind them wait, so that all keep their order.

    @ivar frames: What has come, to be taken by the worker: kind, number of the call,
        and the payload, an L{Incoming} if it has buffers.

    @ivar writer: What frames are written to. Holding it, to send them all at once, must
        be ended by L{flush}.

    @ivar gone: Fires when nothing is left of the child.

    @ivar stdout: Takes what it writes to stdout.

    @ivar stderr: Takes what it writes to stderr.
    """

    # _outgoing has frames while the first of them is being copied, _incoming the same
    # for those that have come. Only _sendOutgoing and _readIncoming take from them.
    # _offered has calls that were sent while the writer was held, so that the child
    # can't have them yet. When the process _hasExited, _unbegun has those that it never
    # began. Its end is told the worker once, after its last frame; the files are closed
    # after that, here and nowhere else, when no thread uses them any longer.

    def __init__(
        self,
        received: Callable[[], object],
        unsent: Callable[[int, Exception], object],
        ended: Callable[[ExitStatus], object],
        *,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        reactor: IReactorChild,
    ) -> None:
        """
        Start a child process.

        @param received: Called when there are L{frames}.

        @param unsent: Called with the number of a call whose buffers can't be sent, and
            why.

        @param ended: Called once when the child has ended, after the last frames.

        @param options: Options of the child's program.

        @param env: Its environment, C{None} for the same as this process has.

        @raise OSError: If it can't be started.
        """
        self.frames: deque[tuple[int, int, memoryview | Incoming]] = deque()
        self.gone: OneShot[None] = OneShot()
        self.stdout = OutputLog("stdout", reactor=reactor)
        self.stderr = OutputLog("stderr", reactor=reactor)
        self._received = received
        self._unsent = unsent
        self._ended = ended
        self._reactor = reactor
        self._decoder = Decoder()
        self._isBroken = False
        self._threads = CopyThreads(reactor)
        self._outgoing: deque[_Outgoing] = deque()
        self._incoming: deque[Frame] = deque()
        self._offered: list[int] = []
        self._hasExited = False
        self._unbegun: list[int] = []
        self._status: ExitStatus | None = None
        self._process = ChildProcess(reactor=reactor)
        ours = self._start(options, env)
        self._buffers = BufferWriter(ours[ChildFD.ARGUMENTS])
        self._reader = BufferReader(ours[ChildFD.RESULTS], self._wake)
        self._claims = ClaimWriter(ours[ChildFD.CLAIMS], ours[_OFFERS])
        self.writer = PipeWriter(ours[ChildFD.CALLS], reactor)
        self._replies = PipeReader(ours[ChildFD.REPLIES], self._dataReceived, reactor)
        self._outputs = [
            PipeReader(ours[1], self.stdout.write, reactor),
            PipeReader(ours[2], self.stderr.write, reactor),
        ]
        self._process.ended.addCallback(self._exited)
        self._process.ended.addErrback(
            lambda failure: log.failure("What a child has left can't be read", failure)
        )

    @property
    def pid(self) -> int | None:
        """
        The process ID, C{None} when it isn't running.
        """
        return self._process.pid

    def send(
        self,
        kind: int,
        number: int,
        payload: bytes | Packed,
    ) -> None:
        """
        Send a frame.
        """
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
        """
        Send what was held.
        """
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

    def hasFrame(self, number: int) -> bool:
        """
        Tell whether a frame of a call has come that isn't taken yet.
        """
        return any(frame[1] == number for frame in (*self.frames, *self._incoming))

    def readNow(self) -> None:
        """
        Take what has come from the child without waiting for the reactor to tell of it.
        """
        self._replies.drain()

    def interrupt(self, number: int) -> None:
        """
        Have the child raise an exception in a call or iteration, if it's at it.
        """
        self._buffers.interrupt(number)
        self._process.signal(signal.SIGURG)

    def stop(self) -> None:
        """
        Have the process end by itself when it has done what was sent.
        """
        self.send(Kind.STOP, 0, b"")

    def terminate(self) -> None:
        """
        Have the process end now, and kill it if it doesn't.
        """
        self.writer.close()
        self._process.terminate(_TERM_GRACE_SECONDS)

    def kill(self) -> None:
        """
        Kill the process.
        """
        self.writer.close()
        self._process.kill()

    def _start(
        self, options: tuple[str, ...], env: Mapping[str, str] | None
    ) -> dict[int, int]:
        """
        Start the process.

        @return: Our ends of the pipes, and the files, by the descriptor that the child
            has the other end as.
        """
        with ExitStack() as ours, ExitStack() as theirs:
            mine: dict[int, int] = {}
            its: dict[int, int] = {}

            def add(stack: ExitStack, ends: dict[int, int], key: int, fd: int) -> int:
                stack.callback(os.close, fd)
                ends[key] = fd
                return fd

            add(theirs, its, 0, os.open(os.devnull, os.O_RDONLY))
            for key in (1, 2, ChildFD.REPLIES):
                reader, writer = os.pipe()
                add(ours, mine, key, reader)
                add(theirs, its, key, writer)
            reader, writer = os.pipe()
            add(theirs, its, ChildFD.CALLS, reader)
            add(ours, mine, ChildFD.CALLS, writer)
            for key in (ChildFD.ARGUMENTS, ChildFD.RESULTS):
                its[key] = add(ours, mine, key, openMemoryFile())
            # Both sides read the claims, take what there is, and wait for nothing.
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            its[ChildFD.CLAIMS] = add(ours, mine, ChildFD.CLAIMS, reader)
            add(ours, mine, _OFFERS, writer)
            self._process.start([*interpreterCommand(), _PROGRAM, *options], its, env)
            ours.pop_all()
            return mine

    def _offer(self) -> None:
        """
        Let the child have the calls that were sent.
        """
        offered, self._offered = self._offered, []
        if self._hasExited:
            self._unbegun += offered
        else:
            self._claims.offer(offered)

    async def _sendOutgoing(self) -> None:
        """
        Send frames, the first of which has buffers, until none waits.
        """
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
            self.writer.send(kind, frame.number, payload)  # type: ignore[arg-type]  # bytes

    async def _put(self, packed: Packed, frame: _Outgoing) -> bytes:
        """
        Copy buffers to the memory file, and return the payload of the frame.
        """
        if packed.size <= _MAX_SYNC_COPY:
            return self._buffers.put(packed)
        put = partial(self._buffers.put, packed, lambda: frame.isRevoked)
        payload = await self._threads.run(put)
        if frame.isRevoked:
            self._buffers.discard(payload)
        return payload

    def _dataReceived(self, data: bytes) -> None:
        """
        Take what has come through the pipe, empty at the end.
        """
        if self._isBroken:
            return
        if not data:
            # A process without its pipe is of no use any longer.
            self._process.killAfter(_EXIT_GRACE_SECONDS)
            return
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self._breakOff(error)
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
        """
        Read frames, one of which has buffers or is for us, until none waits.
        """
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
                    self._release(payload)
                elif kind < Kind.HELLO:
                    raise FrameError(f"No child sends a frame of kind {kind}")
            except (FrameError, KeyError, struct.error) as error:
                self._breakOff(error)
                self._incoming.clear()
                break
            self._incoming.popleft()
            if kind != Kind.RELEASE:
                self.frames.append((kind & ~BUFFERS, number, content))
                self._received()
        self._maybeEnd()

    def _breakOff(self, error: Exception) -> None:
        """
        End a child that doesn't keep to the protocol: nor can anything be made of what
        comes after that.
        """
        self._isBroken = True
        self.stderr.write(f"{error}\n".encode())
        self._process.kill()

    def _release(self, payload: memoryview) -> None:
        if self._buffers.release(payload):
            self._threads.run(self._buffers.trim)

    def _wake(self) -> None:
        """
        Tell the child soon what isn't needed any longer. Any thread may call this.
        """
        self._reactor.callFromThread(self._tellUnneeded)

    def _tellUnneeded(self) -> None:
        unneeded = self._reader.unneeded()
        if unneeded:
            self.send(Kind.RELEASE, 0, unneeded)

    def _exited(self, status: ExitStatus) -> None:
        """
        Note that the process has ended: read what it has left, then tell of it.
        """
        self.writer.close()
        try:
            for reader in (*self._outputs, self._replies):
                reader.drain()
        finally:
            # Whoever else has the other ends isn't waited for.
            for reader in (*self._outputs, self._replies):
                reader.close()
            self._hasExited = True
            self._unbegun = self._claims.revoke()
            self._claims.close()
            self._status = evolve(status, output=self.stderr.tail)
            self._maybeEnd()

    def _maybeEnd(self) -> None:
        """
        Tell of the end, if there's one and all frames were read.
        """
        if self._status is None or self._incoming:
            return
        status, self._status = self._status, None
        self._ended(status)
        for frame in self._outgoing:
            frame.isRevoked = True
        self._reader.close()
        self._threads.whenIdle().addCallback(self._closeFiles)

    def _closeFiles(self, _: object) -> None:
        fds = (self._buffers.fd, self._reader.fd)
        large = [fd for fd in fds if os.fstat(fd).st_blocks * 512 > _MAX_SYNC_CLOSE]
        for fd in fds:
            if fd in large:
                # The system takes its time to give up what is in it.
                self._threads.run(partial(os.close, fd))
            else:
                os.close(fd)
        self._threads.whenIdle().addCallback(self.gone.fire)
