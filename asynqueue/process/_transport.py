"""
The parent's end: the child process, its pipes, its output, its end.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice

from attrs import evolve
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorFromThreads,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import Attribute, implementer

from .._child import protocol
from .._child.claims import Claims
from .._child.protocol import HEADER, Decoder, Frame, FrameError, Kind
from .._support.childprocess import ChildProcess, IProcessReactor
from .._support.exitstatus import ExitStatus
from .._support.interpreter import interpreterCommand
from .._support.output import OutputLog
from .._support.sigpipe import withoutSigpipe
from ._delivery import Delivery

__all__ = ["Child", "IReactorChild"]

#: So much is read at a time. Larger reads take longer than two of these.
_READ_BYTES = 65_536

#: So much is read from a pipe after its child has ended, and no more.
_MOST_LEFT = 1 << 22

#: Seconds that a child has to end after a signal that it may handle.
_TERM_GRACE_SECONDS = 0.5

#: Seconds that a child has to end after it has closed its pipe.
_EXIT_GRACE_SECONDS = 0.02

#: So many pieces are written at a time; more than any system takes would be an error.
_MOST_PIECES = 64

#: A number as the system tells it.
_NUMBER = struct.Struct("i")

#: The program that the child runs.
_PROGRAM = os.path.join(os.path.dirname(protocol.__file__), "child.py")


class IReactorChild(IProcessReactor, IReactorFromThreads):
    """
    What is needed of a reactor to have a child process.
    """

    running: bool = Attribute("See L{IReactorCore}.")

    def callWhenRunning(
        callable: Callable[..., object],  # noqa: A002 - as in IReactorCore
        *args: object,
        **kwargs: object,
    ) -> object:
        """
        See L{IReactorCore}.
        """


@implementer(IReadDescriptor)
class _Reader:
    """
    The end of a pipe that is read. In the reactor without a transport around it,
    which saves a third of the time that a call takes.
    """

    def __init__(
        self, fd: int, received: Callable[[bytes], object], reactor: IReactorFDSet
    ) -> None:
        """
        Start reading.

        @param fd: The descriptor.

        @param received: Called with what has come, empty bytes at the end.

        @param reactor: The reactor.
        """
        self._fd = fd
        self._received = received
        self._reactor = reactor
        self._open = True
        os.set_blocking(fd, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """
        Implement C{IReadDescriptor.fileno}.

        @return: The descriptor.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.

        @return: The prefix.
        """
        return "asynqueue"

    def doRead(self) -> None:
        """
        Implement C{IReadDescriptor.doRead}.
        """
        self.readSome()

    def connectionLost(self, reason: Failure) -> None:
        """
        Implement C{IReadDescriptor.connectionLost}.

        A reactor that has heard of several ends in one turn knows them by number only.
        If the first has had a descriptor closed, and a new one has its number now,
        then the end that is told isn't that of the new one.

        @param reason: Why: the pipe is said to be at its end, or the reactor is.
        """
        if self._open and reason.check(ConnectionDone):
            # It was taken out, and stays in unless this finds the end.
            self._reactor.addReader(self)
            self.readSome()
        else:
            self.close()

    def finish(self) -> None:
        """
        Read what is left in the pipe, and close it. Who wrote to it has ended.
        """
        for _ in range(_MOST_LEFT // _READ_BYTES):
            if not self.readSome():
                break
        # Whoever else has its other end isn't waited for.
        self.close()

    def close(self) -> None:
        """
        Close the pipe, and tell that it's at its end.
        """
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._received(b"")

    def readSome(self) -> bool:
        """
        Read what there is, once.

        @return: Whether there may be more.
        """
        if not self._open:
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self.close()
        return self._open


@implementer(IWriteDescriptor)
class _Writer:
    """
    The end of a pipe that is written.

    @ivar accepted: How many bytes it was given.

    @ivar delivered: How many of them the pipe has taken; and, after L{settle}, without
        those that nobody has read.
    """

    def __init__(self, fd: int, reactor: IReactorFDSet) -> None:
        """
        Make it.

        @param fd: The descriptor.

        @param reactor: The reactor, which is asked only when the pipe is full.
        """
        self.accepted = 0
        self.delivered = 0
        self._fd = fd
        self._reactor = reactor
        self._pending: deque[bytes | memoryview] = deque()
        self._held = False
        self._waiting = False
        self._finishing = False
        self._open = True
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """
        Implement C{IWriteDescriptor.fileno}.

        @return: The descriptor.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.

        @return: The prefix.
        """
        return "asynqueue"

    def write(self, data: bytes) -> None:
        """
        Write bytes, now as far as the pipe takes them.

        @param data: The bytes.
        """
        self.accepted += len(data)
        if not self._open or self._finishing or not data:
            return
        self._pending.append(data)
        if not (self._held or self._waiting):
            self._push()

    def hold(self) -> None:
        """
        Write nothing until L{release}, to write it all at once.
        """
        self._held = True

    def release(self) -> None:
        """
        Write what there is.
        """
        self._held = False
        if (self._pending or self._finishing) and not self._waiting:
            self._push()

    def finish(self) -> None:
        """
        Close the pipe when it has taken what there is.
        """
        self._finishing = True
        if not (self._held or self._waiting):
            self._push()

    def doWrite(self) -> None:
        """
        Implement C{IWriteDescriptor.doWrite}.
        """
        self._push()

    def connectionLost(self, reason: Failure) -> None:
        """
        Implement C{IWriteDescriptor.connectionLost}.

        @param reason: Why.
        """
        self.close()

    def close(self) -> None:
        """
        Close the pipe, forgetting what it hasn't taken.
        """
        if self._open:
            self._open = False
            self._pending.clear()
            self._reactor.removeWriter(self)
            os.close(self._fd)

    def settle(self) -> None:
        """
        Count what is still in the pipe as not delivered. Who read from it has ended.
        """
        if self._open:
            # Some systems say that there's nothing, as seen from this end.
            with suppress(OSError):
                unread = fcntl.ioctl(self._fd, termios.FIONREAD, _NUMBER.pack(0))
                self.delivered -= _NUMBER.unpack(unread)[0]

    def _push(self) -> None:
        """
        Write what the pipe takes, and have the reactor say when it takes more.
        """
        pending = self._pending
        try:
            while pending:
                if len(pending) == 1:
                    written = withoutSigpipe(os.write, self._fd, pending[0])
                else:
                    pieces = list(islice(pending, _MOST_PIECES))
                    written = withoutSigpipe(os.writev, self._fd, pieces)
                self.delivered += written
                while pending and written >= len(pending[0]):
                    written -= len(pending.popleft())
                if written:
                    pending[0] = memoryview(pending[0])[written:]
        except BlockingIOError:
            pass
        except OSError:
            # The child has gone, which is noticed at its other pipe.
            pending.clear()
        if bool(pending) is not self._waiting and self._open:
            self._waiting = bool(pending)
            if self._waiting:
                self._reactor.addWriter(self)
            else:
                self._reactor.removeWriter(self)
        if self._finishing and not pending:
            self.close()


class Child:
    """
    A child process: it's spoken to in frames, and its end is told once.

    @ivar delivery: The way that large things go. It's closed when the end of the child
        has been told, unless it's to L{stay<Delivery.stay>}.

    @ivar stdout: Takes what it writes to stdout.

    @ivar stderr: Takes what it writes to stderr.
    """

    def __init__(
        self,
        received: Callable[[list[Frame]], None],
        ended: Callable[[ExitStatus], None],
        *,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        reactor: IReactorChild,
    ) -> None:
        """
        Start a child process.

        @param received: Called with frames that have come from it.

        @param ended: Called once when it has ended, after the last frames.

        @param options: Options of the child's program.

        @param env: Its environment, C{None} for the same as this process has.

        @param reactor: The reactor.

        @raise OSError: If it can't be started.
        """
        self._received = received
        self._ended = ended
        self._reactor = reactor
        self._decoder = Decoder()
        self.delivery = Delivery(partial(self.send, Kind.RELEASE, 0), reactor)
        self._deaf = False
        self.stdout = OutputLog("stdout", reactor=reactor)
        self.stderr = OutputLog("stderr", reactor=reactor)
        self._process = ChildProcess(reactor=reactor)
        fds, self._claims = self._spawn(options, env)
        self._left: set[int] = set()
        self._writer = _Writer(fds[3], reactor)
        self._offers: list[int] = []
        self._held = False
        self._replies = _Reader(fds[4], self._dataReceived, reactor)
        self._readers = [
            _Reader(fds[1], self.stdout.write, reactor),
            _Reader(fds[2], self.stderr.write, reactor),
            self._replies,
        ]
        self._process.ended.addCallback(self._exited)

    @property
    def pid(self) -> int | None:
        """
        Its process ID, C{None} when it isn't running.
        """
        return self._process.pid

    @property
    def accepted(self) -> int:
        """
        How many bytes of frames were given to it.
        """
        return self._writer.accepted

    @property
    def delivered(self) -> int:
        """
        How many of these bytes have gone where the child can read them. Once it has
        ended, those that it has read, if the system tells.
        """
        return self._writer.delivered

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """
        Send a frame.

        @param kind: The kind.

        @param number: The number of the call.

        @param payload: The payload.
        """
        head = HEADER.pack(len(payload), kind, number)
        if len(payload) < _READ_BYTES:
            self._writer.write(head + payload)
        else:
            self._writer.write(head)
            self._writer.write(payload)

    def sendAhead(self, kind: int, number: int, payload: bytes) -> None:
        """
        Send the frame of a call that may be taken back by L{recall}.

        @param kind: The kind.

        @param number: The number of the call.

        @param payload: The payload.
        """
        self._offers.append(number)
        if not self._held:
            self._offer()
        self.send(kind, number, payload)

    def recall(self) -> set[int]:
        """
        Take back all calls sent ahead that the child hasn't begun. It won't, though
        it has them.

        @return: The numbers of the calls.
        """
        self._offer()
        left, self._left = self._left, set()
        return left or self._claims.reclaim()

    def hold(self) -> None:
        """
        Send nothing until L{release}, to send it all at once.
        """
        self._held = True
        self._writer.hold()

    def release(self) -> None:
        """
        Send what there is.
        """
        self._held = False
        # The child must find that it may have a call when it comes to it.
        self._offer()
        self._writer.release()

    def readNow(self) -> None:
        """
        Take what has come from the child without waiting for the reactor to tell of it.
        """
        for _ in range(_MOST_LEFT // _READ_BYTES):
            if not self._replies.readSome():
                break

    def close(self) -> None:
        """
        Have the process end by itself when it has run what was sent.
        """
        self.send(Kind.STOP, 0, b"")
        self._writer.finish()

    def end(self, *, rudely: bool = False) -> None:
        """
        Have the process end now, whatever it's doing.

        @param rudely: C{True} not to let it handle the signal.
        """
        self._writer.close()
        if rudely:
            self._process.kill()
        else:
            self._process.terminate(_TERM_GRACE_SECONDS)

    def _exited(self, status: ExitStatus) -> None:
        """
        Note that the process has ended.

        @param status: How.
        """
        self._writer.settle()
        self._writer.close()
        for reader in self._readers:
            reader.finish()
        self._left = self._claims.reclaim()
        self._claims.close()
        self._ended(evolve(status, output=self.stderr.tail))
        self.delivery.close()

    def _spawn(
        self, options: tuple[str, ...], env: Mapping[str, str] | None
    ) -> tuple[dict[int, int], Claims]:
        """
        Start the process.

        @param options: Options of its program.

        @param env: Its environment.

        @return: Our ends of the pipes by the descriptor that the child has
            the other end as, and the pipe of which both have the same end.
        """
        ours: dict[int, int] = {}
        theirs: dict[int, int] = {}
        try:
            theirs[0] = os.open(os.devnull, os.O_RDONLY)
            for fd in (1, 2, 4):
                ours[fd], theirs[fd] = os.pipe()
            for fd in (3, 7):
                theirs[fd], ours[fd] = os.pipe()
            # Both sides take what there is, and wait for nothing.
            os.set_blocking(theirs[7], False)
            ours[-7] = os.dup(theirs[7])
            self._process.start(
                [*interpreterCommand(), _PROGRAM, *options],
                {**theirs, **dict(zip((5, 6), self.delivery.fds, strict=True))},
                env,
            )
        except BaseException:
            for fd in ours.values():
                os.close(fd)
            self.delivery.close()
            raise
        finally:
            for fd in theirs.values():
                os.close(fd)
        return ours, Claims(ours.pop(-7), ours.pop(7))

    def _offer(self) -> None:
        """
        Let the child have the calls that were held.
        """
        if self._offers:
            self._claims.offer(self._offers)
            self._offers.clear()

    def _dataReceived(self, data: bytes) -> None:
        """
        Take what has come through the pipe.

        @param data: It, empty at the end.
        """
        if self._deaf:
            return
        if data:
            try:
                frames = self._decoder.feed(data)
            except FrameError as error:
                # Nor can anything be made of what comes after it.
                self._deaf = True
                self.stderr.write(f"{error}\n".encode())
                self._process.kill()
            else:
                if frames:
                    self._received(frames)
        else:
            # A process without its pipe is of no use any longer.
            self._process.killAfter(_EXIT_GRACE_SECONDS)
