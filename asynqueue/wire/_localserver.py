"""
A server on this machine that is started, watched, and started again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from .._support.exitstatus import ExitStatus
from .._support.log import log
from ..errors import AuthenticationError, WorkerStartError
from ._serverprocess import ServerProcess
from ._setup import Setup

__all__ = ["LocalServer", "State"]

#: A server that has listened for so many seconds has had a good start, and the next one
#: isn't waited for as long as one after several bad ones.
_GOOD_START = 10.0


class State(Enum):
    """
    The life of a server.
    """

    #: Its process has been started for the first time, and it doesn't listen yet.
    STARTING = auto()

    #: It listens.
    LISTENING = auto()

    #: Its process has ended though nobody had asked for that, and it's being started
    #: again, or will be.
    AWAY = auto()

    #: It has been told to stop.
    STOPPING = auto()

    #: It has ended, and won't be started again.
    GONE = auto()


class LocalServer:
    """
    A server on this machine.

    @ivar description: Where it listens.

    @ivar state: A L{State}.

    @ivar pid: The ID of its process, C{None} when there's none.

    @ivar firstPID: The ID of the first process that it had.
    """

    def __init__(
        self,
        setup: Setup,
        backoff: Callable[[int], float] | None,
        gone: Callable[[LocalServer], object],
        *,
        reactor: Any,
    ) -> None:
        """
        Prepare to start it.

        @param setup: What its process is told.

        @param backoff: Called with how often in a row the process has ended, gives the
            seconds until another is started. C{None} not to start another.

        @param gone: Called when it has ended for good.

        @param reactor: The reactor.
        """
        self.description = setup.description
        self.state = State.STARTING
        self.firstPID: int | None = None
        self._setup = setup
        self._backoff = backoff
        self._gone = gone
        self._reactor = reactor
        self._process: ServerProcess | None = None
        self._started: Deferred[int] | None = None
        self._waiters: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._ends = 0
        self._since: float | None = None

    def __repr__(self) -> str:
        """
        Name it by universe and place.
        """
        return f"<{self._setup.wwu} at {self.description}>"

    @property
    def pid(self) -> int | None:
        """
        The ID of its process, C{None} when there's none.
        """
        return None if self._process is None else self._process.pid

    def start(self) -> Deferred[int]:
        """
        Start it.

        @return: A Deferred that fires with the ID of its process when it listens. It
            fails with L{AuthenticationError} or L{WorkerStartError} if it can't. Its
            process is ended if the Deferred is cancelled.
        """
        d = self._started = Deferred(lambda _: self._abandon())
        self._launch()
        return d

    def stop(self) -> Deferred[None]:
        """
        Stop it, and don't start it again.

        @return: A Deferred that fires with C{None} when its process has ended.
        """
        if self.state is State.GONE:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._waiters.append(d)
        if self.state is not State.STOPPING:
            self.state = State.STOPPING
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if self._process is None:
                self._over()
            else:
                self._process.stop()
        return d

    def _abandon(self) -> None:
        """
        End a process that nobody waits for to listen.
        """
        self.state = State.STOPPING
        self._started = None
        if self._process is not None:
            self._process.kill()

    def _launch(self) -> None:
        """
        Start a process.
        """
        self._timer = None
        process = self._process = ServerProcess(
            self._setup, self._listening, self._ended, reactor=self._reactor
        )
        try:
            process.start()
        except Exception as error:  # noqa: BLE001 - nobody else would note its end
            self._ended(ExitStatus(), type(error).__name__, str(error))
            return
        if self.firstPID is None:
            self.firstPID = process.pid

    def _listening(self, pid: int) -> None:
        """
        Note that it listens.

        @param pid: The ID of its process.
        """
        if self.state is State.STOPPING:
            return
        self.state = State.LISTENING
        self._since = self._reactor.seconds()
        log.info("{server} listens, process {pid}", server=self, pid=pid)
        d, self._started = self._started, None
        if d is not None:
            d.callback(pid)

    def _ended(self, how: ExitStatus, name: str, text: str) -> None:
        """
        Note that its process has ended.

        @param how: How.

        @param name: The type of the error that has kept it from listening.

        @param text: The error's text.
        """
        self._process = None
        since, self._since = self._since, None
        if self.state is State.STOPPING:
            self._over()
            if how.exitCode != 0:
                log.warn("{server}: {how}", server=self, how=str(how))
        elif self.state is State.STARTING:
            self._over(self._startError(how, name, text))
        elif self._backoff is None:
            self._over()
            log.error("{server}: {how}", server=self, how=str(how))
        else:
            self.state = State.AWAY
            good = since is not None and self._reactor.seconds() - since >= _GOOD_START
            self._ends = 1 if good else self._ends + 1
            delay = self._backoff(self._ends)
            self._timer = self._reactor.callLater(delay, self._launch)
            log.error(
                "{server}: {how}{why}; it's started again in {delay:.1f} s",
                server=self,
                how=str(how),
                why=f", {name}: {text}" if name else "",
                delay=delay,
            )

    def _over(self, error: Exception | None = None) -> None:
        """
        Tell that it has ended for good.

        @param error: Why it couldn't be started.
        """
        self.state = State.GONE
        self._gone(self)
        d, self._started = self._started, None
        if d is not None:
            d.errback(error or WorkerStartError(f"{self!r} was stopped before"))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _startError(self, how: ExitStatus, name: str, text: str) -> Exception:
        """
        Make the error of a server that can't be started.

        @param how: How its process has ended.

        @param name: The type of the error that has kept it from listening.

        @param text: The error's text.

        @return: The error.
        """
        why = f"{name}: {text}" if name else str(how)
        lastWords = f"\nIts last words:\n{how.output}" if how.output else ""
        message = (
            f"There's no server for {self._setup.wwu} at {self.description}:"
            f" {why}{lastWords}"
        )
        kind = AuthenticationError if name == "AuthenticationError" else None
        return (kind or WorkerStartError)(message)
