"""How a child process has ended."""

from __future__ import annotations

import signal
from typing import Any

from attrs import frozen
from twisted.internet.error import ProcessDone
from twisted.python.failure import Failure

__all__ = ["ExitStatus"]


@frozen
class ExitStatus:
    """
    How a child process has ended.

    @ivar pid: Its process ID, C{None} if it wasn't started.

    @ivar exitCode: Its exit code, or C{None}.

    @ivar signal: The number of the signal that has ended it, or C{None}. If there's no
        exit code either, somebody else has taken the status.

    @ivar output: The last that it wrote to stderr.
    """

    pid: int | None = None
    exitCode: int | None = None
    signal: int | None = None
    output: str = ""

    @classmethod
    def of(cls, pid: int | None, reason: Failure) -> ExitStatus:
        """Make it of what C{processExited} was told."""
        value: Any = reason.value
        code = 0 if reason.check(ProcessDone) else value.exitCode
        return cls(pid, code, getattr(value, "signal", None))

    def __str__(self) -> str:
        """Say it in words."""
        if self.pid is None:
            return "The child process was not started"
        who = f"Child process {self.pid}"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = "a signal"
            return f"{who} was ended by {name} ({self.signal})"
        if self.exitCode is None:
            return f"{who} has ended, and somebody else has taken its exit status"
        return f"{who} ended with exit code {self.exitCode}"
