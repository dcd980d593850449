"""Tests of the order in which calls are run, and of who runs them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from asynqueue._asyncworker import AsyncWorker
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, ids, same, turn


class SeriesTests(QueueTestCase):
    """Tests of who runs calls of which series."""

    def setUp(self) -> None:
        """Make a queue with a worker for series C{'x'}, and one without."""
        super().setUp()
        self.worker = MemoryWorker()
        self.x = MemoryWorker(["x"])
        self.q = self.queue(self.x, self.worker)

    def test_unserved(self) -> None:
        """
        A call of a series that nobody serves keeps no other waiting, though it comes
        first, until somebody serves it.
        """
        unserved = self.q.call(same, "unserved", series="nobody", doNext=True)
        self.q.call(same, "a")
        self.q.call(same, "b")
        self.assertEqual((ids(self.x), ids(self.worker)), (["a"], ["b"]))
        late = MemoryWorker(["nobody"])
        self.q.attachWorker(late)
        late.complete("done")
        self.assertEqual(self.successResultOf(unserved), "done")

    def test_busySeries(self) -> None:
        """
        A plain call doesn't wait for those of a series whose worker is busy, when
        another worker is idle.
        """
        for n in range(3):
            self.q.call(same, n, series="x")
        self.q.call(same, "plain")
        self.assertEqual((ids(self.x), ids(self.worker)), ([0], ["plain"]))

    def test_oneCapacity(self) -> None:
        """
        A worker that asks for calls of several series is given one at a time, and the
        next goes to another that is idle.
        """
        first, second = MemoryWorker(), MemoryWorker()
        q = self.queue(first, second)
        q.call(same, 1, series="local")
        q.call(same, 2)
        q.call(same, 3, series="memory")
        self.assertEqual((ids(first), ids(second)), ([1], [2]))
        second.complete()
        self.assertEqual((ids(first), ids(second)), ([1], [3]))

    def test_capacity(self) -> None:
        """A worker with a capacity is given as many as that."""
        worker = MemoryWorker(capacity=3)
        q = self.queue(worker)
        for n in range(5):
            q.call(same, n, series=("local", None, "memory")[n % 3])
        self.assertEqual(ids(worker), [0, 1, 2])
        worker.complete()
        self.assertEqual(ids(worker), [1, 2, 3])

    def test_readyEarly(self) -> None:
        """A worker that is ready before its result is there is given the next call."""
        q = self.queue(worker := MemoryWorker())
        calls = [q.call(same, n) for n in range(2)]
        worker.ready()
        self.assertEqual(ids(worker), [0, 1])
        worker.complete("b", worker.running[1])
        self.assertNoResult(calls[0])
        self.assertEqual(self.successResultOf(calls[1]), "b")

    def test_readyLate(self) -> None:
        """One whose result is there before it's ready isn't."""
        q = self.queue(worker := MemoryWorker())
        first, _ = q.call(same, 0), q.call(same, 1)
        worker.complete(ready=False)
        self.successResultOf(first)
        self.assertEqual(ids(worker), [])
        worker.ready()
        self.assertEqual(ids(worker), [1])


class PriorityTests(QueueTestCase):
    """Tests of which call is next."""

    def setUp(self) -> None:
        """Keep the worker busy."""
        super().setUp()
        self.fillWorker()

    def order(self) -> list[Any]:
        """
        Run all calls. Returns their first arguments, in the order in which they were
        run.
        """
        return self.runAll()[1:]

    def test_inOrder(self) -> None:
        """
        Calls of a series and niceness are run in the order in which they were queued.
        """
        for n in range(50):
            self.q.call(same, n)
        self.assertEqual(self.order(), list(range(50)))

    def test_niceness(self) -> None:
        """The less nice come before the nicer."""
        for niceness in (20, 10, 0, -10, -20):
            self.q.call(same, niceness, niceness=niceness)
        self.assertEqual(self.order(), [-20, -10, 0, 10, 20])

    def test_doNext(self) -> None:
        """
        A call with C{doNext} that is made while all workers are busy is the next that
        is accepted, whatever waits.
        """
        for n in range(5):
            self.q.call(same, n, niceness=-20)
        self.q.call(same, "next", doNext=True, niceness=20)
        self.worker.complete()
        self.assertEqual(ids(self.worker), ["next"])

    def test_doNextOfOtherSeries(self) -> None:
        """Also if it's of another of the worker's series."""
        for n in range(5):
            self.q.call(same, n)
        self.q.call(same, "next", doNext=True, series="local")
        self.worker.complete()
        self.assertEqual(ids(self.worker), ["next"])

    def test_lastMoment(self) -> None:
        """What is run next is decided when a worker is ready, not before."""
        self.q.call(same, "waiting")
        self.worker.complete(ready=False)
        self.q.call(same, "urgent", niceness=-20)
        self.worker.ready()
        self.assertEqual(ids(self.worker), ["urgent"])

    def test_severalNext(self) -> None:
        """Several with C{doNext} keep their order, as do several with C{doLast}."""
        for n in range(3):
            self.q.call(same, f"last {n}", doLast=True)
            self.q.call(same, f"next {n}", doNext=True)
        self.assertEqual(
            self.order(), [f"{name} {n}" for name in ("next", "last") for n in range(3)]
        )

    def test_doLast(self) -> None:
        """A call with C{doLast} comes after all others, also those made later."""
        self.q.call(same, "last", doLast=True, niceness=-20)
        for n in range(5):
            self.q.call(same, n, niceness=20)
        self.assertEqual(self.order(), [*range(5), "last"])

    def test_doNextAndLast(self) -> None:
        """If a call is to be both, it's next."""
        self.q.call(same, "usual")
        self.q.call(same, "both", doNext=True, doLast=True)
        self.assertEqual(self.order(), ["both", "usual"])

    def test_longLived(self) -> None:
        """C{doNext} and C{doLast} hold however many calls there have been."""
        for series in (None, "local"):
            self.q.taskFactory.seriesNumbers[series] = 1e15
        self.q.taskFactory._largest = 1e15
        self.q.call(same, "last", doLast=True)
        self.q.call(same, "nice", niceness=20)
        self.q.call(same, "usual", series="local")
        self.q.call(same, "next", doNext=True)
        self.assertEqual(self.order(), ["next", "usual", "nice", "last"])

    def test_waitingComesUp(self) -> None:
        """The nicest call is run at last, though others keep coming."""
        self.q.call(same, "nice", niceness=20)
        runs = 0
        while "nice" not in ids(self.worker):
            self.q.call(same, runs, niceness=-20)
            self.worker.complete()
            runs += 1
        self.assertLess(runs, 40)

    def test_seriesInterleave(self) -> None:
        """Two series interleave though each was queued in one batch."""
        self.q.call(same, "a", series="memory")
        for _ in range(50):
            self.q.call(same, "b", series="local")
        for _ in range(49):
            self.q.call(same, "a", series="memory")
        names = "".join(self.order())
        self.assertNotIn("aaa", names[:90])
        self.assertNotIn("bbb", names[:90])


class ImmediateTests(QueueTestCase):
    """Tests of calls that complete at once."""

    def setUp(self) -> None:
        """Make a queue with a worker in the reactor."""
        super().setUp()
        self.q = self.queue(AsyncWorker())

    def test_many(self) -> None:
        """A hundred thousand that wait are run, in order, without deep recursion."""
        results: list[int] = []
        gate: Deferred[None] = Deferred()
        self.q.call(lambda: gate)
        for n in range(100_000):
            self.q.call(same, n).addCallback(results.append)
        gate.callback(None)
        self.clock.advance(0)
        self.assertEqual(results, list(range(100_000)))

    def test_callbackQueuesMore(self) -> None:
        """
        A callback that queues another, whose callback queues another, and so on, a
        hundred thousand times, is run without deep recursion.
        """
        left = 100_000

        def more(_: Any) -> None:
            nonlocal left
            left -= 1
            if left:
                self.q.call(same).addCallback(more)

        self.q.call(same).addCallback(more)
        self.clock.advance(0)
        self.assertEqual(left, 0)

    def test_severalWorkers(self) -> None:
        """So it is with several workers."""
        self.q = self.queue(*(AsyncWorker() for _ in range(3)))
        left = 3_000

        def more(_: Any) -> None:
            nonlocal left
            if left > 0:
                left -= 1
                self.q.call(same).addCallback(more)
                self.q.call(same)

        self.q.call(same).addCallback(more)
        self.clock.advance(0)
        self.assertEqual(left, 0)
        self.assertEqual(self.q.th.waiting, 0)

    def test_yields(self) -> None:
        """
        While many are run, the reactor has its turn every few milliseconds, and nothing
        is left there at the end.
        """
        starts: list[float] = []

        def work() -> None:
            starts.append(self.clock.rightNow)
            self.clock.rightNow += 0.001

        gate: Deferred[None] = Deferred()
        self.q.call(lambda: gate)
        for _ in range(100):
            self.q.call(work)
        gate.callback(None)
        stretches = [len(starts)]
        while len(starts) < 100:
            before = len(starts)
            turn(self.clock)
            stretches.append(len(starts) - before)
        self.assertEqual(set(stretches), {4})
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_yieldsToNewCalls(self) -> None:
        """What the reactor does in its turn can put a call before the others."""
        order: list[str] = []

        def work(name: str) -> None:
            order.append(name)
            self.clock.rightNow += 0.01

        gate: Deferred[None] = Deferred()
        self.q.call(lambda: gate)
        self.q.call(work, "a")
        self.q.call(work, "b")
        gate.callback(None)
        self.assertEqual(order, ["a"])
        self.q.call(work, "urgent", doNext=True)
        turn(self.clock)
        self.assertEqual(order, ["a", "urgent"])
