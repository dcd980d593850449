"""
Tests of how values are encoded for a connection.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock
from uuid import UUID
from zoneinfo import ZoneInfo

from twisted.trial.unittest import SynchronousTestCase

from asynqueue.errors import SerializationError, WorkerError
from asynqueue.wire._raised import dumpsError, dumpsText, loadsError
from asynqueue.wire._universe import WireWorkerUniverse, namesOf
from asynqueue.wire._values import INLINE, Codec, NotEncodable, TooLarge

from ._wire import Base, Declared, Point, Secret, Slotted, Undeclared, Universe

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment, unused-ignore]

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**200),
    0.0,
    -1.5,
    math.inf,
    1j - 2,
    "",
    "aé€😀\ud800",
    b"",
    b"\0\xff",
    bytearray(b"abc"),
    [],
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [1, 2, 3, 4, 2**70],
    [1, 2, 3, True],
    [1.0, 2.0, 3.0, math.inf],
    [1.0, 2, 3.0, 4.0],
    [None, [True, ["x"]]],
    (),
    (1, (2, [3])),
    {},
    {"a": 1, 2: [b"x"], (1, 2): {"b": None}},
    set(),
    {1, "a"},
    frozenset({1, (2,)}),
    range(1, 10, 3),
    slice(None, 5, 2),
    date(2024, 2, 29),
    datetime(2024, 2, 29, 12, 30, 1, 5),
    datetime(2024, 10, 27, 2, 30, tzinfo=timezone.utc, fold=1),
    datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    time(1, 2, 3, 4, fold=1),
    timedelta(days=-1, microseconds=5),
    Decimal("1.10"),
    Decimal("-Infinity"),
    Fraction(-2, 3),
    UUID(int=5),
]


def roundTrip(value: Any, codec: Codec | None = None) -> Any:
    """
    Encode and decode a value.

    @param value: The value.

    @param codec: The codec, by default one that allows no more than plain data.

    @return: What becomes of it.
    """
    codec = codec or Codec()
    return codec.decode(codec.encode(value))


def chopped(payload: list[Any], size: int) -> list[bytes]:
    """
    Cut what a value has become into pieces.

    @param payload: It.

    @param size: The size of the pieces.

    @return: The pieces.
    """
    data = b"".join(payload)
    return [data[i : i + size] for i in range(0, len(data), size)]


class PlainTests(SynchronousTestCase):
    """
    Tests of plain data.
    """

    def test_roundTrip(self) -> None:
        """
        A value of each kind comes back equal, with its type, also those of its items.
        """
        for value in VALUES:
            with self.subTest(value=value):
                back = roundTrip(value)
                self.assertEqual(repr(back), repr(value))
                self.assertEqual(back, value)

    def test_nan(self) -> None:
        """
        So does what isn't equal to itself.
        """
        self.assertTrue(math.isnan(roundTrip(math.nan)))

    def test_zone(self) -> None:
        """
        Named time zones keep their names.
        """
        value = datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
        self.assertEqual(repr(roundTrip(value)), repr(value))

    def test_large(self) -> None:
        """
        Large values come back from pieces of any size, also where they're nested.
        """
        values = [
            os.urandom(200_000),
            "ä€x" * 70_000,
            bytearray(os.urandom(100_000)),
            [float(i) for i in range(50_000)],
            list(range(50_000)),
            {"a": [b"x" * 70_000, {"b": "y" * 100_000}], "c": (None, b"z" * 40_000)},
            [str(i) for i in range(20_000)],
        ]
        codec = Codec()
        for value in values:
            payload = codec.encodeLarge(value)
            for size in (7919, 60_000, 10**7):
                with self.subTest(size=size):
                    back = codec.decodePieces(chopped(payload, size))
                    self.assertTrue(back == value)

    def test_notCopied(self) -> None:
        """
        Large bytes are sent from where they are.
        """
        value = bytes(1_000_000)
        payload = Codec().encodeLarge((value,))
        self.assertTrue(any(piece is value for piece in payload))

    def test_tooLarge(self) -> None:
        """
        What isn't small isn't encoded at once, and little of it is looked at.
        """
        for value in (
            bytes(INLINE),
            "x" * INLINE,
            list(range(INLINE)),
            [1.0] * INLINE,
            [None] * 100_000,
            [bytes(1000)] * 100,
            dict.fromkeys(range(20000)),
        ):
            self.assertRaises(TooLarge, Codec().encode, value)

    def test_numpy(self) -> None:
        """
        Arrays and scalars of numpy's come back with type, shape and order; arrays can
        be written to.
        """
        if numpy is None:
            raise self.skipTest("numpy isn't installed")
        codec = Codec()
        base: Any = numpy.arange(24, dtype="<i4").reshape(2, 3, 4)
        for array in (
            base,
            base.T,
            base[:, ::2],
            base[0, 0, 0:0],
            numpy.array(5.0),
            numpy.array([True, False]),
            numpy.array(["a", "bcd"]),
            numpy.array(["2024-01-01"], dtype="M8[D]"),
            numpy.zeros((300, 300), order="F"),
            base.astype(">f8"),
        ):
            with self.subTest(array=array.shape):
                payload = codec.encodeLarge(array)
                back = codec.decodePieces(chopped(payload, 60_000))
                self.assertEqual(back.dtype, array.dtype)
                self.assertEqual(back.shape, array.shape)
                self.assertTrue((back == array).all())
                self.assertTrue(back.flags.writeable)
        scalar = roundTrip(numpy.float32(1.5))
        self.assertEqual((type(scalar), scalar), (numpy.float32, 1.5))

    def test_numpyObjects(self) -> None:
        """
        Arrays of objects are refused.
        """
        if numpy is None:
            raise self.skipTest("numpy isn't installed")
        array = numpy.array([Secret()])
        self.assertRaises(NotEncodable, Codec().encode, array)

    def test_allowed(self) -> None:
        """
        Instances of classes that are allowed come with their attributes, without their
        code being run.
        """
        codec = Codec(Universe.allowed)
        with mock.patch.object(Point, "__init__", side_effect=AssertionError):
            back = roundTrip([Point.__new__(Point)], codec)
        self.assertIs(type(back[0]), Point)
        point = roundTrip(Point(1, [2]), codec)
        self.assertEqual((point.x, point.y), (1, [2]))
        slotted = roundTrip(Slotted(5), codec)
        self.assertEqual((slotted.x, slotted.hidden()), (5, 5))

    def test_refused(self) -> None:
        """
        Others are refused, with their type and the ways out named, and so are
        subclasses of plain types, since they would come as something else.
        """

        class Text(str):
            """
            A text of a kind of its own.
            """

        for value in (Secret(), [Secret()], {"a": (Secret(),)}):
            error = self.assertRaises(NotEncodable, Codec().encode, value)
            self.assertRegex(str(error), r"_wire\.Secret.*allowed.*pickle=True")
        self.assertRaises(NotEncodable, Codec().encode, Text())

    def test_tooDeep(self) -> None:
        """
        What is nested very deeply, or contains itself, is refused.
        """
        value: list[Any] = []
        value.append(value)
        error = self.assertRaises(NotEncodable, Codec().encode, value)
        self.assertIn("contains itself", str(error))
        deep: Any = None
        for _ in range(90):
            deep = [deep]
        self.assertEqual(roundTrip(deep), deep)


class HostileTests(SynchronousTestCase):
    """
    Tests of bytes that no codec has made.
    """

    def test_pickle(self) -> None:
        """
        A pickle isn't loaded unless pickles are accepted.
        """
        data = Codec(pickles=True).encode([Secret])
        self.assertEqual(Codec(pickles=True).decode(data), [Secret])
        with mock.patch("pickle.Unpickler", side_effect=AssertionError):
            self.assertRaises(ValueError, Codec().decode, data)
            self.assertRaises(ValueError, Codec().decode, pickle.dumps(Secret))

    def test_cutOff(self) -> None:
        """
        What is cut off anywhere, or has something after its end, isn't accepted.
        """
        for value in (VALUES, [b"x" * 40_000, "a"], list(range(10_000))):
            data = b"".join(Codec().encodeLarge(value))
            step = max(1, len(data) // 500)
            for end in range(0, len(data), step):
                self.assertRaises(ValueError, Codec().decode, data[:end])
            self.assertRaises(ValueError, Codec().decode, data + b"x")

    def test_mutated(self) -> None:
        """
        Whatever bytes come, it's a value or a C{ValueError}.
        """
        chance = random.Random(5)
        data = Codec(Universe.allowed).encode([*VALUES, Point(1, 2)])
        codec = Codec(Universe.allowed)
        for _ in range(5_000):
            mutated = bytearray(data)
            for _ in range(chance.randint(1, 5)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            with contextlib.suppress(ValueError):
                codec.decode(bytes(mutated))

    def test_declaredLarge(self) -> None:
        """
        Nothing large is made of a declared length, only of bytes that are there.
        """
        for data in (
            b"P\0l\xff\xff\xff\xff",
            b"P\0b\xff\xff\xff\xff",
            b"P\0d\x7f\xff\xff\xff",
            b"P\xff\xff\xff\xff\xff",
            b"P\x01" + b"\xff" * 8,
        ):
            self.assertRaises(ValueError, Codec().decode, data)

    def test_nested(self) -> None:
        """
        Nesting without end doesn't end the program.
        """
        data = b"P\0" + b"l\0\0\0\x01" * 10_000 + b"N"
        self.assertRaises(ValueError, Codec().decode, data)
        self.assertRaises(ValueError, Codec().decode, b"P\0" + b":" * 10_000)

    def test_notAllowed(self) -> None:
        """
        An instance of a class that is allowed at the other end only isn't accepted.
        """
        data = Codec(Universe.allowed).encode(Point(1, 2))
        error = self.assertRaises(ValueError, Codec().decode, data)
        self.assertIn("Point", str(error))


class PickleTests(SynchronousTestCase):
    """
    Tests of values as pickles, where both ends accept them.
    """

    def test_roundTrip(self) -> None:
        """
        Whatever can be pickled comes back.
        """
        codec = Codec(pickles=True)
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        back = roundTrip(cyclic, codec)
        self.assertIs(back[0], back)
        self.assertIs(roundTrip(Secret, codec), Secret)

    def test_large(self) -> None:
        """
        Large ones come back from pieces of any size.
        """
        codec = Codec(pickles=True)
        value = [os.urandom(300_000), {"a": "x" * 100_000}, list(range(50_000)), Secret]
        payload = codec.encodeLarge(value)
        self.assertTrue(any(piece is value[0] for piece in payload))
        for size in (7919, 60_000, 10**7):
            back = codec.decodePieces(chopped(payload, size))
            self.assertTrue(back == value)

    def test_buffers(self) -> None:
        """
        Arrays in pickles aren't copied to be sent, and can be written to.
        """
        if numpy is None:
            raise self.skipTest("numpy isn't installed")
        codec = Codec(pickles=True)
        value = {"a": numpy.zeros(50_000)}
        back = codec.decodePieces(chopped(codec.encodeLarge(value), 60_000))
        back["a"][5] = 1.0
        self.assertEqual(back["a"].sum(), 1.0)

    def test_tooLarge(self) -> None:
        """
        What isn't small isn't pickled at once.
        """
        self.assertRaises(
            TooLarge, Codec(pickles=True).encode, [bytes(1000) for _ in range(100)]
        )

    def test_unpicklable(self) -> None:
        """
        What can't be pickled is refused.
        """
        error = self.assertRaises(
            NotEncodable, Codec(pickles=True).encode, [lambda: None]
        )
        self.assertIn("can't be pickled", str(error))


class RaisedTests(SynchronousTestCase):
    """
    Tests of exceptions.
    """

    def carried(self, error: BaseException, exceptions: Any = ()) -> Any:
        """
        Take an exception to the other end.

        @param error: The exception.

        @param exceptions: Classes that are made again there.

        @return: What becomes of it.
        """
        codec = Codec()
        try:
            raise error
        except BaseException as raised:  # noqa: BLE001 - it's any
            data = dumpsError(codec, raised, "f()")
        self.assertLess(len(data), INLINE + 1)
        return loadsError(codec, data, exceptions).exception

    def test_builtin(self) -> None:
        """
        Exceptions of Python's own come as what they are.
        """
        for error in (
            ValueError("x", 1),
            KeyError((1, 2)),
            OSError(2, "gone", "a file"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ):
            back = self.carried(error)
            self.assertEqual((type(back), back.args), (type(error), error.args))
            self.assertEqual(str(back), str(error))

    def test_declared(self) -> None:
        """
        So do those that the universe declares, without their code being run; others are
        a WorkerError with the whole text.
        """
        error = Declared(7, hint="look")
        back = self.carried(error, [Declared])
        self.assertEqual((type(back), back.code, back.hint), (Declared, 7, "look"))
        other = self.carried(error)
        self.assertIs(type(other), WorkerError)
        self.assertRegex(str(other), r"(?s)code 7.*Declared.*Traceback")

    def test_exits(self) -> None:
        """
        What would end a program or an iteration there comes as a WorkerError.
        """
        for error in (SystemExit(3), KeyboardInterrupt(), StopIteration(1)):
            self.assertIs(type(self.carried(error)), WorkerError)

    def test_huge(self) -> None:
        """
        A huge one comes with the beginning and the end of its text.
        """
        error = ValueError("x" * 1_000_000, [bytes(100_000)])
        back = self.carried(error)
        self.assertIs(type(back), WorkerError)
        self.assertLess(len(str(back)), 20_000)

    def test_unsendable(self) -> None:
        """
        One whose arguments can't be sent comes as text.
        """
        back = self.carried(ValueError(Secret()))
        self.assertIs(type(back), WorkerError)
        self.assertIn("ValueError", str(back))

    def test_cause(self) -> None:
        """
        What an exception has come from is the cause of the remote traceback.
        """
        error = ValueError("x")
        error.__cause__ = KeyError("y")
        back = self.carried(error)
        self.assertEqual(repr(back.__cause__.__cause__), "KeyError('y')")

    def test_hostile(self) -> None:
        """
        Of an exception that fails when it's looked at, there's still something told.
        """

        class Hostile(Exception):
            """
            An exception that lets nobody look at it.
            """

            def __str__(self) -> str:
                """
                Fail.

                @raise RuntimeError: Always.
                """
                raise RuntimeError

            def __reduce__(self) -> Any:
                """
                Fail.

                @raise RuntimeError: Always.
                """
                raise RuntimeError

        back = self.carried(Hostile())
        self.assertIn("Hostile", str(back))

    def test_notMade(self) -> None:
        """
        No class is made because a peer names it.
        """
        plain = Codec()
        parts = plain.encode((("x",), {}))
        for name in ("builtins.SystemExit", "builtins.eval", "os.system", "tests.X"):
            data = plain.encode(("text", [("", name, parts, [])]))
            back = loadsError(plain, data, [Declared]).exception
            self.assertIs(type(back), WorkerError)
        self.assertIs(
            type(loadsError(plain, dumpsText("SerializationError", "x"), ()).exception),
            SerializationError,
        )

    def test_notAnError(self) -> None:
        """
        Bytes that are no exception are a C{ValueError}.
        """
        value: Any
        for value in (1, (1,), ("x", 5), ("x", [5]), ("x", [()]), (5, [])):
            data = Codec().encode(value)
            self.assertRaises(ValueError, loadsError, Codec(), data, ())
        self.assertIsInstance(Undeclared(), Exception)


class NamesTests(SynchronousTestCase):
    """
    Tests of which methods are served.
    """

    def test_names(self) -> None:
        """
        Public functions of the subclass and its bases are, and nothing else.
        """

        class Small(Base):
            """
            A universe.
            """

            attribute = len

            def __init__(self) -> None:
                """
                Make it.
                """

            def public(self) -> None:
                """
                Be served.
                """

            @property
            def computed(self) -> int:
                """
                A property.
                """
                raise AssertionError

            @staticmethod
            def static() -> None:
                """
                Be served.
                """

            class Inner:
                """
                A class.
                """

        self.assertEqual(namesOf(Small), {"inherited", "public", "static"})
        self.assertEqual(namesOf(Small()), {"inherited", "public", "static"})

    def test_notUniverse(self) -> None:
        """
        What is no universe is refused, also the base class itself.
        """
        for wwu in (object(), object, WireWorkerUniverse, WireWorkerUniverse(), None):
            self.assertRaises(TypeError, namesOf, wwu)
