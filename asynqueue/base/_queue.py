"""
The queue between those who put items in and the handler that takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._support.checks import checkSeconds
from .._support.log import log
from ..errors import ImplementationError
from ..tasks import TaskHandler
from ..tasks._task import Task
from ._load import LoadInfoProducer
from ._priority import Priority

__all__ = ["Queue"]


class _Feed(Protocol):
    """
    What a queue asks of that which its items go to. L{TaskHandler} has it.
    """

    @property
    def waiting(self) -> int:
        """
        The number of items that are waiting.
        """

    def enqueue(self, item: Any) -> None:
        """
        Take an item.

        @param item: The item.
        """

    def withdraw(self, selector: Callable[[Any], bool]) -> list[Any]:
        """
        Take out waiting items.

        @param selector: True for those to take out.

        @return: The items.
        """

    def shutdown(self, timeout: float | None = None) -> Deferred[list[Any]]:
        """
        Take no more items.

        @param timeout: Seconds.

        @return: A Deferred that fires with the items that were left unhandled.
        """


class _OneByOne:
    """
    Feeds a plain handler: a callable that is given the lowest item, and then no other
    until its Deferred has fired.
    """

    def __init__(self, handler: Callable[[Any], Any], done: Callable[[], None]) -> None:
        """
        Start feeding.

        @param handler: Called with each item; may return a Deferred.

        @param done: Called when an item has been handled.
        """
        self._heap = Priority()
        self._handler = handler
        self._done = done
        self._idle = True
        self._waiters: list[Deferred[Any]] = []
        self._ready = False
        self._looping = False
        self._next()

    @property
    def waiting(self) -> int:
        """
        The number of items that are waiting.
        """
        return len(self._heap)

    def enqueue(self, item: Any) -> None:
        """
        Take an item.

        @param item: The item.
        """
        self._heap.put(item)

    def withdraw(self, selector: Callable[[Any], bool]) -> list[Any]:
        """
        Take out waiting items.

        @param selector: True for those to take out.

        @return: The items.
        """
        return self._heap.cancel(selector)

    def shutdown(self, timeout: float | None = None) -> Deferred[list[Any]]:
        """
        Take no more items.

        @param timeout: Passed on to the handler's own C{shutdown}, if it has one.

        @return: A Deferred that fires with the items that were left unhandled, after
            the handler is done with the one that it has.
        """
        items = self._heap.cancel(lambda item: True)
        self._heap.shutdown()
        done: Deferred[Any] = Deferred()
        if self._idle:
            done.callback(None)
        else:
            self._waiters.append(done)
        shutdown = getattr(self._handler, "shutdown", None)
        if shutdown is not None:
            # Not all that have a method of this name expect to be told the seconds.
            given = () if timeout is None else (timeout,)
            done.addCallback(lambda _: shutdown(*given))
        return done.addCallback(lambda more: items + list(more or ()))

    def _next(self) -> None:
        """
        Wait for the next item.
        """
        self._heap.get().addCallbacks(self._handle, lambda _: None)

    def _handle(self, item: Any) -> None:
        """
        Give an item to the handler.

        @param item: The item.
        """
        self._idle = False
        maybeDeferred(self._handler, item).addErrback(self._failed).addBoth(
            self._handled
        )

    def _failed(self, failure: Failure) -> None:
        """
        Log that the handler has failed.

        @param failure: How.
        """
        log.failure("{handler} failed to take an item", failure, handler=self._handler)

    def _handled(self, _: object) -> None:
        """
        Go on after the handler's Deferred has fired. What is at hand is handled in a
        loop, not in one call within the other.

        @param _: What it has fired with.
        """
        self._idle = True
        self._done()
        waiters, self._waiters = self._waiters, []
        for d in waiters:
            d.callback(None)
        self._ready = True
        if self._looping:
            return
        self._looping = True
        while self._ready:
            self._ready = False
            self._next()
        self._looping = False


class Queue:
    """
    Items on their way to a handler, lowest first.

    A L{TaskHandler} takes all items, which must be tasks, and lets those wait that no
    worker is ready for. Any other callable is given one item at a time.

    @ivar handler: The handler.

    @ivar timeout: Seconds that the handler has to shut down, or C{None}.

    @ivar loadInfoProducer: Produces the load, see L{subscribe}.
    """

    def __init__(
        self, handler: Callable[[Any], Any], timeout: float | None = None
    ) -> None:
        """
        Make a queue.

        @param handler: A L{TaskHandler}, or a callable that takes an item and may
            return a Deferred that fires when it's ready for the next.

        @param timeout: Seconds after which workers that haven't stopped are crashed
            at shutdown. C{None} to wait as long as it takes.

        @raise TypeError: If the handler isn't callable.
        """
        if not callable(handler):
            raise TypeError(f"The handler of a queue must be callable, not {handler!r}")
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        self.handler = handler
        self.timeout = timeout
        self.loadInfoProducer = LoadInfoProducer()
        self._running = True
        self._feed: _Feed
        self._tasks = isinstance(handler, TaskHandler)
        if isinstance(handler, TaskHandler):
            self._feed = handler
        else:
            self._feed = _OneByOne(handler, self.loadInfoProducer.oneLess)

    def __len__(self) -> int:
        """
        The number of items that are waiting.
        """
        return self._feed.waiting

    def __bool__(self) -> bool:
        """
        A queue is true, also an empty one.
        """
        return True

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes items.

        @return: C{False} once it has been shut down.
        """
        return self._running

    def put(self, item: Any) -> None:
        """
        Put an item in. Nothing happens if the queue isn't running.

        @param item: The item, not C{None}.

        @raise ValueError: If it is C{None}, the sentinel of shutdown.

        @raise TypeError: If it can't be compared with the other items, or isn't a task
            and the handler is a L{TaskHandler}.
        """
        if item is None:
            raise ValueError("None can't be queued")
        if self._tasks and not isinstance(item, Task):
            raise TypeError(f"A TaskHandler takes tasks, not {item!r}")
        if not self._running:
            return
        self.loadInfoProducer.oneMore()
        try:
            self._feed.enqueue(item)
        except Exception:
            self.loadInfoProducer.oneLess()
            raise
        if self._tasks:
            item.d.addBoth(self._hasResult)

    def subscribe(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer whenever it changes: the number of items that
        were put in and have no result yet.

        @param consumer: The consumer; it's written C{int}s.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.
        """
        if not IConsumer.providedBy(consumer):
            raise ImplementationError(
                f"{consumer!r} doesn't provide IConsumer: is its class marked with"
                " @implementer(IConsumer)?"
            )
        self.loadInfoProducer.registerConsumer(consumer)

    def cancelSeries(self, series: Hashable) -> list[Any]:
        """
        Take out all waiting items of a series. The Deferreds of tasks fail with
        C{CancelledError}. Items without an attribute C{series} are of series C{None}.

        @param series: The series.

        @return: The items.
        """
        return self._cancel(lambda item: bool(getattr(item, "series", None) == series))

    def cancelAll(self) -> list[Any]:
        """
        Take out all waiting items. The Deferreds of tasks fail with
        C{CancelledError}.

        @return: The items.
        """
        return self._cancel(lambda item: True)

    def shutdown(self, timeout: float | None = None) -> Deferred[list[Any]]:
        """
        Take no more items, and shut the handler down.

        @param timeout: Seconds for that, by default L{timeout}.

        @return: A Deferred that fires with a list of the items left unhandled.
        """
        self._running = False
        d = self._feed.shutdown(self.timeout if timeout is None else timeout)
        return d.addCallback(self._hasShutDown)

    def _hasShutDown(self, items: list[Any]) -> list[Any]:
        """
        Let go of whoever listens to the load.

        @param items: The items left.

        @return: The same.
        """
        self.loadInfoProducer.shutdown()
        return items

    def _hasResult(self, result: Any) -> Any:
        """
        Count a task that has its result.

        @param result: The result.

        @return: The same.
        """
        self.loadInfoProducer.oneLess()
        return result

    def _cancel(self, selector: Callable[[Any], bool]) -> list[Any]:
        """
        Take out items, and tell those who wait for them.

        @param selector: True for those to take out.

        @return: The items.
        """
        items = self._feed.withdraw(selector)
        for item in items:
            if self._tasks:
                item.errback(Failure(CancelledError()))
            else:
                self.loadInfoProducer.oneLess()
        return items
