"""
Faults that are injected into queues with real children, by real signals. After each,
every Deferred has fired once, the queue is of use and of its size, and nothing is left
of what it had.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, ProcessQueue, TaskQueue, errors

from . import _faults as faults, _jobs as jobs
from ._servers import ROOT, runPython, runScript
from .test_integration_process import (
    ChildrenTestCase,
    Items,
    alive,
    running,
    wait,
)

reactor: Any = globalReactor


def segments() -> set[str]:
    """
    List the segments of shared memory, without semaphores, which other programs make.
    None where the system doesn't list them.
    """
    if not os.path.isdir("/dev/shm"):
        return set()
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


def freeze(pid: int) -> None:
    """Stop a child, and wait until it has stopped. It may read on until then."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


class FaultCase(ChildrenTestCase):
    """A test of a fault."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Note how things are."""
        await super().setUp()
        self.fired: list[list[Any]] = []
        self.threads = set(threading.enumerate())
        self.segments = segments()
        self.addCleanup(self.check)

    def call(self, q: TaskQueue, *args: Any, **kw: Any) -> Deferred[Any]:
        """Make a call, and count how often its Deferred fires."""
        d = q.call(*args, **kw)
        fired: list[Any] = []
        self.fired.append(fired)

        def note(result: Any) -> Any:
            fired.append(isinstance(result, Failure))
            return result

        return d.addBoth(note)

    async def check(self) -> None:
        """
        Assert that all is as it was, but for the queue, which is shut down after this.
        """
        self.assertEqual([len(fired) for fired in self.fired], [1] * len(self.fired))
        self.assertEqual(set(threading.enumerate()) - self.threads, set())
        self.assertEqual(segments() - self.segments, set())

    async def usable(self, q: ProcessQueue, N: int | None = None) -> None:
        """Assert that a queue is of use and of its size."""
        self.assertEqual(len(q), q.N if N is None else N)
        calls = [self.call(q, pow, 2, i) for i in range(3 * len(q))]
        self.assertEqual(
            [await call for call in calls], [2**i for i in range(3 * len(q))]
        )

    async def pidOf(self, q: ProcessQueue) -> int:
        """Wait until the only child of a queue is there."""
        pid: int = await q.call(os.getpid)
        return pid

    async def lost(self, d: Deferred[Any], code: int | None, number: Any) -> None:
        """Wait for the loss of a call's child, by an exit code or a signal."""
        error = await self.failureOf(errors.WorkerLost, d)
        self.assertEqual((error.exitCode, error.signal), (code, number))
        self.assertIn(repr(error.task), str(error))
        self.assertFalse(alive(error.pid))


class PicklingFaultTests(FaultCase):
    """Tests of faults on the way to the child and back."""

    async def test_fault01callNotPickled(self) -> None:
        """
        1: A call that can't be pickled, or ends what pickles it, fails at once, and
        nothing is sent.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        for how in ("raise", "sys.exit", "interrupt"):
            d = self.call(q, faults.make, faults.Evil("pickled", how))
            error = await self.failureOf(errors.SerializationError, d)
            self.assertIn("can't be sent", str(error))
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault02callNotUnpickled(self) -> None:
        """
        2: A call that can't be unpickled in the child fails, and the child is replaced
        only if it has died of it.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        for how in ("raise", "sys.exit", "interrupt"):
            d = self.call(q, faults.make, faults.Evil("unpickled", how))
            error = await self.failureOf(errors.SerializationError, d)
            self.assertIn("can't be unpickled in the child", str(error))
        self.assertEqual(await self.pidOf(q), pid)
        await self.lost(self.call(q, id, faults.Evil("unpickled", "exit6")), 6, None)
        await self.lost(
            self.call(q, id, faults.Evil("unpickled", "SIGSEGV")), None, signal.SIGSEGV
        )
        await self.usable(q)

    async def test_fault04resultNotPickled(self) -> None:
        """4: So it is with a result that can't be pickled. Others aren't hurt."""
        q = self.queue(2)
        others = [self.call(q, pow, 3, i) for i in range(20)]
        for how in ("raise", "sys.exit", "interrupt"):
            d = self.call(q, faults.make, faults.Evil, "pickled", how)
            await self.failureOf(errors.SerializationError, d)
        more = [self.call(q, pow, 3, i) for i in range(20)]
        await self.lost(
            self.call(q, faults.make, faults.Evil, "pickled", "exit0", doNext=True),
            0,
            None,
        )
        await self.lost(
            self.call(q, faults.make, faults.Evil, "pickled", "SIGSEGV", doNext=True),
            None,
            signal.SIGSEGV,
        )
        self.assertEqual(
            [await call for call in others + more], [3**i for i in range(20)] * 2
        )
        await self.usable(q)

    async def test_fault05resultNotUnpickled(self) -> None:
        """5: A result that can't be unpickled here fails the call, and nothing else."""
        q = self.queue()
        pid = await self.pidOf(q)
        d = self.call(q, faults.make, faults.EvilOnlyHere, "", "")
        await self.failureOf(errors.SerializationError, d)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault06exceptions(self) -> None:
        """6: Whatever is raised comes over, or else its text."""
        q = self.queue()
        pid = await self.pidOf(q)
        for name, kind, text in [
            ("nameless", faults.Nameless, "1 and 2"),
            ("unspeakable", errors.WorkerError, "Unspeakable"),
            ("huge", Exception, "xxxx"),
            ("base", errors.WorkerError, "from the base"),
            ("circular", Exception, "circular"),
            ("local", Exception, "known nowhere else"),
            ("group", Exception, "two"),
        ]:
            error = await self.failureOf(kind, self.call(q, faults.raises, name))
            self.assertIn(text, Failure(error).getTraceback(), name)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def halfToParent(self, size: int) -> None:
        """Have a child be killed when half of its result has come."""
        q = self.queue()
        await self.lost(self.call(q, faults.halfAFrame, size), None, signal.SIGKILL)
        await self.usable(q)

    async def halfToChild(self, size: int) -> None:
        """Have a child be killed when half of a call has gone to it."""
        q = self.queue()
        pid = await self.pidOf(q)
        freeze(pid)
        call = self.call(q, faults.length, bytes(size))
        await wait(0.05)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await call, size)
        await self.usable(q)

    async def test_fault07halfACall(self) -> None:
        """7: Half a call is none: it certainly wasn't run, so another child runs it."""
        await self.halfToChild(1 << 20)

    async def test_fault07halfALargeCall(self) -> None:
        """7: The same with 200 MB."""
        await self.halfToChild(200_000_000)

    async def test_fault07halfAResult(self) -> None:
        """7: Half a result is none either."""
        await self.halfToParent(1 << 20)

    async def test_fault07halfALargeResult(self) -> None:
        """7: The same with 200 MB."""
        await self.halfToParent(200_000_000)


class RunningFaultTests(FaultCase):
    """Tests of faults while a task is running."""

    async def test_fault03endsWhileRunning(self) -> None:
        """
        3: Exits that raise fail their call, and no more. Those that don't are told
        with the exit code, 0 being no better, or the signal.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        for how, text in [
            ("sys.exit", "SystemExit: 5"),
            ("interrupt", "KeyboardInterrupt"),
        ]:
            # Raised here, they would end the program.
            call = self.call(q, faults.strike, how)
            error = await self.failureOf(errors.WorkerError, call)
            self.assertIn(text, str(error))
        self.assertEqual(await self.pidOf(q), pid)
        for code in (0, 1):
            await self.lost(self.call(q, os._exit, code), code, None)
        for name in ("SIGSEGV", "SIGKILL", "SIGTERM", "SIGABRT"):
            number = getattr(signal, name)
            await self.lost(self.call(q, faults.strike, name), None, number)
        await self.usable(q)

    async def test_fault08stopped(self) -> None:
        """
        8: A child that was stopped doesn't stop the clock of its call, and is killed.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        freeze(pid)
        call = self.call(q, pow, 2, 2, timeout=0.2, retries=0)
        [worker] = q.workers()
        await self.failureOf(errors.TimeoutError, call)
        await worker.deferUntilGone()
        self.assertFalse(alive(pid))
        await self.usable(q)

    async def stuck(self, f: Any, *args: Any) -> None:
        """
        Assert that a call that would never come back is stopped in time, and no other
        is disturbed.
        """
        q = self.queue(2)
        await self.usable(q)
        [one, other] = q.workers()
        start = time.monotonic()
        call = self.call(q, f, *args, timeout=0.5, retries=0)
        # It's handed out when the callbacks of the last answer have returned.
        await deferLater(globalReactor, 0)
        busy = one if one.tasks else other
        pid = busy.process.pid
        neighbour = self.call(q, time.sleep, 0.8)
        await self.failureOf(errors.TimeoutError, call)
        failed = time.monotonic() - start
        await busy.deferUntilGone()
        gone = time.monotonic() - start
        self.assertFalse(alive(pid))
        self.assertEqual(len(q), 2)
        self.assertEqual(await self.call(q, pow, 2, 3), 8)
        await neighbour
        await self.usable(q)
        # Ample, for machines that have other things to do.
        self.assertLess(failed, 1.5)
        self.assertLess(gone, 3)

    async def test_fault09sleeps(self) -> None:
        """9: A task that sleeps is gone when its time is up."""
        await self.stuck(time.sleep, 60)

    async def test_fault09loopsInC(self) -> None:
        """9: So is one in a loop that isn't Python's."""
        await self.stuck(faults.loopInC)

    async def test_fault09ignoresTheSignal(self) -> None:
        """9: So is one that ignores the soft signal, after a grace."""
        await self.stuck(faults.ignoreTermAndSleep)

    async def test_fault10killedIdle(self) -> None:
        """10: A child that is killed while idle costs nothing, and is replaced once."""
        q = self.queue()
        pid = await self.pidOf(q)
        [worker] = q.workers()
        os.kill(pid, signal.SIGKILL)
        await worker.deferUntilGone()
        [heir] = q.workers()
        await self.usable(q)
        self.assertEqual(q.workers(), [heir])

    async def test_fault10killedWhenHandedATask(self) -> None:
        """
        10: What a child that is being killed was handed and hasn't read goes to the
        next one. What it has read may have been started, so it's lost.
        """
        q = self.queue()
        for _ in range(5):
            pid = await self.pidOf(q)
            freeze(pid)
            call = self.call(q, os.getpid)
            os.kill(pid, signal.SIGKILL)
            self.assertNotEqual(await call, pid)
        await self.usable(q)

    async def test_fault10killedWhenDone(self) -> None:
        """
        10: A child that is killed when it has just replied has done its task, and the
        next ones come to their results.
        """
        q = self.queue()
        await self.pidOf(q)
        for _ in range(5):
            call = self.call(q, os.getpid)
            call.addCallback(lambda pid: os.kill(pid, signal.SIGKILL))
            others = [self.call(q, pow, 2, i, retries=1) for i in range(5)]
            self.assertIsNone(await call)
            self.assertEqual([await d for d in others], [1, 2, 4, 8, 16])
        await self.usable(q)

    async def test_fault11killedOnCancel(self) -> None:
        """
        11: A call that is queued behind one that is cancelled isn't handed to the child
        that is killed for it.
        """
        q = self.queue()
        await self.pidOf(q)
        for _ in range(5):
            first = self.call(q, time.sleep, 60)
            second = self.call(q, pow, 2, 5)
            first.cancel()
            await self.failureOf(CancelledError, first)
            self.assertEqual(await second, 32)
        await self.usable(q)

    async def test_fault16memoryLimit(self) -> None:
        """
        16: A task that gets no more memory fails with that, and its child goes on.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        call = self.call(q, faults.exhaustMemory, 50_000_000)
        await self.failureOf(MemoryError, call)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault17output(self) -> None:
        """
        17: A child may write 100 MB of anything. Only so much of it is logged, and
        calls aren't disturbed.
        """
        q = self.queue()
        self.assertEqual(await self.call(q, faults.flood, 100_000_000), 100_000_000)
        self.assertLess(sum(map(len, self.log.lines)), 100_000_000)
        await self.usable(q)

    async def test_fault18forks(self) -> None:
        """
        18: A task may leave a process that has all of its child's descriptors, and
        outlives it.
        """
        q = self.queue()
        pid = await self.call(q, faults.fork)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        await self.lost(self.call(q, os._exit, 1), 1, None)
        await self.usable(q)

    async def test_fault18threadsAndFolders(self) -> None:
        """18: It may leave a thread, and go elsewhere."""
        q = self.queue()
        pid = await self.pidOf(q)
        await self.call(q, faults.leaveThread)
        await self.call(q, os.chdir, "/")
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault18closesAll(self) -> None:
        """18: If it closes all descriptors, its child is lost."""
        q = self.queue()
        call = self.call(q, os.closerange, 0, 100)
        error = await self.failureOf(errors.WorkerLost, call)
        self.assertFalse(alive(error.pid))
        await self.usable(q)

    async def test_fault19manyAtOnce(self) -> None:
        """
        19: 100,000 calls that complete at once need no deep stack, also if each is
        made by the one before. The reactor has its turn in between.
        """
        q = TaskQueue(AsyncWorker())
        self.addCleanup(q.shutdown)
        left = 100_000
        turns = 0
        done: Deferred[None] = Deferred()

        def again(_: object) -> None:
            """Queue another call from the callback of the last."""
            nonlocal left
            left -= 1
            if left >= 50_000:
                q.call(int).addCallback(again)
            elif not left:
                done.callback(None)

        def turn() -> None:
            """Count the turns of the reactor."""
            nonlocal turns
            turns += 1
            if not done.called:
                reactor.callLater(0, turn)

        turn()
        for _ in range(50_000):
            q.call(int).addCallback(again)
        # Those make as many again, one each, until there were enough.
        await done
        self.assertGreater(turns, 10)

    async def test_fault19manyInAChild(self) -> None:
        """19: So it is with a child."""
        q = self.queue()
        calls = [self.call(q, pow, i, 2) for i in range(3_000)]
        self.assertEqual([await d for d in calls], [i * i for i in range(3_000)])
        await self.usable(q)

    async def test_fault21failsAtItem(self) -> None:
        """
        21: An iteration that fails, or whose child dies, gives all items before that,
        and then tells it.
        """
        q = self.queue()
        for how, kind, code in [
            ("raise", LookupError, None),
            ("exit3", errors.WorkerLost, 3),
            ("SIGKILL", errors.WorkerLost, None),
        ]:
            items = await self.call(q, faults.countTo, 5, how)
            got = [await anext(items) for _ in range(5)]
            self.assertEqual(got, [0, 1, 2, 3, 4])
            with self.assertRaises(kind) as raised:
                await anext(items)
            self.assertEqual(getattr(raised.exception, "exitCode", None), code)
        await self.usable(q)

    async def test_fault21consumerStops(self) -> None:
        """
        21: A consumer that has had enough ends the iteration, and the child goes on.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        async for item in await self.call(q, faults.countTo, 1_000):
            if item == 3:
                break
        self.assertEqual(await self.pidOf(q), pid)

        class Stopping(Items):
            """Wants no more than three items."""

            def write(self, data: Any) -> None:
                super().write(data)
                if len(self.items) == 3:
                    self.producer.stopProducing()

        consumer = Stopping()
        await self.call(q, faults.countTo, 1_000, consumer=consumer)
        self.assertEqual(consumer.items, [0, 1, 2])
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault21consumerRaises(self) -> None:
        """21: A consumer that raises fails its call, and no other."""

        class Raising(Items):
            def write(self, data: Any) -> None:
                super().write(data)
                if len(self.items) == 3:
                    raise LookupError("the consumer's")

        q = self.queue()
        pid = await self.pidOf(q)
        consumer = Raising()
        call = self.call(q, faults.countTo, 1_000, consumer=consumer)
        await self.failureOf(LookupError, call)
        self.assertEqual(consumer.items, [0, 1, 2])
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)


class StartingFaultTests(FaultCase):
    """Tests of children that can't be put to work."""

    async def assertGivenUp(self, q: ProcessQueue, calls: Any, text: str) -> None:
        """
        Assert that calls fail since children can't be started, and that the errors say
        why.
        """
        for call in calls:
            error = await self.failureOf(errors.WorkerStartError, call)
            self.assertIn(text, str(error))
        self.assertEqual(len(q), 0)
        self.flushLoggedErrors(errors.WorkerStartError)

    async def test_fault12initializerRaises(self) -> None:
        """
        12: An initializer that raises is given up after three children. Its traceback
        is told.
        """
        q = self.queue(initializer=(faults.strike, ("raise",)))
        calls = [self.call(q, pow, 2, i) for i in range(3)]
        await self.assertGivenUp(q, calls, "LookupError: evil")
        self.assertEqual(len([x for x in self.log.lines if "is lost. Child" in x]), 3)

    async def test_fault12initializerExits(self) -> None:
        """12: So is one that ends its process."""
        for how in ("sys.exit", "exit5"):
            q = self.queue(initializer=(faults.strike, (how,)))
            await self.assertGivenUp(q, [self.call(q, int)], "exit code")

    async def test_fault12initializerHangs(self) -> None:
        """12: So is one that takes longer than a child has to start."""
        q = self.queue(initializer=(time.sleep, (60,)), startTimeout=0.3)
        call = self.call(q, int)
        await self.assertGivenUp(q, [call], "wasn't ready within 0.3 seconds")

    async def test_fault12initializerRecovers(self) -> None:
        """12: What was given up is tried again at the next call."""
        path = os.path.join(self.folder, "there")
        q = self.queue(2, initializer=(faults.failUnless, (path,)))
        await self.assertGivenUp(q, [self.call(q, int)], f"no {path} here")
        with open(path, "w"):
            pass
        self.assertEqual(await self.call(q, int), 0)
        await self.usable(q)

    async def test_fault13updateFailsOnOne(self) -> None:
        """
        13: An update that fails on one child of four is told as text in its place, and
        that child goes on.
        """
        q = self.queue(4)
        await self.usable(q)
        pids = [worker.process.pid for worker in q.workers()]
        results = await q.update(faults.failIn, pids[2], ephemeral=True)
        self.assertIn("LookupError", results[2])
        self.assertEqual([*results[:2], results[3]], [*pids[:2], pids[3]])
        await self.usable(q)
        self.assertEqual([worker.process.pid for worker in q.workers()], pids)

    async def test_fault13updateFailsInNewChild(self) -> None:
        """
        13: A new child in which a stored update fails gets no task, and counts as one
        that has failed to start.
        """
        path = os.path.join(self.folder, "there")
        with open(path, "w"):
            pass
        q = self.queue()
        self.assertEqual(await q.update(faults.failUnless, path), [path])
        os.unlink(path)
        await self.lost(self.call(q, os._exit, 1), 1, None)
        await self.assertGivenUp(q, [self.call(q, int)], "a stored update failed")
        with open(path, "w"):
            pass
        await self.call(q, int)
        await self.usable(q)

    async def test_fault13updateEndsNewChild(self) -> None:
        """13: So does one that the update ends."""
        q = self.queue()
        [text] = await q.update(os._exit, 3)
        self.assertIn("exit code 3", text)
        await self.assertGivenUp(q, [self.call(q, int)], "exit code 3")

    async def test_fault20noDescriptors(self) -> None:
        """
        20: A child that can't be started for want of descriptors is tried again, and
        the queue recovers as soon as there are some.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        [worker] = q.workers()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(int(name) for name in os.listdir("/dev/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most + 2, before[1]))
        taken: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            os.kill(pid, signal.SIGKILL)
            await worker.deferUntilGone()
            call = self.call(q, int)
            await self.assertGivenUp(q, [call], "Too many open files")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in taken:
                os.close(fd)
        self.assertEqual(await self.call(q, int), 0)
        await self.usable(q)

    async def test_fault20noInterpreter(self) -> None:
        """
        20: If the interpreter is missing, that's told, and the queue recovers when it's
        there.
        """
        q = self.queue()
        await self.pidOf(q)
        with_ = sys.executable
        sys.executable = "/nonexistent/python"
        try:
            await self.lost(self.call(q, os._exit, 1), 1, None)
            await self.assertGivenUp(q, [self.call(q, int)], "/nonexistent/python")
        finally:
            sys.executable = with_
        self.assertEqual(await self.call(q, int), 0)
        await self.usable(q)


class EndingFaultTests(FaultCase):
    """Tests of shutdowns that are disturbed."""

    async def test_fault14crashDuringShutdown(self) -> None:
        """
        14: A child that dies while the queue is being shut down doesn't hold it up, and
        calls that wait for it fail.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        started = self.log.lineWith("waiting")
        call = self.call(q, jobs.waitAtGate, self.gate.path)
        waiting = self.call(q, int)
        await started
        shutdowns = [q.shutdown(), q.shutdown()]
        await self.failureOf(errors.QueueStopped, waiting)
        os.kill(pid, signal.SIGKILL)
        await self.lost(call, None, signal.SIGKILL)
        for shutdown in shutdowns:
            self.assertEqual([task.series for task in await shutdown], [None])
        self.assertFalse(alive(pid))

    async def test_fault14crashWhileDraining(self) -> None:
        """14: If it dies while the queue is run dry, another runs what is left."""
        q = self.queue()
        await self.pidOf(q)
        end = self.call(q, os._exit, 3)
        others = [self.call(q, pow, 2, i) for i in range(10)]
        self.assertEqual(await q.shutdown(drain=True), [])
        await self.lost(end, 3, None)
        self.assertEqual([await d for d in others], [2**i for i in range(10)])

    async def test_fault14inACallback(self) -> None:
        """14: A queue can be shut down by what its calls have come to."""
        for f, args in ((int, ()), (os._exit, (1,))):
            q = self.queue(2)
            call = self.call(q, f, *args)
            call.addBoth(lambda _, q: [q.shutdown()], q)
            waiting = [self.call(q, time.sleep, 0.01) for _ in range(5)]
            [shutdown] = await call
            await shutdown
            for _, result in await DeferredList(waiting, consumeErrors=True):
                if isinstance(result, Failure):
                    result.trap(errors.QueueStopped)
            self.assertEqual(len(q), 0)

    async def test_fault14withoutWorkers(self) -> None:
        """14: A queue can be shut down that has no workers, and calls that wait."""
        for drain in (False, True):
            q = TaskQueue()
            call = self.call(q, int)
            [task] = await q.shutdown(drain=drain)
            self.assertIs(task.callTuple[0], int)
            await self.failureOf(errors.QueueStopped, call)

    async def test_fault14whileGivenUp(self) -> None:
        """14: A queue can be shut down whose children can't be started."""
        q = self.queue(2, initializer=(faults.strike, ("raise",)))
        call = self.call(q, int)
        await self.failureOf(errors.WorkerStartError, call)
        call = self.call(q, int)
        shutdown = q.shutdown(drain=True, timeout=0.2)
        await shutdown
        await self.failureOf(Exception, call)
        self.flushLoggedErrors(errors.WorkerStartError)

    async def test_fault15parentKilled(self) -> None:
        """
        15: Children of a program that is killed end at once if they're idle, else at
        the end of their task.
        """
        script = """
            import os, signal, time
            from twisted.internet.task import deferLater, react
            from asynqueue import ProcessQueue

            async def main(reactor):
                q = ProcessQueue(2)
                pids = set()
                while len(pids) < 2:
                    pids.add(await q.call(os.getpid))
                    q.call(time.sleep, 0.05)
                await deferLater(reactor, 0.2)
                idle, busy = q.workers()
                q.call(time.sleep, 1.5)
                if idle._jobs.jobs:
                    idle, busy = busy, idle
                os.write(1, b"%d %d" % (idle.process.pid, busy.process.pid))
                await deferLater(reactor, 0.1)
                os.kill(os.getpid(), signal.SIGKILL)

            if __name__ == "__main__":
                react(main)
        """
        out, _, _ = await runScript(self.folder, script)
        idle, busy = map(int, out.split())
        end = time.monotonic() + 3
        while running(idle) and time.monotonic() < end:
            await wait(0.02)
        self.assertFalse(running(idle))
        while running(busy) and time.monotonic() < end + 3:
            await wait(0.02)
        self.assertFalse(running(busy))

    async def stopped(self, number: int) -> None:
        """
        Assert that a program that is told to end by a signal does so in time, with its
        children.
        """
        script = f"""
            import os, signal, time
            from twisted.internet import reactor
            from asynqueue import ProcessQueue

            def sleepOn():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(60)

            def shutDown():
                return q.shutdown(timeout=0.5)

            def tell(failure):
                os.write(1, b" " + failure.type.__name__.encode())

            def told(pids):
                os.write(1, b"%d %d" % tuple(pids))
                for _ in range(4):
                    q.call(sleepOn).addErrback(tell)
                reactor.callLater(0.3, os.kill, os.getpid(), {number})

            if __name__ == "__main__":
                q = ProcessQueue(2)
                reactor.addSystemEventTrigger("before", "shutdown", shutDown)
                reactor.callWhenRunning(
                    lambda: q.update(os.getpid).addCallback(told)
                )
                reactor.run()
        """
        start = time.monotonic()
        out, err, code = await runScript(self.folder, script)
        self.assertEqual((err, code), ("", 0))
        one, other, *kinds = out.split()
        self.assertEqual(
            sorted(kinds), ["QueueStopped", "QueueStopped", "WorkerLost", "WorkerLost"]
        )
        self.assertFalse(alive(int(one)) or alive(int(other)))
        self.assertLess(time.monotonic() - start, 15)

    async def test_fault15interrupted(self) -> None:
        """15: Ctrl-C ends a program that shuts its queue down, and all children."""
        await self.stopped(signal.SIGINT)

    async def test_fault15terminated(self) -> None:
        """15: So does the signal to terminate."""
        await self.stopped(signal.SIGTERM)


class KillerTests(FaultCase):
    """Tests of children that are killed at random."""

    async def test_fault24killer(self) -> None:
        """
        24: Whatever is done to the children, each call comes to one result, which is
        right, and nothing is left.
        """
        command = ["-m", "tests.chaos", "--seconds", "6", "--seed", "4"]
        out, err, code = await runPython(*command, folder=str(ROOT))
        self.assertEqual(code, 0, err[-500:] + out[-2_000:])
        self.assertIn("queued", out)
