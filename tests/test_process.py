"""Tests of L{asynqueue.process} with children that the test plays."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from asynqueue import ProcessBase, ProcessQueue, ProcessWorker, errors
from asynqueue._child import protocol
from asynqueue._child.exceptions import dumpsException
from asynqueue._child.pickling import dumpsPlain, loads
from asynqueue._child.protocol import COUNT, Kind
from asynqueue._child.status import Status
from asynqueue._child.stream import WAITS
from asynqueue.interfaces import ICancellingWorker, IReplaceableWorker, IWorker
from asynqueue.iteration import Deferator
from asynqueue.process import _options as memory
from asynqueue.process._life import ChildState
from asynqueue.process._options import (
    ChildConfig,
    ChildOptions,
    RestartPolicy,
    residentSize,
)
from asynqueue.tasks import Assignment, Task

from . import _jobs as jobs
from ._fakes import FIRST_PID, FakeProcess, FakeReactor, LogLines


class Sender:
    """Plays a child: sends what a child would."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process

    def hello(self) -> None:
        """Be ready."""
        self.process.send(Kind.HELLO, 0)

    def result(self, number: int, value: Any, seconds: float = 0.5) -> None:
        """Answer a call."""
        self.process.claim(number)
        self.process.send(Kind.RESULT, number, dumpsPlain((seconds, value)))

    def error(self, number: int, error: BaseException) -> None:
        """Answer a call that has failed."""
        self.process.claim(number)
        self.process.send(Kind.ERROR, number, dumpsException(error, "text", 0.5))

    def iterator(self, number: int) -> None:
        """Answer a call that has returned an iterator."""
        self.process.claim(number)
        self.process.send(Kind.ITERATOR, number, dumpsPlain(0.5))

    def items(self, number: int, *items: Any) -> None:
        """Send items."""
        self.process.send(Kind.ITEMS, number, dumpsPlain(list(items)))


class WorkerCase(SynchronousTestCase):
    """A test of a worker, or of a queue, whose children it plays."""

    def setUp(self) -> None:
        """Make a reactor."""
        self.reactor: Any = FakeReactor()
        self.log = LogLines(self)
        self.addCleanup(self.endAll)

    def endAll(self) -> None:
        """End all processes that haven't, after which nothing is left."""
        while any(not process.ended for process in self.reactor.processes):
            for process in self.reactor.processes:
                if not process.ended:
                    process.end(3)
            self.reactor.advance(10)
        self.assertEqual(self.reactor.removeAll(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def task(self, f: Any = jobs.nothing, *args: Any, **kw: Any) -> Task:
        """Make a task."""
        return Task(f, args, kw, 0, None, reactor=self.reactor)

    def child(self, i: int = -1) -> Sender:
        """Get a child to play, by default the last."""
        return Sender(self.reactor.processes[i])


class WorkerTests(WorkerCase):
    """Tests of L{ProcessWorker}."""

    def setUp(self) -> None:
        """Make a worker that has been hired."""
        super().setUp()
        self.worker = ProcessWorker(["mine"], callStats=True, reactor=self.reactor)
        self.worker.ID = 5
        self.resigned = 0
        self.worker.setResignator(self.resign)
        self.process = self.reactor.processes[0]
        self.sender = self.child()

    def resign(self) -> None:
        """Take note that the worker has resigned."""
        self.resigned += 1

    def serve(self) -> None:
        """Have the parent read what there is."""
        self.reactor.serve()

    def calls(self) -> list[tuple[int, Any]]:
        """
        Get the calls that the child has been sent: the number of each, and what it is.
        """
        return [
            (number, loads(payload))
            for kind, number, payload in self.process.received()
            if kind in (Kind.CALL, Kind.CALL)
        ]

    def test_interfaces(self) -> None:
        """It provides what workers of its kind provide."""
        for interface in (IWorker, ICancellingWorker, IReplaceableWorker):
            verifyObject(interface, self.worker)
            verifyClass(interface, ProcessWorker)
        IWorker.validateInvariants(self.worker)

    def test_qualified(self) -> None:
        """It has the series of its class, and its own."""
        self.assertEqual(self.worker.cQualified, ["process", "local"])
        self.assertEqual(self.worker.iQualified, ["mine"])

    def test_repr(self) -> None:
        """It's shown with its ID, its process, and its state."""
        self.assertEqual(
            repr(self.worker), f"<ProcessWorker 5, pid {FIRST_PID}, starting>"
        )

    def test_setup(self) -> None:
        """The child is set up first of all."""
        [(kind, _, payload)] = self.process.received()
        self.assertEqual(kind, Kind.SETUP)
        self.assertIn("sys_path", loads(payload))

    def test_states(self) -> None:
        """
        It's ready when the child says so, stopping when it's told to, and dead when
        the child has ended.
        """
        self.assertIs(self.worker.state, ChildState.STARTING)
        self.sender.hello()
        self.serve()
        self.assertIs(self.worker.state, ChildState.READY)
        d = self.worker.stop()
        self.assertIs(self.worker.state, ChildState.STOPPING)
        self.assertNoResult(d)
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.assertIs(self.worker.state, ChildState.DEAD)
        self.assertIsNone(self.successResultOf(d))
        self.assertIsNone(self.successResultOf(self.worker.stop()))
        self.assertIsNone(self.successResultOf(self.worker.deferUntilGone()))
        self.assertEqual(self.resigned, 0)

    def test_run(self) -> None:
        """
        A task is sent to the child. It has its result, and the worker is ready, when
        the answer comes.
        """
        task = self.task(divmod, 7, 2)
        done = self.worker.run(task)
        [(number, call)] = self.calls()
        self.assertEqual(call, (divmod, (7, 2), {}, False))
        self.assertNoResult(task.d)
        self.assertNoResult(done)
        self.sender.hello()
        self.sender.result(number, (3, 1))
        self.serve()
        self.assertEqual(self.successResultOf(task.d), (Status.RAN, (3, 1)))
        self.assertIsNone(self.successResultOf(done))

    def test_inTurn(self) -> None:
        """
        Tasks are sent at once, and those but the first such that they can be taken
        back. They have the answers in turn.
        """
        tasks = [self.task(divmod, i, 1) for i in range(3)]
        for task in tasks:
            self.worker.run(task)
        self.sender.hello()
        kinds = [kind for kind, _, _ in self.process.received()]
        self.assertEqual(kinds, [Kind.SETUP, Kind.CALL, Kind.CALL, Kind.CALL])
        for i, task in enumerate(tasks):
            self.sender.result(i + 1, i)
            self.serve()
            self.assertEqual(self.successResultOf(task.d), (Status.RAN, i))

    def test_inTurnWithReactor(self) -> None:
        """
        A child with a reactor, which wouldn't do one after the other, is sent another
        task when the first has been answered.
        """
        tasks = [self.task(divmod, i, 1) for i in range(3)]
        worker = ProcessWorker(useReactor=True, reactor=self.reactor)
        self.process, self.sender = self.reactor.processes[1], self.child()
        for task in tasks:
            worker.run(task)
        self.sender.hello()
        for i, task in enumerate(tasks):
            [(number, (_, args, _, _))] = self.calls()
            self.assertEqual(args, (i, 1))
            self.sender.result(number, i)
            self.serve()
            self.assertEqual(self.successResultOf(task.d), (Status.RAN, i))

    def test_strayAnswer(self) -> None:
        """An answer that nobody waits for is ignored."""
        self.sender.result(77, 1)
        self.sender.items(77, 1)
        task = self.task()
        self.worker.run(task)
        self.sender.result(77, 1)
        self.serve()
        self.assertNoResult(task.d)
        self.worker.crash()

    def test_keywords(self) -> None:
        """
        Keywords that are meant for the worker don't get to the callable, and the task
        keeps them.
        """
        task = self.task(jobs.echo, 1, x=2, raw=True)
        self.worker.run(task)
        [(_, call)] = self.calls()
        self.assertEqual(call, (jobs.echo, (1,), {"x": 2}, True))
        self.assertEqual(task.callTuple[2], {"x": 2, "raw": True})
        self.worker.crash()

    def test_error(self) -> None:
        """
        What the task has raised is its result, as text that carries the exception.
        """
        task = self.task()
        done = self.worker.run(task)
        self.sender.error(1, KeyError("x"))
        self.serve()
        status, text = self.successResultOf(task.d)
        self.assertEqual((status, text), (Status.ERROR, "text"))
        self.assertIs(type(text.exception), KeyError)
        self.successResultOf(done)

    def test_unpicklable(self) -> None:
        """A task that can't be sent fails at once, and the worker is ready."""
        task = self.task(jobs.echo, threading.Lock())
        done = self.worker.run(task)
        failure = self.failureResultOf(task.d, errors.SerializationError)
        self.assertIn("argument 0", str(failure.value))
        self.assertIn("echo", str(failure.value))
        self.assertIsNotNone(failure.value.__cause__)
        self.successResultOf(done)
        self.assertEqual(self.calls(), [])

    def test_unpicklableResult(self) -> None:
        """So does one whose result can't be unpickled here."""
        for payload in (b"garbage", dumpsPlain((0.5, jobs.OnlyInChild()))):
            task = self.task()
            done = self.worker.run(task)
            [(number, _)] = self.calls()
            self.process.send(Kind.RESULT, number, payload)
            self.serve()
            self.failureResultOf(task.d, errors.SerializationError)
            self.successResultOf(done)

    def test_stats(self) -> None:
        """The times of calls are noted, here and there."""
        self.worker.run(self.task())
        self.sender.result(1, None, 0.25)
        self.serve()
        [(here, there)] = self.successResultOf(self.worker.stats())
        self.assertEqual(there, 0.25)
        self.assertGreaterEqual(here, 0)

    def test_stopBusy(self) -> None:
        """A worker that's told to stop has what it has accepted done before."""
        self.sender.hello()
        self.serve()
        tasks = [self.task() for _ in range(2)]
        for task in tasks:
            self.worker.run(task)
        d = self.worker.stop()
        for (number, _), task in zip(self.calls(), tasks, strict=True):
            self.assertFalse(self.process.isStopped())
            self.sender.result(number, None)
            self.serve()
            self.successResultOf(task.d)
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(d)
        self.assertEqual(self.resigned, 0)

    def test_stopIterating(self) -> None:
        """This holds for iterations, too."""
        task = self.task()
        self.worker.run(task)
        self.sender.iterator(1)
        self.sender.items(1, 1)
        self.serve()
        _, deferator = self.successResultOf(task.d)
        d = self.worker.stop()
        self.assertFalse(self.process.isStopped())
        deferator.stop()
        self.assertTrue(self.process.isStopped())
        self.process.end()
        self.successResultOf(d)

    def test_stopTwice(self) -> None:
        """It can be told to stop more than once."""
        first, second = self.worker.stop(), self.worker.stop()
        self.process.end()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_crash(self) -> None:
        """
        A worker that's crashed kills its child, and returns all tasks that have no
        result.
        """
        iterating, running, waiting = (self.task() for _ in range(3))
        self.worker.run(iterating)
        self.sender.iterator(1)
        self.serve()
        self.worker.run(running)
        self.worker.run(waiting)
        gone = self.worker.deferUntilGone()
        self.assertEqual(self.worker.crash(), [iterating, running, waiting])
        self.assertEqual(self.process.signals, ["KILL"])
        self.assertEqual(self.worker.crash(), [])
        self.assertNoResult(gone)
        self.process.end(None, 9)
        self.successResultOf(gone)
        self.assertEqual(self.resigned, 0)
        for task in (iterating, running, waiting):
            self.assertNoResult(task.d)
        self.assertEqual(self.worker.crash(), [])

    def test_crashIterating(self) -> None:
        """Iterations that go on fail then."""
        task = self.task()
        self.worker.run(task)
        self.sender.iterator(1)
        self.sender.items(1, "a")
        self.serve()
        _, deferator = self.successResultOf(task.d)
        self.assertEqual(self.worker.crash(), [])
        self.process.end(None, 9)
        self.assertEqual(self.successResultOf(deferator.__anext__()), "a")
        self.failureResultOf(deferator.__anext__(), errors.WorkerLost)

    def test_runAfterCrash(self) -> None:
        """A task that it's given after that is handed back."""
        self.worker.crash()
        task = self.task()
        self.successResultOf(self.worker.run(task))
        self.assertEqual(self.successResultOf(task.d), (Status.DISCONNECTED, None))

    def test_lost(self) -> None:
        """
        When the child is lost, the task that it may have been running fails with all
        that's known, and the worker resigns with the others.
        """
        self.sender.hello()
        self.serve()
        running, waiting = self.task(), self.task()
        self.worker.run(running)
        self.process.begin()
        self.worker.run(waiting)
        self.process.end(None, signal.SIGSEGV)
        error: Any = self.failureResultOf(running.d, errors.WorkerLost).value
        self.assertEqual(
            (error.workerID, error.pid, error.exitCode, error.signal, error.task),
            (5, FIRST_PID, None, signal.SIGSEGV, running),
        )
        self.assertIn("SIGSEGV", str(error))
        self.assertIn("nothing()", str(error))
        self.assertEqual(self.resigned, 1)
        self.assertNoResult(waiting.d)
        self.assertEqual(self.worker.crash(), [waiting])
        self.assertEqual(len(self.log.having("Worker 5 is lost")), 1)

    def test_answerAndLost(self) -> None:
        """An answer that was sent just before counts."""
        self.sender.hello()
        self.serve()
        task = self.task()
        self.worker.run(task)
        self.sender.result(1, 3)
        self.process.end(1)
        self.assertEqual(self.successResultOf(task.d), (Status.RAN, 3))
        self.assertEqual(self.resigned, 1)

    def test_resignsFirst(self) -> None:
        """It has resigned before anybody is told of a failure."""
        self.sender.hello()
        self.serve()
        task = self.task()
        self.worker.run(task)
        resigned: list[int] = []
        task.d.addErrback(lambda _: resigned.append(self.resigned))
        self.process.begin()
        self.process.end(1)
        self.assertEqual(resigned, [1])

    def test_lostBeforeHello(self) -> None:
        """A child that was never ready can't have started a task."""
        task = self.task()
        self.worker.run(task)
        self.process.end(1)
        self.assertNoResult(task.d)
        self.assertEqual(self.resigned, 1)
        self.assertEqual(self.worker.crash(), [task])

    def test_lostBeforeDelivery(self) -> None:
        """Nor can one that hasn't got all of it."""
        self.sender.hello()
        self.serve()
        task = self.task(jobs.echo, "x" * 1_000_000)
        self.worker.run(task)
        self.process.end(1)
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.crash(), [task])

    def test_lostBeforeReading(self) -> None:
        """Nor can one that hasn't read it, though it was there."""
        self.sender.hello()
        self.serve()
        task = self.task()
        self.worker.run(task)
        self.process.end(1, reads=False)
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.crash(), [task])

    def test_goneBeforeCall(self) -> None:
        """Nor one that had gone when it was sent."""
        self.sender.hello()
        self.serve()
        self.process.close(3)
        task = self.task()
        self.worker.run(task)
        self.process.end(1)
        self.assertNoResult(task.d)
        self.assertEqual(self.worker.crash(), [task])

    def test_lostWhileStopping(self) -> None:
        """
        If it's lost while it's stopping with something to do, it resigns after telling
        the failure.
        """
        self.sender.hello()
        self.serve()
        task = self.task()
        self.worker.run(task)
        order: list[Any] = []
        task.d.addErrback(lambda failure: order.append((failure.type, self.resigned)))
        self.worker.stop().addCallback(lambda _: order.append("stopped"))
        self.process.begin()
        self.process.end(1)
        self.assertEqual(order, [(errors.WorkerLost, 0), "stopped"])
        self.assertEqual(self.resigned, 1)

    def test_lostBeforeHired(self) -> None:
        """If it's lost before it can resign, it does so when it can."""
        worker = ProcessWorker(reactor=self.reactor)
        self.reactor.processes[-1].end(1)
        worker.setResignator(self.resign)
        self.assertEqual(self.resigned, 0)
        self.reactor.advance(0)
        self.assertEqual(self.resigned, 1)

    def test_cancelRunning(self) -> None:
        """
        When a task is cancelled that the child runs, it's ended softly, and the worker
        resigns with the others.
        """
        running, waiting = self.task(), self.task()
        self.worker.run(running)
        self.process.begin()
        self.worker.run(waiting)
        self.worker.cancelTask(running)
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.resigned, 1)
        self.assertEqual(self.worker.crash(), [waiting])
        # It has its time, though the worker was crashed.
        self.assertEqual(self.process.signals, ["TERM"])
        self.reactor.advance(1)
        self.assertEqual(self.process.signals[:2], ["TERM", "KILL"])
        self.process.end(None, 9)
        self.assertEqual(self.resigned, 1)
        self.assertNoResult(running.d)

    def test_cancelWaiting(self) -> None:
        """One that the child hasn't been sent is forgotten."""
        running, waiting, other = (self.task() for _ in range(3))
        self.worker.run(running)
        done = self.worker.run(waiting)
        self.worker.run(other)
        self.worker.cancelTask(waiting)
        self.successResultOf(done)
        self.assertEqual(self.process.signals, [])
        self.assertEqual(self.worker.crash(), [running, other])

    def test_cancelledLeavesUnread(self) -> None:
        """
        A call that a child is sent and doesn't come to read, because another is
        cancelled, isn't forgotten: it goes back to be run elsewhere.
        """
        self.sender.hello()
        running, unread, unsent = (
            self.task(),
            self.task(jobs.echo, "x" * 1_000_000),
            self.task(),
        )
        self.worker.run(running)
        self.sender.iterator(1)
        self.serve()
        self.worker.run(unread)
        self.worker.run(unsent)
        results: list[Any] = []
        for task in (unread, unsent):
            task.d.addCallback(results.append)
        self.worker.cancelTask(running)
        self.process.end(None, 15, reads=False)
        self.assertEqual(results, [(Status.DISCONNECTED, None)] * 2)

    def test_cancelSaid(self) -> None:
        """The log says that a child is ended because a task was cancelled."""
        task = self.task(jobs.echo, "guilty")
        self.worker.run(task)
        self.process.begin()
        self.log.take()
        self.worker.cancelTask(task)
        [line] = self.log.take()
        self.assertIn("guilty", line)
        self.assertIn(f"pid {self.process.pid}", line)

    def test_timeWhileStarting(self) -> None:
        """No time passes for a task while its child is starting."""
        task = Task(jobs.nothing, (), {}, 0, None, 1.0, reactor=self.reactor)
        Assignment(task).accept(self.worker)
        self.reactor.advance(50)
        self.assertNoResult(task.d)
        self.sender.hello()
        self.serve()
        self.reactor.advance(0.9)
        self.assertNoResult(task.d)
        self.reactor.advance(0.2)
        self.assertEqual(self.successResultOf(task.d)[0], Status.TIMEOUT)

    def test_tasks(self) -> None:
        """It tells the tasks that have no result yet."""
        first, second = self.task(), self.task()
        self.worker.run(first)
        self.worker.run(second)
        self.assertEqual(self.worker.tasks, [first, second])
        self.sender.result(1, None)
        self.serve()
        self.assertEqual(self.worker.tasks, [second])

    def test_cores(self) -> None:
        """It tells the number of cores, as a queue does."""
        self.assertEqual(ProcessWorker.cores(), ProcessQueue.cores())

    def test_stoppedByOthers(self) -> None:
        """It resigns when somebody else than its queue has stopped it."""
        self.worker.hired = True
        self.worker.stop()
        self.assertEqual(self.resigned, 0)
        self.process.end()
        self.assertEqual(self.resigned, 1)

    def test_cancelIterating(self) -> None:
        """One whose iteration hasn't begun is stopped as if it ran."""
        task = self.task()
        self.worker.run(task)
        self.sender.iterator(1)
        self.serve()
        self.worker.cancelTask(task)
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.worker.crash(), [])

    def test_cancelOther(self) -> None:
        """A task that it doesn't have is none of its business."""
        self.worker.cancelTask(self.task())
        task = self.task()
        self.worker.run(task)
        self.sender.iterator(1)
        self.sender.items(1, 1)
        self.serve()
        deferator = self.successResultOf(task.d)
        self.worker.cancelTask(task)
        self.assertEqual(self.process.signals, [])
        del deferator

    def test_memUsage(self) -> None:
        """The memory is that of the child's process, if there's one."""
        self.worker._life.pid = os.getpid()
        usage: Any = self.worker.memUsage()
        self.assertGreater(usage, 1_000)
        self.process.end()
        self.assertIsNone(self.worker.memUsage())

    def test_output(self) -> None:
        """The child's output is logged with the worker's ID."""
        self.process.write(b"hello\n", 1)
        self.serve()
        self.assertEqual(self.log.lines, [f"Worker 5, pid {FIRST_PID}, stdout: hello"])

    def test_numbers(self) -> None:
        """The numbers of calls start again when they get too large to be sent."""
        self.worker._jobs._numbers = 0x7FFFFFFE
        numbers = []
        for _ in range(3):
            self.worker.run(self.task())
            [(number, _)] = self.calls()
            numbers.append(number)
            self.sender.result(number, None)
            self.serve()
        self.assertEqual(numbers, [0x7FFFFFFF, 1, 2])


class IterationTests(WorkerCase):
    """Tests of the parent's side of iterations."""

    def setUp(self) -> None:
        """Make a worker whose child has returned an iterator."""
        super().setUp()
        self.worker = ProcessWorker(reactor=self.reactor)
        self.sender = self.child()
        self.process = self.sender.process
        self.sender.hello()
        self.iterating = self.task()
        self.done = self.worker.run(self.iterating)
        self.sender.iterator(1)
        self.reactor.serve()
        self.process.received()

    def begin(self, *items: Any) -> Deferator[Any]:
        """Have the first items come. Returns what the task's result is."""
        self.sender.items(1, *items)
        self.reactor.serve()
        status, deferator = self.successResultOf(self.iterating.d)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(deferator, Deferator)
        found: Deferator[Any] = deferator
        return found

    def told(self) -> list[tuple[int, int]]:
        """Get what the child was told: kinds of frames, and the counts in them."""
        return [
            (kind, COUNT.unpack(payload)[0] if payload else 0)
            for kind, _, payload in self.process.received()
        ]

    def test_ready(self) -> None:
        """
        The worker is ready for another task as soon as it's known that there's an
        iterator. The result waits for the first item.
        """
        self.successResultOf(self.done)
        self.assertNoResult(self.iterating.d)
        self.begin(1)

    def test_empty(self) -> None:
        """If there's none, the result is an empty list."""
        self.process.send(Kind.END, 1)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(self.iterating.d), (Status.ITERATOR, []))

    def test_credit(self) -> None:
        """
        The child is told that half of the items were taken, then that all were, when
        the next one is asked for. It's told if this one is waited for.
        """
        deferator = self.begin(*range(16))
        for i in range(8):
            self.assertEqual(self.successResultOf(deferator.__anext__()), i)
        self.assertEqual(self.told(), [])
        for i in range(8, 16):
            self.assertEqual(self.successResultOf(deferator.__anext__()), i)
            self.assertEqual(self.told(), [(Kind.TAKEN, 8)] if i == 8 else [])
        d: Deferred[Any] = deferator.__anext__()
        self.assertNoResult(d)
        self.assertEqual(self.told(), [(Kind.TAKEN, 8 | WAITS)])
        deferator.stop()
        self.failureResultOf(d, StopAsyncIteration)

    def test_creditForMany(self) -> None:
        """However many it sends at once, it hears before all have been taken."""
        deferator = self.begin(*range(2_000))
        deferator.reactor = Clock()
        for i in range(1_000):
            self.assertEqual(self.successResultOf(deferator.__anext__()), i)
        told = self.told()
        self.assertEqual({kind for kind, _ in told}, {Kind.TAKEN})
        self.assertGreater(sum(count for _, count in told), 400)

    def test_creditForFew(self) -> None:
        """This is also so if it has sent few."""
        deferator = self.begin(0)
        self.assertEqual(self.successResultOf(deferator.__anext__()), 0)
        self.assertEqual(self.told(), [(Kind.TAKEN, 1 | WAITS)])

    def test_end(self) -> None:
        """The end comes after the items."""
        deferator = self.begin(1, 2)
        self.process.send(Kind.END, 1)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        self.assertEqual(self.successResultOf(deferator.__anext__()), 2)
        self.failureResultOf(deferator.__anext__(), StopAsyncIteration)
        deferator.stop()
        self.assertNotIn(Kind.CLOSE, [kind for kind, _ in self.told()])

    def test_fails(self) -> None:
        """A failure comes after the items, too."""
        deferator = self.begin(1)
        self.process.send(Kind.FAILED, 1, dumpsException(KeyError("x"), "text"))
        self.reactor.serve()
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        self.failureResultOf(deferator.__anext__(), KeyError)
        self.failureResultOf(deferator.__anext__(), StopAsyncIteration)

    def assertUnpicklable(self, bad: bytes) -> None:
        """
        Assert that an item that can't be unpickled is a failure, and that the child's
        iterator is closed.
        """
        deferator = self.begin(1)
        self.process.send(Kind.ITEMS, 1, dumpsPlain([2]) + bad)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        self.assertEqual(self.successResultOf(deferator.__anext__()), 2)
        self.failureResultOf(deferator.__anext__(), errors.SerializationError)
        self.assertIn((Kind.CLOSE, 0), self.told())

    def test_unpicklableItem(self) -> None:
        """
        An item that can't be unpickled here is a failure, and has the child's iterator
        closed.
        """
        self.assertUnpicklable(dumpsPlain(jobs.OnlyInChild()))

    def test_noItem(self) -> None:
        """So is what's no pickle at all."""
        self.assertUnpicklable(b"garbage")

    def test_stop(self) -> None:
        """
        If nobody wants the items, the child's iterator is closed. Items that are on
        their way are dropped.
        """
        deferator = self.begin(1)
        deferator.stop()
        self.assertEqual(self.told(), [(Kind.CLOSE, 0)])
        self.sender.items(1, 2)
        self.process.send(Kind.END, 1)
        self.reactor.serve()

    def test_abandoned(self) -> None:
        """This is also so if nobody has the deferator any longer."""
        deferator = self.begin(1)
        self.assertEqual(self.told(), [])
        self.iterating.d.addCallback(lambda _: None)
        del deferator
        self.assertEqual(self.told(), [(Kind.CLOSE, 0)])

    def test_lost(self) -> None:
        """
        When the child is lost, the iteration fails after the items that have come.
        """
        deferator = self.begin(1)
        self.process.end(3)
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        failure = self.failureResultOf(deferator.__anext__(), errors.WorkerLost)
        self.assertEqual(failure.value.exitCode, 3)
        deferator.stop()

    def test_lostBeforeFirst(self) -> None:
        """If none has, the task fails."""
        self.process.end(3)
        self.failureResultOf(self.iterating.d, errors.WorkerLost)


class NeighbourTests(WorkerCase):
    """Tests of tasks that are stopped in a child that is at others, too."""

    def setUp(self) -> None:
        """
        Make a worker with an iteration under way, and a call that its child is at.
        """
        super().setUp()
        self.worker = ProcessWorker(reactor=self.reactor)
        self.process, self.sender = self.reactor.processes[0], self.child()
        self.sender.hello()
        self.iterating, self.running = self.task(), self.task(jobs.echo, "guilty")
        self.worker.run(self.iterating)
        self.sender.iterator(1)
        self.sender.items(1, 1)
        self.reactor.serve()
        self.deferator = self.successResultOf(self.iterating.d)[1]
        self.ready = self.worker.run(self.running)
        self.process.begin()
        # Whoever cancels a task doesn't wait for it.
        self.running.d.addErrback(lambda _: None)

    def test_call(self) -> None:
        """
        A call is stopped by an exception, again and again until it's over. The child
        lives, and is ready for another.
        """
        self.log.take()
        self.worker.cancelTask(self.running)
        self.assertIn("guilty", self.log.take()[0])
        self.assertEqual(self.process.signals, ["URG"])
        self.reactor.advance(0.06)
        self.assertEqual(self.process.signals, ["URG"] * 2)
        self.assertNoResult(self.ready)
        self.sender.error(2, ValueError("stopped"))
        self.reactor.serve()
        self.successResultOf(self.ready)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        other = self.task()
        self.worker.run(other)
        self.sender.result(3, 5)
        self.sender.items(1, 2)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(other.d), (Status.RAN, 5))
        self.assertEqual([self.successResultOf(next(self.deferator))], [1])

    def test_stubborn(self) -> None:
        """If that doesn't help, the child is ended."""
        resigned: list[None] = []
        self.worker.setResignator(lambda: resigned.append(None))
        self.worker.cancelTask(self.running)
        for _ in range(12):
            self.reactor.advance(0.05)
        self.assertIn("TERM", self.process.signals)
        self.assertEqual(resigned, [None])
        self.process.end(None, 15)
        self.assertNoResult(self.running.d)

    def test_waitsMeanwhile(self) -> None:
        """What is given to the worker meanwhile waits, and isn't lost."""
        self.worker.cancelTask(self.running)
        other = self.task()
        self.worker.run(other)
        self.sender.error(2, ValueError("stopped"))
        self.reactor.serve()
        self.sender.result(3, 5)
        self.reactor.serve()
        self.assertEqual(self.successResultOf(other.d), (Status.RAN, 5))

    def test_notBegun(self) -> None:
        """A call that the child hasn't come to is only taken back."""
        self.sender.result(2, None)
        self.reactor.serve()
        waiting = self.task()
        ready = self.worker.run(waiting)
        self.reactor.advance(10)
        self.worker.cancelTask(waiting)
        self.successResultOf(ready)
        self.assertEqual(self.process.signals, [])
        self.assertFalse(self.process.claim(3))

    def test_slowIteration(self) -> None:
        """So is an iteration stopped that has given nothing yet, beside a call."""
        self.sender.result(2, None)
        slow = self.task()
        self.reactor.serve()
        self.worker.run(slow)
        self.sender.iterator(3)
        self.reactor.serve()
        self.worker.cancelTask(slow)
        self.assertEqual(self.process.signals, ["URG"])
        self.assertIn((Kind.CLOSE, 3), [it[:2] for it in self.process.received()])
        self.process.send(Kind.END, 3)
        self.reactor.serve()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_abandonedIteration(self) -> None:
        """
        An iteration that nobody wants is closed, and stopped by an exception if it's in
        the midst of an item for long. The child isn't ended for that.
        """
        self.deferator.stop()
        self.assertEqual([it[:2] for it in self.process.received()], [(Kind.CLOSE, 1)])
        self.reactor.advance(0.4)
        self.assertEqual(self.process.signals, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.process.signals, ["URG"])
        self.process.send(Kind.FAILED, 1, dumpsException(ValueError(), "text"))
        self.reactor.serve()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_unresponsive(self) -> None:
        """
        A child that has nothing else to do, and doesn't come to a task in time, is
        ended when that is cancelled.
        """
        worker = ProcessWorker(reactor=self.reactor)
        worker.setResignator(list)
        self.child().hello()
        self.reactor.serve()
        tasks = [self.task(), self.task()]
        for task in tasks:
            worker.run(task)
        worker.cancelTask(tasks[1])
        self.assertEqual(self.reactor.processes[1].signals, [])
        worker._jobs.jobs[0].since -= 1
        worker.cancelTask(tasks[0])
        self.assertEqual(self.reactor.processes[1].signals, ["TERM"])


class ReplacementTests(WorkerCase):
    """Tests of what comes in place of a lost worker."""

    def lose(self, **kw: Any) -> ProcessWorker:
        """Make a worker, and end its child before it was ready."""
        worker = ProcessWorker(reactor=self.reactor, **kw)
        self.reactor.advance(10)
        self.reactor.processes[-1].end(1)
        return worker

    def test_like(self) -> None:
        """It's like the one before."""
        worker = ProcessWorker(
            ["mine"], True, True, True, env={"A": "b"}, reactor=self.reactor
        )
        self.child().hello()
        self.reactor.serve()
        worker.updatesApplied(None)
        self.reactor.processes[-1].end(1)
        other = worker.replacement()
        self.assertEqual(other.iQualified, ["mine"])
        self.assertTrue(other.raw and other.callStats and other.useReactor)
        self.assertEqual(len(self.reactor.processes), 2)
        env = self.reactor.processes[-1].env
        self.assertEqual(env and env["A"], "b")
        self.assertEqual(
            self.reactor.processes[-1].args[-1], "twisted.internet.default"
        )

    def test_atOnce(self) -> None:
        """It's started at once if the one before had been ready."""
        worker = ProcessWorker(reactor=self.reactor)
        self.child().hello()
        self.reactor.serve()
        worker.updatesApplied(None)
        self.reactor.processes[-1].end(1)
        worker.replacement()
        self.assertEqual(len(self.reactor.processes), 2)

    def test_later(self) -> None:
        """Else it's started after a while, and takes tasks until then."""
        other = self.lose().replacement()
        self.assertEqual(len(self.reactor.processes), 1)
        self.assertIsNone(other.process.pid)
        self.assertIsNone(other.memUsage())
        task = self.task()
        other.run(task)
        self.reactor.advance(0.2)
        self.assertEqual(len(self.reactor.processes), 2)
        kinds = [kind for kind, _, _ in self.reactor.processes[-1].received()]
        self.assertEqual(kinds, [Kind.SETUP, Kind.CALL])
        self.assertEqual(other.crash(), [task])

    def test_laterStopped(self) -> None:
        """It can be told to stop before that."""
        for stop in ("stop", "crash"):
            config = ChildConfig(ChildOptions.checked(), RestartPolicy())
            other = self.lose(_config=config).replacement()
            gone = other.deferUntilGone()
            getattr(other, stop)()
            self.successResultOf(gone)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_laterRefused(self) -> None:
        """If the system refuses to start it then, it resigns."""
        resigned: list[int] = []
        other = self.lose().replacement()
        other.setResignator(lambda: resigned.append(1))
        self.reactor.refusal = OSError("no more processes")
        self.reactor.advance(1)
        self.assertEqual(resigned, [1])

    def test_refused(self) -> None:
        """If the system refuses at once, there's an error that says so."""
        self.reactor.refusal = OSError("no more processes")
        error = self.assertRaises(
            errors.WorkerStartError, ProcessWorker, reactor=self.reactor
        )
        self.assertIn("no more processes", str(error))

    def test_givenUp(self) -> None:
        """After three that have failed to start, no other is made."""
        worker = self.lose()
        for _ in range(2):
            worker = worker.replacement()
            self.reactor.advance(10)
            self.reactor.processes[-1].write(b"Something is wrong\n", 2)
            self.reactor.processes[-1].end(1)
        error = self.assertRaises(errors.WorkerStartError, worker.replacement)
        self.assertIn("exit code 1", str(error))
        self.assertIn("Something is wrong", str(error))

    def test_givenUpSilently(self) -> None:
        """The error says what it can if the child has said nothing."""
        worker = self.lose()
        for _ in range(2):
            worker = worker.replacement()
            self.reactor.advance(10)
            self.reactor.processes[-1].end(1)
        error = self.assertRaises(errors.WorkerStartError, worker.replacement)
        self.assertTrue(str(error).endswith("exit code 1"), str(error))

    def test_cancelledDontCount(self) -> None:
        """Those that were ended on purpose while they started don't count."""
        worker = ProcessWorker(reactor=self.reactor)
        for _ in range(10):
            worker.crash()
            self.reactor.processes[-1].end(None, 15)
            worker = worker.replacement()
        self.assertEqual(len(self.reactor.processes), 11)


class QueueTests(WorkerCase):
    """Tests of L{ProcessQueue}."""

    def queue(self, N: int = 1, **kw: Any) -> ProcessQueue:
        """Make a queue whose children are ready."""
        q = ProcessQueue(N, reactor=self.reactor, **kw)
        for i in range(N):
            self.child(i).hello()
        self.reactor.serve()
        return q

    def test_number(self) -> None:
        """It has as many workers as it's told."""
        q = self.queue(3)
        self.assertEqual(len(q), 3)
        self.assertEqual(len(self.reactor.processes), 3)
        q.shutdown()

    def test_numberOfCores(self) -> None:
        """By default, that's one for each core."""
        self.assertGreaterEqual(ProcessQueue.cores(), 1)
        q = ProcessQueue(reactor=self.reactor)
        self.assertEqual(len(q), ProcessQueue.cores())
        q.shutdown()

    def test_coresElsewhere(self) -> None:
        """Where the system doesn't tell which cores may be used, all are counted."""
        self.patch(os, "cpu_count", lambda: 7)
        if hasattr(os, "sched_getaffinity"):
            before = os.sched_getaffinity
            del os.sched_getaffinity
            self.addCleanup(setattr, os, "sched_getaffinity", before)
        self.assertEqual(ProcessQueue.cores(), 7)
        self.patch(os, "cpu_count", lambda: None)
        self.assertEqual(ProcessQueue.cores(), 1)

    def test_none(self) -> None:
        """It may be none: workers are attached later."""
        self.assertEqual(len(ProcessQueue(0, reactor=self.reactor)), 0)

    def test_oneTooMany(self) -> None:
        """If not all children can be started, those that were are killed."""
        start = self.reactor.spawnProcess

        def refuse(*args: Any, **kw: Any) -> Any:
            if len(self.reactor.processes) == 3:
                raise OSError("no more processes")
            return start(*args, **kw)

        self.patch(self.reactor, "spawnProcess", refuse)
        self.assertRaises(
            errors.WorkerStartError, ProcessQueue, 4, reactor=self.reactor
        )
        self.assertEqual(
            [process.signals for process in self.reactor.processes], [["KILL"]] * 3
        )

    def test_badNumber(self) -> None:
        """A number that's none is refused, before anything is started."""
        for bad, kind in ((-1, ValueError), ("2", TypeError)):
            error = self.assertRaises(kind, ProcessQueue, bad, reactor=self.reactor)
            self.assertIn(str(bad), str(error))
        self.assertRaises(TypeError, ProcessQueue, True, reactor=self.reactor)
        self.assertEqual(self.reactor.processes, [])

    def test_cannotBeMade(self) -> None:
        """If it can't be made, nothing is left of it."""
        spawn = self.reactor.spawnProcess

        def spawnOne(*args: Any, **kw: Any) -> Any:
            if self.reactor.processes:
                raise OSError("no more processes")
            return spawn(*args, **kw)

        self.patch(self.reactor, "spawnProcess", spawnOne)
        self.assertRaises(
            errors.WorkerStartError, ProcessQueue, 2, reactor=self.reactor
        )
        self.reactor.advance(0)
        self.assertEqual(self.reactor.processes[0].signals, ["KILL"])

    def test_badSeries(self) -> None:
        """This is also so if its series can't be any."""
        bad: Any = [[]]
        self.assertRaises(TypeError, ProcessQueue, 2, series=bad, reactor=self.reactor)
        self.assertEqual(
            [process.signals for process in self.reactor.processes], [["KILL"]]
        )

    def test_call(self) -> None:
        """Calls are run by the children."""
        q = self.queue()
        d = q.call(divmod, 7, 2)
        self.child().result(1, (3, 1))
        self.reactor.serve()
        self.assertEqual(self.successResultOf(d), (3, 1))
        q.shutdown()

    def test_stats(self) -> None:
        """The times of the calls of all children are in one list."""
        q = self.queue(2, callStats=True)
        for _ in range(2):
            q.call(jobs.nothing)
        for i in range(2):
            self.child(i).result(1, None, float(i))
        self.reactor.serve()
        stats = self.successResultOf(q.stats())
        self.assertEqual([there for _, there in stats], [0.0, 1.0])
        q.shutdown()

    def test_crashWorkers(self) -> None:
        """
        When all children have been killed, the tasks they had are in one list, and
        their calls have failed.
        """
        q = self.queue(2)
        calls = [q.call(jobs.nothing) for _ in range(2)]
        d = q.crashWorkers()
        self.assertNoResult(d)
        for process in self.reactor.processes:
            self.assertEqual(process.signals, ["KILL"])
            process.end(None, 9)
        self.assertEqual(len(self.successResultOf(d)), 2)
        for call in calls:
            self.failureResultOf(call, errors.WorkerLost)
        self.assertEqual(len(q), 0)
        q.shutdown()

    def test_lost(self) -> None:
        """
        A child that's lost is replaced, and the call behind the one that was running
        goes to the new one.
        """
        q = self.queue()
        lost, other = q.call(jobs.nothing), q.call(jobs.echo)
        self.reactor.processes[0].begin()
        self.reactor.processes[0].end(3)
        self.failureResultOf(lost, errors.WorkerLost)
        self.assertEqual(len(q), 1)
        self.child().hello()
        self.child().result(1, "other")
        self.reactor.serve()
        self.assertEqual(self.successResultOf(other), "other")
        q.shutdown()

    def test_callBecauseOfLoss(self) -> None:
        """A call that is made because of the failure goes to the new child, too."""
        q = self.queue()
        d = q.call(jobs.nothing)
        d.addErrback(lambda failure: q.call(jobs.nothing))
        self.reactor.processes[0].end(3)
        self.child().hello()
        self.child().result(1, "again")
        self.reactor.serve()
        self.assertEqual(self.successResultOf(d), "again")
        q.shutdown()

    def test_callBecauseOfLostIteration(self) -> None:
        """This is also so where it was an iteration that has failed."""
        q = self.queue()
        d: Deferred[Any] = q.call(jobs.nothing)
        self.child().iterator(1)
        self.child().items(1, 1)
        self.reactor.serve()
        deferator = self.successResultOf(d)
        self.successResultOf(deferator.__anext__())
        waiting: Deferred[Any] = deferator.__anext__()
        waiting.addErrback(lambda failure: q.call(jobs.nothing))
        self.reactor.processes[0].end(3)
        self.child().hello()
        self.child().result(1, "again")
        self.reactor.serve()
        self.assertEqual(self.successResultOf(waiting), "again")
        q.shutdown()

    def test_cannotStart(self) -> None:
        """
        If children can't be started, the calls that wait fail, and there are no more
        attempts.
        """
        q = ProcessQueue(1, reactor=self.reactor)
        d = q.call(jobs.nothing)
        while not d.called:
            self.reactor.processes[-1].end(1)
            self.reactor.advance(1)
        self.failureResultOf(d, errors.WorkerStartError)
        self.assertEqual(len(self.reactor.processes), 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(q), 0)
        self.assertEqual(len(self.flushLoggedErrors(errors.WorkerStartError)), 1)
        q.shutdown()

    def test_avoidsIterations(self) -> None:
        """
        Calls go to children in which no iteration is under way, if there are such.
        """
        q = self.queue(2)
        one, other = self.reactor.processes
        iterating: Deferred[Any] = q.call(jobs.nothing)
        self.child(0).iterator(1)
        self.child(0).items(1, 1)
        self.reactor.serve()
        deferator = self.successResultOf(iterating)
        one.begin()
        for _ in range(3):
            q.call(jobs.nothing)
            [number] = other.begin()
            self.child(1).result(number, None)
            self.reactor.serve()
            self.assertEqual(one.begin(), [])
        deferator.stop()
        q.shutdown()

    def test_cancel(self) -> None:
        """Cancelling a call that runs has its child replaced."""
        q = self.queue()
        d = q.call(jobs.nothing)
        self.reactor.processes[0].begin()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.reactor.processes[0].signals, ["TERM"])
        self.assertEqual(len(self.reactor.processes), 2)
        q.shutdown()

    def test_timeout(self) -> None:
        """So does a call that takes too long."""
        q = self.queue()
        d = q.call(jobs.nothing, timeout=5, retries=0)
        self.reactor.processes[0].begin()
        self.reactor.advance(4)
        self.assertNoResult(d)
        self.reactor.advance(1)
        self.failureResultOf(d, errors.TimeoutError)
        self.assertEqual(self.reactor.processes[0].signals[0], "TERM")
        q.shutdown()

    def test_shutdownWaitsForCancelled(self) -> None:
        """A shutdown waits until children that were ended before have gone."""
        q = self.queue()
        call = q.call(jobs.nothing)
        self.reactor.processes[0].begin()
        call.cancel()
        self.failureResultOf(call, CancelledError)
        d = q.shutdown()
        self.reactor.processes[1].end()
        self.assertNoResult(d)
        self.reactor.processes[0].end(None, 15)
        self.assertEqual(self.successResultOf(d), [])

    def test_lostWhileStopping(self) -> None:
        """A child that is lost while the queue is being shut down isn't replaced."""
        q = self.queue()
        call = q.call(jobs.nothing)
        self.reactor.processes[0].begin()
        d = q.shutdown()
        self.reactor.processes[0].end(3)
        self.failureResultOf(call, errors.WorkerLost)
        self.assertEqual(self.successResultOf(d), [])
        self.assertEqual(len(self.reactor.processes), 1)


class StartsTests(SynchronousTestCase):
    """Tests of L{Starts}."""

    def test_delay(self) -> None:
        """The more starts fail, the longer it's waited, within bounds."""
        starts = RestartPolicy()
        self.assertEqual(starts.delay, 0)
        delays = []
        for _ in range(10):
            starts.failed(9)
            delays.append(starts.delay)
        self.assertEqual(delays, sorted(delays))
        self.assertGreater(delays[1], delays[0])
        self.assertLess(delays[-1], 1)

    def test_hopeless(self) -> None:
        """It's soon given up if they fail by themselves, and late if they're killed."""
        clock = Clock()
        starts = RestartPolicy(clock.seconds)
        for i in range(3):
            self.assertFalse(starts.exhausted, i)
            starts.failed(None)
        self.assertTrue(starts.exhausted)
        starts.succeeded()
        for i in range(40):
            self.assertFalse(starts.exhausted, i)
            starts.failed(9)
        clock.advance(29)
        self.assertFalse(starts.exhausted)
        clock.advance(1)
        self.assertTrue(starts.exhausted)
        starts.succeeded()
        starts.failed(9)
        clock.advance(60)
        self.assertFalse(starts.exhausted)


class MemoryTests(SynchronousTestCase):
    """Tests of L{residentSize}."""

    def test_nobody(self) -> None:
        """There's none if there's no such process."""
        self.assertIsNone(residentSize(1 << 30))

    def test_elsewhere(self) -> None:
        """Where the system has no such files, C{ps} is asked."""

        def noFile(*args: Any, **kw: Any) -> Any:
            raise FileNotFoundError

        class Ran:
            stdout = b" 1234\n"

        commands: list[Any] = []

        def run(command: Any, **kw: Any) -> Any:
            commands.append(command)
            return Ran

        self.patch(memory, "open", noFile) if hasattr(memory, "open") else setattr(
            memory, "open", noFile
        )
        self.addCleanup(lambda: vars(memory).pop("open", None))
        self.patch(subprocess, "run", run)
        self.assertEqual(residentSize(7), 1_234)
        self.assertEqual(commands[0][-1], "7")
        Ran.stdout = b""
        self.assertIsNone(residentSize(7))

    def test_whole(self) -> None:
        """It's in kB, and of the order that it's known to have."""
        size: Any = residentSize(os.getpid())
        self.assertTrue(5_000 < size < 5_000_000, size)


class Thing(ProcessBase):
    """An object with data in common."""

    def __init__(self, value: int) -> None:
        self.value = value


class OtherThing(ProcessBase):
    """An object of another class."""


class ProcessBaseTests(SynchronousTestCase):
    """Tests of L{ProcessBase}."""

    def setUp(self) -> None:
        """Leave nothing in the dict of this interpreter."""
        self.addCleanup(Thing(1).data.clear)

    def test_pid(self) -> None:
        """It tells which process it's in."""
        self.assertEqual(Thing(1).pid, os.getpid())

    def test_copies(self) -> None:
        """Copies have data in common."""
        thing = Thing(1)
        thing.data["x"] = 2
        copy = loads(dumpsPlain(thing))
        self.assertEqual((copy.value, copy.x), (1, 2))
        copy.data["y"] = 3
        self.assertEqual(thing.y, 3)

    def test_others(self) -> None:
        """So have objects of other subclasses: there's one dict in an interpreter."""
        Thing(1).data["x"] = 2
        self.assertEqual(OtherThing().x, 2)
        self.assertIs(OtherThing().data, Thing(1).data)

    def test_attributes(self) -> None:
        """
        An attribute of its own comes before data of that name. One that there isn't
        is an error that says so.
        """
        thing = Thing(1)
        thing.data["value"] = 2
        self.assertEqual(thing.value, 1)
        error = self.assertRaises(AttributeError, getattr, thing, "missing")
        self.assertIn("missing", str(error))
        self.assertIn("Thing", str(error))
        self.assertFalse(hasattr(thing, "__missing__"))


class ProgramTests(SynchronousTestCase):
    """Tests of the child's program."""

    def test_quiet(self) -> None:
        """
        Importing it, which nobody does but tools that look at all modules, does
        nothing.
        """
        before = signal.getsignal(signal.SIGINT)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        path = Path(protocol.__file__).with_name("child.py")
        space: dict[str, Any] = {"__name__": "child", "__file__": str(path)}
        exec(compile(path.read_text(encoding="utf-8"), path, "exec"), space)
        self.assertIn("sys", space)
