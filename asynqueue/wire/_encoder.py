"""
Plain data as bytes.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from .._child.describe import describe
from ._plain import DTYPE, MOST_LEVELS, SWAP, NotPlain, slotsOf

__all__ = ["Encoder"]

#: Binary data of so many bytes goes beside the rest, as it is.
_LARGE = 32_768

#: So many items are looked at at a stretch.
_STRETCH = 20_000

#: From so many on, it's looked whether numbers can be packed.
_FEW = 4

_INT64 = struct.Struct(">bq")
_FLOAT = struct.Struct(">bd")
_COMPLEX = struct.Struct(">bdd")
_SIZED = struct.Struct(">bI")


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
        if depth >= MOST_LEVELS:
            raise NotPlain(
                f"{describe(value)} is nested more than {MOST_LEVELS} levels deep, or"
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
            if SWAP:
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
        for name in slotsOf(type(value)):
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
            if not DTYPE.fullmatch(value.dtype.str) or not value.dtype.itemsize:
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
        if isinstance(value, numpy.generic) and DTYPE.fullmatch(value.dtype.str):
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
