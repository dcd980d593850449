"""
How much memory a value takes that is CBOR yet.
"""

from __future__ import annotations

import re

__all__ = ["weigh"]

#: Bytes of objects in CPython at most, with a pointer to them: a constant, a number, a
#: list, a dict or set of few entries, each entry of larger ones, bytes or text without
#: what is in it, a time or a range, and whatever else has a tag.
_CONSTANT, _NUMBER, _LIST, _TABLE, _ENTRY = 8, 48, 88, 264, 100
_TEXT, _TIME, _TAGGED = 80, 160, 264

#: Bytes that a byte of CBOR can become if it's not the first of a list, dict or tag.
_PER_BYTE = 80

#: The first bytes of these.
_CONTAINERS = bytes(range(0x80, 0xDC))

#: The tag of tuples.
_TUPLE = 42_244

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
    takes, and for most values not twice as much.

    @param limit: The estimate is only made as exact as it takes to compare it with
        this.
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
        isTable = major == _TAG and count != _TUPLE
    return total


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Read an item's major type and its argument, and tell where its content begins."""
    major, short = data[at] >> 5, data[at] & 0x1F
    if short < 24:
        return major, short, at + 1
    end = at + 1 + (1 << (short - 24))
    return major, int.from_bytes(data[at + 1 : end], "big"), end
