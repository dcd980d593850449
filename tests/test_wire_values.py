"""Tests of how values are encoded for a connection."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
import struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock
from uuid import UUID
from zoneinfo import ZoneInfo

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.errors import SerializationError, WorkerError
from asynqueue.wire._commands import Tag
from asynqueue.wire._runner import WireWorkerUniverse, namesOf
from asynqueue.wire._values import (
    INLINE,
    Codec,
    NotEncodable,
    dumpsError,
    dumpsText,
    loadsError,
)

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


def roundTrip(value: Any, codec: Codec | None = None, size: int = 60_000) -> Any:
    """
    Encode and decode a value, by default with a codec that allows no more than plain
    data. What is large comes in pieces of a size.
    """
    codec = codec or Codec()
    payload = codec.encode(value)
    if isinstance(payload, bytes):
        return codec.decode(payload)
    return codec.decodePieces(chopped(payload, size))


def chopped(payload: Any, size: int) -> list[bytes]:
    """Cut what a large value has become into pieces."""
    data = b"".join(payload.pieces)
    assert len(data) == payload.size
    return [data[i : i + size] for i in range(0, len(data), size)]


class PlainTests(SynchronousTestCase):
    """Tests of plain data."""

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
        """So does what isn't equal to itself."""
        self.assertTrue(math.isnan(roundTrip(math.nan)))

    def test_zone(self) -> None:
        """Named time zones keep their names."""
        value = datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
        self.assertEqual(repr(roundTrip(value)), repr(value))

    def test_large(self) -> None:
        """Large values come back from pieces of any size, also where they're nested."""
        values = [
            os.urandom(200_000),
            "ä€x" * 70_000,
            bytearray(os.urandom(100_000)),
            [float(i) for i in range(50_000)],
            list(range(50_000)),
            {"a": [b"x" * 70_000, {"b": "y" * 100_000}], "c": (None, b"z" * 40_000)},
            [str(i) for i in range(20_000)],
        ]
        for value in values:
            for size in (7919, 60_000, 10**7):
                with self.subTest(size=size):
                    self.assertTrue(roundTrip(value, size=size) == value)

    def test_notCopied(self) -> None:
        """Large bytes are sent from where they are."""
        value = bytes(1_000_000)
        payload: Any = Codec().encode((value,))
        self.assertTrue(any(piece is value for piece in payload.pieces))

    def test_fixed(self) -> None:
        """Whatever can be changed is sent as it was when it was encoded."""
        for codec in (Codec(), Codec(pickles=True)):
            data = bytearray(200_000)
            value: Any = [data, [0] * 100_000]
            if numpy is not None:
                value.append(numpy.zeros(100_000))
            payload = codec.encode(value)
            data[:] = b"x" * len(data)
            value[1][:] = [1] * 100_000
            if numpy is not None:
                value[2] += 1
            back = codec.decodePieces(chopped(payload, 60_000))
            self.assertFalse(any(back[0]) or any(back[1]))
            self.assertEqual([part.sum() for part in back[2:]], [0] * len(back[2:]))

    def test_cbor(self) -> None:
        """Plain data is CBOR that another decoder reads, also what's large."""
        value = {"a": [1, -2.5, None, True, "é", b"x"], "b": 2**70}
        data = Codec().encode(value)
        assert isinstance(data, bytes)
        self.assertEqual(cbor2.loads(data), value)
        [tag] = cbor2.loads(Codec().encode([(1, 2)]))  # type: ignore[arg-type]
        self.assertEqual(list(tag.value), [1, 2])
        large = b"".join(chopped(Codec().encode(list(range(50_000))), 9999))
        count, size = struct.unpack(">IQ", large[:12])
        self.assertEqual((count, size), (1, len(large) - 12))
        self.assertEqual(cbor2.loads(large[12:]), list(range(50_000)))

    def test_tooLarge(self) -> None:
        """
        What becomes larger than it may be isn't encoded, and little of it is looked at.
        """
        for value in (
            bytes(100_000),
            "x" * 100_000,
            list(range(100_000)),
            [bytes(1000)] * 100_000_000,
            dict.fromkeys(range(100_000)),
        ):
            for codec in (Codec(), Codec(pickles=True)):
                error = self.assertRaises(NotEncodable, codec.encode, value, 80_000)
                self.assertIn("80000 bytes", str(error))

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
                back = roundTrip(array, codec)
                self.assertEqual(back.dtype, array.dtype)
                self.assertEqual(back.shape, array.shape)
                self.assertTrue((back == array).all())
                self.assertTrue(back.flags.writeable)
        scalar = roundTrip(numpy.float32(1.5))
        self.assertEqual((type(scalar), scalar), (numpy.float32, 1.5))

    def test_numpyObjects(self) -> None:
        """Arrays of objects are refused."""
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
            """A text of a kind of its own."""

        for value in (Secret(), [Secret()], {"a": (Secret(),)}):
            error = self.assertRaises(NotEncodable, Codec().encode, value)
            self.assertRegex(str(error), r"_wire\.Secret.*allowed.*pickle=True")
        self.assertRaises(NotEncodable, Codec().encode, Text())

    def test_tooDeep(self) -> None:
        """What is nested very deeply, or contains itself, is refused."""
        value: list[Any] = []
        value.append(value)
        error = self.assertRaises(NotEncodable, Codec().encode, value)
        self.assertRegex(str(error), "contains itself|cyclic")
        deep: Any = None
        for _ in range(90):
            deep = [deep]
        self.assertEqual(roundTrip(deep), deep)


class HostileTests(SynchronousTestCase):
    """Tests of bytes that no codec has made."""

    def test_pickle(self) -> None:
        """A pickle isn't loaded unless pickles are accepted."""
        pickles = Codec(pickles=True)
        small, large = pickles.encode([Secret]), pickles.encode([Secret, bytes(10**6)])
        assert isinstance(small, bytes)
        self.assertEqual(pickles.decode(small), [Secret])
        with mock.patch("pickle.Unpickler", side_effect=AssertionError):
            error = self.assertRaises(ValueError, Codec().decode, small)
            self.assertIn("a pickle, which isn't accepted", str(error))
            self.assertRaises(ValueError, Codec().decodePieces, chopped(large, 60_000))
            self.assertRaises(ValueError, Codec().decode, pickle.dumps(Secret))
            nested = cbor2.dumps(
                [{"x": cbor2.CBORTag(Tag.PICKLE, pickle.dumps(Secret))}]
            )
            self.assertRaises(ValueError, Codec().decode, nested)

    def test_cutOff(self) -> None:
        """What is cut off anywhere, or has something after its end, isn't accepted."""
        codec = Codec()
        for value in (VALUES, [b"x" * 40_000, "a"], list(range(10_000))):
            data = codec.encode(value)
            assert isinstance(data, bytes)
            step = max(1, len(data) // 500)
            for end in range(0, len(data), step):
                self.assertRaises(ValueError, codec.decode, data[:end])
            self.assertRaises(ValueError, codec.decode, data + b"x")
        for value in ([bytes(100_000), "a"], list(range(50_000))):
            data = b"".join(chopped(codec.encode(value), 10**6))
            for end in range(0, len(data), len(data) // 100):
                self.assertRaises(ValueError, codec.decodePieces, [data[:end]])
            self.assertRaises(ValueError, codec.decodePieces, [data, b"x"])

    def test_mutated(self) -> None:
        """Whatever bytes come, it's a value or a C{ValueError}."""
        chance = random.Random(5)
        codec = Codec(Universe.allowed)
        data = codec.encode([*VALUES, Point(1, 2), Slotted(3)])
        assert isinstance(data, bytes)
        for _ in range(5_000):
            mutated = bytearray(data)
            for _ in range(chance.randint(1, 5)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            with contextlib.suppress(ValueError):
                codec.decode(bytes(mutated))

    def test_declaredLarge(self) -> None:
        """Nothing large is made of a declared length, only of bytes that are there."""
        for major in (0x40, 0x60, 0x80, 0xA0):
            for head in (b"\x1a\x7f\xff\xff\xff", b"\x1b" + b"\x7f" * 8):
                data = bytes([head[0] | major]) + head[1:]
                self.assertRaises(ValueError, Codec().decode, data)
        for data in (b"", b"\xff" * 4, b"\0\0\0\1" + b"\xff" * 8, b"\0\0\0\0"):
            self.assertRaises(ValueError, Codec().decodePieces, [data])

    def test_nested(self) -> None:
        """Nesting without end doesn't end the program."""
        for head in (b"\x81", b"\xd9\xa5\x04\x81", b"\xa1\x61a", b"\x9f"):
            self.assertRaises(ValueError, Codec().decode, head * 10_000 + b"\xf6")

    def test_notAllowed(self) -> None:
        """
        An instance of a class that is allowed at the other end only isn't accepted.
        """
        data = Codec(Universe.allowed).encode(Point(1, 2))
        assert isinstance(data, bytes)
        error = self.assertRaises(ValueError, Codec().decode, data)
        self.assertIn("Point", str(error))

    def test_otherSlots(self) -> None:
        """Nor is one of a class that has other slots there."""

        class Here:
            __slots__ = ()

        there = Codec(Universe.allowed)
        data = there.encode(Slotted(1))
        assert isinstance(data, bytes)
        here = Codec()
        here._allowed[f"{Slotted.__module__}.Slotted"] = Here
        self.assertRaises(ValueError, here.decode, data)

    def test_noCodeRun(self) -> None:
        """No property of an allowed class is set because a peer names it."""

        class Guarded:
            """A class with a property."""

            @property
            def x(self) -> int:
                raise AssertionError

            @x.setter
            def x(self, value: int) -> None:
                raise AssertionError

        codec = Codec([Guarded])
        guarded = Guarded()
        guarded.__dict__["x"] = 5
        self.assertEqual(roundTrip(guarded, codec).__dict__, {"x": 5})


class PickleTests(SynchronousTestCase):
    """Tests of values as pickles, where both ends accept them."""

    def test_roundTrip(self) -> None:
        """Whatever can be pickled comes back."""
        codec = Codec(pickles=True)
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        back = roundTrip(cyclic, codec)
        self.assertIs(back[0], back)
        self.assertIs(roundTrip(Secret, codec), Secret)

    def test_large(self) -> None:
        """Large ones come back from pieces of any size."""
        codec = Codec(pickles=True)
        value = [os.urandom(300_000), {"a": "x" * 100_000}, list(range(50_000)), Secret]
        payload: Any = codec.encode(value)
        self.assertTrue(any(piece is value[0] for piece in payload.pieces))
        for size in (7919, 60_000, 10**7):
            self.assertTrue(roundTrip(value, codec, size) == value)

    def test_buffers(self) -> None:
        """Arrays in pickles can be written to."""
        if numpy is None:
            raise self.skipTest("numpy isn't installed")
        for size in (5, 50_000):
            back = roundTrip({"a": numpy.zeros(size)}, Codec(pickles=True))
            back["a"][3] = 1.0
            self.assertEqual(back["a"].sum(), 1.0)

    def test_unpicklable(self) -> None:
        """What can't be pickled is refused."""
        error = self.assertRaises(
            NotEncodable, Codec(pickles=True).encode, [lambda: None]
        )
        self.assertIn("can't be pickled", str(error))


class RaisedTests(SynchronousTestCase):
    """Tests of exceptions."""

    def carried(self, error: BaseException, exceptions: Any = ()) -> Any:
        """Take an exception to the other end, where these classes are made again."""
        codec = Codec()
        try:
            raise error
        except BaseException as raised:  # noqa: BLE001 - it's any
            data = dumpsError(codec, raised, "f()")
        self.assertLess(len(data), INLINE + 1)
        return loadsError(codec, data, exceptions).exception

    def test_builtin(self) -> None:
        """Exceptions of Python's own come as what they are."""
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
        """What would end a program or an iteration there comes as a WorkerError."""
        for error in (SystemExit(3), KeyboardInterrupt(), StopIteration(1)):
            self.assertIs(type(self.carried(error)), WorkerError)

    def test_huge(self) -> None:
        """A huge one comes with the beginning and the end of its text."""
        error = ValueError("x" * 1_000_000, [bytes(100_000)])
        back = self.carried(error)
        self.assertIs(type(back), WorkerError)
        self.assertLess(len(str(back)), 20_000)

    def test_unsendable(self) -> None:
        """One whose arguments can't be sent comes as text."""
        back = self.carried(ValueError(Secret()))
        self.assertIs(type(back), WorkerError)
        self.assertIn("ValueError", str(back))

    def test_cause(self) -> None:
        """What an exception has come from is the cause of the remote traceback."""
        error = ValueError("x")
        error.__cause__ = KeyError("y")
        back = self.carried(error)
        self.assertEqual(repr(back.__cause__.__cause__), "KeyError('y')")

    def test_hostile(self) -> None:
        """
        Of an exception that fails when it's looked at, there's still something told.
        """

        class Hostile(Exception):
            """An exception that lets nobody look at it."""

            def __str__(self) -> str:
                raise RuntimeError

            def __reduce__(self) -> Any:
                raise RuntimeError

        back = self.carried(Hostile())
        self.assertIn("Hostile", str(back))

    def test_notMade(self) -> None:
        """No class is made because a peer names it."""
        plain = Codec()
        parts = plain.encode((("x",), {}, {}))
        for name in ("builtins.SystemExit", "builtins.eval", "os.system", "tests.X"):
            data: Any = plain.encode(("text", [("", name, parts, [])]))
            back = loadsError(plain, data, [Declared]).exception
            self.assertIs(type(back), WorkerError)
        self.assertIs(
            type(loadsError(plain, dumpsText("SerializationError", "x"), ()).exception),
            SerializationError,
        )

    def test_notAnError(self) -> None:
        """Bytes that are no exception are a C{ValueError}."""
        value: Any
        for value in (1, (1,), ("x", 5), ("x", [5]), ("x", [()]), (5, [])):
            data: Any = Codec().encode(value)
            self.assertRaises(ValueError, loadsError, Codec(), data, ())
        self.assertIsInstance(Undeclared(), Exception)


class NamesTests(SynchronousTestCase):
    """Tests of which methods are served."""

    def test_names(self) -> None:
        """Public functions of the subclass and its bases are, and nothing else."""

        class Small(Base):
            attribute = len

            def __init__(self) -> None:
                """Make it."""

            def public(self) -> None:
                """Be served."""

            @property
            def computed(self) -> int:
                raise AssertionError

            @staticmethod
            def static() -> None:
                """Be served."""

            class Inner:
                """A class."""

        self.assertEqual(namesOf(Small), {"inherited", "public", "static"})
        self.assertEqual(namesOf(Small()), {"inherited", "public", "static"})

    def test_notUniverse(self) -> None:
        """What is no universe is refused. The base class itself has no methods."""
        self.assertEqual(namesOf(WireWorkerUniverse), frozenset())
        for wwu in (object(), object, None):
            self.assertRaises(TypeError, namesOf, wwu)
