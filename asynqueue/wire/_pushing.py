"""
The server's end of an iteration: items are pushed as far as the client takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.log import log
from ..iteration import Deferator, IterationProducer
from ._chunks import WINDOW
from ._values import Codec, NotEncodable, Payload, TooLarge

__all__ = ["END", "FAILED", "ITEM", "UNSENDABLE", "Pushing"]

#: Kinds of the records of an iteration.
ITEM, END, FAILED, UNSENDABLE = b"v", b"z", b"e", b"s"

#: So many items may be sent ahead of being taken.
_ITEMS = 16


@implementer(IConsumer)
class Pushing:
    """
    An iteration whose items are sent.
    """

    def __init__(
        self,
        deferator: Deferator,
        codec: Codec,
        send: Callable[[bytes, Payload], object],
        inThread: Callable[..., Deferred[Any]],
        dumpsError: Callable[[BaseException], bytes],
        ended: Callable[[], object],
        reactor: IReactorTime,
    ) -> None:
        """
        Begin.

        @param deferator: The iteration.

        @param codec: What encodes items.

        @param send: Called with the kind and the content of a record.

        @param inThread: Calls something in a thread.

        @param dumpsError: Encodes what the iteration has failed with.

        @param ended: Called when the iteration has been told of its end.

        @param reactor: The reactor.
        """
        self._codec = codec
        self._send = send
        self._inThread = inThread
        self._dumpsError = dumpsError
        self._ended = ended
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._waits = False
        self._paused = False
        self._over = False
        self._atEnd = False
        self._producer: IPushProducer | None = None
        self._iteration = IterationProducer(deferator, self, reactor=reactor)
        self._iteration.run().addCallbacks(self._done, self._failed)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Implement C{IConsumer}.

        @param producer: The producer.

        @param streaming: Whether it's one that pushes.
        """
        self._producer = producer

    def unregisterProducer(self) -> None:
        """
        Implement C{IConsumer}.
        """
        self._producer = None

    def write(self, data: Any) -> None:
        """
        Implement C{IConsumer}: send an item.

        @param data: The item, or a Deferred of it.
        """
        if self._over:
            return
        if isinstance(data, Deferred):
            self._wait(data)
            return
        try:
            payload: Payload = [self._codec.encode(data)]
        except TooLarge:
            self._wait(self._inThread(self._codec.encodeLarge, data), self._encoded)
        except NotEncodable as error:
            self._unsendable(error)
        else:
            self._encoded(payload)
            self._control()

    def taken(self, count: int) -> None:
        """
        Note that items have been taken.

        @param count: How many.
        """
        for _ in range(min(count, len(self._sizes))):
            self._bytes -= self._sizes.popleft()
        self._control()

    def stop(self) -> None:
        """
        End the iteration early.
        """
        if not self._over:
            self._over = True
            self._iteration.stopProducing()
            self._ended()

    def _wait(
        self, d: Deferred[Any], then: Callable[[Any], object] | None = None
    ) -> None:
        """
        Wait for something before the next item.

        @param d: It.

        @param then: Called with what it fires with. By default, that is an item.
        """
        self._waits = True
        self._control()
        d.addCallbacks(self._arrived, self._failed, callbackArgs=(then,))

    def _arrived(self, value: Any, then: Callable[[Any], object] | None) -> None:
        """
        Go on with what has been waited for.

        @param value: It.

        @param then: See L{_wait}.
        """
        self._waits = False
        if not self._over:
            (then or self.write)(value)
            self._control()
            if self._atEnd:
                self._done(None)

    def _encoded(self, payload: Payload) -> None:
        """
        Send an item.

        @param payload: What it has become.
        """
        if self._over:
            return
        size = sum(map(len, payload))
        self._sizes.append(size)
        self._bytes += size
        self._send(ITEM, payload)

    def _control(self) -> None:
        """
        Have items come as fast as they're taken, and no faster.
        """
        wanted = not (
            self._waits or len(self._sizes) >= _ITEMS or self._bytes >= WINDOW
        )
        producer = self._producer
        if producer is None or wanted is not self._paused:
            return
        self._paused = not wanted
        if wanted:
            producer.resumeProducing()
        else:
            producer.pauseProducing()

    def _done(self, _: object) -> None:
        """
        Tell of the end.

        @param _: This.
        """
        if not self._over:
            if self._waits:
                # The last item is still on its way.
                self._atEnd = True
                return
            self._over = True
            self._send(END, [])
            self._ended()

    def _failed(self, failure: Failure) -> None:
        """
        Tell that the iteration has failed.

        @param failure: How.
        """
        if self._over:
            return
        if failure.check(NotEncodable):
            self._unsendable(cast(Exception, failure.value))
            return
        self._over = True
        self._iteration.stopProducing()
        self._send(FAILED, [self._dumpsError(cast(Exception, failure.value))])
        self._ended()

    def _unsendable(self, error: BaseException) -> None:
        """
        Tell that an item can't be sent.

        @param error: Why.
        """
        self._over = True
        self._iteration.stopProducing()
        log.warn("An item of an iteration can't be sent: {error}", error=error)
        self._send(UNSENDABLE, [str(error).encode("utf-8", "replace")])
        self._ended()
