"""An iterator that waits for its items in blocking code, and the line they come by."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python import threadable

from .._support.awaitable import OneShot
from .._support.checks import checkCount
from ..errors import ThreadError
from ._jobs import threadedReactor
from ._pool import PoolUser, ThreadPool


class Closed(Exception):
    """Nothing can be put into a channel that has been closed."""


class Empty(Exception):
    """A channel is empty, and isn't to be waited for."""


class Channel:
    """
    A line of items, put in at one end and taken out at the other. Either end may be
    used by any number of threads.

    One lock guards all of it. It's held for a few instructions only.

    @ivar limit: How many items fill it.

    @ivar closed: Whether nothing can be put in any longer.

    @ivar isDeserted: Whether those who took items have left.
    """

    def __init__(self, limit: int, onRoom: Callable[[], object]) -> None:
        """
        @param onRoom: Called in the thread of a reader when the channel is half empty,
            after L{put} has told that it was full.
        """
        self.limit = limit
        self.closed = False
        self._onRoom = onRoom
        self._items: deque[Any] = deque()
        self._lock = threading.Condition()
        self._toldFull = False
        # How many readers have come and not left. _isRead from when somebody takes an
        # item until the last reader leaves; from then on isDeserted, until somebody
        # takes an item again.
        self._readers = 0
        self._isRead = False
        self.isDeserted = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Any) -> bool:
        """
        Put an item in, without waiting even if the channel is full.

        @return: Whether the channel is full now.

        @raise Closed: If it has been closed.
        """
        with self._lock:
            self._add(item)
            full = len(self._items) >= self.limit
            self._toldFull = self._toldFull or full
        return full

    def putWaiting(self, item: Any, unread: bool = True) -> None:
        """
        Put an item in. If the channel is full, wait first, unless nobody takes items
        and C{unread} is false.

        @raise Closed: If it has been closed, before or while waiting.
        """
        with self._lock:
            while (
                len(self._items) >= self.limit
                and not self.closed
                and (unread or self._isRead)
            ):
                self._lock.wait()
            self._add(item)

    def get(self, wait: bool = True) -> Any:
        """
        Take an item out. Wait until there's one, or the channel is closed.

        @raise StopIteration: If the channel has been closed and is empty. The first
            time, what it was closed with is raised instead if that was an exception.

        @raise Empty: If there's none and it isn't to be waited for.
        """
        room = False
        with self._lock:
            self._isRead = True
            self.isDeserted = False
            while not self._items:
                if self.closed:
                    error, self._error = self._error, None
                    raise StopIteration if error is None else error
                if not wait:
                    raise Empty
                self._lock.wait()
            item = self._items.popleft()
            self._lock.notify_all()
            if self._toldFull and len(self._items) <= self.limit // 2:
                self._toldFull = False
                room = True
        if room:
            self._onRoom()
        return item

    def readerCame(self) -> None:
        """Count one reader more."""
        with self._lock:
            self._readers += 1

    def readerLeft(self) -> None:
        """Count one reader less."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._isRead = False
                self.isDeserted = True
                self._lock.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """
        Let nothing more in. What's there can still be taken. The first call counts.

        @param error: What is to be raised after that, C{None} for just the end.
        """
        with self._lock:
            if not self.closed:
                self.closed = True
                self._error = error
                self._lock.notify_all()

    def clear(self) -> None:
        """Forget what's in the channel, and the exception that it was closed with."""
        with self._lock:
            self._items.clear()
            self._error = None

    def _add(self, item: Any) -> None:
        if self.closed:
            raise Closed
        self._items.append(item)
        self._lock.notify_all()


#: How many items may wait for the reader before the producer is held up.
LIMIT = 16

#: As from a DeferredList: pairs of success and result.
Done: TypeAlias = list[tuple[bool, Any]]


class IterationStopper:
    """
    What ends an iteration when it is written like an item, as class or as instance.
    """


class IterationGetter(PoolUser):
    """
    An iterator for blocking code: it waits for its next item, which comes from
    elsewhere. To be iterated over in any thread but the reactor's.

    Subclasses say where the items come from. One that makes them in a thread overrides
    L{loop}, which gives them to L{produce}.

    Readers, which are in other threads, use the channel, raise C{_told}, and call the
    reactor for everything else.

    @cvar IterationStopper: An item that ends the iteration.
    """

    IterationStopper = IterationStopper

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make an iterator without items.

        @param maxThreads: See L{PoolUser}, as for C{ownPool}.

        @param limit: How many items may wait before the producer is held up.

        @param reactor: The reactor. By default, the global one.

        @raise ValueError: If a number isn't a positive integer.
        """
        checkCount("limit", limit, 1)
        super().__init__(maxThreads, ownPool=ownPool)
        self._reactor = threadedReactor(reactor)
        self._channel = Channel(
            limit, lambda: self._reactor.callFromThread(self._hasRoom)
        )
        self._started = False
        self._listening = False
        self._stopping = False
        # Whether a reader has been told of the end.
        self._told = False
        self._done: OneShot[Done] = OneShot()

    @property
    def runState(self) -> str:
        """
        How far it has come: C{'init'}; C{'started'}; C{'running'} when it takes items,
        which it does at once unless L{loop} makes them; C{'stopping'} when no further
        items are let in; C{'stopped'} when the reader has been told of the end.
        """
        if self._told or self._done.hasFired:
            return "stopped"
        if self._channel.closed:
            return "stopping"
        if self._listening:
            return "running"
        return "started" if self._started else "init"

    def __iter__(self) -> _Reader:
        """Iterate. When the iterator is released, the reader is known to have left."""
        return _Reader(self)

    def __next__(self) -> Any:
        """
        Wait for the next item.

        @return: The item.

        @raise StopIteration: If there are no more.

        @raise Exception: What has ended the iteration early, after the items before it.

        @raise ThreadError: If there's none yet, and waiting would block the reactor.
        """
        try:
            return self._channel.get(wait=not inReactorThread())
        except Empty:
            raise ThreadError(
                f"{self!r} has no item yet, and waiting for it here would block the"
                " reactor: iterate in another thread"
            ) from None
        except BaseException:
            if not self._told:
                self._told = True
                self._reactor.callFromThread(self._finish)
            raise

    def start(self) -> None:
        """
        Begin. If L{loop} has been overridden, it's run in a thread. Nothing happens the
        second time.

        @raise ThreadError: If no thread can be started for that.
        """
        if self._started:
            return
        if type(self).loop is IterationGetter.loop:
            self._listening = True
        else:
            self.pool.deferToOwnThread(self._runLoop).addCallbacks(
                lambda _: self._channel.close(),
                lambda failure: self._channel.close(failure.value),
            )
        self._started = True

    def loop(self) -> None:
        """
        Make items, in a thread, and give each to L{produce}. The iteration ends when
        this returns. What it raises is raised in the reader, too, after the items.

        To be overridden by subclasses whose items aren't made elsewhere.
        """

    def produce(self, item: Any) -> None:
        """
        Add an item, for L{loop}. This waits while there are as many as C{limit}.

        @param item: The item.

        @raise ThreadError: If the iteration has been stopped.
        """
        try:
            self._channel.putWaiting(item)
        except Closed:
            raise ThreadError(f"{self!r} has been stopped") from None

    def deferUntilDone(self) -> Deferred[Done]:
        """
        Wait for the end.

        @return: A Deferred that fires with C{[(True, None)]}, as a C{DeferredList}
            would, when the reader has been told of the end. If it has left its loop
            early, the Deferred fires on L{stop}.
        """
        return self._done.wait()

    def stop(self) -> Deferred[Done]:
        """
        Let no more items in. Those that are there can still be taken. Nothing more
        happens the second time.

        @return: The same as from L{deferUntilDone}.
        """
        self._channel.close()
        self._stopping = True
        self._maybeFinish()
        return self.deferUntilDone()

    def _runLoop(self) -> None:
        self._listening = True
        self.loop()

    def _hasRoom(self) -> None:
        """Let the producer go on, in the reactor's thread."""

    def _readerLeft(self) -> None:
        """Note, in whatever thread, that a reader has left its loop."""
        self._channel.readerLeft()
        if not self._told:
            self._reactor.callFromThread(self._maybeFinish)

    def _maybeFinish(self) -> None:
        if self._stopping and self._channel.isDeserted:
            self._finish()

    def _finish(self) -> None:
        self.releasePool()
        self._done.fire([(True, None)])


class _Reader:
    """An iterator over a getter whose release tells that the reader has left."""

    def __init__(self, getter: IterationGetter) -> None:
        self._getter = getter
        getter._channel.readerCame()

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        return next(self._getter)

    def __del__(self) -> None:
        self._getter._readerLeft()


def inReactorThread() -> bool:
    """Tell whether this is the thread that the reactor runs in, or will run in."""
    reactorThread: int | None = threadable.ioThread
    if reactorThread is None:
        reactorThread = threading.main_thread().ident
    return threading.get_ident() == reactorThread
