"""What a queue is doing, as plain data."""

from __future__ import annotations

import time
from collections.abc import Hashable
from enum import Enum
from time import perf_counter
from typing import Any

from .._child.describe import callText, describe
from ..tasks import Task, TaskHandler
from ..tasks._preparing import qualifications
from ._queue import Queue

__all__ = ["seriesText", "snapshot"]


def snapshot(handler: TaskHandler, queue: Queue) -> dict[str, Any]:
    """Get the statistics of a queue, see L{TaskQueue.stats}."""
    watcher, load = queue.watcher, queue.loadInfoProducer
    gate = handler.assignmentFactory.backlog.gate
    failed = dict(watcher.failed)
    done = load.finished - sum(failed.values())
    if watcher.refused:
        failed["refused"] = watcher.refused
    return {
        "name": watcher.observers.queue,
        "time": time.time(),
        "paused": gate is not None and gate.isPaused,
        "queued": _queued(handler),
        "running": [
            entry for worker in handler.workers.values() for entry in _running(worker)
        ],
        "workers": [_worker(worker, handler) for worker in handler.workers.values()],
        "load": load.queued,
        "done": done,
        "failed": failed,
        "retried": watcher.retried,
        "replaced": watcher.replaced,
        "wait": watcher.wait.summary(),
        "run": watcher.run.summary(),
    }


def _queued(handler: TaskHandler) -> dict[str, int]:
    queued: dict[str, int] = {}
    for series, count in handler.assignmentFactory.backlog.sizes().items():
        text = seriesText(series)
        queued[text] = queued.get(text, 0) + count
    return queued


def _running(worker: Any) -> list[dict[str, Any]]:
    now = perf_counter()
    return [
        {
            "call": callText(*task.callTuple),
            "name": task.name,
            "series": seriesText(task.series),
            "worker": worker.ID,
            "seconds": max(0.0, now - task.startedAt) if task.startedAt else 0.0,
        }
        for task in _tasks(worker)
    ]


def _worker(worker: Any, handler: TaskHandler) -> dict[str, Any]:
    # A worker of somebody else's may have anything under these names.
    state = getattr(worker, "state", None)
    pid = getattr(getattr(worker, "process", None), "pid", None)
    return {
        "ID": worker.ID,
        "kind": type(worker).__name__,
        "pid": pid if isinstance(pid, int) else None,
        "series": [seriesText(series) for series in qualifications(worker)],
        "running": handler.assignmentFactory.runningOn(worker),
        "state": state.name.lower() if isinstance(state, Enum) else "ready",
    }


def _tasks(worker: Any) -> list[Task]:
    """List the tasks that a worker says it's at, and has been given."""
    for name in ("running", "tasks"):
        tasks = getattr(worker, name, None)
        if isinstance(tasks, list):
            return [
                task
                for task in tasks
                if isinstance(task, Task) and task.worker is worker
            ]
    return []


def seriesText(series: Hashable) -> str:
    """Name a series."""
    return series if isinstance(series, str) else describe(series)
