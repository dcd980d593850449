"""
Both ends of a Unix socket: of this library's wire workers, of bare AMP, and of nothing
but the socket.

This file is the program of the server, too::

    python -m benchmarks.contenders.sockets CONTENDER PATH

It says that it's ready on its standard output, and ends when its standard input does.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.stdio import StandardIO
from twisted.protocols.amp import AMP, Command, Integer, String

from .deferreds import runInReactor

#: So much is asked for at a time over bare AMP.
CHUNK_BYTES = 32_768


class Client(ABC):
    """The near end."""

    @abstractmethod
    async def connect(self, path: str) -> None:
        """Connect to the server, by the path of its socket."""

    @abstractmethod
    async def single(self, x: int) -> int:
        """Have a small number sent back."""

    @abstractmethod
    async def large(self, size: int) -> bytes:
        """Have so many bytes sent."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""


class Echo(Command):
    """A number, there and back."""

    arguments = [(b"x", Integer())]  # noqa: RUF012 - AMP declares them so
    response = [(b"x", Integer())]  # noqa: RUF012


class Chunk(Command):
    """Bytes from a certain place on, so many as go into a chunk."""

    arguments = [(b"size", Integer()), (b"start", Integer())]  # noqa: RUF012
    response = [(b"data", String())]  # noqa: RUF012


class Answering(AMP):
    """The far end of bare AMP."""

    def __init__(self) -> None:
        super().__init__()
        self._large = b""

    @Echo.responder
    def echo(self, x: int) -> dict[str, int]:
        """Send a number back."""
        return {"x": x}

    @Chunk.responder
    def chunk(self, size: int, start: int) -> dict[str, bytes]:
        """Send a chunk."""
        if not start:
            self._large = bytes(size)
        return {"data": self._large[start : start + CHUNK_BYTES]}


class AMPClient(Client):
    """The near end of bare AMP."""

    def __init__(self) -> None:
        self._amp = AMP()

    async def connect(self, path: str) -> None:
        await connectProtocol(_near(path), self._amp)

    async def single(self, x: int) -> int:
        answer: dict[str, int] = await self._amp.callRemote(Echo, x=x)
        return answer["x"]

    async def large(self, size: int) -> bytes:
        """Implement L{Client.large}, asking for one chunk after the other."""
        chunks: list[bytes] = []
        for start in range(0, size, CHUNK_BYTES):
            answer = await self._amp.callRemote(Chunk, size=size, start=start)
            chunks.append(answer["data"])
        return b"".join(chunks)

    async def close(self) -> None:
        assert self._amp.transport is not None
        self._amp.transport.loseConnection()


class Sending(Protocol):
    """
    The far end of a bare socket: sends so many bytes as the decimal number in a line
    says.
    """

    def dataReceived(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(bytes(int(data)))


class SocketClient(Client, Protocol):
    """The near end of a bare socket, which is the floor."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._left = 0
        self._done: Deferred[None] = Deferred()

    async def connect(self, path: str) -> None:
        await connectProtocol(_near(path), self)

    def dataReceived(self, data: bytes) -> None:
        """Take what has come."""
        self._chunks.append(data)
        self._left -= len(data)
        if not self._left:
            self._done.callback(None)

    async def single(self, x: int) -> int:
        """Implement L{Client.single} by asking for one byte."""
        await self.large(1)
        return x

    async def large(self, size: int) -> bytes:
        assert self.transport is not None
        self._chunks, self._left, self._done = [], size, Deferred()
        self.transport.write(b"%d\n" % size)
        await self._done
        return b"".join(self._chunks)

    async def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class OurClient(Client):
    """The near end of this library."""

    def __init__(self) -> None:
        self._queue: Any = None

    async def connect(self, path: str) -> None:
        wire = import_module("asynqueue.wire")
        worker = wire.WireWorker(_universe(), f"unix:{path}")
        self._queue = import_module("asynqueue").TaskQueue()
        await self._queue.attachWorker(worker)

    async def single(self, x: int) -> int:
        result: int = await self._queue.call("echo", x)
        return result

    async def large(self, size: int) -> bytes:
        result: bytes = await self._queue.call("large", size)
        return result

    async def close(self) -> None:
        await self._queue.shutdown()


#: Makes the near end of a contender.
CLIENTS: dict[str, Callable[[], Client]] = {
    "ours": OurClient,
    "amp": AMPClient,
    "amp-chunks": AMPClient,
    "socket": SocketClient,
}


def _near(path: str) -> UNIXClientEndpoint:
    """Make the endpoint of a client."""
    from twisted.internet import reactor

    return UNIXClientEndpoint(reactor, path)


def _universe() -> Any:
    """Make the universe of this library's wire workers."""
    base: Any = import_module("asynqueue.wire").WireWorkerUniverse

    class Universe(base):
        """What is served."""

        def echo(self, x: int) -> int:
            """Send a number back."""
            return x

        def large(self, size: int) -> bytes:
            """Send something large."""
            return bytes(size)

    return Universe()


async def serveOurs(path: str) -> None:
    """Serve this library's wire workers at the path of a socket."""
    wire = import_module("asynqueue.wire")
    await wire.WireServer(f"unix:{path}", _universe()).start()


async def serveProtocol(protocol: type[Protocol], path: str) -> None:
    """Serve a protocol."""
    from twisted.internet import reactor

    await UNIXServerEndpoint(reactor, path).listen(Factory.forProtocol(protocol))


#: Starts the far end of a contender.
SERVERS: dict[str, Callable[[str], Awaitable[None]]] = {
    "ours": serveOurs,
    "amp": lambda path: serveProtocol(Answering, path),
    "amp-chunks": lambda path: serveProtocol(Answering, path),
    "socket": lambda path: serveProtocol(Sending, path),
}


class _UntilEnd(Protocol):
    """Waits for the end of the standard input, when C{ended} fires."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionLost(self, reason: Any = None) -> None:
        """Tell that it has ended."""
        self.ended.callback(None)


async def serve(contender: str, path: str) -> None:
    """Serve until the standard input ends."""
    await SERVERS[contender](path)
    until = _UntilEnd()
    StandardIO(until).write(b"ready\n")
    await until.ended


if __name__ == "__main__":
    runInReactor(serve(*sys.argv[1:]))
