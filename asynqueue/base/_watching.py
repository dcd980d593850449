"""
What queues note: how long calls wait and run, how many fail, and who is told of it.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from .._support.checks import checkCallable
from .._support.log import log
from ..errors import QueueStopped, TimeoutError, WorkerLost
from ..events import Event, EventKind
from ..tasks import Task
from ._load import LoadInfoProducer

if TYPE_CHECKING:
    from ._tracing import CallSpan

#: By how much, relatively, a quantile may be off.
ERROR = 0.02

#: Quantiles are of the values of so many seconds, and of the same time before.
WINDOW_SECONDS = 300.0

#: What is shorter, or longer, counts as this: a microsecond, and 11 days.
_MIN_SECONDS, _MAX_SECONDS = 1e-6, 1e6

_LOG_GAMMA = math.log((1 + ERROR) / (1 - ERROR))

#: What is estimated for a bucket, of its upper bound, for the error to be the same to
#: both sides.
_MIDDLE = 2 / (1 + math.exp(_LOG_GAMMA))

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

#: What happens to each call.
_FREQUENT = frozenset((EventKind.QUEUED, EventKind.STARTED, EventKind.DONE))


class Quantiles:
    """
    The distribution of seconds: their number and mean, and for those of the last 5 to
    10 minutes the maximum, and quantiles that are off by 2 % at most.

    This is the sketch of Charles Masson, Jee E. Rim and Homin K. Lee, I{DDSketch: A
    Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees}, PVLDB
    12(12), 2019: it counts, for each C{i}, the values from C{gamma**(i-1)} to
    C{gamma**i}, with C{gamma = (1 + error) / (1 - error)}. So there are 692 counts at
    most, for each of two windows of time.
    """

    # _buckets and _max are of the values since the last turn, the other two of those
    # between that and the one before.

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0
        self._buckets: dict[int, int] = {}
        self._max = 0.0
        self._bucketsBefore: dict[int, int] = {}
        self._maxBefore = 0.0
        self._nextTurn = 0.0

    def add(self, seconds: float, now: float) -> None:
        """Count a value."""
        if now >= self._nextTurn:
            self._turn(now)
        self._count += 1
        self._sum += seconds
        if seconds > self._max:
            self._max = seconds
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            seconds = _MIN_SECONDS if seconds < _MIN_SECONDS else _MAX_SECONDS
        i = math.ceil(math.log(seconds) / _LOG_GAMMA)
        self._buckets[i] = self._buckets.get(i, 0) + 1

    def summary(self) -> dict[str, float]:
        """Give the figures by name, all 0 if there were no values."""
        most = max(self._max, self._maxBefore)
        buckets = Counter(self._buckets) + Counter(self._bucketsBefore)
        last = sum(buckets.values()) - 1
        quantiles = {"p50": 0.0, "p90": 0.0, "p99": 0.0}
        ranks = [("p50", 0.5 * last), ("p90", 0.9 * last), ("p99", 0.99 * last)]
        below = 0
        for i in sorted(buckets):
            below += buckets[i]
            while ranks and below > ranks[0][1]:
                value = math.exp(i * _LOG_GAMMA) * _MIDDLE
                quantiles[ranks.pop(0)[0]] = min(value, most)
        mean = self._sum / self._count if self._count else 0.0
        return {"count": self._count, "mean": mean, **quantiles, "max": most}

    def _turn(self, now: float) -> None:
        """Begin a new window."""
        if now < self._nextTurn + WINDOW_SECONDS:
            self._bucketsBefore, self._maxBefore = self._buckets, self._max
        else:
            self._bucketsBefore, self._maxBefore = {}, 0.0
        self._buckets, self._max = {}, 0.0
        self._nextTurn = now + WINDOW_SECONDS


class Observers:
    """Tells events to callables."""

    def __init__(self) -> None:
        # The name of the queue.
        self.queue: str | None = None
        # The kinds that anybody wants to hear of.
        self.wanted: frozenset[EventKind] = frozenset()
        self._kinds: dict[Callable[[Event], object], frozenset[EventKind]] = {}

    @property
    def wantsEachCall(self) -> bool:
        """Whether anybody wants to hear what happens to each call."""
        return not self.wanted.isdisjoint(_FREQUENT)

    def add(self, f: Callable[[Event], object], kinds: Iterable[EventKind]) -> None:
        checkCallable("An observer", f)
        if isinstance(kinds, (str, EventKind)):
            raise TypeError(f"kinds must be a list of kinds of events, not {kinds!r}")
        self._kinds[f] = frozenset(map(EventKind, kinds)) or frozenset(EventKind)
        self._changed()

    def remove(self, f: Callable[[Event], object]) -> None:
        self._kinds.pop(f, None)
        self._changed()

    def tell(
        self,
        kind: EventKind,
        *,
        task: Task | None = None,
        worker: object = None,
        series: Hashable = None,
        seconds: float | None = None,
        failure: Failure | None = None,
    ) -> None:
        """Tell those who want to hear of it that something has happened."""
        if kind not in self.wanted:
            return
        name = None
        if task is not None:
            name, series, worker = task.name, task.series, task.worker
        ID = getattr(worker, "ID", None)
        event = Event(
            kind, time.time(), self.queue, name, series, ID, seconds, failure, task
        )
        for f, kinds in list(self._kinds.items()):
            if kind in kinds:
                try:
                    f(event)
                except Exception:  # noqa: BLE001 - the observer is the user's
                    log.failure(
                        "{observer} failed to take {event}", observer=f, event=event
                    )

    def _changed(self) -> None:
        self.wanted = frozenset().union(*self._kinds.values())


class _CallWatch:
    """Watches one call: a L{Watch<asynqueue.tasks._task.Watch>}."""

    __slots__ = ("_queuedAt", "_watcher", "seconds", "span")

    def __init__(self, watcher: Watcher, now: float) -> None:
        self.seconds: float | None = None
        # None if there's no tracing.
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
        seconds = task.startedAt - self._queuedAt
        self._watcher.observers.tell(EventKind.STARTED, task=task, seconds=seconds)

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
        watcher.observers.tell(EventKind.DONE, task=task, seconds=seconds)


class Watcher:
    """Chooses the calls that are watched, and counts what goes wrong."""

    def __init__(self, load: LoadInfoProducer) -> None:
        self.observers = Observers()
        # The number of the next call to be watched.
        self.next = 0
        # How long calls have waited, from when they were made to when they were run for
        # the last time, and how long they were run then.
        self.wait = Quantiles()
        self.run = Quantiles()
        # How many calls have failed, by kind. Those that were "refused", since the
        # queue was full, are in no other count.
        self.failed: Counter[str] = Counter()
        # How many further attempts there were.
        self.retried = 0
        # How many workers were hired in place of others.
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
        self.observers.tell(EventKind.QUEUED, task=task)

    def noteFailed(self, failure: Failure, task: Task, *, raised: bool) -> None:
        """Note that a call has failed, by an exception that it has C{raised} or not."""
        name, kind = "error", EventKind.FAILED
        if not raised:
            for error, itsName, itsKind in _KINDS:
                if failure.check(error):
                    name, kind = itsName, itsKind
                    break
        self.failed[name] += 1
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

    def noteReplaced(self, worker: object) -> None:
        """Note that another worker was hired in place of one."""
        self.replaced += 1
        self.observers.tell(EventKind.REPLACED, worker=worker)

    def _tellFailure(self, kind: EventKind, failure: Failure, task: Task) -> None:
        seconds = perf_counter() - task.startedAt if task.startedAt else None
        self.observers.tell(kind, task=task, seconds=seconds, failure=failure)


def _spanOf(task: Task) -> CallSpan | None:
    return task.watch.span if isinstance(task.watch, _CallWatch) else None
