"""The task queue, and the parts it's made of."""

from ._load import LoadInfoProducer
from ._priority import Priority
from ._queue import Queue
from ._taskqueue import TaskQueue

__all__ = ["LoadInfoProducer", "Priority", "Queue", "TaskQueue"]
