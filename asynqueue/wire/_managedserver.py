"""
A server on this machine in a process of its own, which is started again when it ends by
itself: the manager's side.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from math import inf
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.childprocess import (
    ChildProcess,
    ExitStatus,
    IProcessReactor,
    interpreterCommand,
)
from .._support.log import OutputLog, log
from ..errors import AuthenticationError, SerializationError, WorkerStartError
from ._command import IN, LISTENING, OUT, Setup
from ._credentials import TLS, Key

#: The program that the process runs.
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")

#: Descriptors that are needed to start a process, at the most.
_MAX_DESCRIPTORS = 16

#: Seconds that a process which has closed its pipe has to end.
_CLOSING_SECONDS = 0.02

#: Seconds that the output of a process is waited for after its end: another process
#: may have it, too.
_OUTPUT_SECONDS = 0.5

#: Seconds that a process has to end, besides those that its server has to stop.
_KILLING_SECONDS = 2.0

#: After a server that has listened for so long, the delays begin anew.
_GOOD_START_SECONDS = 10.0


class _SecretsPickler(pickle.Pickler):
    """Pickles keys and certificates, too, which otherwise can't be."""

    def reducer_override(self, value: object) -> Any:
        return value.handOver() if isinstance(value, (Key, TLS)) else NotImplemented


def dumpOptions(options: dict[str, object]) -> bytes:
    """Pickle keywords of a server, with the secrets that are in them."""
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


class ServerProcess(ChildProcess):
    """The process of a server, as its manager sees it."""

    # _said is what has come through the pipe. _isDrained fires when nothing more can
    # come, by the pipe or as output.

    def __init__(
        self,
        setup: Setup,
        listening: Callable[[int], object],
        *,
        reactor: IProcessReactor,
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

    async def run(self) -> tuple[ExitStatus, str]:
        """
        Run the process, raising what keeps it from being started. Give how it has
        ended, and what has kept it from listening.
        """
        setup = self._setup
        command = [*interpreterCommand(), _PROGRAM]
        nothing = os.open(os.devnull, os.O_RDONLY)
        pipes: dict[int, int | str] = {IN: "w", OUT: "r"}
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
        why = ""
        with suppress(ValueError, KeyError):  # it listened, or has said nothing
            why = "{error}: {text}".format(**json.loads(self._said))
        return evolve(status, output=self._outputs[2].tail), why

    def stop(self) -> None:
        """Have the server stop when its tasks are done, within its time."""
        if self.pid is None:
            return
        # When the process has just been killed, the pipe goes before the process does.
        if IN in self.transport.pipes:
            self.transport.closeChildFD(IN)
        if self._setup.timeout is not None:
            self.killAfter(self._setup.timeout + _KILLING_SECONDS)

    def connectionMade(self) -> None:
        super().connectionMade()
        for output in self._outputs.values():
            output.who = f"Server {self.pid}"
        self.transport.writeToChild(IN, pickle.dumps(self._setup))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD in self._outputs:
            self._outputs[childFD].write(data)
            return
        self._said += data
        if self._said == LISTENING and self.pid is not None:
            self._listening(self.pid)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD in self._outputs:
            self._outputs[childFD].write(b"")
        elif childFD == OUT:
            # Without the pipe, it would outlive this process.
            self.killAfter(_CLOSING_SECONDS)

    def processEnded(self, reason: Failure) -> None:
        self._isDrained.callback(None)

    def _closePipes(self) -> None:
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)


def _checkDescriptors(fd: int) -> None:
    """
    Raise OSError unless there are descriptors for a process. When Twisted runs out of
    them in the middle, it leaves those that it has made.
    """
    copies: list[int] = []
    try:
        for _ in range(_MAX_DESCRIPTORS):
            copies.append(os.dup(fd))  # noqa: PERF401 - to have them when one fails
    finally:
        for copy in copies:
            os.close(copy)


class ProcessID(int):
    """
    The ID of a process, with an attribute for it: in AsynQueue 0.9.9, C{spawn} gives
    one or the other.
    """

    @property
    def pid(self) -> int:
        """The ID."""
        return int(self)


class ServerState(Enum):
    """The life of a server."""

    #: Its first process has been started, and doesn't listen yet.
    STARTING = auto()

    #: It listens.
    LISTENING = auto()

    #: Its process has ended by itself, and another doesn't listen yet.
    AWAY = auto()

    #: It has been told to stop.
    STOPPING = auto()

    #: It has ended, and won't be started again.
    GONE = auto()


class ManagedServer:
    """
    A server that is started again when it ends by itself. C{gone} fires when it has
    ended for good.
    """

    # _process is there while a process is, _delay before each. _listeningSince is when
    # the process began to listen, infinity when it doesn't.

    def __init__(
        self,
        setup: Setup,
        backoff: Callable[[int], float] | None,
        *,
        reactor: IProcessReactor,
    ) -> None:
        self.description = setup.description
        self.state = ServerState.STARTING
        self.firstPID: int | None = None
        self.gone: OneShot[None] = OneShot()
        self._setup = setup
        self._backoff = backoff
        self._reactor = reactor
        self._started: Deferred[ProcessID] = Deferred(lambda _: self._abandon())
        self._delay: Deferred[None] | None = None
        self._process: ServerProcess | None = None
        self._listeningSince = inf

    def __repr__(self) -> str:
        return f"<{self._setup.wwu} at {self.description}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> Deferred[ProcessID]:
        """Start it. The Deferred fires when it listens; cancelling it ends it."""
        Deferred.fromCoroutine(self._keepRunning()).addErrback(
            lambda failure: log.failure("A server can't be watched", failure)
        )
        return self._started

    def stop(self) -> Deferred[None]:
        """Stop it, and don't start it again."""
        if self.state not in (ServerState.STOPPING, ServerState.GONE):
            self.state = ServerState.STOPPING
            if self._process is not None:
                self._process.stop()
            elif self._delay is not None:
                self._delay.cancel()
        return self.gone.wait()

    def _abandon(self) -> None:
        """End a process that nobody waits for to listen."""
        self.state = ServerState.STOPPING
        if self._process is not None:
            self._process.kill()

    async def _keepRunning(self) -> None:
        """Run processes until the server is to stop or can't be started."""
        error: Exception = WorkerStartError(f"{self!r} was stopped before")
        failures = 0
        # Not now: the reactor may have yet to tell of the ends of descriptors that are
        # closed, by their numbers, which the pipes of the process would have.
        delay = 0.0
        while await self._isDue(delay):
            status, why = await self._runProcess()
            ended = f"{status}, {why}" if why else str(status)
            if self.state is ServerState.STOPPING:
                if status.exitCode != 0:
                    log.warn("{server}: {ended}", server=self, ended=ended)
                break
            if self.state is ServerState.STARTING:
                error = self._startError(why or ended, status.output)
                break
            report = log.info if status.exitCode == 0 else log.error
            if self._backoff is None:
                report("{server}: {ended}", server=self, ended=ended)
                break
            lasted = self._reactor.seconds() - self._listeningSince
            failures = 1 if lasted >= _GOOD_START_SECONDS else failures + 1
            self._listeningSince = inf
            self.state = ServerState.AWAY
            delay = self._backoff(failures)
            report(
                "{server}: {ended}; it's started again in {delay:.1f} s",
                server=self,
                ended=ended,
                delay=delay,
            )
        self.state = ServerState.GONE
        self.gone.fire(None)
        if not self._started.called:
            self._started.errback(error)

    async def _isDue(self, delay: float) -> bool:
        """Wait until it's time, and tell whether there's to be another process."""
        self._delay = deferLater(self._reactor, delay)
        if self.state is ServerState.STOPPING:
            self._delay.cancel()
        with suppress(CancelledError):
            await self._delay
        self._delay = None
        return self.state is not ServerState.STOPPING

    async def _runProcess(self) -> tuple[ExitStatus, str]:
        process = self._process = ServerProcess(
            self._setup, self._listening, reactor=self._reactor
        )
        d = Deferred.fromCoroutine(process.run())
        if self.firstPID is None:
            self.firstPID = process.pid
        try:
            return await d
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being started
            return ExitStatus(), f"{type(error).__name__}: {error}"
        finally:
            self._process = None

    def _listening(self, pid: int) -> None:
        if self.state is ServerState.STOPPING:
            return
        self.state = ServerState.LISTENING
        self._listeningSince = self._reactor.seconds()
        log.info("{server} listens, process {pid}", server=self, pid=pid)
        if not self._started.called:
            self._started.callback(ProcessID(pid))

    def _startError(self, why: str, output: str) -> Exception:
        lastWords = f"\nIts last words:\n{output}" if output else ""
        isRefused = why.startswith("AuthenticationError:")
        kind = AuthenticationError if isRefused else WorkerStartError
        return kind(
            f"There's no server for {self._setup.wwu} at {self.description}:"
            f" {why}{lastWords}"
        )
