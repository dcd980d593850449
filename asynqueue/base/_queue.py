"""The queue between those who put items in and the handler that takes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer

from .._support.awaitable import OneShot
from .._support.checks import checkCallable, checkConsumer, checkSeconds
from .._support.log import log
from ..errors import QueueRunError, QueueStopped
from ..tasks import Task, TaskHandler
from ._load import LoadInfoProducer
from ._priority import Priority
from ._watching import Watcher


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
        self, handler: Callable[[Any], Any], timeout: float | None = None
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

    def put(self, item: Any) -> None:
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

    async def _shutDown(self, timeout: float | None) -> list[Any]:
        items: list[Any] = []
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

    def _putInHeap(self, item: Any, heap: Priority) -> None:
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

    def _resolve(self, result: Any, task: Task) -> Any:
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
