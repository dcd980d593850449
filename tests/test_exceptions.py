"""
Tests of how exceptions get from a child to its parent, by
L{asynqueue._child.exceptions} and L{asynqueue._support.answers}.
"""

from __future__ import annotations

import builtins
import copyreg
import pickle
import sys
import threading
import traceback
from types import ModuleType
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from asynqueue import errors
from asynqueue._child.exceptions import dumpsException
from asynqueue._child.pickling import NotPicklable, loads
from asynqueue._support.answers import loadsException as rebuild
from asynqueue.base._results import failureOf
from asynqueue.errors import (
    RemoteTraceback,
    SerializationError,
    WorkerError,
    WorkerLost,
)

#: C{ExceptionGroup}, or C{None} before Python 3.11.
Group: Any = getattr(builtins, "ExceptionGroup", None)


class Ending(BaseException):
    """An exception that C{except Exception} doesn't catch."""


class TwoArguments(Exception):
    """
    Gives its base fewer arguments than it takes, as is usual, and as pickle can't do
    with.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class Prefixed(Exception):
    """Changes its argument, so that making it twice gives another message."""

    def __init__(self, text: str) -> None:
        super().__init__(f"prefix {text}")


class Keyword(OSError):
    """Needs a keyword, and has state that isn't in its attributes."""

    def __init__(self, *, path: str) -> None:
        super().__init__(2, "No such thing", path)
        self.path = path


class Reducing(Exception):
    """Says itself how it's pickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)
        self.second = second

    def __reduce__(self) -> Any:
        """Name both arguments."""
        return Reducing, (*self.args, self.second)


class FailingReduce(Exception):
    """Can't be pickled."""

    def __reduce__(self) -> Any:
        """Fail."""
        raise Ending


class FailingRebuild(Exception):
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        """Have C{sys.exit} called when it's unpickled."""
        return sys.exit, (1,)


class NotAnException(Exception):
    """Is unpickled as something else."""

    def __reduce__(self) -> Any:
        """Be an C{int}."""
        return int, ()


class FailingText(Exception):
    """Can't be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise Ending

    __repr__ = __str__


class Stubborn(Exception):
    """Doesn't let its attributes be set, nor its cause be got."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse."""
        raise AttributeError(name)

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        """Refuse."""
        raise AttributeError("no cause")


class Unseen(ValueError):
    """Doesn't tell where it was raised."""

    __traceback__ = property()


class Slotted(Exception):
    """Has slots, one of which isn't filled."""

    __slots__ = ("__private", "empty", "extra")

    def fill(self, extra: int) -> Slotted:
        """Fill the others."""
        self.extra = extra
        self.__private = -extra
        return self

    def private(self) -> int:
        """Get what is in a slot with a private name."""
        return self.__private


class Special(Exception):
    """Is made in a way of its own."""

    def __new__(cls, *args: Any) -> Special:
        """Make it."""
        self = super().__new__(cls, *args)
        self.made = True
        return self

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)

    made: bool


def bringOver(error: BaseException, text: str = "text") -> Any:
    """
    Raise an exception, and bring it from one side to the other. Returns what has become
    of it: the text, with the attribute C{exception}.
    """
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001 - the very thing that is tested
        return rebuild(dumpsException(raised, text))


class BroughtOverTests(SynchronousTestCase):
    """Tests of exceptions that come over whole."""

    def test_plain(self) -> None:
        """Type, arguments, and attributes are kept."""
        error = KeyError("key", 3)
        error.extra = [1]  # type: ignore[attr-defined]
        got = bringOver(error).exception
        self.assertIs(type(got), KeyError)
        self.assertEqual(got.args, ("key", 3))
        self.assertEqual(got.extra, [1])

    def test_text(self) -> None:
        """The text about it comes along."""
        self.assertEqual(bringOver(ValueError(), "some text"), "some text")

    def test_traceback(self) -> None:
        """
        The cause is the traceback of where it was raised, which is also shown by the
        usual tools.
        """
        got = bringOver(ValueError("why"))
        self.assertIsInstance(got.exception.__cause__, RemoteTraceback)
        shown = "".join(traceback.format_exception(got.exception))
        for text in (
            str(got.exception.__cause__),
            failureOf(got).getTraceback(),
            shown,
        ):
            self.assertIn("test_exceptions.py", text)
            self.assertIn("in bringOver", text)
            self.assertIn("ValueError: why", text)

    def test_cause(self) -> None:
        """The causes come over, in order, behind the traceback."""
        error = ValueError(1)
        error.__cause__ = KeyError(2)
        error.__cause__.__context__ = TypeError(3)
        cause = bringOver(error).exception.__cause__.__cause__
        self.assertIs(type(cause), KeyError)
        self.assertIs(type(cause.__context__), TypeError)
        self.assertIsNone(cause.__cause__)

    def test_context(self) -> None:
        """What was being handled when it was raised comes over as just that."""
        error = ValueError(1)
        error.__context__ = KeyError(2)
        trace = bringOver(error).exception.__cause__
        self.assertIs(type(trace.__context__), KeyError)
        self.assertIsNone(trace.__cause__)

    def test_suppressedContext(self) -> None:
        """What C{raise ... from None} hides stays hidden."""
        error = ValueError(1)
        error.__context__ = KeyError(2)
        error.__suppress_context__ = True
        trace = bringOver(error).exception.__cause__
        self.assertIsNone(trace.__context__)
        self.assertIsNone(trace.__cause__)

    def test_notes(self) -> None:
        """Notes are kept, and are part of the traceback."""
        error = ValueError("why")
        error.__notes__ = ["a note"]  # type: ignore[attr-defined]
        got = bringOver(error).exception
        self.assertEqual(got.__notes__, ["a note"])
        if sys.version_info >= (3, 11):
            self.assertIn("a note", str(got.__cause__))

    def test_group(self) -> None:
        """A group of exceptions comes over with all of them."""
        group = Group("two", [ValueError(1), KeyError(2)])
        got = bringOver(group).exception
        self.assertIs(type(got), Group)
        self.assertEqual([type(one) for one in got.exceptions], [ValueError, KeyError])
        self.assertIn("ValueError: 1", str(got.__cause__))

    if Group is None:
        test_group.skip = "There are no groups."  # type: ignore[attr-defined]

    def test_ownInit(self) -> None:
        """
        A class with an C{__init__} of its own, which pickle would call with the wrong
        arguments, does no harm.
        """
        got = bringOver(TwoArguments(5, "bad")).exception
        self.assertIs(type(got), TwoArguments)
        self.assertEqual((got.code, got.reason, str(got)), (5, "bad", "bad (5)"))
        self.assertEqual(str(bringOver(Prefixed("text")).exception), "prefix text")

    def test_ownInitOfOSError(self) -> None:
        """
        What such an exception keeps elsewhere than in its attributes is kept as well.
        """
        got = bringOver(Keyword(path="/x")).exception
        self.assertIs(type(got), Keyword)
        self.assertEqual((got.errno, got.filename, got.path), (2, "/x", "/x"))

    def test_slots(self) -> None:
        """What is in slots is kept, too."""
        got = bringOver(Slotted("text").fill(5)).exception
        self.assertIs(type(got), Slotted)
        self.assertEqual((str(got), got.extra, got.private()), ("text", 5, -5))
        self.assertFalse(hasattr(got, "empty"))

    def test_ownReduce(self) -> None:
        """A class that says itself how it's pickled is relied on."""
        got = bringOver(Reducing(1, 2)).exception
        self.assertEqual((type(got), got.args, got.second), (Reducing, (1,), 2))

    def test_ownNew(self) -> None:
        """A class that's made in a way of its own is unpickled as pickle does it."""
        got = bringOver(Special(1)).exception
        self.assertEqual((type(got), got.args, got.made), (Special, (1,), True))

    def test_ours(self) -> None:
        """Exceptions of this package are no exception."""
        lost = bringOver(WorkerLost("gone", pid=3)).exception
        self.assertEqual((type(lost), str(lost), lost.pid), (WorkerLost, "gone", 3))
        late = bringOver(errors.TimeoutError("late")).exception
        self.assertEqual((type(late), str(late)), (errors.TimeoutError, "late"))

    def test_stubborn(self) -> None:
        """
        A class with ideas of its own about attributes is told of the traceback, too.
        """
        got = bringOver(Stubborn("x")).exception
        self.assertIs(type(got), Stubborn)
        cause = vars(BaseException)["__cause__"].__get__(got)
        self.assertIsInstance(cause, RemoteTraceback)


class HostileTests(SynchronousTestCase):
    """Tests of exceptions that can't be brought over, or shouldn't be."""

    def assertReplaced(self, got: Any, *texts: str) -> None:
        """
        Assert that a L{WorkerError} has come in place of an exception, with the whole
        text, and these texts in the traceback.
        """
        self.assertIs(type(got.exception), WorkerError)
        self.assertEqual(str(got.exception), "text")
        self.assertIsInstance(got.exception.__cause__, RemoteTraceback)
        for text in texts:
            self.assertIn(text, str(got.exception.__cause__))

    def test_failingReduce(self) -> None:
        """It may fail to be pickled, or to be unpickled, in whatever way."""
        self.assertReplaced(bringOver(FailingReduce()), "FailingReduce")
        self.assertReplaced(bringOver(FailingRebuild()), "FailingRebuild")

    def test_notAnException(self) -> None:
        """It may be unpickled as something that can't be raised."""
        self.assertReplaced(bringOver(NotAnException()), "NotAnException")

    def test_unpicklable(self) -> None:
        """It may have to do with something that can't be pickled."""
        self.assertReplaced(bringOver(ValueError(threading.Lock())), "ValueError")
        error = TwoArguments(1, "x")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        self.assertReplaced(bringOver(error), "TwoArguments: x (1)")

    def test_missingClass(self) -> None:
        """Its class may be one that's unknown here."""
        module: Any = ModuleType("onlyInTheChild")
        sys.modules["onlyInTheChild"] = module
        try:
            module.Foreign = type(
                "Foreign", (Exception,), {"__module__": module.__name__}
            )
            pickled = dumpsException(module.Foreign("far"), "text")
        finally:
            del sys.modules["onlyInTheChild"]
        self.assertReplaced(rebuild(pickled), "onlyInTheChild.Foreign: far")

    def test_base(self) -> None:
        """
        What would end the program, or is no C{Exception} otherwise, isn't raised here.
        """
        for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Ending()):
            self.assertReplaced(bringOver(error), type(error).__name__)

    def test_ends(self) -> None:
        """
        What would end an iteration that has nothing to do with it isn't raised here.
        """
        for error in (StopIteration(3), StopAsyncIteration()):
            self.assertReplaced(bringOver(error), type(error).__name__)

    def test_hugeText(self) -> None:
        """Of a huge message, only some is brought over."""
        error = FailingReduce("x" * 10_000_000)
        pickled = dumpsException(error, str(error))
        self.assertLess(len(pickled), 1_000_000)
        self.assertLess(len(rebuild(pickled)), 100_000)

    def test_huge(self) -> None:
        """Nor is a huge exception, but its traceback."""
        pickled = dumpsException(ValueError(bytes(10_000_000)), "text")
        self.assertLess(len(pickled), 1_000_000)
        self.assertReplaced(rebuild(pickled), "ValueError")

    def test_failingText(self) -> None:
        """It needn't be able to be shown."""
        got = bringOver(FailingText())
        self.assertIs(type(got.exception), FailingText)
        self.assertIn("FailingText", str(got.exception.__cause__))

    def test_causedByItself(self) -> None:
        """Causes may go round in circles."""
        error = ValueError(1)
        error.__cause__ = KeyError(2)
        error.__cause__.__cause__ = error
        got = bringOver(error).exception
        self.assertIs(type(got), ValueError)
        self.assertIs(type(got.__cause__.__cause__), KeyError)
        self.assertIsNone(got.__cause__.__cause__.__cause__)

    def test_takenAlong(self) -> None:
        """
        An exception is pickled without its causes though somebody has pickle take them
        along, as Dask does.
        """

        def reduce(error: ValueError) -> Any:
            return ValueError, (*error.args, error.__cause__)

        reduce.__module__ = "tblib.pickling_support"
        error = ValueError(1)
        error.__cause__ = KeyError(2)
        with mock.patch.dict(copyreg.dispatch_table, {ValueError: reduce}):
            got = bringOver(error).exception
        self.assertEqual(got.args, (1,))
        self.assertIs(type(got.__cause__.__cause__), KeyError)

    def test_longChain(self) -> None:
        """Of a very long chain of causes, only the nearest are brought over."""
        first = error = ValueError(0)
        for i in range(1, 1_000):
            error.__cause__ = ValueError(i)
            error = error.__cause__
        pickled = dumpsException(first, "text")
        self.assertLess(len(pickled), 200_000)
        cause = rebuild(pickled).exception.__cause__.__cause__  # type: ignore[union-attr]
        self.assertEqual(cause.args, (1,))  # type: ignore[union-attr]

    def test_brokenCause(self) -> None:
        """If one of the causes can't be brought over, those nearer can."""
        error = ValueError(1)
        error.__cause__ = KeyError(2)
        error.__cause__.__cause__ = FailingReduce()
        error.__cause__.__cause__.__cause__ = TypeError(3)
        cause = bringOver(error).exception.__cause__.__cause__
        self.assertIs(type(cause), KeyError)
        self.assertIsNone(cause.__cause__)

    def test_brokenTraceback(self) -> None:
        """If the traceback can't be shown, the exception comes over all the same."""
        got = bringOver(Unseen("x")).exception
        self.assertIs(type(got), Unseen)
        self.assertIn("Unseen: x", str(got.__cause__))
        self.assertIn("can't be shown", str(got.__cause__))

    def test_notPicklable(self) -> None:
        """
        What says that a result couldn't be pickled is a L{SerializationError} here.
        """
        got = bringOver(NotPicklable("what"), "The result can't be pickled: what")
        self.assertIs(type(got.exception), SerializationError)
        self.assertEqual(str(got.exception), "The result can't be pickled: what")

    def test_plainPickle(self) -> None:
        """
        Unpickling what is sent runs none of the exception's code: that's left to where
        its failure can be dealt with.
        """
        _, text, lines, chain = loads(dumpsException(FailingRebuild(), "text"))
        self.assertEqual(text, "text")
        self.assertIsInstance(lines, str)
        [(relation, blob)] = chain
        self.assertEqual(relation, "")
        self.assertRaises(SystemExit, pickle.loads, blob)
