"""Iterations that go on somewhere else."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._child.status import Status
from ..interfaces import ITask
from ._deferator import Deferator
from ._producer import IterationProducer
from ._sources import BufferedSource


class RemoteIteration:
    """
    The near side of an iteration that goes on somewhere else.

    Its task has its result when the first word of it has come, because an empty
    iterator comes as an empty list; with a consumer, when it's told of that.
    """

    def __init__(self, task: ITask, source: BufferedSource) -> None:
        self.task = task
        # Whether the task has its result, or has been let go.
        self._begun = False
        self._source = source

    def feed(self, consumer: IConsumer) -> None:
        """
        Let a consumer have the items. If it refuses, the task fails with its error, and
        the iteration is ended.
        """
        self._begun = True
        try:
            producer = IterationProducer(Deferator(self._source), consumer)
        except Exception:  # noqa: BLE001 - the consumer is the user's
            self._source.stop()
            self.task.errback(Failure())
        else:
            self.task.callback((Status.ITERATOR, producer))

    def end(self) -> None:
        """Note that the iteration has come to its end."""
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, []))
        self._source.end()

    def lose(self, failure: Failure) -> None:
        """Fail after the items that have come: who made them is lost."""
        if self._begun:
            self._source.end(failure)
        else:
            self._begun = True
            self.task.errback(failure)

    def release(self) -> ITask | None:
        """Let go of the task, and give it back, if it has no result yet."""
        if self._begun:
            return None
        self._begun = True
        return self.task

    def _begin(self) -> None:
        """Give the task its result, if it hasn't got it."""
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, Deferator(self._source)))
