"""
Calls in a thread: one at a time, and many queued at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ..contenders.base import CannotDo
from ..contenders.deferreds import gather, runInReactor
from ..timing import Stopwatch
from ..work import noop
from .pools import Figures, Report

Call = Callable[..., Deferred[Any]]


async def single(call: Call, calls: int) -> Figures:
    """
    Take the figures of calls one at a time.

    @param call: Runs a function in a thread.

    @param calls: How many.

    @return: Median and 99th percentile.
    """
    times = []
    with Stopwatch():
        for _ in range(calls):
            start = perf_counter()
            await call(noop)
            times.append(perf_counter() - start)
    return {"median": median(times) * 1e6, "p99": quantiles(times, n=100)[98] * 1e6}


async def bulk(call: Call, calls: int) -> Figures:
    """
    Take the figure of calls that are queued at once.

    @param call: Runs a function in a thread.

    @param calls: How many.

    @return: The rate.
    """
    with Stopwatch() as watch:
        await gather([call(noop) for _ in range(calls)])
    return {"rate": calls / watch.seconds}


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """
    Take the figures.

    @param contender: The name of the contender.

    @param sizes: C{calls}, and C{how}: C{"single"} or C{"bulk"}.

    @param report: Takes them.

    @raise CannotDo: If the library has no threads.
    """
    take = single if sizes["how"] == "single" else bulk

    async def main() -> None:
        """
        Take it in the reactor, if there is one.
        """
        if contender == "deferToThread":
            report(await take(deferToThread, sizes["calls"]))
            return
        q = import_module("asynqueue.threads").ThreadQueue()
        await q.call(noop)
        report(await take(q.call, sizes["calls"]))
        await q.shutdown()

    if contender != "deferToThread" and find_spec("asynqueue.threads") is None:
        raise CannotDo("asynqueue.threads doesn't exist yet")
    runInReactor(main())
