"""The worker at the other end of a connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from enum import Enum, auto
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError as DeferTimeout, succeed
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.status import ErrorText, Status
from .._support.checks import checkCallable, checkCount, checkSeconds
from .._support.log import log
from ..errors import AuthenticationError, WorkerError, WorkerStartError
from ..interfaces import ICancellingWorker, IReplaceableWorker, ITask, IWorker
from ..tasks._workerbase import ConnectingWorker, forWorker
from ._client import CallStage, Client, RemoteCall
from ._credentials import TLS, Key
from ._endpoints import clientEndpoint, requirements
from ._runner import WireWorkerUniverse, classOf, namesOf
from ._values import Codec, DecodingThread


class WireState(Enum):
    """The life of a worker, in order."""

    #: There's no connection yet, and it's being tried.
    CONNECTING = auto()

    #: There's a connection, and the other end has proved who it is.
    READY = auto()

    #: The server is about to go, and takes no more tasks.
    LEAVING = auto()

    #: The worker has been told to stop, and will when it has done what it has accepted.
    STOPPING = auto()

    #: There's no connection any longer, nor will there be.
    DEAD = auto()


@implementer(IWorker, ICancellingWorker, IReplaceableWorker)
class WireWorker(ConnectingWorker):
    """
    Has methods of a universe run by a server, on this machine or another.

    Tasks name a method: C{q.call('add', 1, 2)}. The worker gets tasks of a queue once
    it's connected. When the connection is lost, it resigns; tasks that the server may
    have been running fail with L{WorkerLost}, others go to other workers.

    A keyword C{thread=True} of a call has the method be run in a thread of the server.

    @ivar cQualified: The series C{'wire'} and C{'remote'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar thread: Whether methods are run in threads of the server.

    @ivar capacity: How many tasks it wants to have been given.

    @ivar description: Where the server is.

    @ivar state: A L{WireState}.
    """

    cQualified: list[Hashable] = ["wire", "remote"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        wwu: WireWorkerUniverse | type[WireWorkerUniverse],
        description: str,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int = 1,
        *,
        exclusive: bool = False,
        key: Key | None = None,
        tls: TLS | None = None,
        pickle: bool | None = None,
        insecure: bool = False,
        reconnect: bool = False,
        heartbeat: float | None = 10.0,
        connectTimeout: float = 10.0,
        backoff: Callable[[int], float] | None = None,
        largest: int = 512 << 20,
        reactor: Any = None,
    ) -> None:
        """
        Begin to connect.

        @param wwu: The universe that the server has, an instance of it or its class.

        @param description: Where the server is: C{unix:PATH}; C{tls:HOST:PORT} with
            C{tls}; or C{tcp:HOST:PORT}, on this machine unless there's C{tls}.

        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are, which needs pickles,
            and few can be pickled.

        @param thread: C{True} for methods to be run in threads of the server.

        @param N_concurrent: How many tasks the server may be running at once for this
            worker.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param key: A key that the server must have, too: what
            L{Key.fromFile<asynqueue.wire.Key.fromFile>} gives. It's for TCP on this
            machine, as it doesn't encrypt anything.

        @param tls: Certificates: what L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}
            gives. The server must have one that's accepted.

        @param pickle: Whether pickles are sent and accepted, if the server wants them,
            too. By default, only on Unix sockets, where both ends are the same user's.

        @param insecure: C{True} for TCP without identities, on this machine only.

        @param reconnect: C{True} to connect again after a while when the connection is
            lost, and to go on trying when it can't be made.

        @param heartbeat: The server is asked for a sign of life every so many seconds.
            The connection is lost when three are missed; while the server may be
            running a call of this worker's in its reactor's thread, which keeps it from
            answering, thirty. C{None} for none. The server's own may be another.

        @param connectTimeout: Seconds for the connection to be made.

        @param backoff: Called with how many attempts have failed; gives the seconds
            until the next. By default, that's from one second to a minute.

        @param largest: How many bytes a value may have on its way.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If the first argument isn't a universe, the description no
            text, C{backoff} not callable, or something else no key, or none of C{TLS}.

        @raise ValueError: If a number is out of range, the description can't be
            understood, or something doesn't go with it.

        @raise AuthenticationError: If the description needs an identity that isn't
            given.
        """
        kind = classOf(wwu)
        checkCount("N_concurrent", N_concurrent, 1)
        if heartbeat is not None:
            checkSeconds("heartbeat", heartbeat)
        checkSeconds("connectTimeout", connectTimeout)
        checkCount("largest", largest, 1)
        if backoff is not None:
            checkCallable("backoff", backoff)
        super().__init__(series, raw, exclusive, reconnect, backoff, reactor)
        self.thread = thread
        self.capacity = N_concurrent
        self.description = self._where = description
        self.state = WireState.CONNECTING
        self._wwu = wwu
        # The keywords that a replacement has, too.
        self._keywords: dict[str, Any] = {
            "exclusive": exclusive,
            "key": key,
            "tls": tls,
            "pickle": pickle,
            "insecure": insecure,
            "reconnect": reconnect,
            "heartbeat": heartbeat,
            "connectTimeout": connectTimeout,
            "backoff": backoff,
            "largest": largest,
            "reactor": reactor,
        }
        self._connectTimeout = connectTimeout
        self._names = namesOf(kind)
        required = requirements(
            description, False, key=key, tls=tls, pickle=pickle, insecure=insecure
        )
        self._endpoint = clientEndpoint(required, self._reactor)
        self._decoding = DecodingThread(self._reactor)
        self._makeClient = partial(
            Client,
            self,
            required,
            Codec(kind.allowed, required.pickles),
            tuple(kind.exceptions),
            largest,
            heartbeat,
            self._decoding,
            self._reactor,
        )
        self._client: Client | None = None
        # Calls until there's a connection.
        self._waiting: list[RemoteCall] = []
        self._recycler: Callable[[], object] | None = None
        self._beginToConnect()

    def __repr__(self) -> str:
        return f"<WireWorker {self.ID}, {self.description}, {self.state.name.lower()}>"

    @property
    def hasStopped(self) -> bool:
        isAlive = self.state in (WireState.CONNECTING, WireState.READY)
        return self.ID is not None and not isAlive

    @property
    def tasks(self) -> list[ITask]:
        """The tasks accepted that have no result yet."""
        return [call.task for call in self._calls()]

    def run(self, task: ITask) -> Deferred[None]:
        if self.state is WireState.DEAD:
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        thread = self.thread
        if "thread" in kw:
            kw = dict(kw)
            thread = kw.pop("thread")
        if not isinstance(f, str) or f not in self._names:
            names = ", ".join(sorted(self._names)) or "none"
            error = WorkerError(
                f"Remote workers call methods by name, and there's no method {f!r} in"
                f" {classOf(self._wwu).__name__}; there are: {names}"
            )
            task.callback((Status.ERROR, ErrorText(str(error), error)))
            return succeed(None)
        call = RemoteCall(task, f, args, kw, bool(thread), bool(raw), consumer)
        if self._client is None:
            self._waiting.append(call)
        else:
            self._client.submit(call)
        return call.done

    def stop(self) -> Deferred[None]:
        """Implement L{IWorker.stop}. Iterations that go on are waited for, too."""
        if self.state is WireState.CONNECTING:
            self._giveUp(Failure(WorkerStartError(f"{self!r} was stopped before")))
        elif self.state is not WireState.DEAD:
            self.state = WireState.STOPPING
            self.maybeClose()
        return self._resignAfter(self._gone.wait())

    def crash(self) -> list[ITask]:
        """Implement L{IWorker.crash}: end the connection."""
        tasks = []
        for call in self._abandon():
            if call.iteration is None or call.iteration.release() is not None:
                tasks.append(call.task)
            else:
                call.lose(self._lostError(call.task, "It was crashed"))
            call.fireDone()
        if self.state is WireState.CONNECTING:
            self._giveUp(Failure(WorkerStartError(f"{self!r} was crashed before")))
        elif self._client is not None and self.state is not WireState.DEAD:
            self.state = WireState.STOPPING
            self._client.abort()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: the server stops the work on it.
        """
        call = next((call for call in self._calls() if call.task is task), None)
        if call is not None and self._client is not None:
            call.cancel()
        elif call is not None:
            self._waiting.remove(call)
            call.fireDone()

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        self._recycler = callableObject

    def connected(self, client: Client) -> None:
        """Take the connection, on which the two ends know each other."""
        if self.state is not WireState.CONNECTING:
            client.abort()
            return
        self._client = client
        self._attempts = 0
        self.state = WireState.READY
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            client.submit(call)
        self._connection.fire(None)

    def serverLeaves(self) -> None:
        """Give the server no more tasks."""
        if self.state is not WireState.READY:
            return
        self.state = WireState.LEAVING
        if self._recycler is not None and self.hired:
            self._recycler()
        else:
            self.state = WireState.STOPPING
            self.maybeClose()

    def maybeClose(self) -> None:
        """End the connection if the worker is to stop and has nothing left to do."""
        client = self._client
        if self.state is WireState.STOPPING and client is not None and not client.calls:
            client.close()

    def disconnected(self, client: Client, reason: BaseException) -> None:
        """Resign: the connection is lost."""
        if client is not self._client:
            return
        state, self.state = self.state, WireState.DEAD
        why = str(reason) or type(reason).__name__
        started = (CallStage.SENT, CallStage.ARRIVING, CallStage.ITERATING)
        mayHaveRun = [call for call in client.calls.values() if call.stage in started]
        calls = client.abandon()
        isWanted = state in (WireState.READY, WireState.LEAVING)
        if isWanted or len(calls) > len(mayHaveRun):
            log.warn("{worker} is lost: {why}", worker=self, why=why)
            # First of all, so that a call that is made because of the failures isn't
            # given to this worker.
            self._resign()
        for call in mayHaveRun:
            call.lose(self._lostError(call.task, why))
        for call in calls:
            call.task.callback((Status.DISCONNECTED, None))
            call.fireDone()
        self._end()

    def _another(self) -> WireWorker:
        return self.__class__(
            self._wwu,
            self.description,
            self.iQualified,
            self.raw,
            self.thread,
            self.capacity,
            **self._keywords,
        )

    async def _connect(self) -> None:
        # Not by ClientService: a worker lives for one connection, and its replacement
        # is another worker.
        while True:
            await self._waitToConnect()
            d = Deferred.fromCoroutine(self._open())
            try:
                await d.addTimeout(self._connectTimeout, self._reactor)
                return
            except AuthenticationError:
                raise
            except Exception as error:
                if self.state is not WireState.CONNECTING:
                    return
                if isinstance(error, DeferTimeout):
                    why = f"there was no answer within {self._connectTimeout:g} seconds"
                else:
                    why = Failure(error).getErrorMessage() or type(error).__name__
                if not self._reconnect:
                    raise WorkerStartError(f"{self!r} can't connect: {why}") from error
                report = log.warn if self._attempts == 1 else log.info
                report(
                    "{worker} can't connect, and tries again: {why}",
                    worker=self,
                    why=why,
                )

    async def _open(self) -> None:
        """Open a connection, and have both ends prove who they are."""
        factory = Factory.forProtocol(self._makeClient)
        factory.noisy = False
        client: Any = await self._endpoint.connect(factory)
        await client.opened

    def _giveUp(self, failure: Failure) -> None:
        if self.state is not WireState.CONNECTING:
            return
        self.state = WireState.DEAD
        self._connecting.cancel()
        for call in self._abandon():
            call.task.errback(failure)
            call.fireDone()
        self._connection.fire(failure)
        self._end()

    def _calls(self) -> Collection[RemoteCall]:
        return self._waiting if self._client is None else self._client.calls.values()

    def _abandon(self) -> list[RemoteCall]:
        """Forget all calls: nothing that still comes of them is of interest."""
        waiting, self._waiting = self._waiting, []
        return waiting if self._client is None else self._client.abandon()

    def _end(self) -> None:
        self._decoding.stop().addBoth(lambda _: self._gone.fire(None))
