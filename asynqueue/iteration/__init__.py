"""
Iterations without blocking: as iterators of Deferreds, with C{async for}, and written
to consumers.
"""

from __future__ import annotations

from .._child.calls import isIterator
from ._deferator import Deferator, Prefetcherator
from ._delay import Delay, deferToDelay
from ._producer import IterationProducer, ListConsumer, iteratorToProducer

__all__ = [
    "Deferator",
    "Delay",
    "IterationProducer",
    "ListConsumer",
    "Prefetcherator",
    "deferToDelay",
    "isIterator",
    "iteratorToProducer",
]
