"""What the page shows of a queue, and of the last minutes of it."""

from __future__ import annotations

import json
from collections import deque
from itertools import islice
from typing import Any

from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from ..base import TaskQueue
from ..base._snapshot import seriesText
from ..events import Event, EventKind
from ._stream import PageUpdate

__all__ = ["RECORDED", "Recorder"]

#: So many of each are kept, and shown. Samples are of five minutes.
_MAX_SAMPLES = 300
_MAX_FAILURES = 20
_MAX_CHANGES = 40
_MAX_WORKERS = 200
_MAX_RUNNING = 400
_MAX_SERIES = 100

#: What is longer is cut in the middle: the end of a traceback says most.
_MAX_TRACEBACK = 16_000

_FAILURES = {EventKind.FAILED, EventKind.TIMED_OUT, EventKind.RETRIED}

#: The events that are kept. None is of a call without fault, so those cost nothing.
RECORDED = _FAILURES | {
    EventKind.HIRED,
    EventKind.LOST,
    EventKind.REPLACED,
    EventKind.UNSERVED,
}


class Recorder:
    """
    Keeps samples of a queue's figures, and the last failures and changes of workers.

    @ivar isIdle: Whether there was no call without a result at the last sample.
    """

    # What is new since the last sample is in _failed and _changed. Failures are made
    # text with the next sample, at most 20 of them, as that takes 0.2 ms each.

    def __init__(self, q: TaskQueue, isControlled: bool) -> None:
        self.isIdle = True
        self._q = q
        self._isControlled = isControlled
        self._samples: deque[dict[str, Any]] = deque(maxlen=_MAX_SAMPLES)
        self._failures: deque[dict[str, Any]] = deque(maxlen=_MAX_FAILURES)
        self._changes: deque[dict[str, Any]] = deque(maxlen=_MAX_CHANGES)
        self._failed: deque[Event] = deque(maxlen=_MAX_FAILURES)
        self._changed: deque[dict[str, Any]] = deque(maxlen=_MAX_CHANGES)

    def note(self, event: Event) -> None:
        """Take an event."""
        if event.kind in _FAILURES:
            self._failed.append(event)
        else:
            self._changed.append(_change(event))

    def standStill(self, now: float) -> None:
        """Say that nothing has changed until now since the last sample."""
        self._samples.append({**self._samples[-1], "time": now})

    def sample(self, isOver: bool = False) -> PageUpdate:
        """
        Take a sample.

        @param isOver: Whether it's the last, as the queue has been shut down.
        """
        stats = self._q.stats()
        self.isIdle = stats["load"] == 0
        news = self._takeNews(stats)
        now = {
            "stats": self._bounded(stats),
            "isRunning": self._q.isRunning(),
            "isOver": isOver,
            "isControlled": self._isControlled,
        }
        return PageUpdate(
            lambda: _encode({**now, **news, "whole": False}),
            lambda: _encode({**now, **self._all(), "whole": True}),
        )

    def _takeNews(self, stats: dict[str, Any]) -> dict[str, list[Any]]:
        failed = stats["failed"]
        sample = {
            "time": stats["time"],
            "waiting": sum(stats["queued"].values()),
            "running": sum(worker["running"] for worker in stats["workers"]),
            "done": stats["done"],
            "failed": sum(failed.values()) - failed.get("cancelled", 0),
        }
        failures = [_failure(event) for event in self._failed]
        changes = list(self._changed)
        self._failed.clear()
        self._changed.clear()
        self._samples.append(sample)
        self._failures.extend(failures)
        self._changes.extend(changes)
        return {"samples": [sample], "failures": failures, "changes": changes}

    def _all(self) -> dict[str, list[Any]]:
        return {
            "samples": list(self._samples),
            "failures": list(self._failures),
            "changes": list(self._changes),
        }

    def _bounded(self, stats: dict[str, Any]) -> dict[str, Any]:
        """
        Leave out what is too much to be looked at, and to be sent each second. Add
        which series each worker was made for.
        """
        workers = {worker.ID: worker.iQualified for worker in self._q.workers()}
        return {
            **stats,
            "queued": dict(islice(stats["queued"].items(), _MAX_SERIES)),
            "running": stats["running"][:_MAX_RUNNING],
            "workers": [
                {**worker, "own": list(map(seriesText, workers[worker["ID"]]))}
                for worker in stats["workers"][:_MAX_WORKERS]
            ],
            "totalWorkers": len(stats["workers"]),
            "totalSeries": len(stats["queued"]),
        }


def _encode(update: dict[str, Any]) -> bytes:
    # JSON in ASCII has no line end of any kind, which would end the event.
    return json.dumps(update).encode("ascii")


def _change(event: Event) -> dict[str, Any]:
    return {
        "time": event.time,
        "kind": event.kind.value,
        "worker": event.workerID,
        "series": seriesText(event.series),
        "error": None if event.failure is None else _summary(event.failure),
    }


def _failure(event: Event) -> dict[str, Any]:
    failure = event.failure
    return {
        "time": event.time,
        "kind": event.kind.value,
        "call": event.task,
        "name": event.name,
        "series": seriesText(event.series),
        "worker": event.workerID,
        "seconds": event.seconds,
        "error": None if failure is None else _summary(failure),
        "traceback": None if failure is None else _traceback(failure),
    }


def _summary(failure: Failure) -> str:
    """Name the exception, as the last line of a traceback does."""
    text = safe_str(failure.value)
    kind = getattr(failure.type, "__qualname__", "")
    return f"{kind}: {text[:500]}" if text else kind


def _traceback(failure: Failure) -> str:
    try:
        text = failure.getTraceback()
    except Exception:  # noqa: BLE001 - the exception is the user's
        return "It can't be shown."
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return text
