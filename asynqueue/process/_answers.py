"""
What a child answers, given to the tasks that it's about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.python.failure import Failure

from .._child.payloads import NotPicklable, told
from .._child.protocol import Kind
from .._child.status import Status
from ..errors import SerializationError
from ..interfaces import ITask
from ._exceptions import rebuild

__all__ = [
    "ANSWERS",
    "LARGE_RESULT",
    "RESULT",
    "cantBeSent",
    "giveError",
    "giveResult",
]

T = TypeVar("T")

#: Frames that tell what a call has come to.
ANSWERS = frozenset(
    map(int, (Kind.RESULT, Kind.ERROR, Kind.ITERATOR, Kind.LARGE_RESULT))
)

#: The commonest of them.
RESULT = int(Kind.RESULT)

#: The one that may have to be waited for.
LARGE_RESULT = int(Kind.LARGE_RESULT)


def giveResult(task: ITask, load: Callable[[T], Any], payload: T) -> None:
    """
    Give a task its result.

    @param task: The task.

    @param load: Unpickles it.

    @param payload: The result, pickled.
    """
    try:
        result = load(payload)
    except BaseException as error:  # noqa: BLE001 - runs code of users
        wrapped = SerializationError(
            f"The result of {task!r} can't be unpickled here: {told(error)}"
        )
        wrapped.__cause__ = error
        task.errback(Failure(wrapped))
    else:
        task.callback((Status.RAN, result))


def giveError(task: ITask, payload: memoryview) -> None:
    """
    Give a task its failure.

    @param task: The task.

    @param payload: The exception, pickled.
    """
    text = rebuild(payload)
    if isinstance(text.exception, SerializationError):
        task.errback(Failure(text.exception))
    else:
        task.callback((Status.ERROR, text))


def cantBeSent(task: ITask, error: NotPicklable) -> SerializationError:
    """
    Make the error of a task that can't be sent to the child.

    @param task: The task.

    @param error: Why.

    @return: The error.
    """
    unsent = SerializationError(f"{task!r} can't be sent to a child process: {error}")
    unsent.__cause__ = error.__cause__
    return unsent
