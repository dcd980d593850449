"""
Workers on other machines, or in other processes of this one, over AMP.

C{python -m asynqueue.wire --help} tells how to run a server.
"""

import sys

from ._wire.chunks import ChunkyString
from ._wire.client import WireWorker
from ._wire.command import main
from ._wire.commands import GetNext, RunTask
from ._wire.keys import Key
from ._wire.manager import ServerManager
from ._wire.runner import WireRunner
from ._wire.server import WireServer, runServer
from ._wire.tls import TLS
from ._wire.universe import WireWorkerUniverse

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

if __name__ == "__main__":
    sys.exit(main())
