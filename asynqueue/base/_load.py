"""
The load of a queue, as a push producer of numbers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from .._support.log import log

__all__ = ["LoadInfoProducer"]


@implementer(IPushProducer)
class LoadInfoProducer:
    """
    Tells consumers the load of a queue, an C{int}, whenever it changes.

    @ivar load: The load now, never below 0.
    """

    def __init__(self) -> None:
        self.load = 0
        self._consumers: list[Any] = []
        # Those that have another producer, which isn't ours to unregister.
        self._others: list[Any] = []
        self._producing = True

    def registerConsumer(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer from now on. Nothing happens if that is done
        already.

        @param consumer: The consumer. It may have another producer already.
        """
        if any(consumer is other for other in self._consumers):
            return
        try:
            consumer.registerProducer(self, True)
        except RuntimeError:
            # One that has a producer takes what others write to it nevertheless.
            self._others.append(consumer)
        self._consumers.append(consumer)

    def oneMore(self) -> None:
        """
        Count one more call without a result.
        """
        self.load += 1
        if self._consumers:
            self._write()

    def oneLess(self) -> None:
        """
        Count one call less.
        """
        if self.load > 0:
            self.load -= 1
            if self._consumers:
                self._write()

    def shutdown(self) -> None:
        """
        Let go of all consumers.
        """
        consumers, self._consumers = self._consumers, []
        others, self._others = self._others, []
        for consumer in consumers:
            if not any(consumer is other for other in others):
                consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """
        Implement L{IPushProducer.pauseProducing}: stop writing, but not counting.
        """
        self._producing = False

    def resumeProducing(self) -> None:
        """
        Implement L{IPushProducer.resumeProducing}.
        """
        self._producing = True

    def stopProducing(self) -> None:
        """
        Implement L{IPushProducer.stopProducing}.
        """
        self.shutdown()

    def _write(self) -> None:
        """
        Tell all consumers the load, unless they have paused it.
        """
        for consumer in list(self._consumers):
            if not self._producing:
                break
            try:
                consumer.write(self.load)
            except Exception:  # noqa: BLE001 - the consumer is the user's
                log.failure("{consumer} failed to take the load", consumer=consumer)
