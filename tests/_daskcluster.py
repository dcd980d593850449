"""A worker for the tests of the contract: its cluster has one thread."""

from __future__ import annotations

from typing import Any

from asynqueue.dask import DaskWorker

from ._dask import Cluster

#: The cluster while there is one, and the tests that will still be run on it.
_clusters: list[Cluster] = []
_left: set[str] = set()


async def workerOf(case: Any, **kw: Any) -> DaskWorker:
    """Make a worker, and a cluster before the first test. It's ended after the last."""
    if not _clusters:
        _clusters.append(Cluster(1))
        _left.update(name for name in dir(case) if name.startswith("test_"))
    _left.discard(case._testMethodName)

    async def closeAfterLast() -> None:
        if not _left and _clusters:
            _clusters.pop().close()

    case.closers.insert(0, closeAfterLast)
    return DaskWorker(_clusters[0].address, N_concurrent=1, bundle=0, **kw)
