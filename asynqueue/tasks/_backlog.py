"""Tasks that wait for a worker, in order, apart by series; and what holds them back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from .._support.checks import checkCount, checkHashable
from ._task import Task

_T = TypeVar("_T")
_Entry = tuple[float, int, Task]

#: So many dropped tasks may stay in the queues before they are cleared out.
_MAX_DROPPED = 64

#: So many queues may stay when they are empty. Making one takes 0.2 us.
_MAX_EMPTY = 64


class Backlog:
    """
    Waiting tasks, a queue for each series.

    @ivar size: The number of waiting tasks.

    @ivar onShrink: Called, without arguments, when there are fewer than before.
        C{None} for nobody.

    @ivar gate: Holds tasks back. C{None} as long as there's no need of one.
    """

    # A task waits here exactly if the backlog is its owner. One that has been dropped
    # leaves its queue when it comes up, or when such tasks are more than half of all,
    # so that cancelling any number of tasks takes constant time each.
    # size counts those that wait, _dropped those that don't but are in a queue still,
    # and _droppedOf the latter for each series.
    # Most tasks come in the order in which they go, so they are in a plain queue, which
    # costs the same however long it is. Only those that must go before one that is
    # there already are in a heap. A series has a heap only while that has tasks.

    def __init__(self) -> None:
        self.size = 0
        self.onShrink: Callable[[], object] | None = None
        self.gate: Gate | None = None
        self._queues: dict[Hashable, deque[Task]] = {}
        self._heaps: dict[Hashable, list[_Entry]] = {}
        self._dropped = 0
        self._droppedOf: dict[Hashable, int] = {}

    def series(self) -> list[Hashable]:
        """List the series that any task waits of."""
        return [
            series for series in list(self._queues) if self.first(series, held=True)
        ]

    def sizes(self) -> dict[Hashable, int]:
        """Count the tasks that wait, for each series."""
        counts = {
            series: len(queue)
            + len(self._heaps.get(series, ()))
            - self._droppedOf.get(series, 0)
            for series, queue in self._queues.items()
        }
        return {series: count for series, count in counts.items() if count}

    def put(self, task: Task) -> None:
        """Add a task."""
        series = task.series
        if self.gate is not None:
            self.gate.putBack(task)
        queue = self._queues.get(series)
        if queue is None:
            self._queues[series] = deque((task,))
        elif not queue or (
            task.order > queue[-1].order and task.priority >= queue[-1].priority
        ):
            queue.append(task)
        else:
            heap = self._heaps.setdefault(series, [])
            heappush(heap, (task.priority, task.order, task))
        task.owner = self
        self.size += 1

    def first(self, series: Hashable, held: bool = False) -> Task | None:
        """
        Look at the task that is first in a series.

        @param held: C{True} to look also at one that the gate holds back.
        """
        queue = self._queues.get(series)
        gate = self.gate
        if queue is None or (gate is not None and not held and gate.isClosed(series)):
            return None
        heap = self._heaps.get(series)
        while queue or heap:
            if heap and not (queue and queue[0] < heap[0][2]):
                task = heap[0][2]
            else:
                task = queue[0]
            if task.owner is self:
                return task
            self._remove(task)
            self._dropped -= 1
            self._droppedOf[series] -= 1
            heap = self._heaps.get(series)
        if len(self._queues) > _MAX_EMPTY:
            del self._queues[series]
            self._droppedOf.pop(series, None)
        return None

    def take(self, series: Mapping[Hashable, object]) -> Task | None:
        """
        Take out the task that is first among those of some series. Returns C{None} if
        none of them may be run.
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
        if best is not None:
            if self.gate is not None:
                self.gate.took(best)
            self._remove(best)
            best.owner = None
            self.size -= 1
        return best

    def cancelTask(self, task: Task) -> None:
        """Drop a task that is being cancelled."""
        self._drop(task)
        self._dropped += 1
        self._droppedOf[task.series] = self._droppedOf.get(task.series, 0) + 1
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
            for series in list(self._queues)
            for task in self._tasks(series)
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
        accepting, task.accepting = task.accepting, None
        if accepting is not None and not accepting.called:
            accepting.callback(None)  # No worker will.

    def _remove(self, task: Task) -> None:
        """Take a task that is the first of its series out of where it is."""
        queue = self._queues[task.series]
        if queue and queue[0] is task:
            queue.popleft()
            return
        heap = self._heaps[task.series]
        heappop(heap)
        if not heap:
            del self._heaps[task.series]

    def _tasks(self, series: Hashable) -> list[Task]:
        """List all of a series, also those that have been dropped, in no order."""
        heap = self._heaps.get(series, ())
        return [*self._queues[series], *(entry[2] for entry in heap)]

    def _compact(self) -> None:
        """Clear the dropped tasks out of the queues."""
        for series in list(self._queues):
            kept = sorted(task for task in self._tasks(series) if task.owner is self)
            self._heaps.pop(series, None)
            if kept:
                self._queues[series] = deque(kept)
            else:
                del self._queues[series]
        self._dropped = 0
        self._droppedOf.clear()


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
        """Set how many tasks of each series may run at once. Before any does."""
        for series, most in limits.items():
            checkHashable(series)
            checkCount(f"The limit of the series {series!r}", most, 1)
            self.limits[series] = most
            self._running[series] = set()

    def isClosed(self, series: Hashable) -> bool:
        """Whether the tasks of a series are held back."""
        most = self.limits.get(series)
        return self.isPaused or (
            most is not None and len(self._running[series]) >= most
        )

    def took(self, task: Task) -> None:
        """Count a task that is being given to a worker."""
        running = self._running.get(task.series)
        if running is None:
            return
        running.add(task)
        resolve = task.resolve
        # A further attempt takes it over from the first.
        if not (isinstance(resolve, partial) and resolve.func == self._resolve):
            task.resolve = partial(self._resolve, resolve)

    def putBack(self, task: Task) -> None:
        """Don't count a task any longer that waits, perhaps again."""
        if task.series in self._running:
            self._running[task.series].discard(task)

    def _resolve(
        self, resolve: Callable[[Any, Task], object] | None, result: object, task: Task
    ) -> object:
        """
        Resolve the result of a task, and have another one run in its place: after that,
        as a further attempt goes before the others.
        """
        outcome: object = None
        try:
            outcome = result if resolve is None else resolve(result, task)
        finally:
            if not isinstance(outcome, Deferred):
                self._finished(None, task)
        if isinstance(
            outcome, Deferred
        ):  # A consumer takes what the call has returned.
            outcome.addBoth(self._finished, task)
        return outcome

    def _finished(self, result: _T, task: Task) -> _T:
        running = self._running[task.series]
        if task in running:
            running.remove(task)
            self._opened(task.series)
        return result
