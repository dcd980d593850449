"""
The one place that knows the global reactor.

Nothing here or elsewhere in the package imports it at module level, so that
importing the package never installs a reactor.
"""

from __future__ import annotations

import sys
from typing import TypeVar, cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTime,
)

__all__ = ["IReactorAll", "globalReactor", "hasGlobalReactor", "orGlobalReactor"]

_R = TypeVar("_R")


class IReactorAll(
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTime,
):
    """All that the package asks of a reactor, put together."""


def globalReactor() -> IReactorAll:
    """
    Get the global reactor, installing the default one if there is none yet.

    @return: The reactor.
    """
    from twisted.internet import reactor

    return cast(IReactorAll, reactor)


def hasGlobalReactor() -> bool:
    """Tell whether a reactor has been installed."""
    return "twisted.internet.reactor" in sys.modules


def orGlobalReactor(reactor: _R | None) -> _R:
    """
    Get the reactor that was given, or the global one.

    @param reactor: A reactor, or C{None} for the global one.

    @return: The reactor, typed as narrowly as the parameter.
    """
    # The global reactor has all the interfaces that the package asks for.
    return cast(_R, globalReactor()) if reactor is None else reactor
