"""A queue as a service of an application that C{twist} or C{twistd} runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ._support.awaitable import awaitable
from ._support.checks import checkCallable, checkSeconds
from .base import TaskQueue
from .errors import QueueRunError

__all__ = ["QueueService"]

_Q = TypeVar("_Q", bound=TaskQueue)

#: Seconds for a shutdown if nothing else is said. C{docker stop} kills after ten.
_TIMEOUT = 8.0


class QueueService(Service, Generic[_Q]):
    """
    Makes a queue when it starts, and shuts it down when it stops.

    C{twistd} starts services when it has gone into the background and has taken the
    user and group that it was told, so the queue's children belong to the process that
    stays. A queue that is made while a C{.tac} file is loaded loses them. The reactor
    stops when the shutdown is over, or its time is up.
    """

    # _retired has the queues before the present one that aren't shut down yet.

    def __init__(
        self,
        make: Callable[[], _Q],
        *,
        drain: bool = True,
        timeout: float | None = _TIMEOUT,
    ) -> None:
        """
        @param make: Makes the queue, for instance C{ProcessQueue}. It's called without
            arguments.

        @param drain: C{True} to run all that is queued before the end, C{False} only
            what workers have accepted.

        @param timeout: Seconds for that, after which workers are crashed. C{None} for
            any time.

        @raise TypeError: If C{make} isn't callable.

        @raise ValueError: If the number is out of range.
        """
        checkCallable("make", make)
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        self._make = make
        self._drain = drain
        self._timeout = timeout
        self._queue: _Q | None = None
        self._retired: list[_Q] = []

    @property
    def queue(self) -> _Q:
        """
        The queue. Don't keep it: after L{reload} it's another.

        @raise QueueRunError: If the service isn't running.
        """
        if self._queue is None:
            why = "make() has given none" if self.running else "it isn't running"
            raise QueueRunError(f"{self!r} has no queue: {why}")
        return self._queue

    def startService(self) -> None:
        """Make the queue."""
        super().startService()
        if self._queue is None:
            self._queue = self._make()

    def stopService(self) -> Deferred[None]:
        """
        Shut the queue down.

        @return: A Deferred that fires with C{None} when that is done.
        """
        super().stopService()
        queue, self._queue = self._queue, None
        if queue is not None:
            self._retire(queue)
        return Deferred.fromCoroutine(self._awaitRetired())

    def reload(self) -> Deferred[None]:
        """
        Put a new queue in place of the present one, which is then shut down as when the
        service stops. The new one's children import modules afresh.

        @return: A Deferred that fires with C{None} when the old queue has been shut
            down.

        @raise QueueRunError: If the service isn't running.
        """
        old, self._queue = self.queue, self._make()
        return awaitable(self._retire(old))

    def _retire(self, queue: _Q) -> Deferred[None]:
        self._retired.append(queue)
        return Deferred.fromCoroutine(self._shutDown(queue))

    async def _shutDown(self, queue: _Q) -> None:
        await queue.shutdown(self._drain, self._timeout)
        self._retired.remove(queue)

    async def _awaitRetired(self) -> None:
        for queue in list(self._retired):
            await queue.shutdown(self._drain)
