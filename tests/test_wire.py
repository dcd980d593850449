"""Tests of wire workers with real servers and sockets."""

from __future__ import annotations

import gc
import threading
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.errors import (
    SerializationError,
    TimeoutError,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.testing import RecordingConsumer
from asynqueue.wire import WireWorker

from ._wire import Declared, Secret, Universe, WireTestCase


class CallTests(WireTestCase):
    """Tests of calls of remote methods."""

    async def test_values(self) -> None:
        """Arguments and keywords reach the method, and its result comes back."""
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
        """So does a callable, as methods are called by name."""
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
        """A worker has as many tasks running at a time as it was told."""
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
    """Tests of connections that can't be made."""

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
        """The first argument must be a universe."""
        with self.assertRaisesRegex(TypeError, "universe"):
            type(self.worker())(object, self.description)  # type: ignore[arg-type]

    async def test_shutdownWhileConnecting(self) -> None:
        """A queue whose worker isn't connected yet can be shut down."""
        q = TaskQueue(self.worker(reconnect=True))
        await q.shutdown()


class UniverseTests(WireTestCase):
    """Tests of the universe of a server."""

    async def test_server(self) -> None:
        """The universe knows its server."""
        server = await self.serve()
        self.assertIs(self.universe.ws, server)

    async def test_dottedName(self) -> None:
        """A universe can be given by name."""
        server = await self.serve(universe="tests._wire.Universe")
        self.assertIsInstance(server.wwu, Universe)


class LargeTests(WireTestCase):
    """Tests of large values."""

    async def test_sizes(self) -> None:
        """Arguments and results of any size arrive."""
        for pickles in (True, False):
            await self.serve(pickle=pickles, description=f"{self.description}{pickles}")
            q = await self.queue(
                pickle=pickles, description=f"{self.description}{pickles}"
            )
            for size in (0, 1, 59_000, 60_000, 65_536, 1 << 20, 200_000_001):
                with self.subTest(size=size):
                    self.assertEqual(len(await q.call("zeros", size)), size)
                    self.assertEqual(await q.call("size", bytes(size)), size)
            [(args, kw)] = [await q.call("echo", "x" * 300_000, a=[1.5] * 50_000)]
            self.assertEqual((args, kw), (("x" * 300_000,), {"a": [1.5] * 50_000}))

    async def test_fixed(self) -> None:
        """
        Arguments are sent as they were when the call was made, and results and items as
        they were when the method returned or yielded them, also in a thread.
        """
        await self.serve()
        q = await self.queue(N_concurrent=3)
        data = bytearray(100_000)
        d = q.call("echo", data)
        data[:] = b"x" * len(data)
        self.assertEqual(await d, ((bytearray(100_000),), {}))
        for thread in (False, True):
            results = [q.call("changing", thread=thread) for _ in range(3)]
            for d in results:
                self.assertEqual(len(set(await d)), 1)
            items = [set(x) async for x in await q.call("changes", 5, thread=thread)]
            self.assertEqual(items, [{i} for i in range(5)])

    async def test_many(self) -> None:
        """Large values on their way at the same time don't get mixed up."""
        await self.serve()
        q = await self.queue(N_concurrent=10)
        calls = [q.call("add", bytes([i]) * 2_000_000, b"end") for i in range(10)]
        for i, d in enumerate(calls):
            self.assertEqual(await d, bytes([i]) * 2_000_000 + b"end")

    async def test_resultTooLarge(self) -> None:
        """
        A result that is larger than the worker accepts fails, and the next call works.
        """
        await self.serve()
        q = await self.queue(largest=1_000_000)
        error = await self.assertFailure(q.call("zeros", 2_000_000), WorkerError)
        self.assertIn("1000000", str(error))
        self.assertEqual(await q.call("add", 1), 1)

    async def test_argumentTooLarge(self) -> None:
        """So does an argument that is larger than either end accepts."""
        await self.serve(largest=2_000_000)
        q = await self.queue(largest=2_500_000)
        await self.assertFailure(q.call("size", bytes(3_000_000)), SerializationError)
        error = await self.assertFailure(q.call("size", bytes(2_200_000)), WorkerError)
        self.assertIn("2000000 are accepted", str(error))
        self.assertEqual(await q.call("add", 1), 1)

    async def test_smallOnesGetThrough(self) -> None:
        """A small call doesn't wait for a large value."""
        await self.serve()
        q = await self.queue(N_concurrent=2)
        large = q.call("size", bytes(30_000_000))
        self.assertEqual(await q.call("add", 1), 1)
        self.assertFalse(large.called)
        self.assertEqual(await large, 30_000_000)


class IterationTests(WireTestCase):
    """Tests of iterations."""

    async def test_items(self) -> None:
        """Items come as they were yielded, falsy ones too."""
        await self.serve()
        q = await self.queue()
        these: list[Any]
        for these in [1], [None, 0, "", []], [[1], [], [2]], list(range(100)):
            with self.subTest(these=these):
                deferator = await q.call("these", these)
                self.assertEqual([x async for x in deferator], these)

    async def test_empty(self) -> None:
        """An empty iterator comes as an empty list."""
        await self.serve()
        q = await self.queue()
        self.assertEqual(await q.call("count", 0), [])

    async def test_failing(self) -> None:
        """What the iterator raises comes after the items before it."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("count", 3, fail=True)
        for i in range(3):
            self.assertEqual(await deferator.__anext__(), i)
        with self.assertRaisesRegex(ValueError, "at the end"):
            await deferator.__anext__()
        self.assertEqual(await q.call("add", 1), 1)

    async def test_consumer(self) -> None:
        """With a consumer, the items are written to it, and the call gives it back."""
        await self.serve()
        q = await self.queue()
        consumer = RecordingConsumer()
        self.assertIs(await q.call("count", 50, consumer=consumer), consumer)
        self.assertEqual(consumer.items, list(range(50)))
        consumer = RecordingConsumer()
        self.assertIs(await q.call("count", 0, consumer=consumer), consumer)

    async def test_backPressure(self) -> None:
        """The iterator is ahead of who takes the items by few."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("count", 1_000)
        for _ in range(100):
            await self.turn()
        self.assertLessEqual(len(self.universe.log), 33)
        for i in range(500):
            self.assertEqual(await deferator.__anext__(), i)
        self.assertLessEqual(len(self.universe.log), 533)
        deferator.stop()
        await self.until(lambda: "closed" in self.universe.log)

    async def test_largeItems(self) -> None:
        """Large items come whole and in order, and not far ahead of being taken."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("blocks", 8, 3_000_000)
        for _ in range(300):
            await self.turn()
        self.assertLessEqual(len(self.universe.log), 3)
        blocks = [(block[0], len(block)) async for block in deferator]
        self.assertEqual(blocks, [(i, 3_000_000) for i in range(8)])

    async def test_deferreds(self) -> None:
        """Deferreds that are yielded are waited for."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("deferreds", 40)
        self.assertEqual([x async for x in deferator], list(range(40)))

    async def test_stopped(self) -> None:
        """An iteration that is stopped is closed at the server."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("count", 1_000)
        await deferator.__anext__()
        deferator.stop()
        await self.until(lambda: "closed" in self.universe.log)
        self.assertEqual(await q.call("add", 1), 1)

    async def test_abandoned(self) -> None:
        """So is one that nobody has any longer."""
        await self.serve()
        q = await self.queue()
        deferator = await q.call("count", 1_000)
        del deferator
        gc.collect()
        await self.until(lambda: "closed" in self.universe.log)

    async def test_unsendableItem(self) -> None:
        """An item that can't be sent is the end, and says so."""
        await self.serve(pickle=False)
        q = await self.queue(pickle=False)
        deferator = await q.call("secrets")
        self.assertEqual(await deferator.__anext__(), 1)
        with self.assertRaisesRegex(SerializationError, "Secret"):
            await deferator.__anext__()

    async def test_inThread(self) -> None:
        """
        An iterator of a method in a thread is iterated over there, and closed there.
        """
        await self.serve()
        q = await self.queue(thread=True)
        deferator = await q.call("threads", 20)
        names = {name async for name in deferator}
        self.assertEqual(len(names), 1)
        self.assertNotIn(threading.current_thread().name, names)
        deferator = await q.call("count", 1_000)
        deferator.stop()
        await self.until(lambda: "closed" in self.universe.log)

    async def test_tooMany(self) -> None:
        """More iterations than the server accepts fail."""
        await self.serve(maxIterators=2)
        q = await self.queue()
        two = [await q.call("count", 100) for _ in range(2)]
        error = await self.assertFailure(q.call("count", 100), WorkerError)
        self.assertIn("2 iterations", str(error))
        two.pop().stop()
        deferator = await q.call("count", 5)
        self.assertEqual([x async for x in deferator], list(range(5)))


class ThreadTests(WireTestCase):
    """Tests of methods in threads of the server."""

    async def test_thread(self) -> None:
        """
        With C{thread=True}, the method is run in a thread, be it the call's keyword or
        the worker's.
        """
        await self.serve()
        q = await self.queue()
        self.universe.event.set()
        here = threading.current_thread().name
        self.assertEqual(await q.call("block"), here)
        self.assertNotEqual(await q.call("block", thread=True), here)
        self.assertEqual(await q.call("sleep", 1, 0.01, thread=True), 1)
        q = await self.queue(thread=True)
        self.assertNotEqual(await q.call("block"), here)
        self.assertEqual(await q.call("block", thread=False), here)

    async def test_error(self) -> None:
        """Exceptions come from threads, too."""
        await self.serve()
        q = await self.queue(thread=True)
        error = await self.assertFailure(q.call("boom"), ValueError)
        self.assertIn("in boom", str(error.__cause__))
        self.assertIn("boom()", str(error.__cause__))

    async def test_atOnce(self) -> None:
        """Methods are run in several threads at once, and the reactor isn't blocked."""
        await self.serve()
        q = await self.queue(N_concurrent=4)
        blocked = [q.call("block", thread=True) for _ in range(3)]
        await self.until(lambda: len(self.universe.log) == 3)
        self.assertEqual(await q.call("add", 1), 1)
        self.universe.event.set()
        self.assertEqual(len({await d for d in blocked}), 3)

    async def test_cancelled(self) -> None:
        """
        A thread whose call has been cancelled is left alone with it, and the connection
        stays.
        """
        server = await self.serve(threads=1)
        q = await self.queue(N_concurrent=2)
        worker = q.workers()[0]
        d = q.call("block", thread=True)
        await self.until(lambda: self.universe.log)
        d.cancel()
        await self.assertFailure(d, CancelledError)
        self.assertEqual(await q.call("sleep", 2, 0, thread=True), 2)
        self.assertEqual(server.runner.stuck, 1)
        self.assertEqual(q.workers(), [worker])
        self.universe.event.set()

    async def test_stuck(self) -> None:
        """
        As many threads as a server may have may be left with calls that were cancelled.
        Further calls wait until one of those is free.
        """
        server = await self.serve(threads=2)
        q = await self.queue(N_concurrent=9)
        for i in range(1, 4):
            d = q.call("block", thread=True)
            await self.until(lambda: len(self.universe.log) == i)  # noqa: B023
            d.cancel()
            await self.assertFailure(d, CancelledError)
            await self.until(lambda: server.runner.stuck == i)  # noqa: B023
        fourth = q.call("block", thread=True)
        await self.until(lambda: len(self.universe.log) == 4)
        fifth = q.call("block", thread=True)
        for _ in range(20):
            await self.turn()
        self.assertEqual(len(self.universe.log), 4)
        self.universe.event.set()
        await fourth
        await fifth
        await self.until(lambda: server.runner.stuck == 0)

    async def test_ownThread(self) -> None:
        """Large values come though all threads of the reactor's pool wait for them."""
        await self.serve()
        q = await self.queue(N_concurrent=8)
        reactor: Any = globalReactor()

        def wait(_: int) -> int:
            """Wait for a large result."""
            result: Any = blockingCallFromThread(reactor, q.call, "zeros", 200_000)
            return len(result)

        size = reactor.getThreadPool().max
        waiting = [deferToThread(wait, i) for i in range(size)]
        self.assertEqual([await d for d in waiting], [200_000] * size)

    async def test_held(self) -> None:
        """When all threads are busy, a task is held back, and others go on."""
        await self.serve(threads=1)
        q = await self.queue(N_concurrent=3)
        one, two = q.call("block", thread=True), q.call("block", thread=True)
        await self.until(lambda: self.universe.log)
        self.assertEqual(await q.call("add", 1), 1)
        self.assertEqual(self.universe.log, ["blocking"])
        self.universe.event.set()
        self.assertEqual(await one, await two)


class CancelTests(WireTestCase):
    """Tests of the end of calls that nobody waits for."""

    async def test_cancel(self) -> None:
        """
        A call that is cancelled is cancelled at the server, and the connection stays.
        """
        await self.serve()
        q = await self.queue()
        worker = q.workers()[0]
        d = q.call("wait", 1)
        await self.until(lambda: self.universe.log)
        d.cancel()
        await self.assertFailure(d, CancelledError)
        self.assertEqual(await q.call("add", 1), 1)
        self.assertEqual(self.universe.log, [1, "cancelled"])
        self.assertEqual(q.workers(), [worker])

    async def test_iteratorAfterwards(self) -> None:
        """
        An iterator that comes after the call was cancelled, or the client was lost, is
        closed.
        """
        server = await self.serve()
        for lost in (False, True):
            self.universe.log.clear()
            q = await self.queue()
            d = q.call("stubborn")
            await self.until(lambda: self.universe.log == ["waiting"])
            if lost:
                await q.shutdown(timeout=0)
                await self.assertFailure(d, WorkerLost)
            else:
                d.cancel()
                await self.assertFailure(d, CancelledError)
            await self.until(lambda: "closed" in self.universe.log)
            await self.until(lambda: not any(s.tasks for s in server._sessions))

    async def test_timeout(self) -> None:
        """So is one that takes too long."""
        await self.serve()
        q = await self.queue()
        d = q.call("wait", 1, timeout=0.05, retries=0)
        await self.assertFailure(d, TimeoutError)
        self.assertEqual(await q.call("add", 1), 1)
        self.assertEqual(self.universe.log, [1, "cancelled"])

    async def test_large(self) -> None:
        """
        Cancelling while a large value is on its way, in either direction, leaves
        nothing behind.
        """
        server = await self.serve()
        q = await self.queue()
        for method, argument in (("size", bytes(20_000_000)), ("zeros", 20_000_000)):
            for turns in (0, 1, 5, 20):
                d = q.call(method, argument)
                for _ in range(turns):
                    await self.turn()
                d.cancel()
                await self.assertFailure(d, CancelledError)
        self.assertEqual(await q.call("add", 1), 1)
        [peer] = server._sessions
        await self.until(lambda: not peer.tasks)
        self.assertEqual((peer._outgoing, peer._incoming), ({}, {}))
        self.assertEqual(peer.budget._left, server._shared.maxHeld)

    async def test_held(self) -> None:
        """A call that is held back and cancelled isn't run."""
        await self.serve(concurrent=1)
        q = await self.queue(N_concurrent=3)
        one, two, three = [q.call("wait", i) for i in range(3)]
        await self.until(lambda: self.universe.log)
        two.cancel()
        await self.assertFailure(two, CancelledError)
        self.universe.waiting[0].callback("x")
        self.assertEqual(await one, "x")
        await self.until(lambda: len(self.universe.waiting) == 2)
        self.universe.waiting[1].callback("y")
        self.assertEqual(await three, "y")
        self.assertEqual(self.universe.log, [0, 2])

    async def test_heldTimeout(self) -> None:
        """The time limit of a call that is held back counts from when it's started."""
        await self.serve(concurrent=1)
        q = await self.queue(N_concurrent=2)
        one = q.call("wait", 0)
        two = q.call("wait", 1, timeout=0.2, retries=0)
        await self.until(lambda: self.universe.log)
        await deferLater(globalReactor(), 0.4)
        self.assertFalse(two.called)
        self.universe.waiting[0].callback(None)
        await one
        await self.assertFailure(two, TimeoutError)
        await self.until(lambda: self.universe.log == [0, 1, "cancelled"])


class ErrorTests(WireTestCase):
    """Tests of exceptions."""

    async def test_kinds(self) -> None:
        """
        Python's own exceptions and those that the universe declares come as what they
        are, others as a WorkerError with the whole text.
        """
        await self.serve()
        q = await self.queue()
        error = await self.assertFailure(q.call("fail", "declared"), Declared)
        self.assertEqual((error.code, error.hint), (7, "look"))
        await self.assertFailure(q.call("fail", "os"), FileNotFoundError)
        error = await self.assertFailure(q.call("fail", "stop"), RuntimeError)
        self.assertIn("StopIteration", str(error))
        for kind in ("undeclared", "exit", "unsendable"):
            error = await self.assertFailure(q.call("fail", kind), WorkerError)
            self.assertIn("in fail", str(error))
        error = await self.assertFailure(q.call("chained"), RuntimeError)
        self.assertIsInstance(error.__cause__.__cause__, KeyError)


class NameTests(WireTestCase):
    """Tests of names."""

    def test_star(self) -> None:
        """A star import of all workers brings this one, too."""
        names: dict[str, object] = {}
        exec("from asynqueue.workers import *", names)
        self.assertIs(names["WireWorker"], WireWorker)
