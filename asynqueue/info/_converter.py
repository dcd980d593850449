"""What objects can be sent as."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Converter"]


class Converter:
    """
    Finds what an object can be sent as: its pickle, or its fully qualified name (FQN),
    by which it can be imported.
    """

    @staticmethod
    def strToFQN(x: str) -> str | None:
        """
        Find the FQN of what a dotted name stands for, importing its module if need be.

        @return: The name under which it was defined, C{None} if there's no such thing,
            or it can't be had under that name.
        """
        found = _lookUp(x)
        return None if found is None else Converter.objToFQN(found)

    @staticmethod
    def objToPickle(x: object) -> bytes | None:
        """Pickle an object: C{None} if it can't be, or not be unpickled again."""
        import pickle

        try:
            pickled = pickle.dumps(x, 5)
            pickle.loads(pickled)
        except BaseException:  # noqa: BLE001 - runs __reduce__ of users
            return None
        return pickled

    @staticmethod
    def objToFQN(x: object) -> str | None:
        """Find the FQN of a module, class or function, if it can be had so."""
        try:
            if issubclass(type(x), ModuleType):
                name = x.__name__  # type: ignore[attr-defined]
            else:
                name = f"{x.__module__}.{x.__qualname__}"  # type: ignore[attr-defined]
        except BaseException:  # noqa: BLE001 - runs __getattr__ of users
            return None
        return name if _lookUp(name) is x else None

    @staticmethod
    def processObject(x: object) -> bytes | str | None:
        """Find what an object can be sent as: its pickle, its FQN, or nothing."""
        pickled = Converter.objToPickle(x)
        return Converter.objToFQN(x) if pickled is None else pickled


def _lookUp(name: object) -> Any:
    """Find what a dotted name stands for, C{None} if there's no such thing."""
    if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
        return None
    module, *rest = name.split(".")
    try:
        found: Any = import_module(module)
        for part in rest:
            module = f"{module}.{part}"
            if isinstance(found, ModuleType) and not hasattr(found, part):
                import_module(module)
            found = getattr(found, part)
    except BaseException:  # noqa: BLE001 - runs modules of users
        return None
    return found
