"""Calls of tasks, and which of them travel together."""

from __future__ import annotations

import heapq
import re
from collections.abc import Hashable
from typing import Any
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer

from .._child.describe import nameOf
from .._child.parcels import Parcel, pack
from .._child.pickling import NotPicklable, blame
from .._support.answers import cantBeSent
from ..interfaces import ITask
from ..tasks._workerbase import forWorker, traced
from ._buffers import Copy, copied, isSmall

#: So many calls travel together at most.
_MAX_BUNDLE = 128

#: A thread of the cluster has so many bundles in advance. Whatever has been sent can't
#: be overtaken by what is more urgent.
_AHEAD = 2

#: Of short calls that travel alone, a thread has more in advance: for so many seconds,
#: as a call and its answer take 11 ms on their way, however short the call is,
_AHEAD_SECONDS = 0.1

#: but not more than so many. 64 for two threads were as fast as any number.
_MAX_AHEAD = 32

#: How much weight a call has that took less time than those before it of the same
#: function. One that took more counts at once.
_WEIGHT = 0.3

#: So many functions are remembered.
_MAX_NAMES = 1_000

#: Dask wants priorities that are finite.
_MAX_PRIORITY = 1e9


@define(eq=False)
class ClusterCall:
    """A task that the worker has accepted and that has no result."""

    task: ITask
    #: The call, pickled.
    payload: bytes | Parcel
    #: The consumer of an iteration, or C{None}.
    consumer: IConsumer | None
    #: The name of the function.
    name: str
    #: Whether no other may travel with it.
    isAlone: bool
    #: Whether it has buffers that are yet to be copied.
    isLarge: bool = False
    #: Fires when the worker has room for another task.
    ready: Deferred[None] = field(factory=Deferred)
    #: Whether nobody wants its result.
    isDropped: bool = False
    #: What it travels in, C{None} before that.
    bundle: Bundle | None = None
    #: Its large buffers, by their places among all. For the thread.
    large: dict[int, Copy] = field(factory=dict)

    def __lt__(self, other: ClusterCall) -> bool:
        mine: Any = self.task
        return bool(mine < other.task)

    def fireReady(self) -> None:
        """Make room for another task, if that hasn't been done."""
        if not self.ready.called:
            self.ready.callback(None)


@define(eq=False)
class Bundle:
    """Calls that make one Dask task."""

    calls: list[ClusterCall]
    #: The key of that.
    key: str = field(init=False)
    #: Dask's priority, which is the higher the more urgent.
    priority: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        first = self.calls[0]
        # Dask takes what is before the ID for the kind of task.
        name = re.sub(r"[^\w.]+", "_", first.name)[:60]
        self.key = f"{name}-{uuid4().hex}"
        priority = float(getattr(first.task, "priority", 0))
        self.priority = -max(-_MAX_PRIORITY, min(priority, _MAX_PRIORITY))

    @property
    def series(self) -> Hashable:
        """The series of all its calls."""
        return self.calls[0].task.series

    @property
    def isWanted(self) -> bool:
        """Whether any of its calls is."""
        return not all(call.isDropped for call in self.calls)


class CallQueue:
    """
    Calls that wait to be sent, in the order of their priorities, and those that were.

    Short calls of one function travel together, as many as take about so many seconds,
    going by how long the last ones took. Only those that wait anyway do, and only as
    many as leave something to others: nothing waits for a bundle to become full. The
    first call of a function travels alone.
    """

    # A call is in _heap until it's sent, and then in one of the bundles. One that was
    # dropped stays in _heap until its turn comes.

    def __init__(self, seconds: float) -> None:
        """
        @param seconds: How long the calls of a bundle should take together, 0 for none
            to travel with another.
        """
        # The threads that the cluster has.
        self.threads = 0
        # Those that were sent and have no answer, by key.
        self.bundles: dict[str, Bundle] = {}
        self._seconds = seconds
        self._heap: list[ClusterCall] = []
        # How long calls take, by the name of the function; and the last one of them.
        self._estimates: dict[str, float] = {}
        self._last = 0.0

    @property
    def capacity(self) -> int:
        """
        How many tasks to accept: enough for all threads, and more of short ones. What
        was accepted can't be given to other workers, so it's no more than that.
        """
        least = max(8, 4 * self.threads)
        if not self._last:
            return least
        most, seconds = (128, self._seconds) if self._seconds else (_MAX_AHEAD, 0.05)
        wanted = 2 * self.threads * seconds / self._last
        return int(max(least, min(wanted, max(2 * most, most * self.threads))))

    def put(self, call: ClusterCall) -> None:
        heapq.heappush(self._heap, call)

    def take(self) -> Bundle | None:
        """Take the calls to be sent next, C{None} if there are none, or enough sent."""
        first = self._first()
        if first is None or len(self.bundles) >= self._ahead(first):
            return None
        size, calls = self._size(first), [heapq.heappop(self._heap)]
        while len(calls) < size:
            following = self._first()
            if following is None or not _goTogether(first, following):
                break
            calls.append(heapq.heappop(self._heap))
        bundle = Bundle(calls)
        for call in calls:
            call.bundle = bundle
        self.bundles[bundle.key] = bundle
        return bundle

    def clear(self) -> None:
        self._heap.clear()
        self.bundles.clear()

    def note(self, name: str, seconds: float) -> None:
        """Note how long a call took."""
        estimate = self._estimates.get(name, 0.0)
        if seconds < estimate:
            seconds = estimate + _WEIGHT * (seconds - estimate)
        elif len(self._estimates) >= _MAX_NAMES:
            self._estimates.clear()
        self._estimates[name] = self._last = seconds

    def _first(self) -> ClusterCall | None:
        while self._heap and self._heap[0].isDropped:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _ahead(self, first: ClusterCall) -> int:
        """How many bundles may have been sent at once."""
        each = float(_AHEAD)
        seconds = self._estimates.get(first.name)
        if seconds and self._size(first) == 1:
            each = max(_AHEAD, min(_AHEAD_SECONDS / seconds, _MAX_AHEAD))
        return int(max(1, self.threads) * each)

    def _size(self, first: ClusterCall) -> int:
        """How many calls should travel together with one, that one included."""
        seconds = self._estimates.get(first.name)
        if not seconds or first.isAlone or not self._seconds:
            return 1
        # Those that were dropped count, too, until their turn comes.
        share = len(self._heap) // max(1, self.threads)
        return max(1, min(int(self._seconds / seconds), share, _MAX_BUNDLE))


def _goTogether(first: ClusterCall, other: ClusterCall) -> bool:
    return (
        not other.isAlone
        and other.name == first.name
        and other.task.series == first.task.series
    )


def callOf(task: ITask, raw: bool) -> ClusterCall:
    """Pickle the call of a task. A SerializationError says that it can't be."""
    f, args, kw, raw, consumer = forWorker(task.callTuple, raw)
    try:
        payload = pack((traced(f, task, raw), args, kw, raw), foreign=True)
    except NotPicklable as error:
        unsent = cantBeSent(task, blame(f, args, kw, error))
        raise unsent from unsent.__cause__
    isAlone = task.timeout is not None
    isLarge = False
    if isinstance(payload, Parcel):
        isAlone, isLarge = True, not isSmall(payload)
        if not isLarge:
            payload = copied(payload)
    name = nameOf(f)
    if name == "runChunk" and args:  # a part of a map is named after the user's
        name = f"{nameOf(args[0])}.map"
    return ClusterCall(task, payload, consumer, name, isAlone, isLarge)
