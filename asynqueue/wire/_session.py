"""
The server's end of a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from .._child.status import Status
from .._support.oneshot import OneShot
from ._authentication import ServerHandshake
from ._commands import Leaving, Violation, numberOf, runTraced
from ._tasks import ServedTask, Shared, TaskConnection, errorBox
from ._values import arrayOf, dumpsText

__all__ = ["Session"]

#: Seconds that a client has to answer that the server is about to go.
_LEAVING_SECONDS = 2.0


class Session(TaskConnection):
    """
    The server's end of a connection.

    @ivar gone: Fires when the connection has ended.
    """

    pausesReading = True

    def __init__(
        self,
        shared: Shared,
        ended: Callable[[Session], object],
        reactor: IReactorTime,
    ) -> None:
        """@param ended: Called when the connection has ended."""
        super().__init__(shared, reactor)
        self.gone: OneShot[None] = OneShot()
        self._ended = ended
        self._handshake: ServerHandshake | None = None
        # Whether the client may still send tasks, for all that's known.
        self._mayCome = True
        self._count = 0

    def __repr__(self) -> str:
        return f"<client with {len(self.tasks)} tasks>"

    # The beginning and the end.

    def connectionMade(self) -> None:
        shared = self.shared
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
            self.codec = self.shared.codec

    def leave(self) -> None:
        """
        Take no more tasks, let those be done that have been started, and end the
        connection then.
        """
        if not self.isOpen:
            self.abort()
        if self.isLeaving or self.isOver:
            return
        self.isLeaving = True
        d = self.callRemote(Leaving)
        d.addTimeout(_LEAVING_SECONDS, self.reactor)
        d.addBoth(lambda _: self._noMoreCome())
        for task in list(self.tasks.values()):
            if not task.isRunning:
                task.cancel()
            elif task.iteration is not None:
                task.iteration.hurry()

    def lost(self, reason: BaseException) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.end(reason)
        for task in list(self.tasks.values()):
            task.cancel()
        self._ended(self)
        self.gone.fire(None)

    def _noMoreCome(self) -> None:
        self._mayCome = False
        self._maybeClose()

    def _maybeClose(self) -> None:
        if self.isLeaving and not self._mayCome and not self.tasks:
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
        task = ServedTask(self, ID, box)
        if self.isLeaving:
            return amp.Box(status=Status.DISCONNECTED)
        refusal = self._refusalOf(task, box)
        if refusal is not None:
            return refusal
        self.tasks[ID] = task
        return runTraced(box, task.start)

    def _refusalOf(self, task: ServedTask, box: Any) -> Any:
        """Give the answer to a task that can't be served, or C{None}."""
        limits, runner = self.shared.limits, self.shared.runner
        if task.name not in runner.table:
            return errorBox("WorkerError", runner.unknown(task.name))
        # WireWorkers know this limit, and keep to it.
        if len(self.tasks) >= limits.maxTasks:
            return errorBox(
                "WorkerError",
                f"The server refuses more than {limits.maxTasks} tasks at once",
            )
        if b"size" in box:
            size = numberOf(box[b"size"])
            most = min(limits.largest, limits.maxHeld)
            if not size or not task.isNamed:
                raise Violation("large arguments that can't be")
            if size > most:
                return errorBox(
                    "WorkerError",
                    f"The server refuses arguments of {size} bytes, where {most} are"
                    " accepted",
                )
        return None

    def _cancelTask(self, box: Any) -> None:
        task = self.tasks.get(box[b"ID"])
        if task is not None:
            task.cancel()

    def forget(self, task: ServedTask) -> None:
        super().forget(task)
        if self.isLeaving:
            # The answer is to be sent first.
            self.reactor.callLater(0, self._maybeClose)

    def _getNext(self, box: Any) -> Any:
        task = self.tasks.get(box[b"ID"])
        count = numberOf(box[b"count"]) if b"count" in box else None
        if task is None or task.iteration is None:
            text = "There's no such iteration, or it has ended"
            if count is None:
                return fail(amp.RemoteAmpError(b"FAILED", text))
            return amp.Box(
                values=arrayOf([]),
                error=dumpsText("WorkerError", text),
                isValid=b"False",
                moreLeft=b"False",
            )
        return Deferred.fromCoroutine(task.iteration.getNext(count))
