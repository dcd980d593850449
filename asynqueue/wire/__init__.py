"""
Workers on other machines, or in other processes of this one, over AMP.

C{python -m asynqueue.wire --help} tells how to run a server.
"""

from ._chunks import ChunkyString
from ._client import WireWorker
from ._commands import GetNext, RunTask
from ._credentials import TLS, Key
from ._manager import ServerManager
from ._runner import WireRunner
from ._server import WireServer, runServer
from ._universe import WireWorkerUniverse

__all__ = [
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
    "runServer",
]
