"""
A thread for calls from the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import ThreadError
from ..iteration import Deferator, IterationProducer
from ._call import Call, DeferredCall
from ._iteration import ThreadIteration
from ._loop import IReactorThreaded, Job, Loop, Outbox, ThreadSystem, realThreads

__all__ = ["ThreadLooper"]

_numbers = count(1)


class ThreadLooper:
    """
    Makes calls in a thread of its own, one after the other.

    Context variables have in a call the values that they had where it was asked for.
    Iterators that calls return are iterated over in the thread as well, ahead of who
    takes the items by a few, and closed there. The thread never keeps the interpreter
    from ending.

    Its methods are for the reactor's thread.

    @ivar raw: Whether iterators come back as they are.

    @ivar abandoned: How many threads have been given up because they were stuck in a
        call that nobody waits for any longer. Each ends when its call does.

    @ivar onLost: Called when there's no thread any longer because no other could be
        started in place of one that was abandoned. C{None} for nobody; all calls fail
        then.

    @ivar reactor: The reactor.
    """

    def __init__(
        self,
        raw: bool = False,
        *,
        returnFailure: bool = False,
        reactor: IReactorTime | None = None,
        system: ThreadSystem = realThreads,
    ) -> None:
        """
        Start a thread.

        @param raw: C{True} for iterators to come back as they are.

        @param returnFailure: C{True} for the Deferreds of L{deferToThread} to fail with
            L{ThreadError}, the exception that was raised chained as its cause; else
            they fail with that itself.

        @param reactor: The reactor. By default, the global one.

        @param system: Where threads come from.

        @raise ThreadError: If no thread can be started.
        """
        self.raw = raw
        self.returnFailure = returnFailure
        self.abandoned = 0
        self.onLost: Callable[[], object] | None = None
        # Whatever else it is, it's a reactor that threads can call.
        self.reactor = cast(IReactorThreaded, orGlobalReactor(reactor))
        self._system = system
        self._outbox = Outbox(self.reactor)
        self._calls: dict[Call, None] = {}
        self._iterations: dict[ThreadIteration, None] = {}
        self._stopWaiters: dict[Deferred[None], None] = {}
        self._closed = False
        self._ending = False
        try:
            self._loop: Loop | None = self._start()
        except RuntimeError as error:
            raise ThreadError(f"A thread can't be started: {error}") from error

    @property
    def threadRunning(self) -> bool:
        """
        Whether the thread is there.
        """
        return self._loop is not None

    def call(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """
        Make a call in the thread.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords, and those of L{deferToThread}.

        @return: A Deferred that fires with a status and a result: C{b'r'} and what was
            returned; C{b'i'} and a L{Deferator}, an L{IterationProducer} that isn't
            running yet if a consumer was given, or an empty list for an iterator
            without items; C{b'e'} and text about what was raised. It fails with
            L{ThreadError} if the thread has been stopped.

        @raise TypeError: If the callable isn't callable.
        """
        return self._defer(f, args, kw, True)

    def deferToThread(
        self, f: Callable[..., Any], *args: Any, **kw: Any
    ) -> Deferred[Any]:
        """
        Make a call in the thread.

        These keywords don't reach the callable:

          - C{doNext}: C{True} to make it before those that wait;
          - C{consumer}: an C{IConsumer} for the items of an iterator that is returned;
          - C{raw}: C{True} for an iterator to come back as it is;
          - C{returnFailure}: as for the looper.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: A Deferred that fires with what was returned, with a L{Deferator} or an
            empty list for an iterator, or with the consumer when it has all the items.
            It fails with what was raised. Also C{StopIteration}, which there isn't any
            use in waiting for with C{await}, but which is the end for a function that a
            L{Deferator} is made of. It fails with L{ThreadError} if the thread has been
            stopped.

            Cancelling it drops the call if it waits. If the thread is at it, its result
            is dropped.

        @raise TypeError: If the callable isn't callable.
        """
        return self._defer(f, args, kw, False)

    def dr2ip(
        self, deferator: Deferator, consumer: IConsumer | None = None
    ) -> IterationProducer:
        """
        Make a producer of a deferator.

        @param deferator: The deferator.

        @param consumer: The consumer, unless the producer's C{registerConsumer} is
            called for it.

        @return: The producer, which is to be told to run.

        @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.
        """
        return IterationProducer(deferator, consumer, reactor=self.reactor)

    def stop(self) -> Deferred[None]:
        """
        Take no more calls, and let the thread end when all have been made and nobody
        takes items from there any longer.

        @return: A Deferred that fires with C{None} when the thread has ended.
        """
        self._closed = True
        if self._loop is None:
            return succeed(None)
        d: Deferred[None] = Deferred(lambda d: self._stopWaiters.pop(d, None))
        self._stopWaiters[d] = None
        self._maybeEnd()
        return d

    def crash(self) -> None:
        """
        Take no more calls, and give up the thread at once, whatever it's at. It ends
        when it's done with that.

        Iterations fail with L{ThreadError} after the items that are there, and so do
        the Deferreds of calls.
        """
        self._closed = True
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.withdrawAll()
        self._loseAll(Failure(ThreadError("The thread has been given up")), loop)
        loop.end()
        self._fireStopped()

    def submit(self, call: Call, first: bool = False) -> None:
        """
        Give the thread a call.

        @param call: The call.

        @param first: C{True} to make it before those that wait.
        """
        loop = self._loop
        assert loop is not None
        self._calls[call] = None
        loop.put(call, first)

    def cancel(self, call: Call, abandon: bool = False) -> None:
        """
        Drop a call. It isn't made if it hasn't been begun.

        @param call: The call.

        @param abandon: C{True} to abandon the thread if it's at the call, and go on
            with another one.
        """
        if call not in self._calls:
            return
        del self._calls[call]
        call.drop()
        loop = self._loop
        assert loop is not None
        if not loop.withdraw(call) and abandon and not call.finished:
            self._replace(loop)
        self._maybeEnd()

    def put(self, job: Job) -> None:
        """
        Implement L{IterationOwner.put
        <asynqueue.threads._iteration.IterationOwner.put>}.

        @param job: The job.
        """
        if self._loop is not None and not self._ending:
            self._loop.put(job)

    def isWanted(self) -> bool:
        """
        Implement L{IterationOwner.isWanted
        <asynqueue.threads._iteration.IterationOwner.isWanted>}.

        @return: Whether there are jobs that wait.
        """
        loop = self._loop
        return loop is None or len(loop) > 0

    def tell(self, job: Job) -> None:
        """
        Implement L{IterationOwner.tell
        <asynqueue.threads._iteration.IterationOwner.tell>}.

        @param job: The job.
        """
        self._outbox.post(job)

    def callEnded(self, call: Call) -> bool:
        """
        Implement L{CallOwner.callEnded<asynqueue.threads._call.CallOwner.callEnded>}.

        @param call: The call.

        @return: Whether anybody wants to know.
        """
        if call not in self._calls:
            return False
        del self._calls[call]
        return True

    def settled(self) -> None:
        """
        Implement L{CallOwner.settled<asynqueue.threads._call.CallOwner.settled>}.
        """
        if self._stopWaiters:
            self._maybeEnd()

    def iterationBegun(self, iteration: ThreadIteration) -> None:
        """
        Implement L{CallOwner.iterationBegun
        <asynqueue.threads._call.CallOwner.iterationBegun>}.

        @param iteration: The iteration.
        """
        self._iterations[iteration] = None

    def iterationEnded(self, iteration: ThreadIteration) -> None:
        """
        Implement L{IterationOwner.iterationEnded
        <asynqueue.threads._iteration.IterationOwner.iterationEnded>}.

        @param iteration: The iteration.
        """
        self._iterations.pop(iteration, None)
        self._maybeEnd()

    def _defer(
        self, f: Any, args: tuple[Any, ...], kw: dict[str, Any], pair: bool
    ) -> Deferred[Any]:
        """
        Make a call in the thread.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords, and ours.

        @param pair: Whether the Deferred fires with a status/result pair.

        @return: The Deferred.
        """
        if not callable(f):
            raise TypeError(f"A callable is needed for a call in a thread, not {f!r}")
        if self._closed or self._loop is None:
            return fail(
                ThreadError(f"The thread has been stopped and can't take {f!r}")
            )
        raw, consumer, wrap, first = self.raw, None, self.returnFailure, False
        if kw:
            raw = kw.pop("raw", raw)
            consumer = kw.pop("consumer", None)
            wrap = kw.pop("returnFailure", wrap)
            first = kw.pop("doNext", False)
        call = DeferredCall(
            self, copy_context(), (f, args, kw), raw, consumer, pair, wrap
        )
        self._calls[call] = None
        self._loop.put(call, first)
        return call.d

    def _start(self) -> Loop:
        """
        Start a thread.

        @return: The thread.

        @raise RuntimeError: If that can't be done.
        """
        name = f"asynqueue-{next(_numbers)}"
        return Loop(self._outbox, self._ended, name, self._system)

    def _replace(self, loop: Loop) -> None:
        """
        Abandon the thread, and go on with another one.

        @param loop: The thread that is abandoned.
        """
        self.abandoned += 1
        jobs = loop.withdrawAll()
        loop.end()
        try:
            self._loop = self._start()
        except RuntimeError as error:
            self._loop = None
            self._closed = True
            log.error("A thread can't be replaced: {error}", error=error)
            if self.onLost is not None:
                self.onLost()
            lost = ThreadError(f"The thread is stuck and can't be replaced: {error}")
            self._loseAll(Failure(lost), None)
            self._fireStopped()
        else:
            for job in jobs:
                self._loop.put(job)

    def _loseAll(self, failure: Failure, loop: Loop | None) -> None:
        """
        Give up all calls and iterations.

        @param failure: What they fail with.

        @param loop: Where iterators are closed, if there's still a thread.
        """
        calls, self._calls = self._calls, {}
        iterations, self._iterations = self._iterations, {}
        for iteration in iterations:
            iteration.lose(failure)
            if loop is not None:
                loop.put(iteration)
        for call in calls:
            call.drop()
            call.lose(failure)

    def _maybeEnd(self) -> None:
        """
        Have the thread end if it's told to, and there's nothing left to do.
        """
        if not (
            self._stopWaiters
            and self._loop is not None
            and not self._ending
            and not self._calls
            and not self._iterations
        ):
            return
        self._ending = True
        self._loop.end()

    def _ended(self, loop: Loop) -> None:
        """
        Note that a thread has ended.

        @param loop: The thread.
        """
        if loop is self._loop:
            self._loop = None
            self._fireStopped()

    def _fireStopped(self) -> None:
        """
        Tell those who wait for the thread to end.
        """
        waiters, self._stopWaiters = self._stopWaiters, {}
        for d in waiters:
            if not d.called:  # One may be cancelled by the callbacks of another.
                d.callback(None)
