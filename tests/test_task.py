"""Tests of tasks and their factory."""

from __future__ import annotations

import gc
import math
import weakref
from contextvars import Context, ContextVar
from typing import Any

from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from asynqueue._child.status import Status
from asynqueue.interfaces import ITask
from asynqueue.tasks import Assignment, Task, TaskFactory
from asynqueue.tasks._task import RETRIED
from asynqueue.testing import MemoryWorker

from ._cases import same, task


class Holder:
    """Has tasks, and notes those that it's told to drop."""

    def __init__(self) -> None:
        self.cancelled: list[Any] = []

    def cancelTask(self, task: Any) -> None:
        """Drop a task."""
        self.cancelled.append(task)


class Faulty(Holder):
    """Has tasks, and fails to drop them."""

    def cancelTask(self, task: Any) -> None:
        """Fail."""
        raise ValueError("can't")


class Unspeakable:
    """Something that can't be described."""

    def __repr__(self) -> str:
        """Fail."""
        raise ValueError("no")


def _noted(result: Any, seen: list[Any]) -> Any:
    seen.append(result)
    return result


def accept(job: Task) -> None:
    """Have a worker accept a task."""
    Assignment(job).accept(MemoryWorker())


class TaskTests(SynchronousTestCase):
    """Tests of L{Task}."""

    def setUp(self) -> None:
        """Make a clock."""
        self.clock = Clock()

    def timed(self, seconds: float | None) -> Task:
        """Make a task with a time limit."""
        return Task(same, (1,), {}, 0, None, seconds, reactor=self.clock)

    def test_interface(self) -> None:
        """It's what workers know as a task."""
        verifyObject(ITask, task())

    def test_attributes(self) -> None:
        """A task knows its call, priority, series and time limit."""
        job = Task(same, (1, 2), {"x": 3}, 4.5, "s", 6)
        self.assertEqual(job.callTuple, (same, (1, 2), {"x": 3}))
        self.assertEqual((job.priority, job.series, job.timeout), (4.5, "s", 6))
        self.assertFalse(job.accepted)

    def test_args(self) -> None:
        """
        The arguments may be in a list or a subclass of tuple, and are a tuple then.
        """

        class Args(tuple):  # type: ignore[type-arg]
            __slots__ = ()

        for args in ([1, 2], Args((1, 2))):
            kept = Task(same, args, {}, 0, None).callTuple[1]
            self.assertEqual(kept, (1, 2))
            self.assertIsInstance(kept, tuple)

    def test_badArgs(self) -> None:
        """
        Arguments that are neither a tuple nor a list are refused, as are keywords
        that aren't in a dict; the message shows them.
        """
        for args in ("ab", None, 1, iter([1])):
            with self.assertRaisesRegex(TypeError, "args must be a tuple or a list"):
                Task(same, args, {}, 0, None)  # type: ignore[arg-type]
        for kw in (None, [("a", 1)], 5):
            with self.assertRaisesRegex(TypeError, "kw must be a dict, not "):
                Task(same, (), kw, 0, None)  # type: ignore[arg-type]

    def test_orderByPriority(self) -> None:
        """Tasks are ordered by priority, lower first."""
        low, high = task(priority=1), task(priority=2)
        self.assertTrue(low < high)
        self.assertFalse(high < low)
        self.assertTrue(high > low)
        self.assertEqual(sorted([high, low]), [low, high])

    def test_orderByAge(self) -> None:
        """Tasks of the same priority are ordered as they were made."""
        jobs = [task(priority=1) for _ in range(5)]
        backwards = jobs[::-1]
        self.assertEqual(sorted(backwards), jobs)

    def test_beforeNone(self) -> None:
        """Any task sorts before C{None}, the sentinel of shutdown."""
        job = task(priority=math.inf)
        sentinel: Any = None
        self.assertTrue(job < None)
        self.assertFalse(job > None)
        self.assertFalse(sentinel < job)
        self.assertTrue(sentinel > job)

    def test_notComparable(self) -> None:
        """A task can't be compared with anything else."""
        with self.assertRaises(TypeError):
            task() < 5  # type: ignore[operator]  # noqa: B015
        with self.assertRaises(TypeError):
            task() > 5  # type: ignore[operator]  # noqa: B015

    def test_identity(self) -> None:
        """
        Two tasks of the same call and priority are different, so that removing one
        from a list doesn't remove the other.
        """
        first, second = task(same, 1), task(same, 1)
        self.assertNotEqual(first, second)
        jobs = [first, second]
        jobs.remove(second)
        self.assertIs(jobs[0], first)
        self.assertEqual(len({first, second}), 2)
        self.assertNotIn(second, [first])

    def test_repr(self) -> None:
        """The text of a task names its call; what can't be described does no harm."""
        self.assertEqual(repr(task(same, 1, x="y")), "<Task same(1, x='y')>")
        self.assertEqual(repr(task("method", 1)), "<Task method(1)>")
        self.assertIn("Unspeakable", repr(task(same, Unspeakable())))

    def test_reprOfHuge(self) -> None:
        """The text of a task with huge arguments is short."""
        self.assertLess(len(repr(task(same, b"x" * 10**7, list(range(10**6))))), 1000)

    def test_callback(self) -> None:
        """A task's Deferred fires with the status and the result."""
        job = task()
        job.callback((b"r", 1))
        self.assertEqual(self.successResultOf(job.d), (b"r", 1))

    def test_repeats(self) -> None:
        """All results but the first are ignored, failures too."""
        job = task()
        job.callback((b"r", 1))
        job.callback((b"r", 2))
        job.errback(ValueError())
        self.assertEqual(self.successResultOf(job.d), (b"r", 1))

    def test_errback(self) -> None:
        """A task can fail, with an exception or a failure."""
        for failure in (ValueError(), Failure(ValueError())):
            job = task()
            job.errback(failure)
            job.callback((b"r", 2))
            self.failureResultOf(job.d, ValueError)

    def test_timeout(self) -> None:
        """
        So many seconds after the start of its timer, the task has the result that its
        time is up.
        """
        job = self.timed(5)
        job.startTimer()
        self.clock.advance(4.99)
        self.assertNoResult(job.d)
        self.clock.advance(0.01)
        status, text = self.successResultOf(job.d)
        self.assertEqual(status, Status.TIMEOUT)
        self.assertEqual(text, "<Task same(1)> took longer than 5 seconds")

    def test_timeoutStartsOnAcceptance(self) -> None:
        """Waiting doesn't count: the clock starts when a worker accepts the task."""
        job = self.timed(5)
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        accept(job)
        self.assertTrue(job.accepted)
        self.clock.advance(4)
        self.assertNoResult(job.d)
        self.clock.advance(1)
        self.successResultOf(job.d)

    def test_noTimeout(self) -> None:
        """Without a time limit there's no timer."""
        job = self.timed(None)
        job.startTimer()
        accept(job)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lateResult(self) -> None:
        """A result that comes when the time is up already is ignored."""
        job = self.timed(5)
        job.startTimer()
        self.clock.advance(5)
        job.callback((b"r", 1))
        self.assertEqual(self.successResultOf(job.d)[0], Status.TIMEOUT)

    def test_timerStops(self) -> None:
        """
        A result, a failure, cancellation, or a reset stop the timer; it isn't started
        after that.
        """
        for end in (
            lambda job: job.callback((b"r", 1)),
            lambda job: job.errback(ValueError()),
            lambda job: job.d.cancel(),
            lambda job: job.reset(),
        ):
            job = self.timed(5)
            job.startTimer()
            d = job.d
            end(job)
            d.addErrback(lambda _: None)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        done = self.timed(5)
        done.callback((b"r", 1))
        done.startTimer()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timerRestarts(self) -> None:
        """Starting the timer again starts it anew."""
        job = self.timed(5)
        job.startTimer()
        self.clock.advance(3)
        job.startTimer()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(4)
        self.assertNoResult(job.d)

    def test_timeoutStopsWork(self) -> None:
        """Whoever has the task is told to stop the work before it gets its result."""
        holder = Holder()
        job = self.timed(5)
        accept(job)
        job.owner = holder
        self.clock.advance(5)
        self.assertEqual(holder.cancelled, [job])
        self.assertIsNone(job.owner)

    def test_cancel(self) -> None:
        """
        When its Deferred is cancelled, whoever has the task is told once, and a result
        is ignored.
        """
        holder = Holder()
        job = task()
        job.owner = holder
        job.d.cancel()
        job.d.cancel()
        job.callback((b"r", 1))
        self.failureResultOf(job.d, CancelledError)
        self.assertEqual(holder.cancelled, [job])

    def test_cancelFailing(self) -> None:
        """
        A worker that fails to stop the work can't keep the task from coming to its
        end.
        """
        job = self.timed(5)
        accept(job)
        job.owner = Faulty()
        self.clock.advance(5)
        self.successResultOf(job.d)
        other = task()
        other.owner = Faulty()
        other.d.cancel()
        self.failureResultOf(other.d, CancelledError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_resultLetsGo(self) -> None:
        """A result of a task that a worker has accepted doesn't cancel it there."""
        for end in (
            lambda job: job.callback((b"r", 1)),
            lambda job: job.errback(ValueError()),
        ):
            holder = Holder()
            job = task()
            accept(job)
            job.owner = holder
            end(job)
            job.d.addErrback(lambda _: None)
            self.assertEqual(holder.cancelled, [])
            self.assertIsNone(job.owner)

    def test_lateResultOfWaiting(self) -> None:
        """
        A task that waits to be run again leaves the line when a late result comes.
        """
        holder = Holder()
        job = task()
        job.owner = holder
        job.callback((b"r", 1))
        self.assertEqual(holder.cancelled, [job])

    def test_addCallback(self) -> None:
        """A callback is run as one of the Deferred, with its arguments."""
        job = task()
        job.addCallback(lambda pair, x, y: (pair[1], x, y), 2, y=3)
        job.addCallback(list)
        job.callback((b"r", 1))
        self.assertEqual(self.successResultOf(job.d), [1, 2, 3])

    def test_copy(self) -> None:
        """
        A copy has the same call, priority, series, limit and callbacks, and a Deferred
        of its own.
        """
        job = Task(same, (1,), {"x": 2}, 3, "s", 4, reactor=self.clock)
        job.addCallback(lambda pair, n: pair[1] + n, 10)
        copy = job.copy()
        self.assertIsNot(copy, job)
        for name in ("callTuple", "priority", "series", "timeout"):
            self.assertEqual(getattr(copy, name), getattr(job, name))
        copy.callback((b"r", 1))
        self.assertEqual(self.successResultOf(copy.d), 11)
        self.assertNoResult(job.d)
        again = copy.copy()
        again.callback((b"r", 2))
        self.assertEqual(self.successResultOf(again.d), 12)

    def test_copySharesNoKeywords(self) -> None:
        """Who takes a keyword out of a copy doesn't take it out of the others."""
        job = Task(same, (), {"raw": True}, 0, None)
        job.copy().callTuple[2].pop("raw")
        self.assertEqual(job.callTuple[2], {"raw": True})
        self.assertEqual(job.copy().callTuple[2], {"raw": True})

    def test_again(self) -> None:
        """
        The next attempt keeps the place in the order, what was said of the call, and
        the Deferred, which no longer takes a result of the first.
        """
        first = task(same, 1, priority=5)
        first.options = "options"
        later = task(priority=5)
        second = first.nextAttempt()
        self.assertTrue(second < later)
        self.assertEqual((second.attempt, second.options), (1, "options"))
        self.assertIs(second.d, first.d)
        self.assertEqual((first.hasResult, second.hasResult), (True, False))
        first.callback((b"r", 1))
        first.errback(ValueError())
        self.assertNoResult(second.d)
        third = second.nextAttempt()
        self.assertEqual(third.attempt, 2)
        third.callback((b"r", 3))
        self.assertEqual(self.successResultOf(first.d), (b"r", 3))
        self.assertTrue(third.hasResult)

    def test_cancelAgain(self) -> None:
        """Cancelling the Deferred then stops the work on the next attempt."""
        holder = Holder()
        first = task()
        second = first.nextAttempt()
        second.owner = holder
        first.d.cancel()
        self.assertEqual(holder.cancelled, [second])
        self.failureResultOf(second.d, CancelledError)

    def resolving(self, made: Any) -> tuple[Task, list[Any]]:
        """
        Make a task with an outcome, which makes something of the result, or raises an
        exception. Returns the task, and a list of what the outcome is given.
        """
        given: list[Any] = []

        def outcome(result: Any, job: Task) -> Any:
            given.append(result)
            self.assertIs(job, made_)
            if isinstance(made, Exception):
                raise made
            return made

        made_ = task()
        made_.resolve = outcome
        return made_, given

    def test_outcome(self) -> None:
        """The Deferred fires with what the outcome makes of the result, once."""
        job, given = self.resolving("made")
        job.callback((b"r", 1))
        job.callback((b"r", 2))
        self.assertEqual(self.successResultOf(job.d), "made")
        self.assertEqual(given, [(b"r", 1)])

    def test_outcomeOfFailure(self) -> None:
        """It's given failures, too, also that of cancelling."""
        for fail, error in (
            (lambda job: job.errback(ValueError()), ValueError),
            (lambda job: job.d.cancel(), CancelledError),
        ):
            job, given = self.resolving("made")
            fail(job)
            self.assertEqual(self.successResultOf(job.d), "made")
            (failure,) = given
            failure.trap(error)

    def test_outcomeFails(self) -> None:
        """If the outcome raises, or makes a failure, the Deferred fails."""
        for made in (KeyError(1), Failure(KeyError(1))):
            job, _ = self.resolving(made)
            job.callback((b"r", 1))
            self.failureResultOf(job.d, KeyError)

    def test_outcomeIsComing(self) -> None:
        """If it makes a Deferred, that is waited for, and cancelled in its stead."""
        coming: Deferred[Any] = Deferred()
        job, _ = self.resolving(coming)
        job.callback((b"r", 1))
        self.assertNoResult(job.d)
        coming.callback(5)
        self.assertEqual(self.successResultOf(job.d), 5)
        coming = Deferred()
        job, _ = self.resolving(coming)
        job.callback((b"r", 1))
        job.d.cancel()
        self.failureResultOf(job.d, CancelledError)
        self.assertIsNone(self.successResultOf(coming))

    def test_cancelledByOutcome(self) -> None:
        """If it has the Deferred cancelled, what it makes of the result is dropped."""
        job = task()

        def outcome(result: Any, job: Task) -> str:
            job.d.cancel()
            return "made"

        job.resolve = outcome
        job.callback((b"r", 1))
        self.failureResultOf(job.d, CancelledError)

    def test_outcomeMoved(self) -> None:
        """If it has made another task of the call, it's left to that."""
        job, _ = self.resolving(RETRIED)
        job.callback((b"r", 1))
        self.assertNoResult(job.d)

    def test_deferredFired(self) -> None:
        """
        A worker may fire the Deferred itself with a status and a result, or a failure:
        the result of the call is made of them before its callbacks see anything.
        """
        for fire, seen in (
            (lambda d: d.callback((b"r", 1)), (b"r", 1)),
            (lambda d: d.errback(ValueError("no")), ValueError),
        ):
            job, given = self.resolving("made")
            later: list[Any] = []
            job.d.addCallback(_noted, later)
            fire(job.d)
            job.callback((b"r", 2))
            self.assertEqual(self.successResultOf(job.d), "made")
            self.assertEqual(later, ["made"])
            if isinstance(seen, tuple):
                self.assertEqual(given, [seen])
            else:
                given[0].trap(seen)

    def test_deferredFiredTwice(self) -> None:
        """Firing it twice is the error that it is with any Deferred."""
        job = task()
        job.d.callback((b"r", 1))
        self.assertRaises(AlreadyCalledError, job.d.callback, (b"r", 2))
        self.assertEqual(self.successResultOf(job.d), (b"r", 1))

    def test_callbacksContext(self) -> None:
        """Callbacks of the result see the context variables of the call."""
        variable: ContextVar[int] = ContextVar("variable", default=0)
        variable.set(1)
        seen: list[int] = []
        jobs = [
            Context().run(TaskFactory().new, same, (), {}, 0),
            TaskFactory().new(same, (), {}, 0),
        ]
        variable.set(2)
        for job in jobs:
            job.d.addCallback(lambda _: seen.append(variable.get()))
            job.callback((b"r", None))
        self.assertEqual(seen, [0, 1])

    def test_furtherAttributes(self) -> None:
        """A task takes further attributes, and another call."""
        job: Any = task(same, 1)
        job.started = 5
        f, args, kw = job.callTuple
        job.callTuple = (f, (2, *args), kw)
        self.assertEqual((job.started, job.callTuple), (5, (same, (2, 1), {})))

    def test_reset(self) -> None:
        """A task that has been reset can have a result again, on a fresh Deferred."""
        job = task()
        accept(job)
        old = job.d
        job.callback((b"d", None))
        new = job.reset()
        self.assertIs(new, job.d)
        self.assertIsNot(new, old)
        self.assertFalse(job.accepted)
        job.callback((b"r", 1))
        self.assertEqual(self.successResultOf(new), (b"r", 1))

    def test_cancelOldDeferred(self) -> None:
        """Cancelling the Deferred that a task had before a reset leaves it alone."""
        holder = Holder()
        job = task()
        old = job.d
        job.reset()
        job.owner = holder
        old.cancel()
        self.failureResultOf(old, CancelledError)
        self.assertEqual(holder.cancelled, [])

    def test_rush(self) -> None:
        """A task that is rushed comes before all others, whatever their priority."""
        job, early = task(priority=1e300), task(priority=-1e300)
        job.rush()
        self.assertTrue(job < early)

    def test_relax(self) -> None:
        """A task that is relaxed comes after all others, whatever their priority."""
        job, late = task(priority=-1e300), task(priority=1e300)
        job.relax()
        self.assertTrue(late < job)

    def test_rushedInOrder(self) -> None:
        """Tasks that are all rushed, or all relaxed, keep their order."""
        for name in ("rush", "relax"):
            jobs = [task() for _ in range(3)]
            for job in jobs:
                getattr(job, name)()
            backwards = jobs[::-1]
            self.assertEqual(sorted(backwards), jobs)

    def test_freed(self) -> None:
        """
        A task that has its result is freed when nobody needs it any longer, without
        waiting for a garbage collection.
        """
        gc.disable()
        self.addCleanup(gc.enable)

        class Weak(Task):
            """A task that can be watched."""

        for end in (
            lambda job: job.callback((b"r", 1)),
            lambda job: job.errback(ValueError()),
            lambda job: job.d.cancel(),
        ):
            job = Weak(same, (), {}, 0, None)
            reference = weakref.ref(job)
            d = job.d
            end(job)
            d.addErrback(lambda _: None)
            del job
            self.assertIsNone(reference())


class TaskFactoryTests(SynchronousTestCase):
    """Tests of L{TaskFactory}."""

    def setUp(self) -> None:
        """Make a factory."""
        self.factory = TaskFactory(reactor=Clock())

    def priorities(self, n: int, niceness: int = 0, series: Any = None) -> list[float]:
        """Make tasks. Returns their priorities."""
        return [
            self.factory.new(same, (), {}, niceness, series).priority for _ in range(n)
        ]

    def test_new(self) -> None:
        """A task has what it was made of."""
        job = self.factory.new(same, (1,), {"x": 2}, 0, "s", 3)
        self.assertEqual(job.callTuple, (same, (1,), {"x": 2}))
        self.assertEqual((job.series, job.timeout), ("s", 3))

    def test_class(self) -> None:
        """The class of the tasks can be chosen."""

        class Special(Task):
            __slots__ = ()

        job = TaskFactory(Special).new(same, (), {}, 0)
        self.assertIsInstance(job, Special)

    def test_clock(self) -> None:
        """Tasks have the factory's clock."""
        clock = Clock()
        job = TaskFactory(reactor=clock).new(same, (), {}, 0, timeout=2)
        job.startTimer()
        self.assertEqual(len(clock.getDelayedCalls()), 1)

    def test_formula(self) -> None:
        """
        The priority grows with the number of the task in its series, and with its
        niceness by the formula that's documented.
        """
        self.assertEqual(self.priorities(3, -20), [1, 2, 3])
        for niceness in (-20, -10, -1, 0, 7, 10, 20):
            factor = 1 + ((niceness + 20) / 10) ** 2
            self.assertEqual(
                self.priorities(2, niceness, niceness),
                [4 * factor, 5 * factor]
                if niceness == -20
                else [k * factor for k in self.numbers(niceness)],
            )

    def numbers(self, series: Any) -> list[float]:
        """Get the numbers of the last two tasks of a series."""
        last = self.factory.seriesNumbers[series]
        return [last - 1, last]

    def test_rate(self) -> None:
        """
        Tasks that are nicer by 10 run at about half the rate of the others, or less.
        """
        nice, usual = self.priorities(100, 10, "n"), self.priorities(100, 0, "u")
        order = sorted([(p, "n") for p in nice] + [(p - 500, "u") for p in usual])
        first = [name for _, name in order][:60]
        self.assertTrue(15 <= first.count("n") <= 30, first.count("n"))

    def test_newSeries(self) -> None:
        """A new series starts at the largest number in use."""
        self.priorities(10, -20, "a")
        self.assertEqual(self.priorities(2, -20, "b"), [11, 12])
        self.assertEqual(self.priorities(1, -20, "a"), [11])

    def test_serial(self) -> None:
        """The numbers of a series can be counted by others, as floats."""
        number = self.factory._serial("s")
        self.assertEqual(number, 1.0)
        self.assertIsInstance(number, float)
        self.assertEqual(self.priorities(1, -20, "s"), [2])

    def test_taskClass(self) -> None:
        """The class of the tasks may be given, or be a subclass's attribute."""

        class Mine(Task):
            pass

        class Factory(TaskFactory):
            TaskClass = Mine

        for factory in (TaskFactory(Mine), TaskFactory(klass=Mine), Factory()):
            self.assertIsInstance(factory.new(same, (), {}, 0), Mine)
        self.assertIs(type(TaskFactory(None).new(same, (), {}, 0)), Task)

    def test_contexts(self) -> None:
        """
        Context variables travel with tasks, as they were when the task was made. Copies
        and further attempts have them, too, in contexts of their own.
        """
        self.assertIsNone(Context().run(self.factory.new, same, (), {}, 0).context)
        variable: ContextVar[int] = ContextVar("variable")
        variable.set(1)
        job = self.factory.new(same, (), {}, 0)
        variable.set(2)
        others = [job.copy(), job.nextAttempt()]
        contexts = [each.context for each in (job, *others)]
        self.assertEqual([c[variable] for c in contexts if c is not None], [1, 1, 1])
        self.assertEqual(len(set(map(id, contexts))), 3)

    def test_badNiceness(self) -> None:
        """Niceness that isn't an integer from -20 to 20 is refused, and shown."""
        for niceness in (-21, 21, 1.0, "5", None, True):
            with self.assertRaisesRegex(ValueError, f"-20 to 20, not {niceness!r}"):
                self.factory.new(same, (), {}, niceness)

    def test_badSeries(self) -> None:
        """A series that isn't hashable is refused, with what to use instead."""
        with self.assertRaisesRegex(TypeError, r"\['a'\] isn't: use a string"):
            self.factory.new(same, (), {}, 0, ["a"])  # type: ignore[arg-type]

    def test_badTimeout(self) -> None:
        """A time limit that isn't a positive number is refused."""
        for timeout in (0, -1, "5", True, math.nan, math.inf, 10**400):
            with self.assertRaisesRegex(ValueError, "timeout must be a positive"):
                self.factory.new(same, (), {}, 0, None, timeout)  # type: ignore[arg-type]

    def test_forgetsSeries(self) -> None:
        """
        Any number of different series doesn't fill the memory, and those in use keep
        their order.
        """
        last = 0.0
        for n in range(25_000):
            self.factory._serial(n)
            if n % 100 == 0:
                number = self.factory._serial("kept")
                self.assertGreater(number, last)
                last = number
        self.assertLess(len(self.factory.seriesNumbers), 10_001)
