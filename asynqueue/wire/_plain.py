"""
Plain data as CBOR, which can't run anything when it's decoded.

What CBOR itself doesn't know has tags of this module's. Large binary data and text
stand beside the CBOR, as I{buffers}, so that they're neither copied to be sent nor gone
through to be received.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, auto
from fractions import Fraction
from functools import partial
from types import MemberDescriptorType
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from cbor2 import CBOREncoder, CBORError

from .._child.describe import describe

#: Binary data and text from this size up is a buffer.
LARGE_BYTES = 60_000

#: Containers in one another that are encoded.
MAX_DEPTH = 100

#: Bytes of each of the two numbers of a fraction, since to reduce it takes time in
#: proportion to their square; and digits of a decimal number.
MAX_FRACTION_BYTES, MAX_DIGITS = 4096, 100_000

#: Types of arrays: numbers, bytes, text, times.
DTYPE = re.compile(r"[<>|=][biufcSUmMV]\d{1,9}(\[\d{0,9}[a-zA-Zμ]{1,3}\])?")


class Tag(IntEnum):
    """
    Tags of CBOR that are sent and accepted: some that its registry has, then those of
    this package.
    """

    BIGNUM = 2
    NEGATIVE_BIGNUM = 3
    RATIONAL = 30
    UUID = 37
    SET = 258
    DATE = 1004

    #: A pickle, C{None} if it's the first of the buffers.
    PICKLE = 42_240
    #: Bytes, and text, that are the buffer of this number.
    BUFFER = auto()
    TEXT = auto()
    #: Text that isn't Unicode's, as bytes.
    SURROGATES = auto()
    TUPLE = auto()
    FROZENSET = auto()
    #: A dict whose keys aren't all text or bytes: key, value, key, value, ...
    PAIRS = auto()
    BYTEARRAY = auto()
    RANGE = auto()
    SLICE = auto()
    DATETIME = auto()
    TIME = auto()
    TIMEDELTA = auto()
    DECIMAL = auto()
    #: Type, shape, order and data of an array of numpy's, type and data of a number.
    ARRAY = auto()
    SCALAR = auto()
    #: Name of an allowed class, and attributes.
    OBJECT = auto()

    COMPLEX = 43_000  # the registry's, too


_KEYS = {str, bytes}

_Encode: TypeAlias = Callable[[CBOREncoder, Any], None]


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
        self.buffers: list[Any] = []
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

    def encode(self, sink: Any, value: Any) -> None:
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

        def encode(encoder: CBOREncoder, value: Any) -> None:
            if self._depth >= MAX_DEPTH:
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


def _encodeDict(encoder: CBOREncoder, value: dict[Any, Any]) -> None:
    if _KEYS.issuperset(map(type, value)):
        encoder.encode_map(value)
    else:
        # In a map of CBOR, other keys are refused by who decodes it.
        pairs = [part for item in value.items() for part in item]
        encoder.encode_semantic(Tag.PAIRS, pairs)


def _encodeTuple(encoder: CBOREncoder, value: tuple[Any, ...]) -> None:
    # As encode_semantic does, without a list: saves 7 % of what arguments take.
    encoder.encode_length(6, Tag.TUPLE)
    encoder.encode_array(value)


def _encodeObject(name: str, encoder: CBOREncoder, value: Any) -> None:
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
    if not DTYPE.fullmatch(name) or value.dtype.fields is not None:
        raise NotPlain(f"{what} of type {value.dtype} can't be sent")
    return name


def _tagged(tag: int, partsOf: Callable[[Any], Any]) -> _Encode:
    """Have a value be encoded as its parts, with a tag."""
    return lambda encoder, value: encoder.encode_semantic(tag, partsOf(value))


def _partsOfRange(value: range) -> list[int]:
    parts = [value.start, value.stop, value.step]
    if any(part.bit_length() > 63 for part in parts):
        raise NotPlain("A range with numbers of more than 63 bits can't be sent")
    return parts


def _partsOfFraction(value: Fraction) -> list[int]:
    parts = [value.numerator, value.denominator]
    if any(part.bit_length() > 8 * MAX_FRACTION_BYTES for part in parts):
        raise NotPlain(
            f"A fraction of numbers of more than {MAX_FRACTION_BYTES} bytes can't be"
            " sent"
        )
    return parts


def _textOfDecimal(value: Decimal) -> str:
    if len(value.as_tuple().digits) > MAX_DIGITS:
        raise NotPlain(f"A Decimal of more than {MAX_DIGITS} digits can't be sent")
    return str(value)


def _clock(value: Any) -> list[Any]:
    """Give what times of day and points in time have in common."""
    zone = value.tzinfo
    parts = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    if zone is None:
        return [*parts, None]
    if type(zone) is ZoneInfo and zone.key:
        return [*parts, zone.key]
    if type(zone) is timezone:
        offset = zone.utcoffset(None) // timedelta(microseconds=1)
        named = zone.tzname(None) != timezone(zone.utcoffset(None)).tzname(None)
        return [*parts, [offset, zone.tzname(None)] if named else [offset]]
    raise NotPlain(f"Times in {describe(zone)} can't be sent")


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
