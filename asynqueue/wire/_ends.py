"""
Where connections are made: from descriptions to endpoints, with what each end must
prove to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from .._support.log import log
from ..errors import AuthenticationError
from ._clientgate import ClientGate
from ._doors import Doors
from ._gate import Terms
from ._keys import Key
from ._peer import Peer
from ._places import Place, checkText
from ._private import checkFolder
from ._servergate import ServerGate
from ._tls import TLS

__all__ = ["Listener", "connector", "mayPickle"]


def mayPickle(description: str, pickle: bool | None, tls: TLS | None) -> bool:
    """
    Tell whether pickles are sent and accepted. Loading one can run anything, so nobody
    else may be able to send one.

    @param description: Where the connection is made.

    @param pickle: Whether they're wanted. C{None}: only over Unix sockets.

    @param tls: Certificates.

    @return: Whether they are.

    @raise AuthenticationError: If they're wanted where they can't be.

    @raise TypeError: If the place isn't described by text.
    """
    checkText(description)
    isUnix = description.startswith("unix:")
    if pickle and not isUnix and tls is None:
        raise AuthenticationError(
            f"pickle=True isn't possible over {description!r}: pickles can run"
            " anything, so they need a Unix socket (unix:PATH) or certificates"
            " (tls=TLS.fromFiles(...))"
        )
    return isUnix if pickle is None else pickle


def connector(
    description: str,
    makePeer: Callable[[], Peer],
    reactor: Any,
    *,
    key: Key | None,
    tls: TLS | None,
    insecure: bool,
    pickles: bool,
) -> Callable[[], Deferred[None]]:
    """
    Prepare to connect.

    @param description: Where to.

    @param makePeer: Makes the client's end of a connection.

    @param reactor: The reactor.

    @param key: The key that the server must have.

    @param tls: Which certificates are accepted.

    @param insecure: Whether neither is needed.

    @param pickles: Whether this end accepts pickles.

    @return: What connects when it's called. Its Deferred fires when the other end has
        proved who it is.

    @raise AuthenticationError: If the ends can't know one another.

    @raise TypeError: If something isn't of the right class.

    @raise ValueError: If the description can't be understood.
    """
    terms = _terms(description, False, key, tls, insecure, pickles)
    endpoint = _clientEndpoint(terms.place, reactor)
    if tls is not None:
        endpoint = wrapClientTLS(tls.creator(terms.place.host), endpoint)
    factory = _factory(lambda: ClientGate(makePeer, terms))

    def connect() -> Deferred[None]:
        d: Deferred[Any] = endpoint.connect(factory)
        return d.addCallback(lambda gate: gate.opened)

    return connect


class Listener:
    """
    Where a server listens.
    """

    def __init__(
        self,
        description: str,
        makePeer: Callable[[], Peer],
        reactor: Any,
        *,
        key: Key | None,
        tls: TLS | None,
        insecure: bool,
        pickles: bool,
    ) -> None:
        """
        Prepare to listen.

        @param description: Where.

        @param makePeer: Makes the server's end of a connection.

        @param reactor: The reactor.

        @param key: The key that clients must have.

        @param tls: Which certificates are accepted.

        @param insecure: Whether neither is needed.

        @param pickles: Whether this end accepts pickles.

        @raise AuthenticationError: If the ends can't know one another.

        @raise TypeError: If something isn't of the right class.

        @raise ValueError: If the description can't be understood.
        """
        terms = self._terms = _terms(description, True, key, tls, insecure, pickles)
        place = terms.place
        if place.isUnix:
            checkFolder(place.path)
            if place.options.get("mode", 0o600) & 0o077:
                raise AuthenticationError(
                    f"{description!r} would let others open the socket, and they're"
                    " refused then: leave out mode="
                )
        self.doors = Doors()
        self._endpoint = _serverEndpoint(place, reactor)
        self._factory = _factory(
            lambda: ServerGate(makePeer, terms, self.doors, reactor)
        )
        if tls is not None:
            self._factory = _tlsFactory(tls.creator(), self._factory)
        if insecure:
            log.warn(
                "{place}: whoever can run a program on this machine can call what is"
                " served here (insecure=True)",
                place=description,
            )

    def listen(self) -> Deferred[IListeningPort]:
        """
        Begin to listen.

        @return: A Deferred that fires with the port.

        @raise AuthenticationError: If others could get at the socket.

        @raise OSError: If its folder isn't there and can't be made.
        """
        place = self._terms.place
        if place.isUnix:
            checkFolder(place.path, make=True)
        d: Deferred[IListeningPort] = self._endpoint.listen(self._factory)
        return d

    def close(self) -> None:
        """
        Send away who hasn't proved who it is.
        """
        self.doors.close()


def _terms(
    description: str, isServer: bool, key: Any, tls: Any, insecure: bool, pickles: bool
) -> Terms:
    """
    See that both ends can know one another.

    @param description: Where the connection is made.

    @param isServer: Whether by the server.

    @param key: A key.

    @param tls: Certificates.

    @param insecure: Whether neither is needed.

    @param pickles: Whether this end accepts pickles.

    @return: What the other end must prove.

    @raise AuthenticationError: If they can't.

    @raise TypeError: If something isn't of the right class.

    @raise ValueError: If the description can't be understood, or doesn't go with the
        rest.
    """
    for name, value, kind, make in (
        ("key", key, Key, "Key.fromFile(path) or Key.fromEnvironment(name)"),
        ("tls", tls, TLS, "TLS.fromFiles(own, peer)"),
    ):
        if value is not None and not isinstance(value, kind):
            # The value isn't shown, as it may be a secret.
            raise TypeError(
                f"{name}= takes what {make} gives, not an object of class"
                f" {type(value).__name__}"
            )
    place = Place.parse(description, isServer)
    if insecure and (place.isUnix or place.kind == "tls" or key or tls):
        raise ValueError(
            "insecure=True is for TCP without anything else: leave it out over"
            f" {description!r}"
        )
    if place.isUnix:
        if tls is not None:
            raise ValueError(
                f"Nobody else can listen in on {description!r}: leave out tls="
            )
        if place.path.startswith("\0"):
            raise AuthenticationError(
                "A Unix socket without a file can be reached by all users: use a file"
                " (unix:PATH)"
            )
    elif tls is None:
        place = _withoutTLS(place, key, insecure)
    return Terms(place, key, tls, pickles)


def _withoutTLS(place: Place, key: Key | None, insecure: bool) -> Place:
    """
    See that TCP without TLS is all right.

    @param place: Where the connection is made.

    @param key: A key.

    @param insecure: Whether none is needed.

    @return: The place. A server listens on this machine if it isn't said where.

    @raise AuthenticationError: If it isn't.
    """
    description = place.description
    if place.kind == "tls":
        raise AuthenticationError(
            f"{description!r} needs certificates: tls=TLS.fromFiles(own, peer), with"
            " files that python -m asynqueue.credentials pair FOLDER makes"
        )
    if key is None and not insecure:
        raise AuthenticationError(
            f"Over {description!r} the two ends can't know one another: use"
            " certificates (tls=TLS.fromFiles(own, peer)), on one machine also a key"
            " (key=Key.fromFile(path)) or a Unix socket (unix:PATH)"
        )
    if place.isServer and not place.host:
        options = {**place.options, "interface": "127.0.0.1"}
        place = Place(description, place.kind, True, options)
    if not place.isLocal:
        what = "insecure=True is" if insecure else "A key alone is"
        raise AuthenticationError(
            f"{what} for this machine only, not for {description!r}: use certificates"
            " (tls=TLS.fromFiles(own, peer))"
        )
    return place


def _clientEndpoint(place: Place, reactor: Any) -> Any:
    """
    Make the endpoint of a client.

    @param place: Where it connects to.

    @param reactor: The reactor.

    @return: The endpoint.
    """
    options = dict(place.options)
    if place.isUnix:
        return UNIXClientEndpoint(
            reactor, place.path, options.get("timeout", 30), options.get("lockfile", 0)
        )
    bind = options.pop("bindAddress", None)
    if bind is not None:
        options["bindAddress"] = (bind, 0)
    return HostnameEndpoint(reactor, **options)


def _serverEndpoint(place: Place, reactor: Any) -> Any:
    """
    Make the endpoint of a server.

    @param place: Where it listens.

    @param reactor: The reactor.

    @return: The endpoint.
    """
    options = place.options
    if place.isUnix:
        # The file's mode is set before anybody can connect.
        return UNIXServerEndpoint(
            reactor,
            place.path,
            options.get("backlog", 50),
            options.get("mode", 0o600),
            options.get("lockfile", 1),
        )
    host = "127.0.0.1" if place.host == "localhost" else place.host
    kind = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
    return kind(reactor, options["port"], options.get("backlog", 50), host)


def _tlsFactory(creator: Any, factory: Any) -> Any:
    """
    Make a factory of protocols under TLS.

    @param creator: What makes its connections.

    @param factory: What makes the protocols.

    @return: The factory.
    """
    from twisted.protocols.tls import TLSMemoryBIOFactory

    outer: Any = TLSMemoryBIOFactory(creator, False, factory)
    outer.noisy = False
    return outer


def _factory(makeGate: Callable[[], Any]) -> Any:
    """
    Make a factory of protocols.

    @param makeGate: Makes one.

    @return: The factory.
    """
    factory: Any = Factory.forProtocol(makeGate)
    factory.noisy = False
    return factory
