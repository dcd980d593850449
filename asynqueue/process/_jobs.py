"""The tasks that a worker has accepted, and which of them its child has in advance."""

from __future__ import annotations

from collections import deque
from time import perf_counter

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer

from .._child.pickling import Packed
from .._child.protocol import Kind
from ..interfaces import ITask
from ._frames import FrameSender

#: A child has tasks in advance for so many seconds, going by how long the last took.
PREFETCH_SECONDS = 0.001
#: So many at most,
_MAX_PREFETCHED = 64
#: and updates, of which there may be any number, as long as no more jobs were sent.
_MAX_SENT = 256
#: After a long task it's so many at first, and then so many times as many.
_FACTOR = 8
#: How much weight the last task has in how long they take.
_WEIGHT = 1 / 16
#: What it takes a child to get a task and to answer, in seconds at least.
_MIN_SECONDS = 1e-5
#: Nothing is sent to a child that hasn't come to so many revoked calls yet.
_MAX_REVOKED = 1024


@define(eq=False)
class ChildJob:
    """A task that the worker has accepted."""

    task: ITask
    payload: bytes | Packed
    consumer: IConsumer | None
    ready: Deferred[None] = field(factory=Deferred)
    number: int = 0
    isSent: bool = False
    since: float = 0.0  # when its turn came, or it was sent to a child not yet ready

    @property
    def age(self) -> float:
        return perf_counter() - self.since


class JobQueue:
    """The jobs that have no answer yet, in the order in which the child runs them."""

    # Those that are sent stand before those that aren't. The first alone may be running
    # for long; its clock has been started if it's _current. When calls were _revoked
    # since the last answer, none is sent in advance, and after too many, none at all,
    # so that neither pipe fills up with them.

    def __init__(self, *, prefetches: bool) -> None:
        self.jobs: deque[ChildJob] = deque()
        self.sender: FrameSender | None = None
        self.isReady = False
        self.window = PrefetchWindow()
        self._prefetches = prefetches
        self._numbers = 0
        self._current: ChildJob | None = None
        self._revoked = 0

    def put(self, job: ChildJob) -> None:
        jobs = self.jobs
        jobs.append(job)
        isFirst = len(jobs) == 1
        if isFirst:
            job.since = perf_counter()
        if isFirst and self.isReady:
            # Its clock has just been started.
            self._current = job
        elif job.task.timeout is not None:
            job.task.stopTimer()
        # It mustn't overtake the one before it.
        if isFirst or (jobs[-2].isSent and self._mayPrefetch(job)):
            self._send(job)

    def sendWaiting(self) -> None:
        """Send jobs that weren't sent, as far as the child should have them now."""
        for i, job in enumerate(self.jobs):
            if not job.isSent:
                if i and not self._mayPrefetch(job):
                    return
                self._send(job)

    def answered(self, number: int) -> ChildJob | None:
        jobs = self.jobs
        if not jobs or jobs[0].number != number or not jobs[0].isSent:
            return None
        self._revoked = 0
        return jobs.popleft()

    def startTurn(self) -> None:
        """Start the clock of the job that is first, if its turn has just come."""
        if self.jobs and self.isReady and self.jobs[0] is not self._current:
            job = self._current = self.jobs[0]
            job.since = job.since or perf_counter()
            if job.task.timeout is not None:
                job.task.startTimer()

    def find(self, task: ITask) -> ChildJob | None:
        return next((job for job in self.jobs if job.task is task), None)

    def revoke(self, *, copied: bool = True) -> None:
        """Take back what the child hasn't begun. See L{FrameSender.revoke}."""
        if self.sender is None:
            return
        numbers = self.sender.revoke(copied=copied)
        self._revoked += len(numbers)
        for job in self.jobs:
            if job.number in numbers:
                job.isSent = False

    def remove(self, job: ChildJob) -> None:
        self.jobs.remove(job)
        self.sendWaiting()
        self.startTurn()

    def takeAll(self, *, sent: bool) -> list[ChildJob]:
        """Take out all jobs that the child may have begun, or all others."""
        taken = [job for job in self.jobs if job.isSent is sent]
        self.jobs = deque(job for job in self.jobs if job.isSent is not sent)
        return taken

    def _mayPrefetch(self, job: ChildJob) -> bool:
        return (
            self._prefetches
            and not self._revoked
            and len(self.jobs) <= _MAX_SENT
            # What is in the memory file stays there until it's run.
            and type(job.payload) is bytes
        )

    def _send(self, job: ChildJob) -> None:
        if self.sender is None or self._revoked > _MAX_REVOKED:
            return
        # 0 is for frames that belong to no call, the highest bit for those revoked.
        self._numbers = self._numbers % 0x7FFFFFFF + 1
        job.number = self._numbers
        job.isSent = True
        self.sender.send(Kind.CALL, job.number, job.payload)


@define(eq=False)
class PrefetchWindow:
    """
    How long tasks take, and how many a child has in advance because of that.

    When a task has taken longer than those in advance should take together, there are
    none, until one has been short again; then there are a few, then more. What is
    behind a long task nevertheless is reclaimed from there, by whoever dispatches
    tasks. Of short ones, those that take longer than the ones before them count at
    once, and others little by little.
    """

    capacity: int = 1
    waiting: int = 0  # tasks, for each worker
    _seconds: float = 0.0
    _most: int = 0

    def note(self, seconds: float) -> int:
        """Note how long a task took, and return the capacity."""
        if seconds > PREFETCH_SECONDS:
            self._most = 0
            self.capacity = 1
            return 1
        if self._most < _MAX_PREFETCHED:
            self._most = min(_FACTOR * max(self._most, 1), _MAX_PREFETCHED)
        mean = self._seconds
        if seconds < mean:
            seconds = mean + _WEIGHT * (seconds - mean)
        self._seconds = seconds
        ahead = int(PREFETCH_SECONDS / max(seconds, _MIN_SECONDS))
        self.capacity = capacity = 1 + min(self.waiting, self._most, ahead)
        return capacity
