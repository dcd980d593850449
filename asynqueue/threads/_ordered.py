"""
Items that are made in the reactor at the same time, for blocking code that wants them
one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.checks import checkCallable, checkCount
from .._support.oneshot import OneShot
from ._bridge import Consumerator
from ._pool import PoolUser, ThreadPool

__all__ = ["OrderedItemProducer"]

#: How many items may be in the making, or wait for one that was asked for before.
AHEAD = 32


class _Place:
    """
    The place of an item in the line.

    @ivar d: What makes it, C{None} before that has begun and after it has ended.

    @ivar made: Whether C{result} is there: the item, or a failure.
    """

    __slots__ = ("d", "made", "result")

    def __init__(self) -> None:
        self.d: Deferred[Any] | None = None
        self.made = False
        self.result: Any = None


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

    C{_line} has the places of items that haven't been written to the Consumerator. The
    first is written as soon as it's made, unless the Consumerator has paused this.
    After C{_over}, the line is empty and nothing is made; C{_result} fires when the
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
        Make a producer.

        @param maxThreads: See L{PoolUser}.

        @param ahead: How many items may be in the making, or wait for others, before
            L{ready} waits.

        @param ownPool: See L{PoolUser}.

        @param reactor: The reactor. By default, the global one.

        @raise ValueError: If a number isn't a positive integer.
        """
        checkCount("ahead", ahead, 1)
        super().__init__(maxThreads, ownPool=ownPool)
        self.i = Consumerator(self, ownPool=self.ownPool, reactor=reactor)
        self._ahead = ahead
        self._line: deque[_Place] = deque()
        # What those wait for who want to have more items made.
        self._room: OneShot[bool] | None = None
        self._started = False
        self._begun: OneShot[None] = OneShot()
        self._paused = False
        self._writing = False
        self._stopping = False
        self._over = False
        # What has failed first in making an item.
        self._failure: Failure | None = None
        self._result: OneShot[Any] = OneShot()
        # Logs a failure that nobody asks for.
        self._unclaimed: Deferred[Any] | None = None

    def start(self, fb: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[None]:
        """
        Run the blocking function.

        @param fb: The function. It's called in a thread of its own with an iterator,
            then C{args} and C{kw}.

        @param args: Its further arguments.

        @param kw: Its keywords.

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

        @param args: Arguments for it.

        @param kw: Keywords for it.

        @return: A Deferred that fires with the item when that has been made, whatever
            its place, and the function has begun. It fires with C{None} if making it
            has failed, or if no more items are wanted because something has failed, the
            function has returned, or L{stop} was called: C{fp} isn't called then.

        @raise TypeError: If C{fp} isn't callable.
        """
        checkCallable("fp", fp)
        if not self._wantsMore():
            return succeed(None)
        place = _Place()
        self._line.append(place)
        d = place.d = maybeDeferred(fp, *args, **kw)
        d.addBoth(self._made, place)
        if self._over and not place.made:
            d.cancel()  # It came to the end while fp was being called.
        return d.addCallback(self._whenBegun)

    def ready(self) -> Deferred[bool]:
        """
        Wait until another item is wanted, so that a function that is slow isn't left
        behind.

        @return: A Deferred that fires with C{True} when fewer items than C{ahead} are
            in the making or wait for others. With C{False} if no more are wanted.
        """
        if len(self._line) < self._ahead or not self._wantsMore():
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
        self._tellOfRoom()
        if self._started:
            self._write()
        else:
            self._functionEnded(None)
        unclaimed, self._unclaimed = self._unclaimed, None
        if unclaimed is not None:
            unclaimed.addErrback(lambda _: None)
        return self._result.wait()

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
        self._write()

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

    def _made(self, result: Any, place: _Place) -> Any:
        """Put an item, or a failure, in its place."""
        place.d = None
        place.made = True
        place.result = result
        self._write()
        return None if isinstance(result, Failure) else result

    def _write(self) -> None:
        """
        Write what is made and has nothing unmade before it, in one loop, never from
        within what the last has led to.
        """
        if self._writing:
            return
        self._writing = True
        try:
            while self._line and self._line[0].made and not self._paused:
                result = self._line.popleft().result
                if isinstance(result, Failure):
                    self._failure = result
                    self._finish()
                    self.i.fail(result)
                else:
                    self.i.write(result)
        finally:
            self._writing = False
        if len(self._line) < self._ahead:
            self._tellOfRoom()
        if self._stopping and not (self._over or self._line):
            self.i.unregisterProducer()

    def _finish(self) -> None:
        """Make no more items, and cancel those in the making."""
        self._over = True
        line, self._line = self._line, deque()
        for place in line:
            if place.d is not None:
                place.d.cancel()
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
