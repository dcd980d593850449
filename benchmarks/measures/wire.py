"""Calls that are run by a server at the other end of a Unix socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from ..contenders import sockets
from ..contenders.deferreds import runInReactor
from ..timing import Stopwatch
from .pools import Figures, Report


async def single(client: sockets.Client, calls: int) -> Figures:
    """Take median and 99th percentile of calls one at a time."""
    taken = []
    with Stopwatch():
        for number in range(calls):
            start = perf_counter()
            result = await client.single(number)
            taken.append(perf_counter() - start)
            if result != number:
                raise RuntimeError(f"For {number}, {result} has come back")
    return {"median": median(taken) * 1e6, "p99": quantiles(taken, n=100)[98] * 1e6}


async def bulk(client: sockets.Client, size: int, trips: int) -> Figures:
    """Take the rate of a large result."""
    taken = []
    for _ in range(trips):
        with Stopwatch() as watch:
            result = await client.large(size)
        taken.append(watch.seconds)
        if len(result) != size:
            raise RuntimeError(f"Of {size} bytes, {len(result)} have come")
    return {"rate": size / median(taken) / 1e6}


@contextmanager
def serving(contender: str) -> Iterator[str]:
    """Have a server run in another process. Gives the path of its socket."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        with subprocess.Popen(
            [sys.executable, "-m", sockets.__name__, contender, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("The server hasn't started")
            yield path


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""

    async def main(path: str) -> None:
        """Take them with a server at a path."""
        client = sockets.CLIENTS[contender]()
        await client.connect(path)
        await client.single(0)
        report(await (single if "calls" in sizes else bulk)(client, **sizes))
        await client.close()

    with serving(contender) as path:
        runInReactor(main(path))
