"""
The child's side of the conversation where a reactor runs in the child: callables may
return Deferreds, and iterators may yield them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.reactor import globalReactor
from .boxes import Boxes
from .calls import CallRunner
from .protocol import Kind
from .server import Universe
from .startup import handleSignals
from .stream import Stream

__all__ = ["ReactorUniverse", "run"]


class ReactorUniverse(Universe):
    """
    What goes on in a child with a reactor.
    """

    def __init__(
        self,
        send: Callable[[int, int, bytes], None],
        reactor: Any,
        boxes: Boxes | None = None,
    ) -> None:
        """
        Make a universe in which nothing goes on yet.

        @param send: Sends a frame: kind, number of the call, payload.

        @param reactor: The reactor.

        @param boxes: See L{Universe.__init__}.
        """
        super().__init__(send, boxes)
        self.runners = {raw: CallRunner(raw, reactor=reactor) for raw in (False, True)}
        self._reactor = reactor
        self._awaitsNothing = False
        self._scheduled = False

    def ran(self, number: int, outcome: Any, start: float) -> None:
        """
        Take what the runner has made of a call, when it's there.

        @param number: The number of the call.

        @param outcome: A status and what goes with it, or a Deferred of them.

        @param start: When the call began.
        """
        if isinstance(outcome, Deferred):
            ran = super().ran
            outcome.addCallback(lambda pair: ran(number, pair, start))
        else:
            super().ran(number, outcome, start)

    def answer(self, number: int, status: Any, result: Any, seconds: float) -> None:
        """
        Send what a call has come to, and see to it that an iteration goes on.

        @param number: The number of the call.

        @param status: The status.

        @param result: What goes with it.

        @param seconds: How long it took.
        """
        super().answer(number, status, result, seconds)
        self.schedule()

    def schedule(self) -> None:
        """
        Have iterations advanced when the reactor has had its turn.
        """
        if not self._scheduled and not self.idle:
            self._scheduled = True
            self._reactor.callLater(0, self._advance)

    def step(self, stream: Stream, end: float) -> bool:
        """
        Advance an iteration, whose items may be Deferreds.

        @param stream: The iteration.

        @param end: Until when.

        @return: Whether it has come to its end.
        """

        def add(item: Any) -> bool:
            if not isinstance(item, Deferred):
                return stream.add(item)
            stream.waiting = True
            stream.flush()
            item.addCallback(self._arrived, stream)
            item.addErrback(self._failed, stream)
            return not stream.waiting and stream.number in self.streams

        return stream.make(end, self.wake, add)

    def _advance(self) -> None:
        """
        Advance an iteration, and come back if there is more to do.
        """
        self._scheduled = False
        if not self.idle:
            self.advance()
        self.schedule()

    def _arrived(self, item: Any, stream: Stream) -> None:
        """
        Send an item that has been waited for.

        @param item: The item.

        @param stream: The iteration.
        """
        stream.waiting = False
        if stream.number in self.streams:
            stream.add(item)
            stream.flush()
            self.schedule()

    def _failed(self, failure: Failure, stream: Stream) -> None:
        """
        Tell that the Deferred of an item has failed.

        @param failure: How.

        @param stream: The iteration.
        """
        stream.waiting = False
        if stream.number in self.streams:
            self.failStream(stream, failure.value or RuntimeError(str(failure)))
            stream.close()


@implementer(IReadDescriptor)
class _Listener:
    """
    The pipe from the parent, in the reactor.
    """

    def __init__(self, fd: int, receive: Callable[[bool], None]) -> None:
        """
        Make it.

        @param fd: The descriptor.

        @param receive: Called, with whether to wait for it, when there is something
            to be read.
        """
        self._fd = fd
        self._receive = receive

    def fileno(self) -> int:
        """
        Implement C{IReadDescriptor.fileno}.

        @return: The descriptor.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        Implement C{ILoggingContext.logPrefix}.

        @return: The prefix.
        """
        return "asynqueue"

    def doRead(self) -> None:
        """
        Implement C{IReadDescriptor.doRead}.
        """
        self._receive(True)

    def connectionLost(self, reason: Failure) -> None:
        """
        Implement C{IReadDescriptor.connectionLost}. The pipe has come to its end,
        unless it's only the reactor that has.

        @param reason: Why.
        """
        self._receive(False)


def run(
    pipes: Any,
    setUp: Callable[[memoryview], Any],
    giveUp: Callable[[BaseException], object],
) -> None:
    """
    Do what the parent says until it says no more.

    @param pipes: The pipes to and from the parent.

    @param setUp: Makes this interpreter like the parent's, and runs the initializer,
        which may return a Deferred.

    @param giveUp: Ends this process, because that has failed.
    """
    reactor = globalReactor()

    def wake() -> None:
        reactor.callFromThread(universe.tellDone)

    universe: ReactorUniverse = ReactorUniverse(pipes.send, reactor, pipes.boxes(wake))

    # What comes before the initializer is done.
    early: list[Any] = []
    ready = False

    def isReady(_: object) -> None:
        nonlocal ready
        ready = True
        pipes.send(Kind.HELLO, 0, b"")
        while early:
            handle(early.pop(0))

    def isNot(failure: Failure) -> None:
        giveUp(failure.value or RuntimeError(str(failure)))

    def handle(frame: Any) -> None:
        universe.handle(frame)
        universe.schedule()

    def stop() -> None:
        reactor.removeReader(listener)
        with suppress(ReactorNotRunning):
            reactor.stop()

    def receive(wait: bool) -> None:
        frames = pipes.receive(wait)
        if frames is None:
            stop()
            return
        for frame in frames:
            if frame[0] == Kind.STOP:
                stop()
            elif frame[0] == Kind.SETUP:
                maybeDeferred(setUp, frame[2]).addCallbacks(isReady, isNot)
            elif ready:
                handle(frame)
            else:
                early.append(frame)

    listener = _Listener(pipes.fileno(), receive)
    reactor.addReader(listener)
    # The reactor's own handlers would have a signal stop the child, which is for the
    # parent to decide.
    reactor.callWhenRunning(handleSignals, pipes.fileno(), pipes.tellSignalled)
    reactor.run()
    universe.close()
