"""
Workers that have their calls run by an executor of C{concurrent.futures}: threads,
processes, interpreters, loky, MPI, or whatever else provides one.
"""

from ._worker import ExecutorQueue, ExecutorWorker

__all__ = ["ExecutorQueue", "ExecutorWorker"]
