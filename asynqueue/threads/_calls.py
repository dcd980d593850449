"""Calls in a thread, and the iterations that come of them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from time import perf_counter
from typing import Any

from attrs import define, field
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
from ._jobs import Job, JobThread

#: How many items are made in advance.
WINDOW = 16

#: How long items are made without a break while other jobs wait.
SLICE_SECONDS = 0.001


@define(eq=False, repr=False)
class ThreadCall(Job):
    """
    A call in a thread.

    The thread writes C{pair}, C{iteration} and C{seconds}, and what L{Job} has. The
    reactor's thread reads them when the call is delivered, and writes the rest.
    """

    _thread: JobThread
    _context: Context
    # A callable, its arguments and keywords; C{None} once it has been made.
    _call: Any
    # Whether an iterator is a result like any other.
    _raw: bool
    _consumer: IConsumer | None
    # Called in the reactor's thread when it has been made or lost, unless it was
    # cancelled.
    _done: Callable[[ThreadCall], object]
    # The status and the result, which is an ErrorText if something was raised. None if
    # what was returned is iterated over in the thread: then that's the iteration.
    pair: StatusResult | None = None
    iteration: ThreadIteration | None = None
    # How long it took.
    seconds: float = 0.0
    # Set if the thread was lost.
    failure: Failure | None = None

    def work(self) -> None:
        f, args, kw = call = self._call
        began = perf_counter()
        try:
            result = self._context.run(f, *args, **kw)
            if type(result) in PLAIN or not self._iterates(result, f):
                self.pair = RAN, result
        except BaseException as error:  # noqa: BLE001 - the callable is the user's
            self.error = trimmed(error)
            name = callText(*call)
            text = ErrorText(errorText(error, name), raisable(error, name))
            self.pair = Status.ERROR, text
        self.seconds = perf_counter() - began
        # What isn't needed any longer is let go in the thread, not in the reactor's.
        del f, args, kw, call
        self._call = None

    def deliver(self) -> None:
        if self._thread.jobs.pop(self, self) is None:
            self._done(self)
        elif self.iteration is not None:
            self.iteration.stop()

    def lose(self, failure: Failure) -> None:
        self.failure = failure
        self._done(self)

    def begin(self) -> StatusResult:
        """
        Begin to hand out the items. This raises what the consumer raises, or that the
        thread was lost.
        """
        if self.failure is not None:
            self.failure.raiseException()
        assert self.iteration is not None
        return Status.ITERATOR, self.iteration.begin(self._consumer)

    def _iterates(self, result: Any, f: object) -> bool:
        """Begin an iteration if that's what was returned. Tell whether it was."""
        checkReturned(result, f)
        if self._raw or not isIteration(result):
            return False
        iteration = self.iteration = ThreadIteration(
            result, self._context, self._thread
        )
        # It's no job of the thread any longer if it was cancelled or lost meanwhile.
        if self._consumer is None and self in self._thread.jobs:
            iteration.makeItem()
        if self not in self._thread.jobs:
            iteration.close()
        return True


@define(eq=False, repr=False)
class ThreadIteration(Job):
    """
    An iterator that is iterated over, and closed, in the thread it was made in.

    It's a job that makes items as long as they're wanted. Whether it's to be done again
    is decided in the reactor's thread alone, so the thread never waits for it.

    The thread writes C{_iterator}, which is C{None} once there are no more items,
    C{_made} and C{error}, and adds to C{_items}. The reactor's thread writes the rest,
    and takes from C{_items}. It puts the job only when the thread hasn't got it.
    """

    _iterator: Iterator[object] | None
    _context: Context
    _thread: JobThread
    _items: deque[object] = field(factory=deque, init=False)
    _made: int = 0
    _allowed: int = WINDOW
    _wanted: bool = True
    # Where the items go, once somebody wants them.
    _source: BufferedSource | None = None

    def makeItem(self) -> bool:
        """Make an item, in the thread. Tell whether there was one."""
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
            failure = failureOf(trimmed(error))
            text = "An iterator failed to be closed"
            self._thread.post(lambda: log.failure(text, failure))

    def begin(self, consumer: IConsumer | None) -> object:
        """
        Begin to hand out items, in the reactor's thread: by a L{Deferator}, or with a
        consumer, by an L{IterationProducer} that isn't running. An iteration that is
        known to have none gives an empty list.
        """
        isOver = self._iterator is None and not self._items and self.error is None
        if isOver and consumer is None:
            return []
        self._thread.iterations[self] = None
        self._source = BufferedSource(self._taken, self.stop, every=WINDOW // 2)
        deferator = Deferator(self._source)
        deferator.reactor = self._thread.reactor
        self._goOn()
        if consumer is None:
            return deferator
        try:
            return IterationProducer(deferator, consumer)
        except BaseException:
            deferator.stop()
            raise

    def stop(self) -> None:
        """Have the iterator closed: nobody wants more items."""
        self._wanted = False
        self._makeMore()

    def lose(self, failure: Failure) -> None:
        self._wanted = False
        self._end(failure)

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
        self._goOn()

    def _goOn(self) -> None:
        """Hand over items, then see what is to be done next."""
        self._handOver()
        if self in self._thread.jobs:
            return  # since items were taken, or it was stopped, meanwhile
        if self.error is not None:
            self._end(failureOf(self.error))
        elif self._iterator is None:
            self._end()
        elif not self._wanted or self._made < self._allowed:
            self._makeMore()

    def _handOver(self) -> None:
        items = []
        while self._items:  # Only when there are none, the thread tells of the next.
            items.append(self._items.popleft())
        # What the thread has made after the end is dropped.
        if items and self._source is not None and not self._source.ended:
            self._source.push(items)

    def _end(self, failure: Failure | None = None) -> None:
        self._handOver()
        self._thread.iterations.pop(self, None)
        if self._source is not None:
            self._source.end(failure)

    def _taken(self, count: int) -> None:
        """Allow for as many more items as have been taken."""
        self._allowed += count
        self._makeMore()

    def _makeMore(self) -> None:
        """Have the thread make more items, or close the iterator."""
        if self not in self._thread.jobs and self._iterator is not None:
            self._thread.put(self)


def resultOf(call: ThreadCall) -> object:
    """
    Get what was returned, or a failure with what was raised. With a consumer, a
    Deferred that fires with that when it has all items.
    """
    if call.failure is not None:
        return call.failure
    if call.error is not None:
        return failureOf(call.error)
    if call.pair is not None:
        return call.pair[1]
    _, result = call.begin()
    return result.run() if isinstance(result, IterationProducer) else result


def trimmed(error: BaseException) -> BaseException:
    """
    Take the frame that called the user's code out of the traceback of the exception
    that is being handled. The exception's own methods aren't called: they are the
    user's.
    """
    trace = sys.exc_info()[2]
    return BaseException.with_traceback(error, trace and trace.tb_next)


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
