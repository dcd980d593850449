"""
The client's end of an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from .._status import Status
from ..interfaces import ITask
from ..iteration import BufferedSource, Deferator, IterationProducer

__all__ = ["Iteration"]

#: The server hears of so many items at a time that they have been taken: half of what
#: it may be ahead, so that it needn't wait for that.
_EVERY = 8


class Iteration:
    """
    An iteration at the server, from which items are taken here.

    Its task has its result when the first word of it has come, because an empty
    iterator comes as an empty list; with a consumer, at once.

    @ivar task: The task.
    """

    def __init__(
        self,
        task: ITask,
        consumer: Any,
        taken: Callable[[int], object],
        close: Callable[[], object],
    ) -> None:
        """
        Begin.

        @param task: The task.

        @param consumer: The consumer, or C{None}.

        @param taken: Called with a number of items when they have been taken.

        @param close: Called when nobody wants the iteration to go on.
        """
        self.task = task
        self._begun = False
        self._source = BufferedSource(taken, close, every=_EVERY)
        if consumer is not None:
            self._begun = True
            try:
                producer = IterationProducer(Deferator(self._source), consumer)
            except Exception:  # noqa: BLE001 - the consumer is the user's
                self._source.stop()
                task.errback(Failure())
            else:
                task.callback((Status.ITERATOR, producer))

    def push(self, item: Any) -> None:
        """
        Take an item that has come.

        @param item: The item.
        """
        self._begin()
        self._source.push([item])

    def end(self) -> None:
        """
        Note that the iteration has come to its end.
        """
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, []))
        self._source.end()

    def fail(self, failure: Failure) -> None:
        """
        Have the iteration fail after the items that have come.

        @param failure: How.
        """
        self._begin()
        self._source.fail(failure)

    def lose(self, failure: Failure) -> None:
        """
        Note that the server is lost.

        @param failure: What the iteration fails with, after the items that have come.
        """
        if self._begun:
            self._source.fail(failure)
        else:
            self._begun = True
            self.task.errback(failure)

    def release(self) -> ITask | None:
        """
        Let go of the task if it has no result yet.

        @return: The task, C{None} if it has a result.
        """
        if self._begun:
            return None
        self._begun = True
        return self.task

    def _begin(self) -> None:
        """
        Give the task its result, if it hasn't got it.
        """
        if not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, Deferator(self._source)))
