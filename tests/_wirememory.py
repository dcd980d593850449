"""
Ends of connections in memory, for tests that need no sockets, and no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from asynqueue.wire import Key, WireServer, WireWorker, WireWorkerUniverse
from asynqueue.wire._clientgate import ClientGate
from asynqueue.wire._endpoints import Address, Requirements
from asynqueue.wire._servergate import ServerGate

__all__ = [
    "KEY",
    "LOCAL",
    "Connection",
    "InlineReactor",
    "Pair",
    "Small",
    "clientRequirements",
]

KEY = Key(b"k" * 32)

LOCAL = IPv4Address("TCP", "127.0.0.1", 7)


class InlinePool:
    """
    A pool of threads without threads.
    """

    def callInThreadWithCallback(
        self, onResult: Callable[..., object], f: Callable[..., Any], *args: Any
    ) -> None:
        """
        Make a call.

        @param onResult: Called with how it went.

        @param f: What is called.

        @param args: Its arguments.
        """
        try:
            result = f(*args)
        except Exception:  # noqa: BLE001 - as a pool does
            onResult(False, Failure())
        else:
            onResult(True, result)


class InlineReactor(Clock):
    """
    A reactor whose threads do all at once.
    """

    def getThreadPool(self) -> InlinePool:
        """
        Get the pool.

        @return: It.
        """
        return InlinePool()

    def callFromThread(self, f: Callable[..., object], *args: Any) -> None:
        """
        Make a call.

        @param f: What is called.

        @param args: Its arguments.
        """
        f(*args)


def clientRequirements(key: Key | None) -> Requirements:
    """
    Make what a server must prove.

    @param key: The key that it must have.

    @return: It.
    """
    return Requirements(Address.parse("tcp:127.0.0.1:7", False), key, None)


class Connection:
    """
    A connection with a server, in memory.

    @ivar protocol: The server's end.
    """

    def __init__(self, server: WireServer) -> None:
        """
        Connect.

        @param server: The server.
        """
        self.transport = StringTransport(peerAddress=LOCAL)
        self.protocol: Any = ServerGate(
            server._makePeer,
            server._required,
            server._doors,
            server._reactor,
            server._codec.pickles,
        )
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """
        Send something.

        @param data: It.

        @return: What has come back.
        """
        self.protocol.dataReceived(data)
        answer: bytes = self.transport.value()
        self.transport.clear()
        return answer

    def enter(self, key: Key | None) -> None:
        """
        Prove that one has a key.

        @param key: The key.
        """
        gate = ClientGate(lambda: mock.Mock(transport=None), clientRequirements(key))
        gate.makeConnection(StringTransport(peerAddress=LOCAL))
        transport: Any = gate.transport
        while data := transport.value():
            transport.clear()
            gate.dataReceived(self.send(data))
        assert gate.opened.called

    def close(self) -> None:
        """
        End it.
        """
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Small(WireWorkerUniverse):
    """
    A universe that takes anything.
    """

    def note(self, *args: Any, **kw: Any) -> None:
        """
        Take what comes.

        @param args: It.

        @param kw: It.
        """

    def echo(self, *args: Any) -> Any:
        """
        Give it back.

        @param args: It.

        @return: It.
        """
        return args

    def count(self, n: Any = 9) -> Iterator[Any]:
        """
        Count.

        @param n: How far.

        @return: An iterator.
        """
        yield from range(n)

    def wait(self) -> Deferred[None]:
        """
        Wait for ever.

        @return: A Deferred.
        """
        return Deferred()


class Pair:
    """
    A server and a worker, and what goes from one to the other.

    @ivar server: The server.

    @ivar worker: The worker.

    @ivar passed: How many bytes have got through.

    @ivar isCut: Whether the connection has ended.
    """

    def __init__(
        self, clock: InlineReactor, universe: Any, key: Key | None, **kw: Any
    ) -> None:
        """
        Begin to connect.

        @param clock: The reactor.

        @param universe: The universe.

        @param key: The key of both.

        @param kw: Further keywords of both.
        """
        kw |= {"reactor": clock, "key": key, "insecure": key is None}
        self.server = WireServer("tcp:0", universe, **kw)
        self.worker = WireWorker(type(universe), "tcp:127.0.0.1:7", **kw)
        self.worker._connector = self._connect
        self.passed = 0
        self.isCut = False
        self._ends: list[Any] = []

    def pump(self, most: int | None = None) -> None:
        """
        Have bytes go to and fro for as long as there are any, and the connection end if
        one end has ended it.

        @param most: The connection is cut when so many bytes have got through.
        """
        isBusy = bool(self._ends)
        while isBusy and not self.isCut:
            isBusy = False
            for source, target in (self._ends, self._ends[::-1]):
                data = source.transport.value()
                source.transport.clear()
                if most is not None:
                    data = data[: most - self.passed]
                self.passed += len(data)
                if data:
                    isBusy = True
                    target.dataReceived(data)
                if self.passed == most:
                    self.cut()
                    return
                if source.transport.disconnecting:
                    self.cut()
                    return

    def cut(self) -> None:
        """
        End the connection for both.
        """
        if not self.isCut:
            self.isCut = True
            for end in self._ends:
                end.connectionLost(Failure(ConnectionDone()))

    def _connect(self) -> Deferred[Any]:
        """
        Connect.

        @return: What the connector gives.
        """
        server = Connection(self.server).protocol
        gate = ClientGate(
            self.worker._makeLink, clientRequirements(self.worker._options["key"])
        )
        self._ends = [gate, server]
        gate.makeConnection(StringTransport(peerAddress=LOCAL))
        return gate.opened
