"""
An iterator of Deferreds, one for each item of a source.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from types import GeneratorType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from .._support.reactor import globalReactor
from ..errors import NotReadyError
from ._feed import Feed
from ._handout import NOTHING, Handout, ItemDeferred, ItemLoop
from ._sources import sourceOf

__all__ = ["Deferator"]


class Deferator(Handout):
    """
    An iterator of Deferreds that fire with the items of an iteration, in order.

    There are two ways of use. In both, wait for one item before asking for the next::

        async for item in deferator:
            print(item)

        for d in deferator:
            item = await d
            print(item)

    In the second, whether there's another item must be known when it's asked for. So
    a Deferred that the iterator yields fires with its item when the item after it is
    there, or the end. C{async for} gets each item the moment it's there.

    When the source fails, the items before that are handed out first. Then the failure
    is raised in C{async for}, or it's what the next Deferred that the iterator yields
    fails with; after it, there are no more.

    If it was made of a source that didn't say so (see L{peek}), and there turns out to
    be no item at all, the one Deferred that the iterator has yielded by then fails
    with C{StopAsyncIteration}, for there's nothing that it could fire with.

    A Deferred that was yielded may be cancelled, or given a time limit with
    C{addTimeout}. That gives up waiting, and loses nothing: the next one fires with
    the item.

    However many items are at hand, callbacks that ask for one after the other neither
    fill the stack nor keep the reactor from its other work for more than a few
    milliseconds.

    Adding callbacks to it (C{addCallback} and its kin) adds them to L{d}.

    @ivar d: A Deferred that fires when the iteration is over and who iterates has been
        told so: with C{True} if all items have been taken, with C{False} if it was
        stopped, or has failed.

    @ivar reactor: Gives the time, and its turns. The global reactor, unless set.

    @ivar feed: The items on their way. For L{IterationProducer
        <asynqueue.iteration.IterationProducer>}, which takes them without Deferreds.
    """

    def __init__(
        self,
        objOrRep: object,
        f: Callable[..., Any] | None = None,
        *args: Any,
        **kw: Any,
    ) -> None:
        """
        Make a deferator, of a function, or of something that has the items.

        @param objOrRep: Without C{f}: an iterator or another iterable object, a
            L{Prefetcherator<asynqueue.iteration.Prefetcherator>}, or another
            L{ItemSource}. With C{f}: text that represents the iteration, or C{None}.

        @param f: A function that is called for each item. It returns (value, isValid,
            moreLeft), or a Deferred that fires with that: the next item, whether there
            was one, and whether there may be another.

        @param args: Arguments for C{f}.

        @param kw: Keywords for C{f}.

        @raise TypeError: If there's nothing to iterate over.
        """
        self._over = True  # until it's complete
        super().__init__()
        self._abandonable = False
        self._thread = get_ident()
        self.d: Deferred[bool] = Deferred()
        self._name = self._describe(objOrRep)
        source = sourceOf(objOrRep, f, args, kw)
        self.feed = Feed(source)
        self._peekers: list[Deferred[bool]] = []
        self._abandonable = source is objOrRep
        self._over = False

    def __repr__(self) -> str:
        """
        Name what is iterated over.
        """
        return f"<Deferator of {self._name}>"

    def __del__(self) -> None:
        """
        Have a source at another end released if nobody can take its items any longer.

        An iterator in this process is released as any object is, when nobody has it.
        """
        if self._over or not self._abandonable:
            return
        if get_ident() == self._thread:
            self.feed.stop()
        else:  # the garbage collector runs in any thread
            globalReactor().callFromThread(self.feed.stop)

    def __iter__(self) -> Deferator:
        """
        Iterate over Deferreds.

        @return: Itself.
        """
        return self

    def __next__(self) -> Deferred[Any]:
        """
        Ask for the next item.

        @return: A Deferred that fires with it when it's known whether there's another
            one after it.

        @raise NotReadyError: If the last one has not fired.

        @raise StopIteration: If there are no more.
        """
        if self._waiter is not None:
            raise self._notReady()
        feed = self.feed
        held = feed.held
        if not held:
            if feed.more and feed.fetching is None:
                feed.look()
            if not held:
                if feed.fetching is None and feed.failure is None:
                    self.conclude(True)
                    raise StopIteration
                return self._withoutItem(ahead=True)
        value = held.popleft()
        if not held:
            if feed.more and feed.fetching is None:
                feed.look()
            if feed.fetching is not None:
                return self._wait(True, value)
        return self._handOut(value)

    def __aiter__(self) -> ItemLoop:
        """
        Iterate over the items themselves.

        @return: An asynchronous iterator of them.
        """
        return ItemLoop(self, self.feed.held)

    def __anext__(self) -> Deferred[Any]:
        """
        Ask for the next item.

        @return: A Deferred that fires with it as soon as it's there, or fails with
            C{StopAsyncIteration} if there are no more.

        @raise NotReadyError: If the last one has not fired.
        """
        if self._waiter is not None:
            raise self._notReady()
        feed = self.feed
        held = feed.held
        if not held:
            if feed.more and feed.fetching is None:
                feed.look()
            if not held:
                return self._withoutItem(ahead=False)
        return self._handOut(held.popleft())

    @property
    def moreLeft(self) -> bool:
        """
        Whether there may be more to come than has been asked for. If it's C{False},
        there's certainly not.
        """
        if self._over:
            return False
        feed = self.feed
        if feed.fetching is not None or feed.ahead:
            return True
        if self._waiter is not None:
            return feed.more
        if feed.more and feed.lookNow():
            return True
        self.conclude(True)
        return False

    def peek(self) -> Deferred[bool]:
        """
        Find out whether there's something to come, and leave it there.

        @return: A Deferred that fires when it's known: with C{True} if there's an
            item, or a failure of the source, with C{False} if there are no more.
        """
        feed = self.feed
        if feed.more and feed.fetching is None and not feed.ahead:
            feed.look()
        if feed.ahead:
            return succeed(True)
        if feed.fetching is None:
            if self._waiter is None:
                self.conclude(True)
            return succeed(False)
        d: Deferred[bool] = Deferred()
        self._peekers.append(d)
        feed.onAnswer = self._answered
        return d

    def stop(self) -> None:
        """
        End the iteration early: forget all items that have not been asked for, and
        have the source release everything. A generator is closed where it runs.

        A Deferred that has been yielded and still waits for its item fails with
        C{CancelledError}, and an C{async for} that waits comes to its end.
        """
        if self._over:
            return
        waiter, self._waiter = self._waiter, None
        peekers, self._peekers = self._peekers, []
        self._dontFire()
        self._over = True
        self.feed.onAnswer = None
        self.feed.stop()
        if waiter is not None and not waiter.called:
            if waiter.value is not NOTHING:
                waiter.callback(waiter.value)
            elif waiter.ahead:
                waiter.errback(CancelledError("The iteration has been stopped"))
            else:
                waiter.errback(StopAsyncIteration())
        for d in peekers:
            d.callback(False)
        self._fireOwn(False)

    def close(self) -> None:
        """
        Do as L{stop}, for C{contextlib.closing}.
        """
        self.stop()

    def addCallback(self, callback: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """
        Add a callback to L{d}, see L{Deferred.addCallback}.

        @param callback: The callback.

        @param args: Its further arguments.

        @param kw: Its keywords.

        @return: L{d}.
        """
        return self.d.addCallback(callback, *args, **kw)

    def addCallbacks(self, *args: Any, **kw: Any) -> Any:
        """
        Add callbacks to L{d}, see L{Deferred.addCallbacks}.

        @param args: Callback, errback, and what belongs to them.

        @param kw: The same.

        @return: L{d}.
        """
        return self.d.addCallbacks(*args, **kw)

    def addErrback(self, errback: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """
        Add an errback to L{d}, see L{Deferred.addErrback}.

        @param errback: The errback.

        @param args: Its further arguments.

        @param kw: Its keywords.

        @return: L{d}.
        """
        return self.d.addErrback(errback, *args, **kw)

    def addBoth(self, callback: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """
        Add a callback, which is the errback too, to L{d}, see L{Deferred.addBoth}.

        @param callback: The callback.

        @param args: Its further arguments.

        @param kw: Its keywords.

        @return: L{d}.
        """
        return self.d.addBoth(callback, *args, **kw)

    def chainDeferred(self, d: Deferred[Any]) -> Any:
        """
        Have another Deferred fire with what L{d} fires with.

        @param d: The other one.

        @return: L{d}.
        """
        return self.d.chainDeferred(d)

    def conclude(self, exhausted: bool) -> None:
        """
        Take note that who iterates has been told of the end.

        @param exhausted: Whether all items have been taken.
        """
        if not self._over:
            self._over = self.feed.over = True
            self._fireOwn(exhausted)

    def _fireOwn(self, exhausted: bool) -> None:
        """
        Fire L{d}, unless its user has cancelled it.

        @param exhausted: Whether all items have been taken.
        """
        if not self.d.called:
            self.d.callback(exhausted)

    @staticmethod
    def _describe(objOrRep: object) -> str:
        """
        Name what is iterated over, without running code of users.

        @param objOrRep: Something that has items, or text.

        @return: Text.
        """
        if isinstance(objOrRep, str):
            return objOrRep
        if isinstance(objOrRep, GeneratorType):
            return objOrRep.__qualname__
        return type(objOrRep).__name__

    def _notReady(self) -> NotReadyError:
        """
        Make an error.

        @return: It.
        """
        return NotReadyError(
            f"{self!r} was asked for its next item before the last one had arrived:"
            " wait for each Deferred that it yields before asking for the next"
        )

    def _withoutItem(self, ahead: bool) -> Deferred[Any]:
        """
        Make a Deferred though no item is at hand.

        @param ahead: Whether to wait for the item after it, too.

        @return: A Deferred that waits for one if there may be more, else has failed.
        """
        if self.feed.fetching is not None:
            return self._wait(ahead, NOTHING)
        d = ItemDeferred(self, ahead)
        self._failOrEnd(d)
        return d

    def _wait(self, ahead: bool, value: Any) -> Deferred[Any]:
        """
        Make a Deferred that waits for what is being fetched.

        @param ahead: Whether to wait for the item after its own, too.

        @param value: Its own, if that's at hand.

        @return: The Deferred.
        """
        d = self._waiter = ItemDeferred(self, ahead)
        d.value = value
        self.feed.onAnswer = self._answered
        return d

    def _answered(self) -> None:
        """
        Go on with what has been fetched.
        """
        feed = self.feed
        feed.onAnswer = None
        peekers, self._peekers = self._peekers, []
        for d in peekers:
            d.callback(feed.ahead)
        waiter = self._waiter
        if waiter is None or self._heldBack:
            return
        if feed.fetching is not None:  # since somebody has peeked
            feed.onAnswer = self._answered
            return
        if waiter.value is NOTHING:
            if not feed.held:
                self._waiter = None
                self._failOrEnd(waiter)
                return
            waiter.value = feed.held.popleft()
        if waiter.ahead and not feed.held and feed.more and feed.look():
            feed.onAnswer = self._answered
            return
        self._fire()

    def _putBack(self, value: Any) -> None:
        """
        Keep an item for the next time, since its Deferred has been cancelled.

        @param value: The item, or L{NOTHING} if there wasn't one yet.
        """
        if value is not NOTHING:
            self.feed.held.appendleft(value)
        if not self._peekers:
            self.feed.onAnswer = None

    def _failOrEnd(self, d: ItemDeferred) -> None:
        """
        Tell how the source has failed, or that it has ended.

        @param d: The Deferred to be told.
        """
        feed = self.feed
        failure, feed.failure = feed.failure, None
        if failure is not None:
            d.errback(failure)
            self.conclude(False)
        else:
            d.errback(StopAsyncIteration())
            self.conclude(True)
