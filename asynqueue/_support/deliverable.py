"""What threads may hand over to the reactor's."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType
from typing import Any

from twisted.python.failure import Failure

from .._child.calls import kindOfAwaitable
from .._child.describe import nameOf

__all__ = ["checkDeliverable", "checkReturned"]


def checkDeliverable(value: object) -> None:
    """
    Raise here, and not in the reactor's thread, what a value raises when it's asked for
    its class, as a Deferred does that fires with it.
    """
    isinstance(value, Failure)


def checkReturned(result: Any, f: Any) -> None:
    """Check what a callable has returned in a thread, and refuse what nobody awaits."""
    checkDeliverable(result)
    if type(result) in (CoroutineType, AsyncGeneratorType):
        raise TypeError(
            f"{nameOf(f)} returned {kindOfAwaitable(result)}, and nothing in a thread"
            " can await it: call such functions in the reactor, with an AsyncWorker"
        )
