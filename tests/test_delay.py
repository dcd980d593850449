"""Tests of L{asynqueue.iteration._delay}."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.iteration._delay import Delay, deferToDelay

from ._stopping import StoppingReactor


class DeferToDelayTests(SynchronousTestCase):
    """Tests of L{deferToDelay}."""

    def test_time(self) -> None:
        """It fires with C{None} when the time has passed, and not before."""
        clock = Clock()
        d = deferToDelay(2, reactor=clock)
        clock.advance(1.9)
        self.assertNoResult(d)
        clock.advance(0.1)
        self.assertIsNone(self.successResultOf(d))

    def test_cancel(self) -> None:
        """When it's cancelled, nothing stays in the reactor."""
        clock = Clock()
        d = deferToDelay(2, reactor=clock)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_noTime(self) -> None:
        """What isn't a number of seconds is refused, and named."""
        for bad in (-1, math.inf, math.nan, "1"):
            with self.assertRaisesRegex(ValueError, f"seconds.* {bad!r}"):
                deferToDelay(bad, reactor=Clock())  # type: ignore[arg-type]


class DelayTests(SynchronousTestCase):
    """Tests of L{Delay}."""

    def setUp(self) -> None:
        """Make a clock, and an event that hasn't happened."""
        self.clock = Clock()
        self.happened: Any = False
        self.looks: list[float] = []

    def check(self, *args: Any, **kw: Any) -> Any:
        """Note the time of the look, and tell whether the event has happened."""
        self.looks.append(self.clock.seconds())
        return self.happened

    def test_interval(self) -> None:
        """Called without a delay, it waits for its usual interval."""
        d = Delay(0.5, reactor=self.clock)()
        self.clock.advance(0.4)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(d))

    def test_given(self) -> None:
        """A delay that is given overrides the usual one, even zero."""
        delay = Delay(5, reactor=self.clock)
        d, now = delay(1), delay(0)
        self.clock.advance(0)
        self.successResultOf(now)
        self.assertNoResult(d)
        self.clock.advance(1)
        self.successResultOf(d)

    def test_refused(self) -> None:
        """What can't be a length, or a factor, is refused with its name."""
        for bad in (0.99, 1.31, math.nan):
            with self.assertRaisesRegex(ValueError, "backoff"):
                Delay(backoff=bad)
        with self.assertRaisesRegex(ValueError, "interval"):
            Delay(-1)
        with self.assertRaisesRegex(ValueError, "timeout"):
            Delay(timeout=-1)
        with self.assertRaisesRegex(ValueError, "delay"):
            Delay(reactor=self.clock)(-1)

    def test_atOnce(self) -> None:
        """An event that has happened already is known at once."""
        self.happened = True
        d = Delay(reactor=self.clock).untilEvent(self.check)
        self.assertIs(self.successResultOf(d), True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_arguments(self) -> None:
        """The checker gets its arguments, each time."""
        seen: list[Any] = []

        def check(*args: Any, **kw: Any) -> bool:
            seen.append((args, kw))
            return len(seen) == 2

        d = Delay(1, reactor=self.clock).untilEvent(check, 1, x=2)
        self.clock.advance(1)
        self.assertIs(self.successResultOf(d), True)
        self.assertEqual(seen, [((1,), {"x": 2})] * 2)

    def test_backoff(self) -> None:
        """Each delay between two looks is longer than the last by the factor."""
        Delay(1, 1.25, reactor=self.clock).untilEvent(self.check)
        self.clock.pump([0.25] * 24)
        self.assertEqual(self.looks, [0, 1, 2.25, 4, 6])

    def test_timeout(self) -> None:
        """When the time is up, it fires with C{False} and isn't looked for any more."""
        d = Delay(1, 1.0, 2.5, reactor=self.clock).untilEvent(self.check)
        self.clock.pump([0.5] * 4)
        self.assertNoResult(d)
        self.clock.advance(0.5)
        self.assertIs(self.successResultOf(d), False)
        self.assertEqual(self.looks, [0, 1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_raises(self) -> None:
        """When the checker raises, it fires with C{None}."""
        d = Delay(timeout=1, reactor=self.clock).untilEvent(lambda: 1 / 0)
        self.assertIsNone(self.successResultOf(d))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deferred(self) -> None:
        """What the checker returns may be a Deferred. It's waited for."""
        self.happened = first = Deferred[bool]()
        d = Delay(1, reactor=self.clock).untilEvent(self.check)
        self.clock.advance(5)
        self.assertEqual(len(self.looks), 1)
        self.happened = True
        first.callback(False)
        self.clock.advance(1)
        self.assertIs(self.successResultOf(d), True)

    def test_deferredLate(self) -> None:
        """A Deferred of the checker that fires after the time is up doesn't matter."""
        self.happened = late = Deferred[bool]()
        d = Delay(1, timeout=2, reactor=self.clock).untilEvent(self.check)
        self.clock.advance(2)
        self.assertIs(self.successResultOf(d), False)
        late.errback(ValueError())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noChecker(self) -> None:
        """A checker must be callable."""
        with self.assertRaisesRegex(TypeError, "eventChecker .*7"):
            Delay(reactor=self.clock).untilEvent(7)  # type: ignore[arg-type]

    def test_cancel(self) -> None:
        """When a delay or a wait is cancelled, nothing of it stays in the reactor."""
        delay = Delay(1, timeout=9, reactor=self.clock)
        for d in (delay(), delay.untilEvent(self.check)):
            d.cancel()
            self.failureResultOf(d, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shutdown(self) -> None:
        """
        Shutting down fires all that is pending, and leaves nothing in the reactor.
        """
        delay = Delay(1, timeout=9, reactor=self.clock)
        pause, event = delay(), delay.untilEvent(self.check)
        delay.shutdown()
        self.assertIsNone(self.successResultOf(pause))
        self.assertIs(self.successResultOf(event), False)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shutdownWithCallbacks(self) -> None:
        """A callback may cancel another wait, or begin one, while all are fired."""
        delay = Delay(1, reactor=self.clock)
        first, second = delay(), delay()
        begun: list[Deferred[None]] = []
        first.addCallback(lambda _: second.cancel())
        first.addCallback(lambda _: begun.append(delay()))
        delay.shutdown()
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(begun[0])
        self.clock.advance(1)
        self.successResultOf(begun[0])

    def test_defaults(self) -> None:
        """C{None} stands for the defaults."""
        delay = Delay(None, None, None)
        self.assertEqual((delay.interval, delay.backoff), (0.001, 1.1))
        d = deferToDelay(None, reactor=self.clock)
        self.clock.advance(0.001)
        self.successResultOf(d)

    def test_noTimeout(self) -> None:
        """A time limit of 0 is none."""
        d = Delay(1, timeout=0, reactor=self.clock).untilEvent(self.check)
        self.clock.advance(100)
        self.assertNoResult(d)
        d.cancel()
        self.failureResultOf(d, CancelledError)


class ReactorShutdownTests(SynchronousTestCase):
    """Tests of what becomes of delays when the reactor shuts down."""

    def setUp(self) -> None:
        """Make a reactor that hasn't begun to."""
        self.reactor = StoppingReactor()

    def test_fire(self) -> None:
        """All that is pending fires: delays with C{None}, events with C{False}."""
        delay = Delay(1, reactor=self.reactor)
        waits: list[Deferred[Any]] = [delay(100), delay.untilEvent(lambda: False)]
        waits.append(deferToDelay(100, reactor=self.reactor))
        self.reactor.beginShutdown()
        self.assertEqual([self.successResultOf(d) for d in waits], [None, False, None])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noTrigger(self) -> None:
        """There's a trigger only while something is pending."""
        delay = Delay(1, reactor=self.reactor)
        self.assertEqual(self.reactor.shutdownTriggers, [])
        first, second = delay(), delay()
        self.assertEqual(len(self.reactor.shutdownTriggers), 1)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(self.reactor.shutdownTriggers), 1)
        self.reactor.advance(1)
        self.successResultOf(second)
        self.assertEqual(self.reactor.shutdownTriggers, [])

    def test_again(self) -> None:
        """Who waits again each time doesn't keep the reactor from its end."""
        delays = [Delay(1, reactor=self.reactor), Delay(1, reactor=self.reactor)]
        times = 0

        async def loop() -> None:
            nonlocal times
            while True:
                for delay in delays:
                    await delay()
                    times += 1

        d = Deferred.fromCoroutine(loop())
        self.reactor.beginShutdown()
        self.assertEqual(times, 1)
        d.cancel()
        self.failureResultOf(d, CancelledError)
