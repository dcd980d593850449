"""
Tests of what may befall connections, in memory: cut anywhere, silent, or of another
version.
"""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import TaskQueue
from asynqueue.errors import AsynQueueError, WorkerLost, WorkerStartError
from asynqueue.wire import WireServer
from asynqueue.wire._values import Codec

from ._wire import Universe, box
from ._wirememory import KEY, Connection, InlineReactor, Pair, Small


class LinkTestCase(SynchronousTestCase):
    """
    A test case with connections in memory.
    """

    def setUp(self) -> None:
        """
        Begin at no time, and say nothing.
        """
        self.clock = InlineReactor()
        logger = logging.getLogger("asynqueue")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)

    def pair(self, universe: Any = None, **kw: Any) -> tuple[Pair, TaskQueue]:
        """
        Have a queue with a worker that's about to be connected.

        @param universe: The universe.

        @param kw: Keywords of server and worker.

        @return: The connection, and the queue.
        """
        pair = Pair(self.clock, universe or Small(), **{"key": KEY, **kw})
        q = TaskQueue(reactor=self.clock)
        q.attachWorker(pair.worker).addErrback(lambda _: None)
        self.clock.advance(0)
        return pair, q


class CutTests(LinkTestCase):
    """
    Tests of connections that are cut.
    """

    def talk(self, cut: int | None) -> int:
        """
        Have a conversation.

        @param cut: How many bytes of it get through, C{None} for all.

        @return: How many did.
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
            """
            Count how often a call's Deferred fires.

            @param result: With what.

            @param i: Which call it is.
            """
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
        self.assertEqual(pair.server._peers, set())
        self.assertEqual(pair.server._slots._used, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        if cut is None:
            self.assertEqual((results[0], items, results[3]), ("x", [1, 2], b"y"))
        return pair.passed

    async def all(self, iteration: Any, items: list[Any]) -> None:
        """
        Take all items.

        @param iteration: Of what.

        @param items: Where to.
        """
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
        """
        A call whose connection can't be made says so.
        """
        pair, q = self.pair()
        d = q.call("note", 1)
        pair.pump(10)
        self.failureResultOf(d, WorkerStartError)


class SilenceTests(LinkTestCase):
    """
    Tests of ends of which nothing is heard any longer, as when a cable is cut.
    """

    def test_server(self) -> None:
        """
        A server that is silent is lost after three heartbeats, and so is what it ran.
        """
        pair, q = self.pair(heartbeat=10)
        d = q.call("wait")
        pair.pump()
        self.clock.advance(10)
        pair.pump()
        self.assertNoResult(d)
        for _ in range(3):
            self.clock.advance(10)
        self.assertNoResult(d)
        self.clock.advance(10)
        pair.pump()
        error = self.failureResultOf(d, WorkerLost).value
        self.assertIn("Nothing has come from the other end for 30 seconds", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client(self) -> None:
        """
        A client that is silent is lost, too, and its tasks are stopped.
        """
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

    def test_idle(self) -> None:
        """
        Ends that say nothing but that they're there stay.
        """
        pair, q = self.pair(heartbeat=10)
        pair.pump()
        for _ in range(100):
            self.clock.advance(10)
            pair.pump()
        self.assertFalse(pair.isCut)
        d = q.call("echo", 1)
        pair.pump()
        self.assertEqual(self.successResultOf(d), (1,))
        pair.cut()
        q.shutdown(timeout=0)


class VersionTests(LinkTestCase):
    """
    Tests of ends that are of different versions, without a key.
    """

    def test_client(self) -> None:
        """
        A client of another version is told which the server has, and sent away.
        """
        server = WireServer("tcp:0", Small(), insecure=True, reactor=self.clock)
        connection = Connection(server)
        answer = connection.send(box(_command=b"Hello", _ask=b"1", version=b"99"))
        self.assertIn(b"VERSION", answer)
        self.assertIn(b"version\0\x011", answer)
        self.assertTrue(connection.transport.disconnecting)
        connection.close()
        self.assertEqual(server._peers, set())

    def test_none(self) -> None:
        """
        A client that says no version, with AMP's own protocol, say, is served.
        """
        server = WireServer("tcp:0", Small(), insecure=True, reactor=self.clock)
        connection = Connection(server)
        args = Codec().encode((1,))
        answer = connection.send(
            box(_command=b"RunTask", _ask=b"1", methodName=b"echo", args=args)
        )
        self.assertIn(b"status\0\x01r", answer)
        connection.close()

    def test_server(self) -> None:
        """
        A server of another version is named in the error.
        """
        pair, q = self.pair(key=None)
        d = q.call("echo", 1)
        gate, server = pair._ends
        server.transport.clear()
        gate.dataReceived(box(_answer=b"1", version=b"99"))
        error = self.failureResultOf(d, WorkerStartError).value
        self.assertIn("speaks version 99 of the protocol, this end 1", str(error))
        pair.cut()
