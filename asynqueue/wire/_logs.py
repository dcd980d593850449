"""
What a server says that is a program of its own.
"""

from __future__ import annotations

import logging
import os
import traceback
from typing import TextIO

import twisted
from twisted.internet.error import BindError
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.usage import UsageError

from ..errors import AsynQueueError

__all__ = ["explain", "logTo", "onlyTwisted"]

#: What errors of the kinds that a user may make pass through on their way.
_OURS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    for file in (os.path.dirname(__file__), twisted.__file__)
)


def logTo(file: TextIO, *, times: bool = True) -> None:
    """
    Write the log of this process to a file.

    @param file: The file.

    @param times: Whether each line is to have the time in it.
    """

    def text(event: LogEvent) -> str | None:
        line = eventAsText(event, includeTimestamp=times, includeSystem=False)
        return f"{line}\n" if line else None

    globalLogBeginner.beginLoggingTo(
        [FileLogObserver(file, text)], redirectStandardIO=False
    )
    onlyTwisted()


def onlyTwisted() -> None:
    """
    Keep the standard library from writing to stderr what Twisted's log has, too.
    """
    logging.getLogger("asynqueue").addHandler(logging.NullHandler())


def explain(error: BaseException) -> str:
    """
    Say what is wrong with what the user wants of a server.

    @param error: The error.

    @return: Its text, or the whole traceback if it's one that the user's own code, or a
        defect, has led to.
    """
    first = error.__cause__ or error
    told = (AsynQueueError, BindError, OSError, TypeError, ValueError, UsageError)
    if isinstance(error, told) and not (
        isinstance(error, TypeError) and _isElsewhere(first)
    ):
        return str(error) or type(error).__name__
    lines = traceback.format_exception(type(first), first, first.__traceback__)
    return "".join(lines) + (str(error) if first is not error else "")


def _isElsewhere(error: BaseException) -> bool:
    """
    Tell whether other code has led to an error than this package's and Twisted's.

    @param error: The error.

    @return: Whether it has.
    """
    return any(
        not frame.filename.startswith((*_OURS, "<"))
        for frame in traceback.extract_tb(error.__traceback__)
    )
