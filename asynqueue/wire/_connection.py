"""
What both ends of a connection have in common: AMP, with large values in chunks, bounds
on what a peer can make of it, and signs of life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.log import log
from ..errors import AuthenticationError
from ._commands import Cancel, Credit, ValueChunk, Violation, numberOf
from ._endpoints import Requirements
from ._values import Payload, Pieces

#: Bytes in a chunk, at most: nearly as many as a value of AMP's can have.
_CHUNK_BYTES = 65_000

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
    state: getattr(amp.AMP, f"proto_{state}") for state in ("init", "key", "value")
}


class _SentValue(Pieces):
    """A large value that is being sent."""

    def __init__(self, ID: bytes, payload: Payload, done: Deferred[None]) -> None:
        super().__init__(payload.pieces)
        self.ID = ID
        self.credit = 0
        self.done = done

    def takeChunk(self) -> bytes | memoryview:
        """Take a chunk that may be sent now."""
        size = min(_CHUNK_BYTES, self.credit)
        self.credit -= size
        taken = self.take(size)
        # AMP copies it anyway.
        return taken[0] if len(taken) == 1 else b"".join(taken)


@define(eq=False)
class _ReceivedValue:
    """A large value that is being received."""

    left: int
    done: Deferred[list[bytes]]
    pieces: list[bytes] = field(factory=list)


class ChunkedAMP(amp.AMP):  # type: ignore[misc, unused-ignore]
    """
    AMP with large values, in chunks.

    They're sent as far as the peer gives credit for them, in turn, and while the
    transport isn't congested. Cancelling the Deferred of one stops it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._isCongested = False
        self._outgoing: dict[bytes, _SentValue] = {}
        self._incoming: dict[bytes, _ReceivedValue] = {}
        # Those that are sent and have credit, whose turn it is first. Some may be of no
        # interest any longer.
        self._sendable: deque[_SentValue] = deque()

    def send(self, ID: bytes, payload: Payload) -> Deferred[None]:
        """Send a large value as the peer asks for it, until it's been written."""
        d: Deferred[None] = Deferred(lambda _: _discard(self._outgoing, ID))
        self._outgoing[ID] = _SentValue(ID, payload, d)
        return d

    def receive(self, ID: bytes, size: int) -> Deferred[list[bytes]]:
        """Ask for the pieces of a large value, whose sender waits for that."""
        d: Deferred[list[bytes]] = Deferred(lambda _: _discard(self._incoming, ID))
        self._incoming[ID] = _ReceivedValue(size, d)
        self.tell(b"Credit", ID, bytes=b"%d" % size)
        return d

    def forgetValues(self, ID: bytes) -> None:
        """Send and receive nothing more of large values of an ID."""
        if ID in self._outgoing:
            self._outgoing[ID].done.cancel()
        if ID in self._incoming:
            self._incoming[ID].done.cancel()

    def tell(self, command: bytes, ID: bytes, **fields: bytes | memoryview) -> None:
        """Send a notice, which isn't answered."""
        self.callRemoteString(command, False, ID=ID, **fields)

    # Past AMP's own, which says so in the log of each connection.

    def makeConnection(self, transport: object) -> None:
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._outgoing.clear()
        self._incoming.clear()
        self._sendable.clear()
        amp.BinaryBoxProtocol.connectionLost(self, reason)

    def _pump(self) -> None:
        """Send what there's credit for, until the transport is congested."""
        sendable = self._sendable
        while sendable and not self._isCongested:
            value = sendable.popleft()
            if self._outgoing.get(value.ID) is not value:
                continue
            self.tell(b"Chunk", value.ID, data=value.takeChunk())
            if value.credit:
                sendable.append(value)
            elif not value.left:
                del self._outgoing[value.ID]
                value.done.callback(None)

    def _credit(self, box: amp.Box) -> None:
        value = self._outgoing.get(box[b"ID"])
        credit = numberOf(box[b"bytes"])
        if value is not None and credit:
            if not value.credit:
                self._sendable.append(value)
            value.credit = min(value.credit + credit, value.left)
            self._pump()

    def _chunk(self, box: amp.Box) -> None:
        # One that nobody wants any longer is dropped.
        value, data = self._incoming.get(box[b"ID"]), box[b"data"]
        if value is not None:
            value.left -= len(data)
            if value.left < 0:
                raise Violation("more of a value than it has")
            value.pieces.append(data)
            if not value.left:
                del self._incoming[box[b"ID"]]
                value.done.callback(value.pieces)


def _discard(values: dict[bytes, Any], ID: bytes) -> None:
    values.pop(ID, None)


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
        self.responders: dict[bytes, Callable[[amp.Box], object]] = {}
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
        """End a connection that's open, when what was written has been delivered."""
        if self.isOver:
            return
        self.isOver = True
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
            self.handshake.begin()

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
        if self.required.address.isServer:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        self._isCongested = False
        self._unread = 0
        self._pump()
        if self.required.address.isServer and not self._isCongested and not self.isOver:
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

    def ampBoxReceived(self, box: amp.Box) -> None:
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

    def dispatchCommand(self, box: amp.Box) -> Deferred[object]:
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
