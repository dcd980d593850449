"""
The worker in a child process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.inbox import Arrival
from .._child.mainmodule import checkNotImporting, isImporting
from .._child.payloads import NotPicklable, dumpsCall, loads, told
from .._child.pickling import Packed
from .._child.protocol import COUNT, SECONDS, Frame, Kind
from .._child.status import Status
from .._support.exitstatus import ExitStatus
from .._support.interpreter import interpreterCommand
from .._support.log import log
from .._support.reactor import hasGlobalReactor, orGlobalReactor
from ..errors import WorkerLost, WorkerStartError
from ..interfaces import (
    ICancellingWorker,
    IPrefetchingWorker,
    IReplaceableWorker,
    ITask,
    IWorker,
)
from ..tasks._task import forWorker
from ..tasks._workerbase import WorkerBase
from ._answers import ANSWERS, LARGE_RESULT, RESULT, cantBeSent, giveError, giveResult
from ._handle import ChildHandle
from ._iteration import Iteration
from ._jobs import AHEAD_SECONDS, Job, Pace
from ._memory import residentSize
from ._options import START_TIMEOUT, ChildOptions
from ._starts import Starts
from ._states import USELESS, State
from ._transport import Child, IReactorChild

__all__ = ["ProcessWorker"]

#: So many jobs at most have been sent. Updates come in any number.
_MOST_SENT = 256


#: Modules of reactors that children may have. Others are those of a GUI.
_REACTORS = {
    f"twisted.internet.{kind}reactor"
    for kind in ("asyncio", "epoll", "kq", "poll", "select")
}


class _Timed(Protocol):
    """
    What a task with a time limit can do besides.
    """

    def startTimer(self) -> None:
        """
        Start its clock, from the beginning.
        """

    def stopTimer(self) -> None:
        """
        Stop its clock.
        """


@implementer(IWorker, ICancellingWorker, IReplaceableWorker, IPrefetchingWorker)
class ProcessWorker(WorkerBase):
    """
    Runs one task at a time in a child process of its own.

    Where many short tasks wait, some are sent to the child before it's their turn, so
    that it needn't wait for them: for about a millisecond, going by how long the last
    ones took. They have not been started until it is, and can be taken back.

    Functions, arguments and results are pickled. Functions of the program's
    C{__main__} can be called if it has the usual C{if __name__ == "__main__"}.

    When the child is lost, the task that it may have been running fails with
    L{WorkerLost}, the worker resigns, and tasks that it hasn't started go to others.
    In a queue, another takes its place.

    @ivar cQualified: The series C{'process'} and C{'local'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar process: The child process, with C{pid} and C{is_alive()}.

    @ivar state: A L{State}.

    @ivar backlogPerWorker: See L{IPrefetchingWorker}.

    @ivar batch: See L{IPrefetchingWorker}.

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
        env: Mapping[str, str] | None = None,
        initializer: Any = None,
        niceness: int = 0,
        maxTasks: int | None = None,
        maxMemory: float | None = None,
        startTimeout: float | None = START_TIMEOUT,
        reactor: IReactorChild | None = None,
        _starts: Starts | None = None,
        _options: ChildOptions | None = None,
        _replaces: bool = False,
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

        @param env: The environment of the child, C{None} for that of this process.

        @param initializer: A callable, or a tuple of one and its arguments, that is
            run in the child before anything else. If it fails, so has the start of the
            child. In a child with a reactor, it may return a Deferred.

        @param niceness: What is added to the niceness of the process, from -20 to 19.
            Less than 0 needs privileges.

        @param maxTasks: After so many tasks, the worker asks to be replaced.

        @param maxMemory: The same if the child has more than so many MB (of 1,024 kB)
            in use after a task.

        @param startTimeout: Seconds until the child must be ready, initializer
            included. Else, it's killed, and its start has failed. C{None} for any time.

        @param reactor: The reactor. By default, the global one.

        @param _starts: How the starting of children goes that have this in common.

        @param _options: The options, checked, in place of those before C{reactor}.

        @param _replaces: Whether the worker takes the place of another. If its child
            can't be started then, it resigns.

        @raise WorkerStartError: If the child can't be started.

        @raise SerializationError: If the initializer can't be pickled.

        @raise TypeError: If it isn't callable.

        @raise ValueError: If a number is out of range.
        """
        super().__init__(series, raw)
        self.callStats = callStats
        self.useReactor = useReactor
        self.callTimes: list[tuple[float, float]] = []
        self.state = State.STARTING
        self.process = ChildHandle(lambda: self._child)
        self._options = _options or ChildOptions.checked(
            env, initializer, niceness, maxTasks, maxMemory, startTimeout
        )
        self._givenReactor = reactor
        self._starts = _starts or Starts(lambda: self._reactor.seconds())
        # Whether the child has been started, or will be when the reactor runs.
        self._isBegun = False
        self._greeted = False
        self._isGone = False
        self._upToDate = False
        self._taken = 0
        self._failure: str | None = None
        self._renew: Callable[[], object] | None = None
        self._delayed: IDelayedCall | None = None
        self._startTimer: IDelayedCall | None = None
        self._ended: ExitStatus | None = None
        self._numbers = 0
        self._jobs: deque[Job] = deque()
        self._first: Job | None = None
        self._frames: deque[Frame] = deque()
        self._reading = False
        # A large result that is read, and how the child has ended meanwhile.
        self._arrival: tuple[int, Arrival] | None = None
        self._endedEarly: ExitStatus | None = None
        self._pace = Pace()
        self.backlogPerWorker: Callable[[], int] | None = None
        self.batch: Callable[[Callable[[], object]], object] = _atOnce
        self._iterations: dict[int, Iteration] = {}
        self._stopWaiters: list[Deferred[None]] = []
        self._goneWaiters: list[Deferred[None]] = []
        self._child: Child | None = None
        interpreterCommand()  # it's said now if there's none
        if self._starts.delay:
            self._isBegun = True
            self._delayed = self._reactor.callLater(
                self._starts.delay, self._startLater
            )
        elif (reactor is not None or hasGlobalReactor()) and not isImporting():
            self._beginStart(_replaces)

    @property
    def _reactor(self) -> IReactorChild:
        """
        The reactor. One is installed if there's none yet.
        """
        return orGlobalReactor(self._givenReactor)

    def __repr__(self) -> str:
        """
        Name the worker by ID and process.
        """
        return (
            f"<ProcessWorker {self.ID}, pid {self.process.pid},"
            f" {self.state.name.lower()}>"
        )

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        """
        Implement L{IWorker.setResignator}. It is called when the child is lost.

        @param callableObject: The callable.
        """
        super().setResignator(callableObject)
        self._nameOutput()
        if self.state in (State.DYING, State.DEAD):
            self._reactor.callLater(0, callableObject)

    def run(self, task: ITask) -> Deferred[None]:
        """
        Implement L{IWorker.run}.

        @param task: The task. It fails with L{SerializationError} if it can't be
            pickled.

        @return: A Deferred that fires with C{None} when the worker is ready for another
            task.
        """
        d: Deferred[None] = Deferred()
        self.runThen(task, partial(d.callback, None))
        return d

    def runThen(self, task: ITask, ready: Callable[[], object]) -> None:
        """
        Implement L{IPrompt<asynqueue.interfaces.IPrompt>}.

        @param task: The task. It fails with L{SerializationError} if it can't be
            pickled.

        @param ready: Called when the worker is ready for another task.
        """
        if self.state in USELESS:
            task.callback((Status.DISCONNECTED, None))
            ready()
            return
        if not self._isBegun:
            checkNotImporting("A child process was to be started")
            self._beginStart(True)
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        try:
            payload = dumpsCall(f, args, kw, raw)
        except NotPicklable as error:
            task.errback(Failure(cantBeSent(task, error)))
            ready()
            return
        if not getattr(task, "direct", False):
            # Updates don't wear a child out: it must come to its tasks.
            self._taken += 1
        if task.timeout is not None and (self._jobs or not self._greeted):
            # Its clock runs when it's its turn, in a child that is there.
            cast(_Timed, task).stopTimer()
        self._send(Job(task, payload, consumer, ready))

    def stop(self) -> Deferred[None]:
        """
        Implement L{IWorker.stop}. Iterations that go on are waited for, too.

        @return: A Deferred that fires with C{None} when the child has ended.
        """
        if self._isGone:
            return self._resignAfter(succeed(None))
        d: Deferred[None] = Deferred()
        self._stopWaiters.append(d)
        if self.state in (State.STARTING, State.READY):
            self.state = State.STOPPING
            self._maybeStop()
        return self._resignAfter(d)

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: kill the child.

        @return: The tasks that have no result. If the child is ending already, because
            of a task that it was at, only those that it hasn't started: it may have
            sent the results of others.
        """
        if self.state is State.DYING:
            self._unsend()
            return [job.task for job in self._unsent()]
        begun = [iteration.release() for iteration in self._iterations.values()]
        tasks = [task for task in begun if task is not None]
        tasks += [job.task for job in self._jobs]
        self._giveUpShipments()
        self._jobs.clear()
        self._die(rudely=True)
        return tasks

    def deferUntilReady(self) -> Deferred[None]:
        """
        Tasks may be sent to a child that is still starting, so there's no wait.
        """
        return succeed(None)

    def deferUntilGone(self) -> Deferred[None]:
        """
        Implement L{IReplaceableWorker.deferUntilGone}.

        @return: A Deferred that fires with C{None} when the child has ended.
        """
        if self._isGone:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._goneWaiters.append(d)
        return d

    def replacement(self) -> ProcessWorker:
        """
        Implement L{IReplaceableWorker.replacement}.

        @return: A worker like this one, whose child is started after a while if this
            one's has failed to start.

        @raise WorkerStartError: If that has been so for several children in a row.
        """
        if self._starts.hopeless:
            ended = self._ended
            output = f", having said: {ended.output}" if ended and ended.output else ""
            raise WorkerStartError(
                "Several child processes in a row could not be started. The last:"
                f" {self._failure or ended}{output}"
            )
        worker = self.__class__(
            self.iQualified,
            self.raw,
            self.callStats,
            self.useReactor,
            reactor=self._reactor,
            _starts=self._starts,
            _options=self._options,
            _replaces=True,
        )
        # What a queue has noted doesn't go with the child.
        worker.callTimes = self.callTimes
        return worker

    def retryReplacement(self) -> ProcessWorker:
        """
        Implement L{IReplaceableWorker.retryReplacement}.

        @return: A worker like this one, whose child is started after a while.
        """
        self._starts.again()
        return self.replacement()

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        """
        It's called when the child has run as many
        tasks, or has as much memory in use, as it may.

        @param callableObject: The callable.
        """
        self._renew = callableObject

    def updatesApplied(self, text: str | None) -> None:
        """
        A child in which an update fails counts
        as one that has failed to start.

        @param text: Text about the failure, or C{None}.
        """
        if self._upToDate or self.state in (State.DYING, State.DEAD):
            return
        if text is None:
            self._upToDate = True
            self._hasStarted()
            return
        self._failure = f"a stored update failed in it: {text}"
        self._starts.failed(None)
        self._die(rudely=False)
        self._resign()

    def cancelTask(self, task: ITask) -> None:
        """
        If the task has been sent to the child,
        the child is ended, and the worker resigns.

        @param task: The task.
        """
        job = next((job for job in self._jobs if job.task is task), None)
        if job is not None:
            taken = self._recall()
            if not job.sent:
                if job.shipment is not None:
                    job.shipment.giveUp()
                taken = self._unsent() + taken
                taken.remove(job)
                self._taken -= not getattr(task, "direct", False)
                self._resend(taken)
                job.ready()
                self._maybeStop()
                return
            if self._hasAnswered(job):
                self._resend(taken)
                return
            self._jobs.extend(taken)
            self._jobs.remove(job)
        elif not any(iteration.drop(task) for iteration in self._iterations.values()):
            return
        log.info(
            "Worker {ID}, pid {pid}, is ended to stop {task}, which was cancelled or"
            " ran out of time",
            ID=self.ID,
            pid=self.process.pid,
            task=task,
        )
        self._die(rudely=False)
        self._resign()

    @property
    def capacity(self) -> int:
        """
        How many tasks the worker wants to have been given, including the one that is
        run: one, unless there's a L{backlogPerWorker} for short ones.
        """
        most = self._options.maxTasks
        if most is None:
            return self._pace.capacity
        return min(self._pace.capacity, max(len(self._jobs) + most - self._taken, 1))

    def reclaim(self) -> list[ITask]:
        """
        The child keeps its tasks unless it has been
        at one for longer than they should all take.

        @return: The tasks.
        """
        first = self._jobs[0] if len(self._jobs) > 1 else None
        if (
            first is None
            or first is not self._first
            or self.state is not State.READY
            or perf_counter() - first.since < AHEAD_SECONDS
        ):
            return []
        taken = self._recall()
        direct = [job for job in taken if getattr(job.task, "direct", False)]
        taken = [job for job in taken if job not in direct]
        self._resend(direct)
        self._taken -= len(taken)
        self._pace.capacity = 1
        for job in taken:
            job.ready()
        return [job.task for job in taken]

    def stats(self) -> Deferred[list[tuple[float, float]]]:
        """
        Get how long calls took.

        @return: A Deferred that fires with a list of pairs: seconds as seen here, and
            seconds in the child. Empty unless C{callStats=True}.
        """
        return succeed(list(self.callTimes))

    @property
    def tasks(self) -> list[ITask]:
        """
        The tasks that were accepted and have no result yet.
        """
        begun = [iteration.task for iteration in self._iterations.values()]
        return begun + [job.task for job in self._jobs]

    @staticmethod
    def cores() -> int:
        """
        Count the cores that this process may use.
        """
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def memUsage(self) -> int | None:
        """
        Measure the memory that the child has in use.

        @return: Its resident size in kB (1,024 bytes), C{None} if it isn't running.
        """
        pid = self.process.pid
        return None if pid is None else residentSize(pid)

    def _beginStart(self, replaces: bool) -> None:
        """
        Start the child when the reactor runs: the process that has made the worker may
        not be the one in which it does.

        @param replaces: Whether the worker takes the place of another.
        """
        self._isBegun = True
        if not self._reactor.running:
            self._reactor.callWhenRunning(self._startLater)
            return
        try:
            self._start()
        except OSError as error:
            if not replaces:
                raise WorkerStartError(
                    f"A child process can't be started: {error}"
                ) from error
            # There's nobody yet to resign to.
            self._delayed = self._reactor.callLater(0, self._startLater)

    def _start(self) -> None:
        """
        Start the child.

        @raise OSError: If it can't be.
        """
        setup = self._options.setup()
        self._child = Child(
            self._received,
            self._childEnded,
            options=(_reactorModule(self._reactor),) if self.useReactor else (),
            env=self._options.env,
            reactor=self._reactor,
        )
        self._nameOutput()
        self._child.send(Kind.SETUP, 0, setup)
        if self._options.startTimeout is not None:
            self._startTimer = self._reactor.callLater(
                self._options.startTimeout, self._startTimedOut
            )
        self._resend(self._unsent())

    def _nameOutput(self) -> None:
        """
        Have the log say whose output the child's is.
        """
        child = self._child
        if child is not None and self.ID is not None:
            for output in (child.stdout, child.stderr):
                output.who = f"Worker {self.ID}, pid {child.pid}"

    def _startLater(self) -> None:
        """
        Start the child, unless the worker has been stopped before it was time.
        """
        self._delayed = None
        if self.state is State.DEAD:
            return
        try:
            self._start()
        except (OSError, WorkerStartError) as error:
            self._failure = f"it could not be started: {error}"
            self._childEnded(ExitStatus())

    def _startTimedOut(self) -> None:
        """
        Kill a child that isn't ready in time.
        """
        self._startTimer = None
        self._failure = f"it wasn't ready within {self._options.startTimeout} seconds"
        if self._child is not None:
            self._child.end(rudely=True)

    def _cancelStartTimer(self) -> None:
        """
        Give the child any time from now on.
        """
        timer, self._startTimer = self._startTimer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _hasStarted(self) -> None:
        """
        Note that the child is ready, or has been brought up to date. If it's both, its
        start has succeeded.
        """
        if self._greeted and self._upToDate:
            self._starts.succeeded()

    def _renewIfWorn(self) -> None:
        """
        Ask to be replaced if the child has done as much as it may.
        """
        options = self._options
        if self.state is not State.READY or self._renew is None or not self._taken:
            return
        worn = options.maxTasks is not None and self._taken >= options.maxTasks
        if not worn and options.maxMemory is not None:
            worn = (self.memUsage() or 0) > options.maxMemory * 1024
        if worn:
            self._renew()

    def _send(self, job: Job) -> None:
        """
        Send a job to the child, if there's one.

        @param job: The job, which comes after all others.
        """
        jobs, child = self._jobs, self._child
        ahead = bool(jobs)
        # In a child with a reactor, calls would be at once what is started in turn.
        held = ahead and (
            self.useReactor
            or len(jobs) >= _MOST_SENT
            or not jobs[-1].sent
            or type(job.payload) is not bytes
        )
        jobs.append(job)
        if held or child is None or self._endedEarly is not None:
            return
        kind, payload = Kind.CALL, job.payload
        if isinstance(payload, Packed):
            shipped = self._shipped(job, payload, child)
            if shipped is None:
                return
            kind, payload = Kind.LARGE_CALL, shipped
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        job.number = self._numbers
        job.sent = True
        job.ahead = ahead
        if ahead:
            child.sendAhead(Kind.AHEAD, job.number, payload)
        else:
            if job.shipment is None:
                job.since = perf_counter()
            job.payload, job.shipment = b"", None
            child.send(kind, job.number, payload)
            job.end = child.accepted
            self._first = job

    def _shipped(self, job: Job, packed: Packed, child: Child) -> bytes | None:
        """
        Ship the arguments of a job whose turn it is.

        @param job: The job.

        @param packed: The call.

        @param child: The child.

        @return: What is to be sent the child. C{None} if it's not yet time: then, the
            job is sent when it is.
        """
        if job.shipment is None:
            self._first = job
            job.since = perf_counter()
            job.shipment = child.delivery.ship(packed, partial(self._sail, job))
        return job.shipment.payload

    def _sail(self, job: Job) -> None:
        """
        Send a job whose arguments have been shipped.

        @param job: The job.
        """
        shipment = job.shipment
        if self.state in USELESS or job not in self._jobs or shipment is None:
            return
        unsent = self._unsent()
        if shipment.error is not None:
            unsent.remove(job)
            reason = NotPicklable(told(shipment.error))
            reason.__cause__ = shipment.error
            job.task.errback(Failure(cantBeSent(job.task, reason)))
            job.ready()
        self._resend(unsent)
        self._maybeStop()

    def _giveUpShipments(self) -> None:
        """
        Don't go on to ship arguments.
        """
        for job in self._jobs:
            if job.shipment is not None:
                job.shipment.giveUp()

    def _recall(self, child: Child | None = None) -> list[Job]:
        """
        Take back the jobs that the child hasn't started: those that were sent ahead,
        and those that wait behind others.

        @param child: The child, if it isn't the worker's any longer.

        @return: The jobs.
        """
        child = child or self._child
        numbers: set[int] = child.recall() if child is not None else set()
        if not numbers and (not self._jobs or self._jobs[-1].sent):
            return []
        taken: list[Job] = []
        kept: deque[Job] = deque()
        for job in self._jobs:
            if job.ahead and job.number in numbers:
                job.sent = job.ahead = False
                taken.append(job)
            elif not job.sent and (kept or taken):
                # Without the others, nothing would have it sent.
                taken.append(job)
            else:
                kept.append(job)
        self._jobs = kept
        return taken

    def _unsend(self, child: Child | None = None) -> None:
        """
        Have the jobs that the child hasn't started wait behind those that it has.

        @param child: See L{_recall}.
        """
        taken = self._recall(child)
        self._jobs.extend(taken)

    def _resend(self, jobs: list[Job]) -> None:
        """
        Send jobs that aren't among the others now.

        @param jobs: The jobs.
        """
        for job in jobs:
            self._send(job)
            if job is self._first and self._greeted and job.task.timeout is not None:
                cast(_Timed, job.task).startTimer()

    def _unsent(self) -> list[Job]:
        """
        Take out the jobs that the child hasn't been sent.

        @return: The jobs.
        """
        unsent = [job for job in self._jobs if not job.sent]
        self._jobs = deque(job for job in self._jobs if job.sent)
        return unsent

    def _hasAnswered(self, job: Job) -> bool:
        """
        Look whether the child has answered a job, so that there's nothing to stop.

        @param job: The job.

        @return: Whether it has.
        """
        if self._child is not None:
            self._child.readNow()
        return job not in self._jobs or any(
            number == job.number for _, number, _ in self._frames
        )

    def _received(self, frames: list[Frame]) -> None:
        """
        Take what the child has sent.

        @param frames: The frames.
        """
        self._frames.extend(frames)
        if self._reading:
            # Their turn will come.
            return
        self._reading = True
        child = self._child
        if child is not None:
            child.hold()
        if self.backlogPerWorker is not None and not self.useReactor:
            self._pace.adapt(self.backlogPerWorker())
        try:
            self.batch(self._readFrames)
        finally:
            self._reading = False
            if child is not None:
                child.release()
        if self._jobs and self._jobs[0] is not self._first:
            self._begin(self._jobs[0])

    def _readFrames(self) -> None:
        """
        Take the frames that are there, as far as that can be done at once.
        """
        frames = self._frames
        while frames:
            kind, number, payload = frames.popleft()
            if kind in ANSWERS:
                if self._jobs and self._jobs[0].number == number:
                    if kind == LARGE_RESULT and not self._arrived(number, payload):
                        frames.appendleft((kind, number, payload))
                        break
                    self._answered(kind, payload)
            else:
                self._handle(kind, number, payload)

    def _arrived(self, number: int, payload: memoryview) -> bool:
        """
        See to it that a large result is read. Until it is, what has come after it
        waits.

        @param number: The number of the call.

        @param payload: What the child tells of it.

        @return: Whether it has been read.
        """
        if self._arrival is None or self._arrival[0] != number:
            if self._child is None:
                return False
            delivery = self._child.delivery
            arrival = delivery.open(payload[SECONDS.size :], self._goOn)
            self._arrival = number, arrival
        return self._arrival[1].ready

    def _goOn(self) -> None:
        """
        Go on with what has come after a large result.
        """
        if self.state is State.DEAD:
            return
        self._received([])
        ended, self._endedEarly = self._endedEarly, None
        if ended is not None:
            self._childEnded(ended)

    def _begin(self, job: Job) -> None:
        """
        Note that it's a job's turn.

        @param job: The job, now the first.
        """
        self._first = job
        job.since = perf_counter()
        if job.task.timeout is not None:
            cast(_Timed, job.task).startTimer()

    def _handle(self, kind: int, number: int, payload: memoryview) -> None:
        """
        Take a frame from the child that isn't an answer.

        @param kind: The kind.

        @param number: The number of the call.

        @param payload: The payload.
        """
        if kind == Kind.HELLO:
            self._greeted = True
            self._cancelStartTimer()
            self._hasStarted()
            if self.state is State.STARTING:
                self.state = State.READY
            if self._jobs:
                self._begin(self._jobs[0])
        elif kind == Kind.RELEASE:
            if self._child is not None:
                self._child.delivery.release(payload)
        elif kind == Kind.SIGNALLED:
            if self._child is not None and self.state is not State.STOPPING:
                self._child.end()
        elif number in self._iterations:
            iteration = self._iterations[number]
            if iteration.received(kind, payload):
                # Unless it has been closed in the meantime.
                self._iterations.pop(number, None)
                self._renewIfWorn()
                self._maybeStop()

    def _answered(self, kind: int, payload: memoryview) -> None:
        """
        Hand back what the first job has come to.

        @param kind: The kind of the frame that tells it.

        @param payload: What it tells.
        """
        jobs = self._jobs
        job = jobs.popleft()
        [seconds] = SECONDS.unpack_from(payload)
        self._pace.note(seconds)
        if jobs and not jobs[0].sent:
            self._resend(self._unsent())
        if self.callStats:
            now = perf_counter()
            self.callTimes.append((now - job.since, seconds))
            if jobs:
                jobs[0].since = now
        payload = payload[SECONDS.size :]
        if kind == RESULT:
            giveResult(job.task, loads, payload)
        elif self._arrival is not None and kind == LARGE_RESULT:
            arrival, self._arrival = self._arrival[1], None
            giveResult(job.task, Arrival.loads, arrival)
        elif kind == Kind.ERROR:
            giveError(job.task, payload)
        else:
            iteration = self._iterations[job.number] = Iteration(
                job.task,
                lambda count: self._tell(Kind.TAKEN, job.number, count),
                lambda: self._closeIteration(job.number),
            )
            if job.consumer is not None:
                iteration.feed(job.consumer)
        if self._options.wears:
            self._renewIfWorn()
        job.ready()
        if self.state is State.STOPPING:
            self._maybeStop()

    def _tell(self, kind: Kind, number: int, count: int = 0) -> None:
        """
        Tell the child something about an iteration.

        @param kind: What.

        @param number: The number of the call.

        @param count: A number that goes with it.
        """
        if self._child is not None:
            self._child.send(kind, number, COUNT.pack(count))

    def _closeIteration(self, number: int) -> None:
        """
        End an iteration that nobody wants to go on.

        @param number: The number of the call.
        """
        if self._iterations.pop(number, None) is not None:
            self._tell(Kind.CLOSE, number)
            self._maybeStop()

    def _maybeStop(self) -> None:
        """
        Have the child end if it's told to, and there's nothing left to do.
        """
        if self.state is State.STOPPING and not self._jobs and not self._iterations:
            if self._child is not None:
                self._child.close()
            else:
                self._die(rudely=True)

    def _die(self, *, rudely: bool) -> None:
        """
        End the child, whatever it's doing.

        @param rudely: C{True} not to let it handle the signal.
        """
        if self.state is State.DEAD:
            return
        self.state = State.DYING
        if self._child is not None:
            self._child.end(rudely=rudely)
        else:
            # It hasn't been started yet.
            delayed, self._delayed = self._delayed, None
            if delayed is not None:
                delayed.cancel()
            self._childEnded(ExitStatus())

    def _childEnded(self, ended: ExitStatus) -> None:
        """
        Note that the child has ended, or could not be started.

        @param ended: How.
        """
        if self._arrival is not None and self._arrival[1].ready:
            self._received([])
        if self._arrival is not None and not self._arrival[1].ready:
            # The child has said more than has been heard.
            self._endedEarly = ended
            self._unsend()
            if self._child is not None:
                self._child.delivery.stay()
            return
        state, self.state = self.state, State.DEAD
        child, self._child = self._child, None
        self._arrival = None
        self._ended = ended
        self._cancelStartTimer()
        if state is not State.DYING and not (self._greeted and self._upToDate):
            self._starts.failed(None if self._failure else ended.signal)
        self._unsend(child)
        self._giveUpShipments()
        if child is not None:
            child.delivery.close()
        started = [job for job in self._jobs if self._mayHaveStarted(job, child)]
        for job in started:
            self._jobs.remove(job)
        iterations = list(self._iterations.values())
        self._iterations.clear()
        if state in (State.STARTING, State.READY):
            # First of all, so that a call that is made because of the failures isn't
            # given to this worker.
            self._lose(ended)
        for job in started:
            job.task.errback(Failure(self._lost(ended, job.task)))
        for iteration in iterations:
            iteration.lose(Failure(self._lost(ended, iteration.task)))
        if state is State.STOPPING and (self._jobs or started or iterations):
            # Not before the tasks have their results: it's asked for that.
            self._lose(ended)
        if state is State.DYING:
            # Whoever wanted them back has had the time. The child hasn't begun any,
            # also of those that it was sent.
            unstarted, self._jobs = self._jobs, deque()
            for job in unstarted:
                job.task.callback((Status.DISCONNECTED, None))
        if child is None:
            self._gone()
        else:
            child.delivery.afterClose(self._gone)

    def _gone(self) -> None:
        """
        Note that nothing is left.
        """
        self._isGone = True
        waiters = self._stopWaiters + self._goneWaiters
        self._stopWaiters, self._goneWaiters = [], []
        for d in waiters:
            d.callback(None)

    def _lose(self, ended: ExitStatus) -> None:
        """
        Resign because the child has ended.

        @param ended: How.
        """
        log.warn("Worker {ID} is lost. {ended}", ID=self.ID, ended=ended)
        self._resign()

    def _mayHaveStarted(self, job: Job, child: Child | None) -> bool:
        """
        Tell whether the child may have begun to run a job before its end.

        @param job: The job. It's not one that has been taken back.

        @param child: The child.

        @return: C{False} if it certainly hasn't.
        """
        if child is None or not self._greeted or not job.sent:
            return False
        return job.ahead or child.delivered >= job.end

    def _lost(self, ended: ExitStatus, task: ITask) -> WorkerLost:
        """
        Make the error of a task whose worker was lost.

        @param ended: How its child has ended.

        @param task: The task.

        @return: The error.
        """
        return WorkerLost(
            f"Worker {self.ID} was lost while it may have been running {task!r}."
            f" {ended}",
            workerID=self.ID,
            pid=ended.pid,
            exitCode=ended.exitCode,
            signal=ended.signal,
            task=task,
        )


def _reactorModule(reactor: object) -> str:
    """
    Name the module that installs a reactor like this one in a child.
    """
    name = type(reactor).__module__
    return name if name in _REACTORS else "twisted.internet.default"


def _atOnce(f: Callable[[], object]) -> None:
    """
    Call something, without more.

    @param f: The callable.
    """
    f()
