"""
The protocol between the two ends of a connection: AMP's commands.

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

from collections.abc import Callable, Iterator
from typing import Any, AnyStr, Generic

from twisted.protocols import amp

from .._child.tracing import contextOf
from ..errors import WorkerError
from ..interfaces import ITask

__all__ = [
    "VERSION",
    "Cancel",
    "ChunkyString",
    "Credit",
    "GetNext",
    "Held",
    "Hello",
    "Leaving",
    "OtherVersion",
    "Ping",
    "Prove",
    "RunTask",
    "Start",
    "Unwanted",
    "ValueChunk",
    "Violation",
    "WrongKey",
    "numberOf",
    "runTraced",
    "traceFields",
]

#: The version of the protocol. It's part of each proof of a key.
VERSION = b"2"

#: The headers that carry the context of a trace, by the field that each comes in.
_TRACE_HEADERS = {
    name.encode(): name for name in ("traceparent", "tracestate", "baggage")
}

#: What W3C Baggage allows, which is the longest of these headers.
_MAX_HEADER_BYTES = 8192


class OtherVersion(Exception):
    """
    The client speaks another version of the protocol.
    """


class WrongKey(Exception):
    """
    The client hasn't proved that it has the server's key.
    """


class Unwanted(Exception):
    """
    The client doesn't want a task to be run any longer.
    """


class Violation(ValueError):
    """
    A peer breaks the protocol. It's disconnected.
    """


def numberOf(digits: bytes) -> int:
    """@raise Violation: If it's no number, or beyond all measure."""
    if not digits.isdigit() or len(digits) > 15:
        raise Violation("a number that is none")
    return int(digits)


def traceFields(task: ITask) -> dict[str, bytes]:
    """Make fields of RunTask of the headers of a trace that a task has."""
    headers = (task.watch and task.watch.headers) or {}
    fields = {name: headers.get(name, "").encode() for name in _TRACE_HEADERS.values()}
    return {
        name: data
        for name, data in fields.items()
        if 0 < len(data) <= _MAX_HEADER_BYTES
    }


def runTraced(box: dict[bytes, bytes], f: Callable[[], Any]) -> Any:
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

    arguments = [  # noqa: RUF012 - AMP has it so
        (b"version", amp.String()),
        *_optional(b"pickle", b"nonce"),
    ]
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
    """
    A command about a task that isn't answered.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    requiresAnswer = False


class ValueChunk(_Notice):
    """
    Take a chunk of a large value.
    """

    commandName = b"Chunk"
    arguments = [*_Notice.arguments, (b"data", amp.String())]  # noqa: RUF012


class Credit(_Notice):
    """
    Send so many more bytes of a large value.
    """

    arguments = [*_Notice.arguments, (b"bytes", amp.String())]  # noqa: RUF012


class Held(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Know that a task is held back, and won't be run before L{Start} has been answered.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012


class Start(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Know that a task that was held back is run now, unless the answer is an error.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    errors = {Unwanted: b"UNWANTED"}  # noqa: RUF012


class Cancel(_Notice):
    """
    Stop the work on a task, and forget it and its iteration.
    """


class Ping(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Answer, to show that this end is there.
    """


class Leaving(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Send no more tasks: this server is about to go. Answered when none will come.
    """


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
