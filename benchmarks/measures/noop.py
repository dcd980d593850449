"""How many calls that do nothing are run in a second, when all are queued at once."""

from __future__ import annotations

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import noop
from .pools import Figures, inPool


async def take(pool: Pool, calls: int) -> Figures:
    """Take the rate."""
    with Stopwatch() as watch:
        await pool.several(noop, [()] * calls)
    return {"rate": calls / watch.seconds}


run = inPool(take)
