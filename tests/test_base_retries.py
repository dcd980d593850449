"""Tests of time limits, and of further attempts."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue._asyncworker import AsyncWorker
from asynqueue.errors import QueueRunError, QueueStopped, TimeoutError, WorkerLost
from asynqueue.events import EventKind
from asynqueue.testing import MemoryWorker, RecordingConsumer

from ._cases import QueueTestCase, ids, same


class TimeoutTests(QueueTestCase):
    """Tests of C{timeout}."""

    def test_timeout(self) -> None:
        """
        When its time is up, the work is stopped, and the call fails with a
        TimeoutError that names it.
        """
        d = self.q.call(same, 1, timeout=5, retries=0)
        job = self.worker.running[0]
        self.clock.advance(4.9)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        failure = self.failureResultOf(d, TimeoutError)
        self.assertIn("same(1)", str(failure.value))
        self.assertEqual(self.worker.cancelled, [job])

    def test_builtin(self) -> None:
        """It's also the builtin TimeoutError."""
        d = self.q.call(same, timeout=5, retries=0)
        self.clock.advance(5)
        self.failureResultOf(d, builtins.TimeoutError)

    def test_notRetried(self) -> None:
        """A time limit alone brings no further attempt."""
        d = self.q.call(same, timeout=5)
        self.clock.advance(5)
        self.failureResultOf(d, TimeoutError)
        self.assertEqual(len(self.worker.accepted), 1)

    def test_none(self) -> None:
        """A time limit of 0 is none."""
        d = self.q.call(same, timeout=0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.worker.complete(3)
        self.assertEqual(self.successResultOf(d), 3)

    def test_retried(self) -> None:
        """With an attempt left, it's tried again, each time for that long."""
        d = self.q.call(same, timeout=5, retries=1)
        self.clock.advance(5)
        self.assertNoResult(d)
        self.assertEqual(len(self.worker.running), 1)
        self.clock.advance(4.9)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.failureResultOf(d, TimeoutError)
        self.assertEqual(len(self.worker.accepted), 2)

    def test_secondAttempt(self) -> None:
        """
        The result of the second attempt is the call's; that of the first is ignored,
        however late.
        """
        d = self.q.call(same, timeout=5, retries=1)
        first = self.worker.running[0]
        self.clock.advance(5)
        self.worker.complete("first", first)
        self.assertNoResult(d)
        self.worker.complete("second")
        self.assertEqual(self.successResultOf(d), "second")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_raising(self) -> None:
        """A call that raises isn't tried again."""
        d = self.q.call(same, timeout=5, retries=3)
        self.worker.fail(ValueError())
        self.failureResultOf(d, ValueError)
        self.assertEqual(len(self.worker.accepted), 1)

    def test_waiting(self) -> None:
        """The time in which the call waits doesn't count."""
        self.fillWorker()
        d = self.q.call(same, timeout=5, retries=0)
        self.clock.advance(100)
        self.worker.complete()
        self.clock.advance(4.9)
        self.worker.complete(1)
        self.assertEqual(self.successResultOf(d), 1)

    def test_nextCall(self) -> None:
        """After a call whose time was up the worker takes the next."""
        self.q.call(same, "slow", timeout=5, retries=0).addErrback(lambda _: None)
        following = self.q.call(same, "next")
        self.clock.advance(5)
        self.assertEqual(ids(self.worker), ["next"])
        self.worker.complete(1)
        self.assertEqual(self.successResultOf(following), 1)

    def test_inReactor(self) -> None:
        """In the reactor, the callable's Deferred is cancelled when the time is up."""
        cancelled: list[Any] = []
        q = self.queue(AsyncWorker())
        d: Deferred[Any] = q.call(
            lambda: Deferred(cancelled.append), timeout=5, retries=1
        )
        self.clock.advance(5)
        self.assertEqual(len(cancelled), 1)
        self.clock.advance(5)
        self.assertEqual(len(cancelled), 2)
        self.failureResultOf(d, TimeoutError)
        self.assertEqual(self.successResultOf(q.call(same, 5)), 5)

    def test_within(self) -> None:
        """A limit from the call on includes waiting and further attempts."""
        self.fillWorker()
        waiting = self.q.call(same, 1, within=5)
        running = self.queue(MemoryWorker()).call(same, timeout=3, retries=9, within=5)
        done = self.queue(AsyncWorker()).call(same, 3, within=5)
        self.clock.advance(3)
        self.assertNoResult(running)
        self.clock.advance(2)
        for d in (waiting, running):
            failure = self.failureResultOf(d, TimeoutError)
            self.assertIn("within 5 seconds", str(failure.value))
        self.assertEqual(self.successResultOf(done), 3)
        self.assertEqual(self.q.th.waiting, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_withinRetryDelay(self) -> None:
        """It also ends the wait for a further attempt."""
        d = self.q.call(same, timeout=1, retries=1, retryDelay=10, within=5)
        self.clock.advance(1)
        self.assertNoResult(d)
        self.clock.advance(4)
        self.failureResultOf(d, TimeoutError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ownParameters(self) -> None:
        """
        Once for each callable that has a parameter of the name of one of the queue's
        newer keywords, a warning says who gets it.
        """

        def download(url: str, retries: int = 0) -> str:
            return url

        def silent(url: str) -> str:
            return url

        for f in (download, silent, download):
            self.q.call(f, "x", retries=1)
        self.q.call(download, "x")
        [warning] = self.flushWarnings()
        self.assertIs(warning["category"], UserWarning)
        self.assertIn("partial(download, retries=...)", warning["message"])

    def test_byWorker(self) -> None:
        """A worker may watch the time itself."""
        d = self.q.call(same, retries=1)
        self.worker.answer((b"t", "too long"))
        self.assertNoResult(d)
        self.worker.answer((b"t", "too long"))
        failure = self.failureResultOf(d, TimeoutError)
        self.assertEqual(str(failure.value), "too long")


class RetriesTests(QueueTestCase):
    """Tests of C{retries} and C{retryDelay}."""

    def lose(self, times: int) -> None:
        """Have the worker be lost with its task, so many times."""
        for _ in range(times):
            self.worker.lose(WorkerLost("lost"))

    def test_none(self) -> None:
        """By default, a call whose worker was lost isn't tried again."""
        d = self.q.call(same)
        self.lose(1)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(self.worker.running, [])

    def test_number(self) -> None:
        """With C{retries}, it's tried so many times more."""
        d = self.q.call(same, retries=3)
        self.lose(3)
        self.assertNoResult(d)
        self.lose(1)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(len(self.worker.accepted), 4)

    def test_ofQueue(self) -> None:
        """The queue may say it for all calls; a call may say otherwise."""
        self.worker = MemoryWorker()
        self.q = self.queue(self.worker, retries=1)
        usual, never = self.q.call(same, 1), self.q.call(same, 2, retries=0)
        self.lose(1)
        self.assertEqual(ids(self.worker), [1])
        self.lose(1)
        self.failureResultOf(usual, WorkerLost)
        self.lose(1)
        self.failureResultOf(never, WorkerLost)

    def test_mixed(self) -> None:
        """
        Time-outs and lost workers count together; workers that say that they haven't
        run it don't.
        """
        d = self.q.call(same, timeout=5, retries=2)
        self.clock.advance(5)
        self.worker.disconnect()
        self.lose(1)
        self.worker.disconnect()
        self.assertNoResult(d)
        self.clock.advance(5)
        self.failureResultOf(d, TimeoutError)

    def test_place(self) -> None:
        """A call that is tried again keeps its place before those queued later."""
        calls = [self.q.call(same, n, retries=1) for n in range(3)]
        self.lose(1)
        self.assertEqual(self.runAll(), [0, 1, 2])
        for d in calls:
            self.successResultOf(d)

    def test_delay(self) -> None:
        """
        With C{retryDelay}, so many seconds pass before each further attempt; others
        are run meanwhile.
        """
        d = self.q.call(same, "again", retries=2, retryDelay=10)
        self.q.call(same, "other")
        self.lose(1)
        self.assertEqual(ids(self.worker), ["other"])
        self.worker.complete()
        self.clock.advance(9)
        self.assertEqual(ids(self.worker), [])
        self.clock.advance(1)
        self.assertEqual(ids(self.worker), ["again"])
        self.lose(1)
        self.clock.advance(10)
        self.worker.complete(5)
        self.assertEqual(self.successResultOf(d), 5)

    def test_delayFunction(self) -> None:
        """It may be a callable that is given the number of the attempt."""
        numbers: list[int] = []

        def delay(number: int) -> float:
            numbers.append(number)
            return 2.0**number

        self.worker = MemoryWorker()
        self.q = self.queue(self.worker, retries=3, retryDelay=delay)
        d = self.q.call(same)
        for seconds in (2, 4, 8):
            self.lose(1)
            self.clock.advance(seconds - 0.1)
            self.assertEqual(self.worker.running, [])
            self.clock.advance(0.1)
        self.lose(1)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(numbers, [1, 2, 3])

    def test_badDelayFunction(self) -> None:
        """If that raises, or returns nonsense, the call fails with that."""

        def fails(number: int) -> float:
            raise KeyError(number)

        for delay, error in ((fails, KeyError), (lambda n: -1, ValueError)):
            d = self.q.call(same, retries=1, retryDelay=delay)
            self.lose(1)
            self.failureResultOf(d, error)

    def test_cancelDelayed(self) -> None:
        """A call that waits for its next attempt can be cancelled."""
        d = self.q.call(same, retries=1, retryDelay=10)
        self.lose(1)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelSecond(self) -> None:
        """So can one that is being tried again, or waits for that."""
        for prepare in (lambda: None, lambda: self.q.call(same, doNext=True)):
            d = self.q.call(same, retries=1)
            prepare()
            self.lose(1)
            d.cancel()
            self.failureResultOf(d, CancelledError)
            self.runAll()

    def test_shutdown(self) -> None:
        """
        A call that waits for its next attempt when the queue is shut down fails with
        QueueStopped, and is in the list of those unfinished.
        """
        d = self.q.call(same, retries=1, retryDelay=10)
        self.lose(1)
        shutdown = self.q.shutdown()
        self.failureResultOf(d, QueueStopped)
        self.assertEqual(len(self.successResultOf(shutdown)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lostAtShutdown(self) -> None:
        """No call is tried again once the shutdown has begun."""
        d = self.q.call(same, retries=5)
        shutdown = self.q.shutdown()
        self.lose(1)
        self.failureResultOf(d, WorkerLost)
        self.assertEqual(self.successResultOf(shutdown), [])

    def test_notRunAtShutdown(self) -> None:
        """One that a worker says it hasn't run fails with QueueStopped then."""
        d = self.q.call(same)
        self.q.shutdown()
        self.worker.disconnect()
        self.failureResultOf(d, QueueStopped)


class InterferenceTests(QueueTestCase):
    """Tests of code of the user's that acts between two attempts."""

    def lose(self) -> None:
        """Lose the worker, and the task that it has."""
        self.worker.lose(WorkerLost("gone"))

    def test_delayCancels(self) -> None:
        """A callable that gives the delay may cancel the call."""

        def delay(attempt: int) -> int:
            calls[0].cancel()
            return 0

        calls = [self.q.call(same, retries=2, retryDelay=delay)]
        self.lose()
        self.failureResultOf(calls[0], CancelledError)
        self.assertEqual(self.q.q.loadInfoProducer.queued, 0)
        self.assertEqual(self.successResultOf(self.q.shutdown(drain=True)), [])

    def test_nobodyLeft(self) -> None:
        """A drain doesn't wait for an attempt that nobody is left to make."""
        d = self.q.call(same, retries=1, retryDelay=1)
        self.lose()
        self.worker.resign()
        done = self.q.shutdown(drain=True)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.failureResultOf(d, QueueStopped)
        self.successResultOf(done)

    def test_handlerRefuses(self) -> None:
        """A call fails that a subclass of the handler doesn't take again."""
        for delay in (0, 1):
            worker = MemoryWorker()
            q = self.queue(worker, retries=1, retryDelay=delay)
            d = q.call(same)
            q.th.isRunning = False
            worker.lose(WorkerLost("gone"))
            self.clock.advance(1)
            self.failureResultOf(d, QueueRunError)
            self.assertEqual(q.q.loadInfoProducer.queued, 0)


class Paused(RecordingConsumer):
    """A consumer that takes nothing yet."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause the producer."""
        super().registerProducer(producer, streaming)
        producer.pauseProducing()


class WithinConsumerTests(QueueTestCase):
    """Tests of C{within} while a consumer takes the items of an iterator."""

    def test_tooLate(self) -> None:
        """It fails with TimeoutError, as without a consumer."""
        q = self.queue(AsyncWorker())
        items = iter([1, 2, 3])
        d = q.call(lambda: items, consumer=Paused(), within=5)
        self.clock.advance(5)
        self.clock.advance(0)
        failure = self.failureResultOf(d, TimeoutError)
        self.assertIn("within 5 seconds", str(failure.value))
        self.assertEqual(q.stats()["failed"], {"timeout": 1})


class ObservedTests(QueueTestCase):
    """Tests of observers that end a call which is to be tried again."""

    def end(self, end: Callable[[Deferred[Any]], object]) -> Failure:
        """
        Make a call, and have it ended when it's to be tried again. Returns how it
        fails, counted once.
        """
        d = self.q.call(same, timeout=5, retries=1)
        self.q.addObserver(lambda event: end(d), [EventKind.RETRIED])
        self.clock.advance(5)
        failure: Failure = self.failureResultOf(d)
        stats = self.q.stats()
        self.assertEqual((stats["load"], sum(stats["failed"].values())), (0, 1))
        self.assertEqual(len(self.worker.accepted), 1)
        return failure

    def test_cancel(self) -> None:
        """A call that one cancels isn't tried again."""
        self.end(lambda d: d.cancel()).trap(CancelledError)

    def test_shutdown(self) -> None:
        """Nor is it if one shuts the queue down."""
        self.end(lambda d: self.q.shutdown()).trap(QueueStopped)
