"""
The parent's ends of the pipes to and from a child process.

They are in the reactor without a transport around them, which saves a third of the time
that a call takes.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from itertools import islice

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.protocol import HEADER
from .._support.childprocess import withoutSigpipe

__all__ = ["READ_BYTES", "PipeReader", "PipeWriter"]

#: So much is read at a time. Larger reads take longer than two of these.
READ_BYTES = 65_536

#: So much is read from a pipe after its child has ended, and no more.
_MAX_DRAINED = 1 << 22

#: So many pieces are written at a time; more than any system takes would be an error.
_MAX_PIECES = 64


@implementer(IReadDescriptor)
class PipeReader:
    """The end of a pipe that is read."""

    def __init__(
        self, fd: int, received: Callable[[bytes], object], reactor: IReactorFDSet
    ) -> None:
        """
        Start reading.

        @param received: Called with what has come, empty bytes at the end.
        """
        self._fd = fd
        self._received = received
        self._reactor = reactor
        self._isOpen = True
        os.set_blocking(fd, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "asynqueue"

    def doRead(self) -> None:
        if not self._isOpen:
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self.close()

    def connectionLost(self, reason: Failure) -> None:
        # A reactor that has heard of several ends in one turn knows them by number
        # only. If the first has had a descriptor closed, and a new one has its number
        # now, then the end that is told isn't that of the new one.
        if self._isOpen and reason.check(ConnectionDone):
            # It was taken out, and stays in unless this finds the end.
            self._reactor.addReader(self)
            self.doRead()
        else:
            self.close()

    def drain(self) -> None:
        """Read what is there, but not without bounds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        for _ in range(_MAX_DRAINED // READ_BYTES):
            if not self._isOpen or not poll.poll(0):
                break
            self.doRead()

    def close(self) -> None:
        """Close the pipe, and tell that it's at its end."""
        if self._isOpen:
            self._isOpen = False
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._received(b"")


@implementer(IWriteDescriptor)
class PipeWriter:
    """
    The end of a pipe that frames are written to.

    @ivar isHeld: While it is, nothing is written: it's written all at once by L{flush}.
    """

    def __init__(self, fd: int, reactor: IReactorFDSet) -> None:
        """@param reactor: It's asked only when the pipe is full."""
        self.isHeld = False
        self._fd = fd
        self._reactor = reactor
        self._pending: deque[bytes | memoryview] = deque()
        self._isWaiting = False
        self._isOpen = True
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "asynqueue"

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """Send a frame, now as far as the pipe takes it."""
        if not self._isOpen:
            return
        head = HEADER.pack(len(payload), kind, number)
        if len(payload) < READ_BYTES:
            self._pending.append(head + payload)
        else:
            self._pending.append(head)
            self._pending.append(payload)
        if not (self.isHeld or self._isWaiting):
            self.doWrite()

    def flush(self) -> None:
        """Write what was held."""
        self.isHeld = False
        if self._pending and not self._isWaiting:
            self.doWrite()

    def doWrite(self) -> None:
        pending = self._pending
        try:
            while pending:
                if len(pending) == 1:
                    written = withoutSigpipe(os.write, self._fd, pending[0])
                else:
                    pieces = list(islice(pending, _MAX_PIECES))
                    written = withoutSigpipe(os.writev, self._fd, pieces)
                while pending and written >= len(pending[0]):
                    written -= len(pending.popleft())
                if written:
                    pending[0] = memoryview(pending[0])[written:]
        except BlockingIOError:
            pass
        except OSError:
            # The child has gone, which is noticed at its other pipe.
            pending.clear()
        if bool(pending) is not self._isWaiting:
            self._isWaiting = bool(pending)
            if self._isWaiting:
                self._reactor.addWriter(self)
            else:
                self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def close(self) -> None:
        """Close the pipe, forgetting what it hasn't taken."""
        if self._isOpen:
            self._isOpen = False
            self._pending.clear()
            self._reactor.removeWriter(self)
            os.close(self._fd)
