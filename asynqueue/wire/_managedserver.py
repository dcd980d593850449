"""
A server on this machine that is started again when it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from .._support.childprocess import ExitStatus
from .._support.log import log
from .._support.oneshot import OneShot
from ..errors import AuthenticationError, WorkerStartError
from ._process import ServerExit, ServerProcess, Setup

__all__ = ["ManagedServer", "ProcessID", "ServerState"]

#: After a server that has listened for so long, the delays begin anew.
_GOOD_START_SECONDS = 10.0


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
    """
    The life of a server.
    """

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
    A server that is started again when it ends by itself.

    @ivar firstPID: The ID of the first process that it had.

    @ivar gone: Fires when it has ended for good.
    """

    # _process is there while a process is, _delay before each. _listeningSince is when
    # the process began to listen, None when it doesn't.

    def __init__(
        self, setup: Setup, backoff: Callable[[int], float] | None, *, reactor: Any
    ) -> None:
        self.description = setup.description
        self.state = ServerState.STARTING
        self.firstPID: int | None = None
        self.gone: OneShot[None] = OneShot()
        self._setup = setup
        self._backoff = backoff
        self._reactor = reactor
        self._started: Deferred[ProcessID] = Deferred(lambda _: self._abandon())
        self._process: ServerProcess | None = None
        self._delay: Deferred[None] | None = None
        self._listeningSince: float | None = None

    def __repr__(self) -> str:
        return f"<{self._setup.wwu} at {self.description}>"

    @property
    def pid(self) -> int | None:
        """The ID of its process, C{None} when there's none."""
        return None if self._process is None else self._process.pid

    def start(self) -> Deferred[ProcessID]:
        """
        Start it.

        @return: A Deferred that fires with the ID of its process when it listens. It
            fails with L{AuthenticationError} or L{WorkerStartError} if it can't. Its
            process is ended if the Deferred is cancelled.
        """
        Deferred.fromCoroutine(self._keepRunning()).addErrback(
            lambda failure: log.failure("A server can't be watched", failure)
        )
        return self._started

    def stop(self) -> Deferred[None]:
        """
        Stop it, and don't start it again.

        @return: A Deferred that fires with C{None} when its process has ended.
        """
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
        """
        Run one process after the other until the server is to stop or can't be started.
        """
        error: Exception = WorkerStartError(f"{self!r} was stopped before")
        failures = 0
        # Not now: the reactor may have yet to tell of the ends of descriptors that are
        # closed, by their numbers, which the pipes of the process would have.
        self._delay = deferLater(self._reactor, 0)
        while await self._isDue(self._delay):
            ended = await self._runProcess()
            if self.state is ServerState.STOPPING:
                if ended.status.exitCode != 0:
                    log.warn("{server}: {ended}", server=self, ended=str(ended))
                break
            if self.state is ServerState.STARTING:
                error = self._startError(ended)
                break
            report = log.info if ended.status.exitCode == 0 else log.error
            if self._backoff is None:
                report("{server}: {ended}", server=self, ended=str(ended))
                break
            failures = 1 if self._hadGoodStart() else failures + 1
            delay = self._backoff(failures)
            self.state = ServerState.AWAY
            self._delay = deferLater(self._reactor, delay)
            report(
                "{server}: {ended}; it's started again in {delay:.1f} s",
                server=self,
                ended=str(ended),
                delay=delay,
            )
        self.state = ServerState.GONE
        self.gone.fire(None)
        if not self._started.called:
            self._started.errback(error)

    async def _isDue(self, delay: Deferred[None]) -> bool:
        """Wait for the time of the next process, and tell whether there's to be one."""
        try:
            await delay
        except CancelledError:
            return False
        finally:
            self._delay = None
        return self.state is not ServerState.STOPPING

    async def _runProcess(self) -> ServerExit:
        process = self._process = ServerProcess(
            self._setup, self._listening, reactor=self._reactor
        )
        d = process.run()
        if self.firstPID is None:
            self.firstPID = process.pid
        try:
            return await d
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being started
            return ServerExit(ExitStatus(), type(error).__name__, str(error))
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

    def _hadGoodStart(self) -> bool:
        since, self._listeningSince = self._listeningSince, None
        if since is None:
            return False
        return bool(self._reactor.seconds() - since >= _GOOD_START_SECONDS)

    def _startError(self, ended: ServerExit) -> Exception:
        why = f"{ended.error}: {ended.text}" if ended.error else str(ended.status)
        output = ended.status.output
        lastWords = f"\nIts last words:\n{output}" if output else ""
        message = (
            f"There's no server for {self._setup.wwu} at {self.description}:"
            f" {why}{lastWords}"
        )
        if ended.error == "AuthenticationError":
            return AuthenticationError(message)
        return WorkerStartError(message)
