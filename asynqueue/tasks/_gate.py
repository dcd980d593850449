"""
Which of the waiting tasks may be given to workers: pauses, and limits of series.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

from .._support.checks import checkCount, checkHashable
from ._task import Task

__all__ = ["Gate"]


class Gate:
    """
    Holds waiting tasks back: all of them during a pause, and those of a series that has
    as many running as its limit allows.

    A backlog has one only if there has been a pause or is a limit.

    @ivar isPaused: Whether no task may be given to a worker.

    @ivar limits: How many tasks of a series may run at once, where there's a limit.
    """

    # _running has the tasks of each limited series that were taken out of the backlog
    # and neither have a result nor were put back.

    def __init__(self, opened: Callable[[Hashable], object]) -> None:
        """
        @param opened: Called with a limited series when one of its tasks may be given
            to a worker that was held back before.
        """
        self.isPaused = False
        self._opened = opened
        self.limits: dict[Hashable, int] = {}
        self._running: dict[Hashable, set[Task]] = {}

    def limit(self, limits: Mapping[Hashable, int]) -> None:
        """
        Set how many tasks of each series may run at once. Before any does.
        """
        for series, most in limits.items():
            checkHashable(series)
            checkCount(f"The limit of the series {series!r}", most, 1)
            self.limits[series] = most
            self._running[series] = set()

    def isClosed(self, series: Hashable) -> bool:
        """
        Whether the tasks of a series are held back.
        """
        most = self.limits.get(series)
        return self.isPaused or (
            most is not None and len(self._running[series]) >= most
        )

    def took(self, task: Task) -> None:
        """
        Count a task that is being given to a worker.
        """
        running = self._running.get(task.series)
        if running is None:
            return
        running.add(task)
        resolve = task.resolve
        # A further attempt takes it over from the first.
        if not (isinstance(resolve, partial) and resolve.func == self._resolve):
            task.resolve = partial(self._resolve, resolve)

    def putBack(self, task: Task) -> None:
        """
        Don't count a task any longer that waits, perhaps again.
        """
        if task.series in self._running:
            self._running[task.series].discard(task)

    def _resolve(
        self, resolve: Callable[[Any, Task], Any] | None, result: Any, task: Task
    ) -> Any:
        """
        Resolve the result of a task, and have another one run in its place: after that,
        as a further attempt goes before the others.
        """
        try:
            return result if resolve is None else resolve(result, task)
        finally:
            running = self._running[task.series]
            if task in running:
                running.remove(task)
                self._opened(task.series)
