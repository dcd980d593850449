"""
Tests of queues in programs of asyncio, under Twisted's asyncio reactor. Each is a
program of its own, as the reactor is chosen once.
"""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._support.awaitable import AwaitableDeferred, awaitable

#: What comes before and after the coroutine function C{main} of a program.
BEGIN = """
from twisted.internet import asyncioreactor
asyncioreactor.install()
import asyncio
import time
from twisted.internet import reactor
from asynqueue import AsyncWorker, ProcessQueue, TaskQueue, ThreadQueue
from asynqueue.null import NullQueue

"""
END = """

async def watched():
    try:
        await asyncio.wait_for(main(), 50)
    finally:
        reactor.stop()

if __name__ == "__main__":
    task = None

    def start():
        global task
        task = asyncio.get_event_loop().create_task(watched())

    reactor.callWhenRunning(start)
    reactor.run()
    task.result()
"""


class AsyncioTests(SynchronousTestCase):
    """Tests of what asyncio's tasks can wait for."""

    def run_(self, program: str) -> str:
        """
        Run a program that defines the coroutine function C{main}, and return what it
        prints.
        """
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + dedent(program) + END],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def test_await(self) -> None:
        """
        Results of calls, maps and updates can be awaited, and so can room and the
        shutdown. What a call raises is raised there.
        """
        printed = self.run_(
            """
            async def main():
                q = ThreadQueue(maxQueued=100)
                print(await q.call(pow, 2, 3), await q.map(abs, [-1, -2]))
                print(await q.update(len, "abc"), await q.ready())
                try:
                    await q.call(int, "x")
                except ValueError as error:
                    print(type(error).__name__)
                worker = AsyncWorker()
                print(await q.attachWorker(worker), await q.detachWorker(worker))
                print(await q.shutdown())
            """
        )
        self.assertEqual(
            printed.splitlines(), ["8 [1, 2]", "[3] None", "ValueError", "2 []", "[]"]
        )

    def test_gather(self) -> None:
        """
        They can be gathered, and waited for with a time limit, which cancels the call.
        """
        printed = self.run_(
            """
            async def main():
                q = ThreadQueue()
                print(await asyncio.gather(*(q.call(abs, -n) for n in range(3))))
                slow = q.call(time.sleep, 1)
                try:
                    await asyncio.wait_for(slow, 0.01)
                except asyncio.TimeoutError:
                    print("too late", slow.called)
                print(await q.call(abs, -5))
                await q.shutdown()
            """
        )
        self.assertEqual(printed.splitlines(), ["[0, 1, 2]", "too late True", "5"])

    def test_cancel(self) -> None:
        """Cancelling the task that waits cancels the call."""
        printed = self.run_(
            """
            from twisted.internet.defer import Deferred

            async def main():
                q = NullQueue()
                inner = Deferred()
                inner.addErrback(lambda failure: print(failure.type.__name__))

                async def wait():
                    await q.call(lambda: inner)

                waiting = asyncio.ensure_future(wait())
                await asyncio.sleep(0)
                waiting.cancel()
                print(repr(waiting)[:5])  # Not in a circle.
                try:
                    await waiting
                except asyncio.CancelledError:
                    print("cancelled")
                await q.shutdown()
            """
        )
        lines = ["CancelledError", "<Task", "cancelled"]
        self.assertEqual(printed.splitlines(), lines)

    def test_iterate(self) -> None:
        """
        Iterations, and the results of C{imap}, can be looped over; a queue can be the
        context of a block.
        """
        printed = self.run_(
            """
            def count(n):
                yield from range(n)

            async def main():
                async with ThreadQueue() as q:
                    print([x async for x in q.imap(abs, range(-2, 1))])
                    print([x async for x in await q.call(count, 3)])
            """
        )
        self.assertEqual(printed.splitlines(), ["[2, 1, 0]", "[0, 1, 2]"])

    def test_twistedCoroutine(self) -> None:
        """
        Coroutines of Twisted wait for them as ever, also when a task of asyncio waits
        for those.
        """
        printed = self.run_(
            """
            from twisted.internet.defer import Deferred

            async def main():
                async with ThreadQueue() as q:

                    async def twisted():
                        first = await q.call(abs, -1)
                        return first + await q.call(abs, -2)

                    d = Deferred.fromCoroutine(twisted())
                    print(await d.asFuture(asyncio.get_running_loop()))
            """
        )
        self.assertEqual(printed, "3")

    def test_wrongReactor(self) -> None:
        """
        Where the reactor doesn't run in the event loop that does, an error says so.
        """
        for reactor in ("selectreactor", "asyncioreactor"):
            program = f"""
                import asyncio
                from twisted.internet import {reactor}
                {reactor}.install()
                from twisted.internet.defer import Deferred
                from asynqueue.null import NullQueue

                async def main():
                    q = NullQueue()
                    print(await q.call(abs, -1))
                    await q.call(Deferred)

                asyncio.run(main())
            """
            done = subprocess.run(
                [sys.executable, "-c", dedent(program)],
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            self.assertEqual(done.stdout, "1\n")  # That's there at once.
            self.assertIn("RuntimeError: Calls can't be awaited here", done.stderr)

    def test_withoutAsyncio(self) -> None:
        """Without asyncio, they're awaited as any Deferred is."""

        async def wait(d: Deferred[int]) -> int:
            return 1 + await d

        d: Deferred[int] = AwaitableDeferred()
        result = Deferred.fromCoroutine(wait(d))
        self.assertNoResult(result)
        d.callback(1)
        self.assertEqual(self.successResultOf(result), 2)

    def test_awaitable(self) -> None:
        """One may be made of any Deferred, and cancels that."""
        cancelled: list[object] = []
        inner: Deferred[int] = Deferred(cancelled.append)
        outer = awaitable(inner)
        outer.cancel()
        self.failureResultOf(outer)
        self.assertEqual(cancelled, [inner])

    def test_tools(self) -> None:
        """What delays, locks, trackers and producers give can be awaited, too."""
        printed = self.run_(
            """
            from asynqueue import DeferredLock, DeferredTracker, deferToDelay
            from asynqueue.iteration import IterationProducer, ListConsumer

            async def main():
                lock, tracker = DeferredLock(), DeferredTracker()
                tracker.put(deferToDelay(0.05))
                await lock.acquire()
                reactor.callLater(0.01, lock.release)
                print(await deferToDelay(0.001), await lock.acquire() is lock)
                print(await tracker.deferToAll(), await tracker.deferToAny())
                q = ThreadQueue()
                consumer = ListConsumer()
                deferator = await q.call(range(3).__iter__)
                await IterationProducer(deferator, consumer).run()
                print(await consumer())
                await q.shutdown()
            """
        )
        self.assertEqual(printed, "None True\nTrue True\n[0, 1, 2]")
