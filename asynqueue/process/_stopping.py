"""How tasks are stopped that a child is at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .._child.protocol import Kind
from .._support.log import log
from ..interfaces import ITask
from ._interruption import Interruption
from ._jobs import ChildJob, JobQueue
from ._life import ChildLife
from ._streams import Streams

__all__ = ["Stopper"]

#: A child that has nothing else to do should have begun a task after so many seconds.
_UNRESPONSIVE_SECONDS = 0.1


class Stopper:
    """
    Stops tasks that have been cancelled or have run out of time.

    One that the child hasn't begun is taken back. If the child is at others besides,
    iterations for instance, an exception is raised in the one; if that doesn't help, or
    there are no others, the child is ended.
    """

    # _interruption goes on in the first of the jobs, until it has an answer.

    def __init__(
        self,
        worker: object,
        jobs: JobQueue,
        streams: Streams,
        life: ChildLife,
        resign: Callable[[], object],
    ) -> None:
        """
        @param worker: Is named in the log.

        @param resign: Called when the child is ended.
        """
        self._worker = worker
        self._jobs = jobs
        self._streams = streams
        self._life = life
        self._resign = resign
        self._interruption: Interruption | None = None

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
        interruption, self._interruption = self._interruption, None
        if interruption is not None:
            interruption.over()

    def _hasAnswered(self, job: ChildJob) -> bool:
        """
        Look whether the child has answered a job, so that there's nothing to stop.
        """
        transport = self._life.transport
        if transport is not None:
            transport.readNow()
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
        self._interruption = Interruption(
            partial(self._life.interrupt, job.number),
            partial(self._endChild, job.task),
            self._life.reactor,
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
        self._life.end(kill=False)
        self._resign()
