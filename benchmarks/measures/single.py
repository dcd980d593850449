"""
How long a call takes when nothing else is under way.
"""

from __future__ import annotations

from statistics import median, quantiles
from time import perf_counter

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import noop
from .pools import Figures, inPool


async def take(pool: Pool, calls: int) -> Figures:
    """
    Take the figures.

    @param pool: The pool.

    @param calls: How many calls.

    @return: Median and 99th percentile.
    """
    times = []
    with Stopwatch():
        for _ in range(calls):
            start = perf_counter()
            await pool.call(noop)
            times.append(perf_counter() - start)
    return {"median": median(times) * 1e6, "p99": quantiles(times, n=100)[98] * 1e6}


run = inPool(take)
