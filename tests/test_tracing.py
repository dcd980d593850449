"""Tests of OpenTelemetry's spans."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from asynqueue import AsyncWorker, ProcessQueue, TaskQueue, ThreadQueue, WireWorker
from asynqueue._child.calls import TracedCall
from asynqueue.errors import WorkerLost
from asynqueue.executor import ExecutorWorker

from ._cases import QueueTestCase, same
from ._wire import WireTestCase

try:
    from opentelemetry import baggage, context, trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    from . import _traced as jobs
except ImportError:
    MISSING = "opentelemetry-sdk isn't installed"
else:
    MISSING = ""


class Spans:
    """Has the program's spans kept, until a test has ended."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        # Only one can be set, for good.
        case.patch(trace, "get_tracer_provider", lambda: provider)
        self.tracer = provider.get_tracer("tests")

    def take(self) -> list[Any]:
        """
        Get the spans that have ended, in the order in which they did, and forget them.
        """
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans


def ids(span: Any) -> tuple[int, int]:
    """Get the IDs of a span's trace and its own, as C{_traced.current} gives them."""
    return span.get_span_context().trace_id, span.get_span_context().span_id


class SpanTests(QueueTestCase):
    """Tests of the spans of calls."""

    if MISSING:
        skip = MISSING

    def setUp(self) -> None:
        """Have spans kept."""
        super().setUp()
        self.spans = Spans(self)

    def test_span(self) -> None:
        """A call has a span from when it's made to when it has its result."""
        self.q.call(same, 1, series="memory")
        self.assertEqual(self.spans.take(), [])
        self.worker.complete()
        [span] = self.spans.take()
        self.assertEqual(span.name, "same")
        self.assertEqual(span.attributes["asynqueue.series"], "'memory'")
        self.assertEqual([event.name for event in span.events], ["started"])
        self.assertTrue(span.status.is_unset)

    def test_names(self) -> None:
        """It's called what the call is called, and tells the queue's name."""
        q = TaskQueue(AsyncWorker(), name="thumbs")
        q.call(same, name="one")
        [span] = self.spans.take()
        self.assertEqual(span.name, "one")
        self.assertEqual(span.attributes["asynqueue.queue"], "thumbs")
        self.assertEqual(span.attributes["code.function.name"], "same")

    def test_parent(self) -> None:
        """Its parent is the caller's span, which is current again in callbacks."""
        seen = []

        def call() -> None:
            with self.spans.tracer.start_as_current_span("mine"):
                d = self.q.call(same)
                d.addCallback(lambda _: seen.append(jobs.current()))

        # A context of its own, which leaves nothing to other tests.
        copy_context().run(call)
        self.worker.complete()
        mine, span = self.spans.take()
        self.assertEqual(seen, [ids(mine)])
        self.assertEqual(span.parent.span_id, ids(mine)[1])

    def test_failed(self) -> None:
        """The span of a call that fails has the exception."""
        d = self.q.call(same)
        self.worker.fail(ValueError("bad"))
        self.failureResultOf(d, ValueError)
        [span] = self.spans.take()
        self.assertEqual(span.status.status_code, trace.StatusCode.ERROR)
        self.assertEqual(span.status.description, "bad")
        self.assertEqual(span.events[-1].attributes["exception.type"], "ValueError")

    def test_cancelled(self) -> None:
        """A call that is never started has a span, too."""
        self.fillWorker()
        d = self.q.call(same)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        [span] = self.spans.take()
        self.assertEqual(list(span.attributes), ["code.function.name"])
        self.assertFalse(span.status.is_ok)

    def test_retried(self) -> None:
        """All attempts are in one span."""
        d = self.q.call(same, retries=1)
        self.worker.lose(WorkerLost("gone"))
        self.worker.complete(3)
        self.assertEqual(self.successResultOf(d), 3)
        [span] = self.spans.take()
        self.assertEqual(
            [event.name for event in span.events], ["started", "retried", "started"]
        )

    def test_notSampled(self) -> None:
        """However fast calls come, each has one."""
        for _ in range(200):
            self.q.call(same)
            self.worker.complete()
        self.assertEqual(len(self.spans.take()), 200)

    def test_noProvider(self) -> None:
        """Where the program hasn't said where spans go, there are none."""
        self.patch(trace, "get_tracer_provider", trace.ProxyTracerProvider)
        self.q.call(same)
        job: Any = self.worker.running[0]
        self.assertIsNone(job.watch.headers)
        self.worker.complete()
        self.assertEqual(self.spans.take(), [])

    def test_noText(self) -> None:
        """A call fails with its own exception also if that has no text."""

        class Odd(Exception):
            def __str__(self) -> str:
                raise IndexError

        def fail() -> None:
            raise Odd

        q = self.queue(AsyncWorker())
        self.failureResultOf(q.call(fail), Odd)
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.assertEqual(q.q.loadInfoProducer.queued, 0)


class AbsentTests(QueueTestCase):
    """Tests of programs that don't use OpenTelemetry."""

    def setUp(self) -> None:
        """Have OpenTelemetry not imported, until the test has ended."""
        super().setUp()
        patched = patch.dict(sys.modules)
        patched.start()
        self.addCleanup(patched.stop)
        for name in [name for name in sys.modules if "opentelemetry" in name]:
            del sys.modules[name]

    def test_absent(self) -> None:
        """Nothing is imported, and nothing is carried."""
        self.q.call(same)
        job: Any = self.worker.running[0]
        self.assertIsNone(job.watch.headers)
        self.assertNotIn("opentelemetry", sys.modules)

    def test_notThere(self) -> None:
        """What is carried to where it isn't used is run all the same."""
        self.assertEqual(TracedCall(same, {"traceparent": "x"}, False)(3), 3)
        self.assertNotIn("opentelemetry", sys.modules)


class CarriedTests(TestCase):
    """Tests of the context where calls are run."""

    timeout = 60

    if MISSING:
        skip = MISSING

    def setUp(self) -> None:
        """Have spans kept."""
        self.spans = Spans(self)

    async def check(self, q: TaskQueue, f: Any) -> None:
        """See that a call is run with its own span as the current one."""
        self.addCleanup(q.shutdown)
        seen = await q.call(f)
        [span] = self.spans.take()
        self.assertEqual(tuple(seen), ids(span))

    async def test_reactor(self) -> None:
        """The span is current in the reactor."""
        await self.check(TaskQueue(AsyncWorker()), jobs.current)

    async def test_thread(self) -> None:
        """So it is in a thread."""
        await self.check(ThreadQueue(), jobs.current)

    async def test_executor(self) -> None:
        """So it is where an executor runs it, as it is or pickled."""
        with ThreadPoolExecutor(1) as executor:
            for portable in (False, True):
                worker = ExecutorWorker(executor, portable=portable)
                await self.check(TaskQueue(worker), jobs.current)

    async def test_child(self) -> None:
        """So it is in a child."""
        await self.check(ProcessQueue(1), jobs.current)

    async def test_childCoroutine(self) -> None:
        """So it is in a coroutine in a child with a reactor."""
        await self.check(ProcessQueue(1, useReactor=True), jobs.later)

    async def test_childIteration(self) -> None:
        """So it is in all of an iteration in a child."""
        q = ProcessQueue(1)
        self.addCleanup(q.shutdown)
        seen = [item async for item in await q.call(jobs.generate, 3)]
        [span] = self.spans.take()
        self.assertEqual(seen, [ids(span)] * 3)

    async def test_childAfterwards(self) -> None:
        """
        A call without a span that comes after one with a span has none. Errors name
        the call as they do without spans.
        """
        q = ProcessQueue(1)
        self.addCleanup(q.shutdown)
        d: Deferred[Any] = q.call(jobs.divide, 7)
        error = (await self.assertFailure(d, ZeroDivisionError)).__cause__
        self.assertNotIn("runTraced", str(error))
        [failed] = self.spans.take()
        self.assertEqual(failed.name, "divide")
        self.patch(trace, "get_tracer_provider", trace.ProxyTracerProvider)
        self.assertEqual(await q.call(jobs.current), (0, 0))

    async def test_childBaggage(self) -> None:
        """Baggage goes with it."""
        q = ProcessQueue(1)
        self.addCleanup(q.shutdown)
        token = context.attach(baggage.set_baggage("customer", "7"))
        d = q.call(jobs.customer)
        context.detach(token)
        self.assertEqual(await d, "7")

    def test_named(self) -> None:
        """What is run in a context has the name of what it stands for."""
        traced = TracedCall(jobs.current, {}, False)
        self.assertEqual(traced.__name__, "current")


class ServerTests(WireTestCase):
    """Tests of the context on servers."""

    if MISSING:
        skip = MISSING

    def worker(self, **kw: Any) -> WireWorker:
        """Make a worker for the universe of these tests."""
        return WireWorker(jobs.Traced, self.description, **kw)

    async def check(self, method: str, **kw: Any) -> None:
        """See that a method is run with the span of its call as the current one."""
        spans = Spans(self)
        await self.serve(universe=jobs.Traced())
        q = await self.queue(**kw)
        seen = await q.call(method)
        [span] = spans.take()
        self.assertEqual(tuple(seen), ids(span))

    async def test_current(self) -> None:
        """The span is current in a method."""
        await self.check("current")

    async def test_thread(self) -> None:
        """So it is in a thread of the server's."""
        await self.check("current", thread=True)

    async def test_coroutine(self) -> None:
        """So it is in a coroutine."""
        await self.check("later")

    async def test_baggage(self) -> None:
        """Baggage goes with it."""
        Spans(self)
        await self.serve(universe=jobs.Traced())
        q = await self.queue()
        token = context.attach(baggage.set_baggage("customer", "7"))
        d = q.call("customer")
        context.detach(token)
        self.assertEqual(await d, "7")
