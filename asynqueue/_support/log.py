"""
The logger of the package, and what children write to their standard streams, as lines
in the log.

Programs know the standard library's logger C{asynqueue}, so what is logged goes
there as well as to Twisted's own log.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    Logger,
    LogPublisher,
    STDLibLogObserver,
    globalLogBeginner,
    globalLogPublisher,
)

#: Logs to Twisted's global publisher and to the standard library's logger.
log = Logger(
    namespace="asynqueue",
    observer=LogPublisher(globalLogPublisher, STDLibLogObserver("asynqueue")),
)

#: A line is cut after so many bytes.
_MAX_LINE_BYTES = 8_192

#: So many lines a second are logged. The others are counted.
_MAX_LINES_PER_SECOND = 1_000

#: So much of the end is remembered.
_TAIL_BYTES = 2_048


class OutputLog:
    """
    Logs what is written to it, line by line, and not without bounds. In a program that
    hasn't set up logging, it goes to stderr.
    """

    # _partial is the beginning of the next line; _lines and _skipped are counted for
    # the current _second.

    def __init__(self, name: str, *, reactor: IReactorTime) -> None:
        # Whose output it is.
        self.who = "A child process"
        self.name = name
        self._reactor = reactor
        self._partial = b""
        self._tail = b""
        self._second = 0
        self._lines = 0
        self._skipped = 0

    @property
    def tail(self) -> str:
        """The end of what was written."""
        return self._tail.decode("utf-8", "replace").strip()

    def write(self, data: bytes) -> None:
        """Take what was written, empty bytes at the end."""
        if not data:
            partial, self._partial = self._partial, b""
            if partial:
                self._log(partial)
            self._logSkipped()
            return
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        *lines, partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._log(line)
        while len(partial) >= _MAX_LINE_BYTES:
            self._log(partial[:_MAX_LINE_BYTES])
            partial = partial[_MAX_LINE_BYTES:]
        self._partial = partial

    def _log(self, line: bytes) -> None:
        """Log a line, or count it if there are too many."""
        second = int(self._reactor.seconds())
        if second != self._second:
            self._second = second
            self._lines = 0
            self._logSkipped()
        self._lines += 1
        if self._lines > _MAX_LINES_PER_SECOND:
            self._skipped += 1
            return
        text = line[:_MAX_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip("\r")
        if len(line) > _MAX_LINE_BYTES:
            text += "..."
        log.info("{who}, {name}: {line}", who=self.who, name=self.name, line=text)
        if not _isInfoHeard():
            with suppress(OSError, ValueError):  # it may be closed
                print(f"{self.who}, {self.name}: {text}", file=sys.stderr)  # noqa: T201

    def _logSkipped(self) -> None:
        skipped, self._skipped = self._skipped, 0
        if skipped:
            log.warn(
                "{who}, {name}: {skipped} lines were too many to be logged",
                who=self.who,
                name=self.name,
                skipped=skipped,
            )


def _isInfoHeard() -> bool:
    """
    Tell whether the program has set up logging, so that somebody hears what isn't a
    warning.
    """
    # Twisted doesn't tell this in public. Without the attribute, it's assumed.
    if getattr(globalLogBeginner, "_temporaryObserver", None) is None:
        return True
    logger = logging.getLogger("asynqueue")
    return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
