"""
Queues whose observers act on them, under schedules of events in random order: whatever
they do, each call has one result, and the shutdown comes to its end.

Each schedule comes from a seed, which is part of the message if something is wrong.
"""

from __future__ import annotations

import logging
import random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue import TaskQueue
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.events import EventKind
from asynqueue.testing import MemoryWorker

from ._cases import same

#: So many schedules, of so many events.
SEEDS = 1_000
EVENTS = 40

#: Seconds until whatever waits for time has had it, in steps of a tenth.
ENOUGH = 60


class Worker(MemoryWorker):
    """A worker that notes what it shouldn't have been given."""

    def __init__(self, wrong: list[str], series: list[Any], capacity: int) -> None:
        super().__init__(series, capacity=capacity)
        self.wrong = wrong
        self.hasCrashed = False

    def run(self, task: Any) -> Any:
        """Accept a task."""
        if not self.hired:
            self.wrong.append(f"{task} was given to a worker that was let go")
        if task.hasResult:
            self.wrong.append(f"{task} was run though it has its result")
        return super().run(task)

    def crash(self) -> Any:
        """Crash: it goes on with nothing."""
        self.hasCrashed = True
        return super().crash()


class Schedule:
    """One schedule. What C{do} methods do, observers may do, too, but for the first."""

    # Observers that act make others act: not deeper than _depth says.

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.wrong: list[str] = []
        self.workers = [self.worker() for _ in range(3)]
        delays: list[Any] = [0, 0.5, self.delay]
        limits: list[Any] = [None, {"a": 1}]
        self.q = TaskQueue(
            *self.workers,
            retries=self.random.choice([0, 2]),
            retryDelay=self.random.choice(delays),
            limits=self.random.choice(limits),
            reactor=self.clock,
        )
        self.calls: list[Any] = []
        self.results: list[list[Any]] = []
        self._depth = 0
        self.q.addObserver(self.hear, list(EventKind))

    def worker(self) -> Worker:
        """Make a worker."""
        series = [each for each in "ab" if self.random.random() < 0.5]
        return Worker(self.wrong, series, self.random.choice([1, 2]))

    def busy(self) -> list[Worker]:
        """List the workers that have tasks."""
        return [each for each in self.workers if each.running and not each.hasCrashed]

    def delay(self, attempt: int) -> float:
        """Tell after how long there's another attempt, and perhaps cancel a call."""
        if self.random.random() < 0.3:
            self.doCancel()
        return 0.5 * attempt

    def hear(self, event: Any) -> None:
        """Perhaps act, when something has happened."""
        if self._depth < 3 and self.random.random() < 0.25:
            self._depth += 1
            try:
                self.act()
            finally:
                self._depth -= 1

    def act(self) -> None:
        """Do anything."""
        getattr(self, self.random.choice(ACTIONS))()

    def step(self) -> None:
        """Have a worker go on, or time pass, or act from outside."""
        busy = self.busy()
        choice = self.random.random()
        if busy and choice < 0.4:
            worker = self.random.choice(busy)
            if choice < 0.3:
                worker.step(self.random.choice(worker.running))
            else:
                worker.lose(WorkerLost("gone"))
        elif choice < 0.7:
            self.doCall()
        elif choice < 0.8:
            self.clock.advance(0.5)
        else:
            self.act()

    def doCall(self) -> None:
        """Make a call."""
        series = self.random.choice([None, "a", "b", "nobody"])
        timeout = self.random.choice([None, None, 0.3])
        try:
            d = self.q.call(same, series=series, timeout=timeout)
        except QueueRunError:
            return
        results: list[Any] = []
        self.calls.append(d.addBoth(results.append))
        self.results.append(results)

    def doCancel(self) -> None:
        """Cancel a call."""
        if self.calls:
            self.random.choice(self.calls).cancel()

    def doCancelAll(self) -> None:
        """Cancel all that waits."""
        self.q.cancelAll()

    def doPause(self) -> None:
        """Pause the queue, or have it go on."""
        if self.q.isRunning() and not self.q.isPaused():
            self.q.pause()
        else:
            self.q.resume()

    def doDetach(self) -> None:
        """Let a worker go, and perhaps don't wait for that."""
        if len(self.q):
            crash, reassign, wait = (self.random.random() < 0.5 for _ in range(3))
            worker = self.random.choice(self.q.workers())
            d = self.q.detachWorker(worker, crash=crash, reassign=reassign)
            d.addErrback(lambda _: None)
            if not wait:
                d.cancel()

    def doResign(self) -> None:
        """Have a worker resign."""
        if len(self.q):
            self.random.choice(self.q.workers()).resign()

    def doAttach(self) -> None:
        """Employ another worker."""
        if self.q.isRunning():
            self.workers.append(self.worker())
            self.q.attachWorker(self.workers[-1])

    def doShutDown(self) -> None:
        """Shut the queue down, seldom."""
        if self.random.random() < 0.2:
            self.q.shutdown(drain=self.random.random() < 0.5)

    def run(self) -> str:
        """Run it. Returns what is wrong in the end, nothing if all is well."""
        for _ in range(EVENTS):
            self.step()
        ends: list[Any] = []
        self.q.shutdown(
            drain=self.random.random() < 0.5,
            timeout=self.random.choice([None, 2.0]),
        ).addBoth(ends.append)
        for _ in range(10 * ENOUGH):
            for worker in self.workers:
                if worker in self.busy():
                    worker.step()
            self.clock.advance(0.1)
            if ends and not self.clock.getDelayedCalls():
                break
        wrong = self.wrong
        if not ends:
            wrong.append("the shutdown goes on")
        wrong += [
            f"call {i} has {len(results)} results"
            for i, results in enumerate(self.results)
            if len(results) != 1
        ]
        if self.q.q.loadInfoProducer.queued:
            wrong.append(f"the load is {self.q.q.loadInfoProducer.queued}")
        if self.clock.getDelayedCalls():
            wrong.append(f"{self.clock.getDelayedCalls()} are left")
        return ", ".join(wrong)


ACTIONS = [name for name in vars(Schedule) if name.startswith("do")]


class ObserverModelTests(SynchronousTestCase):
    """Tests of observers that act."""

    def test_schedules(self) -> None:
        """Whatever they do, nothing is lost."""
        quiet = logging.NullHandler()
        logging.getLogger("asynqueue").addHandler(quiet)
        self.addCleanup(logging.getLogger("asynqueue").removeHandler, quiet)
        wrong = {seed: Schedule(seed).run() for seed in range(SEEDS)}
        self.assertEqual({seed: text for seed, text in wrong.items() if text}, {})
