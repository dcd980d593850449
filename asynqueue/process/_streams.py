"""The iterations that go on in a child, as seen by the parent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.python.failure import Failure

from .._child.buffers import Incoming
from .._child.pickling import describeError, loadsMany
from .._child.protocol import COUNT, Kind
from .._child.stream import WAITS
from .._support.answers import loadsAnswer
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..iteration._remote import RemoteIteration
from ..iteration._sources import BufferedSource
from ._interruption import Interruption
from ._life import ChildLife

__all__ = ["ChildIteration", "Streams"]

#: The child hears that items have been taken when they are half of those that were at
#: hand, so that it needn't wait for that, but so many at least,
_MIN_TAKEN = 8

#: and not more than so many at a time.
_MAX_TAKEN = 512

#: Seconds that the child has to end an iteration that nobody wants, until an exception
#: is raised in it.
_CLOSE_SECONDS = 0.5


class Streams:
    """The iterations of a child, by number of the call."""

    # An iteration that isn't wanted is in _closing until the child has ended it; others
    # are in _iterations.

    def __init__(self, life: ChildLife, ended: Callable[[], object]) -> None:
        """@param ended: Called when an iteration has ended."""
        self._life = life
        self._ended = ended
        self._iterations: dict[int, ChildIteration] = {}
        self._closing: dict[int, Interruption] = {}

    def __len__(self) -> int:
        return len(self._iterations)

    @property
    def tasks(self) -> list[ITask]:
        """The tasks of iterations from which nothing has come yet."""
        return [it.task for it in self._iterations.values() if not it._begun]

    def begin(self, number: int, task: ITask, consumer: Any) -> None:
        """
        Begin an iteration.

        @param consumer: Takes the items, unless it's C{None}.
        """
        iteration = self._iterations[number] = ChildIteration(
            task, partial(self._taken, number), partial(self.close, number)
        )
        if consumer is not None:
            iteration.feed(consumer)

    def received(self, kind: int, number: int, payload: memoryview | Incoming) -> None:
        """Take what the child has sent of an iteration."""
        iteration = self._iterations.get(number)
        if iteration is not None:
            if iteration.received(kind, payload):
                # Unless it has been closed in the meantime.
                self._iterations.pop(number, None)
                self._ended()
        elif kind in (Kind.END, Kind.FAILED) and number in self._closing:
            self._closing.pop(number).over()
        elif isinstance(payload, Incoming):
            payload.discard()

    def close(
        self,
        number: int,
        giveUp: Callable[[], object] = bool,
        delay: float = _CLOSE_SECONDS,
    ) -> None:
        """
        Have the child end an iteration that nobody wants to go on.

        @param giveUp: Called if it doesn't.

        @param delay: Seconds until an exception is raised in it.
        """
        if self._iterations.pop(number, None) is not None:
            self._life.send(Kind.CLOSE, number, b"")
            self._closing[number] = Interruption(
                partial(self._life.interrupt, number),
                giveUp,
                self._life.reactor,
                delay=delay,
            )
            self._ended()

    def drop(self, task: ITask) -> int:
        """
        Forget a task from whose iteration nothing has come yet.

        @return: The number of its call, 0 if there's none such.
        """
        for number, iteration in self._iterations.items():
            if iteration.drop(task):
                return number
        return 0

    def release(self) -> list[ITask]:
        """Let go of the tasks of iterations from which nothing has come yet."""
        released = [iteration.release() for iteration in self._iterations.values()]
        return [task for task in released if task is not None]

    def takeAll(self) -> list[ChildIteration]:
        """Take out all iterations, as the child has ended."""
        for interruption in self._closing.values():
            interruption.over()
        self._closing.clear()
        iterations = list(self._iterations.values())
        self._iterations.clear()
        return iterations

    def _taken(self, number: int, count: int) -> None:
        self._life.send(Kind.TAKEN, number, COUNT.pack(count))


class ChildIteration(RemoteIteration):
    """An iteration in a child, from which items are taken here."""

    def __init__(
        self,
        task: ITask,
        taken: Callable[[int], object],
        close: Callable[[], object],
    ) -> None:
        """
        @param taken: Called with what the child is to be told when items have been
            taken: how many, and L{WAITS} if the consumer waits for more.

        @param close: Called when nobody wants the iteration to go on.
        """
        super().__init__(task, BufferedSource(self._taken, close, every=_MIN_TAKEN))
        self._close = close
        self._tell = taken

    def received(self, kind: int, payload: memoryview | Incoming) -> bool:
        """
        Take what the child has sent of it, and tell whether it has come to its end.
        """
        if kind == Kind.END:
            self.end()
            return True
        self._begin()
        if kind == Kind.ITEMS:
            return not self._push(payload)
        _, outcome = loadsAnswer(kind, payload, self.task)
        if not isinstance(outcome, Failure):
            text = outcome[1]
            outcome = Failure(text.exception or WorkerError(str(text)))
        self._source.fail(outcome)
        return True

    def drop(self, task: ITask) -> bool:
        """
        Forget the task if it's this one's and has no result yet, and tell whether it
        was so.
        """
        if self._begun or task is not self.task:
            return False
        self._begun = True
        return True

    def _push(self, payload: memoryview | Incoming) -> bool:
        """
        Take items, and tell whether all could be unpickled. If not, the iteration fails
        after those before.
        """
        items: list[Any] = []
        try:
            if type(payload) is memoryview:
                for some in loadsMany(payload):
                    items += some
            else:
                items += payload.loads()
        except BaseException as error:  # noqa: BLE001 - runs code of users
            failure = Failure(
                SerializationError(
                    f"An item of the iteration of {self.task!r} can't be unpickled"
                    f" here: {describeError(error)}"
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
        half = (self._source.atHand + len(items)) // 2
        self._source.every = max(_MIN_TAKEN, min(half, _MAX_TAKEN))
        self._source.push(items)

    def _taken(self, count: int) -> None:
        self._tell(count if self._source.atHand else count | WAITS)
