"""Tests of CBOR that is made to take long, to become large, or to be something else."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from typing import Any
from uuid import UUID

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.wire._commands import Tag, weigh
from asynqueue.wire._plain import PlainDecoder
from asynqueue.wire._values import Codec, NotEncodable

#: The tags that are accepted with some content, but for pickles.
ACCEPTED = {2, 3, 30, 37, 258, 1004, 43_000, *range(42_241, 42_257)}

#: Content for any tag.
CONTENTS: tuple[Any, ...] = (
    0,
    -1,
    1.5,
    "a",
    b"a",
    "2020-01-01",
    [],
    [1, 2],
    [1, "x"],
    {},
    None,
)

#: Numbers that all have the hash 0.
COLLIDING = [n * (2**61 - 1) for n in range(100)]


def tagged(number: int, content: Any) -> bytes:
    """Make a tag with something in it."""
    inner: bytes = content if isinstance(content, bytes) else cbor2.dumps(content)
    head: bytes = cbor2.dumps(cbor2.CBORTag(number, None))[:-1]
    return head + inner


def array(items: Iterable[bytes]) -> bytes:
    """Make an array of items that are CBOR."""
    each = list(items)
    return b"\x9a" + struct.pack(">I", len(each)) + b"".join(each)


class HostileTestCase(SynchronousTestCase):
    """A test with a codec."""

    def setUp(self) -> None:
        """Make the codec."""
        self.codec = Codec()

    def refused(self, data: bytes, why: str = "") -> None:
        """See that some CBOR is refused."""
        with self.assertRaisesRegex(ValueError, why):
            self.codec.decode(data)


class TagTests(HostileTestCase):
    """Tests of tags that aren't for plain data."""

    def test_others(self) -> None:
        """
        No other tag than those that are plain data's is accepted, whatever is in it:
        no regular expression, no message, no reference is made.
        """
        numbers = {*range(700), *range(1000, 1010), *range(42_200, 42_300)}
        numbers |= {42_999, 43_000, 43_001, 55_799, 2**16, 2**32, 2**64 - 1}
        for number in sorted(numbers - ACCEPTED):
            for content in CONTENTS:
                with self.subTest(tag=number, content=content):
                    self.refused(tagged(number, cbor2.dumps(content)))

    def test_wrongContent(self) -> None:
        """Those that are accepted give plain data, or are refused as no value."""
        for number in ACCEPTED:
            for content in CONTENTS:
                try:
                    value = self.codec.decode(tagged(number, cbor2.dumps(content)))
                except ValueError:
                    continue
                self.codec.encode(value)

    def test_references(self) -> None:
        """Nothing can be in a value twice, nor in itself."""
        self.refused(tagged(28, b"\x81" + tagged(29, b"\x00")))

    def test_indefinite(self) -> None:
        """Lengths are said before."""
        for data in (b"\x9f\xff", b"\xbf\xff", b"\x5f\xff", b"\x7f\xff"):
            self.refused(data)

    def test_keys(self) -> None:
        """A key comes once in a map, and is text or bytes."""
        self.refused(b"\xa2\x61a\x00\x61a\x01")
        self.refused(b"\xa1\x00\x00")


class SlowTests(HostileTestCase):
    """Tests of what would take time in proportion to the square of its size."""

    def test_ranges(self) -> None:
        """The numbers of a range have at most 63 bits, both ways."""
        huge = tagged(2, cbor2.dumps(b"\xff" * 100_000))
        for parts in ((huge, b"\1", b"\1"), (b"\0", huge, b"\1"), (b"\0", b"\1", huge)):
            self.refused(tagged(Tag.RANGE, b"\x83" + b"".join(parts)), "range")
        self.assertRaises(NotEncodable, self.codec.encode, range(2**64))

    def test_fractions(self) -> None:
        """Those of a fraction have at most 4,096 bytes, both ways."""
        for size, isGood in ((4_096, True), (4_097, False)):
            number = int.from_bytes(b"\x7f" * size, "big")
            value = Fraction(1, number)
            data = tagged(30, b"\x82\x01" + tagged(2, cbor2.dumps(b"\x7f" * size)))
            if isGood:
                self.assertEqual(self.codec.decode(data), value)
                self.assertEqual(self.codec.decode(self.codec.encode(value)), value)  # type: ignore[arg-type] # it's small
            else:
                self.refused(data, "fraction")
                self.assertRaises(NotEncodable, self.codec.encode, value)

    def test_decimals(self) -> None:
        """A decimal number has a bounded number of digits, both ways."""
        self.refused(tagged(Tag.DECIMAL, "1" * 200_000), "digits")
        self.assertRaises(NotEncodable, self.codec.encode, Decimal("1" * 200_000))
        # This takes no more than its text.
        self.codec.decode(tagged(Tag.DECIMAL, "1E+999999999"))

    def test_hashes(self) -> None:
        """
        Many values with the same hash can't be in one set or dict, whatever they are.
        """
        uuids = [UUID(int=n) for n in COLLIDING]
        fractions = [Fraction(n, 1) for n in COLLIDING[1:]]
        tuples = [(n,) for n in COLLIDING]
        for values in (COLLIDING, uuids, fractions, tuples):
            each = b"".join(bytes(self.codec.encode(value)) for value in values)  # type: ignore[arg-type] # it's small
            pairs = b"".join(bytes(self.codec.encode(v)) + b"\0" for v in values)  # type: ignore[arg-type] # it's small
            count = len(values)
            head, double = (b"\x99" + struct.pack(">H", n) for n in (count, 2 * count))
            self.refused(tagged(258, head + each), "hash")
            self.refused(tagged(Tag.FROZENSET, head + each), "hash")
            self.refused(tagged(Tag.PAIRS, double + pairs), "hash")

    def test_fewHashes(self) -> None:
        """A few can."""
        few = set(COLLIDING[:50])
        self.assertEqual(self.codec.decode(self.codec.encode(few)), few)  # type: ignore[arg-type] # it's small

    def test_largeNumbers(self) -> None:
        """Numbers of any size come as they are, and where they stand."""
        for bits in (262_135, 262_136, 262_137, 400_000):
            for number in (2**bits - 1, -(2**bits)):
                data = self.codec.encode([number, 1])
                assert isinstance(data, bytes)
                self.assertEqual(self.codec.decode(data), [number, 1])

    def test_nested(self) -> None:
        """Nesting is bounded, whatever is nested."""
        tag = tagged(Tag.TUPLE, b"")
        for opening in (b"\x81", b"\xa1\x60", tag + b"\x81", tag, tagged(258, b"\x81")):
            for count in (400, 15_000 // len(opening)):
                self.refused(opening * count + b"\x00")


class ArrayTests(HostileTestCase):
    """Tests of arrays that can't be."""

    skip = None if find_spec("numpy") else "numpy isn't installed"

    def array(self, typeName: Any, shape: Any, data: Any, order: Any = "C") -> bytes:
        """Make an array."""
        parts = cbor2.dumps([typeName, shape, order, data])
        return tagged(Tag.ARRAY, parts)

    def test_good(self) -> None:
        """One that can be comes as it is."""
        made = self.codec.decode(self.array("<i2", [2, 2], b"\1\0\2\0\3\0\4\0"))
        self.assertEqual(made.tolist(), [[1, 2], [3, 4]])

    def test_shapes(self) -> None:
        """A shape has few dimensions of a size that can be, and goes with the data."""
        for shape in (
            [2**70],
            [2**62, 2**62],
            [-1],
            [-1, -1],
            [True],
            [1.0],
            ["1"],
            [None],
            [1] * 65,
            [2],
            [0, 5],
            1,
            None,
        ):
            with self.subTest(shape=shape):
                self.refused(self.array("|u1", shape, b"x"))

    def test_types(self) -> None:
        """A type is one of numbers, text, bytes or times: no object is made of data."""
        for typeName in (
            "|O8",
            "O",
            "object",
            "<i2,<i4",
            "i4",
            "<i3",
            "<f99",
            "(1000000000,)i4",
            "<M8[nosuch]",
            [["a", "<i4"]],
            {"names": ["a"], "formats": ["O"]},
            5,
            "|V99999999999",
        ):
            with self.subTest(type=typeName):
                self.refused(self.array(typeName, [1], bytes(8)))
                scalar = cbor2.dumps([typeName, bytes(8)])
                self.refused(tagged(Tag.SCALAR, scalar))

    def test_characters(self) -> None:
        """Text has characters that can be, and truth values are 0 or 1."""
        self.refused(self.array("<U1", [1], b"\xff\xff\xff\x7f"), "characters")
        self.refused(self.array(">U1", [1], b"\x7f\xff\xff\xff"), "characters")
        self.refused(self.array("|b1", [2], b"\1\2"), "truth")

    def test_empty(self) -> None:
        """An array without data has no size of memory to be filled."""
        self.test_good()  # which imports numpy
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for shape in ([0], [0, 2**40], [2**40, 0], [2**20, 0, 2**20]):
            made = self.codec.decode(self.array("<f8", shape, b""))
            self.assertEqual(made.size, 0)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)


class LargeTests(HostileTestCase):
    """Tests of what is said to be, or becomes, larger than it is."""

    def test_declared(self) -> None:
        """Nothing is made of a length that is only declared."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for major in (0x40, 0x60, 0x80, 0xA0):
            for head in (
                bytes([major | 25]) + b"\xff\xff",
                bytes([major | 26]) + b"\xff\xff\xff\xff",
                bytes([major | 26]) + b"\x0f\xff\xff\xff",
                bytes([major | 27]) + b"\x00\x00\x00\xff\xff\xff\xff\xff",
                bytes([major | 27]) + b"\xff" * 8,
            ):
                for rest in (b"", b"\0", b"\0" * 1000):
                    self.refused(head + rest)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)

    def test_zones(self) -> None:
        """A time zone is a name of the system's database, and no path."""
        for zone in ("../../etc/passwd", "/etc/passwd", "nosuch", "\0", "x" * 10_000):
            parts = [2020, 1, 1, 0, 0, 0, 0, 0, zone]
            self.refused(tagged(Tag.DATETIME, cbor2.dumps(parts)))


class GrowingTests(SynchronousTestCase):
    """Tests of values that would become much more in memory than they are."""

    def refused(self, item: bytes, count: int) -> None:
        """See that a large value of many such items is refused before it's made."""
        data = array([item] * count)
        whole = struct.pack(">IQ", 1, len(data)) + data
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaisesRegex(ValueError, "in memory"):
            Codec().decodePieces([whole])
        self.assertLess(tracemalloc.get_traced_memory()[1], 64 << 20)

    def test_lists(self) -> None:
        """20 MB of empty lists are."""
        self.refused(b"\x80", 20_000_000)

    def test_sets(self) -> None:
        """So are 20 MB of empty sets."""
        self.refused(tagged(258, b"\x80"), 5_000_000)


class GrowthTests(SynchronousTestCase):
    """Tests of L{weigh}."""

    def weighed(self, data: bytes) -> tuple[int, int]:
        """Compare an estimate with what is so."""
        decoder = PlainDecoder({}, lambda *_: None)
        measured = []
        for _ in range(3):
            # What other threads do meanwhile is counted, too.
            tracemalloc.start()
            try:
                value = decoder.decode(io.BytesIO(data), [])
                measured.append(tracemalloc.get_traced_memory()[0])
                del value
            finally:
                tracemalloc.stop()
        crude = weigh(data, 1 << 60)
        return min(measured), weigh(data, crude - 1)

    def test_atLeast(self) -> None:
        """The estimate is at least what a value takes, whatever it's made of."""
        negative = bytes(range(0x20, 0x26))
        items = {
            "lists": b"\x80",
            "dicts": b"\xa0",
            "dicts of one": b"\xa1\x61a\x01",
            "sets": tagged(258, b"\x80"),
            "sets of five": tagged(258, b"\x85\1\2\3\4\5"),
            "sets of five with a long tag": b"\xda\0\0\1\2\x85\1\2\3\4\5",
            "sets of thirty": tagged(258, b"\x98\x1e" + bytes(range(24)) + negative),
            "frozensets": tagged(Tag.FROZENSET, b"\x81\1"),
            "pairs": tagged(Tag.PAIRS, b"\x82\1\2"),
            "tuples": tagged(Tag.TUPLE, b"\x83\1\2\3"),
            "short numbers": b"\x38\xff",
            "numbers": b"\x19\x7f\xff",
            "long numbers": b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff",
            "floats": b"\xfb\1\1\1\1\1\1\1\1",
            "short floats": b"\xf9\x3c\x01",
            "text": b"\x62ab",
            "wide text": b"\x62\xc4\x80",
            "widest text": b"\x77\xf0\x9f\x98\x80" + b"a" * 19,
            "long wide text": b"\x78\x54\xf0\x9f\x98\x80" + b"a" * 80,
            "bytes": b"\x42ab",
            "decimals": tagged(Tag.DECIMAL, b"\x611"),
            "fractions": tagged(30, b"\x82\1\2"),
            "UUIDs": tagged(37, b"\x50" + bytes(16)),
            "bytearrays": tagged(Tag.BYTEARRAY, b"\x40"),
            "large numbers": tagged(2, b"\x4a" + b"\xff" * 10),
            "ranges": tagged(Tag.RANGE, b"\x83\0\5\1"),
            "slices": tagged(Tag.SLICE, b"\x83\0\5\1"),
            "times": tagged(Tag.TIME, b"\x86\1\1\1\1\0\xf6"),
            "times of a zone": tagged(Tag.TIME, b"\x86\1\1\1\1\0\x81\x19\x10\x10"),
            "timedeltas": tagged(Tag.TIMEDELTA, b"\x83\0\5\1"),
        }
        if find_spec("numpy"):
            items["arrays"] = tagged(Tag.ARRAY, ["|u1", [1], "C", b"x"])
            items["numbers of numpy's"] = tagged(Tag.SCALAR, ["|u1", b"x"])
        for name, item in items.items():
            with self.subTest(items=name):
                real, estimate = self.weighed(array([item] * 10_000))
                self.assertGreaterEqual(estimate, real)

    def test_mixed(self) -> None:
        """So it is where they alternate."""
        item = b"\x85\x80\x62ab" + tagged(258, b"\x81\1") + b"\xa1\x61a\x19\1\1\x80"
        data = array([item, b"\x80", b"\xa0"] * 10_000)
        real, estimate = self.weighed(data)
        self.assertGreaterEqual(estimate, real)

    def test_honest(self) -> None:
        """It's not much more for values as they are sent."""
        rows = [
            {"id": n, "name": f"number {n}", "value": n / 3, "tags": ["a", "b"]}
            for n in range(5_000)
        ]
        for value in (
            rows,
            list(range(1_000, 30_000)),
            [n / 3 for n in range(10_000)],
            [f"text {n}" * (n % 9) for n in range(10_000)],
            [bytes(500)] * 500,
        ):
            real, estimate = self.weighed(cbor2.dumps(value))
            self.assertGreaterEqual(estimate, real)
            self.assertLess(estimate, 2.5 * real)

    def test_enough(self) -> None:
        """
        Where the crudest estimate is within the limit, it's the answer; where a value
        is larger, it's not looked at to its end.
        """
        data = array([b"\x80"] * 10_000)
        self.assertEqual(weigh(b"\x00" * 100, 8_000), 8_000)
        self.assertLess(weigh(data, 10**9), 10**9)
        self.assertGreater(weigh(data, 1_000), 1_000)

    def test_noCBOR(self) -> None:
        """Bytes that are no CBOR are weighed, too."""
        for data in (b"\xff" * 100, b"\x1f" * 100, b"\x9f" * 100, b"\xdf", b"\x5b\xff"):
            for at in range(len(data)):
                weigh(data[at:], 0)
