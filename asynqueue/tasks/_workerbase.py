"""What workers of several kinds have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .._child.calls import TracedCall
from .._child.status import Status
from .._support.awaitable import OneShot
from .._support.checks import checkFlag, seriesList
from .._support.reactor import orGlobalReactor
from ..errors import WorkerLost
from ..interfaces import ITask
from ..iteration import Deferator, IterationProducer
from ..iteration._sources import BufferedSource

_T = TypeVar("_T")
_Self = TypeVar("_Self", bound="ConnectingWorker")


class WorkerBase:
    """
    The attributes that L{IWorker<asynqueue.interfaces.IWorker>} asks for and that the
    employer sets, and resigning.
    """

    cQualified: list[Hashable] = []  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        exclusive: bool = False,
    ) -> None:
        checkFlag("raw", raw)
        checkFlag("exclusive", exclusive)
        self.iQualified = seriesList(series)
        self.raw = raw
        self.exclusive = exclusive
        # The employer sets these four while the worker is hired, or being let go.
        self.ID: int | None = None
        self.hired = False
        self.isLeaving = False
        self.assignments: dict[Hashable, list[Deferred[object]]] = {}
        self._resignator: Callable[[], object] | None = None
        # Whether another than the employer has stopped it, who doesn't want a worker in
        # its place.
        self.isDismissed = False

    @property
    def hasStopped(self) -> bool:
        """Whether nobody can employ it any longer."""
        return False

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        self._resignator = callableObject

    def _resign(self) -> None:
        """Tell the employer, if there is one, that the worker can't work any longer."""
        if self._resignator is not None:
            self._resignator()

    def _resignAfter(self, stopped: Deferred[_T]) -> Deferred[_T]:
        """
        Have C{stop} end in resigning when it's called by another than the employer,
        who takes the worker off its roster first.
        """
        if self.hired:
            self.isDismissed = True
            stopped.addCallback(self._passOnAndResign)
        return stopped

    def _passOnAndResign(self, result: _T) -> _T:
        self._resign()
        return result


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


class RemoteIteration:
    """
    The near side of an iteration that goes on somewhere else.

    Its task has its result when the first word of it has come, because an empty
    iterator comes as an empty list; with a consumer, when it's told of that.
    """

    def __init__(self, task: ITask, source: BufferedSource) -> None:
        self.task = task
        # Whether the task has its result, or has been let go.
        self._begun = False
        self._source = source

    def feed(self, consumer: IConsumer) -> None:
        """
        Let a consumer have the items. If it refuses, the task fails with its error, and
        the iteration is ended.
        """
        self._begun = True
        try:
            producer = IterationProducer(Deferator(self._source), consumer)
        except Exception:  # noqa: BLE001 - the consumer is the user's
            self._source.stop()
            self.task.errback(Failure())
        else:
            self.task.callback((Status.ITERATOR, producer))

    def end(self) -> None:
        """Note that the iteration has come to its end."""
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, []))
        self._source.end()

    def lose(self, failure: Failure) -> None:
        """Fail after the items that have come: who made them is lost."""
        if self._begun:
            self._source.end(failure)
        else:
            self._begun = True
            self.task.errback(failure)

    def release(self) -> ITask | None:
        """Let go of the task, and give it back, if it has no result yet."""
        if self._begun:
            return None
        self._begun = True
        return self.task

    def _begin(self) -> None:
        """Give the task its result, if it hasn't got it."""
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, Deferator(self._source)))


def forWorker(
    callTuple: tuple[Any, tuple[Any, ...], dict[str, Any]], raw: bool
) -> tuple[Any, tuple[Any, ...], dict[str, Any], bool, Any]:
    """
    Take the keywords that are meant for the worker out of a task's call.

    @param raw: Whether the worker gives iterators back as they are, unless the call
        says otherwise.

    @return: The callable, its arguments, its keywords; whether an iterator is given
        back as it is; the consumer of an iterator, or C{None}.
    """
    f, args, kw = callTuple
    if not kw or kw.keys().isdisjoint(("consumer", "doNext", "raw")):
        return f, args, kw, raw, None
    kw = dict(kw)
    kw.pop("doNext", None)
    return f, args, kw, bool(kw.pop("raw", raw)), kw.pop("consumer", None)


def traced(f: object, task: ITask, raw: bool) -> object:
    """
    Have a callable take the context of its task's trace along, if there's any.

    @param raw: Whether an iterator is a result like any other.
    """
    headers = None if task.watch is None else task.watch.headers
    return f if headers is None else TracedCall(f, headers, raw)
