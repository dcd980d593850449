"""What workers at the other end of a connection have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.reactor import orGlobalReactor
from ..errors import WorkerLost
from ..interfaces import ITask
from ._workerbase import WorkerBase

_Self = TypeVar("_Self", bound="ConnectingWorker")


class ConnectingWorker(WorkerBase):
    """
    A worker that lives for one connection. After that, another may take its place, and
    connects after a while.
    """

    # _connection fires when the worker is connected, or never will be, _gone when
    # nothing is left of the connection. _connecting is the attempt to connect, or the
    # wait until the next. _attempts counts those in a row that led to nothing, also of
    # the workers before this one. _where is what it connects to, for messages.

    _connecting: Deferred[None]
    _where: str

    def __init__(
        self,
        series: Iterable[Hashable],
        raw: bool,
        exclusive: bool,
        reconnect: bool,
        backoff: Callable[[int], float] | None,
        reactor: IReactorTime | None,
    ) -> None:
        super().__init__(series, raw, exclusive)
        self._reconnect = reconnect
        self._backoff = backoff or backoffPolicy()
        self._reactor: Any = orGlobalReactor(reactor)
        self._connection: OneShot[Any] = OneShot()
        self._gone: OneShot[None] = OneShot()
        self._attempts = 0

    def deferUntilReady(self) -> Deferred[None]:
        """
        @return: A Deferred that fires with C{None} when the worker is connected. It
            fails with L{AuthenticationError<asynqueue.errors.AuthenticationError>} if
            one end doesn't accept the other's identity, and with L{WorkerStartError
            <asynqueue.errors.WorkerStartError>} if there's no connection for another
            reason.
        """
        return self._connection.wait()

    def deferUntilGone(self) -> Deferred[None]:
        return self._gone.wait()

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        """It never asks to be replaced."""

    def updatesApplied(self, text: str | None) -> None:
        """The worker works all the same if an update has failed."""

    def replacement(self: _Self) -> _Self | None:
        """
        @return: A worker like this one, which connects after a while. C{None} without
            C{reconnect=True}.
        """
        if not self._reconnect:
            return None
        # Even if this one was connected: what it was connected to has just gone.
        return self._anotherAfter(max(1, self._attempts))

    def retryReplacement(self: _Self) -> _Self:
        return self._anotherAfter(self._attempts)

    @abstractmethod
    async def _connect(self) -> None:
        """Connect, each attempt after L{_waitToConnect}."""

    @abstractmethod
    def _giveUp(self, failure: Failure) -> None:
        """Don't try to connect any longer."""

    @abstractmethod
    def _another(self: _Self) -> _Self:
        """Make a worker like this one."""

    def _anotherAfter(self: _Self, attempts: int) -> _Self:
        another = self._another()
        another._connecting.cancel()
        another._attempts = attempts
        another._beginToConnect()
        return another

    def _beginToConnect(self) -> None:
        self._connecting = Deferred.fromCoroutine(self._connect())
        self._connecting.addErrback(self._connectFailed)

    def _connectFailed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._giveUp(failure)

    async def _waitToConnect(self) -> None:
        """Wait for a while, if it has been tried before."""
        delay = self._backoff(self._attempts) if self._attempts else 0
        await deferLater(self._reactor, delay)
        self._attempts += 1

    def _lostError(self, task: ITask, why: str) -> WorkerLost:
        return WorkerLost(
            f"Worker {self.ID} was lost while {self._where} may have been running"
            f" {task!r}: {why}",
            workerID=self.ID,
            task=task,
        )
