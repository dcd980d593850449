"""
The child's side of the conversation: calls are run in order, and iterations are
advanced in between.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import AsyncGeneratorType, CoroutineType
from typing import Any, NoReturn

from .boxes import Boxes
from .calls import CallRunner
from .describe import isDeferred
from .payloads import NotPicklable, dumpsLarge, loads, told
from .pickling import Packed
from .protocol import COUNT, SECONDS, Frame, Kind
from .raised import dumpsException
from .status import ErrorText, Status
from .stream import Flusher, Stream

__all__ = ["Universe"]

#: An iteration is advanced for so many seconds before other calls have their turn, and
#: what it has yielded is sent.
_TURN_SECONDS = 0.001


class Universe:
    """
    What goes on in the child.

    @ivar streams: The iterations that go on, by number of the call.

    @ivar boxes: Where large arguments come from, and large results go.
    """

    def __init__(
        self, send: Callable[[int, int, bytes], None], boxes: Boxes | None = None
    ) -> None:
        """
        Make a universe in which nothing goes on yet.

        @param send: Sends a frame: kind, number of the call, payload.

        @param boxes: Where large arguments come from, and large results go. By default,
            all goes the way of what's small.
        """
        self.boxes = boxes or Boxes(-1, -1)
        self.streams: dict[int, Stream] = {}
        self.runners = {raw: CallRunner(raw) for raw in (False, True)}
        self._send = send
        self._flusher: Flusher | None = None
        self._turn = 0
        self._pid = os.getpid()
        self._awaitsNothing = True

    def handle(self, frame: Frame) -> None:
        """
        Do what the parent asks for.

        @param frame: A frame from it.
        """
        kind, number, payload = frame
        if kind == Kind.CALL:
            self.call(number, payload)
        elif kind == Kind.LARGE_CALL:
            self.call(number, payload, self.boxes.load)
        elif kind == Kind.RELEASE:
            self.boxes.release(payload)
        elif kind == Kind.TAKEN:
            stream = self.streams.get(number)
            if stream is not None:
                stream.taken(*COUNT.unpack(payload))
        elif kind == Kind.CLOSE:
            stream = self.streams.pop(number, None)
            if stream is not None:
                stream.close()

    def call(
        self,
        number: int,
        payload: memoryview,
        load: Callable[[memoryview], Any] = loads,
    ) -> None:
        """
        Run a call, and send what it comes to.

        @param number: The number of the call.

        @param payload: The call, pickled.

        @param load: Unpickles it.
        """
        # Unpickling counts: calls with large arguments aren't short.
        start = perf_counter()
        try:
            f, args, kw, raw = load(payload)
        except BaseException as error:  # noqa: BLE001 - runs code of users
            self.fail(
                number, _reason(error), "The call can't be unpickled in the child", 0.0
            )
            return
        try:
            outcome = self.runners[raw]((f, args, kw))
        except BaseException as error:  # noqa: BLE001 - results may be of any class
            outcome = (
                Status.ERROR,
                ErrorText("The result can't be sent", _reason(error)),
            )
        if os.getpid() != self._pid:
            leaveFork(outcome)
        self.ran(number, outcome, start)

    def ran(self, number: int, outcome: Any, start: float) -> None:
        """
        Take what the runner has made of a call.

        @param number: The number of the call.

        @param outcome: A status and what goes with it.

        @param start: When the call began.
        """
        status, result = outcome
        self.answer(number, status, result, perf_counter() - start)

    def answer(self, number: int, status: bytes, result: Any, seconds: float) -> None:
        """
        Send what a call has come to.

        @param number: The number of the call.

        @param status: The status.

        @param result: What goes with it.

        @param seconds: How long it took.
        """
        if status == Status.RAN:
            if self._awaitsNothing and (unawaited := _kindOfAwaitable(result)):
                error = TypeError(
                    f"The callable has returned {unawaited}, and nothing waits for it"
                    " in a child process without a reactor: useReactor=True has one run"
                )
                self.fail(number, error, str(error), seconds)
                return
            try:
                packed = dumpsLarge(result)
            except NotPicklable as error:
                self.fail(number, error, "The result can't be pickled", seconds)
                return
            head = SECONDS.pack(seconds)
            if isinstance(packed, bytes):
                self._send(Kind.RESULT, number, head + packed)
            else:
                self._answerLarge(number, packed, head)
        elif status == Status.ITERATOR:
            self.streams[number] = Stream(number, result, self._send)
            self._send(Kind.ITERATOR, number, SECONDS.pack(seconds))
        else:
            self.fail(number, result.exception, str(result), seconds)

    def _answerLarge(self, number: int, packed: Packed, head: bytes) -> None:
        """
        Send a large result.

        @param number: The number of the call.

        @param packed: The result.

        @param head: What the payload begins with: how long the call took.
        """
        try:
            payload = self.boxes.outbox.put(packed, head)
        except MemoryError as error:
            [seconds] = SECONDS.unpack(head)
            self.fail(number, error, "There's no room for the result", seconds)
        else:
            self._send(Kind.LARGE_RESULT, number, payload)

    def fail(
        self, number: int, error: BaseException, text: str, seconds: float
    ) -> None:
        """
        Send that a call has failed.

        @param number: The number of the call.

        @param error: The exception.

        @param text: Text about it.

        @param seconds: How long it took.
        """
        if isinstance(error, NotPicklable):
            text = f"{text}: {error}"
        self._send(
            Kind.ERROR, number, SECONDS.pack(seconds) + dumpsException(error, text)
        )

    def tellDone(self) -> None:
        """
        Tell the parent which parts of arguments aren't needed any longer.
        """
        done = self.boxes.inbox.done()
        if done:
            self._send(Kind.RELEASE, 0, done)

    @property
    def idle(self) -> bool:
        """
        Whether there's nothing to do before the next frame comes.
        """
        return not any(stream.ready for stream in self.streams.values())

    def advance(self) -> None:
        """
        Advance one of the iterations that are ready, for a moment.
        """
        ready = [stream for stream in self.streams.values() if stream.ready]
        self._turn += 1
        stream = ready[self._turn % len(ready)]
        try:
            ended = self.step(stream, perf_counter() + _TURN_SECONDS)
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self.failStream(stream, error)
        else:
            if ended:
                self.endStream(stream, Kind.END, b"")

    def step(self, stream: Stream, end: float) -> bool:
        """
        Advance an iteration.

        @param stream: The iteration.

        @param end: Until when.

        @return: Whether it has come to its end.
        """
        return stream.make(end, self.wake)

    def wake(self) -> None:
        """
        Have what is pending sent in a moment.
        """
        if self._flusher is None:
            self._flusher = Flusher(self.streams)
        self._flusher.wake()

    def failStream(self, stream: Stream, error: BaseException) -> None:
        """
        Tell that an iteration has failed.

        @param stream: The iteration.

        @param error: The exception.
        """
        text = f"The iteration has failed: {told(error)}"
        self.endStream(stream, Kind.FAILED, dumpsException(error, text))
        if isinstance(error, NotPicklable):
            stream.close()

    def close(self) -> None:
        """
        End all iterations.
        """
        while self.streams:
            self.streams.popitem()[1].close()

    def endStream(self, stream: Stream, kind: int, payload: bytes) -> None:
        """
        Tell of the end of an iteration.

        @param stream: The iteration.

        @param kind: The kind of frame that tells it.

        @param payload: What goes with it.
        """
        self.streams.pop(stream.number, None)
        stream.flush()
        self._send(kind, stream.number, payload)


def _reason(error: BaseException) -> NotPicklable:
    reason = NotPicklable(told(error))
    reason.__cause__ = error
    return reason


def _kindOfAwaitable(result: Any) -> str | None:
    """
    Name what a reactor would wait for, C{None} for other results.
    """
    if type(result) is CoroutineType:
        # It isn't to be warned of besides.
        result.close()
        return "a coroutine"
    if type(result) is AsyncGeneratorType:
        return "an asynchronous generator"
    return "a Deferred" if isDeferred(result) else None


def leaveFork(outcome: Any) -> NoReturn:
    """
    End a process that a call has forked, and that has left the call. It mustn't answer.
    """
    error = None
    if isinstance(outcome, tuple) and outcome[0] == Status.ERROR:
        error = outcome[1].exception
    code = 0
    if isinstance(error, SystemExit):
        code = (
            error.code if isinstance(error.code, int) else int(error.code is not None)
        )
    elif error is not None:
        code = 1
        with suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code & 0xFF)
