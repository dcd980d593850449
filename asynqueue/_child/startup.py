"""
The first that a child process does.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

__all__ = ["GROUP_SIGNALS", "begin"]

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


def begin() -> None:
    """
    Leave the parent's process group, and take signals from then on.
    """
    with suppress(PermissionError):  # it leads a session
        os.setpgid(0, 0)
    handlers = {number: signal.getsignal(number) for number in GROUP_SIGNALS}
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # forgets those that have come
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    # Ctrl-C is for the parent, who decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
