"""A use of pingspice's part that has servers evaluate parameters."""

from __future__ import annotations

from pingspice.analysis.wire import WireEvaluator
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from asynqueue import TaskQueue
from asynqueue.util import o2p
from asynqueue.wire import ChunkyString, ServerManager, WireWorker

NAMES = 40_000


class Setups:
    """Has the attributes of C{pingspice.analysis.param.Setups}."""

    avList = transforms = logValues = analyzers = Xs = netlists = ()
    independents = weights = ()

    def __init__(self) -> None:
        self.nameLists = list(range(NAMES))


class JobTests(TestCase):
    """The test."""

    timeout = 60

    async def test_servers(self) -> None:
        """
        Two servers are given a large object in chunks, and evaluate with it, as
        pingspice's C{Solver} has them do.
        """
        manager = ServerManager("pingspice.analysis.wire.WireEvaluator")
        self.addCleanup(manager.shutdown)
        queue = TaskQueue()
        self.addCleanup(queue.shutdown)
        for _ in range(2):
            description = manager.newSocket()
            await manager.spawn(description)
            worker = WireWorker(WireEvaluator(), description, N_concurrent=2)
            await queue.attachWorker(worker)
        for chunk in ChunkyString(o2p(Setups())):
            await queue.update("send_chunk", chunk)
        ready = await queue.update("setup", 3, skipIDs=[1])
        self.assertEqual(ready, [NAMES, NAMES])
        calls = [queue.call("evaluate", [n, 0.5], 7, None) for n in range(20)]
        results = await gatherResults(calls)
        self.assertEqual(results, [3 * (n + 0.5) for n in range(20)])
        await queue.update("shutdown")
