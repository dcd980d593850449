"""The iterations that go on in a child, and how one, or a call, is stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, field
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure

from .._child.buffers import Incoming
from .._child.pickling import describeError, loadsMany
from .._child.protocol import COUNT, Kind
from .._child.stream import WAITS
from .._support.answers import loadsAnswer
from .._support.log import log
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..iteration._sources import BufferedSource
from ..tasks._workerbase import RemoteIteration
from ._jobs import ChildJob, JobQueue
from ._life import ChildLife, Interruption

#: The child hears that items have been taken when they are half of those that were at
#: hand, so that it needn't wait for that, but so many at least,
_MIN_TAKEN = 8
#: and not more than so many at a time.
_MAX_TAKEN = 512
#: Seconds that the child has to end an iteration that nobody wants, until an exception
#: is raised in it.
_CLOSE_SECONDS = 0.5
#: A child that has nothing else to do should have begun a task after so many seconds.
_UNRESPONSIVE_SECONDS = 0.1


@define(eq=False, repr=False)
class Streams:
    """The iterations of a child, by number of the call."""

    # An iteration that isn't wanted is in _closing until the child has ended it; others
    # are in _iterations.

    _life: ChildLife
    _ended: Callable[[], object]
    _iterations: dict[int, ChildIteration] = field(factory=dict, init=False)
    _closing: dict[int, Interruption] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._iterations)

    @property
    def tasks(self) -> list[ITask]:
        """The tasks of iterations from which nothing has come yet."""
        return [it.task for it in self._iterations.values() if not it._begun]

    def begin(self, number: int, task: ITask, consumer: IConsumer | None) -> None:
        iteration = ChildIteration(
            task, number, self._life, partial(self.close, number)
        )
        self._iterations[number] = iteration
        if consumer is not None:
            iteration.feed(consumer)

    def received(self, kind: int, number: int, payload: memoryview | Incoming) -> None:
        """Take what the child has sent of an iteration."""
        iteration = self._iterations.get(number)
        if iteration is not None:
            if iteration.received(kind, payload):
                # Unless it has been closed in the meantime.
                self._iterations.pop(number, None)
                self._ended()
        elif kind in (Kind.END, Kind.FAILED) and number in self._closing:
            self._closing.pop(number).over()
        elif isinstance(payload, Incoming):
            payload.discard()

    def close(
        self,
        number: int,
        giveUp: Callable[[], object] = bool,
        delay: float = _CLOSE_SECONDS,
    ) -> None:
        """
        Have the child end an iteration that nobody wants to go on. After a delay, an
        exception is raised in it, until it's given up.
        """
        if self._iterations.pop(number, None) is not None:
            self._life.send(Kind.CLOSE, number, b"")
            self._closing[number] = Interruption(
                self._life, number, giveUp, delay=delay
            )
            self._ended()

    def drop(self, task: ITask) -> int:
        """Forget a task that has no items yet; return the number of its call, or 0."""
        for number, iteration in self._iterations.items():
            if task is iteration.task and iteration.release() is not None:
                return number
        return 0

    def release(self) -> list[ITask]:
        """Let go of the tasks of iterations from which nothing has come yet."""
        released = [iteration.release() for iteration in self._iterations.values()]
        return [task for task in released if task is not None]

    def takeAll(self) -> list[ChildIteration]:
        for interruption in self._closing.values():
            interruption.over()
        self._closing.clear()
        iterations = list(self._iterations.values())
        self._iterations.clear()
        return iterations


class ChildIteration(RemoteIteration):
    def __init__(
        self, task: ITask, number: int, life: ChildLife, close: Callable[[], object]
    ) -> None:
        super().__init__(task, BufferedSource(self._taken, close, every=_MIN_TAKEN))
        self._number = number
        self._life = life
        self._close = close

    def received(self, kind: int, payload: memoryview | Incoming) -> bool:
        """Take what the child has sent, and tell whether it has come to its end."""
        if kind == Kind.END:
            self.end()
            return True
        self._begin()
        if kind == Kind.ITEMS:
            return not self._push(payload)
        _, outcome = loadsAnswer(kind, payload, self.task)
        if not isinstance(outcome, Failure):
            text = outcome[1]
            outcome = Failure(text.exception or WorkerError(str(text)))
        self._source.fail(outcome)
        return True

    def _push(self, payload: memoryview | Incoming) -> bool:
        """Take items. If one can't be unpickled, it fails after those before: False."""
        items: list[object] = []
        failure: Failure | None = None
        try:
            if type(payload) is memoryview:
                for some in loadsMany(payload):
                    items += some
            else:
                items += payload.loads()
        except BaseException as error:  # noqa: BLE001 - runs code of users
            failure = Failure(
                SerializationError(
                    f"An item of the iteration of {self.task!r} can't be unpickled"
                    f" here: {describeError(error)}"
                )
            )
        half = (self._source.atHand + len(items)) // 2
        self._source.every = max(_MIN_TAKEN, min(half, _MAX_TAKEN))
        self._source.push(items)
        if failure is not None:
            self._source.fail(failure)
            self._close()
        return failure is None

    def _taken(self, count: int) -> None:
        told = count if self._source.atHand else count | WAITS
        self._life.send(Kind.TAKEN, self._number, COUNT.pack(told))


@define(eq=False, repr=False)
class Stopper:
    """
    Stops tasks that have been cancelled or have run out of time.

    One that the child hasn't begun is taken back. If the child is at others besides,
    iterations for instance, an exception is raised in the one; if that doesn't help, or
    there are no others, the child is ended.
    """

    # The interruption goes on in the first of the jobs, until it has an answer.

    _worker: object
    _jobs: JobQueue
    _streams: Streams
    _life: ChildLife
    _resign: Callable[[], object]
    interruption: Interruption | None = field(default=None, init=False)

    def stopCall(self, job: ChildJob) -> bool:
        """Stop a call, and tell whether it has been forgotten, as it wasn't begun."""
        transport = self._life.transport
        isDue = (
            job.isSent
            and job is self._jobs.jobs[0]
            and self._jobs.isReady
            and not self._streams
            and transport is not None
            and not transport.sender.isCopying
        )
        self._jobs.revoke()
        if not job.isSent:
            self._jobs.remove(job)
            if isDue and job.age > _UNRESPONSIVE_SECONDS:
                # It has been halted, for instance.
                self._endChild(job.task)
            return True
        if not self._hasAnswered(job):
            if self._streams:
                self._interrupt(job)
            else:
                self._endChild(job.task)
        return False

    def stopStream(self, task: ITask) -> None:
        """Stop an iteration from which nothing has come yet, if it's that of a task."""
        number = self._streams.drop(task)
        if not number:
            return
        self._jobs.revoke()
        if len(self._streams) > 1 or any(job.isSent for job in self._jobs.jobs):
            self._streams.close(number, partial(self._endChild, task), delay=0)
            self._jobs.sendWaiting()
        else:
            self._endChild(task)

    def over(self) -> None:
        """Note that the first job has an answer, or will have none."""
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption.over()

    def _hasAnswered(self, job: ChildJob) -> bool:
        transport = self._life.transport
        if transport is not None:
            transport.replies.drain()
        return job not in self._jobs.jobs or (
            transport is not None and transport.receiver.hasFrame(job.number)
        )

    def _interrupt(self, job: ChildJob) -> None:
        log.info(
            "{worker}: an exception stops {task}, which was cancelled or ran out of"
            " time",
            worker=self._worker,
            task=job.task,
        )
        # A Deferred that a reactor waits for in the child is cancelled.
        self._life.send(Kind.CLOSE, job.number, b"")
        self.interruption = Interruption(
            self._life, job.number, partial(self._endChild, job.task)
        )

    def _endChild(self, task: ITask) -> None:
        log.info(
            "{worker} is ended to stop {task}, which was cancelled or ran out of time",
            worker=self._worker,
            task=task,
        )
        job = self._jobs.find(task)
        if job is not None:
            self._jobs.jobs.remove(job)
        if task.direct:
            # If it's a stored one, the next child would come to the same end.
            self._life.updatesApplied(f"{task!r} was cancelled or ran out of time")
        self._life.end(kill=False)
        self._resign()
