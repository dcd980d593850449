"""
What comes first on a connection: each end proves to the other who it is.

Over Unix sockets that's known from the system, and over TLS from certificates. Where
there's a key, each end proves that it has it, for a number that is used once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols import amp
from twisted.python.failure import Failure

from .._support.log import log
from ..errors import AuthenticationError
from ._commands import VERSION, Hello, OtherVersion, Prove, Violation, WrongKey
from ._connection import Connection
from ._credentials import NONCE, tlsErrorText

#: Seconds that a client has to prove who it is.
_SECONDS = 10.0

#: Connections of clients that haven't yet. They cost little, and for seconds only.
_MAX_PENDING = 64

#: Seconds until a client learns that it's refused: at first, and at most. It's not
#: long, as others who aren't to blame may come from the same address.
_DELAY, _MAX_DELAY = 0.01, 0.5


class ServerLeaves(ConnectionError):
    """The server is about to go, and takes no more clients."""


class ClientHandshake:
    """The client's end of a connection until both ends have proved who they are."""

    def __init__(
        self,
        connection: Connection,
        pickles: bool,
        greeted: Callable[[bool, int | None], object],
    ) -> None:
        self._connection = connection
        self._required = connection.required
        self._pickles = pickles
        # Called with whether the server accepts pickles, and how many tasks a client
        # may have there.
        self._greeted = greeted
        # Fires after that, or fails.
        self.opened: Deferred[None] = Deferred(lambda _: connection.abort())

    def begin(self) -> None:
        # Where there's no key, the server takes commands from the beginning, and may
        # have some itself before it has heard of this end.
        self._connection.responders |= {
            b"Ping": lambda box: amp.Box(),
            b"Leaving": self._leaving,
        }
        Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    def refuse(self, why: str) -> None:
        self._failed(Failure(self._untrusted(why)))

    def violated(self) -> None:
        """The server breaks the protocol."""
        if not self.opened.called:
            self.opened.errback(
                self._untrusted("It sends what is no part of a handshake")
            )

    def end(self, reason: BaseException) -> None:
        """The connection has ended."""
        if not self._connection.isOpen and not self.opened.called:
            self.opened.errback(self._closedEarly(reason))

    async def _run(self) -> None:
        hello = await self._authenticate()
        if self._connection.isOver:
            return
        tasks = hello["tasks"] or b""
        isNumber = tasks.isdigit() and len(tasks) < 10
        maxTasks = max(1, int(tasks)) if isNumber else None
        self._greeted(hello["pickle"] is not None, maxTasks)
        if not self.opened.called:
            self.opened.callback(None)

    async def _authenticate(self) -> dict[str, bytes | None]:
        """
        Have the server prove who it is, prove it to the server, and give the answer to
        L{Hello}.

        @raise AuthenticationError: If one end doesn't accept the other.
        """
        key, nonce = self._required.key, os.urandom(NONCE)
        fields = {"version": VERSION}
        if self._pickles:
            fields["pickle"] = b"1"
        if key is not None:
            fields["nonce"] = nonce
        ask = self._connection.callRemote
        try:
            hello: dict[str, bytes | None] = await ask(Hello, **fields)
            if hello["version"] != VERSION:
                raise OtherVersion
            if key is not None:
                theirs = hello["nonce"] or b""
                if len(theirs) != NONCE:
                    raise self._untrusted("It has no key, and this end has one")
                parts = (VERSION, nonce, theirs)
                answer = await ask(Prove, proof=key.prove(b"client", *parts))
                if not key.check(answer["proof"], b"server", *parts):
                    raise self._untrusted("It hasn't proved that it has the key")
        except WrongKey as error:
            why = "it has another key" if key else "it wants a key (key=)"
            raise self._refused(why) from error
        except OtherVersion as error:
            # What the server says isn't shown: nobody knows who it is.
            raise ConnectionError(
                "The server speaks another version of the protocol than this end, which"
                f" speaks {VERSION.decode()}: install the same version of asynqueue at"
                " both"
            ) from error
        except (amp.AmpError, KeyError, ValueError) as error:
            why = "It sends what is no part of a handshake"
            raise self._untrusted(why) from error
        return hello

    def _failed(self, failure: Failure) -> None:
        if not self.opened.called and not self._connection.isOver:
            self.opened.errback(failure)
        self._connection.abort()

    def _leaving(self, box: object) -> amp.Box:
        self._connection.abort(ServerLeaves("The server is about to go"))
        return amp.Box()

    def _closedEarly(self, reason: BaseException) -> Exception:
        """Say why the connection has ended before it was known who is there."""
        if isinstance(reason, (AuthenticationError, TimeoutError, ServerLeaves)):
            return reason
        if isinstance(reason, (ConnectionClosed, ConnectionError)):
            isUnix = self._required.address.kind == "unix"
            hint = "" if isUnix else ": is TLS at one of them only?"
            return ConnectionError(
                "The connection was ended before both ends had proved who they are"
                f" ({reason}){hint}"
            )
        why = tlsErrorText(reason)
        return self._refused(why) if " alert " in why else self._untrusted(why)

    def _untrusted(self, why: str) -> AuthenticationError:
        address = self._required.address.description
        return AuthenticationError(f"The server at {address} isn't trusted: {why}")

    def _refused(self, why: str) -> AuthenticationError:
        address = self._required.address.description
        return AuthenticationError(f"The server at {address} refuses this end: {why}")


class Pending(dict[Connection, None]):
    """Connections whose clients haven't proved who they are, as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0  # how many clients in a row have been refused

    def add(self, connection: Connection) -> None:
        """Add a connection. If there are too many, the longest there goes."""
        if len(self) >= _MAX_PENDING:
            # Clients that have a proof give it at once.
            longest = next(iter(self))
            del self[longest]
            longest.abort()
        self[connection] = None

    def abortAll(self) -> None:
        for connection in list(self):
            connection.abort()


class ServerHandshake:
    """The server's end of a connection until its client has proved who it is."""

    def __init__(
        self,
        connection: Connection,
        pending: Pending,
        tasks: int,
        pickles: bool,
        greeted: Callable[[bool], object],
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._greeted = greeted  # called with whether the client accepts pickles
        self._greeting = {b"version": VERSION, b"tasks": b"%d" % tasks}
        if pickles:
            self._greeting[b"pickle"] = b"1"
        # The client's and the server's, once there has been a Hello.
        self._nonces: tuple[bytes, bytes] | None = None
        self._timers: list[IDelayedCall] = []
        pending.add(connection)
        self._later(_SECONDS, self._late)

    def begin(self) -> None:
        """The transport is there, and what it tells about the client is all right."""
        self._connection.responders |= {b"Hello": self._hello, b"Prove": self._prove}
        if self._connection.required.key is None:
            self._open()

    def refuse(self, why: str) -> None:
        """Disconnect the client, after a moment."""
        self._connection.isOver = True
        self._later(self._failed(why), self._connection.abort)

    def end(self, reason: BaseException) -> None:
        """The connection has ended, or the client is accepted."""
        if self._connection in self._pending and not isinstance(
            reason, (ConnectionClosed, ConnectionError)
        ):
            self._failed(tlsErrorText(reason))
        self._leave()

    def _hello(self, box: amp.Box) -> amp.Box | Deferred[amp.Box]:
        if box[b"version"] != VERSION:
            text = f"This server speaks version {VERSION.decode()}"
            return self._refuse(OtherVersion, text, "It has another version")
        self._greeted(b"pickle" in box)
        if self._connection.required.key is None:
            return amp.Box(self._greeting)
        nonce = box.get(b"nonce")
        if nonce is None:
            return self._refuse(WrongKey, "This server wants a key", "It has no key")
        if len(nonce) != NONCE or self._nonces is not None or self._connection.isOpen:
            raise Violation("a Hello that can't be")
        self._nonces = nonce, os.urandom(NONCE)
        return amp.Box({**self._greeting, b"nonce": self._nonces[1]})

    def _prove(self, box: amp.Box) -> amp.Box | Deferred[amp.Box]:
        key = self._connection.required.key
        if key is None or self._nonces is None or self._connection.isOpen:
            raise Violation("a Prove that can't be")
        parts = (VERSION, *self._nonces)
        if not key.check(box[b"proof"], b"client", *parts):
            text = "This server has another key"
            return self._refuse(WrongKey, text, "It has another key")
        self._open()
        return amp.Box(proof=key.prove(b"server", *parts))

    def _open(self) -> None:
        self._pending.failures = 0
        self._leave()
        self._connection.open()

    def _refuse(self, error: type[Exception], text: str, why: str) -> Deferred[amp.Box]:
        """Give the answer with which a client is refused, after a moment."""
        self._connection.isOver = True
        d: Deferred[amp.Box] = Deferred()
        answer = amp.RemoteAmpError(Hello.fatalErrors[error], text, fatal=True)
        self._later(self._failed(why), d.errback, answer)
        return d

    def _late(self) -> None:
        self._failed(f"It hasn't proved who it is within {_SECONDS:g} seconds")
        self._connection.abort()

    def _failed(self, why: str) -> float:
        """Count a client that's refused, and tell how many seconds that is to take."""
        self._pending.failures += 1
        count = self._pending.failures
        if not count & (count - 1):
            log.warn(
                "{address} refuses {peer}, {count} in a row now: {why}",
                address=self._connection.required.address.description,
                peer=self._connection.transport.getPeer(),
                count=count,
                why=why,
            )
        return min(_MAX_DELAY, _DELAY * float(2 ** min(count - 1, 20)))

    def _later(self, seconds: float, f: Callable[..., object], *args: object) -> None:
        call = self._connection.reactor.callLater(seconds, f, *args)
        self._timers.append(call)

    def _leave(self) -> None:
        self._pending.pop(self._connection, None)
        timers, self._timers = self._timers, []
        for call in timers:
            if call.active():
                call.cancel()
