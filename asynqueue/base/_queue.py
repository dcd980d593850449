"""
The queue between those who put items in and the handler that takes them, and the heap
that items for plain handlers wait in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IConsumer

from .._support.awaitable import OneShot
from .._support.checks import checkCallable, checkConsumer, checkSeconds
from .._support.log import log
from ..errors import QueueRunError, QueueStopped
from ..tasks import Task, TaskHandler
from ._load import LoadInfoProducer
from ._watching import Watcher

_T = TypeVar("_T")


class _Entry:
    """An item in the heap. Those of which none is less are ordered by a number."""

    __slots__ = ("item", "order")

    def __init__(self, item: Any, order: int) -> None:
        self.item = item
        self.order = order

    def __lt__(self, other: _Entry) -> bool:
        # Of the items only < is asked.
        if self.item < other.item:
            return True
        return self.order < other.order and not other.item < self.item


class Priority:
    """
    A heap that is waited on: who gets from it while it's empty has a Deferred that
    fires when something is put in.

    Items that compare equal come out in the order in which they were put in.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._getters: deque[Deferred[object]] = deque()
        self._order = 0
        self._running = True

    def __len__(self) -> int:
        """The number of pending items."""
        return len(self._heap)

    def put(self, item: object) -> None:
        """
        Put an item in. The one who has waited longest for an item gets it.

        @param item: The item, which can be compared with the others by C{<}.

        @raise TypeError: If it can't be compared with them.
        """
        if self._getters:
            self._getters.popleft().callback(item)
            return
        self._order += 1
        try:
            heappush(self._heap, _Entry(item, self._order))
        except Exception:
            # It's in the heap, and would have every other item fail as well.
            self._heap = [entry for entry in self._heap if entry.order != self._order]
            heapify(self._heap)
            raise

    def get(self) -> Deferred[Any]:
        """
        Get the lowest item.

        @return: A Deferred that fires with it, at once if there is one. It can be
            cancelled. It fails with L{QueueRunError} after L{shutdown}.
        """
        if self._heap:
            return succeed(heappop(self._heap).item)
        if not self._running:
            return fail(QueueRunError("This heap has been shut down"))
        d: Deferred[object] = Deferred(self._getters.remove)
        self._getters.append(d)
        return d

    def cancel(self, selector: Callable[[Any], object]) -> list[Any]:
        """
        Remove pending items.

        @param selector: Called with each item; true to remove it.

        @return: The items that were removed, in their order.
        """
        kept: list[_Entry] = []
        removed: list[_Entry] = []
        for entry in sorted(self._heap):
            (removed if selector(entry.item) else kept).append(entry)
        self._heap = kept
        heapify(self._heap)
        return [entry.item for entry in removed]

    def shutdown(self) -> None:
        """Fail all Deferreds that wait for an item, with L{QueueRunError}."""
        self._running = False
        while self._getters:
            self._getters.popleft().errback(
                QueueRunError("This heap has been shut down")
            )


class Queue:
    """
    A queue of items for a handler.

    A L{TaskHandler} is called with each task at once: it has the tasks wait for
    workers, apart by series. Any other handler is called with one item after the other,
    lowest first, each when the Deferred that it has returned for the last one has
    fired.

    @ivar handler: The handler.

    @ivar timeout: Seconds after which workers that haven't stopped are crashed at
        shutdown. C{None} for never.

    @ivar loadInfoProducer: Tells the number of items without a result.

    @ivar watcher: Notes how long tasks wait and run.
    """

    # A TaskHandler keeps what waits, so that there's no _heap.

    def __init__(
        self, handler: Callable[[Any], object], timeout: float | None = None
    ) -> None:
        """
        @param handler: The handler.

        @param timeout: Seconds after which workers that haven't stopped are crashed
            at shutdown. C{None}, or 0, to wait as long as it takes.

        @raise TypeError: If the handler isn't callable.
        """
        checkCallable("The handler of a queue", handler)
        if timeout:
            checkSeconds("timeout", timeout)
        self.handler: Any = handler
        self.timeout = timeout or None
        self.loadInfoProducer = LoadInfoProducer()
        self.watcher = Watcher(self.loadInfoProducer)
        self._running = True
        self._heap: Priority | None = None
        # The feeding of a plain handler has ended.
        self._fed: OneShot[None] = OneShot()
        if not isinstance(handler, TaskHandler):
            self._heap = Priority()
            Deferred.fromCoroutine(self._feed(self._heap))

    def __len__(self) -> int:
        """The number of items that are waiting."""
        if self._heap is None:
            waiting: int = self.handler.waiting
            return waiting
        return len(self._heap)

    def __bool__(self) -> bool:
        """A queue is true, also an empty one."""
        return True

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes items.

        @return: C{False} once it has been shut down.
        """
        return self._running

    def put(self, item: object) -> None:
        """
        Put an item in. Nothing happens if the queue isn't running.

        @param item: The item, not C{None}.

        @raise ValueError: If it is C{None}, the sentinel of shutdown; or a task that
            was put in before.

        @raise TypeError: If it can't be compared with the other items, or isn't a task
            and the handler is a L{TaskHandler}.
        """
        if item is None:
            raise ValueError("None can't be queued")
        if self._heap is not None:
            self._putInHeap(item, self._heap)
            return
        if not isinstance(item, Task):
            raise TypeError(f"A TaskHandler takes tasks, not {item!r}")
        if item.owner is not None or item.worker is not None or item.d.called:
            raise ValueError(
                f"{item!r} is queued already, or has been run: queue its copy()"
            )
        if not self._running:
            return
        if item.resolve is None:
            item.resolve = self._resolve
        # Consumers of the load are told by this, and may shut the queue down.
        load = self.loadInfoProducer
        load.oneMore()
        if load.begun >= self.watcher.next:
            self.watcher.watch(item)
        try:
            self.handler(item)
        except QueueRunError:
            item.errback(
                QueueStopped(f"The queue was shut down before {item!r} was run")
            )
        except Exception:
            load.oneLess()
            raise

    def subscribe(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer whenever it changes: the number of items that
        were put in and have no result yet.

        @param consumer: The consumer; it's written C{int}s.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.
        """
        checkConsumer(consumer)
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
        if timeout is None:
            timeout = self.timeout
        return Deferred.fromCoroutine(self._shutDown(timeout))

    async def _shutDown(self, timeout: float | None) -> list[object]:
        items: list[object] = []
        if self._heap is None:
            items += await self.handler.shutdown(timeout)
        else:
            items += self._cancel(lambda item: True)
            self._heap.shutdown()
            await self._fed.wait()
            shutdown = getattr(self.handler, "shutdown", None)
            if shutdown is not None:
                # Not all that have a method of this name expect to be told seconds.
                given = () if timeout is None else (timeout,)
                items += await maybeDeferred(shutdown, *given) or ()
        self.loadInfoProducer.shutdown()
        return items

    async def _feed(self, heap: Priority) -> None:
        """
        Hand one item after the other to a plain handler, until the heap is shut down.
        """
        while True:
            try:
                item = await heap.get()
            except QueueRunError:
                self._fed.fire(None)
                return
            try:
                await maybeDeferred(self.handler, item)
            except Exception:  # noqa: BLE001 - the handler is the user's
                log.failure("{handler} failed to take an item", handler=self.handler)
            self.loadInfoProducer.oneLess()

    def _putInHeap(self, item: object, heap: Priority) -> None:
        if not self._running:
            return
        self.loadInfoProducer.oneMore()
        try:
            if not self.isRunning():  # A consumer of the load has shut the queue down.
                self.loadInfoProducer.oneLess()
            else:
                heap.put(item)
        except Exception:
            self.loadInfoProducer.oneLess()
            raise

    def _resolve(self, result: _T, task: Task) -> _T:
        """Count a task that has its result, and leave that as it is."""
        if task.watch is not None:
            task.watch.done(task)
        self.loadInfoProducer.oneLess()
        return result

    def _cancel(self, selector: Callable[[Any], bool]) -> list[Any]:
        items: list[Any]
        if self._heap is None:
            items = self.handler.withdraw(selector)
            for item in items:
                item.errback(CancelledError())
        else:
            items = self._heap.cancel(selector)
            for _ in items:
                self.loadInfoProducer.oneLess()
        return items
