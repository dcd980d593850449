"""How late it's noticed that a long task is done."""

from __future__ import annotations

from statistics import median
from time import monotonic

from ..contenders.base import Pool
from ..work import sleepThenTime
from .pools import Figures, inPool


async def take(pool: Pool, tasks: int, seconds: float) -> Figures:
    """
    Take the figure.

    @param pool: The pool.

    @param tasks: How many tasks, one after the other.

    @param seconds: How long each takes.

    @return: The median of the delays.
    """
    delays = []
    for _ in range(tasks):
        end = await pool.call(sleepThenTime, seconds)
        delays.append(monotonic() - end)
    return {"late": median(delays) * 1e3}


run = inPool(take)
