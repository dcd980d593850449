"""How many items a second a function is called for by a C{map}."""

from __future__ import annotations

from ..contenders.base import Pool
from ..timing import Stopwatch
from .pools import Figures, inPool


async def take(pool: Pool, items: int) -> Figures:
    """Take the rate."""
    numbers = list(range(items))
    with Stopwatch() as watch:
        results = await pool.map(abs, numbers)
    if results != numbers:
        raise RuntimeError("The results of the map are wrong")
    return {"rate": items / watch.seconds}


run = inPool(take)
