"""Threads for what takes long: copies of large buffers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

__all__ = ["CopyThreads"]

_T = TypeVar("_T")


class CopyThreads:
    """
    Threads that each do one thing and end, so that the reactor isn't held up. A full
    pool, such as the reactor's may be, would hold up payloads.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._threads: set[threading.Thread] = set()
        self._waiters: list[Deferred[None]] = []

    def run(self, f: Callable[[], _T]) -> Deferred[_T]:
        """
        Call something in a thread.

        @return: A Deferred that fires with what it returns or raises.
        """
        d: Deferred[_T] = Deferred()

        def target() -> None:
            result: Any
            try:
                result = f()
            except BaseException:  # noqa: BLE001 - nobody else would hear
                result = Failure()
            self._reactor.callFromThread(self._ended, thread, d, result)

        thread = threading.Thread(target=target, name="asynqueue copy", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # There are as many threads as there may be.
            target()
        return d

    def whenIdle(self) -> Deferred[None]:
        """Wait until no thread is left."""
        if not self._threads:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._waiters.append(d)
        return d

    def _ended(self, thread: threading.Thread, d: Deferred[Any], result: Any) -> None:
        if thread.ident is not None:
            # Telling so was the last that it had to do.
            thread.join()
        self._threads.discard(thread)
        d.callback(result)
        while self._waiters and not self._threads:
            self._waiters.pop(0).callback(None)
