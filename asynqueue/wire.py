"""
Workers on other machines, or in other processes of this one, over AMP.
"""

from ._wire.chunks import ChunkyString
from ._wire.client import WireWorker
from ._wire.commands import GetNext, RunTask
from ._wire.runner import WireRunner
from ._wire.server import WireServer, runServer
from ._wire.universe import WireWorkerUniverse

__all__ = [
    "ChunkyString",
    "GetNext",
    "RunTask",
    "WireRunner",
    "WireServer",
    "WireWorker",
    "WireWorkerUniverse",
    "runServer",
]
