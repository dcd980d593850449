"""
Where connections are made, as it's described.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from attrs import frozen

__all__ = ["Place", "checkText", "isLoopback"]

#: What a description has, by whether it's a server's, and its kind: what must be there,
#: in this order, and what may be.
_FORMS: dict[tuple[bool, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    (True, "unix"): (("address",), ("mode", "backlog", "lockfile")),
    (True, "tcp"): (("port",), ("interface", "backlog")),
    (True, "tls"): (("port",), ("interface", "backlog")),
    (False, "unix"): (("path",), ("timeout", "lockfile")),
    (False, "tcp"): (("host", "port"), ("timeout", "bindAddress")),
    (False, "tls"): (("host", "port"), ("timeout", "bindAddress")),
}

_NUMBERS = {"port", "backlog", "lockfile", "timeout"}


@frozen
class Place:
    """
    Where a connection is made.

    @ivar description: How it was described.

    @ivar kind: C{unix}, C{tcp} or C{tls}.

    @ivar isServer: Whether it's the server's end.

    @ivar options: What else the description has, by name.
    """

    description: str
    kind: str
    isServer: bool
    options: dict[str, Any]

    @classmethod
    def parse(cls, description: str, isServer: bool) -> Place:
        """
        Understand a description, which is one of Twisted's for endpoints.

        @param description: The description.

        @param isServer: Whether it's for a server.

        @return: The place.

        @raise TypeError: If it's no text.

        @raise ValueError: If it's none that is understood.
        """
        checkText(description)
        kind, *parts = (
            re.sub(r"\\(.)", r"\1", part)
            for part in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", description)
        )
        try:
            needed, possible = _FORMS[isServer, kind]
            options = _options(parts, needed, possible)
        except (KeyError, ValueError):
            raise ValueError(_wrong(description, isServer)) from None
        return cls(description, kind, isServer, options)

    @property
    def isUnix(self) -> bool:
        """
        Whether it's a file.
        """
        return self.kind == "unix"

    @property
    def path(self) -> str:
        """
        The file, if it is one.
        """
        path: str = self.options["address" if self.isServer else "path"]
        return path

    @property
    def host(self) -> str:
        """
        The machine, or for a server the interface, empty for all.
        """
        host: str = self.options.get("interface" if self.isServer else "host", "")
        return host

    @property
    def isLocal(self) -> bool:
        """
        Whether only this machine can reach it.
        """
        return self.isUnix or self.host == "localhost" or isLoopback(self.host)


def isLoopback(host: str) -> bool:
    """
    Tell whether an address is one of this machine with itself.

    @param host: The address.

    @return: Whether it is.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _options(
    parts: list[str], needed: tuple[str, ...], possible: tuple[str, ...]
) -> dict[str, Any]:
    """
    Read what a description has.

    @param parts: Its parts.

    @param needed: What must be there, in order.

    @param possible: What may be, by name.

    @return: It.

    @raise ValueError: If something is missing, or too much.
    """
    names = list(needed)
    options: dict[str, Any] = {}
    for part in parts:
        name, isNamed, value = part.partition("=")
        if not isNamed or name not in (*needed, *possible):
            name, value = names[0] if names else "", part
        if name in names:
            names.remove(name)
        elif name not in possible or name in options:
            raise ValueError(name)
        if name == "mode":
            options[name] = int(value, 8)
        else:
            options[name] = int(value) if name in _NUMBERS else value
    if names or not all(str(options[name]) for name in needed):
        raise ValueError(names)
    return options


def _wrong(description: str, isServer: bool) -> str:
    """
    Make the message about a description that isn't understood.

    @param description: The description.

    @param isServer: Whether it's for a server.

    @return: The message.
    """
    forms = [
        ":".join((kind, *map(str.upper, needed)))
        + "".join(f"[:{name}=...]" for name in possible)
        for (server, kind), (needed, possible) in _FORMS.items()
        if server is isServer
    ]
    who = "listens" if isServer else "connects"
    return f"{description!r} isn't where a worker's end {who}: use {', '.join(forms)}"


def checkText(description: Any) -> None:
    """
    Check that a place is described by text, whatever that says.

    @param description: The description.

    @raise TypeError: If it isn't.
    """
    if not isinstance(description, str):
        raise TypeError(
            f"A place is described by text, such as unix:PATH, not {description!r}"
        )
