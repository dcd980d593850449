"""
Tests of iterations that are written to consumers: L{IterationProducer},
L{iteratorToProducer} and L{ListConsumer}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import get_ident
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue.errors import ImplementationError, NotReadyError
from asynqueue.iteration import (
    Deferator,
    IterationProducer,
    ListConsumer,
    iteratorToProducer,
)
from asynqueue.iteration._sources import BufferedSource

from ._cases import turnAll


@implementer(IConsumer)
class RecordingConsumer:
    """A consumer that notes what happens to it. C{onWrite} is called with each item."""

    def __init__(self, onWrite: Callable[[Any], object] = lambda item: None) -> None:
        self.log: list[Any] = []
        self.onWrite = onWrite
        self.producer: Any = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Implement C{IConsumer.registerProducer}."""
        self.log.append(("registered", streaming))
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Implement C{IConsumer.unregisterProducer}."""
        self.log.append("unregistered")

    def write(self, data: Any) -> None:
        """Implement C{IConsumer.write}."""
        self.log.append(data)
        self.onWrite(data)

    @property
    def items(self) -> list[Any]:
        """What has been written."""
        return [item for item in self.log if isinstance(item, int)]


class IterationProducerTests(SynchronousTestCase):
    """Tests of L{IterationProducer}."""

    def setUp(self) -> None:
        """Make a consumer, and a source that notes when it's stopped."""
        self.clock = Clock()
        self.consumer = RecordingConsumer()
        self.stops = 0
        self.source = BufferedSource(onStop=self.stopped)
        self.closed = 0

    def stopped(self) -> None:
        """Note that the source has been stopped."""
        self.stops += 1

    def numbers(self, limit: int | None = None) -> Iterator[int]:
        """Yield so many numbers, or without end, 0.1 ms each, and note the end."""
        try:
            for i in count() if limit is None else range(limit):
                self.clock.rightNow += 0.0001
                yield i
        finally:
            self.closed += 1

    def make(self, iteration: object) -> IterationProducer:
        """Make a producer with the consumer registered."""
        return IterationProducer(iteration, self.consumer, reactor=self.clock)

    def test_interface(self) -> None:
        """It provides C{IPushProducer}."""
        verifyObject(IPushProducer, self.make([]))

    def test_run(self) -> None:
        """
        Running it writes all items in order. The consumer is told of the producer once
        before, and once that it's done. The Deferred fires with the consumer.
        """
        d = self.make(Deferator(iter(range(3)))).run()
        self.assertIs(self.successResultOf(d), self.consumer)
        self.assertEqual(
            self.consumer.log, [("registered", True), 0, 1, 2, "unregistered"]
        )

    def test_nothingBeforeRun(self) -> None:
        """Nothing is written, or asked for, before it's run, also if it's resumed."""
        producer = self.make(Deferator(self.source))
        self.source.push([1])
        producer.resumeProducing()
        self.assertEqual(self.consumer.items, [])
        self.assertEqual(self.source.atHand, 1)

    def test_noLookAhead(self) -> None:
        """Each item is written the moment it's there."""
        d = self.make(Deferator(self.source)).run()
        self.source.push([1])
        self.assertEqual(self.consumer.items, [1])
        self.source.push([2, 3])
        self.assertEqual(self.consumer.items, [1, 2, 3])
        self.assertNoResult(d)
        self.source.end()
        self.assertIs(self.successResultOf(d), self.consumer)

    def test_empty(self) -> None:
        """
        An empty list, which is the result of an empty iterator, is an iteration, too.
        """
        self.assertIs(self.successResultOf(self.make([]).run()), self.consumer)
        self.assertEqual(self.consumer.log, [("registered", True), "unregistered"])

    def test_iterator(self) -> None:
        """It takes an iterator as well."""
        self.successResultOf(self.make(iter([1, 2])).run())
        self.assertEqual(self.consumer.items, [1, 2])

    def test_registerConsumer(self) -> None:
        """The consumer may be registered later. Until then it can't be run."""
        producer = IterationProducer(iter([1]))
        failure = self.failureResultOf(producer.run(), ImplementationError)
        self.assertIn("registerConsumer", failure.getErrorMessage())
        producer.registerConsumer(self.consumer)
        self.successResultOf(producer.run())
        self.assertEqual(self.consumer.items, [1])

    def test_registerTwice(self) -> None:
        """
        Registering the same consumer again does nothing. Another one takes its place.
        """
        producer = self.make(iter([1]))
        producer.registerConsumer(self.consumer)
        self.assertEqual(self.consumer.log, [("registered", True)])
        other = RecordingConsumer()
        producer.registerConsumer(other)
        self.assertIs(self.successResultOf(producer.run()), other)
        self.assertEqual(other.log, [("registered", True), 1, "unregistered"])
        self.assertEqual(self.consumer.log, [("registered", True)])

    def test_consumerRegistersItself(self) -> None:
        """
        A consumer may register itself from within its C{registerProducer}, and refuse
        to be told of a producer twice.
        """

        @implementer(IConsumer)
        class Eager(RecordingConsumer):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                if self.producer is not None:
                    raise RuntimeError
                self.producer = producer
                producer.registerConsumer(self)
                self.log.append("set up")

        self.consumer = Eager()
        self.successResultOf(self.make(iter([1, 2])).run())
        self.assertEqual(self.consumer.log, ["set up", 1, 2, "unregistered"])

    def test_noConsumer(self) -> None:
        """What doesn't provide C{IConsumer} is named at once."""
        with self.assertRaisesRegex(ImplementationError, "5 doesn't provide IConsumer"):
            IterationProducer([], 5)  # type: ignore[arg-type]

    def test_hasProducerAlready(self) -> None:
        """
        A consumer that raises C{RuntimeError} when it has a producer already is
        written to all the same.
        """
        consumer = ListConsumer()
        consumer.registerProducer(self.make([]), True)
        producer = IterationProducer(iter([1]), consumer, reactor=self.clock)
        self.successResultOf(producer.run())
        self.assertEqual(self.successResultOf(consumer()), [1])

    def test_registerRaises(self) -> None:
        """
        What else it raises comes to who registers it, and it's not the consumer then.
        """

        @implementer(IConsumer)
        class Broken(RecordingConsumer):
            def registerProducer(self, producer: IProducer, streaming: bool) -> None:
                raise ZeroDivisionError

        producer = IterationProducer(iter([1]))
        with self.assertRaises(ZeroDivisionError):
            producer.registerConsumer(Broken())
        self.assertIsNone(producer.consumer)

    def test_runTwice(self) -> None:
        """Running it again only waits for the end, as does waiting for it."""
        producer = self.make(Deferator(self.source))
        waits = [producer.deferUntilDone(), producer.run(), producer.run()]
        self.source.push([1])
        self.source.end()
        waits += [producer.run(), producer.deferUntilDone()]
        for d in waits:
            self.assertIs(self.successResultOf(d), self.consumer)
        self.assertEqual(self.consumer.log, [("registered", True), 1, "unregistered"])

    def test_sourceFails(self) -> None:
        """
        An error of the source comes after its items, as the failure of all Deferreds.
        The consumer is told that it's done.
        """
        producer = self.make(Deferator(self.source))
        d = producer.run()
        self.source.push([1])
        self.source.fail(ZeroDivisionError())
        self.failureResultOf(d, ZeroDivisionError)
        self.failureResultOf(producer.deferUntilDone(), ZeroDivisionError)
        self.assertEqual(self.consumer.log, [("registered", True), 1, "unregistered"])
        self.assertFalse(self.successResultOf(producer.dr.d))

    def test_consumerFails(self) -> None:
        """What the consumer raises for an item stops the source, and is the failure."""
        self.consumer.onWrite = lambda item: 1 // (2 - item)
        d = self.make(Deferator(self.source)).run()
        self.source.push([1, 2, 3])
        self.failureResultOf(d, ZeroDivisionError)
        self.assertEqual(self.stops, 1)
        self.assertEqual(
            self.consumer.log, [("registered", True), 1, 2, "unregistered"]
        )

    def test_consumerFailsAtEnd(self) -> None:
        """
        What it raises when it's told of the end is the failure if there's none before.
        Else it's logged.
        """

        @implementer(IConsumer)
        class Broken(RecordingConsumer):
            def unregisterProducer(self) -> None:
                raise ZeroDivisionError

        self.consumer = Broken()
        self.failureResultOf(self.make([1]).run(), ZeroDivisionError)
        self.consumer = Broken(onWrite=lambda item: {}[item])
        self.failureResultOf(self.make([1]).run(), KeyError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_pause(self) -> None:
        """
        While it's paused nothing is written, and nothing is asked for. Then it goes on
        where it was.
        """
        self.consumer.onWrite = lambda item: (
            item % 2 or self.consumer.producer.pauseProducing()
        )
        producer = self.make(Deferator(self.source))
        d = producer.run()
        self.source.push([1, 2, 3, 4, 5])
        self.assertEqual(self.consumer.items, [1, 2])
        self.assertEqual(self.source.atHand, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        producer.resumeProducing()
        self.assertEqual(self.consumer.items, [1, 2, 3, 4])
        producer.resumeProducing()
        self.source.end()
        self.successResultOf(d)
        self.assertEqual(self.consumer.items, [1, 2, 3, 4, 5])

    def test_pauseWhileWaiting(self) -> None:
        """
        An item that comes while it's paused is kept until it's resumed. Pausing and
        resuming while it's waited for makes no difference.
        """
        producer = self.make(Deferator(self.source))
        producer.run()
        producer.pauseProducing()
        producer.resumeProducing()
        producer.pauseProducing()
        self.source.push([1, 2])
        self.assertEqual(self.consumer.items, [])
        producer.resumeProducing()
        producer.resumeProducing()
        self.assertEqual(self.consumer.items, [1, 2])

    def test_resumeInWrite(self) -> None:
        """
        A consumer that pauses and resumes it while it's written to doesn't fill the
        stack.
        """

        def flicker(item: Any) -> None:
            self.consumer.producer.pauseProducing()
            self.consumer.producer.resumeProducing()

        self.consumer.onWrite = flicker
        self.successResultOf(self.make(iter(range(5_000))).run())
        self.assertEqual(self.consumer.items, list(range(5_000)))

    def test_stop(self) -> None:
        """
        Stopping it isn't a failure. The source is stopped, and the consumer told, once.
        """
        producer = self.make(Deferator(self.source))
        d = producer.run()
        self.source.push([1])
        producer.stopProducing()
        producer.stopProducing()
        self.source.push([2])
        producer.resumeProducing()
        self.assertIs(self.successResultOf(d), self.consumer)
        self.assertEqual(self.stops, 1)
        self.assertEqual(self.consumer.log, [("registered", True), 1, "unregistered"])

    def test_stopInWrite(self) -> None:
        """The consumer may stop it while it's written to. The generator is closed."""
        self.consumer.onWrite = lambda item: (
            item == 2 and self.consumer.producer.stopProducing()
        )
        self.successResultOf(self.make(self.numbers()).run())
        self.assertEqual(self.consumer.items, [0, 1, 2])
        self.assertEqual(self.closed, 1)

    def test_stopAtRegistration(self) -> None:
        """
        A consumer that is closed may stop it when it's told of it. Then running it
        writes nothing.
        """

        @implementer(IConsumer)
        class Closed(RecordingConsumer):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                producer.stopProducing()

        self.consumer = Closed()
        self.successResultOf(self.make(Deferator(self.source)).run())
        self.assertEqual(self.consumer.log, ["unregistered"])
        self.assertEqual(self.stops, 1)

    def test_deferatorStopped(self) -> None:
        """If the deferator is stopped, that's the end."""
        producer = self.make(Deferator(self.source))
        d = producer.run()
        self.source.push([1])
        producer.dr.stop()
        self.assertIs(self.successResultOf(d), self.consumer)

    def test_cancel(self) -> None:
        """
        Cancelling the Deferred of C{run} stops it. Cancelling one that only waits
        doesn't.
        """
        producer = self.make(Deferator(self.source))
        d, waiting = producer.run(), producer.deferUntilDone()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.stops, 0)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.stops, 1)

    def test_cancelAtEnd(self) -> None:
        """At the end, who has waited may cancel what another waits for."""
        producer = self.make(Deferator(self.source))
        first, second = producer.run(), producer.deferUntilDone()
        first.addCallback(lambda _: second.cancel())
        self.source.end()
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_stopWithoutConsumer(self) -> None:
        """It can be stopped though it has no consumer."""
        IterationProducer(Deferator(self.source)).stopProducing()
        self.assertEqual(self.stops, 1)

    def test_stopBeforeTurn(self) -> None:
        """
        Stopped when the reactor is to have its turn, it doesn't come back after it.
        """
        producer = self.make(self.numbers())
        d = producer.run()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        producer.stopProducing()
        self.successResultOf(d)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWhilePaused(self) -> None:
        """Stopped while it's paused, it writes nothing more."""
        producer = self.make(Deferator(self.source))
        d = producer.run()
        producer.pauseProducing()
        self.source.push([1, 2])
        producer.stopProducing()
        self.successResultOf(d)
        self.assertEqual(self.consumer.log, [("registered", True), "unregistered"])

    def test_othersWait(self) -> None:
        """If somebody else waits for the next item of the deferator, it fails."""
        deferator = Deferator(self.source)
        next(deferator).addErrback(lambda failure: failure.trap(CancelledError))
        self.failureResultOf(self.make(deferator).run(), NotReadyError)

    def test_goesOn(self) -> None:
        """It goes on where an iteration that has begun is."""
        deferator = Deferator(iter([1, 2, 3]))
        self.assertEqual(self.successResultOf(next(deferator)), 1)
        self.successResultOf(self.make(deferator).run())
        self.assertEqual(self.consumer.items, [2, 3])
        self.assertTrue(self.successResultOf(deferator.d))

    def test_deferredItems(self) -> None:
        """Items that are Deferreds are waited for."""
        item: Deferred[int] = Deferred()
        d = self.make(iter([item, succeed(2)])).run()
        self.assertEqual(self.consumer.items, [])
        item.callback(1)
        self.successResultOf(d)
        self.assertEqual(self.consumer.items, [1, 2])

    def test_turns(self) -> None:
        """
        Of an endless iterator, it writes items for a few milliseconds, then the reactor
        has its turn.
        """
        producer = self.make(self.numbers())
        d = producer.run()
        first = len(self.consumer.items)
        self.assertGreater(first, 20)
        self.assertLess(first, 100)
        producer.resumeProducing()
        self.assertEqual(len(self.consumer.items), first)
        turnAll(self.clock)
        self.assertGreater(len(self.consumer.items), first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        producer.stopProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIs(self.successResultOf(d), self.consumer)
        self.assertEqual(self.closed, 1)

    def test_turnsComplete(self) -> None:
        """No item is lost over the turns."""
        d = self.make(self.numbers(500)).run()
        while self.clock.getDelayedCalls():
            self.assertNoResult(d)
            turnAll(self.clock)
        self.successResultOf(d)
        self.assertEqual(self.consumer.items, list(range(500)))

    def test_pausedOverTurn(self) -> None:
        """Paused while the reactor has its turn, it doesn't go on by itself."""
        producer = self.make(self.numbers())
        producer.run()
        producer.pauseProducing()
        first = len(self.consumer.items)
        turnAll(self.clock)
        self.assertEqual(len(self.consumer.items), first)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        producer.resumeProducing()
        self.assertGreater(len(self.consumer.items), first)
        producer.stopProducing()


class IteratorToProducerTests(SynchronousTestCase):
    """Tests of L{iteratorToProducer}."""

    def setUp(self) -> None:
        """Make a consumer."""
        self.consumer = RecordingConsumer()

    def test_runs(self) -> None:
        """With a consumer, the Deferred fires with the producer when all is written."""
        items: list[Deferred[int]] = [Deferred(), succeed(2)]
        d = iteratorToProducer(iter(items), self.consumer)
        self.assertNoResult(d)
        items[0].callback(1)
        self.assertIsInstance(self.successResultOf(d), IterationProducer)
        self.assertEqual(
            self.consumer.log, [("registered", True), 1, 2, "unregistered"]
        )

    def test_stopped(self) -> None:
        """Or when the consumer has stopped the producer."""
        self.consumer.onWrite = lambda item: self.consumer.producer.stopProducing()
        self.successResultOf(iteratorToProducer(iter([1, 2]), self.consumer))
        self.assertEqual(self.consumer.items, [1])

    def test_withoutConsumer(self) -> None:
        """Without one, the consumer is to be registered, and the producer run."""
        producer = self.successResultOf(iteratorToProducer(iter([1, 2])))
        assert producer is not None
        producer.registerConsumer(self.consumer)
        self.assertEqual(self.consumer.items, [])
        self.successResultOf(producer.run())
        self.assertEqual(self.consumer.items, [1, 2])

    def test_none(self) -> None:
        """
        For an iterator without items, and for what isn't one, it fires with C{None},
        and the consumer isn't told.
        """
        for nothing in (iter(()), [1], None, 5, "ab"):
            d = iteratorToProducer(nothing, self.consumer)
            self.assertIsNone(self.successResultOf(d))
        self.assertEqual(self.consumer.log, [])

    def test_later(self) -> None:
        """For a deferator, it's waited for an item."""
        source = BufferedSource()
        d = iteratorToProducer(Deferator(source))
        self.assertNoResult(d)
        source.push([1])
        self.assertIsNotNone(self.successResultOf(d))

    def test_wrapper(self) -> None:
        """
        A wrapper is called in place of the function that gets the next item, once for
        each item.
        """
        answers: list[Any] = []

        async def wrapper(getNext: Callable[[], Deferred[Any]]) -> Any:
            """Get the next item here."""
            answers.append(item := await getNext())
            return item

        d = iteratorToProducer(iter("abc"), ListConsumer(), wrapper=wrapper)
        self.successResultOf(d)
        self.assertEqual(
            answers, [("a", True, True), ("b", True, True), ("c", True, False)]
        )

    def test_wrapperElsewhere(self) -> None:
        """In another thread, the function gets the item there, and no Deferred."""
        threads: set[int] = set()

        def numbers() -> Iterator[int]:
            threads.add(get_ident())
            yield from (1, 2, 3)

        with ThreadPoolExecutor(1) as pool:

            def wrapper(getNext: Callable[[], Any]) -> Any:
                return pool.submit(getNext).result()

            d = iteratorToProducer(numbers(), self.consumer, wrapper)
        self.successResultOf(d)
        self.assertEqual(self.consumer.items, [1, 2, 3])
        self.assertNotIn(get_ident(), threads)

    def test_wrapperOfNothing(self) -> None:
        """With a wrapper, too, an empty iterator means no producer."""
        d = iteratorToProducer(iter(()), self.consumer, lambda f: f())
        self.assertIsNone(self.successResultOf(d))

    def test_wrapperFails(self) -> None:
        """What the wrapper raises is the failure, and the generator is closed."""
        closed: list[bool] = []
        answers = iter([(1, True, True)])

        def numbers() -> Iterator[int]:
            try:
                yield from (1, 2, 3)
            finally:
                closed.append(True)

        def wrapper(getNext: Callable[[], Any]) -> Any:
            getNext()
            return next(answers, None) or 1 // 0

        d = iteratorToProducer(numbers(), self.consumer, wrapper)
        self.failureResultOf(d, ZeroDivisionError)
        self.assertEqual(self.consumer.items, [1])
        self.assertEqual(closed, [True])

    def test_iteratorFails(self) -> None:
        """So is what the iterator raises, after the items before it."""

        def failing() -> Iterator[int]:
            yield 1
            yield 1 // 0

        for wrapper in (None, lambda getNext: getNext()):
            consumer = RecordingConsumer()
            d = iteratorToProducer(failing(), consumer, wrapper)
            self.failureResultOf(d, ZeroDivisionError)
            self.assertEqual(consumer.items, [1])

    def test_noWrapper(self) -> None:
        """A wrapper that can't be called is named in a C{TypeError} at once."""
        with self.assertRaisesRegex(TypeError, "wrapper .*5"):
            iteratorToProducer(iter([1]), self.consumer, wrapper=5)  # type: ignore[arg-type]

    def test_noConsumer(self) -> None:
        """What doesn't provide C{IConsumer} is named at once."""
        with self.assertRaisesRegex(ImplementationError, "5 doesn't provide IConsumer"):
            iteratorToProducer(iter([1]), 5)  # type: ignore[arg-type]


class SlowConsumer(ListConsumer):
    """
    A consumer whose items are made when the test fires the Deferreds in C{making}.
    """

    making: list[Deferred[Any]]

    def processItem(self, item: Any) -> Deferred[Any]:
        """Begin to make something."""
        self.making.append(Deferred())
        return self.making[-1]


@implementer(IPushProducer, IPullProducer)
class StubProducer:
    """A producer that notes what it's told. C{onResume} is called when it's resumed."""

    def __init__(self, onResume: Callable[[], object] = lambda: None) -> None:
        self.log: list[str] = []
        self.onResume = onResume

    def pauseProducing(self) -> None:
        """Implement C{IPushProducer.pauseProducing}."""
        self.log.append("pause")

    def resumeProducing(self) -> None:
        """Implement C{IPushProducer.resumeProducing}."""
        self.log.append("resume")
        self.onResume()

    def stopProducing(self) -> None:
        """Implement C{IProducer.stopProducing}."""
        self.log.append("stop")


class ListConsumerTests(SynchronousTestCase):
    """Tests of L{ListConsumer}."""

    def feed(self, consumer: ListConsumer, *items: object) -> None:
        """Be a producer of items."""
        consumer.registerProducer(StubProducer(), True)
        for item in items:
            consumer.write(item)
        consumer.unregisterProducer()

    def test_interface(self) -> None:
        """It provides C{IConsumer}."""
        verifyObject(IConsumer, ListConsumer())

    def test_list(self) -> None:
        """As it is, it lists the items, in order of writing."""
        consumer = ListConsumer()
        self.feed(consumer, 3, None, "x")
        self.assertEqual(self.successResultOf(consumer()), [3, None, "x"])

    def test_nothing(self) -> None:
        """Without items the list is empty."""
        consumer = ListConsumer()
        self.feed(consumer)
        self.assertEqual(self.successResultOf(consumer()), [])

    def test_calledFirst(self) -> None:
        """Called before a producer is registered, it waits until one has been."""
        consumer = ListConsumer()
        d = consumer()
        consumer.write(1)
        self.assertNoResult(d)
        self.feed(consumer, 2)
        self.assertEqual(self.successResultOf(d), [1, 2])

    def test_oneAtATime(self) -> None:
        """The producer is paused while an item is in the making, for each item."""
        consumer, producer = SlowConsumer(making=[]), StubProducer()
        consumer.registerProducer(producer, True)
        for _ in range(2):
            consumer.write(1)
            self.assertEqual(producer.log, ["pause"])
            consumer.making.pop().callback(None)
            self.assertEqual(producer.log, ["pause", "resume"])
            producer.log.clear()

    def test_oneAtATimeFails(self) -> None:
        """
        A producer that is paused hears that the item has failed when it writes the
        next.
        """
        consumer, producer = SlowConsumer(making=[]), StubProducer()
        consumer.registerProducer(producer, True)
        consumer.write(1)
        consumer.making.pop().errback(ZeroDivisionError())
        self.assertEqual(producer.log, ["pause", "resume"])
        self.assertRaises(ZeroDivisionError, consumer.write, 2)
        self.failureResultOf(consumer(), ZeroDivisionError)

    def test_concurrent(self) -> None:
        """As many items may be in the making as it says."""
        consumer, producer = SlowConsumer(concurrent=2, making=[]), StubProducer()
        consumer.registerProducer(producer, True)
        consumer.write(1)
        self.assertEqual(producer.log, [])
        consumer.write(2)
        self.assertEqual(producer.log, ["pause"])
        with self.assertRaisesRegex(ValueError, "concurrent .*0"):
            ListConsumer(concurrent=0)

    def test_attributes(self) -> None:
        """
        Attributes that were given are there for C{processItem}, which may itself be
        given.
        """

        class Multiplier(ListConsumer):
            factor: int

            def processItem(self, item: int) -> int:
                return item * self.factor

        consumer = Multiplier(factor=3)
        self.feed(consumer, 2)
        self.assertEqual(self.successResultOf(consumer()), [6])
        other = ListConsumer(processItem=str)
        self.feed(other, 2)
        self.assertEqual(self.successResultOf(other()), ["2"])

    def test_waitsForProducer(self) -> None:
        """The list is there when no producer is registered any longer."""
        consumer = ListConsumer()
        consumer.registerProducer(StubProducer(), True)
        consumer.write(1)
        d = consumer()
        consumer.write(2)
        self.assertNoResult(d)
        consumer.unregisterProducer()
        self.assertEqual(self.successResultOf(d), [1, 2])

    def test_waitsForItems(self) -> None:
        """
        And when all items have been made. They are in order of writing, whichever is
        ready first.
        """
        consumer = SlowConsumer(making=[])
        consumer.registerProducer(StubProducer(), True)
        consumer.write(1)
        d = consumer()
        consumer.write(2)
        consumer.unregisterProducer()
        consumer.making[1].callback("b")
        self.assertNoResult(d)
        consumer.making[0].callback("a")
        self.assertEqual(self.successResultOf(d), ["a", "b"])

    def test_fed(self) -> None:
        """It can be fed by an L{IterationProducer}."""
        consumer = ListConsumer()
        producer = IterationProducer(iter(range(1_000)), consumer, reactor=Clock())
        d = consumer()
        self.assertNoResult(d)
        producer.run()
        self.assertEqual(self.successResultOf(d), list(range(1_000)))

    def test_twoProducers(self) -> None:
        """While a producer is registered, another one can't be. Later it can."""
        consumer = ListConsumer()
        consumer.registerProducer(StubProducer(), True)
        with self.assertRaisesRegex(RuntimeError, "is already"):
            consumer.registerProducer(StubProducer(), True)
        consumer.unregisterProducer()
        consumer.registerProducer(StubProducer(), True)

    def test_processItemRaises(self) -> None:
        """
        What C{processItem} raises ends what it's fed from, and is the failure of both.
        """
        consumer = ListConsumer(processItem=lambda item: 1 // item)
        producer = IterationProducer(iter([1, 0, 1]), consumer, reactor=Clock())
        self.failureResultOf(producer.run(), ZeroDivisionError)
        self.failureResultOf(consumer(), ZeroDivisionError)

    def test_processItemFails(self) -> None:
        """
        So does its Deferred, at the next item. Who waits for the list needn't wait for
        that.
        """
        consumer = SlowConsumer(concurrent=3, making=[])
        source = BufferedSource()
        producer = IterationProducer(Deferator(source), consumer, reactor=Clock())
        run, d = producer.run(), consumer()
        source.push([1, 2])
        self.assertEqual(len(consumer.making), 2)
        consumer.making[0].errback(ZeroDivisionError())
        self.failureResultOf(d, ZeroDivisionError)
        self.assertNoResult(run)
        source.push([3])
        self.failureResultOf(run, ZeroDivisionError)
        consumer.making[1].errback(KeyError())
        self.failureResultOf(consumer(), ZeroDivisionError)
        self.assertEqual(len(consumer.making), 2)

    def test_slow(self) -> None:
        """While many items are in the making, the producer is paused."""
        consumer = SlowConsumer(concurrent=64, making=[])
        producer = IterationProducer(Deferator(count()), consumer, reactor=Clock())
        producer.run()
        first = len(consumer.making)
        self.assertEqual(first, 64)
        consumer.making[5].callback(None)
        self.assertEqual(len(consumer.making), first + 1)
        producer.stopProducing()
        for d in consumer.making:
            if not d.called:
                d.callback(None)
        self.assertEqual(len(self.successResultOf(consumer())), first + 1)

    def test_pull(self) -> None:
        """
        A producer that doesn't write by itself is asked for one item after the other,
        without filling the stack.
        """
        items = iter(range(5_000))

        def writeOne() -> None:
            item = next(items, None)
            if item is None:
                consumer.unregisterProducer()
            else:
                consumer.write(item)

        consumer = ListConsumer()
        consumer.registerProducer(StubProducer(writeOne), False)
        self.assertEqual(self.successResultOf(consumer()), list(range(5_000)))

    def test_pullLater(self) -> None:
        """One that writes later is asked for one item at a time."""
        consumer = ListConsumer()
        producer = StubProducer()
        consumer.registerProducer(producer, False)
        self.assertEqual(producer.log, ["resume"])
        consumer.write(1)
        self.assertEqual(producer.log, ["resume"] * 2)

    def test_pullSlow(self) -> None:
        """While many items are in the making, it's not asked for more."""
        consumer = SlowConsumer(making=[])
        consumer.registerProducer(StubProducer(lambda: consumer.write(1)), False)
        first = len(consumer.making)
        self.assertEqual(first, 1)
        consumer.making[0].callback(None)
        self.assertEqual(len(consumer.making), first + 1)

    def test_pullFails(self) -> None:
        """
        What goes wrong while it's asked stops it, and is the failure of the list: what
        C{processItem} raises, or the producer.
        """
        picky = ListConsumer(processItem=lambda item: 1 // item)
        faults = {
            picky: lambda: picky.write(0),
            ListConsumer(): lambda: 1 // 0,
        }
        for consumer, fault in faults.items():
            producer = StubProducer(fault)
            consumer.registerProducer(producer, False)
            self.assertEqual(producer.log, ["resume", "stop"])
            self.failureResultOf(consumer(), ZeroDivisionError)

    def test_writeAfterwards(self) -> None:
        """After its producer is gone it can be written to, by another, or by hand."""
        consumer = ListConsumer()
        IterationProducer(iter([1]), consumer, reactor=Clock()).run()
        consumer.write(2)
        self.assertEqual(self.successResultOf(consumer()), [1, 2])

    def test_listIsACopy(self) -> None:
        """Who has got the list may change it."""
        consumer = ListConsumer()
        self.feed(consumer, 1)
        self.successResultOf(consumer()).append(5)
        self.assertEqual(self.successResultOf(consumer()), [1])

    def test_failedDeferred(self) -> None:
        """
        A Deferred of C{processItem} that has failed by then is as if it had raised.
        """
        consumer = ListConsumer(processItem=lambda item: fail(ZeroDivisionError()))
        with self.assertRaises(ZeroDivisionError):
            consumer.write(1)
