"""
Writing to pipes whose other end may be closed.
"""

from __future__ import annotations

import signal

# C's own: signal.getsignal makes an enum of what this returns, which takes 0.3 us more.
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from typing import TypeVar

__all__ = ["withoutSigpipe"]

_T = TypeVar("_T")


def withoutSigpipe(write: Callable[[int, _T], int], fd: int, data: _T) -> int:
    """
    Write, raising C{BrokenPipeError} also in a program that has given C{SIGPIPE} its
    default action, which is to end the program.
    """
    if getsignal(signal.SIGPIPE) != signal.SIG_DFL:
        return write(fd, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    try:
        return write(fd, data)
    except BrokenPipeError:
        signal.sigtimedwait([signal.SIGPIPE], 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
