"""Tests of the queue's shutdown."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import Status
from asynqueue.base import TaskQueue
from asynqueue.errors import QueueRunError, QueueStopped, WorkerLost
from asynqueue.events import EventKind
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, ReplaceableWorker, ids, same


class Replaceable(ReplaceableWorker):
    """
    A worker whose place another takes when it's lost: the next of its heirs, or none if
    that is an exception, which is raised.
    """

    def __init__(self, *heirs: Any) -> None:
        super().__init__()
        self.heirs = list(heirs)

    def replacement(self) -> Any:
        """The next of them."""
        heir = self.heirs.pop(0)
        if isinstance(heir, Exception):
            raise heir
        return heir


class ShutdownTests(QueueTestCase):
    """Tests of the usual shutdown."""

    def test_idle(self) -> None:
        """An idle queue has shut down at once, and has no workers then."""
        self.assertEqual(self.successResultOf(self.q.shutdown()), [])
        self.assertEqual((self.q.isRunning(), len(self.q)), (False, 0))
        self.assertTrue(self.worker.stopping)

    def test_noWorkers(self) -> None:
        """So has one without workers; what is queued there fails."""
        q = self.queue()
        d = q.call(same)
        self.assertEqual(len(self.successResultOf(q.shutdown())), 1)
        self.failureResultOf(d, QueueStopped)
        self.assertEqual(self.successResultOf(self.queue().shutdown(drain=True)), [])

    def test_queued(self) -> None:
        """
        Calls that no worker has accepted fail with QueueStopped, which names them, and
        are the unfinished; they never run.
        """
        running = self.fillWorker()
        waiting = [self.q.call(same, n) for n in range(3)]
        d = self.q.shutdown()
        for n, call in enumerate(waiting):
            failure = self.failureResultOf(call, QueueStopped)
            self.assertIn(f"same({n})", str(failure.value))
        self.assertNoResult(d)
        self.worker.complete(5)
        self.assertEqual(self.successResultOf(running), 5)
        tasks = self.successResultOf(d)
        self.assertEqual([task.callTuple[1] for task in tasks], [(0,), (1,), (2,)])
        self.assertEqual(self.worker.running, [])

    def test_unserved(self) -> None:
        """So do those that nobody serves."""
        call = self.q.call(same, series="nobody")
        self.assertEqual(len(self.successResultOf(self.q.shutdown())), 1)
        self.failureResultOf(call, QueueStopped)

    def test_slowCalls(self) -> None:
        """
        Calls that are queued behind a slow one don't keep the shutdown from its end.
        """
        inner: Deferred[None] = Deferred()
        q = self.queue(AsyncWorker())
        calls = [q.call(lambda: inner) for _ in range(5)]
        d = q.shutdown()
        self.assertNoResult(d)
        inner.callback(None)
        self.assertEqual(len(self.successResultOf(d)), 4)
        self.successResultOf(calls[0])
        for call in calls[1:]:
            self.failureResultOf(call, QueueStopped)

    def test_twice(self) -> None:
        """
        Who shuts down again waits for the same, and gets the same, also when it's over.
        """
        running = self.fillWorker()
        self.q.call(same).addErrback(lambda _: None)
        shutdowns = [self.q.shutdown(), self.q.shutdown(), self.q.shutdown(drain=True)]
        for d in shutdowns:
            self.assertNoResult(d)
        self.worker.complete()
        self.successResultOf(running)
        results = [self.successResultOf(d) for d in (*shutdowns, self.q.shutdown())]
        self.assertEqual([len(result) for result in results], [1] * 4)
        self.assertEqual(results, [results[0]] * 4)
        results[0].clear()
        self.assertEqual(len(self.successResultOf(self.q.shutdown())), 1)

    def test_hurried(self) -> None:
        """Who shuts down again can have it be over sooner, and not later."""
        for first in (
            {},
            {"timeout": 50},
            {"drain": True},
            {"drain": True, "timeout": 50},
        ):
            self.worker = MemoryWorker()
            self.q = self.queue(self.worker)
            running = self.fillWorker()
            again = {"drain": "drain" in first}
            shutdowns = [self.q.shutdown(**first)]
            shutdowns += [self.q.shutdown(timeout=n, **again) for n in (7, 5, 30)]
            shutdowns.append(self.q.shutdown(**again))
            self.clock.advance(4)
            self.assertNoResult(shutdowns[0])
            self.clock.advance(1)
            for d in shutdowns:
                self.assertEqual(len(self.successResultOf(d)), 1)
            self.failureResultOf(running, WorkerLost)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hurriedAtOnce(self) -> None:
        """Also at once."""
        running = self.fillWorker()
        shutdowns = [self.q.shutdown(), self.q.shutdown(timeout=0)]
        self.clock.advance(0)
        for d in shutdowns:
            self.successResultOf(d)
        self.failureResultOf(running, WorkerLost)

    def test_inCallback(self) -> None:
        """
        A callback of a call may shut down the queue; it can't wait for that in the call
        that is being shut down, but its worker has gone afterwards.
        """
        shutdowns: list[Deferred[Any]] = []

        def shutDown(_: Any, q: TaskQueue) -> None:
            shutdowns.append(q.shutdown())

        for worker in (AsyncWorker(), MemoryWorker()):
            q = self.queue(worker)
            d = q.call(same, 1)
            d.addCallback(shutDown, q)
            if isinstance(worker, MemoryWorker):
                worker.complete()
            self.successResultOf(d)
        for shutdown in shutdowns:
            self.assertEqual(self.successResultOf(shutdown), [])
        self.assertEqual(len(shutdowns), 2)

    def test_inCallable(self) -> None:
        """So may a callable in the reactor."""
        shutdowns: list[Deferred[Any]] = []
        q = self.queue(AsyncWorker())
        d = q.call(lambda: shutdowns.append(q.shutdown()))
        self.successResultOf(d)
        self.assertEqual(self.successResultOf(shutdowns[0]), [])

    def test_inErrback(self) -> None:
        """
        An errback of a call that is not run may shut down again, and can't make another
        call.
        """
        self.fillWorker()
        refused: list[Any] = []
        again: list[Deferred[Any]] = []

        def errback(_: Any) -> None:
            again.append(self.q.shutdown())
            refused.append(self.assertRaises(QueueRunError, self.q.call, same))

        self.q.call(same).addErrback(errback)
        d = self.q.shutdown()
        self.worker.complete()
        self.assertEqual(self.successResultOf(d), self.successResultOf(again[0]))
        self.assertEqual(len(refused), 1)

    def test_timeout(self) -> None:
        """
        After the time limit workers are crashed, and the calls that they were running
        fail with WorkerLost; nothing is left in the reactor.
        """
        for ofQueue, ofCall in ((3, None), (None, 3), (9, 3)):
            worker = MemoryWorker()
            q = self.queue(worker, timeout=ofQueue)
            call = q.call(same)
            d = q.shutdown(timeout=ofCall)
            self.clock.advance(2.9)
            self.assertNoResult(d)
            self.clock.advance(0.1)
            self.assertEqual(len(self.successResultOf(d)), 1)
            self.failureResultOf(call, WorkerLost)
            self.assertTrue(worker.crashed)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_inTime(self) -> None:
        """
        If all is done before, nothing is crashed, and nothing is left in the reactor.
        """
        call = self.fillWorker()
        d = self.q.shutdown(timeout=3)
        self.worker.complete()
        self.successResultOf(call)
        self.assertEqual(self.successResultOf(d), [])
        self.assertFalse(self.worker.crashed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeoutOfZero(self) -> None:
        """A time limit of zero is one."""
        call = self.fillWorker()
        d = self.q.shutdown(timeout=0)
        self.clock.advance(0)
        self.failureResultOf(call, WorkerLost)
        self.assertEqual(len(self.successResultOf(d)), 1)

    def test_badTimeout(self) -> None:
        """One that isn't a number is refused, and the queue goes on."""
        for timeout in (-1, "3"):
            bad: Any = timeout
            self.assertRaises(ValueError, self.q.shutdown, timeout=bad)
        self.assertTrue(self.q.isRunning())

    def test_detached(self) -> None:
        """A worker that is being detached is waited for."""
        call = self.fillWorker()
        detached = self.q.detachWorker(self.worker)
        detached.addCallback(lambda tasks: None)
        d = self.q.shutdown()
        self.assertNoResult(d)
        self.worker.complete()
        self.successResultOf(call)
        self.assertEqual(self.successResultOf(d), [])
        self.successResultOf(detached)

    def test_updates(self) -> None:
        """
        An update that is running when its worker is crashed has text as its result.
        """
        updated = self.q.update(same)
        d = self.q.shutdown(timeout=1)
        self.clock.advance(1)
        (text,) = self.successResultOf(updated)
        self.assertIsInstance(text, str)
        self.successResultOf(d)

    def test_cancelled(self) -> None:
        """Who no longer waits for the shutdown doesn't keep it from its end."""
        call = self.fillWorker()
        d = self.q.shutdown()
        other = self.q.shutdown()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.worker.complete()
        self.successResultOf(call)
        self.assertEqual(self.successResultOf(other), [])

    def test_pendingTurn(self) -> None:
        """
        If calls are just waiting for the reactor's next turn, nothing is left there.
        """

        def work() -> None:
            self.clock.rightNow += 1

        q = self.queue(AsyncWorker())
        gate: Deferred[None] = Deferred()
        q.call(lambda: gate)
        calls = [q.call(work) for _ in range(3)]
        gate.callback(None)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(len(self.successResultOf(q.shutdown())), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for call in calls[1:]:
            self.failureResultOf(call, QueueStopped)

    def test_noTimeLimitIsLeft(self) -> None:
        """
        When a Deferred tells that workers have gone in time, no delayed call is left of
        their time limit.
        """

        def hurried(q: Any) -> Any:
            q.shutdown(drain=True)
            return q.shutdown(drain=True, timeout=5)

        for letGo in (
            lambda q: q.shutdown(timeout=5),
            lambda q: q.shutdown(drain=True, timeout=5),
            hurried,
            lambda q: q.detachWorker(1),
        ):
            worker = MemoryWorker()
            q = self.queue(worker, timeout=9)
            q.call(same)
            gone = letGo(q).addCallback(lambda _: list(self.clock.getDelayedCalls()))
            worker.complete()
            self.assertEqual(self.successResultOf(gone), [])


class CancelledWaitTests(QueueTestCase):
    """Tests of those who stop waiting for workers to come or go."""

    def test_detach(self) -> None:
        """Calls of a worker that is let go fail though nobody waits for that."""
        worker = MemoryWorker()
        q = self.queue(worker, timeout=5)
        d = q.call(same)
        gone = q.detachWorker(worker)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.clock.advance(5)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(q.q.loadInfoProducer.queued, 0)
        self.successResultOf(q.shutdown(drain=True))

    def test_attach(self) -> None:
        """The updates of a new worker go on."""
        self.q.update(same)
        self.worker.complete()
        other = MemoryWorker()
        ready = self.q.attachWorker(other)
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        self.assertEqual(other.cancelled, [])
        other.complete()
        self.q.call(same)
        self.q.call(same)
        self.assertEqual(len(other.running), 1)

    def test_pause(self) -> None:
        """A queue that is being shut down can't be paused."""
        self.q.call(same)
        self.q.shutdown(drain=True)
        self.assertRaises(QueueRunError, self.q.pause)


class DrainTests(QueueTestCase):
    """Tests of the shutdown that runs what is queued first."""

    def test_all(self) -> None:
        """
        All that is queued is run; then the workers are let go. No more calls are taken
        meanwhile.
        """
        calls = [self.q.call(same, n) for n in range(3)]
        d = self.q.shutdown(drain=True)
        self.assertRaises(QueueRunError, self.q.call, same)
        self.assertFalse(self.worker.stopping)
        self.assertEqual(self.runAll(), [0, 1, 2])
        for call in calls:
            self.successResultOf(call)
        self.assertEqual(self.successResultOf(d), [])
        self.assertTrue(self.worker.stopping)

    def test_immediate(self) -> None:
        """
        Any number of calls that complete at once are drained, in time that grows with
        their number.
        """
        q = self.queue(AsyncWorker())
        gate: Deferred[None] = Deferred()
        q.call(lambda: gate)
        calls = [q.call(same, n) for n in range(10_000)]
        d = q.shutdown(drain=True)
        gate.callback(None)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(d), [])
        self.assertEqual(
            [self.successResultOf(call) for call in calls], list(range(10_000))
        )

    def test_unserved(self) -> None:
        """Calls that nobody serves aren't waited for, but fail with QueueStopped."""
        unserved = self.q.call(same, series="nobody")
        served = self.q.call(same)
        d = self.q.shutdown(drain=True)
        self.worker.complete()
        self.successResultOf(served)
        self.assertEqual(len(self.successResultOf(d)), 1)
        self.failureResultOf(unserved, QueueStopped)

    def test_onlyUnserved(self) -> None:
        """If there are only such, the shutdown is over at once."""
        unserved = self.q.call(same, series="nobody")
        self.assertEqual(len(self.successResultOf(self.q.shutdown(drain=True))), 1)
        self.failureResultOf(unserved, QueueStopped)

    def test_timeout(self) -> None:
        """
        The time limit is for all of it: what is queued then isn't run, and what is
        running then is lost at once.
        """
        running, waiting = self.q.call(same), self.q.call(same)
        d = self.q.shutdown(drain=True, timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, QueueStopped)
        self.failureResultOf(running, WorkerLost)
        self.assertEqual(len(self.successResultOf(d)), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lastOfTimeout(self) -> None:
        """When all is drained, workers have what is left of the time to stop."""

        class Slow(MemoryWorker):
            def stop(self) -> Deferred[None]:
                return Deferred()

        worker = Slow()
        q = self.queue(worker)
        call = q.call(same)
        d = q.shutdown(drain=True, timeout=3)
        self.clock.advance(2)
        worker.complete()
        self.successResultOf(call)
        self.assertNoResult(d)
        self.clock.advance(0.9)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(d), [])

    def test_stopped(self) -> None:
        """A second shutdown without draining ends the draining."""
        running, waiting = self.q.call(same), self.q.call(same)
        first = self.q.shutdown(drain=True, timeout=100)
        second = self.q.shutdown()
        self.failureResultOf(waiting, QueueStopped)
        self.worker.complete()
        self.successResultOf(running)
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stoppedAsItBegins(self) -> None:
        """So does one that somebody makes who hears that there'll be no place."""
        worker = MemoryWorker()
        q = self.queue(worker, maxQueued=1)
        running, waiting = q.call(same), q.call(same)
        q.ready().addErrback(lambda _: q.shutdown())
        d = q.shutdown(drain=True, timeout=100)
        self.failureResultOf(waiting, QueueStopped)
        worker.complete()
        self.successResultOf(running)
        self.assertEqual(len(self.successResultOf(d)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_inCallback(self) -> None:
        """A callback may begin the draining."""
        shutdowns: list[Deferred[Any]] = []
        q = self.queue(AsyncWorker())
        gate: Deferred[None] = Deferred()
        first = q.call(lambda: gate)
        first.addCallback(lambda _: shutdowns.append(q.shutdown(drain=True)))
        second = q.call(same, 5)
        gate.callback(None)
        self.assertEqual(self.successResultOf(second), 5)
        self.assertEqual(self.successResultOf(shutdowns[0]), [])

    def test_retries(self) -> None:
        """Further attempts are part of it, also those that wait for their time."""
        call = self.q.call(same, retries=1, retryDelay=10)
        self.worker.lose(WorkerLost("lost"))
        d = self.q.shutdown(drain=True)
        self.assertNoResult(d)
        self.clock.advance(10)
        self.worker.complete(5)
        self.assertEqual(self.successResultOf(call), 5)
        self.assertEqual(self.successResultOf(d), [])

    def test_retriesOverTime(self) -> None:
        """Unless the time limit passes before."""
        call = self.q.call(same, retries=1, retryDelay=10)
        self.worker.lose(WorkerLost("lost"))
        d = self.q.shutdown(drain=True, timeout=5)
        self.clock.advance(5)
        self.failureResultOf(call, QueueStopped)
        self.assertEqual(len(self.successResultOf(d)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_disconnected(self) -> None:
        """A call that a worker says it hasn't run is run by the next."""
        call = self.q.call(same)
        d = self.q.shutdown(drain=True)
        self.worker.disconnect()
        self.worker.complete(5)
        self.assertEqual(self.successResultOf(call), 5)
        self.assertEqual(self.successResultOf(d), [])

    def test_cancelled(self) -> None:
        """When all that was left is cancelled, it's over."""
        running, waiting = self.q.call(same), self.q.call(same)
        d = self.q.shutdown(drain=True)
        self.q.cancelAll()
        running.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.successResultOf(d), [])

    def test_lastWorkerDetached(self) -> None:
        """When the last worker leaves, there's nothing to wait for."""
        call = self.q.call(same)
        d = self.q.shutdown(drain=True)
        self.q.detachWorker(self.worker, crash=True, reassign=True)
        self.failureResultOf(call, QueueStopped)
        self.assertEqual(len(self.successResultOf(d)), 1)

    def test_lastWorkerResigns(self) -> None:
        """Also when it resigns."""
        call = self.q.call(same)
        d = self.q.shutdown(drain=True)
        self.worker.resign()
        self.failureResultOf(call, QueueStopped)
        self.assertEqual(len(self.successResultOf(d)), 1)

    def test_replacement(self) -> None:
        """
        A worker that takes the place of one that was lost goes on with the draining.
        """
        heir = MemoryWorker()
        worker = Replaceable(heir)
        q = self.queue(worker)
        calls = [q.call(same, n) for n in range(2)]
        d = q.shutdown(drain=True)
        worker.resign()
        for _ in calls:
            heir.complete()
        for call in calls:
            self.successResultOf(call)
        self.assertEqual(self.successResultOf(d), [])


class ReplacementTests(QueueTestCase):
    """Tests of what takes the place of workers that are lost."""

    def test_replaced(self) -> None:
        """The worker that a lost one names takes its place, with its calls."""
        heir = MemoryWorker()
        worker = Replaceable(heir)
        q = self.queue(worker)
        q.call(same, 1)
        worker.resign()
        self.assertEqual(q.workers(), [heir])
        self.assertEqual(ids(heir), [1])

    def test_observed(self) -> None:
        """An observer that shuts the queue down when one is replaced leaves neither."""
        heir = MemoryWorker()
        q = self.queue(worker := Replaceable(heir))
        ends: list[Deferred[Any]] = []
        q.addObserver(lambda _: ends.append(q.shutdown()), [EventKind.REPLACED])
        worker.resign()
        self.successResultOf(ends[0])
        self.assertTrue(heir.stopping)

    def test_noUse(self) -> None:
        """
        If there's no use in another, that is logged, and calls that nobody else serves
        fail with the reason; others go to who serves them.
        """
        worker, other = Replaceable(KeyError("broken")), MemoryWorker()
        worker.iQualified = ["x"]
        q = self.queue(worker, other)
        calls = [q.call(same, n) for n in range(3)]
        unserved = q.call(same, series="x")
        worker.resign()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.clock.advance(0)
        self.failureResultOf(unserved, KeyError)
        self.assertEqual(q.workers(), [other])
        for _ in calls:
            other.complete()
        for call in calls:
            self.successResultOf(call)

    def test_notAWorker(self) -> None:
        """If what should take its place can't be hired, that is so too."""
        worker = Replaceable(object())
        q = self.queue(worker)
        call = q.call(same)
        worker.resign()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.clock.advance(0)
        call.addErrback(lambda _: None)
        self.successResultOf(call)

    def test_givenBack(self) -> None:
        """
        What it gives back after that fails, too, at once if the queue is shut down.
        """
        for end in (lambda q: self.clock.advance(0), lambda q: q.shutdown(drain=True)):
            worker = Replaceable(KeyError("broken"))
            q = self.queue(worker)
            call = q.call(same, 1)
            (task,) = worker.running
            worker.crash = list  # type: ignore[method-assign]
            worker.resign()
            task.callback((Status.DISCONNECTED, None))
            end(q)
            self.failureResultOf(call, KeyError)
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_givenBackDraining(self) -> None:
        """A queue that is drained doesn't wait for what is given back then."""
        worker = Replaceable(KeyError("broken"))
        q = self.queue(worker)
        call = q.call(same, 1)
        (task,) = worker.running
        done = q.shutdown(drain=True)
        worker.crash = list  # type: ignore[method-assign]
        worker.resign()
        task.callback((Status.DISCONNECTED, None))
        self.clock.advance(0)
        self.failureResultOf(call, KeyError)
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_calledAgain(self) -> None:
        """
        A call that is made because another fails has it tried again in the next turn of
        the reactor: nothing is nested.
        """
        q = self.queue(worker := Replaceable(KeyError("broken")))
        worker.retryReplacement = object  # type: ignore[method-assign]
        depths: list[int] = []

        def again(_: object) -> None:
            depths.append(len(inspect.stack(0)))
            if len(depths) < 5:
                q.call(same, 1).addErrback(again)

        worker.resign()
        q.call(same, 1).addErrback(again)
        self.clock.advance(0)
        self.assertEqual(len(depths), 5)
        self.assertEqual(len(set(depths)), 1)
        self.assertEqual(len(self.flushLoggedErrors()), 5)

    def test_delayedAttempt(self) -> None:
        """So does a further attempt that comes later."""
        worker = Replaceable(KeyError("broken"))
        q = self.queue(worker)
        call = q.call(same, 1, retries=1, retryDelay=5)
        worker.lose(WorkerLost("gone"), ready=False)
        worker.resign()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        heir = MemoryWorker()
        worker.retryReplacement = lambda: heir  # type: ignore[method-assign]
        self.clock.advance(5)
        heir.complete(1)
        self.assertEqual(self.successResultOf(call), 1)

    def test_atShutdown(self) -> None:
        """Nobody takes the place of a worker that is lost during the shutdown."""
        worker = Replaceable()
        q = self.queue(worker)
        call = q.call(same)
        d = q.shutdown()
        worker.resign()
        self.failureResultOf(call, WorkerLost)
        self.assertEqual(len(self.successResultOf(d)), 1)


class Hostile(ReplaceableWorker):
    """A worker one of whose methods raises C{ZeroDivisionError}."""

    def __init__(self, name: str, heir: Any = None) -> None:
        super().__init__()
        setattr(self, name, self.fail)
        self.heir = heir

    def fail(self, *args: object) -> Any:
        """Raise it."""
        raise ZeroDivisionError

    def replacement(self) -> Any:
        """What takes its place."""
        return self.heir


class HostileTests(QueueTestCase):
    """A worker that raises where it shouldn't harms no other, and loses no call."""

    def assertLogged(self) -> None:
        """Check that what was raised is in the log."""
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_gone(self) -> None:
        """One that can't tell when it has gone is replaced, and shutdown fires."""
        heir = MemoryWorker()
        q = self.queue(worker := Hostile("deferUntilGone", heir))
        call = q.call(same, 1)
        worker.resign()
        self.assertLogged()
        heir.complete(1)
        self.assertEqual(self.successResultOf(call), 1)
        self.successResultOf(q.shutdown())

    def test_goneAtTimeout(self) -> None:
        """It's crashed when the time for the shutdown is up, as any other."""
        q = self.queue(Hostile("deferUntilGone"))
        call = q.call(same, 1)
        d = q.shutdown(timeout=1)
        self.clock.advance(1)
        self.assertLogged()
        self.failureResultOf(call, WorkerLost)
        self.successResultOf(d)

    def test_updates(self) -> None:
        """One that fails when it's to be put to work is let go, and its calls fail."""
        for name in ("updatesApplied", "deferUntilReady"):
            q = self.queue()
            self.failureResultOf(q.attachWorker(Hostile(name)), ZeroDivisionError)
            self.assertEqual(q.workers(), [])
            self.successResultOf(q.shutdown())

    def test_retry(self) -> None:
        """
        One that can't be replaced fails the calls that wait for it, one after the
        other.
        """
        q = self.queue(worker := Hostile("retryReplacement", object()))
        worker.resign()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.clock.advance(0)
        for _ in range(2):
            call = q.call(same, 1)
            self.clock.advance(0)
            self.failureResultOf(call, ZeroDivisionError)
            self.assertLogged()

    def test_crashedWhenRefused(self) -> None:
        """One that can't be put to work is crashed: nothing of it is left."""
        crashed: list[None] = []

        def crash() -> list[Any]:
            crashed.append(None)
            return []

        worker = Hostile("deferUntilReady")
        worker.crash = crash  # type: ignore[method-assign]
        self.failureResultOf(self.queue().attachWorker(worker), ZeroDivisionError)
        self.assertEqual(len(crashed), 1)
