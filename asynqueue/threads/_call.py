"""
A call in a thread, and what it comes to.
"""

from __future__ import annotations

from contextvars import Context
from time import perf_counter
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._child.calls import isIteration
from .._child.describe import callText, errorText
from .._child.status import RAN, ErrorText, Status, StatusResult
from ..errors import ThreadError
from ..iteration import IterationProducer
from ._iteration import IterationOwner, ThreadIteration

__all__ = ["Call", "CallOwner", "DeferredCall"]


class CallOwner(IterationOwner, Protocol):
    """
    Who has a thread for calls.
    """

    @property
    def reactor(self) -> IReactorTime:
        """
        The reactor.
        """

    def callEnded(self, call: Call) -> bool:
        """
        Note that a call is being delivered.

        @param call: The call.

        @return: Whether anybody wants to know.
        """

    def settled(self) -> None:
        """
        Note that what a call has come to has been handed over.
        """

    def iterationBegun(self, iteration: ThreadIteration) -> None:
        """
        Note that an iteration needs the thread.

        @param iteration: The iteration.
        """

    def cancel(self, call: Call, abandon: bool = False) -> None:
        """
        Drop a call.

        @param call: The call.

        @param abandon: Whether to abandon the thread if it's at the call.
        """


class Call:
    """
    A call to be made in a thread.

    The thread writes C{result}, C{error}, C{seconds}, C{iteration}, and at last
    C{finished}. The reactor's thread reads them when it's told that the job is done;
    C{finished} it may read at any time. It writes C{dropped}.

    @ivar finished: Whether the thread is through with it.

    @ivar seconds: How long it took.
    """

    __slots__ = (
        "_call",
        "_consumer",
        "_context",
        "_dropped",
        "_iteration",
        "_owner",
        "_raw",
        "error",
        "finished",
        "result",
        "seconds",
    )

    def __init__(
        self,
        owner: CallOwner,
        context: Context,
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        raw: bool,
        consumer: Any,
    ) -> None:
        """
        Make a call, which isn't given to a thread yet.

        @param owner: Who has the thread.

        @param context: The context to make it in.

        @param call: The callable, its arguments, and its keywords.

        @param raw: C{True} for an iterator to be a result like any other.

        @param consumer: The consumer of an iteration, or C{None}.
        """
        self._owner = owner
        self._context = context
        self._call: Any = call
        self._raw = raw
        self._consumer = consumer
        self._dropped = False
        self._iteration: ThreadIteration | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.seconds = 0.0

    def work(self) -> None:
        """
        Implement L{Job.work<asynqueue.threads._loop.Job.work>}: make the call.
        """
        f, args, kw = self._call
        began = perf_counter()
        try:
            result = self._context.run(f, *args, **kw)
        except BaseException as error:  # noqa: BLE001 - the callable is the user's
            trace = error.__traceback__
            self.error = error.with_traceback(trace.tb_next if trace else None)
            self.describe(f, args, kw)
        else:
            if self._raw or not isIteration(result):
                self.result = result
            else:
                self._iterate(result)
        self.seconds = perf_counter() - began
        # What isn't needed any longer is let go in the thread, not in the reactor's.
        del f, args, kw
        self._call = None
        self.finished = True

    def describe(self, f: Any, args: Any, kw: Any) -> None:
        """
        Put text about the exception that was raised in place of a result, in the
        thread.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.
        """
        assert self.error is not None
        call = callText(f, args, kw)
        text = errorText(self.error, call)
        self.result = ErrorText(text, _bearable(self.error, call))

    def deliver(self) -> None:
        """
        Implement L{Message.deliver<asynqueue.threads._loop.Message.deliver>}.
        """
        if self._owner.callEnded(self):
            self.finish()
            self._owner.settled()
        elif self._iteration is not None:
            self._iteration.discard()

    def drop(self) -> None:
        """
        Note that nobody wants to know of it any longer.
        """
        self._dropped = True
        if self._iteration is not None:
            self._iteration.drop()

    def finish(self) -> None:
        """
        Hand over what it has come to, in the reactor's thread.
        """
        raise NotImplementedError

    def lose(self, failure: Failure) -> None:
        """
        Give it up, in the reactor's thread: its thread is lost.

        @param failure: What has become of the thread.
        """
        raise NotImplementedError

    def outcome(self) -> StatusResult:
        """
        Get what it has come to, in the reactor's thread.

        @return: The status/result pair.

        @raise Exception: What the consumer's C{registerProducer} has raised.
        """
        iteration = self._iteration
        if iteration is None:
            status = RAN if self.error is None else Status.ERROR
            return status, self.result
        if self._consumer is None and iteration.empty:
            return Status.ITERATOR, []
        self._owner.iterationBegun(iteration)
        deferator = iteration.begin()
        deferator.reactor = self._owner.reactor
        if self._consumer is None:
            return Status.ITERATOR, deferator
        try:
            producer = IterationProducer(
                deferator, self._consumer, reactor=self._owner.reactor
            )
        except BaseException:
            deferator.stop()
            raise
        return Status.ITERATOR, producer

    def _iterate(self, iterator: Any) -> None:
        """
        Begin an iteration, in the thread.

        @param iterator: The iterator.
        """
        self._iteration = iteration = ThreadIteration(
            iterator, self._context, self._owner
        )
        if self._dropped:
            iteration.drop()
        if self._consumer is None:
            iteration.first()
        else:
            iteration.hold()


class DeferredCall(Call):
    """
    A call whose Deferred fires with what it comes to.

    @ivar d: The Deferred. Cancelling it drops the call if it hasn't been begun, else
        its result.
    """

    __slots__ = ("_pair", "_running", "_wrap", "d")

    def __init__(
        self,
        owner: CallOwner,
        context: Context,
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        raw: bool,
        consumer: Any,
        pair: bool,
        wrap: bool,
    ) -> None:
        """
        Make a call, which isn't given to a thread yet.

        @param owner: See L{Call}.

        @param context: See L{Call}.

        @param call: See L{Call}.

        @param raw: See L{Call}.

        @param consumer: See L{Call}.

        @param pair: C{True} for the Deferred to fire with the status/result pair.

        @param wrap: C{True} for it to fail with L{ThreadError}, else with the exception
            that was raised.
        """
        super().__init__(owner, context, call, raw, consumer)
        self._pair = pair
        self._wrap = wrap
        self._running: Deferred[Any] | None = None
        self.d: Deferred[Any] = Deferred(self._cancelled)

    def describe(self, f: Any, args: Any, kw: Any) -> None:
        """
        Do as L{Call.describe}, if the text is wanted.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.
        """
        if self._pair or self._wrap:
            super().describe(f, args, kw)

    def finish(self) -> None:
        """
        Fire the Deferred.
        """
        d = self.d
        if self._iteration is None and not self._pair and self.error is None:
            if isinstance(self.result, Deferred):
                self._wait(self.result)
            else:
                d.callback(self.result)
            return
        try:
            pair = self.outcome()
        except Exception:  # noqa: BLE001 - the consumer may be of anybody's making
            d.errback(Failure())
            return
        if self._pair:
            d.callback(pair)
        elif self.error is not None:
            d.errback(self._failure(self.error))
        elif isinstance(pair[1], IterationProducer):
            self._wait(pair[1].run())
        else:
            d.callback(pair[1])

    def lose(self, failure: Failure) -> None:
        """
        Fail the Deferred.

        @param failure: How.
        """
        self.d.errback(failure)

    def _failure(self, error: BaseException) -> Failure:
        """
        Make the failure of the Deferred.

        @param error: What was raised.

        @return: The failure.
        """
        if not self._wrap:
            return Failure(error)
        wrapped = ThreadError(str(self.result))
        wrapped.__cause__ = error
        return Failure(wrapped)

    def _wait(self, running: Deferred[Any]) -> None:
        """
        Have the Deferred fire when another one does.

        @param running: The other one.
        """
        self._running = running
        running.chainDeferred(self.d)

    def _cancelled(self, d: Deferred[Any]) -> None:
        """
        Drop the call: its Deferred is being cancelled.

        @param d: The Deferred.
        """
        if self._running is not None:
            self._running.cancel()
        else:
            self._owner.cancel(self)


def _bearable(error: BaseException, call: str) -> BaseException:
    """
    Get an exception that can be raised wherever somebody waits for the call.

    @param error: The exception.

    @param call: Text about the call that raised it.

    @return: The exception. In place of C{StopIteration}, which in generators and
        coroutines means something else, a C{RuntimeError} with it as the cause.
    """
    if not isinstance(error, StopIteration):
        return error
    bearable = RuntimeError(f"{call} raised StopIteration")
    bearable.__cause__ = error
    return bearable
