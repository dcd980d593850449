#!/usr/bin/env python3
"""
Render the Mandelbrot set, or summarise web logs, on a cluster of Dask's.

The work is that of C{mandelbrot.py} and C{logs.py}; it's only the queue that is another
one. Without C{--scheduler}, a cluster is made on this machine, for the program alone.

    python examples/cluster.py picture --output seahorses.png
    python examples/cluster.py logs /var/log/nginx
    python examples/cluster.py --scheduler tcp://127.0.0.1:8786 picture
    python examples/cluster.py --scheduler tls://head:8786 \\
        --security ca.pem client.pem client.key logs /shared/logs

The extras C{asynqueue[dask,examples]} have what it needs. The machines of the cluster
need the package, too, and numpy for the picture; they find logs by their paths.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from itertools import repeat
from time import perf_counter
from types import ModuleType
from typing import Any

import fractal
import logs
import mandelbrot
from twisted.internet.defer import DeferredSemaphore, gatherResults
from twisted.internet.task import react

from asynqueue.dask import DaskQueue
from asynqueue.errors import AsynQueueError


def install(name: str, source: str) -> None:
    """
    Have a module with this text be there, in a process that may be far from its file.
    """
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(module))


async def share(q: DaskQueue, module: ModuleType) -> None:
    """Have a module be there in all processes of a cluster, and in those to come."""
    await q.update(install, module.__name__, inspect.getsource(module))


async def picture(q: DaskQueue, options: argparse.Namespace) -> str:
    """Render the picture. Returns what was done."""
    await share(q, fractal)
    width, height = options.size
    view = fractal.View(options.size, -0.7436447 + 0.1318252j, 0.0012, 1000, 1)
    rows = max(1, mandelbrot.STRIP_SAMPLES // (width * view.samples**2))
    tops = range(0, height, rows)
    heights = [min(rows, height - top) for top in tops]
    with open(options.output, "wb") as file:
        png = mandelbrot.PNG(file, options.size)
        # Strips come in their order, and no more are made than can be written.
        async for lines in q.imap(fractal.renderStrip, repeat(view), tops, heights):
            png.write(lines)
        png.close()
    return f"{width * height:,} pixels"


async def summary(q: DaskQueue, options: argparse.Namespace) -> str:
    """Summarise the logs. Returns what was done."""
    await share(q, logs)
    paths = logs.findLogs(options.paths)
    counted = logs.Summary()
    # A file is an iteration in the cluster, whose batches are fetched from there. With
    # two for each thread, there's always another.
    turns = DeferredSemaphore(max(2, 2 * q.worker.threads if q.worker else 0))
    await gatherResults([turns.run(logs.read, q, path, counted) for path in paths])
    results = counted.asDict(options.top)
    print("\n".join(logs.table(results)))
    return f"{results['lines']:,} lines"


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    try:
        q = DaskQueue(options.scheduler, security=options.security, reconnect=False)
        await q.d
    except AsynQueueError as error:
        raise SystemExit(str(error)) from None
    # On Ctrl-C the reactor shuts down, which waits for this.
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=0)
    start = perf_counter()
    try:
        done = await options.do(q, options)
    except OSError as error:
        raise SystemExit(str(error)) from None
    finally:
        threads = q.worker.threads if q.worker else 0
        await q.shutdown()
    seconds = perf_counter() - start
    print(f"{done} in {seconds:.2f} s, by {threads} threads", file=sys.stderr)


def parseOptions(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def size(text: str) -> tuple[int, int]:
        width, height = (int(part) for part in text.split("x"))
        if min(width, height) < 1:
            raise ValueError
        return width, height

    parser = argparse.ArgumentParser(description="Have a cluster do the work.")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a cluster of Dask's")
    parser.add_argument(
        "--security",
        nargs=3,
        metavar=("CA", "CERT", "KEY"),
        help="paths of the authority's certificate, yours, and its key",
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    one = kinds.add_parser("picture", help="render the Mandelbrot set")
    one.add_argument("--size", type=size, default=(1200, 800), metavar="WxH")
    one.add_argument("--output", default="mandelbrot.png", metavar="FILE")
    one.set_defaults(do=picture)
    other = kinds.add_parser("logs", help="summarise web logs")
    other.add_argument("paths", nargs="+", metavar="PATH", type=os.path.abspath)
    other.add_argument("--top", type=int, default=10, metavar="N", help="hosts: 10")
    other.set_defaults(do=summary)
    return parser.parse_args(argv)


# The processes of a cluster that is made here import this file, too.
if __name__ == "__main__":
    react(main, [parseOptions(sys.argv[1:])])
