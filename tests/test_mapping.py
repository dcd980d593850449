"""Tests of C{map} and C{imap}."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.calls import DONE, runChunk
from asynqueue.base import TaskQueue
from asynqueue.base._mapping import progressOf
from asynqueue.errors import QueueRunError, QueueStopped, WorkerError, WorkerLost
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, same
from ._jobs import stopsIteration


def invert(x: int) -> float:
    """Fail for 5."""
    return 1 / (x - 5)


class ChunkTests(SynchronousTestCase):
    """What a worker does for a chunk."""

    def test_results(self) -> None:
        """The results come in order, with the seconds that they took."""
        seconds, results = runChunk(abs, [-1, -2], 0, False)
        self.assertGreaterEqual(seconds, 0)
        self.assertEqual(results, [1, 2])

    def test_star(self) -> None:
        """Items are tuples of arguments if there are several iterables."""
        self.assertEqual(runChunk(pow, [(2, 3), (3, 2)], 0, True)[1], [8, 9])

    def test_failure(self) -> None:
        """The exception names the item, and brings along what was done before it."""
        error = self.assertRaises(ZeroDivisionError, runChunk, invert, [4, 5, 6], 4, 0)
        self.assertEqual(getattr(error, DONE), (5, [-1.0]))
        self.assertEqual(error.__notes__, ["Raised for item 5 of a map"])

    def test_stopIteration(self) -> None:
        """
        A function that raises C{StopIteration} has failed. It doesn't end the items.
        """
        for star, items in ((False, [6, 7, 8]), (True, [(6,), (7,), (8,)])):
            error = self.assertRaises(
                RuntimeError, runChunk, stopsIteration, items, 6, star
            )
            self.assertEqual(getattr(error, DONE), (7, [6]))
            self.assertIn("StopIteration", str(error))

    def test_deferred(self) -> None:
        """Results that are Deferreds are waited for."""
        waiting: Deferred[int] = Deferred()
        d = runChunk(lambda x: waiting if x else x, [0, 1], 0, False)
        self.assertNoResult(d)
        waiting.callback(7)
        self.assertEqual(self.successResultOf(d)[1], [0, 7])

    def test_deferredFailure(self) -> None:
        """The failure of a Deferred names its item, too."""
        waiting: Deferred[int] = Deferred()
        d = runChunk(lambda x: waiting if x else x, [0, 1], 0, False)
        waiting.errback(KeyError("k"))
        error = self.failureResultOf(d, KeyError).value
        self.assertEqual(getattr(error, DONE), (1, [0]))


class MapTests(SynchronousTestCase):
    """L{TaskQueue.map} and L{TaskQueue.imap}, on workers in the reactor."""

    def setUp(self) -> None:
        """Make a queue with two workers."""
        self.clock = Clock()
        self.waiting: dict[Any, Deferred[Any]] = {}
        self.q = self.makeQueue()

    def makeQueue(self, **kw: Any) -> TaskQueue:
        """Make a queue."""
        return TaskQueue(AsyncWorker(), AsyncWorker(), reactor=self.clock, **kw)

    def slow(self, x: Any) -> Deferred[Any]:
        """Have a result when the test says so."""
        d = self.waiting[x] = Deferred()
        return d

    def numbers(self) -> Iterator[int]:
        """Count for ever, and note how far it was read."""
        for self.read in itertools.count():
            yield self.read

    def test_list(self) -> None:
        """The Deferred of a map fires with the results in order."""
        d = self.q.map(abs, range(-1000, 0))
        self.assertEqual(self.successResultOf(d), list(range(1000, 0, -1)))

    def test_empty(self) -> None:
        """Nothing maps to nothing."""
        self.assertEqual(self.successResultOf(self.q.map(abs, [])), [])

    def test_shortest(self) -> None:
        """Of several iterables, the shortest tells how many calls there are."""
        d = self.q.map(pow, [2, 3], itertools.count(2))
        self.assertEqual(self.successResultOf(d), [4, 27])

    def test_order(self) -> None:
        """Results that come early wait for those before them."""
        d = self.q.map(self.slow, "ab", chunksize=1)
        self.waiting["b"].callback(2)
        self.assertNoResult(d)
        self.waiting["a"].callback(1)
        self.assertEqual(self.successResultOf(d), [1, 2])

    def test_noOrder(self) -> None:
        """Unless the order doesn't matter."""
        d = self.q.map(self.slow, "ab", chunksize=1, ordered=False)
        self.waiting["b"].callback(2)
        self.waiting["a"].callback(1)
        self.assertEqual(self.successResultOf(d), [2, 1])

    def test_failure(self) -> None:
        """
        A map fails as the first item that does, whatever the policy for errors is, and
        the exception names the item.
        """
        for kw in ({}, {"warn": True}, {"returnFailure": True}):
            failure = self.failureResultOf(
                self.makeQueue(**kw).map(invert, range(100)), ZeroDivisionError
            )
            notes = getattr(failure.value, "__notes__", [])
            self.assertEqual(notes, ["Raised for item 5 of a map"])
            self.assertFalse(hasattr(failure.value, DONE))

    def test_inputFails(self) -> None:
        """A map fails when its input does."""
        failing = (1 // x for x in [1, 0])
        self.failureResultOf(self.q.map(abs, failing), ZeroDivisionError)

    def test_cancel(self) -> None:
        """
        When a map is cancelled, items whose calls aren't running are never begun, and
        a generator that they come from is closed.
        """
        numbers = self.numbers()
        d = self.q.map(self.slow, numbers, chunksize=1)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        for waiting in list(self.waiting.values()):
            waiting.callback(None)
        self.assertEqual(set(self.waiting), {0, 1})
        self.assertRaises(StopIteration, next, numbers)
        self.assertEqual(self.q.q.loadInfoProducer.queued, 0)

    def test_bounded(self) -> None:
        """The input is read no further than there is work on its way to the workers."""
        self.q.map(self.slow, self.numbers(), chunksize=1)
        self.assertEqual(self.read, 3)
        self.waiting[0].callback(None)
        self.assertEqual(self.read, 4)

    def test_maxQueued(self) -> None:
        """A map waits for room in the queue by itself."""
        q = self.makeQueue(maxQueued=1)
        d = q.map(self.slow, range(20), chunksize=1)
        self.assertEqual(q.th.waiting, 1)
        for x in range(20):
            self.waiting[x].callback(x)
        self.assertEqual(self.successResultOf(d), list(range(20)))

    def test_shutdown(self) -> None:
        """A map fails when the queue is shut down before its end."""
        d = self.q.map(self.slow, itertools.count(), chunksize=1)
        self.q.shutdown()
        for waiting in list(self.waiting.values()):
            waiting.callback(None)
        self.failureResultOf(d, QueueStopped)

    def test_progressRaises(self) -> None:
        """
        A map whose C{progress} raises fails with that, also where results come in
        later; so does an C{imap}, after the results that were there.
        """

        def progress(done: int, total: int | None) -> None:
            raise KeyError(done)

        d = self.q.map(self.slow, range(4), chunksize=1, progress=progress)
        self.assertNoResult(d)
        self.waiting[0].callback(0)
        self.failureResultOf(d, KeyError)
        self.waiting[1].callback(1)
        results = self.q.imap(abs, range(4), chunksize=1, progress=progress)
        self.assertEqual(self.successResultOf(next(results)), 0)
        self.failureResultOf(next(results), KeyError)
        self.assertEqual(self.q.q.loadInfoProducer.queued, 0)
        self.assertEqual(self.q.th.waiting, 0)

    def test_stopIteration(self) -> None:
        """
        C{StopIteration} from the function is an error of that item, not the end of the
        items.
        """

        def stops(x: int) -> int:
            if x == 2:
                raise StopIteration
            return x

        for size in (None, 1, 5):
            failure = self.failureResultOf(self.q.map(stops, range(5), chunksize=size))
            self.assertNotIsInstance(failure.value, StopIteration)
            results = self.q.imap(stops, range(5), chunksize=size)
            got = [self.successResultOf(next(results)) for _ in range(2)]
            self.assertEqual(got, [0, 1])
            self.failureResultOf(next(results))

    def test_progress(self) -> None:
        """Progress is told as number of items done and of all."""
        told: list[Any] = []
        self.q.map(abs, [1, 2], chunksize=1, progress=lambda *x: told.append(x))
        self.q.map(abs, iter([1]), progress=lambda *x: told.append(x))
        self.assertEqual(told, [(1, 2), (2, 2), (1, None)])

    def test_imap(self) -> None:
        """An C{imap} over an endless input gives result after result."""

        async def take() -> list[int]:
            got = []
            async for x in self.q.imap(abs, itertools.count(-2)):
                got.append(x)
                if len(got) == 5:
                    break
            return got

        d = Deferred.fromCoroutine(take())
        self.assertEqual(self.successResultOf(d), [2, 1, 0, 1, 2])

    def test_imapLazy(self) -> None:
        """The input of an C{imap} is read so far as results are taken."""
        deferator = self.q.imap(abs, self.numbers(), chunksize=10)
        read = self.read
        self.assertLess(read, 1_100)
        for _ in zip(range(500), deferator, strict=False):
            pass
        self.assertGreater(self.read, read)
        self.assertLess(self.read, read + 600)

    def test_imapFailure(self) -> None:
        """An C{imap} gives the results before the failure, and then the failure."""
        got: list[float] = []

        async def take() -> None:
            async for x in self.q.imap(invert, itertools.count()):
                got.append(x)  # noqa: PERF401 - they're wanted although it fails

        self.failureResultOf(Deferred.fromCoroutine(take()), ZeroDivisionError)
        self.assertEqual(len(got), 5)

    def test_imapInputFails(self) -> None:
        """
        When the input fails, all that it has given before is done, in order or not.
        """

        def numbers() -> Iterator[int]:
            yield from range(100)
            raise OSError("source")

        for ordered in (True, False):
            for chunksize in (None, 1, 7, 1_000):
                found: list[int] = []
                results = self.makeQueue().imap(
                    abs, numbers(), ordered=ordered, chunksize=chunksize
                )

                async def take() -> None:
                    async for x in results:  # noqa: B023 - it's over in this turn
                        found.append(x)  # noqa: B023, PERF401

                d = Deferred.fromCoroutine(take())
                self.clock.pump([0] * 200)
                self.failureResultOf(d, OSError)
                self.assertEqual(sorted(found), list(range(100)))

    def test_imapStop(self) -> None:
        """When an C{imap} is stopped, no more of its input is read."""
        numbers = self.numbers()
        self.q.imap(abs, numbers, chunksize=1).stop()
        self.assertRaises(StopIteration, next, numbers)

    def test_misuse(self) -> None:
        """What's wrong is said at the call."""
        five: Any = 5
        for error, call in [
            (TypeError, lambda: self.q.map(abs)),  # type: ignore[call-overload]
            (TypeError, lambda: self.q.map(five, [1])),
            (TypeError, lambda: self.q.map(abs, five)),
            (TypeError, lambda: self.q.map(abs, [1], nice=5)),  # type: ignore[call-overload]
            (TypeError, lambda: self.q.map(abs, [1], progress=five)),
            (ValueError, lambda: self.q.map(abs, [1], niceness=50)),
            (ValueError, lambda: self.q.map(abs, [1], chunksize=0)),
        ]:
            self.assertRaises(error, call)
        self.q.shutdown()
        self.assertRaises(QueueRunError, self.q.map, abs, [1])

    def test_noProgress(self) -> None:
        """No progress is told unless somebody asks for it."""
        self.assertIsNone(progressOf(None))
        self.assertIsNone(progressOf(False))


class InterferenceTests(QueueTestCase):
    """Tests of maps that are cancelled at odd moments."""

    def test_retryCancelled(self) -> None:
        """A part that waits for its next attempt isn't run any longer."""
        d = self.q.map(same, [1], retries=1, retryDelay=10)
        self.worker.lose(WorkerLost("gone"))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.q.attachWorker(other := MemoryWorker())
        self.clock.advance(10)
        self.assertEqual(other.accepted, [])

    def test_inputCancels(self) -> None:
        """An input that cancels the map has nothing more queued."""
        maps: list[Deferred[Any]] = []

        def items() -> Iterator[int]:
            for i in itertools.count():
                for d in maps:
                    d.cancel()
                yield i

        maps.append(self.q.map(same, items(), chunksize=1))
        self.worker.step()
        self.failureResultOf(maps[0], CancelledError)
        while self.worker.running:
            self.worker.step()
        self.assertEqual(self.q.q.loadInfoProducer.queued, 0)

    def test_malformed(self) -> None:
        """A map fails if a worker hands back what isn't the result of a part."""
        d = self.q.map(same, [1, 2])
        self.worker.complete(5)
        self.failureResultOf(d, WorkerError)
