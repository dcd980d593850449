"""
Items that are made in the reactor at the same time, for blocking code that wants them
one after the other.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ._consumerator import Consumerator
from ._pool import PoolUser, ThreadPool

__all__ = ["OrderedItemProducer"]

#: So many items may be in the making, or wait for one that was asked for before.
_AHEAD = 32


class _Place:
    """
    The place of an item in the line.

    @ivar d: A Deferred for the item while it's in the making, C{None} before, while
        the function that makes it is being called, and after.

    @ivar made: Whether the item, or the failure, is there.

    @ivar item: The item.

    @ivar failure: What has become of it instead, or C{None}.
    """

    __slots__ = ("d", "failure", "item", "made")

    def __init__(self) -> None:
        self.d: Deferred[Any] | None = None
        self.made = False
        self.item: Any = None
        self.failure: Failure | None = None


@implementer(IPushProducer)
class OrderedItemProducer(PoolUser):
    """
    Has a blocking function iterate, in a thread, over items that functions make in the
    reactor, each of them with a Deferred if it takes its time. Items come in the order
    in which they were asked for, whichever is made first::

        p = OrderedItemProducer()
        p.start(writeImage, "image.png")
        for y in range(height):
            if not await p.produceItem(q.call, makeRow, y):
                break
        await p.stop()
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        ahead: int = _AHEAD,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a producer.

        @param maxThreads: See L{PoolUser}.

        @param ahead: How many items may be in the making, or wait for others, before
            no more are wanted for the moment.

        @param ownPool: See L{PoolUser}.

        @param reactor: The reactor. By default, the global one.

        @raise ValueError: If a number isn't a positive integer.
        """
        if ahead < 1:
            raise ValueError(f"ahead must be a positive integer, not {ahead!r}")
        super().__init__(maxThreads, ownPool=ownPool)
        self._ahead = ahead
        self._consumerator = Consumerator(self, ownPool=self.ownPool, reactor=reactor)
        self._line: deque[_Place] = deque()
        self._rooms: OrderedDict[Deferred[bool], None] = OrderedDict()
        self._handing = False
        self._paused = False
        self._over = False
        self._stopping = False
        self._started = False
        self._failure: Failure | None = None
        self._ended = False
        self._result: Any = None
        self._waiters: dict[Deferred[Any], None] = {}
        # Logs a failure that nobody asks for.
        self._unclaimed: Deferred[Any] | None = None

    def start(self, fb: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """
        Run the blocking function.

        @param fb: The function. It's called in a thread of its own with an iterator,
            then C{args} and C{kw}.

        @param args: Its further arguments.

        @param kw: Its keywords.

        @raise RuntimeError: If it's been started already.

        @raise TypeError: If it isn't callable.

        @raise ThreadError: If no thread can be started.
        """
        if self._started:
            raise RuntimeError(f"{self!r} has been started already")
        d = self.pool.deferToOwnThread(fb, self._consumerator, *args, **kw)
        self._started = True
        d.addBoth(self._functionEnded)

    def produceItem(
        self, fp: Callable[..., Any], *args: Any, **kw: Any
    ) -> Deferred[bool]:
        """
        Have an item made, for the next place in the order.

        @param fp: What makes the item. It's called at once, and returns the item, or a
            Deferred that fires with it.

        @param args: Arguments for it.

        @param kw: Keywords for it.

        @return: A Deferred that fires with C{True} when another item is wanted: at
            once, unless many are in the making, or wait for others. With C{False} if
            no more are, because something has failed, or the function has returned, or
            L{stop} was called.

        @raise TypeError: If it isn't callable.
        """
        if not callable(fp):
            raise TypeError(f"A callable is needed to make an item, not {fp!r}")
        if not self._wantsMore():
            return succeed(False)
        place = _Place()
        self._line.append(place)
        d = place.d = maybeDeferred(fp, *args, **kw)
        d.addCallbacks(
            self._made, self._failed, callbackArgs=(place,), errbackArgs=(place,)
        )
        if self._over and not place.made:
            # It has come to the end while the function was being called.
            d.cancel()
        if not self._wantsMore():
            return succeed(False)
        if len(self._line) < self._ahead:
            return succeed(True)
        room: Deferred[bool] = Deferred(lambda d: self._rooms.pop(d, None))
        self._rooms[room] = None
        return room

    def stop(self) -> Deferred[Any]:
        """
        Let the function come to its end when it has had all items.

        @return: A Deferred that fires with what it has returned, with C{None} if it
            was never started. It fails with what making an item has failed with, or
            what the function has raised. Calling again gives the same.
        """
        self._stopping = True
        self._refuse()
        if self._started:
            self._handOver()
        elif not self._ended:
            self._functionEnded(None)
        unclaimed, self._unclaimed = self._unclaimed, None
        if unclaimed is not None:
            unclaimed.addErrback(lambda _: None)
        d: Deferred[Any] = Deferred(lambda d: self._waiters.pop(d, None))
        self._waiters[d] = None
        if self._ended:
            self._fire()
        return d

    def pauseProducing(self) -> None:
        """
        Implement C{IPushProducer.pauseProducing}: the function has items enough.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Implement C{IPushProducer.resumeProducing}: the function wants more items.
        """
        self._paused = False
        self._handOver()

    def stopProducing(self) -> None:
        """
        Implement C{IPushProducer.stopProducing}: cancel what is in the making, and have
        the iteration end at once for the function.
        """
        self._finish()
        self._consumerator.abort()

    def _wantsMore(self) -> bool:
        """
        Tell whether items may still be asked for.

        @return: Whether they may.
        """
        return not (self._over or self._stopping)

    def _made(self, item: Any, place: _Place) -> None:
        """
        Put an item in its place.

        @param item: The item.

        @param place: The place.
        """
        place.d = None
        place.made = True
        place.item = item
        self._handOver()

    def _failed(self, failure: Failure, place: _Place) -> None:
        """
        Put a failure in the place of an item.

        @param failure: The failure.

        @param place: The place.
        """
        place.d = None
        place.made = True
        place.failure = failure
        self._handOver()

    def _handOver(self) -> None:
        """
        Hand over what is made and has nothing unmade before it. Then tell those who
        wait that more is wanted.

        That's done in one loop, never from within the callbacks of the last.
        """
        if self._handing:
            return
        self._handing = True
        try:
            while not self._over and self._handOverOne():
                pass
        finally:
            self._handing = False
        if self._stopping and not (self._over or self._line):
            self._consumerator.unregisterProducer()

    def _handOverOne(self) -> bool:
        """
        Hand over an item, or tell one who waits.

        @return: Whether there was something to be done.
        """
        if self._line and self._line[0].made and not self._paused:
            place = self._line.popleft()
            if place.failure is None:
                self._consumerator.write(place.item)
            else:
                self._failure = place.failure
                self._finish()
                self._consumerator.fail(place.failure)
        elif self._rooms and len(self._line) < self._ahead:
            d, _ = self._rooms.popitem(last=False)
            d.callback(True)
        else:
            return False
        return True

    def _finish(self) -> None:
        """
        Make no more items, and cancel those in the making.
        """
        if self._over:
            return
        self._over = True
        line, self._line = self._line, deque()
        for place in line:
            if place.d is not None:
                place.d.cancel()
        self._refuse()

    def _refuse(self) -> None:
        """
        Tell those who wait that no more items are wanted.
        """
        while self._rooms:
            d, _ = self._rooms.popitem(last=False)
            d.callback(False)

    def _functionEnded(self, result: Any) -> None:
        """
        Come to the end.

        @param result: What the function has returned, or its failure.
        """
        self._finish()
        self._consumerator.abort()
        self.releasePool()
        self._ended = True
        self._result = result if self._failure is None else self._failure
        if isinstance(self._result, Failure) and not self._waiters:
            self._unclaimed = fail(self._result)
        self._fire()

    def _fire(self) -> None:
        """
        Tell those who wait for the end.
        """
        waiters, self._waiters = self._waiters, {}
        for d in waiters:
            if d.called:
                continue  # It was cancelled by the callbacks of another.
            if isinstance(self._result, Failure):
                d.errback(self._result)
            else:
                d.callback(self._result)
