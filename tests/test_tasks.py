"""Tests of the employer of workers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from zope.interface import classImplementsOnly

from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import Status
from asynqueue.base import TaskQueue
from asynqueue.errors import (
    ImplementationError,
    InvariantError,
    QueueRunError,
    WorkerLost,
)
from asynqueue.interfaces import IWorker
from asynqueue.tasks import AssignmentFactory, TaskHandler
from asynqueue.tasks._task import Task
from asynqueue.testing import MemoryWorker

from ._cases import HandlerTestCase, ReplaceableWorker, ids, logged, same, task


class ClassyWorker(MemoryWorker):
    """A worker whose class qualifies for two series."""

    cQualified = ["c1", "c2"]  # noqa: RUF012 - as IWorker has it


class Stubborn(MemoryWorker):
    """
    A worker that doesn't stop, or crash, as it should: C{stop} returns or raises the
    answer.
    """

    stopAnswer: Any = None

    def stop(self) -> Any:
        """Don't stop as it should."""
        if isinstance(self.stopAnswer, Exception):
            raise self.stopAnswer
        return self.stopAnswer

    def crash(self) -> Any:
        """Don't crash as it should."""
        if isinstance(self.stopAnswer, KeyError):
            raise self.stopAnswer
        super().crash()


class Replaceable(ReplaceableWorker):
    """A worker that takes its time to be gone after a crash, until C{gone} is fired."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: Deferred[None] = Deferred()

    def deferUntilGone(self) -> Deferred[None]:
        """Wait for that."""
        return self.gone


class HireTests(HandlerTestCase):
    """Tests of L{TaskHandler.hire}, beside those of C{test_document}."""

    def test_fresh(self) -> None:
        """A new handler runs and has no workers."""
        self.assertTrue(self.handler.isRunning)
        self.assertEqual(self.handler.workers, {})

    def test_IDsAreNeverReused(self) -> None:
        """The ID of a worker that has gone isn't given to another, nor to itself."""
        worker = self.hire()
        self.handler.terminate(1)
        self.assertEqual(self.successResultOf(self.handler.hire(worker)), 2)
        self.assertEqual(list(self.handler.workers), [2])

    def test_attributes(self) -> None:
        """A worker that is hired says so, and has its requests in its assignments."""
        worker = self.hire("x")
        self.assertIs(worker.hired, True)
        self.assertIsInstance(worker.assignments, dict)

    def test_resignator(self) -> None:
        """It's given a callable to resign by."""
        worker = self.hire()
        worker.resign()
        self.assertEqual(self.handler.workers, {})
        self.assertTrue(worker.crashed)

    def test_notAWorker(self) -> None:
        """What doesn't provide IWorker isn't hired; the message says what's missing."""

        class Unmarked:
            """Has the attributes, but doesn't say so."""

            cQualified: tuple[Any, ...] = ()
            iQualified: tuple[Any, ...] = ()

        candidates: list[Any] = [None, object(), Unmarked(), MemoryWorker]
        for candidate in candidates:
            with self.assertRaisesRegex(
                ImplementationError, r"@implementer\(IWorker\)"
            ):
                self.handler.hire(candidate)
        self.assertEqual(self.handler.workers, {})

    def test_invariants(self) -> None:
        """A worker whose qualifications aren't lists isn't hired."""
        for name in ("cQualified", "iQualified"):
            worker: Any = MemoryWorker()
            setattr(worker, name, ("x",))
            self.assertRaises(InvariantError, self.handler.hire, worker)
        self.assertEqual(self.handler.workers, {})

    def test_unhashable(self) -> None:
        """Nor is one that qualifies for what can't be a series."""
        with self.assertRaisesRegex(TypeError, "must be hashable"):
            self.handler.hire(MemoryWorker([["x"]]))  # type: ignore[list-item]

    def test_twice(self) -> None:
        """
        A worker isn't hired twice, neither here nor by two handlers at a time, nor
        while it's being let go.
        """
        worker = self.hire()
        for handler in (self.handler, TaskHandler(reactor=self.clock)):
            with self.assertRaisesRegex(ImplementationError, "employed already"):
                handler.hire(worker)
        self.put()
        self.handler.terminate(1)
        self.assertRaises(ImplementationError, self.handler.hire, worker)
        worker.complete()
        self.handler.hire(worker)

    def test_afterShutdown(self) -> None:
        """Nobody is hired after the shutdown, and no task taken."""
        self.handler.shutdown()
        self.assertRaises(QueueRunError, self.hire)
        self.assertRaises(QueueRunError, self.put)


class CallTests(HandlerTestCase):
    """Tests of giving the handler a task."""

    def test_futureWorker(self) -> None:
        """A task may wait for a worker that is hired later."""
        job = self.put(series="x")
        self.assertEqual(self.handler.waiting, 1)
        self.hire()
        worker = self.hire("x")
        self.assertEqual(worker.running, [job])


class TerminateTests(HandlerTestCase):
    """Tests of L{TaskHandler.terminate}."""

    def test_idle(self) -> None:
        """
        A worker that has nothing to do is stopped and gone at once, without tasks left.
        """
        worker = self.hire()
        self.assertEqual(self.successResultOf(self.handler.terminate(1)), [])
        self.assertTrue(worker.stopping)
        self.assertFalse(worker.hired)
        self.assertEqual(self.handler.workers, {})

    def test_noTaskWhileStopping(self) -> None:
        """A worker that is being let go is given no task."""
        worker = self.hire()
        self.put()
        waiting = self.put()
        self.handler.terminate(1)
        worker.complete()
        self.assertNoResult(waiting.d)
        self.assertEqual(len(worker.accepted), 1)

    def test_unknown(self) -> None:
        """For an ID that nobody has, nothing happens."""
        self.hire()
        self.assertEqual(self.successResultOf(self.handler.terminate(7)), [])
        self.assertEqual(len(self.handler.workers), 1)

    def test_badTimeout(self) -> None:
        """A time limit that isn't one is refused, and the worker stays."""
        self.hire()
        self.assertRaises(ValueError, self.handler.terminate, 1, timeout=-1)
        self.assertEqual(len(self.handler.workers), 1)

    def test_reassign(self) -> None:
        """
        With C{reassign}, the tasks that it leaves are given to other workers, present
        or future, and aren't in the list.
        """
        first, second = self.hire(capacity=2), self.hire()
        jobs = [self.put(n) for n in range(3)]
        self.assertEqual((ids(first), ids(second)), ([0, 2], [1]))
        d = self.handler.terminate(1, crash=True, reassign=True)
        self.assertEqual(self.successResultOf(d), [])
        second.complete()
        self.assertEqual(ids(second), [0])
        self.assertEqual(ids(self.hire()), [2])
        for job in jobs[::2]:
            self.assertNoResult(job.d)

    def test_reassignAfterTimeout(self) -> None:
        """That holds too when it was crashed after the time limit."""
        self.hire()
        self.put(1)
        d = self.handler.terminate(1, timeout=1, reassign=True)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(d), [])
        self.assertEqual(ids(self.hire()), [1])

    def test_reassignedTimeout(self) -> None:
        """The clock of a task that is given to another worker starts anew there."""
        self.hire()
        job = Task(same, (), {}, 0, None, 5, reactor=self.clock)
        self.handler(job)
        self.clock.advance(4)
        self.handler.terminate(1, crash=True, reassign=True)
        self.assertFalse(job.accepted)
        self.clock.advance(10)
        self.hire()
        self.clock.advance(4)
        self.assertNoResult(job.d)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(job.d)[0], Status.TIMEOUT)

    def test_reassignedLateResult(self) -> None:
        """
        If a crashed worker has the result after all, the task that waits for another
        one has it, and isn't run again.
        """
        crashed = self.hire()
        job = self.put()
        self.handler.terminate(1, crash=True, reassign=True)
        crashed.complete(5, job)
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 5))
        self.assertEqual(self.handler.waiting, 0)
        self.assertEqual(self.hire().running, [])

    def test_doneWhenCrashed(self) -> None:
        """A task that has got its result by the crash isn't run again."""
        worker = self.hire()
        job = self.put()

        def crash() -> list[Task]:
            job.callback((Status.RAN, 1))
            return [job]

        self.patch(worker, "crash", crash)
        self.handler.terminate(1, crash=True, reassign=True)
        self.assertEqual(self.handler.waiting, 0)
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 1))

    def test_twice(self) -> None:
        """Who terminates a worker that is being let go already waits for the same."""
        worker = self.hire()
        self.put()
        departures = [self.handler.terminate(1) for _ in range(2)]
        for d in departures:
            self.assertNoResult(d)
        worker.complete()
        for d in departures:
            self.assertEqual(self.successResultOf(d), [])

    def test_hurried(self) -> None:
        """
        A worker that is being let go can be crashed after all; everybody hears of the
        tasks that it leaves.
        """
        self.hire()
        job = self.put()
        first = self.handler.terminate(1, timeout=10)
        second = self.handler.terminate(1, crash=True)
        self.assertEqual(self.successResultOf(first), [job])
        self.assertEqual(self.successResultOf(second), [job])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_callbacksApart(self) -> None:
        """What one caller's callbacks make of the result is nothing to the others."""
        self.hire()
        job = self.put()
        d = self.handler.terminate(1)
        d.addCallback(lambda _: None)
        other = self.handler.terminate(1, crash=True)
        self.assertEqual(self.successResultOf(other), [job])

    def test_failsToStop(self) -> None:
        """A worker whose C{stop} fails, at once or later, is crashed."""
        for answer in (ValueError("no"), fail(ValueError("no"))):
            worker = Stubborn()
            worker.stopAnswer = answer
            ID = self.successResultOf(self.handler.hire(worker))
            self.assertEqual(self.successResultOf(self.handler.terminate(ID)), [])
            self.assertTrue(worker.crashed)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_stopReturnsNothing(self) -> None:
        """A worker whose C{stop} doesn't return a Deferred has stopped."""
        ID = self.successResultOf(self.handler.hire(Stubborn()))
        self.assertEqual(self.successResultOf(self.handler.terminate(ID)), [])

    def test_crashReturnsNothing(self) -> None:
        """A worker whose C{crash} returns C{None} leaves no tasks."""
        ID = self.successResultOf(self.handler.hire(Stubborn()))
        d = self.handler.terminate(ID, crash=True, reassign=True)
        self.assertEqual(self.successResultOf(d), [])

    def test_crashRaises(self) -> None:
        """A worker that fails even to crash doesn't make anybody hang."""
        worker = Stubborn()
        worker.stopAnswer = KeyError("no")
        self.handler.hire(worker)
        self.assertEqual(self.successResultOf(self.handler.terminate(1)), [])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_gone(self) -> None:
        """A worker whose resources take time to be gone after a crash is waited for."""
        worker = Replaceable()
        self.handler.hire(worker)
        d = self.handler.terminate(1, crash=True)
        self.assertNoResult(d)
        worker.gone.callback(None)
        self.assertEqual(self.successResultOf(d), [])

    def test_crashedAndGone(self) -> None:
        """
        Any worker that was crashed is waited for that can say when it has gone.
        """
        worker: Any = self.hire()
        gone: Deferred[None] = Deferred()
        worker.deferUntilGone = lambda: gone
        d = self.handler.terminate(1, crash=True)
        self.assertNoResult(d)
        gone.callback(None)
        self.assertEqual(self.successResultOf(d), [])

    def test_crashedOnce(self) -> None:
        """Meanwhile it isn't crashed again."""
        worker = Replaceable()
        self.handler.hire(worker)
        self.handler.terminate(1, crash=True)
        worker.crashed = False
        d = self.handler.terminate(1, crash=True)
        self.assertFalse(worker.crashed)
        worker.gone.callback(None)
        self.assertEqual(self.successResultOf(d), [])

    def test_stopsLate(self) -> None:
        """That it has stopped is no news when it was crashed meanwhile."""
        worker = Stubborn()
        worker.stopAnswer = Deferred()
        self.handler.hire(worker)
        d = self.handler.terminate(1, timeout=1)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(d), [])
        worker.stopAnswer.callback(None)


class ResignTests(HandlerTestCase):
    """Tests of workers that resign."""

    def test_reassigned(self) -> None:
        """A worker that resigns is crashed, and its tasks are given to others."""
        first, second = self.hire(), self.hire()
        job, _ = self.put(1), self.put(2)
        first.resign()
        self.assertTrue(first.crashed)
        self.assertFalse(first.hired)
        self.assertNotIn(first, self.handler.workers.values())
        second.complete()
        self.assertEqual(ids(second), [1])
        second.complete(5)
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 5))

    def test_told(self) -> None:
        """Who wants to know is told when it's over."""
        gone: list[Any] = []
        worker = self.hire()
        self.put()
        self.handler.onGone = lambda w: gone.append((w, self.handler.waiting))
        worker.resign()
        self.assertEqual(gone, [(worker, 1)])

    def test_twice(self) -> None:
        """It can resign only once."""
        worker = self.hire()
        worker.resign()
        worker.crashed = False
        worker.resign()
        self.assertFalse(worker.crashed)

    def test_whileStopping(self) -> None:
        """
        One that resigns while it's being let go is gone then, and leaves its tasks.
        """
        worker = self.hire()
        job = self.put()
        d = self.handler.terminate(1)
        worker.resign()
        self.assertEqual(self.successResultOf(d), [job])

    def test_whenHired(self) -> None:
        """
        One that resigns the moment it's hired isn't employed, and no update is run on
        it.
        """

        class Dead(MemoryWorker):
            """Has nothing to work with."""

            def setResignator(self, callableObject: Any) -> None:
                callableObject()

        self.handler.update(task())
        worker = Dead()
        self.assertEqual(self.successResultOf(self.handler.hire(worker)), 1)
        self.assertEqual(self.handler.workers, {})
        self.assertEqual((worker.accepted, worker.assignments), ([], {}))

    def test_oldResignator(self) -> None:
        """
        What it was given to resign by in an earlier employment is of no effect in a
        later one.
        """
        worker = self.hire()
        resign = worker._resignator
        assert resign is not None
        self.handler.terminate(1)
        self.handler.hire(worker)
        resign()
        self.assertEqual(list(self.handler.workers), [2])

    def test_afterShutdown(self) -> None:
        """A worker that resigns during the shutdown leaves its tasks unfinished."""
        worker = self.hire()
        job = self.put()
        d = self.handler.shutdown()
        worker.resign()
        self.assertEqual(self.successResultOf(d), [job])

    def test_shutdownWaits(self) -> None:
        """The shutdown waits until nothing is left of one that has resigned."""
        worker = Replaceable()
        self.handler.hire(worker)
        worker.resign()
        d = self.handler.shutdown()
        self.assertNoResult(d)
        worker.gone.callback(None)
        self.assertEqual(self.successResultOf(d), [])

    def test_goneAtOnce(self) -> None:
        """One of which nothing is left isn't waited for."""
        worker = Replaceable()
        worker.gone.callback(None)
        self.handler.hire(worker)
        worker.resign()
        self.assertEqual(self.successResultOf(self.handler.shutdown()), [])

    def test_duringCallback(self) -> None:
        """
        A task that was waiting when its worker resigned during the shutdown isn't put
        in the queue again, but says that it wasn't run.
        """
        worker = self.hire()
        job = self.put()
        self.handler.isRunning = False
        worker.resign()
        self.assertEqual(self.successResultOf(job.d), (Status.DISCONNECTED, None))


class RosterTests(HandlerTestCase):
    """Tests of L{TaskHandler.roster} and L{TaskHandler.qualify}."""

    def test_qualified(self) -> None:
        """With one, those who qualify for it, by their class or themselves."""
        x, y = self.hire("x"), self.hire("y")
        both = ClassyWorker(["x", "y"])
        self.handler.hire(both)
        self.assertEqual(self.handler.roster("x"), [x, both])
        self.assertEqual(self.handler.roster("y"), [y, both])
        self.assertEqual(self.handler.roster("c1"), [both])
        self.assertEqual(self.handler.roster("memory"), [x, y])
        self.assertEqual(self.handler.roster("z"), [])

    def test_gone(self) -> None:
        """Those who were let go are listed no longer."""
        self.hire()
        self.put()
        self.handler.terminate(1)
        self.assertEqual(self.handler.roster(), [])

    def test_qualify(self) -> None:
        """
        A worker can be qualified for one more series while it's employed: it's on the
        roster, and runs tasks of it.
        """
        worker, other = self.hire(), self.hire()
        job = self.put(series="x")
        self.handler.qualify(worker, "x")
        self.assertEqual(self.handler.roster("x"), [worker])
        self.assertEqual(worker.running, [job])
        self.assertEqual(worker.iQualified, ["x"])
        self.assertEqual(other.iQualified, [])

    def test_qualifyTwice(self) -> None:
        """Doing it again changes nothing."""
        worker = self.hire("x")
        for series in ("x", None, "memory"):
            self.handler.qualify(worker, series)
        self.assertEqual(worker.iQualified, ["x"])
        self.assertEqual(len(worker.assignments["x"]), 1)

    def test_qualifyUnemployed(self) -> None:
        """A worker that isn't employed yet requests tasks of the series when it is."""
        worker = MemoryWorker()
        self.handler.qualify(worker, "x")
        self.assertFalse(any(worker.assignments.values()))
        self.handler.hire(worker)
        self.assertIn("x", worker.assignments)

    def test_qualifyUnhashable(self) -> None:
        """What can't be a series is refused."""
        worker = self.hire()
        with self.assertRaisesRegex(TypeError, "must be hashable"):
            self.handler.qualify(worker, [])  # type: ignore[arg-type]
        self.assertEqual(worker.iQualified, [])

    def test_idOf(self) -> None:
        """
        A worker is known by its ID, until it has gone; those of others aren't known.
        """
        worker, stranger = self.hire(), MemoryWorker()
        TaskHandler(reactor=self.clock).hire(stranger)
        self.assertEqual(self.handler.idOf(1), 1)
        self.assertEqual(self.handler.idOf(worker), 1)
        self.assertEqual(self.handler.idOf(stranger), 0)
        self.assertEqual(self.handler.idOf(object()), 0)
        self.assertTrue(self.handler._employs(worker))
        self.assertFalse(self.handler._employs(stranger))
        self.put()
        self.handler.terminate(1)
        self.assertEqual(self.handler.idOf(worker), 1)
        self.assertFalse(self.handler._employs(worker))
        worker.complete()
        self.assertEqual(self.handler.idOf(worker), 0)


class UpdateTests(HandlerTestCase):
    """Tests of L{TaskHandler.update}."""

    def test_crashed(self) -> None:
        """
        An update that a crashed worker had not run fails there, and isn't among the
        tasks left unfinished.
        """
        worker = MemoryWorker()
        workerID = self.successResultOf(self.handler.hire(worker))
        d = self.handler.update(task())
        unfinished = self.handler.terminate(workerID, crash=True)
        self.assertEqual(self.successResultOf(unfinished), [])
        [text] = self.successResultOf(d)
        self.assertIn("lost before the update", text)

    def test_qualifiedLater(self) -> None:
        """Those that were qualified while they were employed, too."""
        worker = self.hire()
        self.handler.qualify(worker, "x")
        d = self.handler.update(task(series="x"))
        worker.complete(1)
        self.assertEqual(self.successResultOf(d), [1])

    def test_nobody(self) -> None:
        """Without workers there are no results."""
        for sequential in (True, False):
            d = self.handler.update(task(), sequential=sequential)
            self.assertEqual(self.successResultOf(d), [])

    def test_busy(self) -> None:
        """A busy worker runs it beside what it's doing, and keeps its capacity."""
        worker = self.hire()
        job = self.put()
        d = self.handler.update(task())
        self.assertEqual(len(worker.running), 2)
        waiting = self.put()
        worker.complete(1, worker.running[1])
        self.assertEqual(self.successResultOf(d), [1])
        self.assertEqual(worker.running, [job])
        worker.complete()
        self.assertEqual(worker.running, [waiting])

    def test_sequential(self) -> None:
        """With C{sequential}, it's run on one worker after the other."""
        workers = [self.hire() for _ in range(3)]
        d = self.handler.update(task(), sequential=True)
        for n, worker in enumerate(workers):
            self.assertNoResult(d)
            self.assertEqual([w.busy for w in workers], [n == m for m in range(3)])
            worker.complete(n)
        self.assertEqual(self.successResultOf(d), [0, 1, 2])

    def test_sequentialLeaver(self) -> None:
        """A worker that has gone before its turn is left out."""
        workers = [self.hire() for _ in range(3)]
        d = self.handler.update(task(), sequential=True)
        self.handler.terminate(2)
        workers[0].complete(0)
        workers[2].complete(2)
        self.assertEqual(self.successResultOf(d), [0, 2])
        self.assertEqual(workers[1].accepted, [])

    def test_failures(self) -> None:
        """
        Where it fails, the result is text about the failure; the others aren't
        affected.
        """
        workers = [self.hire() for _ in range(6)]
        d = self.handler.update(task())
        workers[0].fail(ValueError("oops"))
        workers[1].timeOut()
        workers[2].disconnect()
        workers[3].lose(WorkerLost("lost"))
        workers[4].lose(WorkerLost(""))
        workers[5].complete("fine")
        error, timeout, disconnected, lost, nameless, fine = self.successResultOf(d)
        self.assertIn("oops", error)
        self.assertIn("took longer", timeout)
        self.assertIn("went away", disconnected)
        self.assertEqual((lost, nameless, fine), ("lost", "WorkerLost", "fine"))

    def test_statuses(self) -> None:
        """
        Whatever the status, the result is what the call returned, also one that looks
        like a status with a result.
        """
        worker = self.hire()
        for pair, result in (
            ((b"n", "ignored"), None),
            ((Status.ITERATOR, []), []),
            ((b"r", (b"r", 1)), (b"r", 1)),
            ((b"r", None), None),
        ):
            d = self.handler.update(task(), ephemeral=True)
            worker.answer(pair)
            self.assertEqual(self.successResultOf(d), [result])

    def test_callbacks(self) -> None:
        """
        Callbacks of the task are run for each copy, and may make something else of its
        result.
        """
        worker = self.hire()
        results: list[Any] = ["x", (1, 2), ([], 2), (b"xyz", 1)]
        for made in results:
            job = task()
            job.addCallback(lambda _, made=made: made)
            d = self.handler.update(job, ephemeral=True)
            worker.complete()
            self.assertEqual(self.successResultOf(d), [made])

    def test_stored(self) -> None:
        """
        It's saved for workers that are hired later, each of which runs it before it's
        ready for assignments.
        """
        self.handler.update(task(same, "update"))
        self.handler.update(task(same, "another"))
        waiting = self.put("waiting")
        worker = MemoryWorker()
        d = self.handler.hire(worker)
        self.assertEqual(ids(worker), ["update", "another"])
        worker.complete()
        self.assertNoResult(d)
        self.assertEqual(ids(worker), ["another"])
        worker.complete()
        self.assertEqual(self.successResultOf(d), 1)
        self.assertEqual(worker.running, [waiting])

    def test_storedFirst(self) -> None:
        """
        Also if the worker has room for more, and is qualified for another series
        meanwhile, no task comes before the updates.
        """
        self.handler.update(task(same, "update"))
        self.put("waiting", series="x")
        worker = self.hire(capacity=5)
        self.handler.qualify(worker, "x")
        self.put("other")
        self.assertEqual(ids(worker), ["update"])
        worker.complete()
        self.assertEqual(sorted(ids(worker)), ["other", "waiting"])

    def test_storedOfSeries(self) -> None:
        """
        Only those of series that it qualifies for; on being qualified for another, it
        runs those of that before its tasks.
        """
        self.handler.update(task(same, "x-update", series="x"))
        worker = self.hire()
        self.assertEqual(worker.running, [])
        self.put("x-task", series="x")
        self.handler.qualify(worker, "x")
        self.assertEqual(ids(worker), ["x-update"])
        worker.complete()
        self.assertEqual(ids(worker), ["x-task"])

    def test_copies(self) -> None:
        """Each worker has keywords of its own to take something out of."""
        workers = [self.hire() for _ in range(2)]
        self.handler.update(task(same, 3, raw=True))
        for worker in workers:
            self.assertEqual(worker.running[0].callTuple[2].pop("raw"), True)
            worker.complete()
        late = self.hire()
        self.assertEqual(late.running[0].callTuple[2], {"raw": True})

    def test_storedFails(self) -> None:
        """
        If a saved one fails on a new worker, that is logged: nobody has a Deferred
        that would tell.
        """
        self.handler.update(task())
        worker = MemoryWorker()
        d = self.handler.hire(worker)
        with logged() as events:
            worker.fail(ValueError("oops"))
        self.successResultOf(d)
        (event,) = events
        self.assertIn("oops", event["text"])
        self.assertIs(event["worker"], worker)

    def test_leavesMeanwhile(self) -> None:
        """
        A worker that goes while it's brought up to date has its ID all the same, and
        no requests.
        """
        self.handler.update(task())
        worker = MemoryWorker()
        d = self.handler.hire(worker)
        worker.resign()
        self.assertEqual(self.successResultOf(d), 1)
        self.assertFalse(any(worker.assignments.values()))

    def test_lostWorker(self) -> None:
        """If its worker is lost, the result is text: it was meant for no other."""
        worker, other = self.hire(), self.hire()
        d = self.handler.update(task())
        worker.resign()
        other.complete(1)
        lost, fine = self.successResultOf(d)
        self.assertIn("lost", lost)
        self.assertEqual(fine, 1)
        self.assertEqual(other.running, [])

    def test_cancelled(self) -> None:
        """Cancelling the update's Deferred cancels all copies."""
        workers = [self.hire(), self.hire()]
        d = self.handler.update(task())
        d.cancel()
        self.assertEqual([len(worker.cancelled) for worker in workers], [1, 1])
        self.failureResultOf(d, CancelledError)

    def test_cancelledSequential(self) -> None:
        """
        An update that is cancelled isn't run on the workers whose turn comes later.
        """
        first, second = self.hire(), self.hire()
        d = self.handler.update(task(), sequential=True)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual((len(first.cancelled), second.accepted), (1, []))


class ReuseTests(HandlerTestCase):
    """Tests of workers, and factories, that can't be taken."""

    def test_elsewhere(self) -> None:
        """A worker that another handler is still letting go isn't hired."""
        worker = self.hire()
        self.put()
        gone = self.handler.terminate(1)
        other = TaskHandler(reactor=self.clock)
        self.assertRaisesRegex(
            ImplementationError, "wait until it has gone", other.hire, worker
        )
        worker.complete()
        self.successResultOf(gone)
        self.successResultOf(other.hire(worker))

    def test_factory(self) -> None:
        """Another factory takes over pauses and limits, while there are no workers."""
        q = TaskQueue(limits={"x": 1}, maxQueued=1, reactor=self.clock)
        q.th.assignmentFactory = AssignmentFactory(reactor=self.clock)
        worker, other = MemoryWorker(["x"]), MemoryWorker(["x"])
        q.attachWorker(worker)
        q.attachWorker(other)
        q.call(len, series="x")
        q.call(len, series="x")
        self.assertEqual((len(worker.accepted), other.accepted), (1, []))
        with self.assertRaisesRegex(RuntimeError, "before workers are hired"):
            q.th.assignmentFactory = AssignmentFactory(reactor=self.clock)


class ShutdownTests(HandlerTestCase):
    """Tests of L{TaskHandler.shutdown}."""

    def test_nobody(self) -> None:
        """Without workers it's over at once."""
        self.assertEqual(self.successResultOf(self.handler.shutdown()), [])
        self.assertFalse(self.handler.isRunning)

    def test_twice(self) -> None:
        """Who shuts it down again waits for the same."""
        worker = self.hire()
        self.put()
        shutdowns = [self.handler.shutdown() for _ in range(2)]
        for d in shutdowns:
            self.assertNoResult(d)
        worker.complete()
        for d in shutdowns:
            self.assertEqual(self.successResultOf(d), [])

    def test_departing(self) -> None:
        """
        It waits for workers that are being let go, whatever those who have let them
        go make of their Deferreds.
        """
        worker = self.hire()
        self.put()
        self.handler.terminate(1).addCallback(lambda _: None)
        d = self.handler.shutdown()
        self.assertNoResult(d)
        worker.complete()
        self.assertEqual(self.successResultOf(d), [])

    def test_nothingLeft(self) -> None:
        """Nothing is left in the reactor, also of tasks that were being handed out."""

        def work() -> None:
            self.clock.rightNow += 1

        for _ in range(3):
            self.handler(task(work))
        self.handler.hire(AsyncWorker())
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(len(self.successResultOf(self.handler.shutdown())), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reassign(self) -> None:
        """
        A task that was to be given to another worker is among the unfinished, since
        there will be none.
        """
        self.hire()
        job = self.put()
        self.handler.terminate(1, timeout=1, reassign=True)
        d = self.handler.shutdown()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(d), [job])
        self.assertNoResult(job.d)

    def test_withdraw(self) -> None:
        """Waiting tasks can be taken out before."""
        jobs = [self.put(n) for n in range(3)]
        self.assertEqual(
            self.handler.withdraw(lambda job: job is not jobs[1]), jobs[::2]
        )
        self.assertEqual(self.handler.waiting, 1)

    def test_cancelledTask(self) -> None:
        """
        A task that is cancelled while its worker stops isn't among the unfinished.
        """
        self.hire()
        job = self.put()
        d = self.handler.shutdown()
        job.d.cancel()
        self.failureResultOf(job.d, CancelledError)
        self.assertEqual(self.successResultOf(d), [])


class PlainWorkerTests(HandlerTestCase):
    """Tests with a worker that can't cancel tasks."""

    def test_cancel(self) -> None:
        """Its task's result is ignored when the task was cancelled."""

        class Plain(MemoryWorker):
            """Can't cancel."""

        classImplementsOnly(Plain, IWorker)
        worker = Plain()
        self.handler.hire(worker)
        job = self.put()
        job.d.cancel()
        self.failureResultOf(job.d, CancelledError)
        self.assertEqual((worker.running, worker.cancelled), ([job], []))
        worker.complete()
        self.assertIn(None, worker.assignments)
