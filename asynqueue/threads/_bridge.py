"""
Streams from the reactor to blocking code: a consumer, and a file for writing, over
whose items a thread iterates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPullProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.awaitable import OneShot
from ..iteration import IterationProducer
from ._getter import (
    LIMIT,
    Closed,
    Done,
    IterationGetter,
    IterationStopper,
    inReactorThread,
)
from ._pool import ThreadPool


@implementer(IConsumer)
class Consumerator(IterationGetter):
    """
    A consumer in the reactor, and an iterator over what is written to it for blocking
    code in a thread.

    The producer is held up while too many items are on the way. Push producers and pull
    producers will do.

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
        Make a consumer. The other parameters are those of L{IterationGetter}.

        @param producer: A producer to begin with: a pull producer if it provides
            C{IPullProducer}, else a push producer. An L{IterationProducer
            <asynqueue.iteration.IterationProducer>} without a consumer is run.
        """
        super().__init__(maxThreads, limit=limit, ownPool=ownPool, reactor=reactor)
        self.producer: Any = None
        self._streaming = True
        self._paused = False
        # Whether a pull producer is being asked for items, and whether it has written
        # one since it was asked last.
        self._pulling = False
        self._written = False
        # Whether stop() or fail() has ended it, so that further items are ignored.
        self._ignoring = False
        # Whether the end is known from the producer's deferUntilDone().
        self._tells = False
        # Fires when there's room. None while nobody waits for that.
        self._room: OneShot[None] | None = None
        if isinstance(producer, IterationProducer) and producer.consumer is None:
            producer.registerConsumer(self)
            producer.run().addErrback(lambda _: None)  # See registerProducer.
        elif producer is not None:
            self.registerProducer(producer, not IPullProducer.providedBy(producer))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Implement C{IConsumer.registerProducer}. After the end, the producer is stopped.

        @raise RuntimeError: If there's one already.
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
            self._tells = True
            producer.deferUntilDone().addCallbacks(lambda _: self._end(), self.fail)
        if not streaming:
            self._pull()

    # The two return more than IConsumer says.

    def unregisterProducer(self) -> Deferred[None]:  # type: ignore[override]
        """
        Implement C{IConsumer.unregisterProducer}: there are no more items.

        @return: A Deferred that has fired.
        """
        self.producer = None
        if not self._tells:
            self._end()
        return succeed(None)

    def write(self, data: Any) -> Deferred[None]:  # type: ignore[override]
        """
        Implement C{IConsumer.write}. Ignored after L{stop}.

        @param data: The item, or L{IterationStopper} for the end.

        @return: A Deferred that fires when the item has been taken in: at once, unless
            so many are on the way that the reader has to catch up first.

        @raise RuntimeError: If the iteration has ended already.
        """
        if data is IterationStopper or isinstance(data, IterationStopper):
            self.stop()
            return succeed(None)
        try:
            full = self._channel.put(data)
        except Closed:
            if not self._ignoring:
                raise RuntimeError(
                    f"{self!r} has ended and can't take {data!r}"
                ) from None
            return succeed(None)
        self._written = True
        if self.producer is not None and not self._streaming:
            self._pull()
        elif full and not self._paused and self.producer is not None:
            self._paused = True
            self.producer.pauseProducing()
        if not full:
            return succeed(None)
        if self._room is None:
            self._room = OneShot()
        return self._room.wait()

    def fail(self, failure: Failure | BaseException) -> None:
        """
        End the iteration early: an exception is raised in the reader, after the items
        that were written.

        @param failure: The exception.
        """
        self._ignoring = True
        self._end(failure.value if isinstance(failure, Failure) else failure)

    def stop(self) -> Deferred[Done]:
        """
        Have the producer stop, and let no more items in. Those that are on the way can
        still be taken. Nothing more happens the second time.

        @return: The same as from L{IterationGetter.deferUntilDone}.
        """
        self._ignoring = True
        producer, self.producer = self.producer, None
        self._end()
        if producer is not None:
            producer.stopProducing()
        return super().stop()

    def abort(self) -> None:
        """Do as L{stop}, and forget the items that are on the way, too."""
        self.stop()
        self._channel.clear()

    def _end(self, error: BaseException | None = None) -> None:
        self._channel.close(error)
        self._tellOfRoom()

    def _hasRoom(self) -> None:
        self._tellOfRoom()
        if self.producer is None:
            return
        if not self._streaming:
            self._pull()
        elif self._paused:
            self._paused = False
            self.producer.resumeProducing()

    def _tellOfRoom(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.fire(None)

    def _pull(self) -> None:
        """Ask a pull producer for items as long as there's room."""
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
        except Exception:  # noqa: BLE001 - the producer is the user's
            self.producer = None
            self.fail(Failure())
        finally:
            self._pulling = False


class Filerator(IterationGetter):
    """
    A file for writing, and an iterator over what is written to it for blocking code in
    a thread.

    It may be written to in any thread. As a context manager, it's closed at the end of
    the block.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """Open it. The parameters are those of L{IterationGetter}."""
        super().__init__(maxThreads, limit=limit, ownPool=ownPool, reactor=reactor)
        self.start()

    def __enter__(self) -> Filerator:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._channel.closed

    def write(self, data: Any) -> None:
        """
        Write an item. While somebody iterates and too much is on the way, this waits,
        except in the reactor's thread, which mustn't.

        @param data: The item: anything, also what is empty. It isn't copied.

        @raise ValueError: If the file is closed, or is closed while this waits.
        """
        try:
            if inReactorThread():
                self._channel.put(data)
            else:
                self._channel.putWaiting(data, unread=False)
        except Closed:
            raise ValueError("Nothing can be written to a closed Filerator") from None

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write one item after the other; see L{write}."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: what is written is there at once."""

    def close(self) -> None:
        """
        Close the file. The iteration ends after what was written. Nothing happens the
        second time.
        """
        self._channel.close()

    def readable(self) -> bool:
        """Tell that it can't be read as a file."""
        return False

    def seekable(self) -> bool:
        """Tell that one can't move about in it."""
        return False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True
