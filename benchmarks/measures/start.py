"""How long it takes until each of two new children has given a result."""

from __future__ import annotations

from typing import Any

from ..contenders import makePool
from ..timing import Stopwatch
from .pools import CHILDREN, Report, ready


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figure."""

    async def main() -> None:
        """Take it in the reactor, if there is one."""
        with Stopwatch() as watch:
            await pool.start(CHILDREN)
            await ready(pool)
        report({"start": watch.seconds * 1e3})
        await pool.stop()

    pool = makePool(contender)
    pool.run(main())
