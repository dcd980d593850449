"""
What measures have in common in which contenders with a pool of children take part.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from ..contenders import makePool
from ..contenders.base import Pool
from ..work import meet

#: All pools have so many children.
CHILDREN = 2

#: What a measure yields, by name.
Figures = dict[str, float]

#: Takes the figures when they're there, which is before the clean-up.
Report = Callable[[Figures], None]

#: A measure: it's given the name of a contender, the sizes, and who takes the figures.
Run = Callable[[str, dict[str, Any], Report], None]


async def ready(pool: Pool) -> None:
    """Wait until both children of a pool have answered, each one of two calls."""
    with TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        pids = await pool.several(meet, [(fifo, True), (fifo, False)])
    if len(set(pids)) != CHILDREN:
        raise RuntimeError(f"Two calls at once were run by processes {pids}")


def inPool(take: Callable[..., Awaitable[Figures]]) -> Run:
    """
    Make a measure of what is done with a pool whose children are up, by what does it,
    given the pool and the sizes.
    """
    return partial(_run, take)


def _run(
    take: Callable[..., Awaitable[Figures]],
    contender: str,
    sizes: dict[str, Any],
    report: Report,
) -> None:
    """Take figures of a pool."""

    async def main() -> None:
        """Take it in the reactor, if there is one."""
        await pool.start(CHILDREN)
        await ready(pool)
        report(await take(pool, **sizes))
        await pool.stop()

    pool = makePool(contender)
    pool.run(main())
