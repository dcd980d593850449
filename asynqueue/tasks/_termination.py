"""
Letting a worker go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .._support.log import log
from .._support.oneshot import OneShot
from .._support.reactor import orGlobalReactor
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
        self._timers: list[IDelayedCall] = []
        self._reactor = reactor
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
            # Of several time limits, the earliest counts. addTimeout would leave its
            # timer until those who wait for the end have had their say.
            self._timers.append(
                orGlobalReactor(self._reactor).callLater(timeout, self._stopping.cancel)
            )

    def crash(self) -> None:
        """
        Crash the worker, unless it has stopped, or been crashed.
        """
        self._stopping.cancel()

    async def _run(self) -> None:
        hasStopped = False
        try:
            await self._stopping
            hasStopped = True
        except CancelledError:
            pass
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            log.failure("{worker} failed to stop, and is crashed", worker=self.worker)
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if hasStopped:
            self.gone.fire(self._handOver([]))
            return
        tasks = crashWorker(self.worker)
        if IReplaceableWorker.providedBy(self.worker):
            await self.worker.deferUntilGone()
        self.gone.fire(self._handOver(tasks))
