"""
The core under schedules of events in random order, beside a model of what may come of
them.

Each schedule comes from a seed, which is part of the message if something is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import TaskQueue, errors
from asynqueue.testing import MemoryWorker

from ._cases import same

#: So many schedules, of so many events.
SEEDS = 400
EVENTS = 60

#: Seconds that the queue gives to workers that are to stop.
TIMEOUT = 5.0


class Broken(Exception):
    """What tasks raise."""


class Call:
    """
    A call, as the model knows it.

    @ivar number: Its number, which is its argument.

    @ivar options: Its options.

    @ivar results: What its Deferred has fired with.

    @ivar begun: How many workers have accepted it.

    @ivar allowed: How many may, by what has happened to it.
    """

    def __init__(self, number: int, options: dict[str, Any]) -> None:
        self.number = number
        self.options = options
        self.results: list[Any] = []
        self.begun = 0
        self.allowed = 1
        self.d: Deferred[Any] = succeed(None)

    @property
    def retries(self) -> int:
        """How many further attempts it has."""
        retries: int = self.options.get("retries", 0)
        return retries

    def note(self, result: Any) -> None:
        """Take a result."""
        self.results.append(result.value if isinstance(result, Failure) else result)


class Worker(MemoryWorker):
    """A worker that tells the model what it's given."""

    def __init__(self, model: Model, series: list[Any], capacity: int) -> None:
        super().__init__(series, capacity=capacity)
        self.model = model
        self.fresh: list[Any] = []

    def run(self, task: Any) -> Any:
        """Accept a task."""
        self.model.accepted(self, task)
        return super().run(task)


class Model:
    """A queue under test, and what is known of it."""

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.case = case
        self.random = random.Random(seed)
        self.clock = Clock()
        self.q = TaskQueue(timeout=TIMEOUT, reactor=self.clock)
        self.calls: dict[int, Call] = {}
        self.updates: list[list[Any]] = []
        self.stored: list[int] = []
        self.hired: list[Worker] = []
        self.leaving: list[Worker] = []
        self.departures: list[list[Any]] = []
        self.shutdowns: list[list[Any]] = []
        self.history: list[str] = []
        # What may become of calls while time passes, or workers go.
        self.passing: tuple[type[Exception], ...] = ()

    def accepted(self, worker: Worker, task: Any) -> None:
        """Note that a worker has accepted a task."""
        kind, number = task.callTuple[1]
        if kind == "update":
            return
        call = self.calls[number]
        call.begun += 1
        self.case.assertEqual(call.results, [], "a task is run though it has a result")
        self.case.assertIn(worker, self.hired, "a task for a worker that isn't hired")
        self.case.assertEqual(
            [t for t in worker.fresh if not t.d.called], [], "a task before updates"
        )
        for other in self.hired + self.leaving:
            self.case.assertNotIn(
                ("call", number),
                [t.callTuple[1] for t in other.running],
                "a task is run twice at a time",
            )

    def running(self) -> list[tuple[Worker, Any]]:
        """
        List the tasks that workers are running, in pairs of the worker and the task.
        """
        return [(w, t) for w in self.hired + self.leaving for t in w.running]

    def isCall(self, task: Any) -> bool:
        """Tell whether a task is of a call. Else it's an update."""
        return bool(task.callTuple[1][0] == "call")

    # What can happen.

    def doCall(self) -> None:
        """Make a call."""
        options: dict[str, Any] = {"niceness": self.random.randrange(-20, 21)}
        if self.random.random() < 0.3:
            options["series"] = self.random.choice(["a", "b"])
        if self.random.random() < 0.3:
            options["timeout"] = self.random.choice([1.0, 3.0])
        if self.random.random() < 0.3:
            options["retries"] = self.random.randrange(3)
        if self.random.random() < 0.2:
            options["retryDelay"] = 0.5
        if self.random.random() < 0.1:
            options[self.random.choice(["doNext", "doLast"])] = True
        call = Call(len(self.calls), options)
        self.calls[call.number] = call
        if not self.q.isRunning():
            self.case.assertRaises(
                errors.QueueRunError, self.q.call, same, "call", call.number
            )
            call.note(None)
            return
        call.d = self.q.call(pair, "call", call.number, **options).addBoth(call.note)

    def doHire(self) -> None:
        """Attach a worker."""
        if not self.q.isRunning() or len(self.hired) > 4:
            return
        series = self.random.sample(["a", "b"], self.random.randrange(3))
        worker = Worker(self, series, self.random.choice([1, 1, 2]))
        self.hired.append(worker)
        self.q.attachWorker(worker)
        worker.fresh = [t for t in worker.accepted if not self.isCall(t)]
        self.case.assertEqual(
            [t.callTuple[1][1] for t in worker.fresh], self.stored, "stored updates"
        )

    def doDetach(self) -> None:
        """Let a worker go, in one way or another."""
        if not self.hired:
            return
        worker = self.random.choice(self.hired)
        crash, reassign = self.random.random() < 0.5, self.random.random() < 0.5
        self.hired.remove(worker)
        self.leaving.append(worker)
        before: list[Any] = [t for t in worker.running if self.isCall(t)]
        if crash and not reassign:
            self.passing = (errors.WorkerLost,)
        final = [self.calls[t.callTuple[1][1]] for t in before]
        for t in before:
            call = self.calls[t.callTuple[1][1]]
            if reassign or t.attempt < call.retries:
                call.allowed += 1
                final.remove(call)
        fired: list[Any] = []
        self.departures.append(fired)
        self.q.detachWorker(worker, reassign, crash).addBoth(fired.append)
        if crash and not reassign:
            for call in final:
                [result] = call.results
                self.case.assertIsInstance(result, errors.WorkerLost)

    def doResign(self) -> None:
        """Have a worker resign."""
        if not self.hired:
            return
        worker = self.random.choice(self.hired)
        for t in worker.running:
            if self.isCall(t):
                self.calls[t.callTuple[1][1]].allowed += 1
        self.hired.remove(worker)
        worker.resign()

    def doWithdraw(self) -> None:
        """
        Withdraw a worker's request, by cancelling it or by firing it without a task.
        The worker requests again in the reactor's next turn.
        """
        requests = [
            request
            for worker in self.hired
            for line in worker.assignments.values()
            for request in line
        ]
        if requests:
            request = self.random.choice(requests)
            if self.coin():
                request.cancel()
            else:
                request.callback(None)
            self.clock.advance(0)

    def doComplete(self) -> None:
        """Have a task come to its result."""
        for worker, task in self.one():
            worker.complete(("result", task.callTuple[1][1]), task, self.coin())
            self.came(task, ("result", task.callTuple[1][1]))

    def doFail(self) -> None:
        """Have a task fail."""
        for worker, task in self.one():
            error = Broken(task.callTuple[1][1])
            worker.fail(error, task, self.coin())
            self.came(task, error)

    def doLose(self) -> None:
        """Have a worker say that it has lost a task, which it may have begun."""
        for worker, task in self.one():
            self.again(worker, task, errors.WorkerLost("lost"))

    def doDisconnect(self) -> None:
        """Have a worker say that it has not run a task."""
        for worker, task in self.one():
            if self.isCall(task):
                self.calls[task.callTuple[1][1]].allowed += 1
            draining = not self.q.isRunning()
            self.passing = (errors.WorkerError, errors.QueueStopped)
            worker.disconnect(task, self.coin())
            if self.isCall(task) and not draining:
                call = self.calls[task.callTuple[1][1]]
                if call.begun < 10:
                    self.case.assertEqual(call.results, [], "silently moved")

    def doReady(self) -> None:
        """Have a worker be ready after tasks that it has answered."""
        for worker in self.hired + self.leaving:
            while worker.busy > len(worker.running):
                done = [t for t in worker._unready if t not in worker.running]
                worker.ready(done[0])

    def doLate(self) -> None:
        """Have a worker answer a task that it has no longer: too late."""
        workers = [w for w in self.hired + self.leaving if w.accepted]
        if workers:
            worker = self.random.choice(workers)
            task: Any = self.random.choice(worker.accepted)
            if task not in worker.running and task.d.called:
                before = {n: list(c.results) for n, c in self.calls.items()}
                task.callback((b"r", "late"))
                after = {n: list(c.results) for n, c in self.calls.items()}
                self.case.assertEqual(before, after, "a late answer")

    def doCancel(self) -> None:
        """Cancel a call, which may have its result."""
        if not self.calls:
            return
        call = self.random.choice(list(self.calls.values()))
        had = list(call.results)
        call.d.cancel()
        if had:
            self.case.assertEqual(call.results, had, "cancelled too late")
        elif call.d.called:
            [error] = call.results
            self.case.assertIsInstance(error, CancelledError)

    def doCancelSeries(self) -> None:
        """Cancel what waits of a series."""
        self.passing = (CancelledError,)
        if self.q.isRunning():
            self.q.cancelSeries(self.random.choice([None, "a", "b"]))

    def doUpdate(self) -> None:
        """Make an update."""
        if not self.q.isRunning() or self.random.random() < 0.5:
            return
        number = len(self.updates)
        fired: list[Any] = []
        self.updates.append(fired)
        options: dict[str, Any] = {"ephemeral": self.coin(), "sequential": self.coin()}
        if not options["ephemeral"]:
            self.stored.append(number)
        self.q.update(pair, "update", number, **options).addBoth(fired.append)

    def doTime(self) -> None:
        """Let time pass."""
        self.passing = (errors.TimeoutError, errors.WorkerLost, errors.QueueStopped)
        for call in self.calls.values():
            if not call.results and call.retries:
                # Its time may be up, as often as it has attempts.
                call.allowed = max(call.allowed, call.begun + 1)
        for worker in self.leaving:
            for task in worker.running:
                if self.isCall(task):
                    # It may be crashed now.
                    self.calls[task.callTuple[1][1]].allowed += 1
        self.clock.advance(self.random.choice([0.25, 0.5, 1.0, 2.0]))

    def doShutDown(self) -> None:
        """Shut the queue down."""
        if self.random.random() < 0.8:
            return
        fired: list[Any] = []
        self.shutdowns.append(fired)
        self.passing = (errors.QueueStopped, errors.WorkerLost)
        self.q.shutdown(drain=self.coin()).addBoth(fired.append)
        self.noteShutDown()

    # What the events have in common.

    def coin(self) -> bool:
        """Toss a coin."""
        return self.random.random() < 0.5

    def one(self) -> list[tuple[Worker, Any]]:
        """
        Choose a running task: a list of one pair of a worker and a task, or of none.
        """
        running = self.running()
        return [self.random.choice(running)] if running else []

    def came(self, task: Any, result: Any) -> None:
        """Assert that a call has come to a result."""
        if self.isCall(task):
            call = self.calls[task.callTuple[1][1]]
            self.case.assertEqual(call.results, [result], "the result")

    def again(self, worker: Worker, task: Any, error: Exception) -> None:
        """Have a task be lost, which it may be as often as it has attempts."""
        if not self.isCall(task):
            worker.lose(error, task, self.coin())
            return
        call = self.calls[task.callTuple[1][1]]
        more = task.attempt < call.retries
        if more:
            call.allowed += 1
        running = self.q.isRunning()
        self.passing = (errors.QueueStopped,)
        worker.lose(error, task, self.coin())
        if not more:
            self.case.assertEqual(call.results, [error], "lost")
        elif running:
            self.case.assertEqual(call.results, [], "has an attempt left")

    def noteShutDown(self) -> None:
        """Note who is leaving."""
        employed = self.q.workers()
        for worker in list(self.hired):
            if worker not in employed:
                self.hired.remove(worker)
                self.leaving.append(worker)

    def step(self) -> None:
        """Have something happen, and look that all is well."""
        event = self.random.choice(EVENTS_OF_MODEL)
        self.history.append(event.__name__)
        self.passing = ()
        before = {n for n, call in self.calls.items() if call.results}
        event(self)
        self.noteShutDown()
        self.look(before)

    def look(self, before: set[int]) -> None:
        """
        Look that all is well. C{before} has the numbers of the calls that had a result
        before the last event.
        """
        case = self.case
        unfired = [call for call in self.calls.values() if not call.results]
        if self.passing and not self.q.isRunning():
            # No worker may be left for it.
            self.passing = (*self.passing, errors.QueueStopped)
        for call in self.calls.values():
            case.assertLessEqual(len(call.results), 1, "fired twice")
            case.assertLessEqual(call.begun, call.allowed, f"{call.number} begun often")
            if call.results and call.number not in before and self.passing:
                [result] = call.results
                if isinstance(result, Exception) and not isinstance(
                    result, (*self.passing, Broken, errors.WorkerLost, CancelledError)
                ):
                    case.fail(f"call {call.number} has come to {result!r}")
                if isinstance(result, errors.TimeoutError):
                    case.assertIn("timeout", call.options)
        case.assertEqual(len(self.q), len(self.hired), "workers")
        case.assertEqual(self.q.q.loadInfoProducer.queued, len(unfired), "load")
        on = {t.callTuple[1][1] for _, t in self.running() if self.isCall(t)}
        delayed = {t.callTuple[1][1] for t in self.q._results.delayed}
        waiting = [c for c in unfired if c.number not in on | delayed]
        case.assertEqual(self.q.th.waiting, len(waiting), "waiting")
        for worker in self.hired:
            if worker.busy >= worker.capacity:
                continue
            if any(not t.d.called for t in worker.fresh):
                continue
            could = [
                c.number
                for c in waiting
                if c.options.get("series") in [None, *worker.iQualified]
            ]
            case.assertEqual(could, [], "a worker idles")

    def end(self) -> None:
        """Shut down, and look that all has come to an end."""
        fired: list[Any] = []
        self.shutdowns.append(fired)
        self.q.shutdown(drain=self.coin()).addBoth(fired.append)
        for _ in range(4):
            self.clock.advance(TIMEOUT)
        case = self.case
        case.assertEqual(
            [c.number for c in self.calls.values() if len(c.results) != 1], []
        )
        for kind in (self.updates, self.departures, self.shutdowns):
            case.assertEqual([len(fired) for fired in kind], [1] * len(kind))
            for [result] in kind:
                case.assertIsInstance(result, list)
        case.assertEqual(self.clock.getDelayedCalls(), [])
        case.assertEqual((len(self.q), self.q.th.waiting), (0, 0))
        case.assertEqual(self.q.q.loadInfoProducer.queued, 0)


def pair(kind: str, number: int) -> tuple[str, int]:
    """Return the arguments."""
    return kind, number


EVENTS_OF_MODEL: list[Callable[[Model], None]] = [
    *[Model.doCall] * 6,
    *[Model.doComplete] * 4,
    *[Model.doReady] * 4,
    *[Model.doHire] * 2,
    *[Model.doTime] * 2,
    Model.doFail,
    Model.doLose,
    Model.doDisconnect,
    Model.doWithdraw,
    Model.doDetach,
    Model.doResign,
    Model.doLate,
    Model.doCancel,
    Model.doCancelSeries,
    Model.doUpdate,
    Model.doShutDown,
]


class ModelTests(SynchronousTestCase):
    """Tests of the core beside the model."""

    def test_schedules(self) -> None:
        """
        In whatever order workers are hired, go and crash, and calls are made, answered,
        cancelled, too slow and overtaken by the shutdown, every Deferred fires once,
        with what the model expects, and no worker idles while a call waits for it.
        """
        outcomes: set[str] = set()
        for seed in range(SEEDS):
            model = Model(self, seed)
            try:
                for _ in range(EVENTS):
                    model.step()
                model.end()
            except BaseException as error:
                trail = " ".join(name.removeprefix("do") for name in model.history)
                raise self.failureException(
                    f"seed {seed}, after {trail}: {error}"
                ) from error
            outcomes |= {
                type(result).__name__
                for call in model.calls.values()
                for result in call.results
            }
        # All of it has been tried.
        self.assertLessEqual(
            {"tuple", "Broken", "CancelledError", "TimeoutError", "WorkerLost"}
            | {"QueueStopped"},
            outcomes,
        )
