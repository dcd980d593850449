"""
Tasks that wait for a worker, in order, apart by series.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush

from ._task import Task

__all__ = ["Backlog"]

_Entry = tuple[float, int, Task]

#: So many dropped tasks may stay in the queues before they are cleared out.
_MAX_DROPPED = 64


class _SeriesQueue:
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
        queue = self._queue
        if queue:
            last = queue[-1]
            if (task.priority, task.order) < (last.priority, last.order):
                heappush(self._heap, (task.priority, task.order, task))
                return
        queue.append(task)

    def first(self) -> Task | None:
        queue, heap = self._queue, self._heap
        if not heap:
            return queue[0] if queue else None
        if queue and queue[0] < heap[0][2]:
            return queue[0]
        return heap[0][2]

    def removeFirst(self) -> None:
        queue, heap = self._queue, self._heap
        if heap and not (queue and queue[0] < heap[0][2]):
            heappop(heap)
        else:
            queue.popleft()

    def tasks(self) -> list[Task]:
        """
        List all, in no order.
        """
        return [*self._queue, *(entry[2] for entry in self._heap)]

    def keep(self, kept: Callable[[Task], bool]) -> None:
        """
        Take out the tasks that aren't kept.
        """
        self._queue = deque(task for task in self._queue if kept(task))
        self._heap = [entry for entry in self._heap if kept(entry[2])]
        heapify(self._heap)


class Backlog:
    """
    Waiting tasks, a queue for each series.

    @ivar size: The number of waiting tasks.

    @ivar onShrink: Called, without arguments, when there are fewer than before.
        C{None} for nobody.
    """

    # A task waits here exactly if the backlog is its owner. One that has been dropped
    # leaves its queue when it comes up, or when such tasks are more than half of all,
    # so that cancelling any number of tasks takes constant time each.
    # size counts those that wait, _dropped those that don't but are in a queue still.

    def __init__(self) -> None:
        self.size = 0
        self.onShrink: Callable[[], object] | None = None
        self._queues: dict[Hashable, _SeriesQueue] = {}
        self._dropped = 0

    def series(self) -> list[Hashable]:
        """
        List the series that any task waits of.
        """
        return [series for series in list(self._queues) if self.first(series)]

    def put(self, task: Task) -> None:
        """
        Add a task.
        """
        queue = self._queues.get(task.series)
        if queue is None:
            queue = self._queues[task.series] = _SeriesQueue()
        queue.put(task)
        task.owner = self
        self.size += 1

    def first(self, series: Hashable) -> Task | None:
        """
        Look at the task that is first in a series.
        """
        queue = self._queues.get(series)
        if queue is None:
            return None
        task = queue.first()
        while task is not None and task.owner is not self:
            queue.removeFirst()
            self._dropped -= 1
            task = queue.first()
        if task is None:
            del self._queues[series]
        return task

    def firstOf(self, series: Mapping[Hashable, object]) -> Task | None:
        """
        Look at the task that is first among those of some series.
        """
        queues = self._queues
        # A worker may have hundreds of series, and so may tasks that nobody serves.
        few, many = (series, queues) if len(series) < len(queues) else (queues, series)
        best: Task | None = None
        for each in list(few):
            if each in many:
                task = self.first(each)
                if task is not None and (best is None or task < best):
                    best = task
        return best

    def pop(self, task: Task) -> None:
        """
        Take out a task that is the first of its series.
        """
        self._queues[task.series].removeFirst()
        task.owner = None
        self.size -= 1

    def cancelTask(self, task: Task) -> None:
        """
        Drop a task that is being cancelled.
        """
        self._drop(task)
        self._dropped += 1
        if self._dropped > _MAX_DROPPED and self._dropped > self.size:
            self._compact()
        if self.onShrink is not None:
            self.onShrink()

    def remove(self, selector: Callable[[Task], bool]) -> list[Task]:
        """
        Take out all tasks that are selected.

        @return: The tasks, in the order in which they would have come up.
        """
        removed = [
            task
            for queue in list(self._queues.values())
            for task in queue.tasks()
            if task.owner is self and selector(task)
        ]
        for task in removed:
            if task.owner is self:  # Dropping one may have led to dropping another.
                self._drop(task)
        self._compact()
        if self.onShrink is not None:
            self.onShrink()
        return sorted(removed)

    def _drop(self, task: Task) -> None:
        task.owner = None
        self.size -= 1
        assignment, task.assignment = task.assignment, None
        if assignment is not None:
            assignment.withdraw()

    def _compact(self) -> None:
        """
        Clear the dropped tasks out of the queues.
        """
        for series, queue in list(self._queues.items()):
            queue.keep(lambda task: task.owner is self)
            if queue.first() is None:
                del self._queues[series]
        self._dropped = 0
