"""The loop in which tasks and workers meet, and what it has to look at."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.reactor import SLICE_SECONDS, orGlobalReactor
from ._backlog import Backlog
from ._requests import RequestLines, WorkerState

#: Calls may be nested so deep before the loop waits for the reactor's next turn. A
#: callback that makes a call that completes at once, and adds itself to that, nests
#: them.
_MAX_NESTING = 250

#: The depth is looked at once in so many times, which makes it cost nothing.
_CHECK_EVERY = 16


class DispatchLoop:
    """
    Looks at one worker after the other, never at one while at another, as long as any
    are noted.

    The reactor has its turn every few milliseconds, and before calls are nested too
    deeply.

    @ivar ready: Workers to be looked at, since they may be given a task.

    @ivar matches: Series to be looked at, of which there may be tasks as well as
        workers whose requests stand in line.

    @ivar isRunning: Whether a step is being done: what is noted meanwhile is looked at
        by the next ones.

    @ivar resumption: The call that goes on in the reactor's next turn. C{None} while
        nothing has to wait for that.
    """

    def __init__(
        self,
        serve: Callable[[WorkerState], object],
        backlog: Backlog,
        lines: RequestLines,
        reactor: IReactorTime | None,
    ) -> None:
        """
        @param serve: The step: gives a worker a task, if there's one for it.

        @param backlog: The tasks that wait.

        @param lines: The requests that stand in line.
        """
        self.ready: deque[WorkerState] = deque()
        self.matches: dict[Hashable, None] = {}
        self.isRunning = False
        self._serve = serve
        self._backlog = backlog
        self._lines = lines
        self._starts = 0
        self.resumption: IDelayedCall | None = None
        self._reactor = reactor

    def note(self, state: WorkerState) -> None:
        """Have a worker looked at."""
        if not state.isQueued:
            state.isQueued = True
            self.ready.append(state)

    def run(self, first: Callable[..., object] | None = None, *args: object) -> bool:
        """
        Do steps until there's nothing to look at, unless that is being done already, or
        has to wait for the reactor.

        @param first: The first step, if it's known, which needn't be looked for then.

        @return: Whether steps may be done now, and the first was.
        """
        if self.isRunning or self.resumption is not None:
            return False
        self._starts += 1
        if not self._starts % _CHECK_EVERY and _isNestedDeeply():
            self._resumeLater()
            return False
        self.isRunning = True
        backlog = self._backlog
        # When the reactor is to have its turn. A step alone needs no clock, which would
        # take 0.4 us of its 6.
        end = self._seconds() + SLICE_SECONDS if backlog.size > 1 else 0.0
        try:
            if first is not None:
                first(*args)
            while self.ready or self.matches:
                if not backlog.size:
                    self.matches.clear()
                elif not end:
                    end = self._seconds() + SLICE_SECONDS
                elif self._seconds() >= end:
                    self._resumeLater()
                    break
                state = self._nextWorker()
                if state is not None:
                    self._serve(state)
        finally:
            self.isRunning = False
        return True

    def batch(self, f: Callable[[], object]) -> None:
        """Call something, and do steps only after that."""
        if self.isRunning:
            f()
            return
        self.isRunning = True
        try:
            f()
        finally:
            self.isRunning = False
            self.run()

    def stop(self) -> None:
        """Leave nothing behind in the reactor."""
        call, self.resumption = self.resumption, None
        if call is not None:
            call.cancel()

    def _nextWorker(self) -> WorkerState | None:
        """
        Find a worker to look at: the one that has waited longest for a task that has
        come, or one that has become ready.
        """
        while self.matches:
            series = next(iter(self.matches))
            state = self._lines.oldest(series)
            if state is None or self._backlog.first(series) is None:
                del self.matches[series]
            elif not state.isFree:  # Its capacity has shrunk.
                self._lines.leaveAll(state)
            else:
                return state
        if not self.ready:
            return None
        state = self.ready.popleft()
        state.isQueued = False
        return state

    def _seconds(self) -> float:
        if self._reactor is None:
            self._reactor = orGlobalReactor(None)
        return self._reactor.seconds()

    def _resumeLater(self) -> None:
        self.resumption = orGlobalReactor(self._reactor).callLater(0, self._resume)

    def _resume(self) -> None:
        self.resumption = None
        self.run()


def _isNestedDeeply() -> bool:
    try:
        sys._getframe(_MAX_NESTING)
    except ValueError:
        return False
    return True
