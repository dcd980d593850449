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

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, AnyStr, Generic

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from .._child.calls import contextOf
from ..errors import WorkerError
from ..interfaces import ITask
from ._decoding import Pieces
from ._values import Payload

#: The version of the protocol. It's part of each proof of a key.
VERSION = b"2"

#: The headers that carry the context of a trace, by the field that each comes in.
_TRACE_HEADERS = {
    name.encode(): name for name in ("traceparent", "tracestate", "baggage")
}

#: Bytes in a chunk, at most: nearly as many as a value of AMP's can have.
_CHUNK_BYTES = 65_000

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


class _SentValue(Pieces):
    """A large value that is being sent."""

    def __init__(self, ID: bytes, payload: Payload, done: Deferred[None]) -> None:
        super().__init__(payload.pieces)
        self.ID = ID
        self.credit = 0
        self.done = done

    def takeChunk(self) -> bytes | memoryview:
        """Take a chunk that may be sent now."""
        size = min(_CHUNK_BYTES, self.credit)
        self.credit -= size
        taken = self.take(size)
        # AMP copies it anyway.
        return taken[0] if len(taken) == 1 else b"".join(taken)


@define(eq=False)
class _ReceivedValue:
    """A large value that is being received."""

    left: int
    done: Deferred[list[bytes]]
    pieces: list[bytes] = field(factory=list)


class ChunkedAMP(amp.AMP):  # type: ignore[misc, unused-ignore]
    """
    AMP with large values, in chunks.

    They're sent as far as the peer gives credit for them, in turn, and while the
    transport isn't congested. Cancelling the Deferred of one stops it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._isCongested = False
        self._outgoing: dict[bytes, _SentValue] = {}
        self._incoming: dict[bytes, _ReceivedValue] = {}
        # Those that are sent and have credit, whose turn it is first. Some may be of no
        # interest any longer.
        self._sendable: deque[_SentValue] = deque()

    def send(self, ID: bytes, payload: Payload) -> Deferred[None]:
        """Send a large value as the peer asks for it, until it's been written."""
        d: Deferred[None] = Deferred(lambda _: _discard(self._outgoing, ID))
        self._outgoing[ID] = _SentValue(ID, payload, d)
        return d

    def receive(self, ID: bytes, size: int) -> Deferred[list[bytes]]:
        """Ask for the pieces of a large value, whose sender waits for that."""
        d: Deferred[list[bytes]] = Deferred(lambda _: _discard(self._incoming, ID))
        self._incoming[ID] = _ReceivedValue(size, d)
        self.tell(b"Credit", ID, bytes=b"%d" % size)
        return d

    def forgetValues(self, ID: bytes) -> None:
        """Send and receive nothing more of large values of an ID."""
        if ID in self._outgoing:
            self._outgoing[ID].done.cancel()
        if ID in self._incoming:
            self._incoming[ID].done.cancel()

    def tell(self, command: bytes, ID: bytes, **fields: bytes | memoryview) -> None:
        """Send a notice, which isn't answered."""
        self.callRemoteString(command, False, ID=ID, **fields)

    # Past AMP's own, which says so in the log of each connection.

    def makeConnection(self, transport: Any) -> None:
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._outgoing.clear()
        self._incoming.clear()
        self._sendable.clear()
        amp.BinaryBoxProtocol.connectionLost(self, reason)

    def _pump(self) -> None:
        """Send what there's credit for, until the transport is congested."""
        sendable = self._sendable
        while sendable and not self._isCongested:
            value = sendable.popleft()
            if self._outgoing.get(value.ID) is not value:
                continue
            self.tell(b"Chunk", value.ID, data=value.takeChunk())
            if value.credit:
                sendable.append(value)
            elif not value.left:
                del self._outgoing[value.ID]
                value.done.callback(None)

    def _credit(self, box: Any) -> None:
        value = self._outgoing.get(box[b"ID"])
        credit = numberOf(box[b"bytes"])
        if value is not None and credit:
            if not value.credit:
                self._sendable.append(value)
            value.credit = min(value.credit + credit, value.left)
            self._pump()

    def _chunk(self, box: Any) -> None:
        # One that nobody wants any longer is dropped.
        value, data = self._incoming.get(box[b"ID"]), box[b"data"]
        if value is not None:
            value.left -= len(data)
            if value.left < 0:
                raise Violation("more of a value than it has")
            value.pieces.append(data)
            if not value.left:
                del self._incoming[box[b"ID"]]
                value.done.callback(value.pieces)


def _discard(values: dict[bytes, Any], ID: bytes) -> None:
    values.pop(ID, None)
