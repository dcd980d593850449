"""
Tests of the streams between the reactor and blocking code: C{threads._getter} and
C{_bridge}.

Blocking code runs here where it needn't wait, in threads that exist in the mind only.
Where both sides wait for each other is tested with real ones.
"""

from __future__ import annotations

import gc
import gzip
from collections.abc import Iterable, Iterator
from queue import Empty
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IConsumer,
    IPullProducer,
    IPushProducer,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue.errors import ThreadError
from asynqueue.iteration import Deferator, IterationProducer
from asynqueue.threads import (
    Consumerator,
    Filerator,
    IterationGetter,
    IterationStopper,
    OrderedItemProducer,
)
from asynqueue.threads._getter import Channel, Closed
from asynqueue.threads._pool import ThreadPool

from ._fakethreads import ThreadCase


def generate(*items: Any) -> Iterator[Any]:
    """Yield items. Those that are exceptions are raised."""
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item


class ChannelTests(SynchronousTestCase):
    """Tests of L{Channel}."""

    def setUp(self) -> None:
        """Make a channel for four items."""
        self.rooms: list[int] = []
        self.channel = Channel(4, lambda: self.rooms.append(len(self.channel)))

    def test_order(self) -> None:
        """Items come out in the order in which they were put in."""
        for i in range(3):
            self.assertFalse(self.channel.put(i))
        self.channel.putWaiting(3)
        self.assertEqual(len(self.channel), 4)
        self.assertEqual([self.channel.get() for _ in range(4)], [0, 1, 2, 3])
        self.assertRaises(Empty, self.channel.get, wait=False)

    def test_full(self) -> None:
        """It tells when it's full, and once when it's half empty after that."""
        self.assertEqual(
            [self.channel.put(i) for i in range(5)], [False] * 3 + [True] * 2
        )
        for _ in range(5):
            self.channel.get()
        self.assertEqual(self.rooms, [2])
        for i in range(3):
            self.channel.put(i)
            self.channel.get()
        self.assertEqual(self.rooms, [2])

    def test_closed(self) -> None:
        """
        When it's closed, nothing can be put in. What is there comes out, then the end,
        as often as it's asked for.
        """
        self.channel.put(1)
        self.channel.close()
        self.assertTrue(self.channel.closed)
        self.assertRaises(Closed, self.channel.put, 2)
        self.assertRaises(Closed, self.channel.putWaiting, 2)
        self.assertEqual(self.channel.get(), 1)
        for _ in range(2):
            self.assertRaises(StopIteration, self.channel.get)

    def test_error(self) -> None:
        """
        What it's closed with is raised once, in place of the end. The first counts.
        """
        self.channel.put(1)
        self.channel.close(KeyError())
        self.channel.close(ValueError())
        self.channel.get()
        self.assertRaises(KeyError, self.channel.get)
        self.assertRaises(StopIteration, self.channel.get)

    def test_neverRead(self) -> None:
        """
        Who can't know whether anybody reads doesn't wait for room while nobody takes
        anything. Nor when those have left who did.
        """
        for i in range(6):
            self.channel.putWaiting(i, unread=False)
        for _ in range(2):
            self.channel.readerCame()
        self.assertEqual([self.channel.get() for _ in range(6)], [*range(6)])
        self.channel.readerLeft()
        self.assertFalse(self.channel.isDeserted)
        self.channel.readerLeft()
        self.assertTrue(self.channel.isDeserted)
        for i in range(6):
            self.channel.putWaiting(i, unread=False)
        self.channel.get()
        self.assertFalse(self.channel.isDeserted)

    def test_clear(self) -> None:
        """What is in it can be forgotten."""
        self.channel.put(1)
        self.channel.close(KeyError())
        self.channel.clear()
        self.assertRaises(StopIteration, self.channel.get)


@implementer(IPushProducer)
class Pusher:
    """A producer that writes by itself. It notes what it's told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        """Implement C{IPushProducer.pauseProducing}."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Implement C{IPushProducer.resumeProducing}."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """Implement C{IPushProducer.stopProducing}."""
        self.told.append("stop")


@implementer(IPullProducer)
class Puller:
    """A producer that writes when it's asked to."""

    def __init__(self, items: Iterable[Any], later: bool = False) -> None:
        """With C{later}, it writes only when C{write} is called."""
        self.items = iter(items)
        self.later = later
        self.consumer: Any = None
        self.asked = 0
        self.stopped = False

    def resumeProducing(self) -> None:
        """Implement C{IPullProducer.resumeProducing}."""
        self.asked += 1
        if not self.later:
            self.write()

    def stopProducing(self) -> None:
        """Implement C{IPullProducer.stopProducing}."""
        self.stopped = True

    def write(self) -> None:
        """Write an item, or tell that there are no more."""
        try:
            self.consumer.write(next(self.items))
        except StopIteration:
            self.consumer.unregisterProducer()


class BridgeCase(ThreadCase):
    """A reactor with threads of the mind."""

    def setUp(self) -> None:
        """Make a pool."""
        super().setUp()
        self.pool = ThreadPool(reactor=self.reactor)
        self.kw: dict[str, Any] = {"ownPool": self.pool, "reactor": self.reactor}


class PoolTests(ThreadCase):
    """Tests of what only L{ThreadPool} has to do with."""

    def test_noThreadYet(self) -> None:
        """
        A thread that can't be started isn't counted, nor is its call kept, though it's
        started with the first call if the reactor doesn't run yet.
        """
        self.threads.most = 0
        pool = ThreadPool()
        for method in (pool.defer, pool.deferToOwnThread):
            with self.assertRaisesRegex(ThreadError, "can't start new thread"):
                method(self.note)
            self.assertEqual(pool.threads, 0)
            self.successResultOf(pool.shutdown())


class GetterTests(BridgeCase):
    """Tests of L{IterationGetter}."""

    def test_loop(self) -> None:
        """A subclass may make the items in a thread. The end is when that returns."""

        class Counter(IterationGetter):
            def loop(self) -> None:
                states.append(self.runState)
                for i in range(3):
                    self.produce(i)

        states: list[str] = []
        getter = Counter(**self.kw)
        self.assertEqual(getter.runState, "init")
        getter.start()
        getter.start()
        self.assertEqual(getter.runState, "started")
        done = getter.deferUntilDone()
        self.reactor.threads.run()
        self.reactor.settle()
        self.assertNoResult(done)
        self.assertEqual(states, ["running"])
        self.assertEqual(getter.runState, "stopping")
        self.assertEqual(list(getter), [0, 1, 2])
        self.assertEqual(getter.runState, "stopped")
        self.reactor.settle()
        self.assertEqual(self.successResultOf(done), [(True, None)])
        self.assertEqual(self.successResultOf(getter.deferUntilDone()), [(True, None)])
        self.assertEqual(len(self.reactor.threads.names), 1)

    def test_loopRaises(self) -> None:
        """What is raised there comes after the items."""

        class Failing(IterationGetter):
            def loop(self) -> None:
                self.produce(1)
                raise KeyError

        getter = Failing(**self.kw)
        getter.start()
        self.reactor.settle()
        self.assertEqual(next(getter), 1)
        self.assertRaises(KeyError, next, getter)
        self.assertRaises(StopIteration, next, getter)

    def test_stop(self) -> None:
        """When it's stopped, what there is can be taken. More can't be made."""
        getter = IterationGetter(**self.kw)
        getter.start()
        getter.produce(1)
        first, second = getter.stop(), getter.stop()
        with self.assertRaisesRegex(ThreadError, "stopped"):
            getter.produce(2)
        self.assertEqual(list(getter), [1])
        self.reactor.settle()
        for d in (first, second):
            self.assertEqual(self.successResultOf(d), [(True, None)])

    def test_readerLeft(self) -> None:
        """
        When the reader has left its loop, there's nobody to be told of the end. So it's
        done when it's stopped, or when the reader leaves after that.
        """
        for late in (False, True):
            getter = IterationGetter(**self.kw)
            getter.start()
            for i in range(3):
                getter.produce(i)
            reader = iter(getter)
            self.assertEqual(next(reader), 0)
            if not late:
                del reader
                self.reactor.settle()
            done = getter.deferUntilDone()
            self.assertNoResult(done)
            self.assertEqual(getter.runState, "running")
            getter.stop()
            if late:
                self.assertNoResult(done)
                del reader
            self.reactor.settle()
            self.successResultOf(done)
            self.assertEqual(getter.runState, "stopped")

    def test_readersTakeTurns(self) -> None:
        """One reader may leave and another one take what there is."""
        getter = IterationGetter(**self.kw)
        for i in range(3):
            getter.produce(i)
        self.assertEqual(next(iter(getter)), 0)
        self.assertEqual(next(getter), 1)
        done = getter.stop()
        self.reactor.settle()
        self.assertNoResult(done)
        self.assertEqual(list(getter), [2])
        self.reactor.settle()
        self.successResultOf(done)

    def test_waiters(self) -> None:
        """Who waits for the end may leave, at any time."""
        getter = IterationGetter(**self.kw)
        first, second, third = (getter.deferUntilDone() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addCallback(lambda _: third.cancel())
        getter.stop()
        list(getter)
        self.reactor.settle()
        self.successResultOf(second)
        self.failureResultOf(third, CancelledError)

    def test_wouldBlock(self) -> None:
        """To wait for an item in the reactor's thread is refused."""
        getter = IterationGetter(**self.kw)
        with self.assertRaisesRegex(ThreadError, "block the reactor"):
            next(getter)
        getter.produce(1)
        self.assertEqual(next(getter), 1)

    def test_limit(self) -> None:
        """A limit that makes no sense is refused."""
        for kind in (IterationGetter, Consumerator, Filerator):
            with self.assertRaisesRegex(ValueError, "limit.*0"):
                kind(limit=0, **self.kw)

    def test_stopper(self) -> None:
        """What ends an iteration is there under its old name."""
        self.assertIs(IterationGetter.IterationStopper, IterationStopper)

    def test_ownPool(self) -> None:
        """Threads of a pool that was made for one alone end with the iteration."""
        self.patch(
            __import__("asynqueue.threads._pool", fromlist=["x"]),
            "ThreadPool",
            lambda n: ThreadPool(n, reactor=self.reactor),
        )
        getter = IterationGetter(2, reactor=self.reactor)
        getter.deferToThreadInPool(len, "")
        self.reactor.settle()
        self.assertEqual(getter.pool.threads, 1)
        getter.stop()
        list(getter)
        self.reactor.settle()
        self.assertEqual(self.reactor.threads.alive, [])


class ConsumeratorTests(BridgeCase):
    """Tests of L{Consumerator}."""

    def pushed(self, **kw: Any) -> tuple[Consumerator, Pusher]:
        """Make a consumer with a producer that writes by itself."""
        pusher = Pusher()
        return Consumerator(pusher, **self.kw, **kw), pusher

    def test_interface(self) -> None:
        """It's a consumer."""
        verifyObject(IConsumer, Consumerator(**self.kw))

    def test_states(self) -> None:
        """It can be seen how far it is."""
        c = Consumerator(**self.kw)
        self.assertEqual(c.runState, "init")
        c.registerProducer(Pusher(), True)
        self.assertEqual(c.runState, "running")
        c.write(1)
        c.write(2)
        next(c)
        self.assertEqual(c.runState, "running")
        c.unregisterProducer()
        self.assertEqual(c.runState, "stopping")
        self.assertEqual(list(c), [2])
        self.assertEqual(c.runState, "stopped")

    def test_paused(self) -> None:
        """
        A producer that writes by itself is held up while too many items are on the
        way, and goes on when half of them have been taken.
        """
        c, pusher = self.pushed(limit=4)
        for i in range(6):
            c.write(i)
        self.assertEqual(pusher.told, ["pause"])
        for i in range(3):
            self.assertEqual(next(c), i)
        self.reactor.settle()
        self.assertEqual(pusher.told, ["pause"])
        next(c)
        self.reactor.settle()
        self.assertEqual(pusher.told, ["pause", "resume"])
        for i in range(2):
            c.write(i)
        self.assertEqual(pusher.told, ["pause", "resume", "pause"])

    def test_pulled(self) -> None:
        """
        One that is asked for each item is asked as long as there's room, without going
        down the stack.
        """
        puller = Puller(range(10_000))
        puller.consumer = c = Consumerator(limit=4, **self.kw)
        c.registerProducer(puller, False)
        self.assertEqual(puller.asked, 4)
        taken = []
        while c.runState != "stopping":
            taken.append(next(c))
            self.reactor.settle()
        taken.extend(c)
        self.assertEqual(taken, list(range(10_000)))
        self.assertIsNone(c.producer)

    def test_pulledLater(self) -> None:
        """It may write its item later, and is asked again then."""
        puller = Puller(range(3), later=True)
        puller.consumer = c = Consumerator(**self.kw)
        c.registerProducer(puller, False)
        for i in range(4):
            self.assertEqual(puller.asked, i + 1)
            puller.write()
        self.assertEqual(list(c), [0, 1, 2])

    def test_pulledRaises(self) -> None:
        """What it raises when it's asked ends the iteration."""
        puller = Puller(generate(1, KeyError()))
        puller.consumer = c = Consumerator(**self.kw)
        c.registerProducer(puller, False)
        self.assertEqual(next(c), 1)
        self.assertRaises(KeyError, next, c)

    def test_kinds(self) -> None:
        """Of a producer that it's made with, it finds out itself how it works."""
        puller = Puller([])
        self.patch(puller, "resumeProducing", lambda: None)
        c = Consumerator(puller, **self.kw)
        self.assertIs(c.producer, puller)
        self.assertFalse(c._pace.isStreaming)

    def test_plainProducer(self) -> None:
        """One that declares no interface is taken for one that writes by itself."""

        class Plain:
            """A producer that doesn't say so."""

            pauseProducing = Pusher.pauseProducing
            resumeProducing = Pusher.resumeProducing
            stopProducing = Pusher.stopProducing

        plain: Any = Plain()
        plain.told = []
        c = Consumerator(plain, limit=1, **self.kw)
        c.write(1)
        self.assertEqual(plain.told, ["pause"])
        self.assertEqual(next(c), 1)
        self.reactor.settle()
        self.assertEqual(plain.told, ["pause", "resume"])

    def test_takenIn(self) -> None:
        """
        Writing gives a Deferred that fires at once, or if too many items are on the
        way, when the reader has caught up, or it's stopped.
        """
        c = Consumerator(limit=2, **self.kw)
        writes = [c.write(i) for i in range(3)]
        self.assertEqual([d.called for d in writes], [True, False, False])
        next(c)
        self.reactor.settle()
        self.assertFalse(writes[1].called)
        next(c)
        self.reactor.settle()
        self.assertEqual([self.successResultOf(d) for d in writes], [None] * 3)
        c.write(3)
        late = c.write(4)
        self.assertNoResult(late)
        c.stop()
        self.assertIsNone(self.successResultOf(late))
        self.assertIsNone(self.successResultOf(c.unregisterProducer()))

    def test_twice(self) -> None:
        """A second producer is refused."""
        c, _ = self.pushed()
        with self.assertRaisesRegex(RuntimeError, "already"):
            c.registerProducer(Pusher(), True)

    def test_tooLate(self) -> None:
        """After the end, writing is an error, and a producer is told to stop."""
        c, _ = self.pushed()
        c.unregisterProducer()
        with self.assertRaisesRegex(RuntimeError, "ended.*'x'"):
            c.write("x")
        late = Pusher()
        c.registerProducer(late, True)
        self.assertEqual(late.told, ["stop"])

    def test_stop(self) -> None:
        """
        When it's stopped, the producer is told so once. What it writes still is
        ignored, what it has written can be taken.
        """
        c, pusher = self.pushed()
        c.write(1)
        d = c.stop()
        c.stop()
        c.write(2)
        c.unregisterProducer()
        self.assertEqual(pusher.told, ["stop"])
        self.assertEqual(list(c), [1])
        self.reactor.settle()
        self.assertEqual(self.successResultOf(d), [(True, None)])

    def test_abort(self) -> None:
        """When it's aborted, also that is forgotten."""
        c, pusher = self.pushed()
        c.write(1)
        c.abort()
        self.assertEqual(pusher.told, ["stop"])
        self.assertEqual(list(c), [])

    def test_stopper(self) -> None:
        """It's stopped, too, by a certain item, be it the class or an instance."""
        for item in (IterationStopper, IterationStopper()):
            c, pusher = self.pushed()
            c.write(1)
            c.write(item)
            self.assertEqual(pusher.told, ["stop"])
            self.assertEqual(list(c), [1])

    def test_fail(self) -> None:
        """A producer that has failed can say so, after its items."""
        for failure in (KeyError(), Failure(KeyError())):
            c, _ = self.pushed()
            c.write(1)
            c.fail(failure)
            c.write(2)
            c.unregisterProducer()
            self.assertEqual(next(c), 1)
            self.assertRaises(KeyError, next, c)
            self.assertRaises(StopIteration, next, c)

    def test_roomWithoutProducer(self) -> None:
        """That there's room is of no interest when the producer has gone."""
        c, pusher = self.pushed(limit=2)
        for i in range(3):
            c.write(i)
        c.unregisterProducer()
        self.assertEqual(list(c), [0, 1, 2])
        self.reactor.settle()
        self.assertEqual(pusher.told, ["pause"])

    def test_iteration(self) -> None:
        """
        Items of a Deferator come through an IterationProducer, and with them the end,
        or what was raised.
        """
        for items in ([], list(range(100)), [1, KeyError("k")]):
            producer = IterationProducer(
                Deferator(generate(*items)), reactor=self.reactor
            )
            c = Consumerator(producer, **self.kw)
            taken: list[Any] = []
            while c.runState != "stopped":
                try:
                    taken.append(next(c))
                except StopIteration:
                    break
                except KeyError as error:
                    taken.append(error)
                self.reactor.settle()
            self.assertEqual(taken, items)

    def test_iterationRunElsewhere(self) -> None:
        """
        So it is if the producer is told of the consumer, and run, by somebody else, who
        hears of the failure as well.
        """
        c = Consumerator(**self.kw)
        producer = IterationProducer(
            Deferator(generate(1, KeyError())), c, reactor=self.reactor
        )
        d = producer.run()
        self.reactor.settle()
        self.assertEqual(next(c), 1)
        self.assertRaises(KeyError, next, c)
        self.failureResultOf(d, KeyError)


class FileratorTests(BridgeCase):
    """Tests of L{Filerator}."""

    def setUp(self) -> None:
        """Open one."""
        super().setUp()
        self.f = Filerator(**self.kw)

    def test_early(self) -> None:
        """
        What is written and closed before anybody reads is there all the same: each
        thing itself, whatever it is.
        """
        self.assertEqual(self.f.runState, "running")
        items = [0, None, "", [1], b"x", "two", bytearray(b"3")]
        self.f.write(items[0])
        self.f.writelines(items[1:])
        self.f.close()
        self.f.close()
        for item, read in zip(items, self.f, strict=True):
            self.assertIs(item, read)
        self.assertEqual(self.reactor.threads.names, [])

    def test_closed(self) -> None:
        """Nothing can be written to a file that is closed."""
        self.assertFalse(self.f.closed)
        self.f.close()
        self.assertTrue(self.f.closed)
        for data in ("x", ""):
            with self.assertRaisesRegex(ValueError, "closed"):
                self.f.write(data)
        with self.assertRaisesRegex(ValueError, "closed"):
            self.f.writelines(["x"])
        self.f.flush()

    def test_kind(self) -> None:
        """It's a file for writing only, from its beginning to its end."""
        self.assertTrue(self.f.writable())
        self.assertFalse(self.f.readable())
        self.assertFalse(self.f.seekable())

    def test_context(self) -> None:
        """It's closed at the end of a block."""
        with self.f as f:
            f.write(b"x")
        self.assertTrue(self.f.closed)

    def test_library(self) -> None:
        """Libraries can write to it."""
        with self.f, gzip.GzipFile(fileobj=self.f, mode="wb") as zipped:
            zipped.write(b"some text")
        self.assertEqual(gzip.decompress(b"".join(self.f)), b"some text")


class OrderedTests(BridgeCase):
    """Tests of L{OrderedItemProducer}."""

    def setUp(self) -> None:
        """Make a producer."""
        super().setUp()
        self.p = OrderedItemProducer(**self.kw)
        self.got: list[Any] = []

    def collect(self, items: Iterable[Any], *args: Any, **kw: Any) -> Any:
        """Be the blocking function: return the number of items, and the arguments."""
        for item in items:
            self.got.append(item)
            if isinstance(item, BaseException):
                raise item
        return len(self.got), args, kw

    def test_interface(self) -> None:
        """It's a producer."""
        verifyObject(IPushProducer, self.p)

    def test_start(self) -> None:
        """Starting gives a Deferred that fires when the function has begun."""
        begun: list[bool] = []
        d = self.p.start(lambda _: begun.append(d.called))
        self.assertNoResult(d)
        self.assertIsNone(self.resultOf(d))
        self.assertEqual(begun, [False])
        self.resultOf(self.p.stop())

    def test_order(self) -> None:
        """
        Items come in the order in which they were asked for, whichever is made first.
        The result is that of the function.
        """
        items: list[Deferred[Any]] = [Deferred() for _ in range(5)]
        self.p.start(self.collect, "a", x=1)
        made = [self.p.produceItem(lambda d: d, item) for item in items]
        for i in (3, 1, 0, 4, 2):
            items[i].callback(i)
        d = self.p.stop()
        self.assertEqual(self.resultOf(d), (5, ("a",), {"x": 1}))
        self.assertEqual(self.got, [0, 1, 2, 3, 4])
        self.assertEqual([self.successResultOf(d) for d in made], self.got)
        self.assertEqual(self.reactor.threads.alive, [])
        self.assertEqual(self.resultOf(self.p.stop()), (5, ("a",), {"x": 1}))

    def test_madeBeforeStart(self) -> None:
        """Items may be made before the function has begun. They're told after that."""
        made = self.p.produceItem(lambda: 1)
        self.assertNoResult(made)
        self.p.start(next)
        self.assertNoResult(made)
        self.assertEqual(self.resultOf(made), 1)
        self.assertEqual(self.resultOf(self.p.stop()), 1)

    def test_keywords(self) -> None:
        """All keywords reach the functions."""
        self.p.start(lambda it, **kw: [*it, kw], fb=1, self=2)
        self.p.produceItem(dict, fp=3, self=4)
        self.assertEqual(
            self.resultOf(self.p.stop()), [{"fp": 3, "self": 4}, {"fb": 1, "self": 2}]
        )

    def test_nested(self) -> None:
        """
        An item that is finished by the function that makes a later one comes before
        that, and nothing comes in the place of the later one until it's made.
        """
        first: Deferred[str] = Deferred()

        def second() -> str:
            first.callback("first")
            return "second"

        self.p.start(self.collect)
        self.p.produceItem(lambda: first)
        self.p.produceItem(second)
        self.resultOf(self.p.stop())
        self.assertEqual(self.got, ["first", "second"])

    def test_nestedFailure(self) -> None:
        """If what that function finishes is a failure, its own item is not made."""
        first: Deferred[str] = Deferred()
        second: Deferred[str] = Deferred()

        def fail() -> Deferred[str]:
            first.errback(KeyError("first"))
            return second

        self.p.start(self.collect)
        self.p.produceItem(lambda: first)
        self.assertIsNone(self.resultOf(self.p.produceItem(fail)))
        self.assertTrue(second.called)
        self.failureOf(self.p.stop(), KeyError)

    def test_stopWaits(self) -> None:
        """Stopping waits for what is in the making. No more items are wanted then."""
        item: Deferred[int] = Deferred()
        self.p.start(self.collect)
        self.p.produceItem(lambda: item)
        d = self.p.stop()
        late = self.p.produceItem(self.got.append, "late")
        self.assertIsNone(self.successResultOf(late))
        self.assertNoResult(d)
        item.callback(1)
        self.assertEqual(self.resultOf(d), (1, (), {}))
        self.assertEqual(self.got, [1])

    def test_ready(self) -> None:
        """
        While many items are in the making, or wait for others, no more are wanted.
        """
        self.p = OrderedItemProducer(ahead=3, **self.kw)
        self.p.start(self.collect)
        items: list[Deferred[int]] = [Deferred() for _ in range(4)]
        for item in items:
            d = self.p.ready()
            self.assertEqual(d.called, item is not items[3])
            self.p.produceItem(lambda d: d, item)
        items[1].callback(1)
        self.assertNoResult(d)
        gone = self.p.ready()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        items[0].callback(0)
        self.assertIs(self.successResultOf(d), True)

    def test_readyAtEnd(self) -> None:
        """Who waits to have more made is told when nothing is wanted any longer."""
        for name in ("stop", "stopProducing"):
            self.p = OrderedItemProducer(ahead=1, **self.kw)
            self.p.produceItem(Deferred)
            d = self.p.ready()
            getattr(self.p, name)()
            self.assertIs(self.successResultOf(d), False)
            self.assertIs(self.successResultOf(self.p.ready()), False)
        with self.assertRaisesRegex(ValueError, "ahead.*0"):
            OrderedItemProducer(ahead=0, **self.kw)

    def test_held(self) -> None:
        """Items that the function has no time for are held back."""
        for i in range(20):
            self.p.produceItem(lambda i: i, i)
        self.assertEqual(len(self.p.i._channel), 16)
        for i in range(8):
            self.assertEqual(next(self.p.i), i)
        self.reactor.settle()
        self.assertEqual(len(self.p.i._channel), 12)

    def test_many(self) -> None:
        """
        Thousands that are made at once when an earlier one is don't go down the stack.
        """
        item: Deferred[int] = Deferred()
        made = [self.p.produceItem(lambda i: i or item, i) for i in range(5_000)]
        self.p.start(lambda it: sum(1 for _ in zip(range(16), it, strict=False)))
        item.callback(0)
        self.assertEqual(self.resultOf(self.p.stop()), 16)
        self.assertEqual([self.successResultOf(d) for d in made], [*range(5_000)])

    def test_makingFails(self) -> None:
        """
        When an item can't be made, the function is raised that after the items before
        it, and what is in the making is cancelled. Stopping tells the failure.
        """
        first: Deferred[int] = Deferred()
        other: Deferred[int] = Deferred()
        self.p.start(self.collect)
        self.p.produceItem(lambda: first)
        self.p.produceItem(fail, KeyError("k"))
        self.p.produceItem(lambda: other)
        self.assertFalse(other.called)
        first.callback(1)
        self.assertTrue(other.called)
        more = self.p.produceItem(self.got.append, "late")
        self.assertIsNone(self.successResultOf(more))
        self.failureOf(self.p.stop(), KeyError)
        self.failureOf(self.p.stop(), KeyError)
        self.assertEqual(self.got, [1])

    def test_makingRaises(self) -> None:
        """
        So it is when what makes an item raises, and what the function makes of it
        doesn't matter.
        """

        def forgiving(items: Iterable[Any]) -> str:
            try:
                self.got.extend(items)
            except ZeroDivisionError:
                return "no matter"
            return "not raised"

        self.p.start(forgiving)
        d = self.p.produceItem(lambda: 1 / 0)
        self.assertIsNone(self.resultOf(d))
        self.failureOf(self.p.stop(), ZeroDivisionError)

    def test_functionFails(self) -> None:
        """
        When the function raises, no more items are wanted, those in the making are
        cancelled, and stopping tells the failure.
        """
        other: Deferred[int] = Deferred()
        self.p.start(self.collect)
        self.p.produceItem(KeyError, "k")
        self.p.produceItem(lambda: other)
        self.reactor.settle()
        self.assertTrue(other.called)
        more = self.p.produceItem(self.got.append, "late")
        self.assertIsNone(self.successResultOf(more))
        self.failureOf(self.p.stop(), KeyError)
        self.assertEqual(len(self.got), 1)

    def test_functionReturns(self) -> None:
        """The function may return before it has had all items."""
        self.p.start(lambda items: next(items) * 10)
        for i in range(1, 5):
            self.p.produceItem(lambda i: i, i)
        self.reactor.settle()
        more = self.p.produceItem(self.got.append, "late")
        self.assertIsNone(self.successResultOf(more))
        self.assertEqual(self.resultOf(self.p.stop()), 10)

    def test_unclaimed(self) -> None:
        """A failure that nobody asks for is logged."""

        def f(items: Any) -> None:
            raise KeyError

        self.p.start(f)
        self.reactor.settle()
        del self.p
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_claimed(self) -> None:
        """One that is asked for, before it's there or after, isn't."""
        for early in (True, False):
            self.p = OrderedItemProducer(**self.kw)
            self.p.start(lambda _: 1 / 0)
            if not early:
                self.reactor.settle()
            self.failureOf(self.p.stop(), ZeroDivisionError)
            del self.p
            gc.collect()
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_stopProducing(self) -> None:
        """
        Production may be given up: what is in the making is cancelled, and the
        iteration ends for the function.
        """
        item: Deferred[int] = Deferred()
        self.p.start(self.collect)
        self.p.produceItem(lambda: 1)
        self.p.produceItem(lambda: item)
        self.p.stopProducing()
        self.assertTrue(item.called)
        self.assertEqual(self.resultOf(self.p.stop()), (0, (), {}))

    def test_neverStarted(self) -> None:
        """A producer that was never started stops with nothing."""
        made = [self.p.produceItem(f) for f in (Deferred, int)]
        for _ in range(2):
            self.assertIsNone(self.successResultOf(self.p.stop()))
        self.assertEqual([self.successResultOf(d) for d in made], [None, 0])

    def test_misuse(self) -> None:
        """Starting twice, and what can't be called, is refused."""
        with self.assertRaisesRegex(TypeError, "7"):
            self.p.start(7)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "7"):
            self.p.produceItem(7)  # type: ignore[arg-type]
        self.p.start(self.collect)
        with self.assertRaisesRegex(RuntimeError, "started already"):
            self.p.start(self.collect)
        self.p.stopProducing()
        self.resultOf(self.p.stop())

    def test_waiterLeaves(self) -> None:
        """Who waits for the end may leave, also in the callbacks of another."""
        self.p.start(self.collect)
        first, second, third = (self.p.stop() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addCallback(lambda _: third.cancel())
        self.resultOf(second)
        self.failureResultOf(third, CancelledError)
