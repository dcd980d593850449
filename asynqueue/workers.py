"""
The workers and their interface, put together for users.

Nothing is defined here, and no module of the package imports it.
"""

from __future__ import annotations

from ._asyncworker import AsyncWorker
from .interfaces import IWorker
from .process import ProcessWorker

__all__ = ["AsyncWorker", "IWorker", "ProcessWorker"]
