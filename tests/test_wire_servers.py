"""
Tests of the life of connections to servers in processes of their own, which a manager
starts again when they end.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from asynqueue import TaskQueue
from asynqueue.errors import WorkerLost
from asynqueue.wire import WireWorker

from ._fakes import LogLines
from ._servers import Local, ManagerTestCase, Program, soon

reactor: Any = globalReactor

#: A client that begins an iteration, and takes one item of it.
CLIENT = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from asynqueue import TaskQueue, WireWorker
from tests._servers import Local

async def main(reactor):
    q = TaskQueue(WireWorker(Local, sys.argv[1], thread=True))
    deferator = await q.call("items", 2_000, 1_000_000)
    await deferator.__anext__()
    print("began", flush=True)
    await Deferred()

react(main)
"""


class ServerTestCase(ManagerTestCase):
    """A test with a server, and a queue for it."""

    async def start(self, **kw: Any) -> tuple[int, TaskQueue]:
        """Start a server."""
        self.servers = self.manager()
        self.place = self.servers.newSocket()
        pid = await self.servers.spawn(self.place, heartbeat=0.5)
        return pid, await self.queueFor(self.place, **kw)

    async def readable(self, fd: int) -> None:
        """Wait until there's something to be read, and close what it's read from."""

        def read() -> None:
            """Do so, in a thread."""
            select.select([fd], [], [], 30)
            os.close(fd)

        await deferToThread(read)


class NotUpTests(ServerTestCase):
    """Tests of servers that aren't there yet, or aren't there right now."""

    async def test_notUpYet(self) -> None:
        """
        The worker tells that it's being connected, and its calls are run as soon as the
        server is there.
        """
        manager = self.manager()
        place = manager.newSocket()
        log = LogLines(self)
        again = log.lineWith("can't connect, and tries again")
        worker = WireWorker(Local, place, reconnect=True, backoff=soon)
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        attached = q.attachWorker(worker)
        d = q.call("pid")
        await again
        self.assertIn("connecting", repr(worker))
        self.assertFalse(attached.called)
        pid = await manager.spawn(place)
        self.assertEqual(await d, pid)
        await attached
        self.assertIn("ready", repr(worker))

    async def test_nobodyListens(self) -> None:
        """
        That is warned of once, as the address may be wrong. Further attempts are logged
        as information.
        """
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        third: Deferred[None] = Deferred()

        def wait(attempts: int) -> float:
            if attempts == 3:
                reactor.callLater(0, third.callback, None)
            return 0.01

        place = self.manager().newSocket()
        q = TaskQueue(WireWorker(Local, place, reconnect=True, backoff=wait))
        self.closers.append(lambda: q.shutdown(timeout=0))
        await third
        levels = [e["log_level"] for e in events if e["log_namespace"] == "asynqueue"]
        self.assertEqual(levels, [LogLevel.warn, LogLevel.info, LogLevel.info])

    async def test_restarted(self) -> None:
        """Once it's back, the stored updates are run there before anything else."""
        pid, q = await self.start()
        await q.update("remember", "this")
        self.assertEqual(await q.call("recall"), "this")
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await q.call("recall", retries=3), "this")
        self.assertNotEqual(await q.call("pid"), pid)

    async def test_again(self) -> None:
        """That goes on, as often as it happens."""
        pid, q = await self.start()
        for _ in range(4):
            os.kill(pid, signal.SIGKILL)
            another = await q.call("pid", retries=3)
            self.assertNotEqual(another, pid)
            pid = another
        self.assertEqual(len(q), 1)


class KilledTests(ServerTestCase):
    """Tests of servers that are killed while there's something on the way."""

    async def test_running(self) -> None:
        """
        A call that runs fails at once, and those that wait are run by the next server.
        """
        pid, q = await self.start(thread=True)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        running = q.call("write", fifo)
        waiting = q.call("add", 1, 2)
        await self.readable(reader)
        os.kill(pid, signal.SIGKILL)
        error = await self.assertFailure(running, WorkerLost)
        self.assertIn("write", str(error))
        self.assertEqual(await waiting, 3)

    async def test_argument(self) -> None:
        """
        A call whose argument hasn't come whole hasn't been started: it's run by the
        next server, silently.
        """
        pid, q = await self.start()
        self.assertEqual(await q.call("pid"), pid)
        d = q.call("size", bytes(150_000_000))
        [worker] = q.workers()
        await self.until(lambda: worker._client._outgoing)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await d, 150_000_000)

    async def test_result(self) -> None:
        """One whose result hasn't come whole has failed, or is tried again."""
        pid, q = await self.start()
        for retries in (0, 3):
            d = q.call("zeros", 150_000_000, retries=retries)
            await self.until(
                lambda: any(worker._client._incoming for worker in q.workers())
            )
            [pid] = self.servers.servers
            os.kill(pid, signal.SIGKILL)
            if retries:
                self.assertEqual(len(await d), 150_000_000)
            else:
                await self.assertFailure(d, WorkerLost)
                await q.call("pid")

    async def test_iteration(self) -> None:
        """An iteration fails after the items that have come."""
        pid, q = await self.start()
        deferator = await q.call("items", 1_000, 100_000)
        for _ in range(3):
            self.assertEqual(len(await deferator.__anext__()), 100_000)
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(WorkerLost):
            async for item in deferator:
                self.assertEqual(len(item), 100_000)

    async def test_several(self) -> None:
        """
        With several servers of which all but one are killed, each call has its result.
        """
        manager = self.manager(restart=False)
        places = [manager.newSocket() for _ in range(3)]
        for place in places:
            await manager.spawn(place)
        q = await self.queueFor(*places, N_concurrent=3)
        calls = [q.call("add", i, 1, retries=5) for i in range(1_000)]
        for i, pid in enumerate(list(manager.servers)[:-1]):
            await self.until(lambda: calls[200 * (i + 1)].called)  # noqa: B023
            os.kill(pid, signal.SIGKILL)
        self.assertEqual([await d for d in calls], list(range(1, 1_001)))


class FrozenTests(ServerTestCase):
    """Tests of ends that don't answer."""

    async def test_server(self) -> None:
        """
        A server that is frozen is found by its missing heartbeats, whatever is going
        on, and calls go on when it's back.
        """
        pid, q = await self.start(heartbeat=0.3, N_concurrent=2, thread=True)
        deferator = await q.call("items", 1_000, 100_000)
        await deferator.__anext__()
        os.kill(pid, signal.SIGSTOP)
        d = q.call("add", 1, 2)
        error = await self.assertFailure(d, WorkerLost)
        self.assertIn("Nothing has come", str(error))
        with self.assertRaises(WorkerLost):
            async for _ in deferator:
                pass
        later = q.call("pid")
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(await later, pid)

    async def test_client(self) -> None:
        """
        A client that is frozen, and reads nothing, is given up by the server. It has
        cost no more memory than a window of the iteration takes, and others aren't
        affected.
        """
        pid, q = await self.start()
        program = self.folder / "client.py"
        program.write_text(CLIENT)
        before = await q.call("peak")
        client = Program(str(program), self.place)
        self.closers.append(client.kill)
        self.assertEqual(await client.line(), "began", client.errors)
        self.assertEqual(await q.call("clients"), 2)
        client.signal(signal.SIGSTOP)
        while await q.call("clients") == 2:
            await self.turn()
        self.assertLess(await q.call("peak") - before, 100_000)
        self.assertEqual(await q.call("pid"), pid)

    async def test_slowReader(self) -> None:
        """
        Of an iteration that is taken slowly, the server makes no more than a window.
        """
        _, q = await self.start(N_concurrent=2)
        before = await q.call("peak")
        deferator = await q.call("items", 300, 1_000_000)
        for _ in range(3):
            await deferator.__anext__()
            for i in range(20):
                self.assertEqual(await q.call("add", i, i), 2 * i)
        self.assertLess(await q.call("peak") - before, 100_000)
        self.assertEqual(len([item async for item in deferator]), 297)


class ManyTests(ServerTestCase):
    """Tests of many clients."""

    async def test_clients(self) -> None:
        """When one of many clients of a server is killed, the others' calls go on."""
        _, q = await self.start()
        program = self.folder / "client.py"
        program.write_text(CLIENT)
        client = Program(str(program), self.place)
        self.closers.append(client.kill)
        await client.line()
        queues = [await self.queueFor(self.place) for _ in range(10)]
        calls: list[Deferred[Any]] = [
            queue.call("add", i, j) for i, queue in enumerate(queues) for j in range(50)
        ]
        client.signal(signal.SIGKILL)
        self.assertEqual(
            [await d for d in calls], [i + j for i in range(10) for j in range(50)]
        )
        while await q.call("clients") != 11:
            await self.turn()
