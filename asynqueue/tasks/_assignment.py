"""
A task on its way to a worker.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..errors import ImplementationError
from ._task import Task

__all__ = ["Assignment"]


class Assignment:
    """
    A task on its way to a worker.

    @ivar task: The task.

    @ivar d: A Deferred that fires with the worker when one accepts; with C{None} when
        the task is cancelled before.
    """

    __slots__ = ("d", "task")

    def __init__(self, task: Task) -> None:
        """
        @param task: The task.
        """
        self.task = task
        self.d: Deferred[Any] = Deferred()

    def accept(self, worker: Any) -> Deferred[Any]:
        """
        Have a worker accept the task: fire L{d}, start the task's clock, and run it.

        @param worker: The worker, which provides L{IWorker}.

        @return: A Deferred that fires when the worker is ready for another task.

        @raise ImplementationError: If the worker's C{run} doesn't return one.
        """
        task = self.task
        task.assignment = None
        task.accepted = True
        if task.timeout is not None:
            task.startTimer()
        if not self.d.called:
            self.d.callback(worker)
            if task.d.called:  # A callback has cancelled it.
                return succeed(None)
        ready: Any = worker.run(task)
        if not isinstance(ready, Deferred):
            raise ImplementationError(
                f"run() of {worker!r} must return a Deferred, not {ready!r}"
            )
        return ready

    def withdraw(self) -> None:
        """
        Tell who waits that no worker will accept.
        """
        if not self.d.called:
            self.d.callback(None)
