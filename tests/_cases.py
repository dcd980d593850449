"""What tests of queues share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from asynqueue.base import TaskQueue
from asynqueue.interfaces import IReplaceableWorker
from asynqueue.tasks import TaskHandler
from asynqueue.tasks._task import Task
from asynqueue.testing import MemoryWorker


def same(x: Any = None) -> Any:
    """Do nothing."""
    return x


def task(
    f: Any = same, *args: Any, priority: float = 0, series: Any = None, **kw: Any
) -> Task:
    return Task(f, args, kw, priority, series, reactor=Clock())


def ids(worker: MemoryWorker) -> list[Any]:
    """
    List the first arguments of the tasks that a worker is running, by which tests tell
    calls apart; C{None} for those without.
    """
    return [call[1] if len(call) > 1 else None for call in worker.calls]


def turn(clock: Clock) -> None:
    """Let the only delayed call that there is be called, and no other that it makes."""
    (call,) = cast("list[DelayedCall]", clock.getDelayedCalls())
    f, args, kw = call.func, call.args, call.kw
    call.cancel()
    f(*args, **kw)


def turnAll(clock: Clock) -> None:
    """Let the calls be made that are due, and not those that they make."""
    for call in cast("list[DelayedCall]", list(clock.getDelayedCalls())):
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


class StoppableClock(Clock):
    """A clock that can be stopped as a reactor can, and counts how many times it is."""

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self.stops = 0

    def stop(self) -> None:
        self.running = False
        self.stops += 1


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """Gather what is logged in a list, which grows."""
    events: list[dict[str, Any]] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observer)


class QueueTestCase(SynchronousTestCase):
    """A test case with a queue, a clock, and a worker that is single-stepped."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.worker = MemoryWorker()
        self.q = self.queue(self.worker)

    def queue(self, *workers: Any, **kw: Any) -> TaskQueue:
        """Make a queue that lives by the clock."""
        return TaskQueue(*workers, reactor=self.clock, **kw)

    def fillWorker(self) -> Any:
        """
        Have the worker run a call, so that what is queued next waits. Returns the
        call's Deferred.
        """
        return self.q.call(same, "filler")

    def runAll(self) -> list[Any]:
        """
        Complete whatever the worker is given, until there's nothing more. Returns the
        first arguments of the calls, in the order in which they were run.
        """
        order = []
        while self.worker.running:
            order += ids(self.worker)[:1]
            self.worker.complete()
        return order


class HandlerTestCase(SynchronousTestCase):
    """A test case with a handler."""

    def setUp(self) -> None:
        """Make a handler without workers."""
        self.clock = Clock()
        self.handler = TaskHandler(reactor=self.clock)

    def hire(self, *series: Any, **kw: Any) -> MemoryWorker:
        """
        Hire a worker that is qualified for those series, C{None}, C{'memory'}, and
        C{'local'}.
        """
        worker = MemoryWorker(series, **kw)
        self.handler.hire(worker)
        return worker

    def put(self, *args: Any, **kw: Any) -> Task:
        """Give the handler a task."""
        job = task(same, *args, **kw)
        self.handler(job)
        return job


@implementer(IReplaceableWorker)
class ReplaceableWorker(MemoryWorker):
    """
    A worker in memory that can be replaced, and notes what L{updatesApplied} is called
    with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str | None] = []
        self.recycle: Any = None

    def deferUntilReady(self) -> Deferred[None]:
        """It's ready at once."""
        return succeed(None)

    def setRecycler(self, callableObject: Any) -> None:
        self.recycle = callableObject

    def updatesApplied(self, text: str | None) -> None:
        self.texts.append(text)

    def replacement(self) -> Any:
        """Another of the same class."""
        return type(self)()

    def retryReplacement(self) -> Any:
        """Another of the same class."""
        return type(self)()

    def deferUntilGone(self) -> Deferred[None]:
        """It's gone at once."""
        return succeed(None)
