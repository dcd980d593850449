"""
The backlog: tasks that wait for a worker, in order, apart by series.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from heapq import heapify, heappop, heappush

from ._task import Task

__all__ = ["Backlog"]

_Entry = tuple[float, int, Task]

#: So many dropped tasks may stay in the lanes before they are cleared out.
_LEAST_SWEEP = 64


class _Lane:
    """
    The tasks of one series, some of which may have been dropped.

    Most tasks come in the order in which they go, so they are in a plain queue, which
    costs the same however long it is. Only those that must go before one that is there
    already are in a heap.
    """

    __slots__ = ("_heap", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Task] = deque()
        self._heap: list[_Entry] = []

    def put(self, task: Task) -> None:
        """
        Add a task.

        @param task: The task.
        """
        queue = self._queue
        if queue:
            last = queue[-1]
            if (task.priority, task.order) < (last.priority, last.order):
                heappush(self._heap, (task.priority, task.order, task))
                return
        queue.append(task)

    def first(self) -> Task | None:
        """
        Look at the task that is first.

        @return: The task, or C{None} if there is none.
        """
        queue, heap = self._queue, self._heap
        if not heap:
            return queue[0] if queue else None
        if queue and queue[0] < heap[0][2]:
            return queue[0]
        return heap[0][2]

    def drop(self) -> None:
        """
        Take out the task that is first.
        """
        queue, heap = self._queue, self._heap
        if heap and not (queue and queue[0] < heap[0][2]):
            heappop(heap)
        else:
            queue.popleft()

    def tasks(self) -> list[Task]:
        """
        List the tasks.

        @return: All, in no order.
        """
        return [*self._queue, *(entry[2] for entry in self._heap)]

    def keep(self, kept: Callable[[Task], bool]) -> None:
        """
        Take out tasks.

        @param kept: Called with each; false to take it out.
        """
        self._queue = deque(task for task in self._queue if kept(task))
        self._heap = [entry for entry in self._heap if kept(entry[2])]
        heapify(self._heap)


class Backlog:
    """
    Waiting tasks, one lane for each series.

    Whoever has a task is its C{holder}; the backlog drops a task by no longer being
    that. It leaves its lane when it comes up, or when such tasks are more than half of
    all, so that cancelling any number of tasks takes constant time each.

    @ivar onShrink: Called, without arguments, when tasks have been cancelled or taken
        out by L{remove}. Who takes one out by L{pop} calls it when the task has been
        handed on. C{None} for nobody.
    """

    def __init__(self) -> None:
        self.onShrink: Callable[[], object] | None = None
        self._lanes: dict[Hashable, _Lane] = {}
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
            series: sum(map(self._has, lane.tasks()))
            for series, lane in self._lanes.items()
        }
        return {series: size for series, size in sizes.items() if size}

    def waits(self, series: Hashable) -> bool:
        """
        Tell whether any task of a series waits.

        @param series: The series.

        @return: Whether one does.
        """
        lane = self._lanes.get(series)
        return lane is not None and self._firstOf(series, lane) is not None

    def waiting(self) -> list[Hashable]:
        """
        List the series that any task waits of.

        @return: The series.
        """
        return [series for series in list(self._lanes) if self.waits(series)]

    def put(self, task: Task) -> None:
        """
        Add a task.

        @param task: The task.
        """
        lane = self._lanes.get(task.series)
        if lane is None:
            lane = self._lanes[task.series] = _Lane()
        lane.put(task)
        task.holder = self
        self._size += 1

    def pop(self, seriesList: Iterable[Hashable]) -> Task | None:
        """
        Take out the task that is first among those of some series.

        @param seriesList: The series.

        @return: The task, or C{None} if there is none.
        """
        if not self._size:
            return None
        best: Task | None = None
        source: _Lane | None = None
        for series in seriesList:
            lane = self._lanes.get(series)
            if lane is None:
                continue
            task = lane.first()
            if task is None or task.holder is not self:
                task = self._firstOf(series, lane)
            if task is not None and (best is None or task < best):
                best, source = task, lane
        if best is None or source is None:
            return None
        source.drop()
        best.holder = None
        self._size -= 1
        return best

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
        removed = [
            task
            for lane in self._lanes.values()
            for task in lane.tasks()
            if self._has(task) and selector(task)
        ]
        for task in removed:
            task.holder = None
        self._size -= len(removed)
        self._sweep()
        if self.onShrink is not None:
            self.onShrink()
        return sorted(removed)

    def _has(self, task: Task) -> bool:
        """
        Tell whether a task waits here.

        @param task: The task.

        @return: C{False} if it has been dropped.
        """
        return task.holder is self

    def _firstOf(self, series: Hashable, lane: _Lane) -> Task | None:
        """
        Look at the task that is first in a lane. Dropped ones are cleared away, and
        with the last task the lane.

        @param series: The series of the lane.

        @param lane: The lane.

        @return: The task, or C{None} if none waits.
        """
        task = lane.first()
        while task is not None and task.holder is not self:
            lane.drop()
            self._dropped -= 1
            task = lane.first()
        if task is None:
            del self._lanes[series]
        return task

    def _sweep(self) -> None:
        """
        Clear the dropped tasks out of the lanes.
        """
        for series, lane in list(self._lanes.items()):
            lane.keep(self._has)
            if lane.first() is None:
                del self._lanes[series]
        self._dropped = 0
