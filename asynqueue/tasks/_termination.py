"""
Letting a worker go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from .._support.deadline import Deadline
from .._support.log import log
from .._support.oneshot import OneShot
from ..interfaces import IReplaceableWorker
from ._task import Task

__all__ = ["Termination", "crashWorker"]


def crashWorker(worker: Any) -> list[Task]:
    """
    Crash a worker.

    @return: The tasks that it leaves unfinished.
    """
    try:
        return list(worker.crash() or ())
    except Exception:  # noqa: BLE001 - a worker may be of anybody's making
        log.failure("{worker} failed to crash", worker=worker)
        return []


class Termination:
    """
    A worker on its way out: it's told to stop, and crashed if that takes too long.

    @ivar worker: The worker.

    @ivar gone: Fires when it has gone, with the tasks that it leaves unfinished and
        that nobody else is given.
    """

    def __init__(
        self,
        worker: Any,
        handOver: Callable[[list[Task]], list[Task]],
        reactor: IReactorTime | None,
    ) -> None:
        """
        @param handOver: Called when the worker has gone, with the tasks that it leaves
            unfinished. Returns those that nobody else is given.
        """
        self.worker = worker
        self._handOver = handOver
        self.gone: OneShot[list[Task]] = OneShot()
        # Fires when the worker has stopped. Failing it has the worker crashed.
        self._stopping: Deferred[object] = Deferred()
        self._deadline = Deadline(self._stopping.cancel, reactor)
        Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """
        Tell the worker to stop.
        """
        maybeDeferred(self.worker.stop).chainDeferred(self._stopping)

    def hurry(self, timeout: float) -> None:
        """
        Crash the worker after some time, unless that is to be sooner already.
        """
        if not self._stopping.called:
            self._deadline.within(timeout)

    def crash(self) -> None:
        """
        Crash the worker, unless it has stopped, or been crashed.
        """
        self._stopping.cancel()

    async def _run(self) -> None:
        hasStopped = await self._waitForStop()
        self._deadline.callOff()
        tasks: list[Task] = []
        if not hasStopped:
            tasks = crashWorker(self.worker)
            if IReplaceableWorker.providedBy(self.worker):
                await self.worker.deferUntilGone()
        self.gone.fire(self._handOver(tasks))

    async def _waitForStop(self) -> bool:
        """
        Wait until the worker has stopped; C{False} if it's to be crashed.
        """
        try:
            await self._stopping
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            log.failure("{worker} failed to stop, and is crashed", worker=self.worker)
            return False
        return True
