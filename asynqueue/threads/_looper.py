"""A thread for calls from the reactor, and the one that C{deferToThread} shares."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.python.failure import Failure

from .._child.status import StatusResult
from .._support.checks import checkCallable
from ..errors import ThreadError
from ..iteration import Deferator, IterationProducer
from ._calls import ThreadCall, resultOf
from ._jobs import ENDED, OPEN, JobThread


class ThreadLooper:
    """
    Makes calls in a thread of its own, one after the other.

    Context variables have the values that they had where the call was asked for.
    Iterators that calls return are iterated over in the thread, too, a few items ahead
    of whoever takes them, and closed there. The thread never keeps the interpreter from
    ending.

    The methods are for the reactor's thread.

    @ivar raw: Whether iterators come back as they are.

    @ivar returnFailure: Whether Deferreds of L{deferToThread} fail with L{ThreadError}.

    @ivar thread: The thread, for the package's own use.
    """

    def __init__(
        self,
        raw: bool = False,
        *,
        returnFailure: bool = False,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Start a thread.

        @param raw: C{True} for iterators to come back as they are.

        @param returnFailure: C{True} for the Deferreds of L{deferToThread} to fail with
            L{ThreadError}, the exception that was raised chained as its cause. By
            default they fail with the exception itself.

        @param reactor: The reactor. By default, the global one.

        @raise ThreadError: If no thread can be started.
        """
        self.raw = raw
        self.returnFailure = returnFailure
        self.thread = JobThread(reactor)

    @property
    def threadRunning(self) -> bool:
        """Whether there is a thread."""
        return self.thread.state is not ENDED

    @property
    def abandoned(self) -> int:
        """
        How many threads were given up because they were stuck in a call that nobody
        waits for any longer. Each ends with its call.
        """
        return self.thread.abandoned

    def call(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Make a call in the thread. It takes the keywords of L{deferToThread}, but for
        C{returnFailure}.

        @return: A Deferred that fires with a status and a result: C{b'r'} and what was
            returned; C{b'i'} and a L{Deferator}, an L{IterationProducer} that isn't
            running yet if there is a consumer, or an empty list for an iterator
            without items; C{b'e'} and text about what was raised. It fails with
            L{ThreadError} if the thread has been stopped.

        @raise TypeError: If the callable isn't callable.
        """
        return self._call(_pairOf, f, args, kw)

    def deferToThread(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Make a call in the thread.

        These keywords don't reach the callable:

          - C{doNext}: C{True} to make it before those that wait;
          - C{consumer}: an C{IConsumer} for the items of an iterator that is returned;
          - C{raw}: C{True} for an iterator to come back as it is;
          - C{returnFailure}: as for the looper.

        @return: A Deferred that fires with what was returned; with a L{Deferator}, or
            an empty list, for an iterator; or with the consumer when it has all the
            items. It fails with what was raised, even C{StopIteration}: a callback can
            tell the end of a sequence by it, but C{await} can't raise it. It fails with
            L{ThreadError} if the thread has been stopped; and, with C{returnFailure},
            for all that was raised but C{StopIteration} and C{IndexError}, which tell
            the end of a sequence.

            Cancelling it withdraws the call. If it has been begun, its result is
            dropped.

        @raise TypeError: If the callable isn't callable.
        """
        wrap = kw.pop("returnFailure", self.returnFailure)
        return self._call(_wrappedResultOf if wrap else resultOf, f, args, kw)

    def dr2ip(
        self, dr: Deferator[Any], consumer: IConsumer | None = None
    ) -> IterationProducer | Deferred[Any]:
        """
        Have the items of a deferator written to a consumer.

        @param dr: The deferator.

        @param consumer: The consumer.

        @return: A Deferred that fires with the consumer when all has been written.
            Without a consumer, an L{IterationProducer} that is to be given one and run.

        @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.
        """
        producer = IterationProducer(dr, consumer, reactor=self.thread.reactor)
        return producer if consumer is None else producer.run()

    def stop(self) -> Deferred[None]:
        """
        Take no more calls, and let the thread end when all have been made and nobody
        takes items from there any longer.

        @return: A Deferred that fires with C{None} when the thread has ended.
        """
        return self.thread.stop()

    def crash(self) -> None:
        """
        Take no more calls, and give up the thread at once. It ends when it's done with
        what it's at.

        The Deferreds of calls fail with L{ThreadError}, and so do iterations, after the
        items that are there.
        """
        self.thread.crash()

    def _call(
        self,
        outcome: Callable[[ThreadCall], object],
        f: Callable[..., object],
        args: tuple[object, ...],
        kw: dict[str, Any],
    ) -> Deferred[Any]:
        checkCallable("f", f)
        if self.thread.state is not OPEN:
            return fail(
                ThreadError(f"The thread has been stopped and can't take {f!r}")
            )
        raw = kw.pop("raw", self.raw)
        consumer = kw.pop("consumer", None)
        first = kw.pop("doNext", False)
        d: Deferred[ThreadCall] = Deferred(lambda _: self.thread.cancel(call))
        call = ThreadCall(
            self.thread, copy_context(), (f, args, kw), raw, consumer, d.callback
        )
        d.addCallback(outcome)
        self.thread.put(call, first)
        return d


def _pairOf(call: ThreadCall) -> StatusResult | Failure:
    return call.failure or call.pair or call.begin()


def _wrappedResultOf(call: ThreadCall) -> object:
    if call.error is None or isinstance(call.error, (StopIteration, IndexError)):
        return resultOf(call)  # These two may be the end of a sequence.
    assert call.pair is not None
    wrapped = ThreadError(str(call.pair[1]))
    wrapped.__cause__ = call.error
    return Failure(wrapped)


#: Has the thread of deferToThread, if there is one.
_looper: ThreadLooper | None = None


def deferToThread(
    f: Callable[..., object] | None = None, /, *args: object, **kw: object
) -> Deferred[Any]:
    """
    Make a call in a thread that all calls of this function share. They're made in their
    order, one after the other.

    @param f: The callable, C{None} to have the thread end.

    @param kw: Its keywords, and those of L{ThreadLooper.deferToThread}: C{doNext} to
        jump ahead, C{consumer} for the items of an iterator.

    @return: As from L{ThreadLooper.deferToThread}. Without a callable, a Deferred that
        fires with C{None} when all calls have been made, nobody takes items from the
        thread any longer, and it has ended. The next call starts a new one.

    @raise TypeError: If the callable isn't callable.

    @raise ThreadError: If no thread can be started.
    """
    global _looper
    if f is None:
        looper, _looper = _looper, None
        return succeed(None) if looper is None else looper.stop()
    if _looper is None or not _looper.threadRunning:
        _looper = ThreadLooper()
    return _looper.deferToThread(f, *args, **kw)
