"""Tests of what becomes of calls that fail: the policies, of queues and of calls."""

from __future__ import annotations

import logging
import sys
from io import StringIO
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import formatEvent

from asynqueue._asyncworker import AsyncWorker
from asynqueue._child.status import ErrorText
from asynqueue.base import TaskQueue
from asynqueue.errors import RemoteTraceback, TimeoutError, WorkerError, WorkerLost
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, StoppableClock, logged, same


def fails(*args: Any) -> NoReturn:
    """Fail."""
    raise KeyError("k", *args)


class Records(logging.Handler):
    """Keeps what is logged by the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


class PolicyTests(QueueTestCase):
    """Tests of the policies, for tasks that raise."""

    def setUp(self) -> None:
        """Have a clock that can be stopped, and catch what's printed."""
        super().setUp()
        self.reactor = StoppableClock()
        self.printed = StringIO()
        self.patch(sys, "stderr", self.printed)

    def failing(self, kwCall: Any = (), *args: Any, **kw: Any) -> Any:
        """Make a call that fails."""
        q = TaskQueue(AsyncWorker(), reactor=self.reactor, **kw)
        return q.call(fails, *args, **dict(kwCall))

    def checkText(self, text: Any) -> None:
        """Check that something is text about the failing call."""
        self.assertIsInstance(text, str)
        self.assertTrue(text.startswith("Exception "), text)
        self.assertIn("fails()", text)

    def checkRaised(self, d: Deferred[Any]) -> None:
        """Check that a call has failed with its own exception."""
        failure = self.failureResultOf(d, KeyError)
        self.assertEqual(failure.value.args, ("k",))
        self.assertIn("fails", failure.getTraceback())

    def checkWrapped(self, d: Deferred[Any]) -> None:
        """Check that a call has failed with text, its own exception the cause."""
        failure = self.failureResultOf(d, WorkerError)
        self.checkText(str(failure.value))
        self.assertIsInstance(failure.value.__cause__, KeyError)

    def checkWarned(self, d: Deferred[Any], events: list[dict[str, Any]]) -> None:
        """Check that a call has given text, which has been logged."""
        text = self.successResultOf(d)
        self.checkText(text)
        (event,) = events
        self.assertEqual(event["log_level"].name, "error")
        self.assertIn(text, event["log_format"].format(**event))

    def checkStopping(self, d: Deferred[Any]) -> None:
        """
        Check that a call has given text, which has been printed, and that the reactor
        stops a second later.
        """
        self.checkText(self.successResultOf(d))
        self.assertRegex(self.printed.getvalue(), r"^ERROR: Exception .* in fails\(\)")
        self.reactor.advance(0.9)
        self.assertEqual(self.reactor.stops, 0)
        self.reactor.advance(0.1)
        self.assertEqual(self.reactor.stops, 1)

    def test_default(self) -> None:
        """
        With nothing said, the Deferred fails with the task's own exception, nothing is
        logged or printed, and the reactor goes on.
        """
        with logged() as events:
            self.checkRaised(self.failing())
        self.assertEqual((events, self.printed.getvalue()), ([], ""))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_wrap(self) -> None:
        """With C{returnFailure=True} it fails with a WorkerError."""
        self.checkWrapped(self.failing(returnFailure=True))

    def test_warn(self) -> None:
        """With C{warn=True} it fires with the text, which is logged."""
        with logged() as events:
            d = self.failing(warn=True)
        self.checkWarned(d, events)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        With C{returnFailure=False} said outright it fires with the text, and the
        reactor stops.
        """
        self.checkStopping(self.failing(returnFailure=False))

    def test_stopOther(self) -> None:
        """So does one that doesn't tell whether it's running."""
        del self.reactor.running
        self.checkStopping(self.failing(returnFailure=False))

    def test_warnAndReturnFailure(self) -> None:
        """With C{warn=True}, C{returnFailure=False} says nothing more; C{True} wins."""
        with logged() as events:
            d = self.failing(warn=True, returnFailure=False)
        self.checkWarned(d, events)
        self.checkWrapped(self.failing(warn=True, returnFailure=True))

    def test_perCall(self) -> None:
        """A call may have another policy than its queue."""
        for returnFailure in (None, True, False):
            self.checkRaised(
                self.failing({"returnFailure": None}, returnFailure=returnFailure)
            )
            self.checkWrapped(
                self.failing({"returnFailure": True}, returnFailure=returnFailure)
            )
        self.checkStopping(self.failing({"returnFailure": False}, returnFailure=True))

    def test_perCallOfWarningQueue(self) -> None:
        """Also if its queue only warns."""
        self.checkRaised(self.failing({"returnFailure": None}, warn=True))
        self.checkWrapped(self.failing({"returnFailure": True}, warn=True))
        with logged() as events:
            d = self.failing({"returnFailure": False}, warn=True)
        self.checkWarned(d, events)

    def test_standardLogger(self) -> None:
        """
        What is logged goes to the standard library's logger C{asynqueue}, at level
        ERROR.
        """
        records = Records()
        logger = logging.getLogger("asynqueue")
        logger.addHandler(records)
        self.addCleanup(logger.removeHandler, records)
        text = self.successResultOf(self.failing(warn=True))
        (record,) = records.records
        self.assertEqual(record.levelno, logging.ERROR)
        self.assertIn(text, record.getMessage())

    def test_verbose(self) -> None:
        """
        With C{verbose} the log says which call it was; the same call that fails twice
        is logged twice.
        """
        q = TaskQueue(AsyncWorker(), reactor=self.reactor, warn=True, verbose=True)
        with logged() as events:
            texts = [self.successResultOf(q.call(fails, 1)) for _ in range(2)]
        self.assertEqual(len(events), 2)
        for event, text in zip(events, texts, strict=True):
            message = event["log_format"].format(**event)
            self.assertTrue(message.startswith("fails(1) failed: "), message)
            self.assertIn(text, message)

    def test_verboseRaises(self) -> None:
        """It alone has nothing logged: the Deferred fails."""
        with logged() as events:
            self.checkRaised(self.failing(verbose=True))
        self.assertEqual(events, [])

    def test_setLater(self) -> None:
        """
        What was said when the queue was made can be said anew, and holds for results
        from then on.
        """
        q = TaskQueue(AsyncWorker(), reactor=self.reactor)
        self.assertIsNone(q.returnFailure)
        q.returnFailure = True
        self.failureResultOf(q.call(fails, 1), WorkerError)
        q.returnFailure = None
        q.warn = q.verbose = True
        with logged() as events:
            text = self.successResultOf(q.call(fails, 1))
        self.assertIn(text, formatEvent(events[0]))
        q.warn, q.spew = False, True
        with logged() as events:
            self.successResultOf(q.call(same, 1))
        self.assertEqual(formatEvent(events[0]), "same(1) -> 1")
        q.timeout = 5
        self.assertEqual((q.timeout, q.q.timeout), (5, 5))
        q.timeout = 0
        self.assertIsNone(q.timeout)
        self.assertEqual((q.warn, q.verbose, q.spew), (False, True, True))

    def test_logLevel(self) -> None:
        """
        What is to be logged reaches handlers of the standard logger, whose level the
        queue sets.
        """
        logger = logging.getLogger("asynqueue")
        records: list[logging.LogRecord] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record)

        handler = Keep()
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.NOTSET)
        q = TaskQueue(AsyncWorker(), reactor=self.reactor, spew=True)
        self.successResultOf(q.call(same, 1))
        self.assertEqual(
            [(r.levelname, r.getMessage()) for r in records], [("INFO", "same(1) -> 1")]
        )
        TaskQueue(reactor=self.reactor, warn=True)
        self.assertEqual(logger.level, logging.ERROR)

    def test_strangeArguments(self) -> None:
        """
        Arguments that can't be sorted, described, or compared don't keep a failing call
        from failing.
        """

        class Awkward:
            def __repr__(self) -> str:
                raise RuntimeError("repr")

            def __eq__(self, other: object) -> bool:
                raise RuntimeError("eq")

            __hash__ = None  # type: ignore[assignment]

        for arg in ({1: 1, "a": 2}, Awkward(), b"x" * 1000):
            self.failureResultOf(self.failing((), arg), KeyError)
            with logged():
                d = self.failing((), arg, warn=True, verbose=True)
            self.assertIsInstance(self.successResultOf(d), str)

    def test_colons(self) -> None:
        """The text has the exception's message as it is."""
        q = TaskQueue(AsyncWorker(), reactor=self.reactor, returnFailure=True)

        def fail() -> NoReturn:
            raise ValueError("see http://x:80")

        failure = self.failureResultOf(q.call(fail), WorkerError)
        self.assertIn("Exception 'see http://x:80'", str(failure.value))

    def test_others(self) -> None:
        """A call that fails harms no other."""
        q = TaskQueue(AsyncWorker(), reactor=self.reactor)
        calls = [q.call(fails if n % 2 else same, n) for n in range(6)]
        for n, d in enumerate(calls):
            if n % 2:
                self.failureResultOf(d, KeyError)
            else:
                self.assertEqual(self.successResultOf(d), n)


class OtherFailureTests(QueueTestCase):
    """Tests of failures that aren't exceptions of a callable in the reactor."""

    def test_textOnly(self) -> None:
        """Of a worker that hands back plain text, the call fails with a WorkerError."""
        for returnFailure in (None, True):
            d = self.q.call(same, returnFailure=returnFailure)
            self.worker.answer((b"e", "Exception 'oops'"))
            failure = self.failureResultOf(d, WorkerError)
            self.assertEqual(str(failure.value), "Exception 'oops'")
            self.assertIsNone(failure.value.__cause__)

    def test_remoteTraceback(self) -> None:
        """The traceback from where the task ran is chained, and shown."""
        error = KeyError("k")
        error.__cause__ = RemoteTraceback("  File far, line 1")
        d = self.q.call(same)
        self.worker.answer((b"e", ErrorText("text", error)))
        failure = self.failureResultOf(d, KeyError)
        self.assertIn("far", failure.getTraceback())
        self.assertIsInstance(failure.value.__cause__, RemoteTraceback)

    def test_timeout(self) -> None:
        """
        A call whose time is up fails with that under every policy: it's the queue that
        says so, not the task.
        """
        for queue in ({}, {"warn": True}, {"returnFailure": True}):
            q = self.queue(MemoryWorker(), **queue)
            with logged() as events:
                d = q.call(same, timeout=1)
                self.clock.advance(1)
            self.failureResultOf(d, TimeoutError)
            self.assertEqual([e for e in events if e["log_level"].name == "error"], [])

    def test_lost(self) -> None:
        """So does one whose worker was lost."""
        d = self.q.call(same)
        self.worker.lose(WorkerLost("gone"))
        self.failureResultOf(d, WorkerLost)
        with logged():
            worker = MemoryWorker()
            d = self.queue(worker, warn=True).call(same)
            worker.lose(WorkerLost("gone"))
        self.assertEqual(self.successResultOf(d), "gone")

    def test_cancelled(self) -> None:
        """
        A call that is cancelled fails so under every policy, and nothing is logged.
        """
        for kw in ({"warn": True}, {"returnFailure": True}, {"returnFailure": False}):
            with logged() as events:
                d = self.queue(**kw).call(same)
                d.cancel()
                self.failureResultOf(d, CancelledError)
            self.assertEqual(events, [])

    def test_callableCancels(self) -> None:
        """A callable whose own Deferred was cancelled by somebody else has failed."""
        inner: Deferred[None] = Deferred()
        d = self.queue(AsyncWorker()).call(lambda: inner)
        inner.cancel()
        self.failureResultOf(d, CancelledError)
