"""
Taking back tasks that were given to a worker in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.reactor import orGlobalReactor
from ._requests import RequestLines, WorkerState
from ._task import Task

__all__ = ["Rebalancing"]

#: Seconds until tasks are taken back from a worker that is held up: while another one
#: is idle, and while all are busy. Most are done by then.
_IDLE_SECONDS = 0.002
_BUSY_SECONDS = 0.02


class Rebalancing:
    """
    Sees to it that no task waits for long with a worker that is held up.

    @ivar prefetching: How many workers have tasks in advance.
    """

    def __init__(
        self,
        lines: RequestLines,
        states: Callable[[], Iterable[WorkerState]],
        takeBack: Callable[[Task], object],
        reactor: IReactorTime | None,
    ) -> None:
        self.prefetching = 0
        self._lines = lines
        self._states = states
        self._takeBack = takeBack
        self._call: IDelayedCall | None = None
        self._reactor = reactor

    def count(self, change: int) -> None:
        """
        Note that one more worker has tasks in advance, or one less.
        """
        self.prefetching += change
        if change > 0:
            self.later()
        elif not self.prefetching:
            self.stop()

    def later(self) -> None:
        """
        Look in a moment, at the latest, whether a worker is held up.
        """
        reactor = orGlobalReactor(self._reactor)
        delay = _IDLE_SECONDS if self._lines.isAnyoneIdle() else _BUSY_SECONDS
        if self._call is None:
            self._call = reactor.callLater(delay, self._look)
        elif self._call.getTime() > reactor.seconds() + delay:
            self._call.reset(delay)

    def stop(self) -> None:
        """
        Leave nothing behind in the reactor.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        for state in list(self._states()):
            if state.prefetches and state.running > 1:
                for task in state.worker.reclaim():
                    self._takeBack(task)
        if self.prefetching:
            self.later()
