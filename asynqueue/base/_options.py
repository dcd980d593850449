"""What may be said of calls besides the calls themselves."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias, TypedDict
from weakref import WeakSet

from attrs import define, frozen

from .._support.checks import checkCount, checkSeconds
from ..tasks import Task, TaskFactory

#: Stands for a C{returnFailure} that wasn't given, since C{None} means something.
UNSET: Any = object()

#: Seconds, or a callable that is given the number of the attempt, from 1.
RetryDelay: TypeAlias = "float | Callable[[int], float]"

#: Callables that were warned of.
_warnedOf: WeakSet[object] = WeakSet()


class QueueOptions(TypedDict, total=False):
    """The keywords of a L{TaskQueue<asynqueue.base.TaskQueue>}."""

    name: str | None
    timeout: float | None
    warn: bool
    verbose: bool
    spew: bool
    returnFailure: bool | None
    maxQueued: int | None
    limits: Mapping[Hashable, int] | None
    retries: int
    retryDelay: RetryDelay
    reactor: Any


@define
class Defaults:
    """What holds for calls of a queue of which nothing else is said."""

    warn: bool
    verbose: bool
    spew: bool
    returnFailure: bool | None
    retries: int
    retryDelay: RetryDelay


@frozen
class CallOptions:
    """The queue's own keywords of a call, checked."""

    niceness: int = 0
    series: Hashable = None
    doNext: bool = False
    doLast: bool = False
    timeout: float | None = None
    within: float | None = None
    retries: int | None = None
    retryDelay: RetryDelay | None = None
    returnFailure: bool | None = UNSET
    name: str | None = None
    # How many workers have gone away before they ran it.
    moves: int = 0

    def __attrs_post_init__(self) -> None:
        # The rest is checked when the task is made.
        if self.within:
            checkSeconds("within", self.within)
        if self.retries is not None:
            checkCount("retries", self.retries, 0)
        if self.retryDelay is not None:
            checkRetryDelay(self.retryDelay)
        checkName(self.name)

    def makeTask(
        self, factory: TaskFactory, f: object, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Task:
        task = factory.new(
            f, args, kw, self.niceness, self.series, self.timeout or None
        )
        own = (self.retries, self.retryDelay, self.returnFailure, self.name)
        if own != (None, None, UNSET, None):  # else 0.1 KB a task would be kept
            task.options = self
        if self.doNext:
            task.rush()
        elif self.doLast:
            task.relax()
        return task


def checkRetryDelay(value: object) -> None:
    """Raise ValueError unless the value is a delay before further attempts."""
    if not callable(value):
        checkSeconds("retryDelay", value, zero=True)


def checkName(name: object) -> None:
    """Raise TypeError unless the value is a name, or C{None}."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")


def takesKeyword(f: Any, name: str) -> bool:
    """
    Tell whether a callable may take a keyword, as it may if it isn't known what it
    takes: methods of remote workers. That takes 10 us or more.
    """
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (
            parameter.name == name
            and parameter.kind
            in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
        for parameter in parameters.values()
    )


def warnOfSameNames(f: Any, names: dict[str, object]) -> None:
    """
    Warn once where the queue takes a keyword that the callable has a parameter for, of
    those that an application may not know as the queue's. C{None} wasn't given.
    """
    given = {name for name, value in names.items() if value is not None}
    try:
        if not given or f in _warnedOf:
            return
        taken = sorted(given & inspect.signature(f).parameters.keys())
        if taken:
            _warnedOf.add(f)
    except (TypeError, ValueError):
        return  # It has no signature, or can't be remembered.
    if taken:
        warnings.warn(
            f"The queue takes the keyword {', '.join(taken)} of this call, which"
            f" {f!r} has a parameter for: to pass it on, queue"
            f" functools.partial({getattr(f, '__name__', 'f')}, {taken[0]}=...)",
            stacklevel=3,
        )
