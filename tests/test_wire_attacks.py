"""
Tests of attacks on the ends of connections: pickles wherever they can be put, what was
heard before said again, and very many frames that are nearly right.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import os
import pickle
import random
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cbor2
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import ProcessQueue, TaskQueue, ThreadQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.null import NullQueue
from asynqueue.wire import (
    Key,
    WireServer,
    WireWorker,
    _authentication as authentication,
    _commands as commands,
)
from asynqueue.wire._client import Client
from asynqueue.wire._commands import Tag
from asynqueue.wire._values import Codec

from ._certificates import SSL, Identity, withContext
from ._wire import WireTestCase, box
from ._wirememory import (
    KEY,
    LOCAL,
    Connection,
    Small,
    inlineThreads,
)

#: What has been run that mustn't be.
ran: list[str] = []


def run(what: str) -> str:
    """Be run, though nobody should."""
    ran.append(what)
    return what


class Bomb:
    """Something that runs a function when it's unpickled."""

    def __reduce__(self) -> Any:
        """Be pickled."""
        return run, ("a pickle",)


BOMB = pickle.dumps(Bomb())

#: As raw bytes, as an encoded value, and beside one.
BOMBS = (
    BOMB,
    cbor2.dumps(cbor2.CBORTag(Tag.PICKLE, BOMB)),
    struct.pack(">I2Q", 2, 4, len(BOMB))
    + cbor2.dumps(cbor2.CBORTag(Tag.PICKLE, None))
    + BOMB,
)

#: All commands that there are.
COMMANDS = [
    command
    for name, command in inspect.getmembers(commands, inspect.isclass)
    if issubclass(command, amp.Command) and not name.startswith("_")
]


class Watch:
    """Counts how often anything is unpickled."""

    def __init__(self) -> None:
        """Begin."""
        self.calls: list[str] = []
        self._isOn = False
        # The interpreter tells of each name that is looked up for a pickle, also if
        # somebody has got hold of the functions before.
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: Any) -> None:
        """Note what the interpreter tells."""
        if self._isOn and event == "pickle.find_class":
            self.calls.append(event)

    @contextlib.contextmanager
    def on(self) -> Iterator[list[str]]:
        """Watch. Gives what is done about pickles meanwhile."""

        def counted(name: str) -> Callable[..., Any]:
            original = getattr(pickle, name)

            def called(*args: Any, **kw: Any) -> Any:
                """Be counted, and do it."""
                self.calls.append(name)
                return original(*args, **kw)

            return called

        self.calls.clear()
        ran.clear()
        names = ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler")
        patches = [mock.patch.object(pickle, name, counted(name)) for name in names]
        for patch in patches:
            patch.start()
        self._isOn = True
        try:
            yield self.calls
        finally:
            self._isOn = False
            for patch in patches:
                patch.stop()


watch = Watch()


def attacks() -> Iterator[bytes]:
    """Put a pickle into each field of each command, and wherever else there's room."""
    for bomb in BOMBS:
        for command in COMMANDS:
            fields = {name.decode(): b"1" for name, _ in command.arguments}
            fields |= {"_command": command.commandName, "_ask": b"1"}
            fields |= {"methodName": b"note"} if "methodName" in fields else {}
            for name in fields:
                yield box(**{**fields, name: bomb})
            yield box(**dict.fromkeys(fields, bomb))
            yield box(**{**fields, bomb.decode("latin-1")[:200]: b"1"})
        for name in ("_answer", "_error", "_ask", "_error_code", "_error_description"):
            yield box(**{name: bomb})
            yield box(_answer=b"1", **({name: bomb} if name != "_answer" else {}))
        note = {"_command": b"RunTask", "_ask": b"7", "methodName": b"note"}
        yield box(**note, ID=b"7", size=b"%d" % len(bomb)) + box(
            _command=b"Chunk",
            ID=b"7",
            data=bomb,
        )
        yield bomb
        yield b"\0\0" + bomb


class PickleTests(SynchronousTestCase):
    """Tests of pickles wherever they can be put, in memory."""

    def setUp(self) -> None:
        """Make servers."""
        self.clock = Clock()
        inlineThreads(self)
        self.quiet = logging.getLogger("asynqueue")
        level = self.quiet.level
        self.quiet.setLevel(logging.CRITICAL)
        self.addCleanup(self.quiet.setLevel, level)

    def server(self, **kw: Any) -> WireServer:
        """Make a server."""
        return WireServer("tcp:0", Small(), reactor=self.clock, **kw)

    def test_watch(self) -> None:
        """The tests would notice: pickles that are accepted are counted, and run."""
        server = self.server(insecure=True)
        with watch.on() as calls:
            connection = Connection(server)
            connection.protocol.codec = Codec(pickles=True)
            connection.send(
                box(_command=b"RunTask", _ask=b"1", methodName=b"note", call=BOMBS[1])
            )
        self.assertEqual(calls, ["loads", "pickle.find_class"])
        self.assertEqual(ran, ["a pickle"])

    def test_complete(self) -> None:
        """There are attacks on all commands."""
        self.assertEqual(len(COMMANDS), 11)
        self.assertGreater(len(list(attacks())), 150)

    def test_before(self) -> None:
        """
        Nothing is unpickled, run or answered before a client has proved who it is.
        """
        server = self.server(key=KEY)
        with watch.on() as calls:
            for attack in attacks():
                connection = Connection(server)
                self.assertNotIn(b"status", connection.send(attack))
                self.clock.advance(1)
                connection.close()
        self.assertEqual((calls, ran, server._sessions), ([], [], set()))

    def test_afterFailure(self) -> None:
        """Nor after it has failed to, on the same connection."""
        server = self.server(key=KEY)
        hello = box(_command=b"Hello", _ask=b"1", version=b"2", nonce=bytes(32))
        prove = box(_command=b"Prove", _ask=b"2", proof=bytes(32))
        with watch.on() as calls:
            for attack in attacks():
                connection = Connection(server)
                connection.send(hello)
                connection.send(prove + attack)
                self.assertEqual(connection.send(attack), b"")
                self.clock.advance(1)
                self.assertNotIn(b"status", connection.send(attack))
                connection.close()
        self.assertEqual((calls, ran, server._sessions), ([], [], set()))

    def test_afterSuccess(self) -> None:
        """With a key alone pickles aren't accepted, whoever sends them."""
        server = self.server(key=KEY)
        with watch.on() as calls:
            for attack in attacks():
                connection = Connection(server)
                connection.enter(KEY)
                self.assertEqual(len(server._sessions), 1)
                connection.send(attack)
                connection.close()
        self.assertEqual((calls, ran, server._sessions), ([], [], set()))

    def test_client(self) -> None:
        """
        Nor does a client unpickle what it's answered, before or after the server has
        proved who it is.
        """
        answers = [
            box(_answer=b"1", status=status, result=bomb, ID=bomb)
            for bomb in BOMBS
            for status in (b"r", b"e", b"i", b"c", b"n", b"t", b"d", bomb)
        ]
        with watch.on() as calls:
            for attack in (*attacks(), *answers):
                worker = WireWorker(
                    Small, "tcp:127.0.0.1:7", key=KEY, reactor=self.clock
                )
                early = worker._makeClient()
                early.makeConnection(StringTransport(peerAddress=LOCAL))
                early.opened.addErrback(lambda _: None)
                early.dataReceived(attack)
                self.assertFalse(early.isOpen)
                early.connectionLost(Failure(ConnectionDone()))
                q = TaskQueue(reactor=self.clock)
                q.attachWorker(worker).addErrback(lambda _: None)
                d = q.call("note", 1, retries=0).addErrback(lambda _: None)
                late: Any = worker._makeClient()
                late.handshake.begin = late.open
                late.makeConnection(StringTransport(peerAddress=LOCAL))
                worker.connected(late)
                late.dataReceived(attack)
                late.connectionLost(Failure(ConnectionDone()))
                q.shutdown(timeout=0)
                self.assertTrue(d.called)
                self.clock.advance(100)
        self.assertEqual((calls, ran), ([], []))


class SocketTests(WireTestCase):
    """Tests of attacks over real sockets."""

    def setUp(self) -> None:
        """Refuse quickly, however many are refused, and say nothing of each."""
        super().setUp()
        self.patch(authentication, "_MAX_DELAY", 0.0)
        logger = logging.getLogger("asynqueue")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)

    async def attack(self, data: bytes, creator: Any = None) -> bytes:
        """
        Send something to the server. Returns what has come back until the server has
        ended the connection. C{creator} makes the connection of OpenSSL; C{None} for no
        TLS.
        """
        client = Attacker(data)
        description = self.description.replace("tls:", "tcp:")
        endpoint = clientFromString(globalReactor(), description)
        if creator is not None:
            endpoint = wrapClientTLS(creator, endpoint)
        await endpoint.connect(Factory.forProtocol(lambda: client))
        return await client.lost

    async def test_pickles(self) -> None:
        """Pickles run nothing over real sockets either: with a key, and under TLS."""
        some = list(attacks())[::7]
        servers: list[dict[str, Any]] = [{"description": "tcp:0", "key": KEY}]
        if SSL is not None:
            tls = Identity("server").accepting(Identity("client"))
            servers.append({"description": "tls:0", "tls": tls})
        with watch.on() as calls:
            for kw in servers:
                server = await self.serve(**kw)
                for attack in some:
                    # What isn't a whole box is waited for.
                    answer = await self.attack(attack + b"\xff" * 4000)
                    self.assertNotIn(b"status", answer)
                self.assertEqual(server._sessions, set())
                await server.stop()
        self.assertEqual((calls, ran, self.universe.log), ([], [], []))

    async def test_wrongCertificates(self) -> None:
        """
        Nor do they from clients that get through with TLS, but have the wrong
        certificate, an expired one, or none.
        """
        if SSL is None:
            self.skipTest("pyOpenSSL isn't installed")
        identity, client = Identity("server"), Identity("client")
        late = Identity("late", days=(-3, -1))
        none = withContext(
            Identity("none").accepting(identity), SSL.Context(SSL.TLS_METHOD)
        )
        server = await self.serve(
            description="tls:0", tls=identity.accepting(client, late)
        )
        wrong = Identity("other").accepting(identity)
        some = list(attacks())[::40]
        with watch.on() as calls:
            for tls in (wrong, late.accepting(identity), none):
                for attack in some:
                    creator = tls.clientOptions("localhost")
                    answer = await self.attack(attack, creator)
                    self.assertEqual(answer, b"")
        self.assertEqual((calls, ran, self.universe.log), ([], [], []))
        self.assertEqual(server._sessions, set())

    async def test_replayed(self) -> None:
        """All that a client with the key has said, said again, has nothing run."""
        await self.serve(description="tcp:0", key=KEY)
        said: list[bytes] = []
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        worker = self.worker(key=KEY)
        real = Client.makeConnection

        def tapped(client: Any, transport: Any) -> None:
            write = transport.write

            def tap(data: bytes) -> None:
                """Keep what is sent, and send it."""
                said.append(data)
                write(data)

            transport.write = tap
            real(client, transport)

        with mock.patch.object(Client, "makeConnection", tapped):
            await q.attachWorker(worker)
        self.assertEqual(await q.call("note", "once"), "once")
        self.assertGreater(len(said), 2)
        answer = await self.attack(b"".join(said))
        self.assertIn(b"KEY", answer)
        self.assertEqual(self.universe.log, ["once"])

    async def test_refusedAll(self) -> None:
        """
        A server that refuses a thousand clients goes on, keeps nothing of them, and
        lets the next one in at once that has the key.
        """
        server = await self.serve(description="tcp:0", key=KEY)
        hello = box(_command=b"Hello", _ask=b"1", version=b"2", nonce=bytes(32))
        for _ in range(20):
            ds = [self.attack(hello + hello) for _ in range(50)]
            for d in [Deferred.fromCoroutine(c) for c in ds]:
                await d
        self.assertEqual((server._sessions, len(server._shared.pending)), (set(), 0))
        q = await self.queue(key=KEY)
        self.assertEqual(await q.call("add", 1, 2), 3)


class Attacker(Protocol):
    """
    A client that sends something, and waits for the end. C{lost} fires with what has
    come back.
    """

    def __init__(self, data: bytes) -> None:
        self.lost: Deferred[bytes] = Deferred()
        self._data = data
        self._received = b""

    def connectionMade(self) -> None:
        """Send it."""
        assert self.transport is not None
        self.transport.write(self._data)

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes back."""
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end."""
        self.lost.callback(self._received)


def memory() -> int:
    """
    Tell how many bytes of memory the process has, or has had at most where it can't be
    told.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


class Mutations:
    """Makes frames that are nearly right."""

    def __init__(self, seed: int, frames: list[bytes]) -> None:
        self.chance = random.Random(seed)
        self._frames = frames
        self._boxes = [amp.parseString(frame)[0] for frame in frames]
        self._fields = [item for fields in self._boxes for item in fields.items()]

    def next(self) -> bytes:
        """
        Make a frame. In most, the fields are changed, and what holds them together is
        right; in others, any byte may be wrong.
        """
        chance = self.chance
        if chance.random() < 0.03:
            return self._mutated(chance.choice(self._frames))
        fields = dict(chance.choice(self._boxes))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
            name = chance.choice([*fields, b"new"])
            kind = chance.randrange(5)
            if kind == 0:
                fields.pop(name, None)
            elif kind == 1:
                name, value = chance.choice(self._fields)
                fields[name] = value
            elif kind == 2:
                fields[name] = chance.choice(self._fields)[1]
            else:
                fields[name] = self._mutated(fields.get(name, b""))
        if chance.random() < 0.05:
            name = chance.choice([*fields, b"new"])
            fields[self._mutated(name)[:255]] = fields.pop(name, b"")
        return box(**{name.decode("latin-1"): v for name, v in fields.items()})

    def _mutated(self, data: bytes) -> bytes:
        """Change some bytes."""
        chance = self.chance
        changed = bytearray(data or b"0")
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(len(changed))
            kind = chance.randrange(6)
            if kind == 0:
                changed[at] = chance.randrange(256)
            elif kind == 1:
                changed[at] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del changed[at : at + chance.randrange(1, 9)]
            elif kind == 3:
                changed[at:at] = chance.randbytes(chance.randrange(1, 9))
            elif kind == 4:
                changed[at:at] = b"%d" % chance.choice((0, 7, 99, 10**9, 10**20))
            else:
                changed[at : at + 2] = chance.choice((b"\0\0", b"\xff\xff", b"\0\1"))
            changed = changed or bytearray(b"\0")
        return bytes(changed)


class FuzzTests(SynchronousTestCase):
    """Tests of very many frames that are nearly right."""

    def setUp(self) -> None:
        """Say nothing of each of them."""
        logger = logging.getLogger("asynqueue")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        self.failures: list[Any] = []
        patch = mock.patch(
            "asynqueue.wire._connection.log.failure",
            lambda *failures, **__: self.failures.append(failures[-1]),
        )
        patch.start()
        self.addCleanup(patch.stop)
        self.clock = Clock()
        inlineThreads(self)

    def talk(self) -> list[bytes]:
        """Make what a client may say."""
        run = {"_command": b"RunTask"}
        both = [[1, "two", b"three", [4.0, None, {"five": 6}]], {}]
        large: Any = Codec().encode([*both, bytes(60_000)])
        args = b"".join(large.pieces)[:1000]
        return [
            box(_command=b"Hello", _ask=b"1", version=b"2", nonce=bytes(32)),
            box(_command=b"Prove", _ask=b"2", proof=bytes(32)),
            box(**run, _ask=b"3", ID=b"3", methodName=b"echo", args=cbor2.dumps([1])),
            box(**run, _ask=b"4", ID=b"4", methodName=b"count"),
            box(**run, _ask=b"5", methodName=b"count", args=cbor2.dumps([3])),
            box(**run, _ask=b"6", ID=b"6", methodName=b"wait"),
            box(**run, _ask=b"7", ID=b"7", methodName=b"echo", size=b"%d" % len(args)),
            box(_command=b"Chunk", ID=b"7", data=args),
            box(**run, _ask=b"a", ID=b"a", methodName=b"echo", call=cbor2.dumps(both)),
            box(**run, _ask=b"8", ID=b"8", methodName=b"note", size=b"500000000"),
            box(_command=b"Chunk", ID=b"8", data=bytes(60_000)),
            box(_command=b"Credit", ID=b"4", bytes=b"100"),
            box(_command=b"Cancel", ID=b"4"),
            box(_command=b"Cancel", ID=b"6"),
            box(_command=b"GetNext", _ask=b"9", ID=b"4", count=b"5"),
            box(_command=b"GetNext", _ask=b"b", ID=b"_1"),
            box(_command=b"Ping", _ask=b"c"),
            box(_answer=b"1"),
            box(_error=b"1", _error_code=b"UNKNOWN", _error_description=b"?"),
        ]

    def fuzz(self, server: WireServer, key: Key | None, count: int, seed: int) -> None:
        """
        Send so many frames, on a new connection whenever the server has ended one.
        First, a key is proved if there's one.
        """
        mutations = Mutations(seed, self.talk())
        connection: Connection | None = None
        gc.collect()
        before = highest = memory()
        for i in range(count):
            if connection is None:
                connection = Connection(server)
                if key is not None:
                    connection.enter(key)
            connection.send(mutations.next())
            if i % 97 == 0:
                self.clock.advance(1)
                highest = max(highest, memory())
            if connection.transport.disconnecting or i % 50 == 49:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()
        self.clock.advance(60)
        self.assertEqual(self.failures, [])
        self.assertLess(max(highest, memory()) - before, 64 << 20)
        self.assertEqual((server._sessions, len(server._shared.pending)), (set(), 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def finish(self, server: WireServer) -> None:
        """See that a server still works."""
        connection = Connection(server)
        connection.enter(KEY)
        answer = connection.send(
            box(
                _command=b"RunTask",
                _ask=b"1",
                methodName=b"echo",
                args=cbor2.dumps(["still here"]),
            )
        )
        self.assertIn(b"still here", answer)
        connection.close()

    def test_before(self) -> None:
        """40,000 frames from clients that nobody knows."""
        server = WireServer("tcp:0", Small(), key=KEY, reactor=self.clock)
        with watch.on() as calls:
            self.fuzz(server, None, 40_000, 1)
        self.assertEqual(calls, [])
        self.finish(server)

    def test_after(self) -> None:
        """60,000 from clients that have the key."""
        server = WireServer("tcp:0", Small(), key=KEY, reactor=self.clock)
        with watch.on() as calls:
            self.fuzz(server, KEY, 60_000, 2)
        self.assertEqual(calls, [])
        self.finish(server)
        self.assertEqual(server.runner.iterators, {})


def linksOf(pid: str) -> set[str]:
    """List what the descriptors of a process stand for."""
    links = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        # The descriptor of the listing itself is among them, and gone.
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return links


def listening() -> list[str]:
    """
    Find where this process and its children listen on the network, as the system writes
    it.
    """
    own = str(os.getpid())
    links = linksOf(own)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text()
            if stat.rpartition(")")[2].split()[1] == own:
                links |= linksOf(folder.name)
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                found.append(fields[1].partition(":")[0])
    return found


class ListenerTests(WireTestCase):
    """Tests of where is listened."""

    if not Path("/proc/self/net/tcp").exists():
        skip = "The system doesn't say where is listened"

    async def test_localOnly(self) -> None:
        """
        No local class listens on the network, and a server with a key only where this
        machine alone can reach it.
        """
        before = Counter(listening())  # what other tests have begun
        queues = [ProcessQueue(1), ThreadQueue(), NullQueue()]
        for q in queues:
            self.closers.append(q.shutdown)
            await q.call(abs, -1)
        await self.serve()
        await (await self.queue()).call("add", 1)
        self.assertEqual(Counter(listening()) - before, Counter())
        await self.serve(description="tcp:0", key=KEY)
        await self.serve(description="tcp:0", insecure=True)
        self.assertEqual(Counter(listening()) - before, Counter({"0100007F": 2}))
