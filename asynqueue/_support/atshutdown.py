"""Telling those who wait that the reactor shuts down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.interfaces import IReactorCore

from .reactor import orGlobalReactor

__all__ = ["AtShutdown"]

#: Reactors that have begun to shut down. None of them starts again.
_shutDown: WeakSet[Any] = WeakSet()


class AtShutdown:
    """
    Has something called when the reactor begins to shut down, as long as that's wanted.
    Only so long there's a trigger in the reactor.
    """

    def __init__(self, f: Callable[[], object], reactor: object = None) -> None:
        self._f = f
        self._reactor = reactor
        self._trigger: Any = None

    def want(self) -> None:
        """Have it called, if the reactor shuts down before L{forgo}."""
        if self._trigger is not None:
            return
        reactor: Any = orGlobalReactor(self._reactor)
        # A trigger that is added while others run is run as well. So those who wait
        # again each time would keep the reactor from its end.
        if IReactorCore.providedBy(reactor) and reactor not in _shutDown:
            self._trigger = reactor.addSystemEventTrigger(
                "before", "shutdown", self._call, reactor
            )

    def forgo(self) -> None:
        """Don't have it called any longer."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            reactor: Any = orGlobalReactor(self._reactor)
            reactor.removeSystemEventTrigger(trigger)

    def _call(self, reactor: object) -> None:
        self._trigger = None
        _shutDown.add(reactor)
        self._f()
