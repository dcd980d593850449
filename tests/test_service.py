"""Tests of a queue as a service, also of programs that C{twist} and C{twistd} run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.service import QueueService
from asynqueue.testing import MemoryWorker

from ._cases import same
from ._servers import ROOT, Program, processGone


class QueueServiceTests(SynchronousTestCase):
    """Tests of the service, with queues whose workers are single-stepped."""

    def setUp(self) -> None:
        """Have nothing made."""
        self.clock = Clock()
        self.queues: list[TaskQueue] = []
        self.workers: list[MemoryWorker] = []

    def make(self) -> TaskQueue:
        """Make a queue."""
        self.workers.append(MemoryWorker())
        self.queues.append(TaskQueue(self.workers[-1], reactor=self.clock))
        return self.queues[-1]

    def test_start(self) -> None:
        """There's a queue from the start of the service on, and not before."""
        service = QueueService(self.make)
        service.privilegedStartService()
        self.assertEqual(self.queues, [])
        self.assertRaises(QueueRunError, lambda: service.queue)
        service.startService()
        self.assertEqual(self.queues, [service.queue])

    def test_stop(self) -> None:
        """The end waits for all that is queued."""
        service = QueueService(self.make)
        service.startService()
        results = [service.queue.call(same, i) for i in range(2)]
        stopped = service.stopService()
        self.assertRaises(QueueRunError, lambda: service.queue)
        self.workers[0].step()
        self.assertNoResult(stopped)
        self.workers[0].step()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual([self.successResultOf(d) for d in results], [0, 1])

    def test_limit(self) -> None:
        """It doesn't wait for longer than it should."""
        service = QueueService(self.make, timeout=5)
        service.startService()
        d = service.queue.call(same)
        stopped = service.stopService()
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(stopped))
        self.failureResultOf(d, WorkerLost)

    def test_withoutDrain(self) -> None:
        """It may wait only for what workers have accepted."""
        service = QueueService(self.make, drain=False)
        service.startService()
        results = [service.queue.call(same, i) for i in range(2)]
        stopped = service.stopService()
        self.failureResultOf(results[1], QueueRunError)
        self.workers[0].step()
        self.assertIsNone(self.successResultOf(stopped))

    def test_again(self) -> None:
        """A service that was stopped can be started again, with another queue."""
        service = QueueService(self.make)
        for _ in range(2):
            service.startService()
            self.successResultOf(service.stopService())
        self.assertEqual(len(self.queues), 2)
        self.successResultOf(service.stopService())

    def test_reload(self) -> None:
        """
        When it's reloaded, there's a new queue at once, and the old one is drained.
        """
        service = QueueService(self.make)
        service.startService()
        old = service.queue.call(same, "old")
        done = service.reload()
        new = service.queue.call(same, "new")
        self.workers[1].step()
        self.assertEqual(self.successResultOf(new), "new")
        self.assertNoResult(done)
        self.workers[0].step()
        self.assertEqual(self.successResultOf(old), "old")
        self.assertIsNone(self.successResultOf(done))

    def test_stopWhileReloading(self) -> None:
        """The end waits for the old queue, too."""
        service = QueueService(self.make)
        service.startService()
        service.queue.call(same)
        service.reload()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.workers[0].step()
        self.successResultOf(stopped)

    def test_failedReload(self) -> None:
        """If the new queue can't be made, the old one goes on."""
        service = QueueService(self.make)
        service.startService()
        self.patch(service, "_make", lambda: 1 / 0)
        self.assertRaises(ZeroDivisionError, service.reload)
        self.assertIs(service.queue, self.queues[0])
        self.assertTrue(service.queue.isRunning())

    def test_bad(self) -> None:
        """What makes queues is callable, and the limit is a number of seconds."""
        self.assertRaises(TypeError, QueueService, self.make())
        self.assertRaises(ValueError, QueueService, self.make, timeout=-1)


JOB = """
import os

def pid():
    return os.getpid()

def ids():
    return os.getuid(), os.getgid()

def version():
    return 1

def read(path):
    with open(path) as file:
        return file.read()
"""

#: Calls what it's told to in a line, and notes in a file what becomes of it, as answers
#: may not be written any longer at the end.
APP = """
import signal

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

import job
from asynqueue import ProcessQueue
from asynqueue.service import QueueService


class Calls(LineOnlyReceiver):
    delimiter = b"\\n"

    def lineReceived(self, line):
        name, *args = line.decode().split()
        d = self.factory.queues.queue.call(getattr(job, name), *args)
        d.addErrback(lambda failure: failure.type.__name__)
        d.addCallback(self.answer, name)

    def answer(self, result, name):
        with open("results", "a") as file:
            print(name, result, file=file)
        self.sendLine(str(result).encode())


def make(seconds):
    from twisted.internet import reactor

    service = MultiService()
    factory = Factory.forProtocol(Calls)
    factory.queues = QueueService(lambda: ProcessQueue(1), timeout=seconds)
    factory.queues.setServiceParent(service)
    endpoint = serverFromString(reactor, "unix:s")
    StreamServerEndpointService(endpoint, factory).setServiceParent(service)
    reload = lambda *_: reactor.callFromThread(factory.queues.reload)
    signal.signal(signal.SIGHUP, reload)
    reactor.callWhenRunning(print, "It serves")
    return service
"""

TAC = """
from twisted.application.service import Application
from app import make

application = Application("calls")
make({seconds}).setServiceParent(application)
"""

PLUGIN = """
from twisted.application.service import ServiceMaker

calls = ServiceMaker("Calls", "plugged", "Make calls.", "calls")
"""

PLUGGED = """
from twisted.python.usage import Options
from app import make

makeService = lambda options: make(30)
"""


class Lines(LineOnlyReceiver):
    """Asks in lines."""

    delimiter = b"\n"

    def connectionMade(self) -> None:
        """Wait for nothing."""
        self._answers: list[Deferred[str]] = []

    def ask(self, line: str) -> Deferred[str]:
        """Send a line, and wait for the next one that comes."""
        self._answers.append(Deferred())
        self.sendLine(line.encode())
        return self._answers[-1]

    def lineReceived(self, line: bytes) -> None:
        """Take an answer."""
        self._answers.pop(0).callback(line.decode())


class ProgramCase(TestCase):
    """A test of a program in a folder of its own."""

    timeout = 60

    def setUp(self) -> None:
        """Write the program."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("job.py", JOB)
        self.write("app.py", APP)
        self.write("app.tac", TAC.format(seconds=30))

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def program(self, *args: str) -> Program:
        """Run Python in the folder."""
        program = Program(*args, folder=self.folder)
        self.addCleanup(program.kill)
        return program

    def twistd(self, *args: str) -> Program:
        """Run C{twistd}."""
        run = "from twisted.scripts.twistd import run; run()"
        return self.program("-c", run, *args, "-y", "app.tac")

    async def connect(self) -> Lines:
        """Connect to the program."""
        endpoint = UNIXClientEndpoint(globalReactor(), str(self.folder / "s"))
        lines: Lines = await connectProtocol(endpoint, Lines())
        transport: Any = lines.transport
        self.addCleanup(transport.abortConnection)
        return lines

    def results(self) -> list[str]:
        """Tell what the calls have come to."""
        return (self.folder / "results").read_text().splitlines()


class ForegroundTests(ProgramCase):
    """Tests of programs that C{twistd -n} and C{twist} run."""

    async def start(self, program: Program) -> Lines:
        """Wait until a program serves, and connect to it."""
        await program.outputWith("It serves")
        return await self.connect()

    async def terminate(self, program: Program) -> None:
        """Ask it to end, and wait until it knows. It'll end by the same signal."""
        program.signal(signal.SIGTERM)
        await program.outputWith("SIGTERM")

    async def test_drain(self) -> None:
        """
        On SIGTERM, what is running and what is queued is done, and nothing is left.
        """
        program = self.twistd("-n", "--pidfile=")
        lines = await self.start(program)
        pid = int(await lines.ask("pid"))
        os.mkfifo(self.folder / "pipe")
        lines.ask("read pipe")
        lines.ask("version")
        pipe = await deferToThread(open, self.folder / "pipe", "w")
        await self.terminate(program)
        await deferToThread(pipe.write, "all")
        await deferToThread(pipe.close)
        await program.ended
        self.assertEqual(self.results(), [f"pid {pid}", "read all", "version 1"])
        await processGone(pid)

    async def test_limit(self) -> None:
        """It doesn't take longer than the limit says."""
        self.write("app.tac", TAC.format(seconds=0.1))
        program = self.twistd("-n", "--pidfile=")
        lines = await self.start(program)
        pid = int(await lines.ask("pid"))
        os.mkfifo(self.folder / "pipe")
        lines.ask("read pipe")
        pipe = await deferToThread(open, self.folder / "pipe", "w")
        self.addCleanup(pipe.close)
        await self.terminate(program)
        await program.ended
        self.assertEqual(self.results(), [f"pid {pid}", "read WorkerLost"])
        await processGone(pid)

    async def test_reload(self) -> None:
        """Children of a reloaded service import modules afresh."""
        program = self.twistd("-n", "--pidfile=")
        lines = await self.start(program)
        pid = int(await lines.ask("pid"))
        self.assertEqual(await lines.ask("version"), "1")
        self.write("job.py", JOB.replace("return 1", "return 1 + 10 + 100"))
        program.signal(signal.SIGHUP)
        await processGone(pid)
        self.assertEqual(await lines.ask("version"), "111")
        await self.terminate(program)
        await program.ended

    async def test_twist(self) -> None:
        """So does C{twist} run it, as a plugin."""
        self.write("twisted/plugins/calls.py", PLUGIN)
        self.write("plugged.py", PLUGGED)
        program = self.program("-m", "twisted", "calls")
        lines = await self.start(program)
        pid = int(await lines.ask("pid"))
        await self.terminate(program)
        await program.ended
        await processGone(pid)


class BackgroundTests(ProgramCase):
    """Tests of programs that C{twistd} runs in the background."""

    async def start(self, *args: str) -> tuple[int, Lines]:
        """
        Run C{twistd}, which ends when the services have been started in the background.
        """
        program = self.twistd(*args)
        self.assertEqual(await program.ended, 0, program.errors)
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self.end, pid)
        return pid, await self.connect()

    def end(self, pid: int) -> None:
        """End it, if it goes on."""
        if Path(self.folder / "twistd.pid").exists():
            os.kill(pid, signal.SIGKILL)

    async def terminate(self, pid: int, child: int) -> None:
        """Ask it to end, and wait until it has, and its child."""
        os.kill(pid, signal.SIGTERM)
        await processGone(pid)
        await processGone(child)

    async def test_daemon(self) -> None:
        """
        The children are those of the program in the background: it hears of their
        ends, and they end with it.
        """
        pid, lines = await self.start()
        child = int(await lines.ask("pid"))
        os.kill(child, signal.SIGKILL)
        await processGone(child)
        another = int(await lines.ask("pid"))
        self.assertNotEqual(another, child)
        await self.terminate(pid, another)

    async def test_user(self) -> None:
        """They have the user and the group that the program was told to take."""
        user = group = 65534
        if os.getuid():
            raise SkipTest("Only root can give a program another user")
        os.chown(self.folder, user, group)
        check = [sys.executable, "-c", "import asynqueue"]
        try:
            subprocess.run(check, cwd=ROOT, user=user, group=group, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest("Other users can't read the package") from error
        pid, lines = await self.start(f"--uid={user}", f"--gid={group}")
        self.assertEqual(await lines.ask("ids"), f"({user}, {group})")
        await self.terminate(pid, int(await lines.ask("pid")))
