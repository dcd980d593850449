"""Looking at what a queue does, also as plain data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IConsumer

from .._child.describe import callText, cleaned, describe
from ..events import Event, EventKind
from ..tasks import Task, TaskHandler
from ..tasks._requests import IEmployee
from ..tasks._updates import qualifications
from ._bulk import BulkCalls


class Observed(BulkCalls):
    """
    The part of a L{TaskQueue<asynqueue.base.TaskQueue>} that tells what it's doing.
    """

    def subscribe(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer whenever it changes: the number of calls that are
        queued or running, and have no result yet.

        @param consumer: The consumer; it is written C{int}s.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.
        """
        self.q.subscribe(consumer)

    def stats(self) -> dict[str, Any]:
        """
        Look at what the queue is doing. That costs little, however many calls wait.

        @return: A dict of plain data, as JSON has it:

              - C{name}, the queue's; C{time}, in seconds since the epoch; C{paused}.
              - C{queued}: how many calls wait, by series.
              - C{running}: a list of dicts, one for each call that a worker is at, with
                C{call}, text about it; its C{name} and C{series}; the C{worker}'s ID;
                and for how many C{seconds}.
              - C{workers}: a list of dicts, each with C{ID}, C{kind}, C{pid},
                C{series}, how many calls it has (C{running}), and its C{state}.
              - C{load}: how many calls have no result yet; C{done}: how many have one;
                C{failed}: how many have failed, by kind: C{error}, C{timeout},
                C{cancelled}, C{lost}, C{stopped}, C{refused}.
              - C{retried}: how many further attempts there were; C{replaced}: how many
                workers were hired in place of others.
              - C{wait} and C{run}: how many seconds calls have waited and were run:
                C{count} and C{mean} of all that were measured; C{p50}, C{p90}, C{p99},
                which are off by 2 % at most, and C{max} of the last 5 to 10 minutes.
                Where there are more than about 1,000 calls a second, some are measured,
                one of 50 at least; all, if there are observers of each call.
        """
        watcher, load = self.q.watcher, self.q.loadInfoProducer
        workers = self.th.workers.values()
        queued: Counter[str] = Counter()
        for series, count in self.th.assignmentFactory.backlog.sizes().items():
            queued[seriesText(series)] += count
        failed = watcher.failed.total() - watcher.failed["refused"]
        return {
            "name": watcher.observers.queue,
            "time": time.time(),
            "paused": self.isPaused(),
            "queued": dict(queued),
            "running": [entry for worker in workers for entry in _running(worker)],
            "workers": [_workerStats(worker, self.th) for worker in workers],
            "load": load.queued,
            "done": load.finished - failed,
            "failed": dict(watcher.failed),
            "retried": watcher.retried,
            "replaced": watcher.replaced,
            "wait": watcher.wait.summary(),
            "run": watcher.run.summary(),
        }

    def isPaused(self) -> bool:
        """
        Tell whether the queue has been paused.

        @return: C{True} between C{pause} and C{resume}.
        """
        gate = self.th.assignmentFactory.backlog.gate
        return gate is not None and gate.isPaused

    def addObserver(
        self, f: Callable[[Event], object], kinds: Iterable[EventKind] = ()
    ) -> None:
        """
        Have a callable called with each L{Event<asynqueue.events.Event>}. It hears of
        calls that are queued after that, and of those that fail. If it raises, that is
        logged.

        @param f: The callable. If it has been added before, the kinds are changed.

        @param kinds: The kinds of events that it's to hear of, by default all. Those
            that are about each call cost some microseconds for each.

        @raise TypeError: If it isn't callable.
        """
        self.q.watcher.observers.add(f, kinds)
        self.q.watcher.next = 0

    def removeObserver(self, f: Callable[[Event], object]) -> None:
        """
        Call an observer no longer. Nothing happens if it hasn't been added.

        @param f: The callable.
        """
        self.q.watcher.observers.remove(f)


def _running(worker: IEmployee) -> list[dict[str, object]]:
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


def _workerStats(worker: IEmployee, handler: TaskHandler) -> dict[str, object]:
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


def _tasks(worker: IEmployee) -> list[Task]:
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
    return cleaned(series) if isinstance(series, str) else describe(series)
