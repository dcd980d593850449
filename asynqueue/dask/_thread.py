"""The thread that a worker has for its client of Dask's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import Handover
from ._connection import ClusterOptions
from ._session import CallOwner, ClusterSession, SessionOwner


class _SessionLoop:
    """A loop of asyncio's, as far as it can stand in for a reactor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.callFromThread = loop.call_soon_threadsafe
        self.callLater = loop.call_later
        self.seconds = loop.time


class SessionThread:
    """
    A thread with a loop of asyncio's, in which there's one session.

    Such a thread goes with any reactor. What goes from one to the other, either way,
    wakes it up once for all that comes together.

    @ivar ended: Fires with C{None} when the thread has ended.
    """

    # _requests takes names of methods of the session's with their arguments.

    def __init__(
        self,
        options: ClusterOptions,
        owner: SessionOwner,
        calls: CallOwner,
        reactor: Any,
    ) -> None:
        """Start it."""
        self.ended: Deferred[None] = Deferred()
        self._owner = owner
        self._calls = calls
        self._told: Handover[Callable[[], object]] = Handover(_call, reactor)
        found: SimpleQueue[Any] = SimpleQueue()
        # A daemon: where the reactor was stopped without more ado, it holds nobody up.
        self._thread = threading.Thread(
            target=self._run, args=(options, found), name="asynqueue dask", daemon=True
        )
        self._thread.start()
        self._requests: Handover[Callable[[ClusterSession], object]] | None = (
            found.get()
        )

    def ask(self, method: Callable[..., object], *args: Any) -> None:
        """Call a method of the session."""
        if self._requests is not None:
            with suppress(RuntimeError):  # it has just ended, and that is being told
                self._requests.put(lambda session: method(session, *args))

    def _run(self, options: ClusterOptions, found: SimpleQueue[Any]) -> None:
        """Run in the thread."""
        failure: Failure | None = None
        try:
            asyncio.run(self._main(options, found))
        except BaseException:  # noqa: BLE001 - nobody else would hear
            failure = Failure()
        found.put(None)
        self._told.put(partial(self._over, failure))

    async def _main(self, options: ClusterOptions, found: SimpleQueue[Any]) -> None:
        session = ClusterSession(options, self._owner, self._calls, self._told.putAll)
        loop = _SessionLoop(asyncio.get_running_loop())
        found.put(Handover(lambda request: request(session), loop))
        await session.main()

    def _over(self, failure: Failure | None) -> None:
        # Telling so was the last that it had to do.
        self._thread.join()
        self._requests = None
        if failure is not None:
            log.failure("{worker}: its thread has failed", failure, worker=self._owner)
            self._owner.lost(failure.value or RuntimeError())
        self.ended.callback(None)


def _call(f: Callable[[], object]) -> None:
    f()
