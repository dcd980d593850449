"""What the Deferred of a call comes to when its task raises."""

from __future__ import annotations

import sys
from typing import Any

from twisted.python.failure import Failure

from .._child.status import ErrorText
from .._support.log import log
from .._support.reactor import Deadline, orGlobalReactor
from ..errors import RemoteTraceback, WorkerError
from ._options import UNSET, Defaults

#: The reactor stops so long after an error under the policy I{stop}.
_STOP_DELAY_SECONDS = 1.0


class TaskFailure(Failure):
    """A failure whose traceback includes the one from where the task ran."""

    def printTraceback(
        self,
        file: Any = None,
        elideFrameworkCode: bool = False,
        detail: str = "default",
    ) -> None:
        """Write the remote traceback, if there's one, and then the local one."""
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
    Make a failure from what a worker handed back for a task that raised: the task's own
    where that is known, else a L{WorkerError} with the text.
    """
    if isinstance(text, ErrorText):
        if isinstance(text.failure, Failure):
            return text.failure
        error = text.exception
        if error is not None and not isinstance(error, Exception):
            # SystemExit and its like would end whoever awaits the call.
            error = WorkerError(str(text))
            error.__cause__ = text.exception
        if error is not None:
            return TaskFailure(error)
    return Failure(WorkerError(str(text)))


class ErrorPolicy:
    """Applies the policy for errors: I{raise}, I{wrap}, I{warn}, or I{stop}."""

    def __init__(self, defaults: Defaults, reactor: Any) -> None:
        self._defaults = defaults
        self._reactor = reactor
        self._stopping = Deadline(self._stop, reactor)

    def apply(self, failure: Failure, text: str, call: str, returnFailure: Any) -> Any:
        """
        Find what the Deferred of a call fires with whose task has failed. For the call
        itself, C{returnFailure} may be L{UNSET}.
        """
        defaults = self._defaults
        if defaults.warn or defaults.spew:
            if defaults.verbose or defaults.spew:
                log.error("{call} failed: {text}", call=call, text=text)
            else:
                log.error("{text}", text=text)
        if returnFailure is UNSET:
            returnFailure = defaults.returnFailure
            if defaults.warn and not returnFailure:
                return text
        if returnFailure is None:
            return failure
        if returnFailure:
            return _wrap(failure, text)
        if not defaults.warn:
            self._stopLater(text)
        return text

    def callOff(self) -> None:
        """Let the reactor run on."""
        self._stopping.callOff()
        self._stopping = Deadline(self._stop, self._reactor)

    def _stopLater(self, text: str) -> None:
        sys.stderr.write(
            f"ERROR: {text}\nThe reactor stops in {_STOP_DELAY_SECONDS:g} second\n"
        )
        self._stopping.within(_STOP_DELAY_SECONDS)

    def _stop(self) -> None:
        reactor = orGlobalReactor(self._reactor)
        if getattr(reactor, "running", True):
            reactor.stop()


def _wrap(failure: Failure, text: str) -> Failure:
    if failure.check(WorkerError):
        return failure
    error = WorkerError(text)
    error.__cause__ = failure.value
    return TaskFailure(error)
