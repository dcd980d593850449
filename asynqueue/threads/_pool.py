"""
A pool of threads, and who uses one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextvars import copy_context
from functools import partial, update_wrapper
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..errors import ThreadError
from ._loop import ThreadSystem, realThreads
from ._looper import ThreadLooper

__all__ = ["PoolUser", "ThreadPool", "defaultPool"]

#: How many threads a pool has at most, unless it's told.
_MOST = 10

#: How many threads are kept that have nothing to do.
_SPARE = 2


class ThreadPool:
    """
    A number of threads that grows with what there's to be done, and shrinks to a few
    when there's nothing.

    It can be used again after it has been shut down. Its methods are for the reactor's
    thread. The threads never keep the interpreter from ending.

    @ivar maxThreads: How many threads there are at most.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        reactor: IReactorTime | None = None,
        system: ThreadSystem = realThreads,
    ) -> None:
        """
        Make a pool without threads.

        @param maxThreads: How many there are to be at most, 10 by default.

        @param reactor: The reactor. By default, the global one.

        @param system: Where threads come from.

        @raise ValueError: If the number isn't a positive integer.
        """
        self.maxThreads = _MOST
        if maxThreads is not None:
            self.resize(maxThreads)
        self._reactor = reactor
        self._system = system
        self._idle: list[ThreadLooper] = []
        self._busy: set[ThreadLooper] = set()
        self._ending: set[ThreadLooper] = set()
        self._backlog: OrderedDict[Deferred[Any], Callable[[], Any]] = OrderedDict()
        self._closing = False
        self._waiters: dict[Deferred[None], None] = {}

    @property
    def threads(self) -> int:
        """
        How many threads there are, with those that are about to end.
        """
        return sum(map(len, (self._idle, self._busy, self._ending)))

    def resize(self, maxThreads: Any) -> None:
        """
        Change how many threads there are at most. Threads that are too many then end
        when they're done with what they're at; calls that wait get new ones with the
        next call.

        @param maxThreads: The number.

        @raise ValueError: If it isn't a positive integer.
        """
        if (
            not isinstance(maxThreads, int)
            or isinstance(maxThreads, bool)
            or maxThreads < 1
        ):
            raise ValueError(
                f"maxThreads must be a positive integer, not {maxThreads!r}"
            )
        self.maxThreads = maxThreads

    def defer(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """
        Make a call in one of the threads, as soon as one is free.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: A Deferred that fires with what is returned, iterators as they are, or
            fails with what is raised. Cancelling it drops the call if it waits, else
            its result.

        @raise TypeError: If the callable isn't callable.

        @raise ThreadError: If there's no thread, and none can be started.
        """
        call = _inContext(f, args, kw)
        d: Deferred[Any] = Deferred(self._cancelled)
        self._backlog[d] = call
        try:
            self._handOut()
        except ThreadError:
            del self._backlog[d]
            raise
        return d

    def deferToOwnThread(
        self, f: Callable[..., Any], *args: Any, **kw: Any
    ) -> Deferred[Any]:
        """
        Make a call in a thread of its own, which isn't counted. So it can wait for what
        other calls do, however many wait for a thread.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: As from L{defer}.

        @raise TypeError: If the callable isn't callable.

        @raise ThreadError: If no thread can be started.
        """
        call = _inContext(f, args, kw)
        looper = self._start()
        d = looper.deferToThread(call, raw=True)
        self._end(looper)
        return d

    def shutdown(self) -> Deferred[None]:
        """
        Let all threads end when all calls have been made.

        @return: A Deferred that fires with C{None} when they have.
        """
        if not self.threads:
            return succeed(None)
        d: Deferred[None] = Deferred(lambda d: self._waiters.pop(d, None))
        self._waiters[d] = None
        self._closing = True
        self._dismiss()
        return d

    def _start(self) -> ThreadLooper:
        """
        Start a thread.

        @return: What has it.
        """
        return ThreadLooper(True, reactor=self._reactor, system=self._system)

    def _handOut(self) -> None:
        """
        Give the calls that wait to threads.

        @raise ThreadError: If there's no thread, and none can be started.
        """
        while self._backlog:
            if self._idle:
                looper = self._idle.pop()
            elif len(self._busy) < self.maxThreads:
                try:
                    looper = self._start()
                except ThreadError:
                    if self._busy:
                        return  # They can wait for one of these.
                    raise
            else:
                return
            d, call = self._backlog.popitem(last=False)
            self._busy.add(looper)
            looper.deferToThread(call, raw=True).addBoth(self._done, looper, d)

    def _done(self, result: Any, looper: ThreadLooper, d: Deferred[Any]) -> None:
        """
        Take the result of a call.

        @param result: The result, or the failure.

        @param looper: What has the thread.

        @param d: The Deferred of the call.
        """
        self._busy.discard(looper)
        if len(self._busy) < self.maxThreads:
            self._idle.append(looper)
        else:
            self._end(looper)
        if self._backlog and self._idle:
            self._handOut()
        self._dismiss()
        if d.called:
            return  # It has been cancelled.
        if isinstance(result, Failure):
            d.errback(result)
        else:
            d.callback(result)

    def _cancelled(self, d: Deferred[Any]) -> None:
        """
        Drop a call if it waits: its Deferred is being cancelled.

        @param d: The Deferred.
        """
        self._backlog.pop(d, None)

    def _dismiss(self) -> None:
        """
        Let threads end that have nothing to do and are too many.
        """
        while len(self._idle) > (0 if self._closing else _SPARE):
            self._end(self._idle.pop(0))

    def _end(self, looper: ThreadLooper) -> None:
        """
        Let a thread end.

        @param looper: What has it.
        """
        self._ending.add(looper)
        looper.stop().addCallback(self._ended, looper)

    def _ended(self, _: None, looper: ThreadLooper) -> None:
        """
        Note that a thread has ended.

        @param _: Nothing.

        @param looper: What had it.
        """
        self._ending.discard(looper)
        if self._closing and not self.threads:
            self._closing = False
            waiters, self._waiters = self._waiters, {}
            for d in waiters:
                if not d.called:  # One may be cancelled by the callbacks of another.
                    d.callback(None)


def _inContext(
    f: Any, args: tuple[Any, ...], kw: dict[str, Any]
) -> Callable[[], object]:
    """
    Put a call together, with the context variables as they are now.

    @param f: The callable.

    @param args: Its arguments.

    @param kw: Its keywords.

    @return: What makes the call.
    """
    if not callable(f):
        raise TypeError(f"A callable is needed for a call in a thread, not {f!r}")
    return partial(copy_context().run, f, *args, **kw)


class _Default:
    """
    The pool that is shared by all who have none of their own.

    @ivar pool: The pool, C{None} if it hasn't been used yet.
    """

    def __init__(self) -> None:
        self.pool: ThreadPool | None = None


_default = _Default()


def defaultPool() -> ThreadPool:
    """
    Get the pool that is used where no other is given.

    @return: The pool, of the global reactor.
    """
    if _default.pool is None:
        _default.pool = ThreadPool()
    return _default.pool


class _OnPool:
    """
    A method for the pool of an instance, or for the default pool if it's called on a
    class.
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        """
        Make a method.

        @param f: What it does, given the instance, or C{None}.
        """
        self._f = f
        self.__doc__ = f.__doc__

    def __get__(self, user: PoolUser | None, owner: type[PoolUser]) -> Any:
        """
        Bind the method.
        """
        return update_wrapper(partial(self._f, user), self._f)


class _PoolAttribute:
    """
    The pool of an instance, or the default one for a class.
    """

    def __get__(self, user: PoolUser | None, owner: type[PoolUser]) -> ThreadPool:
        """
        Get the pool.
        """
        return _poolOf(user)


def _poolOf(user: PoolUser | None) -> ThreadPool:
    """
    Get the pool of a user.

    @param user: The user, C{None} for all who have none of their own.

    @return: The pool.
    """
    if user is None or user.ownPool is None:
        return defaultPool()
    return user.ownPool


class PoolUser:
    """
    A base for what uses a pool of threads.

    Its methods, and C{pool}, may be used on the class as well. They're about the
    default pool then, which all share who have no pool of their own.

    @ivar pool: The L{ThreadPool}.

    @ivar ownPool: The pool if it's not the default one, else C{None}.
    """

    pool = _PoolAttribute()

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

    @_OnPool
    def setup(self: PoolUser | None, maxThreads: int) -> None:
        """
        Set how many threads the pool has at most. On an instance, it gets a pool of its
        own by that.

        @param maxThreads: The number.

        @raise ValueError: If it isn't a positive integer.
        """
        if self is None:
            defaultPool().resize(maxThreads)
        elif self.ownPool is None:
            self.ownPool = ThreadPool(maxThreads)
            self._madePool = True
        else:
            self.ownPool.resize(maxThreads)

    @_OnPool
    def deferToThreadInPool(
        self: PoolUser | None,
        f: Callable[..., Any],
        *args: Any,
        **kw: Any,
    ) -> Deferred[Any]:
        """
        Make a call in a thread of the pool.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: Its keywords.

        @return: See L{ThreadPool.defer}.
        """
        return _poolOf(self).defer(f, *args, **kw)

    @_OnPool
    def shutdown(self: PoolUser | None) -> Deferred[None]:
        """
        Shut the pool down. It can be used again afterwards.

        @return: A Deferred that fires with C{None} when all calls have been made, and
            all threads have ended.
        """
        return _poolOf(self).shutdown()

    def releasePool(self) -> None:
        """
        Let the threads end of a pool that was made for this one alone.
        """
        if self._madePool and self.ownPool is not None:
            self.ownPool.shutdown()
