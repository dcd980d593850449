"""
What is done with a worker before it gets tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import IReplaceableWorker
from ._task import Task
from ._updates import Updates

__all__ = ["Preparing", "qualifications"]


def qualifications(worker: Any) -> list[Hashable]:
    """
    List the series that a worker is qualified for.
    """
    if getattr(worker, "exclusive", False):
        return list(worker.iQualified)
    return [None, *worker.cQualified, *worker.iQualified]


class _Round:
    """
    Updates that are being run on a worker before it requests tasks.
    """

    def __init__(self) -> None:
        # How many sets of updates are being run.
        self.running = 0
        # The series that it'll request tasks of.
        self.series: list[Hashable] = []
        # Text about an update that has failed.
        self.failure: str | None = None


class Preparing:
    """
    Waits until workers are ready, runs the stored updates on them, and has them request
    tasks.
    """

    # A worker that has been hired is in _connecting, with the updates meant for it
    # alone, until it's ready; and in _rounds while updates are being run.

    def __init__(
        self,
        updates: Updates,
        employs: Callable[[Any], bool],
        request: Callable[[Any, list[Hashable]], object],
        refused: Callable[[Any, Failure], object],
    ) -> None:
        """
        @param employs: Tells whether a worker is still employed.

        @param request: Has a worker request tasks of some series.

        @param refused: Called with a worker that can't be put to work, and why.
        """
        self._updates = updates
        self._employs = employs
        self._request = request
        self._refused = refused
        self._connecting: dict[int, list[Task]] = {}
        self._rounds: dict[int, _Round] = {}

    def isConnecting(self, worker: Any) -> bool:
        """
        Whether a worker isn't ready yet.
        """
        return worker.ID in self._connecting

    def addUpdate(self, task: Task) -> None:
        """
        Have workers that aren't ready yet run an update when they are.
        """
        for tasks in self._connecting.values():
            tasks.append(task)

    async def connect(self, worker: Any) -> int:
        """
        Wait until a worker is ready, and prepare it. Returns its ID.
        """
        ID: int = worker.ID
        self._connecting[ID] = []
        try:
            await worker.deferUntilReady()
        except Exception:
            del self._connecting[ID]
            if not self._employs(worker):
                return ID  # It was let go before.
            self._refused(worker, Failure())
            raise
        own = self._connecting.pop(ID)
        if not self._employs(worker):
            return ID
        updates = [*self._updates.stored, *own]
        return await self.prepare(worker, qualifications(worker), updates)

    def prepare(
        self, worker: Any, series: list[Hashable], updates: list[Task]
    ) -> Deferred[int]:
        """
        Run those updates that are of some series on a worker, and then have it request
        tasks of them. Fires with its ID.
        """
        return Deferred.fromCoroutine(self._prepare(worker, series, updates))

    async def _prepare(
        self, worker: Any, series: list[Hashable], updates: list[Task]
    ) -> int:
        ID: int = worker.ID
        current = self._rounds.setdefault(ID, _Round())
        current.running += 1
        current.series += series
        failure = await self._updates.apply(worker, updates, series)
        current.failure = failure or current.failure
        current.running -= 1
        if current.running:
            return ID  # It isn't ready before the last.
        del self._rounds[ID]
        try:
            if self._employs(worker) and IReplaceableWorker.providedBy(worker):
                worker.updatesApplied(current.failure)
            if self._employs(worker):
                self._request(worker, current.series)
        except Exception:  # a worker, and a factory, may be of anybody's making
            if self._employs(worker):
                self._refused(worker, Failure())
            raise
        return ID
