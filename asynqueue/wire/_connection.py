"""
What both ends of a connection have in common: AMP, with bounds on what a peer can make
of it, and signs of life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.log import log
from ..errors import AuthenticationError
from ._commands import Cancel, ChunkedAMP, Credit, ValueChunk, Violation
from ._endpoints import Requirements

#: Bytes of a box that isn't complete, at most, and fields of one that is.
_MAX_BOX, _MAX_FIELDS = 160_000, 20

#: Bytes that a peer may send before it's known who it is.
_MAX_EARLY = 4_000

#: The connection is lost when so many heartbeats in a row bring nothing.
MAX_SILENT = 3

#: Questions that are answered for a peer that doesn't read the answers.
_MAX_UNREAD = 1_000

#: Commands that aren't answered.
_NOTICES = {command.commandName for command in (Cancel, ValueChunk, Credit)}

#: Seconds for what was written to be delivered when a connection is closed.
_CLOSE_SECONDS = 5.0

#: What is done with a string that has been received.
_PHASES: dict[str, Callable[[amp.AMP, bytes], str]] = {
    "init": amp.AMP.proto_init,
    "key": amp.AMP.proto_key,
    "value": amp.AMP.proto_value,
}


@implementer(IHandshakeListener, IPushProducer)
class Connection(ChunkedAMP):
    """
    An end of a connection.

    Authentication is which commands are found: those in C{responders}, which has all
    of them only once C{isOpen} is true. Until then bytes are counted.

    A server also stops reading while the transport is congested, so that answers don't
    pile up for a peer that doesn't read. A client doesn't, since both ends would wait
    for each other.
    """

    #: Whether no commands are taken while the peer doesn't read the answers.
    pausesReading = False

    def __init__(
        self, required: Requirements, heartbeat: float | None, reactor: IReactorTime
    ) -> None:
        super().__init__()
        self.transport: Any = None
        self.required = required
        self.reactor = reactor
        # What the two ends do until they know each other, while there's a connection.
        self.handshake: Any = None
        # What answers each command, by its name: a box, or a Deferred of one.
        self.responders: dict[bytes, Callable[[Any], Any]] = {}
        # Whether it's known who is at the other end, and nothing more is taken from it.
        self.isOpen = False
        self.isOver = False
        self._reason: Exception | None = None  # why this end has ended it, if it has
        self._heartbeat = heartbeat
        self._timer: Any = None
        # Heartbeats in a row without anything heard, and whether there was since.
        self._silent = 0
        self._heard = False
        self._unread = 0
        self._early = 0
        self._boxSize = 0  # bytes since the last box

    def ready(self) -> None:
        """The transport is there, and who is at its other end as far as that tells."""
        self.handshake.begin()

    def lost(self, reason: BaseException) -> None:
        """The connection has ended."""

    def open(self) -> None:
        """Answer all commands from now on: the other end has proved who it is."""
        self.isOpen = True
        self.responders |= {
            b"Chunk": self._chunk,
            b"Credit": self._credit,
            b"Ping": lambda box: amp.Box(),
        }
        self.transport.registerProducer(self, True)
        if self._heartbeat is not None:
            self._timer = self.reactor.callLater(self._heartbeat, self._beat)

    def close(self) -> None:
        """End the connection when what was written has been delivered."""
        if self.transport is None or self.isOver:
            return
        self.isOver = True
        if self.isOpen:
            # TLS would go on for as long as there's a producer.
            self.transport.unregisterProducer()
        self._stopTimer()
        abort = self.transport.abortConnection
        self._timer = self.reactor.callLater(_CLOSE_SECONDS, abort)
        self.transport.loseConnection()

    def abort(self, reason: Exception | None = None) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        self.isOver = True
        self._unprocessed = b""
        if self.transport is not None:
            self.transport.abortConnection()

    def maxSilent(self) -> int:
        """Tell how many heartbeats without a sign of life are one too many."""
        return MAX_SILENT

    # What the transport calls.

    def connectionMade(self) -> None:
        if self.required.tls is None:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        try:
            self.required.check(self.transport)
        except AuthenticationError as error:
            self.handshake.refuse(str(error))
        else:
            self.ready()

    def dataReceived(self, data: bytes) -> None:
        if self.isOver:
            return
        self._heard, why = True, ""
        try:
            if not self.isOpen:
                self._early += len(data)
                if self._early > _MAX_EARLY:
                    raise Violation("too much before it's known who it is")
            self._boxSize += len(data)
            super().dataReceived(data)
            if self._boxSize > _MAX_BOX:
                raise Violation("a box that is too large")
        except (amp.AmpError, KeyError, ValueError) as error:
            why = shown(error)
        if why:
            # Not from within: the error has all that was received in its traceback.
            self.violated(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isOver = True
        self._stopTimer()
        why = self._reason or reason.value or ConnectionError()
        handshake, self.handshake = self.handshake, None
        if handshake is not None:
            handshake.end(why)
        self.lost(why)
        super().connectionLost(reason)
        self.transport = None
        # Circles of references would keep it until the garbage is collected, which is
        # late for a server that has many clients to refuse.
        self.responders.clear()
        self.boxReceiver = self.locator = self.boxSender = None

    def pauseProducing(self) -> None:
        self._isCongested = True
        if self.pausesReading:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        self._isCongested = False
        self._unread = 0
        self._pump()
        if self.pausesReading and not self._isCongested and not self.isOver:
            super().resumeProducing()

    def stopProducing(self) -> None:
        pass  # the transport has been lost, which it tells anyway

    # What AMP calls.

    def stringReceived(self, string: bytes) -> None:
        # As AMP's own does, which puts together the name of a method and looks it up:
        # saves 4 of 120 microseconds of a call.
        self.state = _PHASES[self.state](self, string)

    def lengthLimitExceeded(self, length: int) -> None:
        raise Violation("a key that is too long")

    def ampBoxReceived(self, box: Any) -> None:
        self._boxSize = 0
        if self.isOver:
            return
        if len(box) > _MAX_FIELDS:
            raise Violation("a box with too many fields")
        if self._isCongested and amp.ASK in box:
            self._unread += 1
            if self._unread > _MAX_UNREAD:
                raise Violation("too many questions without reading the answers")
        if self.isOpen and amp.ASK not in box and box.get(amp.COMMAND) in _NOTICES:
            # AMP would make a Deferred of the answer that isn't sent, which takes 5 %
            # of the time of large values.
            self.responders[box[amp.COMMAND]](box)
        else:
            super().ampBoxReceived(box)

    def dispatchCommand(self, box: Any) -> Deferred[Any]:
        name = box[amp.COMMAND]
        responder = self.responders.get(name)
        if (amp.ASK not in box) != (name in _NOTICES):
            raise Violation("a question without a tag, or a notice with one")
        if responder is None:
            if not self.isOpen:
                raise Violation("a command before it's known who it is")
            code, text = amp.UNHANDLED_ERROR_CODE, f"Unhandled Command: {name[:99]!r}"
            return fail(amp.RemoteAmpError(code, text))
        # What a responder raises at once isn't turned into a Deferred: the peer has
        # broken the protocol.
        answer = responder(box)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def unhandledError(self, failure: Failure) -> None:
        """What failed is of no use to anybody any longer if the connection is over."""
        if self.isOver or failure.check(CancelledError):
            return
        if failure.check(KeyError, ValueError):
            self.violated(shown(failure.value))
        else:
            log.failure("{connection}: a command failed", failure, connection=self)
            self.abort()

    def _beat(self) -> None:
        """
        See whether the other end is there, and have it show that it is.

        Heartbeats without a sign of it are counted, not seconds: a reactor that was
        held up for long is late with one of them, and no more.
        """
        assert self._heartbeat is not None
        self._timer = self.reactor.callLater(self._heartbeat, self._beat)
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False
        if self._silent >= self.maxSilent():
            seconds = self._silent * self._heartbeat
            why = f"Nothing has come from the other end for {seconds:g} seconds"
            self.abort(TimeoutError(why))
        elif self._silent < 2:
            # An error is an answer, too: from a client that doesn't know the command.
            self.callRemoteString(b"Ping").addErrback(lambda _: None)

    def violated(self, why: str) -> None:
        """The peer breaks the protocol."""
        if not self.isOver:
            log.warn(
                "{connection} doesn't keep to the protocol, and is disconnected: {why}",
                connection=self,
                why=why,
            )
            self.abort(ConnectionError(f"It doesn't keep to the protocol: {why}"))

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def shown(error: BaseException | None) -> str:
    """Show an error, which may have what a peer has sent, in a line of the log."""
    return f"{type(error).__name__}: {str(error)[:200]!a}"
