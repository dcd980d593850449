"""
Plain data as CBOR, which can't run anything when it's decoded.

What CBOR itself doesn't know has tags of this module's; all others are refused. Large
binary data and text stand beside the CBOR, as I{buffers}, so that they're neither
copied to be sent nor gone through to be received.

Whatever bytes come, decoding takes time and memory in proportion to their number:
nesting, the sizes of numbers and the number of equal hashes are bounded.
"""

from __future__ import annotations

import math
import re
import sys
from codecs import iterdecode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import MemberDescriptorType
from typing import IO, Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from cbor2 import CBORDecoder, CBOREncoder, CBORError

from .._child.describe import describe, message
from ._commands import Tag

#: Binary data and text from this size up is a buffer.
LARGE_BYTES = 60_000

#: Containers in one another that are encoded.
_MAX_DEPTH = 100

#: Bytes of each of the two numbers of a fraction, since to reduce it takes time in
#: proportion to their square; and digits of a decimal number.
_MAX_FRACTION_BYTES, _MAX_DIGITS = 4096, 100_000

#: The CBOR of a large value is read in pieces of this size, between which other
#: threads run.
_READ_SIZE = 1 << 16

#: Levels of CBOR: a container takes up to three.
_MAX_CBOR_DEPTH = 3 * _MAX_DEPTH + 10

#: Members of a set, or keys of a dict, with the same hash: each is compared to all the
#: others, which takes time in proportion to the square of their number.
_MAX_SAME_HASH = 50

#: Dimensions of an array, as numpy has it.
_MAX_DIMENSIONS = 32

#: Types of arrays: numbers, bytes, text, times.
_DTYPE = re.compile(r"[<>|=][biufcSUmMV]\d{1,9}(\[\d{0,9}[a-zA-Zμ]{1,3}\])?")

_KEYS = {str, bytes}

_Encode: TypeAlias = Callable[[CBOREncoder, Any], None]
_Decode: TypeAlias = Callable[[Any, bool], object]

#: What stands beside the CBOR that is being decoded, each in pieces.
Buffers: TypeAlias = list[list[memoryview]]


class NotPlain(Exception):
    """Something isn't plain data. The message says what."""


def nameOfClass(kind: type) -> str:
    """Name a class as both ends do."""
    return f"{kind.__module__}.{kind.__qualname__}"


class PlainEncoder(dict[type, _Encode]):
    """
    Encodes plain data. It is the table, by type, of what encodes a value, which
    C{cbor2} looks into; types that aren't there are looked up in L{__missing__}.
    """

    def __init__(self, allowed: Mapping[str, type]) -> None:
        super().__init__(_ENCODERS)
        # What stands beside the CBOR of the value that was encoded last.
        self.buffers: list[bytes] = []
        self._names = {kind: name for name, kind in allowed.items()}
        # Containers around what is being encoded.
        self._depth = 0
        self |= {
            list: self._nested(CBOREncoder.encode_array),
            dict: self._nested(_encodeDict),
            tuple: self._nested(_encodeTuple),
            str: self._encodeText,
            bytes: self._encodeBytes,
            bytearray: self._encodeBytearray,
        }

    def encode(self, sink: Any, value: object) -> None:
        """Write the CBOR of a value to a file, and leave what's large in L{buffers}."""
        self.buffers, self._depth = [], 0
        try:
            CBOREncoder(sink, encoders=self).encode(value)
        except CBORError as error:
            raise NotPlain(f"{describe(value)} can't be encoded: {error}") from error

    def __missing__(self, kind: type) -> _Encode:
        name = self._names.get(kind)
        numpy = sys.modules.get("numpy")
        if name is not None:
            self[kind] = self._nested(partial(_encodeObject, name))
        elif numpy is not None and kind is numpy.ndarray:
            self[kind] = self._encodeArray
        elif numpy is not None and issubclass(kind, numpy.generic):
            self[kind] = _encodeScalar
        else:
            raise NotPlain(f"An object of class {nameOfClass(kind)} is no plain data")
        return self[kind]

    def _nested(self, f: _Encode) -> _Encode:
        """Have the depth be counted while a container is encoded."""

        def encode(encoder: CBOREncoder, value: object) -> None:
            if self._depth >= _MAX_DEPTH:
                raise NotPlain(
                    "A value is nested too deeply to be sent, or contains itself"
                )
            self._depth += 1
            f(encoder, value)
            self._depth -= 1

        return encode

    def _encodeText(self, encoder: CBOREncoder, value: str) -> None:
        try:
            if len(value) < LARGE_BYTES:
                encoder.encode_string(value)
            else:
                encoder.encode_semantic(Tag.TEXT, self._add(value.encode()))
        except UnicodeEncodeError:
            data = value.encode("utf-8", "surrogatepass")
            encoder.encode_semantic(Tag.SURROGATES, data)

    def _encodeBytes(self, encoder: CBOREncoder, value: bytes) -> None:
        if len(value) < LARGE_BYTES:
            encoder.encode_bytes(value)
        else:
            encoder.encode_semantic(Tag.BUFFER, self._add(value))

    def _encodeBytearray(self, encoder: CBOREncoder, value: bytearray) -> None:
        encoder.encode_semantic(Tag.BYTEARRAY, self._copied(bytes(value)))

    def _encodeArray(self, encoder: CBOREncoder, array: Any) -> None:
        dtype = _dtypeOf("Arrays", array)
        order = "F" if array.flags.fnc else "C"
        data = self._copied(array.tobytes(order))
        encoder.encode_semantic(Tag.ARRAY, [dtype, list(array.shape), order, data])

    def _copied(self, data: bytes) -> bytes | int:
        """Have a copy of what may change stand beside the CBOR if it's large."""
        return data if len(data) < LARGE_BYTES else self._add(data)

    def _add(self, data: bytes) -> int:
        """Put something beside the CBOR, and give its number there."""
        self.buffers.append(data)
        return len(self.buffers) - 1


def _encodeDict(encoder: CBOREncoder, value: dict[object, object]) -> None:
    if _KEYS.issuperset(map(type, value)):
        encoder.encode_map(value)
    else:
        # In a map of CBOR, other keys are refused by who decodes it.
        pairs = [part for item in value.items() for part in item]
        encoder.encode_semantic(Tag.PAIRS, pairs)


def _encodeTuple(encoder: CBOREncoder, value: tuple[object, ...]) -> None:
    # As encode_semantic does, without a list: saves 7 % of what arguments take.
    encoder.encode_length(6, Tag.TUPLE)
    encoder.encode_array(value)


def _encodeObject(name: str, encoder: CBOREncoder, value: object) -> None:
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        for slot, member in vars(kind).items():
            if type(member) is MemberDescriptorType and hasattr(value, slot):
                state[slot] = getattr(value, slot)
    encoder.encode_semantic(Tag.OBJECT, [name, state])


def _encodeScalar(encoder: CBOREncoder, value: Any) -> None:
    parts = [_dtypeOf("Numbers", value), value.tobytes()]
    encoder.encode_semantic(Tag.SCALAR, parts)


def _dtypeOf(what: str, value: Any) -> str:
    name: str = value.dtype.str
    if not _DTYPE.fullmatch(name) or value.dtype.fields is not None:
        raise NotPlain(f"{what} of type {value.dtype} can't be sent")
    return name


def _tagged(tag: int, partsOf: Callable[[Any], object]) -> _Encode:
    """Have a value be encoded as its parts, with a tag."""
    return lambda encoder, value: encoder.encode_semantic(tag, partsOf(value))


def _partsOfRange(value: range) -> list[int]:
    parts = [value.start, value.stop, value.step]
    if any(part.bit_length() > 63 for part in parts):
        raise NotPlain("A range with numbers of more than 63 bits can't be sent")
    return parts


def _partsOfFraction(value: Fraction) -> list[int]:
    parts = [value.numerator, value.denominator]
    if any(part.bit_length() > 8 * _MAX_FRACTION_BYTES for part in parts):
        raise NotPlain(
            f"A fraction of numbers of more than {_MAX_FRACTION_BYTES} bytes can't be"
            " sent"
        )
    return parts


def _textOfDecimal(value: Decimal) -> str:
    if len(value.as_tuple().digits) > _MAX_DIGITS:
        raise NotPlain(f"A Decimal of more than {_MAX_DIGITS} digits can't be sent")
    return str(value)


def _clock(value: datetime | time) -> list[object]:
    """Give what times of day and points in time have in common."""
    zone = value.tzinfo
    parts = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    if zone is None:
        return [*parts, None]
    if type(zone) is ZoneInfo and zone.key:
        return [*parts, zone.key]
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [*parts, [offset // timedelta(microseconds=1), *name]]
    raise NotPlain(f"Times in {describe(zone)} can't be sent")


class PlainDecoder:
    """Decodes plain data."""

    def __init__(
        self, allowed: Mapping[str, type], unpickle: Callable[..., object]
    ) -> None:
        self._allowed = allowed  # classes of which instances are accepted, by name
        self._buffers: Buffers = []
        self._tags: dict[int, _Decode] = _DECODERS | {
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

    def decode(self, source: IO[bytes], buffers: Buffers) -> object:
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

    def _buffer(self, number: object) -> list[Any]:
        if type(number) is not int or number < 0:
            raise ValueError("a buffer without a number")
        return self._buffers[number]

    def _writable(self, data: object) -> bytearray:
        return bytearray(data) if type(data) is bytes else joined(self._buffer(data))

    def _array(self, typeName: str, shape: list[int], order: Any, content: Any) -> Any:
        import numpy

        if not _DTYPE.fullmatch(typeName) or len(shape) > _MAX_DIMENSIONS:
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

    def _scalar(self, typeName: str, data: object) -> object:
        return self._array(typeName, [], "C", _bytes(data))[()]

    def _object(self, name: str, state: dict[str, object]) -> object:
        kind = self._allowed.get(name)
        if kind is None:
            raise ValueError(f"an instance of {name!r:.200}, which isn't allowed here")
        made: object = object.__new__(kind)
        for key, value in state.items():
            # Past properties and __setattr__: no code of the class is run.
            found = (vars(base)[key] for base in kind.__mro__ if key in vars(base))
            slot = next(found, None)
            if type(slot) is MemberDescriptorType:
                slot.__set__(made, value)
            else:
                vars(made)[key] = value
        return made


def joined(pieces: Iterable[memoryview]) -> bytearray:
    """Join pieces so that other threads may run in between."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
    return buffer


def _refuseTag(tag: object, immutable: bool) -> object:
    raise ValueError(f"a tag that isn't accepted: {getattr(tag, 'tag', 'a known one')}")


def _checked(items: list[object]) -> list[object]:
    """Check that not too many members of a set, or keys of a dict, have one hash."""
    if len(items) > _MAX_SAME_HASH:
        [(_, most)] = Counter(map(hash, items)).most_common(1)
        if most > _MAX_SAME_HASH:
            raise ValueError(f"{most} values with the same hash")
    return items


def _bytes(data: object) -> bytes:
    if type(data) is not bytes:
        raise ValueError("something else than bytes")
    return data


def _bounded(kind: type[Fraction | range], bits: int, parts: list[int]) -> object:
    if any(part.bit_length() > bits for part in parts):
        raise ValueError(f"a {kind.__name__.lower()} of numbers that are too large")
    return kind(*parts)


def _decimal(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS + 50:
        raise ValueError("a decimal number of too many digits")
    return Decimal(text)


def _time(kind: type[datetime | time], parts: Any) -> object:
    *numbers, fold, zone = parts
    if type(zone) is str:
        zone = ZoneInfo(zone)
    elif zone is not None:
        offset = timedelta(microseconds=zone[0])
        zone = timezone(offset, *zone[1:]) if offset or zone[1:] else timezone.utc
    return kind(*numbers).replace(fold=fold, tzinfo=zone)


_ENCODERS: dict[type, _Encode] = {
    type(None): lambda encoder, _: encoder.encode_none(),
    bool: CBOREncoder.encode_bool,
    int: CBOREncoder.encode_int,
    float: CBOREncoder.encode_float,
    complex: CBOREncoder.encode_complex,
    UUID: CBOREncoder.encode_uuid,
    date: CBOREncoder.encode_date,
    set: _tagged(Tag.SET, list),
    frozenset: _tagged(Tag.FROZENSET, list),
    datetime: _tagged(Tag.DATETIME, lambda v: [v.year, v.month, v.day, *_clock(v)]),
    time: _tagged(Tag.TIME, _clock),
    timedelta: _tagged(Tag.TIMEDELTA, lambda v: [v.days, v.seconds, v.microseconds]),
    Decimal: _tagged(Tag.DECIMAL, _textOfDecimal),
    Fraction: _tagged(Tag.RATIONAL, _partsOfFraction),
    range: _tagged(Tag.RANGE, _partsOfRange),
    slice: _tagged(Tag.SLICE, lambda v: [v.start, v.stop, v.step]),
}

_DECODERS: dict[int, _Decode] = {
    # All that cbor2 would decode otherwise, of what is or may be known to it.
    **dict.fromkeys((*range(41), *range(52, 55), 100, *range(256, 265)), _refuseTag),
    **dict.fromkeys((43001, 55799), _refuseTag),
    Tag.BIGNUM: lambda data, _: int.from_bytes(_bytes(data), "big"),
    Tag.NEGATIVE_BIGNUM: lambda data, _: -1 - int.from_bytes(_bytes(data), "big"),
    Tag.RATIONAL: lambda parts, _: _bounded(Fraction, 8 * _MAX_FRACTION_BYTES, parts),
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
