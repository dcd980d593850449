"""
Iterations in a thread, whose items are taken in the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from time import perf_counter
from typing import Any, Protocol

from twisted.python.failure import Failure

from .._support.log import log
from ..iteration import Deferator
from ..iteration._sources import BufferedSource
from ._loop import Job

__all__ = ["ThreadIteration"]

#: So many items are made that have not been taken.
_WINDOW = 16

#: Seconds for which items are made at a stretch if the thread has something else to do.
_STRETCH = 0.001


class IterationOwner(Protocol):
    """
    Who has a thread for iterations.
    """

    def put(self, job: Job) -> None:
        """
        Give the thread a job.

        @param job: The job.
        """

    def isWanted(self) -> bool:
        """
        Tell whether the thread has something else to do. Called in it.

        @return: Whether it has.
        """

    def tell(self, job: Job) -> None:
        """
        Have a job delivered that isn't done yet. Called in the thread.

        @param job: The job.
        """

    def iterationEnded(self, iteration: ThreadIteration) -> None:
        """
        Note that an iteration needs the thread no longer.

        @param iteration: The iteration.
        """


class ThreadIteration:
    """
    An iterator that is iterated over, and closed, in the thread it was made in.

    It's a job that makes items as long as they're wanted. Whether it's to be done again
    is decided in the reactor's thread alone, so the thread never waits for it.

    The thread writes the items, C{_made}, C{_over}, C{_error}, C{_closeError}, and
    C{_working}, which it only lowers, after all else. The reactor's thread writes
    C{_allowed} and C{_wanted}, and raises C{_working} when it puts the job.
    """

    __slots__ = (
        "_allowed",
        "_closeError",
        "_context",
        "_ended",
        "_error",
        "_items",
        "_iterator",
        "_made",
        "_over",
        "_owner",
        "_posted",
        "_puts",
        "_source",
        "_wanted",
        "_working",
    )

    def __init__(
        self, iterator: Iterator[Any], context: Context, owner: IterationOwner
    ) -> None:
        """
        Take an iterator.

        @param iterator: The iterator.

        @param context: The context to iterate in.

        @param owner: Who has the thread.
        """
        self._iterator: Iterator[Any] | None = iterator
        self._context = context
        self._owner = owner
        self._items: deque[Any] = deque()
        self._made = 0
        self._allowed = _WINDOW
        self._wanted = True
        self._working = True
        self._puts = 0
        self._posted = True
        self._over = False
        self._ended = False
        self._error: BaseException | None = None
        self._closeError: BaseException | None = None
        self._source: BufferedSource | None = None

    def first(self) -> None:
        """
        Make the first item, in the thread, before anything is known of the iteration
        in the reactor.
        """
        if self._wanted:
            self._next()
        if not self._wanted:
            self._close()
        self._working = False

    def hold(self) -> None:
        """
        Make nothing yet.
        """
        if not self._wanted:
            self._close()
        self._working = False

    def begin(self) -> Deferator:
        """
        Begin to hand out items, in the reactor's thread.

        @return: What they are taken from.
        """
        source = BufferedSource(self._taken, self._stop, every=_WINDOW // 2)
        self._source = source
        deferator = Deferator(source)
        self._posted = False
        self._update()
        return deferator

    @property
    def empty(self) -> bool:
        """
        Whether it has turned out that there are no items, nor a failure.
        """
        return self._over and not self._items and self._error is None

    def drop(self) -> None:
        """
        Have the thread close the iterator if it's at the first item still: nobody wants
        it.
        """
        self._wanted = False

    def discard(self) -> None:
        """
        Have the iterator closed of which nothing has been handed out.
        """
        self._wanted = False
        self._ended = True
        if not self._over:
            self._owner.put(self)

    def lose(self, failure: Failure) -> None:
        """
        Give the iteration up: its thread is lost. The iterator is closed there should
        the thread come back to it.

        @param failure: What the iteration fails with after the items that are there.
        """
        self._wanted = False
        self._ended = True
        if self._source is not None:
            self._source.push(self._takeItems())
            self._source.fail(failure)

    def work(self) -> None:
        """
        Implement L{Job.work}: make items.
        """
        began = perf_counter()
        while self._wanted and self._made < self._allowed and self._next():
            if self._owner.isWanted() and perf_counter() - began >= _STRETCH:
                break
            if not self._posted:
                self._posted = True
                self._owner.tell(self)
        if not self._wanted:
            self._close()
        self._working = False

    def deliver(self) -> None:
        """
        Implement L{Message.deliver}: hand over what there is, and go on if that's
        wanted.
        """
        self._posted = False
        if self._closeError is not None:
            error, self._closeError = self._closeError, None
            log.failure("An iterator failed to be closed", Failure(error))
        if not self._ended:
            self._update()

    def _update(self) -> None:
        """
        Hand over items, and see what is to be done next.
        """
        assert self._source is not None
        # Before the items are taken, since the last may come before it's lowered.
        working = self._working
        puts = self._puts
        if items := self._takeItems():
            self._source.push(items)
        if working or puts != self._puts:
            return  # There will be another message.
        if self._over:
            if not self._ended:
                self._end()
        elif not self._wanted or self._made < self._allowed:
            self._go()

    def _end(self) -> None:
        """
        Tell of the end.
        """
        assert self._source is not None
        self._ended = True
        error, self._error = self._error, None
        self._owner.iterationEnded(self)
        if error is None:
            self._source.end()
        else:
            self._source.fail(Failure(error))

    def _go(self) -> None:
        """
        Have the thread go on.
        """
        self._working = True
        self._puts += 1
        self._owner.put(self)

    def _taken(self, count: int) -> None:
        """
        Allow for as many more items as have been taken.

        @param count: How many.
        """
        self._allowed += count
        if not (self._working or self._over or self._ended):
            self._go()

    def _stop(self) -> None:
        """
        Have the iterator closed: nobody wants more items.
        """
        self._wanted = False
        if not (self._working or self._over or self._ended):
            self._go()

    def _takeItems(self) -> list[Any]:
        """
        Take the items that the thread has made.

        @return: The items.
        """
        items, taken = self._items, []
        while items:
            taken.append(items.popleft())
        return taken

    def _next(self) -> bool:
        """
        Make an item, in the thread.

        @return: Whether there was one.
        """
        assert self._iterator is not None
        try:
            value = self._context.run(next, self._iterator)
        except StopIteration:
            self._iterator = None
            self._over = True
            return False
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self._iterator = None
            self._error = _withoutFrame(error)
            self._over = True
            return False
        self._made += 1
        self._items.append(value)
        return True

    def _close(self) -> None:
        """
        Close the iterator, in the thread, so that its C{finally} runs here.
        """
        iterator, self._iterator = self._iterator, None
        close: Callable[[], object] | None = getattr(iterator, "close", None)
        if close is not None:
            try:
                self._context.run(close)
            except BaseException as error:  # noqa: BLE001 - the iterator is the user's
                self._closeError = _withoutFrame(error)
        self._over = True


def _withoutFrame(error: BaseException) -> BaseException:
    """
    Take the frame that called the user's code out of a traceback.

    @param error: The exception.

    @return: The same.
    """
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace is not None else None)
