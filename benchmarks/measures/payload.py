"""How fast a large thing goes to a child and comes back."""

from __future__ import annotations

import os
import pickle
from importlib import import_module
from statistics import median
from typing import Any

from ..contenders.base import Pool
from ..contenders.pipes import PipeChild, frame
from ..timing import Stopwatch
from ..work import copyBack, copyIn, echo, makeArray, makeBytes, openShared
from .pools import Figures, Report, inPool


async def take(pool: Pool, size: int, trips: int, kind: str) -> Figures:
    """
    Take the bytes there and back for each second, in MB/s, of C{"array"} or C{"bytes"}.
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


def through(sizes: dict[str, Any]) -> Figures:
    """
    Take the rate of the floor of pools: a copy to shared memory there, and one back.
    """
    value = makeArray(sizes["size"])
    child = PipeChild()
    times = []
    os.write(child.to, frame((copyBack, (copyIn(value[:1]),))))
    openShared(pickle.loads(child.receive()[0]))
    for _ in range(sizes["trips"]):
        with Stopwatch() as watch:
            os.write(child.to, frame((copyBack, (copyIn(value),))))
            pickles = child.receive()
            result = openShared(pickle.loads(pickles[0]))
        if len(result) != sizes["size"] or result[-1] != value[-1]:
            raise RuntimeError("What came back isn't what went")
        del result
        times.append(watch.seconds)
    child.stop()
    return {"rate": 2 * sizes["size"] / median(times) / 1e6}


def copy(sizes: dict[str, Any]) -> Figures:
    """Take the rate of the floor of all: a copy there, and one back, in one process."""
    copyto = import_module("numpy").copyto
    here, there = makeArray(sizes["size"]), makeArray(sizes["size"])
    times = []
    for _ in range(sizes["trips"]):
        with Stopwatch() as watch:
            copyto(there, here)
            copyto(here, there)
        times.append(watch.seconds)
    return {"rate": 2 * sizes["size"] / median(times) / 1e6}


FLOORS = {"shm": through, "memcpy": copy}


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figure."""
    if contender in FLOORS:
        report(FLOORS[contender](sizes))
    else:
        inPool(take)(contender, sizes, report)
