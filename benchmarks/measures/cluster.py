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
    """
    Take the figure of Dask's client.

    @param client: The client.

    @param calls: How many calls.

    @return: The rate.
    """
    with Stopwatch() as watch:
        client.gather([client.submit(noop, pure=False) for _ in range(calls)])
    return calls / watch.seconds


def bare(cluster: Any, calls: int, size: int, trips: int) -> Figures:
    """
    Take the figures of Dask's client.

    @param cluster: The cluster.

    @param calls: How many calls that do nothing.

    @param size: The size of an array in bytes.

    @param trips: How often it goes there and back.

    @return: The rates. Nothing is bundled.
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
    Take the figures of queues.

    @param cluster: The cluster.

    @param calls: How many calls that do nothing; ten times as many are bundled.

    @param size: The size of an array in bytes.

    @param trips: How often it goes there and back.

    @return: The rates.
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
    """
    Take the figures.

    @param contender: The name of the contender.

    @param sizes: C{calls}, C{size} and C{trips}.

    @param report: Takes them.
    """
    make = import_module("distributed").LocalCluster
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with make(CHILDREN, **options) as cluster:
        if contender == OURS:
            report(runInReactor(ours(cluster, **sizes)))
        else:
            report(bare(cluster, **sizes))
