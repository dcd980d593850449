"""
What one peer may ask for.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

__all__ = ["Limits"]


def _positive(instance: Any, attribute: Any, value: Any) -> None:
    """
    Check a limit.

    @param instance: The limits.

    @param attribute: Which it is.

    @param value: It.

    @raise ValueError: If it isn't a positive whole number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{attribute.name} must be a positive integer, not {value!r}")


@frozen
class Limits:
    """
    What one peer may ask for.

    @ivar largest: How many bytes the encoding of a value may have.

    @ivar tasks: How many tasks may be accepted and not done.

    @ivar iterators: How many iterations may be going on.

    @ivar held: How many bytes of values that are on their way may be kept.
    """

    largest: int = field(default=512 << 20, validator=_positive)
    tasks: int = field(default=1000, validator=_positive)
    iterators: int = field(default=1000, validator=_positive)
    held: int = field(default=1 << 30, validator=_positive)
