"""Tests of L{asynqueue.executor}, with an executor that is single-stepped."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from asynqueue import TaskQueue
from asynqueue.errors import (
    SerializationError,
    TimeoutError,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.executor import ExecutorQueue, ExecutorWorker
from asynqueue.interfaces import ICancellingWorker, IReplaceableWorker, IWorker
from asynqueue.iteration import ListConsumer
from asynqueue.testing import MemoryWorker

from . import _jobs as jobs
from ._cases import same
from ._fakes import FIRST_PID, LogLines
from ._fakethreads import ThreadReactor


class FakeProcess:
    """A process of an executor."""

    pid = FIRST_PID

    def is_alive(self) -> bool:
        """Be alive."""
        return True


class ManualExecutor(Executor):
    """
    An executor that does nothing until it's told to.

    @ivar calls: Those that it was given and that aren't done, each with its future.

    @ivar shutDowns: Whether it was waited for, for each time that it was shut down.

    @ivar broken: What it raises, if it's broken.
    """

    def __init__(self, size: int = 2) -> None:
        self._max_workers = size
        self.calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.shutDowns: list[bool] = []
        self.broken: Exception | None = None
        self._processes: dict[int, FakeProcess] = {}

    def submit(self, fn: Any, /, *args: Any, **kw: Any) -> Future[Any]:
        """Take a call."""
        if self.broken is not None:
            raise self.broken
        future: Future[Any] = Future()
        self.calls.append((future, lambda: fn(*args, **kw)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Note it."""
        self.shutDowns.append(wait)

    def begin(self, index: int = 0) -> None:
        """Be at a call."""
        self.calls[index][0].set_running_or_notify_cancel()

    def end(self, index: int = 0) -> None:
        """Do a call."""
        future, call = self.calls.pop(index)
        if not future.running() and not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - as executors do
            future.set_exception(error)

    def breakDown(self) -> None:
        """Break, as one does of which a process has died."""
        self.broken = BrokenExecutor("a process has died")
        calls, self.calls = self.calls, []
        for future, _ in calls:
            if not future.done():
                future.set_exception(self.broken)


class ExecutorTestCase(SynchronousTestCase):
    """A test with executors that are single-stepped."""

    def setUp(self) -> None:
        """Make a reactor, with threads."""
        self.reactor = ThreadReactor()
        self.reactor.threads.install(self)
        self.log = LogLines(self)
        self.made: list[ManualExecutor] = []

    @property
    def executor(self) -> ManualExecutor:
        """The last executor."""
        return self.made[-1]

    def factory(self) -> ManualExecutor:
        """Make an executor."""
        self.made.append(ManualExecutor())
        return self.made[-1]

    def queue(self, executor: Any = None, *args: Any, **kw: Any) -> ExecutorQueue:
        """Make a queue."""
        kw.setdefault("portable", False)
        return ExecutorQueue(
            executor or self.factory, *args, reactor=self.reactor, **kw
        )

    def worker(self, q: TaskQueue) -> ExecutorWorker:
        """Get the worker of a queue."""
        (worker,) = q.workers()
        found: ExecutorWorker = worker
        return found

    def end(self, *indices: int) -> None:
        """Do calls, the first if nothing else is said."""
        for index in indices or (0,):
            self.executor.end(index)
        self.reactor.turn()

    def endAll(self) -> None:
        """Do all calls, also those that come of it."""
        while self.executor.calls:
            self.end()

    def breakDown(self) -> None:
        """Have the executor break."""
        self.executor.breakDown()
        self.reactor.settle()


class CallTests(ExecutorTestCase):
    """Tests of calls."""

    def test_interfaces(self) -> None:
        """It's a worker of the series C{'executor'} and those that it's given."""
        worker = ExecutorWorker(self.factory, series=["x"], reactor=self.reactor)
        for interface in (IWorker, ICancellingWorker, IReplaceableWorker):
            verifyObject(interface, worker)
        self.assertEqual((worker.cQualified, worker.iQualified), (["executor"], ["x"]))
        self.assertIn("ManualExecutor", repr(worker))

    def test_arguments(self) -> None:
        """What isn't an executor, nor makes one, is refused, and so are odd numbers."""
        for wrong in (None, 2, dict):
            with self.assertRaises(TypeError):
                ExecutorWorker(wrong)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            ExecutorWorker(self.factory, 0)
        with self.assertRaises(TypeError):
            ExecutorWorker(self.factory, portable=1)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            ExecutorWorker(self.factory, owned=1)  # type: ignore[arg-type]

    def test_results(self) -> None:
        """Results and errors reach their calls, whichever is first, pickled or not."""
        for portable in (False, True):
            q = self.queue(portable=portable)
            first, second = q.call(pow, 2, 5), q.call(int, "x")
            self.end(1)
            self.failureResultOf(second, ValueError)
            self.assertNoResult(first)
            self.end()
            self.assertEqual(self.successResultOf(first), 32)

    def test_burst(self) -> None:
        """The reactor is woken up once for results that come together."""
        q = self.queue(N_concurrent=5)
        calls = [q.call(same, i) for i in range(5)]
        self.end(0, 0, 0, 0, 0)
        self.assertEqual([self.successResultOf(d) for d in calls], [0, 1, 2, 3, 4])
        self.assertEqual(self.reactor.wakeUps, 1)

    def test_same(self) -> None:
        """What isn't pickled is the very object that was given; what is, is another."""
        for portable in (False, True):
            thing = [1]
            d = self.queue(portable=portable).call(same, thing)
            self.end()
            found = self.successResultOf(d)
            self.assertEqual((found, found is thing), ([1], not portable))

    def test_notPicklable(self) -> None:
        """
        What can't be pickled fails its call at once, with an error that names the part.
        """
        q = self.queue(portable=True)
        failure = self.failureResultOf(
            q.call(same, threading.Lock()), SerializationError
        )
        self.assertIn("argument 0", str(failure.value))
        d = q.call(jobs.givesLock)
        self.end()
        self.failureResultOf(d, SerializationError)

    def test_foreign(self) -> None:
        """
        Functions of the main module go by value to executors that don't import it.
        """
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec("def f(x):\n    return x + 1", namespace)
        d = self.queue(portable=True).call(namespace["f"], 1)
        self.end()
        self.assertEqual(self.successResultOf(d), 2)

    def test_awaitable(self) -> None:
        """Nothing in an executor waits for a coroutine."""
        for portable in (False, True):
            d = self.queue(portable=portable).call(jobs.coroutine, 1)
            self.end()
            self.failureResultOf(d, TypeError)

    def test_odd(self) -> None:
        """A result that raises when it's looked at fails its call, and no other."""

        class Odd:
            @property  # type: ignore[misc]
            def __class__(self) -> Any:
                raise LookupError("not mine")

        q = self.queue()
        first, second = q.call(Odd), q.call(same, 2)
        self.end(0, 0)
        self.failureResultOf(first, LookupError)
        self.assertEqual(self.successResultOf(second), 2)

    def test_stopIteration(self) -> None:
        """C{StopIteration} comes as a C{RuntimeError}, as from all workers."""
        for portable in (False, True):
            d = self.queue(portable=portable).call(jobs.stopsIteration, 7)
            self.end()
            self.failureResultOf(d, RuntimeError)

    def test_context(self) -> None:
        """
        In this interpreter, context variables have the values that they had where the
        call was made.
        """
        variable = contextvars.ContextVar[str]("variable")
        q = self.queue()
        context = contextvars.copy_context()
        context.run(variable.set, "there")
        d = context.run(q.call, variable.get)
        self.end()
        self.assertEqual(self.successResultOf(d), "there")

    def test_failingExecutor(self) -> None:
        """A call that the executor itself fails to run fails with what that says."""
        q = self.queue()
        first, second = q.call(same, 1), q.call(same, 2)
        self.executor.calls.pop()[0].set_exception(LookupError("no route"))
        future, _ = self.executor.calls.pop()
        future.set_result("this isn't what was to come")
        self.reactor.turn()
        failure = self.failureResultOf(second, WorkerError)
        self.assertIsInstance(failure.value.__cause__, LookupError)
        self.failureResultOf(first, ValueError)

    def test_update(self) -> None:
        """
        An update runs where there's one interpreter, and is refused where there may be
        several.
        """
        d = self.queue().update(same, 3)
        self.end()
        self.assertEqual(self.successResultOf(d), [3])
        q = self.queue(portable=True)
        (text,) = self.successResultOf(q.update(same, 3))
        self.assertIn("initializer", text)


class CapacityTests(ExecutorTestCase):
    """Tests of how many tasks an executor is given, and of time limits."""

    def test_size(self) -> None:
        """
        An executor is given as many tasks as it can run at once, those that are first
        in order. One that doesn't tell counts for as many as there are cores.
        """
        q = self.queue()
        calls = [q.call(same, i) for i in range(4)]
        calls.append(q.call(same, "first", doNext=True))
        self.assertEqual(len(self.executor.calls), 2)
        self.executor.end(1)
        self.reactor.turn()
        self.executor.end(1)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(calls[-1]), "first")
        del self.executor._max_workers
        self.assertGreaterEqual(ExecutorWorker(self.executor).capacity, 1)

    def test_concurrent(self) -> None:
        """It can be said how many it's given."""
        q = self.queue(None, 3)
        for i in range(5):
            q.call(same, i)
        self.assertEqual(len(self.executor.calls), 3)

    def test_short(self) -> None:
        """
        Where calls are short and others wait, some are given in advance; where there
        are other workers, or calls take long, none.
        """
        q = self.queue()
        for i in range(500):
            q.call(same, i)
        for _ in range(100):
            self.end()
        worker = self.worker(q)
        self.assertGreater(worker.capacity, 2)
        self.assertEqual(len(self.executor.calls), worker.capacity)
        worker._runner.adapt(2, 0.5, 400)
        self.assertEqual(worker.capacity, 2)
        q.attachWorker(MemoryWorker())
        self.end()
        self.assertEqual(worker.capacity, 2)

    def test_timeout(self) -> None:
        """
        The clock of a task begins with its turn. When its time is up, its place is
        taken until the call has ended, and its result is dropped.
        """
        q = self.queue(None, 3, timeout=9)
        long, short = q.call(same, "long"), q.call(same, "short")
        behind = q.call(same, "behind", timeout=1)
        self.executor.begin()
        self.executor.begin(1)
        self.reactor.advance(5)
        self.end(1)
        self.assertEqual(self.successResultOf(short), "short")
        self.reactor.advance(0.9)
        self.assertNoResult(behind)
        self.executor.begin(1)
        self.reactor.advance(0.2)
        self.failureResultOf(behind, TimeoutError)
        (task,) = self.worker(q).tasks
        self.assertEqual(task.callTuple[1], ("long",))
        done = q.shutdown()
        self.end(0, 0)
        self.assertEqual(self.successResultOf(long), "long")
        self.reactor.settle()
        self.successResultOf(done)

    def test_cancelWaiting(self) -> None:
        """
        A call that the executor hasn't begun is taken back from it, and makes room.
        """
        q = self.queue()
        first, second, third = (q.call(same, i) for i in range(3))
        self.executor.begin()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.reactor.turn()
        self.end(2)
        self.assertEqual(self.successResultOf(third), 2)
        self.end(0, 0)
        self.assertEqual(self.successResultOf(first), 0)

    def test_cancelRunning(self) -> None:
        """One that it has begun has its place until it has ended."""
        ran: list[int] = []
        q = self.queue(ManualExecutor(1))
        executor: Any = self.worker(q).executor
        first, second = q.call(ran.append, 1), q.call(ran.append, 2)
        executor.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.reactor.turn()
        self.assertEqual(len(executor.calls), 1)
        executor.end()
        self.reactor.turn()
        executor.end()
        self.reactor.turn()
        self.successResultOf(second)
        self.assertEqual(ran, [1, 2])


class EndTests(ExecutorTestCase):
    """Tests of how executors end."""

    def test_owned(self) -> None:
        """
        An executor that was made for the worker is shut down after its last call, and
        waited for, one that was given isn't, unless the user says otherwise.
        """
        for given, owned, expected in (
            (False, None, [True]),
            (True, None, []),
            (False, False, []),
            (True, True, [True]),
        ):
            executor = self.factory()
            q = self.queue(executor if given else lambda: self.executor, owned=owned)
            d = q.call(same, 1)
            done = q.shutdown()
            self.reactor.settle()
            self.assertEqual(executor.shutDowns, [])
            self.end()
            self.assertEqual(self.successResultOf(d), 1)
            self.reactor.settle()
            self.assertEqual(self.successResultOf(done), [])
            self.assertEqual(executor.shutDowns, expected)

    def test_failingShutdown(self) -> None:
        """
        An executor that fails to shut down is logged, and doesn't hold anything up.
        """
        q = self.queue()
        self.patch(self.executor, "shutdown", lambda: 1 // 0)
        done = q.shutdown()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_crash(self) -> None:
        """
        A worker that is crashed gives back its tasks. What is run in a thread can't be
        waited for.
        """
        q = self.queue()
        first, second = q.call(same, 1), q.call(same, 2)
        self.executor.begin()
        done = q.shutdown(timeout=1)
        self.reactor.advance(1)
        self.reactor.settle()
        self.assertEqual(len(self.successResultOf(done)), 2)
        for d in (first, second):
            self.failureResultOf(d, WorkerLost)
        self.assertEqual(self.executor.shutDowns, [False])
        self.endAll()

    def test_crashProcesses(self) -> None:
        """Processes are killed, and waited for."""
        q = self.queue()
        self.executor._processes = {FIRST_PID: FakeProcess()}
        killed: list[tuple[int, int]] = []
        self.patch(os, "kill", lambda *args: killed.append(args))
        d = q.call(same, 1)
        self.executor.begin()
        done = q.detachWorker(self.worker(q), crash=True)
        self.assertEqual(killed, [(FIRST_PID, signal.SIGKILL)])
        self.reactor.settle()
        self.successResultOf(done)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(self.executor.shutDowns, [True])

    def test_stopped(self) -> None:
        """A worker that somebody stops resigns, and no other takes its place."""
        q = self.queue()
        d = self.worker(q).stop()
        self.reactor.settle()
        self.successResultOf(d)
        self.assertEqual(len(q), 0)

    def test_shutDownByOthers(self) -> None:
        """
        When somebody has shut down the executor, the worker resigns, and what it had
        not begun is run by others.
        """
        executor = ManualExecutor()
        q = self.queue(executor)
        executor.broken = RuntimeError("cannot schedule new futures after shutdown")
        first = q.call(same, 1)
        self.assertEqual(len(q), 0)
        other = MemoryWorker()
        q.attachWorker(other)
        self.reactor.turn()
        second = q.call(same, 2)
        other.step()
        other.step()
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(len(self.flushLoggedErrors(WorkerStartError)), 1)

    def test_shutDownByOwner(self) -> None:
        """If there are no others, it fails, and so does what comes later."""
        executor = ManualExecutor()
        q = self.queue(executor)
        executor.broken = RuntimeError("cannot schedule new futures after shutdown")
        for _ in range(2):
            calls = [q.call(same, i, retries=i) for i in range(2)]
            self.reactor.turn()
            for d in calls:
                failure = self.failureResultOf(d, WorkerStartError)
                self.assertIn("after shutdown", str(failure.value))
        self.assertEqual(len(self.flushLoggedErrors(WorkerStartError)), 1)

    def test_notEmployed(self) -> None:
        """A worker without an employer gives its tasks back as not run."""
        q = self.queue()
        worker = self.worker(q)
        worker.setResignator(lambda: None)
        self.executor.broken = RuntimeError("no")
        d = q.call(same, 1)
        self.reactor.settle()
        q.shutdown(timeout=0)
        self.reactor.settle()
        self.failureResultOf(d)


class BrokenTests(ExecutorTestCase):
    """Tests of executors that break."""

    def test_lost(self) -> None:
        """
        Tasks that may have been begun fail, and those that wait in the queue are run by
        another executor.
        """
        q = self.queue()
        lost = [q.call(same, 1), q.call(same, 2)]
        waiting = q.call(same, 3)
        self.breakDown()
        for d in lost:
            failure = self.failureResultOf(d, WorkerLost)
            self.assertIsInstance(failure.value.__cause__, BrokenExecutor)
            self.assertIn("a process has died", str(failure.value))
        self.assertEqual((len(self.made), self.made[0].shutDowns), (2, [True]))
        self.end()  # It's seen whether it works.
        self.endAll()
        self.assertEqual(self.successResultOf(waiting), 3)
        self.assertEqual(len(q), 1)

    def test_notBegun(self) -> None:
        """Tasks that the executor had certainly not begun are run by the next."""
        q = self.queue()
        lost, waiting = q.call(same, 1), q.call(same, 2)
        self.executor.begin()
        broken = BrokenExecutor("a process has died")
        self.executor.calls.pop(0)[0].set_exception(broken)
        self.reactor.turn()
        self.failureResultOf(lost, WorkerLost)
        self.endAll()
        self.assertEqual(self.successResultOf(waiting), 2)

    def test_retried(self) -> None:
        """
        Those that have retries are tried again, one at a time until it's clear that
        none of them breaks the executor.
        """
        q = self.queue()
        calls = [q.call(same, i, retries=1) for i in range(2)]
        calls.append(q.call(same, 2))
        self.breakDown()
        self.end()
        for _ in range(2):
            self.assertEqual(len(self.executor.calls), 1)
            self.end()
        self.assertGreater(self.worker(q).capacity, 1)
        self.endAll()
        self.assertEqual([self.successResultOf(d) for d in calls], [0, 1, 2])

    def test_guilty(self) -> None:
        """
        A task that breaks one executor after the other is given up after three, and its
        neighbours are run.
        """
        q = self.queue()
        guilty, innocent = q.call(same, "x", retries=9), q.call(same, 1, retries=1)
        self.breakDown()
        for _ in range(2):
            self.end()
            self.breakDown()
        failure = self.failureResultOf(guilty, WorkerError)
        self.assertIn("3 times", str(failure.value))
        self.endAll()
        self.assertEqual(self.successResultOf(innocent), 1)
        self.assertEqual(len(self.made), 4)

    def test_useless(self) -> None:
        """
        If the next executor is broken before it has run anything, what waits fails. A
        later call has it tried again.
        """
        q = self.queue()
        for i in range(2):
            q.call(same, i).addErrback(lambda _: None)
        waiting = q.call(same, 3)
        self.breakDown()
        self.breakDown()
        self.failureResultOf(waiting, WorkerStartError)
        self.assertEqual(len(self.made), 2)
        again = q.call(same, 4)
        self.endAll()
        self.assertEqual(self.successResultOf(again), 4)
        self.assertEqual(len(self.made), 3)

    def test_factoryFails(self) -> None:
        """The same if no other can be made."""
        made = [self.factory()]
        q = self.queue(made.pop)
        for i in range(2):
            q.call(same, i).addErrback(lambda _: None)
        waiting = q.call(same, 3)
        self.breakDown()
        self.failureResultOf(waiting, IndexError)
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)

    def test_given(self) -> None:
        """One that was given isn't replaced: what no other worker can run fails."""
        executor = ManualExecutor(1)
        q = self.queue(executor)
        lost, waiting = q.call(same, 1), q.call(same, 2)
        executor.breakDown()
        self.reactor.settle()
        self.failureResultOf(lost, WorkerLost)
        self.failureResultOf(waiting, WorkerStartError)
        self.assertEqual(len(self.flushLoggedErrors(WorkerStartError)), 1)
        self.assertEqual((len(q), executor.shutDowns), (0, []))

    def test_refusing(self) -> None:
        """
        If each that is made refuses calls, they fail, and one is made in each turn of
        the reactor at the most.
        """

        def make() -> ManualExecutor:
            self.factory().broken = RuntimeError("shut down")
            return self.executor

        q = self.queue(make)
        for made in (2, 3):
            calls = [q.call(same, i) for i in range(2)]
            self.reactor.settle()
            for d in calls:
                self.failureResultOf(d, WorkerStartError)
            self.assertEqual(len(self.made), made)

    def test_refusingLater(self) -> None:
        """The same for one that refuses calls that have waited."""
        made = [self.factory(), self.factory()]
        q = self.queue(lambda: made[-1] if len(made) == 1 else made.pop())
        calls = [q.call(same, i) for i in range(4)]
        for executor in self.made:
            executor.broken = RuntimeError("shut down")
        self.end(0, 0)
        self.reactor.settle()
        self.assertEqual([self.successResultOf(d) for d in calls[:2]], [0, 1])
        for d in calls[2:]:
            self.failureResultOf(d, WorkerStartError)

    def test_whileStopping(self) -> None:
        """
        One that breaks while it's being stopped isn't replaced, and the shutdown ends.
        """
        q = self.queue()
        d = q.call(same, 1)
        done = q.shutdown()
        self.breakDown()
        self.failureResultOf(d, WorkerLost)
        self.successResultOf(done)
        self.assertEqual(len(self.made), 1)


class IterationTests(ExecutorTestCase):
    """Tests of iterations in threads of an executor."""

    def setUp(self) -> None:
        """Make a queue."""
        super().setUp()
        self.q = self.queue()
        self.ends: list[str] = []

    def count(self, n: int, error: Exception | None = None) -> Iterator[int]:
        """Count, and fail maybe."""
        try:
            yield from range(n)
            if error is not None:
                raise error
        finally:
            self.ends.append("closed")

    def begin(self, *args: Any, **kw: Any) -> Any:
        """Begin to count."""
        d = self.q.call(self.count, *args, **kw)
        self.end()
        return self.successResultOf(d)

    def take(self, deferator: Any) -> list[Any]:
        """Take all items, doing jobs as they come."""
        items: list[Any] = []

        async def take() -> None:
            async for item in deferator:
                items.append(item)  # noqa: PERF401 - it may fail

        d = Deferred.fromCoroutine(take())
        self.settle()
        self.successResultOf(d)
        return items

    def settle(self) -> None:
        """Do all jobs."""
        while self.executor.calls:
            self.endAll()
            self.reactor.settle()

    def test_items(self) -> None:
        """The items come in their order, some at a time."""
        self.assertEqual(self.take(self.begin(100)), list(range(100)))
        self.assertEqual(self.ends, ["closed"])

    def test_empty(self) -> None:
        """An iterator without items is an empty list."""
        self.assertEqual(self.begin(0), [])

    def test_raw(self) -> None:
        """It comes as it is if that's wanted."""
        self.assertEqual(list(self.begin(3, raw=True)), [0, 1, 2])

    def test_fails(self) -> None:
        """An iterator that fails, at the beginning or later, fails for who iterates."""
        for n in (0, 3):
            deferator = self.begin(n, LookupError("at the end"))
            self.settle()
            for i in range(n):
                self.assertEqual(self.successResultOf(deferator.__anext__()), i)
            self.failureResultOf(deferator.__anext__(), LookupError)

    def test_window(self) -> None:
        """
        No more items are made than a few in advance, and other calls get in between.
        """
        made: list[int] = []

        def endless() -> Iterator[int]:
            while True:
                made.append(1)
                yield len(made)

        d = self.q.call(endless)
        self.end()
        deferator = self.successResultOf(d)
        self.settle()
        self.assertEqual(len(made), 16)
        other = self.q.call(same, 1)
        self.settle()
        self.assertEqual(self.successResultOf(other), 1)
        deferator.stop()
        self.settle()
        self.assertEqual(len(made), 16)

    def test_stop(self) -> None:
        """An iteration that is stopped has its iterator closed, by the executor."""
        deferator = self.begin(100)
        deferator.stop()
        self.assertEqual(self.ends, [])
        self.settle()
        self.assertEqual(self.ends, ["closed"])

    def test_stopMeanwhile(self) -> None:
        """So has one that is stopped while items come, however many have come."""

        async def take(most: int) -> None:
            stream = await self.q.call(self.count, 100)
            count = 0
            async for _ in stream:
                count += 1
                if count == most:
                    stream.stop()

        for most in range(1, 40):
            d = Deferred.fromCoroutine(take(most))
            self.settle()
            self.successResultOf(d)
            self.assertEqual(len(self.ends), most)
        shut = self.q.shutdown()
        self.reactor.settle()
        self.successResultOf(shut)

    def test_closeFails(self) -> None:
        """What closing raises is logged."""

        def stubborn() -> Iterator[int]:
            try:
                yield from range(100)
            finally:
                raise LookupError("no")

        d = self.q.call(stubborn)
        self.end()
        self.successResultOf(d).stop()
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_cancelled(self) -> None:
        """The iterator of a call that was cancelled while it was run is closed."""
        d = self.q.call(self.count, 100)
        self.executor.begin()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.settle()
        self.assertEqual(self.ends, ["closed"])

    def test_consumer(self) -> None:
        """A consumer gets the items, and one that is none ends the iteration."""
        consumer = ListConsumer()
        d = self.q.call(self.count, 50, consumer=consumer)
        self.settle()
        self.assertIs(self.successResultOf(d), consumer)
        self.assertEqual(self.successResultOf(consumer()), list(range(50)))

        def refuse(producer: Any, streaming: bool) -> None:
            raise LookupError("not me")

        refusing = ListConsumer()
        self.patch(refusing, "registerProducer", refuse)
        d = self.q.call(self.count, 50, consumer=refusing)
        self.settle()
        self.failureResultOf(d, LookupError)
        self.assertEqual(self.ends, ["closed", "closed"])

    def test_shutdown(self) -> None:
        """The shutdown waits for iterations."""
        deferator = self.begin(40)
        done = self.q.shutdown()
        self.reactor.settle()
        self.assertNoResult(done)
        self.assertEqual(self.take(deferator), list(range(40)))
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.executor.shutDowns, [True])

    def test_crash(self) -> None:
        """
        An iteration fails when its worker is crashed, whether an item is being made or
        not, after the items that have come.
        """
        for isIdle in (True, False):
            deferator = self.begin(100)
            if isIdle:
                self.settle()
            self.q.detachWorker(self.worker(self.q), crash=True)
            self.reactor.settle()
            for i in range(16 if isIdle else 1):
                self.assertEqual(self.successResultOf(deferator.__anext__()), i)
            self.failureResultOf(deferator.__anext__(), WorkerLost)
            self.q = self.queue()

    def test_broken(self) -> None:
        """The same when the executor breaks."""
        deferator = self.begin(100)
        self.executor.breakDown()
        self.reactor.settle()
        self.assertEqual(self.successResultOf(deferator.__anext__()), 0)
        self.failureResultOf(deferator.__anext__(), WorkerLost)

    def test_pickled(self) -> None:
        """Iterations elsewhere are refused: a generator function before it's called."""
        q = self.queue(portable=True)
        failure = self.failureResultOf(q.call(jobs.count, 3), SerializationError)
        self.assertIn("generator function", str(failure.value))
        self.assertEqual(self.executor.calls, [])
        d = q.call(iter, [1, 2])
        self.end()
        failure = self.failureResultOf(d, SerializationError)
        self.assertIn("an iterator", str(failure.value))
        d = q.call(iter, [1, 2], raw=True)
        self.end()
        self.assertEqual(list(self.successResultOf(d)), [1, 2])
