"""Notes how long calls wait and run, and tells observers of them."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from ..errors import QueueStopped, TimeoutError, WorkerLost
from ..events import EventKind
from ..tasks import Task
from ._load import LoadInfoProducer
from ._observers import Observers
from ._quantiles import Quantiles

if TYPE_CHECKING:
    from ._tracing import CallSpan

#: About one call in so many seconds is watched, which takes 2 us,
_WATCH_SECONDS = 0.001

#: or one of so many, where that is more.
_MAX_GAP = 50

#: Kinds of failures, as they're counted, with their events.
_KINDS = (
    (TimeoutError, "timeout", EventKind.TIMED_OUT),
    (CancelledError, "cancelled", EventKind.CANCELLED),
    (WorkerLost, "lost", EventKind.FAILED),
    (QueueStopped, "stopped", EventKind.FAILED),
)


class _CallWatch:
    """
    Watches one call.

    @ivar seconds: See L{Watch<asynqueue.tasks._task.Watch>}.

    @ivar span: Its span, C{None} if there's no tracing.
    """

    __slots__ = ("_queuedAt", "_watcher", "seconds", "span")

    def __init__(self, watcher: Watcher, now: float) -> None:
        self.seconds: float | None = None
        self.span: CallSpan | None = None
        self._watcher = watcher
        self._queuedAt = now

    @property
    def headers(self) -> dict[str, str] | None:
        return None if self.span is None else self.span.headers

    def started(self, task: Task) -> None:
        task.startedAt = perf_counter()
        self.seconds = None
        if self.span is not None:
            self.span.noteStarted(task.worker)
        observers = self._watcher.observers
        if EventKind.STARTED in observers.wanted:
            seconds = task.startedAt - self._queuedAt
            observers.tell(EventKind.STARTED, task=task, seconds=seconds)

    def done(self, task: Task) -> None:
        """Note that the task has its result."""
        now = perf_counter()
        seconds = self.seconds
        if seconds is None:
            seconds = now - task.startedAt
        if self.span is not None:
            self.span.end(task)
        watcher = self._watcher
        watcher.run.add(seconds, now)
        watcher.wait.add(now - seconds - self._queuedAt, now)
        if EventKind.DONE in watcher.observers.wanted:
            watcher.observers.tell(EventKind.DONE, task=task, seconds=seconds)


class Watcher:
    """
    Chooses the calls that are watched, and counts what goes wrong.

    @ivar observers: Who is told.

    @ivar next: The number of the next call to be watched.

    @ivar wait: How long calls have waited, from when they were made to when they were
        run for the last time.

    @ivar run: How long they were run then.

    @ivar failed: How many calls have failed, by kind.

    @ivar refused: How many were refused, since the queue was full.

    @ivar retried: How many further attempts there were.

    @ivar replaced: How many workers were hired in place of others.
    """

    def __init__(self, load: LoadInfoProducer) -> None:
        self.observers = Observers()
        self.next = 0
        self.wait = Quantiles()
        self.run = Quantiles()
        self.failed: dict[str, int] = {}
        self.refused = 0
        self.retried = 0
        self.replaced = 0
        self._load = load
        # When a call was watched last, and how many calls ago that will have been when
        # the next is.
        self._watchedAt = 0.0
        self._gap = 1

    def watch(self, task: Task) -> None:
        """Watch a call that has been counted, and is to be queued."""
        now = perf_counter()
        tracer = None
        if "opentelemetry.trace" in sys.modules:
            from ._tracing import CallSpan, activeTracer

            tracer = activeTracer()
        if self.observers.wantsEachCall or tracer is not None:
            self._gap = 1
        else:
            # So many calls are made in a second, going by the last ones.
            rate = self._gap / max(now - self._watchedAt, 1e-9)
            self._gap = min(max(int(rate * _WATCH_SECONDS), 1), _MAX_GAP)
        self._watchedAt = now
        self.next = self._load.begun + self._gap
        watch = task.watch = _CallWatch(self, now)
        if tracer is not None:
            watch.span = CallSpan(tracer, self.observers.queue, task)
        if EventKind.QUEUED in self.observers.wanted:
            self.observers.tell(EventKind.QUEUED, task=task)

    def noteFailed(self, failure: Failure, task: Task, *, raised: bool) -> None:
        """
        Note that a call has failed.

        @param raised: Whether that is since it has raised an exception.
        """
        name, kind = "error", EventKind.FAILED
        if not raised:
            for error, itsName, itsKind in _KINDS:
                if failure.check(error):
                    name, kind = itsName, itsKind
                    break
        self.failed[name] = self.failed.get(name, 0) + 1
        span = _spanOf(task)
        if span is not None:
            span.end(task, failure)
        self._tellFailure(kind, failure, task)

    def noteRetried(self, failure: Failure, task: Task) -> None:
        """Note that a call is to be tried again."""
        self.retried += 1
        span = _spanOf(task)
        if span is not None:
            span.noteRetried(failure)
        self._tellFailure(EventKind.RETRIED, failure, task)

    def noteReplaced(self, worker: Any) -> None:
        """Note that another worker was hired in place of one."""
        self.replaced += 1
        self.observers.tell(EventKind.REPLACED, worker=worker)

    def _tellFailure(self, kind: EventKind, failure: Failure, task: Task) -> None:
        if kind not in self.observers.wanted:
            return
        seconds = perf_counter() - task.startedAt if task.startedAt else None
        self.observers.tell(kind, task=task, seconds=seconds, failure=failure)


def _spanOf(task: Task) -> CallSpan | None:
    return task.watch.span if isinstance(task.watch, _CallWatch) else None
