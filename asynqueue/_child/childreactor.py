"""The child's side with a reactor: callables and iterators may give Deferreds."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import CoroutineType
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.reactor import IReactorAll, globalReactor
from .callserver import CallServer
from .describe import callText, failureText
from .pipes import Pipes, end, giveUp, setUp
from .protocol import Frame, Kind
from .startup import handleSignals
from .stream import Stream


@implementer(IReadDescriptor)
class ReactorCallServer(CallServer):
    # _awaited has the Deferreds of calls that are waited for, by number of the call;
    # _early has frames that come before the initializer is done, else it's None.

    def __init__(self, pipes: Any, reactor: IReactorAll) -> None:
        super().__init__(pipes)
        self._reactor = reactor
        self._isScheduled = False
        self._awaited: dict[int, Deferred[object]] = {}
        self._early: list[Frame] | None = None

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

    def keepSignals(self) -> None:
        # The reactor's own handlers would have a signal stop the child, which is for
        # the parent to decide.
        handleSignals(self.fileno(), self._pipes.tellSignalled)
        signal.signal(signal.SIGURG, self.interrupted)

    def handle(self, kind: int, number: int, payload: memoryview) -> None:
        if kind == Kind.SETUP:
            self._early = []
            maybeDeferred(setUp, payload).addCallbacks(self._isReady, self._isNot)
        elif self._early is not None:
            self._early.append((kind, number, payload))
        else:
            super().handle(kind, number, payload)
            self._pipes.check()
            if self.isStopped:
                self._stop()
            else:
                self.schedule()

    def returned(
        self, number: int, result: object, call: tuple[object, ...], start: float
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
        def add(item: object) -> bool:
            if not isinstance(item, Deferred):
                return stream.add(item)
            stream.waiting = True
            stream.flush()
            item.addCallback(self._itemFired, stream)
            item.addErrback(self._itemFailed, stream)
            return not stream.waiting and stream.number in self.streams

        return stream.make(end, self.wake, add)

    def _receive(self, *, wait: bool) -> None:
        frames = self._pipes.receive(wait)
        if frames is None:
            self._stop()
        else:
            for frame in frames:
                self.handle(*frame)

    def _isReady(self, _: object) -> None:
        early, self._early = self._early or [], None
        self._send(Kind.HELLO, 0, b"")
        for frame in early:
            self.handle(*frame)

    def _isNot(self, failure: Failure) -> None:
        giveUp(failure.value or RuntimeError(str(failure)))

    def _stop(self) -> None:
        self._reactor.removeReader(self)
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _awaitedFired(
        self, result: object, number: int, call: tuple[object, ...], start: float
    ) -> None:
        del self._awaited[number]
        super().returned(number, result, call, start)
        self.schedule()

    def _awaitedFailed(
        self, failure: Failure, number: int, call: tuple[object, ...], start: float
    ) -> None:
        del self._awaited[number]
        error = failure.value or RuntimeError(str(failure))
        self.raised(number, error, failureText(failure, callText(*call[:3])), start)

    def _advance(self) -> None:
        self._isScheduled = False
        self.advance()
        self.schedule()

    def _itemFired(self, item: object, stream: Stream) -> None:
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


def run() -> NoReturn:
    """Do what the parent says until it says no more, then end this process."""
    import_module(sys.argv[1]).install()
    end(waits=serve(globalReactor()))


def serve(reactor: IReactorAll) -> bool:
    """Do what the parent says until it says stop or, which is C{False}, has gone."""
    pipes = Pipes(lambda: reactor.callFromThread(pipes.tellUnneeded))
    server = ReactorCallServer(pipes, reactor)
    reactor.addReader(server)
    reactor.callWhenRunning(server.keepSignals)
    reactor.run()
    server.close()
    return server.isStopped
