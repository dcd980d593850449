"""Calls on a cluster of Dask's: by a queue, and by Dask's own client."""

from __future__ import annotations

from importlib import import_module
from statistics import median
from typing import Any

from ..contenders import OURS
from ..contenders.deferreds import gather, runInReactor
from ..timing import Stopwatch
from ..work import echo, makeArray, noop
from .pools import CHILDREN, Figures, Report

#: Calls that Dask and its processes need to get going.
_WARM_UP = 50


def several(client: Any, calls: int) -> float:
    """Take the rate of Dask's client."""
    with Stopwatch() as watch:
        client.gather([client.submit(noop, pure=False) for _ in range(calls)])
    return calls / watch.seconds


def bare(cluster: Any, calls: int, size: int, trips: int) -> Figures:
    """
    Take the rates of Dask's client, by which nothing is bundled: of calls that do
    nothing, and of an array there and back.
    """
    value, times = makeArray(size), []
    with import_module("distributed").Client(cluster) as client:
        several(client, _WARM_UP)
        rate = several(client, calls)
        for _ in range(trips):
            with Stopwatch() as watch:
                client.submit(echo, value, pure=False).result()
            times.append(watch.seconds)
    return {
        "alone": rate,
        "together": rate,
        "array": 2 * size / median(times) / 1e6,
    }


async def ours(cluster: Any, calls: int, size: int, trips: int) -> Figures:
    """
    Take the rates of queues. Of the calls that do nothing, ten times as many are
    bundled.
    """
    makeQueue = import_module("asynqueue.dask").DaskQueue
    value, times, rates = makeArray(size), [], []
    for bundle, many in ((0, calls), (0.05, 10 * calls)):
        q = makeQueue(cluster=cluster, bundle=bundle)
        await gather([q.call(noop) for _ in range(_WARM_UP)])
        with Stopwatch() as watch:
            await gather([q.call(noop) for _ in range(many)])
        rates.append(many / watch.seconds)
        for _ in range(trips if bundle else 0):
            with Stopwatch() as watch:
                await q.call(echo, value)
            times.append(watch.seconds)
        await q.shutdown()
    alone, together = rates
    return {
        "alone": alone,
        "together": together,
        "array": 2 * size / median(times) / 1e6,
    }


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""
    make = import_module("distributed").LocalCluster
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with make(CHILDREN, **options) as cluster:
        if contender == OURS:
            report(runInReactor(ours(cluster, **sizes)))
        else:
            report(bare(cluster, **sizes))
