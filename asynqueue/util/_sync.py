"""Taking turns, and waiting for any number of Deferreds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .._support.awaitable import AwaitableDeferred, Waiters
from .._support.checks import checkCallable, checkSeconds
from .._support.log import log
from .._support.reactor import AtShutdown, orGlobalReactor

_T = TypeVar("_T")
_D = TypeVar("_D", bound="Deferred[Any]")


class _LockStage(Enum):
    """How far a L{DeferredLock} has come."""

    #: It goes from one to the next in line.
    IN_USE = auto()

    #: So it does, and is stopped when nobody has it or is in line.
    EMPTYING = auto()

    #: It's free for all, and the stoppers run.
    STOPPING = auto()

    #: It's free for all, for good.
    STOPPED = auto()


class DeferredLock(defer.DeferredLock):
    """
    A lock that can be acquired with priority, and that can be stopped for good.

    It goes from one to the next in one loop, never from within the callbacks of the
    last, so any number may wait who release it at once.

    @ivar locked: Whether somebody has it.

    @ivar waiting: The Deferreds of those in line.
    """

    def __init__(self, allowZombies: bool = False) -> None:
        """Make a lock that nobody has. The parameter is without effect."""
        super().__init__()
        self.locked = False
        # Who is privileged. They are the first in line.
        self._vips: set[object] = set()
        self._stage = _LockStage.IN_USE
        # Whether the loop runs that hands it on.
        self._isGranting = False
        self._stoppers: deque[Callable[[], object]] = deque()
        # Fires with None, or the first failure of a stopper.
        self._stopped: Waiters[Any] = Waiters()

    def acquire(self, vip: bool = False) -> Deferred[Any]:
        """
        Acquire the lock, when all before in line have released it.

        @param vip: C{True} to get in line before those who aren't, after those who
            are.

        @return: A Deferred that fires with the lock when it's one's own; at once if
            the lock has been stopped. It can be cancelled as long as it hasn't fired.
        """
        if self._isFree:
            return succeed(self)
        d: Deferred[Any] = AwaitableDeferred(self._leave)
        if vip:
            self.waiting.insert(len(self._vips), d)
            self._vips.add(d)
        else:
            self.waiting.append(d)
        self._grant()
        return d

    def acquireAndRelease(self, vip: bool = False) -> Deferred[Any]:
        """
        Wait until all before in line have released the lock.

        @return: A Deferred that fires with the lock, which is released again.
        """
        return self.acquire(vip).addCallback(self._releaseAndReturn)

    def release(self) -> None:
        """Give the lock to the next in line. If nobody has it, raise RuntimeError."""
        if self._isFree:
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
        for any longer if it wasn't. What the context manager gives is the Deferred of
        L{acquire}.
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
                d.addErrback(lambda failure: failure.trap(CancelledError))
                d.cancel()

    def addStopper(
        self, f: Callable[..., object], /, *args: object, **kw: object
    ) -> None:
        """
        Add a callable to be run when the lock is stopped, after those added before. It
        may return a Deferred.
        """
        checkCallable("A stopper", f)
        self._stoppers.append(partial(f, *args, **kw))

    def stop(self) -> Deferred[None]:
        """
        Wait until nobody has the lock or is in line for it, then run the stoppers, each
        when the last is done. From then on the lock is free for all: whoever acquires
        it has it at once.

        @return: A Deferred that fires with C{None} when all is done. If stoppers fail,
            the others are run nevertheless, and it fails with the first failure.
        """
        d = self._stopped.wait()
        if self._stage is not _LockStage.STOPPING:
            self._stage = _LockStage.EMPTYING
            self._grant()
        return d

    @property
    def _isFree(self) -> bool:
        return self._stage in (_LockStage.STOPPING, _LockStage.STOPPED)

    def _leave(self, d: Deferred[Any]) -> None:
        self.waiting.remove(d)
        self._vips.discard(d)
        self._grant()

    def _grant(self) -> None:
        """
        Give the lock to whoever is next, as long as it's free. If nobody is, and it's
        to be stopped, stop it.
        """
        if self._isGranting:
            return
        self._isGranting = True
        while self.waiting and not self.locked:
            d: Deferred[Any] = self.waiting.pop(0)
            self._vips.discard(d)
            self.locked = True
            d.callback(self)
        self._isGranting = False
        if self._stage is _LockStage.EMPTYING and not self.locked:
            self._stage = _LockStage.STOPPING
            Deferred.fromCoroutine(self._runStoppers())

    async def _runStoppers(self) -> None:
        failures: list[Failure] = []
        while self._stoppers:
            await maybeDeferred(self._stoppers.popleft()).addErrback(failures.append)
        for failure in failures[1:]:
            log.failure("Another stopper of a lock failed, too", failure)
        self._stage = _LockStage.STOPPED
        self._stopped.fire(failures[0] if failures else None)


class DeferredTracker:
    """
    Counts Deferreds that haven't fired, so that one can wait for all of them, or any,
    or until there are fewer than so many.

    A wait ends in the reactor's next turn after what it's for has come about, if it's
    still so then. So the Deferred that has brought it about has run all its callbacks.
    All waits end with C{False} when the reactor begins to shut down.

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
        Track nothing yet.

        @param interval: Without effect, like C{backoff}: nothing polls any longer.

        @param reactor: What keeps the time. By default, the global reactor.
        """
        self.dCount = 0
        # Those of them that were added,
        self._added = 0
        # and how many have fired, or have been removed, in all.
        self._firings = 0
        self._quit = False
        # The waits, each with what tells whether it has come about.
        self._waits: dict[Deferred[bool], Callable[[], bool]] = {}
        # Set if something has fired since they were looked at.
        self._turn: IDelayedCall | None = None
        self._reactor = reactor
        self._atShutdown = AtShutdown(partial(self._end, False, True), reactor)

    def put(self, d: _D) -> _D:
        """
        Track a Deferred, and return it. Its result, or failure, passes through
        untouched.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"Only a Deferred can be tracked, not {d!r}")
        self.dCount += 1
        d.addBoth(self._fired)
        return d

    def addWait(self) -> None:
        """Count something that isn't a Deferred, until L{removeWait}."""
        self.dCount += 1
        self._added += 1

    def removeWait(self) -> None:
        """
        Count one thing that isn't a Deferred as done. More calls than there were of
        L{addWait} raise RuntimeError.
        """
        if not self._added:
            raise RuntimeError("removeWait() was called more often than addWait()")
        self._added -= 1
        self._fired(None)

    def notWaiting(self) -> bool:
        """
        Tell whether nothing is tracked that hasn't fired, or waiting has been quit.
        """
        return self._quit or not self.dCount

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until nothing is tracked that hasn't fired, which includes what is tracked
        from now on. See L{deferUntilFewer}.
        """
        return self._wait(lambda: not self.dCount, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until something that is tracked fires; not at all if nothing is tracked.
        See L{deferUntilFewer}.
        """
        firings = self._firings if self.dCount else -1
        return self._wait(lambda: self._firings > firings, timeout)

    def deferUntilFewer(self, N: float, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until fewer Deferreds are tracked that haven't fired.

        @param N: Fewer than how many. There are never fewer than 0.

        @param timeout: Seconds to wait, C{None} or 0 for any time.

        @return: A Deferred that fires with C{True} when that is so, at once if it is;
            with C{False} when the time is up first. Cancelling it ends the wait only.
        """
        return self._wait(lambda: self.dCount < N, timeout)

    def quitWaiting(self) -> None:
        """End all waits with C{True}, and all future ones at once."""
        self._quit = True
        self._end(True, every=True)

    def _wait(
        self, hasCome: Callable[[], bool], timeout: float | None
    ) -> Deferred[bool]:
        if timeout:
            checkSeconds("timeout", timeout)
        if self._quit or hasCome():
            return succeed(True)
        d: Deferred[bool] = AwaitableDeferred(self._forget)
        self._waits[d] = hasCome
        self._atShutdown.want()
        if timeout:
            d.addTimeout(timeout, orGlobalReactor(self._reactor), lambda *_: False)
        return d

    def _forget(self, d: Deferred[bool]) -> None:
        del self._waits[d]
        if not self._waits:
            self._atShutdown.forgo()

    def _fired(self, result: _T) -> _T:
        self.dCount -= 1
        self._firings += 1
        if self._waits and self._turn is None:
            # Not now, for callbacks that were added after put() are yet to run.
            self._turn = orGlobalReactor(self._reactor).callLater(
                0, self._end, True, False
            )
        return result

    def _end(self, result: bool = True, every: bool = False) -> None:
        """End the waits for what has come about, or every one."""
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
        for d, hasCome in list(self._waits.items()):
            # The callbacks of one may cancel another, or undo what that is for.
            if d in self._waits and (every or hasCome()):
                self._forget(d)
                d.callback(result)


def callAfterDeferred(
    namespace: object,
    dName: str,
    f: Callable[..., object],
    /,
    *args: object,
    **kw: object,
) -> Deferred[Any]:
    """
    Make a call once a Deferred has fired that may be the attribute of an object.

    Calls that wait for the same Deferred are made in the order in which they came. Its
    result passes through untouched.

    @return: A Deferred that fires with what the call returns. The call is made at once
        if there's no such attribute, or it is C{None}. If the attribute fails, the call
        isn't made and the Deferred fails likewise.
    """
    call = partial(f, *args, **kw)
    gate = getattr(namespace, dName, None)
    if gate is None:
        return maybeDeferred(call)
    if not isinstance(gate, Deferred):
        raise TypeError(
            f"The attribute {dName!r} of {namespace!r} must be a Deferred or None,"
            f" not {gate!r}"
        )
    d: Deferred[object] = Deferred()

    def passOn(result: _T) -> _T:
        if not d.called:  # nor cancelled
            d.callback(result)
        return result

    d.addCallback(lambda _: maybeDeferred(call))
    gate.addBoth(passOn)
    return d
