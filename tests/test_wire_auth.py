"""Tests of how the ends of a connection know one another, without certificates."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from asynqueue import TaskQueue
from asynqueue.errors import AuthenticationError, WorkerStartError
from asynqueue.wire import Key, WireServer
from asynqueue.wire._authentication import ServerHandshake
from asynqueue.wire._client import Client
from asynqueue.wire._credentials import NONCE

from ._wire import WireTestCase, box
from ._wirememory import Small, clientOf

SECRET = bytes(range(32))

#: A user who isn't the one that runs the tests.
NOBODY = 65534

LOCAL = IPv4Address("TCP", "127.0.0.1", 7)


@contextlib.contextmanager
def anotherUser() -> Iterator[None]:
    """Be another user for a moment, or skip the test."""
    if os.geteuid() or not hasattr(socket, "SO_PEERCRED"):
        raise SkipTest("Only root can be another user, and that isn't told everywhere")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class UnixTests(WireTestCase):
    """Tests of Unix sockets."""

    async def test_othersServer(self) -> None:
        """A client doesn't trust a server of another user, nor is one trusted."""
        await self.serve()
        with mock.patch(
            "asynqueue.wire._endpoints._checkUser",
            side_effect=AuthenticationError("nobody's"),
        ):
            q = TaskQueue()
            self.closers.append(lambda: q.shutdown(timeout=0))
            failed = await self.assertFailure(
                q.attachWorker(self.worker()), AuthenticationError
            )
        self.assertIn("isn't trusted: nobody's", str(failed))

    async def test_ended(self) -> None:
        """A server that hangs up isn't suspected of speaking TLS."""
        await self.serve()

        def begin(handshake: Any) -> None:
            handshake._connection.abort()

        self.patch(ServerHandshake, "begin", begin)
        why = await self.refused(WorkerStartError)
        self.assertIn("proved who they are", why)
        self.assertNotIn("TLS", why)

    async def test_anotherUsersClient(self) -> None:
        """
        Another user's client is refused, though somebody has opened the folder and the
        socket to everybody.
        """
        server = await self.serve()
        self.folder.chmod(0o755)
        (self.folder / "s").chmod(0o777)
        client = socket.socket(socket.AF_UNIX)
        self.closers.append(client.close)
        with anotherUser():
            client.connect(str(self.folder / "s"))
        with self.assertLogs("asynqueue", "WARNING") as logged:
            await self.until(lambda: server._shared.pending.failures)
        self.assertIn(f"another user's ({NOBODY})", "".join(logged.output))
        await self.until(lambda: not len(server._shared.pending))
        client.setblocking(False)
        self.assertEqual(client.recv(100), b"")
        self.assertEqual(server._sessions, set())

    async def test_anotherUsersServer(self) -> None:
        """A client doesn't trust another user's server, and says nothing to it."""
        self.folder.chmod(0o777)
        listener = socket.socket(socket.AF_UNIX)
        self.closers.append(listener.close)
        with anotherUser():
            listener.bind(str(self.folder / "s"))
            listener.listen()
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        error = await self.assertFailure(
            q.attachWorker(self.worker()), AuthenticationError
        )
        self.assertIn(f"another user's ({NOBODY})", str(error))
        client, _ = listener.accept()
        self.closers.append(client.close)
        client.setblocking(False)
        said = b"?"

        def isOver() -> bool:
            """See whether the client has ended the connection."""
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                said = client.recv(100)
            return said != b"?"

        await self.until(isOver)
        self.assertEqual(said, b"")


class TCPTests(WireTestCase):
    """Tests of TCP on this machine."""

    async def test_key(self) -> None:
        """Who has the key can have tasks run, of all kinds, over a real socket."""
        await self.serve(description="tcp:0", key=Key(SECRET))
        q = await self.queue(key=Key(SECRET))
        self.assertEqual(await q.call("add", 1, 2), 3)
        self.assertEqual(await q.call("size", bytes(3_000_000)), 3_000_000)
        self.assertEqual(len(await q.call("zeros", 3_000_000)), 3_000_000)
        items = await q.call("count", 50)
        self.assertEqual([x async for x in items], list(range(50)))
        await self.assertFailure(q.call("boom"), ValueError)

    async def test_thisMachine(self) -> None:
        """
        If it isn't said where, a server listens where only this machine can reach it.
        """
        server = await self.serve(description="tcp:0", key=Key(SECRET))
        assert server.port is not None
        host: Any = server.port.getHost()
        self.assertEqual(host.host, "127.0.0.1")

    async def test_names(self) -> None:
        """This machine can be named in any way, also by its address of version 6."""
        server = await self.serve(description="tcp:0", key=Key(SECRET))
        named = self.description.replace("127.0.0.1", "localhost")
        q = await self.queue(key=Key(SECRET), description=named)
        self.assertEqual(await q.call("add", 1, 2), 3)
        await server.stop()
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return
        server = await self.serve(
            description="tcp:0:interface=\\:\\:1", key=Key(SECRET)
        )
        named = self.description.replace("127.0.0.1", "\\:\\:1")
        q = await self.queue(key=Key(SECRET), description=named)
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_insecure(self) -> None:
        """Who says so does without, and is warned."""
        with self.assertLogs("asynqueue", "WARNING") as logged:
            await self.serve(description="tcp:0", insecure=True)
        self.assertIn("insecure=True", "".join(logged.output))
        q = await self.queue(insecure=True)
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_wrongKey(self) -> None:
        """Who has another key is refused, soon."""
        server = await self.serve(description="tcp:0", key=Key(SECRET))
        why = await self.refused(key=Key(SECRET[::-1]))
        self.assertIn("it has another key", why)
        self.assertEqual(server._sessions, set())

    async def test_noKey(self) -> None:
        """So is who has none, and who meets a server that has none."""
        server = await self.serve(description="tcp:0", key=Key(SECRET))
        self.assertIn("it wants a key", await self.refused(insecure=True))
        self.assertEqual(server._sessions, set())
        await server.stop()
        await self.serve(description="tcp:0", insecure=True)
        self.assertIn("It has no key", await self.refused(key=Key(SECRET)))

    async def test_notTried(self) -> None:
        """It isn't tried again with the wrong key."""
        await self.serve(description="tcp:0", key=Key(SECRET))
        await self.refused(key=Key(SECRET[::-1]), reconnect=True)

    async def test_otherVersion(self) -> None:
        """Ends of different versions don't begin, and say which they have."""
        await self.serve(description="tcp:0", key=Key(SECRET))
        real = Client.callRemote

        def older(client: Any, command: Any, **fields: Any) -> Any:
            """Send a command as an older client does."""
            return real(client, command, **{**fields, "version": b"0"})

        with mock.patch.object(Client, "callRemote", older):
            why = await self.refused(WorkerStartError, key=Key(SECRET))
        self.assertIn("another version of the protocol", why)


def sent(end: Any) -> bytes:
    """Take what one end has sent."""
    data: bytes = end.transport.value()
    end.transport.clear()
    return data


def makeClient(key: Key | None) -> Client:
    """Make the client's end of a connection."""
    client = clientOf(Clock(), key)
    client.makeConnection(StringTransport(peerAddress=LOCAL))
    return client


class HandshakeTests(SynchronousTestCase):
    """Tests of handshakes, in memory."""

    def setUp(self) -> None:
        """Begin with no clients."""
        self.clock = Clock()
        self.key = Key(SECRET)
        self.servers = WireServer(
            "tcp:0", Small(), key=self.key, heartbeat=None, reactor=self.clock
        )
        self.pending = self.servers._shared.pending

    def server(self) -> Any:
        """Make the server's end of a connection."""
        session = self.servers._makeSession()
        session.makeConnection(StringTransport(peerAddress=LOCAL))
        return session

    def shake(self, client: Any, server: Any) -> list[bytes]:
        """
        Have two ends talk for as long as they do. Returns what the client has said.
        """
        said = []
        while data := sent(client):
            said.append(data)
            server.dataReceived(data)
            client.dataReceived(sent(server))
        return said

    def test_handshake(self) -> None:
        """Two ends with the same key let each other in."""
        client, server = makeClient(self.key), self.server()
        self.assertEqual(len(self.pending), 1)
        self.shake(client, server)
        self.assertIsNone(self.successResultOf(client.opened))
        self.assertTrue(server.isOpen)
        self.assertEqual(len(self.pending), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_inPieces(self) -> None:
        """It doesn't matter how the bytes come."""
        client, server = makeClient(self.key), self.server()
        for _ in range(2):
            for byte in sent(client):
                server.dataReceived(bytes([byte]))
            for byte in sent(server):
                client.dataReceived(bytes([byte]))
        self.assertIsNone(self.successResultOf(client.opened))

    def test_fresh(self) -> None:
        """No two handshakes have anything in common that one could make use of."""
        seen: list[bytes] = []
        for _ in range(3):
            client, server = makeClient(self.key), self.server()
            hello = sent(client)
            server.dataReceived(hello)
            challenge = sent(server)
            client.dataReceived(challenge)
            seen += (hello, challenge, sent(client))
        self.assertEqual(len(set(seen)), len(seen))

    def test_replayed(self) -> None:
        """What a client has said once lets nobody in again."""
        server = self.server()
        said = self.shake(makeClient(self.key), server)
        self.assertTrue(server.isOpen)
        for pieces in (said, [b"".join(said)]):
            again = self.server()
            for data in pieces:
                again.dataReceived(data)
            self.assertTrue(again.isOver)
            self.assertFalse(again.isOpen)

    def test_reflected(self) -> None:
        """A client can't be given its own proof, or questions, as the server's."""
        client = makeClient(self.key)
        [hello] = amp.parseString(sent(client))
        client.dataReceived(box(_answer=b"1", version=b"2", nonce=hello[b"nonce"]))
        [prove] = amp.parseString(sent(client))
        client.dataReceived(box(_answer=b"2", proof=prove[b"proof"]))
        failure = self.failureResultOf(client.opened, AuthenticationError)
        self.assertIn("hasn't proved that it has the key", str(failure.value))

    def test_nothingElse(self) -> None:
        """
        Before a client has proved who it is, anything but the handshake ends the
        connection without an answer.
        """
        nonce = bytes(NONCE)
        for data in (
            box(_command=b"RunTask", _ask=b"1", methodName=b"add"),
            box(_command=b"GetNext", _ask=b"1", ID=b"1"),
            box(_command=b"Beat"),
            box(_command=b"Nonsense", _ask=b"1"),
            box(_command=b"Prove", _ask=b"1", proof=nonce),
            box(_command=b"Hello", version=b"2", nonce=nonce),
            box(_command=b"Hello", _ask=b"1", nonce=nonce),
            box(_command=b"Hello", _ask=b"1", version=b"2", nonce=b"short"),
            box(_answer=b"1"),
            box(),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
            b"\xff" * 10,
            box(**{f"x{i}": b"" for i in range(20)}),
        ):
            with self.subTest(data=data):
                end = self.server()
                end.dataReceived(data)
                self.assertTrue(end.isOver)
                self.clock.advance(1)
                self.assertEqual(end.transport.value(), b"")
                self.assertTrue(end.transport.disconnecting)
                end.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.pending), 0)

    def test_helloTwice(self) -> None:
        """A client says who it is once."""
        end = self.server()
        hello = box(_command=b"Hello", _ask=b"1", version=b"2", nonce=bytes(NONCE))
        end.dataReceived(hello)
        self.assertFalse(end.isOver)
        end.dataReceived(hello)
        self.assertTrue(end.isOver)

    def test_small(self) -> None:
        """No more is kept of what a client sends than a small box has."""
        end = self.server()
        for _ in range(1000):
            end.dataReceived(b"\0\x01a\x04\0" + b"x" * 1020)
            self.assertLess(len(end._unprocessed), 5100)
        self.assertTrue(end.isOver)

    def test_deadline(self) -> None:
        """A client that says nothing, or goes on without end, has ten seconds."""
        silent, slow = self.server(), self.server()
        for _ in range(99):
            self.clock.advance(0.1)
            slow.dataReceived(b"\0" if slow._unprocessed != b"\0" else b"\x20")
        self.assertFalse(silent.transport.disconnected)
        self.assertFalse(silent.isOver)
        self.clock.advance(0.2)
        for end in (silent, slow):
            self.assertTrue(end.isOver)
            self.assertTrue(end.transport.disconnecting)
            end.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """
        If very many don't prove who they are, those are sent away that have been there
        longest, and who has the key gets in.
        """
        ends = [self.server() for _ in range(64)]
        self.assertFalse(any(end.isOver for end in ends))
        more = [self.server() for _ in range(500)]
        self.assertEqual(len(self.pending), 64)
        self.assertTrue(all(end.isOver for end in ends))
        client, server = makeClient(self.key), self.server()
        self.shake(client, server)
        self.assertIsNone(self.successResultOf(client.opened))
        for end in (*ends, *more):
            end.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.pending), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_backOff(self) -> None:
        """
        The more fail in a row, the longer the answer takes, up to half a second. One
        who has the key waits for nothing, and ends that.
        """
        wrong = Key(SECRET[::-1])
        delays = []
        for _ in range(10):
            server, client = self.server(), makeClient(wrong)
            self.shake(client, server)
            self.assertTrue(server.isOver)
            delay = 0.0
            while not server.transport.value():
                self.clock.advance(0.01)
                delay += 0.01
            delays.append(delay)
            client.dataReceived(sent(server))
            self.failureResultOf(client.opened, AuthenticationError)
            server.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(delays, sorted(delays))
        self.assertLess(delays[0], 0.03)
        self.assertLess(delays[-1], 0.6)
        self.shake(makeClient(self.key), self.server())
        self.assertEqual(self.pending.failures, 0)

    def test_log(self) -> None:
        """Failures are logged, ever more of them at a time, and no secret with them."""
        with self.assertLogs("asynqueue", "WARNING") as logged:
            for _ in range(100):
                server = self.server()
                self.shake(makeClient(Key(SECRET[::-1])), server)
                server.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(logged.output), 7)
        self.assertIn("64 in a row now: It has another key", logged.output[-1])
        self.assertNotIn("x05", "".join(logged.output))

    def test_closed(self) -> None:
        """When the server stops, who hasn't proved who they are is sent away."""
        ends = [self.server() for _ in range(3)]
        self.pending.abortAll()
        self.assertTrue(all(end.transport.disconnecting for end in ends))

    def test_notLocal(self) -> None:
        """
        Without TLS, neither end talks to another machine, wherever it was said to be.
        """
        with mock.patch(f"{__name__}.LOCAL", IPv4Address("TCP", "10.0.0.1", 7)):
            server, client = self.server(), makeClient(self.key)
        self.assertTrue(server.isOver)
        self.assertEqual(sent(client), b"")
        failure = self.failureResultOf(client.opened, AuthenticationError)
        self.assertIn("isn't on this machine", str(failure.value))

    def test_wrongServers(self) -> None:
        """A client trusts no server that says something else than it should."""
        nonce = bytes(NONCE)
        challenge = box(_answer=b"1", version=b"2", nonce=nonce)
        for data in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            box(_answer=b"1", version=b"2"),
            box(_answer=b"1", version=b"2", nonce=b"short"),
            box(_answer=b"1"),
            box(_error=b"1"),
            box(_error=b"1", _error_code=b"KEY"),
            box(_command=b"RunTask"),
            challenge + box(_answer=b"2"),
            challenge + box(_answer=b"2", proof=nonce),
            box(),
        ):
            with self.subTest(data=data):
                end = makeClient(self.key)
                end.dataReceived(data)
                self.failureResultOf(end.opened, AuthenticationError)
                self.assertTrue(end.transport.disconnecting)

    def test_early(self) -> None:
        """
        A server without a key may ask for a sign of life before it knows the client,
        or be about to go, which is no reason not to trust it.
        """
        client = makeClient(None)
        sent(client)
        client.dataReceived(box(_command=b"Ping", _ask=b"7"))
        self.assertEqual(sent(client), box(_answer=b"7"))
        client.dataReceived(box(_answer=b"1", version=b"2"))
        self.successResultOf(client.opened)
        client = makeClient(None)
        client.dataReceived(
            box(_command=b"Leaving", _ask=b"7") + box(_answer=b"1", version=b"2")
        )
        client.connectionLost(Failure(ConnectionAborted()))
        error = self.failureResultOf(client.opened, ConnectionError).value
        self.assertIn("about to go", str(error))

    def test_cancelled(self) -> None:
        """A client may give up at any time."""
        end = makeClient(self.key)
        end.opened.cancel()
        self.failureResultOf(end.opened)
        self.assertTrue(end.transport.disconnecting)
        end.dataReceived(box(_answer=b"1", version=b"2", nonce=bytes(NONCE)))
        end.connectionLost(Failure(ConnectionDone()))

    def test_rest(self) -> None:
        """What comes right after the handshake isn't lost."""
        client = makeClient(None)
        sent(client)
        client.dataReceived(
            box(_answer=b"1", version=b"2") + box(_command=b"Nonsense", _ask=b"7")
        )
        self.successResultOf(client.opened)
        self.assertIn(b"UNHANDLED", client.transport.value())


class CutTests(SynchronousTestCase):
    """Tests of handshakes that are cut."""

    def test_anywhere(self) -> None:
        """
        Wherever it's cut, neither end lets the other in without its proof, and nothing
        is left.
        """
        clock, key = Clock(), Key(SECRET)
        servers = WireServer("tcp:0", Small(), key=key, heartbeat=None, reactor=clock)
        cut, isWhole = 0, False
        while not isWhole:
            client, server = makeClient(key), servers._makeSession()
            server.makeConnection(StringTransport(peerAddress=LOCAL))
            left = cut
            while left and (data := sent(client)):
                server.dataReceived(data[:left])
                left -= len(data[:left])
                data = sent(server)
                client.dataReceived(data[:left])
                left -= len(data[:left])
            isWhole = client.opened.called
            for end in (client, server):
                end.connectionLost(Failure(ConnectionDone()))
            if not isWhole:
                error = self.failureResultOf(client.opened, ConnectionError).value
                self.assertIn("proved who they are", str(error))
            cut += 1
        self.assertGreater(cut, 200)
        self.assertEqual(len(servers._shared.pending), 0)
        self.assertEqual(clock.getDelayedCalls(), [])
