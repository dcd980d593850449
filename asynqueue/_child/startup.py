"""How a child begins: apart from its parent's group, but bound to its life."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from threading import Thread, Timer
from typing import Any

#: Signals that are sent to all processes of a group: by a terminal, C{timeout},
#: managers of services. They're blocked when a child is started.
GROUP_SIGNALS = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTSTP,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)

#: The environment variable that has the parent's process ID, until L{begin} is called.
PARENT_VARIABLE = "ASYNQUEUE_PARENT"
#: Seconds that the parent has to begin to shut down, if it's to end.
_PARENT_SECONDS = 1.0
#: What L{handleSignals} was given.
_handled: tuple[int, Callable[[], object]] | None = None

#: The option of Linux's C{prctl} that sets a signal to be had at the parent's end.
_PR_SET_PDEATHSIG = 1


def begin() -> None:
    """Leave the parent's process group, take signals, and end when the parent does."""
    parent = int(os.environ.pop(PARENT_VARIABLE, os.getppid()))
    with suppress(PermissionError):  # it leads a session
        os.setpgid(0, 0)
    handlers = {number: signal.getsignal(number) for number in GROUP_SIGNALS}
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # forgets those that have come
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.signal(signal.SIGINT, ignoreSignal)  # Ctrl-C is for the parent
    endWithParent(parent)


def endWithParent(parent: int) -> None:
    """
    Have the system kill this process when the parent ends, whatever goes on in it, and
    whoever has inherited the parent's pipes.

    That's to be done again when the process has changed its user or group.
    """
    # Linux takes the end of the thread that has started the process for that of the
    # parent. It was the reactor's, without which nothing is asked of the process.
    bySystem = False
    with suppress(ImportError, AttributeError, OSError):
        import ctypes

        libc = ctypes.CDLL(None)
        bySystem = libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    # If there's something in between, such as a script that starts the interpreter, or
    # the parent has just ended, the signal would be somebody else's.
    if not bySystem or os.getppid() != parent:
        Thread(target=_endAfter, args=(parent,), daemon=True).start()


def _endAfter(parent: int) -> None:
    """Wait for the end of the parent, and kill this process."""
    try:
        if hasattr(select, "kqueue"):  # BSD, macOS
            s: Any = select
            event = s.kevent(parent, s.KQ_FILTER_PROC, s.KQ_EV_ADD, s.KQ_NOTE_EXIT)
            s.kqueue().control([event], 1)
        else:
            poll = select.poll()
            poll.register(os.pidfd_open(parent), select.POLLIN)
            poll.poll()
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):  # the system has neither
        return
    os.kill(os.getpid(), signal.SIGKILL)


def handleSignals(fd: int, tell: Callable[[], object]) -> None:
    """
    Leave it to the parent what signals mean that terminals, users and managers of
    services send. It closes the pipe before it sends C{SIGTERM}; it's told in a thread
    when somebody else has sent that, and it has had the time to hear it as well.
    """
    global _handled
    _handled = fd, tell
    # These have handlers, for commands inherit SIG_IGN.
    for number, handler in _HANDLERS.items():
        signal.signal(number, handler)
        signal.siginterrupt(number, False)
    # Python forgets signals that come to a fork before it has begun.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLERS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLERS),
        after_in_child=_restoreSignals,
    )


def handleSignal(number: int, frame: object) -> None:
    """Can be pickled, as what C{signal.signal} returns in a call."""
    assert _handled is not None
    fd, tell = _handled
    poll = select.poll()
    poll.register(fd, 0)
    if number == signal.SIGTERM and poll.poll(0):  # it's hung up
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    else:
        timer = Timer(_PARENT_SECONDS, tell)
        timer.daemon = True
        timer.start()


def ignoreSignal(number: int, frame: object) -> None:
    """Ignore a signal. Unlike C{SIG_IGN}, this isn't inherited by commands."""


_HANDLERS = {
    signal.SIGHUP: handleSignal,
    signal.SIGINT: ignoreSignal,
    signal.SIGTERM: handleSignal,
}


def _restoreSignals() -> None:
    for number, handler in _HANDLERS.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLERS)


def openOutput() -> None:
    """Have each line of output reach the parent when it's written, as UTF-8."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, TextIOWrapper):  # somebody has replaced it
            stream = TextIOWrapper(BufferedWriter(FileIO(fd, "w", closefd=False)))
            setattr(sys, name, stream)
        stream.reconfigure(
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
