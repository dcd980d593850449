"""
Iterations in the cluster: as the reactor sees them, and the taking of their items in
the loop of the worker's thread.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, final

from twisted.python.failure import Failure

from .._child.pickling import describeError
from .._child.status import ErrorText
from .._support.answers import loadsException
from ..errors import WorkerError, WorkerLost
from ..interfaces import ITask
from ..iteration._sources import BufferedSource
from ..tasks._workerbase import RemoteIteration
from ._remote import RemoteItems, take

#: The thread hears of so many items that have been taken at a time.
_COUNT = 100

#: So many items of an iteration may be here that haven't been taken.
_MAX_UNTAKEN = 2_000


class ClusterIteration(RemoteIteration):
    """An iterator that is held in the cluster, and from which items are taken here."""

    # _ended is called once, when nothing more will come, or is wanted.

    def __init__(
        self,
        task: ITask,
        taken: Callable[[ClusterIteration, int], object],
        ended: Callable[[ClusterIteration], object],
    ) -> None:
        """
        C{taken} is called with this, and how many items have been taken; C{ended} with
        this when it has ended, whichever way.
        """
        super().__init__(
            task,
            BufferedSource(lambda count: taken(self, count), self.finish, every=_COUNT),
        )
        self._ended: Callable[[ClusterIteration], object] | None = ended

    def received(self, items: list[object], end: ErrorText | str | None) -> None:
        """Take items, and perhaps the end: C{""}, or text that has an exception."""
        if items and self._ended is not None:
            self._begin()
            self._source.push(items)
        if end is None or self._ended is None:
            return
        if isinstance(end, ErrorText):
            self._begin()
            self._source.fail(Failure(end.exception or WorkerError(str(end))))
        else:
            self.end()
        self.finish()

    def failed(self, error: BaseException) -> None:
        """Take it that nothing more will come."""
        if self._ended is not None:
            self.lose(Failure(error))
            self.finish()

    def finish(self) -> None:
        """Let go of it."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)


@final
class HeldItems(NamedTuple):
    """Stands for an iterator that a call has returned, held in the cluster."""

    ID: str
    address: str


class ClusterStream:
    """An iteration whose items are fetched, as long as there aren't too many here."""

    def __init__(
        self, held: HeldItems, iteration: ClusterIteration, tell: Callable[..., object]
    ) -> None:
        self.held = held
        self._iteration = iteration
        # Has something be called in the reactor's thread.
        self._tell = tell
        self._untaken = 0
        self._room = asyncio.Event()
        self._room.set()

    async def run(self, client: Any) -> None:
        """Fetch items up to the end."""
        ID, address = self.held
        end = None
        try:
            while end is None:
                await self._room.wait()
                found = await client.run(take, ID, workers=[address])
                items, end = _loads(found[address])
                self.taken(-len(items))
                self._tell(self._iteration.received, items, end)
        except Exception as error:  # noqa: BLE001 - Dask's are many
            lost = WorkerLost(f"No more items can be had: {describeError(error)}")
            self._tell(self._iteration.failed, lost)

    def taken(self, count: int) -> None:
        """Note that so many items have been taken; less than none if they have come."""
        self._untaken -= count
        if self._untaken < _MAX_UNTAKEN:
            self._room.set()
        else:
            self._room.clear()


def _loads(found: RemoteItems) -> tuple[list[object], ErrorText | str | None]:
    """
    Unpickle items of an iteration, and how it has ended: C{None} if it hasn't, C{""} if
    there are no more, or text that has the exception.
    """
    items = [
        pickle.loads(item) if isinstance(item, bytes) else item.loads()
        for item in found.items
    ]
    if found.end is None:
        return items, None
    return items, loadsException(found.end) if found.end else ""
