"""What happens in a queue, as its observers are told."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any

from attrs import asdict, field, frozen
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from ._child.describe import callText
from ._support.log import log

__all__ = ["Event", "EventKind", "logEvent"]


class EventKind(Enum):
    """
    What has happened. Each call that is observed has one C{QUEUED}, one C{STARTED} for
    each attempt and each worker that it's given to, and at last one of C{DONE},
    C{FAILED}, C{TIMED_OUT} and C{CANCELLED}.
    """

    #: A call was queued.
    QUEUED = "queued"

    #: A worker has accepted a call.
    STARTED = "started"

    #: A call has its result.
    DONE = "done"

    #: A call has failed.
    FAILED = "failed"

    #: A call is to be tried again, since its time was up or its worker was lost.
    RETRIED = "retried"

    #: A call has failed since its time was up.
    TIMED_OUT = "timed out"

    #: A call was cancelled.
    CANCELLED = "cancelled"

    #: A worker is ready for tasks.
    HIRED = "hired"

    #: A worker was lost, or has resigned.
    LOST = "lost"

    #: A worker was hired in place of one that was lost, or that has run as many tasks
    #: as it may. The event tells of the old one.
    REPLACED = "replaced"

    #: Calls of a series wait that no worker is qualified for.
    UNSERVED = "unserved"

    #: The queue has been shut down, and all its workers have gone.
    STOPPED = "stopped"


@frozen(eq=False)
class Event:
    """
    Something that has happened in a queue.

    @ivar kind: What it was.

    @ivar time: When it was, in seconds since the epoch.

    @ivar queue: The C{name} of the queue, C{None} if it has none.

    @ivar name: The C{name} of the call, C{None} if it has none.

    @ivar series: The series of the call, or the one that nobody serves.

    @ivar workerID: The ID of the worker, of a call the one that has accepted it.
        C{None} if there's none.

    @ivar seconds: How long a call that has been started had waited, or how long one
        that has ended was run. C{None} if that isn't known.

    @ivar failure: Why a call has failed, or is to be tried again.
    """

    kind: EventKind
    time: float
    queue: str | None = None
    name: str | None = None
    series: Hashable = None
    workerID: int | None = None
    seconds: float | None = None
    failure: Failure | None = None
    _call: Any = field(default=None, repr=False)

    @property
    def task(self) -> str | None:
        """
        Text about the call, like C{f(1, x=2)}; C{None} if it's about a worker. It's
        made each time it's asked for, of what the arguments are then.
        """
        return None if self._call is None else callText(*self._call.callTuple)


#: How important each kind is. All others are of the level debug.
_LEVELS = {
    EventKind.FAILED: LogLevel.warn,
    EventKind.TIMED_OUT: LogLevel.warn,
    EventKind.LOST: LogLevel.warn,
    EventKind.UNSERVED: LogLevel.warn,
    EventKind.RETRIED: LogLevel.info,
    EventKind.CANCELLED: LogLevel.info,
    EventKind.REPLACED: LogLevel.info,
    EventKind.HIRED: LogLevel.info,
    EventKind.STOPPED: LogLevel.info,
}


def logEvent(event: Event) -> None:
    """
    Log an event: an observer, to be given to C{addObserver}. The entry has the
    attributes of the event as fields, and its C{task}.
    """
    log.emit(
        _LEVELS.get(event.kind, LogLevel.debug),
        "{who}: {subject} {what}",
        who=event.queue or "A queue",
        what=event.kind.value,
        subject=_subject(event),
        task=event.task,
        **asdict(event, recurse=False, filter=lambda each, _: each.name != "_call"),
    )


def _subject(event: Event) -> str:
    if event.task is not None:
        return event.task
    if event.workerID is not None:
        return f"worker {event.workerID}"
    if event.kind is EventKind.STOPPED:
        return "the queue"
    return f"series {event.series!r}"
