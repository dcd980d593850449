"""
How fast a large thing goes to a child and comes back.
"""

from __future__ import annotations

from importlib import import_module
from statistics import median
from typing import Any

from ..contenders.base import Pool
from ..timing import Stopwatch
from ..work import echo, makeArray, makeBytes
from .pools import Figures, Report, inPool


async def take(pool: Pool, size: int, trips: int, kind: str) -> Figures:
    """
    Take the figure.

    @param pool: The pool.

    @param size: The size in bytes.

    @param trips: How often it goes.

    @param kind: C{"array"} or C{"bytes"}.

    @return: Bytes there and back for each second, in MB/s.

    @raise RuntimeError: If something else comes back.
    """
    value = makeArray(size) if kind == "array" else makeBytes(size)
    await pool.call(echo, value[:1])
    times = []
    for _ in range(trips):
        with Stopwatch() as watch:
            result = await pool.call(echo, value)
        if len(result) != size or result[-1] != value[-1]:
            raise RuntimeError("What came back isn't what went")
        del result
        times.append(watch.seconds)
    return {"rate": 2 * size / median(times) / 1e6}


def copy(sizes: dict[str, Any]) -> Figures:
    """
    Take the figure of the floor: a copy there, and one back.

    @param sizes: C{size} and C{trips}.

    @return: The rate.
    """
    copyto = import_module("numpy").copyto
    here, there = makeArray(sizes["size"]), makeArray(sizes["size"])
    times = []
    for _ in range(sizes["trips"]):
        with Stopwatch() as watch:
            copyto(there, here)
            copyto(here, there)
        times.append(watch.seconds)
    return {"rate": 2 * sizes["size"] / median(times) / 1e6}


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """
    Take the figure.

    @param contender: The name of the contender, C{"memcpy"} for the floor.

    @param sizes: C{size}, C{trips} and C{kind}.

    @param report: Takes it.
    """
    if contender == "memcpy":
        report(copy(sizes))
    else:
        inPool(take)(contender, sizes, report)
