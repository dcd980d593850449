"""
The parent's end: the child process, its pipes, its output, its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]
from typing import Any

from attrs import evolve, frozen
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .framing import Decoder, Frame, FrameError, header
from .output import OutputLog

__all__ = ["Child", "Ended", "IReactorChild"]

#: So much is read at a time. Larger reads take longer than two of these.
_READ_BYTES = 65_536

#: Seconds that a child has to end after a signal that it may handle, or after its
#: pipe has been closed for it.
_GRACE = 0.5

#: Seconds between looks whether a child that has closed its pipe has ended. The
#: system tells that at once, but not to a reactor without signal handlers.
_LOOK = 0.02

#: The program that the child runs.
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")


class IReactorChild(IReactorTime, IReactorProcess, IReactorFDSet):
    """
    What is needed of a reactor to have a child process.
    """


@frozen
class Ended:
    """
    How a child has ended.

    @ivar pid: Its process ID.

    @ivar exitCode: Its exit code, or C{None}.

    @ivar signal: The number of the signal that has ended it, or C{None}.

    @ivar output: The last that it wrote to stderr.
    """

    pid: int | None
    exitCode: int | None
    signal: int | None
    output: str

    def __str__(self) -> str:
        """
        Say it in words.
        """
        who = "The child process" if self.pid is None else f"Child process {self.pid}"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = "a signal"
            return f"{who} was ended by {name} ({self.signal})"
        return f"{who} ended with exit code {self.exitCode}"


@implementer(IReadDescriptor)
class _Reader:
    """
    The end of a pipe that is read. In the reactor without a transport around it,
    which saves a third of the time that a call takes.
    """

    def __init__(self, fd: int, received: Callable[[bytes], None]) -> None:
        """
        Make it.

        @param fd: The descriptor.

        @param received: Called with what has come, empty bytes at the end.
        """
        self._fd = fd
        self._received = received

    def fileno(self) -> int:
        """
        Implement C{IReadDescriptor.fileno}.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.
        """
        return "asynqueue"

    def doRead(self) -> None:
        """
        Implement C{IReadDescriptor.doRead}.
        """
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received(data)

    def connectionLost(self, reason: Failure) -> None:
        """
        Implement C{IReadDescriptor.connectionLost}.

        @param reason: Why.
        """
        self._received(b"")


@implementer(IWriteDescriptor)
class _Writer:
    """
    The end of a pipe that is written.
    """

    def __init__(self, fd: int, reactor: IReactorFDSet) -> None:
        """
        Make it.

        @param fd: The descriptor.

        @param reactor: The reactor, which is asked only when the pipe is full.
        """
        self._fd = fd
        self._reactor = reactor
        self._pending: deque[memoryview] = deque()
        self._open = True

    def fileno(self) -> int:
        """
        Implement C{IWriteDescriptor.fileno}.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.
        """
        return "asynqueue"

    def write(self, data: bytes) -> None:
        """
        Write bytes, now as far as the pipe takes them.

        @param data: The bytes.
        """
        if not self._open or not data:
            return
        waiting = bool(self._pending)
        self._pending.append(memoryview(data))
        if not waiting:
            self._push()
            if self._pending:
                self._reactor.addWriter(self)

    def doWrite(self) -> None:
        """
        Implement C{IWriteDescriptor.doWrite}.
        """
        self._push()
        if not self._pending and self._open:
            self._reactor.removeWriter(self)

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

    def _push(self) -> None:
        """
        Write what the pipe takes.
        """
        pending = self._pending
        try:
            while pending:
                written = os.write(self._fd, pending[0])
                if written < len(pending[0]):
                    pending[0] = pending[0][written:]
                else:
                    pending.popleft()
        except BlockingIOError:
            return
        except OSError:
            # The child has gone, which is noticed at its other pipe.
            pending.clear()


class _Protocol(ProcessProtocol):
    """
    What Twisted tells of the process.
    """

    def __init__(self, child: Child) -> None:
        """
        Make it.

        @param child: Who wants to know.
        """
        self._child = child

    def outReceived(self, data: bytes) -> None:
        """
        Take what was written to stdout.

        @param data: It.
        """
        self._child.stdout.write(data)

    def errReceived(self, data: bytes) -> None:
        """
        Take what was written to stderr.

        @param data: It.
        """
        self._child.stderr.write(data)

    def processExited(self, reason: Failure) -> None:
        """
        Note that the process has ended.

        @param reason: How.
        """
        self._child.exited(reason)


class Child:
    """
    A child process: it's spoken to in frames, and its end is told once.

    @ivar pid: Its process ID, C{None} when it isn't running.

    @ivar stdout: Takes what it writes to stdout.

    @ivar stderr: Takes what it writes to stderr.
    """

    def __init__(
        self,
        received: Callable[[list[Frame]], None],
        ended: Callable[[Ended], None],
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
        self._reading = True
        self._how: Ended | None = None
        self._timer: IDelayedCall | None = None
        self.stdout = OutputLog("stdout", reactor=reactor)
        self.stderr = OutputLog("stderr", reactor=reactor)
        self.pid: int | None = None
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for mine in (1, 0):
                ends = os.pipe()
                ours.append(ends[mine])
                theirs.append(ends[1 - mine])
            null = os.open(os.devnull, os.O_RDONLY)
            theirs.append(null)
            self._process: Any = reactor.spawnProcess(
                _Protocol(self),
                sys.executable,
                [
                    sys.executable,
                    *_args_from_interpreter_flags(),
                    _PROGRAM,
                    *options,
                ],
                env=None if env is None else dict(env),
                childFDs={0: null, 1: "r", 2: "r", 3: theirs[0], 4: theirs[1]},
            )
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.pid = self._process.pid
        for fd in ours:
            os.set_blocking(fd, False)
        self._writer = _Writer(ours[0], reactor)
        self._reader = _Reader(ours[1], self._dataReceived)
        reactor.addReader(self._reader)

    @property
    def alive(self) -> bool:
        """
        Whether the process hasn't ended yet.
        """
        return self._how is None

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """
        Send a frame.

        @param kind: The kind.

        @param number: The number of the call.

        @param payload: The payload.
        """
        head = header(kind, number, len(payload))
        if len(payload) < _READ_BYTES:
            self._writer.write(head + payload)
        else:
            self._writer.write(head)
            self._writer.write(payload)

    def close(self) -> None:
        """
        Have the process end by itself when it has run what was sent.
        """
        self._writer.close()

    def end(self, *, rudely: bool = False) -> None:
        """
        Have the process end now, whatever it's doing.

        @param rudely: C{True} not to let it handle the signal.
        """
        self._writer.close()
        if rudely:
            self._kill()
        elif self._how is None:
            self._signal("TERM")
            self._after(_GRACE, self._kill)

    def exited(self, reason: Failure) -> None:
        """
        Note that the process has ended.

        @param reason: How.
        """
        pid, self.pid = self.pid, None
        self._cancelTimer()
        value: Any = reason.value
        code = 0 if reason.check(ProcessDone) else value.exitCode
        self._how = Ended(pid, code, getattr(value, "signal", None), "")
        # What it has sent is still in the pipe.
        while self._reading:
            try:
                data = os.read(self._reader.fileno(), _READ_BYTES)
            except OSError:
                # Somebody else has its end of the pipe, and nothing is in it.
                data = b""
            self._dataReceived(data)
        self._finish()

    def _dataReceived(self, data: bytes) -> None:
        """
        Take what has come through the pipe.

        @param data: It, empty at the end.
        """
        if data:
            try:
                frames = self._decoder.feed(data)
            except FrameError:
                # A task has written to a descriptor that isn't its own.
                self._kill()
                self._closeReader()
            else:
                if frames:
                    self._received(frames)
        else:
            self._closeReader()
        if not self._reading and self._how is None and self._timer is None:
            # A process without its pipe is of no use any longer.
            self._after(_LOOK, self._look)

    def _closeReader(self) -> None:
        """
        Close the pipe from the child.
        """
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self._reader)
            os.close(self._reader.fileno())

    def _finish(self) -> None:
        """
        Let go of all that is left, and tell that the process has ended.
        """
        self._writer.close()
        self._process.loseConnection()
        for output in (self.stdout, self.stderr):
            output.close()
        assert self._how is not None  # It's called when that is known.
        self._ended(evolve(self._how, output=self.stderr.tail))

    def _look(self) -> None:
        """
        Look whether the process that has closed its pipe has ended, and end it.
        """
        self._timer = None
        reapAllProcesses()
        if self._how is None:
            self._kill()
            self._after(_LOOK, self._look)

    def _kill(self) -> None:
        """
        Kill the process.
        """
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        """
        Send a signal to the process, if it hasn't ended.

        @param name: The signal's name.
        """
        if self._how is None:
            # Unless it's ending right now.
            with suppress(ProcessExitedAlready, OSError):
                self._process.signalProcess(name)

    def _after(self, seconds: float, f: Callable[[], None]) -> None:
        """
        Do something later, instead of what was to be done.

        @param seconds: When.

        @param f: What.
        """
        self._cancelTimer()
        self._timer = self._reactor.callLater(seconds, f)

    def _cancelTimer(self) -> None:
        """
        Do nothing later.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
