"""Processes: a protocol that tells when one is ready, and how to end any."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import partial

from twisted.internet import protocol
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IProcessTransport, IReactorFDSet, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.checks import checkCount, checkSeconds
from .._support.childprocess import Pidfd, openPidfd
from .._support.reactor import orGlobalReactor

#: Seconds between two looks at a process of which the system gives no notice: the
#: first, the factor by which they grow, and the most.
_FIRST_LOOK, _GROWTH, _LAST_LOOK = 0.005, 1.5, 0.25


class ProcessProtocol(protocol.ProcessProtocol):
    """
    A protocol for the reactor's C{spawnProcess}.

    @ivar pid: The process ID, C{None} until the process has been started.

    @ivar d: A Deferred that fires with the first output of the process, C{bytes}, which
        are empty if it has ended without any.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self.pid: int | None = None
        self.d: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        if not self.d.called:
            self.d.callback(data)

    def processEnded(self, reason: Failure) -> None:
        self.outReceived(b"")


def killProcess(
    pid: int, *, grace: float = 5.0, reactor: IReactorTime | None = None
) -> Deferred[bool]:
    """
    End a process, whether it's a child of this one or not. It's told to terminate,
    and if it's still there after a time of grace, it's killed.

    A child is reaped, too, unless somebody else waits for it who can be known: the
    reactor, for children of C{spawnProcess}, or C{multiprocessing}.

    @param pid: The process ID.

    @param grace: Seconds that it has to terminate by itself.

    @param reactor: The reactor. By default, the global one.

    @return: A Deferred that fires once the process has ended: with C{True} if it had
        to be told to, with C{False} if there was no such process or it had ended
        already. It fails with C{PermissionError} if it's not ours to end. Cancelling
        it ends the waiting, and the process isn't killed when the time of grace is up.

    @raise ValueError: If the ID isn't one of another process, or the time of grace not
        a number of seconds.
    """
    # Zero and negative numbers are groups of processes, or all there are.
    checkCount("A process ID", pid, 1)
    if pid == os.getpid():
        raise ValueError(f"{pid} is this very process")
    checkSeconds("grace", grace, zero=True)
    reactor = orGlobalReactor(reactor)
    return Deferred.fromCoroutine(_end(_Process(pid, reactor), grace, reactor))


async def _end(process: _Process, grace: float, reactor: IReactorTime) -> bool:
    try:
        # Looked at only now, so that a descriptor stands for this very process.
        if _hasEnded(process.pid):
            return False
        process.signal(signal.SIGTERM)
        try:
            await process.wait().addTimeout(grace, reactor)
        except TimeoutError:
            with suppress(ProcessLookupError):  # It has just ended, as will be noticed.
                process.signal(signal.SIGKILL)
            await process.wait()
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"Process {process.pid} may not be ended"
        ) from error
    finally:
        process.close()
    _reap(process.pid)
    return True


class _Process:
    """
    A process to be ended.

    It's known by a descriptor where there are such: that never stands for another one
    that has got the same ID since. Elsewhere it's known by its ID, and looked at now
    and then.
    """

    def __init__(self, pid: int, reactor: IReactorTime) -> None:
        self.pid = pid
        self._reactor = reactor
        self._over: OneShot[None] = OneShot()
        self._pidfd: Pidfd | None = None
        if IReactorFDSet.providedBy(reactor):
            fd = openPidfd(pid)
            if fd is not None:
                self._pidfd = Pidfd(fd, partial(self._over.fire, None), reactor)

    def signal(self, number: int) -> None:
        if self._pidfd is None:
            os.kill(self.pid, number)
        else:
            signal.pidfd_send_signal(self._pidfd.fileno(), number)

    def wait(self) -> Deferred[None]:
        """Wait for the end."""
        if self._pidfd is None:
            return Deferred.fromCoroutine(self._look())
        return self._over.wait()

    def close(self) -> None:
        if self._pidfd is not None:
            self._pidfd.close()

    async def _look(self) -> None:
        seconds = _FIRST_LOOK
        while not _hasEnded(self.pid):
            await deferLater(self._reactor, seconds)
            seconds = min(seconds * _GROWTH, _LAST_LOOK)


def _hasEnded(pid: int) -> bool:
    """Tell whether a process has ended. It's reaped then if that's for us to do."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    if _reap(pid):
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The state comes after the name, which may have anything in it.
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False  # There's no such file system here, or the process has just gone.
    return state in (b"Z", b"X")


def _reap(pid: int) -> bool:
    """
    Take the exit status of a child that has ended, unless somebody else waits for it.
    Tells whether there was one to take.
    """
    # Imported here, since it's only there on POSIX.
    from twisted.internet.process import reapProcessHandlers

    multiprocessing = sys.modules.get("multiprocessing")
    children = multiprocessing.active_children() if multiprocessing else ()
    if pid in reapProcessHandlers or any(child.pid == pid for child in children):
        return False
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
