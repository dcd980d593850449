"""
What a worker hands back for a task: a status byte, and with C{b'e'} a text that carries
the exception.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

__all__ = ["RAN", "ErrorText", "Status", "StatusResult"]


class Status(bytes, Enum):
    """
    The status that comes first in the pair which a worker hands back for a task. Equal
    to the plain byte.
    """

    #: The task ran. The result is what it returned.
    RAN = b"r"
    #: The task ran and returned C{None}. The result is ignored.
    NONE = b"n"
    #: The task ran and returned an iterator. The result is a
    #: L{Deferator<asynqueue.iteration.Deferator>}; an
    #: L{IterationProducer<asynqueue.iteration.IterationProducer>} if the call has a
    #: consumer; C{[]} for an iterator without items.
    ITERATOR = b"i"
    #: The task ran. The result is what it returned, or a Deferred of that, which is
    #: still arriving.
    CHUNKS = b"c"
    #: The task raised an exception. The result is text about it.
    ERROR = b"e"
    #: The task took longer than its time limit. The result is text about it.
    TIMEOUT = b"t"
    #: The task certainly wasn't run, because its worker went away. The result is
    #: ignored, and the task is queued again.
    DISCONNECTED = b"d"


#: The status of most tasks. Python 3.11 takes long to look up the members of an enum.
RAN = Status.RAN
#: A status (plain bytes will do) and the result that goes with it.
StatusResult: TypeAlias = tuple[bytes, Any]


class ErrorText(str):
    """
    Text about an exception that carries the exception along.

    Workers hand it back with L{Status.ERROR}. Who knows only the text, as the API
    has it, sees a C{str}.

    @ivar exception: The exception itself, or C{None} when only text is known.

    @ivar failure: The exception as a L{Failure<twisted.python.failure.Failure>} that
        knows its frames, or C{None} when there's none.
    """

    exception: BaseException | None
    failure: Any

    def __new__(
        cls, text: str, exception: BaseException | None = None, failure: object = None
    ) -> ErrorText:
        self = super().__new__(cls, text)
        self.exception = exception
        self.failure = failure
        return self
