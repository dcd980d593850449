"""
How a child process has ended.
"""

from __future__ import annotations

import signal
from typing import Any

from attrs import frozen
from twisted.internet.error import ProcessDone
from twisted.python.failure import Failure

__all__ = ["Ended"]


@frozen
class Ended:
    """
    How a child has ended.

    @ivar pid: Its process ID.

    @ivar exitCode: Its exit code, or C{None}.

    @ivar signal: The number of the signal that has ended it, or C{None}.

    @ivar output: The last that it wrote to stderr.
    """

    pid: int | None
    exitCode: int | None
    signal: int | None
    output: str

    @classmethod
    def of(cls, pid: int | None, reason: Failure, output: str = "") -> Ended:
        """
        Make it of what Twisted tells.

        @param pid: See L{Ended}.

        @param reason: What C{processExited} was told.

        @param output: See L{Ended}.

        @return: How it has ended.
        """
        value: Any = reason.value
        code = 0 if reason.check(ProcessDone) else value.exitCode
        return cls(pid, code, getattr(value, "signal", None), output)

    def __str__(self) -> str:
        """
        Say it in words.
        """
        who = "The child process" if self.pid is None else f"Child process {self.pid}"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = "a signal"
            return f"{who} was ended by {name} ({self.signal})"
        if self.exitCode is None:
            return f"{who} was not started"
        return f"{who} ended with exit code {self.exitCode}"
