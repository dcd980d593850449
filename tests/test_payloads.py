"""Tests of L{asynqueue._child.pickling}."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from multiprocessing import Pipe
from types import ModuleType
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.exceptions import cut
from asynqueue._child.mainmodule import preparation
from asynqueue._child.pickling import (
    NotPicklable,
    blame,
    describeError,
    dumps,
    dumpsPlain,
    loads,
    loadsMany,
)

from ._fakes import replaceModule


def dumpsCall(f: Any, args: Any, kw: Any, raw: bool) -> Any:
    """Pickle a call, or raise what says who is to blame."""
    try:
        return dumpsPlain((f, args, kw, raw))
    except NotPicklable as error:
        raise blame(f, args, kw, error) from error


class Hostile:
    """Raises what it's told to when it's pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        """Fail."""
        raise self.error

    def __repr__(self) -> str:
        """Fail, too."""
        raise self.error


class Ending(BaseException):
    """An exception that C{except Exception} doesn't catch."""


class CloudlessTests(SynchronousTestCase):
    """Tests of what's pickled where cloudpickle isn't installed."""

    def setUp(self) -> None:
        """Hide cloudpickle."""
        replaceModule(self, "cloudpickle", None)

    def test_thereAndBack(self) -> None:
        """What can be pickled comes back as it was."""
        values: list[Any] = [None, 0, "text", b"", [], {}, (), {1: [2, (3,)]}, len]
        for value in values:
            self.assertEqual(loads(dumpsPlain(value)), value)

    def test_lambda(self) -> None:
        """A lambda can't be pickled. The message says so, and what helps."""
        error = self.assertRaises(NotPicklable, dumpsPlain, lambda: None)
        self.assertIn("lambda", str(error))
        self.assertIn("asynqueue[cloudpickle]", str(error))
        self.assertIsNotNone(error.__cause__)

    def test_file(self) -> None:
        """Nothing helps against an open file, so nothing is recommended."""
        with open(os.devnull) as file:
            error = self.assertRaises(NotPicklable, dumpsPlain, file)
        self.assertIn("TextIOWrapper", str(error))
        self.assertNotIn("cloudpickle", str(error))

    def test_hostile(self) -> None:
        """Whatever is raised when an object is pickled, it's one and the same error."""
        for error in (ValueError("no"), SystemExit(1), Ending(), RecursionError()):
            self.assertRaises(NotPicklable, dumpsPlain, Hostile(error))

    def test_call(self) -> None:
        """A call is pickled with all that belongs to it."""
        pickled = dumpsCall(divmod, (7,), {"x": 2}, True)
        assert isinstance(pickled, bytes)
        self.assertEqual(loads(pickled), (divmod, (7,), {"x": 2}, True))

    def test_blame(self) -> None:
        """The part of a call that can't be pickled is named."""
        lock = threading.Lock()
        cases: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
            (lambda: 1, (), {}, "the callable"),
            (print, (1, lock), {}, "argument 1"),
            (print, (1,), {"file": lock}, "keyword file"),
        ]
        for f, args, kw, part in cases:
            error = self.assertRaises(NotPicklable, dumpsCall, f, args, kw, False)
            self.assertTrue(str(error).startswith(part), str(error))

    def test_blameHostile(self) -> None:
        """A part that can't be shown, either, is named all the same."""
        for error in (ValueError("no"), SystemExit(1), Ending()):
            told = self.assertRaises(
                NotPicklable, dumpsCall, print, (Hostile(error),), {}, False
            )
            self.assertIn("argument 0", str(told))

    def test_blameNobody(self) -> None:
        """
        If each part can be pickled when it's on its own, the error tells of the call.
        """

        class Once:
            """Can be pickled the second time."""

            count = 0

            def __reduce__(self) -> Any:
                Once.count += 1
                if Once.count == 1:
                    raise ValueError("not yet")
                return int, ()

        error = self.assertRaises(NotPicklable, dumpsCall, print, (Once(),), {}, False)
        self.assertIn("the call", str(error))
        self.assertIn("not yet", str(error))


class CloudTests(SynchronousTestCase):
    """
    Tests of what's pickled where cloudpickle is installed. A stand-in, of which
    nothing is expected but what's known of the real one, takes its place.
    """

    calls: ClassVar[list[Any]] = []

    def setUp(self) -> None:
        """Install the stand-in."""
        module: Any = ModuleType("cloudpickle")
        self.calls.clear()

        calls = self.calls

        class Pickler(pickle.Pickler):
            """What stands in for its pickler."""

            def dump(self, obj: Any) -> None:
                calls.append(obj)
                if isinstance(obj, Hostile):
                    raise obj.error
                super().dump("from the cloud")

        module.Pickler = Pickler
        replaceModule(self, "cloudpickle", module)

    def test_onlyIfNeeded(self) -> None:
        """What can be pickled without it is."""
        self.assertEqual(loads(dumpsPlain([1])), [1])
        self.assertEqual(self.calls, [])

    def test_lambda(self) -> None:
        """What can't be pickled without it is left to cloudpickle."""
        self.assertEqual(loads(dumpsPlain(lambda: None)), "from the cloud")

    def test_hostile(self) -> None:
        """If it fails there, too, the message says so."""
        for error in (ValueError("no"), SystemExit(1), Ending()):
            told = self.assertRaises(NotPicklable, dumpsPlain, Hostile(error))
            self.assertIn("not even by cloudpickle", str(told))


class DescriptorTests(SynchronousTestCase):
    """Tests of what stands for descriptors of this process."""

    def test_refused(self) -> None:
        """
        Ends of pipes are refused wherever they are in a call or a result, with and
        without cloudpickle, and named.
        """
        ends = Pipe()
        for end in ends:
            self.addCleanup(end.close)
        for value in (ends, {"x": [ends[1]]}, [lambda: 1, ends[0]]):
            for dump in (dumps, dumpsPlain):
                error = self.assertRaises(NotPicklable, dump, value)
                self.assertIn("open descriptor", str(error))
        error = self.assertRaises(NotPicklable, dumpsCall, len, (1, ends[0]), {}, False)
        self.assertTrue(str(error).startswith("argument 1"), str(error))

    def test_text(self) -> None:
        """What only looks like one isn't."""
        text = "multiprocessing.connection"
        self.assertEqual(loads(dumpsPlain([text])), [text])


class OtherTests(SynchronousTestCase):
    """Tests of the rest."""

    def test_many(self) -> None:
        """Pickles end to end are unpickled one after the other."""
        values = [1, None, "x", [2, 3], b""]
        data = memoryview(b"".join(dumpsPlain(value) for value in values))
        self.assertEqual(list(loadsMany(data)), values)
        self.assertEqual(list(loadsMany(memoryview(b""))), [])

    def test_manyOfWhichOneFails(self) -> None:
        """Those before one that can't be unpickled are to be had."""
        got: list[Any] = []
        with self.assertRaises(pickle.UnpicklingError):
            got.extend(loadsMany(memoryview(dumpsPlain(1) + b"garbage")))
        self.assertEqual(got, [1])

    def test_told(self) -> None:
        """An exception is told with its type, whether it can be shown or not."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise Ending

        self.assertEqual(describeError(ValueError("why")), "ValueError: why")
        self.assertIn("Mute", describeError(Mute()))
        self.assertLess(len(describeError(ValueError("x" * 1_000_000))), 10_000)

    def test_cut(self) -> None:
        """A long text keeps its beginning and its end, a short one all."""
        self.assertEqual(cut("abc", 3), "abc")
        text = cut("a" * 500 + "b" * 500, 100)
        self.assertTrue(text.startswith("a" * 50))
        self.assertTrue(text.endswith("b" * 50))
        self.assertIn("900 characters", text)

    def test_setup(self) -> None:
        """
        A child is told of the path and the arguments, but neither of secrets nor of
        the current folder: it's in that already.
        """
        data = loads(dumpsPlain(preparation()))
        self.assertEqual(data["sys_argv"], sys.argv)
        self.assertEqual(
            [path for path in data["sys_path"] if path in sys.path],
            [path for path in sys.path if path],
        )
        self.assertNotIn("authkey", data)
        self.assertNotIn("dir", data)
