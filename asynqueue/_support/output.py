"""
What a child writes to its standard streams, as lines in the log.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from .log import log

__all__ = ["OutputLog"]

#: A line is cut after so many bytes.
_LINE_BYTES = 8_192

#: So many lines a second are logged. The others are counted.
_LINES_A_SECOND = 1_000

#: So much of the end is remembered.
_TAIL_BYTES = 2_048


class OutputLog:
    """
    Logs what is written to it, line by line, and not without bounds.

    @ivar who: Whose output it is.

    @ivar name: The name of the stream.
    """

    def __init__(self, name: str, *, reactor: IReactorTime) -> None:
        """
        Make a log of a stream.

        @param name: The name of the stream.

        @param reactor: Gives the time, to bound the lines by.
        """
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
        """
        The end of what was written.
        """
        return self._tail.decode("utf-8", "replace").strip()

    def write(self, data: bytes) -> None:
        """
        Take what was written.

        @param data: The bytes, empty at the end.
        """
        if not data:
            self._close()
            return
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        *lines, partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._log(line)
        while len(partial) >= _LINE_BYTES:
            self._log(partial[:_LINE_BYTES])
            partial = partial[_LINE_BYTES:]
        self._partial = partial

    def _close(self) -> None:
        """
        Log what is left.
        """
        partial, self._partial = self._partial, b""
        if partial:
            self._log(partial)
        self._tellSkipped()

    def _log(self, line: bytes) -> None:
        """
        Log a line, or count it if there are too many.

        @param line: The line.
        """
        second = int(self._reactor.seconds())
        if second != self._second:
            self._second = second
            self._lines = 0
            self._tellSkipped()
        self._lines += 1
        if self._lines > _LINES_A_SECOND:
            self._skipped += 1
            return
        text = line[:_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip("\r")
        if len(line) > _LINE_BYTES:
            text += "..."
        log.info("{who}, {name}: {line}", who=self.who, name=self.name, line=text)

    def _tellSkipped(self) -> None:
        """
        Log how many lines weren't logged.
        """
        skipped, self._skipped = self._skipped, 0
        if skipped:
            log.warn(
                "{who}, {name}: {skipped} lines were too many to be logged",
                who=self.who,
                name=self.name,
                skipped=skipped,
            )
