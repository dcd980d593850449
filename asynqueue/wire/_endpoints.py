"""
From the description of an address to an endpoint, and what the other end must prove.

Over Unix sockets both ends know from the system who is at the other end, over TLS from
certificates, and over TCP on this machine from a key. Anything else is refused before
anything is opened.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
import time
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.internet import endpoints
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorUNIX,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from .._support.log import log
from ..errors import AuthenticationError
from ._credentials import TLS, Key, trustedUsers

#: By kind, and whether it's a server's: the parts of a description in their order, and
#: those that may be left out and are always named.
_FORMS = {
    ("unix", True): (("address",), ()),
    ("tcp", True): (("port",), ("interface",)),
    ("tls", True): (("port",), ("interface",)),
    ("unix", False): (("path",), ()),
    ("tcp", False): (("host", "port"), ()),
    ("tls", False): (("host", "port"), ()),
}

#: Seconds after which a socket has a listener, if there's one.
_LISTENING_SECONDS = 1.0


@frozen
class Address:
    """Where a server listens, or a client connects to."""

    description: str
    kind: str  # unix, tcp or tls
    isServer: bool
    path: str = ""
    host: str = ""  # a server's interface, empty for all
    port: int = 0

    @classmethod
    def parse(cls, description: str, isServer: bool) -> Address:
        """Read a description, which is one of Twisted's with fewer options."""
        checkText(description)
        kind, *parts = (
            re.sub(r"\\(.)", r"\1", part)
            for part in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", description)
        )
        try:
            fields = _readParts(parts, *_FORMS[kind, isServer])
            return cls(
                description,
                kind,
                isServer,
                path=fields.get("address") or fields.get("path", ""),
                host=fields.get("interface") or fields.get("host", ""),
                port=int(fields.get("port", 0)),
            )
        except (KeyError, ValueError):
            forms = (
                "a server listens: use unix:ADDRESS, tcp:PORT[:interface=...] or"
                " tls:PORT[:interface=...]"
                if isServer
                else "a server is: use unix:PATH, tcp:HOST:PORT or tls:HOST:PORT"
            )
            raise ValueError(f"{description!r} isn't where {forms}") from None


@frozen
class Requirements:
    """What the other end of a connection must prove."""

    address: Address
    key: Key | None
    tls: TLS | None
    #: Whether pickles are sent and accepted. Loading one can run anything, so nobody
    #: else than the user, or who has a certificate, may be able to send one.
    pickles: bool = False

    def check(self, transport: Any) -> None:
        """Check who is at the other end, as far as the transport tells by now."""
        if self.tls is not None:
            host = None if self.address.isServer else self.address.host
            self.tls.check(transport, host)
        elif self.address.kind == "unix":
            _checkUser(transport)
        elif not _isLoopback(getattr(transport.getPeer(), "host", "")):
            raise AuthenticationError("The other end isn't on this machine")


def requirements(
    description: str,
    isServer: bool,
    *,
    key: Key | None,
    tls: TLS | None,
    pickle: bool | None,
    insecure: bool,
) -> Requirements:
    """Check that the ends can know each other, and nobody else gets at the socket."""
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
    address = Address.parse(description, isServer)
    if insecure and (address.kind != "tcp" or key or tls):
        raise ValueError(
            "insecure=True is for TCP without anything else: leave it out over"
            f" {description!r}"
        )
    if key is not None and (address.kind == "unix" or tls is not None):
        raise ValueError(
            "A key is for TCP on this machine without certificates: leave out key="
            f" over {description!r}"
        )
    if address.kind == "unix":
        if tls is not None:
            raise ValueError(f"Nobody listens in on {description!r}: leave out tls=")
        if address.path.startswith("\0"):
            raise AuthenticationError(
                "A Unix socket without a file can be reached by all users: use a file"
                " (unix:PATH)"
            )
        if isServer:
            _checkFolder(address.path)
    elif tls is None:
        if pickle:
            raise AuthenticationError(
                f"pickle=True isn't possible over {description!r}: pickles can run"
                " anything, so they need a Unix socket (unix:PATH) or certificates"
                " (tls=TLS.fromFiles(...))"
            )
        address = _withoutTLS(address, key, insecure)
    pickles = address.kind == "unix" if pickle is None else pickle
    return Requirements(address, key, tls, pickles)


def clientEndpoint(required: Requirements, reactor: Any) -> IStreamClientEndpoint:
    """Make the endpoint that a client connects to."""
    address = required.address
    if address.kind == "unix":
        return endpoints.UNIXClientEndpoint(reactor, address.path)
    endpoint = endpoints.HostnameEndpoint(reactor, address.host, address.port)
    if required.tls is None:
        return endpoint
    return endpoints.wrapClientTLS(required.tls.clientOptions(address.host), endpoint)


def serverEndpoint(required: Requirements, reactor: Any) -> IStreamServerEndpoint:
    """Make the endpoint that a server listens at."""
    address = required.address
    if address.kind == "unix":
        return _PrivateUNIXEndpoint(address.path, reactor)
    # These take addresses of IPv6, too.
    host = "127.0.0.1" if address.host == "localhost" else address.host
    if required.tls is None:
        return endpoints.TCP4ServerEndpoint(reactor, address.port, interface=host)
    options = required.tls.serverOptions()
    return endpoints.SSL4ServerEndpoint(reactor, address.port, options, interface=host)


@implementer(IStreamServerEndpoint)
class _PrivateUNIXEndpoint:
    """Listens at a Unix socket that only this user can reach."""

    def __init__(self, path: str, reactor: IReactorUNIX) -> None:
        self._path = path
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        _checkFolder(self._path, make=True)
        # The file's mode is set before anybody can connect.
        listen = partial(self._reactor.listenUNIX, mode=0o600, wantPID=True)
        lock = f"{self._path}.lock"
        try:
            return listen(self._path, factory)
        except CannotListenError as error:
            if not _isAbandoned(self._path):
                if os.path.lexists(lock):
                    error.socketError = f"a server listens there, or has left {lock}"
                raise
        for path in (lock, self._path):
            with suppress(FileNotFoundError):
                os.unlink(path)
        return listen(self._path, factory)


def _isAbandoned(path: str) -> bool:
    """
    Tell whether nobody listens at a socket. Its lock doesn't tell when a process has
    got the ID of the server that was killed, as in containers.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            # A server needs a moment between making the socket and listening.
            return time.time() - os.stat(path).st_mtime > _LISTENING_SECONDS
        except OSError:
            return False
    return False


def _readParts(
    parts: list[str], needed: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, str]:
    """Assign the parts of a description to names: none missing, none too much."""
    fields: dict[str, str] = {}
    for part in parts:
        name, isNamed, value = part.partition("=")
        if not isNamed or name not in (*needed, *optional):
            name, value = next((n for n in needed if n not in fields), ""), part
        if not name or name in fields:
            raise ValueError(part)
        fields[name] = value
    if not all(fields.get(name) for name in needed):
        raise ValueError(fields)
    return fields


def checkText(description: object) -> None:
    """Check that an address is described by text, whatever that says."""
    if not isinstance(description, str):
        raise TypeError(
            f"An address is described by text, such as unix:PATH, not {description!r}"
        )


def _withoutTLS(address: Address, key: Key | None, insecure: bool) -> Address:
    """Check that TCP without TLS is all right, and stays on this machine."""
    description = address.description
    if address.kind == "tls":
        raise AuthenticationError(
            f"{description!r} needs certificates: tls=TLS.fromFiles(own, peer), with"
            " files that python -m asynqueue.credentials pair FOLDER makes"
        )
    if key is None and not insecure:
        raise AuthenticationError(
            f"Over {description!r} the two ends can't know each other: use"
            " certificates (tls=TLS.fromFiles(own, peer)), on one machine also a key"
            " (key=Key.fromFile(path)) or a Unix socket (unix:PATH)"
        )
    if address.isServer and not address.host:
        address = evolve(address, host="127.0.0.1")
    if address.host != "localhost" and not _isLoopback(address.host):
        what = "insecure=True is" if insecure else "A key alone is"
        raise AuthenticationError(
            f"{what} for this machine only, not for {description!r}: use certificates"
            " (tls=TLS.fromFiles(own, peer))"
        )
    if insecure and address.isServer:
        log.warn(
            "{address}: whoever can run a program on this machine can call what is"
            " served here (insecure=True)",
            address=description,
        )
    return address


def _isLoopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _checkFolder(socketPath: str, make: bool = False) -> None:
    """Check that only the user can reach a socket's file, if its folder is there."""
    folder = Path(socketPath).absolute().parent
    if make:
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        status = folder.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in trustedUsers() or mode & 0o077:
        raise AuthenticationError(
            f"{folder} lets others in (user {status.st_uid}, mode {mode:03o}), so it's"
            f" no place for a Unix socket: name a folder of its own, which is made if"
            f" it isn't there (unix:{folder}/asynqueue/{Path(socketPath).name}), or"
            f" chmod 700 {folder}"
        )


def _checkUser(transport: Any) -> None:
    """Check that the other end of a Unix socket is ours, where the system can tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    # Process, user and group, as Linux gives them.
    data = transport.getHandle().getsockopt(socket.SOL_SOCKET, option, 12)
    _, user, _ = struct.unpack("3i", data)
    if user not in trustedUsers():
        raise AuthenticationError(
            f"The other end of the Unix socket is another user's ({user})"
        )
