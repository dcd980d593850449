"""The task queue, and the parts it's made of."""

from ._load import LoadInfoProducer
from ._queue import Priority, Queue
from ._taskqueue import TaskQueue

__all__ = ["LoadInfoProducer", "Priority", "Queue", "TaskQueue"]
