"""
The logger of the package.

Programs know the standard library's logger C{asynqueue}, so what is logged goes
there as well as to Twisted's own log.
"""

from __future__ import annotations

from twisted.logger import (
    Logger,
    LogPublisher,
    STDLibLogObserver,
    globalLogPublisher,
)

__all__ = ["log"]

#: Logs to Twisted's global publisher and to the standard library's logger.
log = Logger(
    namespace="asynqueue",
    observer=LogPublisher(globalLogPublisher, STDLibLogObserver("asynqueue")),
)
