"""
Bytes as plain data again.

A peer may send any bytes: lengths are checked against what there is, and nesting
against a limit, before anything is made of them. Nothing is called by name, so there's
nothing that could be run.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from ._plain import DTYPE, MOST_LEVELS, SWAP, slotsOf

__all__ = ["Decoder"]

#: An C{int} may have so many bytes where more is reckoned with it.
_MOST_RECKONED = 4_096

_SIZE = struct.Struct(">I")


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
        if depth > MOST_LEVELS + 2:
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
        slots = set(slotsOf(kind))
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
        if SWAP:
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
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
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
