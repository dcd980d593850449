"""
Checks of what users pass, and of what their callables return in threads. Each error
names the thing, and says what is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable
from types import AsyncGeneratorType, CoroutineType

from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._child.calls import kindOfAwaitable
from .._child.describe import nameOf
from ..errors import ImplementationError


def checkSeconds(name: str, value: object, *, zero: bool = False) -> None:
    """
    Raise ValueError unless the value is a number of seconds, more than 0 by default.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (value >= 0 if zero else value > 0)
        or value > sys.float_info.max
    ):
        raise ValueError(
            f"{name} must be a {'' if zero else 'positive '}number of seconds,"
            f" not {value!r}"
        )


def checkCount(name: str, value: object, least: int) -> None:
    """Raise ValueError unless the value is an integer from C{least} up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer from {least} up, not {value!r}")


def checkFlag(name: str, value: object) -> None:
    """Raise TypeError unless the value is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def checkCallable(name: str, value: object) -> None:
    """Raise TypeError unless the value can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, which {value!r} isn't")


def checkHashable(series: object) -> None:
    """Raise TypeError unless the value can be a series."""
    try:
        hash(series)
    except TypeError as error:
        raise TypeError(
            f"A series must be hashable, and {series!r} isn't: use a string, a number,"
            " or a tuple of such"
        ) from error


def checkConsumer(value: object) -> None:
    """Raise ImplementationError unless the value provides C{IConsumer}."""
    if not IConsumer.providedBy(value):
        raise ImplementationError(
            f"The consumer {value!r} doesn't provide IConsumer: is its class marked"
            " with @implementer(IConsumer)?"
        )


def seriesList(series: Iterable[Hashable]) -> list[Hashable]:
    """
    Make a list of series. A string, which would make a series of each letter, is a
    TypeError.
    """
    if isinstance(series, (str, bytes)):
        raise TypeError(
            f"series must be a list of series, such as [{series!r}], not {series!r}"
        )
    return list(series)


def checkDeliverable(value: object) -> None:
    """
    Raise here, and not in the reactor's thread, what a value raises when it's asked for
    its class, as a Deferred does that fires with it.
    """
    isinstance(value, Failure)


def checkReturned(result: object, f: object) -> None:
    """Check what a callable has returned in a thread, and refuse what nobody awaits."""
    checkDeliverable(result)
    if type(result) in (CoroutineType, AsyncGeneratorType):
        raise TypeError(
            f"{nameOf(f)} returned {kindOfAwaitable(result)}, and nothing in a thread"
            " can await it: call such functions in the reactor, with an AsyncWorker"
        )
