"""Faults in the course of large arguments and results, with real children."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SkipTest

from asynqueue import ProcessQueue, errors
from asynqueue._child.buffers import THRESHOLD
from asynqueue.process import _transport as transport

from . import _faults as faults, _large as large
from .test_faults import FaultCase, freeze
from .test_integration_large import MB
from .test_integration_process import alive, wait

#: What is thought of as very large.
HUGE = 200_000_000


def mapped() -> int:
    """
    Tell how many files without a name are in the memory of this process, 0 where
    there's no telling.
    """
    if not os.path.exists("/proc/self/maps"):
        return 0
    with open("/proc/self/maps") as file:
        return sum("memfd:asynqueue" in line for line in file)


class TransferFaultTests(FaultCase):
    """Tests of children that are killed while something large is on its way."""

    timeout = 120

    async def toChild(self, size: int, n: int) -> None:
        """
        Have a child killed that has read so many pieces of its arguments, and look what
        becomes of the call.
        """
        q = self.queue()
        pid = await q.call(large.dieWhileReading, n)
        call = self.call(q, len, bytes(size))
        after = self.call(q, len, bytes(MB))
        error = await self.failureOf(errors.WorkerLost, call)
        self.assertEqual((error.pid, error.signal), (pid, signal.SIGKILL))
        self.assertEqual(await after, MB)
        await self.usable(q)
        await q.shutdown()

    async def toParent(self, size: int, n: int) -> None:
        """
        Have a child killed that has written so many pieces of a result, and look what
        becomes of that.
        """
        q = self.queue()
        call = self.call(q, large.dieWhileWriting, n, bytes, size)
        after = self.call(q, large.make, bytes, MB)
        error = await self.failureOf(errors.WorkerLost, call)
        self.assertEqual(error.signal, signal.SIGKILL)
        self.assertEqual(len(await after), MB)
        await self.usable(q)
        await q.shutdown()

    async def test_fault07halfRead(self) -> None:
        """7: A child may be killed when it has read none of 1 MB, or some."""
        await self.toChild(MB, 0)
        await self.toChild(3 * MB, 2)

    async def test_fault07hugeHalfRead(self) -> None:
        """7: Or half of 200 MB."""
        await self.toChild(HUGE, 95)

    async def test_fault07halfWritten(self) -> None:
        """7: Or when it has written none of 1 MB, or some."""
        await self.toParent(MB, 0)
        await self.toParent(3 * MB, 2)

    async def test_fault07hugeHalfWritten(self) -> None:
        """7: Or half of 200 MB."""
        await self.toParent(HUGE, 95)

    async def test_fault07halfShipped(self) -> None:
        """
        7: If the child is killed before it's sent the call, it certainly wasn't run:
        another child runs it.
        """
        q = self.queue()
        pid = await self.pidOf(q)
        call = self.call(q, len, bytes(HUGE))
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await call, HUGE)
        await self.usable(q)

    async def test_fault07unread(self) -> None:
        """7: The same if it has been sent it, but has not read it."""
        q = self.queue()
        pid = await self.pidOf(q)
        freeze(pid)
        call = self.call(q, len, bytes(THRESHOLD))
        await wait(0)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await call, THRESHOLD)
        await self.usable(q)

    async def test_fault07killedWhenDone(self) -> None:
        """
        7: If the child is killed when it has sent the result, that arrives, however
        large it is.
        """
        q = self.queue()
        call = self.call(q, faults.endsLater, HUGE)
        self.assertEqual(len(await call), HUGE)
        await self.usable(q)

    async def test_fault07oftenKilled(self) -> None:
        """
        7: After 100 children that were killed in the midst of it, all is as it was.
        """
        q = self.queue(2)
        await self.usable(q)
        # What tests before have left may have views, and descriptors.
        gc.collect()
        fds, files = len(os.listdir("/dev/fd")), mapped()
        for i in range(50):
            calls: list[Deferred[Any]] = []
            if i % 2:
                await q.update(large.dieWhileReading, i % 3, ephemeral=True)
                args: Any = len, bytes(4 * MB)
            else:
                args = large.dieWhileWriting, i % 3, bytes, 4 * MB
            calls += [self.call(q, *args), self.call(q, *args)]
            for call in calls:
                await self.failureOf(errors.WorkerLost, call)
        await self.usable(q)
        workers = q.workers()
        self.assertEqual(len(workers), 2)
        self.assertLessEqual(len(os.listdir("/dev/fd")), fds)
        gc.collect()
        self.assertLessEqual(mapped(), files)

    async def test_cancelled(self) -> None:
        """Calls may be cancelled at any moment of it."""
        q = self.queue()
        await self.pidOf(q)
        for i in range(12):
            call = self.call(q, large.same, bytes(20 * MB))
            await wait(i * 0.004)
            call.cancel()
            with contextlib.suppress(CancelledError):
                await call
        await self.usable(q)

    async def test_shutDown(self) -> None:
        """
        A queue that's shut down in the midst of it waits for what is accepted, or for
        nothing, and leaves nothing behind.
        """
        for timeout in (None, 0):
            q = ProcessQueue(1)
            await q.call(int)
            call = self.call(q, large.same, bytes(50 * MB))
            calls = [call, self.call(q, large.same, bytes(MB))]
            await wait(0)
            for each in calls:
                each.addErrback(lambda _: None)
            [worker] = q.workers()
            await q.shutdown(timeout=timeout)
            if timeout is None:
                self.assertEqual(len(await calls[0]), 50 * MB)
            else:
                self.assertEqual(await calls[0], None)
            await calls[1]
            self.assertFalse(worker.process.is_alive())


class LimitFaultTests(FaultCase):
    """Tests of what there's no room for."""

    timeout = 120

    async def test_fault16noMemoryForArguments(self) -> None:
        """
        16: Arguments for which a child has no memory fail, with an error that says so.
        The child goes on, and so do others.
        """
        if sys.platform != "linux":
            raise SkipTest("There are no such limits here")
        q = self.queue()
        pid = await self.pidOf(q)
        # The file is in its memory before.
        self.assertEqual(await self.call(q, len, bytes(MB)), MB)
        await q.call(large.takeMemory, 20 * MB)
        for value in (bytes(50 * MB), bytearray(50 * MB)):
            error = await self.failureOf(
                errors.SerializationError, self.call(q, len, value)
            )
            self.assertIn("MemoryError", str(error))
        for _ in range(10):
            self.assertEqual(await self.call(q, len, bytes(MB)), MB)
        self.assertEqual(await self.pidOf(q), pid)
        [worker] = q.workers()
        self.assertEqual(worker._life.transport._buffers._allocator._lengths, {})
        await self.usable(q)

    async def test_fault16noMemoryForResults(self) -> None:
        """
        16: So do results; what is large enough to be viewed here needs none there.
        """
        if sys.platform != "linux":
            raise SkipTest("There are no such limits here")
        q = self.queue()
        pid = await self.pidOf(q)
        await q.call(large.takeMemory, 30 * MB)
        await self.failureOf(MemoryError, self.call(q, large.make, bytearray, 200 * MB))
        self.assertEqual(len(await self.call(q, large.make, bytes, 5 * MB)), 5 * MB)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault16noLargeFiles(self) -> None:
        """16: If a child may not have large files, results take the other way."""
        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            await q.call(large.takeFiles, MB)
            for kind in (bytes, bytearray):
                found = await self.call(q, large.make, kind, 5 * MB)
                self.assertTrue(found == b"x" * 5 * MB)
            found = await self.call(q, large.make, large.Thing, 5 * MB)
            self.assertTrue(bytes(found.buffer) == b"x" * 5 * MB)
            self.assertEqual(await self.call(q, len, bytes(5 * MB)), 5 * MB)
            await q.shutdown()

    async def test_fault16noRoomHere(self) -> None:
        """16: If there's no room for arguments, they take the other way."""
        q = self.queue()
        pid = await self.pidOf(q)
        pwrite = os.pwrite
        written: list[int] = []

        def full(fd: int, data: Any, offset: int) -> int:
            """Have no room left now and then."""
            written.append(offset)
            if len(written) % 4 == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return pwrite(fd, data, offset)

        self.patch(os, "pwrite", full)
        for size in (THRESHOLD, 5 * MB, 50 * MB):
            value = [os.urandom(size), bytearray(size), bytes(size)]
            self.assertTrue(await self.call(q, large.same, value) == value)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault16noMemoryHere(self) -> None:
        """
        16: A result for which there's no memory here fails, and nothing else does.
        """
        from asynqueue._child import buffers

        q = self.queue()
        pid = await self.pidOf(q)

        def fail(*_: Any) -> Any:
            raise MemoryError("no room")

        patch = self.patch(buffers, "readBytes", fail)
        for size in (THRESHOLD, 5 * MB):
            error = await self.failureOf(
                errors.SerializationError, self.call(q, large.make, bytes, size)
            )
            self.assertIn("MemoryError: no room", str(error))
        patch.restore()
        self.assertEqual(len(await self.call(q, large.make, bytes, 5 * MB)), 5 * MB)
        self.assertEqual(await self.pidOf(q), pid)
        await self.usable(q)

    async def test_fault20noFiles(self) -> None:
        """
        20: A child for which there can be no files isn't started. When there can, one
        is.
        """
        refused: list[None] = []

        def refuse() -> int:
            refused.append(None)
            raise OSError(errno.EMFILE, "Too many open files")

        q = self.queue()
        pid = await self.pidOf(q)
        [worker] = q.workers()
        patch = self.patch(transport, "openMemoryFile", refuse)
        self.assertRaises(errors.WorkerStartError, ProcessQueue, 1)
        os.kill(pid, signal.SIGKILL)
        await worker.deferUntilGone()
        error = await self.failureOf(errors.AsynQueueError, self.call(q, int))
        self.assertIn("Too many open files", str(error))
        self.assertGreater(len(refused), 2)
        self.flushLoggedErrors(errors.WorkerStartError)
        patch.restore()
        self.assertEqual(await self.call(q, len, bytes(MB)), MB)
        await self.usable(q)


class TaskFaultTests(FaultCase):
    """Tests of tasks that do what they shouldn't."""

    async def test_fault18closesAll(self) -> None:
        """
        18: If a task closes all descriptors and has a large result, its child is lost.
        """
        q = self.queue()
        await self.pidOf(q)
        call = self.call(q, faults.closeAllAndMake, 5 * MB)
        error = await self.failureOf(errors.WorkerLost, call)
        self.assertFalse(alive(error.pid))
        await self.usable(q)

    async def test_fault18closesFiles(self) -> None:
        """
        18: If it closes only the files, results take the other way, and calls with
        large arguments fail.
        """
        q = self.queue()
        await q.call(os.closerange, 5, 7)
        self.assertEqual(len(await self.call(q, large.make, bytes, MB)), MB)
        await self.failureOf(errors.SerializationError, self.call(q, len, bytes(MB)))
        await self.usable(q)

    async def test_fault18shortensFiles(self) -> None:
        """18: It can't do harm to what others look at by making the files shorter."""
        if not hasattr(os, "memfd_create"):
            raise SkipTest("There's nothing against that here")
        q = self.queue()
        found = await self.call(q, large.same, large.Thing(bytearray(MB)))
        self.assertEqual(await self.call(q, large.shorten, 0), 2)
        self.assertEqual(bytes(found.buffer), bytes(MB))
        await self.usable(q)

    async def test_fault18forks(self) -> None:
        """
        18: A process that it leaves has the same things, and may drop them. What the
        child has stays.
        """
        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            for _ in range(3):
                value = memoryview(bytearray(b"fork" * (MB // 4)))
                code, found = await self.call(q, large.forkAndDrop, value)
                self.assertEqual(code, 7)
                self.assertTrue(found == value)
            await self.usable(q)
            await q.shutdown()

    async def test_fault18leavesProcess(self) -> None:
        """18: One that outlives the child keeps nobody from anything."""
        q = self.queue()
        pid = await self.call(q, large.leaveProcess, memoryview(bytearray(MB)))
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        found = await self.call(q, large.same, memoryview(bytearray(5 * MB)))
        await self.lost(self.call(q, os._exit, 1), 1, None)
        self.assertEqual(found.nbytes, 5 * MB)
        await self.usable(q)
