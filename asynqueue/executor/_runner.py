"""
Running tasks with an executor: how calls are given to it, as they are where threads of
this interpreter run them, else pickled; how many it has; and what comes of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextvars import Context
from functools import partial
from inspect import isgeneratorfunction
from time import perf_counter
from typing import Any, TypeAlias

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._child.calls import isIteration, raisable
from .._child.describe import PLAIN, callText, errorText, nameOf
from .._child.parcels import Parcel, execute, pack, unpack
from .._child.pickling import NotPicklable, blame
from .._child.status import RAN, ErrorText, Status, StatusResult
from .._support.answers import cantBeSent, loadsAnswer
from .._support.checks import checkReturned
from ..errors import WorkerError, WorkerLost
from ..interfaces import ITask
from ..iteration import Deferator, IterationProducer
from ..tasks._workerbase import forWorker, traced
from ._pool import Pool, PoolIteration

#: Calls are given to an executor in advance for so many seconds, going by how long the
#: last ones took,
PREFETCH_SECONDS = 0.001

#: and not more than so many for each that it can run at once.
MAX_PREFETCHED = 32

#: How much the last call counts in that.
WEIGHT = 1 / 16

#: A callable, its arguments, and its keywords.
_Call: TypeAlias = tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]


@define(eq=False)
class _PoolJob:
    """A task that an executor has."""

    task: ITask
    consumer: IConsumer | None
    future: Future[object] = field(init=False)
    #: Fires when there's room for another.
    ready: Deferred[None] = field(factory=Deferred)
    #: Whether it's one of the first, which can be run at once.
    isRunning: bool = False
    #: Whether nobody wants the result any longer.
    isDropped: bool = False


class PoolRunner:
    """
    Has an executor run tasks, and gives them their results. It's true while there are
    any.

    Executors don't tell which calls they are at. They begin them in their order, so
    it's reckoned that these are the first, and only their clocks run.
    """

    # _jobs are all, oldest first. _behind are those that aren't running, of which there
    # are none while fewer than _size are. _most is how many there should be, if the
    # user has said so.

    def __init__(
        self,
        pool: Pool,
        most: int | None,
        portable: bool,
        *,
        ran: Callable[[], int],
        ended: Callable[[], object],
        unusable: Callable[[BaseException], object],
        lost: Callable[[ITask, BaseException], Exception],
    ) -> None:
        self._pool = pool
        self._jobs: dict[ITask, _PoolJob] = {}
        self._most = most
        self._size = pool.size
        # How many tasks there should be.
        self.capacity = self._size if most is None else most
        self._behind: deque[_PoolJob] = deque()
        self._seconds = PREFETCH_SECONDS
        self._portable = portable
        # Only its processes import the program's main module.
        self._isForeign = not isinstance(pool.executor, ProcessPoolExecutor)
        # Called when a task has been run, and tells how many wait;
        self._ran = ran
        # when there's a task less;
        self._ended = ended
        # with what the executor says if it takes no more calls;
        self._unusable = unusable
        # and to make the error of a task that was lost with it.
        self._lost = lost

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def tasks(self) -> list[ITask]:
        return [job.task for job in self._jobs.values() if not job.isDropped]

    def run(self, task: ITask, raw: bool) -> Deferred[None]:
        """Run a task. The Deferred fires when there's room for another."""
        f, args, kw, raw, consumer = forWorker(task.callTuple, raw)
        job = _PoolJob(task, consumer)
        call = f, args, kw
        prepared: tuple[Any, ...]
        try:
            if self._portable:
                prepared = execute, _packed(task, call, raw, self._isForeign)
            else:
                # A copy, since a call that was cancelled may still be in the task's.
                context = Context() if task.context is None else task.context.copy()
                prepared = _runHere, context, call, raw
            job.future = self._pool.submit(partial(self._done, job), *prepared)
        except WorkerError as error:
            task.errback(error)
            return succeed(None)
        except RuntimeError as error:
            self._unusable(error)
            if "start new thread" in str(error):
                # Python's executors have the call then, and may still run it.
                text = f"{task!r} may be run by an executor that has failed: {error}"
                task.errback(WorkerLost(text, task=task))
            else:
                task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        job.isRunning = len(self._jobs) - len(self._behind) < self._size
        self._jobs[task] = job
        if not job.isRunning:
            self._behind.append(job)
            if task.timeout is not None:
                task.stopTimer()
        return job.ready

    def cancel(self, task: ITask) -> None:
        """Drop the result of a task, and its call, too, if that hasn't been begun."""
        job = self._jobs.get(task)
        if job is not None:
            job.isDropped = True
            job.future.cancel()

    def withdraw(self, *, unbegun: bool) -> list[ITask]:
        """
        Take back all tasks, or only those that the executor has certainly not begun.
        """
        jobs = [
            job for job in self._jobs.values() if not unbegun or job.future.cancel()
        ]
        for job in jobs:
            self._remove(job)
        for job in jobs:
            job.ready.callback(None)
        return [job.task for job in jobs if not job.isDropped]

    def adapt(self, size: int, seconds: float, waiting: int) -> None:
        """
        Adapt the capacity to how many calls can be run at once, to how long they take,
        and to how many wait.
        """
        self._size = size
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            self._seconds += WEIGHT * (seconds - self._seconds)
        if self._most is None:
            ahead = int(size * min(PREFETCH_SECONDS / self._seconds, MAX_PREFETCHED))
            self.capacity = size + min(waiting, ahead)

    def _remove(self, job: _PoolJob) -> None:
        """Remove a job, and start the clock of the next."""
        del self._jobs[job.task]
        if not job.isRunning:
            self._behind.remove(job)
        elif self._behind:
            following = self._behind.popleft()
            following.isRunning = True
            if following.task.timeout is not None and not following.isDropped:
                following.task.startTimer()

    def _done(self, job: _PoolJob, future: Future[object]) -> None:
        """Give a task its result, and be ready for another one."""
        task = job.task
        if task not in self._jobs:
            return  # It was taken back.
        self._remove(job)
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

    def _deliver(self, job: _PoolJob, result: Any) -> None:
        task = job.task
        if self._portable:
            kind, payload = result
            result = loadsAnswer(kind, unpack(payload), task)
        seconds, outcome = result
        if task.watch is not None:
            task.watch.seconds = seconds
        self.adapt(self._pool.size, seconds, self._ran())
        if isinstance(outcome, Failure):
            task.errback(outcome)
        elif outcome[0] is Status.ITERATOR:
            self._iterate(outcome[1], job)
        else:
            task.callback(outcome)

    def _iterate(self, iteration: PoolIteration, job: _PoolJob) -> None:
        """Give a task an iteration, whose items are made as they're taken."""
        if iteration.isEmpty and job.consumer is None:
            job.task.callback((Status.ITERATOR, []))
            return
        result: Any = Deferator(iteration.source)
        result.reactor = self._pool.reactor
        try:
            if job.consumer is not None:
                result = IterationProducer(result, job.consumer)
        except Exception:  # noqa: BLE001 - the consumer is the user's
            job.isDropped = True
            job.task.errback(Failure())
        else:
            job.task.callback((Status.ITERATOR, result))
        if job.isDropped:
            iteration.source.stop()
        self._pool.begin(iteration.run(self._pool))


def _packed(task: ITask, call: _Call, raw: bool, isForeign: bool) -> bytes | Parcel:
    """Pickle a call. If it can't be called elsewhere, that's a WorkerError."""
    f, args, kw = call
    if task.direct:
        raise WorkerError(
            f"{task!r} would update one process only of the executor's: give the"
            " executor an initializer instead"
        )
    if isgeneratorfunction(f):
        reason = NotPicklable(
            f"{nameOf(f)} is a generator function, and its items can't be brought"
            " here from there: have it return a list, or call it with a"
            " ProcessQueue, which brings the items"
        )
        raise cantBeSent(task, reason)
    try:
        return pack((traced(f, task, raw), args, kw, raw), f, isForeign)
    except NotPicklable as error:
        raise cantBeSent(task, blame(f, args, kw, error)) from error


def _runHere(context: Context, call: _Call, raw: bool) -> tuple[float, StatusResult]:
    """
    Run a call in a thread, and get the seconds that it took, and the status and result
    of its task. That of an iteration is a L{PoolIteration}.
    """
    f, args, kw = call
    start = perf_counter()
    try:
        status, result = RAN, context.run(f, *args, **kw)
        if type(result) not in PLAIN:
            checkReturned(result, f)
            if not raw and isIteration(result):
                status, result = Status.ITERATOR, PoolIteration(result, context)
                result.make(1)
    except BaseException as error:  # noqa: BLE001 - the callable is the user's
        text = callText(f, args, kw)
        status = Status.ERROR
        result = ErrorText(errorText(error, text), raisable(error, text))
    return perf_counter() - start, (status, result)
