"""What calls in other processes come to, made into results of tasks."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.python.failure import Failure

from .._child.exceptions import endsIteration, linkCauses, rebuild
from .._child.pickling import NotPicklable, describeError, loads
from .._child.protocol import Kind
from .._child.status import RAN, ErrorText, Status
from ..errors import RemoteTraceback, SerializationError, WorkerError


class _Pickled(Protocol):
    """A pickle with buffers."""

    def loads(self) -> Any:
        """Unpickle it."""


def loadsAnswer(
    kind: int, payload: memoryview | _Pickled, task: object
) -> tuple[float, Any]:
    """
    Get the seconds that a call took, and the status and result of its task or a
    L{Failure}; C{None} for an iteration.
    """
    try:
        found = loads(payload) if type(payload) is memoryview else payload.loads()
        if kind == Kind.RESULT:
            seconds, result = found
            return seconds, (RAN, result)
        if kind == Kind.ITERATOR:
            return float(found), None
        seconds, *parts = found
        text = _rebuildText(*parts)
    except BaseException as error:  # noqa: BLE001 - runs code of users
        wrapped = SerializationError(
            f"The result of {task!r} can't be unpickled here: {describeError(error)}"
        )
        wrapped.__cause__ = error
        return 0.0, Failure(wrapped)
    if isinstance(text.exception, SerializationError):
        return seconds, Failure(text.exception)
    return seconds, (Status.ERROR, text)


def loadsException(pickled: memoryview | bytes) -> ErrorText:
    """
    Make an exception again from what C{dumpsException} has made. Its cause is the
    traceback in the child (L{RemoteTraceback}), whose own cause is what it has come
    from there. If it can't be rebuilt, it's a L{WorkerError} with the whole text.
    """
    _, *parts = loads(pickled)
    return _rebuildText(*parts)


def cantBeSent(task: object, error: BaseException) -> SerializationError:
    """Make the error of a task that can't be sent to the child."""
    unsent = SerializationError(f"{task!r} can't be sent to a child process: {error}")
    unsent.__cause__ = error.__cause__
    return unsent


def _rebuildText(
    text: str, lines: str, chain: list[tuple[str, bytes | None]]
) -> ErrorText:
    links = [(relation, _loadsOne(blob)) for relation, blob in chain]
    error = links[0][1]
    if isinstance(error, NotPicklable):
        error = SerializationError(text)
    elif not isinstance(error, Exception) or endsIteration(error):
        # SystemExit and its like would end the program.
        error = WorkerError(text)
    linkCauses(error, RemoteTraceback(lines.rstrip()), links[1:])
    return ErrorText(text, error)


def _loadsOne(blob: bytes | None) -> BaseException | None:
    """Unpickle an exception, C{None} if it can't be had."""
    if blob is None:
        return None
    try:
        error = loads(blob)
        if isinstance(error, tuple):
            error = rebuild(error)
    except BaseException:  # noqa: BLE001 - runs code of the exception
        return None
    return error if isinstance(error, BaseException) else None
