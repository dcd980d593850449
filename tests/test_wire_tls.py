"""Tests of connections under TLS, with real handshakes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._support.reactor import globalReactor
from asynqueue.credentials import makePair
from asynqueue.errors import SerializationError, WorkerStartError
from asynqueue.wire import TLS, Key, WireServer
from asynqueue.wire._server import Session

from ._certificates import SSL, Identity, withContext
from ._wire import Secret, WireTestCase, box
from ._wirememory import Small

MISSING = "pyOpenSSL isn't installed" if SSL is None else None

KEY = Key(b"k" * 32)


class Silent(protocol.Protocol):
    """An end that says nothing. C{lost} fires when the connection has ended."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        """Note the end."""
        self.lost.callback(None)


class Output(protocol.ProcessProtocol):
    """A program that is run."""

    def __init__(self, done: Deferred[str]) -> None:
        """Begin."""
        self.done = done
        self.text = b""
        self.errors = b""

    def outReceived(self, data: bytes) -> None:
        """Keep what it prints."""
        self.text += data

    def errReceived(self, data: bytes) -> None:
        """Keep what it complains about."""
        self.errors += data

    def processEnded(self, reason: Any) -> None:
        """Note that it has ended."""
        self.done.callback((self.text + self.errors).decode())


class _Zero:
    """Something that changes nothing when it's added."""

    def __radd__(self, other: Any) -> Any:
        """Be added."""
        return other


class TLSTestCase(WireTestCase):
    """A test case with servers that have certificates."""

    skip = MISSING
    identities: ClassVar[list[Identity]] = []

    def setUp(self) -> None:
        """Make certificates."""
        super().setUp()
        if not self.identities:
            self.identities.extend(map(Identity, ("server", "client", "other")))
        self.server, self.client, self.other = self.identities

    async def serveTLS(self, tls: TLS | None = None, **kw: Any) -> WireServer:
        """Start a server with TLS."""
        tls = tls or self.server.accepting(self.client)
        return await self.serve(description="tls:0:interface=127.0.0.1", tls=tls, **kw)

    async def raw(self, makeProtocol: Any) -> Any:
        """Connect without TLS."""
        description = self.description.replace("tls:", "tcp:")
        endpoint = clientFromString(globalReactor(), description)
        client: Any = await endpoint.connect(Factory.forProtocol(makeProtocol))
        self.closers.append(client.transport.abortConnection)
        return client


class PinnedTests(TLSTestCase):
    """Tests of certificates that are known by their digests."""

    async def test_tasks(self) -> None:
        """Who has the right certificate can have tasks run, of all kinds."""
        await self.serveTLS()
        q = await self.queue(tls=self.client.accepting(self.server))
        self.assertEqual(await q.call("add", 1, 2), 3)
        self.assertEqual(await q.call("size", bytes(3_000_000)), 3_000_000)
        self.assertEqual(len(await q.call("zeros", 3_000_000)), 3_000_000)
        items = await q.call("count", 50)
        self.assertEqual([x async for x in items], list(range(50)))
        await self.assertFailure(q.call("boom"), ValueError)

    async def test_several(self) -> None:
        """Several clients can be known."""
        await self.serveTLS(self.server.accepting(self.client, self.other))
        for identity in (self.client, self.other):
            q = await self.queue(tls=identity.accepting(self.server))
            self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_versions(self) -> None:
        """No less than TLS 1.2 is spoken."""
        await self.serveTLS()
        tls = self.client.accepting(self.server)
        for version, isGood in (
            (SSL.TLS1_3_VERSION, True),
            (SSL.TLS1_2_VERSION, True),
            (SSL.TLS1_1_VERSION, False),
        ):
            with self.subTest(version=version):
                context = SSL.Context(SSL.TLS_METHOD)
                context.set_min_proto_version(SSL.TLS1_VERSION)
                context.set_max_proto_version(version)
                context.set_cipher_list(b"ALL:@SECLEVEL=0")
                context.use_privatekey(self.client.key)
                context.use_certificate(self.client.certificate)
                withContext(tls, context)
                if isGood:
                    q = await self.queue(tls=tls)
                    self.assertEqual(await q.call("add", 1, 2), 3)
                else:
                    await self.refused(tls=tls)

    async def test_pickle(self) -> None:
        """Pickles are sent if both ends want them, and only then."""
        tls = self.client.accepting(self.server)
        both = await self.serveTLS(pickle=True)
        q = await self.queue(tls=tls, pickle=True)
        self.assertIsInstance(await q.call("secret"), Secret)
        self.assertIsInstance(await q.call("add", Secret(), _Zero()), Secret)
        plain = await self.queue(tls=tls)
        await self.assertFailure(plain.call("secret"), SerializationError)
        self.assertEqual(await plain.call("add", 1, 2), 3)
        await both.stop()
        await self.serveTLS()
        q = await self.queue(tls=tls, pickle=True)
        await self.assertFailure(q.call("note", Secret()), SerializationError)
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_unknownClient(self) -> None:
        """
        A client with another certificate is refused, soon, and so is one with none.
        """
        server = await self.serveTLS()
        why = await self.refused(tls=self.other.accepting(self.server))
        self.assertIn("refuses this end: The TLS handshake", why)
        bare = self.client.accepting(self.server)
        await self.refused(tls=withContext(bare, SSL.Context(SSL.TLS_METHOD)))
        self.assertEqual((server._sessions, len(server._shared.pending)), (set(), 0))

    async def test_unknownServer(self) -> None:
        """A server with another certificate isn't trusted."""
        await self.serveTLS(self.other.accepting(self.client))
        why = await self.refused(tls=self.client.accepting(self.server))
        self.assertIn("isn't trusted", why)
        self.assertIn("certificate verify failed", why)

    async def test_stolenCertificate(self) -> None:
        """A certificate without its private key is of no use."""
        with self.assertRaisesRegex(ValueError, "do not match"):
            TLS(self.other.secret + self.client.pem, [self.server.pem])

    async def test_expired(self) -> None:
        """
        A certificate that has expired isn't accepted, nor one that isn't valid yet,
        though it's known: neither a client's nor a server's.
        """
        for days in ((-3, -1), (1, 3)):
            late = Identity("late", days=days)
            server = await self.serveTLS(self.server.accepting(late))
            with self.assertLogs("asynqueue", "WARNING") as logged:
                why = await self.refused(tls=late.accepting(self.server))
            self.assertIn("refuses this end: The TLS handshake", why)
            self.assertIn("verify failed", "".join(logged.output))
            self.assertEqual(server._sessions, set())
            await server.stop()
            server = await self.serveTLS(late.accepting(self.client))
            why = await self.refused(tls=self.client.accepting(late))
            self.assertIn("verify failed", why)
            await server.stop()

    async def test_issued(self) -> None:
        """
        A certificate that's accepted by itself is no authority: those issued with its
        private key aren't accepted.
        """
        issuer = Identity("issuer", isAuthority=True)
        issued = Identity("issued", issuer)
        server = await self.serveTLS(self.server.accepting(issuer))
        why = await self.refused(WorkerStartError, tls=issued.accepting(self.server))
        self.assertEqual(server._sessions, set())
        q = await self.queue(tls=issuer.accepting(self.server))
        self.assertEqual(await q.call("add", 1, 2), 3)
        await server.stop()
        server = await self.serveTLS(issued.accepting(self.client))
        why = await self.refused(tls=self.client.accepting(issuer))
        self.assertIn("isn't one that is accepted", why)

    async def test_purpose(self) -> None:
        """
        A client's certificate isn't accepted of a server, nor the other way round.
        """
        server, client = map(Path, makePair(self.folder / "pair"))
        mine, peer = (TLS(path.read_bytes()) for path in (client, server))
        await self.serveTLS(mine)
        self.assertIn("verify failed", await self.refused(tls=peer))

    async def test_plainClient(self) -> None:
        """
        A client without TLS is refused, soon, and one that says nothing doesn't keep
        others from coming in.
        """
        server = await self.serveTLS()
        silent = await self.raw(Silent)
        self.description = self.description.replace("tls:", "tcp:")
        why = await self.refused(WorkerStartError, key=KEY)
        self.assertIn("is TLS at one of them only?", why)
        self.description = self.description.replace("tcp:", "tls:")
        q = await self.queue(tls=self.client.accepting(self.server))
        self.assertEqual(await q.call("add", 1, 2), 3)
        self.assertEqual(len(server._shared.pending), 1)
        self.assertFalse(silent.lost.called)
        await server.stop()
        await silent.lost

    async def test_plainServer(self) -> None:
        """So is a client with TLS by a server without."""
        server = await self.serve(description="tcp:0", key=KEY)
        self.description = self.description.replace("tcp:", "tls:")
        why = await self.refused(
            WorkerStartError, tls=self.client.accepting(self.server)
        )
        self.assertIn("is TLS at one of them only?", why)
        self.assertEqual(server._sessions, set())

    async def test_downgrade(self) -> None:
        """
        A client that has certificates says nothing to a server without TLS, wherever
        it's said to be.
        """
        heard = []

        class Listening(Silent):
            def dataReceived(self, data: bytes) -> None:
                heard.append(data)
                self.transport.write(box(_answer=b"1", version=b"1"))

        reactor: Any = globalReactor()
        port = reactor.listenTCP(0, Factory.forProtocol(Listening))
        self.closers.append(port.stopListening)
        self.description = f"tcp:127.0.0.1:{port.getHost().port}"
        await self.refused(tls=self.client.accepting(self.server))
        self.assertTrue(b"".join(heard).startswith(b"\x16\x03"))
        self.assertNotIn(b"Hello", b"".join(heard))


class ExpiringTests(SynchronousTestCase):
    """Tests of certificates that are about to expire."""

    skip = MISSING

    def test_warned(self) -> None:
        """Whoever uses a certificate that has expired, or soon will, is told so."""
        peer = Identity("peer")
        for days, text in (((-3, -1), "has expired"), ((-3, 20), "expires on 20")):
            with self.assertLogs("asynqueue", "WARNING") as logged:
                Identity("own", days=days).accepting(peer)
            self.assertIn(text, "".join(logged.output))
        with self.assertNoLogs("asynqueue", "WARNING"):
            Identity("own", days=(-3, 40)).accepting(peer)


class AuthorityTests(TLSTestCase):
    """Tests of certificates of an authority."""

    def setUp(self) -> None:
        """Make an authority, and certificates of its."""
        super().setUp()
        self.authority = Identity("authority", isAuthority=True)
        names = ["127.0.0.1", "localhost"]
        self.ours = Identity("ours", self.authority, names=names)
        self.theirs = Identity("theirs", self.authority)

    async def test_tasks(self) -> None:
        """Ends with certificates of one authority accept one another."""
        await self.serveTLS(self.ours.under(self.authority))
        tls = self.theirs.under(self.authority)
        q = await self.queue(tls=tls)
        self.assertEqual(await q.call("add", 1, 2), 3)
        named = self.description.replace("127.0.0.1", "localhost")
        q = await self.queue(tls=tls, description=named)
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_otherHost(self) -> None:
        """A server's certificate must be for the host that the client connects to."""
        await self.serveTLS(self.theirs.under(self.authority))
        why = await self.refused(tls=self.ours.under(self.authority))
        self.assertIn("isn't trusted", why)
        self.assertIn("127.0.0.1", why)
        named = self.description.replace("127.0.0.1", "localhost")
        why = await self.refused(tls=self.ours.under(self.authority), description=named)
        self.assertIn("localhost", why)
        self.flushLoggedErrors()  # Twisted's, of certificates without names.

    async def test_otherAuthority(self) -> None:
        """Certificates of another authority aren't accepted, nor those of none."""
        another = Identity("another", isAuthority=True)
        stranger = Identity("stranger", another, names=["127.0.0.1"])
        server = await self.serveTLS(self.ours.under(self.authority))
        for identity in (stranger, self.other):
            await self.refused(tls=identity.under(self.authority))
        self.assertEqual(server._sessions, set())
        await server.stop()
        await self.serveTLS(stranger.under(self.authority))
        why = await self.refused(tls=self.theirs.under(self.authority))
        self.assertIn("verify failed", why)

    async def test_expired(self) -> None:
        """Nor are those that have expired."""
        late = Identity("late", self.authority, (-3, -1), ["127.0.0.1"])
        server = await self.serveTLS(self.ours.under(self.authority))
        await self.refused(tls=late.under(self.authority))
        await server.stop()
        await self.serveTLS(late.under(self.authority))
        why = await self.refused(tls=self.theirs.under(self.authority))
        self.assertIn("verify failed", why)

    async def test_between(self) -> None:
        """Certificates between an end's own and the authority's are sent along."""
        between = Identity("between", self.authority, isAuthority=True)
        ours = Identity("ours", between, names=["127.0.0.1"])
        theirs = Identity("theirs", between)
        await self.serveTLS(ours.under(self.authority, between))
        q = await self.queue(tls=theirs.under(self.authority, between))
        self.assertEqual(await q.call("add", 1, 2), 3)


class NetworkTests(TLSTestCase):
    """Tests between two networks, each with interfaces of its own."""

    timeout = 60

    async def test_namespaces(self) -> None:
        """
        Tasks are run from one network in another, with certificates that were made by
        one command.
        """
        folder = self.folder / "tls"
        makePair(folder)
        done: Deferred[str] = Deferred()
        # What needs the rights to make networks may not have them.
        program = [
            *("unshare", "--user", "--map-root-user", "--net", "--mount"),
            *("sh", "-c", NETWORKS, "sh", sys.executable, CLIENT, str(folder)),
        ]
        if not (shutil.which("unshare") and shutil.which("ip")):
            self.skipTest("There's no unshare or no ip")
        if subprocess.run([*program[:5], "true"], capture_output=True).returncode:
            self.skipTest("Networks can't be made here")
        reactor: Any = globalReactor()
        protocol = Output(done)
        reactor.spawnProcess(protocol, program[0], program, None)
        self.assertEqual((await done).split(), ["10.9.9.2", "3", "5000000", "ok"])


#: Two networks, with a server in the other.
NETWORKS = """
set -e
unshare --net sleep 50 & other=$!
trap 'kill $other $server 2>/dev/null' EXIT
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/$$/ns/net)" ]
do :; done
ip link add here type veth peer name there netns $other
ip address add 10.9.9.1/24 dev here
ip link set here up
inside="nsenter --net=/proc/$other/ns/net"
$inside ip address add 10.9.9.2/24 dev there
$inside ip link set there up
$inside "$1" -c "
from asynqueue.wire import TLS, runServer
tls = TLS.fromFiles('$3/server.pem')
runServer('tls:7000', 'tests._wire.Universe', tls=tls)
" > /dev/null & server=$!
timeout 40 "$1" -c "$2" "$3"
"""

#: The client.
CLIENT = """
import logging
import sys
from twisted.internet.task import react
from asynqueue import TaskQueue, WireWorker
from asynqueue.wire import TLS
from tests._wire import Universe

# The server may not be there yet.
logging.getLogger("asynqueue").setLevel(logging.ERROR)

async def main(reactor):
    tls = TLS.fromFiles(sys.argv[1] + "/client.pem")
    q = TaskQueue()
    worker = WireWorker(
        Universe, "tls:10.9.9.2:7000", tls=tls, reconnect=True, backoff=lambda _: 0.05
    )
    await q.attachWorker(worker)
    print(worker._client.transport.getPeer().host)
    print(await q.call("add", 1, 2), await q.call("size", bytes(5_000_000)))
    await q.shutdown()
    print("ok")

react(main)
"""


class HandshakeTests(SynchronousTestCase):
    """Tests of handshakes of TLS, in memory."""

    skip = MISSING

    def setUp(self) -> None:
        """Make certificates, and a server's gates."""
        self.clock = Clock()
        self.identity, self.client = Identity("server"), Identity("client")
        tls = self.identity.accepting(self.client)
        server = WireServer(
            "tls:0", Small(), tls=tls, heartbeat=None, reactor=self.clock
        )
        self.pending = server._shared.pending
        self.opened: list[Session] = []
        real = Session.open

        def opened(session: Session) -> None:
            """Note that a client is accepted."""
            self.opened.append(session)
            real(session)

        self.patch(Session, "open", opened)
        inner = Factory.forProtocol(server._makeSession)
        self.factory = TLSMemoryBIOFactory(
            tls.serverOptions(), False, inner, self.clock
        )

    def connect(self) -> tuple[Any, StringTransport]:
        """Connect."""
        outer = self.factory.buildProtocol(None)
        transport = StringTransport()
        outer.makeConnection(transport)
        return outer, transport

    def shake(self, change: Callable[[bytes, int], bytes]) -> bool:
        """Have a client make a handshake."""
        tls = self.client.accepting(self.identity)
        connection = SSL.Connection(tls.clientOptions("a").getContext(), None)
        connection.set_connect_state()
        outer, transport = self.connect()
        said = 0
        for _ in range(5):
            with contextlib.suppress(SSL.Error):
                connection.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                data = connection.bio_read(1 << 16)
                outer.dataReceived(change(data, said))
                said += len(data)
            self.clock.advance(0)
            if transport.value():
                connection.bio_write(transport.value())
                transport.clear()
        outer.connectionLost(Failure(ConnectionDone()))
        self.said = said
        return bool(self.opened)

    def test_deadline(self) -> None:
        """A client that doesn't get on with the handshake has ten seconds."""
        outer, transport = self.connect()
        outer.dataReceived(b"\x16\x03\x01\x02\x00\x01")
        self.assertEqual(len(self.pending), 1)
        self.clock.advance(9.9)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnecting)

    def test_changed(self) -> None:
        """Whichever byte is changed or missing, nobody gets in, and nothing is left."""
        logger = logging.getLogger("asynqueue")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        self.assertTrue(self.shake(lambda data, _: data))
        self.opened.clear()
        whole = self.said
        self.assertGreater(whole, 1000)
        for at in range(0, whole, 13):

            def flip(data: bytes, before: int, at: int = at) -> bytes:
                here = at - before
                if not 0 <= here < len(data):
                    return data
                return data[:here] + bytes([data[here] ^ 1]) + data[here + 1 :]

            def cut(data: bytes, before: int, at: int = at) -> bytes:
                return data[: max(0, at - before)]

            with self.subTest(at=at):
                self.assertFalse(self.shake(flip))
                self.assertFalse(self.shake(cut))
        self.assertEqual(len(self.pending), 0)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ExtraTests(SynchronousTestCase):
    """Tests without what TLS needs."""

    def test_missing(self) -> None:
        """The error names the extra."""
        with (
            mock.patch.dict(sys.modules, {"service_identity": None}),
            self.assertRaisesRegex(ImportError, r"pip install 'asynqueue\[tls\]'"),
        ):
            TLS.fromFiles("a", "b")

    def test_notImported(self) -> None:
        """Who uses no certificates needs nothing of it."""
        program = (
            "import sys\n"
            "sys.modules['OpenSSL'] = sys.modules['cryptography'] = None\n"
            "import asynqueue.credentials\n"
            "from asynqueue.wire import *\n"
            "from tests._wire import Universe\n"
            "WireServer('tcp:0', Universe(), key=Key(b'x' * 32))\n"
            "print('service_identity' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        )
        self.assertEqual(done.stdout + done.stderr, "False\n")
