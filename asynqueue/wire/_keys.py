"""
Keys that both ends of a connection have, and proofs that they do.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import AuthenticationError
from ._private import readPrivate

__all__ = ["NONCE", "Key"]

#: So many bytes has what a proof is asked for with.
NONCE = 32

#: A key has so many bytes at least. It's for programs, nobody has to remember it.
_SHORTEST = 32


class Key:
    """
    A secret that both ends of a connection have, by which they know one another.

    It can't be seen: not in its C{repr}, nor by pickling it. C{python -m
    asynqueue.credentials key FILE} makes a file with one.
    """

    __slots__ = ("__secret",)

    def __init__(self, secret: bytes) -> None:
        """
        Make a key.

        @param secret: The secret: 32 random bytes, or more.

        @raise TypeError: If it isn't bytes.

        @raise ValueError: If it's too short.
        """
        if not isinstance(secret, bytes):
            raise TypeError(
                f"A key is made of bytes, not of an object of class"
                f" {type(secret).__name__}: to read one from a file, Key.fromFile(path)"
            )
        if len(secret) < _SHORTEST:
            # A traceback may be shown with all variables.
            del secret
            raise ValueError(
                f"A key has {_SHORTEST} bytes at least: python -m asynqueue.credentials"
                " key FILE makes one"
            )
        self.__secret = secret

    @classmethod
    def fromFile(cls, path: str | os.PathLike[str]) -> Key:
        """
        Read a key from a file. White space around it isn't part of it.

        @param path: The file, which only its owner may have access to.

        @return: The key.

        @raise AuthenticationError: If others may have access to the file.

        @raise ValueError: If what's in it is too short.

        @raise OSError: If it can't be read.
        """
        return cls(readPrivate(path).strip())

    @classmethod
    def fromEnvironment(cls, name: str = "ASYNQUEUE_KEY") -> Key:
        """
        Get a key from an environment variable.

        @param name: The variable's name.

        @return: The key.

        @raise AuthenticationError: If there's no such variable.

        @raise ValueError: If what's in it is too short.
        """
        if name not in os.environ:
            raise AuthenticationError(
                f"There's no key in the environment: the variable {name} isn't set"
            )
        return cls(os.environb[os.fsencode(name)].strip())

    def __repr__(self) -> str:
        """
        Show nothing of it.
        """
        return "<Key>"

    def __reduce__(self) -> NoReturn:
        """
        Keep it from going elsewhere.

        @raise TypeError: Always.
        """
        raise TypeError(
            "A key can't be pickled or copied: let whoever needs it read it from its"
            " file"
        )

    def handOver(self) -> tuple[Callable[..., Key], tuple[Any, ...]]:
        """
        Tell how the key is made again in the process of a server that is started here.
        It may go there through a pipe that nobody else has an end of, and nowhere else.

        @return: A callable, and its arguments.
        """
        return Key, (self.__secret,)

    def prove(self, role: bytes, *parts: bytes) -> bytes:
        """
        Make the proof that one has the key.

        @param role: Which end makes it.

        @param parts: What it's a proof for. The number of parts, and their sizes save
            that of the last, are always the same for one role.

        @return: The proof.
        """
        message = b"\0".join((b"asynqueue", role, *parts))
        return hmac.digest(self.__secret, message, "sha256")

    def check(self, proof: bytes, role: bytes, *parts: bytes) -> bool:
        """
        See whether the other end has the key. The time that takes says nothing about
        the key.

        @param proof: What has come from there.

        @param role: Which end that is.

        @param parts: See L{prove}.

        @return: Whether it has.
        """
        return hmac.compare_digest(proof, self.prove(role, *parts))
