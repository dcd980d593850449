"""The tasks that an executor has."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from ..interfaces import ITask

__all__ = ["Jobs", "PoolJob"]

#: Calls are given to an executor in advance for so many seconds, going by how long the
#: last ones took,
PREFETCH_SECONDS = 0.001

#: and not more than so many for each that it can run at once.
MAX_PREFETCHED = 32

#: How much the last call counts in that.
WEIGHT = 1 / 16


@define(eq=False)
class PoolJob:
    """
    A task that an executor has.

    @ivar ready: Fires when there's room for another.

    @ivar future: What the executor has given for it.

    @ivar isRunning: Whether it's one of the first, which can be run at once.

    @ivar isDropped: Whether nobody wants the result any longer.
    """

    task: ITask
    ready: Deferred[None]
    consumer: Any = None
    future: Future[Any] | None = None
    isRunning: bool = False
    isDropped: bool = False


class Jobs:
    """
    The tasks that an executor has, and how many more it should have.

    Executors don't tell which calls they are at. They begin them in their order, so
    it's reckoned that these are the first, and only their clocks run.

    @ivar byTask: The jobs, oldest first.

    @ivar capacity: How many there should be.

    @ivar most: How many there should be, if the user has said so.
    """

    # _behind are those that aren't _running, of which there are none while fewer than
    # _size are.

    def __init__(self, size: int, most: int | None) -> None:
        self.byTask: dict[ITask, PoolJob] = {}
        self.most = most
        self.capacity = size if most is None else most
        self._size = size
        self._running = 0
        self._behind: deque[PoolJob] = deque()
        self._seconds = PREFETCH_SECONDS

    def add(self, job: PoolJob) -> None:
        """Add a job, whose clock has been started."""
        self.byTask[job.task] = job
        if self._running < self._size:
            job.isRunning = True
            self._running += 1
        else:
            self._behind.append(job)
            if job.task.timeout is not None:
                job.task.stopTimer()

    def remove(self, job: PoolJob) -> None:
        """Remove a job, and start the clock of the next."""
        del self.byTask[job.task]
        if not job.isRunning:
            self._behind.remove(job)
        elif self._behind:
            following = self._behind.popleft()
            following.isRunning = True
            if following.task.timeout is not None and not following.isDropped:
                following.task.startTimer()
        else:
            self._running -= 1

    def adapt(self, size: int, seconds: float, waiting: int) -> None:
        """
        Adapt the capacity to how many calls can be run at once, to how long they take,
        and to how many wait.
        """
        self._size = size
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            self._seconds += WEIGHT * (seconds - self._seconds)
        if self.most is None:
            ahead = int(size * min(PREFETCH_SECONDS / self._seconds, MAX_PREFETCHED))
            self.capacity = size + min(waiting, ahead)
