"""
A cluster of Dask's for tests, of real processes on the loopback interface, and what it
runs. Nothing of Twisted's, as its workers import this.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import distributed
except ImportError:
    distributed = None

#: Why tests are skipped, C{None} if they aren't.
SKIP = None if distributed else "Dask isn't installed: asynqueue[dask] has it"

ROOT = Path(__file__).parent.parent

#: Seconds that a cluster has to start.
_START_SECONDS = 60


class Cluster:
    """
    A scheduler, which has written its address to a file, and workers with a thread
    each.
    """

    def __init__(
        self, workers: int = 2, *options: str, scheduler: tuple[str, ...] = ()
    ) -> None:
        """Start it. The options are for all processes, or for the scheduler alone."""
        self.folder = Path(tempfile.mkdtemp(prefix="asynqueue-dask-"))
        self.file = self.folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._options = options
        atexit.register(self.close)
        try:
            self.startScheduler(*scheduler)
            for _ in range(workers):
                self.startWorker()
        except BaseException:
            self.close()
            raise

    def startScheduler(self, *options: str) -> None:
        """Start a scheduler, and wait until it's there."""
        self.file.unlink(missing_ok=True)
        self.scheduler = self._start(
            "scheduler",
            "--scheduler-file",
            str(self.file),
            "--port",
            *options or ("0",),
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self.file.exists() or not self.file.read_text().endswith("}"):
            if time.monotonic() > deadline or self.scheduler.poll() is not None:
                raise RuntimeError(self.output())
            time.sleep(0.02)
        self.address = str(json.loads(self.file.read_text())["address"])

    def startWorker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker, and don't wait for it."""
        return self._start(
            "worker",
            self.address,
            *("--nthreads", "1", "--local-directory", str(self.folder)),
            *options,
        )

    def output(self) -> str:
        """Get what the processes have said."""
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """End all, and leave nothing behind."""
        atexit.unregister(self.close)
        for process in self.processes:
            # With those that it has started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, kind: str, *args: str) -> subprocess.Popen[bytes]:
        # Nothing listens on other interfaces: their HTTP ports would.
        command = [sys.executable, "-m", "dask", kind, *args, "--host", "127.0.0.1"]
        command += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *self._options],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


# What is run there.


def pid(_: Any = None) -> int:
    return os.getpid()


def doubled(x: Any) -> Any:
    return x + x


def waited(path: str, x: Any = None) -> Any:
    """Say by a file that it's being run, and wait until that is gone."""
    Path(path).write_text(str(os.getpid()))
    while Path(path).exists():
        time.sleep(0.01)
    return x


def ended(path: str) -> str:
    """End the process the first time, and say that the second."""
    if Path(path).exists():
        return "done"
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("It's still there")


def counted(n: int, path: str | None = None) -> Iterator[int]:
    """Yield numbers, and say by a file how it was ended."""
    try:
        yield from range(n)
    finally:
        if path is not None:
            Path(path).touch()


def noted(path: str, text: str) -> int:
    """Add a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"{text} {os.getpid()}\n")
    return os.getpid()


def failed(text: str) -> None:
    raise ValueError(text)


def changed(array: Any) -> Any:
    array[0] += 1
    return array[0], array.nbytes
