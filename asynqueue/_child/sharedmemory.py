"""Shared memory of the program in a child."""

from __future__ import annotations

from functools import wraps
from typing import Any

from .importhook import whenImported

__all__ = ["leaveAttachedAlone"]


def leaveAttachedAlone() -> None:
    """
    Have blocks of C{multiprocessing.shared_memory} that calls only attach to stay when
    this process ends. Each interpreter removes those that it knows of, and would take
    the program's for its own.
    """
    whenImported("multiprocessing.shared_memory", _patch)


def _patch(module: Any) -> None:
    original = module.SharedMemory.__init__

    @wraps(original)
    def init(
        self: Any, name: str | None = None, create: bool = False, *args: Any, **kw: Any
    ) -> None:
        original(self, name, create, *args, **kw)
        # From Python 3.13, it can be told to be left alone.
        if not create and getattr(self, "_track", True):
            from multiprocessing.resource_tracker import unregister

            unregister(self._name, "shared_memory")

    module.SharedMemory.__init__ = init
