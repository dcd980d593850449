"""Tests of L{asynqueue.util._sync}."""

from __future__ import annotations

import math
import random
import sys
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    inlineCallbacks,
    succeed,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.util._sync import DeferredLock, DeferredTracker, callAfterDeferred

from ._stopping import StoppingReactor

#: Far more than could be on the stack at once.
MANY = 5 * sys.getrecursionlimit()


class TrackerTests(SynchronousTestCase):
    """Tests of L{DeferredTracker}."""

    def setUp(self) -> None:
        """Make a tracker."""
        self.clock = Clock()
        self.tracker = DeferredTracker(reactor=self.clock)

    def put(self, N: int) -> list[Deferred[Any]]:
        """Track Deferreds."""
        return [self.tracker.put(Deferred()) for _ in range(N)]

    def turn(self) -> None:
        """Let the reactor have its turn."""
        self.clock.advance(0)

    def test_same(self) -> None:
        """
        What is tracked comes back as the same object, and is counted until it fires.
        """
        d: Deferred[int] = Deferred()
        self.assertIs(self.tracker.put(d), d)
        self.assertEqual(self.tracker.dCount, 1)
        self.assertFalse(self.tracker.notWaiting())
        d.callback(1)
        self.assertEqual(self.tracker.dCount, 0)
        self.assertTrue(self.tracker.notWaiting())

    def test_result(self) -> None:
        """A result passes through untouched."""
        result = object()
        d = self.tracker.put(succeed(result))
        self.assertIs(self.successResultOf(d), result)

    def test_failure(self) -> None:
        """So does a failure, which the tracker doesn't handle."""
        failure = Failure(ValueError())
        d = self.tracker.put(fail(failure))
        self.assertIs(self.failureResultOf(d), failure)

    def test_notADeferred(self) -> None:
        """Only Deferreds can be tracked."""
        with self.assertRaisesRegex(TypeError, "not 7"):
            self.tracker.put(7)  # type: ignore[type-var]

    def test_oldKeywords(self) -> None:
        """The intervals of polling are accepted, without any effect."""
        tracker = DeferredTracker(interval=0.5, backoff=1.04)
        self.assertTrue(tracker.notWaiting())

    def test_nothing(self) -> None:
        """When nothing is tracked, there's nothing to wait for, in whatever way."""
        for d in (
            self.tracker.deferToAll(),
            self.tracker.deferToAny(),
            self.tracker.deferUntilFewer(1),
        ):
            self.assertIs(self.successResultOf(d), True)

    def test_all(self) -> None:
        """
        Waiting for all ends when the last has fired, or failed, or has been
        cancelled.
        """
        a, b, c = self.put(3)
        d = self.tracker.deferToAll()
        a.callback(None)
        b.errback(ValueError())
        self.failureResultOf(b)
        self.turn()
        self.assertNoResult(d)
        c.cancel()
        self.turn()
        self.assertIs(self.successResultOf(d), True)
        self.failureResultOf(c, CancelledError)

    def test_allLater(self) -> None:
        """All means also those that come to be tracked later."""
        [a] = self.put(1)
        d = self.tracker.deferToAll()
        [b] = self.put(1)
        a.callback(None)
        self.turn()
        self.assertNoResult(d)
        b.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(d), True)

    def test_any(self) -> None:
        """Waiting for any ends when one fires. The next wait is for another one."""
        a, b, _ = self.put(3)
        d = self.tracker.deferToAny()
        self.assertNoResult(d)
        b.callback(None)
        again = self.tracker.deferToAny()
        self.turn()
        self.assertIs(self.successResultOf(d), True)
        self.assertNoResult(again)
        a.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(again), True)

    def test_fewer(self) -> None:
        """Waiting for there to be fewer ends when that is so."""
        a, b, c, _ = self.put(4)
        two, three = self.tracker.deferUntilFewer(2), self.tracker.deferUntilFewer(3)
        self.successResultOf(self.tracker.deferUntilFewer(5))
        a.callback(None)
        self.turn()
        self.assertNoResult(three)
        b.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(three), True)
        self.assertNoResult(two)
        c.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(two), True)

    def test_fewerThanReal(self) -> None:
        """The number may be any real one."""
        tracked = self.put(4)
        d = self.tracker.deferUntilFewer(5 / 2)
        self.successResultOf(self.tracker.deferUntilFewer(4.5))
        self.successResultOf(self.tracker.deferUntilFewer(math.inf))
        for a in tracked[:2]:
            self.turn()
            self.assertNoResult(d)
            a.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(d), True)

    def test_fewerThanNone(self) -> None:
        """There are never fewer than none."""
        [a] = self.put(1)
        waits = [self.tracker.deferUntilFewer(N) for N in (0, -1.5)]
        a.callback(None)
        self.turn()
        for d in waits:
            self.assertNoResult(d)
        self.tracker.quitWaiting()
        for d in waits:
            self.assertIs(self.successResultOf(d), True)

    def test_afterCallbacks(self) -> None:
        """
        A wait ends after all callbacks of the Deferred that ends it, also those that
        were added after it was tracked.
        """
        for wait in (
            self.tracker.deferToAll,
            self.tracker.deferToAny,
            lambda: self.tracker.deferUntilFewer(1),
        ):
            order: list[str] = []
            [a] = self.put(1)
            a.addCallback(lambda _: order.append("callback"))  # noqa: B023
            wait().addCallback(lambda _: order.append("wait"))  # noqa: B023
            a.callback(None)
            order.append("fired")
            self.turn()
            self.assertEqual(order, ["callback", "fired", "wait"])

    def test_limit(self) -> None:
        """
        However many wait for there to be fewer and then add another, the limit holds.
        """
        tracked = self.put(3)
        for _ in range(3):
            self.tracker.deferUntilFewer(3).addCallback(
                lambda _: tracked.extend(self.put(1))
            )
        for i in range(3):
            tracked[i].callback(None)
            self.turn()
            self.assertEqual(self.tracker.dCount, 3)
        self.assertEqual(len(tracked), 6)

    def test_shutdown(self) -> None:
        """Waits end with C{False} when the reactor begins to shut down."""
        reactor = StoppingReactor()
        tracker: DeferredTracker = DeferredTracker(reactor=reactor)
        a = tracker.put(Deferred[None]())
        waits = [tracker.deferToAll(5), tracker.deferToAny()]
        reactor.beginShutdown()
        for d in waits:
            self.assertIs(self.successResultOf(d), False)
        self.assertEqual(reactor.getDelayedCalls(), [])
        a.callback(None)

    def test_added(self) -> None:
        """What isn't a Deferred can be counted as well."""
        self.tracker.addWait()
        self.tracker.addWait()
        everything, anything = self.tracker.deferToAll(), self.tracker.deferToAny()
        self.tracker.removeWait()
        self.turn()
        self.assertIs(self.successResultOf(anything), True)
        self.assertNoResult(everything)
        self.tracker.removeWait()
        self.turn()
        self.assertIs(self.successResultOf(everything), True)

    def test_removedTooOften(self) -> None:
        """
        To remove what was not added is an error, and Deferreds are not taken for it.
        """
        self.put(1)
        with self.assertRaisesRegex(RuntimeError, "removeWait"):
            self.tracker.removeWait()
        self.assertEqual(self.tracker.dCount, 1)

    def test_timeout(self) -> None:
        """
        When the time is up first, the wait ends with C{False}. What is tracked goes
        on.
        """
        [a] = self.put(1)
        waits = [
            self.tracker.deferToAll(1),
            self.tracker.deferToAny(timeout=1),
            self.tracker.deferUntilFewer(1, 1),
        ]
        self.clock.advance(1)
        for d in waits:
            self.assertIs(self.successResultOf(d), False)
        self.assertNoResult(a)
        a.callback(None)

    def test_inTime(self) -> None:
        """When it comes about in time, nothing stays in the reactor."""
        [a] = self.put(1)
        d = self.tracker.deferToAll(1)
        a.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(d), True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noTimeout(self) -> None:
        """A timeout must be a number of seconds, and 0 is none."""
        self.put(1)
        self.assertNoResult(self.tracker.deferToAll(0))
        self.clock.advance(1)
        for bad in (-1, "1", math.nan):
            with self.assertRaisesRegex(ValueError, "timeout"):
                self.tracker.deferToAll(bad)  # type: ignore[arg-type]

    def test_cancel(self) -> None:
        """
        When a wait is cancelled, what it waits for isn't, other waits go on, and
        nothing stays in the reactor.
        """
        [a] = self.put(1)
        d, other = self.tracker.deferToAll(1), self.tracker.deferToAll()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(a)
        a.callback(None)
        self.turn()
        self.assertIs(self.successResultOf(other), True)

    def test_quit(self) -> None:
        """
        Quitting ends all waits, and those that would begin later. What fires then
        changes nothing.
        """
        self.tracker.addWait()
        [a] = self.put(1)
        waits = [self.tracker.deferToAll(5), self.tracker.deferToAny()]
        self.tracker.quitWaiting()
        self.assertTrue(self.tracker.notWaiting())
        self.assertEqual(self.tracker.dCount, 2)
        waits += [self.tracker.deferToAll(), self.tracker.deferUntilFewer(1)]
        for d in waits:
            self.assertIs(self.successResultOf(d), True)
        a.callback(None)
        self.tracker.removeWait()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelInCallback(self) -> None:
        """A callback of one wait may cancel another that ends at the same time."""
        [a] = self.put(1)
        first, second = self.tracker.deferToAll(), self.tracker.deferToAll()
        first.addCallback(lambda _: second.cancel())
        a.callback(None)
        self.turn()
        self.failureResultOf(second, CancelledError)

    def test_noTriggers(self) -> None:
        """Any number of waits leave nothing for the reactor's shutdown."""
        reactor = StoppingReactor()
        tracker: DeferredTracker = DeferredTracker(reactor=reactor)
        a = tracker.put(Deferred[None]())
        self.assertEqual(reactor.shutdownTriggers, [])
        for _ in range(200):
            tracker.deferToAll(timeout=1)
        self.assertEqual(len(reactor.shutdownTriggers), 1)
        a.callback(None)
        reactor.advance(0)
        self.assertEqual(reactor.shutdownTriggers, [])
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_many(self) -> None:
        """
        Thousands of waits for thousands of Deferreds, in any order, with failures,
        cancellations and time-outs, each come out right.
        """
        order = random.Random(3)
        tracked = self.put(MANY)
        everything = [self.tracker.deferToAll() for _ in range(MANY)]
        fewer = {n: self.tracker.deferUntilFewer(n) for n in range(1, MANY)}
        hurried = [self.tracker.deferToAny(timeout=1) for _ in range(MANY)]
        doomed = everything[::3]
        for d in doomed:
            d.cancel()
            self.failureResultOf(d, CancelledError)
        self.clock.advance(1)
        self.assertEqual({self.successResultOf(d) for d in hurried}, {False})
        order.shuffle(tracked)
        for i, a in enumerate(tracked):
            if i in (MANY - 10, MANY // 2):
                self.turn()
            if i == MANY - 10:
                self.assertFalse(fewer[10].called)
                self.assertTrue(fewer[11].called)
            how = i % 3
            if how == 0:
                a.callback(None)
                continue
            a.errback(ValueError()) if how == 1 else a.cancel()
            self.failureResultOf(a, ValueError, CancelledError)
        self.turn()
        self.assertEqual({self.successResultOf(d) for d in fewer.values()}, {True})
        for i, d in enumerate(everything):
            if i % 3:
                self.assertIs(self.successResultOf(d), True)

    def test_nested(self) -> None:
        """
        Thousands of waits, each of which fires what the next waits for, don't go down
        the stack.
        """
        links: list[Deferred[Any]] = [Deferred() for _ in range(MANY)]

        def step(_: object, i: int) -> None:
            if i < MANY:
                self.tracker.put(links[i])
                self.tracker.deferToAny().addCallback(step, i + 1)
                links[i].callback(None)
            else:
                done.append(i)

        done: list[int] = []
        step(None, 0)
        self.clock.pump([0] * MANY)
        self.assertEqual(done, [MANY])

    def test_waitsTracked(self) -> None:
        """The waits of one tracker can be tracked by another."""
        outer = DeferredTracker(reactor=self.clock)
        tracked = self.put(100)
        for n in range(1, 100):
            outer.put(self.tracker.deferUntilFewer(n))
        d = outer.deferToAll()
        for a in tracked[:-1]:
            a.callback(None)
        self.turn()
        self.assertNoResult(d)
        tracked[-1].callback(None)
        self.clock.pump([0, 0])
        self.assertIs(self.successResultOf(d), True)


class LockTests(SynchronousTestCase):
    """Tests of L{DeferredLock}."""

    def setUp(self) -> None:
        """Make a lock."""
        self.lock = DeferredLock()
        self.order: list[Any] = []

    def note(self, name: Any, vip: bool = False) -> Deferred[Any]:
        """Acquire the lock, note the name when it's got, and release it."""

        def got(lock: DeferredLock) -> None:
            self.order.append(name)
            lock.release()

        return self.lock.acquire(vip).addCallback(got)

    def test_kind(self) -> None:
        """It's one of Twisted's locks, so all that they can do it can."""
        self.assertIsInstance(self.lock, defer.DeferredLock)
        d = self.lock.run(lambda: self.lock.locked)
        self.assertIs(self.successResultOf(d), True)
        self.assertFalse(self.lock.locked)

    def test_acquire(self) -> None:
        """
        A lock that's free is got at once, and is the result. Others wait for its
        release.
        """
        self.assertFalse(self.lock.locked)
        self.assertIs(self.successResultOf(self.lock.acquire()), self.lock)
        self.assertTrue(self.lock.locked)
        d = self.lock.acquire()
        self.assertNoResult(d)
        self.lock.release()
        self.successResultOf(d)
        self.assertTrue(self.lock.locked)
        self.lock.release()
        self.assertFalse(self.lock.locked)

    def test_releaseTooOften(self) -> None:
        """To release what nobody has is an error."""
        with self.assertRaisesRegex(RuntimeError, "nobody has"):
            self.lock.release()

    def test_waiting(self) -> None:
        """
        Those in line can be looked at, as with Twisted's own. The old keyword is
        accepted.
        """
        self.lock = DeferredLock(allowZombies=False)
        self.lock.acquire()
        line = [self.lock.acquire(), self.lock.acquire(vip=True)]
        self.assertEqual(self.lock.waiting, line[::-1])
        self.lock.release()
        self.assertEqual(self.lock.waiting, line[:1])

    def test_vips(self) -> None:
        """Those who are privileged come before the rest, in order among themselves."""
        self.lock.acquire()
        self.note(1)
        self.note("A", vip=True)
        self.note(2)
        self.note("B", vip=True)
        self.lock.release()
        self.assertEqual(self.order, ["A", "B", 1, 2])

    def test_vipCancelled(self) -> None:
        """One who is privileged and leaves the line doesn't disturb its order."""
        self.lock.acquire()
        d = self.lock.acquire(vip=True)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.note("rest")
        self.note("vip", vip=True)
        self.lock.release()
        self.assertEqual(self.order, ["vip", "rest"])

    def test_cancelled(self) -> None:
        """One who leaves the line doesn't get the lock."""
        self.lock.acquire()
        d = self.note("gone")
        self.note("stays")
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.lock.release()
        self.assertEqual(self.order, ["stays"])

    def test_acquireAndRelease(self) -> None:
        """It waits for those before, and keeps nobody waiting."""
        self.lock.acquire()
        d = self.lock.acquireAndRelease()
        self.assertNoResult(d)
        self.lock.release()
        self.assertIs(self.successResultOf(d), self.lock)
        self.assertFalse(self.lock.locked)

    def test_many(self) -> None:
        """
        Thousands may wait and release at once, some of them leaving the line before.
        """
        self.lock.acquire()
        waiting = [self.note(i, vip=i % 2 == 0) for i in range(MANY)]
        for d in waiting[::5]:
            d.cancel()
            self.failureResultOf(d, CancelledError)
        self.lock.release()
        rest = [i for i in range(MANY) if i % 5]
        expected = [i for i in rest if i % 2 == 0] + [i for i in rest if i % 2]
        self.assertEqual(self.order, expected)
        self.assertFalse(self.lock.locked)

    def test_context(self) -> None:
        """The lock is held for the block, and released after it."""
        with self.lock.context() as d:
            self.assertIs(self.successResultOf(d), self.lock)
            self.assertTrue(self.lock.locked)
        self.assertFalse(self.lock.locked)

    def test_contextRaises(self) -> None:
        """It's released also when the block raises."""

        def block() -> None:
            with self.lock.context():
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, block)
        self.assertFalse(self.lock.locked)

    def test_contextLeft(self) -> None:
        """
        A block that is left before it has the lock doesn't wait for it any longer, and
        releases nothing.
        """
        self.lock.acquire()
        with self.lock.context(vip=True):
            pass
        self.assertTrue(self.lock.locked)
        self.lock.release()
        self.assertFalse(self.lock.locked)

    def test_contextInGenerator(self) -> None:
        """A generator can wait within the block, and gets its turn by privilege."""

        @inlineCallbacks
        def work(name: str, vip: bool) -> Any:
            with self.lock.context(vip) as d:
                yield d
                self.order.append(name)

        self.lock.acquire()
        work("rest", False)
        work("vip", True)
        self.lock.release()
        self.assertEqual(self.order, ["vip", "rest"])
        self.assertFalse(self.lock.locked)

    def test_stop(self) -> None:
        """
        Stopping waits until nobody has the lock nor is in line. Then the stoppers are
        run in turn, each when the last is done.
        """
        slow: Deferred[None] = Deferred()

        def stopper(name: str, result: Any, **kw: Any) -> Any:
            self.order.append((name, kw))
            return result

        self.lock.addStopper(stopper, "first", slow, x=1)
        self.lock.addStopper(stopper, "second", None)
        self.lock.acquire()
        d = self.lock.stop()
        self.note("late")
        self.assertEqual(self.order, [])
        self.lock.release()
        self.assertEqual(self.order, ["late", ("first", {"x": 1})])
        self.assertNoResult(d)
        slow.callback(None)
        self.assertEqual(self.order[2:], [("second", {})])
        self.assertIsNone(self.successResultOf(d))

    def test_stopLastLeaves(self) -> None:
        """The line is empty as well when the last one leaves it."""
        holder = self.lock.acquire()
        waiting = self.lock.acquire()
        d = self.lock.stop()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertNoResult(d)
        self.successResultOf(holder).release()
        self.successResultOf(d)

    def test_stopped(self) -> None:
        """
        A lock that has been stopped is free for all, at once. Stoppers may use it.
        """
        self.lock.addStopper(self.lock.acquireAndRelease)
        self.successResultOf(self.lock.stop())
        for _ in range(3):
            self.successResultOf(self.lock.acquire())
        self.assertFalse(self.lock.locked)
        self.lock.release()

    def test_stopTwice(self) -> None:
        """Any number may wait for the stop, before, while and after it's done."""
        slow: Deferred[None] = Deferred()
        self.lock.acquire()
        self.lock.addStopper(lambda: slow)
        before = self.lock.stop(), self.lock.stop()
        self.lock.release()
        meanwhile = self.lock.stop()
        slow.callback(None)
        for d in (*before, meanwhile, self.lock.stop()):
            self.assertIsNone(self.successResultOf(d))

    def test_stopCancelled(self) -> None:
        """
        One who doesn't wait for the stop any longer doesn't prevent others from it.
        """
        self.lock.acquire()
        first, second = self.lock.stop(), self.lock.stop()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        third = self.lock.stop()
        second.addCallback(lambda _: third.cancel())
        self.lock.release()
        self.successResultOf(second)
        self.failureResultOf(third, CancelledError)

    def test_stopperFails(self) -> None:
        """
        When stoppers fail, the others are run all the same. The first failure is that
        of the stop, further ones are logged.
        """
        self.lock.addStopper(lambda: 1 / 0)
        self.lock.addStopper(lambda: fail(KeyError("k")))
        self.lock.addStopper(self.order.append, 1)
        self.failureResultOf(self.lock.stop(), ZeroDivisionError)
        self.assertEqual(self.order, [1])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_noStopper(self) -> None:
        """What can't be called can't be a stopper."""
        with self.assertRaisesRegex(TypeError, "7"):
            self.lock.addStopper(7)  # type: ignore[arg-type]


class CallAfterDeferredTests(SynchronousTestCase):
    """Tests of L{callAfterDeferred}."""

    def setUp(self) -> None:
        """Make an object with an attribute that's a Deferred."""
        self.ready: Deferred[Any] = Deferred()
        self.owner = SimpleNamespace(ready=self.ready, nothing=None, number=7)
        self.calls: list[Any] = []

    def call(self, *args: Any, **kw: Any) -> Any:
        """Note the call. Returns the number of calls."""
        self.calls.append((args, kw))
        return len(self.calls)

    def test_waits(self) -> None:
        """
        Calls are made when the Deferred has fired, in their order, and its result
        passes through untouched.
        """
        first = callAfterDeferred(self.owner, "ready", self.call, 1, x=2)
        second = callAfterDeferred(self.owner, "ready", self.call)
        self.assertEqual(self.calls, [])
        self.ready.callback("result")
        self.assertEqual(self.calls, [((1,), {"x": 2}), ((), {})])
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(self.successResultOf(self.ready), "result")

    def test_fired(self) -> None:
        """When it has fired already, the call is made at once."""
        self.ready.callback(None)
        d = callAfterDeferred(self.owner, "ready", self.call)
        self.assertEqual(self.successResultOf(d), 1)

    def test_none(self) -> None:
        """So it is when there's no such attribute, or it's C{None}."""
        for i, name in enumerate(("nothing", "missing")):
            d = callAfterDeferred(self.owner, name, self.call)
            self.assertEqual(self.successResultOf(d), i + 1)

    def test_otherwise(self) -> None:
        """An attribute that's something else is an error that names it."""
        with self.assertRaisesRegex(TypeError, "'number'.*not 7"):
            callAfterDeferred(self.owner, "number", self.call)

    def test_callDeferred(self) -> None:
        """The call may return a Deferred, which is waited for."""
        result: Deferred[int] = Deferred()
        self.ready.callback(None)
        d = callAfterDeferred(self.owner, "ready", lambda: result)
        self.assertNoResult(d)
        result.callback(5)
        self.assertEqual(self.successResultOf(d), 5)

    def test_callRaises(self) -> None:
        """A call that raises fails its own Deferred only."""
        d = callAfterDeferred(self.owner, "ready", lambda: 1 / 0)
        self.ready.callback(None)
        self.failureResultOf(d, ZeroDivisionError)
        self.assertIsNone(self.successResultOf(self.ready))

    def test_gateFails(self) -> None:
        """When the Deferred fails, the call isn't made, and fails likewise."""
        d = callAfterDeferred(self.owner, "ready", self.call)
        self.ready.errback(KeyError())
        self.failureResultOf(d, KeyError)
        self.failureResultOf(self.ready, KeyError)
        self.assertEqual(self.calls, [])

    def test_cancelBefore(self) -> None:
        """
        A call that is cancelled before isn't made, and the Deferred isn't cancelled.
        """
        d = callAfterDeferred(self.owner, "ready", self.call)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertNoResult(self.ready)
        self.ready.callback(None)
        self.assertEqual(self.calls, [])

    def test_cancelDuring(self) -> None:
        """
        A call that is cancelled while it's going on has its own Deferred cancelled.
        """
        inner: Deferred[None] = Deferred()
        self.ready.callback(None)
        d = callAfterDeferred(self.owner, "ready", lambda: inner)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertTrue(inner.called)
