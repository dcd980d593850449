"""
Runs commands in process groups of their own, so that all that a command has started
ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import CheckError

__all__ = ["runCommand", "runWatched"]

#: How often a command is looked at that's watched.
LOOK_SECONDS = 0.05


@contextmanager
def _started(
    command: Sequence[str],
    output: IO[bytes] | int,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and kill its process group at the end."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environ,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def runCommand(*command: str | Path) -> str:
    """
    Run a command that's expected to succeed.

    @return: What it printed.

    @raise CheckError: With what it printed, if its exit code wasn't 0.
    """
    with _started([str(word) for word in command], subprocess.PIPE) as process:
        output, _ = process.communicate()
    text = output.decode(errors="replace")
    if process.returncode:
        raise CheckError(f"{' '.join(map(str, command))}\n{text}")
    return text


def runWatched(
    command: Sequence[str],
    *,
    watched: Path,
    silence: float,
    log: Path,
    folder: Path,
    environ: Mapping[str, str],
) -> int | None:
    """
    Run a command as long as it keeps writing to a file.

    @param watched: The file, which exists already.

    @param silence: After so many seconds without a change of the file the command is
        killed.

    @param log: The file for what it prints.

    @return: Its exit code, or C{None} if it was killed.
    """
    with (
        log.open("ab") as output,
        _started(command, output, folder, environ) as process,
    ):
        size, changed = 0, time.monotonic()
        while process.poll() is None:
            if watched.stat().st_size != size:
                size, changed = watched.stat().st_size, time.monotonic()
            elif time.monotonic() - changed > silence:
                return None
            time.sleep(LOOK_SECONDS)
    return process.returncode
