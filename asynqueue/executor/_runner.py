"""Running tasks with an executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from .._child.status import Status
from ..errors import WorkerError
from ..interfaces import ITask
from ..tasks._task import forWorker
from ._calls import LocalCalls, PickledCalls, PoolCalls
from ._iteration import Ongoing, iterate
from ._jobs import Jobs, PoolJob
from ._pool import Pool

__all__ = ["PoolRunner"]


class PoolRunner:
    """
    Has an executor run tasks, and gives them their results. It's true while there are
    any.
    """

    def __init__(
        self,
        pool: Pool,
        ongoing: Ongoing,
        most: int | None,
        portable: bool,
        *,
        ran: Callable[[], int],
        ended: Callable[[], object],
        unusable: Callable[[BaseException], object],
        lost: Callable[[ITask, BaseException], Exception],
    ) -> None:
        """
        @param ran: Called when a task has been run. Tells how many wait.

        @param ended: Called when there's a task less.

        @param unusable: Called with what the executor says if it takes no more calls.

        @param lost: Makes the error of a task that was lost with the executor.
        """
        self._pool = pool
        self._ongoing = ongoing
        self._jobs = Jobs(pool.size, most)
        self._calls: PoolCalls = (
            PickledCalls(not pool.importsMain) if portable else LocalCalls()
        )
        self._ran = ran
        self._ended = ended
        self._unusable = unusable
        self._lost = lost

    def __bool__(self) -> bool:
        return bool(self._jobs.byTask)

    @property
    def capacity(self) -> int:
        """How many tasks there should be."""
        return self._jobs.capacity

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that have no result yet, oldest first."""
        return [job.task for job in self._jobs.byTask.values() if not job.isDropped]

    def run(self, task: ITask, raw: bool) -> Deferred[None]:
        """Run a task. The Deferred fires when there's room for another."""
        f, args, kw, raw, consumer = forWorker(task.callTuple, raw)
        job = PoolJob(task, Deferred(), consumer)
        submit = partial(self._pool.submit, partial(self._done, job))
        try:
            job.future = self._calls.submit(submit, task, (f, args, kw), raw)
        except WorkerError as error:
            task.errback(error)
            return succeed(None)
        except RuntimeError as error:
            self._unusable(error)
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        self._jobs.add(job)
        return job.ready

    def cancel(self, task: ITask) -> None:
        """Drop the result of a task, and its call, too, if that hasn't been begun."""
        job = self._jobs.byTask.get(task)
        if job is not None and job.future is not None:
            job.isDropped = True
            job.future.cancel()

    def withdraw(self, *, unbegun: bool) -> list[ITask]:
        """
        Take back all tasks, or only those that the executor has certainly not begun.
        """
        jobs = [
            job
            for job in self._jobs.byTask.values()
            if not unbegun or (job.future is not None and job.future.cancel())
        ]
        for job in jobs:
            self._jobs.remove(job)
        for job in jobs:
            job.ready.callback(None)
        return [job.task for job in jobs if not job.isDropped]

    def _done(self, job: PoolJob, future: Future[Any]) -> None:
        """Give a task its result, and be ready for another one."""
        task = job.task
        if task not in self._jobs.byTask:
            return  # It was taken back.
        self._jobs.remove(job)
        error = None if future.cancelled() else future.exception()
        if isinstance(error, BrokenExecutor):
            self._unusable(error)
            task.errback(self._lost(task, error))
        elif error is not None:
            failed = WorkerError(f"The executor has failed to run {task!r}: {error}")
            failed.__cause__ = error
            task.errback(failed)
        elif future.cancelled():
            task.callback((Status.DISCONNECTED, None))
        else:
            try:
                self._deliver(job, future.result())
            except Exception:  # noqa: BLE001 - executors are of anybody's making
                task.errback(Failure())
        job.ready.callback(None)
        self._ended()

    def _deliver(self, job: PoolJob, result: Any) -> None:
        task = job.task
        seconds, outcome = self._calls.outcome(result, task)
        if task.watch is not None:
            task.watch.seconds = seconds
        self._jobs.adapt(self._pool.size, seconds, self._ran())
        if isinstance(outcome, Failure):
            task.errback(outcome)
        elif outcome[0] is Status.ITERATOR:
            iterate(outcome[1], job, self._pool, self._ongoing)
        else:
            task.callback(outcome)
