"""A consumer that makes a list."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.checks import checkCount
from .._support.oneshot import OneShot

__all__ = ["ListConsumer"]


@implementer(IConsumer)
class ListConsumer:
    """
    Makes a list of what is written to it, in order of writing.

    Override L{processItem} to have something else in the list than the items. Call the
    consumer for the list.

    @ivar producer: The producer that is registered, C{None} if there isn't one.
    """

    def __init__(self, *, concurrent: int = 1, **attrs: Any) -> None:
        """
        Make a consumer.

        @param concurrent: The producer is paused while so many items are in the making.

        @param attrs: Attributes to set, for L{processItem} to use.

        @raise ValueError: If that isn't a number from 1 up.
        """
        checkCount("concurrent", concurrent, 1)
        self.producer: Any = None
        self._concurrent = concurrent
        # Of the producer: whether it writes by itself, has been paused, and, if it
        # doesn't write by itself, whether it's being asked.
        self._isStreaming = True
        self._isPaused = False
        self._isPulling = False
        self._hasHadProducer = False
        # Those in the making have None in the list, and are counted.
        self._results: list[Any] = []
        self._making = 0
        self._failure: Failure | None = None
        # Fires with None when the list is there, or with the failure.
        self._complete: OneShot[Any] = OneShot()
        for name, value in attrs.items():
            setattr(self, name, value)

    def __call__(self) -> Deferred[list[Any]]:
        """
        Get the list.

        @return: A Deferred that fires with it when a producer has been registered, none
            is any longer, and no item is in the making. It fails with what
            L{processItem} has raised, or its Deferred has failed with, for one of the
            items, or a producer has raised when it was asked for one.
        """
        if self._failure is not None:
            return fail(self._failure)
        if self._isComplete:
            return succeed(list(self._results))
        return self._complete.wait().addCallback(lambda _: list(self._results))

    def processItem(self, item: Any) -> Any:
        """Make what is to be in the list, or a Deferred that fires with it."""
        return item

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Register a producer. If there's one already, that's a RuntimeError."""
        if self.producer is not None:
            raise RuntimeError(
                f"{producer!r} can't be registered: {self.producer!r} is already"
            )
        self.producer = producer
        self._hasHadProducer = True
        self._isStreaming = streaming
        self._isPaused = False
        self._pace()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._tell()

    def write(self, data: Any) -> None:
        """
        Make something of an item. The producer is paused until it's made.

        @raise Exception: What L{processItem} has raised, or its Deferred has failed
            with, for this item or one before it. No more are processed then.
        """
        if self._failure is None:
            position = len(self._results)
            self._results.append(None)
            self._making += 1
            self._pace()
            d = maybeDeferred(self.processItem, data)
            d.addCallbacks(self._made, self._notMade, callbackArgs=(position,))
        if self._failure is not None:
            self._failure.raiseException()

    @property
    def _isComplete(self) -> bool:
        return self._hasHadProducer and self.producer is None and not self._making

    def _made(self, result: Any, position: int) -> None:
        self._results[position] = result
        self._making -= 1
        self._pace()
        self._tell()

    def _notMade(self, failure: Failure) -> None:
        self._making -= 1
        self._failed(failure)
        self._pace()  # so that a producer that is paused hears of it when it writes

    def _failed(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
            self._tell()

    def _tell(self) -> None:
        """Tell who waits for the list, if it's there, or never will be."""
        if self._isComplete or self._failure is not None:
            complete, self._complete = self._complete, OneShot()
            complete.fire(self._failure)

    def _pace(self) -> None:
        """Have the producer write no faster than the items are made."""
        isBusy = self._making >= self._concurrent
        if self.producer is None:
            return
        if not self._isStreaming:
            self._pull()
        elif isBusy and not self._isPaused:
            self._isPaused = True
            self.producer.pauseProducing()
        elif self._isPaused and not isBusy:
            self._isPaused = False
            self.producer.resumeProducing()

    def _pull(self) -> None:
        """
        Ask a producer that doesn't write by itself for items, one after the other.
        """
        if self._isPulling:
            return
        self._isPulling = True
        try:
            while self.producer is not None and self._making < self._concurrent:
                count = len(self._results)
                if self._failure is None:
                    try:
                        self.producer.resumeProducing()
                    except Exception:  # noqa: BLE001 - it may be anybody's
                        self._failed(Failure())
                if self._failure is not None:
                    self.producer.stopProducing()
                    break
                if len(self._results) == count:
                    break  # It will write later, and be asked again then.
        finally:
            self._isPulling = False
