"""
Tests of how children end: with their parent, by signals, and whoever else is there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from ._servers import Program, processGone

#: The beginning of a program that makes a process group of its own.
BEGINNING = """
import os, signal, sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react
from asynqueue import ProcessQueue

def say(*words):
    print(*words, flush=True)

def compute():
    while True:
        pass

def computeInC():
    return 3 ** 10 ** 9

def begun(path, f):
    open(path, "w").close()
    return f()

def waitFor(path):
    while not os.path.exists(path):
        time.sleep(0.01)

os.setpgrp()
"""

#: A program whose children are computing, one of them with the interpreter's lock held.
COMPUTING = (
    BEGINNING
    + """
async def main(reactor):
    paths = [sys.argv[1] + name for name in ("/python", "/c")]
    async with ProcessQueue(3) as q:
        calls = [q.call(begun, paths[0], compute), q.call(begun, paths[1], computeInC)]
        for path in paths:
            await q.call(waitFor, path)
        if "fork" in sys.argv and os.fork() == 0:
            os.closerange(0, 3)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(60)
            os._exit(0)
        say(*(worker.process.pid for worker in q.workers()))
        await gatherResults(calls, consumeErrors=True)

if __name__ == "__main__":
    react(main)
"""
)

#: A program whose child runs a call until the parent says so, which is when the program
#: has been sent signals, and is going to end in some cases.
FINISHING = (
    BEGINNING
    + """
def wait(path):
    say("waiting")
    waitFor(path)
    return "finished"

if __name__ == "__main__":
    path = sys.argv[1] + "/go"
    signals = [getattr(signal, name) for name in sys.argv[2:]]
    q = ProcessQueue(1)
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown)

    def began(pid):
        q.call(wait, path).addBoth(say)
        deferLater(reactor, 0).addCallback(lambda _: sendAll())

    def sendAll():
        for number in signals:
            signal.signal(number, lambda *_: None) if number != signal.SIGTERM else 0
            os.killpg(0, number)
        deferLater(reactor, 0.1, open, path, "w")
        reactor.callLater(0.2, lambda: reactor.running and reactor.stop())

    q.call(os.getpid).addCallback(began)
    reactor.run()
    say("down")
"""
)


class ProgramCase(TestCase):
    """Runs programs in a folder of their own."""

    timeout = 120

    def setUp(self) -> None:
        """Make the folder."""
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def program(self, text: str, *args: str) -> Program:
        """Start a program, with its folder as the first argument."""
        script = self.folder / "script.py"
        script.write_text(textwrap.dedent(text))
        program = Program(str(script), str(self.folder), *args)
        self.addCleanup(self._killAll, program)
        return program

    async def _killAll(self, program: Program) -> None:
        """End what is left of a program, and of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        await program.ended

    async def output(self, text: str, *args: str) -> str:
        """Run a program that must succeed. Returns what it has printed."""
        program = self.program(text, *args)
        self.assertEqual(await program.ended, 0, program.errors)
        return program.output


class ParentTests(ProgramCase):
    """Children end when their parent does, whatever they compute."""

    async def ended(self, how: int, *args: str, group: bool = False) -> str:
        """
        Have the program sent a signal while its children compute, and wait for their
        end. Returns what it has written to stderr.
        """
        program = self.program(COMPUTING, *args)
        pids = [int(word) for word in (await program.line()).split()]
        self.assertEqual(len(pids), 3)
        if group:
            os.killpg(program.pid, how)
        else:
            os.kill(program.pid, how)
        await gatherResults([processGone(pid) for pid in pids])
        await program.ended
        return program.errors

    async def test_killed(self) -> None:
        """It may be killed."""
        await self.ended(signal.SIGKILL)

    async def test_forked(self) -> None:
        """Forks of it that live on, and have its pipes, make no difference."""
        await self.ended(signal.SIGKILL, "fork")

    async def test_interrupted(self) -> None:
        """
        Ctrl-C ends a program that is run by C{react}, and says no more than need be.
        """
        errors = await self.ended(signal.SIGINT, group=True)
        self.assertNotIn("Traceback", errors)
        self.assertNotIn("ignored", errors)

    async def test_terminated(self) -> None:
        """So does SIGTERM."""
        await self.ended(signal.SIGTERM)

    async def test_hangup(self) -> None:
        """It may end by a signal that it doesn't handle."""
        await self.ended(signal.SIGHUP, "fork")

    async def test_otherThread(self) -> None:
        """The reactor may run in a thread: it's this that is taken for the parent."""
        text = COMPUTING.replace(
            "    react(main)",
            """
    import threading
    def run():
        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(reactor)))
        reactor.run(installSignalHandlers=False)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
""",
        )
        program = self.program(text)
        pids = [int(word) for word in (await program.line()).split()]
        program.signal(signal.SIGKILL)
        await gatherResults([processGone(pid) for pid in pids])

    async def test_starting(self) -> None:
        """It may end when a child has only just been started."""
        text = BEGINNING + (
            "async def main(reactor):\n"
            "    await deferLater(reactor, 0)\n"
            "    q = ProcessQueue(2)\n"
            "    say(*(worker.process.pid for worker in q.workers()))\n"
            "    if os.fork() == 0:\n"
            "        os.closerange(0, 3)\n"
            "        time.sleep(60)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "react(main)\n"
        )
        program = self.program(text)
        pids = [int(word) for word in (await program.line()).split()]
        await gatherResults([processGone(pid) for pid in pids])

    async def test_commands(self) -> None:
        """
        Commands and forks in children take the usual signals, though the child leaves
        them to its parent.
        """
        text = """
            import multiprocessing, signal, subprocess, time
            from twisted.internet.task import react
            from asynqueue import ProcessQueue

            def work():
                command = subprocess.Popen(["sleep", "60"])
                fork = multiprocessing.get_context("fork").Process(
                    target=time.sleep, args=(60,)
                )
                fork.start()
                fork.terminate()
                fork.join()
                command.send_signal(signal.SIGINT)
                return command.wait(), fork.exitcode

            async def main(reactor):
                async with ProcessQueue(1) as q:
                    print(await q.call(work))

            if __name__ == "__main__":
                react(main)
        """
        self.assertEqual(await self.output(text), "(-2, -15)\n")


class GroupTests(ProgramCase):
    """Signals to all processes of a program end no call that may go on."""

    async def test_group(self) -> None:
        """To the process group: the program is ended by one, and handles the others."""
        names = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM"]
        for signals in (names[:1], names[1:2], names):
            out = await self.output(FINISHING, *signals)
            self.assertEqual(out, "finished\ndown\n")
            (self.folder / "go").unlink()

    async def test_starting(self) -> None:
        """A child that has only just been started takes none, either."""
        text = FINISHING.replace("q.call(os.getpid)", "deferLater(reactor, 0)")
        out = await self.output(text, "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")
        # Whether a worker has accepted the call by then is another matter.
        self.assertTrue(out.endswith("down\n"))
        self.assertNotIn("WorkerLost", out)

    async def test_service(self) -> None:
        """To each process of a service by itself."""
        text = FINISHING.replace(
            "os.killpg(0, number)",
            "pids = q.workers()[0].process.pid, os.getpid();"
            " [os.kill(pid, number) for pid in pids]",
        ).replace("(reactor, 0.1, open", "(reactor, 1.5, open")
        out = await self.output(text, "SIGTERM")
        self.assertEqual(out, "finished\ndown\n")

    async def test_childAlone(self) -> None:
        """To a child alone: it's ended and replaced."""
        text = (
            BEGINNING
            + """
async def main(reactor):
    async with ProcessQueue(1) as q:
        for name in ("SIGTERM", "SIGHUP"):
            pid = await q.call(os.getpid)
            call = q.call(time.sleep, 60)
            os.kill(pid, getattr(signal, name))
            try:
                await call
            except Exception as error:
                say(type(error).__name__, error.signal == signal.SIGTERM)
            say(await q.call(os.getpid) != pid)

if __name__ == "__main__":
    react(main)
"""
        )
        self.assertEqual(await self.output(text), "WorkerLost True\nTrue\n" * 2)


class OthersTests(ProgramCase):
    """What others in the program do keeps no queue from its work."""

    async def test_shutdownWithFork(self) -> None:
        """
        A shutdown doesn't wait for a fork that lives on with the pipes of children.
        """
        text = (
            BEGINNING
            + """
async def main(reactor):
    for useReactor in (False, True):
        q = ProcessQueue(2, useReactor=useReactor)
        await q.call(os.getpid)
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(60)
            os._exit(0)
        await q.shutdown()
        say("down")

if __name__ == "__main__":
    react(main)
"""
        )
        self.assertEqual(await self.output(text), "down\ndown\n")

    async def test_stolenStatus(self) -> None:
        """
        The end of a child is noticed if a thread takes all exit statuses, or the system
        keeps none, and by any reactor.
        """
        text = (
            BEGINNING.replace("from twisted.internet import reactor\n", "")
            + """
import threading
from twisted.internet import asyncioreactor, epollreactor, pollreactor, selectreactor

def steal():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)

async def main(reactor):
    if "drop" in sys.argv:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        threading.Thread(target=steal, daemon=True).start()
    q = ProcessQueue(2)
    for _ in range(5):
        try:
            await q.call(os._exit, 3)
        except Exception as error:
            say(type(error).__name__)
    await q.shutdown()
    say("down")

if __name__ == "__main__":
    globals()[sys.argv[2]].install()
    react(main)
"""
        )
        for kind in ("asyncio", "epoll", "poll", "select"):
            for how in ("drop", "steal"):
                out = await self.output(text, f"{kind}reactor", how)
                self.assertEqual(out, "WorkerLost\n" * 5 + "down\n", (kind, how))

    async def test_brokenPipe(self) -> None:
        """In a program that SIGPIPE would end, the death of a child doesn't."""
        text = (
            BEGINNING
            + """
async def main(reactor):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    q = ProcessQueue(1)
    for _ in range(5):
        await q.call(os.getpid)
        worker, = q.workers()
        os.kill(worker.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)
        await q.call(len, bytes(100_000))
    await q.shutdown()
    say(signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    react(main)
"""
        )
        self.assertEqual(await self.output(text), "False\n")
