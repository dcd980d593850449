"""How many items a second come from a generator in a child, one by one."""

from __future__ import annotations

from ..contenders.base import Pool
from ..timing import Stopwatch
from .pools import Figures, inPool


async def take(pool: Pool, items: int) -> Figures:
    """Take the rate."""
    with Stopwatch() as watch:
        total = await pool.stream(items)
    if total != items * (items - 1) // 2:
        raise RuntimeError(f"The items add up to {total}")
    return {"rate": items / watch.seconds}


run = inPool(take)
