"""
What objects of the user have in common in one interpreter.

Imported in child processes, so there's nothing of Twisted in it.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["ProcessBase"]

_data: dict[str, object] = {}


class ProcessBase:
    """
    A base for objects whose methods are called in child processes.

    Each call gets a copy of the object. All objects of all subclasses have one dict in
    common in one interpreter, so that what a call leaves there is there for the next
    one that this child runs. Attributes that an object doesn't have are looked up in
    it.
    """

    @property
    def pid(self) -> int:
        """The process ID of the interpreter."""
        return os.getpid()

    @property
    def data(self) -> dict[str, Any]:
        """What all objects in this interpreter have in common."""
        return _data

    def __getattr__(self, name: str) -> Any:
        """Look an attribute up in L{data}."""
        if name in _data and not name.startswith("__"):
            return _data[name]
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}, nor has its"
            " data"
        )
