"""Writing to pipes whose other end may be closed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["withoutSigpipe"]

_T = TypeVar("_T")

#: As signal.getsignal, which takes 1.4 us more to make an enum of what this returns.
_getsignal: Callable[[int], Any] = getattr(
    signal.getsignal, "__wrapped__", signal.getsignal
)


def withoutSigpipe(write: Callable[[int, _T], int], fd: int, data: _T) -> int:
    """
    Write, raising C{BrokenPipeError} also in a program that has given C{SIGPIPE} its
    default action, which is to end the program.
    """
    if _getsignal(signal.SIGPIPE) != signal.SIG_DFL:
        return write(fd, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    try:
        return write(fd, data)
    except BrokenPipeError:
        signal.sigtimedwait([signal.SIGPIPE], 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
