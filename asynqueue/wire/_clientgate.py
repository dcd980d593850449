"""
What a server has to get through, before the client's end of a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from ..errors import AuthenticationError
from ._commands import VERSION
from ._credentials import NONCE
from ._endpoints import Requirements
from ._gate import Gate, aboutTLS
from ._peer import Fields, Peer

__all__ = ["ClientGate"]


class ClientGate(Gate):
    """
    What a server has to get through before a client trusts it.

    @ivar opened: Fires with C{None} when it has, or fails.
    """

    def __init__(
        self, makePeer: Callable[[], Peer], terms: Requirements, pickles: bool = False
    ) -> None:
        """
        Make a gate.

        @param makePeer: See L{Gate}.

        @param terms: See L{Gate}.

        @param pickles: See L{Gate}.
        """
        super().__init__(makePeer, terms, pickles)
        self.opened: Deferred[None] = Deferred(lambda _: self._abort())
        self._nonce = os.urandom(NONCE)
        self._nonces: tuple[bytes, bytes] | None = None
        self._theirs: Fields = {}
        self._hasSent = False

    def ready(self) -> None:
        """
        Implement L{Gate.ready}.
        """
        box = {b"_ask": b"1", b"_command": b"Hello", **self.greeting}
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
            parts = (VERSION, *self._nonces)
            if key.check(box[b"proof"], b"server", *parts):
                self._welcome()
            else:
                self.refuse("It hasn't proved that it has the key")
        elif box[b"version"] != VERSION:
            self._fail(ConnectionError(_otherVersion(box)))
        elif key is None:
            self._theirs = box
            self._welcome()
        elif len(box.get(b"nonce", b"")) != NONCE:
            self.refuse("It has no key, and this end has one (key=)")
        else:
            self._theirs = box
            self._nonces = (self._nonce, box[b"nonce"])
            proof = key.prove(b"client", VERSION, *self._nonces)
            self.send({b"_ask": b"2", b"_command": b"Prove", b"proof": proof})

    def refuse(self, why: str) -> None:
        """
        Implement L{Gate.refuse}.

        @param why: Why.
        """
        place = self.terms.address.description
        self._fail(AuthenticationError(f"The server at {place} isn't trusted: {why}"))

    def closed(self, reason: Failure) -> None:
        """
        Implement L{Gate.closed}.

        @param reason: Why.
        """
        if not reason.check(ConnectionClosed):
            why = aboutTLS(self, reason)
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
        self.open(self._theirs)
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
        return f"The server at {self.terms.address.description} refuses this end: {why}"

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
