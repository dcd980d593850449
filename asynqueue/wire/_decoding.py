"""
Plain data from CBOR that anybody may have sent.

Tags that L{asynqueue.wire._plain} doesn't use are refused. Whatever bytes come,
decoding takes time and memory in proportion to their number: nesting, the sizes of
numbers and the number of equal hashes are bounded.
"""

from __future__ import annotations

import io
import math
import re
import sys
from codecs import iterdecode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import MemberDescriptorType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from cbor2 import CBORDecoder

from .._child.describe import message
from ._plain import DTYPE, MAX_DEPTH, MAX_DIGITS, MAX_FRACTION_BYTES, Tag

#: The CBOR of a large value is read in pieces of this size, between which other
#: threads run.
_READ_SIZE = 1 << 16

#: Levels of CBOR: a container takes up to three.
_MAX_CBOR_DEPTH = 3 * MAX_DEPTH + 10

#: Members of a set, or keys of a dict, with the same hash: each is compared to all the
#: others, which takes time in proportion to the square of their number.
_MAX_SAME_HASH = 50

#: Dimensions of an array, as numpy has it.
_MAX_DIMENSIONS = 32


class PlainDecoder:
    """Decodes plain data."""

    def __init__(
        self, allowed: Mapping[str, type], unpickle: Callable[..., Any]
    ) -> None:
        self._allowed = allowed  # classes of which instances are accepted, by name
        # What stands beside the CBOR that is being decoded, each in pieces.
        self._buffers: list[list[Any]] = []
        self._tags: dict[int, Callable[[Any, bool], Any]] = _DECODERS | {
            # None if the pickle is the first of the buffers.
            Tag.PICKLE: lambda data, _: unpickle(data, self._buffers),
            Tag.BUFFER: lambda n, _: b"".join(self._buffer(n)),
            # Not joined first, so that other threads may run in between.
            Tag.TEXT: lambda n, _: "".join(iterdecode(self._buffer(n), "utf-8")),
            Tag.BYTEARRAY: lambda data, _: self._writable(data),
            Tag.ARRAY: lambda parts, _: self._array(*parts),
            Tag.SCALAR: lambda parts, _: self._scalar(*parts),
            Tag.OBJECT: lambda parts, _: self._object(*parts),
        }

    def decode(self, source: Any, buffers: list[list[Any]]) -> Any:
        """Decode a value of a file of CBOR, and buffers in pieces."""
        self._buffers = buffers
        try:
            value = CBORDecoder(
                source,
                semantic_decoders=self._tags,
                tag_hook=_refuseTag,
                max_depth=_MAX_CBOR_DEPTH,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                strict_hashable_types=True,
                read_size=_READ_SIZE,
            ).decode()
        except Exception as error:
            # Whatever bytes come, no more than their value must fail. What was wrong is
            # said without the containers that it was in.
            inner: BaseException = error
            while inner.__cause__ is not None:
                inner = inner.__cause__
            raise ValueError(message(inner) or type(inner).__name__) from error
        finally:
            self._buffers = []
        if source.read(1):
            raise ValueError("there's something after the end of a value")
        return value

    def _buffer(self, number: Any) -> list[Any]:
        if type(number) is not int or number < 0:
            raise ValueError("a buffer without a number")
        return self._buffers[number]

    def _writable(self, data: Any) -> bytearray:
        return bytearray(data) if type(data) is bytes else joined(self._buffer(data))

    def _array(self, typeName: str, shape: list[int], order: Any, content: Any) -> Any:
        import numpy

        if not DTYPE.fullmatch(typeName) or len(shape) > _MAX_DIMENSIONS:
            raise ValueError("an array of a type or shape that isn't accepted")
        if any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape):
            raise ValueError("an array of an impossible shape")
        dtype, data = numpy.dtype(typeName), self._writable(content)
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError("an array of another size than its data")
        order = "F" if order == "F" else "C"
        if not data:
            return numpy.zeros(shape, dtype, order)
        if dtype.kind == "b" and numpy.frombuffer(data, "u1").max() > 1:
            raise ValueError("an array with impossible truth values")
        if dtype.kind == "U":
            points = numpy.frombuffer(data, f"{typeName[0]}u4")
            if points.max() > sys.maxunicode:
                raise ValueError("an array with impossible characters")
        return numpy.ndarray(shape, dtype, data, order=order)

    def _scalar(self, typeName: str, data: Any) -> Any:
        return self._array(typeName, [], "C", _bytes(data))[()]

    def _object(self, name: str, state: dict[str, Any]) -> Any:
        kind = self._allowed.get(name)
        if kind is None:
            raise ValueError(f"an instance of {name!r:.200}, which isn't allowed here")
        made: Any = object.__new__(kind)
        for key, value in state.items():
            # Past properties and __setattr__: no code of the class is run.
            found = (vars(base)[key] for base in kind.__mro__ if key in vars(base))
            slot = next(found, None)
            if type(slot) is MemberDescriptorType:
                slot.__set__(made, value)
            else:
                vars(made)[key] = value
        return made


class Pieces(io.RawIOBase):
    """A file of bytes in pieces, which are taken from its beginning as they are."""

    def __init__(self, pieces: Iterable[Any]) -> None:
        super().__init__()
        self._pieces = deque(memoryview(piece).cast("B") for piece in pieces)
        self.left = sum(map(len, self._pieces))  # bytes that haven't been taken

    def take(self, size: int) -> list[memoryview]:
        """@raise ValueError: If there are fewer bytes."""
        if size > self.left:
            raise ValueError("a value that is cut off")
        self.left -= size
        taken: list[memoryview] = []
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return taken

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._pieces:
            return 0
        [piece] = self.take(min(len(target), len(self._pieces[0])))
        target[: len(piece)] = piece
        return len(piece)


def joined(pieces: Iterable[Any]) -> bytearray:
    """Join pieces so that other threads may run in between."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
    return buffer


def _refuseTag(tag: Any, immutable: bool) -> Any:
    raise ValueError(f"a tag that isn't accepted: {getattr(tag, 'tag', 'a known one')}")


def _checked(items: list[Any]) -> list[Any]:
    """Check that not too many members of a set, or keys of a dict, have one hash."""
    if len(items) > _MAX_SAME_HASH:
        [(_, most)] = Counter(map(hash, items)).most_common(1)
        if most > _MAX_SAME_HASH:
            raise ValueError(f"{most} values with the same hash")
    return items


def _bytes(data: Any) -> bytes:
    if type(data) is not bytes:
        raise ValueError("something else than bytes")
    return data


def _bounded(kind: Any, bits: int, parts: list[int]) -> Any:
    if any(part.bit_length() > bits for part in parts):
        raise ValueError(f"a {kind.__name__.lower()} of numbers that are too large")
    return kind(*parts)


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_DIGITS + 50:
        raise ValueError("a decimal number of too many digits")
    return Decimal(text)


def _time(kind: Any, parts: Any) -> Any:
    *numbers, fold, zone = parts
    if type(zone) is str:
        zone = ZoneInfo(zone)
    elif zone is not None:
        offset = timedelta(microseconds=zone[0])
        zone = timezone(offset, *zone[1:]) if offset or zone[1:] else timezone.utc
    return kind(*numbers).replace(fold=fold, tzinfo=zone)


_DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    # All that cbor2 would decode otherwise, of what is or may be known to it.
    **dict.fromkeys((*range(41), *range(52, 55), 100, *range(256, 265)), _refuseTag),
    **dict.fromkeys((43001, 55799), _refuseTag),
    Tag.BIGNUM: lambda data, _: int.from_bytes(_bytes(data), "big"),
    Tag.NEGATIVE_BIGNUM: lambda data, _: -1 - int.from_bytes(_bytes(data), "big"),
    Tag.RATIONAL: lambda parts, _: _bounded(Fraction, 8 * MAX_FRACTION_BYTES, parts),
    Tag.COMPLEX: lambda parts, _: complex(*parts),
    Tag.UUID: lambda data, _: UUID(bytes=data),
    Tag.DATE: lambda text, _: date.fromisoformat(text),
    Tag.SET: lambda items, _: set(_checked(items)),
    Tag.FROZENSET: lambda items, _: frozenset(_checked(items)),
    Tag.TUPLE: lambda items, _: tuple(items),
    Tag.PAIRS: lambda flat, _: dict(zip(_checked(flat[::2]), flat[1::2], strict=True)),
    Tag.SURROGATES: lambda data, _: data.decode("utf-8", "surrogatepass"),
    Tag.RANGE: lambda parts, _: _bounded(range, 63, parts),
    Tag.SLICE: lambda parts, _: slice(*parts),
    Tag.DATETIME: lambda parts, _: _time(datetime, parts),
    Tag.TIME: lambda parts, _: _time(time, parts),
    Tag.TIMEDELTA: lambda parts, _: timedelta(*parts),
    Tag.DECIMAL: lambda text, _: _decimal(text),
}


#: Bytes of objects in CPython at most, with a pointer to them: a constant, a number, a
#: list, a dict or set of few entries, each entry of larger ones, bytes or text without
#: what is in it, a time or a range, and whatever else has a tag.
_CONSTANT, _NUMBER, _LIST, _TABLE, _ENTRY = 8, 48, 88, 264, 100
_TEXT, _TIME, _TAGGED = 80, 160, 264

#: Bytes that a byte of CBOR can become if it's not the first of a list, dict or tag.
_PER_BYTE = 80

#: The first bytes of these.
_CONTAINERS = bytes(range(0x80, 0xDC))

#: As many items of a kind as there are in a row, with the bytes of an item, those of
#: its object, and what is to be subtracted from an item's last byte to have the number
#: of its entries. Where an item has several bytes, the run is bounded, since matching
#: it takes memory.
_RUNS: tuple[tuple[bytes, int, int, int | None], ...] = (
    (rb"([\x00-\x17\x20-\x37\x40\x60\xe0-\xf7]+)", 1, _CONSTANT, None),
    (rb"((?:[\x18\x38\xf8].){1,999})", 2, _NUMBER, None),
    (rb"((?:[\x19\x39\xf9]..){1,999})", 3, _NUMBER, None),
    (rb"((?:[\x1a\x3a\xfa].{4}){1,999})", 5, _NUMBER, None),
    (rb"((?:[\x1b\x3b\xfb].{8}){1,999})", 9, _NUMBER, None),
    (rb"([\x80-\x97]+)", 1, _LIST, None),
    (rb"([\xa0-\xa5]+)", 1, _TABLE, None),
    (rb"([\xa6-\xb7]+)", 1, _TABLE, 0xA0),
    # Tuples, times and ranges, sets and dicts with other keys than text, whatever else.
    (rb"((?:\xd9\xa5\x04[\x80-\x97]){1,999})", 4, _LIST, None),
    (rb"((?:\xd9\xa5[\x08-\x0c][\x80-\x97]){1,999})", 4, _TIME, None),
    (rb"((?:\xd9(?:\x01\x02|\xa5[\x05\x06])[\x80-\x84]){1,999})", 4, _TABLE, None),
    (rb"((?:\xd9(?:\x01\x02|\xa5[\x05\x06])[\x85-\x97]){1,999})", 4, _TABLE, 0x80),
    (rb"((?:\xd9\xa5[\x0e-\x10][\x80-\x97]){1,999})", 4, _TAGGED, None),
)
_RUN = re.compile(b"|".join(run[0] for run in _RUNS), re.DOTALL)

#: Major types of CBOR.
_BYTES, _STRING, _ARRAY, _MAP, _TAG = range(2, 7)


def weigh(data: bytes, limit: int) -> int:
    """
    Estimate the memory that the value of some CBOR takes, in bytes: at least what it
    takes, and for most values not twice as much, as exactly as it takes to compare it
    with a limit.
    """
    containers = len(data) - len(data.translate(None, _CONTAINERS))
    total = _PER_BYTE * len(data) + _TABLE * containers
    if total <= limit:
        return total
    at = total = 0
    isTable = False
    while at < len(data) and total <= limit:
        run = None if isTable else _RUN.match(data, at)
        if run is not None:
            begin, at = run.span()
            _, width, size, base = _RUNS[(run.lastindex or 1) - 1]
            count = (at - begin) // width
            total += count * size
            if base is not None:
                entries = sum(data[begin + width - 1 : at : width]) - count * base
                total += _ENTRY * entries
            continue
        major, count, at = _head(data, at)
        if major in (_BYTES, _STRING):
            isWide = major == _STRING and not data[at : at + count].isascii()
            total += _TEXT + (4 if isWide else 1) * count
            at += count
        elif major == _MAP or (major == _ARRAY and isTable):
            total += _TABLE + _ENTRY * count
        else:
            total += _LIST if major == _ARRAY else _TAGGED // 2
        isTable = major == _TAG and count != Tag.TUPLE
    return total


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Read an item's major type and its argument, and tell where its content begins."""
    major, short = data[at] >> 5, data[at] & 0x1F
    if short < 24:
        return major, short, at + 1
    end = at + 1 + (1 << (short - 24))
    return major, int.from_bytes(data[at + 1 : end], "big"), end
