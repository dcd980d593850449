"""Tests of L{asynqueue._support.childprocess}, with real processes."""

from __future__ import annotations

import os
import signal
import sys
from typing import cast

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from asynqueue._support import childprocess
from asynqueue._support.childprocess import ChildProcess, ExitStatus

#: Takes signals, says that it runs, and ends when descriptor 3 does.
WAITER = """
from asynqueue._child.startup import begin
begin()
import os
os.write(4, b"x")
os.read(3, 1)
"""

#: The same, but SIGTERM doesn't end it.
STUBBORN = (
    """
import signal
signal.signal(signal.SIGTERM, lambda *_: None)
"""
    + WAITER
)


class ChildProcessTests(TestCase):
    """Tests of L{ChildProcess}."""

    timeout = 60

    def setUp(self) -> None:
        """Make a process that isn't started yet."""
        self.process = ChildProcess(reactor=reactor)  # type: ignore[arg-type] # a module to mypy

    async def start(self, program: str = WAITER) -> int:
        """Start a Python program, and wait until it runs."""
        theirs, ours = os.pipe()
        self.addCleanup(os.close, ours)
        isRunning, says = os.pipe()
        try:
            self.process.start(
                [sys.executable, "-c", program], {1: 1, 2: 2, 3: theirs, 4: says}
            )
        finally:
            os.close(theirs)
            os.close(says)
        os.read(isRunning, 1)
        os.close(isRunning)
        # trial's reactor installs its signal handlers when a test first waits.
        await deferLater(reactor, 0)
        return cast(int, self.process.pid)

    def dropStatuses(self) -> None:
        """Have the system keep no exit statuses, and tell nobody."""
        handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGCHLD, handler)

    async def test_killed(self) -> None:
        """The signal that has ended it is told, and no descriptor is left."""
        pid = await self.start()
        descriptors = len(os.listdir("/dev/fd"))
        self.process.kill()
        self.assertEqual(
            await self.process.ended, ExitStatus(pid, None, signal.SIGKILL)
        )
        self.assertIsNone(self.process.pid)
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors - 1)

    async def test_terminated(self) -> None:
        """What ends when it's asked to isn't killed."""
        pid = await self.start()
        self.process.terminate(1_000)
        self.assertEqual(
            await self.process.ended, ExitStatus(pid, None, signal.SIGTERM)
        )

    async def test_stubborn(self) -> None:
        """What doesn't end when it's asked to is killed."""
        pid = await self.start(STUBBORN)
        self.process.terminate(0.01)
        self.assertEqual(
            await self.process.ended, ExitStatus(pid, None, signal.SIGKILL)
        )

    async def test_statusDropped(self) -> None:
        """The end is noticed without an exit status."""
        pid = await self.start()
        self.dropStatuses()
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await self.process.ended, ExitStatus(pid))
        self.assertIn("somebody else", str(ExitStatus(pid)))

    async def test_statusTaken(self) -> None:
        """
        It's also noticed if somebody else has taken the status, and what is no longer
        this process isn't signalled.
        """
        self.patch(os, "kill", None)
        kill = signal.pidfd_send_signal
        pid = await self.start()
        pidfd = os.pidfd_open(pid)
        self.addCleanup(os.close, pidfd)
        kill(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.process.terminate(0.01)
        self.process.kill()
        self.assertEqual(await self.process.ended, ExitStatus(pid))
        self.process.kill()

    async def test_withoutPidfd(self) -> None:
        """Without a pidfd, it's noticed when the process is to be killed."""
        self.patch(childprocess, "openPidfd", lambda pid: None)
        pid = await self.start()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.patch(os, "kill", None)
        self.process.killAfter(0.01)
        self.assertEqual(await self.process.ended, ExitStatus(pid))

    async def test_killedWithoutPidfd(self) -> None:
        """The same goes for the end of a process that is killed."""
        self.patch(childprocess, "openPidfd", lambda pid: None)
        pid = await self.start()
        self.dropStatuses()
        self.process.kill()
        self.assertEqual(await self.process.ended, ExitStatus(pid))

    async def test_early(self) -> None:
        """
        The end isn't told before the caller knows the process, however early it comes.
        """
        self.process.connectionMade = self._connectLate  # type: ignore[method-assign]
        self.process.start(["true"], {})
        self.assertNoResult(self.process.ended)
        self.assertEqual((await self.process.ended).exitCode, 0)

    def _connectLate(self) -> None:
        """Connect when the process has ended."""
        pid: int = self.process.transport.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        ChildProcess.connectionMade(self.process)
