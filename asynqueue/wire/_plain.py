"""
Plain data as CBOR, which can't run anything when it's decoded.

What CBOR itself doesn't know has tags of this module's; every other tag is refused.
Whatever bytes come, decoding takes time and memory in proportion to their number:
nesting, the sizes of numbers and the number of equal hashes are bounded.

Large binary data and text stand beside the CBOR, as I{buffers}, so that they're
neither copied to be sent nor gone through to be received.
"""

from __future__ import annotations

import codecs
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import MemberDescriptorType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from cbor2 import CBORDecoder, CBOREncoder, CBORError

from .._child.describe import describe, message

__all__ = [
    "LARGE_BYTES",
    "PICKLE",
    "Decoder",
    "Encoder",
    "NotPlain",
    "nameOfClass",
]

#: Binary data and text from this size up is a buffer.
LARGE_BYTES = 60_000

#: The CBOR of a large value is read in pieces of this size, between which other
#: threads run.
READ_SIZE = 1 << 16

#: Containers in one another that are encoded. Each takes up to three levels of CBOR.
_MAX_DEPTH = 100
_MAX_CBOR_DEPTH = 3 * _MAX_DEPTH + 10

#: Bytes of each of the two numbers of a fraction, since to reduce it takes time in
#: proportion to their square; and digits of a decimal number.
_MAX_FRACTION_BYTES, _MAX_DIGITS = 4096, 100_000

#: Members of a set, or keys of a dict, with the same hash: each is compared to all the
#: others.
_MAX_SAME_HASH = 50

#: Dimensions of an array, as numpy has it.
_MAX_DIMENSIONS = 32

#: Types of arrays: numbers, bytes, text, times.
_DTYPE = re.compile(r"[<>|=][biufcSUmMV]\d{1,9}(\[\d{0,9}[a-zA-Zμ]{1,3}\])?")

# Tags that CBOR's registry has.
_BIGNUM, _NEGATIVE_BIGNUM, _RATIONAL, _UUID, _SET = 2, 3, 30, 37, 258
_COMPLEX, _DATE = 43000, 1004

# Those of this package.
(
    PICKLE,
    _BUFFER,
    _TEXT,
    _SURROGATES,
    _TUPLE,
    _FROZENSET,
    _PAIRS,
    _BYTEARRAY,
    _RANGE,
    _SLICE,
    _DATETIME,
    _TIME,
    _TIMEDELTA,
    _DECIMAL,
    _ARRAY,
    _SCALAR,
    _OBJECT,
) = range(42_240, 42_257)

_KEYS = {str, bytes}


class NotPlain(Exception):
    """
    Something isn't plain data. The message says what.
    """


def nameOfClass(kind: type) -> str:
    """Name a class as both ends do."""
    return f"{kind.__module__}.{kind.__qualname__}"


class Encoder(dict[type, Callable[[CBOREncoder, Any], None]]):
    """
    Encodes plain data. It is the table, by type, of what encodes a value, which
    C{cbor2} looks into; types that aren't there are looked up in L{__missing__}.

    @ivar buffers: What stands beside the CBOR of the value that was encoded last.
    """

    def __init__(self, allowed: Mapping[str, type]) -> None:
        super().__init__(_ENCODERS)
        self.buffers: list[Any] = []
        self._names = {kind: name for name, kind in allowed.items()}
        # Containers around what is being encoded.
        self._depth = 0
        self |= {
            list: self._nested(CBOREncoder.encode_array),
            dict: self._nested(_encodeDict),
            tuple: self._nested(_encodeTuple),
            set: self._nested(_encodeSet),
            frozenset: self._nested(_encodeFrozenset),
            str: self._encodeText,
            bytes: self._encodeBytes,
            bytearray: self._encodeBytearray,
        }

    def encode(self, sink: Any, value: Any) -> None:
        """
        Write the CBOR of a value to a file, and leave what's large in L{buffers}.

        @raise NotPlain: If it isn't plain data.
        """
        self.buffers, self._depth = [], 0
        try:
            CBOREncoder(sink, encoders=self).encode(value)
        except CBORError as error:
            raise NotPlain(f"{describe(value)} can't be encoded: {error}") from error

    def __missing__(self, kind: type) -> Callable[[CBOREncoder, Any], None]:
        name = self._names.get(kind)
        numpy = sys.modules.get("numpy")
        if name is not None:
            self[kind] = self._nested(partial(_encodeObject, name))
        elif numpy is not None and kind is numpy.ndarray:
            self[kind] = self._encodeArray
        elif numpy is not None and issubclass(kind, numpy.generic):
            self[kind] = _encodeScalar
        else:
            return _refuse
        return self[kind]

    def _nested(
        self, f: Callable[[CBOREncoder, Any], None]
    ) -> Callable[[CBOREncoder, Any], None]:
        """Have the depth be counted while a container is encoded."""

        def encode(encoder: CBOREncoder, value: Any) -> None:
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
                encoder.encode_semantic(_TEXT, self._add(value.encode()))
        except UnicodeEncodeError:
            data = value.encode("utf-8", "surrogatepass")
            encoder.encode_semantic(_SURROGATES, data)

    def _encodeBytes(self, encoder: CBOREncoder, value: bytes) -> None:
        if len(value) < LARGE_BYTES:
            encoder.encode_bytes(value)
        else:
            encoder.encode_semantic(_BUFFER, self._add(value))

    def _encodeBytearray(self, encoder: CBOREncoder, value: bytearray) -> None:
        encoder.encode_semantic(_BYTEARRAY, self._copied(bytes(value)))

    def _encodeArray(self, encoder: CBOREncoder, array: Any) -> None:
        if not _DTYPE.fullmatch(array.dtype.str) or array.dtype.fields is not None:
            raise NotPlain(f"Arrays of type {array.dtype} can't be sent")
        order = "F" if array.flags.fnc else "C"
        data = self._copied(array.tobytes(order))
        encoder.encode_semantic(
            _ARRAY, [array.dtype.str, list(array.shape), order, data]
        )

    def _copied(self, data: bytes) -> bytes | int:
        """
        Have a copy of something that may change stand beside the CBOR if it's large.
        """
        return data if len(data) < LARGE_BYTES else self._add(data)

    def _add(self, data: bytes) -> int:
        """Put something beside the CBOR, and give its number there."""
        self.buffers.append(data)
        return len(self.buffers) - 1


def _refuse(encoder: CBOREncoder, value: Any) -> None:
    raise NotPlain(f"An object of class {nameOfClass(type(value))} is no plain data")


def _encodeTagged(encoder: CBOREncoder, tag: int, items: Sequence[Any]) -> None:
    """Encode an array with a tag, which is one level as to the depth."""
    encoder.encode_length(6, tag)
    encoder.encode_array(items)


def _encodeDict(encoder: CBOREncoder, value: dict[Any, Any]) -> None:
    if _KEYS.issuperset(map(type, value)):
        encoder.encode_map(value)
    else:
        # In a map of CBOR, other keys are refused by who decodes it, see _checkHashes.
        pairs = [part for item in value.items() for part in item]
        _encodeTagged(encoder, _PAIRS, pairs)


def _encodeTuple(encoder: CBOREncoder, value: tuple[Any, ...]) -> None:
    _encodeTagged(encoder, _TUPLE, value)


def _encodeSet(encoder: CBOREncoder, value: set[Any]) -> None:
    _encodeTagged(encoder, _SET, list(value))


def _encodeFrozenset(encoder: CBOREncoder, value: frozenset[Any]) -> None:
    _encodeTagged(encoder, _FROZENSET, list(value))


def _encodeObject(name: str, encoder: CBOREncoder, value: Any) -> None:
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            slot = _mangled(kind, slot)
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                state[slot] = getattr(value, slot)
    encoder.encode_semantic(_OBJECT, [name, state])


def _mangled(kind: type, slot: str) -> str:
    """Name the attribute of a slot, as it is for one with two leading underscores."""
    if not slot.startswith("__") or slot.endswith("__"):
        return slot
    return f"_{kind.__name__.lstrip('_')}{slot}"


def _encodeScalar(encoder: CBOREncoder, value: Any) -> None:
    if not _DTYPE.fullmatch(value.dtype.str) or value.dtype.fields is not None:
        raise NotPlain(f"Numbers of type {value.dtype} can't be sent")
    encoder.encode_semantic(_SCALAR, [value.dtype.str, value.tobytes()])


def _encodeRange(encoder: CBOREncoder, value: range) -> None:
    parts = [value.start, value.stop, value.step]
    if any(part.bit_length() > 63 for part in parts):
        raise NotPlain("A range with numbers of more than 63 bits can't be sent")
    encoder.encode_semantic(_RANGE, parts)


def _encodeSlice(encoder: CBOREncoder, value: slice) -> None:
    encoder.encode_semantic(_SLICE, [value.start, value.stop, value.step])


def _encodeFraction(encoder: CBOREncoder, value: Fraction) -> None:
    parts = [value.numerator, value.denominator]
    if any(part.bit_length() > 8 * _MAX_FRACTION_BYTES for part in parts):
        raise NotPlain(
            f"A fraction of numbers of more than {_MAX_FRACTION_BYTES} bytes can't be"
            " sent"
        )
    encoder.encode_semantic(_RATIONAL, parts)


def _encodeDecimal(encoder: CBOREncoder, value: Decimal) -> None:
    if len(value.as_tuple().digits) > _MAX_DIGITS:
        raise NotPlain(f"A Decimal of more than {_MAX_DIGITS} digits can't be sent")
    encoder.encode_semantic(_DECIMAL, str(value))


def _encodeDatetime(encoder: CBOREncoder, value: datetime) -> None:
    parts = [value.year, value.month, value.day, *_clock(value)]
    encoder.encode_semantic(_DATETIME, parts)


def _encodeTime(encoder: CBOREncoder, value: time) -> None:
    encoder.encode_semantic(_TIME, _clock(value))


def _encodeTimedelta(encoder: CBOREncoder, value: timedelta) -> None:
    parts = [value.days, value.seconds, value.microseconds]
    encoder.encode_semantic(_TIMEDELTA, parts)


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


_ENCODERS: dict[type, Callable[[CBOREncoder, Any], None]] = {
    type(None): lambda encoder, _: encoder.encode_none(),
    bool: CBOREncoder.encode_bool,
    int: CBOREncoder.encode_int,
    float: CBOREncoder.encode_float,
    complex: CBOREncoder.encode_complex,
    UUID: CBOREncoder.encode_uuid,
    date: CBOREncoder.encode_date,
    datetime: _encodeDatetime,
    time: _encodeTime,
    timedelta: _encodeTimedelta,
    Decimal: _encodeDecimal,
    Fraction: _encodeFraction,
    range: _encodeRange,
    slice: _encodeSlice,
}


class Decoder:
    """
    Decodes plain data.
    """

    def __init__(
        self,
        allowed: Mapping[str, type],
        unpickle: Callable[[Any, list[list[bytes]]], Any],
    ) -> None:
        """
        @param allowed: Classes of which instances are accepted, by name.

        @param unpickle: Called with a pickle, or with C{None} if it's the first of the
            buffers, and with the buffers.
        """
        self._allowed = allowed
        # What stands beside the CBOR that is being decoded, each in pieces.
        self._buffers: list[list[bytes]] = []
        self._tags: dict[int, Callable[[Any, bool], Any]] = _DECODERS | {
            PICKLE: lambda data, _: unpickle(data, self._buffers),
            _BUFFER: lambda number, _: b"".join(self._buffer(number)),
            _TEXT: lambda number, _: _text(self._buffer(number)),
            _BYTEARRAY: lambda data, _: self._writable(data),
            _ARRAY: lambda parts, _: self._array(*parts),
            _OBJECT: lambda parts, _: self._object(*parts),
        }

    def decode(self, source: Any, buffers: list[list[bytes]]) -> Any:
        """
        Decode a value.

        @param source: A file with the CBOR.

        @param buffers: What stands beside it, each in pieces.

        @raise ValueError: If that is no value, or may not be accepted.
        """
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
                read_size=READ_SIZE,
            ).decode()
        except Exception as error:
            # Whatever bytes come, no more than their value must fail.
            raise ValueError(_innermost(error)) from error
        finally:
            self._buffers = []
        if source.read(1):
            raise ValueError("there's something after the end of a value")
        return value

    def _buffer(self, number: Any) -> list[bytes]:
        if type(number) is not int or number < 0:
            raise ValueError("a buffer without a number")
        return self._buffers[number]

    def _writable(self, data: Any) -> bytearray:
        if type(data) is bytes:
            return bytearray(data)
        buffer = bytearray()
        for piece in self._buffer(data):
            buffer += piece
        return buffer

    def _array(self, typeName: str, shape: list[int], order: str, data: Any) -> Any:
        return _array(typeName, shape, order, self._writable(data))

    def _object(self, name: str, state: dict[str, Any]) -> Any:
        kind = self._allowed.get(name)
        if kind is None:
            raise ValueError(f"an instance of {name!r:.200}, which isn't allowed here")
        made: Any = object.__new__(kind)
        for attribute, value in state.items():
            # Past properties and __setattr__: no code of the class is run.
            found = (
                vars(base)[attribute]
                for base in kind.__mro__
                if attribute in vars(base)
            )
            slot = next(found, None)
            if type(slot) is MemberDescriptorType:
                slot.__set__(made, value)
            else:
                vars(made)[attribute] = value
        return made


def _innermost(error: BaseException) -> str:
    """Say what was wrong, without the containers that it was in."""
    while error.__cause__ is not None:
        error = error.__cause__
    return message(error) or type(error).__name__


def _refuseTag(tag: Any, immutable: bool) -> Any:
    raise ValueError(f"a tag that isn't accepted: {getattr(tag, 'tag', 'a known one')}")


def _checked(items: list[Any]) -> list[Any]:
    """
    Check that items can be members of a set, or keys of a dict: equal hashes would
    take time in proportion to the square of their number.
    """
    if len(items) > _MAX_SAME_HASH:
        [(_, most)] = Counter(map(hash, items)).most_common(1)
        if most > _MAX_SAME_HASH:
            raise ValueError(f"{most} values with the same hash")
    return items


def _dict(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(_checked(flat[::2]), flat[1::2], strict=True))


def _text(pieces: list[bytes]) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    texts = [decoder.decode(piece) for piece in pieces]
    return "".join((*texts, decoder.decode(b"", True)))


def _bytes(data: Any) -> bytes:
    if type(data) is not bytes:
        raise ValueError("something else than bytes")
    return data


def _range(*parts: int) -> range:
    if any(part.bit_length() > 63 for part in parts):
        raise ValueError("a range of numbers that are too large")
    return range(*parts)


def _fraction(numerator: int, denominator: int) -> Fraction:
    for number in (numerator, denominator):
        if number.bit_length() > 8 * _MAX_FRACTION_BYTES:
            raise ValueError("a fraction of numbers that are too large")
    return Fraction(numerator, denominator)


def _decimal(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS + 50:
        raise ValueError("a decimal number of too many digits")
    return Decimal(text)


def _zone(zone: Any) -> Any:
    if zone is None:
        return None
    if type(zone) is str:
        return ZoneInfo(zone)
    offset = timedelta(microseconds=zone[0])
    return timezone(offset, *zone[1:]) if offset or zone[1:] else timezone.utc


def _datetime(*parts: Any) -> datetime:
    *numbers, fold, zone = parts
    return datetime(*numbers).replace(fold=fold, tzinfo=_zone(zone))


def _time(*parts: Any) -> time:
    *numbers, fold, zone = parts
    return time(*numbers).replace(fold=fold, tzinfo=_zone(zone))


def _array(typeName: str, shape: list[int], order: Any, data: bytearray) -> Any:
    import numpy

    if not _DTYPE.fullmatch(typeName) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array of a type or shape that isn't accepted")
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape):
        raise ValueError("an array of an impossible shape")
    dtype = numpy.dtype(typeName)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("an array of another size than its data")
    if not data:
        return numpy.zeros(shape, dtype, "F" if order == "F" else "C")
    if dtype.kind == "b" and max(data) > 1:
        raise ValueError("an array with impossible truth values")
    if dtype.kind == "U":
        points = numpy.frombuffer(data, f"{typeName[0]}u4")
        if points.max() > sys.maxunicode:
            raise ValueError("an array with impossible characters")
    return numpy.ndarray(shape, dtype, data, order="F" if order == "F" else "C")


_DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    # All that cbor2 would decode otherwise, of what is or may be known to it.
    **dict.fromkeys((*range(41), *range(52, 55), 100, *range(256, 265)), _refuseTag),
    **dict.fromkeys((43001, 55799), _refuseTag),
    _BIGNUM: lambda data, _: int.from_bytes(_bytes(data), "big"),
    _NEGATIVE_BIGNUM: lambda data, _: -1 - int.from_bytes(_bytes(data), "big"),
    _RATIONAL: lambda parts, _: _fraction(*parts),
    _COMPLEX: lambda parts, _: complex(*parts),
    _UUID: lambda data, _: UUID(bytes=data),
    _DATE: lambda text, _: date.fromisoformat(text),
    _SET: lambda items, _: set(_checked(items)),
    _FROZENSET: lambda items, _: frozenset(_checked(items)),
    _TUPLE: lambda items, _: tuple(items),
    _PAIRS: lambda flat, _: _dict(flat),
    _SURROGATES: lambda data, _: data.decode("utf-8", "surrogatepass"),
    _RANGE: lambda parts, _: _range(*parts),
    _SLICE: lambda parts, _: slice(*parts),
    _DATETIME: lambda parts, _: _datetime(*parts),
    _TIME: lambda parts, _: _time(*parts),
    _TIMEDELTA: lambda parts, _: timedelta(*parts),
    _DECIMAL: lambda text, _: _decimal(text),
    _SCALAR: lambda parts, _: _array(parts[0], [], "C", bytearray(_bytes(parts[1])))[
        ()
    ],
}
