"""Tests of the life of connections to servers."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from asynqueue import TaskQueue
from asynqueue.errors import WorkerLost, WorkerStartError
from asynqueue.interfaces import ICancellingWorker, IReplaceableWorker, IWorker
from asynqueue.wire import WireServer, WireWorker

from ._servers import soon
from ._wire import Universe, WireTestCase


class InterfaceTests(WireTestCase):
    """Tests of the worker's interfaces."""

    def test_interfaces(self) -> None:
        """The worker provides what it says."""
        worker = self.worker()
        for interface in (IWorker, ICancellingWorker, IReplaceableWorker):
            verifyObject(interface, worker)
        return worker.stop()  # type: ignore[return-value]

    async def test_qualifications(self) -> None:
        """It qualifies for the series of remote workers, and for its own."""
        await self.serve()
        q = await self.queue(series=["mine"])
        for series in (None, "wire", "remote", "mine"):
            self.assertEqual(await q.call("add", 1, series=series), 1)

    async def test_wrongArguments(self) -> None:
        """Numbers out of range are refused."""
        for kw in (
            {"N_concurrent": 0},
            {"N_concurrent": "2"},
            {"heartbeat": 0},
            {"connectTimeout": -1},
        ):
            self.assertRaises(ValueError, self.worker, **kw)
        for kw in ({"description": 5}, {"backoff": "x"}):
            self.assertRaises(TypeError, self.worker, **kw)
        for kw in ({"largest": 0}, {"threads": 0}, {"heartbeat": -1}):
            with self.assertRaises(ValueError):
                await self.serve(**kw)


class LossTests(WireTestCase):
    """Tests of connections that are lost."""

    async def test_running(self) -> None:
        """
        A task that may have been running when the connection is lost fails, or is
        retried if it may be, and those that wait go to another worker.
        """
        server = await self.serve()
        q = await self.queue()
        running = q.call("wait", 1)
        waiting = q.call("add", 2)
        await self.until(lambda: self.universe.log)
        server._abortAll()
        error = await self.assertFailure(running, WorkerLost)
        self.assertIn("wait(1)", str(error))
        self.assertEqual(error.workerID, 1)
        self.assertEqual(q.workers(), [])
        await q.attachWorker(self.worker())
        self.assertEqual(await waiting, 2)

    async def test_held(self) -> None:
        """A task that the server has held back goes to another worker, silently."""
        server = await self.serve(concurrent=1)
        q = await self.queue(N_concurrent=3)
        running = q.call("wait", 1)
        held = q.call("wait", 2)
        worker = q.workers()[0]
        calls = worker._client.calls
        await self.until(
            lambda: [call.stage.name for call in calls.values()] == ["SENT", "HELD"]
        )
        server._abortAll()
        await self.assertFailure(running, WorkerLost)
        self.assertFalse(held.called)
        await q.attachWorker(self.worker())
        await self.until(lambda: len(self.universe.waiting) == 2)
        self.assertEqual(self.universe.log, [1, "cancelled", 2])
        self.universe.waiting[1].callback("x")
        self.assertEqual(await held, "x")

    async def test_retried(self) -> None:
        """A task that has an attempt left is run by the next worker."""
        server = await self.serve()
        q = await self.queue()
        d = q.call("wait", 1, retries=1)
        await self.until(lambda: self.universe.log)
        server._abortAll()
        await self.until(lambda: not q.workers())
        await q.attachWorker(self.worker())
        await self.until(lambda: len(self.universe.waiting) == 2)
        self.universe.waiting[1].callback("x")
        self.assertEqual(await d, "x")

    async def test_workStopped(self) -> None:
        """When the client is gone, the server stops what it does for it."""
        server = await self.serve()
        q = await self.queue(N_concurrent=2)
        running = q.call("wait", 1)
        deferator = await q.call("count", 1000)
        await self.until(lambda: self.universe.waiting)
        await q.shutdown(timeout=0)
        await self.assertFailure(running, WorkerLost)
        await self.until(lambda: not server._sessions)
        self.assertIn("cancelled", self.universe.log)
        self.assertIn("closed", self.universe.log)
        with self.assertRaises(WorkerLost):
            async for _ in deferator:
                pass

    async def test_iteration(self) -> None:
        """
        An iteration that goes on when the connection is lost fails after the items that
        have come.
        """
        server = await self.serve()
        q = await self.queue()
        deferator = await q.call("count", 1000)
        self.assertEqual(await deferator.__anext__(), 0)
        server._abortAll()
        with self.assertRaises(WorkerLost):
            async for _ in deferator:
                pass

    async def test_largeOnItsWay(self) -> None:
        """A task whose arguments are still on their way hasn't been started."""
        server = await self.serve()
        q = await self.queue()
        d = q.call("size", bytes(30_000_000))
        await self.until(lambda: any(peer._incoming for peer in server._sessions))
        server._abortAll()
        await self.until(lambda: not q.workers())
        self.assertFalse(d.called)
        await q.attachWorker(self.worker())
        self.assertEqual(await d, 30_000_000)


class ReconnectTests(WireTestCase):
    """Tests of workers that connect again."""

    async def test_updatesInOrder(self) -> None:
        """
        Updates are run one after the other, though the server runs what it gets at
        once; those that haven't been sent can be cancelled, and are lost with the
        worker.
        """
        await self.serve()
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        for update in (("block",), ("note", 2), ("note", 3)):
            await q.update(*update)
        attached = q.attachWorker(self.worker(thread=True))
        await self.until(lambda: self.universe.log)
        another = await self.queue()
        for i in range(3):
            await another.call("add", i)
        self.assertEqual(self.universe.log, ["blocking"])
        self.universe.event.set()
        await attached
        self.assertEqual(self.universe.log, ["blocking", 2, 3])

    async def test_updatesLost(self) -> None:
        """When the worker is lost, so are its updates, and each is told so."""
        for crash in (False, True):
            server = await self.serve(description=f"unix:{self.folder}/{crash}")
            q = await self.queue(description=server.description)
            updates = [q.update(*args) for args in (("wait",), ("note", 2))]
            await self.until(lambda: self.universe.waiting)
            if crash:
                await q.detachWorker(q.workers()[0], crash=True)
            else:
                server._abortAll()
            for d in updates:
                [text] = await d
                self.assertRegex(str(text), "lost|went away")
            await self.until(lambda: "cancelled" in self.universe.log)
            self.assertNotIn(2, self.universe.log)
            self.universe.waiting.clear()
            self.universe.log.clear()

    async def test_updatesFinished(self) -> None:
        """A worker that stops runs all updates that it has been given."""
        await self.serve()
        q = await self.queue()
        updates = [q.update(*args) for args in (("wait",), ("note", 2), ("note", 3))]
        await self.until(lambda: self.universe.waiting)
        done = q.shutdown()
        self.universe.waiting[0].callback(1)
        self.assertEqual([await d for d in updates], [[1], [2], [3]])
        await done

    async def test_stopWhileAway(self) -> None:
        """The queue can be shut down while the server is away."""
        server = await self.serve()
        q = await self.queue(reconnect=True, backoff=soon)
        server._abortAll()
        await server.stop()
        d = q.call("add", 1)
        await self.until(lambda: q.workers() and q.workers()[0].ID == 2)
        await q.shutdown()
        await self.assertFailure(d, Exception)

    async def test_laterCall(self) -> None:
        """A call after a connection could not be made has it tried again."""
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        await self.assertFailure(
            q.attachWorker(self.worker(backoff=soon)), WorkerStartError
        )
        await self.assertFailure(q.call("add", 1), WorkerStartError)
        await self.serve()
        self.assertEqual(await q.call("add", 2), 2)


class LeavingTests(WireTestCase):
    """Tests of servers that are stopped."""

    async def test_running(self) -> None:
        """A server that stops lets running tasks be done, and takes no more."""
        server = await self.serve(stopTimeout=None)
        q = await self.queue(N_concurrent=2)
        running = q.call("wait", 1)
        deferator = await q.call("count", 40)
        stopped = server.stop()
        await self.until(lambda: not q.workers())
        waiting = q.call("add", 1)
        self.assertFalse(stopped.called)
        self.universe.waiting[0].callback("x")
        self.assertEqual(await running, "x")
        self.assertEqual([x async for x in deferator], list(range(40)))
        await stopped
        self.assertFalse(waiting.called)
        await self.serve()
        await q.attachWorker(self.worker())
        self.assertEqual(await waiting, 1)

    async def test_held(self) -> None:
        """Tasks that are held back go elsewhere."""
        server = await self.serve(stopTimeout=None, concurrent=1)
        q = await self.queue(N_concurrent=3, reconnect=True, backoff=soon)
        running = q.call("wait", 1)
        held = [q.call("note", i) for i in range(2, 4)]
        await self.until(lambda: self.universe.log)
        stopped = server.stop()
        await self.until(lambda: server.port is None)
        universe, self.universe = self.universe, Universe()
        await self.serve()
        self.assertEqual([await d for d in held], [2, 3])
        self.assertEqual(universe.log, [1])
        universe.waiting[0].callback("x")
        self.assertEqual(await running, "x")
        await stopped

    async def test_idle(self) -> None:
        """An idle client leaves at once."""
        server = await self.serve(stopTimeout=None)
        q = await self.queue()
        await q.call("add", 1)
        await server.stop()
        await self.until(lambda: not q.workers())

    async def test_notInQueue(self) -> None:
        """So does a worker that isn't in a queue."""
        server = await self.serve(stopTimeout=None)
        worker = self.worker()
        await worker.deferUntilReady()
        await self.until(lambda: server._sessions)
        await server.stop()
        await worker.deferUntilGone()

    async def test_rollingRestart(self) -> None:
        """
        Two servers that are restarted in turn, again and again, under load, lose no
        task and run none twice.
        """
        places = [f"unix:{self.folder}/{i}" for i in range(2)]
        servers: list[WireServer] = []
        universe = self.universe
        for place in places:
            server = WireServer(place, universe)
            await server.start()
            servers.append(server)
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        for place in places:
            worker = WireWorker(
                Universe, place, N_concurrent=4, reconnect=True, backoff=soon
            )
            await q.attachWorker(worker)
        calls = [q.call("note", i) for i in range(3000)]
        for turn in range(6):
            await self.until(lambda: calls[turn * 400].called)  # noqa: B023
            i = turn % 2
            await servers[i].stop()
            servers[i] = WireServer(places[i], universe)
            await servers[i].start()
        self.assertEqual([await d for d in calls], list(range(3000)))
        self.assertEqual(sorted(universe.log), list(range(3000)))
        await q.shutdown()
        for server in servers:
            await server.stop()
