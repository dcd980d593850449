"""
Deferreds that asyncio's tasks can wait for, too, and what any number of callers wait
for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from functools import partial
from types import ModuleType
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class AwaitableDeferred(Deferred[_T]):
    """
    A Deferred that can be awaited in coroutines of Twisted and, under the asyncio
    reactor, in tasks of asyncio. C{asyncio.gather}, C{asyncio.wait_for}, and cancelling
    the task work.
    """

    def __await__(self) -> Generator[Any, None, _T]:
        asyncio = sys.modules.get("asyncio")
        if (
            not self.called
            and asyncio is not None
            and asyncio._get_running_loop() is not None
            and asyncio.current_task() is not None
        ):
            return self._bridged(asyncio)
        return super().__await__()

    def _bridged(self, asyncio: ModuleType) -> Generator[object, None, _T]:
        _checkLoop(asyncio)
        # Whether the task waits, or a coroutine of Twisted that it has called, can't be
        # told from here.
        yield _Bridge(self, asyncio)
        return (yield from super().__await__())


class _Bridge(Deferred[Callable[[], None]]):
    """
    What is yielded to whoever runs the coroutine: a Deferred for Twisted, and a future
    for asyncio, which asks it for what asyncio's documentation of futures has.

    Its result is a function, since asyncio calls C{result()}. What the awaited Deferred
    has fired with is looked at after that.
    """

    # True until asyncio has seen it. It knows futures by this attribute.
    _asyncio_future_blocking = True

    def __init__(self, target: Deferred[Any], asyncio: ModuleType) -> None:
        super().__init__()
        self._target = target
        self._asyncio = asyncio
        self._loop = asyncio.get_running_loop()
        self._isFuture = False
        target.addBoth(self._fired)

    def get_loop(self) -> object:
        return self._loop

    def add_done_callback(
        self, f: Callable[[_Bridge], object], *, context: object
    ) -> None:
        self._isFuture = True

        def done(result: Callable[[], None]) -> Callable[[], None]:
            self._loop.call_soon(f, self, context=context)
            return result

        self.addCallback(done)

    def cancel(self, msg: str | None = None) -> bool:  # type: ignore[override]  # as futures
        if self.called:
            return False
        if self._isFuture:
            # The task is told of it by result(), and doesn't look at the target again.
            # Not a bound method: Deferreds show their results, and so this one itself.
            self.callback(partial(_raise, self._asyncio.CancelledError))
            self._target.addErrback(lambda _: None)
        self._target.cancel()
        return True

    def _fired(self, result: _T) -> _T:
        if not self.called:
            self.callback(_pass)
        return result


def _raise(error: type[BaseException]) -> None:
    raise error


def _pass() -> None:
    pass


def _checkLoop(asyncio: ModuleType) -> None:
    """
    Raise RuntimeError if the reactor doesn't run in the loop that does: nothing would
    ever fire.
    """
    reactor = sys.modules.get("twisted.internet.reactor")
    # Reactors don't say by anything public which loop they have.
    loop = getattr(reactor, "_asyncioEventloop", None)
    if reactor is not None and loop is not asyncio.get_running_loop():
        raise RuntimeError(
            f"Calls can't be awaited here: the reactor, {reactor!r}, doesn't run in"
            " this event loop of asyncio. Have twisted.internet.asyncioreactor"
            ".install(loop) called for it before anything uses a reactor"
        )


def awaitable(d: Deferred[_T]) -> Deferred[_T]:
    """Make a Deferred that fires with the result of another one."""
    outer: Deferred[_T] = AwaitableDeferred(lambda _: d.cancel())
    d.chainDeferred(outer)
    return outer


def shielded(d: Deferred[_T]) -> Deferred[_T]:
    """
    Make a Deferred that fires with the result of another one, and whose cancelling ends
    the waiting for that, not what it stands for.
    """
    outer: Deferred[_T] = AwaitableDeferred(_ignore)
    d.addBoth(lambda result: None if outer.called else outer.callback(result))
    return outer


def _ignore(d: Deferred[object]) -> None:
    """Let a Deferred be cancelled."""


class Waiters(Generic[_T]):
    """
    Callers that wait for something, which may happen time after time.

    Cancelling what one of them waits for leaves the others alone.
    """

    def __init__(self) -> None:
        # Their Deferreds, none of which has fired.
        self.waiting: list[Deferred[_T]] = []

    def wait(self) -> Deferred[_T]:
        """Wait until it happens next."""
        d: Deferred[_T] = AwaitableDeferred(self.waiting.remove)
        self.waiting.append(d)
        return d

    def fire(self, result: _T) -> None:
        """Tell all who wait now, in the order in which they came."""
        waiting, self.waiting = self.waiting, []
        while waiting:  # the callbacks of one may cancel another
            waiting.pop(0).callback(result)


class OneShot(Waiters[_T]):
    """Something that happens once. Who comes later needn't wait."""

    def __init__(self) -> None:
        super().__init__()
        # In a tuple, once it's there.
        self._result: tuple[_T] | None = None

    @property
    def hasFired(self) -> bool:
        return self._result is not None

    def wait(self) -> Deferred[_T]:
        if self._result is None:
            return super().wait()
        d: Deferred[_T] = AwaitableDeferred()
        d.callback(self._result[0])
        return d

    def fire(self, result: _T) -> None:
        """Tell all who wait. The first call counts."""
        if self._result is None:
            self._result = (result,)
            super().fire(result)
