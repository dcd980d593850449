"""A universe for tests of servers in processes of their own, and such processes."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.wire import ServerManager, WireWorker, WireWorkerUniverse

from ._wire import WireTestCase

ROOT = Path(__file__).resolve().parent.parent


class Local(WireWorkerUniverse):
    """A universe that knows where it is."""

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        self._kept: Any = None

    def pid(self) -> int:
        """Tell in which process this is."""
        return os.getpid()

    def niceness(self) -> int:
        """Tell how nice the process is."""
        return os.nice(0)

    def environment(self, name: str) -> str | None:
        """Look up a variable of the environment."""
        return os.environ.get(name)

    def say(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stderr.write(f"{text}!\n")

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def note(self, path: str, x: int) -> int:
        """Note that this is run."""
        with open(path, "ab", buffering=0) as file:
            file.write(b"%d\n" % x)
        return x

    def read(self, path: str) -> str:
        """Read a file, which may be a pipe: then this waits for who writes to it."""
        with open(path) as file:
            return file.read()

    def write(self, path: str) -> None:
        """Write to a pipe that is read, and then do nothing for long."""
        with open(path, "wb", buffering=0) as file:
            file.write(b"x")
        time.sleep(60)

    def compute(self, path: str) -> int:
        """
        Write to a pipe that is read, and then compute for long, in a loop of the
        interpreter's in which no other thread can run.
        """
        with open(path, "wb", buffering=0) as file:
            file.write(b"x")
        power: int = 3**10**9
        return power & 1

    def leaveOne(self) -> int:
        """Start a process that has this one's output, and outlives it."""
        return subprocess.Popen(["sleep", "60"]).pid

    def close(self, fd: int) -> None:
        """Close a descriptor of the process."""
        os.close(fd)

    def zeros(self, size: int) -> bytes:
        return bytes(size)

    def size(self, data: bytes) -> int:
        """Tell how large an argument is."""
        return len(data)

    def clients(self) -> int:
        """Tell how many clients the server has."""
        return len(self.ws._sessions)

    def peak(self) -> int:
        """Tell how much memory the process has had at most."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def remember(self, x: Any) -> None:
        """Keep something for L{recall}."""
        self._kept = x

    def recall(self) -> Any:
        """Tell what is kept."""
        return self._kept

    def items(self, n: int, size: int) -> Iterator[bytes]:
        for _ in range(n):
            yield bytes(size)


class Broken(WireWorkerUniverse):
    """A universe that can't be made."""

    def __init__(self, wireServer: Any = None) -> None:
        sys.stderr.write("what it says before\n")
        raise RuntimeError("it can't be made")


def freePort() -> int:
    """Find a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def processGone(pid: int) -> Deferred[None]:
    """Wait for the end of a process that needn't be a child of this one."""

    def wait() -> None:
        if not hasattr(os, "pidfd_open"):
            # Somebody else's child can only be looked at.
            with suppress(ProcessLookupError):
                for _ in range(3_000):
                    os.kill(pid, 0)
                    time.sleep(0.01)
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(30_000), f"process {pid} lives on"
        finally:
            os.close(descriptor)

    return deferToThread(wait)


def environment(*folders: str | Path) -> dict[str, str]:
    """Have Python find the package, and modules in some folders, besides the usual."""
    path = [str(ROOT), os.environ.get("PYTHONPATH", ""), *map(str, folders)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


async def runPython(
    *args: str, env: dict[str, str] | None = None, folder: str | None = None
) -> tuple[str, str, int]:
    """
    Run Python to its end. Returns what it wrote to stdout and to stderr, and its exit
    code, or the number of the signal that has ended it.
    """
    ended = getProcessOutputAndValue(sys.executable, args, env or environment(), folder)
    # That a signal has ended it is told as a failure with the same.
    out, err, code = await ended.addErrback(lambda failure: failure.value)
    return out.decode(), err.decode(), code


async def runScript(
    folder: str, text: str, *args: str, run: Callable[[str], list[str]] | None = None
) -> tuple[str, str, int]:
    """
    Run a script from a folder, in another below that. C{run} gets its path, and returns
    what to run. Returns what L{runPython} does.
    """
    path = os.path.join(folder, "script.py")
    Path(path).write_text(textwrap.dedent(text), encoding="utf-8")
    elsewhere = os.path.join(folder, "elsewhere")
    os.makedirs(elsewhere, exist_ok=True)
    command = [*(run(path) if run else [path]), *args]
    return await runPython(*command, env=environment(folder), folder=elsewhere)


class Program(ProcessProtocol):
    """A program in a process of its own. C{ended} fires with its exit code."""

    def __init__(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Run Python, in a folder if one is given."""
        self.output = ""
        self.errors = ""
        self.ended: Deferred[int | None] = Deferred()
        self._waiting: list[tuple[str, str, Deferred[str]]] = []
        reactor: Any = globalReactor()
        self.process = reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, *args],
            env={**environment(), **(env or {})},
            path=None if folder is None else str(folder),
        )
        self.pid: int = self.process.pid

    def line(self) -> Deferred[str]:
        """Wait for the first line of output."""
        return self.outputWith("\n").addCallback(lambda text: text.split("\n")[0])

    def outputWith(self, text: str) -> Deferred[str]:
        return self._wait("output", text)

    def errorWith(self, text: str) -> Deferred[str]:
        return self._wait("errors", text)

    def signal(self, number: int) -> None:
        if not self.ended.called:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        if not self.ended.called:
            self.signal(signal.SIGKILL)
            await self.ended

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        self._tell()

    def errReceived(self, data: bytes) -> None:
        self.errors += data.decode()
        self._tell()

    def _wait(self, name: str, text: str) -> Deferred[str]:
        d: Deferred[str] = Deferred()
        self._waiting.append((name, text, d))
        self._tell()
        return d

    def _tell(self) -> None:
        """Tell those who wait for what is there now."""
        for entry in list(self._waiting):
            name, text, d = entry
            if text in getattr(self, name):
                self._waiting.remove(entry)
                d.callback(getattr(self, name))

    def processEnded(self, reason: Failure) -> None:
        """Note that it has ended."""
        value: Any = reason.value
        self.ended.callback(0 if reason.check(ProcessDone) else value.exitCode)


def soon(attempts: int) -> float:
    return 0.01


class ManagerTestCase(WireTestCase):
    """A test with a manager."""

    timeout = 60

    def manager(self, wwu: Any = "tests._servers.Local", **kw: Any) -> ServerManager:
        manager = ServerManager(wwu, **{"timeout": 0, "backoff": soon, **kw})
        self.closers.append(manager.shutdown)
        return manager

    async def queueFor(self, *places: str, **kw: Any) -> TaskQueue:
        """Make a queue for servers."""
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        for place in places:
            await q.attachWorker(
                WireWorker(Local, place, **{"reconnect": True, "backoff": soon, **kw})
            )
        return q
