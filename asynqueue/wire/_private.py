"""
What is one user's own: files, folders, and the ends of Unix sockets.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

from ..errors import AuthenticationError

__all__ = ["checkFolder", "checkUser", "readPrivate", "writePrivate"]

#: No file with a secret has more bytes.
_LARGEST = 1 << 20

#: Process, user and group of a socket's other end, as Linux gives them.
_CREDENTIALS = struct.Struct("3i")


def readPrivate(path: str | os.PathLike[str]) -> bytes:
    """
    Read a file that holds a secret.

    @param path: The file.

    @return: What's in it.

    @raise AuthenticationError: If others than its owner may read or write it, or if it
        belongs to somebody else.

    @raise OSError: If it can't be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in _trusted():
            raise AuthenticationError(
                f"{path} holds a secret, and belongs to another user"
                f" ({status.st_uid}): make it yours"
            )
        if status.st_mode & 0o077:
            raise AuthenticationError(
                f"{path} holds a secret, and others than its owner have access to it"
                f" (mode {stat.S_IMODE(status.st_mode):03o}): chmod 600 {path}"
            )
        return file.read(_LARGEST)


def writePrivate(path: str | os.PathLike[str], data: bytes) -> None:
    """
    Make a file that only its owner can read, at no time anybody else.

    @param path: The file, which mustn't exist.

    @param data: What's to be in it.

    @raise FileExistsError: If it exists.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)


def checkFolder(socketPath: str, make: bool = False) -> None:
    """
    See that only the user can reach a socket's file.

    @param socketPath: The socket's file.

    @param make: Whether to make the folder if there's none.

    @raise AuthenticationError: If the folder lets others in, or is somebody else's.

    @raise OSError: If it can't be made.
    """
    folder = Path(socketPath).absolute().parent
    if make:
        # If it's there, it's seen below whose it is.
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        status = folder.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in _trusted() or mode & 0o077:
        raise AuthenticationError(
            f"{folder} lets others in (user {status.st_uid}, mode {mode:03o}), so it's"
            f" no place for a Unix socket: name a folder of its own, which is made if"
            f" it isn't there (unix:{folder}/asynqueue/{Path(socketPath).name}), or"
            f" chmod 700 {folder}"
        )


def checkUser(transport: Any) -> None:
    """
    See that the other end of a Unix socket is the same user's, or root's, where the
    system can tell.

    @param transport: The transport of the connection.

    @raise AuthenticationError: If it's somebody else's.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    credentials = transport.getHandle().getsockopt(
        socket.SOL_SOCKET, option, _CREDENTIALS.size
    )
    _, user, _ = _CREDENTIALS.unpack(credentials)
    if user not in _trusted():
        raise AuthenticationError(
            f"The other end of the Unix socket is another user's ({user})"
        )


def _trusted() -> tuple[int, ...]:
    """
    List whose files and processes may be relied on.

    @return: The numbers of the user and of root, who can do as the user anyway.
    """
    return (os.geteuid(), 0)
