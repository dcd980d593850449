"""The queue with an executor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from ..base import TaskQueue
from ._worker import ExecutorWorker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..base._options import QueueOptions

__all__ = ["ExecutorQueue"]


class ExecutorQueue(TaskQueue):
    """
    A task queue whose calls are run by an executor. One that breaks is replaced if it
    can be made again.
    """

    def __init__(
        self,
        executor: Executor | Callable[[], Executor],
        N_concurrent: int | None = None,
        *,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        portable: bool | None = None,
        owned: bool | None = None,
        **kw: Unpack[QueueOptions],
    ) -> None:
        """
        Get the executor.

        @param executor: The executor, or what makes one. See L{ExecutorWorker} for this
            and the next five.

        @param kw: Keywords of L{TaskQueue}.

        @raise TypeError: If there's no executor.

        @raise ValueError: If a number is out of range.
        """
        super().__init__(**kw)
        worker = ExecutorWorker(
            executor,
            N_concurrent,
            series,
            raw,
            portable,
            owned,
            reactor=kw.get("reactor"),
        )
        worker.backlogPerWorker = self._demand
        self.attachWorker(worker)

    def _demand(self) -> int:
        """Count the waiting tasks if no other worker could run them."""
        return self.th.waiting if len(self.th.workers) == 1 else 0
