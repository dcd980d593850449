"""Fakes for tests of what has to do with processes."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import (
    IProcessProtocol,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue._child.protocol import BUFFERS, HEADER, Decoder, Kind
from asynqueue._support import childprocess
from asynqueue.process._transport import IReactorChild

#: The ID of the first process that a L{FakeReactor} starts. No system gives such.
FIRST_PID = 1_000_000_000

_isChild = childprocess.isChild


def _isChildOrFake(pid: int) -> bool:
    """Take fake processes for children."""
    return pid >= FIRST_PID or _isChild(pid)


childprocess.isChild = _isChildOrFake


@implementer(ILogObserver)
class LogLines:
    """What the package logs, until the end of a test."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.lines: list[str] = []
        self._waiting: list[tuple[str, Deferred[str]]] = []
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") != "asynqueue":
            return
        line = formatEvent(event)
        self.lines.append(line)
        for entry in list(self._waiting):
            if entry[0] in line:
                self._waiting.remove(entry)
                entry[1].callback(line)

    def take(self) -> list[str]:
        """Return what was logged, and forget it."""
        lines, self.lines = self.lines, []
        return lines

    def having(self, text: str) -> list[str]:
        """Find all lines so far that have a text in them."""
        return [line for line in self.lines if text in line]

    def lineWith(self, text: str) -> Deferred[str]:
        """Return a Deferred that fires with the next line that has a text in it."""
        d: Deferred[str] = Deferred()
        self._waiting.append((text, d))
        return d


def replaceModule(case: SynchronousTestCase, name: str, module: Any) -> None:
    """
    Put something in the place of a module until the end of a test. C{None} makes its
    import fail.
    """
    before = dict(sys.modules)

    def restore() -> None:
        if name in before:
            sys.modules[name] = before[name]
        else:
            sys.modules.pop(name, None)

    sys.modules[name] = module
    case.addCleanup(restore)


class FakeProcess:
    """A process that a L{FakeReactor} has started. The test plays its part."""

    def __init__(
        self,
        pid: int,
        protocol: IProcessProtocol,
        args: Sequence[Any],
        env: Mapping[Any, Any] | None,
        childFDs: Mapping[int, Any],
    ) -> None:
        self.pid: int | None = pid
        self.args = args
        self.env = env
        self.signals: list[str] = []
        self.ended = False
        self._protocol = protocol
        self._fds = {number: os.dup(fd) for number, fd in childFDs.items()}
        protocol.makeConnection(cast(Any, self))
        os.set_blocking(self._fds[3], False)
        self._decoder = Decoder()
        self._isStopped = False
        self._claims: dict[int, bool] = {}

    def claim(self, number: int) -> bool:
        """
        Claim a call, passing over those before it. Returns whether it's this process's.
        """
        while number not in self._claims:
            try:
                data = os.read(self._fds[7], 4)
            except (BlockingIOError, KeyError):
                return False
            found = int.from_bytes(data, "little")
            self._claims[found & 0x7FFFFFFF] = found <= 0x7FFFFFFF
        return self._claims[number]

    def begin(self) -> list[int]:
        """
        Read what was sent, and begin the calls that are this process's. Returns their
        numbers.
        """
        calls = [
            number
            for kind, number, _ in self.received()
            if kind & ~BUFFERS == Kind.CALL
        ]
        return [number for number in calls if self.claim(number)]

    def signalProcess(self, number: int) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(signal.Signals(number).name.removeprefix("SIG"))

    def write(self, data: bytes, fd: int = 4) -> None:
        """Write bytes to a pipe."""
        os.write(self._fds[fd], data)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.write(HEADER.pack(len(payload), kind, number) + payload)

    def received(self) -> list[tuple[int, int, bytes]]:
        """Return the whole frames that the parent has sent."""
        frames: list[tuple[int, int, bytes]] = []
        while True:
            try:
                data = os.read(self._fds[3], 65_536)
            except BlockingIOError:
                return frames
            if not data:
                self._isStopped = True
                return frames
            for kind, number, payload in self._decoder.feed(data):
                if kind == Kind.STOP:
                    self._isStopped = True
                else:
                    frames.append((kind, number, bytes(payload)))

    def isStopped(self) -> bool:
        """
        Tell whether the parent has told the process to end, or has closed its end of
        the pipe.
        """
        self.received()
        return self._isStopped

    def close(self, fd: int) -> None:
        os.close(self._fds.pop(fd))

    def end(
        self,
        exitCode: int | None = 0,
        signalNumber: int | None = None,
        reads: bool = True,
    ) -> None:
        """End, having read what was sent before that or not."""
        self.ended = True
        if reads and 3 in self._fds:
            self.received()
        for fd in list(self._fds):
            self.close(fd)
        self.pid = None
        if exitCode == 0:
            reason = Failure(ProcessDone(0))
        else:
            reason = Failure(ProcessTerminated(exitCode, signalNumber, 0))
        self._protocol.processExited(reason)


@implementer(IReactorChild)
class FakeReactor(Clock):
    """
    A reactor whose processes are played by the test, through real pipes. C{refusal} is
    raised in place of starting one, if there's one.
    """

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []
        self.writers: list[IWriteDescriptor] = []
        self.processes: list[FakeProcess] = []
        self.refusal: Exception | None = None

    def addReader(self, reader: IReadDescriptor) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        if writer in self.writers:
            self.writers.remove(writer)

    def removeAll(self) -> list[Any]:
        return [*self.readers, *self.writers]

    def getReaders(self) -> list[IReadDescriptor]:
        return list(self.readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        return list(self.writers)

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - the interface has it so
        self.callLater(0, callable, *args, **kwargs)

    def callWhenRunning(self, callable: Any, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - the interface has it so
        callable(*args, **kwargs)

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[Any, Any] | None = None,
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool | tuple[int, int, int] | tuple[int, int, int, int] = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> Any:
        if self.refusal is not None:
            raise self.refusal
        pid = FIRST_PID + len(self.processes)
        process = FakeProcess(pid, processProtocol, args, env, childFDs or {})
        self.processes.append(process)
        return process

    def serve(self) -> None:
        """Have everything read that can be, and written."""
        while self._serveOnce():
            pass

    def _serveOnce(self) -> bool:
        """
        Let each reader and writer do something if it can. Returns whether one did.
        """
        poll = select.poll()
        by: dict[int, Any] = {}
        for reader in self.readers:
            by[reader.fileno()] = reader.doRead
            poll.register(reader.fileno(), select.POLLIN)
        for writer in self.writers:
            by[writer.fileno()] = writer.doWrite
            poll.register(writer.fileno(), select.POLLOUT)
        ready = poll.poll(0)
        for fd, _ in ready:
            by[fd]()
        return bool(ready)
