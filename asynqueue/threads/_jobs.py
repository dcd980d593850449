"""Jobs that are done in a thread, and whose results are handed to the reactor."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from itertools import count
from queue import SimpleQueue
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python import threadable
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.log import log
from .._support.reactor import Handover, IReactorAll, hasGlobalReactor, orGlobalReactor
from ..errors import ThreadError

#: How long to wait in the reactor for a thread that has told that it ends. It's at the
#: end of its code by then.
JOIN_SECONDS = 1.0

_numbers = count(1)


@define(eq=False, repr=False)
class Job:
    """Something to be done in a thread, and delivered to the reactor afterwards."""

    # What it has raised, and whether the thread is through with it. Both are written
    # there, this at last.
    error: BaseException | None = field(default=None, kw_only=True)
    finished: bool = field(default=False, kw_only=True)

    def work(self) -> None:
        """Do it, in the thread. Should this raise, it becomes L{error}."""

    def deliver(self) -> None:
        """Tell of it, in the reactor's thread."""

    def lose(self, failure: Failure) -> None:
        """Give it up, in the reactor's thread: there's no thread any longer."""


class ThreadState(Enum):
    """How far a L{JobThread} has come."""

    #: It takes jobs.
    OPEN = auto()

    #: It has been told to stop, and does the jobs that it has.
    STOPPING = auto()

    #: It has no jobs, and its thread has been told to end.
    ENDING = auto()

    #: It has no thread.
    ENDED = auto()


# Python 3.11 takes 0.05 µs to look up a member of an enum.
OPEN, STOPPING, ENDING, ENDED = ThreadState


class _JobLoop:
    """
    One thread of the system, which does jobs until it's told to end.

    A job is either begun by the thread or withdrawn, never both: whoever takes it out
    of C{waiting} has it. The reactor's thread puts jobs in there first, and then into
    C{urgent} or C{queue}, from where only the thread takes them. A C{None} in the queue
    stands for a job in C{urgent}, the loop itself for the end.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], object]], object],
        onEnd: Callable[[_JobLoop], object],
    ) -> None:
        self.waiting: dict[Job, None] = {}
        self.urgent: deque[Job] = deque()
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self._post = post
        self._onEnd = onEnd
        self.join = startThread(self._run, f"asynqueue-{next(_numbers)}")

    def putAll(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.waiting[job] = None
            self.queue.put(job)

    def withdrawAll(self) -> list[Job]:
        """Take back the jobs that haven't been begun, in the order of their turn."""
        jobs = dict.fromkeys((*self.urgent.copy(), *self.waiting.copy()))
        return [job for job in jobs if self.waiting.pop(job, self) is None]

    def _run(self) -> None:
        """Do jobs, in the thread."""
        get, do, urgent = self.queue.get, self._do, self.urgent
        while True:
            job = get()
            while urgent:
                do(urgent.popleft())
            if job is self:
                break
            if job is not None:
                do(job)
            del job  # It keeps none while it waits for one.
        self._post(lambda: self._onEnd(self))

    def _do(self, job: Job) -> None:
        if self.waiting.pop(job, self) is None:
            try:
                job.work()
            except BaseException as error:  # noqa: BLE001 - nothing may end the thread
                job.error = error
            job.finished = True
            self._post(job.deliver)


class JobThread:
    """
    A thread that does one job after the other.

    Everything here is for the reactor's thread, except L{post} and L{isWanted}. The
    reactor is woken up once for all the results that come together.

    C{jobs} has those that were given and haven't been delivered, C{iterations} those
    that go on taking the thread's time. While there's any of either, the thread
    doesn't end by itself. C{_loop} is C{None} if C{state} is C{ENDED}, and until the
    thread has been started: with the first job, if the reactor didn't run before. The
    program may fork until then, as daemons do, and a fork has no threads.
    """

    def __init__(self, reactor: IReactorTime | None = None) -> None:
        self._reactor: IReactorTime | None = reactor
        # Ordered sets.
        self.jobs: dict[Job, None] = {}
        self.iterations: dict[Job, None] = {}
        # How many threads were given up because they were stuck.
        self.abandoned = 0
        # Called when no other could be started in place of one.
        self.onLost: Callable[[], object] | None = None
        self.state = OPEN
        self._stopped: OneShot[None] = OneShot()
        # Made with the first thread, as threads may not install the reactor.
        self._handover: Handover[Callable[[], object]] | None = None
        self._loop: _JobLoop | None = None
        if reactor is not None or (hasGlobalReactor() and self.reactor.running):
            self.start()

    @property
    def reactor(self) -> IReactorAll:
        """The reactor. One is installed if there's none yet."""
        self._reactor = reactor = threadedReactor(self._reactor)
        return reactor

    def start(self) -> None:
        """Start the thread if there's to be one and isn't yet, or raise ThreadError."""
        if self._loop is None and self.state is OPEN:
            self._start()

    def put(self, job: Job, first: bool = False) -> None:
        """
        Have a job done: before those that wait if it's to be C{first}, or if there's
        nothing to do, so that no other gets before it.
        """
        if self._loop is None:
            self.start()
        loop = self._loop
        if loop is not None and self.state is not ENDING:
            loop.waiting[job] = None
            first = first or not self.jobs
            self.jobs[job] = None  # before the thread has it, which looks there
            if first:
                loop.urgent.append(job)
            loop.queue.put(None if first else job)

    def cancel(self, job: Job, abandon: bool = False) -> None:
        """
        Forget a job, which isn't done if it hasn't been begun. With C{abandon}, if the
        thread is at it, leave that alone, and go on with another thread.
        """
        loop = self._loop
        if loop is None or self.jobs.pop(job, self) is self:
            return
        begun = loop.waiting.pop(job, self) is self
        if begun and abandon and not job.finished:
            self._abandon(loop)
        self._maybeEnd()

    def stop(self) -> Deferred[None]:
        """Let the thread end when all is done. The Deferred fires when it has."""
        if self.state is OPEN:
            self.state = STOPPING
            self._maybeEnd()
        return self._stopped.wait()

    def crash(self) -> None:
        """Give up the thread, whatever it's at, and all jobs."""
        loop = self._loop
        if loop is None:
            self._lose("The thread has not been started")
            return
        loop.withdrawAll()
        iterations = self.iterations
        self._lose("The thread has been given up")
        loop.putAll(iterations)  # They're closed where they were made.
        loop.queue.put(loop)

    def post(self, result: Callable[[], object]) -> None:
        """Have the reactor call something. Called in the thread."""
        assert self._handover is not None
        self._handover.put(result)

    def isWanted(self) -> bool:
        """Tell whether other jobs wait. Called in the thread."""
        loop = self._loop
        return loop is None or len(loop.waiting) > 0

    def _start(self) -> _JobLoop:
        if self._handover is None:
            self._handover = Handover(self._deliver, self.reactor)
        try:
            loop = self._loop = _JobLoop(self._handover.put, self._ended)
        except RuntimeError as error:
            raise ThreadError(f"A thread can't be started: {error}") from error
        return loop

    def _abandon(self, stuck: _JobLoop) -> None:
        self.abandoned += 1
        waiting = stuck.withdrawAll()
        stuck.queue.put(stuck)
        try:
            loop = self._start()
        except ThreadError as error:
            reason = error.__cause__
            log.error("A thread can't be replaced: {error}", error=reason)
            self._loop = None
            if self.onLost is not None:
                self.onLost()
            self._lose(f"The thread is stuck and can't be replaced: {reason}")
            return
        loop.putAll(waiting)

    def _deliver(self, result: Callable[[], object]) -> None:
        """Call what was posted."""
        try:
            result()
        finally:
            if self.state is STOPPING:
                self._maybeEnd()

    def _maybeEnd(self) -> None:
        if self.state is STOPPING and not self.jobs and not self.iterations:
            if self._loop is None:
                self._lose("The thread has not been started")
                return
            self.state = ENDING
            self._loop.queue.put(self._loop)

    def _ended(self, loop: _JobLoop) -> None:
        loop.join()
        if loop is self._loop:
            self._loop = None
            self.state = ENDED
            self._stopped.fire(None)

    def _lose(self, reason: str) -> None:
        """Give up all jobs: there's no thread."""
        self._loop = None
        self.state = ENDED
        failure = Failure(ThreadError(reason))
        lost = {**self.iterations, **self.jobs}
        self.iterations, self.jobs = {}, {}
        for job in lost:
            job.lose(failure)
        self._stopped.fire(None)


def threadedReactor(reactor: IReactorTime | None) -> IReactorAll:
    """Get the reactor, or the global one, as one that threads can call, as all are."""
    return cast(IReactorAll, orGlobalReactor(reactor))


def inReactorThread() -> bool:
    """Tell whether this is the thread that the reactor runs in, or will run in."""
    reactorThread: int | None = threadable.ioThread
    if reactorThread is None:
        reactorThread = threading.main_thread().ident
    return threading.get_ident() == reactorThread


def startThread(target: Callable[[], object], name: str) -> Callable[[], object]:
    """Start a thread. What this returns waits for one that is about to end."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return lambda: thread.join(JOIN_SECONDS)
