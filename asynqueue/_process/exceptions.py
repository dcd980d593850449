"""
Exceptions that have come from a child, made whole again.
"""

from __future__ import annotations

from typing import Any

from .._status import ErrorText
from ..errors import RemoteTraceback, SerializationError, WorkerError
from .payloads import NotPicklable, loads

__all__ = ["rebuild"]


def rebuild(pickled: memoryview | bytes) -> ErrorText:
    """
    Make an exception again from what the child has sent of it.

    @param pickled: What C{dumpsException} has made.

    @return: Text that carries the exception. Its cause is the traceback in the child
        (L{RemoteTraceback}), whose own cause is what it has come from there. If it
        can't be rebuilt, it's a L{WorkerError} with the whole text.
    """
    text, lines, chain = loads(pickled)
    links = [(relation, _load(blob)) for relation, blob in chain]
    relation, error = links[0]
    trace = RemoteTraceback(lines.rstrip())
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        # Not to be raised in the reactor: SystemExit would end the program, and
        # StopIteration an iteration that it has nothing to do with.
        error = WorkerError(text)
    elif isinstance(error, NotPicklable):
        error = SerializationError(text)
    error.__cause__ = trace
    link: BaseException = trace
    for relation, origin in links[1:]:
        if origin is None:
            break
        if relation == "cause":
            link.__cause__ = origin
        else:
            link.__context__ = origin
        link = origin
    return ErrorText(text, error)


def _load(blob: bytes | None) -> BaseException | None:
    """
    Unpickle an exception.

    @param blob: The pickle, or C{None}.

    @return: The exception, C{None} if it can't be had.
    """
    if blob is None:
        return None
    try:
        error: Any = loads(blob)
    except (Exception, SystemExit):  # noqa: BLE001 - runs code of the exception
        return None
    return error if isinstance(error, BaseException) else None
