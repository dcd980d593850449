"""Tests of what is done with threads, with real ones."""

from __future__ import annotations

import gc
import gzip
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, fail
from twisted.internet.interfaces import IPullProducer
from twisted.internet.threads import deferToThread as twistedDeferToThread
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

import asynqueue
from asynqueue.errors import QueueStopped, ThreadError, TimeoutError
from asynqueue.iteration import Deferator, IterationProducer, ListConsumer, deferToDelay
from asynqueue.threads import (
    Consumerator,
    Filerator,
    IterationGetter,
    OrderedItemProducer,
    PoolUser,
    TaskQueue,
    ThreadLooper,
    ThreadQueue,
    ThreadWorker,
    deferToThread,
)

ROOT = Path(asynqueue.__file__).parent.parent


def turn() -> Deferred[None]:
    """Let the reactor have its turn."""
    return deferToDelay(0)


def threadNow() -> int:
    """Tell which thread this is."""
    return threading.get_ident()


def waitFor(begun: threading.Event, end: threading.Event) -> bool:
    """Say that it has begun, and be stuck until the end."""
    begun.set()
    return end.wait()


def generate(count: int, ends: list[int]) -> Iterator[tuple[int, int]]:
    """
    Yield pairs of a number and the thread it comes from; and add the thread in which
    this ends.
    """
    try:
        for i in range(count):
            yield i, threadNow()
    finally:
        ends.append(threadNow())


class RealCase(TestCase):
    """Leaves no threads behind."""

    timeout = 60

    def setUp(self) -> None:
        """Note which threads there are."""
        self.before = set(threading.enumerate())
        self.addCleanup(self.checkThreads)

    def checkThreads(self) -> None:
        """See that there are no others, except of Twisted's own pool."""
        left = set(threading.enumerate()) - self.before
        self.assertEqual([t for t in left if t.name.startswith("asynqueue")], [])


class LooperTests(RealCase):
    """Tests of L{ThreadLooper} and L{deferToThread}."""

    async def test_thread(self) -> None:
        """
        Calls, items and the closing of generators are all in one other thread, and the
        Deferreds fire in the reactor's.
        """
        looper = ThreadLooper()
        thread = await looper.deferToThread(threadNow)
        self.assertNotEqual(thread, threadNow())
        self.assertTrue(isInIOThread())
        ends: list[int] = []
        deferator = await looper.deferToThread(generate, 100, ends)
        items = [item async for item in deferator]
        self.assertEqual(items, [(i, thread) for i in range(100)])
        other = await looper.deferToThread(generate, 100, ends)
        other.stop()
        await looper.deferToThread(threadNow)
        self.assertEqual(ends, [thread, thread])
        await looper.stop()

    async def test_many(self) -> None:
        """
        Thousands of calls and iterations are all right, in their order, and those that
        are cancelled aren't made.
        """
        looper = ThreadLooper()
        made: list[int] = []
        end = threading.Event()
        looper.deferToThread(end.wait)
        calls = [looper.deferToThread(made.append, i) for i in range(5_000)]
        for d in calls[1::2]:
            d.addErrback(lambda _: None)
            d.cancel()
        end.set()
        iterations = [looper.deferToThread(generate, 50, []) for _ in range(20)]
        await DeferredList(calls)
        self.assertEqual(made, list(range(0, 5_000, 2)))

        async def take(d: Deferred[Any]) -> list[int]:
            return [item[0] async for item in await d]

        for d in [ensureDeferred(take(d)) for d in iterations]:
            self.assertEqual(await d, list(range(50)))
        await looper.stop()

    async def test_endless(self) -> None:
        """An endless iteration makes no more than is taken, and a few."""
        made: list[int] = []

        def endless() -> Iterator[int]:
            while True:
                made.append(1)
                yield len(made)

        looper = ThreadLooper()
        deferator = await looper.deferToThread(endless)
        for i in range(1_000):
            self.assertEqual(await deferator.__anext__(), i + 1)
            self.assertLessEqual(len(made), i + 20)
        deferator.stop()
        await looper.stop()

    async def test_forgotten(self) -> None:
        """A Deferator that nobody has any longer has its generator closed."""
        ends: list[int] = []
        looper = ThreadLooper()
        thread = await looper.deferToThread(threadNow)
        d = looper.deferToThread(generate, 100, ends)
        await d.addCallback(lambda _: None)
        del d
        gc.collect()
        await looper.stop()
        self.assertEqual(ends, [thread])

    async def test_shared(self) -> None:
        """The thread that all share starts again after its end."""
        first = await deferToThread(threadNow)
        self.assertEqual(await deferToThread(threadNow), first)
        await deferToThread()
        consumer = ListConsumer()
        await deferToThread(range(3).__iter__, consumer=consumer)
        self.assertEqual(await consumer(), [0, 1, 2])
        await deferToThread()

    async def test_crash(self) -> None:
        """A thread that is stuck is left alone, and ends when it can."""
        looper = ThreadLooper()
        begun, end = threading.Event(), threading.Event()
        d = looper.deferToThread(waitFor, begun, end)
        await twistedDeferToThread(begun.wait)
        looper.crash()
        await self.assertFailure(d, ThreadError)
        await looper.stop()
        end.set()
        for thread in set(threading.enumerate()) - self.before:
            if thread.name.startswith("asynqueue"):
                await twistedDeferToThread(thread.join)


class QueueTests(RealCase):
    """Tests of L{ThreadQueue} and L{ThreadWorker}."""

    async def test_many(self) -> None:
        """Thousands of calls run in the queue's thread, in their order."""
        q = ThreadQueue()
        made: list[int] = []
        calls = [q.call(made.append, i) for i in range(5_000)]
        await DeferredList(calls)
        self.assertEqual(made, list(range(5_000)))
        thread = await q.call(threadNow)
        self.assertEqual(await q.deferToThread(threadNow), thread)
        self.assertNotEqual(thread, threadNow())
        await q.shutdown()

    async def test_two(self) -> None:
        """Two workers run at the same time."""
        barrier = threading.Barrier(2, timeout=30)
        async with TaskQueue(ThreadWorker(), ThreadWorker()) as q:
            calls = [q.call(barrier.wait, series="thread"), q.call(barrier.wait)]
            self.assertEqual({await d for d in calls}, {0, 1})

    async def test_timeout(self) -> None:
        """
        Calls that take too long are given up. The queue goes on meanwhile, and at
        shutdown nobody waits for the threads that are stuck.
        """
        end = threading.Event()
        q = ThreadQueue()
        d = q.call(end.wait, timeout=0.01, retries=1)
        after = q.call(threadNow)
        await self.assertFailure(d, TimeoutError)
        self.assertEqual(q.worker.abandoned, 2)
        await after
        await q.shutdown()
        end.set()
        for thread in set(threading.enumerate()) - self.before:
            if thread.name.startswith("asynqueue"):
                await twistedDeferToThread(thread.join)

    async def test_shutdown(self) -> None:
        """Calls that are queued at shutdown fail, and the Deferred fires."""
        q = ThreadQueue()
        begun, end = threading.Event(), threading.Event()
        calls: list[Deferred[Any]] = [q.call(waitFor, begun, end, timeout=30)]
        calls += [q.call(threadNow) for _ in range(4)]
        await twistedDeferToThread(begun.wait)
        d = q.shutdown()
        end.set()
        self.assertEqual(len(await d), 4)
        self.assertTrue(await calls[0])
        for call in calls[1:]:
            await self.assertFailure(call, QueueStopped)

    async def test_interpreterEnds(self) -> None:
        """A thread that is stuck doesn't keep the interpreter from ending."""
        program = """
import threading
from twisted.internet import reactor
from asynqueue.threads import ThreadQueue, deferToThread
for call in (ThreadQueue().call, deferToThread):
    call(threading.Event().wait)
reactor.callLater(0.01, reactor.stop)
reactor.run()
print("stopped")
"""
        done = await twistedDeferToThread(
            subprocess.run,
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=50,
        )
        self.assertEqual((done.stdout.strip(), done.returncode), ("stopped", 0))


@implementer(IPullProducer)
class Counter:
    """An endless producer of numbers that is asked for each."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.count = 0

    def resumeProducing(self) -> None:
        """Implement C{IPullProducer.resumeProducing}."""
        self.count += 1
        self.consumer.write(self.count)

    def stopProducing(self) -> None:
        """Implement C{IPullProducer.stopProducing}."""


class StreamTests(RealCase):
    """Tests of L{Consumerator}, L{Filerator}, L{OrderedItemProducer} and the pool."""

    def setUp(self) -> None:
        """Have the pool closed after the test."""
        super().setUp()
        self.addCleanup(PoolUser.shutdown)

    async def test_pushed(self) -> None:
        """
        Everything that a producer writes arrives in blocking code, and the producer is
        never far ahead.
        """
        made: list[int] = []

        def numbers() -> Iterator[int]:
            """Note which numbers are made."""
            for i in range(5_000):
                made.append(i)
                yield i

        ahead: list[int] = []

        def slowly(items: Iterable[int]) -> int:
            """Note how far ahead the producer is."""
            total = 0
            for i in items:
                ahead.append(len(made) - i)
                total += i
            return total

        producer = IterationProducer(Deferator(numbers()))
        c = Consumerator(producer)
        total = await PoolUser.deferToThreadInPool(slowly, c)
        await c.deferUntilDone()
        self.assertEqual(total, sum(range(5_000)))
        self.assertLess(max(ahead), 40)

    async def test_pulled(self) -> None:
        """An endless producer that is asked for each item is never far ahead either."""
        counter = Counter()
        counter.consumer = c = Consumerator()
        c.registerProducer(counter, False)

        def take() -> list[int]:
            return [next(c) for _ in range(3_000)]

        self.assertEqual(
            await PoolUser.deferToThreadInPool(take), list(range(1, 3_001))
        )
        await turn()
        self.assertLess(counter.count, 3_020)
        c.abort()

    async def test_written(self) -> None:
        """
        What one thread writes to a file, another reads. Who writes waits for who reads,
        once there is one.
        """
        f = Filerator()
        started = threading.Event()
        ahead: list[int] = []

        def write() -> None:
            started.wait()
            with f:
                for i in range(2_000):
                    f.write(b"%d\n" % i)
                    ahead.append(len(f._channel))

        def read() -> bytes:
            lines: Iterator[bytes] = iter(f)
            started.set()
            return next(lines) + b"".join(lines)

        writing = PoolUser.deferToThreadInPool(write)
        text = await PoolUser.deferToThreadInPool(read)
        await writing
        self.assertEqual(text.split(), [b"%d" % i for i in range(2_000)])
        self.assertLessEqual(max(ahead), 16)

    async def test_writtenHere(self) -> None:
        """
        What is written in the reactor's thread, without waiting, is read in another.
        """
        f = Filerator()
        reading = PoolUser.deferToThreadInPool(list, f)
        for i in range(100):
            f.write(str(i))
        f.close()
        self.assertEqual(await reading, [str(i) for i in range(100)])
        await f.deferUntilDone()

    async def test_writerIsFreed(self) -> None:
        """
        Who waits to write, and who waits to read, is freed when the stream is stopped.
        """
        f = Filerator(limit=1)
        full = threading.Event()

        def write() -> None:
            """Write more than there's room for."""
            for _ in range(3):
                f.write("x")
            full.set()
            f.write("x")

        await PoolUser.deferToThreadInPool(f.write, "x")
        await PoolUser.deferToThreadInPool(next, f)
        writing = PoolUser.deferToThreadInPool(write)
        await turn()
        self.assertFalse(full.is_set())
        f.stop()
        await self.assertFailure(writing, ValueError)
        f = Filerator()
        reading = PoolUser.deferToThreadInPool(list, f)
        await turn()
        f.stop()
        self.assertEqual(await reading, [])

    async def test_writtenBefore(self) -> None:
        """A thread that writes before anybody reads doesn't wait."""
        f = Filerator()

        def write() -> None:
            f.writelines(range(100))
            f.close()

        await PoolUser.deferToThreadInPool(write)
        items = await PoolUser.deferToThreadInPool(list, f)
        self.assertEqual(items, list(range(100)))

    async def test_readerLeft(self) -> None:
        """
        When the reader has left its loop, who writes needn't wait for it any longer,
        and the iteration is done when it's stopped.
        """
        f = Filerator()

        def read() -> list[tuple[int, Any]]:
            return list(zip(range(2), f, strict=False))

        reading = PoolUser.deferToThreadInPool(read)
        await PoolUser.deferToThreadInPool(f.writelines, range(50))
        self.assertEqual(await reading, [(0, 0), (1, 1)])
        done = f.deferUntilDone()
        await turn()
        self.assertFalse(done.called)
        f.stop()
        self.assertEqual(await done, [(True, None)])

    async def test_severalReaders(self) -> None:
        """Several threads may share the items, and all are told of the end."""
        f = Filerator()
        reading = [PoolUser.deferToThreadInPool(list, f) for _ in range(3)]
        for i in range(300):
            f.write(str(i))
        f.close()
        items = [item for d in reading for item in await d]
        self.assertEqual(sorted(map(int, items)), list(range(300)))

    async def test_loop(self) -> None:
        """Items may be made in one thread and taken in another."""

        class Counting(IterationGetter):
            def loop(self) -> None:
                for i in range(1_000):
                    self.produce(i)

        getter = Counting()
        getter.start()
        while len(getter._channel) < 16:
            await turn()
        await turn()
        self.assertEqual(len(getter._channel), 16)
        taken = await PoolUser.deferToThreadInPool(list, getter)
        self.assertEqual(taken, list(range(1_000)))

    async def test_ordered(self) -> None:
        """
        Many items that are made at the same time reach blocking code in their order.
        """

        def write(rows: Iterable[bytes], name: str) -> bytes:
            f = Filerator(limit=1_000_000)
            with gzip.GzipFile(name, fileobj=f, mode="wb") as zipped:
                for row in rows:
                    zipped.write(row)
            f.close()
            return b"".join(f)

        async with TaskQueue(ThreadWorker(), ThreadWorker()) as q:
            p = OrderedItemProducer()
            p.start(write, "name")
            for i in range(500):
                p.produceItem(q.call, bytes, [i % 256])
            data = gzip.decompress(await p.stop())
        self.assertEqual(data, bytes(i % 256 for i in range(500)))

    async def test_orderedFails(self) -> None:
        """A failure on either side ends both, and is told."""

        def forever(rows: Iterable[int]) -> None:
            for _ in rows:
                pass

        def breaks(rows: Iterable[int]) -> None:
            raise KeyError("k")

        p = OrderedItemProducer()
        p.start(forever)
        await p.produceItem(int)
        await p.produceItem(fail, ValueError("v"))
        await self.assertFailure(p.stop(), ValueError)
        p = OrderedItemProducer()
        p.start(breaks)
        while await p.produceItem(object) is not None:
            await turn()
        await self.assertFailure(p.stop(), KeyError)

    async def test_orderedOneByOne(self) -> None:
        """
        Each item is told as soon as it's made, while the function waits for the one
        before.
        """
        p = OrderedItemProducer()
        await p.start(list)
        first: Deferred[int] = Deferred()
        made = p.produceItem(lambda: first)
        self.assertEqual(await p.produceItem(int, "50"), 50)
        self.assertFalse(made.called)
        first.callback(1)
        self.assertEqual(await made, 1)
        self.assertEqual(await p.stop(), [1, 50])

    async def test_orderedGivenUp(self) -> None:
        """Production that is given up ends the function that waits for items."""
        p = OrderedItemProducer()
        p.start(list)
        p.produceItem(Deferred)
        await turn()
        p.stopProducing()
        self.assertEqual(await p.stop(), [])
