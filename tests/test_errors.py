"""Tests of the exceptions."""

from __future__ import annotations

import builtins
import traceback

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Invalid

from asynqueue import errors


class ErrorsTests(SynchronousTestCase):
    """Tests of the exceptions."""

    def test_root(self) -> None:
        """All exceptions but InvariantError are caught by the one at the root."""
        for name in errors.__all__:
            with self.subTest(name=name):
                error = getattr(errors, name)
                self.assertTrue(issubclass(error, Exception))
                self.assertEqual(
                    issubclass(error, errors.AsynQueueError), name != "InvariantError"
                )

    def test_invariant(self) -> None:
        """InvariantError is what zope.interface raises for a failed invariant."""
        self.assertTrue(issubclass(errors.InvariantError, Invalid))

    def test_timeout(self) -> None:
        """TimeoutError is also the builtin one."""
        self.assertTrue(issubclass(errors.TimeoutError, builtins.TimeoutError))

    def test_families(self) -> None:
        """A special error is caught by who catches the general one."""
        for special, general in (
            (errors.NotReadyError, errors.ImplementationError),
            (errors.QueueStopped, errors.QueueRunError),
            (errors.QueueFull, errors.QueueRunError),
            (errors.WorkerLost, errors.ProcessError),
            (errors.WorkerStartError, errors.ProcessError),
            (errors.SerializationError, errors.WorkerError),
        ):
            self.assertTrue(issubclass(special, general), special)

    def test_workerLost(self) -> None:
        """WorkerLost knows who was lost, how, and with which task."""
        error = errors.WorkerLost(
            "gone", workerID=1, pid=2, exitCode=3, signal=4, task="task"
        )
        self.assertEqual(str(error), "gone")
        self.assertEqual(
            (error.workerID, error.pid, error.exitCode, error.signal, error.task),
            (1, 2, 3, 4, "task"),
        )
        self.assertIsNone(errors.WorkerLost("gone").pid)

    def test_remoteTraceback(self) -> None:
        """A remote traceback is shown by the usual tools, as the cause."""
        error = ValueError("oops")
        error.__cause__ = errors.RemoteTraceback("File far, line 1")
        text = "".join(traceback.format_exception(error))
        self.assertIn("\nFile far, line 1", text)
        self.assertEqual(str(errors.RemoteTraceback()), "")
