"""
The server that runs methods of a universe for its clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny

from .._support.checks import checkSeconds
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ._credentials import TLS, Key
from ._doors import Doors
from ._endpoints import mayPickle, requirements, serverEndpoint
from ._limits import Limits
from ._runner import WireRunner
from ._served import ServedPeer
from ._servergate import ServerGate
from ._slots import Slots
from ._universe import WireWorkerUniverse, classOf
from ._values import Codec

__all__ = ["WireServer", "WireService"]


class WireService(Service):  # type: ignore[misc, unused-ignore]
    """
    A server as a service of C{twisted.application}.
    """

    name = "asynqueue"

    def __init__(
        self,
        server: WireServer,
        failed: Callable[[Failure], object] | None = None,
    ) -> None:
        """
        Make a service.

        @param server: The server.

        @param failed: Called if the server can't listen, and may raise something to end
            the program. By default, that's logged.
        """
        self._server = server
        self._failed = failed or (
            lambda failure: log.failure("The server can't be started", failure)
        )
        self._isListening = False

    def privilegedStartService(self) -> None:
        """
        Listen, while ports below 1024 can be had.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Listen, if that hasn't been done: C{twist} starts services without privileges.
        """
        super().startService()
        self._listen()

    def stopService(self) -> Deferred[None]:
        """
        Stop the server.

        @return: A Deferred that fires when it has stopped.
        """
        super().stopService()
        self._isListening = False
        return self._server.stop()

    def _listen(self) -> None:
        if self._isListening:
            return
        self._isListening = True
        failures: list[Failure] = []
        self._server.start().addErrback(failures.append)
        # Endpoints of servers fail at once, and an error ends the program only here.
        for failure in failures:
            self._failed(failure)


class WireServer:
    """
    Serves the public methods of a universe.

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
            L{Key.fromFile<asynqueue.wire.Key.fromFile>} gives. By itself it's enough on
            this machine only, as it doesn't encrypt anything.

        @param tls: Certificates: what L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}
            gives. Clients must have one that's accepted.

        @param pickle: Whether pickles are sent and accepted, if the client wants them,
            too. By default, only on Unix sockets, where both ends are the same user's.

        @param insecure: C{True} for TCP without identities, on this machine only. Every
            user of it can call what is served then.

        @param concurrent: How many tasks are run at once, of all clients together.
            Further ones are held back. C{None} for as many as come.

        @param threads: How many of them are run in threads at once.

        @param largest: How many bytes a value may have on its way.

        @param maxTasks: How many tasks a client may have here that aren't done.

        @param maxIterators: How many iterations of a client may be going on.

        @param maxHeld: How many bytes of arguments of a client may be on their way.

        @param heartbeat: Seconds between signs of life. A client is lost when three are
            missed. C{None} for none.

        @param stopTimeout: When the server is stopped, running tasks have so many
            seconds to be done. C{None} for as long as they take.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If that's no universe, or no key, or none of C{TLS}.

        @raise ValueError: If a number is out of range, the description can't be
            understood, or something doesn't go with it.

        @raise AuthenticationError: If there must be an identity, and none is given, or
            if others could get at the socket, or into what is said with pickles.
        """
        self._reactor: Any = orGlobalReactor(reactor)
        self._limits = Limits(largest, maxTasks, maxIterators, maxHeld)
        for name, number in (("concurrent", concurrent), ("threads", threads)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be a positive integer, not {number!r}")
        if heartbeat is not None:
            checkSeconds("heartbeat", heartbeat)
        if stopTimeout is not None:
            checkSeconds("stopTimeout", stopTimeout, zero=True)
        self.description = description
        self.wwu = _universe(wwu, self)
        self.runner = WireRunner(self.wwu, reactor=self._reactor)
        self.port: IListeningPort | None = None
        self._slots = Slots(concurrent, threads)
        self._heartbeat = heartbeat
        self._stopTimeout = stopTimeout
        pickles = mayPickle(description, pickle, tls)
        self._codec = Codec(self.wwu.allowed, pickles)
        self._peers: set[ServedPeer] = set()
        self._stopping = False
        self._closed = False
        self._stopped = False
        self._stopWaiters: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None
        self._doors = Doors()
        self._required = requirements(
            description, True, key=key, tls=tls, insecure=insecure
        )
        self._endpoint = serverEndpoint(self._required, self._reactor)
        self.service = WireService(self)

    def __repr__(self) -> str:
        """
        Name the server.
        """
        return f"<WireServer {self.description}, {len(self._peers)} clients>"

    def start(self) -> Deferred[None]:
        """
        Begin to listen.

        @return: A Deferred that fires with C{None} when it does. It fails if that's
            not possible there, and with L{AuthenticationError
            <asynqueue.errors.AuthenticationError>} if others could get at the socket.
        """
        factory: Any = Factory.forProtocol(
            lambda: ServerGate(
                self._makePeer, self._required, self._doors, self._reactor, pickles
            )
        )
        factory.noisy = False
        pickles = self._codec.pickles
        return self._endpoint.listen(factory).addCallback(self._listening)

    def stop(self) -> Deferred[None]:
        """
        Listen no longer, tell the clients to send no more tasks, and let running ones
        be done.

        @return: A Deferred that fires with C{None} when the last client is gone, and
            nothing is left.
        """
        if self._stopped:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._stopWaiters.append(d)
        if not self._stopping:
            self._stopping = True
            Deferred.fromCoroutine(self._stop()).addErrback(
                lambda failure: log.failure("The server failed to stop", failure)
            )
        return d

    def _listening(self, port: IListeningPort) -> None:
        """
        Note that there's a port.

        @param port: What listens.
        """
        self.port = port
        log.info("{server} is there", server=self)

    async def _stop(self) -> None:
        """
        Stop.
        """
        port, self.port = self.port, None
        if port is not None:
            try:
                await _asDeferred(port.stopListening())
            except OSError as error:
                # Somebody has taken the socket's file away.
                log.warn("{server}: {error}", server=self, error=error)
        self._closed = True
        self._doors.close()
        if self._stopTimeout is not None:
            self._deadline = self._reactor.callLater(self._stopTimeout, self._abortAll)
        for peer in list(self._peers):
            peer.leave()
        self._maybeStopped()

    def _abortAll(self) -> None:
        """
        End all connections at once.
        """
        for peer in list(self._peers):
            peer.abort()

    def _makePeer(self) -> ServedPeer:
        """
        Make the server's end of a connection.

        @return: It.
        """
        peer = ServedPeer(
            self.runner,
            self._slots,
            self._codec,
            self._limits,
            self._heartbeat,
            self._inThread,
            self._gone,
            self._reactor,
        )
        self._peers.add(peer)
        return peer

    def _gone(self, peer: ServedPeer) -> None:
        """
        Note that a connection has ended.

        @param peer: The server's end of it.
        """
        self._peers.discard(peer)
        if self._stopping:
            self._maybeStopped()

    def _maybeStopped(self) -> None:
        """
        Tell those who wait that the server has stopped, if it has.
        """
        if self._peers or self._stopped or not self._closed:
            return
        self._stopped = True
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        self.runner.shutdown().addBoth(self._fireStopped)

    def _fireStopped(self, result: object) -> None:
        """
        Tell those who wait that the server has stopped.

        @param result: C{None}, or how that has failed.
        """
        if isinstance(result, Failure):
            log.failure("Threads of the server failed to end", result)
        waiters, self._stopWaiters = self._stopWaiters, []
        for d in waiters:
            d.callback(None)

    def _inThread(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """
        Call something in a thread.

        @param f: The callable.

        @param args: Its arguments.

        @return: A Deferred that fires with what it returns.
        """
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, f, *args)


def _universe(wwu: Any, server: WireServer) -> WireWorkerUniverse:
    """
    Get a universe.

    @param wwu: It, or its class, or the dotted name of either.

    @param server: Its server.

    @return: The universe.

    @raise TypeError: If there's none.
    """
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


def _asDeferred(result: Any) -> Deferred[Any]:
    """
    Get a Deferred.

    @param result: One, or C{None}.

    @return: It, or one that has fired.
    """
    return result if isinstance(result, Deferred) else succeed(result)
