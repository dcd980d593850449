"""The child's side with a reactor: callables and iterators may give Deferreds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.reactor import globalReactor
from .callserver import CallServer
from .describe import callText, failureText
from .protocol import Kind
from .startup import handleSignals
from .stream import Stream


class ReactorCallServer(CallServer):
    # _awaited has the Deferreds of calls that are waited for, by number of the call.

    def __init__(self, pipes: Any, reactor: Any) -> None:
        super().__init__(pipes)
        self._reactor = reactor
        self._isScheduled = False
        self._awaited: dict[int, Deferred[Any]] = {}

    def handle(self, kind: int, number: int, payload: memoryview) -> None:
        super().handle(kind, number, payload)
        self._pipes.check()
        self.schedule()

    def returned(
        self, number: int, result: Any, call: tuple[Any, ...], start: float
    ) -> None:
        if type(result) is CoroutineType:
            result = Deferred.fromCoroutine(result)
        if not isinstance(result, Deferred):
            super().returned(number, result, call, start)
            return
        self._awaited[number] = result
        args = number, call, start
        result.addCallbacks(
            self._awaitedFired, self._awaitedFailed, callbackArgs=args, errbackArgs=args
        )

    def cancel(self, number: int) -> None:
        awaited = self._awaited.get(number)
        if awaited is not None:
            awaited.cancel()
        else:
            super().cancel(number)

    def schedule(self) -> None:
        """Have iterations advanced when the reactor has had its turn."""
        if not self._isScheduled and not self.isIdle():
            self._isScheduled = True
            self._reactor.callLater(0, self._advance)

    def step(self, stream: Stream, end: float) -> bool:
        def add(item: Any) -> bool:
            if not isinstance(item, Deferred):
                return stream.add(item)
            stream.waiting = True
            stream.flush()
            item.addCallback(self._itemFired, stream)
            item.addErrback(self._itemFailed, stream)
            return not stream.waiting and stream.number in self.streams

        return stream.make(end, self.wake, add)

    def _awaitedFired(
        self, result: Any, number: int, call: tuple[Any, ...], start: float
    ) -> None:
        del self._awaited[number]
        super().returned(number, result, call, start)
        self.schedule()

    def _awaitedFailed(
        self, failure: Failure, number: int, call: tuple[Any, ...], start: float
    ) -> None:
        del self._awaited[number]
        error = failure.value or RuntimeError(str(failure))
        self.raised(number, error, failureText(failure, callText(*call[:3])), start)

    def _advance(self) -> None:
        self._isScheduled = False
        if not self.isIdle():
            self.advance()
        self.schedule()

    def _itemFired(self, item: Any, stream: Stream) -> None:
        stream.waiting = False
        if stream.number in self.streams:
            stream.add(item)
            stream.flush()
            self.schedule()

    def _itemFailed(self, failure: Failure, stream: Stream) -> None:
        stream.waiting = False
        if stream.number in self.streams:
            self.failStream(stream, failure.value or RuntimeError(str(failure)))
            stream.close()


@implementer(IReadDescriptor)
class _Conversation:
    # Frames that come before the initializer is done are kept in _early, which is None
    # from then on.

    def __init__(
        self,
        setUp: Callable[[memoryview], Any],
        giveUp: Callable[[BaseException], object],
        reactor: Any,
        makePipes: Callable[[Callable[[], object]], Any],
    ) -> None:
        self.isStopped = False
        self._setUp = setUp
        self._giveUp = giveUp
        self._reactor = reactor
        self._pipes: Any = makePipes(
            lambda: reactor.callFromThread(self._pipes.tellUnneeded)
        )
        self.server = ReactorCallServer(self._pipes, reactor)
        self._early: list[Any] | None = []
        reactor.addReader(self)
        reactor.callWhenRunning(self._keepSignals)

    def fileno(self) -> int:
        fd: int = self._pipes.fileno()
        return fd

    def logPrefix(self) -> str:
        return "asynqueue"

    def doRead(self) -> None:
        self._receive(wait=True)

    def connectionLost(self, reason: Failure) -> None:
        # The pipe has come to its end, unless it's only the reactor that has.
        self._receive(wait=False)

    def _keepSignals(self) -> None:
        # The reactor's own handlers would have a signal stop the child, which is for
        # the parent to decide.
        handleSignals(self.fileno(), self._pipes.tellSignalled)
        signal.signal(signal.SIGURG, self.server.interrupted)

    def _receive(self, *, wait: bool) -> None:
        frames = self._pipes.receive(wait)
        if frames is None:
            self._stop()
            return
        for frame in frames:
            if frame[0] == Kind.SETUP:
                d = maybeDeferred(self._setUp, frame[2])
                d.addCallbacks(self._isReady, self._isNot)
            elif self._early is not None:
                self._early.append(frame)
            else:
                self._handle(*frame)

    def _isReady(self, _: object) -> None:
        early, self._early = self._early or [], None
        self._pipes.send(Kind.HELLO, 0, b"")
        for frame in early:
            self._handle(*frame)

    def _isNot(self, failure: Failure) -> None:
        self._giveUp(failure.value or RuntimeError(str(failure)))

    def _handle(self, kind: int, number: int, payload: memoryview) -> None:
        if kind == Kind.STOP:
            self.isStopped = True
            self._stop()
        else:
            self.server.handle(kind, number, payload)

    def _stop(self) -> None:
        self._reactor.removeReader(self)
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def run(
    setUp: Callable[[memoryview], Any],
    giveUp: Callable[[BaseException], object],
    makePipes: Callable[[Callable[[], object]], Any],
) -> bool:
    """Do what the parent says until it says stop or, which is C{False}, has gone."""
    reactor = globalReactor()
    conversation = _Conversation(setUp, giveUp, reactor, makePipes)
    reactor.run()
    conversation.server.close()
    return conversation.isStopped
