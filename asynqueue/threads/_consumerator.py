"""
A consumer in the reactor whose items blocking code iterates over.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IPullProducer,
    IPushProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..iteration import IterationProducer
from ._channel import Closed
from ._getter import LIMIT, IterationGetter, IterationStopper
from ._pool import ThreadPool

__all__ = ["Consumerator"]


@implementer(IConsumer)
class Consumerator(IterationGetter):
    """
    A consumer in the reactor, and an iterator over what is written to it for blocking
    code in a thread.

    The producer is held up while too many items are on the way. Producers that write by
    themselves, and those that are asked for each item, will do.

    @ivar producer: The producer that is registered, or C{None}.
    """

    def __init__(
        self,
        producer: Any = None,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a consumer.

        @param producer: A producer to begin with. An L{IterationProducer
            <asynqueue.iteration.IterationProducer>} without a consumer is made to run.

        @param maxThreads: See L{PoolUser}.

        @param limit: See L{IterationGetter}.

        @param ownPool: See L{PoolUser}.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If it isn't a producer.
        """
        super().__init__(maxThreads, limit=limit, ownPool=ownPool, reactor=reactor)
        self.producer: Any = None
        self._streaming = True
        self._paused = False
        self._pulling = False
        self._written = False
        self._stopped = False
        self._tells = False
        if isinstance(producer, IterationProducer) and producer.consumer is None:
            producer.registerConsumer(self)
            producer.run().addErrback(lambda _: None)  # See registerProducer.
        elif producer is not None:
            self.registerProducer(producer, _isStreaming(producer))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Implement C{IConsumer.registerProducer}.

        @param producer: The producer.

        @param streaming: Whether it writes by itself. If not, it's asked for each item.

        @raise RuntimeError: If there's one already, or there has been.
        """
        if self.producer is not None:
            raise RuntimeError(
                f"{producer!r} can't be registered: {self.producer!r} is already"
            )
        if self._channel.closed:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        self._paused = False
        self.start()
        if isinstance(producer, IterationProducer):
            # It tells how it has ended, where others can't.
            self._tells = True
            producer.deferUntilDone().addCallbacks(lambda _: self._end(), self.fail)
        if not streaming:
            self._pull()

    def unregisterProducer(self) -> None:
        """
        Implement C{IConsumer.unregisterProducer}: there are no more items.
        """
        self.producer = None
        if not self._tells:
            self._end()

    def write(self, item: Any) -> None:
        """
        Implement C{IConsumer.write}. Ignored after L{stop}.

        @param item: The item, or L{IterationStopper} for the end.

        @raise RuntimeError: If the iteration has ended already.
        """
        if item is IterationStopper or isinstance(item, IterationStopper):
            self.stop()
            return
        try:
            full = self._channel.put(item)
        except Closed:
            if not self._stopped:
                raise RuntimeError(
                    f"{self!r} has ended and can't take {item!r}"
                ) from None
            return
        self._written = True
        if self.producer is None:
            return
        if not self._streaming:
            self._pull()
        elif full and not self._paused:
            self._paused = True
            self.producer.pauseProducing()

    def fail(self, failure: Failure | BaseException) -> None:
        """
        End the iteration early: what has been raised is raised to who iterates, after
        the items that were written.

        @param failure: What has been raised.
        """
        self._stopped = True
        error = failure.value if isinstance(failure, Failure) else failure
        self._channel.close(error)

    def stop(self) -> Deferred[None]:
        """
        Have the producer stop, and let no more items in. Those that are on the way can
        still be taken. Nothing more happens the second time.

        @return: The same as from L{IterationGetter.deferUntilDone}.
        """
        self._stopped = True
        producer, self.producer = self.producer, None
        self._channel.close()
        if producer is not None:
            producer.stopProducing()
        return self.deferUntilDone()

    def abort(self) -> None:
        """
        Do as L{stop}, and forget the items that are on the way, too.
        """
        self.stop()
        self._channel.clear()

    def _end(self) -> None:
        """
        Let no more items in.
        """
        self._channel.close()

    def _hasRoom(self) -> None:
        """
        Have the producer go on.
        """
        if self.producer is None:
            return
        if not self._streaming:
            self._pull()
        elif self._paused:
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
            while (
                self.producer is not None and len(self._channel) < self._channel.limit
            ):
                self._written = False
                self.producer.resumeProducing()
                if not self._written:
                    break  # It will write later, and be asked again then.
        except Exception:  # noqa: BLE001 - the producer may be of anybody's making
            self.producer = None
            self.fail(Failure())
        finally:
            self._pulling = False


def _isStreaming(producer: Any) -> bool:
    """
    Find out how a producer works.

    @param producer: The producer.

    @return: Whether it writes by itself.

    @raise TypeError: If it isn't a producer.
    """
    if IPushProducer.providedBy(producer):
        return True
    if IPullProducer.providedBy(producer):
        return False
    raise TypeError(
        f"{producer!r} is no producer: is its class marked with"
        " @implementer(IPushProducer) or @implementer(IPullProducer)?"
    )
