"""The worker in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from ..errors import WorkerStartError
from ..interfaces import (
    ICancellingWorker,
    IPrefetchingWorker,
    IReplaceableWorker,
    ITask,
    IWorker,
)
from ._life import OVER, ChildState
from ._options import (
    START_TIMEOUT,
    ChildConfig,
    ChildOptions,
    RestartPolicy,
    residentSize,
)
from ._tasks import ChildTasks
from ._transport import IReactorChild


@implementer(IWorker, ICancellingWorker, IReplaceableWorker, IPrefetchingWorker)
class ProcessWorker(ChildTasks):
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

    @ivar backlogPerWorker: See L{IPrefetchingWorker}, as for C{batch}.

    @ivar callTimes: Pairs of seconds as seen here and seconds in the child, if they
        are noted.
    """

    cQualified: list[Hashable] = ["process", "local"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        callStats: bool = False,
        useReactor: bool = False,
        *,
        exclusive: bool = False,
        env: Mapping[str, str] | None = None,
        initializer: object = None,
        niceness: int = 0,
        maxTasks: int | None = None,
        maxMemory: float | None = None,
        startTimeout: float | None = START_TIMEOUT,
        reactor: IReactorChild | None = None,
        _config: ChildConfig | None = None,
    ) -> None:
        """
        Start the child process. For other options, and what is raised for them, see
        L{ProcessQueue<asynqueue.process.ProcessQueue>}.

        @param series: Series that the worker is qualified for besides those of its
            class.

        @param exclusive: C{True} to reserve it for calls of C{series}.

        @param maxTasks: After so many tasks, the worker asks to be replaced.

        @param maxMemory: The same if the child has more than so many MB (of 1,024 kB)
            of its own in use after a task.

        @param reactor: The reactor. By default, the global one.

        @raise WorkerStartError: If the child can't be started.
        """
        config = _config or ChildConfig(
            ChildOptions.checked(
                env, initializer, niceness, maxTasks, maxMemory, startTimeout
            ),
            RestartPolicy(lambda: self._life.reactor.seconds()),
        )
        super().__init__(series, raw, exclusive, callStats, useReactor, config, reactor)

    def __repr__(self) -> str:
        return (
            f"<ProcessWorker {self.ID}, pid {self.process.pid},"
            f" {self.state.name.lower()}>"
        )

    @property
    def isIterating(self) -> bool:
        """Whether iterations go on in the child, so that others are preferred."""
        return bool(self._streams)

    @property
    def hasStopped(self) -> bool:
        isAlive = self.state in (ChildState.STARTING, ChildState.READY)
        return self.ID is not None and not isAlive

    @property
    def tasks(self) -> list[ITask]:
        """The tasks that were accepted and have no result yet."""
        return self._streams.tasks + [job.task for job in self._jobs.jobs]

    @property
    def running(self) -> list[ITask]:
        """Those of them that the child is at."""
        return self._streams.tasks + [job.task for job in islice(self._jobs.jobs, 1)]

    @property
    def affinity(self) -> frozenset[int] | None:
        """The cores that the child is bound to. C{None} for any."""
        return self._config.options.cores

    @property
    def policy(self) -> RestartPolicy:
        """What the workers of a queue, and those in their places, have in common."""
        return self._config.policy

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        super().setResignator(callableObject)
        self._nameOutput()
        if self.state in OVER:
            self._life.reactor.callLater(0, callableObject)

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        self._recycler = callableObject

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
        self._jobs.revoke()
        if self.state is ChildState.DYING:
            return [job.task for job in self._jobs.takeAll(sent=False)]
        tasks = self._streams.release() + [job.task for job in self._jobs.jobs]
        self._jobs.jobs.clear()
        self._life.end(kill=True)
        return tasks

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
