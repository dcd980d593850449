"""
Tests of L{asynqueue.threads} and C{_threads.worker}, with threads that exist in the
mind only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from asynqueue import threads
from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import Status
from asynqueue.base import TaskQueue
from asynqueue.errors import ThreadError, TimeoutError, WorkerError, WorkerLost
from asynqueue.interfaces import ICancellingWorker, IWorker
from asynqueue.iteration import Deferator, ListConsumer, Prefetcherator
from asynqueue.tasks._task import Task
from asynqueue.threads import (
    ThreadLooper,
    ThreadQueue,
    ThreadWorker,
    _looper,
    _pool as pool,
    deferToThread,
)

from ._fakethreads import ThreadCase

variable: ContextVar[str] = ContextVar("variable", default="unset")


def divide() -> None:
    """Raise an exception."""
    raise ZeroDivisionError("by nothing")


class WorkerCase(ThreadCase):
    """Workers with threads of the mind."""

    def newWorker(self, *args: Any, **kw: Any) -> ThreadWorker:
        """Make a worker."""
        return ThreadWorker(*args, reactor=self.reactor, **kw)

    def stuck(self, meanwhile: Callable[[], object]) -> Callable[[], str]:
        """Make a callable in which a thread is stuck while something happens."""

        def f() -> str:
            meanwhile()
            self.reactor.settle()
            return "late"

        return f


class WorkerTests(WorkerCase):
    """Tests of L{ThreadWorker}."""

    def setUp(self) -> None:
        """Make a worker."""
        super().setUp()
        self.worker = self.newWorker()

    def task(self, f: Any, *args: Any, **kw: Any) -> Task:
        """Make a task. The keyword C{timeout} is the task's own."""
        timeout = kw.pop("timeout", None)
        return Task(f, args, kw, 0, None, timeout, reactor=self.reactor)

    def run_(self, f: Any, *args: Any, **kw: Any) -> Any:
        """Have the worker run a task to its end. Returns status and result."""
        task = self.task(f, *args, **kw)
        ready = self.worker.run(task)
        result = self.resultOf(task.d)
        self.assertIsNone(self.successResultOf(ready))
        return result

    def test_interface(self) -> None:
        """
        It's a worker that can cancel tasks, for the series of threads and of what is
        on this machine.
        """
        verifyObject(IWorker, self.worker)
        IWorker.validateInvariants(self.worker)
        verifyObject(ICancellingWorker, self.worker)
        self.assertEqual(self.worker.cQualified, ["thread", "local"])
        self.assertEqual(self.newWorker(["x"]).iQualified, ["x"])

    def test_runs(self) -> None:
        """
        It runs a task in its thread, whose looper is there to be looked at. It lists
        the tasks that have no result.
        """
        self.assertIsInstance(self.worker.t, ThreadLooper)
        self.assertTrue(self.worker.t.threadRunning)
        task = self.task(self.note, 1)
        ready = self.worker.run(task)
        self.assertEqual(self.worker.tasks, [task])
        self.assertNoResult(ready)
        self.assertEqual(self.resultOf(task.d), (Status.RAN, 1))
        self.assertEqual(self.worker.tasks, [])
        self.successResultOf(ready)

    def test_several(self) -> None:
        """It accepts tasks at any time, and runs them in their order."""
        tasks = [self.task(self.note, i) for i in range(5)]
        ready = [self.worker.run(task) for task in tasks]
        self.assertEqual(self.worker.tasks, tasks)
        self.reactor.settle()
        self.assertEqual(self.notes, list(range(5)))
        for d in ready:
            self.successResultOf(d)

    def test_raises(self) -> None:
        """What a task raises comes as text that carries the exception."""
        status, text = self.run_(divide)
        self.assertEqual(status, Status.ERROR)
        self.assertTrue(text.startswith("Exception 'by nothing'"))
        self.assertIsInstance(text.exception, ZeroDivisionError)
        self.assertIsNotNone(text.exception.__traceback__)

    def test_iterators(self) -> None:
        """
        Iterators come as Deferators, as they are, with a consumer as producers, or as
        an empty list. The keywords for that don't reach the callable.
        """
        status, deferator = self.run_(self.generate, 1)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual(self.run_(self.generate), (Status.ITERATOR, []))
        status, iterator = self.run_(self.generate, 1, raw=True)
        self.assertEqual((status, list(iterator)), (Status.RAN, [1]))
        consumer = ListConsumer()
        status, producer = self.run_(self.generate, 1, 2, consumer=consumer)
        self.assertEqual(status, Status.ITERATOR)
        self.resultOf(producer.run())
        self.assertEqual(self.successResultOf(consumer()), [1, 2])

    def test_raw(self) -> None:
        """
        A worker may be one for which iterators come as they are, unless a task says
        otherwise.
        """
        self.worker = self.newWorker(raw=True)
        self.assertEqual(self.run_(self.generate, 1)[0], Status.RAN)
        kw = {"raw": False}
        self.assertEqual(self.run_(self.generate, 1, **kw)[0], Status.ITERATOR)
        self.assertEqual(kw, {"raw": False})

    def test_consumerRefuses(self) -> None:
        """
        A consumer that raises when it's registered fails the task, and the worker goes
        on.
        """
        consumer = ListConsumer()
        self.patch(consumer, "registerProducer", lambda *args: divide())
        task = self.task(self.generate, 1, consumer=consumer)
        ready = self.worker.run(task)
        self.failureOf(task.d, ZeroDivisionError)
        self.successResultOf(ready)

    def test_cancelWaiting(self) -> None:
        """A task that is cancelled while it waits isn't run."""
        tasks = [self.task(self.note, i) for i in range(3)]
        ready = [self.worker.run(task) for task in tasks]
        self.worker.cancelTask(tasks[1])
        self.assertEqual(self.worker.tasks, [tasks[0], tasks[2]])
        self.successResultOf(ready[1])
        self.reactor.settle()
        self.assertEqual(self.notes, [0, 2])
        self.assertNoResult(tasks[1].d)
        self.worker.cancelTask(tasks[1])
        self.assertEqual(self.worker.abandoned, 0)

    def test_cancelRunning(self) -> None:
        """
        If the thread is at the task, another one goes on with those that wait. The
        result that comes at last is dropped, and the thread ends.
        """

        def meanwhile() -> None:
            self.worker.cancelTask(first)
            self.successResultOf(ready)
            self.assertEqual(self.worker.abandoned, 1)
            self.assertEqual(len(self.threads.alive), 2)
            self.assertEqual(self.resultOf(second.d), (Status.RAN, 2))

        first, second = self.task(self.stuck(meanwhile)), self.task(self.note, 2)
        ready = self.worker.run(first)
        self.worker.run(second)
        self.reactor.settle()
        self.assertNoResult(first.d)
        self.assertEqual(self.notes, [2])
        self.assertEqual(len(self.threads.alive), 1)
        self.assertEqual(self.run_(self.note, 3), (Status.RAN, 3))
        self.assertEqual(self.worker.abandoned, 1)

    def test_cancelDone(self) -> None:
        """If the result is on its way, the thread isn't stuck."""
        task = self.task(self.note, 1)
        self.worker.run(task)
        self.threads.run()
        self.worker.cancelTask(task)
        self.reactor.settle()
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.abandoned, 0)

    def test_iterationOutlives(self) -> None:
        """
        An iteration outlives the thread it was begun in, and that of a task that is
        stuck before its first item is closed.
        """

        def generate() -> Iterator[int]:
            try:
                meanwhile()
                yield 1
            finally:
                self.notes.append("closed")

        def meanwhile() -> None:
            self.worker.cancelTask(stuck)
            self.reactor.settle()
            for i in range(40):
                taken.append(self.resultOf(deferator.__anext__()))
                self.assertEqual(taken[i], i)

        taken: list[int] = []
        deferator = self.run_(self.generate, *range(50))[1]
        stuck = self.task(generate)
        self.worker.run(stuck)
        self.reactor.settle()
        self.assertEqual(len(taken), 40)
        self.assertEqual(self.notes[-1], "closed")

    def test_notReplaced(self) -> None:
        """If no other thread can be started, it resigns, and its tasks go elsewhere."""

        def resign() -> None:
            left.extend(self.worker.crash())

        def meanwhile() -> None:
            self.threads.most = 1
            self.worker.cancelTask(first)

        left: list[Any] = []
        self.worker.setResignator(resign)
        first, second = self.task(self.stuck(meanwhile)), self.task(self.note, 2)
        self.worker.run(first)
        ready = self.worker.run(second)
        stopped = self.worker.stop()
        self.reactor.settle()
        self.assertEqual(left, [second])
        self.successResultOf(ready)
        self.successResultOf(stopped)
        self.assertEqual(self.notes, [])

    def test_notReplacedAlone(self) -> None:
        """If there's nobody to resign to, tasks come back without having been run."""

        def meanwhile() -> None:
            self.threads.most = 1
            self.worker.cancelTask(first)

        first, second = self.task(self.stuck(meanwhile)), self.task(self.note, 2)
        self.worker.run(first)
        self.worker.run(second)
        self.assertEqual(self.resultOf(second.d), (Status.DISCONNECTED, None))
        task = self.task(self.note)
        self.successResultOf(self.worker.run(task))
        self.assertEqual(self.successResultOf(task.d), (Status.DISCONNECTED, None))

    def test_stop(self) -> None:
        """It stops when all tasks have their results. It accepts none meanwhile."""
        tasks = [self.task(self.note, i) for i in range(2)]
        for task in tasks:
            self.worker.run(task)
        late = self.task(self.note)
        d = self.worker.stop()
        self.worker.run(late)
        self.assertEqual(self.successResultOf(late.d), (Status.DISCONNECTED, None))
        d.addCallback(lambda _: [self.successResultOf(task.d) for task in tasks])
        self.resultOf(d)
        self.assertEqual(self.threads.alive, [])
        self.successResultOf(self.worker.stop())

    def test_crash(self) -> None:
        """It gives its tasks back at once, and leaves the thread alone."""

        def meanwhile() -> None:
            self.assertEqual(self.worker.crash(), tasks)
            self.assertFalse(self.worker.t.threadRunning)

        tasks = [self.task(self.stuck(meanwhile)), self.task(self.note, 2)]
        ready = [self.worker.run(task) for task in tasks]
        self.reactor.settle()
        for task, d in zip(tasks, ready, strict=True):
            self.assertNoResult(task.d)
            self.successResultOf(d)
        self.assertEqual(self.notes, [])
        self.assertEqual(self.threads.alive, [])
        self.assertEqual(self.worker.crash(), [])

    def test_looperCrashed(self) -> None:
        """Tasks fail if somebody else gives up the thread."""
        task = self.task(self.note, 1)
        ready = self.worker.run(task)
        self.worker.t.crash()
        self.failureOf(task.d, ThreadError)
        self.successResultOf(ready)

    def test_noThread(self) -> None:
        """That no thread can be started is told at once."""
        self.threads.most = len(self.threads.names)
        self.assertRaises(ThreadError, self.newWorker)

    def test_resigns(self) -> None:
        """
        A worker that is stopped by another than the queue resigns: the queue drops it,
        and calls wait for others.
        """
        q = TaskQueue(self.worker, reactor=self.reactor)
        self.resultOf(self.worker.stop())
        self.assertEqual(len(q), 0)
        d = q.call(self.note, 1)
        self.reactor.settle()
        self.assertNoResult(d)
        q.attachWorker(self.newWorker())
        self.assertEqual(self.resultOf(d), 1)
        self.resultOf(q.shutdown())

    def test_repr(self) -> None:
        """It's named by its ID."""
        self.worker.ID = 3
        self.assertEqual(repr(self.worker), "<ThreadWorker 3>")

    def test_timeBehindOthers(self) -> None:
        """
        The clock of a task that waits for another one doesn't run until its turn
        comes.
        """
        first = self.task(self.note, 1)
        timed = [self.task(self.note, i, timeout=5) for i in (2, 3)]
        self.worker.run(first)
        for task in timed:
            task.startTimer()  # as who gives it does
            self.worker.run(task)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(100)
        self.worker.cancelTask(first)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertEqual(self.resultOf(timed[1].d), (Status.RAN, 3))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_timeGoesOn(self) -> None:
        """
        The clock of the task that the thread is at isn't touched when one that waits is
        cancelled.
        """

        def meanwhile() -> None:
            self.reactor.advance(4)
            self.worker.cancelTask(waiting)
            self.reactor.advance(2)
            self.assertEqual(self.successResultOf(first.d)[0], Status.TIMEOUT)

        first = self.task(self.stuck(meanwhile), timeout=5)
        waiting = self.task(self.note, timeout=5)
        first.startTimer()
        self.worker.run(first)
        self.worker.run(waiting)
        self.reactor.settle()
        self.assertTrue(first.d.called)
        self.assertEqual(self.notes, [])


class QueueTests(WorkerCase):
    """Tests of L{ThreadQueue}."""

    def setUp(self) -> None:
        """Make a queue."""
        super().setUp()
        self.q = self.newQueue()

    def newQueue(self, *args: Any, **kw: Any) -> ThreadQueue:
        """Make a queue."""

        return ThreadQueue(*args, reactor=self.reactor, **kw)

    def test_endOfSequence(self) -> None:
        """
        What tells the end of a sequence isn't wrapped, so that an iteration over calls
        in the thread ends.
        """
        items = iter([1, 2])
        q = self.newQueue(returnFailure=True)
        fetched = []
        prefetcherator = Prefetcherator()
        self.assertTrue(
            self.resultOf(prefetcherator.setup(q.deferToThread, next, items))
        )
        for value, isValid, moreLeft in [(1, True, True), (2, True, False)]:
            fetched.append(self.resultOf(prefetcherator.getNext()))
            self.assertEqual(fetched[-1], (value, isValid, moreLeft))
        for error in (StopIteration, IndexError):
            self.failureOf(q.deferToThread(self.raising(error())), error)
        self.failureOf(q.deferToThread(self.raising(KeyError())), ThreadError)

    def raising(self, error: Exception) -> Callable[[], None]:
        """Make a function that raises."""

        def f() -> None:
            raise error

        return f

    def test_worker(self) -> None:
        """It has one worker."""
        self.assertIsInstance(self.q, TaskQueue)
        self.assertEqual(self.q.workers(), [self.q.worker])
        self.assertEqual(len(self.threads.alive), 1)

    def test_number(self) -> None:
        """
        A number alone, as other queues take it, is refused, and it's said how to write
        it.
        """
        with self.assertRaisesRegex(TypeError, "threads=4"):
            self.newQueue(4)

    def test_options(self) -> None:
        """It can be given series, and be one for which iterators come as they are."""
        q = self.newQueue(True, series=["x"])
        iterator = self.resultOf(q.call(self.generate, 1, series="x"))
        self.assertEqual(list(iterator), [1])

    def test_call(self) -> None:
        """Calls are made, and their failures are those that they raise."""
        self.assertEqual(self.resultOf(self.q.call(self.note, 1)), 1)
        self.failureOf(self.q.call(divide), ZeroDivisionError)
        d = self.q.call(divide, returnFailure=True)
        error = self.failureOf(d, WorkerError)
        self.assertIsInstance(error.__cause__, ZeroDivisionError)

    def test_awkwardArguments(self) -> None:
        """
        Arguments that can't be sorted don't get in the way of telling of a failure.
        """
        d = self.q.call(int, {1: 1, "a": 2})
        self.failureOf(d, TypeError)
        self.assertEqual(self.resultOf(self.q.call(self.note, 1)), 1)

    def test_many(self) -> None:
        """
        Thousands of calls are made in their order. Those that are short are given to
        the worker in batches.
        """
        waits: list[int] = []
        calls = [self.q.call(self.note, i) for i in range(3_000)]
        calls[1_500].addCallback(lambda _: waits.append(len(self.q.worker.tasks)))
        self.reactor.settle()
        self.assertEqual(self.notes, list(range(3_000)))
        self.assertEqual(self.q.worker.capacity, 1)
        self.assertGreater(waits[0], 1)
        for d in calls:
            self.assertTrue(d.called)

    def test_longOnesAlone(self) -> None:
        """Those that aren't short are given one by one."""
        times = iter(range(100_000))
        self.patch(
            __import__("asynqueue.threads._calls", fromlist=["x"]),
            "perf_counter",
            lambda: next(times) / 100,
        )
        waits: list[int] = []
        for i in range(100):
            d = self.q.call(self.note, i)
            d.addCallback(lambda _: waits.append(len(self.q.worker.tasks)))
        self.reactor.settle()
        self.assertEqual({*waits}, {0})

    def test_othersAreIdle(self) -> None:
        """So are all if there are other workers, who could run them."""
        self.q.attachWorker(AsyncWorker())
        waits: list[int] = []
        for i in range(100):
            d = self.q.call(self.note, i, series="thread")
            d.addCallback(lambda _: waits.append(len(self.q.worker.tasks)))
        self.reactor.settle()
        self.assertEqual({*waits}, {0})

    def test_doNext(self) -> None:
        """A call that is to be next is, as soon as the worker is ready."""
        for i in range(3):
            self.q.call(self.note, i)
        self.q.call(self.note, "next", doNext=True)
        self.reactor.settle()
        self.assertEqual(self.notes, [0, "next", 1, 2])

    def test_timeout(self) -> None:
        """
        A call that takes too long is given up, run once more in another thread, and
        then fails with C{TimeoutError}. The queue goes on.
        """
        runs: list[int] = []

        def slow() -> None:
            runs.append(1)
            self.reactor.advance(1)
            self.reactor.settle()

        d = self.q.call(slow, timeout=0.5, retries=1)
        error = self.failureOf(d, TimeoutError)
        self.assertIn("slow", str(error))
        self.assertEqual(len(runs), 2)
        self.assertEqual(self.q.worker.abandoned, 2)
        self.assertEqual(self.resultOf(self.q.call(self.note, 1)), 1)
        self.assertEqual(len(self.threads.alive), 1)

    def test_cancel(self) -> None:
        """Cancelling the Deferred of a call that is being made gives the thread up."""
        calls: list[Deferred[Any]] = []
        calls.append(self.q.call(self.stuck(lambda: calls[0].cancel())))
        after = self.q.call(self.note, 1)
        self.failureOf(calls[0], CancelledError)
        self.assertEqual(self.successResultOf(after), 1)
        self.assertEqual(self.q.worker.abandoned, 1)

    def test_context(self) -> None:
        """
        Context variables have the values that they had when the call was queued,
        however long it waits, and for a second attempt, too.
        """

        def look() -> None:
            self.notes.append(variable.get())
            if len(self.notes) == 3:
                self.reactor.turn()
                self.reactor.advance(1)
                self.reactor.settle()

        for value in ("a", "b", "c"):
            token = variable.set(value)
            self.q.call(look, timeout=0.5, retries=1)
            variable.reset(token)
        self.reactor.settle()
        self.assertEqual(self.notes, ["a", "b", "c", "c"])

    def test_iterations(self) -> None:
        """
        Iterators come as Deferators, which deliver what is raised after the items, or
        as an empty list. A consumer gets the items, and is the result even if there
        are none.
        """
        deferator = self.resultOf(self.q.call(self.generate, 1, 2, ValueError()))
        for i in (1, 2):
            self.assertEqual(self.resultOf(deferator.__anext__()), i)
        self.failureOf(deferator.__anext__(), ValueError)
        self.assertEqual(self.resultOf(self.q.call(self.generate)), [])
        for items in ([], list(range(40))):
            consumer = ListConsumer()
            d = self.q.call(self.generate, *items, consumer=consumer)
            self.assertIs(self.resultOf(d), consumer)
            self.assertEqual(self.resultOf(consumer()), items)

    def test_update(self) -> None:
        """An update is run in the thread."""
        self.assertEqual(self.resultOf(self.q.update(self.note, 1)), [1])

    def test_several(self) -> None:
        """
        It may have several threads, each with a worker that's qualified for all series.
        """
        q = self.newQueue(threads=3, series=["x"])
        self.assertEqual(len(q), 3)
        self.assertIs(q.worker, q.workers()[0])
        self.assertEqual(self.successResultOf(q.d), q.worker.ID)
        before = len(self.threads.names)
        self.assertEqual(before, 4)
        calls = [q.call(self.note, i, series="x") for i in range(100)]
        self.assertTrue(all(worker.tasks for worker in q.workers()))
        self.reactor.settle()
        self.assertEqual([self.successResultOf(d) for d in calls], [*range(100)])
        self.resultOf(q.shutdown())
        self.assertEqual(len(self.threads.alive), 1)

    def test_notStarted(self) -> None:
        """When one of several threads can't be started, none is left."""
        self.threads.most = 3
        self.assertRaises(ThreadError, self.newQueue, threads=3)
        self.reactor.settle()
        self.assertEqual(len(self.threads.alive), 1)

    def test_misuse(self) -> None:
        """The number of threads must be one, and C{raw} isn't it."""
        for number in (0, True, 1.5):
            self.assertRaises(ValueError, self.newQueue, threads=number)
        self.assertRaises(TypeError, self.newQueue, 4)

    def test_wraps(self) -> None:
        """The queue's C{returnFailure} holds for calls that skip the queue."""
        q = self.newQueue(returnFailure=True)
        error = self.failureOf(q.deferToThread(divide), ThreadError)
        self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.failureOf(q.deferToThread(divide, returnFailure=False), ZeroDivisionError)
        self.failureOf(self.q.deferToThread(divide), ZeroDivisionError)
        self.q.returnFailure = True
        self.failureOf(self.q.deferToThread(divide), ThreadError)

    def test_skipping(self) -> None:
        """A call may skip the queue."""
        self.q.call(self.note, 1)
        self.q.call(self.note, 2)
        self.assertEqual(self.resultOf(self.q.deferToThread(self.note, 3)), 3)
        self.assertEqual(self.notes, [1, 3, 2])

    def test_shutdown(self) -> None:
        """After shutdown there's no thread. What was accepted has been run."""
        calls = [self.q.call(self.note, i) for i in range(5)]
        d = self.q.shutdown()
        self.assertNoResult(d)
        unfinished = self.resultOf(d)
        self.assertEqual(len(unfinished), 4)
        self.assertEqual(self.successResultOf(calls[0]), 0)
        for d in calls[1:]:
            self.failureResultOf(d)
        self.assertEqual(self.threads.alive, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_shutdownWhileStuck(self) -> None:
        """A thread that is stuck at shutdown is left alone when its time is up."""
        done: list[Any] = []

        def meanwhile() -> None:
            self.q.shutdown().addCallback(done.append)
            self.reactor.advance(3)

        self.q = self.newQueue(timeout=2)
        d = self.q.call(self.stuck(meanwhile))
        self.failureOf(d, WorkerLost)
        self.assertEqual(len(done), 1)

    def test_crashAndReassign(self) -> None:
        """Tasks of a worker that is crashed can be given to another one."""
        other = self.newWorker()

        def meanwhile() -> None:
            self.q.attachWorker(other)
            self.q.detachWorker(self.q.worker, crash=True, reassign=True)

        runs: list[Any] = [self.stuck(meanwhile), lambda: "again"]
        d = self.q.call(lambda: runs.pop(0)())
        self.assertEqual(self.resultOf(d), "again")


class DeferToThreadTests(ThreadCase):
    """Tests of L{deferToThread}."""

    def setUp(self) -> None:
        """Have the function use threads of the mind."""
        super().setUp()

        self.patch(_looper, "ThreadLooper", partial(ThreadLooper, reactor=self.reactor))
        self.patch(_looper, "_looper", None)

    def test_oneThread(self) -> None:
        """
        All calls are made in one thread, which is started with the first, in order.
        """
        self.assertEqual(self.threads.names, [])
        for i in range(3):
            deferToThread(self.note, i)
        d = deferToThread(self.note, "next", doNext=True)
        self.assertEqual(self.resultOf(d), "next")
        self.assertEqual(self.notes, [0, "next", 1, 2])
        self.assertEqual(len(self.threads.names), 1)

    def test_failure(self) -> None:
        """The Deferred fails with what is raised."""
        self.failureOf(deferToThread(divide), ZeroDivisionError)

    def test_iterators(self) -> None:
        """Iterators come as Deferators, or go to a consumer."""
        deferator = self.resultOf(deferToThread(self.generate, 1, 2))
        self.assertIsInstance(deferator, Deferator)
        consumer = ListConsumer()
        d = deferToThread(self.generate, 1, 2, 3, consumer=consumer)
        self.assertIs(self.resultOf(d), consumer)
        self.assertEqual(self.successResultOf(consumer()), [1, 2, 3])

    def test_end(self) -> None:
        """Without arguments, it has the thread end. A later call starts another one."""
        self.assertIsNone(self.successResultOf(deferToThread()))
        call = deferToThread(self.note, 1)
        d = deferToThread()
        self.assertNoResult(d)
        self.resultOf(d)
        self.assertEqual(self.successResultOf(call), 1)
        self.assertEqual(self.threads.alive, [])
        self.assertEqual(self.resultOf(deferToThread(self.note, 2)), 2)
        self.assertEqual(len(self.threads.names), 2)

    def test_whileEnding(self) -> None:
        """So does a call while the last one ends."""
        deferToThread(self.note, 1)
        d = deferToThread()
        self.assertEqual(self.resultOf(deferToThread(self.note, 2)), 2)
        self.successResultOf(d)

    def test_notCallable(self) -> None:
        """What can't be called is refused."""
        with self.assertRaisesRegex(TypeError, "which 7 isn't"):
            deferToThread(7)  # type: ignore[arg-type]


class PoolTests(ThreadCase):
    """
    Tests of L{ThreadPool<asynqueue.threads._pool.ThreadPool>} and L{PoolUser
    <asynqueue.threads.PoolUser>}.
    """

    def setUp(self) -> None:
        """Make a pool, and have the default one be of the mind as well."""
        super().setUp()
        self.pool = self.newPool(3)
        self.patch(pool, "ThreadPool", self.newPool)
        pool.defaultPool.cache_clear()
        self.addCleanup(pool.defaultPool.cache_clear)

    def newPool(self, maxThreads: int | None = None) -> threads.ThreadPool:
        """Make a pool."""
        return self.poolClass(maxThreads, reactor=self.reactor)

    poolClass = threads.ThreadPool

    def test_lazy(self) -> None:
        """A pool has no threads before they're needed."""
        self.assertEqual(self.pool.threads, 0)
        self.successResultOf(self.pool.shutdown())

    def test_grows(self) -> None:
        """
        It grows with what's to be done, up to its maximum. Calls that are too many wait
        for a thread, and are begun in their order.
        """
        calls = [self.pool.defer(self.note, i) for i in range(10)]
        self.assertEqual(self.pool.threads, 3)
        self.reactor.settle()
        self.assertEqual(self.notes, list(range(10)))
        self.assertEqual([self.successResultOf(d) for d in calls], list(range(10)))

    def test_shrinks(self) -> None:
        """
        It keeps few of its threads when they have nothing to do, and uses those again.
        """
        for i in range(10):
            self.pool.defer(self.note, i)
        self.reactor.settle()
        self.assertEqual(self.pool.threads, 2)
        self.assertEqual(len(self.threads.alive), 2)
        self.resultOf(self.pool.defer(self.note))
        self.assertEqual(len(self.threads.names), 3)

    def test_failure(self) -> None:
        """The Deferred fails with what is raised. Iterators come as they are."""
        self.failureOf(self.pool.defer(divide), ZeroDivisionError)
        iterator = self.resultOf(self.pool.defer(self.generate, 1))
        self.assertEqual(list(iterator), [1])

    def test_keywords(self) -> None:
        """All keywords reach the callable."""
        kw = {"doNext": 1, "consumer": 2, "raw": 3, "returnFailure": 4}
        self.assertEqual(self.resultOf(self.pool.defer(dict, **kw)), kw)

    def test_context(self) -> None:
        """
        Context variables have the values that they had where the call was asked for.
        """
        self.pool.resize(1)
        values = []
        for value in ("a", "b"):
            token = variable.set(value)
            values.append(self.pool.defer(variable.get))
            variable.reset(token)
        self.assertEqual([self.resultOf(d) for d in values], ["a", "b"])

    def test_cancel(self) -> None:
        """
        A call that is cancelled while it waits isn't made. The result of one that is
        being made is dropped.
        """
        calls = [self.pool.defer(self.note, i) for i in range(5)]
        for i in (0, 4):
            calls[i].cancel()
            self.failureResultOf(calls[i], CancelledError)
        self.reactor.settle()
        self.assertEqual(self.notes, [0, 1, 2, 3])

    def test_resize(self) -> None:
        """
        The maximum can be changed. Threads that are too many end after their calls.
        """
        for i in range(6):
            self.pool.defer(self.note, i)
        self.pool.resize(1)
        self.reactor.settle()
        self.assertEqual(self.notes, list(range(6)))
        self.assertEqual(len(self.threads.alive), 1)
        for bad in (0, -1, True, "1"):
            with self.assertRaisesRegex(ValueError, "maxThreads"):
                self.pool.resize(bad)  # type: ignore[arg-type]

    def test_ownThread(self) -> None:
        """A call in a thread of its own isn't counted, and the thread ends with it."""
        self.pool.resize(1)
        waiting = self.pool.defer(self.note, 1)
        d = self.pool.deferToOwnThread(dict, raw=True)
        self.assertEqual(len(self.threads.alive), 2)
        self.assertEqual(self.resultOf(d), {"raw": True})
        self.successResultOf(waiting)
        self.assertEqual(len(self.threads.alive), 1)

    def test_shutdown(self) -> None:
        """It can be shut down when all calls have been made, and used again."""
        calls = [self.pool.defer(self.note, i) for i in range(5)]
        own = self.pool.deferToOwnThread(self.note, 9)
        first, second = self.pool.shutdown(), self.pool.shutdown()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.assertIsNone(self.resultOf(second))
        for d in (*calls, own):
            self.successResultOf(d)
        self.assertEqual(self.threads.alive, [])
        self.assertEqual(self.resultOf(self.pool.defer(self.note, 6)), 6)
        self.assertEqual(self.pool.threads, 1)

    def test_noThread(self) -> None:
        """That no thread can be started is told at once, unless there are others."""
        self.threads.most = 1
        calls = [self.pool.defer(self.note, i) for i in range(3)]
        self.assertEqual([self.resultOf(d) for d in calls], [0, 1, 2])
        self.resultOf(self.pool.shutdown())
        self.assertRaises(ThreadError, self.pool.defer, self.note)
        self.assertRaises(ThreadError, self.pool.deferToOwnThread, self.note)
        self.successResultOf(self.pool.shutdown())

    def test_notCallable(self) -> None:
        """What can't be called is refused."""
        for method in (self.pool.defer, self.pool.deferToOwnThread):
            with self.assertRaisesRegex(TypeError, "which 7 isn't"):
                method(7)  # type: ignore[arg-type]

    def test_callInThread(self) -> None:
        """
        As with Twisted's pools, a callback is called in the thread, with the result or
        the failure. Without one, a failure is logged.
        """

        def told(*result: Any) -> None:
            told.threads = len(self.threads._running)  # type: ignore[attr-defined]
            self.notes.append(result)

        self.pool.callInThread(self.note, 1)
        self.pool.callInThread(divide)
        self.pool.callInThreadWithCallback(told, int, "7")
        self.pool.callInThreadWithCallback(told, divide)
        self.pool.callInThreadWithCallback(lambda *_: divide(), int, "8")
        self.reactor.settle()
        self.assertEqual(self.notes[:2], [1, (True, 7)])
        self.assertIs(self.notes[2][0], False)
        self.notes[2][1].trap(ZeroDivisionError)
        self.assertEqual(told.threads, 1)  # type: ignore[attr-defined]
        self.assertEqual(len(self.flushLoggedErrors()), 2)

    def test_hostile(self) -> None:
        """Whatever a result or an exception is like, it harms its own call alone."""

        class Odd:
            def __getattribute__(self, name: str) -> Any:
                raise SystemExit

        def refuse(_: object) -> Any:
            raise SystemExit

        names = ("__class__", "__str__", "__traceback__", "with_traceback")
        bad: Any = type("Bad", (Exception,), dict.fromkeys(names, property(refuse)))

        def raiseBad() -> None:
            raise bad

        self.pool.resize(1)
        self.failureOf(self.pool.defer(Odd), SystemExit)
        for method in (self.pool.defer, self.pool.deferToOwnThread):
            self.failureOf(method(raiseBad), ThreadError)
        self.assertEqual(self.resultOf(self.pool.defer(self.note, 1)), 1)
        self.resultOf(self.pool.shutdown())

    def test_setupAnew(self) -> None:
        """Without a number, a pool has as many threads as the class says."""
        self.assertEqual(
            (threads.PoolUser.minThreads, threads.PoolUser.maxThreads), (2, 10)
        )
        threads.PoolUser.setup(3)
        threads.PoolUser.setup()
        self.assertEqual(threads.PoolUser.pool.maxThreads, 10)

    def test_default(self) -> None:
        """
        All who have no pool of their own share one, which is there when it's needed,
        and which the methods are about when they're called on a class.
        """
        user = threads.PoolUser()
        self.assertIs(user.pool, threads.PoolUser.pool)
        self.assertIs(user.pool, threads.Consumerator.pool)
        threads.PoolUser.setup(7)
        self.assertEqual(user.pool.maxThreads, 7)
        d = threads.PoolUser.deferToThreadInPool(self.note, 1)
        self.assertEqual(self.resultOf(d), 1)
        self.assertEqual(user.pool.threads, 1)
        self.resultOf(threads.PoolUser.shutdown())
        self.assertEqual(self.resultOf(user.deferToThreadInPool(self.note, 2)), 2)

    def test_own(self) -> None:
        """
        A user with a number of threads has a pool of its own, and nobody else minds.
        """
        user, other = threads.PoolUser(4), threads.PoolUser()
        self.assertEqual(user.pool.maxThreads, 4)
        user.setup(2)
        self.assertEqual(user.pool.maxThreads, 2)
        other.setup(5)
        self.assertEqual(
            [u.pool.maxThreads for u in (user, other, threads.PoolUser())], [2, 5, 10]
        )
        self.resultOf(user.deferToThreadInPool(self.note, 2))
        self.assertEqual(other.pool.threads, 0)
        self.resultOf(user.shutdown())
        self.assertEqual(user.pool.threads, 0)

    def test_given(self) -> None:
        """It may be given a pool, which it leaves as it is when it's done with it."""
        user = threads.PoolUser(ownPool=self.pool)
        self.assertIs(user.pool, self.pool)
        self.resultOf(user.deferToThreadInPool(self.note, 2))
        user.releasePool()
        self.reactor.settle()
        self.assertEqual(self.pool.threads, 1)
