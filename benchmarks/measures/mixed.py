"""How much of the time children work when short and long calls come in any order."""

from __future__ import annotations

from random import Random

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import pause
from .pools import CHILDREN, Figures, inPool


async def take(pool: Pool, short: int, long: int, seconds: float) -> Figures:
    """
    Measure what part of the time the children were at the long calls, of all children
    and all the time. That of the short ones doesn't count.
    """
    durations = [0.0] * short + [seconds] * long
    Random(1).shuffle(durations)
    with Stopwatch() as watch:
        await pool.several(pause, [(duration,) for duration in durations])
    return {"used": 100 * long * seconds / (CHILDREN * watch.seconds)}


run = inPool(take)
