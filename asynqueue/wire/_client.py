"""The client's end of a connection: calls, and the near side of their iterations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp
from twisted.python.failure import Failure

from .._child.status import RAN, Status
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ..iteration._remote import RemoteIteration
from ..iteration._sources import BufferedSource
from ._authentication import ClientHandshake
from ._commands import Start, Unwanted, Violation, numberOf, traceFields
from ._connection import MAX_SILENT, Connection
from ._endpoints import Requirements
from ._values import (
    QUICK,
    Codec,
    DecodingThread,
    NotEncodable,
    Payload,
    loadsError,
)

#: Items of an iteration that are asked for at once, how many such requests may be
#: outstanding, and how many items may be here and not taken, with those asked for.
_COUNT, _MAX_REQUESTS, _MAX_ITEMS = 16, 2, 32

#: The last, while the items are large.
_MAX_LARGE_ITEMS = 2

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
    args: tuple[Any, ...]
    kw: dict[str, Any]
    thread: bool
    raw: bool
    consumer: Any
    done: Deferred[None] = field(factory=Deferred)
    ID: bytes = b""
    arguments: bytes | Payload = b""
    stage: CallStage = CallStage.UNSENT
    iteration: _ClientIteration | None = None
    client: Any = None

    def fireDone(self) -> None:
        if not self.done.called:
            self.done.callback(None)

    def lose(self, error: Exception) -> None:
        """Fail what the user waits for: the iteration, else the task."""
        lose = self.task.errback if self.iteration is None else self.iteration.lose
        lose(Failure(error))

    def fail(self, error: Exception) -> None:
        """Fail it, and be done with it."""
        self.forget()
        self.lose(error)
        self._release()

    def refuse(self, what: str, error: Exception) -> None:
        """Fail as a value that has come of it can't be accepted."""
        if self.stage is CallStage.OVER:
            return
        self.client.tell(b"Cancel", self.ID)
        if not isinstance(error, WorkerError):
            text = f"{what} of {self.task!r} can't be accepted: {error}"
            error = SerializationError(text)
        self.fail(error)

    def drop(self) -> None:
        """Have the server forget it, too."""
        self.client.tell(b"Cancel", self.ID)
        self.forget()
        self._release()

    def finish(self, iteration: _ClientIteration) -> None:
        """Its iteration has come to the end."""
        self.forget()
        iteration.end()
        self._release()

    def forget(self) -> None:
        """Nothing that still comes of it is of interest."""
        self.stage = CallStage.OVER
        self.client.calls.pop(self.ID, None)
        self.client.forgetValues(self.ID)
        if self.iteration is not None:
            self.iteration.wake()

    def take(self, box: Any) -> Deferred[None] | None:
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
                self._complete(RAN, client.codec.decode(data))
            except ValueError as error:
                self.refuse("The result", error)
        elif status in (RAN, Status.CHUNKS):
            return Deferred.fromCoroutine(self._takeLarge(status, data))
        elif status == Status.ITERATOR:
            self.stage = CallStage.ITERATING
            self.iteration = _ClientIteration(client, self)
            self.fireDone()
            return Deferred.fromCoroutine(self.iteration.run())
        elif status == Status.NONE:
            self._complete(Status.NONE, None)
        elif status == Status.ERROR:
            text = loadsError(client.codec, data, client.exceptions)
            if isinstance(text.exception, SerializationError):
                self.fail(text.exception)
            else:
                self._complete(Status.ERROR, text)
        else:
            self._complete(Status.DISCONNECTED, None)
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
                self._complete(RAN, value)

    def _complete(self, status: Status, result: Any) -> None:
        self.forget()
        self.task.callback((status, result))
        self._release()

    def _release(self) -> None:
        self.fireDone()
        self.client.owner.maybeClose()


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
        # The server runs at once what it gets, and these are to be run in order: the
        # first has been sent.
        self._updates: deque[RemoteCall] = deque()

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
            self._updates.append(call)
            call.done.addCallback(lambda _: self._updated(call))
            if len(self._updates) > 1:
                return
        self._waiting.append(call)
        self._sendWaiting()

    def cancel(self, task: ITask) -> None:
        """Have the work on a task be stopped."""
        for call in self.calls.values():
            if call.task is task:
                if call.iteration is not None:
                    call.iteration.release()
                call.drop()
                return

    def abandon(self) -> list[RemoteCall]:
        """Forget all calls: nothing that still comes of them is of interest."""
        calls = list(self.calls.values())
        for call in calls:
            call.forget()
        return calls

    def _updated(self, call: RemoteCall) -> None:
        """Send the next update, if the first has been run, or won't be."""
        updates = self._updates
        wasSent = updates[0] is call
        updates.remove(call)
        if wasSent and updates and updates[0].stage is CallStage.UNSENT:
            self._waiting.append(updates[0])
            self._sendWaiting()

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

    def _answered(self, box: Any, call: RemoteCall) -> Deferred[None] | None:
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

    def _leftServer(self, result: Any) -> Any:
        """Nothing more is to come of a call from the server."""
        self._atServer -= 1
        if self._waiting:
            self._sendWaiting()
        return result

    async def decode(self, data: bytes) -> Any:
        """Decode a value that has come in a box."""
        return await self._decoding.decode(self.codec, data)

    async def decodeLarge(self, call: RemoteCall, digits: bytes) -> Any:
        """Receive a value of a size, raising WorkerError if that's too large."""
        size = numberOf(digits)
        if size > self._largest:
            raise WorkerError(
                f"{call.task!r} has led to a value of {size} bytes, where"
                f" {self._largest} are accepted"
            )
        pieces = await self.receive(call.ID, size)
        return await self._decoding.decodeLarge(self.codec, pieces)

    def _held(self, box: Any) -> Any:
        call = self.calls.get(box[b"ID"])
        if call is not None and call.stage is CallStage.SENT:
            call.stage = CallStage.HELD
            call.task.stopTimer()
        return amp.Box()

    def _start(self, box: Any) -> Any:
        call = self.calls.get(box[b"ID"])
        if call is None or call.stage is not CallStage.HELD:
            code = Start.errors[Unwanted]
            return fail(amp.RemoteAmpError(code, "The task isn't wanted any longer"))
        call.stage = CallStage.SENT
        call.task.startTimer()
        return amp.Box()

    def _leaving(self, box: Any) -> Any:
        self.owner.serverLeaves()
        return amp.Box()


class _ClientIteration(RemoteIteration):
    """An iteration at the server. More items are asked for as they're taken."""

    def __init__(self, client: Client, call: RemoteCall) -> None:
        super().__init__(
            call.task,
            BufferedSource(lambda _: self.wake(), self._stopped, every=_COUNT),
        )
        self._client = client
        self._call = call
        # The answers to requests that haven't been looked at, in order.
        self._answers: deque[Deferred[Any]] = deque()
        self._areLarge = False
        # Fires when there may be room for more items, or none are wanted.
        self._room: Deferred[None] | None = None
        if call.consumer is not None:
            self.feed(call.consumer)

    def isOver(self) -> bool:
        return self._call.stage is not CallStage.ITERATING

    async def run(self) -> None:
        """Take items until there are no more, or none are wanted."""
        call = self._call
        while not self.isOver():
            self._ask()
            if not self._answers:
                self._room = Deferred()
                await self._room
                continue
            box = await self._answers[0]
            self._answers.popleft()
            if box is not None:
                await self._take(box)
            elif not self.isOver():
                call.fail(WorkerError(f"The server can't iterate: {call.task!r}"))

    def wake(self) -> None:
        """Items have been taken, or none are wanted any longer."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        elif not self.isOver():
            self._ask()

    def _ask(self) -> None:
        """Ask for as many items as there will be room for."""
        answers, client = self._answers, self._client
        most, count = (_MAX_LARGE_ITEMS, 1) if self._areLarge else (_MAX_ITEMS, _COUNT)
        room = most - self._source.atHand - count * len(answers)
        while len(answers) < _MAX_REQUESTS and room >= count:
            d = client.callRemoteString(
                b"GetNext", ID=self._call.ID, count=b"%d" % count
            )
            answers.append(d.addErrback(lambda _: None))
            room -= count

    async def _take(self, box: Any) -> None:
        """Take an answer to C{GetNext}."""
        client, call = self._client, self._call
        if self.isOver():
            return
        size = box.get(b"size")
        self._areLarge = size is not None
        try:
            items = await client.decode(box[b"values"])
            if not isinstance(items, list) or len(items) > _COUNT:
                raise Violation("more items than were asked for")
            self._push(items)
            if size is not None and not self.isOver():
                self._push([await client.decodeLarge(call, size)])
        except Violation:
            raise
        except (WorkerError, ValueError) as error:
            call.refuse("An item of the iteration", error)
        if self.isOver():
            return
        if b"error" in box:
            text = loadsError(client.codec, box[b"error"], client.exceptions)
            raised = text.exception
            call.fail(raised if isinstance(raised, Exception) else WorkerError(text))
        elif box[b"moreLeft"] != b"True":
            call.finish(self)

    def _push(self, items: list[Any]) -> None:
        if items and not self.isOver():
            self._begin()
            self._source.push(items)

    def _stopped(self) -> None:
        if not self.isOver():
            self._call.drop()
