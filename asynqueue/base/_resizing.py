"""Queues that make their workers themselves, and can have more or fewer of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList

from .._support.awaitable import shielded
from .._support.checks import checkCount
from ..interfaces import IWorker
from ..tasks._requests import IEmployee
from ._taskqueue import TaskQueue

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import QueueOptions


class SizedQueue(TaskQueue):
    """
    A task queue that makes its workers itself.

    @ivar N: How many it is to have. Workers that others attach don't count.

    @cvar LEAST: How many it must have.
    """

    LEAST = 0

    def __init__(self, N: int, **kw: Unpack[QueueOptions]) -> None:
        """
        @param N: How many workers it is to have. The subclass makes them.

        @param kw: Keywords of L{TaskQueue}.
        """
        self.N = N
        super().__init__(**kw)

    def resize(self, N: int) -> Deferred[None]:
        """
        Have more workers, or fewer. Those that are too many, the last to have come, get
        no more calls, and go when they have run what they have accepted.

        @param N: How many there are to be.

        @return: A Deferred that fires with C{None} when those that are too many have
            gone, and new ones are ready or, which is logged, can't be started.

        @raise ValueError: If the number isn't an integer, or too small.

        @raise QueueRunError: If the queue isn't running.
        """
        checkCount("The number of workers", N, self.LEAST)
        if not self._running:
            self._refuse("another number of workers")
        self.N = N
        self._replacing.settle()
        # Lost workers that are still to be replaced count as missing.
        unreplaced = self._replacing.unreplaced
        unreplaced[:] = [worker for worker in unreplaced if not self._isOwn(worker)]
        own = [worker for worker in self.workers() if self._isOwn(worker)]
        changes: list[Deferred[Any]] = [self.detachWorker(each) for each in own[N:]]
        while len(own) < N:
            own.append(self._newWorker())
            changes.append(self.attachWorker(own[-1]))
        done = DeferredList(changes, consumeErrors=True)
        return shielded(done.addCallback(lambda _: None))

    def _workerGone(self, worker: IEmployee) -> None:
        if self._isOwn(worker) and sum(map(self._isOwn, self.workers())) >= self.N:
            # An observer has asked for fewer, or for another.
            self._results.callsChanged()
        else:
            super()._workerGone(worker)

    def _newWorker(self) -> IWorker:
        """Make a worker."""
        raise NotImplementedError

    def _isOwn(self, worker: object) -> bool:
        """
        Whether a worker is one that the queue has made, or takes the place of one.
        """
        raise NotImplementedError
