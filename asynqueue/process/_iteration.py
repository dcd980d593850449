"""
The parent's side of an iteration that goes on in a child.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from .._child.payloads import told
from .._child.protocol import Kind
from .._child.stream import WAITS, loadItems
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..iteration._remote import RemoteIteration
from ..iteration._sources import BufferedSource
from ._exceptions import rebuild

__all__ = ["Iteration"]

#: The child hears that items have been taken when they are half of those that were at
#: hand, so that it needn't wait for that, but so many at least,
_EVERY = 8

#: and not more than so many at a time.
_MOST_EVERY = 512


class Iteration(RemoteIteration):
    """
    An iteration in a child, from which items are taken here.
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
        super().__init__(task, BufferedSource(self._taken, close, every=_EVERY))
        self._close = close
        self._tell = taken

    def received(self, kind: int, payload: memoryview) -> bool:
        """
        Take what the child has sent of it.

        @param kind: The kind of the frame.

        @param payload: The payload.

        @return: Whether the iteration has come to its end.
        """
        if kind == Kind.END:
            self.end()
            return True
        self._begin()
        if kind == Kind.ITEMS:
            return not self._push(payload)
        text = rebuild(payload)
        self._source.fail(Failure(text.exception or WorkerError(str(text))))
        return True

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
