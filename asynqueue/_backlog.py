"""
The backlog: tasks that wait for a worker, in order, apart by series.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from heapq import heapify, heappop, heappush

from ._task import Task

__all__ = ["Backlog"]

_Entry = tuple[float, int, Task]

#: So many dropped entries may stay in the heaps before they are cleared out.
_LEAST_SWEEP = 64


class Backlog:
    """
    Waiting tasks, one heap for each series.

    Whoever has a task is its C{holder}; the backlog drops a task by no longer being
    that. The entry in the heap goes when it comes up, or when such entries are more
    than half of all, so that cancelling any number of tasks takes constant time each.

    @ivar onShrink: Called, without arguments, when there is a task less. C{None} for
        nobody.
    """

    def __init__(self) -> None:
        self.onShrink: Callable[[], object] | None = None
        self._lanes: dict[Hashable, list[_Entry]] = {}
        self._size = 0
        self._dropped = 0

    def __len__(self) -> int:
        """
        The number of waiting tasks.
        """
        return self._size

    def sizes(self) -> dict[Hashable, int]:
        """
        Count the waiting tasks of each series that has any.

        @return: A dict of series and numbers.
        """
        sizes = {
            series: sum(entry[2].holder is self for entry in lane)
            for series, lane in self._lanes.items()
        }
        return {series: size for series, size in sizes.items() if size}

    def put(self, task: Task) -> None:
        """
        Add a task.

        @param task: The task.
        """
        task.holder = self
        lane = self._lanes.get(task.series)
        if lane is None:
            lane = self._lanes[task.series] = []
        heappush(lane, (task.priority, task.order, task))
        self._size += 1

    def pop(self, seriesList: Iterable[Hashable]) -> Task | None:
        """
        Take out the task that is first among those of some series.

        @param seriesList: The series.

        @return: The task, or C{None} if there is none.
        """
        if not self._size:
            return None
        best: list[_Entry] | None = None
        lanes = self._lanes
        for series in seriesList:
            lane = lanes.get(series)
            if lane is None:
                continue
            while lane and lane[0][2].holder is not self:
                heappop(lane)
                self._dropped -= 1
            if not lane:
                del lanes[series]
            elif best is None or lane[0] < best[0]:
                best = lane
        if best is None:
            return None
        task = heappop(best)[2]
        task.holder = None
        self._size -= 1
        if not best:
            del lanes[task.series]
        if self.onShrink is not None:
            self.onShrink()
        return task

    def cancelTask(self, task: Task) -> None:
        """
        Drop a task that is being cancelled.

        @param task: A task that is waiting here.
        """
        task.holder = None
        self._size -= 1
        self._dropped += 1
        if self._dropped > _LEAST_SWEEP and self._dropped > self._size:
            self._sweep()
        if self.onShrink is not None:
            self.onShrink()

    def remove(self, selector: Callable[[Task], bool]) -> list[Task]:
        """
        Take out all tasks that are selected.

        @param selector: Called with each waiting task; true to take it out.

        @return: The tasks, in the order in which they would have come up.
        """
        taken = [
            entry
            for lane in self._lanes.values()
            for entry in lane
            if entry[2].holder is self and selector(entry[2])
        ]
        for entry in taken:
            entry[2].holder = None
        self._size -= len(taken)
        self._sweep()
        if self.onShrink is not None:
            self.onShrink()
        return [entry[2] for entry in sorted(taken)]

    def _sweep(self) -> None:
        """
        Clear the dropped entries out of the heaps.
        """
        for series, lane in list(self._lanes.items()):
            lane[:] = [entry for entry in lane if entry[2].holder is self]
            if lane:
                heapify(lane)
            else:
                del self._lanes[series]
        self._dropped = 0
