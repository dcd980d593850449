"""
Plain data as bytes: what it may be, and what its encoder and its decoder share.

A value is its tag, one byte, and then what belongs to that: numbers of a fixed size,
or a length and bytes, or a count and values. Large binary data is beside the rest, as
it is, and only its tag is there, after a C{*}.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

__all__ = ["DTYPE", "MOST_LEVELS", "PLAIN", "SWAP", "NotPlain", "slotsOf"]

#: What may be sent, in words.
PLAIN = (
    "None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,"
    " frozenset, range, slice, date, time, datetime, timedelta, Decimal, Fraction,"
    " UUID, and arrays and scalars of numpy"
)

#: Values may be nested so deeply.
MOST_LEVELS = 100

#: What describes the items of an array that may be sent.
DTYPE = re.compile(r"[<>|=][biufcSU]\d{1,6}|[<>|=][mM]8(\[\d*[A-Za-z]{1,2}\])?")

#: Whether the numbers of an array have their bytes in another order when they're sent.
SWAP = sys.byteorder != "little"


class NotPlain(Exception):
    """
    A value isn't plain data. The message says which.
    """


def slotsOf(kind: type) -> Iterator[str]:
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
