"""
What is said of the children of a worker or a queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from .._child.payloads import NotPicklable, dumps
from .._child.preparation import preparation
from ..errors import SerializationError

__all__ = ["START_TIMEOUT", "ChildOptions"]

#: Seconds that a child has until it's ready, if nothing else is said.
START_TIMEOUT = 120.0


@frozen
class ChildOptions:
    """
    Options of children, checked.

    @ivar env: The environment, C{None} for that of this process.

    @ivar initializer: The initializer and its arguments, pickled, C{None} for none.

    @ivar niceness: What is added to the niceness of the process.

    @ivar maxTasks: After so many tasks a child is replaced, C{None} for never.

    @ivar maxMemory: A child that has more in use than so many MB after a task is
        replaced, C{None} for none.

    @ivar startTimeout: Seconds that a child has until it's ready.
    """

    env: Mapping[str, str] | None
    initializer: bytes | None
    niceness: int
    maxTasks: int | None
    maxMemory: float | None
    startTimeout: float | None

    @classmethod
    def checked(
        cls,
        env: Any = None,
        initializer: Any = None,
        niceness: Any = 0,
        maxTasks: Any = None,
        maxMemory: Any = None,
        startTimeout: Any = START_TIMEOUT,
    ) -> ChildOptions:
        """
        Check what is said, and make options of it.

        @param env: See L{ChildOptions}.

        @param initializer: A callable, or a tuple of one and its arguments.

        @param niceness: See L{ChildOptions}.

        @param maxTasks: See L{ChildOptions}.

        @param maxMemory: See L{ChildOptions}.

        @param startTimeout: See L{ChildOptions}.

        @return: The options.

        @raise TypeError: If the initializer isn't one.

        @raise ValueError: If a number is out of range.

        @raise SerializationError: If the initializer can't be pickled.
        """
        if not _isInteger(niceness) or not -20 <= niceness <= 19:
            raise ValueError(
                "The niceness of a process must be an integer from -20 to 19, not"
                f" {niceness!r}"
            )
        if maxTasks is not None and (not _isInteger(maxTasks) or maxTasks < 1):
            raise ValueError(
                f"maxTasks must be an integer from 1 up, or None, not {maxTasks!r}"
            )
        _checkPositive("maxMemory", maxMemory, "number of MB")
        _checkPositive("startTimeout", startTimeout, "number of seconds")
        return cls(
            env,
            None if initializer is None else _pickled(initializer),
            niceness,
            maxTasks,
            maxMemory,
            startTimeout,
        )

    @property
    def wears(self) -> bool:
        """
        Whether tasks may wear a child out.
        """
        return self.maxTasks is not None or self.maxMemory is not None

    def setup(self) -> bytes:
        """
        Make what a child is told first.

        @return: A dict, pickled.
        """
        return dumps(
            {
                **preparation(),
                "niceness": self.niceness,
                "initializer": self.initializer,
            }
        )


def _isInteger(value: Any) -> bool:
    """
    Tell whether something is an integer.

    @param value: The thing.

    @return: Whether it is; booleans aren't.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def _checkPositive(name: str, value: Any, what: str) -> None:
    """
    Check that something is a positive number, or C{None}.

    @param name: What it's called.

    @param value: The thing.

    @param what: What kind of number it is.

    @raise ValueError: If it isn't.
    """
    if value is not None and (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value < float("inf")
    ):
        raise ValueError(f"{name} must be a positive {what}, or None, not {value!r}")


def _pickled(initializer: Any) -> bytes:
    """
    Check and pickle an initializer.

    @param initializer: It.

    @return: The callable and a tuple of its arguments, pickled.

    @raise TypeError: If it isn't one.

    @raise SerializationError: If it can't be pickled.
    """
    f, args = initializer, ()
    if isinstance(initializer, tuple) and len(initializer) == 2:
        f, args = initializer
    if not callable(f) or not isinstance(args, (tuple, list)):
        raise TypeError(
            "The initializer must be a callable, or a tuple of a callable and a tuple"
            f" of its arguments, not {initializer!r}"
        )
    try:
        return dumps((f, tuple(args)))
    except NotPicklable as error:
        raise SerializationError(
            f"The initializer {initializer!r} can't be sent to child processes: {error}"
        ) from error.__cause__
