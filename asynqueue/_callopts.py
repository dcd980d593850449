"""
What may be said of a call besides the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from ._policy import ErrorPolicy
from ._task import checkSeconds

__all__ = ["OWN_KEYWORDS", "CallOptions", "RetryDelay", "checkCount", "checkDelay"]

#: The keywords of a call that are the queue's own, besides C{consumer} and C{raw},
#: which workers see.
OWN_KEYWORDS = frozenset(
    [
        "doLast",
        "doNext",
        "niceness",
        "retries",
        "retryDelay",
        "returnFailure",
        "series",
        "timeout",
    ]
)

#: Seconds, or a callable that is given the number of the attempt, from 1.
RetryDelay: TypeAlias = "float | Callable[[int], float]"


@frozen
class CallOptions:
    """
    What was said of a call.

    @ivar policy: What its Deferred comes to when it fails.

    @ivar retries: How many further attempts it has.

    @ivar retryDelay: Seconds before each.

    @ivar moves: How many workers have gone away before they ran it.
    """

    policy: ErrorPolicy
    retries: int
    retryDelay: RetryDelay
    moves: int = 0


def checkCount(name: str, value: Any, least: int) -> None:
    """
    Check that something is a number of things.

    @param name: What it's called.

    @param value: The number.

    @param least: The least that it may be.

    @raise ValueError: If it isn't.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer from {least} up, not {value!r}")


def checkDelay(value: Any) -> None:
    """
    Check that something is a delay before further attempts.

    @param value: The delay.

    @raise ValueError: If it isn't.
    """
    if not callable(value):
        checkSeconds("retryDelay", value, zero=True)
