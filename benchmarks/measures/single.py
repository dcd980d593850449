"""How long a call takes when nothing else is under way."""

from __future__ import annotations

from statistics import median, quantiles
from time import perf_counter

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import noop
from .pools import Figures, inPool


async def times(pool: Pool, calls: int) -> list[float]:
    """Time calls, one at a time, in seconds."""
    taken = []
    with Stopwatch():
        for _ in range(calls):
            start = perf_counter()
            await pool.call(noop)
            taken.append(perf_counter() - start)
    return taken


async def take(pool: Pool, calls: int) -> Figures:
    """Take median and 99th percentile."""
    taken = await times(pool, calls)
    return {"median": median(taken) * 1e6, "p99": quantiles(taken, n=100)[98] * 1e6}


run = inPool(take)
