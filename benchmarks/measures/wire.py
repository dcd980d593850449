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
    """
    Take the figures of calls one at a time.

    @param client: Makes them.

    @param calls: How many.

    @return: Median and 99th percentile.

    @raise RuntimeError: If something else comes back.
    """
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
    """
    Take the figure of a large result.

    @param client: Gets it.

    @param size: Its size in bytes.

    @param trips: How often it's got.

    @return: The rate.

    @raise RuntimeError: If it has another size.
    """
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
    """
    Have a server run in another process.

    @param contender: The name of the contender.

    @return: A context manager that gives the path of the socket.

    @raise RuntimeError: If it isn't ready.
    """
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
    """
    Take the figures.

    @param contender: The name of the contender.

    @param sizes: C{calls}, or C{size} and C{trips}.

    @param report: Takes them.
    """

    async def main(path: str) -> None:
        """Take them with a server at a path."""
        client = sockets.CLIENTS[contender]()
        await client.connect(path)
        await client.single(0)
        report(await (single if "calls" in sizes else bulk)(client, **sizes))
        await client.close()

    with serving(contender) as path:
        runInReactor(main(path))
