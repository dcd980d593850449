"""
Tests of what peers and networks may do.
"""

from __future__ import annotations

import pickle
import random
import struct
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols import amp

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.errors import WorkerLost, WorkerStartError
from asynqueue.wire import GetNext, RunTask
from asynqueue.wire._values import Codec

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
        """
        Connect to the server, if this is the client's side.
        """
        if self.other is None:
            side = type(self)()
            side.other = self
            endpoint = clientFromString(globalReactor(), self.target)
            d = endpoint.connect(Factory.forProtocol(lambda: side))
            d.addCallback(self.connected2)

    def connected2(self, other: Any) -> None:
        """
        Pass on what has come before.

        @param other: The server's side.
        """
        self.other = other
        early, self.early = self.early, b""
        if early:
            self.dataReceived(early)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on bytes.

        @param data: They.
        """
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
        """
        End the other connection.

        @param reason: Why this one has ended.
        """
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()


class Raw(protocol.Protocol):
    """
    A client that sends what it's told.

    @ivar received: What has come.

    @ivar lost: Fires when the connection has ended.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """
        Keep bytes.

        @param data: They.
        """
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """
        Note the end.

        @param reason: Why.
        """
        self.lost.callback(None)


class FaultTestCase(WireTestCase):
    """
    A test case with clients of other kinds.
    """

    async def connect(self, makeProtocol: Callable[[], Any]) -> Any:
        """
        Connect to the server.

        @param makeProtocol: Makes the protocol.

        @return: It.
        """
        endpoint = clientFromString(globalReactor(), self.description)
        client: Any = await endpoint.connect(Factory.forProtocol(makeProtocol))

        def close() -> None:
            """
            End the connection, if it hasn't ended.
            """
            if client.transport is not None and client.transport.connected:
                client.transport.abortConnection()

        self.closers.append(close)
        return client


class CutTests(FaultTestCase):
    """
    Tests of connections that are cut.
    """

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
            Have a conversation.

            @param cut: How many bytes of it get through.

            @return: How many did.
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
                """
                Count how often a call's Deferred fires.

                @param result: With what.

                @param i: Which call it is.

                @return: The result.
                """
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
    """
    Tests of clients that don't keep to the protocol.
    """

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
        pickled = b"K\0" + pickle.dumps(1)
        with mock.patch("pickle.Unpickler", side_effect=AssertionError):
            for i, fields in enumerate(
                (
                    {"methodName": b"nosuch"},
                    {"methodName": b"add", "args": b"garbage"},
                    {"methodName": b"add", "args": pickled},
                    {"methodName": b"add", "args": Codec().encode(5)},
                    {"methodName": b"add", "kw": Codec().encode((1,))},
                    {"methodName": b"add", "kw": Codec().encode({1: 2})},
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
        [peer] = server._peers
        self.assertEqual(peer.tasks, {})

    async def test_tooMuchDeclared(self) -> None:
        """
        Arguments that are on their way may have so many bytes together, and tasks so
        many at once.
        """
        server = await self.serve(maxHeld=1500, largest=1000, maxTasks=3)
        raw = await self.connect(Raw)
        run = {"_command": b"RunTask", "methodName": b"wait"}
        raw.transport.write(box(**run, _ask=b"1", ID=b"1", size=b"1000"))
        raw.transport.write(box(**run, _ask=b"2", ID=b"2", size=b"1000"))
        await self.until(lambda: b"_answer\0\x012" in raw.received)
        self.assertIn(b"1500 bytes of arguments at once", raw.received)
        raw.transport.write(box(**run, _ask=b"3", ID=b"3"))
        raw.transport.write(box(**run, _ask=b"4", ID=b"4"))
        raw.transport.write(box(**run, _ask=b"5", ID=b"5"))
        await self.until(lambda: b"_answer\0\x015" in raw.received)
        self.assertIn(b"3 tasks at once", raw.received)
        [peer] = server._peers
        self.assertEqual(set(peer.tasks), {b"1", b"3", b"4"})

    async def test_moreThanDeclared(self) -> None:
        """
        A client that sends more than it has declared is cut off.
        """
        await self.serve()
        raw = await self.connect(Raw)
        run = {"_command": b"RunTask", "methodName": b"size", "ID": b"1"}
        raw.transport.write(box(**run, _ask=b"1", size=b"10"))
        head = struct.pack(">cQ", b"v", 11)
        raw.transport.write(box(_command=b"Chunk", ID=b"1", data=head + bytes(11)))
        await raw.lost

    async def test_twice(self) -> None:
        """
        So is one that uses an ID twice at the same time.
        """
        await self.serve()
        raw = await self.connect(Raw)
        run = {"_command": b"RunTask", "methodName": b"wait", "ID": b"1"}
        raw.transport.write(box(**run, _ask=b"1") + box(**run, _ask=b"2"))
        await raw.lost

    async def test_mutated(self) -> None:
        """
        Whatever bytes come, the server goes on.
        """
        await self.serve(pickle=False)
        chance = random.Random(7)
        args = Codec().encode((1, 2))
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
        Of a large result, and of an iteration, no more than a window is sent to a
        client that doesn't read.
        """
        server = await self.serve()
        raw = await self.connect(Raw)
        raw.transport.pauseProducing()
        zeros = Codec().encode((50_000_000,))
        blocks = Codec().encode((100, 500_000))
        for ID, name, args in (
            (b"1", b"zeros", zeros),
            (b"2", b"blocks", blocks),
        ):
            raw.transport.write(
                box(_command=b"RunTask", _ask=ID, ID=ID, methodName=name, args=args)
            )
        await self.until(lambda: server._peers)
        [peer] = server._peers
        await self.until(
            lambda: (
                len(peer.outgoing) == 2
                and all(not outgoing.credit for outgoing in peer.outgoing.values())
            )
        )
        for _ in range(100):
            await self.turn()
        transport = peer.transport
        waiting = sum(map(len, transport._tempDataBuffer)) + len(transport.dataBuffer)
        self.assertLess(waiting, 2_200_000)
        self.assertLessEqual(len(self.universe.log), 4)


class AMPTests(FaultTestCase):
    """
    Tests of clients that use AMP's own protocol.
    """

    async def test_commands(self) -> None:
        """
        Tasks can be run, and items got one by one, with C{callRemote}.
        """
        server = await self.serve()
        client = await self.connect(amp.AMP)
        codec = Codec()
        answer = await client.callRemote(
            RunTask, methodName=b"add", args=codec.encode((1, 2)), kw=b""
        )
        self.assertEqual(answer["status"], b"r")
        self.assertEqual(codec.decode(answer["result"]), 3)
        answer = await client.callRemote(
            RunTask, methodName=b"count", args=codec.encode((2,)), kw=b""
        )
        self.assertEqual(answer["status"], b"i")
        ID = answer["result"]
        for valid in (True, True, False):
            item = await client.callRemote(GetNext, ID=ID)
            self.assertEqual(item["isValid"], valid)
        await self.assertFailure(
            client.callRemote(GetNext, ID=ID), amp.UnknownRemoteError, Exception
        )
        answer = await client.callRemote(
            RunTask, methodName=b"count", args=codec.encode((200,)), kw=b""
        )
        await client.callRemote(GetNext, ID=answer["result"])
        client.transport.loseConnection()
        await self.until(lambda: not server._peers)
        self.assertEqual(self.universe.log[-1], "closed")
        self.assertEqual(server.runner.iterators, {})


class ManyTests(WireTestCase):
    """
    Tests of many ends at once.
    """

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
        """
        One queue can have workers on many servers.
        """
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
