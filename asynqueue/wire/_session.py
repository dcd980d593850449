"""
The server's end of a connection: a coroutine for each task, and its iterations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import Factory, define, frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    fail,
)
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from .._child.describe import callText
from .._child.status import ErrorText, Status, StatusResult
from .._support.log import log
from .._support.oneshot import OneShot
from ..errors import WorkerError
from ..iteration import Deferator
from ._authentication import Pending, ServerHandshake
from ._chunks import DecodingThread, Violation, numberOf
from ._commands import GetNext, Leaving, Start
from ._connection import Connection
from ._endpoints import Requirements
from ._exceptions import dumpsError, dumpsText
from ._iterations import Iteration
from ._runner import WireRunner
from ._values import QUICK, Codec, Encoded, NotEncodable, Payload

__all__ = ["Limits", "Session", "Shared"]

#: Seconds that a client has to answer that the server is about to go.
_LEAVING_SECONDS = 2.0


@frozen
class Limits:
    """
    What one client may ask of a server.

    @ivar largest: Bytes of a value.

    @ivar maxTasks: Tasks that aren't done.

    @ivar maxIterators: Iterations that go on.

    @ivar maxHeld: Bytes of large arguments that are on their way or in use.
    """

    largest: int
    maxTasks: int
    maxIterators: int
    maxHeld: int


@frozen
class Shared:
    """
    What the sessions of a server have in common.

    @ivar slots: For each task that runs, C{None} for no limit.

    @ivar threads: For each task that runs in a thread, which it needs first.
    """

    required: Requirements
    runner: WireRunner
    codec: Codec
    limits: Limits
    slots: DeferredSemaphore | None
    threads: DeferredSemaphore
    pending: Pending
    decoding: DecodingThread
    heartbeat: float | None


@define(eq=False)
class _Task:
    """
    A task of the client's.

    @ivar ID: What it's called.

    @ivar isNamed: Whether the client has given it its ID.

    @ivar d: Fires when it has been answered.

    @ivar isRunning: Whether it has been started.

    @ivar isCancelled: Whether nobody wants its result any longer.

    @ivar slots: Of these it has a slot.

    @ivar size: Bytes of its large arguments, as far as they're counted in the budget.

    @ivar sending: Its large result, on its way.

    @ivar iteration: What it has led to.
    """

    ID: bytes
    isNamed: bool
    name: str
    thread: bool
    raw: bool
    d: Deferred[Any] | None = None
    isRunning: bool = False
    isCancelled: bool = False
    slots: list[DeferredSemaphore] = Factory(list)
    size: int = 0
    sending: Deferred[None] | None = None
    iteration: Iteration | None = None


class Session(Connection):
    """
    The server's end of a connection.

    @ivar gone: Fires when the connection has ended.

    @ivar tasks: The client's tasks that aren't done, by ID. One is done when its answer
        and its large result have been sent, or its iteration has ended.
    """

    pausesReading = True

    def __init__(
        self,
        shared: Shared,
        ended: Callable[[Session], object],
        reactor: IReactorTime,
    ) -> None:
        """
        @param ended: Called when the connection has ended.
        """
        super().__init__(shared.required, shared.heartbeat, reactor)
        self.tasks: dict[bytes, _Task] = {}
        self._shared = shared
        self.gone: OneShot[None] = OneShot()
        self._codec = shared.codec.withoutPickles()
        self._ended = ended
        self._budget = _Budget(shared.limits.maxHeld)
        self._handshake: ServerHandshake | None = None
        self._isLeaving = False
        # Whether the client may still send tasks, for all that's known.
        self._mayCome = True
        self._count = 0

    def __repr__(self) -> str:
        return f"<client with {len(self.tasks)} tasks>"

    # The beginning and the end.

    def connectionMade(self) -> None:
        shared = self._shared
        self._handshake = ServerHandshake(
            self,
            shared.pending,
            shared.limits.maxTasks,
            shared.codec.pickles,
            self._greeted,
        )
        super().connectionMade()

    def ready(self) -> None:
        assert self._handshake is not None
        self._handshake.begin()

    def refuse(self, why: str) -> None:
        assert self._handshake is not None
        self._handshake.refuse(why)

    def open(self) -> None:
        super().open()
        self.responders |= {
            b"RunTask": self._runTask,
            b"GetNext": self._getNext,
            b"Cancel": self._cancelTask,
        }

    def _greeted(self, acceptsPickles: bool) -> None:
        """The client has said whether it accepts pickles."""
        if acceptsPickles:
            self._codec = self._shared.codec

    def leave(self) -> None:
        """
        Take no more tasks, let those be done that have been started, and end the
        connection then.
        """
        if not self.isOpen:
            self.abort()
        if self._isLeaving or self.isOver:
            return
        self._isLeaving = True
        d = self.callRemote(Leaving)
        d.addTimeout(_LEAVING_SECONDS, self.reactor)
        d.addBoth(lambda _: self._noMoreCome())
        for task in list(self.tasks.values()):
            if not task.isRunning:
                self._cancel(task)
            elif task.iteration is not None:
                task.iteration.hurry()

    def lost(self, reason: BaseException) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.end(reason)
        for task in list(self.tasks.values()):
            self._cancel(task)
        self._ended(self)
        self.gone.fire(None)

    def _noMoreCome(self) -> None:
        self._mayCome = False
        self._maybeClose()

    def _maybeClose(self) -> None:
        if self._isLeaving and not self._mayCome and not self.tasks:
            self.close()

    # Tasks.

    def _runTask(self, box: Any) -> Any:
        ID = box.get(b"ID")
        if ID is None:
            # Beyond those that the client may give.
            self._count += 1
            ID = b"_%d" % self._count
        elif ID in self.tasks or ID.startswith(b"_"):
            raise Violation("a task with an ID that it can't have")
        task = _Task(
            ID,
            b"ID" in box,
            box[b"methodName"].decode(),
            b"thread" in box,
            b"raw" in box,
        )
        if self._isLeaving:
            return amp.Box(status=b"d")
        refusal = self._refusalOf(task, box)
        if refusal is not None:
            return refusal
        self.tasks[ID] = task
        d = Deferred.fromCoroutine(self._serve(task, box))
        task.d = d
        return d

    def _refusalOf(self, task: _Task, box: Any) -> Any:
        """Give the answer to a task that can't be served, or C{None}."""
        limits, runner = self._shared.limits, self._shared.runner
        if task.name not in runner.table:
            return _error("WorkerError", runner.unknown(task.name))
        # WireWorkers know this limit, and keep to it.
        if len(self.tasks) >= limits.maxTasks:
            return _error(
                "WorkerError",
                f"The server refuses more than {limits.maxTasks} tasks at once",
            )
        if b"size" in box:
            size = numberOf(box[b"size"])
            most = min(limits.largest, limits.maxHeld)
            if not size or not task.isNamed:
                raise Violation("large arguments that can't be")
            if size > most:
                return _error(
                    "WorkerError",
                    f"The server refuses arguments of {size} bytes, where {most} are"
                    " accepted",
                )
        return None

    async def _serve(self, task: _Task, box: Any) -> Any:
        """Serve a task, from its arguments to its answer."""
        try:
            args, kw = await self._arguments(task, box)
            if task.thread or self._shared.slots is not None:
                await self._start(task)
            pair = await self._run(task, args, kw)
            if task.isCancelled:
                # It hasn't heeded that.
                if pair[0] == Status.ITERATOR:
                    pair[1].stop()
                raise CancelledError
            answer = self._answerTo(task, pair, args, kw)
        except (CancelledError, amp.RemoteAmpError):
            answer = amp.Box(status=Status.DISCONNECTED)
        except _WrongArguments as error:
            text = f"The arguments of {task.name} can't be accepted: {error}"
            answer = _error("SerializationError", text)
        except NotEncodable as error:
            text = f"What {task.name} has returned can't be sent: {error}"
            answer = _error("SerializationError", text)
        except Exception as error:  # noqa: BLE001 - there may be no thread to be had
            data = dumpsError(self._codec, error, task.name)
            answer = amp.Box(status=Status.ERROR, result=data)
        if task.sending is None and task.iteration is None:
            self._forget(task)
        return answer

    async def _arguments(
        self, task: _Task, box: Any
    ) -> tuple[tuple[Any, ...] | list[Any], dict[str, Any]]:
        """
        Get the arguments of a task.

        @raise _WrongArguments: If they can't be decoded, or are none.
        """
        decoding, codec = self._shared.decoding, self._codec
        try:
            if b"size" in box:
                size = numberOf(box[b"size"])
                await self._budget.acquire(size)
                task.size = size
                pieces = await self.receive(task.ID, size)
                args, kw = await decoding.decodeLarge(codec, pieces)
            elif b"call" in box:
                data = box[b"call"]
                if len(data) <= QUICK:
                    args, kw = codec.decode(data)
                else:
                    args, kw = await decoding.decode(codec, data)
            else:
                args, kw = (), {}
                if box.get(b"args"):
                    args = await decoding.decode(codec, box[b"args"])
                if box.get(b"kw"):
                    kw = await decoding.decode(codec, box[b"kw"])
        except (TypeError, ValueError) as error:
            raise _WrongArguments(str(error)) from error
        if (
            not isinstance(args, (tuple, list))
            or not isinstance(kw, dict)
            or not all(isinstance(name, str) for name in kw)
        ):
            raise _WrongArguments("they're no tuple or list, and dict")
        return args, kw

    async def _start(self, task: _Task) -> None:
        """
        Wait for slots. If that takes a while, the client is told that the task is held
        back, and asked whether it's to be run then.

        @raise amp.RemoteAmpError: If it isn't.
        """
        shared = self._shared
        wanted = [shared.threads] if task.thread else []
        if shared.slots is not None:
            wanted.append(shared.slots)
        isHeld = False
        for slots in wanted:
            d = slots.acquire()
            if not d.called and not isHeld and task.isNamed:
                isHeld = True
                self.tell(b"Held", task.ID)
            await d
            task.slots.append(slots)
        if isHeld:
            await self.callRemote(Start, ID=task.ID)

    async def _run(self, task: _Task, args: Any, kw: dict[str, Any]) -> StatusResult:
        """Run a task, and give back its slots."""
        runner = self._shared.runner
        task.isRunning = True
        slots, task.slots = task.slots, []

        def release(_: object = None) -> None:
            for each in slots:
                each.release()

        try:
            pair = runner.run(
                runner.table[task.name],
                args,
                kw,
                task.thread,
                task.raw,
                self._encoderForThread() if task.thread else self._encode,
            )
            if isinstance(pair, Deferred):
                pair = await pair
        except CancelledError:
            runner.whenPlaced(release)
            raise
        except BaseException:
            release()
            raise
        if task.thread and pair[0] == Status.ITERATOR:
            # Which goes on in the thread.
            pair[1].addBoth(lambda _: runner.whenPlaced(release))
        else:
            release()
        return pair

    def _encode(self, value: Any) -> Encoded:
        return Encoded(self._codec.encode(value))

    def _encoderForThread(self) -> Callable[[Any], Encoded]:
        codec = self._codec.copy()
        return lambda value: Encoded(codec.encode(value))

    def _answerTo(
        self, task: _Task, pair: StatusResult, args: Any, kw: dict[str, Any]
    ) -> Any:
        """
        Answer what has come of a task.

        @raise NotEncodable: If its result can't be sent.
        """
        status, result = pair
        if status == Status.ERROR:
            error = result.exception if isinstance(result, ErrorText) else None
            if isinstance(error, NotEncodable):
                raise error
            call = callText(task.name, args, kw)
            text = dumpsError(self._codec, error or WorkerError(result), call)
            return amp.Box(status=Status.ERROR, result=text)
        if status == Status.ITERATOR:
            return self._iterate(task, result)
        if result is None:
            return amp.Box(status=Status.NONE)
        data: bytes | Payload
        data = result.data if type(result) is Encoded else self._codec.encode(result)
        if isinstance(data, bytes):
            return amp.Box(status=Status.RAN, result=data)
        if not task.isNamed:
            raise NotEncodable("A large result needs a task with an ID")
        task.sending = self.send(task.ID, data)
        task.sending.addBoth(lambda _: self._forget(task))
        return amp.Box(status=Status.CHUNKS, result=b"%d" % data.size)

    def _cancelTask(self, box: Any) -> Any:
        task = self.tasks.get(box[b"ID"])
        if task is not None:
            self._cancel(task)
        return amp.Box()

    def _cancel(self, task: _Task) -> None:
        """Stop the work on a task, however far it has come."""
        task.isCancelled = True
        try:
            if task.iteration is not None:
                task.iteration.stop()
            elif task.sending is not None:
                task.sending.cancel()
            elif task.d is not None:
                task.d.cancel()
        except Exception:  # noqa: BLE001 - the canceller is the user's
            log.failure("{task} failed to be cancelled", task=task.name)

    def _forget(self, task: _Task) -> None:
        if self.tasks.pop(task.ID, None) is None:
            return
        if task.size:
            self._budget.release(task.size)
        for slots in task.slots:
            slots.release()
        if self._isLeaving:
            # The answer is to be sent first.
            self.reactor.callLater(0, self._maybeClose)

    # Iterations.

    def _iterate(self, task: _Task, deferator: Deferator) -> Any:
        most = self._shared.limits.maxIterators
        if sum(it.iteration is not None for it in self.tasks.values()) >= most:
            deferator.stop()
            return _error(
                "WorkerError", f"The server refuses more than {most} iterations"
            )
        task.iteration = Iteration(
            task.ID, deferator, self, self._codec, lambda: self._forget(task)
        )
        if self._isLeaving:
            task.iteration.hurry()
        return amp.Box(status=Status.ITERATOR, result=task.ID)

    def _getNext(self, box: Any) -> Any:
        task = self.tasks.get(box[b"ID"])
        count = numberOf(box[b"count"]) if b"count" in box else None
        if task is None or task.iteration is None:
            text = "There's no such iteration, or it has ended"
            if count is None:
                return fail(amp.RemoteAmpError(b"FAILED", text))
            error = dumpsText("WorkerError", text)
            return GetNext.makeResponse(
                {"error": error, "isValid": False, "moreLeft": False}, self
            )
        return Deferred.fromCoroutine(task.iteration.getNext(count))


class _WrongArguments(Exception):
    """
    The arguments of a task can't be accepted.
    """


class _Budget:
    """
    Bytes that may be in use at the same time.
    """

    def __init__(self, left: int) -> None:
        self._left = left
        # Who waits for how many, in order.
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    def acquire(self, size: int) -> Deferred[None]:
        d: Deferred[None] = Deferred(lambda _: self._waiting.remove((size, d)))
        self._waiting.append((size, d))
        self._serve()
        return d

    def release(self, size: int) -> None:
        self._left += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, d = self._waiting.popleft()
            self._left -= size
            d.callback(None)


def _error(name: str, text: str) -> Any:
    return amp.Box(status=Status.ERROR, result=dumpsText(name, text))
