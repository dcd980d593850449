"""
Ending processes, politely first.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
)
from zope.interface import implementer

from .._support.reactor import orGlobalReactor

__all__ = ["killProcess"]

#: Seconds between two looks at a process of which the system gives no notice: the
#: first, the factor by which they grow, and the most.
_FIRST_LOOK, _GROWTH, _LAST_LOOK = 0.005, 1.5, 0.25


def killProcess(
    pid: int, *, grace: float = 5.0, reactor: IReactorTime | None = None
) -> Deferred[bool]:
    """
    End a process, whether it's a child of this one or not. It's told to terminate,
    and if it's still there after a time of grace, it's killed.

    A child is left to be reaped by whoever started it, who wants to know how it ended.

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
    _checkID(pid)
    if not 0 <= grace < math.inf:
        raise ValueError(f"grace must be a number of seconds, not {grace!r}")
    reactor = orGlobalReactor(reactor)
    try:
        target = _find(pid, reactor)
    except ProcessLookupError:
        return succeed(False)
    killing = _Killing(target, grace, reactor)
    try:
        killing.start()
    except ProcessLookupError:
        return succeed(False)
    except PermissionError as error:
        return fail(PermissionError(error.errno, f"Process {pid} may not be ended"))
    return killing.d


def _checkID(pid: Any) -> None:
    """
    Check that something is the ID of a process that may be ended.

    @param pid: The ID.

    @raise ValueError: If it isn't.
    """
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        # Zero and negative numbers are groups of processes, or all there are.
        raise ValueError(f"A process ID is a positive integer, not {pid!r}")
    if pid == os.getpid():
        raise ValueError(f"{pid} is this very process")


class _Target(Protocol):
    """
    A process to be ended.
    """

    def send(self, number: int) -> None:
        """
        Send a signal.

        @param number: Its number.

        @raise OSError: If that can't be done.
        """

    def watch(self, gone: Callable[[], object]) -> None:
        """
        Call back when the process has ended.

        @param gone: What to call, once, not before this has returned.
        """

    def close(self) -> None:
        """
        Stop watching and leave nothing behind.
        """


class _Killing:
    """
    What becomes of a process that is to be ended.

    @ivar d: A Deferred that fires with C{True} when it has.
    """

    def __init__(self, target: _Target, grace: float, reactor: IReactorTime) -> None:
        self.d: Deferred[bool] = Deferred(lambda _: self._leave())
        self._target = target
        self._grace = grace
        self._timer: IDelayedCall | None = None
        self._reactor = reactor

    def start(self) -> None:
        """
        Tell the process to terminate.

        @raise OSError: If it can't be told. Nothing is left behind then.
        """
        try:
            self._target.send(signal.SIGTERM)
        except OSError:
            self._target.close()
            raise
        self._target.watch(self._gone)
        self._timer = self._reactor.callLater(self._grace, self._kill)

    def _kill(self) -> None:
        """
        Kill the process: the time of grace is up.
        """
        self._timer = None
        try:
            self._target.send(signal.SIGKILL)
        except ProcessLookupError:
            pass  # It has ended just now, which will be noticed.
        except OSError as error:
            self._leave()
            self.d.errback(error)

    def _gone(self) -> None:
        """
        Note that the process has ended.
        """
        self._leave()
        self.d.callback(True)

    def _leave(self) -> None:
        """
        Leave nothing behind.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._target.close()


@implementer(IReadDescriptor)
class _Descriptor:
    """
    A process known by a descriptor, which the system makes readable when it ends. It
    never stands for another process that has got the same ID since.
    """

    def __init__(self, descriptor: int, reactor: IReactorFDSet) -> None:
        self._descriptor = descriptor
        self._reactor = reactor
        self._gone: Callable[[], object] | None = None

    def send(self, number: int) -> None:
        """
        Send a signal.

        @param number: Its number.
        """
        signal.pidfd_send_signal(self._descriptor, number)

    def watch(self, gone: Callable[[], object]) -> None:
        """
        Call back when the process has ended.

        @param gone: What to call.
        """
        self._gone = gone
        self._reactor.addReader(self)

    def close(self) -> None:
        """
        Stop watching and close the descriptor.
        """
        if self._gone is not None:
            self._gone = None
            self._reactor.removeReader(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def fileno(self) -> int:
        """
        Implement C{IReadDescriptor.fileno}.

        @return: The descriptor.
        """
        return self._descriptor

    def doRead(self) -> None:
        """
        Implement C{IReadDescriptor.doRead}: the process has ended.
        """
        if self._gone is not None:
            self._gone()

    def connectionLost(self, reason: Any) -> None:
        """
        Implement C{IReadDescriptor.connectionLost}: some reactors tell so that the
        process has ended, and has been reaped as well.

        @param reason: Nothing of interest.
        """
        self.doRead()

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.

        @return: A short text.
        """
        return "killProcess"


class _Number:
    """
    A process known by its number only, where the system has no such descriptors. It
    has to be looked at now and then.
    """

    def __init__(self, pid: int, reactor: IReactorTime) -> None:
        self._pid = pid
        self._reactor = reactor
        self._look: IDelayedCall | None = None

    def send(self, number: int) -> None:
        """
        Send a signal.

        @param number: Its number.
        """
        os.kill(self._pid, number)

    def watch(self, gone: Callable[[], object]) -> None:
        """
        Call back when the process has ended.

        @param gone: What to call.
        """
        self._watch(gone, _FIRST_LOOK)

    def close(self) -> None:
        """
        Stop watching.
        """
        look, self._look = self._look, None
        if look is not None:
            look.cancel()

    def _watch(self, gone: Callable[[], object], interval: float) -> None:
        """
        Look at the process later.

        @param gone: What to call when it has ended.

        @param interval: Seconds until then.
        """

        def look() -> None:
            self._look = None
            if _hasEnded(self._pid):
                gone()
            else:
                self._watch(gone, min(interval * _GROWTH, _LAST_LOOK))

        self._look = self._reactor.callLater(interval, look)


def _find(pid: int, reactor: Any) -> _Target:
    """
    Find a process.

    @param pid: Its ID.

    @param reactor: The reactor.

    @return: The process.

    @raise ProcessLookupError: If there's none, or if it has ended already.
    """
    # In this order, so that it's the process of the descriptor that is looked at.
    descriptor = None
    if hasattr(os, "pidfd_open") and IReactorFDSet.providedBy(reactor):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:
            pass  # The system doesn't know, or doesn't allow, such descriptors.
    if _hasEnded(pid):
        if descriptor is not None:
            os.close(descriptor)
        raise ProcessLookupError(f"There's no process {pid}, or it has ended")
    if descriptor is not None:
        return _Descriptor(descriptor, reactor)
    return _Number(pid, reactor)


def _hasEnded(pid: int) -> bool:
    """
    Tell whether a process has ended, though it may not have been reaped yet.

    @param pid: Its ID.

    @return: Whether it has.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The state comes after the name, which may have anything in it.
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False  # There's no such file system here, or the process has just gone.
    return state in (b"Z", b"X")
