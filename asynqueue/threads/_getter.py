"""
An iterator that waits for its items in blocking code, the channel that they come by,
and a file for writing that is one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from .._support.awaitable import OneShot
from .._support.checks import checkCount
from ..errors import ThreadError
from ._jobs import inReactorThread, threadedReactor
from ._pool import PoolUser, ThreadPool


class Closed(Exception):
    """Nothing can be put into a channel that has been closed."""


class Channel:
    """
    A line of items, put in at one end and taken out at the other. Either end may be
    used by any number of threads.

    One lock guards all of it. It's held for a few instructions only.
    """

    def __init__(self, limit: int, onRoom: Callable[[], object]) -> None:
        # How many items fill it.
        self.limit = limit
        self.closed = False
        # Called in the thread of a reader when the channel is half empty, after put()
        # has told that it was full.
        self._onRoom = onRoom
        self._items: deque[object] = deque()
        self._lock = threading.Condition()
        self._toldFull = False
        # How many readers have come and not left. _isRead from when one takes an item
        # until the last leaves, isDeserted from then until one takes an item again.
        self._readers = 0
        self._isRead = False
        self.isDeserted = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: object) -> bool:
        """Put an item in, whether it's full or not. Tell whether it's full now."""
        with self._lock:
            self._add(item)
            full = len(self._items) >= self.limit
            self._toldFull = self._toldFull or full
        return full

    def putWaiting(self, item: object, unread: bool = True) -> None:
        """Put an item in when there's room, or, unless C{unread}, nobody reads."""
        with self._lock:
            while (
                len(self._items) >= self.limit
                and not self.closed
                and (unread or self._isRead)
            ):
                self._lock.wait()
            self._add(item)

    def get(self, wait: bool = True) -> object:
        """
        Take an item out. At the end of a channel that has been closed, that's a
        StopIteration. If it was closed with an error, that's raised the first time.
        """
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
            hasRoom = self._toldFull and len(self._items) <= self.limit // 2
            self._toldFull = self._toldFull and not hasRoom
        if hasRoom:
            self._onRoom()
        return item

    def readerCame(self) -> None:
        with self._lock:
            self._readers += 1

    def readerLeft(self) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._isRead = False
                self.isDeserted = True
                self._lock.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Let nothing more in. The first call counts."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._error = error
                self._lock.notify_all()

    def clear(self) -> None:
        """Forget what's in it, and the exception that it was closed with."""
        with self._lock:
            self._items.clear()
            self._error = None

    def _add(self, item: object) -> None:
        if self.closed:
            raise Closed
        self._items.append(item)
        self._lock.notify_all()


#: How many items may wait for the reader before the producer is held up.
LIMIT = 16

#: As from a DeferredList: pairs of success and result.
Done: TypeAlias = list[tuple[bool, Any]]


class IterationStopper:
    """Ends an iteration when it's written like an item, as class or as instance."""


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
            d = self.pool.deferToOwnThread(self._runLoop)
            d.addErrback(lambda failure: failure.value).addCallback(self._channel.close)
        self._started = True

    def loop(self) -> None:
        """
        Make items, in a thread, and give each to L{produce}. The iteration ends when
        this returns. What it raises is raised in the reader, too, after the items.

        To be overridden by subclasses whose items aren't made elsewhere.
        """

    def produce(self, item: object) -> None:
        """
        Add an item, for L{loop}. This waits while there are as many as C{limit}.

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


class Filerator(IterationGetter):
    """
    A file for writing, and an iterator over what is written to it for blocking code in
    a thread.

    It may be written to in any thread. As a context manager, it's closed at the end of
    the block.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """Open it. The parameters are those of L{IterationGetter}."""
        super().__init__(maxThreads, limit=limit, ownPool=ownPool, reactor=reactor)
        self.start()

    def __enter__(self) -> Filerator:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._channel.closed

    def write(self, data: Any) -> None:
        """
        Write an item. While somebody iterates and too much is on the way, this waits,
        except in the reactor's thread, which mustn't.

        @param data: The item: anything, also what is empty. It isn't copied.

        @raise ValueError: If the file is closed, or is closed while this waits.
        """
        try:
            if inReactorThread():
                self._channel.put(data)
            else:
                self._channel.putWaiting(data, unread=False)
        except Closed:
            raise ValueError("Nothing can be written to a closed Filerator") from None

    def writelines(self, lines: Iterable[object]) -> None:
        """Write one item after the other; see L{write}."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: what is written is there at once."""

    def close(self) -> None:
        """Close the file: the iteration ends after what was written."""
        self._channel.close()

    def readable(self) -> bool:
        """Tell that it can't be read as a file."""
        return False

    def seekable(self) -> bool:
        """Tell that one can't move about in it."""
        return False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True


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
