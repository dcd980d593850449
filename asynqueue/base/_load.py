"""The load of a queue, as a push producer of numbers."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from .._support.log import log


@implementer(IPushProducer)
class _Subscription:
    """What one consumer of the load has as its producer."""

    def __init__(self, consumer: Any, subscriptions: list[_Subscription]) -> None:
        self.consumer = consumer
        # Those of the same producer, of which it's one until it's stopped.
        self._subscriptions = subscriptions
        self._isPaused = False
        # Whether the consumer has another producer, which isn't ours to unregister.
        self._isGuest = False

    def start(self) -> None:
        try:
            self.consumer.registerProducer(self, True)
        except RuntimeError:
            # One that has a producer takes what others write to it nevertheless.
            self._isGuest = True
        self._subscriptions.append(self)

    def pauseProducing(self) -> None:
        self._isPaused = True

    def resumeProducing(self) -> None:
        self._isPaused = False

    def stopProducing(self) -> None:
        if self in self._subscriptions:
            self._subscriptions.remove(self)
            if not self._isGuest:
                try:
                    self.consumer.unregisterProducer()
                except Exception:  # noqa: BLE001 - the consumer is the user's
                    log.failure(
                        "{consumer} failed to lose its producer", consumer=self.consumer
                    )

    def write(self, load: int) -> None:
        """Tell the consumer, unless it has paused."""
        if not self._isPaused:
            try:
                self.consumer.write(load)
            except Exception:  # noqa: BLE001 - the consumer is the user's
                log.failure(
                    "{consumer} failed to take the load", consumer=self.consumer
                )


@implementer(IPushProducer)
class LoadInfoProducer:
    """
    Tells consumers the load of a queue, an C{int}, whenever it changes.

    Each consumer may pause and stop for itself. Pausing stops the writing, not the
    counting. The producer's own methods do it for all consumers.

    @ivar begun: How many calls there were.

    @ivar finished: How many of them have their results.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.finished = 0
        self._subscriptions: list[_Subscription] = []

    @property
    def queued(self) -> int:
        """The load now, never below 0."""
        return self.begun - self.finished

    def registerConsumer(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer from now on. Nothing happens if that is done
        already.

        @param consumer: The consumer. It may have another producer already.
        """
        if all(consumer is not each.consumer for each in self._subscriptions):
            _Subscription(consumer, self._subscriptions).start()

    def oneMore(self) -> None:
        """Count one more call without a result."""
        self.begun += 1
        if self._subscriptions:
            self._write()

    def oneLess(self) -> None:
        """Count one call less."""
        if self.finished < self.begun:
            self.finished += 1
            if self._subscriptions:
                self._write()

    def shutdown(self) -> None:
        """Unregister from all consumers."""
        for subscription in list(self._subscriptions):
            subscription.stopProducing()

    def pauseProducing(self) -> None:
        for subscription in self._subscriptions:
            subscription.pauseProducing()

    def resumeProducing(self) -> None:
        for subscription in self._subscriptions:
            subscription.resumeProducing()

    def stopProducing(self) -> None:
        self.shutdown()

    def _write(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.write(self.queued)
