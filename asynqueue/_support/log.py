"""
The logger of the package.

Programs know the standard library's logger C{asynqueue}, so what is logged goes
there as well as to Twisted's own log.
"""

from __future__ import annotations

import logging

from twisted.logger import (
    Logger,
    LogPublisher,
    STDLibLogObserver,
    globalLogBeginner,
    globalLogPublisher,
)

__all__ = ["isInfoHeard", "log"]

#: Logs to Twisted's global publisher and to the standard library's logger.
log = Logger(
    namespace="asynqueue",
    observer=LogPublisher(globalLogPublisher, STDLibLogObserver("asynqueue")),
)


def isInfoHeard() -> bool:
    """
    Tell whether the program has set up logging, so that somebody hears what isn't a
    warning.
    """
    # Twisted doesn't tell this in public. Without the attribute, it's assumed.
    if getattr(globalLogBeginner, "_temporaryObserver", None) is None:
        return True
    logger = logging.getLogger("asynqueue")
    return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
