"""The workers, in one place: re-exported from the modules where they are defined."""

from ._asyncworker import AsyncWorker
from .executor import ExecutorWorker
from .interfaces import IWorker
from .process import ProcessWorker
from .threads import ThreadWorker
from .wire import WireWorker

__all__ = [
    "AsyncWorker",
    "ExecutorWorker",
    "IWorker",
    "ProcessWorker",
    "ThreadWorker",
    "WireWorker",
]
