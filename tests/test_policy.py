"""Tests of the policies for errors."""

from __future__ import annotations

import sys
from io import StringIO
from typing import Any

from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.status import ErrorText
from asynqueue.base._options import UNSET, Defaults
from asynqueue.base._results import ErrorPolicy, TaskFailure, failureOf
from asynqueue.errors import RemoteTraceback, WorkerError

from ._cases import StoppableClock, logged


class FailureOfTests(SynchronousTestCase):
    """Tests of L{failureOf}."""

    def test_ownFailure(self) -> None:
        """The failure of the task itself is taken where there is one."""
        failure = Failure(KeyError(1))
        self.assertIs(failureOf(ErrorText("text", failure.value, failure)), failure)

    def test_ownException(self) -> None:
        """Else the exception of the task is that of the failure."""
        error = KeyError(1)
        self.assertIs(failureOf(ErrorText("text", error)).value, error)

    def test_textOnly(self) -> None:
        """
        Of a worker that hands back plain text, the failure is a WorkerError with it.
        """
        for text in ("oops", ErrorText("oops")):
            failure = failureOf(text)
            failure.trap(WorkerError)
            self.assertEqual(failure.getErrorMessage(), "oops")


class TaskFailureTests(SynchronousTestCase):
    """Tests of L{TaskFailure}."""

    def setUp(self) -> None:
        """Make a failure of an exception that was raised elsewhere."""
        error = ValueError("oops")
        error.__cause__ = RemoteTraceback("Traceback:\n  File far, line 1")
        self.failure = TaskFailure(error)

    def test_traceback(self) -> None:
        """The traceback has the one from where the task ran."""
        text = self.failure.getTraceback()
        self.assertIn("File far, line 1", text)
        self.assertIn("ValueError: oops", text)

    def test_brief(self) -> None:
        """The brief one hasn't."""
        file = StringIO()
        self.failure.printTraceback(file, detail="brief")
        self.assertNotIn("far", file.getvalue())
        self.assertIn("oops", file.getvalue())

    def test_noRemote(self) -> None:
        """Without a remote one it's as usual."""
        self.assertNotIn("here", TaskFailure(ValueError("oops")).getTraceback())


class ErrorPolicyTests(SynchronousTestCase):
    """Tests of L{ErrorPolicy}, beside those of C{test_base_errors}."""

    def setUp(self) -> None:
        """Make a failure, and catch what's printed."""
        self.error = KeyError("k")
        self.failure = Failure(self.error)
        self.reactor = StoppableClock()
        self.printed = StringIO()
        self.patch(sys, "stderr", self.printed)

    def apply(
        self, failure: Failure | None = None, call: Any = UNSET, **kw: Any
    ) -> Any:
        """
        Find what a call's Deferred fires with, by the C{returnFailure} of the call and
        what is said of the queue.
        """
        queue = {"warn": False, "verbose": False, "spew": False, "returnFailure": None}
        defaults = Defaults(**{**queue, **kw}, retries=0, retryDelay=0)
        self.policy = ErrorPolicy(defaults, self.reactor)
        return self.policy.apply(failure or self.failure, "the text", "f(1)", call)

    def errors(self, events: list[Any]) -> list[str]:
        """The texts that were logged as errors."""
        return [
            formatEvent(event) for event in events if event["log_level"].name == "error"
        ]

    def test_wrapOnce(self) -> None:
        """A WorkerError isn't wrapped again."""
        failure = Failure(WorkerError("own"))
        self.assertIs(self.apply(failure, returnFailure=True), failure)

    def test_warnAndWrap(self) -> None:
        """With C{warn} or C{spew}, errors are logged also where they're raised."""
        options: list[dict[str, Any]] = [{"warn": True}, {"spew": True}]
        for said in options:
            with logged() as events:
                failure = self.apply(returnFailure=True, **said)
            self.assertIsInstance(failure, Failure)
            self.assertEqual(len(self.errors(events)), 1)

    def test_stopOnce(self) -> None:
        """The reactor is stopped once."""
        self.apply(returnFailure=False)
        self.policy.apply(self.failure, "again", "f(2)", False)
        self.reactor.advance(1)
        self.assertEqual(self.reactor.stops, 1)
        self.assertIn("ERROR: again", self.printed.getvalue())

    def test_callOff(self) -> None:
        """
        The stop can be called off in time; it does nothing where none is coming. An
        error after that stops the reactor all the same.
        """
        self.apply(returnFailure=False)
        self.policy.callOff()
        self.policy.callOff()
        self.reactor.advance(1)
        self.assertEqual(self.reactor.stops, 0)
        self.apply(returnFailure=False)
        self.reactor.advance(1)
        self.assertEqual(self.reactor.stops, 1)
