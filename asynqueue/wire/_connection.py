"""
What both ends of a connection have in common: AMP, with bounds on what a peer can make
of it, large values in chunks, and signs of life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

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
from ._values import Payload

__all__ = ["MAX_SILENT", "Connection", "Responder", "shown"]

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
    "init": amp.AMP.proto_init,
    "key": amp.AMP.proto_key,
    "value": amp.AMP.proto_value,
}

#: What answers a command: a box, or a Deferred that fires with one.
Responder = Callable[[Any], Any]


class _SentValue:
    """
    A large value that is being sent.
    """

    def __init__(self, ID: bytes, payload: Payload, done: Deferred[None]) -> None:
        self.ID = ID
        self.left = payload.size
        self.credit = 0
        self.done = done
        self._pieces = deque(memoryview(piece).cast("B") for piece in payload.pieces)

    def take(self) -> bytes | memoryview:
        """Take a chunk that may be sent now."""
        room = min(_CHUNK_BYTES, self.credit)
        self.credit -= room
        self.left -= room
        pieces = self._pieces
        taken = []
        while room:
            piece = pieces.popleft()
            if len(piece) > room:
                pieces.appendleft(piece[room:])
                piece = piece[:room]
            taken.append(piece)
            room -= len(piece)
        # AMP copies it anyway.
        return taken[0] if len(taken) == 1 else b"".join(taken)


class _ReceivedValue:
    """
    A large value that is being received.
    """

    def __init__(self, size: int, done: Deferred[list[bytes]]) -> None:
        self.left = size
        self.done = done
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise Violation("more of a value than it has")
        self._pieces.append(data)
        if not self.left:
            self.done.callback(self._pieces)


@implementer(IHandshakeListener, IPushProducer)
class Connection(amp.AMP):  # type: ignore[misc, unused-ignore]
    """
    An end of a connection.

    Authentication is which commands are found: those in C{responders}, which has all
    of them only once C{isOpen} is true. Until then bytes are counted.

    Large values are sent as far as the peer gives credit for them, in turn, and while
    the transport isn't congested. A server also stops reading while it is, so that
    answers don't pile up for a peer that doesn't read. A client doesn't, since both
    ends would wait for each other.

    @ivar responders: What answers each command, by its name.

    @ivar isOpen: Whether it's known who is at the other end.

    @ivar isOver: Whether nothing more is taken from there.
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
        self.responders: dict[bytes, Responder] = {}
        self.isOpen = False
        self.isOver = False
        # Why this end has ended the connection, if it has.
        self._reason: Exception | None = None
        self._heartbeat = heartbeat
        self._timer: Any = None
        # Heartbeats in a row without anything heard, and whether there was since.
        self._silent = 0
        self._heard = False
        self._isCongested = False
        self._unread = 0
        self._early = 0
        # Bytes since the last box.
        self._boxSize = 0
        self._outgoing: dict[bytes, _SentValue] = {}
        self._incoming: dict[bytes, _ReceivedValue] = {}
        # Those that are sent and have credit, whose turn it is first. Some may be of no
        # interest any longer.
        self._sendable: deque[_SentValue] = deque()

    def ready(self) -> None:
        """The transport is there, and who is at its other end as far as that tells."""
        raise NotImplementedError

    def refuse(self, why: str) -> None:
        """The other end isn't accepted."""
        raise NotImplementedError

    def lost(self, reason: BaseException) -> None:
        """The connection has ended."""
        raise NotImplementedError

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

    def addResponders(self, locator: amp.CommandLocator, *commands: Any) -> None:
        """Have commands be answered by somebody's methods for them."""
        for command in commands:
            responder = locator.locateResponder(command.commandName)
            self.responders[command.commandName] = partial(self._answer, responder)

    def ignore(self) -> None:
        """Take nothing more from the other end."""
        self.isOver = True

    def close(self) -> None:
        """End the connection when what was written has been delivered."""
        if self.transport is None or self.isOver:
            return
        self.isOver = True
        if self.isOpen:
            # TLS would go on for as long as there's a producer.
            self.transport.unregisterProducer()
        self._stopTimer()
        self._timer = self.reactor.callLater(_CLOSE_SECONDS, self._abort)
        self.transport.loseConnection()

    def abort(self, reason: Exception | None = None) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        self.isOver = True
        self._unprocessed = b""
        self._abort()

    def send(self, ID: bytes, payload: Payload) -> Deferred[None]:
        """
        Send a large value as the peer asks for it. The Deferred fires when it has been
        written; cancelling it stops the sending.
        """
        d: Deferred[None] = Deferred(lambda _: _discard(self._outgoing, ID))
        self._outgoing[ID] = _SentValue(ID, payload, d)
        return d

    def receive(self, ID: bytes, size: int) -> Deferred[list[bytes]]:
        """
        Ask for a large value, whose sender waits for that. The Deferred fires with its
        pieces; cancelling it stops the sending.
        """
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

    def maxSilent(self) -> int:
        """Tell how many heartbeats without a sign of life are one too many."""
        return MAX_SILENT

    # What the transport calls.

    def makeConnection(self, transport: Any) -> None:
        # Past AMP's own, which says so in the log of each connection.
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionMade(self) -> None:
        if self.required.tls is None:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        try:
            self.required.check(self.transport)
        except AuthenticationError as error:
            self.refuse(str(error))
        else:
            self.ready()

    def dataReceived(self, data: bytes) -> None:
        if self.isOver:
            return
        self._heard = True
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
        else:
            return
        # Not from within: the error has all that was received in its traceback.
        self.violated(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isOver = True
        self._stopTimer()
        self.lost(self._reason or reason.value or ConnectionError())
        self._outgoing.clear()
        self._incoming.clear()
        self._sendable.clear()
        amp.BinaryBoxProtocol.connectionLost(self, reason)
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
        """The transport has been lost, which it tells anyway."""

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

    def locateResponder(self, name: bytes) -> Responder | None:
        return self.responders.get(name)

    def dispatchCommand(self, box: Any) -> Deferred[Any]:
        name = box[amp.COMMAND]
        responder = self.locateResponder(name)
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

    def _answer(self, responder: Responder, box: Any) -> Deferred[Any]:
        d: Deferred[Any] = responder(box)
        return d.addErrback(self._unanswered)

    def _unanswered(self, failure: Failure) -> Any:
        """What isn't one of the errors of a command is due to the other end."""
        if failure.check(amp.RemoteAmpError):
            return failure
        self.violated(shown(failure.value))
        return Deferred()  # nothing is answered

    # Large values.

    def _pump(self) -> None:
        """Send what there's credit for, until the transport is congested."""
        sendable = self._sendable
        while sendable and not self._isCongested:
            value = sendable.popleft()
            if self._outgoing.get(value.ID) is not value:
                continue
            self.tell(b"Chunk", value.ID, data=value.take())
            if value.credit:
                sendable.append(value)
            elif not value.left:
                del self._outgoing[value.ID]
                value.done.callback(None)

    def _credit(self, box: Any) -> None:
        value = self._outgoing.get(box[b"ID"])
        credit = numberOf(box[b"bytes"])
        if value is not None and credit:
            if not value.credit:
                self._sendable.append(value)
            value.credit = min(value.credit + credit, value.left)
            self._pump()

    def _chunk(self, box: Any) -> None:
        # One that nobody wants any longer is dropped.
        value = self._incoming.get(box[b"ID"])
        if value is not None:
            if value.left == len(box[b"data"]):
                del self._incoming[box[b"ID"]]
            value.add(box[b"data"])

    # The end.

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
            self.abort(
                TimeoutError(
                    f"Nothing has come from the other end for {seconds:g} seconds"
                )
            )
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

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


def _discard(values: dict[bytes, Any], ID: bytes) -> None:
    values.pop(ID, None)


def shown(error: BaseException | None) -> str:
    """Show an error, which may have what a peer has sent, in a line of the log."""
    return f"{type(error).__name__}: {str(error)[:200]!a}"
