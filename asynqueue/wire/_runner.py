"""
What runs the methods of a universe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._child.calls import isIteration
from .._child.describe import callText, errorText, failureText
from .._child.status import ErrorText, Status, StatusResult
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import WorkerError
from ..iteration import Deferator
from ..threads._looper import ThreadLooper
from ._universe import WireWorkerUniverse, tableOf

__all__ = ["Call", "WireRunner"]


class Call:
    """
    A method that is being run.

    @ivar d: A Deferred that fires with a status and a result. An error is an
        L{ErrorText} with the exception.

    @ivar stop: Called to stop the work. What it then comes to is of no interest.
    """

    __slots__ = ("d", "stop")

    def __init__(
        self, d: Deferred[StatusResult], stop: Callable[[], object] | None
    ) -> None:
        """
        Make a call.

        @param d: The Deferred.

        @param stop: See C{stop}. By default, the Deferred is cancelled.
        """
        self.d = d
        self.stop = stop or d.cancel


class WireRunner:
    """
    Runs the methods of a universe, in the reactor's thread or in threads of their own.

    @ivar wwu: The universe.

    @ivar table: Its public methods, by name.

    @ivar iterators: The iterations from which L{getNext} gets items, by ID.

    @ivar abandoned: How many threads have been given up because they were stuck in a
        call that nobody waits for.
    """

    def __init__(
        self, wwu: WireWorkerUniverse, *, reactor: IReactorTime | None = None
    ) -> None:
        """
        Make a runner.

        @param wwu: The universe.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If that's no universe.
        """
        self.wwu = wwu
        self.table = tableOf(wwu)
        self.iterators: dict[str, Deferator] = {}
        self.abandoned = 0
        self._reactor = orGlobalReactor(reactor)
        self._idle: list[ThreadLooper] = []
        self._busy: set[ThreadLooper] = set()
        self._numbers = count(1)
        self._down = False

    def call(self, methodName: str, *args: Any, **kw: Any) -> Deferred[dict[str, Any]]:
        """
        Run a method.

        The keywords C{thread}, true to run it in a thread, and C{raw}, true for an
        iterator to come back as it is, don't reach the method.

        @param methodName: Its name.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: A Deferred that fires with a dict of C{status} and C{result}: C{b'r'}
            with what it has returned; C{b'n'} with C{None}; C{b'i'} with an ID to give
            to L{getNext}; C{b'e'} with text about what was raised.
        """
        thread, raw = kw.pop("thread", False), kw.pop("raw", False)
        if methodName not in self.table:
            return succeed({"status": b"e", "result": self.unknown(methodName)})
        call = self.start(methodName, args, kw, thread, raw)
        return call.d.addCallback(self._described)

    def getNext(self, ID: str) -> Deferred[dict[str, Any]]:
        """
        Get the next item of an iteration.

        @param ID: The iteration's ID.

        @return: A Deferred that fires with a dict of C{value}; C{isValid}, whether
            there was an item; and C{moreLeft}, whether there may be another. It fails
            with what the iterator has raised, or with L{WorkerError} if there's no such
            iteration.
        """
        deferator = self.iterators.get(ID)
        if deferator is None:
            return maybeDeferred(self._noIteration, ID)
        return deferator.__anext__().addCallbacks(
            lambda value: {"value": value, "isValid": True, "moreLeft": True},
            lambda failure: self._iterationEnded(failure, ID),
        )

    def shutdown(self) -> Deferred[None]:
        """
        End all iterations, and let the threads end.

        @return: A Deferred that fires with C{None} when the threads have ended.
        """
        self._down = True
        deferators, self.iterators = list(self.iterators.values()), {}
        for deferator in deferators:
            deferator.stop()
        return Deferred.fromCoroutine(self._stopThreads())

    def unknown(self, name: object) -> str:
        """
        Say that there's no such method.

        @param name: Its name.

        @return: The text, which has the names that there are.
        """
        names = ", ".join(sorted(self.table)) or "none"
        return f"There's no method {name!r} to be called; there are: {names}"

    def start(
        self,
        name: str,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        thread: bool,
        raw: bool,
    ) -> Call:
        """
        Run a method.

        @param name: Its name, which is in the table.

        @param args: Its arguments.

        @param kw: Its keywords.

        @param thread: Whether to run it in a thread.

        @param raw: Whether an iterator comes back as it is.

        @return: The call.
        """
        f = self.table[name]
        if thread:
            return self._startInThread(f, name, args, kw, raw)
        try:
            result = f(*args, **kw)
        except BaseException as error:  # noqa: BLE001 - the method is the user's
            return Call(succeed(_raised(Failure(error), name, args, kw)), None)
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if not isinstance(result, Deferred):
            return Call(succeed(_ran(result, raw)), None)
        stop = partial(_cancel, result)
        d = result.addCallbacks(
            _ran,
            _raised,
            callbackArgs=(raw,),
            errbackArgs=(name, args, kw),
        )
        return Call(d, stop)

    def _startInThread(
        self,
        f: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        raw: bool,
    ) -> Call:
        """
        Run a method in a thread, which is this call's until it's done, with the
        iteration that may come of it.

        @param f: The method.

        @param name: See L{start}.

        @param args: See there.

        @param kw: See there.

        @param raw: See there.

        @return: The call.
        """
        looper = self._idle.pop() if self._idle else ThreadLooper(reactor=self._reactor)
        self._busy.add(looper)
        d = looper.call(partial(f, *args, **kw), raw=raw)
        d.addCallback(self._calledInThread, looper, name, args, kw)

        def stop() -> None:
            if looper in self._busy:
                self._busy.discard(looper)
                self.abandoned += 1
                log.warn(
                    "{call} was stopped, and its thread is left alone with it",
                    call=callText(name, args, kw),
                )
                d.addErrback(lambda _: None)
                looper.crash()

        return Call(d, stop)

    def _calledInThread(
        self,
        pair: StatusResult,
        looper: ThreadLooper,
        name: str,
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> StatusResult:
        """
        Note that a thread has run a method.

        @param pair: What has come of it.

        @param looper: What has the thread.

        @param name: See L{start}.

        @param args: See there.

        @param kw: See there.

        @return: The pair.
        """
        status, result = pair
        if status == Status.ITERATOR and isinstance(result, Deferator):
            result.addBoth(lambda _: self._release(looper))
            return pair
        self._release(looper)
        if status == Status.ERROR and isinstance(result, ErrorText):
            error = result.exception
            if error is not None:
                text = errorText(error, callText(name, args, kw))
                return status, ErrorText(text, error)
        return pair

    def _release(self, looper: ThreadLooper) -> None:
        """
        Have a thread be there for another call.

        @param looper: What has it.
        """
        if looper not in self._busy:
            return
        self._busy.discard(looper)
        if self._down:
            looper.stop()
        else:
            self._idle.append(looper)

    async def _stopThreads(self) -> None:
        """
        Let the threads end that are idle, and give up the others.
        """
        idle, self._idle = self._idle, []
        busy, self._busy = self._busy, set()
        for looper in busy:
            self.abandoned += 1
            looper.crash()
        for looper in idle:
            await looper.stop()

    def _described(self, pair: StatusResult) -> dict[str, Any]:
        """
        Tell what has come of a call.

        @param pair: The status and the result.

        @return: The dict.
        """
        status, result = bytes(pair[0]), pair[1]
        if status == Status.ERROR:
            result = str(result)
        elif status == Status.ITERATOR:
            result = self.register(result)
        elif result is None:
            status = bytes(Status.NONE)
        return {"status": status, "result": result}

    def register(self, iteration: Any) -> str:
        """
        Keep an iteration for L{getNext}.

        @param iteration: A L{Deferator}, or an empty list.

        @return: Its ID.
        """
        ID = str(next(self._numbers))
        if not isinstance(iteration, Deferator):
            iteration = Deferator(iteration)
        self.iterators[ID] = iteration
        return ID

    def _iterationEnded(self, failure: Failure, ID: str) -> dict[str, Any]:
        """
        Forget an iteration.

        @param failure: How it has ended.

        @param ID: Its ID.

        @return: What tells of a regular end. Else the failure is raised.
        """
        self.iterators.pop(ID, None)
        failure.trap(StopAsyncIteration)
        return {"value": None, "isValid": False, "moreLeft": False}

    def _noIteration(self, ID: str) -> dict[str, Any]:
        """
        Say that there's no such iteration.

        @param ID: Its ID.

        @raise WorkerError: To say so.
        """
        raise WorkerError(f"There's no iteration {ID!r}, or it has ended")


def _ran(result: Any, raw: bool) -> StatusResult:
    """
    Make a pair of what a method has returned.

    @param result: It.

    @param raw: Whether an iterator comes back as it is.

    @return: The pair.
    """
    if raw or not isIteration(result):
        return Status.RAN, result
    if not isinstance(result, Deferator):
        result = Deferator(result)
    return Status.ITERATOR, result


def _raised(
    failure: Failure, name: str, args: tuple[Any, ...], kw: dict[str, Any]
) -> StatusResult:
    """
    Make a pair of how a method has failed.

    @param failure: The failure.

    @param name: The method's name.

    @param args: Its arguments.

    @param kw: Its keywords.

    @return: The pair.
    """
    text = failureText(failure, callText(name, args, kw))
    return Status.ERROR, ErrorText(text, failure.value)


def _cancel(d: Deferred[Any]) -> None:
    """
    Cancel what a method has returned.

    @param d: It.
    """
    try:
        d.cancel()
    except Exception:  # noqa: BLE001 - the canceller is the user's
        log.failure("{d} failed to be cancelled", d=d)
