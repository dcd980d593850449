"""Tests of L{asynqueue.process._transport}."""

from __future__ import annotations

import os
import sys

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.protocol import BUFFERS, Kind
from asynqueue._support import childprocess
from asynqueue._support.childprocess import ExitStatus
from asynqueue.process._transport import PipeReader, Transport

from ._fakes import FIRST_PID, FakeProcess, FakeReactor, LogLines


def openDescriptors() -> int:
    """Count the open descriptors of this process."""
    return len(os.listdir("/dev/fd"))


class EndedTests(SynchronousTestCase):
    """Tests of L{ExitStatus}."""

    def test_exitCode(self) -> None:
        """It says with which exit code a process ended."""
        text = str(ExitStatus(7, 3, None, ""))
        self.assertEqual(text, "Child process 7 ended with exit code 3")

    def test_signal(self) -> None:
        """It names the signal, if there's a name for it."""
        self.assertEqual(
            str(ExitStatus(7, None, 9, "")), "Child process 7 was ended by SIGKILL (9)"
        )
        self.assertEqual(
            str(ExitStatus(7, None, 250, "")),
            "Child process 7 was ended by a signal (250)",
        )

    def test_notStarted(self) -> None:
        """A process that hasn't come to be has no number."""
        self.assertTrue(
            str(ExitStatus(None, None, None, "")).startswith("The child process")
        )


class ChildTests(SynchronousTestCase):
    """Tests of L{Child}."""

    def setUp(self) -> None:
        """Start a child."""
        self.before = openDescriptors()
        self.reactor = FakeReactor()
        self.got: list[tuple[int, int, bytes]] = []
        self.ends: list[ExitStatus] = []
        self.child = Transport(
            self.received,
            lambda number, error: None,
            self.ends.append,
            options=("--option",),
            env={"A": "b"},
            reactor=self.reactor,
        )
        [self.process] = self.reactor.processes

    def tearDown(self) -> None:
        """End the child, after which nothing is left."""
        if not self.process.ended:
            self.process.end()
        self.assertEqual(openDescriptors(), self.before)
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.ends), 1)

    def received(self) -> None:
        """Take frames."""
        frames = self.child.receiver.frames
        while frames:
            kind, number, data = frames.popleft()
            self.got.append((kind, number, bytes(data)))  # type: ignore[arg-type]

    def test_start(self) -> None:
        """The same interpreter is started, with the options, in the environment."""
        self.assertEqual(self.process.args[0], sys.executable)
        self.assertTrue(str(self.process.args[-2]).endswith("child.py"))
        self.assertEqual(self.process.args[-1], "--option")
        self.assertEqual(
            self.process.env, {"A": "b", "ASYNQUEUE_PARENT": str(os.getpid())}
        )
        self.assertEqual(self.child.pid, self.process.pid)

    def test_send(self) -> None:
        """Frames that are sent arrive."""
        self.child.sender.send(Kind.CALL, 1, b"payload")
        self.child.sender.send(Kind.CALL, 2, b"")
        self.assertEqual(
            self.process.received(), [(Kind.CALL, 1, b"payload"), (Kind.CALL, 2, b"")]
        )

    def test_sendMuch(self) -> None:
        """What the pipe doesn't take at once is sent when it does."""
        payload = os.urandom(1_000_000)
        self.child.sender.send(Kind.CALL, 1, payload)
        self.child.sender.send(Kind.CALL, 2, b"x")
        self.assertEqual(len(self.reactor.writers), 1)
        got = self.process.received()
        while len(got) < 2:
            self.reactor.serve()
            got += self.process.received()
        self.assertEqual(got, [(Kind.CALL, 1, payload), (Kind.CALL, 2, b"x")])
        self.assertEqual(self.reactor.writers, [])

    def test_receive(self) -> None:
        """Frames that come are handed on, however they're cut."""
        self.process.send(Kind.HELLO, 0)
        self.reactor.serve()
        self.process.send(Kind.RESULT, 1, b"x" * 50_000)
        self.process.write(b"\x01")
        self.reactor.serve()
        self.process.write(bytes(7) + bytes([Kind.END]) + bytes(4) + b"y")
        self.reactor.serve()
        self.assertEqual(
            self.got,
            [
                (Kind.HELLO, 0, b""),
                (Kind.RESULT, 1, b"x" * 50_000),
                (Kind.END, 0, b"y"),
            ],
        )

    def test_nothingToRead(self) -> None:
        """A reactor that's mistaken about something to be read does no harm."""
        for reader in self.reactor.getReaders():
            reader.doRead()
        self.assertEqual(len(self.reactor.readers), 3)

    def test_exit(self) -> None:
        """When the process ends, it's told how, after what it has sent last."""
        self.process.send(Kind.RESULT, 1, b"last")
        self.process.write(b"Oh no\n", 2)
        self.process.end(3)
        self.assertEqual(self.got, [(Kind.RESULT, 1, b"last")])
        self.assertEqual(self.ends, [ExitStatus(FIRST_PID, 3, None, "Oh no")])
        self.assertIsNone(self.child.pid)

    def test_signal(self) -> None:
        """The signal that has ended it is told."""
        self.process.end(None, 11)
        self.assertEqual(self.ends, [ExitStatus(FIRST_PID, None, 11, "")])

    def test_heir(self) -> None:
        """Who has inherited its pipe isn't waited for."""
        heir = os.dup(self.process._fds[4])
        try:
            self.process.end()
            self.assertEqual(len(self.ends), 1)
        finally:
            os.close(heir)

    def test_writingHeir(self) -> None:
        """
        Nor is one who goes on writing: there's a limit to what is read after its end.
        """
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        got: list[bytes] = []

        def received(data: bytes) -> None:
            got.append(data)
            if data:
                os.write(write, data)

        reader = PipeReader(os.dup(read), received, self.reactor)
        os.write(write, b"x" * 1_000)
        reader.drain()
        reader.close()
        self.assertEqual(got[-1], b"")
        self.assertLess(len(got), 1_000)
        self.assertGreater(len(got), 10)

    def test_close(self) -> None:
        """It's told to stop, without a signal."""
        self.child.sender.send(Kind.CALL, 1, b"")
        self.assertFalse(self.process.isStopped())
        self.child.sender.send(Kind.STOP, 0, b"")
        self.assertTrue(self.process.isStopped())
        self.assertEqual(self.process.signals, [])

    def test_sendToTheDead(self) -> None:
        """What is sent when the child has gone is no failure here."""
        self.process.close(3)
        self.child.sender.send(Kind.CALL, 1, b"x")
        self.child.sender.send(Kind.CALL, 2, b"x")
        self.assertEqual(self.reactor.writers, [])

    def test_fullPipeToTheDead(self) -> None:
        """The same holds for what had to wait."""
        self.child.sender.send(Kind.CALL, 1, bytes(1_000_000))
        self.process.close(3)
        self.reactor.serve()
        self.assertEqual(self.reactor.writers, [])

    def test_endSoftly(self) -> None:
        """It's asked to end first, and killed if it doesn't."""
        self.child.terminate()
        self.assertEqual(self.process.signals, ["TERM"])
        self.reactor.advance(0.49)
        self.assertEqual(self.process.signals, ["TERM"])
        self.reactor.advance(0.02)
        self.assertEqual(self.process.signals, ["TERM", "KILL"])

    def test_endSoftlyInTime(self) -> None:
        """It isn't killed if it ends when it's asked to."""
        self.child.terminate()
        self.process.end(None, 15)
        self.reactor.advance(1)
        self.assertEqual(self.process.signals, ["TERM"])

    def test_endRudely(self) -> None:
        """Or it's killed at once."""
        self.child.kill()
        self.assertEqual(self.process.signals, ["KILL"])

    def test_endNoticed(self) -> None:
        """
        It's looked after one that has been killed, since not every reactor is told of
        the ends of processes.
        """
        self.patch(childprocess, "reapAllProcesses", self.process.end)
        self.child.kill()
        self.reactor.advance(0.2)
        self.assertEqual(len(self.ends), 1)

    def test_endOfTheEnded(self) -> None:
        """One that has ended is left alone."""
        self.process.end()
        self.child.terminate()
        self.child.kill()
        self.child.sender.send(Kind.STOP, 0, b"")
        self.assertEqual(self.process.signals, [])

    def test_endOfTheEnding(self) -> None:
        """If it ends of itself at that very moment, there's no error."""
        self.process.ended = True
        self.child.terminate()
        self.child.kill()
        self.assertEqual(self.process.signals, [])
        self.process.end()

    def test_pipeClosed(self) -> None:
        """
        A child that has closed its pipe is of no use, and killed if it doesn't end.
        """
        self.patch(childprocess, "reapAllProcesses", lambda: None)
        self.process.close(4)
        self.reactor.serve()
        self.assertEqual(self.process.signals, [])
        self.reactor.advance(0.1)
        self.assertEqual(self.process.signals, ["KILL"])

    def test_nonsense(self) -> None:
        """
        Nor is one that sends what no child sends: a frame of the parent's, a table of
        buffers that is none, or the end of the use of what it wasn't given.
        """
        for kind, payload in (
            (Kind.SETUP, b""),
            (Kind.RESULT | BUFFERS, b"x"),
            (Kind.RELEASE, bytes(8)),
            (Kind.RELEASE, b"x"),
        ):
            with self.subTest(kind=kind, payload=payload):
                ends: list[ExitStatus] = []
                Transport(list, lambda *_: None, ends.append, reactor=self.reactor)
                process = self.reactor.processes[-1]
                process.send(kind, 1, payload)
                process.send(Kind.RESULT, 1, b"after that")
                self.reactor.serve()
                self.assertEqual(process.signals, ["KILL"])
                process.end(None, 9)
                self.assertEqual(len(ends), 1)

    def test_endIsTold(self) -> None:
        """Its end is told also if what it has written last can't be taken."""
        self.patch(self.child.receiver, "_received", lambda: 1 / 0)
        self.process.send(Kind.RESULT, 1, b"last")
        self.process.end(3)
        self.assertEqual(len(self.ends), 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_garbage(self) -> None:
        """Neither is one that has written to its pipe what is no frame."""
        self.process.write(b"This is how I debug my programs.\n")
        self.reactor.serve()
        self.assertEqual(self.process.signals, ["KILL"])
        self.process.send(Kind.RESULT, 1)
        self.process.end(None, 9)
        self.assertEqual(self.got, [])
        self.assertIn("something else has been written", self.ends[0].output)

    def test_connectionLost(self) -> None:
        """A reactor that ends has all pipes closed."""
        reason = Failure(ConnectionLost())
        self.child.sender.send(Kind.CALL, 1, bytes(1_000_000))
        for selectable in self.reactor.removeAll():
            selectable.connectionLost(reason)
        self.assertEqual(self.reactor.removeAll(), [])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_hangup(self) -> None:
        """Reactors tell the end of a pipe in two ways. Both are understood."""
        self.process.close(4)
        for selectable in self.reactor.getReaders():
            self.reactor.removeReader(selectable)
            selectable.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.reactor.getReaders()), 2)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_hangupOfAnother(self) -> None:
        """
        The end of another pipe, which has had the same number, isn't taken for one.
        """
        self.process.send(Kind.HELLO, 0)
        for selectable in self.reactor.getReaders():
            self.reactor.removeReader(selectable)
            selectable.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.reactor.getReaders()), 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.got), 1)

    def test_selectables(self) -> None:
        """Those that are in the reactor have a prefix for its log."""
        self.child.sender.send(Kind.CALL, 1, bytes(1_000_000))
        self.assertEqual(
            {selectable.logPrefix() for selectable in self.reactor.removeAll()},
            {"asynqueue"},
        )

    def test_output(self) -> None:
        """What it writes to its standard streams is logged."""
        log = LogLines(self)
        self.child.stdout.who = self.child.stderr.who = "It"
        self.process.write(b"out\n", 1)
        self.process.write(b"err\n", 2)
        self.reactor.serve()
        self.assertEqual(log.lines, ["It, stdout: out", "It, stderr: err"])


class NoChildTests(SynchronousTestCase):
    """Tests of children that can't be started."""

    def test_refused(self) -> None:
        """The reason is raised, and nothing is left behind."""
        reactor = FakeReactor()
        reactor.refusal = OSError("no more processes")
        before = openDescriptors()
        self.assertRaises(
            OSError, Transport, list, lambda *_: None, list, reactor=reactor
        )
        self.assertEqual(openDescriptors(), before)
        self.assertEqual(reactor.removeAll(), [])

    def test_noPipes(self) -> None:
        """The same is so if there are no descriptors for its pipes."""
        reactor = FakeReactor()
        before = openDescriptors()
        pipe = os.pipe
        calls: list[int] = []

        def fewPipes() -> tuple[int, int]:
            calls.append(1)
            if len(calls) > 2:
                raise OSError("Too many open files")
            return pipe()

        self.patch(os, "pipe", fewPipes)
        self.assertRaises(
            OSError, Transport, list, lambda *_: None, list, reactor=reactor
        )
        self.assertEqual(openDescriptors(), before)

    def test_fakeProcess(self) -> None:
        """The fake that all this relies on passes on what is sent, both ways."""
        reactor = FakeReactor()
        ends: list[ExitStatus] = []
        child = Transport(list, lambda *_: None, ends.append, reactor=reactor)
        process: FakeProcess = reactor.processes[0]
        self.assertFalse(process.isStopped())
        child.sender.send(Kind.STOP, 0, b"")
        self.assertTrue(process.isStopped())
        process.end()
        self.assertEqual(len(ends), 1)
