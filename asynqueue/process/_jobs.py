"""
The tasks that a worker has accepted, and how many it may be sent ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define

from .._child.pickling import Packed
from ..interfaces import ITask
from ._delivery import Shipment

__all__ = ["AHEAD_SECONDS", "Job", "Pace"]

#: A child is sent tasks ahead for so many seconds, going by how long the last took.
AHEAD_SECONDS = 0.001

#: It's never sent more than so many ahead.
_MOST_AHEAD = 64

#: After a long task it's so many at first, and then so many times as many.
_FACTOR = 8

#: How much weight the last task has in how long they take.
_WEIGHT = 1 / 16

#: What it takes a child to get a task and to answer, in seconds at least.
_LEAST_SECONDS = 1e-5


@define(eq=False)
class Job:
    """
    A task that the worker has accepted.

    @ivar task: The task.

    @ivar payload: The call, pickled.

    @ivar shipment: Its large arguments, when they're on their way.

    @ivar consumer: The consumer of an iteration, or C{None}.

    @ivar ready: Called when the worker is ready for another task.

    @ivar number: The number of the call.

    @ivar sent: Whether the child has been sent it.

    @ivar ahead: Whether that was before it was its turn, so that it can be taken back.

    @ivar since: When it was sent, or when the one before it was answered.

    @ivar end: Where it ends in what the child was sent.
    """

    task: ITask
    payload: bytes | Packed
    consumer: Any
    ready: Callable[[], object]
    number: int = 0
    sent: bool = False
    ahead: bool = False
    since: float = 0.0
    end: int = 0
    shipment: Shipment | None = None


class Pace:
    """
    How long tasks take, and how many may be sent ahead because of that.

    When a task has taken longer than those sent ahead should take together, none are
    sent ahead, until one has been short again; then there are a few, then more. What is
    behind a long task nevertheless is taken back from there, by whoever hands out
    tasks. Of short ones, those that take longer than the ones before them count at
    once, and others little by little.

    @ivar capacity: How many tasks a worker wants to have been given, including the one
        that its child runs.
    """

    __slots__ = ("_most", "_seconds", "_waiting", "capacity")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._most = 0
        self._waiting = 0
        self.capacity = 1

    def note(self, seconds: float) -> None:
        """
        Note how long a task took.

        @param seconds: How long.
        """
        if seconds > AHEAD_SECONDS:
            self._most = 0
            self.capacity = 1
            return
        if self._most < _MOST_AHEAD:
            self._most = min(_FACTOR * max(self._most, 1), _MOST_AHEAD)
        mean = self._seconds
        if mean is None or seconds > mean:
            self._seconds = seconds
            self.adapt(self._waiting)
        else:
            self._seconds = mean + _WEIGHT * (seconds - mean)

    def adapt(self, waiting: int) -> None:
        """
        Adapt the capacity.

        @param waiting: How many tasks wait for each worker.
        """
        self._waiting = waiting
        if self._seconds is None:
            return
        ahead = int(AHEAD_SECONDS / max(self._seconds, _LEAST_SECONDS))
        self.capacity = 1 + min(waiting, self._most, ahead)
