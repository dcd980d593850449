"""Ends of connections in memory, for tests that need no sockets, and no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from asynqueue.wire import Key, WireServer, WireWorker, WireWorkerUniverse, _values
from asynqueue.wire._client import Client
from asynqueue.wire._endpoints import Address, Requirements
from asynqueue.wire._values import Codec, DecodingThread

KEY = Key(b"k" * 32)

LOCAL = IPv4Address("TCP", "127.0.0.1", 7)


class InlineLooper:
    """A thread that does all at once, and is none."""

    def __init__(self, raw: bool = False, *, reactor: Any = None) -> None:
        """Make it."""

    def deferToThread(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return execute(f, *args)

    def stop(self) -> Deferred[None]:
        return succeed(None)


def inlineThreads(case: Any) -> None:
    """Have large values be decoded at once, for the time of a test."""
    case.patch(_values, "ThreadLooper", InlineLooper)


def requiredOf(key: Key | None) -> Requirements:
    """Make what a server must prove that is to have a key."""
    return Requirements(Address.parse("tcp:127.0.0.1:7", False), key, None)


def clientOf(clock: Clock, key: Key | None, owner: Any = None) -> Client:
    """Make the client's end of a connection with a server that must have a key."""
    return Client(
        owner or mock.Mock(),
        requiredOf(key),
        Codec(),
        (),
        1 << 30,
        None,
        DecodingThread(clock),
        clock,
    )


class Connection:
    """A connection with a server, in memory."""

    def __init__(self, server: WireServer) -> None:
        self.transport = StringTransport(peerAddress=LOCAL)
        self.protocol: Any = server._makeSession()
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send something, and return what has come back."""
        self.protocol.dataReceived(data)
        answer: bytes = self.transport.value()
        self.transport.clear()
        return answer

    def enter(self, key: Key | None) -> None:
        """Prove that one has a key."""
        client = clientOf(self.protocol.reactor, key)
        transport = StringTransport(peerAddress=LOCAL)
        client.makeConnection(transport)
        while data := transport.value():
            transport.clear()
            client.dataReceived(self.send(data))
        assert client.opened.called
        client.connectionLost(Failure(ConnectionDone()))

    def close(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Small(WireWorkerUniverse):
    """A universe that takes anything."""

    def note(self, *args: Any, **kw: Any) -> None:
        """Take what comes."""

    def echo(self, *args: Any) -> Any:
        return args

    def count(self, n: Any = 9) -> Iterator[Any]:
        yield from range(n)

    def wait(self) -> Deferred[None]:
        return Deferred()


class Pair:
    """
    A server and a worker, and what goes from one to the other. C{passed} is how many
    bytes have got through.
    """

    def __init__(self, clock: Clock, universe: Any, key: Key | None, **kw: Any) -> None:
        """
        Begin to connect. Further keywords are of both, but for C{server}: those of the
        server alone.
        """
        more = kw.pop("server", {})
        kw |= {"reactor": clock, "key": key, "insecure": key is None}
        self.server = WireServer("tcp:0", universe, **(kw | more))
        self.worker = WireWorker(type(universe), "tcp:127.0.0.1:7", **kw)
        self.worker._endpoint = cast(Any, self)
        self.passed = 0
        self.isCut = False
        self._ends: list[Any] = []

    def pump(self, most: int | None = None) -> None:
        """
        Have bytes go to and fro for as long as there are any, and the connection end if
        one end has ended it. It's cut when so many bytes have got through.
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
        """End the connection for both."""
        if not self.isCut:
            self.isCut = True
            for end in self._ends:
                end.connectionLost(Failure(ConnectionDone()))

    def connect(self, factory: Any) -> Deferred[Any]:
        client = factory.buildProtocol(LOCAL)
        self._ends = [client, Connection(self.server).protocol]
        client.makeConnection(StringTransport(peerAddress=LOCAL))
        return succeed(client)
