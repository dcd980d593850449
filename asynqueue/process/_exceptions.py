"""
Exceptions that have come from a child, made whole again.
"""

from __future__ import annotations

from typing import Any

from .._child.payloads import NotPicklable, loads
from .._child.raised import CAUSE, CONTEXT, TakenApart, putTogether
from .._child.status import ErrorText
from ..errors import RemoteTraceback, SerializationError, WorkerError

__all__ = ["rebuild"]

#: What these are raised for here would be an iteration that has nothing to do with
#: them. (C{SystemExit} and its like, which would end the program, are no
#: C{Exception}s.)
_ENDS = (StopAsyncIteration, StopIteration)


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
    trace = RemoteTraceback(lines.rstrip())
    error = links[0][1]
    if isinstance(error, NotPicklable):
        error = SerializationError(text)
    elif not isinstance(error, Exception) or isinstance(error, _ENDS):
        error = WorkerError(text)
    CAUSE.__set__(error, trace)
    link: BaseException = trace
    for relation, origin in links[1:]:
        if origin is None:
            break
        (CAUSE if relation == "cause" else CONTEXT).__set__(link, origin)
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
        if isinstance(error, TakenApart):
            error = putTogether(error)
    except BaseException:  # noqa: BLE001 - runs code of the exception
        return None
    return error if isinstance(error, BaseException) else None
