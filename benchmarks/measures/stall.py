"""For how long the reactor is held up while a very large result comes back."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from ..contenders.base import Pool
from ..contenders.deferreds import runInReactor
from ..work import makeArray, makeBytes
from .pools import Figures, Report, inPool
from .ticker import Ticker


async def take(pool: Pool, size: int) -> Figures:
    """Take the longest stalls for bytes, and for an array, of a size."""
    figures = {}
    for name, make in (("bytes", makeBytes), ("array", makeArray)):
        await pool.call(make, 1)
        with Ticker() as ticker:
            result = await pool.call(make, size)
        if len(result) != size:
            raise RuntimeError("The result has another size")
        figures[name] = ticker.longest * 1e3
        del result
    return figures


async def quiet(report: Report) -> None:
    """Take the figure of the floor: nothing happens for a while."""
    from twisted.internet import reactor as it

    reactor: Any = it
    with Ticker() as ticker:
        await deferLater(reactor, 0.5)
    report(dict.fromkeys(("bytes", "array"), ticker.longest * 1e3))


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""
    if contender == "quiet":
        runInReactor(quiet(report))
    else:
        inPool(take)(contender, sizes, report)
