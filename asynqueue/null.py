"""
A queue that runs its calls in the reactor, for programs that need no other worker
yet.
"""

from __future__ import annotations

from typing import Any

from ._asyncworker import AsyncWorker
from .base import TaskQueue

__all__ = ["NullQueue"]


class NullQueue(TaskQueue):
    """
    A task queue with one L{AsyncWorker}.

    @ivar worker: The worker.
    """

    def __init__(self, **kw: Any) -> None:
        """
        Make a queue.

        @param kw: Keywords of L{TaskQueue}.
        """
        self.worker = AsyncWorker()
        super().__init__(self.worker, **kw)
