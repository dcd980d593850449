"""Workers in child processes, and a queue of them."""

from .._child.callserver import CallServer as ProcessUniverse
from .._child.processbase import ProcessBase
from ._queue import ProcessQueue
from ._worker import ProcessWorker

__all__ = ["ProcessBase", "ProcessQueue", "ProcessUniverse", "ProcessWorker"]
