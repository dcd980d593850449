"""The floor of the machine, each figure by itself."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..contenders.floors import BareReactorPipe, BlockingPipe
from ..contenders.pipes import AHEAD
from ..timing import Stopwatch
from ..work import noop
from .inreactor import heap
from .payload import copy, through
from .pools import CHILDREN, Figures, Report, ready
from .single import times

#: How often memory is copied.
TRIPS = 5


async def blocking(calls: int) -> Figures:
    """Take the median of a parent that waits for its child at a pair of pipes."""
    pool = BlockingPipe()
    await pool.start(1)
    await pool.call(noop)
    taken = await times(pool, calls)
    await pool.stop()
    return {"roundTrip": median(taken) * 1e6}


async def rate(pool: BareReactorPipe, calls: int, ahead: int) -> float:
    """
    Measure how many calls are answered in a second of which so many wait at each child.
    """
    pool.ahead = ahead + 1
    with Stopwatch() as watch:
        await pool.several(noop, [()] * calls)
    return calls / watch.seconds


async def bare(pool: BareReactorPipe, calls: int, items: int) -> Figures:
    """Take the figures of pipes in a reactor."""
    await pool.start(CHILDREN)
    await ready(pool)
    figures = {
        "latency": median(await times(pool, calls)) * 1e6,
        "one": await rate(pool, calls, 1),
        "many": await rate(pool, calls, AHEAD),
    }
    with Stopwatch() as watch:
        await pool.stream(items)
    await pool.stop()
    return {**figures, "stream": items / watch.seconds}


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""

    async def main() -> None:
        """Take them one after the other."""
        copying = {"size": sizes["size"], "trips": TRIPS}
        figures = await blocking(sizes["calls"])
        figures["memcpy"] = copy(copying)["rate"]
        figures["shm"] = through(copying)["rate"]
        figures.update(await bare(pool, sizes["calls"], sizes["items"]))
        figures["task"] = await heap(sizes["calls"]) * 1e6
        report(figures)

    pool = BareReactorPipe()
    pool.run(main())
