"""When a child is replaced because it has done as much as it may."""

from __future__ import annotations

from ._options import ChildOptions, privateSize

__all__ = ["Wear"]


class Wear:
    """
    What a child has done, and whether that is as much as it may.

    @ivar limits: Whether there's a limit.

    @ivar taken: How many tasks it has been given. Updates don't count: it must come to
        its tasks.
    """

    def __init__(self, options: ChildOptions) -> None:
        self.limits = options.maxTasks is not None or options.maxMemory is not None
        self.taken = 0
        self._maxTasks = options.maxTasks
        self._maxMemory = options.maxMemory

    def limited(self, capacity: int, jobs: int) -> int:
        """Bound how many tasks a worker wants that has a number of jobs."""
        if self._maxTasks is None:
            return capacity
        return min(capacity, max(jobs + self._maxTasks - self.taken, 1))

    def isOver(self, pid: int | None) -> bool:
        """Tell whether the child is to be replaced."""
        if not self.taken:
            return False
        if self._maxTasks is not None and self.taken >= self._maxTasks:
            return True
        if self._maxMemory is None or pid is None:
            return False
        return (privateSize(pid) or 0) > self._maxMemory * 1024
