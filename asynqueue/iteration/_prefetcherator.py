"""
Fetching one item ahead, so that it's known whether there's another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from .._child.calls import isIteration
from ..errors import NotReadyError
from ._deferator import Deferator
from ._sources import END, Item

__all__ = ["Prefetcherator"]


class Prefetcherator:
    """
    Gives one item after the other, each along with whether there's another one.

    It can be set up again when an iteration is over.

    @ivar ID: What it was given to be told apart by.
    """

    def __init__(self, ID: Any = None) -> None:
        """
        Make one that has no items yet.

        @param ID: Anything to tell it apart by. By default, a number of its own.
        """
        self.ID = id(self) if ID is None else ID
        self._deferator: Deferator | None = None

    def __repr__(self) -> str:
        """
        Tell it apart.
        """
        return f"<Prefetcherator {self.ID}>"

    @property
    def lastFetch(self) -> tuple[Any, bool]:
        """
        The item that has been fetched and not given out, and whether there is one.
        """
        held = self._deferator.feed.held if self._deferator is not None else None
        return (held[0], True) if held else (None, False)

    def setup(
        self,
        iteratorOrCallable: object,
        *args: Any,
        **kw: Any,
    ) -> Deferred[bool]:
        """
        Begin an iteration, and fetch its first item.

        @param iteratorOrCallable: An iterator, or another iterable object, or a
            callable that returns the next item each time, or a Deferred that fires
            with it, and raises C{StopIteration} or C{IndexError} when there are no
            more.

        @param args: Arguments for the callable.

        @param kw: Keywords for the callable.

        @return: A Deferred that fires with C{True} when there's an item (or a failure,
            which L{getNext} will tell), with C{False} if there are none.

        @raise NotReadyError: If the last iteration isn't over.

        @raise TypeError: If it's neither, or arguments are given and it's an iterator.
        """
        if self.isBusy():
            raise NotReadyError(
                f"{self!r} can't be set up again before its iteration is over: get the"
                " rest of its items, or call stop"
            )
        if callable(iteratorOrCallable) and not isIteration(iteratorOrCallable):
            deferator = Deferator(_CallableSource(iteratorOrCallable, args, kw))
        elif args or kw:
            raise TypeError(
                f"Arguments were given for {iteratorOrCallable!r}, which isn't called"
            )
        else:
            deferator = Deferator(iteratorOrCallable)
        self._deferator = deferator
        return deferator.peek()

    def isBusy(self) -> bool:
        """
        Tell whether there's an iteration that isn't over.

        @return: Whether there is.
        """
        return self._deferator is not None and self._deferator.moreLeft

    def getNext(self) -> Deferred[Item]:
        """
        Get the next item, and fetch the one after it.

        @return: A Deferred that fires when that has been fetched, with the value,
            C{True}, and whether there's another (or a failure). With C{(None, False,
            False)} if there are no more, or it hasn't been set up. It fails with what
            the iterator, or the callable, has raised.

        @raise NotReadyError: If the last one has not fired.
        """
        deferator = self._deferator
        if deferator is None:
            return succeed(END)
        try:
            d = next(deferator)
        except StopIteration:
            return succeed(END)
        return d.addCallbacks(
            lambda value: (value, True, deferator.moreLeft), self._ended
        )

    def fetch(self) -> Deferred[Item]:
        """
        Do as L{getNext}, to be a source for a
        L{Deferator<asynqueue.iteration.Deferator>}.

        @return: The same.
        """
        return self.getNext()

    def stop(self) -> None:
        """
        End the iteration early. A generator is closed.
        """
        if self._deferator is not None:
            self._deferator.stop()

    def _ended(self, failure: Failure) -> Item:
        """
        Tell the end from a failure.

        @param failure: Why there's no item.

        @return: L{END}.
        """
        failure.trap(StopAsyncIteration)
        return END


class _CallableSource:
    """
    A source of what a callable returns, time after time.
    """

    def __init__(
        self, f: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]
    ) -> None:
        """
        Make a source.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.
        """
        self._call = f, args, kw

    def fetch(self) -> Deferred[Item]:
        """
        Implement L{ItemSource.fetch<asynqueue.iteration.ItemSource.fetch>}.

        @return: A Deferred that fires with what the callable has returned.
        """
        f, args, kw = self._call
        return maybeDeferred(f, *args, **kw).addCallbacks(
            lambda value: (value, True, True), self._ended
        )

    def stop(self) -> None:
        """
        Implement L{ItemSource.stop<asynqueue.iteration.ItemSource.stop>}. There's
        nothing that could be released.
        """

    def _ended(self, failure: Failure) -> Item:
        """
        Tell the end from a failure.

        @param failure: What the callable has raised.

        @return: L{END}.
        """
        failure.trap(StopIteration, IndexError)
        return END
