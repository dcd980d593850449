"""Tests of the waiting tasks."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.tasks._backlog import Backlog
from asynqueue.tasks._task import Task

from ._cases import task


class BacklogTests(SynchronousTestCase):
    """Tests of L{Backlog}."""

    def setUp(self) -> None:
        """Make a backlog."""
        self.backlog = Backlog()

    def put(self, *priorities: float, series: Any = None) -> list[Task]:
        """Put a task of each priority in."""
        jobs = [task(priority=priority, series=series) for priority in priorities]
        for job in jobs:
            self.backlog.put(job)
        return jobs

    def pop(self, *series: Any) -> Task | None:
        """Take out the first task of some series, by default of C{None}."""
        return self.backlog.take(dict.fromkeys(series or (None,)))

    def popAll(self, *series: Any) -> list[Task]:
        """Take out all tasks of some series."""
        jobs: list[Task] = []
        while (job := self.pop(*series)) is not None:
            jobs.append(job)
        return jobs

    def cancel(self, jobs: list[Task]) -> None:
        """Cancel tasks."""
        for job in jobs:
            job.d.cancel()
            self.failureResultOf(job.d, CancelledError)

    def test_empty(self) -> None:
        """There's nothing in a new one."""
        self.assertIsNone(self.pop())
        self.assertEqual((self.backlog.size, self.backlog.series()), (0, []))

    def test_order(self) -> None:
        """
        Tasks come out by priority, those of the same in the order of their making.
        """
        jobs = self.put(3, 1, 2, 1, 3)
        self.assertEqual(self.popAll(), [jobs[n] for n in (1, 3, 2, 0, 4)])

    def test_again(self) -> None:
        """
        A further attempt comes before tasks of the same priority that were made after
        the first.
        """
        first, second = self.put(1, 1)
        self.pop()
        again = first.nextAttempt()
        self.backlog.put(again)
        self.assertEqual(self.popAll(), [again, second])

    def test_anyOrder(self) -> None:
        """
        The order is right for any mixture of putting in, taking out and cancelling.
        """
        rng = random.Random(20240)
        model: list[Task] = []
        for _ in range(4000):
            action = rng.random()
            if action < 0.5 or not model:
                priority = rng.choice([len(model), rng.randint(-5, 5), rng.random()])
                model += self.put(priority, series=rng.choice("ab"))
            elif action < 0.9:
                series = rng.choice([["a"], ["b"], ["a", "b"], ["c", "b"]])
                wanted = [job for job in model if job.series in series]
                job = self.pop(*series)
                self.assertIs(job, min(wanted) if wanted else None)
                if job is not None:
                    model.remove(job)
            else:
                job = rng.choice(model)
                model.remove(job)
                self.cancel([job])
            self.assertEqual(self.backlog.size, len(model))
        self.assertEqual(self.popAll("a", "b"), sorted(model))

    def test_series(self) -> None:
        """
        Only tasks of the series that are asked for come out, the first among them.
        """
        a, b, _ = (self.put(p, series=s)[0] for p, s in ((2, "a"), (1, "b"), (0, "c")))
        self.assertIs(self.pop("a", "b"), b)
        self.assertIs(self.pop("a", "b"), a)
        self.assertIsNone(self.pop("a", "b"))
        self.assertEqual(self.backlog.size, 1)

    def test_owner(self) -> None:
        """The backlog is the owner of its tasks, until they come out."""
        job = self.put(1)[0]
        self.assertIs(job.owner, self.backlog)
        self.pop()
        self.assertIsNone(job.owner)

    def test_seriesThatWait(self) -> None:
        """
        The series can be told that any task waits of, and which that is, without those
        that were cancelled.
        """
        self.put(1, 2, 0, series="a")
        self.cancel(self.put(1, series="b"))
        cancelled, waiting = self.put(1, 2, series="c")
        self.cancel([cancelled])
        self.assertEqual(self.backlog.series(), ["a", "c"])
        self.assertIs(self.backlog.first("c"), waiting)
        self.assertIsNone(self.backlog.first("b"))

    def test_cancelled(self) -> None:
        """A task that is cancelled is gone at once."""
        jobs = self.put(1, 2, 3)
        self.cancel([jobs[0], jobs[1]])
        self.assertEqual(self.backlog.size, 1)
        self.assertEqual(self.popAll(), [jobs[2]])

    def test_cancelledAreFreed(self) -> None:
        """Cancelled tasks that never come up don't stay for ever."""
        first = self.put(0)
        jobs = self.put(*range(1000))
        self.put(*range(500, 600), series="other")
        self.cancel(jobs)
        self.assertLess(len(self.backlog._tasks(None)), 200)
        self.assertEqual(self.popAll(), first)

    def test_lateResult(self) -> None:
        """A waiting task that gets a result after all is gone, and counted once."""
        first, second = self.put(1, 2)
        first.callback((b"r", None))
        self.assertEqual(self.backlog.size, 1)
        self.assertEqual(self.popAll(), [second])
        self.assertEqual(self.backlog.size, 0)

    def test_remove(self) -> None:
        """
        All tasks that are selected are taken out, in their order, and nobody has them
        then.
        """
        jobs = self.put(*range(10), 0)
        removed = self.backlog.remove(lambda job: job.priority % 2 == 0)
        self.assertEqual(removed, [jobs[n] for n in (0, 10, 2, 4, 6, 8)])
        self.assertEqual({job.owner for job in removed}, {None})
        self.assertEqual(self.backlog.size, 5)
        self.assertEqual(self.popAll(), jobs[1:10:2])

    def test_removeAll(self) -> None:
        """Taking out everything leaves nothing, and cancelled tasks aren't among it."""
        a, b = self.put(1, series="a"), self.put(1, series="b")
        self.cancel(self.put(5, series="b"))
        self.assertEqual(self.backlog.remove(lambda job: True), a + b)
        self.assertEqual((self.backlog.size, self.backlog.series()), (0, []))

    def test_accepterHears(self) -> None:
        """
        Who waits for a task to be accepted hears when it's cancelled or taken out.
        """
        jobs = self.put(1, 2)
        for job in jobs:
            job.accepting = Deferred()
        accepted = [job.accepting for job in jobs]
        self.cancel(jobs[:1])
        self.backlog.remove(lambda job: True)
        self.assertEqual(
            [self.successResultOf(d) for d in accepted if d is not None], [None, None]
        )

    def test_removedByOneAnother(self) -> None:
        """Tasks are counted once though taking out one leads to cancelling another."""
        first, second = self.put(1, 2)
        first.accepting = Deferred()
        first.accepting.addCallback(lambda _: second.d.cancel())
        self.backlog.remove(lambda job: True)
        self.failureResultOf(second.d, CancelledError)
        self.assertEqual(self.backlog.size, 0)

    def test_manySeries(self) -> None:
        """The first is found among few series of many, and among many of few."""
        jobs = [self.put(n, series=n)[0] for n in range(100)]
        self.assertIs(self.pop(70, 30), jobs[30])
        self.backlog.remove(lambda job: job.series != 70)
        self.assertIs(self.pop(*range(100)), jobs[70])

    def test_onShrink(self) -> None:
        """Who wants to know is told when tasks were cancelled or removed."""
        sizes: list[int] = []
        self.backlog.onShrink = lambda: sizes.append(self.backlog.size)
        jobs = self.put(1, 2, 3)
        self.cancel(jobs[:1])
        self.backlog.remove(lambda job: job is jobs[1])
        self.assertEqual(sizes, [2, 1])

    def test_unhashable(self) -> None:
        """A task of a series that isn't hashable isn't put in."""
        job = task(series=[])
        self.assertRaises(TypeError, self.backlog.put, job)
        self.assertIsNone(job.owner)
        self.assertEqual(self.backlog.size, 0)
