"""Tests of how children are started: by programs of all kinds."""

from __future__ import annotations

import shutil
import sys
import tempfile
import textwrap
import zipapp
from pathlib import Path

from twisted.trial.unittest import SkipTest, TestCase

import asynqueue

from ._servers import runScript

#: A program that calls a function of its own in a child.
PROGRAM = """
import sys
from twisted.internet.task import react
from asynqueue import ProcessQueue

class Thing:
    pass

def work(thing, x):
    return thing, x * factor

factor = 2

async def main(reactor):
    async with ProcessQueue(1) as q:
        thing, result = await q.call(work, Thing(), 21)
        print(isinstance(thing, Thing), result)

if __name__ == "__main__":
    react(main)
"""

#: What that prints.
PRINTED = "True 42\n"

#: A program that has a reactor of its own, and says how a call came out.
UNGUARDED = """
from twisted.internet import reactor
from asynqueue import ProcessQueue

def work():
    return 42

def done(result):
    print(getattr(result, "value", result))
    q.shutdown().addCallback(lambda _: reactor.stop())
"""


class ProgramCase(TestCase):
    """Runs programs in a folder of their own."""

    timeout = 120

    def setUp(self) -> None:
        """Make the folder."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    async def output(self, text: str, *args: str, run: list[str] | None = None) -> str:
        """
        Run a program that must succeed. C{run} is what the interpreter is told in place
        of the path of the program. Returns what it has printed.
        """
        out, err, code = await runScript(
            str(self.folder), text, *args, run=lambda path: run or [path]
        )
        self.assertEqual(code, 0, f"{out}\n{err}")
        return out

    async def error(self, text: str, *args: str) -> str:
        """Run a program that must fail. Returns what it has written to stderr."""
        _, err, code = await runScript(str(self.folder), text, *args)
        self.assertEqual(code, 1, err)
        return err


class MainModuleTests(ProgramCase):
    """Functions and classes of the main module can be used, whatever that is."""

    async def test_command(self) -> None:
        """Those of a program given by C{-c} are sent by value."""
        self.assertEqual(await self.output("", run=["-c", PROGRAM]), PRINTED)

    async def test_stdin(self) -> None:
        """So are those of one that comes from stdin."""
        script = str(self.folder / "script.py")
        run = f"import os, sys; os.dup2(os.open({script!r}, 0), 0);"
        run += " os.execv(sys.executable, [sys.executable, '-'])"
        self.assertEqual(await self.output(PROGRAM, run=["-c", run]), PRINTED)

    async def test_typed(self) -> None:
        """And those that were typed in besides a program that has a file."""
        typed = "exec('def typed(x): return x * factor', globals())"
        program = PROGRAM.replace("if __name__", f"{typed}\nif __name__")
        program = program.replace(
            "print(", "print(await q.call(typed, 4) if '-i' in sys.argv else 8, "
        )
        guarded = program.replace(typed, f"if __name__ == '__main__': {typed}")
        self.assertEqual(await self.output(guarded, "-i"), f"8 {PRINTED}")

    async def test_package(self) -> None:
        """
        Those of a package that is run by C{-m} are imported, with relative imports.
        """
        package = self.folder / "package"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "other.py").write_text("factor = 2")
        program = PROGRAM.replace("factor = 2", "from .other import factor")
        (package / "__main__.py").write_text(program)
        self.assertEqual(await self.output("", run=["-m", "package"]), PRINTED)

    async def test_folder(self) -> None:
        """So are those of a folder."""
        folder = self.folder / "program"
        folder.mkdir()
        (folder / "__main__.py").write_text(PROGRAM)
        self.assertEqual(await self.output("", run=[str(folder)]), PRINTED)

    async def test_zip(self) -> None:
        """And of a zip file."""
        folder = self.folder / "program"
        folder.mkdir()
        (folder / "__main__.py").write_text(PROGRAM)
        archive = self.folder / "program.pyz"
        zipapp.create_archive(folder, archive)
        self.assertEqual(await self.output("", run=[str(archive)]), PRINTED)

    async def test_debugger(self) -> None:
        """
        A debugger's main module has no C{__spec__}, and what only looks like strings.
        """
        (self.folder / "debugged.py").write_text(PROGRAM)
        run = ["-m", "pdb", "-c", "continue", "-c", "quit", "../debugged.py"]
        self.assertIn(PRINTED, await self.output("", run=run))

    async def test_profiler(self) -> None:
        """A profiler may not have the program in C{sys.modules} at all."""
        (self.folder / "profiled.py").write_text(PROGRAM)
        run = ["-m", "cProfile", "../profiled.py"]
        self.assertIn(PRINTED, await self.output("", run=run))

    async def test_spawned(self) -> None:
        """The program may be a process that C{multiprocessing} has started."""
        program = PROGRAM.replace(
            "    react(main)",
            """
    import multiprocessing
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        process = context.Process(target=react, args=(main,))
        process.start()
        process.join()
""",
        )
        self.assertEqual(await self.output(program), PRINTED * 3)

    async def test_unguarded(self) -> None:
        """While a child imports the main module, reactors don't run."""
        program = UNGUARDED + "q = ProcessQueue(1)\nq.call(work).addBoth(done)\n"
        out = await self.output(program + "reactor.run()")
        self.assertIn("reactor.run() was called", out)
        self.assertIn('if __name__ == "__main__"', out)

    async def test_unguardedReactor(self) -> None:
        """Nor do calls that are made when they run start children without end."""
        program = UNGUARDED + (
            "def main():\n"
            "    global q\n"
            "    q = ProcessQueue(1, useReactor=True)\n"
            "    q.call(work).addBoth(done)\n"
            "reactor.callWhenRunning(main)\n"
            "reactor.run()\n"
        )
        out = await self.output(program)
        self.assertIn('if __name__ == "__main__"', out)

    async def test_moduleLevel(self) -> None:
        """A queue at module level is one for the program itself, and harms no child."""
        program = UNGUARDED + (
            "q = ProcessQueue(1)\n"
            "if __name__ == '__main__':\n"
            "    q.call(work).addBoth(done)\n"
            "    reactor.run()\n"
        )
        self.assertEqual(await self.output(program), "42\n")

    async def test_asyncio(self) -> None:
        """
        A program may choose a reactor at its top. Children with one have the same.
        """
        program = """
            from twisted.internet import asyncioreactor
            asyncioreactor.install()
            from twisted.internet.defer import Deferred
            from twisted.internet.task import react
            from asynqueue import ProcessQueue

            def work(x):
                import asyncio
                from twisted.internet import reactor
                d = Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0, x)))
                return d.addCallback(lambda x: (type(reactor).__name__, x))

            async def main(reactor):
                async with ProcessQueue(1, useReactor=True) as q:
                    print(await q.call(work, 42))

            if __name__ == "__main__":
                react(main)
        """
        self.assertEqual(await self.output(program), "('AsyncioSelectorReactor', 42)\n")


class InterpreterTests(ProgramCase):
    """Children are run by the right interpreter, or not at all."""

    async def test_named(self) -> None:
        """An embedding program names it as it does for C{multiprocessing}."""
        prefix = (
            "import sys, multiprocessing; python = sys.executable;"
            " sys.executable = '/bin/true'; multiprocessing.set_executable(python)\n"
        )
        self.assertEqual(await self.output(prefix + PROGRAM), PRINTED)

    async def test_unknown(self) -> None:
        """If Python doesn't know it, that's said when the queue is made."""
        for value in ("None", "''"):
            prefix = f"import sys; sys.executable = {value}\n"
            err = await self.error(prefix + PROGRAM)
            self.assertIn("WorkerStartError: No child processes can be started", err)
            self.assertIn("set_executable", err)

    async def test_frozen(self) -> None:
        """A frozen program isn't started in place of it."""
        err = await self.error("import sys; sys.frozen = True\n" + PROGRAM)
        self.assertIn("WorkerStartError: No child processes can be started", err)
        self.assertIn("frozen", err)

    async def test_inPlace(self) -> None:
        """A program that is started in place of an interpreter starts none itself."""
        count = self.folder / "count"
        prefix = f"import os, sys; open({str(count)!r}, 'a').write('x')\n"
        prefix += "sys.executable = os.path.dirname(__file__) + '/app'\n"
        app = self.folder / "app"
        script = self.folder / "script.py"
        app.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        app.chmod(0o755)
        err = await self.error(prefix + PROGRAM)
        self.assertIn("started in place of a Python interpreter", err)
        # The program, and three attempts to start a child.
        self.assertEqual(count.read_text(), "xxxx")

    async def test_removedFolder(self) -> None:
        """The working folder may have been removed."""
        prefix = (
            "import os, tempfile\n"
            "if __name__ == '__main__':\n"
            "    folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)\n"
        )
        self.assertEqual(await self.output(prefix + PROGRAM), PRINTED)

    async def test_replacedStreams(self) -> None:
        """
        What is run when an interpreter starts may replace streams by less than those.
        """
        (self.folder / "sitecustomize.py").write_text(
            textwrap.dedent("""
                import sys
                class Stream:
                    def __init__(self, stream):
                        self.write, self.flush = stream.write, stream.flush
                sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)
            """)
        )
        self.assertEqual(await self.output(PROGRAM), PRINTED)

    async def test_obsoleteModules(self) -> None:
        """
        The folder of the package may have modules that the standard library has, too.
        """
        site = self.folder / "site"
        package = Path(asynqueue.__file__).parent
        if (package.parent / "attrs").exists():
            raise SkipTest("The package is in a folder with others, which are needed")
        shutil.copytree(package, site / "asynqueue")
        for name in ("typing", "enum", "contextlib", "select", "signal", "queue"):
            (site / f"{name}.py").write_text("raise AttributeError('obsolete')")
        prefix = (
            "import sys\n"
            f"sys.path[:] = [p for p in sys.path if p != {str(package.parent)!r}]\n"
            f"sys.path.append({str(site)!r})\n"
            "import asynqueue\n"
            f"assert asynqueue.__file__.startswith({str(site)!r})\n"
        )
        self.assertEqual(await self.output(prefix + PROGRAM), PRINTED)


class ChildTests(ProgramCase):
    """What a child is like."""

    async def test_multiprocessing(self) -> None:
        """C{multiprocessing} knows that it's a child, of whom, and shares the key."""
        program = """
            import multiprocessing, os
            from twisted.internet.task import react
            from asynqueue import ProcessQueue

            MAIN = multiprocessing.current_process().name == "MainProcess"

            def ask():
                process = multiprocessing.current_process()
                parent = multiprocessing.parent_process()
                key = bytes(process.authkey)
                return process.name, MAIN, parent.pid, parent.is_alive(), key

            async def main(reactor):
                async with ProcessQueue(1) as q:
                    name, isMain, *parent, key = await q.call(ask)
                print(name == "MainProcess", isMain, parent == [os.getpid(), True])
                print(key == bytes(multiprocessing.current_process().authkey))

            if __name__ == "__main__":
                react(main)
        """
        self.assertEqual(await self.output(program), "False False True\nTrue\n")

    async def test_output(self) -> None:
        """
        What it prints and logs is seen if the program hasn't set up logging, and is
        logged if it has.
        """
        program = """
            import logging, sys
            from twisted.internet.task import react
            from twisted.logger import globalLogBeginner, textFileLogObserver
            from asynqueue import ProcessQueue

            def say():
                print("printed")
                logging.warning("logged")

            async def main(reactor):
                if "twisted" in sys.argv:
                    observer = textFileLogObserver(sys.stderr)
                    globalLogBeginner.beginLoggingTo([observer])
                elif "logging" in sys.argv:
                    logging.basicConfig(level=logging.INFO)
                async with ProcessQueue(1) as q:
                    await q.call(say)

            if __name__ == "__main__":
                react(main)
        """
        for how in ("nothing", "twisted", "logging"):
            _, err, _ = await runScript(str(self.folder), program, how)
            self.assertEqual(err.count("printed"), 1, err)
            self.assertEqual(err.count("logged"), 1, err)


class LazyTests(ProgramCase):
    """Children are started by the process in which the reactor runs."""

    async def test_noReactor(self) -> None:
        """
        Making a queue installs no reactor, and starts no thread: one may still be
        chosen, and the program may fork.
        """
        program = """
            import os, sys, threading
            from asynqueue import ProcessQueue, ThreadQueue
            from asynqueue.null import NullQueue

            if __name__ == "__main__":
                q, others = ProcessQueue(2), [NullQueue(), ThreadQueue(threads=2)]
                if os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
                print("twisted.internet.reactor" in sys.modules)
                print(threading.active_count())
                from twisted.internet import selectreactor
                selectreactor.install()
                from twisted.internet import reactor
                d = q.call(pow, 2, 3)
                d.addCallback(print)
                d.addCallback(lambda _: others[1].call(pow, 3, 2))
                d.addCallback(print)
                for queue in (q, *others):
                    d.addCallback(lambda _, queue=queue: queue.shutdown())
                d.addCallback(lambda _: reactor.stop())
                reactor.run()
        """
        self.assertEqual(await self.output(program), "False\n1\n8\n9\n")

    async def test_fork(self) -> None:
        """The program may fork before its reactor runs, as daemons do."""
        program = """
            import os, signal
            from twisted.internet import reactor
            from twisted.internet.defer import Deferred
            from asynqueue import ProcessQueue

            async def main():
                print(await q.call(os.getppid) == os.getpid())
                [worker] = q.workers()
                os.kill(worker.process.pid, signal.SIGKILL)
                await worker.deferUntilGone()
                print(await q.call(pow, 2, 3))
                await q.shutdown()

            def begin():
                d = Deferred.fromCoroutine(main())
                d.addErrback(lambda failure: failure.printTraceback())
                d.addBoth(lambda _: reactor.stop())

            if __name__ == "__main__":
                q = ProcessQueue(1)
                first = q.call(pow, 2, 2)
                if os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
                reactor.callWhenRunning(begin)
                reactor.run()
        """
        self.assertEqual(await self.output(program), "True\n8\n")

    async def test_shutDownBefore(self) -> None:
        """A queue that is shut down before the reactor runs starts no child."""
        program = """
            import os
            from twisted.internet import reactor
            from asynqueue import ProcessQueue

            def look():
                print(os.path.exists("/proc") and children() or "")
                reactor.stop()

            def children():
                with open(f"/proc/self/task/{os.getpid()}/children") as file:
                    return file.read()

            if __name__ == "__main__":
                ProcessQueue(2).shutdown().addCallback(print)
                reactor.callWhenRunning(look)
                reactor.run()
        """
        self.assertEqual(await self.output(program), "[]\n\n")
