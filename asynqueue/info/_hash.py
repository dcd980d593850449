"""Hashes of any objects."""

from __future__ import annotations

from typing import Any

__all__ = ["hashIt"]

#: Hashes depend on what is in so many levels of containers.
_MAX_LEVELS = 50


def hashIt(*args: Any) -> int:
    """
    Get a hash of any objects, also of those that have none.

    It's the same for equal objects, and almost certainly another one for others: it
    depends on the types, and on the order of arguments, and of items in lists and
    tuples. Containers and arrays count by what is in them. Like the hashes of strings,
    it's valid in this process only.
    """
    return _hashed(args, ())


def _hashed(value: Any, above: tuple[int, ...]) -> int:
    """Get a hash of an object that is in containers with these IDs."""
    kind = type(value)
    if id(value) in above or len(above) > _MAX_LEVELS:
        return hash((kind, len(above)))
    try:
        return hash((kind, _content(value, (*above, id(value)))))
    except BaseException:  # noqa: BLE001 - runs code of users
        return hash((kind, _substitute(value)))


def _content(value: Any, above: tuple[int, ...]) -> object:
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
