"""
The protocol between the two ends of a connection: AMP's commands, tags of the
values that they have, and what memory those take.

Any client of AMP's can speak it. Commands of every task are sent with
C{callRemoteString}, as AMP's way from arguments to boxes would double what a call
costs, and have the same boxes on the wire.

A task is named by what its client calls it, its C{ID}, and so is what belongs to it:
its arguments or its result where they're large, and its iteration. Numbers are
decimal. Values are CBOR (L{asynqueue.wire._values}).

A large value comes in C{Chunk}s once its receiver has given C{Credit} for them, in
bytes. Whoever sends more than was declared is disconnected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import IntEnum, auto
from typing import AnyStr, Generic, TypeVar

from twisted.protocols import amp

from .._child.calls import contextOf
from ..errors import WorkerError
from ..interfaces import ITask

_T = TypeVar("_T")

#: The version of the protocol. It's part of each proof of a key.
VERSION = b"2"

#: The headers that carry the context of a trace, by the field that each comes in.
_TRACE_HEADERS = {
    name.encode(): name for name in ("traceparent", "tracestate", "baggage")
}

#: What W3C Baggage allows, which is the longest of these headers.
_MAX_HEADER_BYTES = 8192


class OtherVersion(Exception):
    """The client speaks another version of the protocol."""


class WrongKey(Exception):
    """The client hasn't proved that it has the server's key."""


class Unwanted(Exception):
    """The client doesn't want a task to be run any longer."""


class Violation(ValueError):
    """A peer breaks the protocol. It's disconnected."""


def numberOf(digits: bytes) -> int:
    """@raise Violation: If it's no number, or beyond all measure."""
    if not digits.isdigit() or len(digits) > 15:
        raise Violation("a number that is none")
    return int(digits)


def traceFields(task: ITask) -> dict[str, bytes]:
    """Make fields of RunTask of the headers of a trace that a task has."""
    headers = (task.watch and task.watch.headers) or {}
    fields = {name: headers.get(name, "").encode() for name in _TRACE_HEADERS.values()}
    return {n: data for n, data in fields.items() if 0 < len(data) <= _MAX_HEADER_BYTES}


def runTraced(box: dict[bytes, bytes], f: Callable[[], _T]) -> _T:
    """Call something in the context that RunTask has the headers of, if it has any."""
    headers = {
        name: box[field].decode("latin-1")
        for field, name in _TRACE_HEADERS.items()
        if field in box
    }
    return contextOf(headers).run(f) if headers else f()


def _optional(*names: bytes) -> list[tuple[bytes, amp.String]]:
    return [(name, amp.String(optional=True)) for name in names]


class Hello(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Say which version the client speaks, and whether it accepts pickles. The first
    command; a client that accepts no pickles needn't send it where there's no key.

    Where there's one, each end sends 32 random bytes, its C{nonce}, for the other to
    prove that it has the key. C{tasks} is how many tasks a client may have here.
    """

    # AMP has it so that classes have lists and dicts.
    arguments = [(b"version", amp.String()), *_optional(b"pickle", b"nonce")]  # noqa: RUF012
    response = [*arguments, *_optional(b"tasks")]  # noqa: RUF012
    fatalErrors = {OtherVersion: b"VERSION", WrongKey: b"KEY"}  # noqa: RUF012


class Prove(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Prove that one has the key: HMAC-SHA256 with it of C{asynqueue}, the role (C{client}
    or C{server}), the version, the client's nonce and the server's, with zero bytes
    between them.
    """

    arguments = [(b"proof", amp.String())]  # noqa: RUF012
    response = [(b"proof", amp.String())]  # noqa: RUF012
    fatalErrors = {WrongKey: b"KEY"}  # noqa: RUF012


class RunTask(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Run a task: call a method by its name.

    C{args} is a tuple or list and C{kw} a dict. They may come as one pair, C{call}, and
    if C{size} is given, that comes in chunks. C{thread} and C{raw} are true if they're
    given. C{traceparent}, C{tracestate} and C{baggage} are the headers of W3C Trace
    Context and W3C Baggage.

    The answer's status is that of a worker. With C{b'c'}, the result is the size of the
    value, which comes in chunks; with C{b'i'} it's the ID for L{GetNext}. Without an
    ID, a task can't be cancelled, and has no chunks.
    """

    arguments = [  # noqa: RUF012
        (b"methodName", amp.String()),
        *_optional(b"args", b"kw", b"call", b"ID", b"size", b"thread", b"raw"),
        *_optional(*_TRACE_HEADERS),
    ]
    response = [(b"status", amp.String()), *_optional(b"result")]  # noqa: RUF012


class GetNext(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Get the next item of an iteration, or with C{count} up to so many.

    One item is C{value}. Several are C{values}, an array of those that are there as
    soon as there's one; if C{size} is given, an item of that size comes after them in
    chunks; if C{error}, the iteration has failed after them.
    """

    arguments = [(b"ID", amp.String()), *_optional(b"count")]  # noqa: RUF012
    response = [  # noqa: RUF012
        *_optional(b"value", b"values", b"size", b"error"),
        (b"isValid", amp.Boolean()),
        (b"moreLeft", amp.Boolean()),
    ]
    errors = {WorkerError: b"FAILED"}  # noqa: RUF012


class _Notice(amp.Command):  # type: ignore[misc, unused-ignore]
    """A command about a task that isn't answered."""

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    requiresAnswer = False


class ValueChunk(_Notice):
    """Take a chunk of a large value."""

    commandName = b"Chunk"
    arguments = [*_Notice.arguments, (b"data", amp.String())]  # noqa: RUF012


class Credit(_Notice):
    """Send so many more bytes of a large value."""

    arguments = [*_Notice.arguments, (b"bytes", amp.String())]  # noqa: RUF012


class Held(amp.Command):  # type: ignore[misc, unused-ignore]
    """Know that a task is held back, and not run before L{Start} has been answered."""

    arguments = [(b"ID", amp.String())]  # noqa: RUF012


class Start(amp.Command):  # type: ignore[misc, unused-ignore]
    """Know that a task that was held back is run now, unless the answer is an error."""

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    errors = {Unwanted: b"UNWANTED"}  # noqa: RUF012


class Cancel(_Notice):
    """Stop the work on a task, and forget it and its iteration."""


class Ping(amp.Command):  # type: ignore[misc, unused-ignore]
    """Answer, to show that this end is there."""


class Leaving(amp.Command):  # type: ignore[misc, unused-ignore]
    """Send no more tasks: this server is about to go. Answered when none will come."""


class ChunkyString(Generic[AnyStr]):
    """
    Iterates over slices of a large string or of bytes.

    @cvar chunkSize: The size of the slices. The last may be shorter.
    """

    chunkSize = 1 << 15

    def __init__(self, bigString: AnyStr) -> None:
        """@param bigString: What is to be cut."""
        self._string: AnyStr = bigString
        self._at = 0

    def __iter__(self) -> Iterator[AnyStr]:
        return self

    def __next__(self) -> AnyStr:
        at = self._at
        if at >= len(self._string) and at:
            raise StopIteration
        self._at = at + self.chunkSize
        part: AnyStr = self._string[at : self._at]
        return part


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


#: Bytes of memory that a value may take besides so many times its own: rows of a table
#: take 12 to 20 times as much as their CBOR.
_GROWTH_BYTES, _GROWTH_FACTOR = 128 << 20, 16

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


def checkGrowth(data: bytes) -> None:
    """@raise ValueError: If the value of some CBOR would take too much memory."""
    limit = _GROWTH_BYTES + _GROWTH_FACTOR * len(data)
    if weigh(data, limit) > limit:
        raise ValueError(
            f"{len(data)} bytes that would become more than {limit} in memory"
        )


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
