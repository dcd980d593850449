"""
Streams from the reactor to blocking code: a consumer over whose items a thread
iterates, and items that are made at the same time for a function that wants them one
after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IPullProducer,
    IPushProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.awaitable import OneShot, Waiters
from .._support.checks import checkCallable, checkCount
from ..iteration import IterationProducer
from ..iteration._producer import Pace
from ._getter import LIMIT, Closed, Done, IterationGetter, IterationStopper
from ._pool import PoolUser, ThreadPool

_T = TypeVar("_T")


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
        producer: object = None,
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
        self._pace = Pace(self, lambda: len(self._channel) < limit, self._pullFailed)
        # Whether stop() or fail() has ended it, so that further items are ignored.
        self._ignoring = False
        # Fires when there's room, or the end has come.
        self._room: Waiters[None] = Waiters()
        if isinstance(producer, IterationProducer) and producer.consumer is None:
            producer.registerConsumer(self)
            producer.run().addErrback(lambda _: None)  # See registerProducer.
        elif producer is not None:
            self.registerProducer(producer, not IPullProducer.providedBy(producer))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is None and self._channel.closed:
            producer.stopProducing()
            return
        self._pace.register(producer, streaming)
        self.start()
        if isinstance(producer, IterationProducer):
            producer.deferUntilDone().addCallbacks(lambda _: self._end(), self.fail)
        self._pace.adapt(hold=False)

    # The two return more than IConsumer says.

    def unregisterProducer(self) -> Deferred[None]:  # type: ignore[override]
        """End the iteration: there are no more items. The Deferred has fired."""
        producer, self.producer = self.producer, None
        if not isinstance(producer, IterationProducer):  # Those tell how they end.
            self._end()
        return succeed(None)

    def write(self, data: Any) -> Deferred[None]:  # type: ignore[override]
        """
        Add an item. Ignored after L{stop}.

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
        self._pace.hasWritten = True
        if full or not self._pace.isStreaming:
            self._pace.adapt(hold=True)
        return self._room.wait() if full else succeed(None)

    def fail(self, failure: Failure | BaseException) -> None:
        """
        End the iteration early: an exception is raised in the reader, after the items
        that were written.
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
        self._room.fire(None)

    def _hasRoom(self) -> None:
        self._room.fire(None)
        self._pace.adapt(hold=False)

    def _pullFailed(self, failure: Failure) -> None:
        self.producer = None
        self.fail(failure)


#: How many items may be in the making, or wait for one that was asked for before.
AHEAD = 32


@implementer(IPushProducer)
class OrderedItemProducer(PoolUser):
    """
    Has a blocking function iterate, in a thread, over items that other functions make
    in the reactor, each with a Deferred if it takes its time. The items come in the
    order in which they were asked for, whichever is made first::

        p = OrderedItemProducer()
        await p.start(writeImage, "image.png")
        for y in range(height):
            if not await p.ready():
                break
            p.produceItem(q.call, makeRow, y)
        await p.stop()

    C{_places} holds a Deferred for each item that hasn't been written to the
    Consumerator, in order. Once C{_over}, it's empty and nothing is made. C{_result}
    fires when the function has returned.

    @ivar i: The L{Consumerator} that the function is given as its iterator.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        ahead: int = AHEAD,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a producer. The other parameters are those of L{PoolUser}.

        @param ahead: How many items may be in the making, or wait for others, before
            L{ready} waits.

        @raise ValueError: If a number isn't a positive integer.
        """
        checkCount("ahead", ahead, 1)
        super().__init__(maxThreads, ownPool=ownPool)
        self.i = Consumerator(self, ownPool=self.ownPool, reactor=reactor)
        self._ahead = ahead
        self._places: deque[Deferred[object]] = deque()
        # Fires when there's a place more, or there will be none.
        self._changed: Waiters[None] = Waiters()
        # Tells whether more items are wanted.
        self._room: Waiters[bool] = Waiters()
        self._begun: OneShot[None] = OneShot()
        self._result: OneShot[object] = OneShot()
        self._started = False
        self._stopping = False
        self._over = False
        # The first failure to make an item.
        self._failure: Failure | None = None
        # Logs the failure of either side if stop() isn't called.
        self._unclaimed: Deferred[object] | None = None
        writing = Deferred.fromCoroutine(self._writeItems())
        writing.addErrback(self._makingFailed)

    def start(
        self, fb: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[None]:
        """
        Run the blocking function.

        @param fb: The function. It's called in a thread of its own with an iterator,
            then C{args} and C{kw}.

        @return: A Deferred that fires with C{None} when the function has begun.

        @raise RuntimeError: If it's been started already.

        @raise TypeError: If it isn't callable.

        @raise ThreadError: If no thread can be started.
        """
        checkCallable("fb", fb)
        if self._started:
            raise RuntimeError(f"{self!r} has been started already")
        d = self.pool.deferToOwnThread(self._runFunction, fb, args, kw)
        self._started = True
        d.addBoth(self._functionEnded)
        return self._begun.wait()

    def produceItem(
        self, fp: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Have an item made, for the next place in the order.

        @param fp: What makes the item. It's called at once, and returns the item, or a
            Deferred that fires with it.

        @return: A Deferred that fires with the item when that has been made, whatever
            its place, and the function has begun. It fires with C{None} if making it
            has failed, or if no more items are wanted because something has failed, the
            function has returned, or L{stop} was called: C{fp} isn't called then.

        @raise TypeError: If C{fp} isn't callable.
        """
        checkCallable("fp", fp)
        if not self._wantsMore():
            return succeed(None)
        making: list[Deferred[object]] = []

        def cancel(_: object) -> None:
            for d in making:
                d.cancel()

        place: Deferred[object] = Deferred(cancel)
        self._places.append(place)
        self._changed.fire(None)
        making.append(maybeDeferred(fp, *args, **kw).addBoth(_made, place))
        if place.called:
            cancel(place)  # Production ended while fp was being called.
        return making[0].addCallback(self._whenBegun)

    def ready(self) -> Deferred[bool]:
        """
        Wait until another item is wanted. So items don't pile up if the function is
        slow.

        @return: A Deferred that fires with C{True} when fewer items than C{ahead} are
            in the making or wait for others. With C{False} if no more are wanted.
        """
        if self._wantsMore() and len(self._places) >= self._ahead:
            return self._room.wait()
        return succeed(self._wantsMore())

    def stop(self) -> Deferred[Any]:
        """
        Let the function come to its end when it has had all items.

        @return: A Deferred that fires with what it has returned, with C{None} if it
            was never started. It fails with what making an item has failed with, or
            what the function has raised. Calling again gives the same.
        """
        self._stopping = True
        self._changed.fire(None)
        self._room.fire(self._wantsMore())
        if not self._started:
            self._functionEnded(None)
        unclaimed, self._unclaimed = self._unclaimed, None
        if unclaimed is not None:
            unclaimed.addErrback(lambda _: None)
        return self._result.wait()

    def pauseProducing(self) -> None:
        """Do nothing: each item is written when the last has been taken in."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Cancel what is in the making, and end the iteration for the function."""
        self._finish()
        self.i.abort()

    def _runFunction(
        self,
        fb: Callable[..., object],
        args: tuple[object, ...],
        kw: dict[str, object],
    ) -> object:
        self.i._reactor.callFromThread(self._begun.fire, None)
        return fb(self.i, *args, **kw)

    def _wantsMore(self) -> bool:
        return not (self._over or self._stopping)

    def _whenBegun(self, item: _T) -> _T | Deferred[_T]:
        if self._begun.hasFired:
            return item
        return self._begun.wait().addCallback(lambda _: item)

    async def _writeItems(self) -> None:
        """Write the items in order, each as soon as it's made and there's room."""
        while self._places or self._wantsMore():
            if not self._places:
                await self._changed.wait()
                continue
            item = await self._places[0]
            self._places.popleft()
            if len(self._places) < self._ahead:
                self._room.fire(self._wantsMore())
            await self.i.write(item)
        self.i.unregisterProducer()

    def _makingFailed(self, failure: Failure) -> None:
        if not self._over:
            self._failure = failure
            self._finish()
            self.i.fail(failure)

    def _finish(self) -> None:
        """Make no more items, and cancel those in the making."""
        self._over = True
        places, self._places = self._places, deque()
        for place in places:
            place.cancel()
            place.addErrback(lambda _: None)
        self._changed.fire(None)
        self._room.fire(self._wantsMore())

    def _functionEnded(self, result: object) -> None:
        if self._result.hasFired:
            return
        self._finish()
        self.i.abort()
        self.releasePool()
        self._begun.fire(None)
        if self._failure is not None:
            result = self._failure
        if isinstance(result, Failure) and not self._stopping:
            self._unclaimed = fail(result)
        self._result.fire(result)


def _made(result: object, place: Deferred[object]) -> object:
    """Put an item, or a failure, in its place."""
    if not place.called:
        place.callback(result)
    return None if isinstance(result, Failure) else result
