"""Tests of the small tools that the rest of the package shares."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._support import reactor
from asynqueue._support.awaitable import OneShot, Waiters
from asynqueue._support.checks import (
    checkCallable,
    checkConsumer,
    checkCount,
    checkFlag,
    checkHashable,
    checkSeconds,
    seriesList,
)
from asynqueue._support.reactor import (
    SLICE_SECONDS,
    Deadline,
    Handover,
    TimeSlice,
)
from asynqueue.errors import ImplementationError

from ._fakethreads import ThreadReactor


class OneShotTests(SynchronousTestCase):
    """Tests of L{OneShot}."""

    def test_fire(self) -> None:
        """
        All who wait get the result, in their order; who comes later has it at once.
        """
        event: OneShot[int] = OneShot()
        heard: list[tuple[str, int]] = []
        event.wait().addCallback(lambda result: heard.append(("a", result)))
        event.wait().addCallback(lambda result: heard.append(("b", result)))
        self.assertFalse(event.hasFired)
        event.fire(3)
        self.assertTrue(event.hasFired)
        self.assertEqual(heard, [("a", 3), ("b", 3)])
        self.assertEqual(self.successResultOf(event.wait()), 3)

    def test_fireTwice(self) -> None:
        """The first result counts."""
        event: OneShot[int] = OneShot()
        event.fire(1)
        event.fire(2)
        self.assertEqual(self.successResultOf(event.wait()), 1)

    def test_cancel(self) -> None:
        """Cancelling what one waits for leaves the others alone."""
        event: OneShot[None] = OneShot()
        first, second = event.wait(), event.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        event.fire(None)
        self.assertIsNone(self.successResultOf(second))

    def test_cancelWithin(self) -> None:
        """A callback of one may cancel another."""
        event: OneShot[None] = OneShot()
        first, second = event.wait(), event.wait()
        first.addCallback(lambda _: second.cancel())
        event.fire(None)
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_waitWithin(self) -> None:
        """A callback may wait again, and has the result at once."""
        event: OneShot[str] = OneShot()
        again: list[Deferred[str]] = []
        event.wait().addCallback(lambda _: again.append(event.wait()))
        event.fire("x")
        self.assertEqual(self.successResultOf(again[0]), "x")


class WaitersTests(SynchronousTestCase):
    """Tests of L{Waiters}."""

    def test_again(self) -> None:
        """Who waits anew, also in a callback, waits for the next time."""
        event: Waiters[int] = Waiters()
        again: list[Deferred[int]] = []
        first = event.wait()
        first.addCallback(lambda _: again.append(event.wait()))
        event.fire(1)
        self.successResultOf(first)
        self.assertNoResult(again[0])
        event.fire(2)
        self.assertEqual(self.successResultOf(again[0]), 2)
        event.fire(3)


class HandoverTests(SynchronousTestCase):
    """Tests of L{Handover}."""

    def setUp(self) -> None:
        """Make a reactor."""
        self.reactor = ThreadReactor()
        self.taken: list[int] = []

    def handover(self, take: Any) -> Handover[int]:
        """Make what is tested."""
        return Handover(take, self.reactor)

    def test_burst(self) -> None:
        """
        What comes in a burst wakes the reactor once, and is taken in its order; what
        comes later wakes it again.
        """
        handover = self.handover(self.taken.append)
        for i in range(5):
            handover.put(i)
        self.assertEqual((self.taken, self.reactor.wakeUps), ([], 1))
        self.reactor.turn()
        self.assertEqual(self.taken, [0, 1, 2, 3, 4])
        handover.put(5)
        self.reactor.turn()
        self.assertEqual((self.taken[5:], self.reactor.wakeUps), ([5], 2))

    def test_raised(self) -> None:
        """One that can't be dealt with is logged, and doesn't harm those behind it."""

        def take(item: int) -> None:
            self.taken.append(10 // item)

        handover = self.handover(take)
        for item in (5, 0, 2):
            handover.put(item)
        self.reactor.turn()
        self.assertEqual(self.taken, [2, 5])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_slice(self) -> None:
        """The reactor has its turn in between if there are many."""
        self.patch(reactor, "SLICE_SECONDS", 0.0)
        handover = self.handover(self.taken.append)
        handover.put(1)
        handover.put(2)
        self.reactor._calls.popleft()[0]()
        self.assertEqual(self.taken, [1])
        handover.put(3)
        self.assertEqual(self.reactor.wakeUps, 1)  # it's awake
        self.reactor.advance(0)
        self.reactor.advance(0)
        self.assertEqual(self.taken, [1, 2, 3])


class TimeSliceTests(SynchronousTestCase):
    """Tests of L{TimeSlice}."""

    def test_hasExpired(self) -> None:
        """A slice has expired when its time is over, and not before."""
        clock = Clock()
        part = TimeSlice(clock.seconds)
        self.assertFalse(part.hasExpired())
        clock.advance(SLICE_SECONDS)
        self.assertTrue(part.hasExpired())
        part.restart()
        self.assertFalse(part.hasExpired())


class DeadlineTests(SynchronousTestCase):
    """Tests of L{Deadline}."""

    def setUp(self) -> None:
        """Make one."""
        self.clock = Clock()
        self.calls: list[float] = []
        self.deadline = Deadline(
            lambda: self.calls.append(self.clock.seconds()), self.clock
        )

    def test_within(self) -> None:
        """It's at the earliest of the times that were said, once."""
        self.deadline.within(3)
        self.deadline.within(5)
        self.clock.advance(1)
        self.deadline.within(1)
        self.clock.pump([1] * 5)
        self.deadline.within(1)
        self.clock.advance(9)
        self.assertEqual(self.calls, [2])

    def test_callOff(self) -> None:
        """One that was called off stays so."""
        self.deadline.within(3)
        self.deadline.callOff()
        self.deadline.within(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ChecksTests(SynchronousTestCase):
    """Tests of the checks: each names what it doesn't like."""

    def test_seconds(self) -> None:
        """Seconds are positive numbers, or 0 where that is said, and no bools."""
        checkSeconds("timeout", 1)
        checkSeconds("timeout", 0.5)
        checkSeconds("timeout", 0, zero=True)
        self.assertRaises(ValueError, checkSeconds, "timeout", 0)
        for value in (-1, True, "1", None, float("nan"), float("inf"), 10**400):
            for zero in (True, False):
                with self.assertRaisesRegex(ValueError, "timeout must be a "):
                    checkSeconds("timeout", value, zero=zero)

    def test_count(self) -> None:
        """Counts are integers from a number up, and no bools."""
        checkCount("retries", 0, 0)
        for value in (-1, 1.0, False, "1"):
            with self.subTest(value=value):
                error = self.assertRaises(ValueError, checkCount, "retries", value, 0)
                self.assertIn("retries", str(error))

    def test_flag(self) -> None:
        """Flags are bools."""
        checkFlag("raw", True)
        error = self.assertRaises(TypeError, checkFlag, "raw", 4)
        self.assertIn("raw must be True or False, not 4", str(error))

    def test_others(self) -> None:
        """What is to be called, hashed, or written to must be able to."""
        checkCallable("f", len)
        checkHashable(("a", 1))
        for error, check, args in (
            (TypeError, checkCallable, ("f", 3)),
            (TypeError, checkHashable, ([],)),
            (ImplementationError, checkConsumer, (3,)),
        ):
            self.assertRaises(error, check, *args)

    def test_seriesList(self) -> None:
        """Series are listed, and a string isn't taken for a list of letters."""
        self.assertEqual(seriesList(("a", 2)), ["a", 2])
        self.assertRaises(TypeError, seriesList, "abc")
