"""
The process of a server on this machine, as its manager sees it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]
from typing import Any

from attrs import evolve
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from .._support.exitstatus import ExitStatus
from .._support.output import OutputLog
from ._setup import STOP, Setup

__all__ = ["ServerProcess"]

#: The program that the process runs.
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_child.py")

#: So many descriptors are needed to start a process, at the most.
_MOST_DESCRIPTORS = 16

#: Seconds between looks whether a process that has closed its pipe has ended. The
#: system tells that at once, but not to a reactor without signal handlers.
_LOOK = 0.02

#: Seconds until output isn't waited for any longer that others hold back who have it
#: from the process.
_OUTPUT = 0.5

#: Seconds that a process has to end, besides those that its server has to stop.
_ENDING = 2.0


class ServerProcess(ProcessProtocol):
    """
    The process of a server.

    @ivar pid: Its process ID, C{None} when it isn't running.
    """

    def __init__(
        self,
        setup: Setup,
        listening: Callable[[int], object],
        ended: Callable[[ExitStatus, str, str], object],
        *,
        reactor: Any,
    ) -> None:
        """
        Prepare to start it.

        @param setup: What it's told.

        @param listening: Called with the process ID when the server listens.

        @param ended: Called when the process has ended: with how, and with the name and
            the text of the error that has kept the server from listening.

        @param reactor: The reactor.
        """
        self.transport: Any = None
        self.pid: int | None = None
        self._setup = setup
        self._listening = listening
        self._ended = ended
        self._reactor = reactor
        self._outputs = {
            1: OutputLog("stdout", reactor=reactor),
            2: OutputLog("stderr", reactor=reactor),
        }
        self._said = b""
        self._how: ExitStatus | None = None
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """
        Start it.

        @raise OSError: If it can't be started.
        """
        setup = self._setup
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            # Else those would be left that have been made when there are no more.
            _checkDescriptors(nothing)
            self._reactor.spawnProcess(
                self,
                sys.executable,
                [
                    sys.executable,
                    *_args_from_interpreter_flags(),
                    _PROGRAM,
                    setup.description,
                    setup.wwu,
                ],
                env=None,
                childFDs={0: 0, 1: 1, 2: 2, 3: "w", 4: "r"}
                if setup.stdio
                else {0: nothing, 1: "r", 2: "r", 3: "w", 4: "r"},
            )
        finally:
            os.close(nothing)

    def stop(self) -> None:
        """
        Have the server stop when its tasks are done, within its time.
        """
        if self.pid is None:
            return
        self.transport.writeToChild(3, STOP)
        self.transport.closeChildFD(3)
        if self._setup.timeout is not None:
            self._after(self._setup.timeout + _ENDING, self.kill)

    def kill(self) -> None:
        """
        End the process at once.
        """
        self._timer = None
        # Unless it's ending right now.
        with suppress(ProcessExitedAlready, OSError):
            self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        """
        Implement C{IProcessProtocol.connectionMade}: tell the process what to do.
        """
        self.pid = self.transport.pid
        for output in self._outputs.values():
            output.who = f"Server {self.pid}"
        self.transport.writeToChild(3, self._setup.dump())

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Implement C{IProcessProtocol.childDataReceived}.

        @param childFD: The process's descriptor.

        @param data: What it has written there.
        """
        if childFD in self._outputs:
            self._outputs[childFD].write(data)
            return
        self._said += data
        if self._said == b"{}\n" and self.pid is not None:
            self._listening(self.pid)

    def childConnectionLost(self, childFD: int) -> None:
        """
        Implement C{IProcessProtocol.childConnectionLost}.

        @param childFD: The process's descriptor, which it has closed.
        """
        if childFD in self._outputs:
            self._outputs[childFD].write(b"")
        elif childFD == 4 and self._how is None:
            self._after(_LOOK, self._look)

    def processExited(self, reason: Failure) -> None:
        """
        Implement C{IProcessProtocol.processExited}.

        @param reason: How the process has ended.
        """
        self._how = ExitStatus.of(self.pid, reason)
        self.pid = None
        self._after(_OUTPUT, self._closeAll)

    def processEnded(self, reason: Failure) -> None:
        """
        Implement C{IProcessProtocol.processEnded}: it has ended, and all that it has
        written was read.

        @param reason: How.
        """
        self._cancelTimer()
        how = self._how or ExitStatus.of(self.pid, reason)
        name = text = ""
        with suppress(ValueError):
            said = json.loads(self._said)
            name, text = said.get("error", ""), said.get("text", "")
        self._ended(evolve(how, output=self._outputs[2].tail), name, text)

    def _look(self) -> None:
        """
        Look whether a process that should have ended has, and kill it.
        """
        self._timer = None
        reapAllProcesses()
        if self._how is None:
            # Without the pipe, it would outlive this process.
            self.kill()
            self._after(_LOOK, self._look)

    def _closeAll(self) -> None:
        """
        Read no more of what others write who have their streams from the process.
        """
        self._timer = None
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)

    def _after(self, seconds: float, f: Callable[[], None]) -> None:
        """
        Do something later, instead of what was to be done.

        @param seconds: When.

        @param f: What.
        """
        self._cancelTimer()
        self._timer = self._reactor.callLater(seconds, f)

    def _cancelTimer(self) -> None:
        """
        Do nothing later.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _checkDescriptors(fd: int) -> None:
    """
    Check that there are enough descriptors to be had.

    @param fd: One of them.

    @raise OSError: If there aren't.
    """
    copies: list[int] = []
    try:
        for _ in range(_MOST_DESCRIPTORS):
            copies.append(os.dup(fd))  # noqa: PERF401 - to have them when one fails
    finally:
        for copy in copies:
            os.close(copy)
