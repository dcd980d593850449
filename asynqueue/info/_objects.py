"""What stands for objects: pickles, names, hashes."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

#: Hashes depend on what is in so many levels of containers.
_MAX_LEVELS = 50


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


def _lookUp(name: object) -> object:
    """Find what a dotted name stands for, C{None} if there's no such thing."""
    if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
        return None
    module, *rest = name.split(".")
    try:
        found: object = import_module(module)
        for part in rest:
            module = f"{module}.{part}"
            if isinstance(found, ModuleType) and not hasattr(found, part):
                import_module(module)
            found = getattr(found, part)
    except BaseException:  # noqa: BLE001 - runs modules of users
        return None
    return found


def hashIt(*args: object) -> int:
    """
    Get a hash of any objects, also of those that have none.

    It's the same for equal objects, and almost certainly another one for others: it
    depends on the types, and on the order of arguments, and of items in lists and
    tuples. Containers and arrays count by what is in them. Like the hashes of strings,
    it's valid in this process only.
    """
    return _hashed(args, ())


def _hashed(value: object, above: tuple[int, ...]) -> int:
    """Get a hash of an object that is in containers with these IDs."""
    kind = type(value)
    if id(value) in above or len(above) > _MAX_LEVELS:
        return hash((kind, len(above)))
    try:
        return hash((kind, _content(value, (*above, id(value)))))
    except BaseException:  # noqa: BLE001 - runs code of users
        return hash((kind, _substitute(value)))


def _content(value: object, above: tuple[int, ...]) -> object:
    """Get something that has a hash, and stands for an object."""
    if isinstance(value, list | tuple):
        return tuple([_hashed(item, above) for item in value])
    if isinstance(value, dict):
        pairs = [(_hashed(k, above), _hashed(v, above)) for k, v in value.items()]
        return tuple(sorted(pairs))
    if isinstance(value, set | frozenset):
        return tuple(sorted([_hashed(item, above) for item in value]))
    if isinstance(value, int | float):
        # The hashes of -1 and -2 are the same.
        return hash(value), value == -1
    return hash(value)


def _substitute(value: Any) -> object:
    """
    Get something that stands for an object without a hash: what is in its buffer if
    it's an array, else how it shows itself. If it can't, its C{id}.
    """
    try:
        view = memoryview(value)
        return view.format, view.shape, view.tobytes()
    except BaseException:  # noqa: BLE001 - most objects aren't arrays
        pass
    try:
        return hash(repr(value))
    except BaseException:  # noqa: BLE001 - runs __repr__ of users
        return id(value)
