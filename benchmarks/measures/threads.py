"""Calls in a thread: one at a time, and many queued at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from importlib import import_module
from queue import SimpleQueue
from statistics import median, quantiles
from threading import Thread
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ..contenders.deferreds import gather, runInReactor
from ..timing import Stopwatch
from ..work import noop
from .pools import Figures, Report

Call = Callable[..., Deferred[Any]]


class BareThread:
    """
    The floor: a thread, a queue to it, and a way back on which the reactor is woken up
    once for all that is there.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor as it

        self._reactor: Any = it
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._woken = False
        Thread(target=self._work, daemon=True).start()

    def call(self, f: Callable[[], Any]) -> Deferred[Any]:
        """Run a function in the thread."""
        d: Deferred[Any] = Deferred()
        self._calls.put((d, f))
        return d

    def _work(self) -> None:
        """Run functions. In the thread."""
        while True:
            d, f = self._calls.get()
            self._results.append((d, f()))
            if not self._woken:
                self._woken = True
                self._reactor.callFromThread(self._fire)

    def _fire(self) -> None:
        """Fire all Deferreds that have results."""
        self._woken = False
        while self._results:
            d, result = self._results.popleft()
            d.callback(result)


async def single(call: Call, calls: int) -> Figures:
    """Take median and 99th percentile of calls one at a time."""
    times = []
    with Stopwatch():
        for _ in range(calls):
            start = perf_counter()
            await call(noop)
            times.append(perf_counter() - start)
    return {"median": median(times) * 1e6, "p99": quantiles(times, n=100)[98] * 1e6}


async def bulk(call: Call, calls: int) -> Figures:
    """Take the rate of calls that are queued at once."""
    with Stopwatch() as watch:
        await gather([call(noop) for _ in range(calls)])
    return {"rate": calls / watch.seconds}


#: Makes what runs a function in a thread, of contenders that aren't queues.
OTHERS: dict[str, Callable[[], Call]] = {
    "deferToThread": lambda: deferToThread,
    "thread": lambda: BareThread().call,
}


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""
    take = single if sizes["how"] == "single" else bulk

    async def main() -> None:
        """Take it in the reactor, if there is one."""
        if contender in OTHERS:
            call = OTHERS[contender]()
            await call(noop)
            report(await take(call, sizes["calls"]))
            return
        q = import_module("asynqueue.threads").ThreadQueue()
        await q.call(noop)
        report(await take(q.call, sizes["calls"]))
        await q.shutdown()

    runInReactor(main())
