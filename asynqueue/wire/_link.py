"""
The client's end of a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Protocol, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._child.status import Status
from ..errors import SerializationError, WorkerError
from ..interfaces import ITask
from ._chunks import Incoming, Overrun
from ._iteration import Iteration
from ._peer import Fields, Peer, numberOf
from ._pushing import END, FAILED, ITEM
from ._raised import loadsError
from ._values import INLINE, Codec, NotEncodable, Payload, TooLarge

__all__ = ["Job", "Link", "LinkOwner", "Stage"]


class Stage(Enum):
    """
    How far a task has come, as far as is known here.
    """

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


class _Timed(Protocol):
    """
    What a task with a time limit can do besides.
    """

    def startTimer(self) -> None:
        """
        Start its clock, from the beginning.
        """

    def stopTimer(self) -> None:
        """
        Stop its clock.
        """


@define(eq=False)
class Job:
    """
    A task that the worker has accepted.

    @ivar task: The task.

    @ivar name: The method's name.

    @ivar args: Its arguments.

    @ivar kw: Its keywords.

    @ivar thread: Whether it's run in a thread of the server.

    @ivar raw: Whether an iterator comes back as it is.

    @ivar consumer: The consumer of an iteration, or C{None}.

    @ivar done: Fires when the worker is ready for another task.

    @ivar ID: What it's called on the connection.

    @ivar stage: How far it has come.

    @ivar iteration: The iteration that it has led to.

    @ivar records: What has come of that, and waits for something before it to be
        decoded. C{None} if nothing is being decoded.
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
    stage: Stage = Stage.UNSENT
    iteration: Iteration | None = None
    records: deque[tuple[bytes, list[bytes]]] | None = None


class LinkOwner(Protocol):
    """
    Who has a connection.
    """

    def linked(self, link: Link) -> None:
        """
        Take a connection that has been made.

        @param link: The connection.
        """

    def serverLeaves(self) -> None:
        """
        Send no more tasks: the server is about to go.
        """

    def jobOver(self) -> None:
        """
        Note that nothing more is to come of a job.
        """

    def unlinked(self, link: Link, reason: BaseException) -> None:
        """
        Note that the connection has ended.

        @param link: The connection.

        @param reason: Why.
        """


class Link(Peer):
    """
    The client's end of a connection.

    @ivar jobs: The jobs that aren't over, by ID.
    """

    def __init__(
        self,
        owner: LinkOwner,
        codec: Codec,
        exceptions: Iterable[type[Exception]],
        largest: int,
        heartbeat: float | None,
        inThread: Callable[..., Deferred[Any]],
        reactor: IReactorTime,
    ) -> None:
        """
        Make an end.

        @param owner: Who has it.

        @param codec: What encodes and decodes values.

        @param exceptions: Classes of exceptions that are made again.

        @param largest: How many bytes the encoding of a value may have.

        @param heartbeat: Seconds between signs of life, C{None} for none.

        @param inThread: Calls something in a thread.

        @param reactor: The reactor.
        """
        super().__init__(heartbeat, reactor)
        self.jobs: dict[bytes, Job] = {}
        self._owner = owner
        self._codec = codec
        self._exceptions = exceptions
        self._largest = largest
        self._inThread = inThread
        self._count = 0
        self.handlers |= {
            b"Held": self._isHeld,
            b"Start": self._isStarted,
            b"Leaving": self._serverLeaves,
        }

    def __repr__(self) -> str:
        """
        Name it.
        """
        return "<server>"

    def agreed(self, greeting: Fields) -> None:
        """
        Implement L{Peer.agreed}: send no pickles that wouldn't be accepted.

        @param greeting: What the server has said of itself.
        """
        if b"pickle" not in greeting:
            self._codec = self._codec.withoutPickles()

    def connected(self) -> None:
        """
        Implement L{Peer.connected}.
        """
        self._owner.linked(self)

    def disconnected(self, reason: BaseException) -> None:
        """
        Implement L{Peer.disconnected}.

        @param reason: Why.
        """
        self._owner.unlinked(self, reason)

    def submit(self, job: Job) -> None:
        """
        Send a job to the server.

        @param job: The job.
        """
        self._count += 1
        job.ID = b"%d" % self._count
        self.jobs[job.ID] = job
        codec = self._codec
        try:
            args = codec.encode(job.args) if job.args else b""
            kw = codec.encode(job.kw, INLINE - len(args)) if job.kw else b""
        except TooLarge:
            self._inThread(codec.encodeLarge, (job.args, job.kw)).addCallbacks(
                self._submitLarge,
                self._unsendable,
                callbackArgs=(job,),
                errbackArgs=(job,),
            )
        except NotEncodable:
            self._unsendable(Failure(), job)
        else:
            job.stage = Stage.SENT
            self._ask(job, {b"args": args, b"kw": kw})

    def drop(self, task: ITask) -> bool:
        """
        Have the work on a task be stopped.

        @param task: The task.

        @return: Whether it's one of this connection's.
        """
        job = next((job for job in self.jobs.values() if job.task is task), None)
        if job is None:
            return False
        if job.iteration is not None:
            job.iteration.release()
        self.tell(b"Cancel", job.ID)
        self._over(job)
        return True

    def record(self, ID: bytes, kind: bytes, pieces: list[bytes]) -> None:
        """
        Implement L{Peer.record}: take a result, or something of an iteration.

        @param ID: The job's ID.

        @param kind: What it is.

        @param pieces: Its content.
        """
        job = self.jobs[ID]
        if job.stage is Stage.ARRIVING:
            del self.incoming[ID]
            self._inThread(self._codec.decodePieces, pieces).addCallbacks(
                self._arrived,
                self._undecoded,
                callbackArgs=(job,),
                errbackArgs=(job,),
            )
        elif job.records is not None:
            job.records.append((kind, pieces))
        else:
            self._iterate(job, kind, pieces)

    def overrun(self, ID: bytes, error: Overrun) -> None:
        """
        Implement L{Peer.overrun}: only what is too large fails.

        @param ID: The job's ID.

        @param error: What is wrong.
        """
        job = self.jobs[ID]
        failure = Failure(WorkerError(f"{job.task!r} has led to {error}"))
        self.tell(b"Close", ID)
        iteration = job.iteration
        self._over(
            job, job.task.errback if iteration is None else iteration.fail, failure
        )

    def sent(self, ID: bytes) -> None:
        """
        Implement L{Peer.sent}: all of a job's arguments have been sent.

        @param ID: The job's ID.
        """
        self.outgoing.pop(ID, None)
        job = self.jobs.get(ID)
        if job is not None and job.stage is Stage.UNSENT:
            job.stage = Stage.SENT

    def _ask(self, job: Job, box: Fields) -> None:
        """
        Ask the server to run a job.

        @param job: The job.

        @param box: Its arguments.
        """
        box[b"ID"] = job.ID
        box[b"methodName"] = job.name.encode()
        if job.thread:
            box[b"thread"] = b"1"
        if job.raw:
            box[b"raw"] = b"1"
        self.ask(b"RunTask", box, lambda answer: self._replied(job, answer))

    def _submitLarge(self, payload: Payload, job: Job) -> None:
        """
        Send a job whose arguments are large.

        @param payload: What the arguments and keywords have become.

        @param job: The job.
        """
        if job.stage is Stage.OVER or self.transport is None:
            return
        size = sum(map(len, payload))
        if size > self._largest:
            text = f"they have {size} bytes, where {self._largest} may be sent"
            self._unsendable(Failure(NotEncodable(text)), job)
            return
        self._ask(job, {b"size": b"%d" % size})
        self.send(job.ID, ITEM, payload)

    def _unsendable(self, failure: Failure, job: Job) -> None:
        """
        Fail a job that can't be sent.

        @param failure: Why.

        @param job: The job.
        """
        if job.stage is Stage.OVER:
            return
        text = f"{job.task!r} can't be sent: {failure.getErrorMessage()}"
        error = SerializationError(text)
        error.__cause__ = cast(Exception, failure.value).__cause__
        self._over(job, job.task.errback, Failure(error))

    def _replied(self, job: Job, box: Fields | None) -> None:
        """
        Hand back what has come of a job.

        @param job: The job.

        @param box: The server's answer.
        """
        if job.stage is Stage.OVER:
            return
        # If that's an answer to less than all of the arguments, the rest isn't sent.
        self.outgoing.pop(job.ID, None)
        task = job.task
        if box is None:
            refused = WorkerError(f"The server can't take {task!r}")
            self._over(job, task.errback, Failure(refused))
            return
        status, data = box[b"status"], box.get(b"result", b"")
        if status == Status.ITERATOR:
            self._beginIteration(job)
        elif status == Status.CHUNKS:
            self._awaitLarge(job, numberOf(data))
        elif status == Status.RAN:
            try:
                value = self._codec.decode(data)
            except ValueError:
                self._undecoded(Failure(), job)
            else:
                self._arrived(value, job)
        elif status == Status.ERROR:
            text = loadsError(self._codec, data, self._exceptions)
            if isinstance(text.exception, SerializationError):
                self._over(job, task.errback, Failure(text.exception))
            else:
                self._over(job, task.callback, (Status.ERROR, text))
        elif status == Status.NONE:
            self._over(job, task.callback, (Status.NONE, None))
        else:
            self._over(job, task.callback, (Status.DISCONNECTED, None))

    def _arrived(self, value: Any, job: Job) -> None:
        """
        Give a job's task its result.

        @param value: The result.

        @param job: The job.
        """
        if job.stage is not Stage.OVER:
            self._over(job, job.task.callback, (Status.RAN, value))

    def _undecoded(self, failure: Failure, job: Job) -> None:
        """
        Fail a job whose result can't be decoded.

        @param failure: Why.

        @param job: The job.
        """
        if job.stage is Stage.OVER:
            return
        text = (
            f"The result of {job.task!r} can't be accepted: {failure.getErrorMessage()}"
        )
        self._over(job, job.task.errback, Failure(SerializationError(text)))

    def _awaitLarge(self, job: Job, size: int) -> None:
        """
        Have a large result come.

        @param job: The job.

        @param size: Its size.
        """
        job.stage = Stage.ARRIVING
        self.incoming[job.ID] = Incoming(self._largest, size)
        if size > self._largest:
            limit = f"a value of {size} bytes, where {self._largest} are accepted"
            self.overrun(job.ID, Overrun(limit))

    def _beginIteration(self, job: Job) -> None:
        """
        Have items come.

        @param job: The job.
        """
        job.stage = Stage.ITERATING
        self.incoming[job.ID] = Incoming(self._largest)
        job.iteration = Iteration(
            job.task,
            job.consumer,
            lambda count: self.tell(b"Credit", job.ID, items=count),
            lambda: self._closeIteration(job),
        )
        if not job.done.called:
            job.done.callback(None)

    def _closeIteration(self, job: Job) -> None:
        """
        End an iteration that nobody wants to go on.

        @param job: Its job.
        """
        if job.stage is not Stage.OVER:
            self.tell(b"Close", job.ID)
            self._over(job)

    def _iterate(self, job: Job, kind: bytes, pieces: list[bytes]) -> None:
        """
        Take something of an iteration.

        @param job: Its job.

        @param kind: What it is.

        @param pieces: Its content.
        """
        iteration = cast(Iteration, job.iteration)
        if kind == ITEM:
            if sum(map(len, pieces)) > INLINE:
                job.records = deque()
                self._inThread(self._codec.decodePieces, pieces).addCallbacks(
                    self._itemDecoded,
                    self._itemUndecoded,
                    callbackArgs=(job,),
                    errbackArgs=(job,),
                )
                return
            try:
                item = self._codec.decodePieces(pieces)
            except ValueError:
                self._itemUndecoded(Failure(), job)
            else:
                iteration.push(item)
            return
        data = b"".join(pieces)
        if kind == END:
            self._over(job, lambda _: iteration.end())
            return
        error: BaseException
        if kind == FAILED:
            text = loadsError(self._codec, data, self._exceptions)
            error = text.exception or WorkerError(text)
        else:
            error = SerializationError(data.decode("utf-8", "replace"))
        self._over(job, iteration.fail, Failure(error))

    def _itemDecoded(self, item: Any, job: Job) -> None:
        """
        Take an item that has been decoded in a thread, and what has come since.

        @param item: The item.

        @param job: The iteration's job.
        """
        records, job.records = job.records or (), None
        if job.stage is Stage.OVER:
            return
        cast(Iteration, job.iteration).push(item)
        for kind, pieces in records:
            if job.ID in self.jobs:
                self.record(job.ID, kind, pieces)

    def _itemUndecoded(self, failure: Failure, job: Job) -> None:
        """
        Fail an iteration of which an item can't be decoded.

        @param failure: Why.

        @param job: The iteration's job.
        """
        if job.stage is Stage.OVER:
            return
        self.tell(b"Close", job.ID)
        text = (
            f"An item of the iteration of {job.task!r} can't be accepted:"
            f" {failure.getErrorMessage()}"
        )
        iteration = cast(Iteration, job.iteration)
        self._over(job, iteration.fail, Failure(SerializationError(text)))

    def _isHeld(self, box: Fields) -> None:
        """
        Note that a job is held back.

        @param box: The box.
        """
        job = self.jobs.get(box[b"ID"])
        if job is not None and job.stage is Stage.SENT:
            job.stage = Stage.HELD
            if job.task.timeout is not None:
                cast(_Timed, job.task).stopTimer()

    def _isStarted(self, box: Fields) -> None:
        """
        Note that a job that was held back is run now.

        @param box: The box.
        """
        job = self.jobs.get(box[b"ID"])
        if job is None or job.stage is not Stage.HELD:
            self.refuse(box, "UNKNOWN", "The task isn't wanted any longer")
            return
        job.stage = Stage.SENT
        if job.task.timeout is not None:
            cast(_Timed, job.task).startTimer()
        self.answer(box[b"_ask"])

    def _serverLeaves(self, box: Fields) -> None:
        """
        Send no more tasks.

        @param box: The box.
        """
        self._owner.serverLeaves()
        self.answer(box[b"_ask"])

    def _over(
        self, job: Job, give: Callable[[Any], object] | None = None, what: Any = None
    ) -> None:
        """
        Forget a job. The worker is ready for another.

        @param job: The job.

        @param give: Called before that, to give the task what it has come to.

        @param what: This.
        """
        job.stage = Stage.OVER
        self.jobs.pop(job.ID, None)
        self.incoming.pop(job.ID, None)
        self.outgoing.pop(job.ID, None)
        if give is not None:
            give(what)
        if not job.done.called:
            job.done.callback(None)
        self._owner.jobOver()
