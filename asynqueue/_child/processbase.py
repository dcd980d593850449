"""
What objects of the user have in common in one interpreter.

Imported in child processes, so there's nothing of Twisted in it.
"""

from __future__ import annotations

import os
import weakref
from typing import Any
from uuid import uuid4

__all__ = ["ProcessBase"]

_shared: dict[str, dict[str, Any]] = {}


class ProcessBase:
    """
    A base for objects whose methods are called in child processes.

    Each call gets a copy of the object. All copies of one object in one interpreter
    have a dict in common, so that what a call leaves there is there for the next one
    that this child runs. Attributes that an object doesn't have are looked up in it.
    """

    @property
    def pid(self) -> int:
        """
        The process ID of the interpreter.
        """
        return os.getpid()

    @property
    def data(self) -> dict[str, Any]:
        """
        What all copies of the object in this interpreter have in common.
        """
        return _shared.setdefault(self._token(), {})

    def __getattr__(self, name: str) -> Any:
        """
        Look an attribute up in L{data}.

        @param name: Its name.

        @return: Its value.

        @raise AttributeError: If it's not there either.
        """
        if not name.startswith("__"):
            data = _shared.get(self.__dict__.get("_processBaseToken", ""), {})
            if name in data:
                return data[name]
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}, nor has its"
            " data"
        )

    def __getstate__(self) -> dict[str, Any]:
        """
        Pickle the attributes, with what tells copies of one object.
        """
        self._token()
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """
        Be a copy.

        @param state: The attributes.
        """
        self.__dict__.update(state)

    def _token(self) -> str:
        """
        Get what all copies of this object have, and no other object.

        @return: A text.
        """
        token = self.__dict__.get("_processBaseToken")
        if token is None:
            token = self.__dict__["_processBaseToken"] = uuid4().hex
            # In the interpreter of the first of them, data goes with it. In others,
            # the copies of later calls find it.
            weakref.finalize(self, _shared.pop, token, None)
        return str(token)
