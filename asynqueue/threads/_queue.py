"""
The queue with threads, and the thread of C{deferToThread}.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, succeed

from .._support.checks import checkCount, seriesList
from ..base._resizing import SizedQueue
from ..errors import ThreadError
from ._looper import ThreadLooper
from ._worker import ThreadWorker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..base._options import QueueOptions

__all__ = ["ThreadQueue", "deferToThread"]

#: Has the thread of deferToThread, if there is one.
_looper: ThreadLooper | None = None


def deferToThread(
    f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any
) -> Deferred[Any]:
    """
    Make a call in a thread that all calls of this function share. They're made in their
    order, one after the other.

    @param f: The callable, C{None} to have the thread end.

    @param kw: Its keywords, and those of L{ThreadLooper.deferToThread}: C{doNext} to
        jump ahead, C{consumer} for the items of an iterator.

    @return: As from L{ThreadLooper.deferToThread}. Without a callable, a Deferred that
        fires with C{None} when all calls have been made, nobody takes items from the
        thread any longer, and it has ended. The next call starts a new one.

    @raise TypeError: If the callable isn't callable.

    @raise ThreadError: If no thread can be started.
    """
    global _looper
    if f is None:
        looper, _looper = _looper, None
        return succeed(None) if looper is None else looper.stop()
    if _looper is None or not _looper.threadRunning:
        _looper = ThreadLooper()
    return _looper.deferToThread(f, *args, **kw)


class ThreadQueue(SizedQueue):
    """
    A task queue with one thread, or several.

    @ivar worker: The first L{ThreadWorker}.

    @ivar d: A Deferred that fires with the ID of that worker.
    """

    LEAST = 1

    def __init__(
        self,
        raw: bool = False,
        *,
        threads: int = 1,
        series: Iterable[Hashable] = (),
        **kw: Unpack[QueueOptions],
    ) -> None:
        """
        Start the threads.

        @param raw: C{True} for iterators to come back as they are.

        @param threads: How many there are to be. Each has a worker of its own.

        @param series: Series that they are qualified for besides C{'thread'} and
            C{'local'}.

        @param kw: Keywords of L{TaskQueue}.

        @raise ThreadError: If a thread can't be started.
        """
        if type(raw) is int:
            raise TypeError(f"raw must be True or False: threads={raw} makes {raw}")
        checkCount("threads", threads, 1)
        super().__init__(threads, **kw)
        self._makeWorker = partial(
            ThreadWorker, seriesList(series), raw, reactor=kw.get("reactor")
        )
        self._own: WeakSet[Any] = WeakSet()
        workers: list[ThreadWorker] = []
        try:
            while len(workers) < threads:
                workers.append(self._newWorker())
        except ThreadError:
            for worker in workers:
                worker.stop()
            raise
        self.worker = workers[0]
        self.worker.backlogPerWorker = self._demand
        self.d, *_ = [self.attachWorker(worker) for worker in workers]

    def deferToThread(
        self, f: Callable[..., Any], /, *args: Any, **kw: Any
    ) -> Deferred[Any]:
        """
        Make a call in the thread of the first worker, before all calls that are queued:
        L{ThreadLooper.deferToThread}, with the C{returnFailure} of the queue.
        """
        kw.setdefault("returnFailure", self.returnFailure is True)
        return self.worker.t.deferToThread(f, *args, **kw)

    def _newWorker(self) -> ThreadWorker:
        worker = self._makeWorker()
        self._own.add(worker)
        return worker

    def _isOwn(self, worker: Any) -> bool:
        return worker in self._own

    def _demand(self) -> int:
        """Count the waiting tasks if no other worker could run them."""
        return self.th.waiting if len(self.th.workers) == 1 else 0
