"""
What a client finds at a server, before the server's end of a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from .._support.log import log
from ._commands import VERSION
from ._credentials import NONCE
from ._doors import Doors
from ._endpoints import Requirements
from ._gate import Gate, aboutTLS
from ._peer import Fields, Peer

__all__ = ["ServerGate"]

#: A client has so many seconds to prove who it is.
_PATIENCE = 10.0


class ServerGate(Gate):
    """
    What a client finds at a server.
    """

    def __init__(
        self,
        makePeer: Callable[[], Peer],
        terms: Requirements,
        doors: Doors,
        reactor: Any,
        pickles: bool = False,
    ) -> None:
        """
        Make a gate.

        @param makePeer: See L{Gate}.

        @param terms: See L{Gate}.

        @param doors: All gates of the server.

        @param reactor: The reactor.

        @param pickles: See L{Gate}.
        """
        super().__init__(makePeer, terms, pickles)
        self._doors = doors
        self._reactor = reactor
        self._timers: list[Any] = []
        self._nonces: tuple[bytes, bytes] | None = None
        self._theirs: Fields | None = None

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
                self._theirs = box
                self._nonces = (box[b"nonce"], os.urandom(NONCE))
                fields = {b"_answer": tag, b"nonce": self._nonces[1]}
                self.send(fields | self.greeting)
        elif command == b"Prove" and self._nonces is not None:
            parts = (VERSION, *self._nonces)
            if key.check(box[b"proof"], b"client", *parts):
                self.send({b"_answer": tag, b"proof": key.prove(b"server", *parts)})
                self.open(self._theirs)
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
            self._failed(aboutTLS(self, reason))

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
                place=self.terms.address.description,
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
