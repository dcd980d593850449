"""
Items that are made in the reactor at the same time, for blocking code that wants them
one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredQueue,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.awaitable import OneShot
from .._support.checks import checkCallable, checkCount
from ._bridge import Consumerator
from ._pool import PoolUser, ThreadPool

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
    Consumerator, in order, and C{_line} holds the same ones for L{_writeItems}. Once
    C{_over}, C{_places} is empty and nothing is made. C{_result} fires when the
    function has returned.

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
        self._places: deque[Deferred[Any]] = deque()
        # In tuples, because a Deferred can't fire with a Deferred.
        self._line: DeferredQueue[tuple[Deferred[Any]] | None] = DeferredQueue()
        # Tells whether more items are wanted. None while nobody waits for that.
        self._room: OneShot[bool] | None = None
        self._begun: OneShot[None] = OneShot()
        self._result: OneShot[Any] = OneShot()
        self._started = False
        self._stopping = False
        self._over = False
        # The first failure to make an item.
        self._failure: Failure | None = None
        # Logs the failure of either side if stop() isn't called.
        self._unclaimed: Deferred[Any] | None = None
        writing = Deferred.fromCoroutine(self._writeItems())
        writing.addErrback(self._makingFailed)

    def start(self, fb: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[None]:
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
        self, fp: Callable[..., Any], /, *args: Any, **kw: Any
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
        making: list[Deferred[Any]] = []

        def cancel(_: Deferred[Any]) -> None:
            for d in making:
                d.cancel()

        place: Deferred[Any] = Deferred(cancel)
        self._places.append(place)
        self._line.put((place,))
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
        if len(self._places) < self._ahead or not self._wantsMore():
            return succeed(self._wantsMore())
        if self._room is None:
            self._room = OneShot()
        return self._room.wait()

    def stop(self) -> Deferred[Any]:
        """
        Let the function come to its end when it has had all items.

        @return: A Deferred that fires with what it has returned, with C{None} if it
            was never started. It fails with what making an item has failed with, or
            what the function has raised. Calling again gives the same.
        """
        self._stopping = True
        self._line.put(None)
        self._tellOfRoom()
        if not self._started:
            self._functionEnded(None)
        unclaimed, self._unclaimed = self._unclaimed, None
        if unclaimed is not None:
            unclaimed.addErrback(lambda _: None)
        return self._result.wait()

    def pauseProducing(self) -> None:
        """
        Implement C{IPushProducer.pauseProducing}: do nothing, since each item is
        written when the last has been taken in.
        """

    def resumeProducing(self) -> None:
        """Implement C{IPushProducer.resumeProducing}: do nothing."""

    def stopProducing(self) -> None:
        """
        Implement C{IPushProducer.stopProducing}: cancel what is in the making, and have
        the iteration end at once for the function.
        """
        self._finish()
        self.i.abort()

    def _runFunction(self, fb: Callable[..., Any], args: Any, kw: Any) -> Any:
        self.i._reactor.callFromThread(self._begun.fire, None)
        return fb(self.i, *args, **kw)

    def _tellOfRoom(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.fire(self._wantsMore())

    def _wantsMore(self) -> bool:
        return not (self._over or self._stopping)

    def _whenBegun(self, item: Any) -> Any:
        if self._begun.hasFired:
            return item
        return self._begun.wait().addCallback(lambda _: item)

    async def _writeItems(self) -> None:
        """Write the items in order, each as soon as it's made and there's room."""
        while (place := await self._line.get()) is not None and not self._over:
            item = await place[0]
            self._places.popleft()
            if len(self._places) < self._ahead:
                self._tellOfRoom()
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
        self._line.put(None)
        self._tellOfRoom()

    def _functionEnded(self, result: Any) -> None:
        """Come to the end."""
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


def _made(result: Any, place: Deferred[Any]) -> Any:
    """Put an item, or a failure, in its place."""
    if not place.called:
        place.callback(result)
    return None if isinstance(result, Failure) else result
