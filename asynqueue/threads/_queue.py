"""
The queue with one thread, and the thread that C{deferToThread} has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..base import TaskQueue
from ..tasks._task import TaskFactory
from ._looper import ThreadLooper
from ._worker import ThreadWorker

__all__ = ["ThreadQueue", "deferToThread"]


class _Shared:
    """
    The thread of L{deferToThread}.

    @ivar looper: What has it, C{None} if there's none.
    """

    def __init__(self) -> None:
        self.looper: ThreadLooper | None = None


_shared = _Shared()


def deferToThread(
    f: Callable[..., Any] | None = None, *args: Any, **kw: Any
) -> Deferred[Any]:
    """
    Make a call in a thread that all calls of this function share. They're made in their
    order, one after the other.

    @param f: The callable, C{None} to have the thread end.

    @param args: Its arguments.

    @param kw: Its keywords, and those of L{ThreadLooper.deferToThread}: C{doNext} to
        jump ahead, C{consumer} for the items of an iterator.

    @return: As from L{ThreadLooper.deferToThread}. Without a callable, a Deferred that
        fires with C{None} when all calls have been made, nobody takes items from the
        thread any longer, and it has ended. The next call starts a new one.

    @raise TypeError: If the callable isn't callable.

    @raise ThreadError: If no thread can be started.
    """
    looper = _shared.looper
    if f is None:
        _shared.looper = None
        return succeed(None) if looper is None else looper.stop()
    if looper is None or not looper.threadRunning:
        looper = _shared.looper = ThreadLooper()
    return looper.deferToThread(f, *args, **kw)


class ThreadQueue(TaskQueue):
    """
    A task queue with one thread.

    @ivar worker: The L{ThreadWorker}.
    """

    def __init__(
        self, raw: bool = False, *, series: Iterable[Hashable] = (), **kw: Any
    ) -> None:
        """
        Start the thread.

        @param raw: C{True} for iterators to come back as they are.

        @param series: Series that it's qualified for besides C{'thread'} and
            C{'local'}.

        @param kw: Keywords of L{TaskQueue}.

        @raise ThreadError: If no thread can be started.
        """
        reactor = kw.get("reactor")
        super().__init__(**kw)
        self.taskFactory = TaskFactory(contexts=True, reactor=reactor)
        self.worker = ThreadWorker(series, raw, reactor=reactor)
        self.worker.backlogPerWorker = self._demand
        self.attachWorker(self.worker)

    def deferToThread(
        self, f: Callable[..., Any], *args: Any, **kw: Any
    ) -> Deferred[Any]:
        """
        Make a call in the thread of the queue, in front of all calls that are queued.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords, and those of L{ThreadLooper.deferToThread}.

        @return: As from L{ThreadLooper.deferToThread}.

        @raise TypeError: If the callable isn't callable.
        """
        return self.worker.t.deferToThread(f, *args, **kw)

    def _demand(self) -> int:
        """
        Tell how many tasks wait that no other worker could run.

        @return: The number, 0 if there are other workers.
        """
        return self.th.waiting if len(self.th.workers) == 1 else 0
