"""What the parent does while it has nothing to do."""

from __future__ import annotations

from time import process_time

from ..contenders.base import Pool
from ..work import spin
from .pools import CHILDREN, Figures, inPool


async def take(pool: Pool, seconds: float, idle: float) -> Figures:
    """
    Measure the parent's use of the processor while its children work, and how often its
    reactor wakes up while nobody does anything.
    """
    start = process_time()
    await pool.several(spin, [(seconds,)] * CHILDREN)
    figures = {"cpu": (process_time() - start) * 1e3}
    count = await pool.wakeUps(idle)
    if count is not None:
        figures["wakeUps"] = count
    return figures


run = inPool(take)
