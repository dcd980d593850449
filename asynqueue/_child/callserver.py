"""
The child's side: what the parent says is done, until it says no more. Calls are run in
order, iterations advanced in between.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, NoReturn

from .buffers import Incoming
from .calls import isIteration, kindOfAwaitable
from .describe import PLAIN, callText, errorText
from .exceptions import dumpsException, endsIteration
from .pickling import NotPicklable, Packed, describeError, dumps, loads
from .pipes import Pipes, end, flushAndExit, giveUp, setUp
from .protocol import BUFFERS, COUNT, ChildFD, Kind
from .startup import handleSignals
from .stream import Flusher, Stream

__all__ = ["CallInterrupted", "CallServer"]

#: An iteration is advanced for so many seconds before other calls have their turn, and
#: what it has yielded is sent.
_TURN_SECONDS = 0.001


#: Functions of ours that call code of the user's, which has no frame if it's C's.
_USERS_CODE = ("call", "_makeSome", "runChunk", "runTraced")


class CallInterrupted(BaseException):
    """
    Raised in a call that is to be stopped, because it was cancelled or has run out of
    time, while its child process is to live on.
    """


class CallServer:
    """Runs calls, and advances iterations."""

    #: What to do where nothing waits for results.
    _advice = "in a child process without a reactor: useReactor=True has one run there"

    # running is the number of the call or iteration whose code is run right now, 0 for
    # none. Nothing but that may be interrupted. It's isStopped if the parent has said
    # so; else, it has gone.

    def __init__(self, pipes: Any) -> None:
        self.streams: dict[int, Stream] = {}
        self.running = 0
        self.isStopped = False
        self._pipes = pipes
        self._send: Callable[[int, int, bytes | Packed], None] = pipes.send
        self._flusher: Flusher | None = None
        self._turn = 0
        self._pid = os.getpid()

    def serve(self) -> None:
        """Do what the parent says until it says no more."""
        pipes, streams = self._pipes, self.streams
        unneeded = pipes.reader.waiting
        while not self.isStopped:
            frames = pipes.receive(not streams or self.isIdle())
            if frames is None:
                break
            frames.reverse()
            while frames:
                # Not to be kept in mind while the next are waited for, if it's large.
                kind, number, payload = frames.pop()
                self.handle(kind, number, payload)
                del payload
            if streams:
                self.advance()
            if unneeded:
                pipes.tellUnneeded()
        self.close()

    def handle(self, kind: int, number: int, payload: memoryview) -> None:
        if kind == Kind.CALL:
            if self._pipes.claim(number):
                self.call(number, payload)
        elif kind == Kind.CALL | BUFFERS:
            incoming = Incoming(self._pipes.reader, payload)
            if self._pipes.claim(number):
                self.call(number, incoming)
            else:
                incoming.discard()
        elif kind == Kind.RELEASE:
            self._pipes.release(payload)
        elif kind == Kind.TAKEN:
            stream = self.streams.get(number)
            if stream is not None:
                stream.taken(*COUNT.unpack(payload))
        elif kind == Kind.CLOSE:
            self.cancel(number)
        elif kind == Kind.SETUP:
            try:
                setUp(payload)
            except BaseException as error:  # noqa: BLE001 - runs code of users
                giveUp(error)
            self._send(Kind.HELLO, 0, b"")
        elif kind == Kind.STOP:
            self.isStopped = True

    def call(self, number: int, payload: memoryview | Incoming) -> None:
        # Unpickling counts: calls with large arguments aren't short.
        start = perf_counter()
        try:
            call = loads(payload) if type(payload) is memoryview else payload.loads()
            f, args, kw, _ = call
        except BaseException as error:  # noqa: BLE001 - runs code of users
            self.fail(number, _cantBeUnpickled(error), start)
            return
        del payload
        try:
            self.running = number
            result = f(*args, **kw)
            self.running = 0
        except BaseException as error:  # noqa: BLE001 - the callable is the user's
            self.running = 0
            if os.getpid() != self._pid:
                _leaveFork(error)
            self.raised(number, error, errorText(error, callText(f, args, kw)), start)
            return
        if os.getpid() != self._pid:
            _leaveFork(None)
        if type(result) in PLAIN:  # most are, which saves 1 µs of 7
            self.answer(number, result, start)
        else:
            self.returned(number, result, call, start)

    def returned(
        self, number: int, result: object, call: tuple[object, ...], start: float
    ) -> None:
        awaitable = kindOfAwaitable(result)
        if awaitable:
            error = TypeError(
                f"The callable has returned {awaitable}, and nothing waits for it"
                f" {self._advice}"
            )
            self.fail(number, error, start)
        elif not call[3] and isIteration(result):
            self._iterate(number, result, start)
        else:
            self.answer(number, result, start)

    def _iterate(self, number: int, iterator: Iterator[object], start: float) -> None:
        self.streams[number] = Stream(number, iterator, self._send)
        self._send(Kind.ITERATOR, number, dumps(perf_counter() - start))

    def answer(self, number: int, result: object, start: float) -> None:
        try:
            self._send(Kind.RESULT, number, dumps((perf_counter() - start, result)))
        except NotPicklable as error:
            error = NotPicklable(f"The result can't be pickled: {error}")
            self.fail(number, error, start)
        except MemoryError as error:
            self.fail(number, error, start, "There's no room for the result")

    def raised(
        self, number: int, error: BaseException, text: str, start: float
    ) -> None:
        if endsIteration(error):
            carrier = RuntimeError(f"The call raised {describeError(error)}")
            carrier.__cause__ = error
            error = carrier
        self.fail(number, error, start, text)

    def fail(
        self, number: int, error: BaseException, start: float, text: str = ""
    ) -> None:
        """Send that a call has failed, with a text other than that of the error."""
        seconds = perf_counter() - start
        answer = dumpsException(error, text or str(error), seconds)
        self._send(Kind.ERROR, number, answer)

    def cancel(self, number: int) -> None:
        """End what a call has begun, if it goes on."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.close()
            self._send(Kind.END, number, b"")

    def isIdle(self) -> bool:
        """Tell whether there's nothing to do before the next frame comes."""
        return not any(stream.ready for stream in self.streams.values())

    def advance(self) -> None:
        """Advance one of the iterations that are ready, if any, for a moment."""
        ready = [stream for stream in self.streams.values() if stream.ready]
        if not ready:
            return
        self._turn += 1
        stream = ready[self._turn % len(ready)]
        ended, failure = False, None
        try:
            self.running = stream.number
            ended = self.step(stream, perf_counter() + _TURN_SECONDS)
            self.running = 0
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self.running = 0
            failure = error
        if os.getpid() != self._pid:
            _leaveFork(failure)
        if failure is not None:
            self.failStream(stream, failure)
        elif ended:
            self._endStream(stream, Kind.END, b"")

    def step(self, stream: Stream, end: float) -> bool:
        """Advance an iteration for a while, and tell whether it's at its end."""
        return stream.make(end, self.wake)

    def wake(self) -> None:
        """Have what is pending sent in a moment."""
        if self._flusher is None:
            self._flusher = Flusher(self.streams)
        self._flusher.wake()

    def failStream(self, stream: Stream, error: BaseException) -> None:
        text = f"The iteration has failed: {describeError(error)}"
        self._endStream(stream, Kind.FAILED, dumpsException(error, text))
        if isinstance(error, (NotPicklable, CallInterrupted)):
            stream.close()

    def interrupted(self, signalNumber: int, frame: Any) -> None:
        """
        Raise L{CallInterrupted} in the call or iteration that the parent wants stopped,
        if its code is run right now. The handler of a signal that the parent repeats
        until it has an answer.
        """
        if not self.running or self._pipes.reader.interrupted() != self.running:
            return
        module = str(frame.f_globals.get("__name__"))
        inOurs = module.startswith("asynqueue._child.")
        if not inOurs or frame.f_code.co_name in _USERS_CODE:
            # Where a frame is being sent, or a lock is held, nothing may be raised.
            self.running = 0
            raise CallInterrupted("The call was stopped")

    def close(self) -> None:
        while self.streams:
            self.streams.popitem()[1].close()

    def _endStream(self, stream: Stream, kind: int, payload: bytes) -> None:
        self.streams.pop(stream.number, None)
        stream.flush()
        self._send(kind, stream.number, payload)


def run() -> NoReturn:
    """Do what the parent says until it says no more, then end this process."""
    pipes = Pipes()
    server = CallServer(pipes)
    handleSignals(ChildFD.CALLS, pipes.tellSignalled)
    signal.signal(signal.SIGURG, server.interrupted)
    server.serve()
    end(waits=server.isStopped)


def _leaveFork(error: BaseException | None) -> NoReturn:
    """End a process that a call has forked, and that has left it. It mustn't answer."""
    code = 0
    if isinstance(error, SystemExit):
        code = (
            error.code if isinstance(error.code, int) else int(error.code is not None)
        )
    elif error is not None:
        code = 1
        with suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)
    flushAndExit(code & 0xFF)


def _cantBeUnpickled(error: BaseException) -> NotPicklable:
    text = f"The call can't be unpickled in the child: {describeError(error)}"
    if isinstance(error, ModuleNotFoundError):
        text += (
            ". Children look for modules in the folders that sys.path of the program"
            " had when they were started: PYTHONPATH can add one"
        )
    reason = NotPicklable(text)
    reason.__cause__ = error
    return reason
