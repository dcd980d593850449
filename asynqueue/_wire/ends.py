"""
Where connections are made: from descriptions to endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from ..errors import AuthenticationError
from .peer import BoxProtocol, Peer

__all__ = ["connector", "isPrivate", "listener"]


def isPrivate(description: str) -> bool:
    """
    Tell whether both ends of a connection are the same user's.

    @param description: Where it's made.

    @return: Whether it's a Unix socket.
    """
    return description.startswith("unix:")


def connector(
    description: str, makePeer: Callable[[], Peer], reactor: Any, **identity: Any
) -> Callable[[], Deferred[Any]]:
    """
    Prepare to connect.

    @param description: Where to.

    @param makePeer: Makes the client's end of a connection.

    @param reactor: The reactor.

    @param identity: What the ends are known by.

    @return: What connects when it's called. Its Deferred fires when the other end has
        proved who it is.

    @raise AuthenticationError: If the ends can't know one another.
    """
    _check(description, identity)
    endpoint = clientFromString(reactor, description)
    factory = _factory(makePeer)
    return lambda: endpoint.connect(factory)


def listener(
    description: str, makePeer: Callable[[], Peer], reactor: Any, **identity: Any
) -> Callable[[], Deferred[IListeningPort]]:
    """
    Prepare to listen.

    @param description: Where.

    @param makePeer: Makes the server's end of a connection.

    @param reactor: The reactor.

    @param identity: What the ends are known by.

    @return: What begins to listen when it's called.

    @raise AuthenticationError: If the ends can't know one another.
    """
    _check(description, identity)
    if ":mode=" not in description:
        description += ":mode=600"
    endpoint = serverFromString(reactor, description)
    factory = _factory(makePeer)
    return lambda: endpoint.listen(factory)


def _check(description: str, identity: dict[str, Any]) -> None:
    """
    Check that only who may do so can connect.

    @param description: Where it's connected.

    @param identity: What the ends are known by.

    @raise AuthenticationError: If somebody else could.
    """
    if not isPrivate(description):
        raise AuthenticationError(
            f"Over {description!r} the two ends can't know one another: use a Unix"
            " socket (unix:PATH)"
        )
    given = [name for name, value in identity.items() if value]
    if given:
        raise AuthenticationError(
            f"{', '.join(given)} can't be used over {description!r}: who can open a"
            " Unix socket is known by its file's mode"
        )


def _factory(makePeer: Callable[[], Peer]) -> Any:
    """
    Make a factory of protocols.

    @param makePeer: Makes what takes the boxes of each.

    @return: The factory.
    """
    factory: Any = Factory.forProtocol(lambda: BoxProtocol(makePeer()))
    factory.noisy = False
    return factory
