"""The server that runs methods of a universe for its clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore, execute, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny

from .._child.status import Status
from .._support.awaitable import OneShot
from .._support.checks import checkCount, checkSeconds
from .._support.log import log
from .._support.reactor import Deadline, IReactorAll, orGlobalReactor
from ._authentication import Pending, ServerHandshake
from ._commands import Leaving, Violation, numberOf, runTraced
from ._credentials import TLS, Key
from ._endpoints import requirements, serverEndpoint
from ._iterations import answerOf
from ._runner import WireRunner, WireWorkerUniverse, classOf
from ._tasks import ServedTask, Shared, TaskConnection, errorBox
from ._values import Codec, DecodingThread, dumpsText

#: Seconds that a client has to answer that the server is about to go.
_LEAVING_SECONDS = 2.0


class Session(TaskConnection):
    """The server's end of a connection. C{gone} fires when that has ended."""

    def __init__(self, shared: Shared, reactor: IReactorTime) -> None:
        super().__init__(shared, reactor)
        self.gone: OneShot[None] = OneShot()
        # Whether the client may still send tasks, for all that's known.
        self._mayCome = True
        self._count = 0
        self.handshake = ServerHandshake(
            self, shared.pending, shared.maxTasks, shared.codec.pickles, self._greeted
        )

    def __repr__(self) -> str:
        return f"<client with {len(self.tasks)} tasks>"

    def open(self) -> None:
        super().open()
        self.responders |= {
            b"RunTask": self._runTask,
            b"GetNext": self._getNext,
            b"Cancel": self._cancelTask,
        }

    def _greeted(self, acceptsPickles: bool) -> None:
        """The client has said whether it accepts pickles."""
        if acceptsPickles:
            self.codec = self.shared.codec

    def leave(self) -> None:
        """Take no more tasks, and end the connection when running ones are done."""
        if not self.isOpen:
            self.abort()
        if self.isLeaving or self.isOver:
            return
        self.isLeaving = True
        d = self.callRemote(Leaving)
        d.addTimeout(_LEAVING_SECONDS, self.reactor).addBoth(self._noMoreCome)
        for task in list(self.tasks.values()):
            if not task.isRunning:
                task.cancel()
            elif task.iteration is not None:
                task.iteration.hurry()

    def lost(self, reason: BaseException) -> None:
        for task in list(self.tasks.values()):
            task.cancel()
        self.gone.fire(None)

    def _noMoreCome(self, _: object) -> None:
        self._mayCome = False
        self._maybeClose()

    def _maybeClose(self) -> None:
        if self.isLeaving and not self._mayCome and not self.tasks:
            self.close()

    def _runTask(self, box: amp.Box) -> amp.Box | Deferred[amp.Box]:
        ID = box.get(b"ID")
        if ID is None:
            # Beyond those that the client may give.
            self._count += 1
            ID = b"_%d" % self._count
        elif ID in self.tasks or ID.startswith(b"_"):
            raise Violation("a task with an ID that it can't have")
        task = ServedTask(self, ID, box)
        if self.isLeaving:
            return amp.Box(status=Status.DISCONNECTED)
        why = task.whyRefused()
        if why:
            return errorBox("WorkerError", why)
        self.tasks[ID] = task
        return runTraced(box, task.start)

    def _cancelTask(self, box: amp.Box) -> None:
        task = self.tasks.get(box[b"ID"])
        if task is not None:
            task.cancel()

    def forget(self, task: ServedTask) -> None:
        super().forget(task)
        if self.isLeaving:
            # The answer is to be sent first.
            self.reactor.callLater(0, self._maybeClose)

    def _getNext(self, box: amp.Box) -> Deferred[amp.Box]:
        task = self.tasks.get(box[b"ID"])
        count = numberOf(box[b"count"]) if b"count" in box else None
        if task is not None and task.iteration is not None:
            return Deferred.fromCoroutine(task.iteration.getNext(count))
        error = dumpsText("WorkerError", "There's no such iteration, or it has ended")
        answer = amp.Box(error=error, isValid=b"False", moreLeft=b"False")
        return execute(answerOf, [], answer, count)


class WireService(Service):  # type: ignore[misc, unused-ignore]
    """A server as a service. It listens before privileges are dropped."""

    name = "asynqueue"

    def __init__(
        self, server: WireServer, failed: Callable[[Failure], object] | None = None
    ) -> None:
        self._server = server
        # Called if it can't listen, and may raise something to end the program.
        self._failed = failed or partial(log.failure, "The server can't be started")
        self._isListening = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._listen()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._isListening = False
        return self._server.stop()

    def _listen(self) -> None:
        if self._isListening:
            return
        self._isListening = True
        failures: list[Failure] = []
        d = self._server.start()
        if d.called:
            # What it raises gets out only from here, not from a callback.
            d.addErrback(failures.append)
            for failure in failures:
                self._failed(failure)
        else:
            d.addErrback(self._failed)


class WireServer:
    """
    Serves the public methods of a universe. It can be started again when it has
    stopped.

    @ivar description: Where it listens.

    @ivar wwu: The universe. Its attribute C{ws} is the server.

    @ivar runner: What runs the methods.

    @ivar service: The server as a service of C{twisted.application}.

    @ivar port: What listens, C{None} when nothing does.
    """

    def __init__(
        self,
        description: str,
        wwu: WireWorkerUniverse | str,
        *,
        key: Key | None = None,
        tls: TLS | None = None,
        pickle: bool | None = None,
        insecure: bool = False,
        concurrent: int | None = None,
        threads: int = 16,
        largest: int = 512 << 20,
        maxTasks: int = 1000,
        maxIterators: int = 1000,
        maxHeld: int = 1 << 30,
        heartbeat: float | None = 10.0,
        stopTimeout: float | None = None,
        reactor: Any = None,
    ) -> None:
        """
        Make a server that doesn't listen yet.

        @param description: Where it's to listen: C{unix:PATH}, in a folder that is the
            user's alone, and is made if there's none; C{tls:PORT} with C{tls}; or
            C{tcp:PORT}, on this machine alone unless there's C{tls}.

        @param wwu: The universe, or the dotted name of a subclass of
            L{WireWorkerUniverse}, or of an instance.

        @param key: A key that the clients must have, too: what
            L{Key.fromFile<asynqueue.wire.Key.fromFile>} gives. It's for TCP on this
            machine, as it doesn't encrypt anything.

        @param tls: Certificates: what L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}
            gives. Clients must have one that's accepted.

        @param pickle: Whether pickles are sent and accepted, if the client wants them,
            too. By default, only on Unix sockets, where both ends are the same user's.

        @param insecure: C{True} for TCP without identities, on this machine only. Every
            user of it can call what is served then.

        @param concurrent: How many tasks are run at once, of all clients together.
            Further ones are held back. C{None} for as many as come.

        @param threads: How many of them are run in threads at once. As many threads
            again may be stuck in calls that nobody waits for any longer.

        @param largest: How many bytes a value may have on its way.

        @param maxTasks: How many tasks a client may have here that aren't done. Its
            worker keeps the rest.

        @param maxIterators: How many iterations of a client may be going on.

        @param maxHeld: How many bytes of large arguments of a client may be on their
            way or in use. Further ones wait.

        @param heartbeat: Clients are asked for a sign of life every so many seconds.
            One is lost when three are missed. C{None} for none.

        @param stopTimeout: When the server is stopped, running tasks have so many
            seconds to be done. C{None} for as long as they take; iterations of which no
            more is asked for are ended in any case.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If that's no universe, or no key, or none of C{TLS}.

        @raise ValueError: If a number is out of range, the description can't be
            understood, or something doesn't go with it.

        @raise AuthenticationError: If there must be an identity, and none is given, or
            if others could get at the socket, or into what is said with pickles.
        """
        for name, number in (
            ("concurrent", 1 if concurrent is None else concurrent),
            ("threads", threads),
            ("largest", largest),
            ("maxTasks", maxTasks),
            ("maxIterators", maxIterators),
            ("maxHeld", maxHeld),
        ):
            checkCount(name, number, 1)
        if heartbeat is not None:
            checkSeconds("heartbeat", heartbeat)
        if stopTimeout is not None:
            checkSeconds("stopTimeout", stopTimeout, zero=True)
        self._reactor: IReactorAll = orGlobalReactor(reactor)
        self.description = description
        self.wwu = _universeOf(wwu, self)
        self.port: IListeningPort | None = None
        self._stopTimeout = stopTimeout
        self.runner = WireRunner(self.wwu, maxStuck=threads, reactor=self._reactor)
        required = requirements(
            description, True, key=key, tls=tls, pickle=pickle, insecure=insecure
        )
        self._shared = Shared(
            required,
            self.runner,
            Codec(self.wwu.allowed, required.pickles),
            largest,
            maxTasks,
            maxIterators,
            maxHeld,
            None if concurrent is None else DeferredSemaphore(concurrent),
            DeferredSemaphore(threads),
            Pending(),
            DecodingThread(self._reactor),
            heartbeat,
        )
        self._endpoint = serverEndpoint(required, self._reactor)
        self._sessions: set[Session] = set()
        # Fires when it has stopped, C{None} if it isn't to.
        self._stopped: OneShot[None] | None = None
        # When it stops, the end of the time for that.
        self._deadline = Deadline(self._abortAll, self._reactor)
        self.service = WireService(self)

    def __repr__(self) -> str:
        return f"<WireServer {self.description}, {len(self._sessions)} clients>"

    def start(self) -> Deferred[None]:
        """
        Begin to listen.

        @return: A Deferred that fires with C{None} when it does. It fails if that's
            not possible there, and with L{AuthenticationError
            <asynqueue.errors.AuthenticationError>} if others could get at the socket.
        """
        return Deferred.fromCoroutine(self._start())

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """
        Listen no longer, tell the clients to send no more tasks, and let running ones
        be done.

        @param timeout: Seconds for that, 0 for none. By default, what C{stopTimeout}
            says. It may be called again with less.

        @return: A Deferred that fires with C{None} when the last client is gone, and
            nothing is left.
        """
        stopped = self._stopped
        if stopped is None:
            stopped = self._stopped = OneShot()
            self._deadline = Deadline(self._abortAll, self._reactor)
            if timeout is None:
                timeout = self._stopTimeout
            Deferred.fromCoroutine(self._stop(stopped))
        if timeout is not None and not stopped.hasFired:
            self._deadline.within(timeout)
        return stopped.wait()

    async def _start(self) -> None:
        stopped = self._stopped
        if stopped is not None:
            await stopped.wait()
            self._stopped = None
        factory = Factory.forProtocol(self._makeSession)
        factory.noisy = False
        self.port = await self._endpoint.listen(factory)
        log.info("{server} is there", server=self)
        if self._stopped is not None:
            # It was asked for meanwhile.
            await self._stopListening()

    async def _stop(self, stopped: OneShot[None]) -> None:
        await self._stopListening()
        self._shared.pending.abortAll()
        for session in list(self._sessions):
            session.leave()
        while self._sessions:
            await next(iter(self._sessions)).gone.wait()
        self._deadline.callOff()
        await self._shared.runner.shutdown()
        await self._shared.decoding.stop()
        stopped.fire(None)

    async def _stopListening(self) -> None:
        if self.port is not None:
            try:
                await maybeDeferred(self.port.stopListening)
            except OSError as error:
                # Somebody has taken the socket's file away.
                log.warn("{server}: {error}", server=self, error=error)
            self.port = None

    def _abortAll(self) -> None:
        for session in list(self._sessions):
            session.abort()

    def _makeSession(self) -> Session:
        session = Session(self._shared, self._reactor)
        self._sessions.add(session)
        session.gone.wait().addCallback(lambda _: self._sessions.remove(session))
        return session


def _universeOf(wwu: Any, server: WireServer) -> WireWorkerUniverse:
    """Get a universe: given itself, its class, or the dotted name of either."""
    if isinstance(wwu, str):
        try:
            wwu = namedAny(wwu)
        except Exception as error:
            raise TypeError(
                f"There's no universe {wwu!r}: {type(error).__name__}: {error}"
            ) from error
    kind = classOf(wwu)
    if isinstance(wwu, type):
        return kind(server)
    universe: WireWorkerUniverse = wwu
    universe.ws = server
    return universe
