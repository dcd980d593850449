"""
A pool of threads, and a base class for what uses one.

Twisted's C{ThreadPool} won't do: its threads keep the interpreter from ending, its
C{stop} holds up the reactor, a call can't be withdrawn, and context variables are lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import cache, partial
from typing import Any, Generic, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import OneShot
from .._support.checks import checkCallable, checkCount
from .._support.log import log
from ..errors import ThreadError
from ._calls import ThreadCall, resultOf
from ._jobs import JobThread

_T = TypeVar("_T")

#: How many threads a pool has at most by default.
MAX_THREADS = 10

#: How many threads are kept that have nothing to do.
MAX_IDLE = 2

_ContextAndCall: TypeAlias = tuple[
    Context, tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
]


class ThreadPool:
    """
    A number of threads that grows with the calls that wait, and shrinks to a few when
    there are none.

    It can be used again after it has been shut down. The methods are for the reactor's
    thread. The threads never keep the interpreter from ending.

    Calls in C{_backlog} wait only while C{maxThreads} or more threads are busy, or no
    other can be started.

    @ivar maxThreads: How many threads there are at most.

    @ivar threads: How many threads there are, with those that are about to end.
    """

    def __init__(
        self, maxThreads: int | None = None, *, reactor: IReactorTime | None = None
    ) -> None:
        """
        Make a pool without threads.

        @param maxThreads: How many there are to be at most, 10 by default.

        @param reactor: The reactor. By default, the global one.

        @raise ValueError: If the number isn't a positive integer.
        """
        self.resize(MAX_THREADS if maxThreads is None else maxThreads)
        self._reactor = reactor
        self.threads = 0
        # Those that are neither idle nor busy are about to end.
        self._idle: list[JobThread] = []
        self._busy = 0
        self._backlog: OrderedDict[Deferred[ThreadCall], _ContextAndCall] = (
            OrderedDict()
        )
        # Fires when the last thread has ended. None unless the pool is shut down.
        self._gone: OneShot[None] | None = None

    def resize(self, maxThreads: int) -> None:
        """
        Change how many threads there are at most. Threads that are too many end after
        their calls; calls that wait get new ones with the next call.

        @param maxThreads: The number.

        @raise ValueError: If it isn't a positive integer.
        """
        checkCount("maxThreads", maxThreads, 1)
        self.maxThreads = maxThreads

    def defer(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Make a call in one of the threads, as soon as one is free.

        @return: A Deferred that fires with what is returned, iterators as they are, or
            fails with what is raised. Cancelling it withdraws the call, or drops its
            result if it has been begun.

        @raise TypeError: If the callable isn't callable.

        @raise ThreadError: If there's no thread, and none can be started.
        """
        checkCallable("f", f)
        d: Deferred[ThreadCall] = Deferred(self._withdraw)
        d.addCallback(resultOf)
        self._backlog[d] = copy_context(), (f, args, kw)
        try:
            self._dispatch()
        except ThreadError:
            del self._backlog[d]
            raise
        return d

    def deferToOwnThread(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> Deferred[Any]:
        """
        Make a call in a thread of its own, which isn't counted. So it can wait for what
        other calls do, however many wait for a thread. See L{defer}.

        @raise ThreadError: If no thread can be started.
        """
        checkCallable("f", f)
        thread = self._newThread()
        d: Deferred[ThreadCall] = Deferred()
        call = (f, args, kw)
        thread.put(ThreadCall(thread, copy_context(), call, True, None, d.callback))
        self._end(thread)
        return d.addCallback(resultOf)

    def callInThread(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> None:
        """Make a call in one of the threads, and log what it raises."""
        self.callInThreadWithCallback(None, f, *args, **kw)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        f: Callable[..., object],
        /,
        *args: object,
        **kw: object,
    ) -> None:
        """
        Make a call in one of the threads.

        @param onResult: Called in that thread with C{True} and what was returned, or
            with C{False} and a C{Failure}. C{None} for a failure to be logged.
        """
        d = self.defer(_callAndTell, onResult, partial(f, *args, **kw))
        d.addErrback(lambda failure: log.failure("{f} failed", failure, f=f))

    def shutdown(self) -> Deferred[None]:
        """
        Let all threads end when all calls have been made.

        @return: A Deferred that fires with C{None} when they have.
        """
        if not self.threads:
            return succeed(None)
        if self._gone is None:
            self._gone = OneShot()
        d = self._gone.wait()
        self._trimIdle()
        return d

    def _withdraw(self, d: Deferred[ThreadCall]) -> None:
        self._backlog.pop(d, None)

    def _dispatch(self) -> None:
        """Give the calls that wait to threads."""
        while self._backlog:
            if self._idle:
                thread = self._idle.pop()
            elif self._busy < self.maxThreads:
                try:
                    thread = self._newThread()
                except ThreadError:
                    if self._busy:
                        return  # They can wait for one of these.
                    raise
            else:
                return
            self._busy += 1
            d, (context, call) = self._backlog.popitem(last=False)
            done = partial(self._called, thread, d)
            thread.put(ThreadCall(thread, context, call, True, None, done))

    def _called(
        self, thread: JobThread, d: Deferred[ThreadCall], call: ThreadCall
    ) -> None:
        self._busy -= 1
        if self._busy < self.maxThreads:
            self._idle.append(thread)
        else:
            self._end(thread)
        # The thread shouldn't wait for callbacks, nor end before those add a call.
        if self._idle:
            self._dispatch()
        self._trimIdle()
        if not d.called:  # nor cancelled
            d.callback(call)

    def _trimIdle(self) -> None:
        while len(self._idle) > (MAX_IDLE if self._gone is None else 0):
            self._end(self._idle.pop(0))

    def _newThread(self) -> JobThread:
        thread = JobThread(self._reactor)
        thread.start()  # Nothing is to be counted, nor taken out, if that fails.
        self.threads += 1
        return thread

    def _end(self, thread: JobThread) -> None:
        thread.stop().addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self.threads -= 1
        if self._gone is not None and not self.threads:
            gone, self._gone = self._gone, None
            gone.fire(None)


@cache
def defaultPool() -> ThreadPool:
    """Get the pool that is used where no other is given, of the global reactor."""
    return ThreadPool()


class _PerPool(Generic[_T]):
    """
    An attribute that concerns the pool of an instance, or on a class the default pool:
    what a function makes of the instance, or of C{None}.
    """

    def __init__(self, get: Callable[[PoolUser | None], _T]) -> None:
        self._get = get
        self.__doc__ = get.__doc__

    def __get__(self, user: PoolUser | None, owner: type[PoolUser]) -> _T:
        return self._get(user)


class PoolUser:
    """
    A base for what uses a pool of threads.

    C{pool} and the methods may be used on the class as well. There they concern the
    default pool, which is shared by all instances without a pool of their own.

    @cvar minThreads: How many threads of a pool are kept that have nothing to do.

    @cvar maxThreads: How many threads a pool has at most by default.

    @ivar ownPool: The pool if it's not the default one, else C{None}.
    """

    minThreads = MAX_IDLE
    maxThreads = MAX_THREADS

    def __init__(
        self, maxThreads: int | None = None, *, ownPool: ThreadPool | None = None
    ) -> None:
        """
        Choose the pool.

        @param maxThreads: How many threads a pool of its own is to have at most.
            C{None} to share the default one.

        @param ownPool: A pool to be used instead of the default one.

        @raise ValueError: If the number isn't a positive integer.
        """
        self.ownPool = ownPool
        self._madePool = False
        if maxThreads is not None:
            self.setup(maxThreads)

    @_PerPool
    def pool(user: PoolUser | None) -> Any:
        """The L{ThreadPool}."""
        return _poolOf(user)

    @_PerPool
    def setup(user: PoolUser | None) -> Callable[..., None]:
        """
        C{setup(maxThreads=None)}: set how many threads the pool has at most, by default
        L{maxThreads}. On an instance, it gets a pool of its own by that.
        """
        return partial(_setup, user)

    @_PerPool
    def deferToThreadInPool(user: PoolUser | None) -> Callable[..., Deferred[Any]]:
        """Make a call in a thread of the pool, see L{ThreadPool.defer}."""
        return _poolOf(user).defer

    @_PerPool
    def shutdown(user: PoolUser | None) -> Callable[[], Deferred[None]]:
        """Shut the pool down, see L{ThreadPool.shutdown}."""
        return _poolOf(user).shutdown

    def releasePool(self) -> None:
        """Let the threads end of a pool that was made for this one alone."""
        if self._madePool and self.ownPool is not None:
            self.ownPool.shutdown()


def _poolOf(user: PoolUser | None) -> ThreadPool:
    return defaultPool() if user is None or user.ownPool is None else user.ownPool


def _setup(user: PoolUser | None, maxThreads: int | None = None) -> None:
    if maxThreads is None:
        maxThreads = PoolUser.maxThreads
    if user is None:
        defaultPool().resize(maxThreads)
    elif user.ownPool is None:
        user.ownPool = ThreadPool(maxThreads)
        user._madePool = True
    else:
        user.ownPool.resize(maxThreads)


def _callAndTell(
    onResult: Callable[[bool, object], object] | None, f: Callable[[], object]
) -> None:
    """Make a call and tell of it, in a thread. What isn't told is raised."""
    try:
        result = f()
    except BaseException:
        if onResult is None:
            raise
        onResult(False, Failure())
    else:
        if onResult is not None:
            onResult(True, result)
