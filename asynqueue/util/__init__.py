"""
Helpers for Deferreds, calls and processes.

Nothing is defined here, and no module of the package imports it.
"""

from __future__ import annotations

from .._child.calls import CallRunner, o2p, p2o
from ._processes import ProcessProtocol, killProcess
from ._sync import DeferredLock, DeferredTracker, callAfterDeferred

__all__ = [
    "CallRunner",
    "DeferredLock",
    "DeferredTracker",
    "ProcessProtocol",
    "callAfterDeferred",
    "killProcess",
    "o2p",
    "p2o",
]
