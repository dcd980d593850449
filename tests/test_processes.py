"""Tests of L{asynqueue.util._processes}."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from time import sleep
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ProcessDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.python.runtime import platform
from twisted.trial.unittest import SynchronousTestCase, TestCase

from asynqueue.util import ProcessProtocol, _processes, killProcess

#: A child that says when it's ready, and ends when its input does.
GENTLE = "import sys; print(flush=True); sys.stdin.read()"

#: A child that isn't impressed by being told to terminate.
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {GENTLE}"

#: A child that has a child of its own, whose process ID it tells.
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {GENTLE!r}], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
print(child.wait(), flush=True)
"""


class RefusalTests(SynchronousTestCase):
    """Tests of what is refused."""

    def test_noID(self) -> None:
        """
        Zero and negative numbers, which would be groups of processes, are refused, as
        is whatever isn't a number.
        """
        for bad in (0, -1, True, "7", None, 7.0):
            with self.assertRaisesRegex(ValueError, f"not {bad!r}"):
                killProcess(bad, reactor=Clock())  # type: ignore[arg-type]

    def test_oneself(self) -> None:
        """It doesn't end the process that it's called in."""
        with self.assertRaisesRegex(ValueError, "very process"):
            killProcess(os.getpid(), reactor=Clock())

    def test_grace(self) -> None:
        """A time of grace that is none is refused."""
        with self.assertRaisesRegex(ValueError, "grace .*-1"):
            killProcess(1, grace=-1, reactor=Clock())


class SignalsTests(SynchronousTestCase):
    """Tests of the order of things, with a process that exists in the mind only."""

    def setUp(self) -> None:
        """Replace what the system does."""
        self.clock = Clock()
        self.sent: list[int] = []
        self.ended = False
        self.refusal: OSError | None = None
        self.patch(os, "kill", self.kill)
        self.patch(_processes, "_hasEnded", lambda pid: self.ended)

    def kill(self, pid: int, number: int) -> None:
        """Stand in for C{os.kill}."""
        self.assertEqual(pid, 4711)
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(number)

    def test_terminates(self) -> None:
        """
        A process that ends when it's told to isn't killed. What looks at it is gone
        afterwards.
        """
        d = killProcess(4711, grace=1, reactor=self.clock)
        self.assertEqual(self.sent, [signal.SIGTERM])
        self.clock.pump([0.1] * 5)
        self.assertNoResult(d)
        self.ended = True
        self.clock.pump([0.1] * 3)
        self.assertIs(self.successResultOf(d), True)
        self.assertEqual(self.sent, [signal.SIGTERM])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_kills(self) -> None:
        """
        A process that's still there after the time of grace is killed, and waited for.
        """
        d = killProcess(4711, grace=1, reactor=self.clock)
        self.clock.pump([0.125] * 7)
        self.assertEqual(self.sent, [signal.SIGTERM])
        self.clock.advance(0.125)
        self.assertEqual(self.sent, [signal.SIGTERM, signal.SIGKILL])
        self.assertNoResult(d)
        self.ended = True
        self.clock.pump([0.1] * 3)
        self.assertIs(self.successResultOf(d), True)

    def test_endsAtLast(self) -> None:
        """A process that ends just before it would be killed is no error."""
        d = killProcess(4711, grace=0.001, reactor=self.clock)
        self.ended, self.refusal = True, ProcessLookupError()
        self.clock.advance(0.001)
        self.clock.advance(0.01)
        self.assertIs(self.successResultOf(d), True)

    def test_endsAtFirst(self) -> None:
        """A process that ends just before it would be told to had ended already."""
        self.refusal = ProcessLookupError()
        d = killProcess(4711, reactor=self.clock)
        self.assertIs(self.successResultOf(d), False)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notPermitted(self) -> None:
        """A process that isn't ours to end is an error that names it."""
        self.refusal = PermissionError(1, "no")
        d = killProcess(4711, reactor=self.clock)
        failure = self.failureResultOf(d, PermissionError)
        self.assertIn("4711", str(failure.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notPermittedLater(self) -> None:
        """Nor does it wait for ever for one that changes its owner meanwhile."""
        d = killProcess(4711, grace=1, reactor=self.clock)
        self.refusal = PermissionError(1, "no")
        self.clock.advance(1)
        self.failureResultOf(d, PermissionError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """
        When it's cancelled, the process isn't killed any more, and nothing stays in
        the reactor.
        """
        d = killProcess(4711, reactor=self.clock)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.sent, [signal.SIGTERM])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HasEndedTests(SynchronousTestCase):
    """Tests of how it's told that a process has ended."""

    def test_foreign(self) -> None:
        """A process that mayn't be signalled is there."""

        def refuse(pid: int, number: int) -> None:
            """Have no descriptor of a process."""
            raise PermissionError

        self.patch(os, "kill", refuse)
        self.assertFalse(_processes._hasEnded(4711))

    def test_withoutFiles(self) -> None:
        """A process of which there are no files to tell about it is there."""
        self.patch(os, "kill", lambda pid, number: None)
        self.assertFalse(_processes._hasEnded(2**31 - 1))


class DescriptorTests(SynchronousTestCase):
    """Tests of the way by descriptor, with a real child and a reactor of the mind."""

    if not hasattr(os, "pidfd_open"):
        skip = "The system has no descriptors of processes."

    def setUp(self) -> None:
        """Start a child."""
        self.reactor: Any = MemoryReactorClock()
        self.child = subprocess.Popen(
            [sys.executable, "-c", GENTLE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.child.stdout is not None
        self.child.stdout.readline()
        self.addCleanup(self.child.__exit__, None, None, None)
        self.addCleanup(self.child.kill)
        self.d = killProcess(self.child.pid, grace=9, reactor=self.reactor)

    def test_ended(self) -> None:
        """
        The reactor watches a descriptor, and nothing is looked at again and again. The
        descriptor is closed at the end.
        """
        [reader] = self.reactor.getReaders()
        descriptor = reader.fileno()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertEqual(self.child.wait(), -signal.SIGTERM)
        reader.doRead()
        self.assertIs(self.successResultOf(self.d), True)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_lost(self) -> None:
        """
        A reactor that tells of the end as of the loss of a connection will do, too.
        """
        [reader] = self.reactor.getReaders()
        reader.connectionLost(Failure(ConnectionDone()))
        self.assertIs(self.successResultOf(self.d), True)
        reader.doRead()

    def test_cancel(self) -> None:
        """When it's cancelled, the descriptor is closed."""
        [reader] = self.reactor.getReaders()
        descriptor = reader.fileno()
        self.d.cancel()
        self.failureResultOf(self.d, CancelledError)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertRaises(OSError, os.fstat, descriptor)


class Child(ProcessProtocol):
    """
    Says when a child of the reactor's has ended, by a Deferred that fires with what the
    reactor has told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ended: Deferred[Any] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        """Note how it has ended."""
        super().processEnded(reason)
        self.ended.callback(SimpleNamespace(value=reason.value))


class ProcessProtocolTests(SynchronousTestCase):
    """Tests of L{ProcessProtocol}."""

    def setUp(self) -> None:
        """Start a process that exists in the mind only."""
        self.protocol = ProcessProtocol()
        self.assertIsNone(self.protocol.pid)
        transport: Any = SimpleNamespace(pid=4711)
        self.protocol.makeConnection(transport)

    def test_output(self) -> None:
        """It has the process ID, and fires with the first output."""
        self.assertEqual(self.protocol.pid, 4711)
        self.assertNoResult(self.protocol.d)
        self.protocol.outReceived(b"ready")
        self.protocol.outReceived(b"more")
        self.protocol.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.successResultOf(self.protocol.d), b"ready")

    def test_noOutput(self) -> None:
        """If the process ends without any, it fires with none."""
        self.protocol.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.successResultOf(self.protocol.d), b"")


class RealTests(TestCase):
    """Tests with real processes."""

    timeout = 30

    if platform.isWindows():
        skip = "The signals are those of POSIX."

    def start(self, program: str) -> subprocess.Popen[bytes]:
        """Start a child that runs a program, which writes a line when it's ready."""
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(child.__exit__, None, None, None)
        self.addCleanup(child.kill)
        return child

    async def ends(self, program: str, how: int, grace: float = 5) -> None:
        """
        Have the reactor start a child, and end it: the reactor is to be told that it
        ended by the signal C{how}.
        """
        child = Child()
        argv = [sys.executable, "-c", program]
        reactor.spawnProcess(child, sys.executable, argv)
        await child.d
        assert child.pid is not None
        self.assertIs(await killProcess(child.pid, grace=grace), True)
        self.assertEqual((await child.ended).value.signal, how)

    async def test_gentle(self) -> None:
        """
        A child is told to terminate. One of the reactor's is left to it to be reaped.
        """
        await self.ends(GENTLE, signal.SIGTERM)

    async def test_stubborn(self) -> None:
        """A child that ignores that is killed."""
        await self.ends(STUBBORN, signal.SIGKILL, 0.01)

    async def test_withoutDescriptors(self) -> None:
        """So it is where the system doesn't allow descriptors of processes."""

        def refuse(pid: int, flags: int = 0) -> int:
            """Have no descriptor of a process."""
            raise OSError("Function not implemented")

        if hasattr(os, "pidfd_open"):
            self.patch(os, "pidfd_open", refuse)
        await self.ends(GENTLE, signal.SIGTERM)
        await self.ends(STUBBORN, signal.SIGKILL, 0.01)
        await self.test_reaped()

    async def test_reaped(self) -> None:
        """A child that nobody is known to wait for is reaped."""
        child = self.start(GENTLE)
        assert child.stdout is not None
        child.stdout.readline()
        self.assertIs(await killProcess(child.pid), True)
        self.assertRaises(ChildProcessError, os.waitpid, child.pid, os.WNOHANG)

    async def test_ofMultiprocessing(self) -> None:
        """A child of C{multiprocessing} is left to that."""
        child = multiprocessing.get_context("spawn").Process(target=sleep, args=(60,))
        child.start()
        assert child.pid is not None
        self.assertIs(await killProcess(child.pid), True)
        child.join()
        self.assertEqual(child.exitcode, -signal.SIGTERM)

    async def test_notAChild(self) -> None:
        """A process that isn't a child of this one is ended as well."""
        parent = self.start(PARENT)
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        self.assertIs(await killProcess(pid), True)
        self.assertEqual(int(parent.stdout.readline()), -signal.SIGTERM)

    async def test_endedAlready(self) -> None:
        """A process that has ended, reaped or not, didn't have to be killed."""
        child = self.start("print()")
        assert child.stdout is not None
        child.stdout.read()
        # It's a zombie as soon as it has ended, and stays one until it's waited for.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        self.assertIs(await killProcess(child.pid), False)
        self.assertRaises(ChildProcessError, os.waitpid, child.pid, os.WNOHANG)
        self.assertIs(await killProcess(child.pid), False)

    async def test_twice(self) -> None:
        """Two may ask for the end of one process."""
        child = self.start(GENTLE)
        assert child.stdout is not None
        child.stdout.readline()
        first, second = killProcess(child.pid), killProcess(child.pid)
        self.assertIs(await first, True)
        self.assertIn(await second, (True, False))
