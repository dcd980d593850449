"""
A priority queue in the reactor, with workers of any kind behind it.

Calls are queued, run by whichever qualified worker is ready first, and answered by
Deferreds. On all cores::

    from twisted.internet.task import react

    from asynqueue import ProcessQueue


    async def main(reactor):
        q = ProcessQueue(ProcessQueue.cores())
        try:
            print(await q.call(pow, 3, 100_000, 1_000_007, niceness=5))
        finally:
            await q.shutdown()


    if __name__ == "__main__":
        react(main)

In the reactor itself, where each call may return a Deferred, one at a time::

    from asynqueue import AsyncWorker, TaskQueue

    q = TaskQueue(AsyncWorker())
    d = q.call(fetch, "https://example.org", series="pages", timeout=30)
    d.addCallback(store)

Importing the package imports nothing else, not even Twisted: each name is looked up in
its own module when it's first used.

Used most:

  - L{ProcessQueue<asynqueue.process.ProcessQueue>}: calls in child interpreters.
  - L{ThreadQueue<asynqueue.threads.ThreadQueue>}: calls in threads.
  - L{TaskQueue<asynqueue.base.TaskQueue>}: a queue with workers of any kinds, and
    what all queues can do.
  - L{AsyncWorker}, L{ThreadWorker<asynqueue.threads.ThreadWorker>},
    L{ProcessWorker<asynqueue.process.ProcessWorker>},
    L{WireWorker<asynqueue.wire.WireWorker>}: workers for it.
  - L{Deferator<asynqueue.iteration.Deferator>}: what calls of generator functions give.
  - L{asynqueue.errors}: what can go wrong.
  - L{QueueService<asynqueue.service.QueueService>}: a queue in an application.
  - L{MemoryWorker<asynqueue.testing.MemoryWorker>}: for the tests of programs.
  - L{IWorker<asynqueue.interfaces.IWorker>}: for workers of one's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._asyncworker import AsyncWorker
    from .base import TaskQueue
    from .info import Info, showResult
    from .iteration import deferToDelay
    from .process import ProcessBase, ProcessQueue, ProcessWorker
    from .threads import ThreadQueue, ThreadWorker, deferToThread
    from .util import DeferredLock, DeferredTracker
    from .wire import WireWorker, WireWorkerUniverse

__all__ = [
    "AsyncWorker",
    "DeferredLock",
    "DeferredTracker",
    "Info",
    "ProcessBase",
    "ProcessQueue",
    "ProcessWorker",
    "TaskQueue",
    "ThreadQueue",
    "ThreadWorker",
    "WireWorker",
    "WireWorkerUniverse",
    "__version__",
    "deferToDelay",
    "deferToThread",
    "showResult",
]

#: The module that each public name is defined in.
_HOMES = {
    "AsyncWorker": "_asyncworker",
    "DeferredLock": "util",
    "DeferredTracker": "util",
    "Info": "info",
    "ProcessBase": "process",
    "ProcessQueue": "process",
    "ProcessWorker": "process",
    "TaskQueue": "base",
    "ThreadQueue": "threads",
    "ThreadWorker": "threads",
    "WireWorker": "wire",
    "WireWorkerUniverse": "wire",
    "deferToDelay": "iteration",
    "deferToThread": "threads",
    "showResult": "info",
}

#: Public modules, which are there as attributes without having been imported.
_MODULES = frozenset(
    {
        "base",
        "credentials",
        "dask",
        "errors",
        "executor",
        "events",
        "info",
        "interfaces",
        "iteration",
        "monitor",
        "null",
        "process",
        "service",
        "tasks",
        "testing",
        "threads",
        "util",
        "wire",
        "workers",
    }
)

if not TYPE_CHECKING:  # so that a misspelt name is found by type checkers

    def __getattr__(name: str) -> object:
        """Import a public name, or a public module, when it's first used."""
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the attributes, also those that haven't been used yet."""
    return sorted({*globals(), *_HOMES, *_MODULES})
