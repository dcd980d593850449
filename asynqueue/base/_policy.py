"""
What a call's Deferred comes to when its task fails.
"""

from __future__ import annotations

import sys
from enum import Enum, auto
from typing import Any

from twisted.internet.interfaces import IReactorCore
from twisted.python.failure import Failure

from .._child.status import ErrorText
from .._support.log import log
from ..errors import RemoteTraceback, WorkerError

__all__ = ["ErrorPolicy", "TaskFailure", "failureOf"]

#: Under the policy C{STOP}, the reactor has so many seconds left.
_LAST_SECONDS = 1.0


class TaskFailure(Failure):
    """
    A failure whose traceback includes the one from where the task ran.
    """

    def printTraceback(
        self,
        file: Any = None,
        elideFrameworkCode: bool = False,
        detail: str = "default",
    ) -> None:
        """
        Write the remote traceback, if there's one, and then the local one.

        @param file: Where to, by default the log.

        @param elideFrameworkCode: Ignored, as in all failures.

        @param detail: How much to tell.
        """
        remote = getattr(self.value, "__cause__", None)
        if (
            file is not None
            and detail != "brief"
            and isinstance(remote, RemoteTraceback)
        ):
            file.write(f"{str(remote).strip()}\n\nWhich has brought about here:\n\n")
        super().printTraceback(file, elideFrameworkCode, detail)


def failureOf(text: Any) -> Failure:
    """
    Make a failure from what a worker handed back for a task that raised.

    @param text: An L{ErrorText}, or plain text.

    @return: The task's own failure where it is known, else a L{WorkerError} with the
        text.
    """
    if isinstance(text, ErrorText):
        if isinstance(text.failure, Failure):
            return text.failure
        if text.exception is not None:
            return TaskFailure(text.exception)
    return Failure(WorkerError(str(text)))


class ErrorPolicy(Enum):
    """
    The policies, as the API page has them.
    """

    #: The Deferred fails with the task's own exception.
    RAISE = auto()

    #: The Deferred fails with L{WorkerError}, the own exception chained.
    WRAP = auto()

    #: The Deferred fires with the text, which is logged.
    WARN = auto()

    #: The Deferred fires with the text, which is printed, and the reactor stops.
    STOP = auto()

    def settle(self, failure: Failure, text: str, reactor: Any) -> Any:
        """
        Decide.

        @param failure: The failure of the task.

        @param text: Text about it, which names the call.

        @param reactor: The reactor that is stopped under the policy C{STOP}.

        @return: What the Deferred fires with.
        """
        if self is ErrorPolicy.RAISE:
            return failure
        if self is ErrorPolicy.WRAP:
            if failure.check(WorkerError):
                return failure
            error = WorkerError(text)
            error.__cause__ = failure.value
            return TaskFailure(error)
        if self is ErrorPolicy.WARN:
            log.error("{text}", text=text)
            return text
        sys.stderr.write(f"{text}\n")
        reactor.callLater(_LAST_SECONDS, _stop, reactor)
        return text


def _stop(reactor: IReactorCore) -> None:
    """
    Stop the reactor, unless it has been.

    @param reactor: The reactor.
    """
    if getattr(reactor, "running", True):
        reactor.stop()
