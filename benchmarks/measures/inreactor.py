"""What a task costs that is run in the reactor by an C{AsyncWorker}."""

from __future__ import annotations

from heapq import heappop, heappush
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ..contenders.deferreds import gather, runInReactor
from ..timing import Stopwatch
from ..work import noop
from .pools import Report


async def queue(tasks: int, report: Report) -> None:
    """Take the figure of a library, of so many tasks that are queued at once."""
    module = import_module("asynqueue")
    q = module.TaskQueue(module.AsyncWorker())
    await q.call(noop)
    with Stopwatch() as watch:
        await gather([q.call(noop) for _ in range(tasks)])
    report({"cost": watch.seconds / tasks * 1e6})
    await q.shutdown()


async def heap(tasks: int) -> float:
    """
    Do the same with a heap and Deferreds, and nothing else. Returns the seconds for
    each task.
    """
    waiting: list[Any] = []
    with Stopwatch() as watch:
        ds = []
        for order in range(tasks):
            d: Deferred[Any] = Deferred()
            heappush(waiting, (0, order, noop, (), {}, d))
            ds.append(d)
        while waiting:
            _, _, f, args, kw, d = heappop(waiting)
            maybeDeferred(f, *args, **kw).addBoth(d.callback)
        await gather(ds)
    return watch.seconds / tasks


async def floor(tasks: int, report: Report) -> None:
    """Take the figure of the floor."""
    report({"cost": await heap(tasks) * 1e6})


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figure."""
    take = floor if contender == "heap" else queue
    runInReactor(take(sizes["tasks"], report))
