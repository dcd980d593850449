"""
What stands before a connection: nothing gets through until the other end has proved
who it is.

Over Unix sockets that is known from the system, over TLS from certificates. Where there
is a key, each end asks the other to prove that it has it, for a number that's used
once, in boxes of AMP that are small. Then, and not before, there's a L{Peer}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import AuthenticationError
from ._commands import VERSION
from ._credentials import tlsErrorText
from ._endpoints import Requirements
from ._peer import BoxProtocol, Fields, Peer

__all__ = ["Gate", "aboutTLS", "firstBox"]

#: So many bytes has a box at most that comes before the other end is known, and so many
#: fields.
_LARGEST, _MOST_FIELDS = 2000, 10


def _greeting(pickles: bool) -> Fields:
    """
    Say what an end says of itself.

    @param pickles: Whether it accepts pickles.

    @return: The fields.
    """
    return {b"version": VERSION, **({b"pickle": b"1"} if pickles else {})}


@implementer(IHandshakeListener)
class Gate(Protocol):
    """
    What both ends of a connection have before it.
    """

    def __init__(
        self, makePeer: Callable[[], Peer], terms: Requirements, pickles: bool = False
    ) -> None:
        """
        Make a gate.

        @param makePeer: Makes what is behind it.

        @param terms: What the other end must prove.

        @param pickles: Whether this end accepts pickles.
        """
        self.transport: Any = None
        self.terms = terms
        self.greeting = _greeting(pickles)
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
            self.terms.check(self.transport)
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


def aboutTLS(gate: Gate, reason: Failure) -> str:
    """
    Say why there's no TLS.

    @param gate: The gate of the connection.

    @param reason: How it has failed.

    @return: The text.
    """
    return tlsErrorText(reason)
