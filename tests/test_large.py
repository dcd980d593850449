"""
Tests of workers whose arguments and results are large. Children and threads are
played by the test.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import ProcessQueue, ProcessWorker, errors
from asynqueue._child.buffers import THRESHOLD, BufferReader, BufferWriter, Incoming
from asynqueue._child.memfd import SLICE_BYTES
from asynqueue._child.pickling import Packed, dumps, loads
from asynqueue._child.protocol import BUFFERS, Kind
from asynqueue._child.status import Status
from asynqueue.process import _frames as copying
from asynqueue.process._frames import CopyThreads
from asynqueue.process._life import ChildState

from . import _jobs as jobs
from ._fakes import FakeProcess, FakeReactor
from ._large import Thing
from .test_memfd import isOpen
from .test_process import Sender, WorkerCase

#: What is copied in a thread.
LARGE = SLICE_BYTES + 5

#: What is copied at once.
MEDIUM = THRESHOLD + 5


class FakeThread:
    """A thread of L{FakeThreads}."""

    def __init__(self, threads: FakeThreads, target: Callable[[], object]) -> None:
        self.ident: int | None = None
        self._threads = threads
        self._target = target

    def start(self) -> None:
        """Start it, if there may be another."""
        if len(self._threads.waiting) >= self._threads.most:
            raise RuntimeError("can't start new thread")
        self.ident = 1
        self._threads.waiting.append(self._target)

    def join(self) -> None:
        """Wait for it."""
        self._threads.joined += 1


class FakeThreads:
    """
    Threads that do what they have to do when the test says so. There can't be more than
    C{most} at a time.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.waiting: list[Callable[[], object]] = []
        self.most = 100
        self.joined = 0
        case.patch(copying, "threading", SimpleNamespace(Thread=self._thread))

    def run(self) -> None:
        """Let the first one run to its end."""
        self.waiting.pop(0)()

    def _thread(
        self, target: Callable[[], object], name: str, daemon: bool
    ) -> FakeThread:
        """Make a thread."""
        assert daemon
        return FakeThread(self, target)


class CopyThreadsTests(SynchronousTestCase):
    """Tests of L{CopyThreads}."""

    def setUp(self) -> None:
        """Make them."""
        self.fakes = FakeThreads(self)
        self.reactor: Any = FakeReactor()
        self.threads = CopyThreads(self.reactor)

    def test_result(self) -> None:
        """
        It's told in the reactor what has come of something, when its thread has ended.
        """
        d, failing = self.threads.run(lambda: 5), self.threads.run(lambda: 1 // 0)
        gone = self.threads.whenIdle()
        self.fakes.run()
        self.assertNoResult(d)
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(d), 5)
        self.assertEqual(self.fakes.joined, 1)
        self.assertNoResult(gone)
        self.fakes.run()
        self.reactor.advance(0)
        self.failureResultOf(failing, ZeroDivisionError)
        self.successResultOf(gone)
        self.successResultOf(self.threads.whenIdle())

    def test_noThread(self) -> None:
        """If there are as many threads as there may be, it does without."""
        self.fakes.most = 0
        d = self.threads.run(lambda: 5)
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(d), 5)
        self.assertEqual(self.fakes.joined, 0)

    def test_realThread(self) -> None:
        """Real threads have ended when it's told that what they did is done."""
        self.patch(copying, "threading", threading)
        before = threading.active_count()
        called = threading.Event()
        callFromThread = self.reactor.callFromThread

        def call(*args: Any) -> None:
            callFromThread(*args)
            called.set()

        self.patch(self.reactor, "callFromThread", call)
        d = self.threads.run(lambda: 5)
        self.assertTrue(called.wait(30))
        self.reactor.advance(0)
        self.assertEqual(threading.active_count(), before)
        self.assertEqual(self.successResultOf(d), 5)


class Boxes:
    """The memory files as the child has them."""

    def __init__(self, process: FakeProcess) -> None:
        self.reader = BufferReader(os.dup(process._fds[5]))
        self.writer = BufferWriter(os.dup(process._fds[6]))

    def load(self, payload: bytes) -> Any:
        """Get what has come."""
        incoming = Incoming(self.reader, memoryview(payload))
        incoming.read()
        return incoming.loads()

    def close(self) -> None:
        """Close the files."""
        os.close(self.reader.fd)
        os.close(self.writer.fd)


class LargeCase(WorkerCase):
    """A test with a worker whose child has boxes."""

    def setUp(self) -> None:
        """Make a worker that has been hired."""
        super().setUp()
        self.threads = FakeThreads(self)
        self.tasks: list[Any] = []
        self.addCleanup(self.finish)
        self.worker = self.makeWorker()
        self.resigned = 0
        self.process: FakeProcess = self.reactor.processes[0]
        self.boxes = self.boxesOf(self.process)
        self.sender = Sender(self.process)

    def makeWorker(self) -> ProcessWorker:
        """Make a worker."""
        worker = ProcessWorker(callStats=True, reactor=self.reactor)
        worker.ID = 5
        worker.setResignator(self.resign)
        return worker

    def boxesOf(self, process: FakeProcess) -> Boxes:
        """Make the boxes of a child."""
        boxes = Boxes(process)
        self.addCleanup(boxes.close)
        return boxes

    def finish(self) -> None:
        """End the children, and have threads do what they still have to."""
        for process in self.reactor.processes:
            if not process.ended:
                process.end(3)
        while self.threads.waiting:
            self.work()
        self.reactor.advance(0)
        for task in self.tasks:
            task.d.addErrback(lambda _: None)

    def task(self, *args: Any, **kw: Any) -> Any:
        """Make a task, of whose failure nobody needs to take notice."""
        task = super().task(*args, **kw)
        self.tasks.append(task)
        return task

    def resultOf(self, task: Any) -> Any:
        """Get the result of a task."""
        status, result = self.successResultOf(task.d)
        self.assertIn(status, (Status.RAN, Status.ITERATOR))
        return result

    def resign(self) -> None:
        """Take note that the worker has resigned."""
        self.resigned += 1

    def work(self) -> None:
        """Have one thread do what it has to, and the reactor hear of it."""
        self.threads.run()
        self.reactor.advance(0)

    def calls(self) -> list[tuple[int, int, Any]]:
        """
        Get the calls that the child has been sent: the kind and the number of each, and
        its first argument.
        """
        found = []
        for kind, number, payload in self.process.received():
            if kind == Kind.CALL | BUFFERS:
                self.process.claim(number)
                found.append((kind, number, self.boxes.load(payload)[1][0]))
            elif kind == Kind.CALL and self.process.claim(number):
                found.append((kind, number, loads(payload)[1][0]))
        return found

    def sendResult(self, number: int, value: Any, seconds: float = 0.5) -> None:
        """Answer a call with something large."""
        packed = dumps((seconds, value))
        assert isinstance(packed, Packed)
        payload = self.boxes.writer.put(packed)
        self.process.send(Kind.RESULT | BUFFERS, number, payload)

    def large(self, size: int = LARGE, **kw: Any) -> Any:
        """Make a task with a large argument."""
        return self.task(jobs.nothing, b"a" * size, **kw)


class ArgumentTests(LargeCase):
    """Tests of large arguments."""

    def test_atOnce(self) -> None:
        """Arguments that aren't too large are sent at once, by themselves."""
        self.worker.run(self.large(MEDIUM))
        self.assertEqual(self.calls(), [(Kind.CALL | BUFFERS, 1, b"a" * MEDIUM)])
        self.assertEqual(self.threads.waiting, [])

    def test_shipped(self) -> None:
        """Others are sent when they have been copied."""
        task = self.large()
        ready = self.worker.run(task)
        self.assertEqual(self.calls(), [])
        self.work()
        self.assertEqual(self.calls(), [(Kind.CALL | BUFFERS, 1, b"a" * LARGE)])
        self.assertNoResult(ready)
        self.sender.result(1, 5)
        self.reactor.serve()
        self.successResultOf(ready)
        self.assertEqual(self.resultOf(task), 5)

    def test_notHeldOn(self) -> None:
        """When they have been sent, nothing holds on to them: their size may change."""
        for size in (MEDIUM, LARGE):
            store = bytearray(size)
            self.worker.run(self.task(len, store))
            if size == LARGE:
                self.assertEqual(len(self.calls()), 0)
                self.work()
            store += b"longer"
            self.sender.result(self.calls()[0][1], 5)
            self.reactor.serve()

    def test_inOrder(self) -> None:
        """What comes after a call waits until that has been sent, in order."""
        self.sender.hello()
        tasks = [self.large(), self.task(len, 1), self.large(MEDIUM), self.task(len, 2)]
        for task in tasks:
            self.worker.run(task)
        self.assertEqual(self.calls(), [])
        self.work()
        sent = []
        while calls := self.calls():
            for _, number, argument in calls:
                self.process.claim(number)
                self.sender.result(number, None)
                sent.append(argument)
            self.reactor.serve()
        self.assertEqual(sent, [b"a" * LARGE, 1, b"a" * MEDIUM, 2])

    def test_whenItsTurn(self) -> None:
        """Those of a call that waits for others aren't copied before it's its turn."""
        self.worker.run(self.task(len, 1))
        self.worker.run(self.large())
        self.assertEqual(self.threads.waiting, [])
        self.sender.result(1, 1)
        self.reactor.serve()
        self.work()
        self.assertEqual([number for _, number, _ in self.calls()], [1, 2])

    def test_stats(self) -> None:
        """The time that it takes to copy them counts as seen here."""
        clock = [10.0]
        from asynqueue.process import _jobs, _tasks as worker

        self.patch(_jobs, "perf_counter", lambda: clock[0])
        self.patch(worker, "perf_counter", lambda: clock[0])
        self.worker.run(self.large())
        clock[0] += 2
        self.work()
        clock[0] += 3
        self.sendResult(1, b"r" * LARGE, 1.5)
        self.reactor.serve()
        clock[0] += 4
        self.work()
        self.assertEqual(self.successResultOf(self.worker.stats()), [(9.0, 1.5)])

    def test_cancel(self) -> None:
        """
        A task that is cancelled while they are copied hasn't been sent: the child
        stays, and the next has its turn.
        """
        task, other = self.large(timeout=5), self.task(len, 1)
        ready = self.worker.run(task)
        self.worker.run(other)
        task.d.addErrback(lambda _: None)
        self.worker.cancelTask(task)
        self.successResultOf(ready)
        self.assertEqual(self.calls(), [])
        self.work()
        self.assertEqual(self.calls(), [(Kind.CALL, 3, 1)])
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.worker._life.transport._buffers._allocator._lengths, {})  # type: ignore[union-attr]
        task.stopTimer()

    def test_cancelOtherMeanwhile(self) -> None:
        """Nor does one that's behind it disturb it."""
        task, other, third = self.large(), self.task(len, 1), self.task(len, 2)
        for each in (task, other, third):
            self.worker.run(each)
        self.worker.cancelTask(other)
        self.work()
        self.work()
        arguments = [argument for _, _, argument in self.calls()]
        self.assertEqual(arguments, [b"a" * LARGE])
        self.sender.result(4, 1)
        self.reactor.serve()
        self.assertEqual([argument for _, _, argument in self.calls()], [2])
        self.assertEqual(self.worker.crash(), [third])

    def test_takenBack(self) -> None:
        """Tasks behind it are taken back, if it takes long, and it itself isn't."""
        clock = [10.0]
        from asynqueue.process import _jobs, _tasks as worker

        self.patch(_jobs, "perf_counter", lambda: clock[0])
        self.patch(worker, "perf_counter", lambda: clock[0])
        self.sender.hello()
        self.reactor.serve()
        task, other = self.large(), self.task(len, 1)
        self.worker.run(task)
        ready = self.worker.run(other)
        self.assertEqual(self.worker.reclaim(), [])
        clock[0] += 1
        self.assertEqual(self.worker.reclaim(), [other])
        self.successResultOf(ready)
        self.work()
        self.assertEqual(len(self.calls()), 1)

    def test_takenBackWithThoseBefore(self) -> None:
        """
        It's taken back along with tasks before it that the child hasn't come to, but
        for the first, whose turn it is.
        """
        clock = [10.0]
        from asynqueue.process import _jobs, _tasks as worker

        self.patch(_jobs, "perf_counter", lambda: clock[0])
        self.patch(worker, "perf_counter", lambda: clock[0])
        self.sender.hello()
        self.reactor.serve()
        first, ahead, task = self.task(len, 1), self.task(len, 2), self.large()
        self.worker.run(first)
        readies = [self.worker.run(each) for each in (ahead, task)]
        clock[0] += 1
        self.assertEqual(self.worker.reclaim(), [ahead, task])
        for ready in readies:
            self.successResultOf(ready)
        self.assertEqual([argument for _, _, argument in self.calls()], [1])

    def test_timer(self) -> None:
        """The clock of a call starts anew when its arguments have been sent."""
        task = self.large(timeout=5)
        failed: list[Any] = []
        task.d.addErrback(failed.append)
        self.worker.run(task)
        self.reactor.advance(4)
        self.work()
        self.reactor.advance(4)
        self.assertEqual(failed, [])
        self.sender.result(1, 5)
        self.reactor.serve()
        self.assertEqual(self.resultOf(task), 5)

    def test_cannotBeShipped(self) -> None:
        """
        A call that can't be copied fails with an error that says why. Others follow.
        """

        def fail(*args: Any) -> int:
            raise MemoryError("no room")

        patch = self.patch(os, "pwrite", fail)
        for size in (LARGE, MEDIUM):
            task, other = self.large(size), self.task(len, size)
            ready = self.worker.run(task)
            self.worker.run(other)
            if size == LARGE:
                self.threads.run()
            self.reactor.advance(0)
            error = self.failureResultOf(task.d, errors.SerializationError).value
            self.assertIn("MemoryError: no room", str(error))
            self.assertIn(repr(task), str(error))
            self.successResultOf(ready)
            [(_, number, argument)] = self.calls()
            self.assertEqual(argument, size)
            self.sender.result(number, 1)
            self.reactor.serve()
        patch.restore()

    def test_stop(self) -> None:
        """A worker that is to stop does so when the call has been sent and answered."""
        task = self.large()
        self.worker.run(task)
        stopped = self.worker.stop()
        self.work()
        self.assertEqual(len(self.calls()), 1)
        self.assertFalse(self.process.isStopped())
        self.sender.result(1, 5)
        self.reactor.serve()
        self.assertEqual(self.resultOf(task), 5)
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(stopped)

    def test_stopAndFail(self) -> None:
        """It does if the call can't be sent, too."""
        task = self.large()
        self.worker.run(task)
        stopped = self.worker.stop()
        patch = self.patch(os, "pwrite", None)
        self.work()
        patch.restore()
        self.failureResultOf(task.d, errors.SerializationError)
        self.process.received()
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(stopped)

    def test_stopAndCancel(self) -> None:
        """Or if it's cancelled."""
        task = self.large()
        self.worker.run(task)
        stopped = self.worker.stop()
        self.worker.cancelTask(task)
        self.work()
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(stopped)

    def test_crash(self) -> None:
        """A crash gives up what is copied, and waits for who copies."""
        task, other = self.large(50 * SLICE_BYTES), self.task(len, 1)
        self.worker.run(task)
        self.worker.run(other)
        gone = self.worker.deferUntilGone()
        self.assertEqual(self.worker.crash(), [task, other])
        self.threads.run()
        self.assertLess(os.fstat(self.boxes.reader.fd).st_blocks * 512, SLICE_BYTES)
        self.process.end(None, 9)
        self.assertNoResult(gone)
        self.reactor.advance(0)
        self.successResultOf(gone)
        self.assertNoResult(task.d)

    def test_lost(self) -> None:
        """
        When the child ends meanwhile, the call hasn't been started, and goes to another
        worker.
        """
        self.sender.hello()
        self.reactor.serve()
        task, other = self.large(), self.task(len, 1)
        self.worker.run(task)
        self.worker.run(other)
        self.process.end(None, 9)
        self.assertEqual(self.resigned, 1)
        self.assertEqual(self.worker.crash(), [task, other])
        self.work()
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.state, ChildState.DEAD)

    def test_lostInATimeOfTrouble(self) -> None:
        """It's not looked at any longer when it has been copied after all."""
        task = self.large()
        self.worker.run(task)
        self.threads.run()
        self.process.end(None, 9)
        self.reactor.advance(0)
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.crash(), [task])

    def test_lostWhenSent(self) -> None:
        """
        A call that has been sent is lost with the child if it has read it; if not, it
        hasn't been started.
        """
        for reads in (True, False):
            worker = self.makeWorker()
            process = self.reactor.processes[-1]
            process.send(Kind.HELLO, 0)
            self.reactor.serve()
            task = self.large()
            worker.run(task)
            self.work()
            if reads:
                process.begin()
            process.end(None, 9)
            if reads:
                self.failureResultOf(task.d, errors.WorkerLost)
                self.assertEqual(worker.crash(), [])
            else:
                self.assertNoResult(task.d)
                self.assertEqual(worker.crash(), [task])

    def test_released(self) -> None:
        """What the child doesn't need any longer is used for others."""
        for i in range(1, 6):
            self.worker.run(self.large(MEDIUM))
            self.assertEqual(len(self.calls()), 1)
            self.process.send(Kind.RELEASE, 0, self.boxes.reader.unneeded())
            self.sender.result(i, None)
            self.reactor.serve()
        self.assertEqual(self.worker._life.transport._buffers._allocator._lengths, {})  # type: ignore[union-attr]
        self.assertLess(os.fstat(self.boxes.reader.fd).st_blocks * 512, 2 * MEDIUM)


class ResultTests(LargeCase):
    """Tests of large results."""

    def setUp(self) -> None:
        """Have a child that is there."""
        super().setUp()
        self.sender.hello()
        self.reactor.serve()

    def start(self, n: int) -> list[Any]:
        """Have the child be at so many tasks, of which it has been sent all."""
        tasks = [self.task(len, i) for i in range(n)]
        for task in tasks:
            self.worker.run(task)
        for _, number, _ in self.calls()[1:]:
            self.process.claim(number)
        return tasks

    def test_atOnce(self) -> None:
        """Results that needn't be copied are there at once."""
        [task] = self.start(1)
        self.sendResult(1, [b"r" * MEDIUM, Thing(b"t" * LARGE)])
        self.reactor.serve()
        result = self.resultOf(task)
        self.assertEqual(result[0], b"r" * MEDIUM)
        self.assertEqual(bytes(result[1].buffer), b"t" * LARGE)

    def test_copied(self) -> None:
        """Others are there when they have been."""
        [task] = self.start(1)
        self.sendResult(1, b"r" * LARGE)
        self.reactor.serve()
        self.assertNoResult(task.d)
        self.work()
        self.assertEqual(self.resultOf(task), b"r" * LARGE)

    def test_inOrder(self) -> None:
        """What has come after it waits, also other large results."""
        tasks = self.start(5)
        self.sender.result(1, 1)
        self.sendResult(2, b"r" * LARGE)
        self.sender.result(3, 3)
        self.sendResult(4, b"s" * LARGE)
        self.sender.result(5, 5)
        self.reactor.serve()
        self.assertEqual([task.d.called for task in tasks], [True] + [False] * 4)
        self.work()
        self.assertEqual([task.d.called for task in tasks], [True] * 3 + [False] * 2)
        self.work()
        self.assertEqual(self.resultOf(tasks[3]), b"s" * LARGE)
        self.assertEqual(self.resultOf(tasks[4]), 5)

    def test_released(self) -> None:
        """The child is told when they're not needed any longer."""
        [task] = self.start(1)
        self.sendResult(1, Thing(bytes(MEDIUM)))
        self.reactor.serve()
        self.reactor.advance(0)
        self.assertEqual(self.process.received(), [])
        task.d.addErrback(lambda _: None)
        task.d = task.d.addCallback(lambda _: None)
        self.reactor.advance(0)
        [(kind, _, payload)] = self.process.received()
        self.assertEqual(kind, Kind.RELEASE)
        self.boxes.writer.release(memoryview(payload))
        self.assertEqual(self.boxes.writer._allocator._lengths, {})

    def test_tooShort(self) -> None:
        """
        A result that isn't there as a whole is an error of the call, and of no other.
        """
        tasks = self.start(3)
        packed = dumps((0.5, [bytearray(LARGE)]))
        assert isinstance(packed, Packed)
        payload = bytearray(self.boxes.writer.put(packed))
        # The length of the first buffer, which now ends where there's nothing.
        payload[4 + 9 : 4 + 17] = (1 << 27).to_bytes(8, "little")
        self.process.send(Kind.RESULT | BUFFERS, 1, bytes(payload))
        self.sender.result(2, 2)
        self.reactor.serve()
        self.work()
        error = self.failureResultOf(tasks[0].d, errors.SerializationError).value
        self.assertIn("isn't as long as it should be", str(error))
        self.assertEqual(self.resultOf(tasks[1]), 2)

    def test_stray(self) -> None:
        """The result of a call that the worker doesn't know is of no interest."""
        self.sendResult(7, b"r" * LARGE)
        self.sendResult(8, Thing(bytes(MEDIUM)))
        self.reactor.serve()
        self.work()
        released = [
            payload
            for kind, _, payload in self.process.received()
            if kind == Kind.RELEASE
        ]
        for payload in released:
            self.boxes.writer.release(payload)
        self.assertEqual(self.boxes.writer._allocator._lengths, {})

    def test_lost(self) -> None:
        """
        A result that the child has sent before its end is given, and tasks after that
        are lost.
        """
        tasks = self.start(2)
        gone = self.worker.deferUntilGone()
        self.sendResult(1, b"r" * LARGE)
        self.process.end(None, 9)
        self.assertEqual((self.resigned, tasks[1].d.called), (0, False))
        self.work()
        self.assertEqual(self.resultOf(tasks[0]), b"r" * LARGE)
        self.failureResultOf(tasks[1].d, errors.WorkerLost)
        self.assertEqual(self.resigned, 1)
        self.successResultOf(gone)

    def test_lostWithMore(self) -> None:
        """So it is with all that it has sent, and the files are closed at last."""
        tasks = self.start(4)
        transport: Any = self.worker._life.transport
        fds = transport._buffers.fd, transport._reader.fd
        self.sendResult(1, b"r" * LARGE)
        self.sendResult(2, b"s" * LARGE)
        self.sendResult(3, b"t" * LARGE)
        self.process.end(None, 9)
        for i, letter in enumerate(b"rst"):
            self.assertTrue(isOpen(fds[0]))
            self.work()
            self.assertEqual(self.resultOf(tasks[i])[0], letter)
        self.failureResultOf(tasks[3].d, errors.WorkerLost)
        self.assertEqual([isOpen(fd) for fd in fds], [False] * 2)
        self.assertEqual(self.worker.state, ChildState.DEAD)

    def test_lostWhenCopied(self) -> None:
        """
        It's given also if the end is noticed when it has been copied and nobody has
        heard of that.
        """
        tasks = self.start(2)
        waiting = self.task(len, 2, timeout=50)
        self.worker.run(waiting)
        self.sendResult(1, b"r" * LARGE)
        self.reactor.serve()
        self.threads.run()
        self.process.end(None, 9)
        self.reactor.advance(0)
        self.assertEqual(self.resultOf(tasks[0]), b"r" * LARGE)
        self.failureResultOf(tasks[1].d, errors.WorkerLost)
        self.assertEqual(self.resigned, 1)
        # The clock of the one that wasn't started hasn't been.
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.worker.crash(), [waiting])

    def test_givenMeanwhile(self) -> None:
        """
        Tasks that are given to a worker whose child has ended, while a result is still
        read, aren't lost, nor are those that it had been sent ahead and hadn't begun.
        """
        for seconds in (1e-9, 1):
            self.worker._jobs.window.note(seconds)
        tasks = [self.task(len, i, timeout=50) for i in range(3)]
        for task in tasks:
            self.worker.run(task)
        self.sendResult(1, b"r" * LARGE)
        self.process.end(None, 9)
        tasks += [self.task(len, 3), self.large(MEDIUM), self.large()]
        for task in tasks[3:]:
            self.worker.run(task)
        self.assertEqual(len(self.threads.waiting), 1)
        self.work()
        self.assertEqual(self.resultOf(tasks[0]), b"r" * LARGE)
        self.assertEqual(self.worker.crash(), tasks[1:])
        for task in tasks[1:]:
            self.assertNoResult(task.d)
            task.callback((Status.DISCONNECTED, None))

    def test_crashAfterTheEnd(self) -> None:
        """A worker may be crashed meanwhile."""
        tasks = self.start(2)
        gone = self.worker.deferUntilGone()
        self.sendResult(1, b"r" * LARGE)
        self.process.end(None, 9)
        self.assertEqual(self.worker.crash(), tasks)
        self.assertNoResult(gone)
        self.work()
        self.successResultOf(gone)
        self.assertFalse(any(task.d.called for task in tasks))
        self.assertEqual(self.resigned, 0)

    def test_crash(self) -> None:
        """The same with one whose child hasn't ended."""
        [task] = self.start(1)
        gone = self.worker.deferUntilGone()
        self.sendResult(1, b"r" * LARGE)
        self.reactor.serve()
        self.assertEqual(self.worker.crash(), [task])
        self.work()
        self.process.end(None, 9)
        self.successResultOf(gone)
        self.assertNoResult(task.d)

    def test_cancel(self) -> None:
        """
        A task that is cancelled while its result is read has been done: the child
        stays, and so do other tasks.
        """
        task, other, third = self.start(3)
        self.sendResult(1, b"r" * LARGE)
        self.reactor.serve()
        self.worker.cancelTask(task)
        self.sender.result(2, 2)
        self.reactor.serve()
        self.assertFalse(other.d.called)
        self.work()
        self.assertEqual(self.resultOf(other), 2)
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.resigned, 0)
        self.assertFalse(third.d.called)

    def test_stop(self) -> None:
        """A worker that is to stop waits for what is read."""
        [task] = self.start(1)
        self.sendResult(1, b"r" * LARGE)
        self.reactor.serve()
        stopped = self.worker.stop()
        self.assertFalse(self.process.isStopped())
        self.work()
        self.assertEqual(self.resultOf(task), b"r" * LARGE)
        self.process.received()
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(stopped)

    def test_iterations(self) -> None:
        """Items that have come after it wait, too."""
        task, other = self.start(2)
        self.sender.iterator(1)
        self.sender.items(1, 1)
        self.sendResult(2, b"r" * LARGE)
        self.sender.items(1, 2)
        self.process.send(Kind.END, 1)
        self.reactor.serve()
        deferator = self.resultOf(task)
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        second = deferator.__anext__()
        self.assertNoResult(second)
        self.work()
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(self.resultOf(other), b"r" * LARGE)


class QueueTests(WorkerCase):
    """Tests of queues with large arguments and results."""

    def setUp(self) -> None:
        """Make a queue with one worker."""
        super().setUp()
        self.threads = FakeThreads(self)
        self.addCleanup(self.finish)
        self.q = ProcessQueue(1, reactor=self.reactor)
        self.child().hello()
        self.serve()

    def finish(self) -> None:
        """End the queue."""
        d = self.q.shutdown()
        for _ in range(9):
            for process in self.reactor.processes:
                if not process.ended:
                    process.end(0)
            while self.threads.waiting:
                self.threads.run()
                self.serve()
            self.serve()
        self.assertTrue(d.called)

    def serve(self) -> None:
        """Let the queue do what it can."""
        self.reactor.serve()
        self.reactor.advance(0)
        self.reactor.serve()

    def test_cancel(self) -> None:
        """
        A call that is cancelled while its arguments are copied fails at once, and costs
        no child.
        """
        d = self.q.call(len, b"a" * LARGE)
        other = self.q.call(len, "other")
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.threads.run()
        self.serve()
        self.reactor.processes[0].claim(2)
        kinds = [kind for kind, _, _ in self.reactor.processes[0].received()]
        self.assertEqual([kind for kind in kinds if kind != Kind.SETUP], [Kind.CALL])
        self.assertEqual(len(self.reactor.processes), 1)
        self.child().result(2, 5)
        self.serve()
        self.assertEqual(self.successResultOf(other), 5)

    def test_timeout(self) -> None:
        """So does one whose time is over."""
        d = self.q.call(len, b"a" * LARGE, timeout=5, retries=0)
        self.reactor.advance(6)
        self.failureResultOf(d, errors.TimeoutError)
        self.assertEqual(self.reactor.processes[0].signals, [])
        self.threads.run()
        self.serve()
        self.assertEqual(len(self.q), 1)

    def sendLarge(self, number: int, value: Any) -> None:
        """Answer a call with something large."""
        process = self.reactor.processes[-1]
        boxes = Boxes(process)
        packed = dumps((0.1, value))
        assert isinstance(packed, Packed)
        process.claim(number)
        process.send(Kind.RESULT | BUFFERS, number, boxes.writer.put(packed))
        boxes.close()

    def test_timeoutReading(self) -> None:
        """
        When the time of a call is over while its result is read, and it may be tried
        again, it has one result: that of the other attempt.
        """
        fired: list[Any] = []
        d = self.q.call(len, "large", timeout=5, retries=1)
        d.addBoth(fired.append)
        self.sendLarge(1, b"r" * LARGE)
        self.serve()
        self.reactor.advance(6)
        self.serve()
        self.assertEqual(fired, [])
        self.threads.run()
        self.serve()
        self.assertEqual(len(self.reactor.processes), 1)
        self.child().result(2, 5)
        self.serve()
        self.assertEqual(fired, [5])
        other = self.q.call(len, "other")
        self.child().result(3, 7)
        self.serve()
        self.assertEqual(self.successResultOf(other), 7)

    def test_cancelReading(self) -> None:
        """One whose result is read fails at once as well, and its result is dropped."""
        d = self.q.call(len, "large")
        self.sendLarge(1, b"r" * LARGE)
        self.serve()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.threads.run()
        self.serve()
        self.assertEqual(self.reactor.processes[0].signals, [])

    def test_lost(self) -> None:
        """A call whose child ends while its arguments are copied is made by another."""
        d = self.q.call(len, b"a" * LARGE)
        first = self.reactor.processes[0]
        first.end(None, 9)
        self.serve()
        self.threads.run()
        self.serve()
        self.assertEqual(len(self.reactor.processes), 2)
        self.child().hello()
        self.serve()
        while self.threads.waiting:
            self.threads.run()
            self.serve()
        self.child().result(1, 5)
        self.serve()
        self.assertEqual(self.successResultOf(d), 5)
