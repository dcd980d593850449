"""
Child processes: starting them, noticing their end, signalling them, writing to them.

Two things are guaranteed. The end of a process is noticed whoever takes its exit
status: a handler of C{SIGCHLD}, a thread that calls C{waitpid(-1)}, or a system that
was told to keep none. And no signal reaches another process that has been given the
process ID since.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.spawn import get_executable
from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.process import reapAllProcesses, unregisterReapProcessHandler
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.mainmodule import checkNotImporting
from .._child.startup import GROUP_SIGNALS, PARENT_VARIABLE
from ..errors import WorkerStartError

_T = TypeVar("_T")

#: What multiprocessing names if it hasn't been told otherwise.
_FOUND = sys.executable

#: Seconds until a process is killed again whose end the system doesn't announce.
_RETRY_SECONDS = 0.1


class IProcessReactor(IReactorTime, IReactorProcess, IReactorFDSet):
    """What is needed of a reactor to have a child process."""


@frozen
class ExitStatus:
    """How a child process has ended."""

    #: None if it wasn't started.
    pid: int | None = None
    #: If there's neither of these, somebody else has taken the status.
    exitCode: int | None = None
    signal: int | None = None
    #: The last that it wrote to stderr.
    output: str = ""

    def __str__(self) -> str:
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


class ChildProcess(ProcessProtocol):
    """
    A process that is started by the reactor.

    What it runs must begin with L{asynqueue._child.startup.begin}, which takes it out
    of this process's group.

    @ivar pid: Its process ID, C{None} when it isn't running.

    @ivar ended: Fires with its L{ExitStatus} when it has ended, and not before L{start}
        has returned.
    """

    # pid is set while the process runs, by what the transport tells; _pidfd is open
    # during that time, if the system has such. _timer is the one thing that is to be
    # done later: kill the process.

    def __init__(self, *, reactor: IProcessReactor) -> None:
        self.pid: int | None = None
        self.ended: Deferred[ExitStatus] = Deferred()
        self.transport: Any = None
        self._reactor = reactor
        self._pidfd: Pidfd | None = None
        self._timer: IDelayedCall | None = None
        self._isStarting = True
        self._statusTaken = False
        self._status: ExitStatus | None = None

    def start(
        self,
        args: Sequence[str],
        childFDs: Mapping[int, int | str],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """
        Start the process, which may raise OSError; in a child that is importing the
        main program it's a RuntimeError.
        """
        checkNotImporting("A child process was to be started")
        env = dict(os.environ if env is None else env)
        env[PARENT_VARIABLE] = str(os.getpid())
        try:
            # Until it's in a process group of its own, it takes no signals that were
            # meant for this process.
            with _signalsBlocked(GROUP_SIGNALS):
                self._reactor.spawnProcess(
                    self, args[0], args, env=env, childFDs=dict(childFDs)
                )
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # Ours are all open: there's no room for others to be made of them.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        self._isStarting = False
        if self._status is not None:
            self._reactor.callLater(0, self.ended.callback, self._status)

    def terminate(self, graceSeconds: float) -> None:
        """Send it C{SIGTERM}, and kill it if it doesn't end in time."""
        self.killAfter(graceSeconds)
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self._cancelTimer()
        self.signal(signal.SIGKILL)
        if self._pidfd is None:
            # A reactor without a handler of SIGCHLD isn't told of the end.
            self.killAfter(_RETRY_SECONDS)

    def killAfter(self, seconds: float) -> None:
        self._cancelTimer()
        if self.pid is not None:
            self._timer = self._reactor.callLater(seconds, self.kill)

    def connectionMade(self) -> None:
        # Before anybody may have taken the exit status, so it's this process's.
        self.pid = self.transport.pid
        pidfd = openPidfd(self.transport.pid)
        if pidfd is not None:
            self._pidfd = Pidfd(pidfd, self._look, self._reactor)

    def processExited(self, reason: Failure) -> None:
        pid, self.pid = self.pid, None
        if self._statusTaken:
            self._status = ExitStatus(pid)
        else:
            value: Any = reason.value
            self._status = ExitStatus(pid, value.exitCode, value.signal)
        self._cancelTimer()
        if self._pidfd is not None:
            self._pidfd.close()
        if not self._isStarting:
            self.ended.callback(self._status)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        # Without a pidfd, a process whose exit status nobody has taken keeps its ID.
        if self._pidfd is None:
            self._look()
        if self.pid is None:
            return
        with suppress(ProcessExitedAlready, OSError):  # it's ending right now
            if self._pidfd is None:
                self.transport.signalProcess(number)
            else:
                signal.pidfd_send_signal(self._pidfd.fileno(), number)

    def _look(self) -> None:
        if self.pid is None:
            return
        reapAllProcesses()
        # That may have told of the end.
        pid: int | None = self.pid
        if pid is None:
            return
        if not isChild(pid) if self._pidfd is None else self._pidfd.hasEnded():
            # Somebody else has taken the exit status.
            self._statusTaken = True
            with suppress(RuntimeError):  # another process has the ID by now
                unregisterReapProcessHandler(pid, self.transport)
            self.transport.processEnded(0)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


@implementer(IReadDescriptor)
class DescriptorReader:
    """A descriptor, in the reactor to be read until it's closed."""

    def __init__(self, fd: int, reactor: IReactorFDSet) -> None:
        self._fd = fd
        self._reactor = reactor
        self._isOpen = True
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "asynqueue"

    def doRead(self) -> None:
        raise NotImplementedError

    def connectionLost(self, reason: Failure) -> None:
        # Some reactors tell the end in this way. One that has heard of several in one
        # turn knows them by number only: if the first has had a descriptor closed, and
        # a new one has its number now, then it isn't that one's. Else the reactor
        # itself has come to its end.
        if self._isOpen and reason.check(ConnectionDone):
            # It was taken out, and stays in unless this finds the end.
            self._reactor.addReader(self)
            self.doRead()

    def close(self) -> None:
        if self._isOpen:
            self._isOpen = False
            self._reactor.removeReader(self)
            os.close(self._fd)


class Pidfd(DescriptorReader):
    """A descriptor of a process, in the reactor until the process ends."""

    def __init__(
        self, fd: int, ended: Callable[[], object], reactor: IReactorFDSet
    ) -> None:
        super().__init__(fd, reactor)
        self._ended = ended

    def doRead(self) -> None:
        self._ended()

    def hasEnded(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))


def openPidfd(pid: int) -> int | None:
    """Open a descriptor of a process, if the system has such: Linux from 5.3."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def isChild(pid: int) -> bool:
    """Tell whether nobody has taken the exit status of a child."""
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:  # macOS, before Python 3.13
            os.kill(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return False
    return True


def interpreterCommand() -> list[str]:
    """
    Give the interpreter and its options. Embedding programs name the interpreter by
    C{multiprocessing.set_executable}. If there's none, or this program seems to have
    been started in its place, that's a WorkerStartError.
    """
    named = os.fsdecode(get_executable() or "")
    executable = sys.executable if named in ("", _FOUND) else named
    problem = None
    if not executable:
        problem = "Python doesn't know the path of its interpreter (sys.executable)"
    elif executable == sys.executable and _isFrozen():
        problem = "This program is frozen, so that sys.executable is the program itself"
    elif PARENT_VARIABLE in os.environ:
        problem = (
            "This program has been started in place of a Python interpreter, because"
            " sys.executable names it"
        )
    if problem is not None:
        raise WorkerStartError(
            f"No child processes can be started: {problem}. Name an interpreter by"
            " multiprocessing.set_executable(), or use threads"
        )
    return [executable, *_args_from_interpreter_flags()]


def _isFrozen() -> bool:
    """Tell whether one of the usual freezers has made this program."""
    return (
        bool(getattr(sys, "frozen", False) or getattr(sys, "oxidized", False))
        or "__compiled__" in globals()  # Nuitka
        or hasattr(sys.modules["__main__"], "__compiled__")
    )


def withoutSigpipe(write: Callable[[int, _T], int], fd: int, data: _T) -> int:
    """
    Write, raising C{BrokenPipeError} also in a program that has given C{SIGPIPE} its
    default action, which is to end the program.
    """
    with _signalsBlocked([signal.SIGPIPE]):
        try:
            return write(fd, data)
        except BrokenPipeError:
            signal.sigtimedwait([signal.SIGPIPE], 0)
            raise


@contextmanager
def _signalsBlocked(signals: Iterable[int]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
