"""
Plain data as bytes, and back.

A peer may send any bytes: lengths are checked against what there is, and nesting
against a limit, before anything is made of them. Nothing is called by name, so there's
nothing that could be run.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from .._about import describe

__all__ = ["PLAIN", "Decoder", "Encoder", "NotPlain"]

#: What may be sent, in words.
PLAIN = (
    "None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,"
    " frozenset, range, slice, date, time, datetime, timedelta, Decimal, Fraction,"
    " UUID, and arrays and scalars of numpy"
)

#: Values may be nested so deeply.
_MOST_LEVELS = 100

#: Binary data of so many bytes goes beside the rest, as it is.
_LARGE = 32_768

#: So many items are looked at at a stretch.
_STRETCH = 20_000

#: From so many on, it's looked whether numbers can be packed.
_FEW = 4

#: An C{int} may have so many bytes where more is reckoned with it.
_MOST_RECKONED = 4_096

#: What describes the items of an array that may be sent.
_DTYPE = re.compile(r"[<>|=][biufcSU]\d{1,6}|[<>|=][mM]8(\[\d*[A-Za-z]{1,2}\])?")

_INT64 = struct.Struct(">bq")
_FLOAT = struct.Struct(">bd")
_COMPLEX = struct.Struct(">bdd")
_SIZED = struct.Struct(">bI")
_SIZE = struct.Struct(">I")

_SWAP = sys.byteorder != "little"


class NotPlain(Exception):
    """
    A value isn't plain data. The message says which.
    """


class Encoder:
    """
    Encodes one value.

    @ivar buffers: Large binary data beside the main part, each in pieces.
    """

    def __init__(self, allowed: Mapping[str, type], most: int | None) -> None:
        """
        Make an encoder.

        @param allowed: Classes of which instances may be sent, by name.

        @param most: How many bytes the value may become. C{None} for any number.
        """
        self.buffers: list[list[Any]] = []
        self._names = {kind: name for name, kind in allowed.items()}
        self._out = bytearray()
        self._most = sys.maxsize if most is None else most
        self._beside = 0

    def encode(self, value: Any) -> None:
        """
        Encode the value.

        @param value: The value.

        @raise OverflowError: If it becomes more bytes than it may.

        @raise NotPlain: If it isn't plain data.
        """
        self._value(value, 0)
        self._check()

    def pieces(self) -> Iterator[Any]:
        """
        Get what the value has become.

        @return: An iterator of the pieces.
        """
        yield self._out
        for buffer in self.buffers:
            yield from buffer

    def _check(self) -> None:
        """
        Check how much it has become.

        @raise OverflowError: If that's too much.
        """
        if len(self._out) + self._beside > self._most:
            raise OverflowError("the value is too large")

    def _value(self, value: Any, depth: int) -> None:
        """
        Encode a value.

        @param value: The value.

        @param depth: How deeply it's nested.
        """
        kind = type(value)
        write = _WRITERS.get(kind)
        if write is not None:
            write(self, value, depth)
        elif kind in self._names:
            self._instance(value, depth)
        elif kind.__module__ == "numpy" and self._numpy(value):
            pass
        else:
            raise NotPlain(
                f"{describe(value)}, which is a {kind.__module__}.{kind.__qualname__},"
                " can't be sent"
            )

    def _none(self, value: None, depth: int) -> None:
        """
        Encode C{None}.

        @param value: It.

        @param depth: See L{_value}, as for those below.
        """
        self._out += b"N"

    def _bool(self, value: bool, depth: int) -> None:
        """
        Encode a bool.

        @param value: It.

        @param depth: See there.
        """
        self._out += b"T" if value else b"F"

    def _int(self, value: int, depth: int) -> None:
        """
        Encode an int.

        @param value: It.

        @param depth: See there.
        """
        try:
            self._out += _INT64.pack(105, value)
        except struct.error:
            data = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
            self._sized(73, data)

    def _float(self, value: float, depth: int) -> None:
        """
        Encode a float.

        @param value: It.

        @param depth: See there.
        """
        self._out += _FLOAT.pack(102, value)

    def _complex(self, value: complex, depth: int) -> None:
        """
        Encode a complex number.

        @param value: It.

        @param depth: See there.
        """
        self._out += _COMPLEX.pack(99, value.real, value.imag)

    def _str(self, value: str, depth: int) -> None:
        """
        Encode a text.

        @param value: It.

        @param depth: See there.
        """
        size = len(value)
        if size > self._most:
            raise OverflowError("the value is too large")
        if size < _LARGE:
            self._sized(115, value.encode("utf-8", "surrogatepass"))
            return
        pieces = [
            value[start : start + _LARGE].encode("utf-8", "surrogatepass")
            for start in range(0, size, _LARGE)
        ]
        self._large(115, pieces, sum(map(len, pieces)))

    def _bytes(self, value: bytes, depth: int) -> None:
        """
        Encode bytes.

        @param value: They.

        @param depth: See there.
        """
        self._sized(98, value)

    def _bytearray(self, value: bytearray, depth: int) -> None:
        """
        Encode bytes.

        @param value: They.

        @param depth: See there.
        """
        size = len(value)
        if size > self._most:
            raise OverflowError("the value is too large")
        # A view would keep it from being changed in size.
        if size < _LARGE:
            self._sized(97, bytes(value))
            return
        pieces = [
            bytes(value[start : start + _LARGE]) for start in range(0, size, _LARGE)
        ]
        self._large(97, pieces, size)

    def _list(self, value: list[Any], depth: int) -> None:
        """
        Encode a list.

        @param value: It.

        @param depth: See there.
        """
        if len(value) < _FEW or not self._packed(value):
            self._items(108, value, depth)

    def _tuple(self, value: tuple[Any, ...], depth: int) -> None:
        """
        Encode a tuple.

        @param value: It.

        @param depth: See there.
        """
        self._items(116, value, depth)

    def _set(self, value: set[Any], depth: int) -> None:
        """
        Encode a set.

        @param value: It.

        @param depth: See there.
        """
        self._items(101, value, depth)

    def _frozenset(self, value: frozenset[Any], depth: int) -> None:
        """
        Encode a frozenset.

        @param value: It.

        @param depth: See there.
        """
        self._items(122, value, depth)

    def _dict(self, value: dict[Any, Any], depth: int) -> None:
        """
        Encode a dict.

        @param value: It.

        @param depth: See there.
        """
        depth = self._deeper(value, depth)
        self._out += _SIZED.pack(100, len(value))
        for key, item in value.items():
            self._value(key, depth)
            self._value(item, depth)
            self._check()

    def _parts(self, tag: int, parts: tuple[Any, ...], depth: int) -> None:
        """
        Encode something made of parts.

        @param tag: What it is.

        @param parts: The parts.

        @param depth: See there.
        """
        self._out.append(tag)
        for part in parts:
            self._value(part, depth + 1)

    def _range(self, value: range, depth: int) -> None:
        """
        Encode a range.

        @param value: It.

        @param depth: See there.
        """
        self._parts(114, (value.start, value.stop, value.step), depth)

    def _slice(self, value: slice, depth: int) -> None:
        """
        Encode a slice.

        @param value: It.

        @param depth: See there.
        """
        self._deeper(value, depth)
        self._parts(58, (value.start, value.stop, value.step), depth)

    def _date(self, value: date, depth: int) -> None:
        """
        Encode a date.

        @param value: It.

        @param depth: See there.
        """
        self._parts(121, (value.toordinal(),), depth)

    def _timedelta(self, value: timedelta, depth: int) -> None:
        """
        Encode a timedelta.

        @param value: It.

        @param depth: See there.
        """
        self._parts(43, (value.days, value.seconds, value.microseconds), depth)

    def _time(self, value: time, depth: int) -> None:
        """
        Encode a time.

        @param value: It.

        @param depth: See there.
        """
        self._parts(109, (*_clock(value), _zone(value.tzinfo)), depth)

    def _datetime(self, value: datetime, depth: int) -> None:
        """
        Encode a datetime.

        @param value: It.

        @param depth: See there.
        """
        day = value.toordinal()
        self._parts(64, (day, *_clock(value), _zone(value.tzinfo)), depth)

    def _decimal(self, value: Decimal, depth: int) -> None:
        """
        Encode a decimal number.

        @param value: It.

        @param depth: See there.
        """
        self._parts(46, (str(value),), depth)

    def _fraction(self, value: Fraction, depth: int) -> None:
        """
        Encode a fraction.

        @param value: It.

        @param depth: See there.
        """
        self._parts(47, (value.numerator, value.denominator), depth)

    def _uuid(self, value: UUID, depth: int) -> None:
        """
        Encode a UUID.

        @param value: It.

        @param depth: See there.
        """
        self._out += b"U" + value.bytes

    def _items(self, tag: int, value: Any, depth: int) -> None:
        """
        Encode a container of items.

        @param tag: What it is.

        @param value: It.

        @param depth: How deeply it's nested.
        """
        depth = self._deeper(value, depth)
        self._out += _SIZED.pack(tag, len(value))
        for item in value:
            self._value(item, depth)
            self._check()

    def _deeper(self, value: Any, depth: int) -> int:
        """
        Go one level deeper.

        @param value: What is there.

        @param depth: How deeply it's nested.

        @return: How deeply its items are.
        """
        if depth >= _MOST_LEVELS:
            raise NotPlain(
                f"{describe(value)} is nested more than {_MOST_LEVELS} levels deep, or"
                " contains itself, and can't be sent"
            )
        return depth + 1

    def _sized(self, tag: int, data: Any) -> None:
        """
        Write binary data, beside the rest if it's large.

        @param tag: What it is.

        @param data: It.
        """
        size = len(data)
        if size >= _LARGE:
            self._large(tag, [data], size)
        else:
            self._out += _SIZED.pack(tag, size)
            self._out += data

    def _large(self, tag: int, pieces: list[Any], size: int) -> None:
        """
        Put binary data beside the rest.

        @param tag: What it is.

        @param pieces: It.

        @param size: Its size.
        """
        self._out += b"*"
        self._out.append(tag)
        self.buffers.append(pieces)
        self._beside += size
        self._check()

    def _packed(self, value: list[Any]) -> bool:
        """
        Encode a list of only floats or only ints as an array.

        @param value: The list.

        @return: Whether that has been possible.
        """
        kind = type(value[0])
        if kind is not float and kind is not int:
            return False
        if len(value) * 8 > self._most:
            raise OverflowError("the value is too large")
        pieces = []
        for start in range(0, len(value), _STRETCH):
            part = value[start : start + _STRETCH]
            if set(map(type, part)) != {kind}:
                return False
            try:
                packed = array("d" if kind is float else "q", part)
            except OverflowError:
                return False
            if _SWAP:
                packed.byteswap()
            pieces.append(packed.tobytes())
        size = sum(map(len, pieces))
        tag = 68 if kind is float else 81
        if size >= _LARGE:
            self._large(tag, pieces, size)
        else:
            self._sized(tag, b"".join(pieces))
        return True

    def _instance(self, value: Any, depth: int) -> None:
        """
        Encode an instance of a class that is allowed, by its attributes.

        @param value: It.

        @param depth: How deeply it's nested.
        """
        depth = self._deeper(value, depth)
        state = dict(getattr(value, "__dict__", ()))
        for name in _slotsOf(type(value)):
            try:
                state[name] = getattr(value, name)
            except AttributeError:  # noqa: PERF203 - a slot may be empty
                continue
        self._out += b"o"
        self._str(self._names[type(value)], depth)
        self._dict(state, depth)

    def _numpy(self, value: Any) -> bool:
        """
        Encode something of numpy's.

        @param value: It.

        @return: Whether that is possible.
        """
        import numpy

        if type(value) is numpy.ndarray:
            if not _DTYPE.fullmatch(value.dtype.str) or not value.dtype.itemsize:
                return False
            if value.nbytes > self._most:
                raise OverflowError("the value is too large")
            fortran = value.flags.f_contiguous and not value.flags.c_contiguous
            if fortran:
                value = value.T
            data = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
            self._parts(110, (value.dtype.str, fortran, value.shape), 0)
            self._sized(98, memoryview(data))
            return True
        if isinstance(value, numpy.generic) and _DTYPE.fullmatch(value.dtype.str):
            self._parts(103, (value.dtype.str, value.tobytes()), 0)
            return True
        return False


def _clock(value: Any) -> tuple[int, ...]:
    """
    Take the time of a day apart.

    @param value: A time or datetime.

    @return: Its parts.
    """
    return (value.hour, value.minute, value.second, value.microsecond, value.fold)


def _zone(zone: tzinfo | None) -> Any:
    """
    Take a time zone apart.

    @param zone: The zone.

    @return: C{None}, an offset, or a name.
    """
    if zone is None:
        return None
    if type(zone) is timezone:
        return zone.utcoffset(None)
    key = getattr(zone, "key", None)
    if type(zone).__module__.partition(".")[0] == "zoneinfo" and isinstance(key, str):
        return key
    raise NotPlain(f"the time zone {describe(zone)} can't be sent")


def _slotsOf(kind: type) -> Iterator[str]:
    """
    Find the slots of a class.

    @param kind: The class.

    @return: Their names.
    """
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name


_WRITERS: dict[type, Callable[[Encoder, Any, int], None]] = {
    type(None): Encoder._none,
    bool: Encoder._bool,
    int: Encoder._int,
    float: Encoder._float,
    complex: Encoder._complex,
    str: Encoder._str,
    bytes: Encoder._bytes,
    bytearray: Encoder._bytearray,
    list: Encoder._list,
    tuple: Encoder._tuple,
    dict: Encoder._dict,
    set: Encoder._set,
    frozenset: Encoder._frozenset,
    range: Encoder._range,
    slice: Encoder._slice,
    date: Encoder._date,
    datetime: Encoder._datetime,
    time: Encoder._time,
    timedelta: Encoder._timedelta,
    Decimal: Encoder._decimal,
    Fraction: Encoder._fraction,
    UUID: Encoder._uuid,
}


class Decoder:
    """
    Decodes one value.
    """

    def __init__(
        self, data: bytes, buffers: list[list[bytes]], allowed: Mapping[str, type]
    ) -> None:
        """
        Make a decoder.

        @param data: The main part.

        @param buffers: The binary data beside it, each in pieces.

        @param allowed: Classes of which instances are accepted, by name.
        """
        self._data = data
        self._at = 0
        self._buffers = buffers[::-1]
        self._allowed = allowed

    def decode(self) -> Any:
        """
        Decode the value.

        @return: The value.

        @raise ValueError: If there's none.
        """
        try:
            value = self._value(0)
        except ValueError:
            raise
        except (ArithmeticError, IndexError, LookupError, TypeError) as error:
            raise ValueError(f"bytes that are no value: {error}") from error
        if self._at != len(self._data) or self._buffers:
            raise ValueError("a value with something after its end")
        return value

    def _value(self, depth: int) -> Any:
        """
        Decode the value that begins here.

        @param depth: How deeply it's nested.

        @return: The value.
        """
        tag = self._data[self._at]
        self._at += 1
        if depth > _MOST_LEVELS + 2:
            raise ValueError("a value that is nested too deeply")
        return _READERS[tag](self, depth)

    def _take(self, size: int) -> bytes:
        """
        Take some bytes.

        @param size: How many.

        @return: They.
        """
        at = self._at
        end = at + size
        if end > len(self._data):
            raise ValueError("a value that is cut off")
        self._at = end
        return self._data[at:end]

    def _count(self, each: int = 1) -> int:
        """
        Read a number of items.

        @param each: How many bytes each has at least.

        @return: The number.
        """
        count: int = _SIZE.unpack(self._take(4))[0]
        if count * each > len(self._data) - self._at:
            raise ValueError("a value that is cut off")
        return count

    def _parts(self, count: int, depth: int) -> list[Any]:
        """
        Read parts.

        @param count: How many.

        @param depth: How deeply what they're of is nested.

        @return: They.
        """
        return [self._value(depth + 1) for _ in range(count)]

    def _none(self, depth: int) -> None:
        """
        Decode C{None}.

        @param depth: See L{_value}, as for those below.
        """

    def _true(self, depth: int) -> bool:
        """
        Decode C{True}.

        @param depth: See there.

        @return: It.
        """
        return True

    def _false(self, depth: int) -> bool:
        """
        Decode C{False}.

        @param depth: See there.

        @return: It.
        """
        return False

    def _int(self, depth: int) -> int:
        """
        Decode an int.

        @param depth: See there.

        @return: It.
        """
        return int.from_bytes(self._take(8), "big", signed=True)

    def _bigint(self, depth: int) -> int:
        """
        Decode a large int.

        @param depth: See there.

        @return: It.
        """
        return int.from_bytes(self._take(self._count()), "big", signed=True)

    def _float(self, depth: int) -> float:
        """
        Decode a float.

        @param depth: See there.

        @return: It.
        """
        value: float = struct.unpack(">d", self._take(8))[0]
        return value

    def _complex(self, depth: int) -> complex:
        """
        Decode a complex number.

        @param depth: See there.

        @return: It.
        """
        return complex(*struct.unpack(">dd", self._take(16)))

    def _str(self, depth: int) -> str:
        """
        Decode a text.

        @param depth: See there.

        @return: It.
        """
        return str(self._take(self._count()), "utf-8", "surrogatepass")

    def _bytes(self, depth: int) -> bytes:
        """
        Decode bytes.

        @param depth: See there.

        @return: They.
        """
        return self._take(self._count())

    def _bytearray(self, depth: int) -> bytearray:
        """
        Decode bytes.

        @param depth: See there.

        @return: They.
        """
        return bytearray(self._take(self._count()))

    def _list(self, depth: int) -> list[Any]:
        """
        Decode a list.

        @param depth: See there.

        @return: It.
        """
        return self._parts(self._count(), depth)

    def _tuple(self, depth: int) -> tuple[Any, ...]:
        """
        Decode a tuple.

        @param depth: See there.

        @return: It.
        """
        return tuple(self._parts(self._count(), depth))

    def _set(self, depth: int) -> set[Any]:
        """
        Decode a set.

        @param depth: See there.

        @return: It.
        """
        return set(self._parts(self._count(), depth))

    def _frozenset(self, depth: int) -> frozenset[Any]:
        """
        Decode a frozenset.

        @param depth: See there.

        @return: It.
        """
        return frozenset(self._parts(self._count(), depth))

    def _dict(self, depth: int) -> dict[Any, Any]:
        """
        Decode a dict.

        @param depth: See there.

        @return: It.
        """
        value = {}
        for _ in range(self._count(2)):
            key = self._value(depth + 1)
            value[key] = self._value(depth + 1)
        return value

    def _floats(self, depth: int) -> list[Any]:
        """
        Decode a list of floats.

        @param depth: See there.

        @return: It.
        """
        return _unpacked("d", [self._take(self._count())])

    def _ints(self, depth: int) -> list[Any]:
        """
        Decode a list of ints.

        @param depth: See there.

        @return: It.
        """
        return _unpacked("q", [self._take(self._count())])

    def _range(self, depth: int) -> range:
        """
        Decode a range.

        @param depth: See there.

        @return: It.
        """
        return range(*self._parts(3, depth))

    def _slice(self, depth: int) -> slice:
        """
        Decode a slice.

        @param depth: See there.

        @return: It.
        """
        return slice(*self._parts(3, depth))

    def _date(self, depth: int) -> date:
        """
        Decode a date.

        @param depth: See there.

        @return: It.
        """
        return date.fromordinal(*self._parts(1, depth))

    def _timedelta(self, depth: int) -> timedelta:
        """
        Decode a timedelta.

        @param depth: See there.

        @return: It.
        """
        return timedelta(*self._parts(3, depth))

    def _time(self, depth: int) -> time:
        """
        Decode a time.

        @param depth: See there.

        @return: It.
        """
        return _timeOf(*self._parts(6, depth))

    def _datetime(self, depth: int) -> datetime:
        """
        Decode a datetime.

        @param depth: See there.

        @return: It.
        """
        ordinal, *clock = self._parts(7, depth)
        return datetime.combine(date.fromordinal(ordinal), _timeOf(*clock))

    def _decimal(self, depth: int) -> Decimal:
        """
        Decode a decimal number.

        @param depth: See there.

        @return: It.
        """
        [text] = self._parts(1, depth)
        if not isinstance(text, str):
            raise ValueError("a decimal number that isn't one")
        return Decimal(text)

    def _fraction(self, depth: int) -> Fraction:
        """
        Decode a fraction.

        @param depth: See there.

        @return: It.
        """
        parts = self._parts(2, depth)
        for part in parts:
            # Reducing it takes much longer the larger it is.
            if type(part) is not int or part.bit_length() > 8 * _MOST_RECKONED:
                raise ValueError("a fraction that isn't one, or is too large")
        return Fraction(*parts)

    def _uuid(self, depth: int) -> UUID:
        """
        Decode a UUID.

        @param depth: See there.

        @return: It.
        """
        return UUID(bytes=self._take(16))

    def _large(self, depth: int) -> Any:
        """
        Decode what is beside the rest.

        @param depth: See there.

        @return: It.
        """
        tag = self._data[self._at]
        self._at += 1
        pieces = self._buffers.pop()
        if tag == 98:
            return b"".join(pieces)
        if tag == 115:
            return _text(pieces)
        if tag == 97:
            whole = bytearray()
            for piece in pieces:
                whole += piece
            return whole
        if tag in (68, 81):
            return _unpacked("d" if tag == 68 else "q", pieces)
        raise ValueError("bytes that are no value")

    def _array(self, depth: int) -> Any:
        """
        Decode an array of numpy's.

        @param depth: See there.

        @return: It.
        """
        numpy = _importNumpy()
        name, fortran, shape = self._parts(3, depth)
        kind = _dtype(numpy, name)
        if type(shape) is not tuple or len(shape) > 32:
            raise ValueError("an array without a shape")
        size = kind.itemsize
        for length in shape:
            if type(length) is not int or length < 0:
                raise ValueError("an array without a shape")
            size *= length
        pieces = self._binary()
        if sum(map(len, pieces)) != size:
            raise ValueError("an array that is cut off")
        data = numpy.empty(size, numpy.uint8)
        at = 0
        for piece in pieces:
            data[at : at + len(piece)] = numpy.frombuffer(piece, numpy.uint8)
            at += len(piece)
        value = data.view(kind).reshape(shape)
        return value.T if fortran else value

    def _binary(self) -> list[bytes]:
        """
        Read binary data, wherever it is.

        @return: Pieces of it.
        """
        tag = self._take(1)
        if tag == b"*" and self._take(1) == b"b":
            return self._buffers.pop()
        if tag != b"b":
            raise ValueError("bytes that are no value")
        data = self._take(self._count())
        return [data] if data else []

    def _scalar(self, depth: int) -> Any:
        """
        Decode a scalar of numpy's.

        @param depth: See there.

        @return: It.
        """
        numpy = _importNumpy()
        name, data = self._parts(2, depth)
        kind = _dtype(numpy, name)
        if type(data) is not bytes or len(data) != kind.itemsize:
            raise ValueError("a number that is cut off")
        return numpy.frombuffer(data, kind)[0]

    def _instance(self, depth: int) -> Any:
        """
        Decode an instance of a class that is allowed, without calling code of it.

        @param depth: See there.

        @return: It.
        """
        name, state = self._parts(2, depth)
        kind = self._allowed.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ValueError(f"an instance of {name!r}, which isn't accepted here")
        if not isinstance(state, dict):
            raise ValueError("an instance without attributes")
        value: Any = object.__new__(kind)
        slots = set(_slotsOf(kind))
        for key, item in state.items():
            if not isinstance(key, str):
                raise ValueError("an instance with an attribute without a name")
            if key in slots:
                object.__setattr__(value, key, item)
            else:
                value.__dict__[key] = item
        return value


def _unpacked(code: str, pieces: list[bytes]) -> list[Any]:
    """
    Get the numbers of an array.

    @param code: What they are.

    @param pieces: The array, cut anywhere.

    @return: The numbers.
    """
    numbers: list[Any] = []
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // 8 * 8
        packed = array(code, data[:whole])
        if _SWAP:
            packed.byteswap()
        numbers.extend(packed)
        rest = data[whole:]
    if rest:
        raise ValueError("a list that is cut off")
    return numbers


def _text(pieces: list[bytes]) -> str:
    """
    Get a large text.

    @param pieces: Its bytes, cut anywhere.

    @return: The text.
    """
    from codecs import getincrementaldecoder

    decoder = getincrementaldecoder("utf-8")("surrogatepass")
    texts = [decoder.decode(piece) for piece in pieces]
    texts.append(decoder.decode(b"", True))
    return "".join(texts)


def _timeOf(h: int, m: int, s: int, us: int, fold: int, zone: Any) -> time:
    """
    Put the time of a day together.

    @param h: The hour.

    @param m: The minute.

    @param s: The second.

    @param us: The microsecond.

    @param fold: Which of two equal times it is.

    @param zone: What the time zone was taken apart to.

    @return: The time.
    """
    return time(h, m, s, us, tzinfo=_zoneOf(zone), fold=fold)


def _zoneOf(zone: Any) -> tzinfo | None:
    """
    Get a time zone.

    @param zone: What it was taken apart to.

    @return: The zone.
    """
    if zone is None:
        return None
    if isinstance(zone, timedelta):
        return timezone(zone)
    from zoneinfo import ZoneInfo

    if not isinstance(zone, str):
        raise ValueError("a time zone that isn't one")
    return ZoneInfo(zone)


def _importNumpy() -> Any:
    """
    Import numpy.

    @return: It.

    @raise ValueError: If it isn't installed.
    """
    try:
        import numpy
    except ImportError:
        raise ValueError("an array, and numpy isn't installed here") from None
    return numpy


def _dtype(numpy: Any, name: Any) -> Any:
    """
    Get the type of the items of an array.

    @param numpy: The module.

    @param name: The type's name.

    @return: The type.
    """
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise ValueError("an array of something that isn't accepted")
    kind = numpy.dtype(name)
    if kind.hasobject or not kind.itemsize:
        raise ValueError("an array of something that isn't accepted")
    return kind


_READERS: dict[int, Callable[[Decoder, int], Any]] = {
    ord("N"): Decoder._none,
    ord("T"): Decoder._true,
    ord("F"): Decoder._false,
    ord("i"): Decoder._int,
    ord("I"): Decoder._bigint,
    ord("f"): Decoder._float,
    ord("c"): Decoder._complex,
    ord("s"): Decoder._str,
    ord("b"): Decoder._bytes,
    ord("a"): Decoder._bytearray,
    ord("l"): Decoder._list,
    ord("t"): Decoder._tuple,
    ord("e"): Decoder._set,
    ord("z"): Decoder._frozenset,
    ord("d"): Decoder._dict,
    ord("D"): Decoder._floats,
    ord("Q"): Decoder._ints,
    ord("r"): Decoder._range,
    ord(":"): Decoder._slice,
    ord("y"): Decoder._date,
    ord("+"): Decoder._timedelta,
    ord("m"): Decoder._time,
    ord("@"): Decoder._datetime,
    ord("."): Decoder._decimal,
    ord("/"): Decoder._fraction,
    ord("U"): Decoder._uuid,
    ord("*"): Decoder._large,
    ord("n"): Decoder._array,
    ord("g"): Decoder._scalar,
    ord("o"): Decoder._instance,
}
