"""
What it costs to queue a task and have it run, with few and with very many waiting.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from statistics import median
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..contenders.deferreds import runInReactor
from ..timing import Stopwatch
from .inreactor import heap
from .pools import Figures, Report
from .ticker import Ticker

#: So many are queued before the reactor has its turn.
SLICE = 1_000

#: The small number is measured so often, since once is over in a few milliseconds.
REPEAT = 20


class Collections:
    """
    Watches the garbage collector, and measures the seconds that its longest collection
    has taken.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = 0.0

    def __enter__(self) -> Collections:
        """Begin to watch."""
        gc.callbacks.append(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer."""
        gc.callbacks.remove(self._look)

    def _look(self, phase: str, _: object) -> None:
        """Note how long a collection takes."""
        if phase == "start":
            self._since = perf_counter()
        else:
            self.longest = max(self.longest, perf_counter() - self._since)


@contextmanager
def seldom() -> Iterator[None]:
    """
    Have the garbage collector look less often, as the documentation has it. After that,
    all is as before.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 1_000, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Counter:
    """Counts how many tasks have been run."""

    def __init__(self) -> None:
        self.count = 0

    def bump(self) -> None:
        """Count one more."""
        self.count += 1


def residentBytes() -> int:
    """
    Measure the memory of this process; where the system doesn't tell it, the most it
    has been.
    """
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


async def fill(q: Any, tasks: int) -> tuple[float, float]:
    """
    Queue tasks behind one that is running, then let it end. Returns seconds and bytes
    for each.
    """
    from twisted.internet import reactor as it

    reactor: Any = it
    gate: Deferred[None] = Deferred()
    first = q.call(lambda: gate)
    counter = Counter()
    gc.collect()
    before = residentBytes()
    with Stopwatch() as watch:
        for start in range(0, tasks, SLICE):
            for _ in range(min(SLICE, tasks - start)):
                last = q.call(counter.bump)
            await deferLater(reactor, 0)
        size = (residentBytes() - before) / tasks
        gate.callback(None)
        await first
        await last
    if counter.count != tasks:
        raise RuntimeError(f"{tasks - counter.count:,} of {tasks:,} tasks haven't run")
    return watch.seconds / tasks, size


async def floor(few: int, many: int) -> Figures:
    """
    Take the figures of the floor: a heap and Deferreds, which don't let the reactor
    have its turn. They are the costs, their ratio, and the longest garbage collection
    with many.
    """
    low = median([await heap(few) for _ in range(REPEAT)])
    gc.collect()
    with Collections() as collections:
        high = await heap(many)
    return {
        "few": low * 1e6,
        "many": high * 1e6,
        "growth": high / low,
        "collection": collections.longest * 1e3,
    }


async def take(few: int, many: int) -> Figures:
    """
    Take the costs, their ratio, and the memory of one of many tasks; for how long the
    reactor was held up with many at most, and how much of that was a garbage
    collection; and for how long where the collector looks less often.
    """
    module = import_module("asynqueue")
    q = module.TaskQueue(module.AsyncWorker())
    low = median([(await fill(q, few))[0] for _ in range(REPEAT)])
    with Ticker() as ticker, Collections() as collections:
        high, size = await fill(q, many)
    with seldom(), Ticker() as calm:
        await fill(q, many)
    return {
        "few": low * 1e6,
        "many": high * 1e6,
        "growth": high / low,
        "bytes": size,
        "stall": ticker.longest * 1e3,
        "collection": collections.longest * 1e3,
        "calm": calm.longest * 1e3,
    }


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""

    async def main() -> None:
        """Take it in the reactor, if there is one."""
        report(await (floor if contender == "heap" else take)(**sizes))

    runInReactor(main())
