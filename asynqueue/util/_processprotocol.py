"""A protocol for processes that say when they're ready."""

from __future__ import annotations

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport
from twisted.python.failure import Failure

__all__ = ["ProcessProtocol"]


class ProcessProtocol(protocol.ProcessProtocol):
    """
    A protocol for the reactor's C{spawnProcess}.

    @ivar pid: The process ID, C{None} until the process has been started.

    @ivar d: A Deferred that fires with the first output of the process, C{bytes}, which
        are empty if it has ended without any.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self.pid: int | None = None
        self.d: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        if not self.d.called:
            self.d.callback(data)

    def processEnded(self, reason: Failure) -> None:
        self.outReceived(b"")
