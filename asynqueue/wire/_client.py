"""The client's end of a connection: calls, and the near side of their iterations."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.protocols import amp
from twisted.python.failure import Failure

from .._child.status import RAN, Status
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..util._sync import DeferredLock
from ._authentication import ClientHandshake
from ._commands import Start, Unwanted, numberOf, traceFields
from ._connection import MAX_SILENT, Connection
from ._endpoints import Requirements
from ._iterations import ClientIteration
from ._values import QUICK, Codec, DecodingThread, NotEncodable, Payload, loadsError

_T = TypeVar("_T")

#: Times as many heartbeats without a sign of life are too many while the server may be
#: running a call in its reactor's thread, which keeps it from giving one.
_MAX_BLOCKED = 10


class CallStage(Enum):
    """How far a task has come, as far as is known here."""

    #: The server doesn't have all of it.
    UNSENT = auto()

    #: It may have been started.
    SENT = auto()

    #: The server holds it back.
    HELD = auto()

    #: It has been run, and its result is on its way.
    ARRIVING = auto()

    #: It has been answered, and there's an iteration.
    ITERATING = auto()

    #: Nothing that may still come of it is of interest.
    OVER = auto()


@define(eq=False)
class RemoteCall:
    """
    A task that the worker has accepted.

    @ivar done: Fires when the worker is ready for another task.

    @ivar arguments: They, encoded, once it has been submitted.

    @ivar client: The L{Client} that has it then.
    """

    task: ITask
    name: str
    args: tuple[object, ...]
    kw: dict[str, object]
    thread: bool
    raw: bool
    consumer: IConsumer | None
    done: Deferred[None] = field(factory=Deferred)
    ID: bytes = b""
    arguments: bytes | Payload = b""
    stage: CallStage = CallStage.UNSENT
    iteration: ClientIteration | None = None
    client: Any = None

    def fireDone(self) -> None:
        if not self.done.called:
            self.done.callback(None)

    def lose(self, error: Exception) -> None:
        """Fail what the user waits for: the iteration, else the task."""
        lose = self.task.errback if self.iteration is None else self.iteration.lose
        lose(Failure(error))

    def finish(self, tell: Callable[..., object], *args: object) -> None:
        """Be done with it, and tell the user so."""
        self.forget()
        tell(*args)
        self.fireDone()
        self.client.owner.maybeClose()

    def fail(self, error: Exception) -> None:
        self.finish(self.lose, error)

    def refuse(self, what: str, error: Exception) -> None:
        """Fail as a value that has come of it can't be accepted."""
        if self.stage is CallStage.OVER:
            return
        if not isinstance(error, WorkerError):
            text = f"{what} of {self.task!r} can't be accepted: {error}"
            error = SerializationError(text)
        self.client.tell(b"Cancel", self.ID)
        self.fail(error)

    def cancel(self) -> None:
        """Have the work on it be stopped."""
        if self.iteration is not None:
            self.iteration.release()
        self.drop()

    def drop(self) -> None:
        """Have the server forget it, too."""
        self.client.tell(b"Cancel", self.ID)
        self.finish(lambda: None)

    def forget(self) -> None:
        """Nothing that still comes of it is of interest."""
        self.stage = CallStage.OVER
        self.client.calls.pop(self.ID, None)
        self.client.forgetValues(self.ID)
        if self.iteration is not None:
            self.iteration.over.callback(None)

    def take(self, box: amp.Box) -> Deferred[None] | None:
        """Take the answer: give a Deferred if that takes a while."""
        client = self.client
        if type(self.arguments) is Payload:
            # If that's an answer to less than all of them, the rest isn't sent.
            client.forgetValues(self.ID)
        if self.stage is CallStage.OVER:
            return None
        status, data = box[b"status"], box.get(b"result", b"")
        if status == RAN and len(data) <= QUICK:
            try:
                value = client.codec.decode(data)
                self.finish(self.task.callback, (RAN, value))
            except ValueError as error:
                self.refuse("The result", error)
        elif status in (RAN, Status.CHUNKS):
            return Deferred.fromCoroutine(self._takeLarge(status, data))
        elif status == Status.ITERATOR:
            self.stage = CallStage.ITERATING
            self.iteration = ClientIteration(self)
            self.fireDone()
            return self.iteration.begin()
        elif status == Status.NONE:
            self.finish(self.task.callback, (Status.NONE, None))
        elif status == Status.ERROR:
            text = loadsError(client.codec, data, client.exceptions)
            if isinstance(text.exception, SerializationError):
                self.fail(text.exception)
            else:
                self.finish(self.task.callback, (Status.ERROR, text))
        else:
            self.finish(self.task.callback, (Status.DISCONNECTED, None))
        return None

    async def _takeLarge(self, status: bytes, data: bytes) -> None:
        """Take a result that's decoded in a thread."""
        try:
            if status == RAN:
                value = await self.client.decode(data)
            else:
                self.stage = CallStage.ARRIVING
                value = await self.client.decodeLarge(self, data)
        except (WorkerError, ValueError) as error:
            self.refuse("The result", error)
        else:
            if self.stage is not CallStage.OVER:
                self.finish(self.task.callback, (RAN, value))


class _ClientOwner(Protocol):
    """The worker that has a connection."""

    def connected(self, client: Client) -> None: ...
    def serverLeaves(self) -> None: ...
    def maybeClose(self) -> None: ...
    def disconnected(self, client: Client, reason: BaseException) -> None: ...


class Client(Connection):
    """
    The client's end of a connection.

    @ivar calls: Those that aren't over, by ID.

    @ivar opened: Fires when both ends have proved who they are, or fails.
    """

    def __init__(
        self,
        owner: _ClientOwner,
        required: Requirements,
        codec: Codec,
        exceptions: Iterable[type[Exception]],
        largest: int,
        heartbeat: float | None,
        decoding: DecodingThread,
        reactor: IReactorTime,
    ) -> None:
        super().__init__(required, heartbeat, reactor)
        self.calls: dict[bytes, RemoteCall] = {}
        self.codec = codec
        self.handshake = ClientHandshake(self, codec.pickles, self._greeted)
        self.opened: Deferred[None] = self.handshake.opened
        self.exceptions = exceptions
        self._largest = largest
        self._decoding = decoding
        self.owner = owner
        self._count = 0
        # How many tasks the server takes; more wait here.
        self._maxTasks: int | None = None
        self._atServer = 0
        self._waiting: deque[RemoteCall] = deque()
        # The server runs at once what it gets, and updates are to be run in order.
        self._updates = DeferredLock()

    def __repr__(self) -> str:
        return "<server>"

    def lost(self, reason: BaseException) -> None:
        if self.isOpen:
            self.owner.disconnected(self, reason)

    def violated(self, why: str) -> None:
        if not self.isOpen:
            self.handshake.violated()
        super().violated(why)

    def maxSilent(self) -> int:
        mayBlock = any(
            not call.thread and call.stage in (CallStage.SENT, CallStage.ITERATING)
            for call in self.calls.values()
        )
        return MAX_SILENT * (_MAX_BLOCKED if mayBlock else 1)

    def _greeted(self, acceptsPickles: bool, maxTasks: int | None) -> None:
        """The two ends know each other."""
        self._maxTasks = maxTasks
        if not acceptsPickles:
            self.codec = self.codec.withoutPickles()
        self.open()
        self.responders |= {
            b"Held": self._held,
            b"Start": self._start,
            b"Leaving": self._leaving,
        }
        self.owner.connected(self)

    def submit(self, call: RemoteCall) -> None:
        """Send a call to the server, with its arguments as they are now."""
        self._count += 1
        call.ID = b"%d" % self._count
        call.client = self
        self.calls[call.ID] = call
        try:
            call.arguments = self.codec.encode((call.args, call.kw), self._largest)
        except NotEncodable as error:
            text = f"{call.task!r} can't be sent: {error}"
            unsendable = SerializationError(text)
            unsendable.__cause__ = error.__cause__
            call.fail(unsendable)
            return
        if call.task.direct:
            self._updates.acquire().addCallback(self._sendUpdate, call)
        else:
            self._waiting.append(call)
            self._sendWaiting()

    def abandon(self) -> list[RemoteCall]:
        """Forget all calls: nothing that still comes of them is of interest."""
        calls = list(self.calls.values())
        self._waiting.clear()
        for call in calls:
            call.forget()
        return calls

    def _sendUpdate(self, lock: DeferredLock, call: RemoteCall) -> None:
        self._waiting.append(call)
        self._sendWaiting()
        call.done.addCallback(lambda _: lock.release())

    def _sendWaiting(self) -> None:
        """Send calls, unless the server has as many as it takes."""
        waiting = self._waiting
        while waiting and (self._maxTasks is None or self._atServer < self._maxTasks):
            call = waiting.popleft()
            if call.stage is CallStage.UNSENT:
                self._send(call)

    def _send(self, call: RemoteCall) -> None:
        """Have a call be run by the server, up to the last that comes of it."""
        self._atServer += 1
        arguments = call.arguments
        fields = {"ID": call.ID, "methodName": call.name.encode()}
        if call.thread:
            fields["thread"] = b"1"
        if call.raw:
            fields["raw"] = b"1"
        if call.task.watch is not None:
            fields |= traceFields(call.task)
        if isinstance(arguments, bytes):
            call.stage = CallStage.SENT
            fields["call"] = arguments
        else:
            fields["size"] = b"%d" % arguments.size
            self.send(call.ID, arguments).addCallbacks(
                lambda _: self._hasBeenSent(call), lambda _: None
            )
        # Without a coroutine that waits for the answer: saves 4 of 120 microseconds.
        self.callRemoteString(b"RunTask", **fields).addCallbacks(
            self._answered, self._refused, (call,), None, (call,), None
        )

    def _hasBeenSent(self, call: RemoteCall) -> None:
        if call.stage is CallStage.UNSENT:
            call.stage = CallStage.SENT

    def _answered(self, box: amp.Box, call: RemoteCall) -> Deferred[None] | None:
        """The server has answered a call."""
        taking = call.take(box)
        if taking is not None:
            return taking.addBoth(self._leftServer)
        self._leftServer(None)
        return None

    def _refused(self, failure: Failure, call: RemoteCall) -> None:
        if not self.isOver:
            failure.trap(amp.RemoteAmpError)
            if call.stage is not CallStage.OVER:
                call.fail(WorkerError(f"The server can't take {call.task!r}"))
            self._leftServer(None)

    def _leftServer(self, result: _T) -> _T:
        """Nothing more is to come of a call from the server."""
        self._atServer -= 1
        if self._waiting:
            self._sendWaiting()
        return result

    def decode(self, data: bytes) -> Awaitable[object]:
        """Decode a value that has come in a box."""
        return self._decoding.decode(self.codec, data)

    async def decodeLarge(self, call: RemoteCall, digits: bytes) -> object:
        """Receive a value of a size, raising WorkerError if that's too large."""
        size = numberOf(digits)
        if size > self._largest:
            raise WorkerError(
                f"{call.task!r} has led to a value of {size} bytes, where"
                f" {self._largest} are accepted"
            )
        pieces = await self.receive(call.ID, size)
        return await self._decoding.decodeLarge(self.codec, pieces)

    def _held(self, box: amp.Box) -> amp.Box:
        call = self.calls.get(box[b"ID"])
        if call is not None and call.stage is CallStage.SENT:
            call.stage = CallStage.HELD
            call.task.stopTimer()
        return amp.Box()

    def _start(self, box: amp.Box) -> amp.Box | Deferred[amp.Box]:
        call = self.calls.get(box[b"ID"])
        if call is None or call.stage is not CallStage.HELD:
            code = Start.errors[Unwanted]
            return fail(amp.RemoteAmpError(code, "The task isn't wanted any longer"))
        call.stage = CallStage.SENT
        call.task.startTimer()
        return amp.Box()

    def _leaving(self, box: amp.Box) -> amp.Box:
        self.owner.serverLeaves()
        return amp.Box()
