"""Something that happens once."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from .awaitable import AwaitableDeferred

_T = TypeVar("_T")


class OneShot(Generic[_T]):
    """
    Something that happens once, and that any number of callers wait for.

    Cancelling what one of them waits for leaves the others alone.
    """

    def __init__(self) -> None:
        # The result in a tuple once it's there. Until then, _waiters have not fired.
        self._result: tuple[_T] | None = None
        self._waiters: list[Deferred[_T]] = []

    @property
    def hasFired(self) -> bool:
        return self._result is not None

    def wait(self) -> Deferred[_T]:
        """Wait for its result, not at all if it has happened."""
        d: Deferred[_T] = AwaitableDeferred(self._waiters.remove)
        if self._result is None:
            self._waiters.append(d)
        else:
            d.callback(self._result[0])
        return d

    def fire(self, result: _T) -> None:
        """Tell all who wait, in the order in which they came. The first call counts."""
        if self._result is not None:
            return
        self._result = (result,)
        while self._waiters:  # the callbacks of one may cancel another
            self._waiters.pop(0).callback(result)
