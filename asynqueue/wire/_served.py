"""
The server's end of a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, cast

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._child.describe import callText
from .._child.status import ErrorText, Status, StatusResult
from .._support.log import log
from ..errors import WorkerError
from ..iteration import Deferator
from ._chunks import Incoming
from ._commands import VERSION
from ._limits import Limits
from ._peer import Fields, Peer, numberOf
from ._pushing import ITEM, Pushing
from ._raised import dumpsError, dumpsText
from ._runner import Call, WireRunner
from ._slots import Slots
from ._values import Codec, NotEncodable, Payload, TooLarge

__all__ = ["ServedPeer", "Stage"]


class Stage(Enum):
    """
    How far a task has come.
    """

    #: Its arguments are on their way.
    RECEIVING = auto()

    #: It waits for a slot.
    HELD = auto()

    #: It has a slot, and waits for the client to say that it still wants it.
    STARTING = auto()

    #: It's being run.
    RUNNING = auto()

    #: Its result, or its iteration, is on its way.
    SENDING = auto()

    #: Nothing is to be done for it any longer.
    DONE = auto()


@define(eq=False)
class _Served:
    """
    A task of the client's.

    @ivar peer: Where it has come from.

    @ivar ID: What it's called there.

    @ivar tag: What its answer is to be marked with.

    @ivar name: The method's name.

    @ivar thread: Whether it's to be run in a thread.

    @ivar raw: Whether an iterator comes back as it is.

    @ivar pulled: Whether items of an iteration are asked for one by one.

    @ivar stage: How far it has come.

    @ivar args: Arguments.

    @ivar kw: Keywords.

    @ivar size: How many bytes its arguments have that are on their way.

    @ivar call: The running method.

    @ivar pushing: Its iteration.
    """

    peer: ServedPeer
    ID: bytes
    tag: bytes
    name: str
    thread: bool
    raw: bool
    pulled: bool
    stage: Stage = Stage.RECEIVING
    args: tuple[Any, ...] = ()
    kw: dict[str, Any] = Factory(dict)
    size: int = 0
    call: Call | None = None
    pushing: Pushing | None = None

    def begin(self) -> None:
        """
        Implement L{Applicant.begin<asynqueue.wire._slots.Applicant.begin>}.
        """
        self.peer.mayStart(self)


class ServedPeer(Peer):
    """
    The server's end of a connection.

    @ivar tasks: The client's tasks that aren't done, by ID.

    @ivar leaving: Whether the server takes no more tasks.
    """

    def __init__(
        self,
        runner: WireRunner,
        slots: Slots,
        codec: Codec,
        limits: Limits,
        heartbeat: float | None,
        inThread: Callable[..., Deferred[Any]],
        gone: Callable[[ServedPeer], object],
        reactor: IReactorTime,
    ) -> None:
        """
        Make an end.

        @param runner: What runs methods.

        @param slots: How many it runs at once.

        @param codec: What encodes and decodes values.

        @param limits: What the peer may ask for.

        @param heartbeat: Seconds between signs of life, C{None} for none.

        @param inThread: Calls something in a thread.

        @param gone: Called when the connection has ended.

        @param reactor: The reactor.
        """
        super().__init__(heartbeat, reactor)
        self.tasks: dict[bytes, _Served] = {}
        self.leaving = False
        self._runner = runner
        self._slots = slots
        self._codec = codec
        self._limits = limits
        self._inThread = inThread
        self._gone = gone
        self._held = 0
        self._acknowledged = False
        self._flushing: set[bytes] = set()
        self._pulled: set[str] = set()
        self.handlers |= {
            b"Hello": self._hello,
            b"RunTask": self._runTask,
            b"GetNext": self._getNext,
            b"Cancel": lambda box: self._drop(box[b"ID"]),
            b"Close": lambda box: self._drop(box[b"ID"]),
        }

    def __repr__(self) -> str:
        """
        Name it.
        """
        return f"<client with {len(self.tasks)} tasks>"

    def agreed(self, greeting: Fields) -> None:
        """
        Implement L{Peer.agreed}: send no pickles that wouldn't be accepted.

        @param greeting: What the client has said of itself.
        """
        if b"pickle" not in greeting:
            self._codec = self._codec.withoutPickles()

    def leave(self) -> None:
        """
        Take no more tasks, let those be done that have been started, and end the
        connection then.
        """
        if self.leaving:
            return
        self.leaving = True
        self.ask(b"Leaving", {}, self._hasAcknowledged)
        for task in list(self.tasks.values()):
            if task.stage in (Stage.RECEIVING, Stage.HELD, Stage.STARTING):
                self._notRun(task)
        self._maybeClose()

    def disconnected(self, reason: BaseException) -> None:
        """
        Implement L{Peer.disconnected}: stop all work for this client.

        @param reason: Why it's gone.
        """
        for ID in list(self.tasks):
            self._drop(ID)
        for pulled in self._pulled:
            iteration = self._runner.iterators.pop(pulled, None)
            if iteration is not None:
                iteration.stop()
        self._gone(self)

    def record(self, ID: bytes, kind: bytes, pieces: list[bytes]) -> None:
        """
        Implement L{Peer.record}: take the arguments of a task.

        @param ID: The task's ID.

        @param kind: Of no interest.

        @param pieces: The arguments.
        """
        del self.incoming[ID]
        task = self.tasks[ID]
        self._inThread(self._codec.decodePieces, pieces).addCallbacks(
            self._decoded, self._undecoded, callbackArgs=(task,), errbackArgs=(task,)
        )

    def sent(self, ID: bytes) -> None:
        """
        Implement L{Peer.sent}: a result has been sent, or all of an iteration that's
        there.

        @param ID: The task's ID.
        """
        task = self.tasks.get(ID)
        if task is not None and task.stage is Stage.SENDING and task.pushing is None:
            self._done(task)

    def taken(self, ID: bytes, count: int) -> None:
        """
        Implement L{Peer.taken}.

        @param ID: The task's ID.

        @param count: How many items.
        """
        task = self.tasks.get(ID)
        if task is not None and task.pushing is not None:
            task.pushing.taken(count)

    def mayStart(self, task: _Served) -> None:
        """
        Ask the client whether a task that was held back is to be run.

        @param task: The task, which has a slot now.
        """
        task.stage = Stage.STARTING
        self.ask(b"Start", {b"ID": task.ID}, lambda answer: self._wanted(task, answer))

    def _hello(self, box: Fields) -> None:
        """
        Take what a client says first that is known without a key.

        @param box: The box.
        """
        if box[b"version"] == VERSION:
            fields = {"pickle": b"1"} if self._codec.pickles else {}
            self.agreed(box)
            self.answer(box[b"_ask"], version=VERSION, **fields)
        else:
            self.refuse(box, "VERSION", "There's another version", version=VERSION)
            self.close()

    def _runTask(self, box: Fields) -> None:
        """
        Take a task.

        @param box: The box.
        """
        tag = box[b"_ask"]
        ID = box.get(b"ID")
        task = _Served(
            self,
            b"_" + tag if ID is None else ID,
            tag,
            box[b"methodName"].decode("utf-8"),
            b"thread" in box,
            b"raw" in box,
            ID is None,
        )
        if task.ID in self.tasks:
            raise ValueError("a task with an ID that another has")
        if self.leaving:
            self.answer(tag, status=b"d")
        elif len(self.tasks) >= self._limits.tasks:
            self._tooMuch(tag, f"more than {self._limits.tasks} tasks at once")
        elif task.name not in self._runner.table:
            text = self._runner.unknown(task.name)
            self.answer(tag, status=b"e", result=dumpsText("WorkerError", text))
        elif b"size" in box:
            self._receive(task, numberOf(box[b"size"]))
        else:
            self.tasks[task.ID] = task
            try:
                args = _decoded(self._codec, box.get(b"args"), ())
                kw = _decoded(self._codec, box.get(b"kw"), {})
            except ValueError:
                self._undecoded(Failure(), task)
            else:
                self._decoded((args, kw), task)

    def _receive(self, task: _Served, size: int) -> None:
        """
        Take a task whose arguments are large.

        @param task: The task.

        @param size: Their size.
        """
        largest = self._limits.largest
        if size > largest:
            self._tooMuch(
                task.tag, f"arguments of {size} bytes, where {largest} are accepted"
            )
        elif self._held + size > self._limits.held:
            self._tooMuch(
                task.tag,
                f"more than {self._limits.held} bytes of arguments at once",
            )
        else:
            self._held += size
            task.size = size
            self.tasks[task.ID] = task
            self.incoming[task.ID] = Incoming(largest, size)

    def _tooMuch(self, tag: bytes, what: str) -> None:
        """
        Refuse a task.

        @param tag: What its answer is to be marked with.

        @param what: What is too much.
        """
        text = f"The server refuses {what}"
        log.warn("{peer}: {text}", peer=self, text=text)
        self.answer(tag, status=b"e", result=dumpsText("WorkerError", text))

    def _decoded(self, call: Any, task: _Served) -> None:
        """
        Run a task, or hold it back.

        @param call: Arguments and keywords.

        @param task: The task.
        """
        self._unhold(task)
        if task.stage is Stage.DONE:
            return
        if not isinstance(call, tuple) or len(call) != 2:
            self._undecoded(Failure(ValueError("no call")), task)
            return
        args, kw = call
        if not isinstance(args, tuple) or not isinstance(kw, dict):
            self._undecoded(Failure(ValueError("no call")), task)
            return
        task.args, task.kw = args, kw
        if self._slots.take(task):
            self._run(task)
        else:
            task.stage = Stage.HELD
            self._slots.wait(task)
            self.tell(b"Held", task.ID)

    def _undecoded(self, failure: Failure, task: _Served) -> None:
        """
        Refuse a task whose arguments can't be decoded.

        @param failure: Why.

        @param task: The task.
        """
        self._unhold(task)
        if task.stage is Stage.DONE:
            return
        text = (
            f"The arguments of {task.name} can't be accepted:"
            f" {failure.getErrorMessage()}"
        )
        self._answerError(task, dumpsText("SerializationError", text))

    def _unhold(self, task: _Served) -> None:
        """
        Count the bytes of arguments no longer that were on their way.

        @param task: The task.
        """
        self._held -= task.size
        task.size = 0

    def _wanted(self, task: _Served, answer: Fields | None) -> None:
        """
        Run a task if the client wants it to be.

        @param task: The task.

        @param answer: The client's answer.
        """
        if task.stage is not Stage.STARTING:
            return
        if answer is None:
            self._notRun(task)
        else:
            self._run(task)

    def _run(self, task: _Served) -> None:
        """
        Run a task.

        @param task: The task, which has a slot.
        """
        task.stage = Stage.RUNNING
        args, kw = task.args, task.kw
        try:
            call = self._runner.start(task.name, args, kw, task.thread, task.raw)
        except Exception:  # noqa: BLE001 - there may be no thread to be had
            self._failed(Failure(), task)
            return
        task.call = call
        call.d.addCallbacks(
            self._finished, self._failed, callbackArgs=(task,), errbackArgs=(task,)
        ).addErrback(lambda failure: log.failure("{task}", failure, task=task))

    def _finished(self, pair: StatusResult, task: _Served) -> None:
        """
        Answer what has come of a task.

        @param pair: The status and the result.

        @param task: The task.
        """
        status, result = pair
        if task.stage is not Stage.RUNNING:
            if status == Status.ITERATOR and isinstance(result, Deferator):
                result.stop()
            return
        self._free(task)
        if status == Status.ERROR:
            error = result.exception if isinstance(result, ErrorText) else None
            self._answerError(task, self._dumps(task, error or WorkerError(result)))
        elif status == Status.ITERATOR:
            self._iterate(task, result)
        elif result is None:
            self._answer(task, Status.NONE, b"")
        else:
            self._answerValue(task, result)

    def _failed(self, failure: Failure, task: _Served) -> None:
        """
        Answer that a task has failed.

        @param failure: How.

        @param task: The task.
        """
        if task.stage is Stage.RUNNING:
            self._free(task)
            self._answerError(task, self._dumps(task, cast(Exception, failure.value)))

    def _answerValue(self, task: _Served, result: Any) -> None:
        """
        Answer with a value.

        @param task: The task.

        @param result: The value.
        """
        try:
            data = self._codec.encode(result)
        except TooLarge:
            task.stage = Stage.SENDING
            self._inThread(self._codec.encodeLarge, result).addCallbacks(
                self._sendLarge,
                self._unsendable,
                callbackArgs=(task,),
                errbackArgs=(task,),
            )
        except NotEncodable:
            self._unsendable(Failure(), task)
        else:
            self._answer(task, Status.RAN, data)

    def _unsendable(self, failure: Failure, task: _Served) -> None:
        """
        Answer that a result can't be sent.

        @param failure: Why.

        @param task: The task.
        """
        if task.stage is Stage.DONE:
            return
        text = (
            f"What {task.name} has returned can't be sent: {failure.getErrorMessage()}"
        )
        self._answerError(task, dumpsText("SerializationError", text))

    def _sendLarge(self, payload: Payload, task: _Served) -> None:
        """
        Send a value that is large.

        @param payload: What it has become.

        @param task: The task.
        """
        if task.stage is Stage.DONE:
            return
        if task.pulled:
            text = "The result is large, which needs a task with an ID"
            self._answerError(task, dumpsText("WorkerError", text))
            return
        size = sum(map(len, payload))
        self.answer(task.tag, status=b"c", result=b"%d" % size)
        self.send(task.ID, ITEM, payload)

    def _iterate(self, task: _Served, result: Any) -> None:
        """
        Have items be sent, or asked for.

        @param task: The task.

        @param result: A L{Deferator}, or an empty list.
        """
        iterations = sum(other.pushing is not None for other in self.tasks.values())
        if iterations + len(self._pulled) >= self._limits.iterators:
            if isinstance(result, Deferator):
                result.stop()
            text = f"The server refuses more than {iterations} iterations at once"
            self._answerError(task, dumpsText("WorkerError", text))
            return
        if task.pulled:
            ID = self._runner.register(result)
            self._pulled.add(ID)
            self._answer(task, Status.ITERATOR, ID.encode())
            return
        task.stage = Stage.SENDING
        self.answer(task.tag, status=b"i", result=task.ID)
        if not isinstance(result, Deferator):
            result = Deferator(result)
        task.pushing = Pushing(
            result,
            self._codec,
            lambda kind, payload: self._push(task, kind, payload),
            self._inThread,
            lambda error: self._dumps(task, error),
            lambda: self._pushed(task),
            self.reactor,
        )
        self._checkPushed(task)

    def _push(self, task: _Served, kind: bytes, payload: Payload) -> None:
        """
        Send a record of an iteration: items together that come one after the other.

        @param task: The task.

        @param kind: What it is.

        @param payload: Its content.
        """
        ID = task.ID
        if task.stage is Stage.DONE:
            return
        if kind != ITEM:
            self._flushing.discard(ID)
            self.send(ID, kind, payload)
            return
        self.put(ID, kind, payload)
        if ID not in self._flushing:
            self._flushing.add(ID)
            self.reactor.callLater(0, self._flush, ID)

    def _flush(self, ID: bytes) -> None:
        """
        Send the items that have come.

        @param ID: The iteration's ID.
        """
        if ID in self._flushing:
            self._flushing.discard(ID)
            self.pump(ID)

    def _pushed(self, task: _Served) -> None:
        """
        Note that an iteration has come to its end.

        @param task: Its task.
        """
        task.stage = Stage.DONE
        self._checkPushed(task)

    def _checkPushed(self, task: _Served) -> None:
        """
        Forget a task whose iteration has come to its end.

        @param task: The task.
        """
        if task.stage is Stage.DONE and task.pushing is not None:
            task.pushing = None
            outgoing = self.outgoing.get(task.ID)
            task.stage = Stage.SENDING
            if outgoing is None or not outgoing.size:
                self._done(task)

    def _answer(self, task: _Served, status: bytes, result: bytes) -> None:
        """
        Answer a task, and be done with it.

        @param task: The task.

        @param status: The status.

        @param result: The result, encoded.
        """
        self.answer(task.tag, status=bytes(status), result=result)
        self._done(task)

    def _answerError(self, task: _Served, encoded: bytes) -> None:
        """
        Answer that a task has failed, and be done with it.

        @param task: The task.

        @param encoded: How.
        """
        self._answer(task, Status.ERROR, encoded)

    def _notRun(self, task: _Served) -> None:
        """
        Answer that a task hasn't been run, and won't be.

        @param task: The task.
        """
        self._withdraw(task)
        self._answer(task, Status.DISCONNECTED, b"")

    def _dumps(self, task: _Served, error: BaseException) -> bytes:
        """
        Encode what a task has raised.

        @param task: The task.

        @param error: It.

        @return: The encoding.
        """
        call = callText(task.name, task.args, task.kw)
        return dumpsError(self._codec, error, call)

    def _drop(self, ID: bytes) -> None:
        """
        Stop the work on a task, and forget it. Nothing happens if it's done.

        @param ID: The task's ID.
        """
        task = self.tasks.get(ID)
        if task is None:
            return
        stage = task.stage
        self._withdraw(task)
        if stage is not Stage.SENDING:
            self.answer(task.tag, status=b"d")
        self._done(task)
        if stage is Stage.RUNNING and task.call is not None:
            task.call.stop()

    def _withdraw(self, task: _Served) -> None:
        """
        Have a task be on its way nowhere.

        @param task: The task.
        """
        stage, task.stage = task.stage, Stage.DONE
        self._unhold(task)
        self.incoming.pop(task.ID, None)
        self.outgoing.pop(task.ID, None)
        if stage is Stage.HELD:
            self._slots.forget(task)
        elif stage in (Stage.STARTING, Stage.RUNNING):
            self._slots.give(task.thread)
        pushing, task.pushing = task.pushing, None
        if pushing is not None:
            pushing.stop()

    def _free(self, task: _Served) -> None:
        """
        Give a task's slot back.

        @param task: The task, which has been run.
        """
        task.stage = Stage.SENDING
        self._slots.give(task.thread)

    def _done(self, task: _Served) -> None:
        """
        Forget a task.

        @param task: The task.
        """
        task.stage = Stage.DONE
        self.tasks.pop(task.ID, None)
        self.outgoing.pop(task.ID, None)
        if self.leaving:
            self._maybeClose()

    def _hasAcknowledged(self, answer: Fields | None) -> None:
        """
        Note that the client sends no more tasks.

        @param answer: Its answer.
        """
        self._acknowledged = True
        self._maybeClose()

    def _maybeClose(self) -> None:
        """
        End the connection if nothing is left to do.
        """
        if self.leaving and self._acknowledged and not self.tasks:
            self.close()

    def _getNext(self, box: Fields) -> None:
        """
        Answer with the next item of an iteration.

        @param box: The box.
        """
        ID, tag = box[b"ID"].decode(), box[b"_ask"]
        if ID not in self._pulled:
            self.refuse(box, "UNKNOWN", f"There's no iteration {ID!r}")
            return

        def answer(item: dict[str, Any]) -> None:
            if not item["isValid"]:
                self._pulled.discard(ID)
            self.answer(
                tag,
                value=self._codec.encode(item["value"]),
                isValid=b"True" if item["isValid"] else b"False",
                moreLeft=b"True" if item["moreLeft"] else b"False",
            )

        def fail(failure: Failure) -> None:
            self._pulled.discard(ID)
            self.refuse(box, "UNKNOWN", failure.getErrorMessage())

        self._runner.getNext(ID).addCallback(answer).addErrback(fail)


def _decoded(codec: Codec, data: bytes | None, default: Any) -> Any:
    """
    Decode arguments or keywords.

    @param codec: What decodes them.

    @param data: What they were encoded to, empty for none.

    @param default: What that stands for.

    @return: They.
    """
    return codec.decode(data) if data else default
