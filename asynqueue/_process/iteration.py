"""
The parent's side of an iteration that goes on in a child.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from .._status import Status
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..iteration import BufferedSource, Deferator, IterationProducer
from .exceptions import rebuild
from .framing import Kind
from .payloads import told
from .stream import WAITS, loadItems

__all__ = ["Iteration"]

#: The child hears that items have been taken when they are half of those that were at
#: hand, so that it needn't wait for that, but so many at least,
_EVERY = 8

#: and not more than so many at a time.
_MOST_EVERY = 512


class Iteration:
    """
    An iteration in a child, from which items are taken here.

    Its task has its result when the first word of it has come, because an empty
    iterator comes as an empty list; with a consumer, when it's told of that.

    @ivar task: The task.
    """

    def __init__(
        self,
        task: ITask,
        taken: Callable[[int], object],
        close: Callable[[], object],
    ) -> None:
        """
        Begin.

        @param task: The task.

        @param taken: Called with what the child is to be told when items have been
            taken: how many, and L{WAITS} if the consumer waits for more.

        @param close: Called when nobody wants the iteration to go on.
        """
        self.task = task
        self._close = close
        self._begun = False
        self._tell = taken
        self._source = BufferedSource(self._taken, close, every=_EVERY)

    def feed(self, consumer: Any) -> None:
        """
        Let a consumer have the items. If it refuses, the task fails with its error, and
        the iteration is ended.

        @param consumer: The consumer.
        """
        self._begun = True
        try:
            producer = IterationProducer(Deferator(self._source), consumer)
        except Exception:  # noqa: BLE001 - the consumer is the user's
            self._source.stop()
            self.task.errback(Failure())
        else:
            self.task.callback((Status.ITERATOR, producer))

    def received(self, kind: int, payload: memoryview) -> bool:
        """
        Take what the child has sent of it.

        @param kind: The kind of the frame.

        @param payload: The payload.

        @return: Whether the iteration has come to its end.
        """
        if kind == Kind.END and not self._begun:
            self._begun = True
            self.task.callback((Status.ITERATOR, []))
            return True
        self._begin()
        if kind == Kind.ITEMS:
            return not self._push(payload)
        if kind == Kind.END:
            self._source.end()
        else:
            text = rebuild(payload)
            self._source.fail(Failure(text.exception or WorkerError(str(text))))
        return True

    def fail(self, failure: Failure) -> None:
        """
        Have the iteration fail after the items that have come.

        @param failure: How.
        """
        if self._begun:
            self._source.fail(failure)
        else:
            self._begun = True
            self.task.errback(failure)

    def drop(self, task: ITask) -> bool:
        """
        Forget the task if it's this one's and has no result yet.

        @param task: A task.

        @return: Whether it was so.
        """
        if self._begun or task is not self.task:
            return False
        self._begun = True
        return True

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

    def _push(self, payload: memoryview) -> bool:
        """
        Take items.

        @param payload: Pickles of them.

        @return: Whether all could be unpickled. If not, the iteration fails after
            those before.
        """
        items: list[Any] = []
        try:
            for some in loadItems(payload):
                items += some
        except BaseException as error:  # noqa: BLE001 - runs code of users
            failure = Failure(
                SerializationError(
                    f"An item of the iteration of {self.task!r} can't be unpickled"
                    f" here: {told(error)}"
                )
            )
        else:
            self._pushItems(items)
            return True
        self._pushItems(items)
        self._source.fail(failure)
        self._close()
        return False

    def _pushItems(self, items: list[Any]) -> None:
        """
        Have items at hand.

        @param items: They.
        """
        half = (self._source.atHand + len(items)) // 2
        self._source.every = max(_EVERY, min(half, _MOST_EVERY))
        self._source.push(items)

    def _taken(self, count: int) -> None:
        """
        Tell the child that items have been taken.

        @param count: How many.
        """
        self._tell(count if self._source.atHand else count | WAITS)
