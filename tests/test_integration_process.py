"""Tests of queues with real children."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import textwrap
import threading
from multiprocessing.resource_tracker import ensure_running
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IConsumer
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from asynqueue import ProcessQueue, TaskQueue, errors
from asynqueue.iteration import Deferator

from . import _jobs as jobs
from ._fakes import LogLines
from ._servers import runScript

reactor: Any = globalReactor


def alive(pid: int) -> bool:
    """Tell whether there is a process, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def delayedCalls() -> list[Any]:
    """List what the reactor is to do later, but for the time limit of the test."""
    return [
        call for call in reactor.getDelayedCalls() if "onTimeout" not in str(call.func)
    ]


@implementer(IConsumer)
class Items:
    """A consumer that keeps what it's given."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Implement C{IConsumer.registerProducer}."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Implement C{IConsumer.unregisterProducer}."""
        self.producer = None

    def write(self, data: Any) -> None:
        """Implement C{IConsumer.write}."""
        self.items.append(data)


class Gate:
    """Lets children through when it's opened. They find it by its path."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "gate")
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR)

    def open(self, word: str = ".") -> None:
        """Let one who waits go on, and tell it a character."""
        os.write(self._fd, word.encode())

    def close(self) -> None:
        """Do away with it."""
        os.close(self._fd)


class ChildrenTestCase(TestCase):
    """A test with children. When it's over, nothing of them is left."""

    timeout = 60
    maxDiff = None

    async def setUp(self) -> None:  # type: ignore[override]
        """Note how things are when the reactor runs."""
        await wait(0)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.gate = Gate(self.folder)
        self.addCleanup(self.gate.close)
        self.log = LogLines(self)
        self.selectables = set(reactor.getReaders()) | set(reactor.getWriters())
        self.descriptors = set(os.listdir("/dev/fd"))

    def queue(self, N: int = 1, **kw: Any) -> ProcessQueue:
        """Make a queue, which is shut down when the test is over."""
        q = ProcessQueue(N, **kw)
        self.addCleanup(self.shutDown, q)
        return q

    async def shutDown(self, q: TaskQueue) -> None:
        """Shut a queue down, and look that nothing is left."""
        pids = [worker.process.pid for worker in q.workers()]
        await q.shutdown(timeout=5)
        self.assertEqual([pid for pid in pids if pid and alive(pid)], [])
        selectables = set(reactor.getReaders()) | set(reactor.getWriters())
        self.assertEqual(selectables - self.selectables, set())
        # Some reactors have a delayed call for each that comes from a thread.
        await wait(0)
        self.assertEqual(delayedCalls(), [])
        descriptors = set(os.listdir("/dev/fd")) - self.descriptors
        self.assertEqual(
            [fd for fd in descriptors if os.path.exists(f"/dev/fd/{fd}")], []
        )

    async def failureOf(self, kind: type[Any], d: Deferred[Any]) -> Any:
        """Wait for something to fail. Returns the exception."""
        try:
            result = await d
        except kind as error:
            return error
        raise self.failureException(f"{result!r} has come in place of {kind.__name__}")


class CallTests(ChildrenTestCase):
    """Tests of calls and what they return."""

    async def test_result(self) -> None:
        """Results come back, from another process."""
        q = self.queue()
        self.assertNotEqual(await q.call(os.getpid), os.getpid())
        self.assertEqual(await q.call(jobs.echo, 1, b="x"), ((1,), {"b": "x"}))
        self.assertEqual(await gatherResults([q.call(jobs.nothing)]), [None])

    async def test_emptyContainers(self) -> None:
        """Empty containers come back as what they are."""
        q = self.queue()
        values: list[Any] = [[], (), {}, "", b"", set()]
        for value in values:
            self.assertEqual(await q.call(jobs.echo, value), ((value,), {}))

    async def test_allChildren(self) -> None:
        """All children work at the same time."""
        q = self.queue(3)
        started = gatherResults([self.log.lineWith("waiting") for _ in range(1)])
        calls = [q.call(jobs.waitAtGate, self.gate.path) for _ in range(3)]
        await started
        for _ in range(3):
            self.gate.open()
        self.assertEqual(await gatherResults(calls), ["."] * 3)
        pids = {worker.process.pid for worker in q.workers()}
        self.assertEqual(len(pids), 3)

    async def test_sameState(self) -> None:
        """One child keeps what a call has left in its interpreter."""
        q = self.queue()
        pid = await q.call(jobs.remember, 1)
        self.assertEqual(await q.call(jobs.remembered), (pid, [1]))

    async def test_many(self) -> None:
        """However many calls are queued at once, all come back."""
        q = self.queue(2)
        calls = [q.call(jobs.nothing) for _ in range(20_000)]
        self.assertEqual(await gatherResults(calls), [None] * 20_000)

    async def test_update(self) -> None:
        """
        An update is run in each child, also in those that come later, before any call.
        """
        q = self.queue(2)
        pids = await q.update(jobs.remember, "update")
        self.assertEqual(len(set(pids)), 2)
        await self.failureOf(errors.WorkerLost, q.call(jobs.ends, "exit"))
        calls = [q.call(jobs.remembered) for _ in range(10)]
        self.assertEqual(
            {tuple(memory) for _, memory in await gatherResults(calls)}, {("update",)}
        )

    async def test_failingUpdate(self) -> None:
        """What an update raises is text in its list of results."""
        q = self.queue()
        [text] = await q.update(jobs.fail, 7, ephemeral=True)
        self.assertIsInstance(text, str)
        self.assertIn("because (7)", text)

    async def test_stats(self) -> None:
        """Calls are timed, here and in the child, if that's wanted."""
        q = self.queue(callStats=True)
        await q.call(jobs.sleepFor, 0.02)
        [(here, there)] = await q.stats()
        self.assertGreater(there, 0.019)
        self.assertGreater(here, there)

    async def test_noStats(self) -> None:
        """They aren't if it's not."""
        q = self.queue()
        await q.call(jobs.nothing)
        self.assertEqual(await q.stats(), [])

    async def test_memUsage(self) -> None:
        """The memory of a child is measured while it's there."""
        q = self.queue()
        [worker] = q.workers()
        await q.call(jobs.nothing)
        usage = worker.memUsage()
        self.assertGreater(usage, 1_000)
        self.assertLess(usage, 1_000_000)
        await q.shutdown()
        self.assertIsNone(worker.memUsage())

    async def test_handle(self) -> None:
        """The child process is seen as long as it's alive."""
        q = self.queue()
        [worker] = q.workers()
        self.assertEqual(await q.call(os.getpid), worker.process.pid)
        self.assertTrue(worker.process.is_alive())
        await q.shutdown()
        self.assertFalse(worker.process.is_alive())
        self.assertIsNotNone(worker.process.pid)
        self.assertEqual(worker.process.exitcode, 0)

    async def test_threadsLeft(self) -> None:
        """A thread that a call has left comes to its end before its child does."""
        q = self.queue()
        path = self.mktemp()
        await q.call(jobs.leavesThread, path, 30)
        await q.shutdown()
        self.assertEqual(len(Path(path).read_text().split()), 30)

    async def test_threadsLeftTooLong(self) -> None:
        """That's waited for within the time limit only."""
        q = self.queue()
        path = self.mktemp()
        await q.call(jobs.leavesThread, path, 100_000)
        await q.shutdown(timeout=0.1)

    async def test_processBase(self) -> None:
        """
        Objects that come to a child with one call after the other have data in
        common, which this process doesn't see.
        """
        q = self.queue()
        total, other = jobs.Sum(), jobs.Sum()
        pid, _ = await q.call(total.add, 1)
        self.assertNotEqual(pid, total.pid)
        self.assertEqual(await q.call(total.add, 2), (pid, 3))
        self.assertEqual(await q.call(other.add, 5), (pid, 8))
        self.assertEqual(total.data, {})
        self.assertRaises(AttributeError, lambda: total.total)

    async def test_output(self) -> None:
        """
        What is printed is logged line by line, with whose it is. Nothing can be read.
        """
        q = self.queue()
        [worker] = q.workers()
        pid = await q.call(os.getpid)
        lines = gatherResults(
            [
                self.log.lineWith("stdout: gr\u00fc\u00dfe"),
                self.log.lineWith("on stderr"),
            ]
        )
        await q.call(jobs.prints, "gr\u00fc\u00dfe")
        await lines
        who = f"Worker {worker.ID}, pid {pid}"
        self.assertIn(f"{who}, stdout: gr\u00fc\u00dfe", self.log.lines)
        self.assertIn(f"{who}, stderr: gr\u00fc\u00dfe on stderr", self.log.lines)

    async def test_descriptors(self) -> None:
        """
        A child has the standard streams, its pipes, and what it watches its parent by,
        and nothing else of its parent's.
        """
        read, write = os.pipe()
        try:
            os.set_inheritable(read, True)
            q = self.queue(2)
            got = await gatherResults([q.call(jobs.hasDescriptors) for _ in range(4)])
        finally:
            os.close(read)
            os.close(write)
        for descriptors in got:
            self.assertEqual([fd for fd in descriptors if fd > 8], [])

    async def test_environment(self) -> None:
        """Children have the environment of this process, or the one given."""
        self.patch(os, "environ", {**os.environ, "ASYNQUEUE_TEST": "x"})
        q = self.queue()
        self.assertEqual(await q.call(os.getenv, "ASYNQUEUE_TEST"), "x")
        await q.shutdown()
        q = self.queue(env={"OTHER": "y"})
        self.assertIsNone(await q.call(os.getenv, "ASYNQUEUE_TEST"))
        self.assertEqual(await q.call(os.getenv, "OTHER"), "y")

    async def test_interrupt(self) -> None:
        """Children leave Ctrl-C to their parent."""
        q = self.queue()
        pid = await q.call(os.getpid)
        os.kill(pid, signal.SIGINT)
        self.assertEqual(await q.call(os.getpid), pid)

    async def test_idle(self) -> None:
        """
        A queue that has nothing to do has nothing done: no delayed call is there, and
        nothing has the reactor come round but what the test itself does.
        """
        q = self.queue(2)
        await gatherResults([q.call(jobs.nothing) for _ in range(10)])
        # This goes on from within the last result, before its worker is ready.
        await wait(0)
        self.assertEqual(delayedCalls(), [])
        turns: list[int] = []
        iterate = reactor.doIteration

        def counted(delay: Any) -> None:
            turns.append(1)
            iterate(delay)

        passed: Deferred[None] = Deferred()
        self.patch(reactor, "doIteration", counted)
        reactor.callLater(0.3, passed.callback, None)
        await passed
        # One waits for that delay, and one may have begun before. A delayed call that
        # was cancelled still wakes the reactor, and a timeout may end a bit too soon.
        self.assertLessEqual(len(turns), 4)

    if not hasattr(globalReactor, "doIteration") or "asyncio" in repr(globalReactor):
        test_idle.skip = "This reactor can't be watched."  # type: ignore[attr-defined]


class SharedMemoryTests(ChildrenTestCase):
    """Tests of C{multiprocessing.shared_memory}."""

    def setUp(self) -> Any:
        """Have the process there that keeps watch over blocks."""
        ensure_running()
        return super().setUp()

    async def test_sharedMemory(self) -> None:
        """
        A block of shared memory that a call attaches to stays when its child ends.
        """
        block = SharedMemory(create=True, size=10)
        block.close()
        self.addCleanup(block.unlink)
        q = self.queue()
        await q.call(jobs.writesShared, block.name, 7)
        await q.shutdown()
        again = SharedMemory(name=block.name)
        self.assertEqual(bytes(again.buf or b"")[0], 7)
        again.close()


class FailureTests(ChildrenTestCase):
    """Tests of calls that fail."""

    async def test_traceback(self) -> None:
        """The traceback of its failure has where it was raised in the child."""
        q = self.queue()
        failures: list[Any] = []
        await q.call(jobs.fail, 7).addErrback(failures.append)
        [failure] = failures
        for text in (failure.getTraceback(), str(failure.value.__cause__)):
            self.assertIn("_jobs.py", text)
            self.assertIn("raise failure from error", text)
            self.assertIn("KeyError: 'missing'", text)

    async def test_notRebuilt(self) -> None:
        """One that can't be had here comes as a L{WorkerError} with the whole text."""
        q = self.queue()
        call = q.call(jobs.raiseThat, jobs.OnlyInChild)
        error = await self.failureOf(errors.WorkerError, call)
        self.assertIn("OnlyInChild", str(error))
        self.assertIn("_jobs.py", str(error.__cause__))

    async def test_stopIteration(self) -> None:
        """C{StopIteration} ends nothing here."""
        q = self.queue()
        await self.failureOf(RuntimeError, q.call(jobs.raiseThat, StopIteration, 3))

    async def test_lambda(self) -> None:
        """With cloudpickle, lambdas can be called, given, and returned."""
        q = self.queue()
        factor = 3
        self.assertEqual(await q.call(lambda x: x * factor, 4), 12)
        (f,), _ = await q.call(jobs.echo, lambda: "given")
        self.assertEqual(f(), "given")
        self.assertEqual((await q.call(jobs.givesLambda))(), "from a lambda")

    async def test_lambdaWithoutCloudpickle(self) -> None:
        """
        Without it, there's an error that says what can't be pickled, and what helps.
        The child is there as before.
        """
        q = self.queue()
        pid = await q.call(os.getpid)
        await q.call(jobs.hideCloudpickle)
        error = await self.failureOf(
            errors.SerializationError, q.call(jobs.givesLambda)
        )
        self.assertIn("result", str(error))
        self.assertIn("asynqueue[cloudpickle]", str(error))
        self.assertEqual(await q.call(os.getpid), pid)

    async def test_unpicklable(self) -> None:
        """Whatever can't be pickled, the error names it, and nothing else is hurt."""
        q = self.queue()
        pid = await q.call(os.getpid)
        lock = threading.Lock()
        cases: list[tuple[Deferred[Any], str]] = [
            (q.call(lock.acquire), "the callable"),
            (q.call(jobs.echo, 1, lock), "argument 1"),
            (q.call(jobs.echo, x=lock), "keyword x"),
            (q.call(jobs.givesLock), "The result"),
            (q.call(jobs.givesUnloadable), "result"),
        ]
        for call, part in cases:
            error = await self.failureOf(errors.SerializationError, call)
            self.assertIn(part, str(error))
        self.assertEqual(await q.call(os.getpid), pid)


class IterationTests(ChildrenTestCase):
    """Tests of calls that return iterators."""

    async def test_items(self) -> None:
        """The items come one after the other, however many there are."""
        q = self.queue()
        for n in (1, 16, 17, 1_000):
            deferator = await q.call(jobs.count, n)
            self.assertIsInstance(deferator, Deferator)
            self.assertEqual([item async for item in deferator], list(range(n)))

    async def test_deferreds(self) -> None:
        """They can be asked for as Deferreds, as it has always been."""
        q = self.queue()
        deferator = await q.call(jobs.count, 50)
        self.assertEqual([await d for d in deferator], list(range(50)))

    async def test_window(self) -> None:
        """An iterator that would go on for ever is 16 items ahead of who takes them."""
        q = self.queue()
        deferator = await q.call(jobs.countForEver)
        for i in range(50):
            self.assertEqual(await deferator.__anext__(), i)
            # The iterator has its turn after each call.
            for _ in range(3):
                _, [last] = await q.call(jobs.remembered)
                self.assertLessEqual(last, i + 16)
            self.assertGreaterEqual(last, i + 8)
        deferator.stop()

    async def test_windowThatHasGrown(self) -> None:
        """It's further ahead of who takes them fast, but not too far."""
        q = self.queue()
        deferator = await q.call(jobs.countForEver)
        async for i in deferator:
            if i == 30_000:
                break
        for _ in range(10):
            _, [last] = await q.call(jobs.remembered)
        self.assertLessEqual(last, 30_000 + 2048)
        deferator.stop()

    async def test_stopped(self) -> None:
        """An iterator that isn't wanted any longer is closed in the child."""
        q = self.queue()
        deferator = await q.call(jobs.countForEver)
        await deferator.__anext__()
        deferator.stop()
        self.assertEqual((await q.call(jobs.remembered))[1][1:], ["ended"])

    async def test_abandoned(self) -> None:
        """So is one that nobody has any longer."""
        q = self.queue()
        deferator = await q.call(jobs.countForEver)
        await deferator.__anext__()
        del deferator
        # What is awaited is remembered until something else is.
        await q.call(jobs.nothing)
        self.assertEqual((await q.call(jobs.remembered))[1][1:], ["ended"])

    async def test_fails(self) -> None:
        """What an iterator raises comes after the items before it."""
        q = self.queue()
        for n in (0, 1, 3, 40):
            got: list[int] = []

            async def iterate(n: int, got: list[int]) -> None:
                async for item in await q.call(jobs.countAndFail, n):
                    got.append(item)  # noqa: PERF401 - to have those before the error

            error = await self.failureOf(
                jobs.OfTheTask, Deferred.fromCoroutine(iterate(n, got))
            )
            self.assertEqual(got, list(range(n)))
            self.assertEqual(error.code, n)
            self.assertIn("_jobs.py", str(error.__cause__))

    async def test_unpicklableItem(self) -> None:
        """
        An item that can't be pickled is such a failure, and the iterator is closed.
        """
        q = self.queue()
        got = []
        with self.assertRaises(errors.SerializationError):
            async for item in await q.call(jobs.locks, 3):
                got.append(item)  # noqa: PERF401 - as above
        self.assertEqual(got, [0, 1, 2])
        self.assertEqual((await q.call(jobs.remembered))[1], ["closed"])

    async def test_slow(self) -> None:
        """Each item comes as soon as it's there, not with the next or with others."""
        q = self.queue()
        deferator = await q.call(jobs.countAtGate, self.gate.path)
        for i in range(4):
            self.assertEqual(await deferator.__anext__(), i)
            self.gate.open()
        self.assertEqual(await deferator.__anext__(), 4)
        self.gate.open("!")
        await self.failureOf(StopAsyncIteration, deferator.__anext__())

    async def test_calls(self) -> None:
        """
        Calls are run while an iteration goes on, and several iterations at a time.
        """
        q = self.queue()
        one = await q.call(jobs.count, 100)
        two = await q.call(jobs.count, 100)
        got = []
        async for item in one:
            other = await two.__anext__()
            got.append((item, other, await q.call(jobs.echo, item)))
        self.assertEqual(got, [(i, i, ((i,), {})) for i in range(100)])
        two.stop()

    async def test_consumer(self) -> None:
        """A consumer is given all items, and is what the call fires with."""
        q = self.queue()
        for n in (0, 1, 100):
            consumer = Items()
            self.assertIs(await q.call(jobs.count, n, consumer=consumer), consumer)
            self.assertEqual(consumer.items, list(range(n)))
            self.assertIsNone(consumer.producer)

    async def test_consumerRefuses(self) -> None:
        """
        When the consumer refuses its producer, the call fails with that, the iteration
        ends in the child, and the next call has its turn.
        """

        class Refusing(Items):
            """A consumer that takes nothing."""

            def registerProducer(self, producer: Any, streaming: bool) -> None:
                raise ValueError("refused")

        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            call = q.call(jobs.count, 100_000, consumer=Refusing())
            await self.failureOf(ValueError, call)
            self.assertEqual(await q.call(abs, -3), 3)
            await q.shutdown()

    async def test_consumerAndFailure(self) -> None:
        """If the iterator fails, so does the call, after the items before."""
        q = self.queue()
        consumer = Items()
        call = q.call(jobs.countAndFail, 3, consumer=consumer)
        await self.failureOf(jobs.OfTheTask, call)
        self.assertEqual(consumer.items, [0, 1, 2])
        self.assertIsNone(consumer.producer)

    async def test_raw(self) -> None:
        """
        Iterators that can be pickled come as they are if that's wanted; generators
        can't.
        """
        q = self.queue()
        self.assertEqual(list(await q.call(iter, [1, 2], raw=True)), [1, 2])
        await self.failureOf(errors.SerializationError, q.call(jobs.count, 3, raw=True))
        await q.shutdown()
        q = self.queue(raw=True)
        self.assertEqual(list(await q.call(iter, [1, 2])), [1, 2])

    async def test_shutdown(self) -> None:
        """A shutdown waits until the items have been taken."""
        q = self.queue()
        deferator = await q.call(jobs.count, 100)
        done = q.shutdown()
        self.assertEqual([item async for item in deferator], list(range(100)))
        self.assertEqual(await done, [])


class LossTests(ChildrenTestCase):
    """Tests of children that go away."""

    async def assertLost(
        self, q: ProcessQueue, call: Deferred[Any], exitCode: Any, number: Any
    ) -> None:
        """
        Assert that a call has lost its child, and that the queue is as before then.
        """
        [worker] = q.workers()
        pid = worker.process.pid
        error = await self.failureOf(errors.WorkerLost, call)
        self.assertEqual(
            (error.pid, error.exitCode, error.signal, error.workerID),
            (pid, exitCode, number, worker.ID),
        )
        self.assertIn(str(pid), str(error))
        self.assertFalse(alive(pid))
        self.assertEqual(len(q), 1)
        self.assertNotEqual(await q.call(os.getpid), pid)

    async def test_ends(self) -> None:
        """
        A task may end its process, a signal may do so, the interpreter may crash. One
        that writes to a pipe that isn't its own has the child ended.
        """
        q = self.queue()
        await q.call(jobs.nothing)
        for how, code, number, told in [
            ("exit", 3, None, "exit code 3"),
            ("kill", None, signal.SIGKILL, "SIGKILL"),
            ("crash", None, signal.SIGSEGV, "SIGSEGV"),
            ("garbage", None, signal.SIGKILL, "SIGKILL"),
        ]:
            line = self.log.lineWith("is lost")
            await self.assertLost(q, q.call(jobs.ends, how), code, number)
            self.assertIn(told, await line)

    async def test_neighbours(self) -> None:
        """The guilty call alone is lost: those queued behind it come back."""
        q = self.queue(2)
        calls = [q.call(jobs.echo, i) for i in range(20)]
        calls.insert(10, q.call(jobs.ends, "exit"))
        results = await DeferredList(calls, consumeErrors=True)
        self.assertEqual([i for i, (good, _) in enumerate(results) if not good], [10])
        self.assertEqual(len(q), 2)

    async def test_retries(self) -> None:
        """A call that ends its children has as many of them as it has attempts."""
        q = self.queue()
        lost = [self.log.lineWith("is lost") for _ in range(1)]
        await self.failureOf(errors.WorkerLost, q.call(jobs.ends, "exit", retries=2))
        await gatherResults(lost)
        self.assertEqual(len(self.log.having("is lost")), 3)

    async def test_whileStarting(self) -> None:
        """
        One that is ended before it has started is replaced, too, and the call that
        waits for it comes back.
        """
        q = self.queue()
        call = q.call(os.getpid)
        [worker] = q.workers()
        pid = worker.process.pid
        os.kill(pid, signal.SIGKILL)
        self.assertNotEqual(await call, pid)

    async def test_crashWorkers(self) -> None:
        """
        All children can be killed whatever they're doing. What they leave undone is
        told in one list.
        """
        q = self.queue(2)
        started = gatherResults([self.log.lineWith("waiting")])
        calls = [q.call(jobs.waitAtGate, self.gate.path) for _ in range(2)]
        await started
        pids = [worker.process.pid for worker in q.workers()]
        tasks = await q.crashWorkers()
        self.assertEqual(
            [task.callTuple for task in tasks],
            [(jobs.waitAtGate, (self.gate.path,), {})] * 2,
        )
        self.assertEqual([pid for pid in pids if alive(pid)], [])
        self.assertEqual(len(q), 0)
        for call in calls:
            await self.failureOf(errors.WorkerLost, call)

    async def test_cannotStart(self) -> None:
        """
        When children can't be started, that's given up, and the calls that wait fail.
        """
        q = self.queue(env={"PYTHONHOME": "/nonexistent"})
        calls = [q.call(jobs.echo, i) for i in range(3)]
        for call in calls:
            error = await self.failureOf(errors.WorkerStartError, call)
            self.assertIn("exit code 1", str(error))
            self.assertIn("encodings", str(error))
        self.assertEqual(len(q), 0)
        self.assertEqual(len(self.log.having("is lost. Child")), 3)
        self.assertEqual(delayedCalls(), [])
        self.flushLoggedErrors(errors.WorkerStartError)


def running(pid: int) -> bool:
    """
    Tell whether a process that isn't one's child runs. It may be a zombie that nobody
    has buried.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def wait(seconds: float) -> Deferred[None]:
    """Wait."""
    d: Deferred[None] = Deferred()
    reactor.callLater(seconds, d.callback, None)
    return d


class StoppingTests(ChildrenTestCase):
    """Tests of calls that are stopped, and of workers that are let go."""

    async def test_cancel(self) -> None:
        """
        A call that is cancelled while it runs is stopped: its child is ended and
        replaced.
        """
        q = self.queue()
        started = self.log.lineWith("waiting")
        call = q.call(jobs.waitAtGate, self.gate.path)
        await started
        [worker] = q.workers()
        pid = worker.process.pid
        call.cancel()
        await self.failureOf(CancelledError, call)
        self.assertNotEqual(await q.call(os.getpid), pid)
        await worker.deferUntilGone()
        self.assertFalse(alive(pid))
        self.assertEqual(len(q), 1)

    async def test_cancelOften(self) -> None:
        """
        Children that are cancelled while they start don't count as failing to start.
        """
        q = self.queue()
        for _ in range(5):
            call = q.call(jobs.nothing)
            call.cancel()
            await self.failureOf(CancelledError, call)
        self.assertEqual(await q.call(jobs.echo), ((), {}))
        self.assertEqual(len(q), 1)

    async def test_detach(self) -> None:
        """A worker that is let go has its running call done before."""
        q = self.queue()
        order: list[str] = []
        started = self.log.lineWith("waiting")
        call = q.call(jobs.waitAtGate, self.gate.path)
        call.addCallback(lambda _: order.append("call"))
        await started
        [worker] = q.workers()
        pid = worker.process.pid
        gone = q.detachWorker(worker)
        gone.addCallback(lambda tasks: order.append(f"gone {tasks}"))
        self.gate.open()
        both: list[Deferred[Any]] = [call, gone]
        await gatherResults(both)
        self.assertEqual(order, ["call", "gone []"])
        self.assertFalse(alive(pid))
        self.assertEqual(len(q), 0)

    async def test_shutdownAtOnce(self) -> None:
        """A queue can be shut down before its children have started."""
        q = self.queue(2)
        self.assertEqual(await q.shutdown(), [])

    async def test_context(self) -> None:
        """A queue can be used as a context manager."""
        async with ProcessQueue(1) as q:
            self.assertEqual(await q.call(jobs.echo, 1), ((1,), {}))
        self.assertFalse(q.isRunning())


class ReactorTests(ChildrenTestCase):
    """Tests of children with a reactor."""

    async def test_deferred(self) -> None:
        """Callables may return Deferreds there, or be coroutines, or neither."""
        q = self.queue(useReactor=True)
        self.assertEqual(await q.call(jobs.deferred, 1), 1)
        self.assertEqual(await q.call(jobs.deferred, 2, 0.01), 2)
        self.assertEqual(await q.call(jobs.coroutine, 3), 3)
        self.assertEqual(await q.call(jobs.echo, 4), ((4,), {}))

    async def test_failure(self) -> None:
        """These may fail."""
        q = self.queue(useReactor=True)
        call = q.call(jobs.deferred, ValueError("late"))
        error = await self.failureOf(ValueError, call)
        self.assertEqual(error.args, ("late",))
        self.assertIn("_jobs.py", str(error.__cause__))
        await self.failureOf(jobs.OfTheTask, q.call(jobs.fail, 6))

    async def test_iterator(self) -> None:
        """Iterators may yield Deferreds."""
        q = self.queue(useReactor=True)
        deferator = await q.call(jobs.deferreds, 50)
        self.assertEqual([item async for item in deferator], list(range(50)))
        self.assertEqual(await q.call(jobs.deferreds, 0), [])

    async def test_failingIterator(self) -> None:
        """These may fail, too."""
        q = self.queue(useReactor=True)
        got = []
        end = ValueError("late")
        with self.assertRaises(ValueError):
            async for item in await q.call(jobs.deferreds, 4, end):
                got.append(item)  # noqa: PERF401 - to have those before the error
        self.assertEqual(got, [0, 1, 2, 3])
        self.assertEqual(await q.call(jobs.echo), ((), {}))

    async def test_window(self) -> None:
        """
        Iterators that would go on for ever wait for who takes the items, and are
        closed when nobody does.
        """
        q = self.queue(useReactor=True)
        deferator = await q.call(jobs.countForEver)
        for i in range(40):
            self.assertEqual(await deferator.__anext__(), i)
        deferator.stop()
        self.assertEqual((await q.call(jobs.remembered))[1][1:], ["ended"])

    async def test_raw(self) -> None:
        """What a Deferred fires with may be wanted as it is."""
        q = self.queue(raw=True, useReactor=True)
        self.assertEqual(list(await q.call(jobs.deferred, iter([1]))), [1])

    async def test_interrupt(self) -> None:
        """Ctrl-C is for the parent here, too."""
        q = self.queue(useReactor=True)
        pid = await q.call(os.getpid)
        os.kill(pid, signal.SIGINT)
        self.assertEqual(await q.call(jobs.deferred, pid, 0.01), pid)

    async def test_stopped(self) -> None:
        """A call that stops the child's reactor has lost it."""
        q = self.queue(useReactor=True)
        await self.failureOf(errors.WorkerLost, q.call(jobs.stopReactor))
        self.assertEqual(await q.call(jobs.deferred, 1), 1)

    async def test_cancel(self) -> None:
        """A call that waits is stopped like any other."""
        q = self.queue(useReactor=True)
        await self.failureOf(
            errors.TimeoutError,
            q.call(jobs.deferred, 1, 60, timeout=0.1, retries=0),
        )
        self.assertEqual(await q.call(jobs.deferred, 1), 1)


class MainTests(ChildrenTestCase):
    """Tests of programs whose own functions are called in children."""

    script = """
        import sys
        from twisted.internet.task import react
        from asynqueue import ProcessQueue

        class Failed(Exception):
            pass

        class Thing:
            def __init__(self, value):
                self.value = value

        def main():
            return "the user's main"

        def make(value):
            if value < 0:
                raise Failed(value)
            return Thing(value)

        def items(things):
            for thing in things:
                yield Thing(thing.value * 2)

        async def program(reactor):
            async with ProcessQueue(1) as q:
                print(await q.call(main))
                thing = await q.call(make, 3)
                print(type(thing) is Thing, thing.value)
                doubles = await q.call(items, [thing, Thing(4)])
                print([double.value async for double in doubles])
                try:
                    await q.call(make, -1)
                except Failed as error:
                    print("failed", error)

        if __name__ == "__main__":
            react(program)
    """
    expected = "the user's main\nTrue 3\n[6, 8]\nfailed -1\n"

    async def test_script(self) -> None:
        """Functions and classes of a script can be used as any others."""
        self.assertEqual(
            await runScript(self.folder, self.script), (self.expected, "", 0)
        )

    async def test_module(self) -> None:
        """So can those of a module that is run as a program."""
        got = await runScript(
            self.folder, self.script, run=lambda path: ["-m", "script"]
        )
        self.assertEqual(got, (self.expected, "", 0))

    async def test_otherMain(self) -> None:
        """
        It doesn't matter what was C{__main__} when C{multiprocessing} was imported.
        """
        program = (
            "import sys, runpy, multiprocessing; sys.argv = sys.argv[1:];"
            " runpy.run_module('script', run_name='__main__', alter_sys=True)"
        )
        got = await runScript(
            self.folder, self.script, run=lambda path: ["-c", program, path]
        )
        self.assertEqual(got, (self.expected, "", 0))

    async def test_relativePath(self) -> None:
        """It doesn't matter how the script was named."""
        got = await runScript(
            self.folder, self.script, run=lambda path: ["../script.py"]
        )
        self.assertEqual(got, (self.expected, "", 0))

    async def test_changedFolder(self) -> None:
        """Nor which folder is the current one by then."""
        script = self.script.replace(
            "async with", "import os; os.chdir('/')\n            async with"
        )
        got = await runScript(self.folder, script, run=lambda path: ["../script.py"])
        self.assertEqual(got, (self.expected, "", 0))

    async def test_noFile(self) -> None:
        """
        A program that has no file gets an error that says so, if there's no
        cloudpickle.
        """
        script = self.script.replace("await q.call(main)", "'-'")
        without = "import sys; sys.modules['cloudpickle'] = None\n"
        got = await runScript(
            self.folder,
            "",
            run=lambda path: ["-c", without + textwrap.dedent(script)],
        )
        self.assertIn("SerializationError", got[1])
        self.assertIn("the main program, which children can't import", got[1])
        self.assertNotEqual(got[2], 0)

    async def test_unguarded(self) -> None:
        """
        A program that doesn't ask whether it's run doesn't start children without end.
        """
        script = """
            from twisted.internet.task import react
            from asynqueue import ProcessQueue
            from asynqueue.errors import SerializationError

            def f():
                return 1

            async def program(reactor):
                async with ProcessQueue(1) as q:
                    for _ in range(2):
                        try:
                            await q.call(f)
                        except SerializationError as error:
                            print(error)

            react(program)
        """
        out, _, code = await runScript(self.folder, script)
        lines = out.splitlines()
        self.assertEqual((len(lines), code), (2, 0), out)
        for line in lines:
            self.assertIn("The main program can't be imported in a child", line)
            self.assertIn("__main__", line)

    async def test_notNeeded(self) -> None:
        """A program isn't run in children that need nothing of it, guarded or not."""
        script = """
            import os
            from twisted.internet.task import react
            from asynqueue import ProcessQueue

            print("run")

            async def program(reactor):
                async with ProcessQueue(2) as q:
                    await q.call(os.getpid)

            react(program)
        """
        self.assertEqual(await runScript(self.folder, script), ("run\n", "", 0))

    async def test_arguments(self) -> None:
        """Children see the arguments of the program."""
        script = """
            import sys
            from twisted.internet.task import react
            from asynqueue import ProcessQueue

            def arguments():
                return sys.argv[1:]

            async def program(reactor):
                async with ProcessQueue(1) as q:
                    print(await q.call(arguments))

            if __name__ == "__main__":
                react(program)
        """
        self.assertEqual(
            await runScript(self.folder, script, "a", "--reactor"),
            ("['a', '--reactor']\n", "", 0),
        )


class OtherReactorTests(ChildrenTestCase):
    """Tests under the reactors that there are."""

    script = """
        import sys
        from twisted.internet import {name}
        {name}.install()
        import os
        from twisted.internet import reactor
        from twisted.internet.task import react
        from asynqueue import ProcessQueue
        from asynqueue.errors import WorkerLost
        from tests import _jobs as jobs

        async def program(reactor):
            async with ProcessQueue(2) as q:
                data = os.urandom(1_000_000)
                assert await q.call(jobs.echo, data) == ((data,), {{}})
                items = await q.call(jobs.count, 100)
                print([x async for x in items] == list(range(100)))
                try:
                    await q.call(jobs.ends, "exit")
                except WorkerLost as error:
                    print(error.exitCode)
                print(await q.call(jobs.echo, 1))
            print(reactor.getDelayedCalls())

        if __name__ == "__main__":
            react(program)
    """

    async def assertWorks(self, name: str) -> None:
        """Assert that children can be had under a reactor."""
        out, err, code = await runScript(self.folder, self.script.format(name=name))
        self.assertEqual(
            out,
            "True\n3\n((1,), {})\n[]\n",
            err,
        )
        self.assertEqual(code, 0)

    async def test_select(self) -> None:
        """The select reactor works."""
        await self.assertWorks("selectreactor")

    async def test_poll(self) -> None:
        """The poll reactor works."""
        await self.assertWorks("pollreactor")

    async def test_asyncio(self) -> None:
        """The asyncio reactor works."""
        await self.assertWorks("asyncioreactor")

    async def test_noSignalHandlers(self) -> None:
        """
        A reactor that isn't told of the ends of processes notices them all the same.
        """
        script = """
            import os
            from twisted.internet import reactor
            from twisted.internet.defer import Deferred
            from asynqueue import ProcessQueue
            from asynqueue.errors import WorkerLost
            from tests import _jobs as jobs

            async def program():
                async with ProcessQueue(2) as q:
                    try:
                        await q.call(jobs.ends, "exit")
                    except WorkerLost as error:
                        print(error.exitCode)
                    print(await q.call(jobs.echo, 1))

            if __name__ == "__main__":
                d = Deferred.fromCoroutine(program())
                d.addErrback(lambda failure: failure.printTraceback())
                d.addBoth(lambda _: reactor.stop())
                reactor.run(installSignalHandlers=False)
        """
        out, err, code = await runScript(self.folder, script)
        self.assertEqual((out, code), ("3\n((1,), {})\n", 0), err)


class PickleTests(TestCase):
    """Tests of what the tests rely on."""

    def test_jobs(self) -> None:
        """All that children do can be pickled by name."""
        for name in ("echo", "fail", "count", "Sum", "OfTheTask"):
            value = getattr(jobs, name)
            self.assertIs(pickle.loads(pickle.dumps(value)), value)
