"""Fetching one item ahead, so that it's known whether there's another."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from .._child.calls import isIteration
from ._deferator import Deferator
from ._sources import END, CallableSource, Item


class Prefetcherator:
    """
    Gives one item after the other, each along with whether there's another one.

    It can be set up again when an iteration is over.
    """

    #: See L{ItemSource<asynqueue.iteration._sources.ItemSource>}, which this is.
    tellsMore = True

    def __init__(self, ID: Any = None) -> None:
        """Have no items yet, and an ID to be told apart by: a number by default."""
        self.ID = id(self) if ID is None else ID
        self._deferator: Deferator[Any] = Deferator(())

    def __repr__(self) -> str:
        return f"<Prefetcherator {self.ID}>"

    @property
    def lastFetch(self) -> tuple[Any, bool]:
        """
        The item that has been fetched and not given out, and whether there is one.
        """
        return self._deferator.lastFetch

    def setup(
        self, iteratorOrCallable: object = None, /, *args: Any, **kw: Any
    ) -> Deferred[bool]:
        """
        Begin an iteration, and fetch its first item.

        @param iteratorOrCallable: An iterator; or a callable that returns, with the
            other arguments, the next item each time, or a Deferred that fires with it,
            and raises C{StopIteration} or C{IndexError} when there are no more.

        @return: A Deferred that fires with C{True} when there's an item (or a failure,
            which L{getNext} will tell); with C{False} if there are none, if it's
            neither an iterator nor a callable, or if the last iteration isn't over.
        """
        if self.isBusy():
            return succeed(False)
        if isIteration(iteratorOrCallable):
            self._deferator = Deferator(iteratorOrCallable)
        elif callable(iteratorOrCallable):
            source = CallableSource(self.ID, iteratorOrCallable, *args, **kw)
            self._deferator = Deferator(source)
        else:
            return succeed(False)
        return self._deferator.peek()

    def isBusy(self) -> bool:
        """Tell whether there's an iteration that isn't over."""
        return self._deferator.moreLeft

    def getNext(self) -> Deferred[Item]:
        """
        Get the next item, and fetch the one after it.

        @return: A Deferred that fires then with the value, C{True}, and whether there's
            another (or a failure); with C{(None, False, False)} if there are no more.
            It fails with what the iterator, or the callable, has raised.

        @raise NotReadyError: If the last one has not fired.
        """
        deferator = self._deferator
        try:
            d = next(deferator)
        except StopIteration:
            return succeed(END)
        return d.addCallbacks(
            lambda value: (value, True, deferator.moreLeft), self._ended
        )

    def fetch(self) -> Item | Deferred[Item]:
        """Do as L{getNext}, for a L{Deferator<asynqueue.iteration.Deferator>}."""
        return self.getNext() if self.isBusy() else END

    def stop(self) -> None:
        """End the iteration early. A generator is closed."""
        self._deferator.stop()

    def _ended(self, failure: Failure) -> Item:
        failure.trap(StopAsyncIteration)
        return END
