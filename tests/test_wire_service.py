"""Tests of starting and stopping servers, again and again, also as services."""

from __future__ import annotations

import gc
import os
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.iteration import Deferator
from asynqueue.wire import WireServer, _iterations
from asynqueue.wire._server import WireService
from asynqueue.wire._values import Codec

from ._wire import WireTestCase


class ServerLifeTests(WireTestCase):
    """Tests of a server that is started and stopped."""

    def isListening(self) -> bool:
        """Tell whether there's a socket."""
        return os.path.exists(self.folder / "s")

    async def works(self) -> None:
        """Have a task run."""
        q = await self.queue()
        self.assertEqual(await q.call("add", 1, 2), 3)
        await q.shutdown()

    async def test_again(self) -> None:
        """It can be started again when it has stopped."""
        server = WireServer(self.description, self.universe)
        for _ in range(3):
            await server.start()
            await self.works()
            await server.stop()
            self.assertFalse(self.isListening())
        await server.stop()

    async def test_serviceAgain(self) -> None:
        """So can it as a service."""
        service = WireServer(self.description, self.universe).service
        for _ in range(2):
            service.startService()
            await self.works()
            stopped: Deferred[None] = service.stopService()
            await stopped
            self.assertFalse(self.isListening())

    async def test_startWhileStopping(self) -> None:
        """If it's started while it stops, it listens when it has."""
        server = WireServer(self.description, self.universe)
        self.closers.append(server.stop)
        await server.start()
        stopped, started = server.stop(), server.start()
        await stopped
        await started
        await self.works()

    async def test_privileges(self) -> None:
        """A service listens before privileges are dropped, and once."""
        server = WireServer(self.description, self.universe)
        self.closers.append(server.stop)
        parent = MultiService()
        server.service.setServiceParent(parent)
        parent.privilegedStartService()
        self.assertTrue(self.isListening())
        parent.startService()
        await self.works()
        stopped: Deferred[None] = parent.stopService()
        await stopped
        self.assertFalse(self.isListening())

    async def test_untakenIteration(self) -> None:
        """An iteration that a client keeps, and takes no items of, isn't waited for."""
        self.patch(_iterations, "_IDLE_SECONDS", 0.05)
        server = await self.serve(stopTimeout=None)
        q = await self.queue()
        items: Any = await q.call("count", 1000)
        self.assertEqual(await items.__anext__(), 0)
        await server.stop()
        self.assertFalse(self.isListening())

    async def test_takenIteration(self) -> None:
        """One whose items are taken is."""
        server = await self.serve(stopTimeout=None)
        q = await self.queue()
        items: Any = await q.call("count", 1000)
        self.assertEqual(await items.__anext__(), 0)
        stopped = server.stop()
        self.assertEqual([item async for item in items], list(range(1, 1000)))
        await stopped


class Refusing:
    """A server that can't listen."""

    def start(self) -> Deferred[None]:
        """Fail."""
        error: Any = CannotListenError(None, 80, "no")
        d: Deferred[None] = Deferred()
        d.errback(error)
        return d

    def stop(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


class FailingServiceTests(SynchronousTestCase):
    """Tests of services whose server can't listen."""

    def test_logged(self) -> None:
        """That's logged, and other services go on."""
        server: Any = Refusing()
        WireService(server).startService()
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)

    def test_raised(self) -> None:
        """A program that is of no use without the server can end at once."""

        def failed(failure: Failure) -> None:
            raise SystemExit("80")

        server: Any = Refusing()
        service = WireService(server, failed)
        self.assertRaises(SystemExit, service.privilegedStartService)


class StoppedIterationTests(SynchronousTestCase):
    """Tests of the server's end of iterations that are stopped."""

    def test_nothingLogged(self) -> None:
        """
        Nothing is logged of an item that was being made, and that nobody asks for any
        longer.
        """
        items = Deferator(iter([1, Deferred()]))
        connection: Any = None
        iteration = _iterations.ServedIteration(
            connection, Codec(), b"1", items, lambda: None
        )
        answer = Deferred.fromCoroutine(iteration.getNext(5))
        self.assertEqual(self.successResultOf(answer)[b"moreLeft"], b"True")
        iteration.stop()
        del iteration, answer
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
