"""The queue with a number of child processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList

from .._support.awaitable import AwaitableDeferred
from .._support.checks import seriesList
from .._support.reactor import orGlobalReactor
from ..base._resizing import SizedQueue
from ..tasks import Task
from ._options import START_TIMEOUT, ChildConfig, ChildOptions, RestartPolicy, coreSets
from ._worker import ProcessWorker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..base._options import QueueOptions


class ProcessStats(  # type: ignore[misc]  # iterating over it is that of a dict
    dict[str, Any], AwaitableDeferred[list[tuple[float, float]]]
):
    """
    The statistics of a L{ProcessQueue}: a dict, and a Deferred of how long calls took.

    In AsynQueue 0.9.9 C{stats} of this one queue returns a Deferred of that list.
    Programs add callbacks to it, and yield it in C{inlineCallbacks}, which takes
    nothing but real Deferreds.
    """

    def __init__(self, stats: Mapping[str, object]) -> None:
        dict.__init__(self, stats)
        AwaitableDeferred.__init__(self)

    # As a Deferred has it; dicts have none.
    __hash__ = object.__hash__  # type: ignore[assignment]


class ProcessQueue(SizedQueue):
    """A task queue with a number of child processes. One that's lost is replaced."""

    def __init__(
        self,
        N: object = None,
        *,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        callStats: bool = False,
        useReactor: bool = False,
        env: Mapping[str, str] | None = None,
        initializer: object = None,
        niceness: int = 0,
        maxTasks: int | None = None,
        maxMemory: float | None = None,
        affinity: bool | Iterable[int | Iterable[int]] = False,
        startTimeout: float | None = START_TIMEOUT,
        **kw: Unpack[QueueOptions],
    ) -> None:
        """
        Start the children.

        @param N: How many, one for each core by default.

        @param series: Series that they're qualified for besides C{'process'} and
            C{'local'}.

        @param raw: C{True} for iterators to come back as they are, which the few that
            can be pickled do.

        @param callStats: C{True} to note how long each call takes, see L{stats}.

        @param useReactor: C{True} for a reactor to run in the children, so that
            callables may return Deferreds there.

        @param env: The environment of the children, C{None} for that of this process.

        @param initializer: A callable, or a tuple of one and its arguments, that is
            run in each new child before anything else. If it fails, so has the start
            of the child. With C{useReactor}, it may return a Deferred.

        @param niceness: What is added to the niceness of the processes, from -20 to 19.
            Less than 0 needs privileges. That of calls is another matter.

        @param maxTasks: A child that has run so many tasks is replaced.

        @param maxMemory: A child that has more than so many MB (of 1,024 kB) in use
            after a task is replaced.

        @param affinity: C{True} to bind each child to a core of its own, as long as
            there are enough; or the cores for each, a number or several. Where there
            are fewer than children, they are shared out evenly.

        @param startTimeout: Seconds until a child must be ready, initializer included.
            Else, it's killed, and its start has failed. C{None} for any time.

        @param kw: Keywords of L{TaskQueue}.

        @raise TypeError: If the number isn't an integer, or the initializer not
            callable.

        @raise ValueError: If a number is out of range, a core isn't this process's, or
            the system can't bind processes to cores.

        @raise SerializationError: If the initializer can't be pickled.

        @raise WorkerStartError: If a child can't be started.
        """
        if N is None:
            N = self.cores()
        if not isinstance(N, int) or isinstance(N, bool):
            raise TypeError(
                f"The number of processes must be an integer, such as"
                f" {self.cores()}, not {N!r}"
            )
        if N < 0:
            raise ValueError(f"The number of processes must be 0 at least, not {N}")
        options = ChildOptions.checked(
            env, initializer, niceness, maxTasks, maxMemory, startTimeout
        )
        self.callStats = callStats
        self._coreSets = coreSets(affinity)
        super().__init__(N, **kw)
        reactor = kw.get("reactor")
        self._options = options
        self._restartPolicy = RestartPolicy(lambda: orGlobalReactor(reactor).seconds())
        self._makeWorker = partial(
            ProcessWorker,
            seriesList(series),
            raw,
            callStats,
            useReactor,
            reactor=reactor,
        )
        worker: ProcessWorker | None = None
        try:
            for _ in range(N):
                worker = self._newWorker()
                self.attachWorker(worker)
        except BaseException:
            # Nobody will have the queue to do this, and the reactor may never run. The
            # last may not have been hired.
            for started in {worker, *self.workers()}:
                if started is not None:
                    started.crash()
            self.shutdown(timeout=0)
            raise

    @staticmethod
    def cores() -> int:
        """Count the cores that this process may use."""
        return ProcessWorker.cores()

    def stats(self) -> ProcessStats:
        """
        Look at what the queue is doing, and how long calls took.

        @return: The dict that L{TaskQueue.stats} returns, which is also a Deferred, as
            this method has always returned one. That fires with a list of pairs:
            seconds as seen here, and seconds in the child. Empty unless
            C{callStats=True}.
        """
        stats = ProcessStats(super().stats())
        workers = [w for w in self.workers() if isinstance(w, ProcessWorker)]
        stats.callback([pair for worker in workers for pair in worker.callTimes])
        return stats

    def crashWorkers(self) -> Deferred[list[Task]]:
        """
        Kill all children, whatever they're doing. The queue has no workers then.

        @return: A Deferred that fires when they're gone, with a list of the tasks that
            they left unfinished. The Deferreds of those calls fail with
            L{WorkerLost<asynqueue.errors.WorkerLost>}.
        """
        return DeferredList(
            [self.detachWorker(worker, crash=True) for worker in self.workers()]
        ).addCallback(lambda results: [task for _, tasks in results for task in tasks])

    def _newWorker(self) -> ProcessWorker:
        options = self._options
        if self._coreSets:
            used = Counter(
                worker.affinity for worker in self.workers() if self._isOwn(worker)
            )
            cores = min(self._coreSets, key=lambda each: used[each])
            options = evolve(options, cores=cores)
        return self._makeWorker(_config=ChildConfig(options, self._restartPolicy))

    def _isOwn(self, worker: object) -> bool:
        return (
            isinstance(worker, ProcessWorker) and worker.policy is self._restartPolicy
        )
