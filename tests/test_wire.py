"""
Tests of wire workers with real servers and sockets.
"""

from __future__ import annotations

from typing import Any

from asynqueue import TaskQueue
from asynqueue.errors import SerializationError, WorkerError, WorkerStartError

from ._wire import Secret, Universe, WireTestCase


class CallTests(WireTestCase):
    """
    Tests of calls of remote methods.
    """

    async def test_values(self) -> None:
        """
        Arguments and keywords reach the method, and its result comes back.
        """
        await self.serve()
        q = await self.queue()
        self.assertEqual(await q.call("add", 1, b=2), 3)
        self.assertEqual(await q.call("echo", [1], {"a": b""}), (([1], {"a": b""}), {}))
        self.assertIsNone(await q.call("nothing"))
        self.assertEqual(await q.call("coroutine", 5), 5)
        self.assertEqual(await q.call("inherited"), "inherited")

    async def test_error(self) -> None:
        """
        An exception comes back with its type, arguments and notes, and the remote
        traceback as its cause.
        """
        await self.serve()
        q = await self.queue()
        error = await self.assertFailure(q.call("boom"), ValueError)
        self.assertEqual(error.args, ("boom", 3))
        self.assertIn("in boom", str(error.__cause__))
        self.assertEqual(getattr(error, "__notes__", ["a note"]), ["a note"])

    async def test_unknownMethod(self) -> None:
        """
        A method that isn't served fails at once, and the error has the names of those
        that are.
        """
        await self.serve()
        q = await self.queue()
        for name in ("nosuch", "_private", "__init__", "ws", "attribute", "allowed"):
            with self.subTest(name=name):
                error = await self.assertFailure(q.call(name), WorkerError)
                self.assertRegex(str(error), f"{name}.* add, .*zeros")
        self.assertEqual(await q.call("add", 1), 1)

    async def test_callable(self) -> None:
        """
        So does a callable, as methods are called by name.
        """
        await self.serve()
        q = await self.queue()
        error = await self.assertFailure(q.call(len, []), WorkerError)
        self.assertIn("by name", str(error))

    async def test_unsendable(self) -> None:
        """
        What can't be sent fails with a SerializationError that names its type and the
        ways out, whichever way it was to go. Other calls aren't affected.
        """
        await self.serve(pickle=False)
        q = await self.queue(pickle=False)
        for d in (q.call("echo", Secret()), q.call("secret")):
            error = await self.assertFailure(d, SerializationError)
            self.assertRegex(str(error), r"Secret.*allowed.*pickle=True")
        self.assertEqual(await q.call("add", 1), 1)

    async def test_capacity(self) -> None:
        """
        A worker has as many tasks running at a time as it was told.
        """
        await self.serve()
        q = await self.queue(N_concurrent=3)
        calls: list[Any] = [q.call("wait", i) for i in range(5)]
        waiting = self.universe.waiting
        await self.until(lambda: len(waiting) >= 3)
        self.assertEqual(self.universe.log, [0, 1, 2])
        for i in range(5):
            await self.until(lambda: len(waiting) > i)  # noqa: B023
            waiting[i].callback(i)
        self.assertEqual([await d for d in calls], [0, 1, 2, 3, 4])


class ConnectTests(WireTestCase):
    """
    Tests of connections that can't be made.
    """

    async def test_refused(self) -> None:
        """
        Where nobody listens, attaching the worker fails with a typed error, as do calls
        that wait, and the queue can be shut down.
        """
        q = TaskQueue()
        attached = q.attachWorker(self.worker())
        call = q.call("add", 1)
        await self.assertFailure(attached, WorkerStartError)
        await self.assertFailure(call, WorkerStartError)
        self.assertEqual(q.workers(), [])
        await q.shutdown()

    async def test_notUniverse(self) -> None:
        """
        The first argument must be a universe.
        """
        with self.assertRaisesRegex(TypeError, "universe"):
            type(self.worker())(object, self.description)  # type: ignore[arg-type]

    async def test_shutdownWhileConnecting(self) -> None:
        """
        A queue whose worker isn't connected yet can be shut down.
        """
        q = TaskQueue(self.worker(reconnect=True))
        await q.shutdown()


class UniverseTests(WireTestCase):
    """
    Tests of the universe of a server.
    """

    async def test_server(self) -> None:
        """
        The universe knows its server.
        """
        server = await self.serve()
        self.assertIs(self.universe.ws, server)

    async def test_dottedName(self) -> None:
        """
        A universe can be given by name.
        """
        server = await self.serve(universe="tests._wire.Universe")
        self.assertIsInstance(server.wwu, Universe)
