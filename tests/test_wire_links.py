"""
Tests of what may befall connections, in memory: cut anywhere, silent, or of another
version.
"""

from __future__ import annotations

import logging
from typing import Any

from cbor2 import dumps
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import TaskQueue
from asynqueue.errors import AsynQueueError, WorkerLost, WorkerStartError
from asynqueue.wire import WireServer

from ._wire import Universe, box
from ._wirememory import KEY, Connection, Pair, Small, inlineThreads


class LinkTestCase(SynchronousTestCase):
    """A test case with connections in memory."""

    def setUp(self) -> None:
        """Begin at no time, and say nothing."""
        self.clock = Clock()
        inlineThreads(self)
        logger = logging.getLogger("asynqueue")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)

    def pair(self, universe: Any = None, **kw: Any) -> tuple[Pair, TaskQueue]:
        """Have a queue with a worker that's about to be connected."""
        pair = Pair(self.clock, universe or Small(), **{"key": KEY, **kw})
        q = TaskQueue(reactor=self.clock)
        q.attachWorker(pair.worker).addErrback(lambda _: None)
        self.clock.advance(0)
        return pair, q


class CutTests(LinkTestCase):
    """Tests of connections that are cut."""

    def talk(self, cut: int | None) -> int:
        """
        Have a conversation of which so many bytes get through, or all. Returns how many
        did.
        """
        universe = Universe()
        pair, q = self.pair(universe)
        calls: list[Deferred[Any]] = [
            q.call("note", "x"),
            q.call("boom"),
            q.call("these", [1, 2]),
            q.call("coroutine", b"y"),
            q.call("nothing"),
        ]
        fired = [0] * len(calls)
        results: list[Any] = [None] * len(calls)

        def count(result: Any, i: int) -> None:
            """Count how often the Deferred of the ith call fires."""
            fired[i] += 1
            results[i] = getattr(result, "value", result)

        for i, d in enumerate(calls):
            d.addBoth(count, i)
        pair.pump(cut)
        items: list[Any] = []
        if fired[2] and not isinstance(results[2], Exception):
            d = Deferred.fromCoroutine(self.all(results[2], items))
            pair.pump(cut)
            pair.cut()
            d.addErrback(lambda failure: failure.trap(WorkerLost))
            self.successResultOf(d)
            self.assertEqual(items, [1, 2][: len(items)])
        pair.cut()
        q.shutdown(timeout=0)
        self.clock.advance(0)
        self.assertEqual(fired, [1] * len(calls))
        for result, good in zip(results, ("x", None, None, b"y", None), strict=True):
            if isinstance(result, ValueError):
                self.assertEqual(result.args, ("boom", 3))
            elif isinstance(result, Exception):
                self.assertIsInstance(result, AsynQueueError)
            elif result is not results[2]:
                self.assertEqual(result, good)
        self.assertLessEqual(universe.log.count("x"), 1)
        self.assertEqual(pair.server._sessions, set())
        self.assertEqual(pair.server._shared.threads.tokens, 16)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        if cut is None:
            self.assertEqual((results[0], items, results[3]), ("x", [1, 2], b"y"))
        return pair.passed

    async def all(self, iteration: Any, items: list[Any]) -> None:
        """Take all items."""
        async for item in iteration:
            items.append(item)  # noqa: PERF401 - those before an error are wanted

    def test_everywhere(self) -> None:
        """
        At whichever byte of a conversation the connection is cut, from the handshake
        on, each call fires once: with its result, or with an error of its own kind;
        nothing is run twice, and nothing is left.
        """
        whole = self.talk(None)
        self.assertGreater(whole, 1000)
        for cut in range(1, whole):
            self.talk(cut)

    def test_unsent(self) -> None:
        """A call whose connection can't be made says so."""
        pair, q = self.pair()
        d = q.call("note", 1)
        pair.pump(10)
        self.clock.advance(0)
        self.failureResultOf(d, WorkerStartError)


class SilenceTests(LinkTestCase):
    """Tests of ends of which nothing is heard any longer, as when a cable is cut."""

    def silence(self, beats: int) -> None:
        """Let so many heartbeats pass in which nothing is heard."""
        for _ in range(beats):
            self.clock.advance(10)

    def test_server(self) -> None:
        """
        A server that is silent is lost after three heartbeats, and so is what it ran
        in a thread.
        """
        pair, q = self.pair(heartbeat=10)
        d = q.call("wait")
        pair.pump()
        assert pair.worker._client is not None
        [call] = pair.worker._client.calls.values()
        call.thread = True
        self.clock.advance(10)
        pair.pump()
        self.silence(3)
        self.assertNoResult(d)
        self.silence(1)
        pair.pump()
        error = self.failureResultOf(d, WorkerLost).value
        self.assertIn("Nothing has come from the other end for 30 seconds", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_blocked(self) -> None:
        """
        A server that may be kept from answering by a method that it runs for the
        worker has ten times as long.
        """
        pair, q = self.pair(heartbeat=10, server={"heartbeat": None})
        d = q.call("wait")
        pair.pump()
        self.silence(30)
        pair.pump()
        self.assertFalse(pair.isCut)
        self.silence(32)
        pair.pump()
        error = self.failureResultOf(d, WorkerLost).value
        self.assertIn("for 300 seconds", str(error))

    def test_client(self) -> None:
        """A client that is silent is lost, too, and its tasks are stopped."""
        universe = Universe()
        server = WireServer("tcp:0", universe, key=KEY, reactor=self.clock)
        connection = Connection(server)
        connection.enter(KEY)
        connection.send(box(_command=b"RunTask", _ask=b"1", methodName=b"wait"))
        for _ in range(3):
            self.assertFalse(connection.transport.disconnecting)
            self.clock.advance(10)
        self.clock.advance(10)
        self.assertTrue(connection.transport.disconnecting)
        connection.close()
        self.assertEqual(universe.log, [None, "cancelled"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def idle(self, pair: Pair, q: TaskQueue) -> None:
        """Let much time pass, and see that the connection has stayed."""
        pair.pump()
        for _ in range(200):
            self.clock.advance(5)
            pair.pump()
        self.assertFalse(pair.isCut)
        d = q.call("echo", 1)
        pair.pump()
        self.assertEqual(self.successResultOf(d), (1,))
        pair.cut()
        q.shutdown(timeout=0)

    def test_idle(self) -> None:
        """Ends that say nothing but that they're there stay."""
        self.idle(*self.pair(heartbeat=10))

    def test_differentHeartbeats(self) -> None:
        """
        Each end has its own patience: one that never asks for signs of life, or seldom,
        answers another that asks often.
        """
        for client, server in ((1, None), (None, 1), (1, 100), (100, 1)):
            pair, q = self.pair(heartbeat=client, server={"heartbeat": server})
            self.idle(pair, q)


class UnreadTests(LinkTestCase):
    """Tests of a server that doesn't read what it's answered."""

    def test_questions(self) -> None:
        """It's cut off if it goes on to ask, unless it reads meanwhile."""
        pair, q = self.pair()
        pair.pump()
        client: Any = pair.worker._client
        for reads in (True, False):
            for _ in range(2):
                client.pauseProducing()
                for i in range(600):
                    client.dataReceived(box(_command=b"Ping", _ask=b"%d" % i))
                if reads:
                    client.resumeProducing()
            self.assertIs(client.isOver, not reads)
        q.shutdown(timeout=0)


class VersionTests(LinkTestCase):
    """Tests of ends that are of different versions, without a key."""

    def test_client(self) -> None:
        """A client of another version is told so, and sent away."""
        server = WireServer("tcp:0", Small(), insecure=True, reactor=self.clock)
        connection = Connection(server)
        connection.send(box(_command=b"Hello", _ask=b"1", version=b"1"))
        self.clock.advance(1)
        answer = connection.send(b"")
        self.assertIn(b"VERSION", answer)
        self.assertIn(b"This server speaks version 2", answer)
        self.assertTrue(connection.transport.disconnecting)
        connection.close()
        self.assertEqual(server._sessions, set())

    def test_none(self) -> None:
        """A client that says no version, with AMP's own protocol, say, is served."""
        server = WireServer("tcp:0", Small(), insecure=True, reactor=self.clock)
        connection = Connection(server)
        args = dumps([1])
        answer = connection.send(
            box(_command=b"RunTask", _ask=b"1", methodName=b"echo", args=args)
        )
        self.assertIn(b"status\0\x01r", answer)
        connection.close()

    def test_server(self) -> None:
        """
        A server of another version is refused in words, in which nothing is shown of
        what it has sent.
        """
        for answer in (
            box(_answer=b"1", version=b"99\x1b[2J\n"),
            box(
                _error=b"1",
                _error_code=b"VERSION",
                _error_description=b"\x1b[2J\n",
                version=b"1",
            ),
        ):
            pair, q = self.pair(key=None)
            d = q.call("echo", 1)
            client, server = pair._ends
            server.transport.clear()
            client.dataReceived(answer)
            self.clock.advance(0)
            error = self.failureResultOf(d, WorkerStartError).value
            self.assertIn("another version of the protocol", str(error))
            self.assertIn("this end, which speaks 2", str(error))
            self.assertTrue(str(error).isprintable())
            pair.cut()
