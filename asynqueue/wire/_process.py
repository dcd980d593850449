"""
The process of a server that a manager has started, as seen from both ends of its pipes.

The process reads a L{Setup} from descriptor 3, and writes a line of JSON to descriptor
4: that it listens, or why it can't. It ends when its manager says so on descriptor 3,
or is there no longer.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from .._child.mainmodule import adopt
from .._support.childprocess import ChildProcess, ExitStatus, interpreterCommand
from .._support.log import OutputLog
from .._support.reactor import orGlobalReactor
from ..errors import SerializationError
from ._command import explain, logTo, runUntilStopped
from ._credentials import TLS, Key
from ._server import WireServer

__all__ = ["ServerExit", "ServerProcess", "Setup", "dumpOptions", "serve"]

#: The program that the process runs.
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_child.py")

#: Descriptors of the process's ends of the pipes.
_IN, _OUT = 3, 4

#: Written to a server that is to stop, before its pipe is closed.
_STOP = b"s"

#: Said by a server that listens.
_LISTENING = b"{}\n"

_SIZE = struct.Struct("!Q")

#: Descriptors that are needed to start a process, at the most.
_MAX_DESCRIPTORS = 16

#: Seconds that a process which has closed its pipe has to end.
_CLOSING_SECONDS = 0.02

#: Seconds that the output of a process is waited for after its end: another process
#: may have it, too.
_OUTPUT_SECONDS = 0.5

#: Seconds that a process has to end, besides those that its server has to stop: for
#: the process itself, and until its manager kills it.
_ENDING_SECONDS, _KILLING_SECONDS = 1.0, 2.0


@frozen
class Setup:
    """
    What a manager tells the process of a server, through a pipe of which nobody else
    has an end: there may be secrets in it.

    @ivar options: Further keywords of the server, pickled: what they need may be found
        only when the process is set up.

    @ivar preparation: What the manager's interpreter is like.

    @ivar timeout: Seconds that the server has to stop, C{None} for no limit.

    @ivar stdio: Whether it has the standard streams of the manager's process.
    """

    description: str
    wwu: str
    options: bytes = field(repr=False)
    preparation: dict[str, Any]
    niceness: int
    timeout: float | None
    stdio: bool

    def dump(self) -> bytes:
        """Write it as bytes."""
        data = pickle.dumps(self)
        return _SIZE.pack(len(data)) + data

    @classmethod
    def read(cls, fd: int) -> Setup | None:
        """Read it from a pipe. It's C{None} if the pipe has come to its end."""
        head = _read(fd, _SIZE.size)
        if len(head) < _SIZE.size:
            return None
        [size] = _SIZE.unpack(head)
        data = _read(fd, size)
        if len(data) < size:
            return None
        setup: Setup = pickle.loads(data)
        return setup


def _read(fd: int, size: int) -> bytes:
    """Read so many bytes from a pipe, not one more, and fewer only at its end."""
    pieces: list[bytes] = []
    while size and (piece := os.read(fd, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class _SecretsPickler(pickle.Pickler):
    """
    Pickles keys and certificates, too, which otherwise can't be.
    """

    def reducer_override(self, value: Any) -> Any:
        return value.handOver() if isinstance(value, (Key, TLS)) else NotImplemented


def dumpOptions(options: dict[str, Any]) -> bytes:
    """
    Pickle keywords of a server, with the secrets that are in them.

    @raise SerializationError: If one can't be pickled.
    """
    file = io.BytesIO()
    try:
        _SecretsPickler(file).dump(options)
    except Exception as error:  # whatever code of a value raises
        # The values aren't shown: there may be secrets.
        raise SerializationError(
            f"The keywords {', '.join(options)} can't all be sent to the process of a"
            f" server: {error}"
        ) from error
    return file.getvalue()


@frozen
class ServerExit:
    """
    How the process of a server has ended.

    @ivar error: The name of the error that has kept it from listening, or C{""}.

    @ivar text: That error's text.
    """

    status: ExitStatus
    error: str = ""
    text: str = ""

    def __str__(self) -> str:
        return (
            f"{self.status}, {self.error}: {self.text}"
            if self.error
            else str(self.status)
        )


class ServerProcess(ChildProcess):
    """
    The process of a server, as its manager sees it.
    """

    # _said is what has come through the pipe. _isDrained fires when nothing more can
    # come, by the pipe or as output.

    def __init__(
        self, setup: Setup, listening: Callable[[int], object], *, reactor: Any
    ) -> None:
        super().__init__(reactor=reactor)
        self._setup = setup
        self._listening = listening
        self._outputs = {
            1: OutputLog("stdout", reactor=reactor),
            2: OutputLog("stderr", reactor=reactor),
        }
        self._said = b""
        self._isDrained: Deferred[None] = Deferred()

    def run(self) -> Deferred[ServerExit]:
        """
        Start the process.

        @return: A Deferred that fires when it has ended. It fails with C{OSError} or
            whatever else keeps the process from being started.
        """
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Have the server stop when its tasks are done, within its time."""
        if self.pid is None:
            return
        # When the process has just been killed, the pipe goes before the process does.
        if _IN in self.transport.pipes:
            self.transport.writeToChild(_IN, _STOP)
            self.transport.closeChildFD(_IN)
        if self._setup.timeout is not None:
            self.killAfter(self._setup.timeout + _KILLING_SECONDS)

    async def _run(self) -> ServerExit:
        setup = self._setup
        command = [*interpreterCommand(), _PROGRAM]
        nothing = os.open(os.devnull, os.O_RDONLY)
        pipes: dict[int, int | str] = {_IN: "w", _OUT: "r"}
        streams: dict[int, int | str] = (
            {0: 0, 1: 1, 2: 2} if setup.stdio else {0: nothing, 1: "r", 2: "r"}
        )
        try:
            _checkDescriptors(nothing)
            # The names are there for who looks at the list of processes.
            self.start([*command, setup.description, setup.wwu], streams | pipes)
        finally:
            os.close(nothing)
        status = await self.ended
        deadline = self._reactor.callLater(_OUTPUT_SECONDS, self._closePipes)
        await self._isDrained
        if deadline.active():
            deadline.cancel()
        said: dict[str, str] = {}
        with suppress(ValueError):
            said = json.loads(self._said)
        return ServerExit(evolve(status, output=self._outputs[2].tail), **said)

    def connectionMade(self) -> None:
        super().connectionMade()
        for output in self._outputs.values():
            output.who = f"Server {self.pid}"
        self.transport.writeToChild(_IN, self._setup.dump())

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD in self._outputs:
            self._outputs[childFD].write(data)
            return
        self._said += data
        if self._said == _LISTENING and self.pid is not None:
            self._listening(self.pid)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD in self._outputs:
            self._outputs[childFD].write(b"")
        elif childFD == _OUT:
            # Without the pipe, it would outlive this process.
            self.killAfter(_CLOSING_SECONDS)

    def processEnded(self, reason: Failure) -> None:
        self._isDrained.callback(None)

    def _closePipes(self) -> None:
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)


def _checkDescriptors(fd: int) -> None:
    """
    Check that there are descriptors for a process. When Twisted runs out of them in the
    middle, it leaves those that it has made.

    @raise OSError: If there aren't enough.
    """
    copies: list[int] = []
    try:
        for _ in range(_MAX_DESCRIPTORS):
            copies.append(os.dup(fd))  # noqa: PERF401 - to have them when one fails
    finally:
        for copy in copies:
            os.close(copy)


def serve() -> None:
    """Serve what the manager says, in the server's process, until it says no more."""
    for fd in (_IN, _OUT):
        os.set_inheritable(fd, False)
    setup = Setup.read(_IN)
    if setup is None:
        return  # The manager has gone already.
    pipe = _PipeWatch(setup.timeout)
    pipe.start()
    if sys.stdout is not None:
        with suppress(AttributeError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logTo(sys.stderr, times=setup.stdio)
    try:
        server = _makeServer(setup)
        reactor: Any = orGlobalReactor(None)
        pipe.stopAtEnd(reactor)
        runUntilStopped(server, lambda: _tell({}), reactor)
    except BaseException as error:  # noqa: BLE001 - whatever the universe's module does
        _tell({"error": type(error).__name__, "text": explain(error)})
        raise SystemExit(1) from None


def _makeServer(setup: Setup) -> WireServer:
    """Make this interpreter like the manager's, and make the server."""
    if setup.niceness:
        os.nice(setup.niceness)
    adopt(setup.preparation)
    options: dict[str, Any] = pickle.loads(setup.options)
    return WireServer(setup.description, setup.wwu, **options)


def _tell(what: dict[str, str]) -> None:
    """Tell the manager that the server listens, or why it doesn't."""
    with suppress(OSError):  # The manager may have gone.
        os.write(_OUT, json.dumps(what).encode() + b"\n")


class _PipeWatch(threading.Thread):
    """
    Waits for the end of the pipe from the manager: in a thread, because what is served
    may block the reactor, and must end in time all the same.
    """

    # The main thread sets _stopReactor, and then looks at _isOver. This thread does it
    # the other way round, so one of them stops the reactor.

    def __init__(self, timeout: float | None) -> None:
        super().__init__(name="asynqueue manager", daemon=True)
        self._timeout = timeout
        self._isOver = False
        self._stopReactor: Callable[[], object] | None = None

    def stopAtEnd(self, reactor: Any) -> None:
        """Stop the reactor when the pipe is at its end."""

        def stop() -> None:
            with suppress(ReactorNotRunning):  # it's stopping already
                reactor.stop()

        self._stopReactor = lambda: reactor.callFromThread(stop)
        if self._isOver:
            self._stopReactor()

    def run(self) -> None:
        # Without a file around it, which would have a lock that is held at the end.
        while os.read(_IN, 1):
            pass
        self._isOver = True
        if self._stopReactor is not None:
            self._stopReactor()
        elif self._timeout is None:
            os._exit(1)
        if self._timeout is not None:
            # The end of the process is also that of this thread.
            threading.Event().wait(self._timeout + _ENDING_SECONDS)
            os._exit(1)
