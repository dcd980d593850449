"""Tests of servers that are started on the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError

from asynqueue import TaskQueue
from asynqueue._version import __version__
from asynqueue.credentials import TLS, Key, makeKey, makePair
from asynqueue.errors import WorkerLost
from asynqueue.wire import WireWorker
from asynqueue.wire._command import Options, makeService

from ._servers import ROOT, Local, Program, freePort, processGone
from ._wire import WireTestCase

UNIVERSE = "tests._servers.Local"


class CommandTestCase(WireTestCase):
    """A test with a program."""

    def command(self, *args: str, **kw: Any) -> Program:
        """Run a server."""
        return self.program("-m", "asynqueue.wire", *args, **kw)

    def program(self, *args: str, **kw: Any) -> Program:
        """Run Python."""
        program = Program(*args, **kw)
        self.closers.append(program.kill)
        return program

    async def queueFor(self, place: str, **kw: Any) -> TaskQueue:
        """Make a queue for a server."""
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        await q.attachWorker(WireWorker(Local, place, **kw))
        return q


class OptionTests(CommandTestCase):
    """Tests of what is said on the command line."""

    def parse(self, *args: str) -> dict[str, Any]:
        """Read a command line."""
        options = Options()
        options.parseOptions([*args, "unix:/x", "x.Y"])
        self.assertEqual((options.description, options.wwu), ("unix:/x", "x.Y"))
        return options.keywords

    async def test_keywords(self) -> None:
        """Options become keywords of the server."""
        defaults = self.parse()
        self.assertEqual(
            {name: value for name, value in defaults.items() if value},
            {"threads": 16, "largest": 512 << 20, "heartbeat": 10.0},
        )
        given = self.parse(
            *("--insecure", "--pickle", "--concurrent=2", "--threads=3"),
            *("--largest=4", "--heartbeat=0", "--stop-timeout=5.5"),
        )
        self.assertEqual(
            given,
            {
                "key": None,
                "tls": None,
                "pickle": True,
                "insecure": True,
                "concurrent": 2,
                "threads": 3,
                "largest": 4,
                "heartbeat": None,
                "stopTimeout": 5.5,
            },
        )

    async def test_key(self) -> None:
        """
        A key comes from a file or from the environment, and never from the command
        line.
        """
        path = str(self.folder / "key")
        makeKey(path)
        self.assertIsInstance(self.parse(f"--key={path}")["key"], Key)
        os.environ["ASYNQUEUE_TEST"] = "x" * 32
        self.addCleanup(os.environ.pop, "ASYNQUEUE_TEST")
        key = self.parse("--key-env=ASYNQUEUE_TEST")["key"]
        self.assertIsInstance(key, Key)
        for wrong in (
            (f"--key={path}", "--key-env=ASYNQUEUE_TEST"),
            ("--key-env=ASYNQUEUE_NONE",),
            ("--key=/nonexistent",),
            ("--tls=/nonexistent",),
            ("--tls-ca=/nonexistent",),
            ("--tls-peer=/nonexistent",),
            ("--threads=x",),
        ):
            self.assertRaises(UsageError, self.parse, *wrong)
        os.chmod(path, 0o644)
        with self.assertRaisesRegex(UsageError, "chmod 600"):
            self.parse(f"--key={path}")

    async def test_certificates(self) -> None:
        """Certificates come from files."""
        if find_spec("OpenSSL") is None:
            raise SkipTest("pyOpenSSL isn't installed")
        server, client = makePair(str(self.folder / "pair"))
        tls = self.parse(f"--tls={server}", f"--tls-peer={client}")["tls"]
        self.assertEqual(tls._peers, TLS.fromFiles(server)._peers)

    async def test_help(self) -> None:
        """C{--help} tells how it's used, C{--version} which it is."""
        program = self.command("--help")
        self.assertEqual(await program.ended, 0)
        self.assertIn("python -m asynqueue.wire [options] DESCRIPTION", program.output)
        self.assertIn("--key-env=", program.output)
        program = self.command("--version")
        self.assertEqual(await program.ended, 0)
        self.assertEqual(program.output, f"asynqueue {__version__}\n")

    async def test_wrong(self) -> None:
        """
        What is wrong is said in a line, without a traceback: with exit code 2 if it's
        the command line, with 1 if there can't be such a server.
        """
        taken = f"unix:{self.folder}/s"
        await self.serve(description=taken)
        for args, code, text in (
            ((), 2, "DESCRIPTION DOTTED.NAME"),
            (("unix:/x", "x", "y"), 2, "DESCRIPTION DOTTED.NAME"),
            (("--nosuch", "unix:/x", "x"), 2, "nosuch"),
            (("--key=/nonexistent", "unix:/x", "x"), 2, "/nonexistent"),
            ((taken, UNIVERSE), 1, "listen"),
            ((f"unix:{self.folder}/t", "tests._servers.Nosuch"), 1, "Nosuch"),
            (("tcp:0", UNIVERSE), 1, "know each other"),
            (("nosuch:0", UNIVERSE), 1, "nosuch:0"),
            (("--concurrent=0", "unix:/x", UNIVERSE), 1, "concurrent"),
        ):
            program = self.command(*args)
            self.assertEqual(await program.ended, code, args)
            self.assertIn(text, program.errors)
            self.assertNotIn("Traceback", program.errors)

    async def test_broken(self) -> None:
        """A universe that fails is shown where it does."""
        program = self.command(f"unix:{self.folder}/t", "tests._servers.Broken")
        self.assertEqual(await program.ended, 1)
        self.assertIn("_servers.py", program.errors)
        self.assertIn("RuntimeError: it can't be made", program.errors)


class RunTests(CommandTestCase):
    """Tests of servers that run."""

    async def test_unix(self) -> None:
        """
        A server at a Unix socket says that it listens, and runs tasks until it's told
        to end, when those that it has are done.
        """
        program = self.command(self.description, UNIVERSE)
        line = await program.line()
        self.assertEqual(line, f"AsynQueue WireServer listening at {self.description}")
        q = await self.queueFor(self.description, thread=True)
        self.assertEqual(await q.call("pid"), program.pid)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        with await deferToThread(open, fifo, "w") as writer:
            program.signal(signal.SIGTERM)
            await self.until(lambda: not q.workers())
            self.assertFalse(program.ended.called)
            writer.write("x")
        self.assertEqual(await d, "x")
        self.assertEqual(await program.ended, 0)
        self.assertNotIn("Traceback", program.errors)
        self.assertFalse((self.folder / "s").exists())

    async def test_twice(self) -> None:
        """Told so twice, it doesn't wait for tasks."""
        program = self.command(self.description, UNIVERSE)
        await program.errorWith("is there")
        q = await self.queueFor(self.description, thread=True)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        writer = await deferToThread(open, fifo, "w")
        program.signal(signal.SIGINT)
        await self.until(lambda: not q.workers())
        program.signal(signal.SIGINT)
        await self.assertFailure(d, WorkerLost)
        self.assertIsNone(await program.ended)
        writer.close()

    async def test_key(self) -> None:
        """A server on a port of this machine has a key from the environment."""
        secret = os.urandom(16).hex()
        port = freePort()
        program = self.command(
            *("--key-env=ASYNQUEUE_KEY", f"tcp:{port}:interface=127.0.0.1", UNIVERSE),
            env={"ASYNQUEUE_KEY": secret},
        )
        await program.errorWith("is there")
        q = await self.queueFor(f"tcp:127.0.0.1:{port}", key=Key(secret.encode()))
        self.assertEqual(await q.call("pid"), program.pid)
        self.assertNotIn(secret, program.errors)

    async def test_ampClient(self) -> None:
        """The client in the documentation, which has nothing but AMP, runs tasks."""
        path, port = str(self.folder / "key"), freePort()
        makeKey(path)
        snippets = ROOT / "docs" / "snippets"
        server = self.command(
            *(f"--key={path}", "--heartbeat=0.01", f"tcp:{port}", "primes.Primes"),
            env={"PYTHONPATH": os.pathsep.join([str(ROOT), str(snippets)])},
        )
        await server.line()
        client = self.program(
            str(snippets / "ampclient.py"), f"tcp:127.0.0.1:{port}", path
        )
        self.assertEqual(await client.ended, 0, client.errors)
        expected = ["b'r' True", "2", "3", "5", "7", "11", "13", "17", "19"]
        self.assertEqual(client.output.split("\n")[:-1], expected)

    async def test_certificates(self) -> None:
        """A server for a network has certificates."""
        if find_spec("OpenSSL") is None:
            raise SkipTest("pyOpenSSL isn't installed")
        server, client = makePair(str(self.folder / "pair"))
        port = freePort()
        place = f"tls:{port}:interface=127.0.0.1"
        program = self.command(f"--tls={server}", place, UNIVERSE)
        await program.errorWith("is there")
        q = await self.queueFor(f"tls:127.0.0.1:{port}", tls=TLS.fromFiles(client))
        self.assertEqual(await q.call("pid"), program.pid)


class PluginTests(CommandTestCase):
    """Tests of the service of C{twist} and C{twistd}."""

    def script(self, name: str) -> str:
        """Find a program of Twisted's."""
        folder = os.path.dirname(sys.executable)
        path = shutil.which(name, path=folder) or shutil.which(name)
        if path is None:
            raise SkipTest(f"There's no {name} here")
        return path

    async def test_help(self) -> None:
        """C{twist} knows the service, and tells how it's used."""
        twist = self.script("twist")
        program = self.program(twist, "--help")
        self.assertEqual(await program.ended, 0)
        self.assertIn("asynqueue-worker", program.output)
        program = self.program(twist, "asynqueue-worker", "--help")
        self.assertEqual(await program.ended, 0)
        self.assertIn("DESCRIPTION DOTTED.NAME", program.output)

    async def test_twist(self) -> None:
        """
        C{twist} serves a universe, logs, and ends when it's told to and the tasks are
        done.
        """
        program = self.program(
            self.script("twist"), "asynqueue-worker", self.description, UNIVERSE
        )
        await program.outputWith("is there")
        q = await self.queueFor(self.description, thread=True)
        self.assertEqual(await q.call("pid"), program.pid)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        with await deferToThread(open, fifo, "w") as writer:
            program.signal(signal.SIGTERM)
            await self.until(lambda: not q.workers())
            writer.write("x")
        self.assertEqual(await d, "x")
        await program.ended
        self.assertNotIn("Traceback", program.errors)
        self.assertFalse((self.folder / "s").exists())

    async def test_wrong(self) -> None:
        """If there can't be such a server, that's said, and the exit code isn't 0."""
        await self.serve()
        for place, name, text in (
            (self.description, UNIVERSE, "listen"),
            (f"unix:{self.folder}/t", "tests._servers.Nosuch", "Nosuch"),
            ("tcp:0", UNIVERSE, "know each other"),
        ):
            program = self.program(
                self.script("twist"), "asynqueue-worker", place, name
            )
            self.assertEqual(await program.ended, 1, place)
            self.assertIn("asynqueue-worker: ", program.errors)
            self.assertIn(text, program.errors)
            self.assertNotIn("Traceback", program.errors)

    async def test_daemon(self) -> None:
        """C{twistd} serves it as a daemon."""
        pidFile, logFile = self.folder / "pid", self.folder / "log"
        program = self.program(
            self.script("twistd"),
            *(f"--pidfile={pidFile}", f"--logfile={logFile}", "asynqueue-worker"),
            *(self.description, UNIVERSE),
        )
        self.assertEqual(await program.ended, 0, program.errors)
        pid = int(pidFile.read_text())
        self.closers.append(lambda: _end(pid))
        q = await self.queueFor(self.description, reconnect=True)
        self.assertEqual(await q.call("pid"), pid)
        await q.shutdown()
        gone = processGone(pid)
        os.kill(pid, signal.SIGTERM)
        await gone
        self.assertIn("is there", logFile.read_text())

    async def test_daemonRefused(self) -> None:
        """C{twistd} ends, and says why, if the server can't listen."""
        await self.serve()
        program = self.program(
            self.script("twistd"),
            *(f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log"),
            *("asynqueue-worker", self.description, UNIVERSE),
        )
        self.assertEqual(await program.ended, 1)
        self.assertIn("asynqueue-worker: Couldn't listen", program.errors)

    async def test_service(self) -> None:
        """The service starts and stops the server."""
        options = Options()
        options.parseOptions([self.description, UNIVERSE])
        service = makeService(options)
        service.startService()
        q = await self.queueFor(self.description)
        self.assertEqual(await q.call("pid"), os.getpid())
        stopped: Deferred[None] = service.stopService()
        await stopped
        self.assertFalse(Path(self.folder / "s").exists())


def _end(pid: int) -> None:
    """End a process, if it's there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
