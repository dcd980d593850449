"""How late it's noticed that a long task is done."""

from __future__ import annotations

from statistics import median
from time import monotonic

from ..contenders.base import Pool
from ..work import sleepThenTime
from .pools import Figures, inPool


async def take(pool: Pool, tasks: int, seconds: float) -> Figures:
    """Take the median of the delays, of tasks one after the other."""
    delays = []
    for _ in range(tasks):
        end = await pool.call(sleepThenTime, seconds)
        delays.append(monotonic() - end)
    return {"late": median(delays) * 1e3}


run = inPool(take)
