"""
What stands before a connection: nothing gets through until the other end has proved
who it is.

Over Unix sockets that is known from the system, over TLS from certificates. Where there
is a key, each end asks the other to prove that it has it, for a number that's used
once, in boxes of AMP that are small. Then, and not before, there's a L{Peer}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .._log import log
from ..errors import AuthenticationError
from .commands import VERSION
from .doors import Doors
from .keys import NONCE, Key
from .peer import BoxProtocol, Fields, Peer
from .places import Place, isLoopback
from .private import checkUser
from .tls import TLS

__all__ = ["ClientGate", "Gate", "ServerGate", "Terms", "firstBox"]

#: So many bytes has a box at most that comes before the other end is known, and so many
#: fields.
_LARGEST, _MOST_FIELDS = 2000, 10

#: A client has so many seconds to prove who it is.
_PATIENCE = 10.0


@frozen
class Terms:
    """
    What the other end must prove.

    @ivar place: Where the connection is made.

    @ivar key: The key that it must have, or C{None}.

    @ivar tls: Which certificates are accepted, or C{None}.

    @ivar pickles: Whether this end accepts pickles.
    """

    place: Place
    key: Key | None
    tls: TLS | None
    pickles: bool = False

    @property
    def greeting(self) -> Fields:
        """
        What this end says of itself.
        """
        return {b"version": VERSION, **({b"pickle": b"1"} if self.pickles else {})}

    def check(self, transport: Any) -> bytes:
        """
        See who is at the other end of a transport.

        @param transport: The transport. If it has TLS, that is ready.

        @return: What the connection has that no other has.

        @raise AuthenticationError: If it's somebody whom it must not be.
        """
        place = self.place
        if self.tls is not None:
            return self.tls.check(transport, None if place.isServer else place.host)
        if place.isUnix:
            checkUser(transport)
        elif not isLoopback(getattr(transport.getPeer(), "host", "")):
            raise AuthenticationError("The other end isn't on this machine")
        return b""


@implementer(IHandshakeListener)
class Gate(Protocol):
    """
    What both ends of a connection have before it.
    """

    def __init__(self, makePeer: Callable[[], Peer], terms: Terms) -> None:
        """
        Make a gate.

        @param makePeer: Makes what is behind it.

        @param terms: What the other end must prove.
        """
        self.transport: Any = None
        self.terms = terms
        self.binding = b""
        self.isOver = False
        self._makePeer = makePeer
        self._data = b""
        self._inner: BoxProtocol | None = None

    def connectionMade(self) -> None:
        """
        Begin.
        """
        if self.terms.tls is None:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """
        Implement C{IHandshakeListener}: see who is there, as far as the transport
        knows.
        """
        try:
            self.binding = self.terms.check(self.transport)
        except AuthenticationError as error:
            self.refuse(str(error))
        else:
            self.ready()

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes.

        @param data: The bytes.
        """
        inner = self._inner
        if inner is not None:
            inner.dataReceived(data)
            return
        self._data += data
        try:
            while self._inner is None and not self.isOver:
                box, self._data = firstBox(self._data)
                if box is None:
                    break
                self.received(box)
        except (KeyError, ValueError):
            self._data = b""
            self.refuse("It sends what is no part of a handshake")
        if self.isOver:
            self._data = b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        End.

        @param reason: Why.
        """
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self.isOver = True
            self.closed(reason)

    def open(self, greeting: Fields | None) -> None:
        """
        Let the other end in.

        @param greeting: What it has said of itself, C{None} if that is yet to come.
        """
        peer = self._makePeer()
        if greeting is not None:
            peer.agreed(greeting)
        inner = self._inner = BoxProtocol(peer)
        rest, self._data = self._data, b""
        inner.makeConnection(self.transport)
        if rest:
            inner.dataReceived(rest)

    def ready(self) -> None:
        """
        Go on: the transport is what it must be.
        """
        raise NotImplementedError

    def received(self, box: Fields) -> None:
        """
        Take a box.

        @param box: The box.

        @raise KeyError: If it lacks something.

        @raise ValueError: If it's none that may come now.
        """
        raise NotImplementedError

    def refuse(self, why: str) -> None:
        """
        Let the other end not in.

        @param why: Why not.
        """
        raise NotImplementedError

    def closed(self, reason: Failure) -> None:
        """
        Note that the connection has ended before.

        @param reason: Why.
        """
        raise NotImplementedError

    def send(self, box: Fields) -> None:
        """
        Send a box.

        @param box: The box.
        """
        parts = [
            len(part).to_bytes(2, "big") + part for pair in box.items() for part in pair
        ]
        self.transport.write(b"".join((*parts, b"\0\0")))


class ServerGate(Gate):
    """
    What a client finds at a server.
    """

    def __init__(
        self, makePeer: Callable[[], Peer], terms: Terms, doors: Doors, reactor: Any
    ) -> None:
        """
        Make a gate.

        @param makePeer: See L{Gate}.

        @param terms: See L{Gate}.

        @param doors: All gates of the server.

        @param reactor: The reactor.
        """
        super().__init__(makePeer, terms)
        self._doors = doors
        self._reactor = reactor
        self._timers: list[Any] = []
        self._nonces: tuple[bytes, bytes] | None = None
        self._greeting: Fields | None = None

    def connectionMade(self) -> None:
        """
        Begin.
        """
        self._doors.enter(self)
        self._later(_PATIENCE, self._late)
        super().connectionMade()

    def open(self, greeting: Fields | None) -> None:
        """
        Let the client in.

        @param greeting: See L{Gate.open}.
        """
        self._leave()
        self._doors.opened()
        super().open(greeting)

    def abort(self) -> None:
        """
        End the connection at once.
        """
        self.isOver = True
        self.transport.abortConnection()

    def ready(self) -> None:
        """
        Implement L{Gate.ready}.
        """
        if self.terms.key is None:
            self.open(None)

    def received(self, box: Fields) -> None:
        """
        Implement L{Gate.received}: the first box is to be a C{Hello}, the next a
        C{Prove}.

        @param box: The box.
        """
        key = self.terms.key
        assert key is not None
        command, tag = box[b"_command"], box[b"_ask"]
        if command == b"Hello" and self._nonces is None:
            if box[b"version"] != VERSION:
                self.refuse("It has another version", tag, b"VERSION")
            elif b"nonce" not in box:
                self.refuse("It has no key", tag, b"KEY")
            elif len(box[b"nonce"]) != NONCE:
                raise ValueError("a number of another size")
            else:
                self._greeting = box
                self._nonces = (box[b"nonce"], os.urandom(NONCE))
                fields = {b"_answer": tag, b"nonce": self._nonces[1]}
                self.send(fields | self.terms.greeting)
        elif command == b"Prove" and self._nonces is not None:
            parts = (VERSION, *self._nonces, self.binding)
            if key.check(box[b"proof"], b"client", *parts):
                self.send({b"_answer": tag, b"proof": key.prove(b"server", *parts)})
                self.open(self._greeting)
            else:
                self.refuse("It has another key", tag, b"KEY")
        else:
            raise ValueError("no part of a handshake")

    def refuse(self, why: str, tag: bytes = b"", code: bytes = b"") -> None:
        """
        Implement L{Gate.refuse}: after a moment, which becomes longer when many are
        refused.

        @param why: Why.

        @param tag: What it's the answer to, if to anything.

        @param code: What is wrong, for programs.
        """
        self.isOver = True
        delay = self._failed(why)
        self._later(delay, lambda: self._refuse(why, tag, code))

    def closed(self, reason: Failure) -> None:
        """
        Implement L{Gate.closed}.

        @param reason: Why.
        """
        self._leave()
        if not reason.check(ConnectionClosed):
            self._failed(_aboutTLS(self, reason))

    def _refuse(self, why: str, tag: bytes, code: bytes) -> None:
        """
        Tell the client that it's refused.

        @param why: Why.

        @param tag: What it's the answer to, if to anything.

        @param code: What is wrong, for programs.
        """
        if tag:
            self.send(
                {
                    b"_error": tag[:20],
                    b"_error_code": code,
                    b"_error_description": why.encode(),
                    b"version": VERSION,
                }
            )
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def _failed(self, why: str) -> float:
        """
        Note that a client is refused.

        @param why: Why.

        @return: How long that is to take.
        """
        count, delay = self._doors.failed()
        if not count & (count - 1):
            log.warn(
                "{place} refuses {peer}, {count} in a row now: {why}",
                place=self.terms.place.description,
                peer=self.transport.getPeer(),
                count=count,
                why=why,
            )
        return delay

    def _late(self) -> None:
        """
        Refuse a client that takes too long.
        """
        self._failed(f"It hasn't proved who it is within {_PATIENCE:g} seconds")
        self.abort()

    def _later(self, delay: float, f: Callable[[], object]) -> None:
        """
        Have something done later, if the client is still there and not in.

        @param delay: In how many seconds.

        @param f: What.
        """
        self._timers.append(self._reactor.callLater(delay, f))

    def _leave(self) -> None:
        """
        Be no longer at the gate.
        """
        self._doors.leave(self)
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()


class ClientGate(Gate):
    """
    What a server has to get through before a client trusts it.

    @ivar opened: Fires with C{None} when it has, or fails.
    """

    def __init__(self, makePeer: Callable[[], Peer], terms: Terms) -> None:
        """
        Make a gate.

        @param makePeer: See L{Gate}.

        @param terms: See L{Gate}.
        """
        super().__init__(makePeer, terms)
        self.opened: Deferred[None] = Deferred(lambda _: self._abort())
        self._nonce = os.urandom(NONCE)
        self._nonces: tuple[bytes, bytes] | None = None
        self._greeting: Fields = {}
        self._hasSent = False

    def ready(self) -> None:
        """
        Implement L{Gate.ready}.
        """
        box = {b"_ask": b"1", b"_command": b"Hello", **self.terms.greeting}
        if self.terms.key is not None:
            box[b"nonce"] = self._nonce
        self._hasSent = True
        self.send(box)

    def received(self, box: Fields) -> None:
        """
        Implement L{Gate.received}: the answers to C{Hello} and C{Prove}.

        @param box: The box.
        """
        if not self._hasSent:
            raise ValueError("an answer to nothing")
        if b"_error" in box:
            self._isRefused(box)
            return
        key = self.terms.key
        if b"_answer" not in box:
            raise ValueError("no answer")
        if self._nonces is not None and key is not None:
            parts = (VERSION, *self._nonces, self.binding)
            if key.check(box[b"proof"], b"server", *parts):
                self._welcome()
            else:
                self.refuse("It hasn't proved that it has the key")
        elif box[b"version"] != VERSION:
            self._fail(ConnectionError(_otherVersion(box)))
        elif key is None:
            self._greeting = box
            self._welcome()
        elif len(box.get(b"nonce", b"")) != NONCE:
            self.refuse("It has no key, and this end has one (key=)")
        else:
            self._greeting = box
            self._nonces = (self._nonce, box[b"nonce"])
            proof = key.prove(b"client", VERSION, *self._nonces, self.binding)
            self.send({b"_ask": b"2", b"_command": b"Prove", b"proof": proof})

    def refuse(self, why: str) -> None:
        """
        Implement L{Gate.refuse}.

        @param why: Why.
        """
        place = self.terms.place.description
        self._fail(AuthenticationError(f"The server at {place} isn't trusted: {why}"))

    def closed(self, reason: Failure) -> None:
        """
        Implement L{Gate.closed}.

        @param reason: Why.
        """
        if not reason.check(ConnectionClosed):
            why = _aboutTLS(self, reason)
            if " alert " in why:
                self._fail(AuthenticationError(self._refusedText(why)))
            else:
                self.refuse(why)
        else:
            self._fail(
                ConnectionError(
                    "The connection was ended before both ends had proved who they are"
                    f" ({reason.getErrorMessage()}): is TLS at one of them only?"
                )
            )

    def _welcome(self) -> None:
        """
        Let the server in.
        """
        self.open(self._greeting)
        if not self.opened.called:
            self.opened.callback(None)

    def _isRefused(self, box: Fields) -> None:
        """
        Note that the server doesn't let this end in.

        @param box: Its answer.
        """
        code = box.get(b"_error_code")
        if code == b"VERSION":
            self._fail(ConnectionError(_otherVersion(box)))
        elif code == b"KEY":
            why = "it has another key" if self.terms.key else "it wants a key (key=)"
            self._fail(AuthenticationError(self._refusedText(why)))
        else:
            raise ValueError("an error that there isn't")

    def _refusedText(self, why: str) -> str:
        """
        Make the message about a server that doesn't let this end in.

        @param why: Why not.

        @return: The message.
        """
        return f"The server at {self.terms.place.description} refuses this end: {why}"

    def _fail(self, error: Exception) -> None:
        """
        Give up.

        @param error: Why.
        """
        self._abort()
        if not self.opened.called:
            self.opened.errback(error)

    def _abort(self) -> None:
        """
        End the connection at once.
        """
        self.isOver = True
        self.transport.abortConnection()


def firstBox(data: bytes) -> tuple[Fields | None, bytes]:
    """
    Take a box off the beginning, a small one.

    @param data: What has come.

    @return: The box, C{None} if not all of it has come, and what comes after it.

    @raise ValueError: If it's no box, or a large one.
    """
    box: Fields = {}
    parts: list[bytes] = []
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        at += 2
        if not size and not len(parts) & 1:
            box.update(zip(parts[::2], parts[1::2], strict=True))
            return box, data[at:]
        if at + size > _LARGEST or len(parts) >= 2 * _MOST_FIELDS:
            raise ValueError("a box that is too large")
        if at + size > len(data):
            break
        parts.append(data[at : at + size])
        at += size
    return None, data


def _otherVersion(box: Fields) -> str:
    """
    Make the message about a server with another version.

    @param box: Its answer.

    @return: The message.
    """
    theirs = box.get(b"version", b"?")[:20].decode("ascii", "replace")
    return (
        f"The server speaks version {theirs} of the protocol, this end"
        f" {VERSION.decode()}: install the same version of asynqueue at both"
    )


def _aboutTLS(gate: Gate, reason: Failure) -> str:
    """
    Say why there's no TLS.

    @param gate: The gate of the connection.

    @param reason: How it has failed.

    @return: The text.
    """
    why = None if gate.terms.tls is None else gate.terms.tls.why(gate.transport)
    if why is not None:
        return why
    texts = [
        str(error[-1])
        for group in getattr(reason.value, "args", ())
        if isinstance(group, list)
        for error in group
        if isinstance(error, tuple) and error
    ]
    what = "; ".join(text for text in texts if text) or type(reason.value).__name__
    return f"The TLS handshake has failed: {what}"
