"""Calls in a thread, and the iterations that come of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._child.calls import isIteration, raisable
from .._child.describe import PLAIN, callText, errorText
from .._child.status import RAN, ErrorText, Status, StatusResult
from .._support.checks import checkDeliverable, checkReturned
from .._support.log import log
from ..errors import ThreadError
from ..iteration import Deferator, IterationProducer
from ..iteration._sources import BufferedSource
from ._jobs import Job, JobThread, trimmed

#: How many items are made in advance.
WINDOW = 16

#: How long items are made without a break while other jobs wait.
SLICE_SECONDS = 0.001


class ThreadCall(Job):
    """
    A call in a thread.

    The thread writes C{result}, C{seconds} and C{iteration}, and what L{Job} has. The
    reactor's thread reads them when the call is delivered, and writes the rest.

    @ivar result: What was returned; if something was raised, an L{ErrorText}.

    @ivar seconds: How long it took.

    @ivar failure: C{None} unless the thread was lost.

    @ivar iteration: What was returned if that's iterated over in the thread.
    """

    __slots__ = (
        "_call",
        "_consumer",
        "_context",
        "_done",
        "_dropped",
        "_raw",
        "_thread",
        "failure",
        "iteration",
        "result",
        "seconds",
    )

    def __init__(
        self,
        thread: JobThread,
        context: Context,
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        raw: bool,
        consumer: IConsumer | None,
        done: Callable[[ThreadCall], object],
    ) -> None:
        """
        @param done: Called in the reactor's thread when the call has been made or lost,
            unless it was cancelled.
        """
        self.error = None
        self.finished = False
        self._thread = thread
        self._context = context
        self._call: Any = call
        self._raw = raw
        self._consumer = consumer
        self._done = done
        self._dropped = False
        self.result: Any = None
        self.seconds = 0.0
        self.failure: Failure | None = None
        self.iteration: ThreadIteration | None = None

    def work(self) -> None:
        f, args, kw = call = self._call
        began = perf_counter()
        try:
            result = self._context.run(f, *args, **kw)
            if type(result) in PLAIN or not self._iterates(result, f):
                self.result = result
        except BaseException as error:  # noqa: BLE001 - the callable is the user's
            self.error = trimmed(error)
            text = callText(*call)
            self.result = ErrorText(errorText(error, text), raisable(error, text))
        self.seconds = perf_counter() - began
        # What isn't needed any longer is let go in the thread, not in the reactor's.
        del f, args, kw, call
        self._call = None

    def deliver(self) -> None:
        self._thread.jobs.pop(self, None)
        if not self._dropped:
            self._done(self)
        elif self.iteration is not None:
            self.iteration.discard()

    def lose(self, failure: Failure) -> None:
        self._dropped = True
        self.failure = failure
        self._done(self)

    def cancel(self, abandon: bool = False) -> None:
        """Forget the call, in the reactor's thread; see L{JobThread.cancel}."""
        self._dropped = True
        self._thread.cancel(self, abandon)

    def outcome(self) -> StatusResult:
        """
        Get the status/result pair, in the reactor's thread, once.

        @raise Exception: What the consumer's C{registerProducer} has raised.
        """
        if self.iteration is not None:
            return Status.ITERATOR, self.iteration.begin(self._consumer)
        return (RAN if self.error is None else Status.ERROR), self.result

    def _iterates(self, result: Any, f: Any) -> bool:
        """
        Begin an iteration if that's what was returned, and refuse what's of no use.

        @return: Whether it was.
        """
        checkReturned(result, f)
        if self._raw or not isIteration(result):
            return False
        iteration = self.iteration = ThreadIteration(
            result, self._context, self._thread
        )
        if self._consumer is None and not self._dropped:
            iteration.makeItem()
        if self._dropped:
            iteration.close()
        return True


class ThreadIteration(Job):
    """
    An iterator that is iterated over, and closed, in the thread it was made in.

    It's a job that makes items as long as they're wanted. Whether it's to be done again
    is decided in the reactor's thread alone, so the thread never waits for it.

    The thread writes C{_iterator}, C{_made}, C{_closeError} and C{error}, and adds to
    C{_items}. The reactor's thread writes the rest, and takes from C{_items}. While
    C{_working}, the job is the thread's, and will be delivered.
    """

    __slots__ = (
        "_allowed",
        "_closeError",
        "_context",
        "_items",
        "_iterator",
        "_made",
        "_over",
        "_source",
        "_thread",
        "_wanted",
        "_working",
    )

    def __init__(
        self, iterator: Iterator[Any], context: Context, thread: JobThread
    ) -> None:
        self.error = None
        self.finished = False
        self._iterator: Iterator[Any] | None = iterator
        self._context = context
        self._thread = thread
        self._items: deque[Any] = deque()
        self._made = 0
        self._closeError: BaseException | None = None
        self._allowed = WINDOW
        self._wanted = True
        self._working = False
        self._over = False  # Whether the source knows the end, or there is none.
        self._source: BufferedSource | None = None

    def makeItem(self) -> bool:
        """
        Make an item, in the thread.

        @return: Whether there was one.
        """
        try:
            value = self._context.run(next, self._iterator)  # type: ignore[arg-type]
            if type(value) not in PLAIN:
                checkDeliverable(value)
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self._iterator = None
            if not issubclass(type(error), StopIteration):
                self.error = trimmed(error)
            return False
        self._made += 1
        self._items.append(value)
        return True

    def close(self) -> None:
        """Close the iterator, in the thread, so that its C{finally} runs here."""
        iterator, self._iterator = self._iterator, None
        try:
            close = getattr(iterator, "close", None)
            if close is not None:
                self._context.run(close)
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self._closeError = trimmed(error)

    def begin(self, consumer: IConsumer | None) -> Any:
        """
        Begin to hand out items, in the reactor's thread.

        @return: A L{Deferator}; an empty list if it has turned out that there are no
            items; or with a consumer, an L{IterationProducer}, which isn't running.
        """
        if self._isEmpty() and consumer is None:
            return []
        reactor = self._thread.reactor
        self._thread.iterations[self] = None
        self._source = BufferedSource(self._taken, self._stop, every=WINDOW // 2)
        deferator = Deferator(self._source)
        deferator.reactor = reactor
        self._goOn()
        if consumer is None:
            return deferator
        try:
            return IterationProducer(deferator, consumer, reactor=reactor)
        except BaseException:
            deferator.stop()
            raise

    def discard(self) -> None:
        """Have the iterator closed of which nothing has been handed out."""
        self._over = True
        self._stop()

    def lose(self, failure: Failure) -> None:
        self._wanted = False
        self._over = True
        if self._source is not None:
            self._source.push(self._takeItems())
            self._source.fail(failure)

    def work(self) -> None:
        began = perf_counter()
        while self._wanted and self._made < self._allowed and self.makeItem():
            if len(self._items) == 1:  # Otherwise, a _handOver is pending.
                self._thread.post(self._handOver)
            if self._thread.isWanted() and perf_counter() - began >= SLICE_SECONDS:
                break
        if not self._wanted:
            self.close()

    def deliver(self) -> None:
        self._thread.jobs.pop(self, None)
        self._working = False
        if self._closeError is not None:
            error, self._closeError = self._closeError, None
            log.failure("An iterator failed to be closed", failureOf(error))
        if not self._over:
            self._goOn()

    def _goOn(self) -> None:
        """Hand over items, then see what is to be done next."""
        self._handOver()
        if self._working or self._over:
            return  # since items were taken, or it was stopped, meanwhile
        if self._iterator is None or self.error is not None:
            self._end()
        elif not self._wanted or self._made < self._allowed:
            self._makeMore()

    def _makeMore(self) -> None:
        self._working = True
        self._thread.put(self)

    def _handOver(self) -> None:
        if self._source is not None and (items := self._takeItems()):
            self._source.push(items)

    def _takeItems(self) -> list[Any]:
        items, taken = self._items, []
        while items:
            taken.append(items.popleft())
        return taken

    def _isEmpty(self) -> bool:
        return self._iterator is None and not self._items and self.error is None

    def _end(self) -> None:
        assert self._source is not None
        self._over = True
        self._thread.iterations.pop(self, None)
        error, self.error = self.error, None
        if error is None:
            self._source.end()
        else:
            self._source.fail(failureOf(error))

    def _taken(self, count: int) -> None:
        """Allow for as many more items as have been taken."""
        self._allowed += count
        if not (self._working or self._over or self._iterator is None):
            self._makeMore()

    def _stop(self) -> None:
        """Have the iterator closed: nobody wants more items."""
        self._wanted = False
        if not self._working and self._iterator is not None:
            self._makeMore()


def failureOf(error: BaseException) -> Failure:
    """
    Make a failure, of another error if this one is so odd that it can't be asked for
    its class or its traceback.
    """
    try:
        return Failure(error)
    except BaseException:  # noqa: BLE001 - the exception's properties are the user's
        name = type(error).__qualname__
        return Failure(ThreadError(f"What was raised can't be handed over: {name}"))
