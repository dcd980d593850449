"""
One end of a connection: boxes of AMP, streams, and signs of life.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from .._support.log import log
from ._chunks import Incoming, Outgoing, Overrun

__all__ = ["BoxProtocol", "Fields", "Peer", "Reply", "numberOf"]

#: What a box holds.
Fields = dict[bytes, bytes]

#: What is called with the answer to a box. C{None} stands for an answer that is an
#: error.
Reply = Callable[["Fields | None"], object]

#: A peer is given up when nothing has come for so many heartbeats.
_MOST_SILENT = 3

#: A connection that is being closed has so many seconds to deliver what was written.
_CLOSING = 5.0

#: A key has so many bytes at most, and a box so many fields.
_LONGEST_KEY, _MOST_FIELDS = 255, 20

_SHORT = struct.Struct("!H")


class BoxProtocol(Protocol):
    """
    The protocol of a connection: AMP's boxes, read and written without its detours.
    """

    def __init__(self, peer: Peer) -> None:
        """
        Make a protocol.

        @param peer: Takes the boxes.
        """
        self._peer = peer
        self._rest = b""

    def connectionMade(self) -> None:
        """
        Begin.
        """
        self._peer.begin(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        End.

        @param reason: Why.
        """
        self._peer.end(reason)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes, which are a sign of life.

        @param data: The bytes.
        """
        peer = self._peer
        peer.heard = True
        if self._rest:
            data = self._rest + data
            self._rest = b""
        start, end = 0, len(data)
        while start < end:
            box: Fields = {}
            at = start
            while True:
                if at + 2 > end:
                    self._rest = data[start:]
                    return
                size = data[at] << 8 | data[at + 1]
                at += 2
                if not size:
                    break
                if size > _LONGEST_KEY or len(box) >= _MOST_FIELDS:
                    peer.complain("what is no box")
                    return
                middle = at + size
                if middle + 2 > end:
                    self._rest = data[start:]
                    return
                key = data[at:middle]
                at = middle + 2
                middle = at + (data[middle] << 8 | data[middle + 1])
                if middle > end:
                    self._rest = data[start:]
                    return
                box[key] = data[at:middle]
                at = middle
            start = at
            peer.received(box)
            if peer.transport is None:
                return


class Peer:
    """
    One end of a connection.

    Subclasses have a table of C{handlers}, by command. A handler that raises
    C{ValueError} has found the other end not to keep to the protocol.

    @ivar heard: Whether anything has come since the last heartbeat.

    @ivar transport: The transport, C{None} before and after the connection.

    @ivar handlers: What is called with a box that has come, by its command.
    """

    def __init__(self, heartbeat: float | None, reactor: IReactorTime) -> None:
        """
        Make an end.

        @param heartbeat: Seconds between signs of life, C{None} for none.

        @param reactor: The reactor.
        """
        self.heard = False
        self.transport: Any = None
        self.handlers: dict[bytes, Callable[[Fields], object]] = {
            b"Chunk": self._chunk,
            b"Credit": self._credit,
            b"Beat": lambda box: None,
        }
        self.reactor = reactor
        self.outgoing: dict[bytes, Outgoing] = {}
        self.incoming: dict[bytes, Incoming] = {}
        self._heartbeat = heartbeat
        self._silent = 0
        self._timer: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._questions: dict[bytes, Reply] = {}
        self._number = 0
        self._reason: Exception | None = None

    def begin(self, transport: Any) -> None:
        """
        Begin: there's a connection.

        @param transport: Its transport.
        """
        self.transport = transport
        if self._heartbeat is not None:
            self._timer = self.reactor.callLater(self._heartbeat, self._beat)
        self.connected()

    def agreed(self, greeting: Fields) -> None:
        """
        Keep to what the other end can do. It's called before L{begin}, if at all.

        @param greeting: What it has said of itself.
        """

    def received(self, box: Fields) -> None:
        """
        Take a box.

        @param box: The box.
        """
        if self.transport is None:
            return
        try:
            command = box.get(b"_command")
            if command is not None:
                handler = self.handlers.get(command)
                if handler is not None:
                    handler(box)
                elif b"_ask" in box:
                    self.refuse(box, "UNHANDLED", "There's no such command")
                else:
                    raise ValueError("a command that there isn't")
            elif b"_answer" in box:
                self._answered(box[b"_answer"], box)
            elif b"_error" in box:
                self._answered(box[b"_error"], None)
            else:
                raise ValueError("a box that is none of AMP's")
        except (KeyError, ValueError, Overrun) as error:
            self.complain(str(error))
        except Exception:  # noqa: BLE001 - what has come mustn't end anything else
            log.failure("A box from {peer} led to an error", peer=self)
            self.abort(ConnectionError("A box has led to an error here"))

    def complain(self, what: str) -> None:
        """
        End the connection, because the other end doesn't keep to the protocol.

        @param what: What it sends.
        """
        log.warn("{peer} doesn't keep to the protocol: {what}", peer=self, what=what)
        self.abort(ConnectionError(f"The other end sends {what}"))

    def end(self, reason: Failure) -> None:
        """
        End: there's no connection any longer.

        @param reason: Why.
        """
        self.transport = None
        for timer in (self._timer, self._closing):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._closing = None
        self._questions.clear()
        self.outgoing.clear()
        self.incoming.clear()
        self.disconnected(self._reason or cast(Exception, reason.value))

    def connected(self) -> None:
        """
        Note that there's a connection.
        """

    def disconnected(self, reason: BaseException) -> None:
        """
        Note that there's none any longer.

        @param reason: Why.
        """

    def record(self, ID: bytes, kind: bytes, pieces: list[bytes]) -> None:
        """
        Take a record of a stream.

        @param ID: What the stream belongs to.

        @param kind: What it is.

        @param pieces: Its content.
        """
        raise NotImplementedError

    def overrun(self, ID: bytes, error: Overrun) -> None:
        """
        Note that a record of a stream is too large. By default, that's the end.

        @param ID: What the stream belongs to.

        @param error: What is wrong.
        """
        raise error

    def sent(self, ID: bytes) -> None:
        """
        Note that all of a stream has been sent that was there.

        @param ID: What the stream belongs to.
        """

    def taken(self, ID: bytes, count: int) -> None:
        """
        Note that items of an iteration have been taken.

        @param ID: What the stream belongs to.

        @param count: How many.
        """

    def write(self, box: Fields) -> None:
        """
        Send a box.

        @param box: The box.
        """
        transport = self.transport
        if transport is None:
            return
        pack = _SHORT.pack
        parts: list[bytes] = []
        for key, value in box.items():
            parts += (pack(len(key)), key, pack(len(value)), value)
        parts.append(b"\0\0")
        transport.write(b"".join(parts))

    def ask(self, command: bytes, box: Fields, reply: Reply) -> None:
        """
        Send a box that is answered.

        @param command: The command.

        @param box: The rest.

        @param reply: Called with the answer, unless the connection ends before.
        """
        self._number += 1
        tag = b"%x" % self._number
        self._questions[tag] = reply
        self.write({b"_ask": tag, b"_command": command, **box})

    def tell(self, command: bytes, ID: bytes, **fields: int) -> None:
        """
        Send a box about a task that isn't answered.

        @param command: The command.

        @param ID: The task's ID.

        @param fields: Numbers besides.
        """
        box = {b"_command": command, b"ID": ID}
        for name, value in fields.items():
            box[name.encode()] = b"%d" % value
        self.write(box)

    def answer(self, tag: bytes, **fields: bytes) -> None:
        """
        Answer a box.

        @param tag: Its C{_ask}.

        @param fields: The answer.
        """
        box = {b"_answer": tag}
        for name, value in fields.items():
            box[name.encode()] = value
        self.write(box)

    def refuse(self, box: Fields, code: str, text: str, **fields: bytes) -> None:
        """
        Answer a box with an error.

        @param box: The box.

        @param code: What the error is, for programs.

        @param text: The same, for people.

        @param fields: What else is to be known.
        """
        self.write(
            {
                b"_error": box[b"_ask"],
                b"_error_code": code.encode(),
                b"_error_description": text.encode()[:1000],
                **{name.encode(): value for name, value in fields.items()},
            }
        )

    def send(self, ID: bytes, kind: bytes, payload: list[Any]) -> None:
        """
        Send a record of a stream, as far as there's credit for it.

        @param ID: What the stream belongs to.

        @param kind: What it is.

        @param payload: The pieces of its content.
        """
        self.put(ID, kind, payload)
        self.pump(ID)

    def put(self, ID: bytes, kind: bytes, payload: list[Any]) -> None:
        """
        Add a record to a stream that is sent later.

        @param ID: What the stream belongs to.

        @param kind: What it is.

        @param payload: The pieces of its content.
        """
        outgoing = self.outgoing.get(ID)
        if outgoing is None:
            outgoing = self.outgoing[ID] = Outgoing()
        outgoing.put(kind, payload)

    def pump(self, ID: bytes) -> None:
        """
        Send what there's credit for.

        @param ID: What the stream belongs to.
        """
        outgoing = self.outgoing.get(ID)
        if outgoing is None:
            return
        had = outgoing.size
        while outgoing.size and outgoing.credit:
            data = outgoing.take()
            self.write({b"_command": b"Chunk", b"ID": ID, b"data": data})
        if had and not outgoing.size:
            self.sent(ID)

    def close(self) -> None:
        """
        End the connection once what was written has been delivered, or some seconds
        later.
        """
        if self.transport is not None and self._closing is None:
            self._closing = self.reactor.callLater(_CLOSING, self.abort)
            self.transport.loseConnection()

    def abort(self, reason: Exception | None = None) -> None:
        """
        End the connection at once.

        @param reason: Why.
        """
        transport = self.transport
        if transport is not None:
            self._reason = self._reason or reason
            transport.abortConnection()

    def _answered(self, tag: bytes, box: Fields | None) -> None:
        """
        Take an answer.

        @param tag: What it's an answer to.

        @param box: The answer.
        """
        reply = self._questions.pop(tag, None)
        if reply is None:
            raise ValueError("an answer to nothing")
        reply(box)

    def _chunk(self, box: Fields) -> None:
        """
        Take a chunk of a stream. One that nobody wants any longer is dropped.

        @param box: The box.
        """
        ID = box[b"ID"]
        incoming = self.incoming.get(ID)
        if incoming is None:
            return
        try:
            for kind, pieces in incoming.feed(box[b"data"]):
                self.record(ID, kind, pieces)
                if self.incoming.get(ID) is not incoming:
                    # Nobody wants the rest.
                    return
        except Overrun as error:
            self.overrun(ID, error)
        credit = incoming.credit()
        if credit and self.incoming.get(ID) is incoming:
            self.tell(b"Credit", ID, bytes=credit)

    def _credit(self, box: Fields) -> None:
        """
        Take credit for a stream.

        @param box: The box.
        """
        ID = box[b"ID"]
        if b"items" in box:
            self.taken(ID, numberOf(box[b"items"]))
        if b"bytes" in box:
            credit = numberOf(box[b"bytes"])
            outgoing = self.outgoing.get(ID)
            if outgoing is not None:
                outgoing.credit += credit
                self.pump(ID)

    def _beat(self) -> None:
        """
        See whether the other end is there, and have it know that this one is.

        A reactor that was kept from running for long is late with this, and no more:
        it's counted how often nothing has come, not for how long.
        """
        assert self._heartbeat is not None
        self._timer = self.reactor.callLater(self._heartbeat, self._beat)
        self._silent = 0 if self.heard else self._silent + 1
        self.heard = False
        if self._silent >= _MOST_SILENT:
            self.abort(
                TimeoutError(
                    "Nothing has come from the other end for"
                    f" {self._silent * self._heartbeat:g} seconds"
                )
            )
            return
        # Also if something was sent just now: else it could be nearly two heartbeats
        # until the next sign, and the other end's may be shorter than these.
        self.write({b"_command": b"Beat"})


def numberOf(digits: bytes) -> int:
    """
    Read a number.

    @param digits: Its digits.

    @return: The number, which isn't negative.

    @raise ValueError: If it's none, or beyond all measure.
    """
    if not digits.isdigit() or len(digits) > 15:
        raise ValueError("a number that is none")
    return int(digits)
