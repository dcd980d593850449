"""What goes on between a worker and its child: tasks, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from time import perf_counter

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from .._child.buffers import Incoming
from .._child.pickling import NotPicklable, blame, describeError, dumps
from .._child.protocol import Kind
from .._child.status import Status
from .._support.answers import cantBeSent, loadsAnswer
from .._support.childprocess import ExitStatus
from .._support.log import log
from ..errors import WorkerLost
from ..interfaces import ITask
from ..tasks._workerbase import WorkerBase, forWorker, traced
from ._jobs import PREFETCH_SECONDS, ChildJob, JobQueue
from ._life import OVER, ChildHandle, ChildLife, ChildState
from ._options import ChildConfig, Wear
from ._streams import Stopper, Streams
from ._transport import IReactorChild, Transport


class ChildTasks(WorkerBase):
    """A worker that has its tasks run by a child."""

    # _jobs has the tasks without an answer, _streams the iterations that go on, _life
    # the child. The sender is held while frames are taken, so that none is taken before
    # those that came before it.

    def __init__(
        self,
        series: Iterable[Hashable],
        raw: bool,
        exclusive: bool,
        callStats: bool,
        useReactor: bool,
        config: ChildConfig,
        reactor: IReactorChild | None,
    ) -> None:
        super().__init__(series, raw, exclusive)
        self.callStats = callStats
        self.useReactor = useReactor
        self.callTimes: list[tuple[float, float]] = []
        self.backlogPerWorker: Callable[[], int] | None = None
        self.batch: Callable[[Callable[[], object]], object] = _callNow
        # An attribute, for it's looked at four times a task.
        self.capacity = 1
        self._config = config
        self._recycler: Callable[[], object] | None = None
        self._wear = Wear(config.options)
        self._jobs = JobQueue(prefetches=not useReactor)
        self._life = ChildLife(
            config.options,
            config.policy,
            reactor,
            useReactor=useReactor,
            started=self._childStarted,
            received=self._received,
            unsent=self._callUnsent,
            ended=self._childEnded,
        )
        self._streams = Streams(self._life, self._streamEnded)
        self._stopper = Stopper(
            self, self._jobs, self._streams, self._life, self._resign
        )
        self.process = ChildHandle(self._life)
        self._life.start(isReplacement=config.isReplacement)

    @property
    def state(self) -> ChildState:
        """The state of the worker."""
        return self._life.state

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
        if self._wear.hasLimit and not task.direct:
            self._wear.taken += 1
            self._limitCapacity()
        return job.ready

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
        self.capacity = self._jobs.window.capacity = 1
        for job in taken:
            job.ready.callback(None)
        return [job.task for job in taken]

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
        """Take the frames that have come, and hand out and send tasks after that."""
        sender = self._jobs.sender
        if sender is None or sender.isHeld:
            # Their turn will come.
            return
        sender.isHeld = True
        if self.backlogPerWorker is not None and not self.useReactor:
            self._jobs.window.waiting = self.backlogPerWorker()
        try:
            self.batch(self._readFrames)
        finally:
            sender.isHeld = False
            if sender.pending:
                sender.doWrite()
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
        jobs = self._jobs
        job = jobs.answered(number)
        if job is None:
            if isinstance(payload, Incoming):
                payload.discard()
            return
        task = job.task
        seconds, outcome = loadsAnswer(kind, payload, task)
        self.capacity = jobs.window.note(seconds)
        if jobs.jobs and not jobs.jobs[-1].isSent:
            jobs.sendWaiting()
        if self._wear.hasLimit:
            self._limitCapacity()
        if self.callStats:
            self.callTimes.append((job.age, seconds))
            if jobs.jobs:
                jobs.jobs[0].since = perf_counter()
        if self._stopper.interruption is not None:
            self._stopper.over()
        if task.watch is not None:
            task.watch.seconds = seconds
        if outcome is None:
            self._streams.begin(number, task, job.consumer)
        else:
            task.callback(outcome)
        if self._wear.hasLimit:
            self._maybeRecycle()
        job.ready.callback(None)
        if self._life.state is ChildState.STOPPING:
            self._maybeStop()

    def _limitCapacity(self) -> None:
        jobs = self._jobs
        self.capacity = self._wear.limited(jobs.window.capacity, len(jobs.jobs))

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
        isIdle = not self._jobs.jobs and not self._streams
        if isIdle and self.state is ChildState.STOPPING:
            self._life.stop()

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
            job.task.errback(Failure(_lost(self.ID, status, job.task)))
        for iteration in iterations:
            iteration.lose(Failure(_lost(self.ID, status, iteration.task)))
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

    def _nameOutput(self) -> None:
        """Have the log say whose output the child's is."""
        transport = self._life.transport
        if transport is not None and self.ID is not None:
            for output in (transport.stdout, transport.stderr):
                output.who = f"Worker {self.ID}, pid {transport.pid}"


def _lost(ID: int | None, status: ExitStatus, task: ITask) -> WorkerLost:
    return WorkerLost(
        f"Worker {ID} was lost while it may have been running {task!r}. {status}",
        workerID=ID,
        pid=status.pid,
        exitCode=status.exitCode,
        signal=status.signal,
        task=task,
    )


def _callNow(f: Callable[[], object]) -> None:
    f()
