"""Where the items of an iteration come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from threading import get_ident
from typing import Any, Protocol, TypeAlias, runtime_checkable

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from .._child.calls import isIteration
from .._support.checks import checkCallable
from .._support.log import log

#: An item as sources tell of it: its value, whether there is one at all, and whether
#: there may be more after it.
Item: TypeAlias = tuple[Any, bool, bool]

#: Gets what a function returns by calling it in its own way, such as in a thread.
Wrapper: TypeAlias = Callable[[Callable[[], Any]], object]

#: What a source that has no more items tells.
END: Item = (None, False, False)

#: Stands for an item that isn't there.
NO_ITEM = object()

#: Things that Python can iterate over, but users don't mean to.
_NOT_ITERABLE = (str, bytes, bytearray, memoryview, Deferred)


@runtime_checkable
class ItemSource(Protocol):
    """
    A source of items, which is asked for one after the other by one asker.

    It may have more than it must have:

      - C{fetchMany() -> Collection | None} gives several items that are at hand, none
        of them a Deferred, or C{None} if they are to be fetched one by one. They are
        regarded as taken when the source is asked for the next.
      - C{tellsMore}, if it's true, says that it knows whether there's another item when
        it gives one. So nothing need be fetched ahead to find out.
    """

    def fetch(self) -> Item | Deferred[Item]:
        """
        Get the next item, or L{END}: as it is if it's at hand, which saves a Deferred.

        It isn't called again before a Deferred of it has fired, nor after the end, nor
        after L{stop}. If the Deferred fails, or this raises something, that's the
        failure of the iteration, and its end.
        """

    def stop(self) -> object:
        """
        End early, and release everything. Nothing happens the second time, or after
        the end.

        If a Deferred of L{fetch} has not fired, it fires with L{END} unless its item
        can still come.
        """


class IteratorSource:
    """A source of what an iterator in the reactor's thread yields."""

    def __init__(self, iterator: Iterator[object]) -> None:
        self._iterator = iterator
        # Whether it's to be closed when it has yielded.
        self._toClose = False

    def fetch(self) -> Item | Deferred[Item]:
        try:
            value = next(self._iterator)
        except StopIteration:
            return END
        except BaseException:  # noqa: BLE001 - the iterator is the user's
            return fail()
        if self._toClose:
            self.stop()
        return value, True, True

    def stop(self) -> None:
        """Close a generator, so that its C{finally} runs."""
        iterator = self._iterator
        # It may be running at the moment, as what leads to this call.
        self._toClose = getattr(iterator, "gi_running", False)
        if self._toClose:
            return
        self._iterator = iter(())
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the iterator is the user's
                log.failure("{iterator} failed to be closed", iterator=iterator)


class FunctionSource:
    """
    A source of what a function answers, time after time: value, validity, and whether
    there may be more, or a Deferred that fires with them.
    """

    tellsMore = True

    def __init__(
        self, name: object, f: Callable[..., object], /, *args: object, **kw: object
    ) -> None:
        self._name = name
        self._call = partial(f, *args, **kw)

    def fetch(self) -> Deferred[Item]:
        return maybeDeferred(self._call).addCallback(self._check)

    def stop(self) -> None:
        """Do nothing: there's nothing that could be released."""

    def _check(self, answer: object) -> Item:
        if isinstance(answer, tuple) and len(answer) == 3:
            return answer
        raise TypeError(
            f"{self._call.func!r} must answer with (value, isValid, moreLeft) when it's"
            f" asked for the next item of {self._name!r}, not with {answer!r}"
        )


class CallableSource(FunctionSource):
    """A source of what a callable returns until it raises the end of a sequence."""

    tellsMore = False

    def fetch(self) -> Deferred[Item]:
        return maybeDeferred(self._call).addCallbacks(
            lambda value: (value, True, True), self._ended
        )

    def _ended(self, failure: Failure) -> Item:
        failure.trap(StopIteration, IndexError)
        return END


class WrappedSource(FunctionSource):
    """A source whose items a callable gets of an iterator, maybe in a thread."""

    def __init__(self, iterator: Iterator[object], wrapper: Wrapper) -> None:
        super().__init__(iterator, wrapper, self._getNext)
        self._iterator = iterator
        # Fetched already, to know that there is one; or why there's none.
        self._ahead: object = NO_ITEM
        self._error: BaseException | None = None
        self._thread = get_ident()

    def stop(self) -> None:
        IteratorSource(self._iterator).stop()

    def _getNext(self) -> Item | Deferred[Item]:
        if get_ident() == self._thread:
            return maybeDeferred(self._next)
        return self._next()

    def _next(self) -> Item:
        if self._error is not None:
            raise self._error
        value, self._ahead = self._ahead, NO_ITEM
        if value is NO_ITEM:
            value = next(self._iterator, NO_ITEM)
        if value is NO_ITEM:
            return END
        try:
            self._ahead = next(self._iterator, NO_ITEM)
        except BaseException as error:  # noqa: BLE001 - told when it's asked for
            self._error = error
        return value, True, self._ahead is not NO_ITEM or self._error is not None


class BufferedSource:
    """
    A source of items that are pushed to it, from another process or thread, say.

    It's used in the reactor's thread only. C{every} may be changed at any time.
    """

    def __init__(
        self,
        onTaken: Callable[[int], object] | None = None,
        onStop: Callable[[], object] | None = None,
        *,
        every: int = 1,
    ) -> None:
        """
        Have no items yet.

        @param onTaken: Called with the number of items that have been taken since the
            last call, so that the other end can be given credit for as many: when
            there are C{every} of them, and when no other is at hand. If C{every} is
            more than 1, not before the next one is asked for. Not after the end.

        @param onStop: Called once, when no more items are wanted, unless the source
            has ended by then.
        """
        # Whether nobody wants the items: what is pushed is dropped.
        self.stopped = False
        # Whether it has been stopped, or told of the end.
        self.ended = False
        self.every = every
        self._items: deque[object] = deque()
        # How it has failed, until fetch has told.
        self._failure: Failure | None = None
        # The Deferred of fetch, while it has not fired. There are no items then.
        self._waiting: Deferred[Item] | None = None
        self._onTaken = onTaken
        self._onStop = onStop
        # Items taken that onTaken hasn't been told of,
        self._taken = 0
        # and those handed over together, which may not have been taken yet.
        self._handed = 0
        # Whether no Deferred has been pushed.
        self._plain = True

    @property
    def atHand(self) -> int:
        """The number of items that have been pushed and not taken."""
        return len(self._items)

    def push(self, items: Iterable[object]) -> None:
        """Add items. After the end that's a RuntimeError."""
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

    def end(self, failure: Failure | None = None) -> None:
        """Tell that there are no more items, or how it has failed. The first counts."""
        if self.ended:
            return
        self.ended = True
        self._failure = failure
        self._onTaken = self._onStop = None
        self._answer()

    def fail(self, failure: Failure | BaseException) -> None:
        self.end(failure if isinstance(failure, Failure) else Failure(failure))

    def fetchMany(self) -> Collection[object] | None:
        if self._handed:
            self._countTaken(0)
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

    def fetch(self) -> Item | Deferred[Item]:
        if self._handed:
            self._countTaken(0)
        items = self._items
        if items:
            item = items.popleft(), True, True
            if self._onTaken is not None:
                self._countTaken(1)
            return item
        failure, self._failure = self._failure, None
        if failure is not None:
            return fail(failure)
        if self.ended:
            return END
        self._waiting = Deferred()
        return self._waiting

    def stop(self) -> None:
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

    def _countTaken(self, count: int) -> None:
        """Count items as taken: those that were handed over together, and others."""
        self._taken += self._handed + count
        self._handed = 0
        if self._onTaken is not None and (not self._items or self._taken >= self.every):
            count, self._taken = self._taken, 0
            self._onTaken(count)

    def _answer(self) -> None:
        """Answer who waits for an item, if there's one or the end."""
        if self._waiting is None or not (self._items or self.ended):
            return
        waiting, self._waiting = self._waiting, None
        d: Deferred[Any] = maybeDeferred(self.fetch)
        d.chainDeferred(waiting)


def sourceOf(
    objOrRep: object,
    f: Callable[..., object] | None,
    args: tuple[object, ...],
    kw: dict[str, object],
) -> ItemSource:
    """Find the source of what a Deferator is made of."""
    if f is not None:
        checkCallable("f", f)
        return FunctionSource(objOrRep, f, *args, **kw)
    if isinstance(objOrRep, ItemSource):
        return objOrRep
    if isIteration(objOrRep):
        return IteratorSource(objOrRep)
    if isinstance(objOrRep, Iterable) and not isinstance(objOrRep, _NOT_ITERABLE):
        return IteratorSource(iter(objOrRep))
    if isinstance(objOrRep, Deferred):
        raise TypeError(
            f"{objOrRep!r} can't be iterated over: wait for it, and give what it fires"
            " with"
        )
    raise TypeError(
        f"{objOrRep!r} can't be iterated over: give an iterator, or text and a function"
        " that returns a Deferred to (value, isValid, moreLeft)"
    )
