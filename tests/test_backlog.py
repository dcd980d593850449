"""
Tests of the waiting tasks.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.tasks._backlog import Backlog
from asynqueue.tasks._task import Task

from ._cases import task


class BacklogTests(SynchronousTestCase):
    """
    Tests of L{Backlog}.
    """

    def setUp(self) -> None:
        """
        Make a backlog.
        """
        self.backlog = Backlog()

    def put(self, *priorities: float, series: Any = None) -> list[Task]:
        """
        Put tasks in.

        @param priorities: A priority for each.

        @param series: The series of all.

        @return: The tasks.
        """
        jobs = [task(priority=priority, series=series) for priority in priorities]
        for job in jobs:
            self.backlog.put(job)
        return jobs

    def popAll(self, *series: Any) -> list[Task]:
        """
        Take out all tasks of some series.

        @param series: The series, C{None} if there's none.

        @return: The tasks.
        """
        jobs = []
        while (job := self.backlog.pop(series or (None,))) is not None:
            jobs.append(job)
        return jobs

    def cancel(self, jobs: list[Task]) -> None:
        """
        Cancel tasks.

        @param jobs: The tasks.
        """
        for job in jobs:
            job.d.cancel()
            self.failureResultOf(job.d, CancelledError)

    def test_empty(self) -> None:
        """
        There's nothing in a new one.
        """
        self.assertIsNone(self.backlog.pop([None]))
        self.assertEqual((len(self.backlog), self.backlog.sizes()), (0, {}))
        self.assertEqual(self.backlog.waiting(), [])

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
        self.backlog.pop([None])
        again = first.again()
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
                job = self.backlog.pop(series)
                self.assertIs(job, min(wanted) if wanted else None)
                if job is not None:
                    model.remove(job)
            else:
                job = rng.choice(model)
                model.remove(job)
                self.cancel([job])
            self.assertEqual(len(self.backlog), len(model))
        self.assertEqual(self.popAll("a", "b"), sorted(model))

    def test_series(self) -> None:
        """
        Only tasks of the series that are asked for come out, the first among them.
        """
        a, b, _ = (self.put(p, series=s)[0] for p, s in ((2, "a"), (1, "b"), (0, "c")))
        self.assertIs(self.backlog.pop(["a", "b"]), b)
        self.assertIs(self.backlog.pop(["a", "b"]), a)
        self.assertIsNone(self.backlog.pop(["a", "b"]))
        self.assertEqual(len(self.backlog), 1)

    def test_holder(self) -> None:
        """
        The backlog is the holder of its tasks, until they come out.
        """
        job = self.put(1)[0]
        self.assertIs(job.holder, self.backlog)
        self.backlog.pop([None])
        self.assertIsNone(job.holder)

    def test_sizes(self) -> None:
        """
        The tasks of each series can be counted, without those that were cancelled.
        """
        self.put(1, 2, 0, series="a")
        self.cancel(self.put(1, series="b"))
        self.cancel(self.put(1, 2, series="c")[:1])
        self.assertEqual(self.backlog.sizes(), {"a": 3, "c": 1})
        self.assertEqual(self.backlog.waiting(), ["a", "c"])
        self.assertEqual(
            [self.backlog.waits(series) for series in "abcd"],
            [True, False, True, False],
        )

    def test_cancelled(self) -> None:
        """
        A task that is cancelled is gone at once.
        """
        jobs = self.put(1, 2, 3)
        self.cancel([jobs[0], jobs[1]])
        self.assertEqual(len(self.backlog), 1)
        self.assertEqual(self.popAll(), [jobs[2]])

    def test_cancelledAreFreed(self) -> None:
        """
        Cancelled tasks that never come up don't stay for ever.
        """
        first = self.put(0)
        jobs = self.put(*range(1000))
        self.put(*range(500, 600), series="other")
        self.cancel(jobs)
        lane = self.backlog._lanes[None]
        self.assertLess(len(lane.tasks()), 200)
        self.assertEqual(self.popAll(), first)

    def test_lateResult(self) -> None:
        """
        A waiting task that gets a result after all is gone, and counted once.
        """
        first, second = self.put(1, 2)
        first.callback((b"r", None))
        self.assertEqual(len(self.backlog), 1)
        self.assertEqual(self.popAll(), [second])
        self.assertEqual(len(self.backlog), 0)

    def test_remove(self) -> None:
        """
        All tasks that are selected are taken out, in their order, and nobody has them
        then.
        """
        jobs = self.put(*range(10), 0)
        removed = self.backlog.remove(lambda job: job.priority % 2 == 0)
        self.assertEqual(removed, [jobs[n] for n in (0, 10, 2, 4, 6, 8)])
        self.assertEqual({job.holder for job in removed}, {None})
        self.assertEqual(len(self.backlog), 5)
        self.assertEqual(self.popAll(), jobs[1:10:2])

    def test_removeAll(self) -> None:
        """
        Taking out everything leaves nothing, and cancelled tasks aren't among it.
        """
        a, b = self.put(1, series="a"), self.put(1, series="b")
        self.cancel(self.put(5, series="b"))
        self.assertEqual(self.backlog.remove(lambda job: True), a + b)
        self.assertEqual((len(self.backlog), self.backlog.waiting()), (0, []))

    def test_onShrink(self) -> None:
        """
        Who wants to know is told when tasks were cancelled or removed.
        """
        sizes: list[int] = []
        self.backlog.onShrink = lambda: sizes.append(len(self.backlog))
        jobs = self.put(1, 2, 3)
        self.cancel(jobs[:1])
        self.backlog.remove(lambda job: job is jobs[1])
        self.assertEqual(sizes, [2, 1])

    def test_unhashable(self) -> None:
        """
        A task of a series that isn't hashable isn't put in.
        """
        job = task(series=[])
        self.assertRaises(TypeError, self.backlog.put, job)
        self.assertIsNone(job.holder)
        self.assertEqual(len(self.backlog), 0)
