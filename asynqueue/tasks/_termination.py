"""Letting a worker go."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from .._support.awaitable import OneShot
from .._support.log import log
from .._support.reactor import Deadline
from ._requests import IEmployee
from ._task import Task


def crashWorker(worker: IEmployee) -> list[Task]:
    """
    Crash a worker.

    @return: The tasks that it leaves unfinished.
    """
    try:
        return cast(list[Task], list(worker.crash() or ()))
    except Exception:  # noqa: BLE001 - a worker may be of anybody's making
        log.failure("{worker} failed to crash", worker=worker)
        return []


def waitUntilGone(worker: IEmployee) -> Deferred[object]:
    """
    Wait until nothing is left of a worker that was crashed, if it can tell. Never
    fails.
    """
    deferUntilGone = getattr(worker, "deferUntilGone", None)
    if deferUntilGone is None:
        return succeed(None)
    gone: Deferred[object] = maybeDeferred(deferUntilGone)
    return gone.addErrback(
        lambda failure: log.failure(
            "{worker} failed to tell when it has gone", failure, worker=worker
        )
    )


class Termination:
    """
    A worker on its way out: it's told to stop, and crashed if that takes too long.

    @ivar worker: The worker.

    @ivar gone: Fires when it has gone, with the tasks that it leaves unfinished and
        that nobody else is given.
    """

    def __init__(
        self,
        worker: IEmployee,
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
        """Tell the worker to stop."""
        maybeDeferred(self.worker.stop).chainDeferred(self._stopping)

    def hurry(self, timeout: float) -> None:
        """Crash the worker after some time, unless that is to be sooner already."""
        if not self._stopping.called:
            self._deadline.within(timeout)

    def crash(self) -> None:
        """Crash the worker, unless it has stopped, or been crashed."""
        self._stopping.cancel()

    async def _run(self) -> None:
        hasStopped = await self._waitForStop()
        self._deadline.callOff()
        tasks: list[Task] = []
        if not hasStopped:
            tasks = crashWorker(self.worker)
            await waitUntilGone(self.worker)
        self.gone.fire(self._handOver(tasks))

    async def _waitForStop(self) -> bool:
        """Wait until the worker has stopped; C{False} if it's to be crashed."""
        try:
            await self._stopping
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - a worker may be of anybody's making
            log.failure("{worker} failed to stop, and is crashed", worker=self.worker)
            return False
        return True
