"""Tests of L{asynqueue.wire._manager}, with real servers."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.credentials import TLS, Key, makePair
from asynqueue.errors import (
    AuthenticationError,
    SerializationError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.wire import (
    DEFAULT_SOCKET,
    DEFAULT_WWU_FQN,
    ServerManager,
    _manager,
    o2p,
    p2o,
)
from asynqueue.wire._endpoints import Address
from asynqueue.wire._managedserver import ServerProcess

from ._fakes import LogLines
from ._servers import (
    Local,
    ManagerTestCase,
    Program,
    freePort,
    processGone,
)

reactor: Any = globalReactor

#: A program that has a manager, and says where its server is.
PROGRAM = """
import sys
from twisted.internet.task import react
from twisted.internet.defer import Deferred
from asynqueue.wire import ServerManager, WireWorker, WireWorkerUniverse

class Mine(WireWorkerUniverse):
    def say(self, text):
        print(text, flush=True)
        return len(text)

async def main(reactor):
    manager = ServerManager({universe}, timeout=0.1)
    place = manager.newSocket()
    pid = await manager.spawn(place, stdio={stdio})
    print(pid, place, flush=True)
    {rest}

if __name__ == "__main__":
    react(main)
"""


#: A program whose reactor isn't told of processes that end.
DEAF = """
import os
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from asynqueue import TaskQueue
from asynqueue.wire import ServerManager, WireWorker
from tests._servers import Local, soon

async def main():
    manager = ServerManager(Local, backoff=soon)
    place = manager.newSocket()
    pid = await manager.spawn(place)
    q = TaskQueue(WireWorker(Local, place, reconnect=True, backoff=soon))
    assert await q.call("pid") == pid
    os.kill(pid, 9)
    assert await q.call("pid", retries=3) != pid
    await q.shutdown()
    await manager.shutdown()
    print("all right", flush=True)

def start():
    d = Deferred.fromCoroutine(main())
    d.addErrback(lambda failure: failure.printTraceback())
    d.addBoth(lambda _: reactor.stop())

reactor.callWhenRunning(start)
reactor.run(installSignalHandlers=False)
"""


class DefaultTests(SynchronousTestCase):
    """Tests of what is used where nothing is said."""

    def test_socket(self) -> None:
        """The default socket is in a folder of this user's."""
        address = Address.parse(DEFAULT_SOCKET, True)
        self.assertEqual(address.kind, "unix")
        self.assertIn(f"-{os.getuid()}/", address.path)

    def test_pickles(self) -> None:
        """Objects are pickled by the functions of AsynQueue 0.9.9 for that."""
        self.assertEqual(p2o(o2p([1, "a"])), [1, "a"])


class SpawnTests(ManagerTestCase):
    """Tests of servers that are started."""

    async def test_pid(self) -> None:
        """
        The Deferred fires with the process ID when the server listens, as an
        application of AsynQueue's expects. Several have a place each.
        """
        manager = self.manager()
        places = [manager.newSocket() for _ in range(2)]
        pids = [await manager.spawn(place) for place in places]
        self.assertEqual(dict(manager.servers), dict(zip(pids, places, strict=True)))
        for pid, place in zip(pids, places, strict=True):
            self.assertEqual(pid.pid, pid)
            q = await self.queueFor(place)
            self.assertEqual(await q.call("pid"), pid)
            self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_private(self) -> None:
        """Sockets are in a folder that nobody else can enter."""
        manager = self.manager()
        place = manager.newSocket()
        await manager.spawn(place)
        path = place.partition(":")[2]
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700)

    async def test_default(self) -> None:
        """If no universe is named, one without methods is served."""
        manager = ServerManager(timeout=0)
        self.closers.append(manager.shutdown)
        self.assertEqual(manager.wwuFQN, DEFAULT_WWU_FQN)
        await manager.spawn(manager.newSocket())

    async def test_environment(self) -> None:
        """The server has the environment of this process, also with C{stdio}."""
        self.patch(os, "environ", {**os.environ, "ASYNQUEUE_TEST": "here"})
        os.environ["ASYNQUEUE_TEST"] = "here"
        manager = self.manager()
        for stdio in (False, True):
            place = manager.newSocket()
            await manager.spawn(place, stdio=stdio)
            q = await self.queueFor(place)
            for name in ("ASYNQUEUE_TEST", "PATH", "HOME"):
                self.assertEqual(
                    await q.call("environment", name), os.environ.get(name)
                )

    async def test_niceness(self) -> None:
        """The server is as nice as it's told to be, and only from -20 to 19."""
        manager = self.manager()
        place = manager.newSocket()
        await manager.spawn(place, niceness=4)
        q = await self.queueFor(place)
        self.assertEqual(await q.call("niceness"), min(os.nice(0) + 4, 19))
        for wrong in (20, -21, 0.5, True, "1"):
            self.assertRaises(
                ValueError,
                manager.spawn,
                place,
                niceness=wrong,
            )

    async def test_key(self) -> None:
        """
        A server on a port of this machine gets its key from its manager, and nobody
        sees it on the way: neither on the command line, nor in the environment.
        """
        secret = os.urandom(16).hex().encode()
        key = Key(secret)
        port = freePort()
        manager = self.manager(key=key)
        pid = await manager.spawn(f"tcp:{port}:interface=127.0.0.1")
        q = await self.queueFor(f"tcp:127.0.0.1:{port}", key=key)
        self.assertEqual(await q.call("pid"), pid)
        for name in ("cmdline", "environ"):
            place = Path(f"/proc/{pid}/{name}")
            if place.exists():
                self.assertNotIn(secret, place.read_bytes())
        self.assertNotIn(repr(secret)[2:-1], repr(manager._servers[0]._setup))
        with self.assertRaises(AuthenticationError):
            await self.queueFor(f"tcp:127.0.0.1:{port}", key=Key(bytes(32)))

    async def test_insecure(self) -> None:
        """It does without on this machine, if that's said; else it's refused."""
        port = freePort()
        manager = self.manager()
        place = f"tcp:{port}:interface=127.0.0.1"
        await self.assertFailure(manager.spawn(place), AuthenticationError)
        pid = await manager.spawn(place, insecure=True)
        q = await self.queueFor(f"tcp:127.0.0.1:{port}", insecure=True)
        self.assertEqual(await q.call("pid"), pid)

    async def test_certificates(self) -> None:
        """Certificates are handed to servers, too."""
        if find_spec("OpenSSL") is None:
            raise SkipTest("pyOpenSSL isn't installed")
        server, client = makePair(str(self.folder / "pair"))
        port = freePort()
        manager = self.manager(tls=TLS.fromFiles(server))
        pid = await manager.spawn(f"tls:{port}:interface=127.0.0.1")
        q = await self.queueFor(
            f"tls:127.0.0.1:{port}", tls=TLS.fromFiles(client), heartbeat=None
        )
        self.assertEqual(await q.call("pid"), pid)

    async def test_class(self) -> None:
        """The universe's class will do in the place of its name."""
        manager = self.manager(Local)
        self.assertEqual(manager.wwuFQN, "tests._servers.Local")
        await manager.spawn(manager.newSocket())

    async def test_options(self) -> None:
        """
        Servers have further keywords, all of them or one, and none that there isn't.
        """
        manager = self.manager(concurrent=1)
        place = manager.newSocket()
        await manager.spawn(place, largest=100_000)
        q = await self.queueFor(place)
        error = await self.assertFailure(q.call("add", bytes(200_000), b""), Exception)
        self.assertIn("100000", str(error))
        self.assertRaises(TypeError, manager.spawn, place, nosuch=1)
        self.assertRaises(TypeError, ServerManager, "x.Y", nosuch=1)
        self.assertRaises(ValueError, ServerManager, "x.Y", timeout=-1)
        self.assertRaises(SerializationError, manager.spawn, place, tls=lambda: 1)

    async def test_output(self) -> None:
        """What a server prints is logged, line by line, with its process ID."""
        log = LogLines(self)
        manager = self.manager()
        place = manager.newSocket()
        pid = await manager.spawn(place)
        q = await self.queueFor(place)
        printed = [
            log.lineWith(f"Server {pid}, stdout: hello"),
            log.lineWith(f"Server {pid}, stderr: hello!"),
        ]
        await q.call("say", "hello")
        for d in printed:
            await d

    async def test_stdio(self) -> None:
        """
        With C{stdio=True}, a server has the standard streams of its manager's process;
        and a universe may be defined in the program itself.
        """
        rest = (
            "worker = WireWorker(Mine, place);"
            " from asynqueue import TaskQueue; q = TaskQueue(worker);"
            " print(await q.call('say', 'hello')); await q.shutdown();"
            " await manager.shutdown()"
        )
        script = self.folder / "script.py"
        script.write_text(PROGRAM.format(universe="Mine", stdio=True, rest=rest))
        program = Program(str(script))
        self.assertEqual(await program.ended, 0, program.errors)
        self.assertEqual(program.output.split("\n")[1:], ["hello", "5", ""])

    async def test_nothingLeft(self) -> None:
        """
        When the manager has been shut down, no process is left, nor descriptor, delayed
        call, trigger, or file in the temporary folder.
        """
        # The reactor has something for the first process, and keeps it.
        await self.manager().spawn(f"unix:{self.folder}/first")
        await self.closers.pop()()
        temporary = self.folder / "t"
        temporary.mkdir()
        self.patch(tempfile, "tempdir", str(temporary))
        descriptors = len(os.listdir("/dev/fd"))
        manager = self.manager()
        pids = [await manager.spawn(manager.newSocket()) for _ in range(2)]
        self.assertEqual(len(os.listdir(temporary)), 1)
        first, second = manager.shutdown(), manager.shutdown()
        await second
        await first
        await manager.shutdown()
        self.assertEqual(os.listdir(temporary), [])
        for pid in pids:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors)
        self.assertIsNone(manager._trigger)

    async def test_longTemporaryFolder(self) -> None:
        """Sockets have a short path also where the temporary folder hasn't."""
        temporary = self.folder / ("t" * 100)
        temporary.mkdir()
        self.patch(tempfile, "tempdir", str(temporary))
        manager = self.manager()
        await manager.spawn(manager.newSocket())
        self.assertEqual(os.listdir(temporary), [])


class FailureTests(ManagerTestCase):
    """Tests of servers that can't be started."""

    async def fails(self, manager: ServerManager, *places: str) -> str:
        """Try to start a server."""
        [place] = places or [manager.newSocket()]
        error = await self.assertFailure(manager.spawn(place), WorkerStartError)
        self.assertEqual(dict(manager.servers), {})
        await manager.done()
        return str(error)

    async def test_wrongKinds(self) -> None:
        """
        What isn't described by text is refused at once, and leaves nothing to wait for.
        """
        manager = self.manager()
        self.assertRaises(TypeError, manager.spawn, 3)
        self.assertRaises(TypeError, ServerManager, 3)
        self.assertRaises(TypeError, ServerManager, "a.B", backoff=-1)
        await manager.shutdown()

    async def test_cannotBeSpawned(self) -> None:
        """A process that the reactor refuses to start is none that is waited for."""
        manager = self.manager()
        self.patch(ServerProcess, "start", lambda *_: int("x"))
        self.assertIn("ValueError", await self.fails(manager))
        await manager.shutdown()

    async def test_noUniverse(self) -> None:
        """It's said that there's no such universe, without a traceback."""
        for name in ("nosuch.module.Universe", "tests._servers.Nosuch", "os.path"):
            text = await self.fails(self.manager(name))
            self.assertIn(name, text)
            self.assertNotIn("Traceback", text)

    async def test_lastWords(self) -> None:
        """
        The error has the traceback of a universe that fails, and the last that the
        process has written.
        """
        text = await self.fails(self.manager("tests._servers.Broken"))
        self.assertIn("what it says before", text)
        self.assertIn("RuntimeError: it can't be made", text)
        self.assertIn("_servers.py", text)

    async def test_noPlace(self) -> None:
        """It's said if a place is taken, or is none."""
        manager = self.manager()
        place = manager.newSocket()
        await manager.spawn(place)
        error = await self.assertFailure(manager.spawn(place), WorkerStartError)
        self.assertIn("CannotListenError", str(error))
        await manager.done()
        self.assertIn("nosuch:place", await self.fails(manager, "nosuch:place"))

    async def test_killed(self) -> None:
        """It's said if the process is killed while it starts."""
        manager = self.manager()
        d = manager.spawn(manager.newSocket())
        await self.until(lambda: manager._servers[0].pid)
        os.kill(manager._servers[0].pid or 0, signal.SIGKILL)
        error = await self.assertFailure(d, WorkerStartError)
        self.assertIn("SIGKILL", str(error))

    async def test_cancelled(self) -> None:
        """A server that nobody waits for any longer is ended."""
        manager = self.manager()
        d = manager.spawn(manager.newSocket())
        await self.until(lambda: manager._servers[0].pid)
        pid = manager._servers[0].pid or 0
        d.cancel()
        await self.assertFailure(d, CancelledError)
        await manager.done()
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_stopped(self) -> None:
        """So is one that is to stop before it listens, and its Deferred fails."""
        manager = self.manager()
        d = manager.spawn(manager.newSocket())
        self.assertFailure(d, WorkerStartError)
        await self.until(lambda: manager._servers[0].pid)
        done = manager.shutdown()
        self.assertRaises(WorkerStartError, manager.spawn, "unix:/x")
        await done
        await d

    async def test_noDescriptors(self) -> None:
        """If there are no more descriptors to be had, that's said, and none is lost."""
        manager = self.manager()
        place = manager.newSocket()
        await self.turn()  # the reactor has its own descriptors from then on
        descriptors = len(os.listdir("/dev/fd"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors + 3, limits[1]))
        try:
            error = await self.assertFailure(manager.spawn(place), WorkerStartError)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertIn("Too many open files", str(error))
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors)
        await manager.spawn(place)


class EndTests(ManagerTestCase):
    """Tests of servers that end."""

    async def test_done(self) -> None:
        """One server is stopped, the others aren't; an ID of no server is none's."""
        manager = self.manager()
        pids = [await manager.spawn(manager.newSocket()) for _ in range(2)]
        await manager.done(pids[0])
        self.assertRaises(ProcessLookupError, os.kill, pids[0], 0)
        self.assertEqual(list(manager.servers), pids[1:])
        await manager.done(os.getpid())
        self.assertEqual(list(manager.servers), pids[1:])
        await manager.done()
        self.assertEqual(list(manager.servers), [])

    async def test_stoppedWhileItEnds(self) -> None:
        """
        A server can be stopped when its pipe is gone, and its process isn't yet, as
        after a kill.
        """
        manager = self.manager()
        pid = await manager.spawn(manager.newSocket())
        process: Any = manager._servers[0]._process
        process.transport.closeChildFD(3)
        while 3 in process.transport.pipes:
            await self.turn()
        self.assertEqual(process.pid, pid)
        await manager.shutdown()
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_startedAmongEnds(self) -> None:
        """
        A server can be started when the reactor has heard of several ends, and those
        that it hasn't told yet had the descriptors that the server's pipes have now.
        """
        manager = self.manager()
        spawned: list[Any] = []
        readers: list[Any] = []

        class Reader:
            """The end of a pipe. The first whose end is told closes all."""

            def __init__(self) -> None:
                self.fd, self.other = os.pipe()
                readers.append(self)
                reactor.addReader(self)

            def fileno(self) -> int:
                return self.fd

            def logPrefix(self) -> str:
                return "test"

            def doRead(self) -> None:
                self.connectionLost(None)

            def connectionLost(self, reason: Any) -> None:
                if spawned:
                    return
                for reader in readers:
                    reactor.removeReader(reader)
                    os.close(reader.fd)
                spawned.append(manager.spawn(place))

        place = manager.newSocket()
        for _ in range(12):
            Reader()
        for reader in readers:
            os.close(reader.other)
        await self.until(lambda: spawned)
        pid = await spawned[0]
        self.assertEqual(list(manager.servers), [pid])

    async def test_drained(self) -> None:
        """A server that is to stop has what runs there be done first."""
        manager = self.manager(timeout=None)
        place = manager.newSocket()
        await manager.spawn(place)
        q = await self.queueFor(place, thread=True)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        # This returns when the other end is open.
        writer = await deferToThread(open, fifo, "w")
        done = manager.done()
        await self.until(lambda: "ready" not in repr(q.workers()))
        self.assertFalse(done.called)
        with writer:
            writer.write("x")
        self.assertEqual(await d, "x")
        await done

    async def test_inTime(self) -> None:
        """It's ended when its time is up, even if what it runs blocks it."""
        for thread in (True, False):
            manager = self.manager(timeout=0.1)
            place = manager.newSocket()
            pid = await manager.spawn(place)
            q = await self.queueFor(place, reconnect=False)
            await q.call("add", 1, 1)
            fifo = str(self.folder / f"fifo{thread}")
            os.mkfifo(fifo)
            d = q.call("read", fifo, thread=thread)
            writer = await deferToThread(open, fifo, "w")
            await manager.done()
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
            await self.assertFailure(d, WorkerLost)
            writer.close()

    async def test_frozen(self) -> None:
        """So is one that is frozen."""
        manager = self.manager()
        pid = await manager.spawn(manager.newSocket())
        os.kill(pid, signal.SIGSTOP)
        await manager.done(pid)
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_outlived(self) -> None:
        """
        A process that a server has started, and that has its output, isn't waited for.
        """
        manager = self.manager()
        place = manager.newSocket()
        pid = await manager.spawn(place)
        q = await self.queueFor(place)
        left = await q.call("leaveOne")
        self.addCleanup(os.kill, left, signal.SIGKILL)
        await manager.done(pid)
        os.kill(left, 0)

    async def test_interrupted(self) -> None:
        """Ctrl-C is for the manager, not for servers."""
        manager = self.manager()
        place = manager.newSocket()
        pid = await manager.spawn(place)
        os.kill(pid, signal.SIGINT)
        q = await self.queueFor(place)
        self.assertEqual(await q.call("pid"), pid)

    async def test_managerKilled(self) -> None:
        """A server ends by itself when the process of its manager is killed."""
        await self._managerEnds("await Deferred()", signal.SIGKILL)

    async def test_managerForgets(self) -> None:
        """
        It also does when that process ends without having shut down its manager, which
        leaves nothing behind.
        """
        errors, folder = await self._managerEnds("", None)
        self.assertEqual([x for x in errors.splitlines() if "Warning" in x], [])
        self.assertFalse(folder.exists())
        await self._managerEnds("import os; os._exit(0)", None)

    async def _managerEnds(self, rest: str, number: int | None) -> tuple[str, Path]:
        """Have the process of a manager end."""
        program, pid, place = await self._program(rest)
        gone = processGone(pid)
        if number is not None:
            os.kill(program.pid, number)
        await gone
        await program.ended
        return program.errors, Path(place.partition(":")[2]).parent

    async def _program(
        self, rest: str = "await Deferred()"
    ) -> tuple[Program, int, str]:
        """Run a program with a manager."""
        script = self.folder / "script.py"
        script.write_text(
            PROGRAM.format(universe="'tests._servers.Local'", stdio=False, rest=rest)
        )
        environment = {"TMPDIR": str(self.folder)}
        program = Program("-W", "default", str(script), env=environment)
        pid, _, place = (await program.line()).partition(" ")
        return program, int(pid), place

    async def test_managerKilledBlocked(self) -> None:
        """Even one whose reactor is blocked ends when its manager is killed."""
        program, pid, place = await self._program()
        q = await self.queueFor(place, reconnect=False)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        writer = await deferToThread(open, fifo, "w")
        gone = processGone(pid)
        os.kill(program.pid, signal.SIGKILL)
        await gone
        await self.assertFailure(d, WorkerLost)
        writer.close()
        await program.ended

    async def test_managerKilledBusy(self) -> None:
        """
        So does one that is in a loop in which no other thread can run, where the system
        has a signal for that.
        """
        if not sys.platform.startswith("linux"):
            raise SkipTest("Only Linux tells a process that its parent has ended")
        program, pid, place = await self._program()
        q = await self.queueFor(place, reconnect=False)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("compute", fifo)
        reader = await deferToThread(open, fifo)
        self.assertEqual(await deferToThread(reader.read, 1), "x")
        gone = processGone(pid)
        os.kill(program.pid, signal.SIGKILL)
        await gone
        await self.assertFailure(d, WorkerLost)
        reader.close()
        await program.ended

    async def test_abandonedFolders(self) -> None:
        """
        The folder of a manager that was killed is removed by another, and those of
        managers that are there aren't.
        """
        program, pid, place = await self._program()
        folder = Path(place.partition(":")[2]).parent
        gone = processGone(pid)
        self.patch(tempfile, "tempdir", str(folder.parent))
        self.patch(_manager, "_LOCKED_SECONDS", -1.0)
        self.manager().newSocket()
        self.assertTrue(folder.exists())
        os.kill(program.pid, signal.SIGKILL)
        await gone
        await program.ended
        self.assertTrue(folder.exists())
        self.manager().newSocket()
        self.assertFalse(folder.exists())


class RestartTests(ManagerTestCase):
    """Tests of servers that are started again."""

    async def test_killed(self) -> None:
        """
        A server that is killed is started again at its place, and is still known by its
        first process ID.
        """
        log = LogLines(self)
        manager = self.manager()
        place = manager.newSocket()
        pid = await manager.spawn(place)
        q = await self.queueFor(place)
        self.assertEqual(await q.call("pid"), pid)
        os.kill(pid, signal.SIGKILL)
        another = await q.call("pid", retries=3)
        self.assertNotEqual(another, pid)
        self.assertEqual(dict(manager.servers), {another: place})
        self.assertTrue(log.having(f"Child process {pid} was ended by SIGKILL"))
        await manager.done(pid)
        self.assertRaises(ProcessLookupError, os.kill, another, 0)

    async def test_noSignalHandlers(self) -> None:
        """
        It's noticed that a server has ended also where the reactor has no handlers of
        signals.
        """
        script = self.folder / "script.py"
        script.write_text(DEAF)
        program = Program(str(script))
        self.assertEqual(await program.ended, 0)
        self.assertEqual(program.output, "all right\n", program.errors)

    async def test_port(self) -> None:
        """A server on a port is started again there, with its key."""
        key = Key(os.urandom(32))
        port = freePort()
        manager = self.manager(key=key)
        pid = await manager.spawn(f"tcp:{port}:interface=127.0.0.1")
        q = await self.queueFor(f"tcp:127.0.0.1:{port}", key=key)
        self.assertEqual(await q.call("pid"), pid)
        os.kill(pid, signal.SIGKILL)
        self.assertNotEqual(await q.call("pid", retries=3), pid)

    async def test_noPlace(self) -> None:
        """If it can't be started where it was, that's logged, and tried again."""
        log = LogLines(self)
        port = freePort()
        manager = self.manager(insecure=True)
        pid = await manager.spawn(f"tcp:{port}:interface=127.0.0.1")
        ended = log.lineWith("was ended by SIGKILL")
        taken = log.lineWith("CannotListenError")
        os.kill(pid, signal.SIGKILL)
        await ended
        with socket.create_server(("127.0.0.1", port)):
            await taken
        again = log.lineWith("listens, process")
        await again
        self.assertEqual(len(manager.servers), 1)

    async def test_unreachable(self) -> None:
        """
        One that has closed its pipe to the manager is of no use: it's ended, and
        another is started.
        """
        manager = self.manager()
        place = manager.newSocket()
        pid = await manager.spawn(place)
        q = await self.queueFor(place)
        gone = processGone(pid)
        # It may be ended before it can answer.
        await q.call("close", 4).addErrback(lambda failure: failure.trap(WorkerLost))
        await gone
        self.assertNotEqual(await q.call("pid", retries=3), pid)

    async def test_terminated(self) -> None:
        """
        So is one that somebody else has told to end, once its tasks are done. That's no
        error.
        """
        manager = self.manager(stopTimeout=None)
        place = manager.newSocket()
        pid = await manager.spawn(place)
        q = await self.queueFor(place, thread=True)
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        d = q.call("read", fifo)
        with self.assertNoLogs("asynqueue", "WARNING"):
            with await deferToThread(open, fifo, "w") as writer:
                os.kill(pid, signal.SIGTERM)
                later = q.call("pid")
                writer.write("x")
            self.assertEqual(await d, "x")
            self.assertNotEqual(await later, pid)

    async def test_backoff(self) -> None:
        """How long that takes is settable, by how often in a row it has happened."""
        log = LogLines(self)
        attempts: list[int] = []

        def backoff(attempt: int) -> float:
            attempts.append(attempt)
            return 0

        manager = self.manager(backoff=backoff)
        await manager.spawn(manager.newSocket())
        for _ in range(3):
            [pid] = manager.servers
            again = log.lineWith("listens, process")
            os.kill(pid, signal.SIGKILL)
            await again
        self.assertEqual(attempts, [1, 2, 3])

    async def test_default(self) -> None:
        """By default, it takes longer from one time to the next, up to a minute."""
        backoff = ServerManager("x.Y")._backoff
        delays = [backoff(attempt) for attempt in range(1, 30)]
        self.assertTrue(0.1 <= delays[0] <= 0.2)
        self.assertTrue(1 < delays[4] < 4)
        self.assertTrue(60 <= delays[-1] <= 61)

    async def test_stopWhileAway(self) -> None:
        """
        A server that isn't there right now can be stopped: it won't be started again.
        """
        log = LogLines(self)
        manager = self.manager(backoff=lambda attempt: 60)
        pid = await manager.spawn(manager.newSocket())
        away = log.lineWith("started again in 60")
        os.kill(pid, signal.SIGKILL)
        await away
        self.assertEqual(dict(manager.servers), {})
        await manager.done(pid)
        self.assertEqual(manager._servers, [])

    async def test_not(self) -> None:
        """With C{restart=False} none is started again."""
        log = LogLines(self)
        manager = self.manager(restart=False)
        pid = await manager.spawn(manager.newSocket())
        ended = log.lineWith("was ended by SIGKILL")
        os.kill(pid, signal.SIGKILL)
        await ended
        await manager.done(pid)
        self.assertEqual(manager._servers, [])

    async def test_rolling(self) -> None:
        """
        Servers that are told to end in turn, under load, lose no task and run none
        twice.
        """
        manager = self.manager(stopTimeout=None, timeout=30)
        places = [manager.newSocket() for _ in range(2)]
        for place in places:
            await manager.spawn(place)
        q = await self.queueFor(*places, N_concurrent=4)
        notes = str(self.folder / "notes")
        calls = [q.call("note", notes, i) for i in range(2000)]
        log = LogLines(self)
        for turn in range(4):
            await self.until(lambda: calls[turn * 400].called)  # noqa: B023
            place = places[turn % 2]
            [pid] = [p for p, where in manager.servers.items() if where == place]
            again = log.lineWith(f"{place}> listens")
            os.kill(pid, signal.SIGTERM)
            await again
        self.assertEqual([await d for d in calls], list(range(2000)))
        runs = sorted(map(int, Path(notes).read_text().split()))
        self.assertEqual(runs, list(range(2000)))
