"""
An iterator that waits for its items in blocking code.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python import threadable

from .._support.reactor import orGlobalReactor
from ..errors import ThreadError
from ._channel import Channel, Closed, Empty
from ._loop import IReactorThreaded
from ._pool import PoolUser, ThreadPool

__all__ = ["LIMIT", "IterationGetter", "IterationStopper", "inReactorThread"]

#: So many items are on the way before who makes them is held up.
LIMIT = 16


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

        @param maxThreads: See L{PoolUser}.

        @param limit: How many items may be on the way before who makes them is held up.

        @param ownPool: See L{PoolUser}.

        @param reactor: The reactor. By default, the global one.

        @raise ValueError: If a number isn't a positive integer.
        """
        if limit < 1:
            raise ValueError(f"limit must be a positive integer, not {limit!r}")
        super().__init__(maxThreads, ownPool=ownPool)
        # Whatever else it is, it's a reactor that threads can call.
        self._reactor = cast(IReactorThreaded, orGlobalReactor(reactor))
        self._channel = Channel(
            limit, lambda: self._reactor.callFromThread(self._hasRoom)
        )
        self._started = False
        self._taking = False
        self._told = False
        self._done = False
        self._doneWaiters: dict[Deferred[None], None] = {}

    @property
    def runState(self) -> str:
        """
        How far it has come: C{'init'}; C{'started'} when there may be items;
        C{'running'} when some have been taken; C{'stopping'} when there will be no more
        than are on the way; C{'stopped'} when who iterates has been told of the end.
        """
        if self._told:
            return "stopped"
        if self._channel.closed:
            return "stopping"
        if self._taking:
            return "running"
        return "started" if self._started else "init"

    def __iter__(self) -> IterationGetter:
        """
        Iterate.

        @return: Itself.
        """
        return self

    def __next__(self) -> Any:
        """
        Wait for the next item.

        @return: The item.

        @raise StopIteration: If there are no more.

        @raise Exception: Whatever has ended the iteration early, after all items before
            that.

        @raise ThreadError: If there's none yet, and waiting would block the reactor.
        """
        try:
            item = self._channel.get(wait=not inReactorThread())
        except Empty:
            raise ThreadError(
                f"{self!r} has no item yet, and waiting for it here would block the"
                " reactor: iterate in another thread"
            ) from None
        except BaseException:
            self._tell()
            raise
        self._taking = True
        return item

    def start(self) -> None:
        """
        Begin. If L{loop} has been overridden, it's run in a thread. Nothing happens the
        second time.

        @raise ThreadError: If no thread can be started for that.
        """
        if self._started:
            return
        if type(self).loop is not IterationGetter.loop:
            self.pool.deferToOwnThread(self.loop).addCallbacks(
                lambda _: self._channel.close(),
                lambda failure: self._channel.close(failure.value),
            )
        self._started = True

    def loop(self) -> None:
        """
        Make items, in a thread, and give each to L{produce}. The iteration ends when
        this returns; what it raises is raised to who iterates, after the items.

        To be overridden by subclasses whose items aren't made elsewhere.
        """

    def produce(self, item: Any) -> None:
        """
        Add an item, for L{loop}. Waits if too many are on the way.

        @param item: The item.

        @raise ThreadError: If the iteration has been stopped.
        """
        try:
            self._channel.putWaiting(item)
        except Closed:
            raise ThreadError(f"{self!r} has been stopped") from None

    def deferUntilDone(self) -> Deferred[None]:
        """
        Wait for the end.

        @return: A Deferred that fires with C{None} when who iterates has been told that
            there are no more items, or has been raised what has ended the iteration.
        """
        if self._done:
            return succeed(None)
        d: Deferred[None] = Deferred(lambda d: self._doneWaiters.pop(d, None))
        self._doneWaiters[d] = None
        return d

    def stop(self) -> Deferred[None]:
        """
        Let no more items in. Those that are on the way can still be taken. Nothing
        more happens the second time.

        @return: The same as from L{deferUntilDone}.
        """
        self._channel.close()
        return self.deferUntilDone()

    def _hasRoom(self) -> None:
        """
        Note, in the reactor's thread, that who makes the items may go on.
        """

    def _tell(self) -> None:
        """
        Note, in the thread of who iterates, that they have been told of the end.
        """
        if not self._told:
            self._told = True
            self._reactor.callFromThread(self._hasEnded)

    def _hasEnded(self) -> None:
        """
        Tell those who wait for the end.
        """
        self._done = True
        self.releasePool()
        waiters, self._doneWaiters = self._doneWaiters, {}
        for d in waiters:
            if not d.called:  # One may be cancelled by the callbacks of another.
                d.callback(None)


def inReactorThread() -> bool:
    """
    Tell whether this is the thread that the reactor runs in, or will run in.

    @return: Whether it is.
    """
    reactorThread: int | None = threadable.ioThread
    if reactorThread is None:
        reactorThread = threading.main_thread().ident
    return threading.get_ident() == reactorThread
