"""Tests of the interfaces."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Invalid

from asynqueue.errors import InvariantError
from asynqueue.interfaces import IWorker, Status
from asynqueue.testing import MemoryWorker


class IWorkerTests(SynchronousTestCase):
    """Tests of L{IWorker}."""

    def test_valid(self) -> None:
        """A worker whose lists of qualifications are lists is a valid one."""
        IWorker.validateInvariants(MemoryWorker(["x"]))

    def test_notLists(self) -> None:
        """Either list that isn't one is an InvariantError that names and shows it."""
        for name in ("cQualified", "iQualified"):
            for value in (None, "x", ("x",), {"x"}):
                worker: Any = MemoryWorker()
                setattr(worker, name, value)
                with self.assertRaises(InvariantError) as raised:
                    IWorker.validateInvariants(worker)
                self.assertIn(f"{name} of <", str(raised.exception))
                self.assertIn(f"not {value!r}", str(raised.exception))
                self.assertIsInstance(raised.exception, Invalid)

    def test_missing(self) -> None:
        """As is one that doesn't exist."""
        worker: Any = MemoryWorker()
        del worker.iQualified
        with self.assertRaises(InvariantError):
            IWorker.validateInvariants(worker)

    def test_help(self) -> None:
        """The docstring names all that a worker must have."""
        for name in IWorker.names():
            self.assertIn(name, IWorker.__doc__)


class StatusTests(SynchronousTestCase):
    """Tests of L{Status}."""

    def test_bytes(self) -> None:
        """Each is equal to the plain byte."""
        self.assertEqual(b"".join(Status), b"rnicetd")
