"""
Calls in threads, and streams between the reactor and blocking code.

A call in a thread of its own, from anywhere::

    d = deferToThread(f, x)

In a queue, with priorities and all that::

    q = ThreadQueue()
    d = q.call(f, x, niceness=-5)
"""

from ..base import TaskQueue
from ._bridge import Consumerator, OrderedItemProducer
from ._getter import Filerator, IterationGetter, IterationStopper
from ._looper import ThreadLooper, deferToThread
from ._pool import PoolUser, ThreadPool
from ._queue import ThreadQueue, ThreadWorker

__all__ = [
    "Consumerator",
    "Filerator",
    "IterationGetter",
    "IterationStopper",
    "OrderedItemProducer",
    "PoolUser",
    "TaskQueue",
    "ThreadLooper",
    "ThreadPool",
    "ThreadQueue",
    "ThreadWorker",
    "deferToThread",
]
