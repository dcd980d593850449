"""
Workers and servers that talk over AMP, on this machine or several.

C{python -m asynqueue.wire --help} tells how to run a server.
"""

from .._child.calls import o2p, p2o
from ._command import runServer
from ._commands import ChunkyString, GetNext, RunTask
from ._credentials import TLS, Key
from ._manager import DEFAULT_SOCKET, DEFAULT_WWU_FQN, ServerManager
from ._runner import WireRunner, WireWorkerUniverse
from ._server import WireServer
from ._worker import WireWorker

__all__ = [
    "DEFAULT_SOCKET",
    "DEFAULT_WWU_FQN",
    "TLS",
    "ChunkyString",
    "GetNext",
    "Key",
    "RunTask",
    "ServerManager",
    "WireRunner",
    "WireServer",
    "WireWorker",
    "WireWorkerUniverse",
    "o2p",
    "p2o",
    "runServer",
]
