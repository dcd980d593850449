"""Tests of the load's producer."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from asynqueue.base import LoadInfoProducer
from asynqueue.testing import RecordingConsumer

from ._cases import QueueTestCase


class Breaking(RecordingConsumer):
    """A consumer that fails whenever it's written to."""

    def write(self, data: Any) -> None:
        """Fail."""
        raise ValueError(data)


class LoadInfoProducerTests(SynchronousTestCase):
    """Tests of L{LoadInfoProducer}."""

    def setUp(self) -> None:
        """Make a producer with a consumer."""
        self.load = LoadInfoProducer()
        self.consumer = RecordingConsumer()
        self.load.registerConsumer(self.consumer)

    def test_interface(self) -> None:
        """It's a push producer, and says so to its consumers."""
        verifyClass(IPushProducer, LoadInfoProducer)
        verifyObject(IPushProducer, self.load)
        verifyObject(IPushProducer, self.consumer.producer)
        self.assertIs(self.consumer.streaming, True)

    def test_writes(self) -> None:
        """The load is written whenever it changes."""
        self.load.oneMore()
        self.load.oneMore()
        self.load.oneLess()
        self.assertEqual(self.consumer.items, [1, 2, 1])

    def test_neverNegative(self) -> None:
        """The load is never less than zero."""
        self.load.oneLess()
        self.load.oneMore()
        self.load.oneLess()
        self.load.oneLess()
        self.assertEqual(self.consumer.items, [1, 0])
        self.assertEqual(self.load.queued, 0)

    def test_severalConsumers(self) -> None:
        """All consumers are told; nobody needs to be there for the counting."""
        load = LoadInfoProducer()
        load.oneMore()
        load.oneLess()
        load.oneMore()
        consumers = [RecordingConsumer(), RecordingConsumer()]
        for consumer in consumers:
            load.registerConsumer(consumer)
        load.oneMore()
        self.assertEqual([c.items for c in consumers], [[2], [2]])

    def test_pause(self) -> None:
        """Pausing stops the writing, not the counting."""
        self.load.pauseProducing()
        self.load.oneMore()
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [])
        self.load.resumeProducing()
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [3])

    def test_stop(self) -> None:
        """
        A consumer that stops the production isn't told any more, and has no producer.
        """
        self.load.stopProducing()
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [])
        self.assertIsNone(self.consumer.producer)
        self.assertEqual(self.consumer.unregistered, 1)

    def test_ownPause(self) -> None:
        """One consumer's pausing and stopping is its own."""
        other = RecordingConsumer()
        self.load.registerConsumer(other)
        producer: Any = self.consumer.producer
        producer.pauseProducing()
        self.load.oneMore()
        producer.resumeProducing()
        self.load.oneMore()
        producer.stopProducing()
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [2])
        self.assertIsNone(self.consumer.producer)
        self.assertEqual(other.items, [1, 2, 3])

    def test_shutdown(self) -> None:
        """
        After the shutdown nobody is told, and the consumers have no producer; a second
        one does nothing.
        """
        self.load.shutdown()
        self.load.shutdown()
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [])
        self.assertEqual(self.consumer.unregistered, 1)

    def test_registeredTwice(self) -> None:
        """A consumer that is registered twice is told once."""
        self.load.registerConsumer(self.consumer)
        self.load.oneMore()
        self.assertEqual(self.consumer.items, [1])

    def test_otherProducer(self) -> None:
        """
        A consumer that has another producer, and refuses a second one, is told all the
        same, and keeps its own.
        """
        producer = self.consumer.producer
        other = LoadInfoProducer()
        other.registerConsumer(self.consumer)
        other.oneMore()
        other.shutdown()
        self.assertEqual(self.consumer.items, [1])
        self.assertIs(self.consumer.producer, producer)

    def test_breakingConsumer(self) -> None:
        """
        A consumer that fails harms neither who is counted nor the other consumers.
        """
        load = LoadInfoProducer()
        after = RecordingConsumer()
        load.registerConsumer(Breaking())
        load.registerConsumer(after)
        load.oneMore()
        self.assertEqual(after.items, [1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_pausedBetween(self) -> None:
        """
        A consumer that pauses the production when it's told keeps those after it from
        being told.
        """
        load = LoadInfoProducer()

        class Pausing(RecordingConsumer):
            def write(self, data: Any) -> None:
                super().write(data)
                load.pauseProducing()

        consumers = [Pausing(), RecordingConsumer()]
        for consumer in consumers:
            load.registerConsumer(consumer)
        load.oneMore()
        self.assertEqual([c.items for c in consumers], [[1], []])


class Clinging(RecordingConsumer):
    """A consumer that doesn't let go of its producer."""

    def unregisterProducer(self) -> None:
        """Fail."""
        raise ValueError("no")


class ClingingTests(QueueTestCase):
    """Tests of a consumer that fails when the queue is shut down."""

    def test_shutdown(self) -> None:
        """The queue is shut down nevertheless."""
        self.q.q.subscribe(Clinging())
        self.successResultOf(self.q.shutdown())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
