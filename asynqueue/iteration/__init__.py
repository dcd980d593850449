"""
Iterations without blocking: as iterators of Deferreds, with C{async for}, and written
to consumers.
"""

from __future__ import annotations

from .._child.calls import isIterator
from ._deferator import Deferator
from ._delay import Delay, deferToDelay
from ._listconsumer import ListConsumer
from ._prefetcherator import Prefetcherator
from ._producer import IterationProducer, iteratorToProducer
from ._sources import (
    BufferedSource,
    ItemSource,
    IteratorSource,
    PlentifulSource,
    PromptSource,
)

__all__ = [
    "BufferedSource",
    "Deferator",
    "Delay",
    "ItemSource",
    "IterationProducer",
    "IteratorSource",
    "ListConsumer",
    "PlentifulSource",
    "Prefetcherator",
    "PromptSource",
    "deferToDelay",
    "isIterator",
    "iteratorToProducer",
]
