"""
How fast large items come from a generator in a child, beside as many large results, and
for how long they hold up the reactor.
"""

from __future__ import annotations

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import makeBytes, makeItems
from .pools import Figures, inPool
from .ticker import Ticker


async def take(pool: Pool, size: int, count: int, largest: int) -> Figures:
    """
    Take the rates of items of a size, and the longest stall with those that may hold up
    the reactor.
    """
    await pool.iterate(makeItems, 2, size)
    with Stopwatch() as streamed:
        await pool.iterate(makeItems, count, size)
    with Stopwatch() as returned:
        for _ in range(count):
            await pool.call(makeBytes, size)
    with Ticker() as ticker:
        await pool.iterate(makeItems, 4, largest)
    megabytes = size * count / 1e6
    return {
        "streamed": megabytes / streamed.seconds,
        "returned": megabytes / returned.seconds,
        "stall": ticker.longest * 1e3,
    }


run = inPool(take)
