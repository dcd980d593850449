"""
Tests of the policies for errors.
"""

from __future__ import annotations

import sys
from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.status import ErrorText
from asynqueue.base._policy import ErrorPolicy, TaskFailure, failureOf
from asynqueue.errors import RemoteTraceback, WorkerError

from ._cases import logged


class StoppableClock(Clock):
    """
    A clock that can be stopped as a reactor can.

    @ivar running: Whether it hasn't been.

    @ivar stops: How many times it has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self.stops = 0

    def stop(self) -> None:
        """
        Stop.
        """
        self.running = False
        self.stops += 1


class FailureOfTests(SynchronousTestCase):
    """
    Tests of L{failureOf}.
    """

    def test_ownFailure(self) -> None:
        """
        The failure of the task itself is taken where there is one.
        """
        failure = Failure(KeyError(1))
        self.assertIs(failureOf(ErrorText("text", failure.value, failure)), failure)

    def test_ownException(self) -> None:
        """
        Else the exception of the task is that of the failure.
        """
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
    """
    Tests of L{TaskFailure}.
    """

    def setUp(self) -> None:
        """
        Make a failure of an exception that was raised elsewhere.
        """
        error = ValueError("oops")
        error.__cause__ = RemoteTraceback("Traceback:\n  File far, line 1")
        self.failure = TaskFailure(error)

    def test_traceback(self) -> None:
        """
        The traceback has the one from where the task ran.
        """
        text = self.failure.getTraceback()
        self.assertIn("File far, line 1", text)
        self.assertIn("ValueError: oops", text)

    def test_brief(self) -> None:
        """
        The brief one hasn't.
        """
        file = StringIO()
        self.failure.printTraceback(file, detail="brief")
        self.assertNotIn("far", file.getvalue())
        self.assertIn("oops", file.getvalue())

    def test_noRemote(self) -> None:
        """
        Without a remote one it's as usual.
        """
        self.assertNotIn("here", TaskFailure(ValueError("oops")).getTraceback())


class ErrorPolicyTests(SynchronousTestCase):
    """
    Tests of L{ErrorPolicy}.
    """

    def setUp(self) -> None:
        """
        Make a failure, and catch what's printed.
        """
        self.error = KeyError("k")
        self.failure = Failure(self.error)
        self.reactor = StoppableClock()
        self.printed = StringIO()
        self.patch(sys, "stderr", self.printed)

    def settle(self, policy: ErrorPolicy, failure: Failure | None = None) -> Any:
        """
        Ask a policy.

        @param policy: The policy.

        @param failure: The failure, if not the usual one.

        @return: What the call's Deferred fires with.
        """
        return policy.settle(failure or self.failure, "the text", self.reactor)

    def test_raise(self) -> None:
        """
        Under I{raise} it's the task's own failure.
        """
        self.assertIs(self.settle(ErrorPolicy.RAISE), self.failure)

    def test_wrap(self) -> None:
        """
        Under I{wrap} it's a WorkerError with the text, the own exception its cause.
        """
        failure = self.settle(ErrorPolicy.WRAP)
        self.assertEqual(str(failure.value), "the text")
        self.assertIs(type(failure.value), WorkerError)
        self.assertIs(failure.value.__cause__, self.error)

    def test_wrapOnce(self) -> None:
        """
        A WorkerError isn't wrapped again.
        """
        failure = Failure(WorkerError("own"))
        self.assertIs(self.settle(ErrorPolicy.WRAP, failure), failure)

    def test_warn(self) -> None:
        """
        Under I{warn} it's the text, which is logged as an error.
        """
        with logged() as events:
            self.assertEqual(self.settle(ErrorPolicy.WARN), "the text")
        self.assertEqual(
            [(event["log_level"].name, event["text"]) for event in events],
            [("error", "the text")],
        )

    def test_stop(self) -> None:
        """
        Under I{stop} it's the text, which is printed, and a second later the reactor
        stops.
        """
        self.assertEqual(self.settle(ErrorPolicy.STOP), "the text")
        self.assertEqual(self.printed.getvalue(), "the text\n")
        self.reactor.advance(0.99)
        self.assertEqual(self.reactor.stops, 0)
        self.reactor.advance(0.01)
        self.assertEqual(self.reactor.stops, 1)

    def test_stopOnce(self) -> None:
        """
        A reactor that has been stopped isn't stopped again.
        """
        self.settle(ErrorPolicy.STOP)
        self.settle(ErrorPolicy.STOP)
        self.reactor.advance(1)
        self.assertEqual(self.reactor.stops, 1)
