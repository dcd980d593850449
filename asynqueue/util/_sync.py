"""
Waiting for Deferreds, and taking turns: a tracker and a lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor

__all__ = ["DeferredLock", "DeferredTracker", "callAfterDeferred"]

_D = TypeVar("_D", bound="Deferred[Any]")

#: The bucket of those who wait for any firing. The others wait for fewer than N, N > 0.
_ANY = 0


class DeferredTracker:
    """
    Counts Deferreds that haven't fired, so that one can wait for all of them, or any,
    or until there are fewer than so many.

    What is waited for is noticed the moment it's true, and each Deferred costs the
    same, however many there are. Waits are ended from one loop, never from within the
    callbacks of the last, so chains of them may be of any length.

    A wait that is itself tracked by the same tracker is one of those it waits for.

    @ivar dCount: The number of Deferreds that haven't fired, and of waits that were
        added and not removed.
    """

    def __init__(
        self,
        interval: float | None = None,
        backoff: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a tracker.

        @param interval: Without effect.

        @param backoff: Without effect.

        @param reactor: What keeps the time. By default, the global reactor.
        """
        self.dCount = 0
        self._added = 0
        self._quit = False
        self._buckets: dict[int, dict[Deferred[bool], IDelayedCall | None]] = {}
        self._ended: deque[Deferred[bool]] = deque()
        self._ending = False
        self._reactor = reactor

    def put(self, d: _D) -> _D:
        """
        Track a Deferred. Its result, or failure, passes through untouched.

        @param d: The Deferred.

        @return: The same Deferred.

        @raise TypeError: If it isn't a Deferred.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"Only a Deferred can be tracked, not {d!r}")
        self.dCount += 1
        d.addBoth(self._fired)
        return d

    def addWait(self) -> None:
        """
        Count something that isn't a Deferred, until L{removeWait}.
        """
        self.dCount += 1
        self._added += 1

    def removeWait(self) -> None:
        """
        Count one thing that isn't a Deferred as done.

        @raise RuntimeError: If there were as many calls of this as of L{addWait}.
        """
        if not self._added:
            raise RuntimeError("removeWait() was called more often than addWait()")
        self._added -= 1
        self._fired(None)

    def notWaiting(self) -> bool:
        """
        Tell whether there's nothing to wait for.

        @return: C{True} if nothing is tracked that hasn't fired, or if waiting has
            been quit.
        """
        return self._quit or not self.dCount

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until nothing is tracked that hasn't fired, which includes what is tracked
        from now on.

        @param timeout: Seconds to wait, C{None} for any time.

        @return: A Deferred that fires with C{True} when that is so, at once if it is;
            with C{False} when the time is up first. Cancelling it ends the wait only.

        @raise ValueError: If the timeout isn't a number of seconds.
        """
        return self._wait(1, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until something that is tracked fires.

        @param timeout: Seconds to wait, C{None} for any time.

        @return: A Deferred that fires with C{True} when something has fired, at once
            if there's nothing to wait for; with C{False} when the time is up first.
            Cancelling it ends the wait only.

        @raise ValueError: If the timeout isn't a number of seconds.
        """
        return self._wait(_ANY, timeout)

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until fewer Deferreds are tracked that haven't fired.

        @param N: Fewer than how many.

        @param timeout: Seconds to wait, C{None} for any time.

        @return: A Deferred that fires with C{True} when that is so, at once if it is;
            with C{False} when the time is up first. Cancelling it ends the wait only.

        @raise ValueError: If the number isn't a positive integer, or the timeout not a
            number of seconds.
        """
        _checkLimit(N)
        return self._wait(N, timeout)

    def quitWaiting(self) -> None:
        """
        End all waits with C{True}, and all future ones at once.
        """
        self._quit = True
        for bucket in list(self._buckets):
            self._take(bucket)
        self._end()

    def _wait(self, bucket: int, timeout: float | None) -> Deferred[bool]:
        """
        Wait.

        @param bucket: For what.

        @param timeout: Seconds to wait, or C{None}.

        @return: A Deferred that tells whether it has come about.
        """
        if timeout is not None:
            _checkSeconds(timeout)
        if self._quit or self.dCount < (bucket or 1):
            return succeed(True)

        d: Deferred[bool] = Deferred(lambda d: self._drop(bucket, d))
        timer = None
        if timeout is not None:
            timer = orGlobalReactor(self._reactor).callLater(
                timeout, self._timedOut, bucket, d
            )
        self._buckets.setdefault(bucket, {})[d] = timer
        return d

    def _drop(self, bucket: int, d: Deferred[bool]) -> None:
        """
        Forget a wait, unless it's in line to be ended.

        @param bucket: What it's for.

        @param d: Its Deferred.
        """
        waits = self._buckets.get(bucket)
        if waits and d in waits:
            timer = waits.pop(d)
            if timer is not None and timer.active():
                timer.cancel()
            if not waits:
                del self._buckets[bucket]

    def _timedOut(self, bucket: int, d: Deferred[bool]) -> None:
        """
        End a wait whose time is up.

        @param bucket: What it's for.

        @param d: Its Deferred.
        """
        self._drop(bucket, d)
        d.callback(False)

    def _fired(self, result: Any) -> Any:
        """
        Count a Deferred that has fired.

        @param result: Its result or failure.

        @return: The same.
        """
        self.dCount -= 1
        if self._buckets:
            # The count goes down one by one, so no number is ever skipped.
            self._take(self.dCount + 1)
            self._take(_ANY)
            self._end()
        return result

    def _take(self, bucket: int) -> None:
        """
        Put the waits for something in line to be ended.

        @param bucket: For what.
        """
        for d, timer in self._buckets.pop(bucket, {}).items():
            if timer is not None:
                timer.cancel()
            self._ended.append(d)

    def _end(self) -> None:
        """
        End the waits in line, unless that's being done further up the stack.
        """
        if self._ending:
            return
        self._ending = True
        try:
            while self._ended:
                d = self._ended.popleft()
                if not d.called:  # Nor cancelled since.
                    d.callback(True)
        finally:
            self._ending = False


def _checkLimit(N: Any) -> None:
    """
    Check that there can be fewer Deferreds than a number.

    @param N: The number.

    @raise ValueError: If it's not a positive integer.
    """
    if not isinstance(N, int) or isinstance(N, bool) or N < 1:
        raise ValueError(
            "N must be a positive integer, for there are never fewer than 0 Deferreds;"
            f" not {N!r}"
        )


def _checkSeconds(value: Any) -> None:
    """
    Check that a timeout is one.

    @param value: The timeout.

    @raise ValueError: If it's not a number of seconds.
    """
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"timeout must be a number of seconds, not {value!r}")


class DeferredLock(defer.DeferredLock):
    """
    A lock that privileged ones get first, and that can be stopped for good.

    It goes from one to the next in one loop, never from within the callbacks of the
    last, so any number may wait who release it at once.

    @ivar locked: Whether somebody has it.
    """

    def __init__(self) -> None:
        """
        Make a lock that nobody has.
        """
        super().__init__()
        self.locked = False
        self._vips: OrderedDict[Deferred[DeferredLock], None] = OrderedDict()
        self._rest: OrderedDict[Deferred[DeferredLock], None] = OrderedDict()
        self._granting = False
        self._stopping = False
        self._open = False
        self._stoppers: deque[Callable[[], Deferred[Any]]] = deque()
        self._stopWaiters: dict[Deferred[None], None] = {}

    def acquire(self, vip: bool = False) -> Deferred[Any]:
        """
        Get the lock when all before in line have released it.

        @param vip: C{True} to get in line before those who aren't, after those who
            are.

        @return: A Deferred that fires with the lock when it's one's own; at once if
            the lock has been stopped. It can be cancelled as long as it hasn't fired.
        """
        if self._open:
            return succeed(self)
        line = self._vips if vip else self._rest
        d: Deferred[DeferredLock] = Deferred(lambda d: self._left(line, d))
        line[d] = None
        self._grant()
        return d

    def acquireAndRelease(self, vip: bool = False) -> Deferred[Any]:
        """
        Wait until all before in line have released the lock.

        @param vip: As for L{acquire}.

        @return: A Deferred that fires with the lock, which is released again.
        """
        return self.acquire(vip).addCallback(self._releaseAndReturn)

    def release(self) -> None:
        """
        Give the lock to the next in line.

        @raise RuntimeError: If nobody has it.
        """
        if self._open:
            return
        if not self.locked:
            raise RuntimeError("release() of a lock that nobody has")
        self.locked = False
        self._grant()

    @contextmanager
    def context(self, vip: bool = False) -> Iterator[Deferred[Any]]:
        """
        Get the lock for a block::

            with lock.context() as d:
                yield d
                ...

        However the block ends, the lock is released if it was got, and isn't waited
        for any longer if it wasn't.

        @param vip: As for L{acquire}.

        @return: A context manager, which gives the Deferred of L{acquire}.
        """
        got = []

        def note(lock: DeferredLock) -> DeferredLock:
            got.append(lock)
            return lock

        d = self.acquire(vip).addCallback(note)
        try:
            yield d
        finally:
            if got:
                self.release()
            else:
                d.addErrback(_ignoreCancelled)
                d.cancel()

    def addStopper(self, f: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """
        Add a callable to be run when the lock is stopped, after those added before.

        @param f: The callable, which may return a Deferred.

        @param args: Arguments for it.

        @param kw: Keywords for it.

        @raise TypeError: If it isn't callable.
        """
        if not callable(f):
            raise TypeError(f"A stopper must be callable, and {f!r} isn't")
        self._stoppers.append(lambda: maybeDeferred(f, *args, **kw))

    def stop(self) -> Deferred[None]:
        """
        Wait until nobody has the lock or is in line for it, then run the stoppers, each
        when the last is done. From then on the lock is free for all: whoever acquires
        it has it at once.

        @return: A Deferred that fires with C{None} when all is done. If stoppers fail,
            the others are run nevertheless, and it fails with the first failure.
        """
        d: Deferred[None] = Deferred(lambda d: self._stopWaiters.pop(d, None))
        self._stopWaiters[d] = None
        self._grant()
        return d

    def _left(
        self, line: OrderedDict[Deferred[DeferredLock], None], d: Deferred[DeferredLock]
    ) -> None:
        """
        Let somebody go who doesn't want to wait any longer.

        @param line: Where they stand.

        @param d: Their Deferred.
        """
        del line[d]
        self._grant()

    def _grant(self) -> None:
        """
        Give the lock to whoever is next, as long as it's free. If nobody is, and it's
        to be stopped, stop it.
        """
        if self._granting:
            return
        self._granting = True
        try:
            while not self.locked and (line := self._vips or self._rest):
                d, _ = line.popitem(last=False)
                self.locked = True
                d.callback(self)
        finally:
            self._granting = False
        if self._stopWaiters and not self.locked and not self._stopping:
            self._stopping = self._open = True
            Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """
        Run the stoppers, and tell those who wait for that.
        """
        first: Failure | None = None
        while self._stoppers:
            failure = await _failureOf(self._stoppers.popleft())
            if failure is not None and first is not None:
                log.failure("Another stopper of a lock failed, too", failure)
            first = first or failure
        self._stopping = False
        waiters, self._stopWaiters = self._stopWaiters, {}
        for d in waiters:
            if d.called:
                continue  # It was cancelled by the callbacks of another.
            if first is None:
                d.callback(None)
            else:
                d.errback(first)


async def _failureOf(f: Callable[[], Deferred[Any]]) -> Failure | None:
    """
    Make a call.

    @param f: What to call.

    @return: The failure, if it has failed.
    """
    try:
        await f()
    except Exception:  # noqa: BLE001 - runs code of users
        return Failure()
    return None


def _ignoreCancelled(failure: Failure) -> None:
    """
    Handle the failure of what has been cancelled because it isn't wanted.

    @param failure: The failure. Any other is passed on.
    """
    failure.trap(CancelledError)


def callAfterDeferred(
    namespace: Any, dName: str, f: Callable[..., Any], *args: Any, **kw: Any
) -> Deferred[Any]:
    """
    Make a call once a Deferred has fired that may be the attribute of an object.

    Calls that wait for the same Deferred are made in the order in which they came. Its
    result passes through untouched.

    @param namespace: The object.

    @param dName: The name of the attribute.

    @param f: What to call.

    @param args: Arguments for it.

    @param kw: Keywords for it.

    @return: A Deferred that fires with what the call returns. The call is made at once
        if there's no such attribute, or it is C{None}. If the attribute fails, the call
        isn't made and the Deferred fails likewise.

    @raise TypeError: If the attribute is something else than a Deferred.
    """
    gate = getattr(namespace, dName, None)
    if gate is None:
        return maybeDeferred(f, *args, **kw)
    if not isinstance(gate, Deferred):
        raise TypeError(
            f"The attribute {dName!r} of {namespace!r} must be a Deferred or None,"
            f" not {gate!r}"
        )
    running: list[Deferred[Any]] = []

    def cancel(_: Deferred[Any]) -> None:
        if running:
            running[0].cancel()

    d: Deferred[Any] = Deferred(cancel)

    def fired(result: Any) -> Any:
        if d.called:
            return result  # It has been cancelled.
        if isinstance(result, Failure):
            d.errback(result)
            return result
        inner = maybeDeferred(f, *args, **kw)
        running.append(inner)
        inner.chainDeferred(d)
        return result

    gate.addBoth(fired)
    return d
