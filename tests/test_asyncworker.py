"""Tests of the worker in the reactor."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import Status
from asynqueue.base import TaskQueue
from asynqueue.errors import WorkerError
from asynqueue.interfaces import ICancellingWorker, IWorker
from asynqueue.iteration import Deferator, IterationProducer
from asynqueue.tasks._task import Task
from asynqueue.testing import RecordingConsumer

from ._cases import same, task


def upTo(n: int) -> Iterator[int]:
    """Count."""
    yield from range(n)


def explode(error: BaseException) -> NoReturn:
    """Raise an exception."""
    raise error


class Refusing(RecordingConsumer):
    """A consumer that wants no producer."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Refuse."""
        raise ValueError("unwanted")


class AsyncWorkerTests(SynchronousTestCase):
    """Tests of L{AsyncWorker}."""

    def setUp(self) -> None:
        """Make a worker."""
        self.worker = AsyncWorker()

    def test_context(self) -> None:
        """
        Callables, coroutines and generators see the caller's context variables, however
        long they wait and whoever has them go on.
        """
        variable: ContextVar[str] = ContextVar("variable", default="none")

        def generate() -> Iterator[str]:
            yield variable.get()
            yield variable.get()

        async def wait() -> str:
            await gate
            return variable.get()

        q = TaskQueue(AsyncWorker(), reactor=Clock())
        gate: Deferred[None] = Deferred()
        variable.set("caller")
        calls: list[Deferred[Any]] = [
            q.call(wait),
            q.call(variable.get),
            q.call(generate),
        ]
        variable.set("other")
        gate.callback(None)
        self.assertEqual(self.successResultOf(calls[0]), "caller")
        self.assertEqual(self.successResultOf(calls[1]), "caller")
        items = self.successResultOf(calls[2])
        self.assertEqual([self.successResultOf(d) for d in items], ["caller"] * 2)

    def test_seriesText(self) -> None:
        """
        A text in place of the list of series is refused, for it would make a series of
        each letter.
        """
        self.assertRaises(TypeError, AsyncWorker, "crawl")

    def run_(self, f: Any, *args: Any, **kw: Any) -> tuple[Task, Deferred[None]]:
        """
        Have the worker run a call. Returns the task, and the Deferred of the worker.
        """
        job = task(f, *args, **kw)
        return job, self.worker.run(job)

    def result(self, f: Any, *args: Any, **kw: Any) -> Any:
        """Have the worker run a call at once. Returns the status and the result."""
        job, d = self.run_(f, *args, **kw)
        self.successResultOf(d)
        return self.successResultOf(job.d)

    def test_interfaces(self) -> None:
        """It's a worker that can cancel tasks."""
        for interface in (IWorker, ICancellingWorker):
            verifyClass(interface, AsyncWorker)
            verifyObject(interface, self.worker)
        IWorker.validateInvariants(self.worker)

    def test_qualifications(self) -> None:
        """It qualifies for its class's series, and for those that it's given."""
        self.assertEqual(self.worker.cQualified, ["async", "local"])
        self.assertEqual(AsyncWorker(("x", 1)).iQualified, ["x", 1])

    def test_call(self) -> None:
        """A call is run at once, with its arguments, and its result handed back."""
        self.assertEqual(self.result(pow, 2, 3), (Status.RAN, 8))
        self.assertEqual(self.result(pow, 2, 3, mod=5), (Status.RAN, 3))
        self.assertEqual(self.result(same), (Status.RAN, None))

    def test_deferred(self) -> None:
        """
        The callable may return a Deferred, whose result is the task's. Until then the
        worker isn't ready.
        """
        d: Deferred[int] = Deferred()
        job, ready = self.run_(lambda: d)
        self.assertNoResult(job.d)
        self.assertNoResult(ready)
        d.callback(5)
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 5))
        self.successResultOf(ready)

    def test_firedDeferred(self) -> None:
        """The Deferred may have fired already."""
        self.assertEqual(self.result(succeed, 5), (Status.RAN, 5))

    def test_coroutine(self) -> None:
        """The callable may be a coroutine function."""
        d: Deferred[int] = Deferred()

        async def double() -> int:
            """Take a turn of the reactor."""
            return 2 * await d

        job, _ = self.run_(double)
        d.callback(4)
        self.assertEqual(self.successResultOf(job.d), (Status.RAN, 8))

    def test_raises(self) -> None:
        """
        An exception is handed back with text about the call, and with itself; the
        worker is ready after it.
        """
        error = ValueError("oops")
        status, text = self.result(explode, error)
        self.assertEqual(status, Status.ERROR)
        self.assertIs(text.exception, error)
        self.assertTrue(text.startswith("Exception 'oops'"), text)
        self.assertIn("explode(", text)
        self.assertEqual(self.result(same, 1), (Status.RAN, 1))

    def test_fails(self) -> None:
        """As is the failure of a Deferred."""
        error = ValueError("oops")
        status, text = self.result(fail, error)
        self.assertEqual(status, Status.ERROR)
        self.assertIs(text.exception, error)
        self.assertEqual(self.result(same, 1), (Status.RAN, 1))

    def test_exits(self) -> None:
        """What would end a program, or a generator, is the cause of a WorkerError."""
        for error in (SystemExit(1), KeyboardInterrupt(), StopIteration(1)):
            status, text = self.result(explode, error)
            self.assertEqual(status, Status.ERROR)
            self.assertIsInstance(text.exception, WorkerError)
            self.assertIs(text.exception.__cause__, error)

    def test_notCallable(self) -> None:
        """A string, which names a method elsewhere, can't be called here."""
        status, text = self.result("method")
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, TypeError)

    def test_oneAtATime(self) -> None:
        """A task that comes while another is running waits for it."""
        d: Deferred[None] = Deferred()
        first, _ = self.run_(lambda: d)
        second, ready = self.run_(same, 2)
        self.assertNoResult(second.d)
        self.assertNoResult(ready)
        d.callback(None)
        self.successResultOf(first.d)
        self.assertEqual(self.successResultOf(second.d), (Status.RAN, 2))
        self.successResultOf(ready)

    def test_manyInLine(self) -> None:
        """
        Any number of tasks may wait in line, without deep recursion when it's over.
        """
        d: Deferred[None] = Deferred()
        self.run_(lambda: d)
        jobs = [self.run_(same, n)[0] for n in range(5000)]
        d.callback(None)
        self.assertEqual(
            [self.successResultOf(job.d)[1] for job in jobs], list(range(5000))
        )

    def test_iterator(self) -> None:
        """An iterator is handed back as a Deferator."""
        status, deferator = self.result(upTo, 3)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(deferator, Deferator)
        items = [self.successResultOf(d) for d in deferator]
        self.assertEqual(items, [0, 1, 2])

    def test_deferredIterator(self) -> None:
        """So is one that a Deferred fires with."""
        status, deferator = self.result(lambda: succeed(upTo(2)))
        self.assertEqual(status, Status.ITERATOR)
        self.assertEqual([self.successResultOf(d) for d in deferator], [0, 1])

    def test_emptyIterator(self) -> None:
        """An empty iterator is handed back as an empty list."""
        self.assertEqual(self.result(upTo, 0), (Status.ITERATOR, []))

    def test_failingIterator(self) -> None:
        """
        An iterator that raises before its first item is still handed back as a
        Deferator, so that the error isn't lost.
        """

        def failing() -> Iterator[int]:
            yield from [explode(ValueError("oops"))]

        status, deferator = self.result(failing)
        self.assertEqual(status, Status.ITERATOR)
        self.failureResultOf(next(iter(deferator)), ValueError)

    def test_raw(self) -> None:
        """
        An iterator is handed back as it is if the worker, or the call, says so; the
        callable never sees that keyword.
        """
        status, iterator = self.result(upTo, 3, raw=True)
        self.assertEqual((status, list(iterator)), (Status.RAN, [0, 1, 2]))
        self.worker = AsyncWorker(raw=True)
        status, iterator = self.result(upTo, 3)
        self.assertEqual((status, list(iterator)), (Status.RAN, [0, 1, 2]))
        self.assertEqual(self.result(upTo, 0, raw=False), (Status.ITERATOR, []))

    def test_keywordsKept(self) -> None:
        """The keywords of the task aren't changed: others may run copies of it."""
        job, _ = self.run_(upTo, 3, raw=True, consumer=None)
        self.assertEqual(job.callTuple[2], {"raw": True, "consumer": None})

    def test_consumer(self) -> None:
        """With a consumer, an iterator is handed back as a producer for it."""
        consumer = RecordingConsumer()
        status, producer = self.result(upTo, 3, consumer=consumer)
        self.assertEqual(status, Status.ITERATOR)
        self.assertIsInstance(producer, IterationProducer)
        self.successResultOf(producer.run())
        self.assertEqual(consumer.items, [0, 1, 2])

    def test_consumerUnused(self) -> None:
        """What isn't an iterator is handed back, though there's a consumer."""
        consumer = RecordingConsumer()
        self.assertEqual(self.result(same, 1, consumer=consumer), (Status.RAN, 1))
        self.assertIsNone(consumer.producer)

    def test_refusingConsumer(self) -> None:
        """
        If the consumer refuses to have a producer, the task fails, the iterator is
        closed, and the worker is ready after it.
        """
        closed: list[int] = []

        def iterate() -> Iterator[int]:
            try:
                yield from range(3)
            finally:
                closed.append(1)

        iterator = iterate()
        next(iterator)
        status, text = self.result(lambda: iterator, consumer=Refusing())
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, ValueError)
        self.assertEqual(closed, [1])
        self.assertEqual(self.result(same, 1), (Status.RAN, 1))

    def test_stop(self) -> None:
        """
        It has stopped at once if it has nothing to do, and else when all tasks have
        been run, those in line too.
        """
        self.successResultOf(self.worker.stop())
        d: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        self.run_(lambda: d)
        self.run_(lambda: second)
        stops = [self.worker.stop(), self.worker.stop()]
        d.callback(None)
        for stop in stops:
            self.assertNoResult(stop)
        second.callback(None)
        for stop in stops:
            self.successResultOf(stop)

    def test_crash(self) -> None:
        """
        A crash cancels what's running, and gives that task and those in line; their
        results don't come any more, and who waits for the stop needn't.
        """
        cancelled: list[Any] = []
        d: Deferred[None] = Deferred(cancelled.append)
        first, _ = self.run_(lambda: d)
        second, _ = self.run_(same)
        stop = self.worker.stop()
        self.assertEqual(self.worker.crash(), [first, second])
        self.assertEqual(cancelled, [d])
        self.assertNoResult(first.d)
        self.assertNoResult(second.d)
        self.successResultOf(stop)

    def test_crashIdle(self) -> None:
        """Crashing a worker that has nothing to do gives an empty list."""
        self.assertEqual(self.worker.crash(), [])

    def test_crashByTask(self) -> None:
        """
        A callable that has its worker crashed doesn't hang; what it returns is
        cancelled.
        """
        cancelled: list[Any] = []
        d: Deferred[None] = Deferred(cancelled.append)
        left: list[Any] = []

        def crash() -> Deferred[None]:
            left.extend(self.worker.crash())
            return d

        job, ready = self.run_(crash)
        self.assertEqual(left, [job])
        self.assertEqual(cancelled, [d])
        self.successResultOf(ready)
        self.assertNoResult(job.d)

    def test_cancelRunning(self) -> None:
        """
        Cancelling the task that is running cancels its Deferred; its result is
        dropped, and the worker ready.
        """
        cancelled: list[Any] = []
        d: Deferred[None] = Deferred(cancelled.append)
        job, ready = self.run_(lambda: d)
        self.worker.cancelTask(job)
        self.assertEqual(cancelled, [d])
        self.assertNoResult(job.d)
        self.successResultOf(ready)
        self.assertEqual(self.result(same, 1), (Status.RAN, 1))

    def test_cancelledGivesResult(self) -> None:
        """The result that a Deferred gives on being cancelled is dropped too."""
        d: Deferred[int] = Deferred(lambda d: d.callback(5))
        job, ready = self.run_(lambda: d)
        self.worker.cancelTask(job)
        self.assertNoResult(job.d)
        self.successResultOf(ready)

    def test_cancelInLine(self) -> None:
        """Cancelling a task that is in line takes it out."""
        called: list[int] = []
        d: Deferred[None] = Deferred()
        self.run_(lambda: d)
        job, ready = self.run_(called.append, 1)
        other, _ = self.run_(called.append, 2)
        self.worker.cancelTask(job)
        self.successResultOf(ready)
        d.callback(None)
        self.assertEqual(called, [2])
        self.successResultOf(other.d)

    def test_cancelUnknown(self) -> None:
        """Cancelling a task that it doesn't have does nothing."""
        d: Deferred[None] = Deferred()
        job, _ = self.run_(lambda: d)
        self.worker.cancelTask(task())
        d.callback(None)
        self.successResultOf(job.d)

    def test_cancelledByItself(self) -> None:
        """
        A callable that has its own task cancelled: what it returns is cancelled, or
        dropped.
        """
        cancelled: list[Any] = []
        d: Deferred[None] = Deferred(cancelled.append)

        def cancel(result: Any) -> Any:
            self.worker.cancelTask(job)
            return result

        for result in (d, 5):
            job = task(cancel, result)
            self.successResultOf(self.worker.run(job))
            self.assertNoResult(job.d)
        self.assertEqual(cancelled, [d])

    def test_badCanceller(self) -> None:
        """A canceller that raises is logged, and keeps nobody from going on."""

        def canceller(d: Deferred[None]) -> None:
            raise ValueError("can't")

        d: Deferred[None] = Deferred(canceller)
        job, _ = self.run_(lambda: d)
        self.assertEqual(self.worker.crash(), [job])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_resignator(self) -> None:
        """It takes the callable by which it could resign, and never calls it."""
        self.worker.setResignator(lambda: self.fail("It has resigned."))
        self.result(explode, ValueError())
        self.worker.crash()

    def test_inherited(self) -> None:
        """A subclass may qualify for more, of its own."""

        @implementer(IWorker)
        class Special(AsyncWorker):
            cQualified = ["special"]  # noqa: RUF012

        self.assertEqual(Special().cQualified, ["special"])
