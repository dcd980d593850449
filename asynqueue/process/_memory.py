"""
How much memory a process has in use.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

__all__ = ["residentSize"]


def residentSize(pid: int) -> int | None:
    """
    Measure the memory of a process.

    @param pid: Its process ID.

    @return: Its resident size in kB (1,024 bytes), C{None} if there's no such process.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except OSError:
        # It's gone, or the system has no such files.
        pass
    with suppress(OSError, ValueError):
        return int(
            subprocess.run(
                ["ps", "-o", "rss=", "-p", str(pid)],
                capture_output=True,
                check=False,
            ).stdout
        )
    return None
