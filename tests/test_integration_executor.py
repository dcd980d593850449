"""Tests of queues with real executors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase

from asynqueue.errors import (
    SerializationError,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.executor import ExecutorQueue

from . import _jobs as jobs

ROOT = Path(__file__).resolve().parent.parent

#: Run by C{mpiexec}, which has the other processes wait for calls.
MPI_PROGRAM = """
from twisted.internet.defer import gatherResults
from twisted.internet.task import react
from asynqueue.executor import ExecutorQueue
from mpi4py.futures import MPIPoolExecutor

def increase(x):
    return x + 1

async def main(reactor):
    async with ExecutorQueue(MPIPoolExecutor, 2) as q:
        print(await gatherResults([q.call(increase, i) for i in range(5)]))
        try:
            await q.call(int, "x")
        except ValueError as error:
            print(error)

if __name__ == "__main__":
    react(main)
"""


def processes() -> Executor:
    """Make an executor with two processes."""
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def loky() -> Executor:
    """Make one of loky's."""
    try:
        module: Any = import_module("loky")
    except ImportError:
        raise SkipTest("loky isn't installed") from None
    executor: Executor = module.ProcessPoolExecutor(2)
    return executor


def interpreters() -> Executor:
    """Make one with interpreters in threads."""
    kind = getattr(import_module("concurrent.futures"), "InterpreterPoolExecutor", None)
    if kind is None:
        raise SkipTest("This Python has no interpreters")
    executor: Executor = kind(2)
    return executor


def failsAtFirst() -> None:
    """Fail to start."""
    raise LookupError("not ready")


class ExecutorTests(TestCase):
    """Tests of L{ExecutorQueue}."""

    timeout = 60

    def queue(self, executor: Any, *args: Any, **kw: Any) -> ExecutorQueue:
        """Make a queue, which is shut down after the test."""
        q = ExecutorQueue(executor, *args, **kw)
        self.addCleanup(q.shutdown, timeout=20)
        return q

    async def checkCalls(self, q: ExecutorQueue) -> None:
        """Have it run many calls, with large things and with errors."""
        results = await gatherResults([q.call(pow, i, 2) for i in range(300)])
        self.assertEqual(results, [i * i for i in range(300)])
        array = numpy.arange(1_000_000)
        (same, data), _ = await q.call(jobs.echo, array, bytes(1_000_000))
        self.assertTrue(numpy.array_equal(same, array))
        self.assertTrue(same.flags.writeable)
        self.assertEqual(data, bytes(1_000_000))
        with self.assertRaises(jobs.OfTheTask):
            await q.call(jobs.fail, 7)
        with self.assertRaises(SerializationError):
            await q.call(jobs.givesLock)
        self.assertEqual(await q.call(lambda: "from a lambda"), "from a lambda")

    async def test_processes(self) -> None:
        """Calls in processes. None of those is left after the shutdown."""
        q = self.queue(processes)
        await self.checkCalls(q)
        pid = await q.call(os.getpid)
        await q.shutdown()
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    async def test_threads(self) -> None:
        """Calls in threads, none of which is left either."""
        before = threading.active_count()
        q = self.queue(lambda: ThreadPoolExecutor(2))
        await gatherResults([q.call(pow, i, 2) for i in range(300)])
        self.assertNotEqual(await q.call(threading.get_ident), threading.get_ident())
        await q.shutdown()
        self.assertEqual(threading.active_count(), before)

    async def test_loky(self) -> None:
        """Calls in processes of loky."""
        await self.checkCalls(self.queue(loky))

    async def test_interpreters(self) -> None:
        """Calls in other interpreters of this process."""
        q = self.queue(interpreters)
        results = await gatherResults([q.call(pow, i, 2) for i in range(300)])
        self.assertEqual(results, [i * i for i in range(300)])
        with self.assertRaises(jobs.OfTheTask):
            await q.call(jobs.fail, 7)

    async def test_mpi(self) -> None:
        """Calls in processes of MPI, of functions of the program."""
        try:
            import_module("mpi4py.futures")
        except ImportError:
            raise SkipTest("mpi4py isn't installed") from None
        mpiexec = Path(sys.executable).with_name("mpiexec")
        if not mpiexec.exists():
            raise SkipTest("there's no mpiexec beside the interpreter")
        path = self.mktemp()
        Path(path).write_text(MPI_PROGRAM)
        python = [sys.executable, "-m", "mpi4py.futures", path]
        output, errors, code = await getProcessOutputAndValue(
            str(mpiexec),
            ["-n", "2", *python],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual((errors, code), (b"", 0))
        self.assertEqual(
            output.decode().splitlines(),
            ["[1, 2, 3, 4, 5]", "invalid literal for int() with base 10: 'x'"],
        )

    async def checkKilled(self, q: ExecutorQueue) -> None:
        """Have processes killed by calls, among others."""
        guilty: list[Deferred[Any]] = [
            q.call(jobs.ends, "kill", retries=r) for r in (0, 9)
        ]
        innocent = [q.call(pow, i, 2, retries=2) for i in range(20)]
        lost, given = [
            result for _, result in await DeferredList(guilty, consumeErrors=True)
        ]
        self.assertIsInstance(lost.value, WorkerLost)
        self.assertIs(type(given.value), WorkerError)
        self.assertEqual(await gatherResults(innocent), [i * i for i in range(20)])
        self.assertEqual(len(q), 1)

    async def test_killed(self) -> None:
        """
        A process that is killed loses the calls that may have been its own. The
        executor is replaced, and all others are run.
        """
        await self.checkKilled(self.queue(processes))

    async def test_killedLoky(self) -> None:
        """The same with loky."""
        await self.checkKilled(self.queue(loky))

    async def test_crash(self) -> None:
        """At the end of its time, a shutdown kills processes that are at something."""
        for make in (processes, loky):
            try:
                q = self.queue(make)
            except SkipTest:
                continue
            pid = await q.call(os.getpid)
            d = q.call(signal.pause)
            (lost,) = await q.shutdown(timeout=0.1)
            self.assertIn("pause", str(lost))
            await self.assertFailure(d, WorkerLost)
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    async def test_initializer(self) -> None:
        """Calls fail where an executor can't be started, now and later."""
        self.patch(logging.getLogger("concurrent.futures"), "disabled", True)
        q = self.queue(lambda: ThreadPoolExecutor(1, initializer=failsAtFirst))
        calls = [q.call(pow, 2, 5) for _ in range(3)]
        results = await DeferredList(calls, consumeErrors=True)
        self.assertEqual([isOk for isOk, _ in results], [False] * 3)
        await self.assertFailure(q.call(pow, 2, 5), WorkerStartError)
