"""Tests of L{asynqueue.info}, and of the texts in L{asynqueue._child.describe}."""

from __future__ import annotations

import io
import json
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from asynqueue._child.describe import callText, describe, isDeferred, nameOf
from asynqueue.errors import RemoteTraceback
from asynqueue.info import (
    Converter,
    Info,
    InfoHolder,
    hashIt,
    showResult,
    whichThread,
)


def function(*args: Any, **kw: Any) -> tuple[Any, ...]:
    """Do nothing."""
    return args


def throw(error: BaseException) -> None:
    """Raise an exception."""
    raise error


class Thing:
    """Something with a method."""

    def method(self) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return "<a thing>"


class Pair(NamedTuple):
    """A tuple with names."""

    a: int
    b: int


class Unpicklable:
    """An object that can't be pickled, but says by which name it can be imported."""

    def __init__(self, name: str) -> None:
        self.__qualname__ = name

    def __reduce__(self) -> Any:
        raise ValueError


NAMED = Unpicklable("NAMED")


class Array:
    """Compares as arrays do: to something without truth. It has no hash, either."""

    def __init__(self, *items: int) -> None:
        self.items = items

    def __eq__(self, other: object) -> Any:
        return Array()

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous")

    def __repr__(self) -> str:
        return f"array({list(self.items)},\n      int)"

    __hash__ = None  # type: ignore[assignment]


class Hostile:
    """
    An object that fails at whatever it's asked, and not just with an C{Exception}.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        raise SystemExit

    def __hash__(self) -> int:
        raise KeyboardInterrupt

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __getattr__(self, name: str) -> Any:
        raise KeyboardInterrupt


def inThread(f: Callable[[], Any], name: str = "another") -> None:
    """Run a function in a thread, and wait for it."""
    thread = threading.Thread(target=f, name=name)
    thread.start()
    thread.join()


class DescribeTests(SynchronousTestCase):
    """Tests of L{describe}."""

    def test_plain(self) -> None:
        """Objects are described as C{repr} does it."""
        for value in (
            None,
            1,
            1.5,
            "it's",
            b"x",
            [],
            [1, "a"],
            (),
            (1,),
            (1, 2),
            {},
            {1: 1, "a": [2]},
            set(),
            {1},
            frozenset(),
            frozenset([1]),
            Pair(1, 2),
            OrderedDict(a=1),
            deque([1]),
            Thing(),
            True,
        ):
            with self.subTest(value=value):
                self.assertEqual(describe(value), repr(value))

    def test_oneLine(self) -> None:
        """What is described on several lines is put on one."""
        self.assertEqual(describe(Array(1, 2)), "array([1, 2], int)")

    def test_bounded(self) -> None:
        """Whatever is large is cut."""

        class Talkative:
            def __repr__(self) -> str:
                return "x" * 10**6

        for value in (
            "x" * 10**6,
            b"x" * 10**6,
            "\0" * 199,
            list(range(10**6)),
            dict.fromkeys(range(10**6)),
            set(range(10**6)),
            [[list(range(1000))] * 1000] * 1000,
            OrderedDict.fromkeys(range(10**5)),
            deque(range(10**5)),
            10**10_000,
            Talkative(),
            Exception("x" * 10**6),
        ):
            with self.subTest(kind=type(value)):
                self.assertLessEqual(len(describe(value)), 200)

    def test_largeUnread(self) -> None:
        """Of a container that is large, only the first items are described."""
        asked = []

        class Item:
            """It notes when it describes itself."""

            def __repr__(self) -> str:
                asked.append(self)
                return "an item"

        describe([Item() for _ in range(10_000)])
        self.assertLess(len(asked), 100)

    def test_circular(self) -> None:
        """Containers that are in themselves are described."""
        value: list[Any] = [1]
        value.append(value)
        self.assertTrue(describe(value).startswith("[1, [1, "))

    def test_deep(self) -> None:
        """So are containers nested deeper than Python can follow."""
        value: list[Any] = []
        for _ in range(10**5):
            value = [value]
        self.assertEqual(describe(value), "[[[[[...]]]]]")

    def test_hostile(self) -> None:
        """
        Objects that don't describe themselves are named by their type, also in
        containers.
        """
        self.assertIn("Hostile object at", describe(Hostile()))
        self.assertTrue(
            describe([1, Hostile()]).startswith("[1, <tests.test_info.Host")
        )

    def test_surrogates(self) -> None:
        """The text can be encoded whatever is in it."""

        class Odd:
            """It describes itself by what can't be encoded."""

            def __repr__(self) -> str:
                return "\udc80\u00e9"

        self.assertEqual(describe(Odd()), "\\udc80\u00e9")


class CallTextTests(SynchronousTestCase):
    """Tests of L{callText} and L{nameOf}."""

    def test_names(self) -> None:
        """
        Callables are named by what they're called, with their class but without their
        module.
        """

        def local() -> None:
            pass

        for f, name in (
            (function, "function"),
            (local, "local"),
            (len, "len"),
            (Thing, "Thing"),
            (Thing().method, "Thing.method"),
            (lambda: None, "<lambda>"),
            ("remote", "remote"),
            (Thing(), "<a thing>"),
            (5, "5"),
        ):
            with self.subTest(name=name):
                self.assertEqual(nameOf(f), name)

    def test_hostileName(self) -> None:
        """What can't be asked for its name is named by its type."""
        self.assertIn("Hostile object at", nameOf(Hostile()))

    def test_arguments(self) -> None:
        """A call is written as in a program."""
        self.assertEqual(
            callText(function, (1, "a"), {"x": [2]}), "function(1, 'a', x=[2])"
        )
        self.assertEqual(callText(function), "function()")
        self.assertEqual(callText(function, None, None), "function()")

    def test_oddArguments(self) -> None:
        """What aren't arguments and keywords are taken for arguments."""
        self.assertEqual(callText(function, 1, 2), "function(1, 2)")
        self.assertEqual(callText(function, (), {1: 2}), "function(1=2)")

    def test_hostileArguments(self) -> None:
        """Any objects may be arguments."""

        class Tuple(tuple[int, ...]):
            """It doesn't tell its length."""

            def __len__(self) -> int:
                raise ValueError

        self.assertIn("Hostile object", callText(function, Hostile(), Hostile()))
        self.assertEqual(callText(function, Tuple()), "function(...)")

    def test_many(self) -> None:
        """Calls with very many arguments are cut, too."""
        text = callText(function, range(10**5), {str(i): i for i in range(10**5)})
        self.assertTrue(text.endswith(", ...)"))
        self.assertLess(len(text), 2_000)
        text = callText(function, ("x" * 1000,) * 1000)
        self.assertLess(len(text), 5_000)


class IsDeferredTests(SynchronousTestCase):
    """Tests of L{isDeferred}."""

    def test_isDeferred(self) -> None:
        """Deferreds are recognized, and nothing else."""
        self.assertIs(isDeferred(Deferred()), True)
        self.assertIs(isDeferred(Deferred), False)

    def test_noTwisted(self) -> None:
        """As long as Twisted hasn't been imported, or not quite, nothing is one."""
        for module in ({}, {"twisted.internet.defer": threading}):
            self.patch(sys, "modules", module)
            self.assertIs(isDeferred(1), False)


class InfoTests(SynchronousTestCase):
    """Tests of L{Info}."""

    def setUp(self) -> None:
        """Make an instance."""
        self.info = Info()

    def test_aboutCall(self) -> None:
        """A call that was made known is told about."""
        self.assertIs(self.info.setCall(function, (1,), {"x": 2}), self.info)
        self.assertEqual(self.info.aboutCall(), "function(1, x=2)")

    def test_ownIDs(self) -> None:
        """
        Each call has an ID of its own, also the same call made known again, so that
        calls can be told apart.
        """
        first = self.info.setCall(function, (1,), {}).ID
        again = self.info.setCall(function, (1,), {}).ID
        other = self.info.setCall(function, (2,), {}).ID
        self.assertEqual(len({first, again, other}), 3)
        self.assertEqual(self.info.aboutCall(first), "function(1)")
        self.assertEqual(self.info.aboutCall(other), "function(2)")

    def test_asItWas(self) -> None:
        """Arguments are told as they were when the call was made known."""
        value = [1]
        self.info.setCall(function, (value,))
        value.append(2)
        self.assertEqual(self.info.aboutCall(), "function([1])")

    def test_arrays(self) -> None:
        """Calls are never compared, so arrays may be arguments, one after the other."""
        for args in (Array(1), Array(2), (Array(1),), (Array(2),)):
            self.info.setCall(function, args)
        self.assertEqual(self.info.aboutCall(), "function(array([2], int))")

    def test_mixedKeys(self) -> None:
        """Nor are the keys of dicts sorted."""
        text = self.info.setCall(function, ({1: 1, "a": 2},)).aboutCall()
        self.assertEqual(text, "function({1: 1, 'a': 2})")

    def test_hostile(self) -> None:
        """Nothing that objects do keeps them from being told about."""
        info = Info(remember=True)
        info.setCall(Hostile(), (Hostile(),), {"x": Hostile()}, Hostile())
        self.assertIn("Hostile object", info.aboutException(None, ValueError("boom")))
        self.assertIs(info.getInfo(info.ID, "nothing"), None)

    def test_unknown(self) -> None:
        """Calls that aren't known are told about as such."""
        for ID in (None, 77):
            with self.subTest(ID=ID):
                self.assertEqual(self.info.aboutCall(ID), "")
                self.assertIsNone(self.info.getInfo(ID, "callDict"))
                self.assertEqual(self.info.nn(ID), (None, None))
                self.info.forgetID(ID)
        self.assertIsNone(self.info.ID)

    def test_callDict(self) -> None:
        """The call itself can be had."""
        args, kw = (1,), {"x": 2}
        ID = self.info.setCall(function, args, kw).ID
        self.assertEqual(
            self.info.getInfo(ID, "callDict"),
            {
                "f": function,
                "fs": "function",
                "args": args,
                "kw": kw,
                "instance": None,
            },
        )
        self.assertEqual(self.info.setCall("add").getInfo(None, "callDict")["kw"], {})
        for given, told in ((7, [7]), (None, [None]), ([7], [7])):
            callDict = self.info.setCall("add", given).getInfo(None, "callDict")
            self.assertEqual(callDict["args"], told)

    def test_amend(self) -> None:
        """Without a callable, more is said of the current call."""
        ID = self.info.setCall(function).ID
        self.assertIs(self.info.setCall(args=[7, 8]), self.info)
        self.assertEqual(self.info.aboutCall(), "function(7, 8)")
        self.info.setCall(kw={"x": 1}).setCall(instance=Thing())
        self.assertEqual(self.info.aboutCall(), "<a thing>.function(7, 8, x=1)")
        self.assertEqual(self.info.ID, ID)

    def test_amendNothing(self) -> None:
        """Where there's no call, there's nothing to say more of."""
        with self.assertRaisesRegex(ValueError, "give f"):
            self.info.setCall(args=[1])
        self.info.setCall(function).forgetID()
        self.assertRaises(ValueError, self.info.setCall, args=[1])

    def test_instance(self) -> None:
        """What it's a method of is told before the name."""
        self.info.setCall(Thing.method, (1,), instance=[1])
        self.assertEqual(self.info.aboutCall(), "[1].method(1)")

    def test_notCallable(self) -> None:
        """What isn't callable is told as such."""
        self.assertEqual(self.info.setCall(None).aboutCall(), "None[Not Callable!]()")
        self.info.setCall(5, 1, {"x": 2})
        self.assertEqual(self.info.aboutCall(), "5[Not Callable!](1, x=2)")

    def test_whichThread(self) -> None:
        """If wanted, the thread is named."""
        info = Info(whichThread=True)
        inThread(lambda: info.setCall(function), name="worker 7")
        self.assertEqual(info.aboutCall(), "function() in thread 'worker 7'")
        info.setCall(args=[1])
        self.assertEqual(info.aboutCall(), "function(1) in thread 'worker 7'")
        self.assertEqual(info.getInfo(None, "callDict")["thread"], "worker 7")


class InfoErrorTests(SynchronousTestCase):
    """Tests of what L{Info} tells about errors."""

    def setUp(self) -> None:
        """Make a call known."""
        self.info = Info().setCall(function, (1,))

    def raised(self, error: BaseException) -> BaseException:
        """Raise an exception."""
        try:
            raise error
        except BaseException as caught:  # noqa: BLE001 - any may be given
            return caught

    def test_exception(self) -> None:
        """An exception is told with its message, the call, and the traceback."""
        error = self.raised(ValueError("see http://x:80"))
        lines = self.info.aboutException(self.info.ID, error).splitlines()
        self.assertEqual(
            lines[0], "Exception 'see http://x:80' (ValueError) in function(1)"
        )
        self.assertEqual(lines[1], "Traceback (most recent call last):")
        self.assertIn("in raised", lines[2])
        self.assertEqual(lines[-1], "ValueError: see http://x:80")

    def test_handled(self) -> None:
        """By default it's the exception being handled."""
        try:
            raise ValueError("boom")
        except ValueError:
            text = self.info.aboutException()
        self.assertTrue(text.startswith("Exception 'boom' (ValueError) in function(1)"))

    def test_noneHandled(self) -> None:
        """If there's none, that is told. If there's no call, only that isn't."""
        text = Info().aboutException(None, ValueError("boom"))
        self.assertTrue(text.startswith("Exception 'boom' (ValueError)\n"))
        self.assertEqual(
            self.info.aboutException(),
            "Exception '' (none is being handled) in function(1)",
        )

    def test_causes(self) -> None:
        """The traceback has what the exception has come from."""
        error = ValueError("boom")
        error.__cause__ = RemoteTraceback("a remote traceback")
        self.assertIn("a remote traceback", self.info.aboutException(None, error))
        self.assertIn("a remote traceback", self.info.aboutFailure(Failure(error)))

    def test_bounded(self) -> None:
        """However much an exception has to say, the text is bounded."""
        error = self.raised(ValueError("x" * 10**6))
        text = self.info.aboutException(None, error)
        self.assertTrue(text.startswith("Exception 'xxx"))
        self.assertIn("Traceback", text)
        self.assertLess(len(text), 100_000)

    def test_hostile(self) -> None:
        """Exceptions that fail when they're shown are told all the same."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise SystemExit

        circular = self.raised(ValueError("boom"))
        circular.__cause__ = KeyError()
        circular.__cause__.__cause__ = circular
        text = self.info.aboutException(None, self.raised(Mute()))
        self.assertTrue(text.startswith("Exception '<the message can't be had"))
        self.assertIn("(Mute) in function(1)\nTraceback", text)
        self.assertIn("'boom'", self.info.aboutException(None, circular))

    def test_unshowable(self) -> None:
        """If a traceback can't be had, that is told."""

        class Odd(Exception):
            """It can't be asked for its notes."""

            @property
            def __notes__(self) -> Any:
                raise SystemExit

        class OddFailure(Failure):
            def getTraceback(self, *args: Any, **kw: Any) -> str:
                raise ValueError

        text = self.info.aboutException(None, Odd("boom"))
        self.assertTrue(text.startswith("Exception 'boom' (Odd) in function(1)\n"))
        text = self.info.aboutFailure(OddFailure(ValueError("boom")))
        self.assertIn("\n<the traceback can't be had: ValueError>", text)

    def test_failure(self) -> None:
        """A failure is told like its exception."""
        failure = Failure(self.raised(ValueError("boom")))
        self.assertEqual(
            self.info.aboutFailure(failure, self.info.ID),
            self.info.aboutException(None, failure.value),
        )

    def test_cleanFailure(self) -> None:
        """A failure whose exception has lost its traceback is told with its own."""
        try:
            raise ValueError("boom")
        except ValueError:
            failure = Failure()
        failure.cleanFailure()
        assert failure.value is not None
        failure.value.__traceback__ = None
        text = self.info.aboutFailure(failure)
        self.assertTrue(
            text.startswith("Exception 'boom' (ValueError) in function(1)\n")
        )
        self.assertIn("test_cleanFailure", text)

    def test_exceptionForFailure(self) -> None:
        """An exception will do for a failure."""
        text = self.info.aboutFailure(ValueError("boom"))
        self.assertTrue(
            text.startswith("Exception 'boom' (ValueError) in function(1)\n")
        )


class InfoMemoryTests(SynchronousTestCase):
    """Tests of what L{Info} holds, and for how long."""

    def test_nothingStays(self) -> None:
        """Unless they're to be remembered, calls don't stay."""
        info = Info()
        for i in range(1_000):
            info.setCall(function, (i,)).aboutCall()
        self.assertEqual(info.pastInfo, {})
        self.assertEqual(info.aboutCall(1), "")

    def test_recent(self) -> None:
        """The latest hundred can be told about all the same."""
        info = Info()
        IDs = [info.setCall(function, (i,)).ID for i in range(100)]
        self.assertEqual(
            [info.aboutCall(ID) for ID in IDs], [f"function({i})" for i in range(100)]
        )

    def test_argumentsLetGo(self) -> None:
        """
        The arguments of a call are let go with the thread's next call, or when it's
        forgotten.
        """
        info = Info()
        for letGo in (
            lambda: info.setCall(function),
            lambda: info.forgetID(info.ID),
            lambda: info.aboutCall(nowForget=True),
            lambda: info.aboutException(None, ValueError(), nowForget=True),
            lambda: info.aboutFailure(ValueError(), nowForget=True),
            lambda: info.getInfo(info.ID, "nothing", nowForget=True),
        ):
            thing = Thing()
            reference = weakref.ref(thing)
            info.setCall(function, (thing,))
            del thing
            self.assertIsNotNone(reference())
            letGo()
            self.assertIsNone(reference())

    def test_remember(self) -> None:
        """What is to be remembered stays until it's forgotten."""
        info = Info(remember=True)
        IDs = [info.setCall(function, (i,)).ID for i in range(200)]
        self.assertEqual(info.aboutCall(IDs[0]), "function(0)")
        self.assertEqual(info.getInfo(IDs[0], "callDict")["args"], (0,))
        self.assertEqual(len(info.pastInfo), 200)
        for ID in IDs:
            info.forgetID(ID)
        self.assertEqual(info.pastInfo, {})

    def test_save(self) -> None:
        """A call for which something is saved stays until it's forgotten, with that."""
        info = Info()
        ID = info.setCall(function, (1,)).ID
        self.assertEqual(info.saveInfo("state", "begun"), "begun")
        for _ in range(200):
            info.setCall(function)
        info.saveInfo("more", 7, ID)
        self.assertEqual(info.getInfo(ID, "state"), "begun")
        self.assertEqual(info.getInfo(ID, "more"), 7)
        self.assertEqual(info.getInfo(ID, "callDict")["args"], (1,))
        self.assertEqual(info.aboutCall(ID), "function(1)")
        info.forgetID(ID)
        self.assertIsNone(info.getInfo(ID, "state"))

    def test_saveForUnknown(self) -> None:
        """Something may be saved for a call that isn't known any longer."""
        info = Info()
        info.saveInfo("state", "done", 77)
        self.assertEqual(info.getInfo(77, "state"), "done")
        self.assertIsNone(info.getInfo(77, "callDict"))

    def test_saveForNothing(self) -> None:
        """Where there was no call at all, there's nothing to save something for."""
        with self.assertRaisesRegex(ValueError, "'state'.*setCall"):
            Info().saveInfo("state", 1)

    def test_finalizer(self) -> None:
        """The finalizer of an argument may use the instance that lets it go."""
        info = Info()
        told: list[str] = []

        class Last:
            """It uses the instance when it goes."""

            def __del__(self) -> None:
                told.append(info.setCall(function, (7,)).aboutCall())

        info.setCall(function, (Last(),))
        info.setCall(function)
        self.assertEqual(told, ["function(7)"])


class InfoContextTests(SynchronousTestCase):
    """Tests of L{Info.context}."""

    def test_tells(self) -> None:
        """The call is told about, and exceptions and failures of it are."""
        error = ValueError("boom")
        with Info(remember=True).context(function, (1,), {"x": 2}) as x:
            self.assertEqual(x.aboutCall(), "function(1, x=2)")
            self.assertEqual(x.getInfo("callDict")["kw"], {"x": 2})
            for text in (x.aboutException(error), x.aboutFailure(Failure(error))):
                self.assertTrue(
                    text.startswith(
                        "Exception 'boom' (ValueError) in function(1, x=2)\n"
                    )
                )

    def test_handled(self) -> None:
        """By default it's about the exception being handled."""
        with Info().context(function) as x:
            try:
                raise ValueError("boom")
            except ValueError:
                self.assertIn("'boom'", x.aboutException())

    def test_forgets(self) -> None:
        """Afterwards the call is forgotten, also if the block raises, which it may."""
        info = Info()
        with self.assertRaises(ZeroDivisionError), info.context(function):
            throw(ZeroDivisionError())
        self.assertEqual(info.pastInfo, {})
        self.assertEqual(info.aboutCall(), "")

    def test_forgetsAll(self) -> None:
        """
        So it is with what was saved for it, and also if calls are to be remembered.
        """
        info = Info(remember=True)
        for i in range(5):
            with info.context(function, i) as x:
                info.saveInfo("state", 7)
                self.assertEqual(x.getInfo("state"), 7)
        self.assertEqual(info.pastInfo, {})

    def test_holder(self) -> None:
        """What it gives is an L{InfoHolder}."""
        info = Info()
        with info.context(Thing.method, 1, {"x": 2}, instance=[]) as x:
            self.assertIsInstance(x, InfoHolder)
            self.assertEqual((x.info, x.ID), (info, info.ID))
            self.assertEqual(x.aboutCall(), "[].method(1, x=2)")
            self.assertEqual(x.nn(raw=True), (None, Thing.method))

    def test_forgottenWithin(self) -> None:
        """A call may be forgotten within the block."""
        info = Info()
        with info.context(function) as x:
            info.forgetID(x.ID)
        self.assertEqual(x.aboutCall(), "")

    def test_nested(self) -> None:
        """The call is held while others are made known."""
        info = Info()
        with info.context(function, (1,)) as x:
            for _ in range(200):
                info.setCall(function)
            self.assertEqual(x.aboutCall(), "function(1)")
            self.assertEqual(x.getInfo("callDict")["args"], (1,))


class InfoThreadTests(TestCase):
    """Tests of L{Info} in several threads."""

    timeout = 30

    def test_current(self) -> None:
        """Each thread has a current call of its own. For one without, it's the last."""
        info = Info()
        told: list[str] = []
        info.setCall(function, ("here",))
        inThread(lambda: told.append(info.aboutCall()))
        inThread(lambda: told.append(info.setCall(function, ("there",)).aboutCall()))
        told.append(info.aboutCall())
        self.assertEqual(
            told, ["function('here')", "function('there')", "function('here')"]
        )

    def test_concurrent(self) -> None:
        """Threads get IDs of their own, and are told about their own calls."""
        info = Info()
        start = threading.Barrier(4)
        IDs: list[Any] = []
        wrong: list[str] = []

        def use(n: int) -> None:
            start.wait()
            for i in range(300):
                ID = info.setCall(function, (n, i)).ID
                IDs.append(ID)
                text = info.aboutCall()
                if text != f"function({n}, {i})":
                    wrong.append(text)
                info.saveInfo("i", i, ID)
                if info.getInfo(ID, "i", nowForget=True) != i:
                    wrong.append(f"{i} was lost")

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(len(set(IDs)), 1_200)
        self.assertEqual(info.pastInfo, {})


class NameTests(SynchronousTestCase):
    """Tests of L{Info.nn}."""

    def test_function(self) -> None:
        """A function has no namespace. By itself, or in a form that can be sent."""
        info = Info().setCall(function)
        self.assertEqual(info.nn(info.ID, raw=True), (None, function))
        self.assertEqual(info.nn(), (None, Converter.objToPickle(function)))
        self.assertEqual(Info().setCall(len).nn(raw=True), (None, len))

    def test_method(self) -> None:
        """The namespace of a method is what it's bound to."""
        thing = Thing()
        info = Info().setCall(thing.method)
        self.assertEqual(info.nn(raw=True), (thing, "method"))
        self.assertEqual(info.nn(), (Converter.objToPickle(thing), "method"))

    def test_string(self) -> None:
        """A string is a name already."""
        self.assertEqual(Info().setCall("add").nn(), (None, "add"))

    def test_nothing(self) -> None:
        """There may be no form that can be sent."""

        class Local:
            """A class that can't be imported."""

            def method(self) -> None:
                """Do nothing."""

        for f in (lambda: None, Local().method, Hostile()):
            self.assertEqual(Info().setCall(f).nn(), (None, None))


class HashTests(SynchronousTestCase):
    """Tests of L{hashIt}."""

    def test_equal(self) -> None:
        """Equal objects have the same hash, though they're others."""
        for make in (
            lambda: 1,
            lambda: "ab",
            lambda: [1, [2, {"a": (3,)}]],
            lambda: {1: 1, "a": 2},
            lambda: {1, "a", (2,)},
            lambda: Pair(1, 2),
            lambda: bytearray(b"abc"),
            lambda: Array(1, 2),
        ):
            with self.subTest(value=make()):
                self.assertIsInstance(hashIt(make()), int)
                self.assertEqual(hashIt(make()), hashIt(make()))
        self.assertEqual(hashIt({1: 2, 3: 4}), hashIt({3: 4, 1: 2}))

    def test_others(self) -> None:
        """Others have another: order, nesting, keys and types all count."""
        values: list[tuple[Any, ...]] = [
            (),
            (1,),
            (1.0,),
            (True,),
            (-1,),
            (-2,),
            (-1.0,),
            (-2.0,),
            ([1],),
            (1, 2),
            (2, 1),
            ([1, 2],),
            ([2, 1],),
            ((1, 2),),
            ([[1], 2],),
            ([1, [2]],),
            ({1: 2},),
            ({2: 1},),
            ({1: 1, 2: 2},),
            ({1: 2, 2: 1},),
            ({1, 2},),
            (frozenset([1, 2]),),
            ("12",),
            (b"12",),
            (bytearray(b"12"),),
            (bytearray(b"21"),),
            (Array(1),),
            (Array(2),),
            (None,),
            (function,),
            (Pair(1, 2),),
        ]
        self.assertEqual(len({hashIt(*args) for args in values}), len(values))

    def test_mixedKeys(self) -> None:
        """Keys need not be comparable."""
        self.assertEqual(hashIt({1: 1, "a": 2}), hashIt({"a": 2, 1: 1}))

    def test_odd(self) -> None:
        """Whatever the objects are like, they get a hash."""
        circular: list[Any] = [1]
        circular.append(circular)
        for value in (Hostile(), [Hostile()], {"a": Hostile()}, circular):
            self.assertIsInstance(hashIt(value), int)
            self.assertEqual(hashIt(value), hashIt(value))

    def test_deep(self) -> None:
        """
        Containers nested deeper than Python can follow get one too, the same for equal
        ones.
        """

        def deep() -> list[Any]:
            value: list[Any] = []
            for _ in range(10**5):
                value = [value]
            return value

        self.assertEqual(hashIt(deep()), hashIt(deep()))
        self.assertNotEqual(hashIt(deep()), hashIt([deep(), 1]))


class ShowTests(SynchronousTestCase):
    """Tests of L{showResult} and L{whichThread}."""

    def setUp(self) -> None:
        """Catch what is printed."""
        self.stdout = io.StringIO()
        self.patch(sys, "stdout", self.stdout)

    def shown(self) -> list[str]:
        """Get what has been printed."""
        return self.stdout.getvalue().splitlines()

    def test_several(self) -> None:
        """Each decorated function is shown by its own name."""

        @showResult
        def first(x: int) -> int:
            return x + 1

        @showResult
        def second(x: int, y: int = 0) -> str:
            return f"{x}{y}"

        self.assertEqual((first(1), second(2, y=3)), (2, "23"))
        self.assertEqual(self.shown(), ["first(1) -> 2", "second(2, y=3) -> '23'"])

    def test_method(self) -> None:
        """Methods can be decorated, below C{classmethod} and C{staticmethod} too."""

        class Cls:
            """A class with methods of all kinds."""

            @showResult
            def plain(self, x: int) -> int:
                return x

            @classmethod
            @showResult
            def ofClass(cls, x: int) -> int:
                return x

            @staticmethod
            @showResult
            def static(x: int) -> int:
                return x

            def __repr__(self) -> str:
                return "<me>"

        self.assertEqual([Cls().plain(1), Cls.ofClass(2), Cls().static(3)], [1, 2, 3])
        first, second, third = self.shown()
        self.assertEqual(first, "Cls.plain(<me>, 1) -> 1")
        self.assertRegex(second, r"^Cls\.ofClass\(<class .*Cls'>, 2\) -> 2$")
        self.assertEqual(third, "Cls.static(3) -> 3")

    def test_name(self) -> None:
        """A decorated function keeps its name and docstring."""
        for decorate in (showResult, whichThread):
            decorated: Any = decorate(function)
            self.assertEqual(decorated.__name__, "function")
            self.assertEqual(decorated.__doc__, function.__doc__)

    def test_deferred(self) -> None:
        """
        A Deferred is followed: its result is shown when it's there, and left as it is.
        """
        d: Deferred[int] = Deferred()

        @showResult
        def later(x: int) -> Deferred[int]:
            return d

        self.assertIs(later(1), d)
        self.assertEqual(self.shown(), [])
        d.callback(7)
        self.assertEqual(self.shown(), ["later(1) -> 7"])
        self.assertEqual(self.successResultOf(d), 7)

    def test_failure(self) -> None:
        """A failure is shown, and passed on."""
        d: Deferred[int] = Deferred()
        failure = Failure(ValueError("boom"))

        @showResult
        def later() -> Deferred[int]:
            return d

        later()
        d.errback(failure)
        self.assertEqual(self.shown(), ["later() failed with ValueError: boom"])
        self.assertIs(self.failureResultOf(d), failure)

    def test_exception(self) -> None:
        """An exception is shown, and passed on."""
        error = ValueError("boom")

        @showResult
        def fails() -> None:
            raise error

        self.assertIs(self.assertRaises(ValueError, fails), error)
        self.assertEqual(self.shown(), ["fails() raised ValueError: boom"])

    def test_asCalled(self) -> None:
        """Arguments are shown as they were when the call was made."""

        @showResult
        def change(x: list[int]) -> None:
            x.append(1)

        change([])
        self.assertEqual(self.shown(), ["change([]) -> None"])

    def test_anyStdout(self) -> None:
        """
        What the terminal can't show is escaped, and it does no harm if there's none.
        """
        buffer = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(buffer, "ascii", write_through=True))
        showResult(function)("\u00e9")
        self.assertEqual(buffer.getvalue().strip(), b"function('\\xe9') -> ('\\xe9',)")
        self.patch(sys, "stdout", None)
        self.assertEqual(showResult(function)(1), (1,))

    def test_whichThread(self) -> None:
        """The thread of each call is shown."""
        results: list[Any] = []
        decorated = whichThread(function)
        inThread(lambda: results.append(decorated(1, x=2)), name="worker 7")
        self.assertEqual(results, [(1,)])
        self.assertEqual(self.shown(), ["function(1, x=2) in thread 'worker 7'"])

    def test_notCallable(self) -> None:
        """What can't be decorated is refused at once, with a hint at what helps."""
        for decorate in (showResult, whichThread):
            for value in (5, classmethod(function), staticmethod(function)):
                with self.assertRaisesRegex(
                    TypeError, f"^{decorate.__name__} .*put {decorate.__name__} below"
                ):
                    decorate(value)  # type: ignore[arg-type]


class ConverterTests(SynchronousTestCase):
    """Tests of L{Converter}."""

    def test_names(self) -> None:
        """What can be imported by its name has an FQN."""
        for value, name in (
            (function, f"{__name__}.function"),
            (Thing, f"{__name__}.Thing"),
            (Thing.method, f"{__name__}.Thing.method"),
            (json, "json"),
            (len, "builtins.len"),
        ):
            with self.subTest(name=name):
                self.assertEqual(Converter.objToFQN(value), name)
                self.assertEqual(Converter().strToFQN(name), name)

    def test_otherNames(self) -> None:
        """A name is turned into that under which the object was defined."""
        self.assertEqual(
            Converter.strToFQN("json.JSONDecoder"), "json.decoder.JSONDecoder"
        )

    def test_submodule(self) -> None:
        """Modules are imported if need be."""
        self.patch(sys, "modules", sys.modules.copy())
        package = sys.modules["asynqueue"]
        self.addCleanup(setattr, package, "_version", sys.modules["asynqueue._version"])
        del sys.modules["asynqueue._version"], package._version
        self.assertEqual(Converter.strToFQN("asynqueue._version"), "asynqueue._version")

    def test_noNames(self) -> None:
        """Nothing else has one."""
        for value in (Thing(), Thing().method, lambda: None, 5, None, Hostile()):
            self.assertIsNone(Converter.objToFQN(value))
        for name in ("", "nosuch", "json.nosuch", "json..decoder", ".json", "a b", 5):
            self.assertIsNone(Converter.strToFQN(name))  # type: ignore[arg-type]

    def test_pickles(self) -> None:
        """What can be pickled, and unpickled, has a pickle."""

        class Halfway:
            """It can be pickled, but not unpickled."""

            def __reduce__(self) -> Any:
                return int, ("x",)

        self.assertIsInstance(Converter.objToPickle([1]), bytes)
        self.assertIsNone(Converter.objToPickle(lambda: None))
        self.assertIsNone(Converter.objToPickle(Halfway()))

    def test_process(self) -> None:
        """An object is sent as its pickle, by its name, or not at all."""
        self.assertIsInstance(Converter.processObject([1]), bytes)
        self.assertEqual(Converter.processObject(NAMED), f"{__name__}.NAMED")
        self.assertIsNone(Converter.processObject(Unpicklable("NAMED")))
        self.assertIsNone(Converter.processObject(lambda: None))
