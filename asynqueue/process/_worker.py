"""The worker in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from time import perf_counter
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.buffers import Incoming
from .._child.pickling import NotPicklable, blame, describeError, dumps
from .._child.protocol import Kind
from .._child.status import Status
from .._support.answers import cantBeSent, loadsAnswer
from .._support.childprocess import ExitStatus
from .._support.log import log
from ..errors import WorkerLost, WorkerStartError
from ..interfaces import (
    ICancellingWorker,
    IPrefetchingWorker,
    IReplaceableWorker,
    ITask,
    IWorker,
)
from ..tasks._task import forWorker
from ..tasks._tracing import traced
from ..tasks._workerbase import WorkerBase
from ._jobs import PREFETCH_SECONDS, ChildJob, JobQueue
from ._life import OVER, ChildHandle, ChildLife, ChildState
from ._options import (
    START_TIMEOUT,
    ChildConfig,
    ChildOptions,
    RestartPolicy,
    residentSize,
)
from ._recycling import Wear
from ._stopping import Stopper
from ._streams import Streams
from ._transport import IReactorChild, Transport

__all__ = ["ProcessWorker"]


@implementer(IWorker, ICancellingWorker, IReplaceableWorker, IPrefetchingWorker)
class ProcessWorker(WorkerBase):
    """
    Runs one task at a time in a child process of its own.

    Where many short tasks wait, some are sent to the child in advance, so that it
    needn't wait for them: for about a millisecond, going by how long the last ones
    took. They have not been started until it's their turn, and can be reclaimed.

    Functions, arguments and results are pickled. Functions of the program's
    C{__main__} can be called if it has the usual C{if __name__ == "__main__"}.

    When the child is lost, the task that it may have been running fails with
    L{WorkerLost}, the worker resigns, and tasks that it hasn't started go to others.
    In a queue, another takes its place.

    @ivar cQualified: The series C{'process'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar exclusive: Whether it runs calls of its further series only.

    @ivar process: The child process, with C{pid}, which is kept, C{is_alive()},
        C{exitcode}, C{terminate()} and C{kill()}.

    @ivar capacity: How many tasks the worker wants to have been given, including the
        one that is run: one, unless there's a C{backlogPerWorker} for short ones.

    @ivar backlogPerWorker: See L{IPrefetchingWorker}.

    @ivar batch: See L{IPrefetchingWorker}.

    @ivar callTimes: Pairs of seconds as seen here and seconds in the child, if they
        are noted.
    """

    cQualified: list[Hashable] = ["process", "local"]  # noqa: RUF012 - IWorker has it so

    # _jobs has the tasks without an answer, _streams the iterations that go on, _life
    # the child. _isReading is set while frames are taken, so that none is taken before
    # those that came before it.

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        callStats: bool = False,
        useReactor: bool = False,
        *,
        exclusive: bool = False,
        env: Mapping[str, str] | None = None,
        initializer: Any = None,
        niceness: int = 0,
        maxTasks: int | None = None,
        maxMemory: float | None = None,
        startTimeout: float | None = START_TIMEOUT,
        reactor: IReactorChild | None = None,
        _config: ChildConfig | None = None,
    ) -> None:
        """
        Start the child process.

        @param series: Series that the worker is qualified for besides those of its
            class.

        @param raw: C{True} for iterators to come back as they are, which the few that
            can be pickled do.

        @param callStats: C{True} to note how long each call takes, see L{stats}.

        @param useReactor: C{True} for a reactor to run in the child, so that callables
            may return Deferreds there, and iterators may yield them.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param env: The environment of the child, C{None} for that of this process.

        @param initializer: A callable, or a tuple of one and its arguments, that is
            run in the child before anything else. If it fails, so has the start of the
            child. In a child with a reactor, it may return a Deferred.

        @param niceness: What is added to the niceness of the process, from -20 to 19.
            Less than 0 needs privileges.

        @param maxTasks: After so many tasks, the worker asks to be replaced.

        @param maxMemory: The same if the child has more than so many MB (of 1,024 kB)
            of its own in use after a task.

        @param startTimeout: Seconds until the child must be ready, initializer
            included. Else, it's killed, and its start has failed. C{None} for any time.

        @param reactor: The reactor. By default, the global one.

        @raise WorkerStartError: If the child can't be started.

        @raise SerializationError: If the initializer can't be pickled.

        @raise TypeError: If it isn't callable.

        @raise ValueError: If a number is out of range.
        """
        super().__init__(series, raw, exclusive)
        self._config = _config or ChildConfig(
            ChildOptions.checked(
                env, initializer, niceness, maxTasks, maxMemory, startTimeout
            ),
            RestartPolicy(lambda: self._life.reactor.seconds()),
        )
        self.callStats = callStats
        self.useReactor = useReactor
        self.callTimes: list[tuple[float, float]] = []
        self.backlogPerWorker: Callable[[], int] | None = None
        self.batch: Callable[[Callable[[], object]], object] = _callNow
        self.capacity = 1
        self._recycler: Callable[[], object] | None = None
        self._wear = Wear(self._config.options)
        self._isReading = False
        self._jobs = JobQueue(prefetches=not useReactor)
        self._life = ChildLife(
            self._config.options,
            self._config.policy,
            reactor,
            useReactor=useReactor,
            started=self._childStarted,
            received=self._received,
            unsent=self._callUnsent,
            ended=self._childEnded,
        )
        self._streams = Streams(self._life, self._streamEnded)
        self._stopper = Stopper(
            self, self._jobs, self._streams, self._life, lambda: self._resign()
        )
        self.process = ChildHandle(self._life)
        self._life.start(isReplacement=self._config.isReplacement)

    def __repr__(self) -> str:
        return (
            f"<ProcessWorker {self.ID}, pid {self.process.pid},"
            f" {self.state.name.lower()}>"
        )

    @property
    def state(self) -> ChildState:
        """The state of the worker."""
        return self._life.state

    @property
    def affinity(self) -> frozenset[int] | None:
        """The cores that the child is bound to. C{None} for any."""
        return self._config.options.cores

    @property
    def policy(self) -> RestartPolicy:
        """What the workers of a queue, and those in their places, have in common."""
        return self._config.policy

    @property
    def isIterating(self) -> bool:
        """Whether iterations go on in the child, so that others are preferred."""
        return bool(self._streams)

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that were accepted and have no result yet."""
        return self._streams.tasks + [job.task for job in self._jobs.jobs]

    @property
    def running(self) -> list[ITask]:
        """Those of them that the child is at."""
        return self._streams.tasks + [job.task for job in islice(self._jobs.jobs, 1)]

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        super().setResignator(callableObject)
        self._nameOutput()
        if self.state in OVER:
            self._life.reactor.callLater(0, callableObject)

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        self._recycler = callableObject

    def run(self, task: ITask) -> Deferred[None]:
        if self._life.state in OVER:
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        if self._jobs.sender is None:
            self._life.ensureStarted()
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        sent = f if task.watch is None else traced(f, task, raw)
        try:
            payload = dumps((sent, args, kw, raw), f)
        except NotPicklable as error:
            task.errback(Failure(cantBeSent(task, blame(f, args, kw, error))))
            return succeed(None)
        job = ChildJob(task, payload, consumer)
        self._jobs.put(job)
        if self._wear.limits and not task.direct:
            self._wear.taken += 1
            self._setCapacity()
        return job.ready

    def stop(self) -> Deferred[None]:
        """Implement L{IWorker.stop}. Iterations that go on are waited for, too."""
        if self.state in (ChildState.STARTING, ChildState.READY):
            self._life.state = ChildState.STOPPING
            self._maybeStop()
        return self._resignAfter(self._life.gone.wait())

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: kill the child.

        @return: The tasks that have no result. If the child is ending already, because
            of a task that it was at, only those that it hasn't started: it may have
            sent the results of others.
        """
        if self.state is ChildState.DYING:
            self._jobs.revoke()
            return [job.task for job in self._jobs.takeAll(sent=False)]
        tasks = self._streams.release() + [job.task for job in self._jobs.jobs]
        self._jobs.revoke()
        self._jobs.jobs.clear()
        self._life.end(kill=True)
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """Implement L{ICancellingWorker.cancelTask}; see L{Stopper}."""
        job = self._jobs.find(task)
        if job is None:
            self._stopper.stopStream(task)
        elif self._stopper.stopCall(job):
            self._wear.taken -= not task.direct
            job.ready.callback(None)
            self._maybeStop()

    def reclaim(self) -> list[ITask]:
        """
        Implement L{IPrefetchingWorker.reclaim}. The child keeps its tasks unless it has
        been at one for longer than they should all take.
        """
        jobs = self._jobs.jobs
        if (
            len(jobs) < 2
            or self.state is not ChildState.READY
            or jobs[0].age < PREFETCH_SECONDS
        ):
            return []
        first = jobs[0]
        self._jobs.revoke(copied=False)
        taken = self._jobs.takeAll(sent=False)
        for job in [job for job in taken if job is first or job.task.direct]:
            taken.remove(job)
            self._jobs.put(job)
        self._wear.taken -= len(taken)
        self._jobs.window.capacity = 1
        self._setCapacity()
        for job in taken:
            job.ready.callback(None)
        return [job.task for job in taken]

    def deferUntilReady(self) -> Deferred[None]:
        """Tasks may be sent to a child that is still starting, so there's no wait."""
        return succeed(None)

    def deferUntilGone(self) -> Deferred[None]:
        return self._life.gone.wait()

    def replacement(self) -> ProcessWorker:
        """
        Implement L{IReplaceableWorker.replacement}. The child of the new worker is
        started after a while if this one's has failed to start.

        @raise WorkerStartError: If that has been so for several children in a row.
        """
        if self._config.policy.exhausted:
            status = self._life.status
            output = (
                f", having said: {status.output}" if status and status.output else ""
            )
            raise WorkerStartError(
                "Several child processes in a row could not be started. The last:"
                f" {self._life.failure or status}{output}"
            )
        worker = self.__class__(
            self.iQualified,
            self.raw,
            self.callStats,
            self.useReactor,
            exclusive=self.exclusive,
            reactor=self._life.reactor,
            _config=evolve(self._config, isReplacement=True),
        )
        # What a queue has noted doesn't go with the child.
        worker.callTimes = self.callTimes
        return worker

    def retryReplacement(self) -> ProcessWorker:
        self._config.policy.startOver()
        return self.replacement()

    def updatesApplied(self, text: str | None) -> None:
        """
        Implement L{IReplaceableWorker.updatesApplied}. A child in which an update fails
        counts as one that has failed to start.
        """
        if self._life.updatesApplied(text):
            self._life.end(kill=False)
            self._resign()

    @staticmethod
    def cores() -> int:
        """Count the cores that this process may use."""
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def stats(self) -> Deferred[list[tuple[float, float]]]:
        """
        Get how long calls took.

        @return: A Deferred that fires with a list of pairs: seconds as seen here, and
            seconds in the child. Empty unless C{callStats=True}.
        """
        return succeed(list(self.callTimes))

    def memUsage(self) -> int | None:
        """
        Measure the memory that the child has in use.

        @return: Its resident size in kB (1,024 bytes), C{None} if it isn't running.
        """
        return residentSize(self.process.pid) if self.process.is_alive() else None

    # What comes from the child.

    def _childStarted(self, transport: Transport) -> None:
        self._jobs.sender = transport.sender
        self._nameOutput()
        self._jobs.sendWaiting()

    def _callUnsent(self, number: int, error: Exception) -> None:
        """Fail a task whose arguments couldn't be copied."""
        for job in self._jobs.jobs:
            if job.number == number:
                reason = NotPicklable(describeError(error))
                reason.__cause__ = error
                job.task.errback(Failure(cantBeSent(job.task, reason)))
                self._jobs.remove(job)
                job.ready.callback(None)
                self._maybeStop()
                break

    def _received(self) -> None:
        """
        Take the frames that have come, and hand out tasks and send them after that.
        """
        transport = self._life.transport
        if self._isReading or transport is None:
            # Their turn will come.
            return
        self._isReading = True
        transport.sender.writer.isHeld = True
        if self.backlogPerWorker is not None and not self.useReactor:
            self._jobs.window.adapt(self.backlogPerWorker())
            self._setCapacity()
        try:
            self.batch(self._readFrames)
        finally:
            self._isReading = False
            transport.sender.flush()
        if self._jobs.jobs:
            self._jobs.startTurn()

    def _readFrames(self) -> None:
        transport = self._life.transport
        frames = transport.receiver.frames if transport is not None else None
        while frames:
            kind, number, payload = frames.popleft()
            if kind <= Kind.ITERATOR and kind != Kind.HELLO:
                self._answered(kind, number, payload)
            elif kind == Kind.HELLO:
                self._life.greeted()
                self._jobs.isReady = True
            elif kind == Kind.SIGNALLED:
                if transport is not None and self.state is not ChildState.STOPPING:
                    transport.terminate()
            else:
                self._streams.received(kind, number, payload)

    def _answered(self, kind: int, number: int, payload: memoryview | Incoming) -> None:
        """Hand on what the first job has come to."""
        job = self._jobs.answered(number)
        if job is None:
            if isinstance(payload, Incoming):
                payload.discard()
            return
        seconds, outcome = loadsAnswer(kind, payload, job.task)
        self._jobs.window.note(seconds)
        if self._jobs.jobs and not self._jobs.jobs[-1].isSent:
            self._jobs.sendWaiting()
        self._setCapacity()
        if self.callStats:
            self._noteTimes(job, seconds)
        self._stopper.over()
        if job.task.watch is not None:
            job.task.watch.seconds = seconds
        if outcome is None:
            self._streams.begin(number, job.task, job.consumer)
        else:
            job.task.callback(outcome)
        if self._wear.limits:
            self._maybeRecycle()
        job.ready.callback(None)
        if self._life.state is ChildState.STOPPING:
            self._maybeStop()

    def _setCapacity(self) -> None:
        # An attribute, for it's looked at four times a task.
        jobs = self._jobs
        self.capacity = self._wear.limited(jobs.window.capacity, len(jobs.jobs))

    def _noteTimes(self, job: ChildJob, seconds: float) -> None:
        now = perf_counter()
        self.callTimes.append((now - job.since, seconds))
        if self._jobs.jobs:
            self._jobs.jobs[0].since = now

    def _streamEnded(self) -> None:
        self._maybeRecycle()
        self._maybeStop()

    def _maybeRecycle(self) -> None:
        """Ask to be replaced if the child has done as much as it may."""
        recycler = self._recycler if self.state is ChildState.READY else None
        if recycler is not None and self._wear.isOver(self.process.pid):
            recycler()

    def _maybeStop(self) -> None:
        """Have the child end if it's told to, and there's nothing left to do."""
        if (
            self.state is ChildState.STOPPING
            and not self._jobs.jobs
            and not self._streams
        ):
            self._life.stop()

    # The end.

    def _childEnded(self, before: ChildState, status: ExitStatus) -> None:
        """Fail what the child has begun, and let others have the rest."""
        self._jobs.revoke()
        begun = self._jobs.takeAll(sent=True)
        iterations = self._streams.takeAll()
        self._stopper.over()
        if before in (ChildState.STARTING, ChildState.READY):
            # First of all, so that a call that is made because of the failures isn't
            # given to this worker.
            self._lose(status)
        for job in begun:
            job.task.errback(Failure(self._lost(status, job.task)))
        for iteration in iterations:
            iteration.lose(Failure(self._lost(status, iteration.task)))
        if before is ChildState.STOPPING and (self._jobs.jobs or begun or iterations):
            # Not before the tasks have their results: it's asked for that.
            self._lose(status)
        if before is ChildState.DYING:
            # Whoever wanted them back has had the time.
            for job in self._jobs.takeAll(sent=False):
                job.task.callback((Status.DISCONNECTED, None))

    def _lose(self, status: ExitStatus) -> None:
        log.warn("Worker {ID} is lost. {status}", ID=self.ID, status=status)
        self._resign()

    def _lost(self, status: ExitStatus, task: ITask) -> WorkerLost:
        return WorkerLost(
            f"Worker {self.ID} was lost while it may have been running {task!r}."
            f" {status}",
            workerID=self.ID,
            pid=status.pid,
            exitCode=status.exitCode,
            signal=status.signal,
            task=task,
        )

    def _nameOutput(self) -> None:
        """Have the log say whose output the child's is."""
        transport = self._life.transport
        if transport is not None and self.ID is not None:
            for output in (transport.stdout, transport.stderr):
                output.who = f"Worker {self.ID}, pid {transport.pid}"


def _callNow(f: Callable[[], object]) -> None:
    f()
