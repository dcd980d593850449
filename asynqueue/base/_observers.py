"""Who is told what happens in a queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from twisted.python.failure import Failure

from .._support.checks import checkCallable
from .._support.log import log
from ..events import Event, EventKind

#: What happens to each call.
_FREQUENT = frozenset((EventKind.QUEUED, EventKind.STARTED, EventKind.DONE))


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
        task: Any = None,
        worker: Any = None,
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
