"""A queue whose calls run in the reactor: no other worker is needed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._asyncworker import AsyncWorker
from .base import TaskQueue

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .base._options import QueueOptions

__all__ = ["NullQueue"]


class NullQueue(TaskQueue):
    """
    A task queue with one L{AsyncWorker}.

    @ivar worker: The worker.
    """

    def __init__(self, **kw: Unpack[QueueOptions]) -> None:
        """@param kw: Keywords of L{TaskQueue}."""
        self.worker = AsyncWorker()
        super().__init__(self.worker, **kw)
