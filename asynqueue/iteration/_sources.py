"""
Where the items of an iteration come from.

A source is asked for one item after the other, by one asker: a
L{Deferator<asynqueue.iteration.Deferator>}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from .._child.calls import isIteration
from .._support.log import log

__all__ = [
    "END",
    "BufferedSource",
    "FunctionSource",
    "Item",
    "ItemSource",
    "IteratorSource",
    "PlentifulSource",
    "PromptSource",
    "asIterator",
    "sourceOf",
]

#: An item as sources tell of it: its value, whether there is one at all, and whether
#: there may be more after it.
Item: TypeAlias = tuple[Any, bool, bool]

#: What a source that has no more items tells.
END: Item = (None, False, False)

#: Things that Python can iterate over, but users don't mean to.
_NOT_ITERABLE = (str, bytes, bytearray, memoryview, Deferred)


@runtime_checkable
class ItemSource(Protocol):
    """
    A source of items.

    It may also be a L{PromptSource}, which makes for speed.
    """

    def fetch(self) -> Deferred[Item]:
        """
        Get the next item, as soon as there is one.

        It isn't called again before the last Deferred has fired, nor after the end,
        nor after L{stop}.

        @return: A Deferred that fires with value, validity, and whether there may be
            more; with L{END} when there are no more items. It fails with what the
            source has raised, which is the end of it, too.
        """

    def stop(self) -> object:
        """
        End early, and release everything. Nothing happens the second time, or after
        the end.

        A Deferred of L{fetch} that has not fired needn't fire any longer.

        @return: Anything.
        """


@runtime_checkable
class PromptSource(ItemSource, Protocol):
    """
    A source of items that tells without a Deferred of an item that's at hand.
    """

    def fetchNow(self) -> Item | None:
        """
        Get the next item, if it's at hand.

        As C{fetch}, it isn't called while a Deferred of that is outstanding. It never
        raises what the source has raised: that is for C{fetch} to tell.

        @return: The item, or L{END}, or C{None} if C{fetch} must be called for it.
        """


@runtime_checkable
class PlentifulSource(PromptSource, Protocol):
    """
    A source of items that hands over several at once where they are at hand.
    """

    def fetchMany(self) -> Collection[Any] | None:
        """
        Get some items, if they are at hand.

        They are regarded as taken when this, C{fetchNow} or C{fetch} is called again,
        which is done when all of them have been.

        @return: Items, none of which is a Deferred, or C{None} if they must be fetched
            one by one.
        """


class IteratorSource:
    """
    A source of what an iterator in the reactor's thread yields.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        """
        Make a source.

        @param iterator: The iterator.
        """
        self._iterator = iterator
        self._failure: Failure | None = None
        self._toClose = False

    def fetchNow(self) -> Item | None:
        """
        Implement L{PromptSource.fetchNow}.

        @return: The item, or L{END}, or C{None} if the iterator has raised something.
        """
        if self._failure is not None:
            return None
        try:
            value = next(self._iterator)
        except StopIteration:
            return END
        except BaseException:  # noqa: BLE001 - the iterator is the user's
            self._failure = Failure()
            return None
        if self._toClose:
            self.stop()
        return value, True, True

    def fetch(self) -> Deferred[Item]:
        """
        Implement L{ItemSource.fetch}.

        @return: A Deferred that has fired.
        """
        item = self.fetchNow()
        if item is not None:
            return succeed(item)
        failure, self._failure = self._failure, None
        return fail(failure)

    def stop(self) -> None:
        """
        Implement L{ItemSource.stop}: close a generator, so that its C{finally} runs.

        What that raises is logged. An iterator that is running at the moment, because
        it's itself what leads to this call, is closed when it has yielded.
        """
        iterator = self._iterator
        if getattr(iterator, "gi_running", False):
            self._toClose = True
            return
        self._toClose = False
        self._iterator = iter(())
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the iterator is the user's
                log.failure("{iterator} failed to be closed", iterator=iterator)


class FunctionSource:
    """
    A source of what a function answers, time after time.
    """

    def __init__(
        self, name: object, f: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """
        Make a source.

        @param name: What stands for it in messages.

        @param f: The function. It returns value, validity, and whether there may be
            more, or a Deferred that fires with them.

        @param args: Its arguments.

        @param kw: Its keywords.
        """
        self._name = name
        self._call = f, args, kw

    def fetch(self) -> Deferred[Item]:
        """
        Implement L{ItemSource.fetch}: call the function.

        @return: A Deferred that fires with what it has answered.
        """
        f, args, kw = self._call
        return maybeDeferred(f, *args, **kw).addCallback(self._check)

    def stop(self) -> None:
        """
        Implement L{ItemSource.stop}. There's nothing that could be released.
        """

    def _check(self, answer: Any) -> Item:
        """
        Check that an answer is one.

        @param answer: The answer.

        @return: The same.

        @raise TypeError: If it isn't a triple.
        """
        if isinstance(answer, tuple) and len(answer) == 3:
            return answer
        raise TypeError(
            f"{self._call[0]!r} must answer with (value, isValid, moreLeft) when it's"
            f" asked for the next item of {self._name!r}, not with {answer!r}"
        )


class BufferedSource:
    """
    A source of items that are pushed to it, from another process or thread, say.

    It's used in the reactor's thread only.

    @ivar stopped: Whether the items are of no more use. What is pushed is dropped.

    @ivar ended: Whether it has been told of the end.

    @ivar every: See L{__init__}. It may be changed at any time.
    """

    def __init__(
        self,
        onTaken: Callable[[int], object] | None = None,
        onStop: Callable[[], object] | None = None,
        *,
        every: int = 1,
    ) -> None:
        """
        Make a source without items.

        @param onTaken: Called with the number of items that have been taken since the
            last call, so that the other end can be given credit for as many: when
            there are C{every} of them, and when no other is at hand. If C{every} is
            more than 1, not before the next one is asked for.

        @param onStop: Called once, when no more items are wanted, unless the source
            has ended by then.

        @param every: See C{onTaken}.
        """
        self.stopped = False
        self.ended = False
        self._items: deque[Any] = deque()
        self._failure: Failure | None = None
        self._waiting: Deferred[Item] | None = None
        self._onTaken = onTaken
        self._onStop = onStop
        self.every = every
        self._taken = 0
        # How many have been handed over, and may not have been taken yet.
        self._handed = 0
        # Whether no Deferred has been pushed.
        self._plain = True

    @property
    def atHand(self) -> int:
        """
        The number of items that have been pushed and not taken.
        """
        return len(self._items)

    def push(self, items: Iterable[Any]) -> None:
        """
        Add items. They are dropped if the source has been stopped.

        @param items: The items.

        @raise RuntimeError: If the source has been told of the end.
        """
        if self.stopped:
            return
        if self.ended:
            raise RuntimeError("Items were pushed to a source that had ended")
        if not isinstance(items, list):
            items = list(items)
        if self._plain and any(
            issubclass(it, Deferred) for it in set(map(type, items))
        ):
            self._plain = False
        self._items.extend(items)
        self._answer()

    def end(self) -> None:
        """
        Tell that there are no items but those that were pushed. Ignored after the end,
        and after L{stop}.
        """
        self._end(None)

    def fail(self, failure: Failure | BaseException) -> None:
        """
        Tell that after the items that were pushed, the iteration has failed. Ignored
        after the end, and after L{stop}.

        @param failure: How it has failed.
        """
        self._end(failure if isinstance(failure, Failure) else Failure(failure))

    def fetchNow(self) -> Item | None:
        """
        Implement L{PromptSource.fetchNow}.

        @return: The item, or L{END}, or C{None} if there's none at hand.
        """
        if self._handed:
            self._settle(0)
        items = self._items
        if items:
            item = items.popleft(), True, True
            if self._onTaken is not None:
                self._settle(1)
            return item
        return END if self.ended and self._failure is None else None

    def fetchMany(self) -> Collection[Any] | None:
        """
        Implement L{PlentifulSource.fetchMany}.

        @return: At most C{every} items.
        """
        if self._handed:
            self._settle(0)
        items, most = self._items, self.every - self._taken
        if len(items) < 2 or most < 2 or not self._plain:
            return None
        if len(items) <= most:
            self._items = deque()
        else:
            rest = items
            items = deque([rest.popleft() for _ in range(most)])
        if self._onTaken is not None:
            self._handed = len(items)
        return items

    def fetch(self) -> Deferred[Item]:
        """
        Implement L{ItemSource.fetch}.

        @return: A Deferred that fires with an item, or L{END}.
        """
        item = self.fetchNow()
        if item is not None:
            return succeed(item)
        failure, self._failure = self._failure, None
        if failure is not None:
            return fail(failure)
        self._waiting = Deferred()
        return self._waiting

    def stop(self) -> None:
        """
        Implement L{ItemSource.stop}.
        """
        if self.stopped:
            return
        self.stopped = True
        self._items.clear()
        self._failure = None
        onStop, self._onStop, self._onTaken = self._onStop, None, None
        if not self.ended:
            self.ended = True
            if onStop is not None:
                onStop()
        self._answer()

    def _settle(self, count: int) -> None:
        """
        Take note that items have been taken: those that were handed over, and others.

        @param count: How many others.
        """
        self._taken += self._handed + count
        self._handed = 0
        if self._onTaken is not None and (not self._items or self._taken >= self.every):
            count, self._taken = self._taken, 0
            self._onTaken(count)

    def _end(self, failure: Failure | None) -> None:
        """
        Take note of the end.

        @param failure: How the iteration has failed, if it has.
        """
        if self.ended:
            return
        self.ended = True
        self._failure = failure
        self._onTaken = self._onStop = None
        self._answer()

    def _answer(self) -> None:
        """
        Answer who waits for an item, if there's one or the end.
        """
        if self._waiting is None or not (self._items or self.ended):
            return
        waiting, self._waiting = self._waiting, None
        self.fetch().chainDeferred(waiting)


def asIterator(obj: object) -> Iterator[Any]:
    """
    Get something to iterate over.

    @param obj: An iterator, or an iterable object that isn't text.

    @return: An iterator.

    @raise TypeError: If it's neither.
    """
    if isIteration(obj):
        return cast(Iterator[Any], obj)
    if isinstance(obj, Iterable) and not isinstance(obj, _NOT_ITERABLE):
        return iter(obj)
    if isinstance(obj, Deferred):
        raise TypeError(
            f"{obj!r} can't be iterated over: wait for it, and give what it fires with"
        )
    raise TypeError(
        f"{obj!r} can't be iterated over: give an iterator, or text and a function"
        " that returns a Deferred to (value, isValid, moreLeft)"
    )


def sourceOf(
    objOrRep: object,
    f: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kw: dict[str, Any],
) -> ItemSource:
    """
    Find the source of what a L{Deferator<asynqueue.iteration.Deferator>} is made of.

    @param objOrRep: Something that has items, or text.

    @param f: A function that gives one item after the other, or C{None}.

    @param args: Its arguments.

    @param kw: Its keywords.

    @return: The source.

    @raise TypeError: If there's none.
    """
    if f is not None:
        if not callable(f):
            raise TypeError(f"{f!r} can't be called for the next item")
        return FunctionSource(objOrRep, f, *args, **kw)
    if isinstance(objOrRep, ItemSource):
        return objOrRep
    return IteratorSource(asIterator(objOrRep))
