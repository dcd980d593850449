"""
A consumer that makes a list.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ListConsumer"]

#: While so many items are in the making, no more are wanted.
_MOST = 64


@implementer(IConsumer)
class ListConsumer:
    """
    Makes a list of what is written to it, in order of writing.

    Override L{processItem} to have something else in the list than the items. Call the
    consumer for the list.

    @ivar producer: The producer that is registered, C{None} if there isn't one.
    """

    def __init__(self, **attrs: Any) -> None:
        """
        Make a consumer.

        @param attrs: Attributes to set, for L{processItem} to use.
        """
        self.producer: Any = None
        self._streaming = True
        self._pulling = False
        self._paused = False
        self._results: list[Any] = []
        self._making = 0
        self._failure: Failure | None = None
        self._waiters: list[Deferred[list[Any]]] = []
        for name, value in attrs.items():
            setattr(self, name, value)

    def __call__(self) -> Deferred[list[Any]]:
        """
        Get the list.

        @return: A Deferred that fires with it when no producer is registered any
            longer, and no item is in the making. At once if that's so already, also
            if nothing has been written yet. It fails with what L{processItem} has
            raised, or its Deferred has failed with, for one of the items, or a
            producer has raised when it was asked for one.
        """
        if self._failure is not None:
            return fail(self._failure)
        if not self._busy:
            return succeed(list(self._results))
        d: Deferred[list[Any]] = Deferred()
        self._waiters.append(d)
        return d

    def processItem(self, item: Any) -> Any:
        """
        Make what is to be in the list of an item.

        @param item: The item.

        @return: What is to be in the list, or a Deferred that fires with it.
        """
        return item

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Implement C{IConsumer.registerProducer}.

        @param producer: The producer.

        @param streaming: Whether it writes by itself. If not, it's asked for each item.

        @raise RuntimeError: If there's one already.
        """
        if self.producer is not None:
            raise RuntimeError(
                f"{producer!r} can't be registered: {self.producer!r} is already"
            )
        self.producer = producer
        self._streaming = streaming
        self._paused = False
        if not streaming:
            self._pull()

    def unregisterProducer(self) -> None:
        """
        Implement C{IConsumer.unregisterProducer}.
        """
        self.producer = None
        self._tell()

    def write(self, item: Any) -> None:
        """
        Implement C{IConsumer.write}.

        @param item: Any object.

        @raise Exception: What L{processItem} has raised, or its Deferred has failed
            with, for this item or one before it. No more are processed then.
        """
        making = self._making
        if self._failure is None:
            position = len(self._results)
            self._results.append(None)
            self._making += 1
            d = maybeDeferred(self.processItem, item)
            d.addCallbacks(self._made, self._notMade, callbackArgs=(position,))
        if self._failure is not None:
            self._failure.raiseException()
        if self._making > making:  # else it has been made already, and that has paced
            self._pace()

    @property
    def _busy(self) -> bool:
        """
        Whether the list may still grow or change.
        """
        return self.producer is not None or self._making > 0

    def _made(self, result: Any, position: int) -> None:
        """
        Put something into the list.

        @param result: It.

        @param position: Where.
        """
        self._results[position] = result
        self._making -= 1
        self._pace()
        self._tell()

    def _notMade(self, failure: Failure) -> None:
        """
        Tell that nothing comes of an item.

        @param failure: Why.
        """
        self._making -= 1
        self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        """
        Tell of the first failure.

        @param failure: It.
        """
        if self._failure is None:
            self._failure = failure
        self._tell()

    def _tell(self) -> None:
        """
        Tell who waits for the list, if it's there, or never will be.
        """
        if self._failure is None and self._busy:
            return
        waiters, self._waiters = self._waiters, []
        for d in waiters:
            d.callback(list(self._results) if self._failure is None else self._failure)

    def _pace(self) -> None:
        """
        Have the producer write no faster than the items are made.
        """
        if self.producer is None:
            return
        if not self._streaming:
            self._pull()
        elif not self._paused and self._making >= _MOST:
            self._paused = True
            self.producer.pauseProducing()
        elif self._paused and self._making < _MOST:
            self._paused = False
            self.producer.resumeProducing()

    def _pull(self) -> None:
        """
        Ask a producer that doesn't write by itself for items, one after the other.
        """
        if self._pulling:
            return
        self._pulling = True
        try:
            while self.producer is not None and self._making < _MOST:
                count = len(self._results)
                try:
                    self.producer.resumeProducing()
                except Exception:  # noqa: BLE001 - the producer may be anybody's
                    self._failed(Failure())
                if self._failure is not None:
                    self.producer.stopProducing()
                    break
                if len(self._results) == count:
                    break  # It will write later, and be asked again then.
        finally:
            self._pulling = False
