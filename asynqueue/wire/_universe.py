"""
What a server has to offer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["WireWorkerUniverse", "classOf", "namesOf", "tableOf"]


class WireWorkerUniverse:
    """
    Subclass it, and its public methods can be called from where a
    L{WireWorker<asynqueue.wire.WireWorker>} is.

    Public are functions that the subclass, or another between it and this class,
    defines under a name without a leading underscore. Nothing else can be reached from
    there. A method may return a Deferred, or be a coroutine function; iterators that
    methods return, also asynchronous ones of Deferreds, are iterated over as their
    items are taken.

    @cvar allowed: Classes of which instances may be sent, both ways, without pickles.
        They come as new objects with the same attributes; no code of theirs is run.

    @cvar exceptions: Classes of exceptions that come as what they are, besides those of
        Python itself.

    @ivar ws: The L{WireServer<asynqueue.wire.WireServer>}, C{None} elsewhere.
    """

    allowed: Iterable[type] = ()
    exceptions: Iterable[type[Exception]] = ()

    def __init__(self, wireServer: Any = None) -> None:
        """
        Make a universe.

        @param wireServer: The server.
        """
        self.ws = wireServer


def classOf(wwu: Any) -> type[WireWorkerUniverse]:
    """
    Get the class of a universe.

    @param wwu: The universe, or its class.

    @return: The class.

    @raise TypeError: If it's no universe.
    """
    kind = wwu if isinstance(wwu, type) else type(wwu)
    if not issubclass(kind, WireWorkerUniverse):
        raise TypeError(
            f"A universe is needed, an instance of a subclass of WireWorkerUniverse or"
            f" the subclass itself, not {wwu!r}"
        )
    return kind


def namesOf(wwu: Any) -> frozenset[str]:
    """
    List what can be called.

    @param wwu: The universe, or its class.

    @return: The names of its public methods.

    @raise TypeError: If it's no universe.
    """
    kind = classOf(wwu)
    names = set()
    for base in kind.__mro__[: kind.__mro__.index(WireWorkerUniverse)]:
        for name, value in vars(base).items():
            if name.startswith("_") or name in vars(WireWorkerUniverse):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            if inspect.isfunction(value):
                names.add(name)
    # What a subclass puts in the place of a method isn't one.
    return frozenset(name for name in names if callable(getattr(kind, name, None)))


def tableOf(wwu: WireWorkerUniverse) -> dict[str, Callable[..., Any]]:
    """
    Look up what can be called.

    @param wwu: The universe.

    @return: Its public methods, by name.
    """
    return {name: getattr(wwu, name) for name in namesOf(wwu)}
