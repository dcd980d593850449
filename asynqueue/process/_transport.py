"""A child process as its worker talks to it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet, IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import Attribute

from .._child import protocol
from .._child.buffers import BufferReader, BufferWriter
from .._child.memfd import openMemoryFile
from .._child.protocol import READ_BYTES, ChildFD, ClaimWriter, Kind
from .._support.awaitable import OneShot
from .._support.childprocess import (
    ChildProcess,
    DescriptorReader,
    ExitStatus,
    IProcessReactor,
    interpreterCommand,
)
from .._support.log import OutputLog, log
from ._frames import CopyThreads, FrameReceiver, FrameSender

#: Seconds that a child has to end after a signal that it may handle.
_TERM_GRACE_SECONDS = 0.5
#: Seconds that a child has to end after it has closed its pipe.
_EXIT_GRACE_SECONDS = 0.02
#: So much is read from a pipe after its child has ended, and no more.
_MAX_DRAINED = 1 << 22
#: Files that are smaller are closed at once: starting a thread takes as long.
_MAX_SYNC_CLOSE = 1 << 24
#: What our end of the pipe of claims, to which only we write, is called.
_OFFERS = -1
#: The program that the child runs.
_PROGRAM = os.path.join(os.path.dirname(protocol.__file__), "child.py")


class IReactorChild(IProcessReactor, IReactorFromThreads):
    running: bool = Attribute("See C{IReactorCore}.")

    def callWhenRunning(
        callable: Callable[..., object],  # noqa: A002 - as in IReactorCore
        *args: object,
        **kwargs: object,
    ) -> object:
        """See C{IReactorCore}."""


class PipeReader(DescriptorReader):
    """
    The end of a pipe that is read, without a transport around it, which saves a third
    of the time that a call takes.
    """

    def __init__(
        self, fd: int, received: Callable[[bytes], object], reactor: IReactorFDSet
    ) -> None:
        os.set_blocking(fd, False)
        super().__init__(fd, reactor)
        self._received = received

    def doRead(self) -> None:
        if not self._isOpen:
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self.close()

    def connectionLost(self, reason: Failure) -> None:
        if reason.check(ConnectionDone):
            super().connectionLost(reason)
        else:
            self.close()

    def drain(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        for _ in range(_MAX_DRAINED // READ_BYTES):
            if not self._isOpen or not poll.poll(0):
                break
            self.doRead()

    def close(self) -> None:
        wasOpen = self._isOpen
        super().close()
        if wasOpen:
            self._received(b"")


class Transport:
    # The process's end is told the worker once, after its last frame. The files are
    # closed after that, here and nowhere else, when no thread uses them any longer.

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
        """Start a child process. It's an L{OSError} if that can't be done."""
        self.gone: OneShot[None] = OneShot()
        self.stdout = OutputLog("stdout", reactor=reactor)
        self.stderr = OutputLog("stderr", reactor=reactor)
        self._ended = ended
        self._threads = CopyThreads(reactor)
        self._process = ChildProcess(reactor=reactor)
        ours = self._start(options, env)
        self._buffers = BufferWriter(ours[ChildFD.ARGUMENTS])
        # Any thread may say that something isn't needed any longer.
        self._reader = BufferReader(
            ours[ChildFD.RESULTS], lambda: reactor.callFromThread(self._tellUnneeded)
        )
        self.sender = FrameSender(
            ours[ChildFD.CALLS],
            ClaimWriter(ours[ChildFD.CLAIMS], ours[_OFFERS]),
            self._buffers,
            self._threads,
            unsent,
            reactor,
        )
        self.receiver = FrameReceiver(
            self._reader,
            self._threads,
            received=received,
            released=self._release,
            closed=self._repliesClosed,
        )
        self.replies = PipeReader(
            ours[ChildFD.REPLIES], self.receiver.dataReceived, reactor
        )
        self._outputs = [
            PipeReader(ours[1], self.stdout.write, reactor),
            PipeReader(ours[2], self.stderr.write, reactor),
        ]
        self._process.ended.addCallback(
            lambda status: Deferred.fromCoroutine(self._finish(status))
        )
        self._process.ended.addErrback(
            lambda failure: log.failure("A child's end can't be told", failure)
        )

    @property
    def pid(self) -> int | None:
        """The process ID, C{None} when it isn't running."""
        return self._process.pid

    def interrupt(self, number: int) -> None:
        """Have the child raise an exception in a call or iteration, if it's at it."""
        self._buffers.interrupt(number)
        self._process.signal(signal.SIGURG)

    def terminate(self) -> None:
        """Have the process end now, and kill it if it doesn't."""
        self.sender.close()
        self._process.terminate(_TERM_GRACE_SECONDS)

    def kill(self) -> None:
        self.sender.close()
        self._process.kill()

    def _start(
        self, options: tuple[str, ...], env: Mapping[str, str] | None
    ) -> dict[int, int]:
        """Start the process, and return our ends, by what it has the other end as."""
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

    def _repliesClosed(self, error: Exception | None) -> None:
        """End a child that has no pipe any longer, or doesn't keep to the protocol."""
        if error is None:
            self._process.killAfter(_EXIT_GRACE_SECONDS)
        else:
            self.stderr.write(f"{error}\n".encode())
            self._process.kill()

    def _release(self, payload: memoryview) -> None:
        if self._buffers.release(payload):
            self._threads.run(self._buffers.trim)

    def _tellUnneeded(self) -> None:
        unneeded = self._reader.unneeded()
        if unneeded:
            self.sender.send(Kind.RELEASE, 0, unneeded)

    async def _finish(self, status: ExitStatus) -> None:
        """Read what the process has left, tell of its end, and leave nothing open."""
        readers = (*self._outputs, self.replies)
        try:
            for reader in readers:
                reader.drain()
        except BaseException:  # noqa: BLE001 - runs callbacks of users
            log.failure("What a child has left can't be read")
        # Whoever else has the other ends isn't waited for.
        for reader in readers:
            reader.close()
        self.sender.exited()
        status = evolve(status, output=self.stderr.tail)
        await self.receiver.whenRead()
        self._ended(status)
        self.sender.giveUp()
        self._reader.close()
        await self._threads.whenIdle()
        for fd in (self._buffers.fd, self._reader.fd):
            if os.fstat(fd).st_blocks * 512 > _MAX_SYNC_CLOSE:
                # The system takes its time to give up what is in it.
                self._threads.run(partial(os.close, fd))
            else:
                os.close(fd)
        await self._threads.whenIdle()
        self.gone.fire(None)
