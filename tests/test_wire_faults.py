"""Tests of what peers and networks may do."""

from __future__ import annotations

import pickle
import random
import struct
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

from cbor2 import CBORTag, dumps, loads
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols import amp

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.errors import WorkerError, WorkerLost, WorkerStartError
from asynqueue.wire import GetNext, RunTask, WireServer, _server
from asynqueue.wire._commands import Credit, Tag, ValueChunk

from ._wire import WireTestCase, box


class Cutter(protocol.Protocol):
    """
    Passes on so many bytes from one to the other, then ends both connections.

    @cvar left: How many bytes are passed on, of both directions together.

    @cvar passed: How many have been.
    """

    left: ClassVar[int] = 0
    passed: ClassVar[int] = 0
    target: ClassVar[str] = ""

    def __init__(self) -> None:
        self.other: Any = None
        self.early = b""

    def connectionMade(self) -> None:
        """Connect to the server, if this is the client's side."""
        if self.other is None:
            side = type(self)()
            side.other = self
            endpoint = clientFromString(globalReactor(), self.target)
            d = endpoint.connect(Factory.forProtocol(lambda: side))
            d.addCallback(self.connected2)

    def connected2(self, other: Any) -> None:
        """Pass on what has come before."""
        self.other = other
        early, self.early = self.early, b""
        if early:
            self.dataReceived(early)

    def dataReceived(self, data: bytes) -> None:
        """Pass on bytes."""
        if self.other is None:
            self.early += data
            return
        kind = Cutter
        data = data[: kind.left]
        kind.left -= len(data)
        kind.passed += len(data)
        self.other.transport.write(data)
        if not kind.left:
            self.other.transport.loseConnection()
            self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """End the other connection."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()


class Raw(protocol.Protocol):
    """
    A client that sends what it's told. C{lost} fires when the connection has ended.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep bytes."""
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Note the end."""
        self.lost.callback(None)


class FaultTestCase(WireTestCase):
    """A test case with clients of other kinds."""

    async def connect(self, makeProtocol: Callable[[], Any]) -> Any:
        """Connect to the server."""
        endpoint = clientFromString(globalReactor(), self.description)
        client: Any = await endpoint.connect(Factory.forProtocol(makeProtocol))

        def close() -> None:
            """End the connection, if it hasn't ended."""
            if client.transport is not None and client.transport.connected:
                client.transport.abortConnection()

        self.closers.append(close)
        return client


class CutTests(FaultTestCase):
    """Tests of connections that are cut."""

    timeout = 300

    async def test_anywhere(self) -> None:
        """
        Wherever a conversation is cut, each call fires once: with its result, or with
        WorkerLost, or because there was no connection. A call that isn't retried is run
        once at most, and the next connection works.
        """
        await self.serve()
        Cutter.target = self.description
        place = f"unix:{self.folder}/cut"
        port = await serverFromString(globalReactor(), place).listen(
            Factory.forProtocol(Cutter)
        )
        self.closers.append(port.stopListening)

        async def talk(cut: int) -> int:
            """
            Have a conversation of which so many bytes get through. Returns how many
            did.
            """
            Cutter.left, Cutter.passed = cut, 0
            self.universe.log.clear()
            q = TaskQueue()
            worker = self.worker(description=place, N_concurrent=2)
            q.attachWorker(worker).addErrback(lambda _: None)
            calls: list[Any] = [
                q.call("note", "x"),
                q.call("boom"),
                q.call("these", [1, 2, 3]),
                q.call("size", bytes(61_000)),
                q.call("zeros", 61_000),
            ]
            fired = [0] * len(calls)

            def count(result: Any, i: int) -> Any:
                """Count how often the Deferred of the ith call fires."""
                fired[i] += 1
                return result

            for i, d in enumerate(calls):
                d.addBoth(count, i)
            await self.until(lambda: all(fired) or worker.state.name == "DEAD")
            if not all(fired):
                Cutter.left = 10**9
                await q.attachWorker(self.worker(description=self.description))
                await self.until(lambda: all(fired))
            for d, good in zip(calls, ("x", None, None, 61_000, None), strict=True):
                try:
                    result = await d
                except (WorkerLost, WorkerStartError):
                    # The latter if it was cut before the ends knew one another.
                    continue
                except ValueError as error:
                    self.assertEqual(error.args, ("boom", 3))
                    continue
                if good is not None:
                    self.assertEqual(result, good)
                elif isinstance(result, bytes):
                    self.assertEqual(len(result), 61_000)
                else:
                    try:
                        self.assertEqual([x async for x in result], [1, 2, 3])
                    except WorkerLost:
                        continue
            self.assertEqual(fired, [1] * 5)
            self.assertLessEqual(self.universe.log.count("x"), 1)
            await q.shutdown(timeout=0)
            return Cutter.passed

        whole = await talk(10**9)
        self.assertGreater(whole, 122_000)
        # Every byte of the small boxes, and some of the large ones.
        cuts = [*range(1, 1500), *range(1500, whole, 1999), *range(whole - 300, whole)]
        first = len(type(globalReactor()).__name__) % self.step
        for cut in cuts[first :: self.step]:
            await talk(cut)

    #: Of the places where it could be cut, each so many'th is, others in each reactor.
    step = 12


class HostileTests(FaultTestCase):
    """Tests of clients that don't keep to the protocol."""

    async def test_garbage(self) -> None:
        """
        A client that sends what is no box, or one that means nothing, is cut off, and
        others aren't affected.
        """
        await self.serve()
        q = await self.queue()
        for data in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\xff" * 100,
            box(),
            box(x=b"y"),
            box(_command=b"Nonsense"),
            box(_command=b"RunTask"),
            box(_command=b"RunTask", _ask=b"1"),
            box(_command=b"RunTask", _ask=b"1", methodName=b"\xff"),
            box(_command=b"RunTask", _ask=b"1", methodName=b"add", ID=b"1", size=b"-1"),
            box(_command=b"Credit", ID=b"1", bytes=b"x"),
            box(_command=b"Beat"),
            box(_command=b"Chunk"),
            box(_answer=b"77"),
            box(_error=b"77"),
        ):
            with self.subTest(data=data):
                raw = await self.connect(Raw)
                raw.transport.write(data)
                if not raw.lost.called:
                    if data[:1] == b"\xff" or data[:1] == b"G":
                        raw.transport.write(b"\xff" * 100_000)
                    await raw.lost
        self.assertEqual(await q.call("add", 1), 1)

    async def test_refused(self) -> None:
        """
        What is well-formed but can't be is answered with an error, and the connection
        stays.
        """
        server = await self.serve(pickle=False, largest=1000)
        raw = await self.connect(Raw)
        pickled = dumps(CBORTag(Tag.PICKLE, pickle.dumps(1)))
        with mock.patch("pickle.Unpickler", side_effect=AssertionError):
            for i, fields in enumerate(
                (
                    {"methodName": b"nosuch"},
                    {"methodName": b"add", "args": b"garbage"},
                    {"methodName": b"add", "args": pickled},
                    {"methodName": b"add", "args": dumps(5)},
                    {"methodName": b"add", "kw": dumps([1])},
                    {"methodName": b"add", "kw": dumps({1: 2})},
                    {"methodName": b"add", "call": dumps(5)},
                    {"methodName": b"add", "call": dumps([[1], 5])},
                    {"methodName": b"add", "ID": b"big", "size": b"1001"},
                    {"methodName": b"__init__"},
                )
            ):
                raw.received = b""
                raw.transport.write(box(_command=b"RunTask", _ask=b"%d" % i, **fields))
                await self.until(lambda: raw.received.endswith(b"\0\0"))
                self.assertIn(b"_answer\0\x01%d" % i, raw.received)
                self.assertIn(b"status\0\x01e", raw.received)
        raw.transport.write(box(_command=b"Nonsense", _ask=b"x"))
        await self.until(lambda: b"_error_code" in raw.received)
        self.assertFalse(raw.lost.called)
        [peer] = server._sessions
        self.assertEqual(peer.tasks, {})

    async def test_tooMuchDeclared(self) -> None:
        """
        Arguments of which there are too many bytes together wait until others aren't
        needed any longer. What is too large by itself is refused, and so are tasks
        beyond the number that the client has been told.
        """
        await self.serve(maxHeld=1500, largest=2000, maxTasks=4)
        raw = await self.connect(Raw)
        run: dict[str, Any] = {"_command": b"RunTask", "methodName": b"wait"}
        for ID in (b"1", b"2"):
            raw.transport.write(box(**run, _ask=ID, ID=ID, size=b"1000"))
        raw.transport.write(box(**run, _ask=b"3", ID=b"3", size=b"1501"))
        for ID in (b"4", b"5", b"6"):
            raw.transport.write(box(**run, _ask=ID, ID=ID))
        await self.until(lambda: b"_answer\0\x016" in raw.received)
        self.assertIn(b"arguments of 1501 bytes, where 1500 are", raw.received)
        self.assertIn(b"more than 4 tasks at once", raw.received)
        self.assertEqual(raw.received.count(b"Credit"), 1)
        raw.transport.write(box(_command=b"Cancel", ID=b"1"))
        await self.until(lambda: raw.received.count(b"Credit") == 2)

    async def test_argumentsInUse(self) -> None:
        """Large arguments count against the limit until their task is done."""
        server = await self.serve(maxHeld=300_000, concurrent=1)
        q = await self.queue(N_concurrent=5)
        calls = [q.call("wait", bytes(100_000)) for _ in range(5)]
        await self.until(lambda: self.universe.waiting)
        [session] = server._sessions
        await self.until(lambda: len(session.tasks) == 5)
        for _ in range(50):
            await self.turn()
        held = [task.size for task in session.tasks.values() if task.size]
        self.assertEqual(len(held), 2)
        for i, d in enumerate(calls):
            await self.until(lambda: len(self.universe.waiting) > i)  # noqa: B023
            self.universe.waiting[i].callback(i)
            self.assertEqual(await d, i)
        self.assertEqual(session.budget._left, 300_000)

    async def test_endlessBox(self) -> None:
        """
        A box without end, or with very many fields, is cut off, however it's made.
        """
        await self.serve()
        q = await self.queue()
        for data in (
            b"\0\1k\xff\xff" + b"x" * 65_535,
            b"\0\1k\0\0" * 10_000,
            b"".join(b"\0\4%04d\0\0" % i for i in range(9999)),
            b"".join(b"\0\4%04d\0\0" % i for i in range(30)) + b"\0\0",
        ):
            raw = await self.connect(Raw)
            for _ in range(40):
                raw.transport.write(data)
            await raw.lost
        self.assertEqual(await q.call("add", 1), 1)

    async def test_neverLeaves(self) -> None:
        """
        A client that doesn't say that it sends no more tasks doesn't keep the server.
        """
        self.patch(_server, "_LEAVING_SECONDS", 0.05)
        server = await self.serve(stopTimeout=None)
        raw = await self.connect(Raw)
        await self.until(lambda: server._sessions)
        await server.stop()
        await raw.lost
        self.assertIn(b"Leaving", raw.received)

    async def test_moreThanDeclared(self) -> None:
        """A client that sends more than it has declared is cut off."""
        await self.serve()
        raw = await self.connect(Raw)
        run = {"_command": b"RunTask", "methodName": b"size", "ID": b"1"}
        raw.transport.write(box(**run, _ask=b"1", size=b"10"))
        raw.transport.write(box(_command=b"Chunk", ID=b"1", data=bytes(11)))
        await raw.lost

    async def test_twice(self) -> None:
        """So is one that uses an ID twice at the same time."""
        await self.serve()
        raw = await self.connect(Raw)
        run = {"_command": b"RunTask", "methodName": b"wait", "ID": b"1"}
        raw.transport.write(box(**run, _ask=b"1") + box(**run, _ask=b"2"))
        await raw.lost

    async def test_mutated(self) -> None:
        """Whatever bytes come, the server goes on."""
        await self.serve(pickle=False)
        chance = random.Random(7)
        args = dumps([1, 2])
        run = {"_command": b"RunTask"}
        talk = b"".join(
            (
                box(
                    **run,
                    _ask=b"1",
                    ID=b"1",
                    methodName=b"add",
                    args=args,
                ),
                box(**run, _ask=b"2", ID=b"2", methodName=b"count"),
                box(
                    **run,
                    _ask=b"3",
                    ID=b"3",
                    methodName=b"size",
                    size=b"9",
                ),
                box(_command=b"Chunk", ID=b"3", data=b"v" + bytes(7)),
                box(_command=b"Credit", ID=b"2", items=b"5", bytes=b"100"),
                box(_command=b"Close", ID=b"2"),
                box(_command=b"Cancel", ID=b"3"),
                box(_command=b"GetNext", _ask=b"4", ID=b"7"),
                box(_command=b"Beat"),
            )
        )
        for _ in range(300):
            mutated = bytearray(talk)
            for _ in range(chance.randint(1, 4)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            raw = await self.connect(Raw)
            raw.transport.write(bytes(mutated))
            raw.transport.loseConnection()
            await raw.lost
        q = await self.queue(pickle=False)
        self.assertEqual(await q.call("add", 1), 1)
        self.flushLoggedErrors()

    async def test_slowReader(self) -> None:
        """
        Little is sent to a client that doesn't read, whatever credit it gives: of large
        results, of iterations, and of small answers.
        """
        server = await self.serve()
        raw = await self.connect(Raw)
        raw.transport.pauseProducing()
        run = {"_command": b"RunTask"}
        credit = {"_command": b"Credit", "bytes": b"999999999"}
        zeros = dumps([50_000_000])
        blocks = dumps([100, 500_000])
        small = dumps([50_000])
        raw.transport.write(
            box(**run, _ask=b"1", ID=b"1", methodName=b"zeros", args=zeros)
            + box(**run, _ask=b"2", ID=b"2", methodName=b"blocks", args=blocks)
            + box(_command=b"GetNext", _ask=b"3", ID=b"2", count=b"100")
            + box(_command=b"GetNext", _ask=b"4", ID=b"2", count=b"100")
            + box(**credit, ID=b"1")
            + box(**credit, ID=b"2")
        )
        for i in range(3000):
            raw.transport.write(
                box(**run, _ask=b"x%d" % i, methodName=b"zeros", args=small)
            )
        await self.until(lambda: server._sessions)
        [peer] = server._sessions
        await self.until(lambda: peer._isCongested)
        for _ in range(300):
            await self.turn()
        transport: Any = peer.transport
        waiting = len(b"".join(transport._tempDataBuffer)) + len(transport.dataBuffer)
        self.assertLess(waiting, 500_000)
        self.assertLessEqual(len(self.universe.log), 4)
        self.assertLess(len(peer.tasks), 10)


class AMPTests(FaultTestCase):
    """Tests of clients that use AMP's own protocol, and another decoder."""

    async def test_commands(self) -> None:
        """
        Tasks can be run, and items got one by one or several at a time, with
        C{callRemote}.
        """
        server = await self.serve()
        client = await self.connect(amp.AMP)
        answer = await client.callRemote(
            RunTask, methodName=b"add", args=dumps([1]), kw=dumps({"b": 2})
        )
        self.assertEqual((answer["status"], loads(answer["result"])), (b"r", 3))
        answer = await client.callRemote(RunTask, methodName=b"boom")
        self.assertEqual(answer["status"], b"e")
        self.assertIn("boom()", loads(answer["result"])[0])
        answer = await client.callRemote(RunTask, methodName=b"count", args=dumps([2]))
        self.assertEqual(answer["status"], b"i")
        ID = answer["result"]
        for valid in (True, True, False):
            item = await client.callRemote(GetNext, ID=ID)
            self.assertEqual(item["isValid"], valid)
        await self.assertFailure(client.callRemote(GetNext, ID=ID), WorkerError)
        answer = await client.callRemote(
            RunTask, methodName=b"count", args=dumps([200])
        )
        some = await client.callRemote(GetNext, ID=answer["result"], count=b"5")
        self.assertEqual(loads(some["values"]), [0, 1, 2, 3, 4])
        client.transport.loseConnection()
        await self.until(lambda: not server._sessions)
        self.assertEqual(self.universe.log[-1], "closed")

    async def test_large(self) -> None:
        """
        Large values come in chunks to who asks for them with a task that has an ID.
        """

        class Client(amp.AMP):  # type: ignore[misc, unused-ignore]
            """A client that takes chunks."""

            data = b""

            @ValueChunk.responder  # type: ignore[misc, unused-ignore]
            def chunk(self, ID: bytes, data: bytes) -> dict[str, bytes]:
                self.data += data
                return {}

        await self.serve()
        client = await self.connect(Client)
        answer = await client.callRemote(
            RunTask, methodName=b"zeros", args=dumps([200_000]), ID=b"1"
        )
        self.assertEqual(answer["status"], b"c")
        size = int(answer["result"])
        client.callRemote(Credit, ID=b"1", bytes=answer["result"])
        await self.until(lambda: len(client.data) == size)
        count, main, beside = struct.unpack(">I2Q", client.data[:20])
        self.assertEqual((count, 20 + main + beside), (2, size))
        tag = loads(client.data[20 : 20 + main])
        self.assertEqual((tag.tag, tag.value), (42_241, 0))
        self.assertEqual(client.data[20 + main :], bytes(200_000))
        answer = await client.callRemote(
            RunTask, methodName=b"zeros", args=dumps([200_000])
        )
        self.assertIn("needs a task with an ID", loads(answer["result"])[0])

    async def test_stays(self) -> None:
        """
        One that knows nothing of signs of life, nor gives any but by AMP's own answers,
        stays connected.
        """
        server = await self.serve(heartbeat=0.02)
        client = await self.connect(amp.AMP)
        [session] = await self.sessions(server)
        for _ in range(2):
            asked = client._counter, session._counter
            await self.until(lambda: session._counter > asked[1] + 5)  # noqa: B023
        answer = await client.callRemote(RunTask, methodName=b"nothing")
        self.assertEqual(answer["status"], b"n")

    async def test_held(self) -> None:
        """
        A task that waits for its turn is run, though the client doesn't know that it's
        asked whether it's wanted.
        """
        await self.serve(concurrent=1)
        client = await self.connect(amp.AMP)
        calls = [
            client.callRemote(
                RunTask, methodName=b"wait", args=dumps([i]), ID=b"%d" % i
            )
            for i in range(2)
        ]
        for i, d in enumerate(calls):
            await self.until(lambda: len(self.universe.waiting) > i)  # noqa: B023
            self.universe.waiting[i].callback(i)
            self.assertEqual(loads((await d)["result"]), i)

    async def test_manyHeld(self) -> None:
        """However many tasks wait for their turn, each is run by itself."""
        server = await self.serve(concurrent=1)
        client = await self.connect(amp.AMP)
        first = client.callRemote(RunTask, methodName=b"wait", args=dumps([0]))
        calls = [
            client.callRemote(RunTask, methodName=b"add", args=dumps([i]))
            for i in range(1, 500)
        ]
        [session] = await self.sessions(server)
        await self.until(lambda: len(session.tasks) == 500)
        self.universe.waiting[0].callback(0)
        for i, d in enumerate([first, *calls]):
            answer = await d
            self.assertEqual(answer["status"], b"r")
            self.assertEqual(loads(answer["result"]), i)
        slots: Any = server._shared.slots
        self.assertEqual(slots.tokens, 1)

    async def test_unsendableItem(self) -> None:
        """
        An item that can't be sent ends the iteration, and the generator is closed.
        """
        server = await self.serve(pickle=False)
        client = await self.connect(amp.AMP)
        answer = await client.callRemote(RunTask, methodName=b"secrets")
        ID = answer["result"]
        await client.callRemote(GetNext, ID=ID)
        error = await self.assertFailure(client.callRemote(GetNext, ID=ID), WorkerError)
        self.assertIn("Secret", str(error))
        [session] = server._sessions
        self.assertEqual(session.tasks, {})

    async def sessions(self, server: WireServer) -> Any:
        """Get the server's ends of connections, as soon as there's one."""
        await self.until(lambda: server._sessions)
        return server._sessions


class ManyTests(WireTestCase):
    """Tests of many ends at once."""

    async def test_manyClients(self) -> None:
        """
        Many clients of one server that runs few tasks at once all have theirs run.
        """
        await self.serve(concurrent=3)
        queues = [await self.queue(N_concurrent=2) for _ in range(20)]
        calls = [
            q.call("note", (i, j)) for i, q in enumerate(queues) for j in range(20)
        ]
        results = [await d for d in calls]
        self.assertEqual(results, [(i, j) for i in range(20) for j in range(20)])
        self.assertEqual(len(self.universe.log), 400)

    async def test_manyServers(self) -> None:
        """One queue can have workers on many servers."""
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        for i in range(5):
            place = f"unix:{self.folder}/{i}"
            await self.serve(description=place)
            await q.attachWorker(self.worker(description=place))
        self.closers.append(lambda: q.shutdown(timeout=0))
        self.assertEqual(
            [await d for d in [q.call("add", i) for i in range(100)]], list(range(100))
        )
