"""
Executors, how they're made and how they end, what becomes of tasks when they break, and
iterations whose items are made in their threads.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextvars import Context
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError, Deferred

from .._child.calls import raisable
from .._child.describe import nameOf
from .._support.checks import checkCallable, checkDeliverable, checkFlag
from .._support.log import log
from .._support.reactor import Handover, IReactorAll, orGlobalReactor
from ..errors import WorkerError, WorkerLost
from ..interfaces import ITask
from ..iteration._sources import BufferedSource
from ..threads._looper import ThreadLooper

_T = TypeVar("_T")

#: A task that was there when so many executors broke isn't tried again.
MAX_LOSSES = 3

#: So many items are made in advance.
WINDOW = 16

#: Items are made for so many seconds before other calls have their turn.
SLICE_SECONDS = 0.001


class Pool:
    """An executor, and what it's to do."""

    # _waiting has what is to be called when futures are done, by these. It's for the
    # reactor's thread alone; what other threads say comes through _handover.
    # _ongoing has what goes on besides tasks.

    def __init__(
        self,
        given: Any,
        owned: bool | None,
        reactor: IReactorAll | None,
        ended: Callable[[], object],
    ) -> None:
        # What has made it, and can make another, None for one that was given.
        self.factory: Callable[[], Executor] | None = None
        if isinstance(given, Executor):
            self.executor = given
        else:
            checkCallable("executor", given)
            self.factory = given
            self.executor = given()
        if not isinstance(self.executor, Executor):
            raise TypeError(
                "There must be a concurrent.futures.Executor, or a callable that makes"
                f" one, not {given!r}, which has made {self.executor!r}"
            )
        if owned is not None:
            checkFlag("owned", owned)
        # Whether it's shut down when it isn't needed any longer.
        self.isOwned = self.factory is not None if owned is None else owned
        self.reactor = reactor
        self._waiting: dict[Future[object], Callable[[Future[object]], object]] = {}
        self._handover: Handover[Future[object]] | None = None
        self._ongoing: set[Deferred[None]] = set()
        # Called when some of that has ended.
        self._ended = ended

    @property
    def size(self) -> int:
        """
        How many calls it can run at once: the cores, for an executor that doesn't tell.
        """
        # There's no public way to ask. Executors of Python and loky have this.
        size = getattr(self.executor, "_max_workers", None)
        return size if isinstance(size, int) else os.cpu_count() or 1

    @property
    def isHere(self) -> bool:
        """
        Whether calls are run in this interpreter, so that nothing has to be pickled.
        """
        # Interpreters have threads, too. They're there from Python 3.14 on.
        interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
        return isinstance(self.executor, ThreadPoolExecutor) and not (
            interpreters and isinstance(self.executor, interpreters)
        )

    def submit(
        self,
        done: Callable[[Future[object]], object],
        f: Callable[..., object],
        *args: object,
    ) -> Future[object]:
        """
        Have the executor make a call. C{done} is called with its future in the
        reactor's thread. It's a RuntimeError if it's broken, or has been shut down.
        """
        if self._handover is None:  # There's a reactor by now.
            self.reactor = orGlobalReactor(self.reactor)
            self._handover = Handover(self._done, self.reactor)
        future = self.executor.submit(f, *args)
        self._waiting[future] = done
        future.add_done_callback(self._handover.put)
        return future

    def call(self, f: Callable[..., object], *args: object) -> Deferred[None]:
        """
        Have the executor make a call, outside the tasks. The Deferred fires with
        C{None} when it's done, or fails as it does.
        """
        d: Deferred[Future[object]] = Deferred()
        try:
            self.submit(d.callback, f, *args)
        except RuntimeError:
            d.errback()
        return d.addCallback(_raiseError)

    @property
    def isBusy(self) -> bool:
        """Whether anything goes on besides tasks."""
        return bool(self._ongoing)

    def begin(self, steps: Coroutine[Deferred[object], object, None]) -> Deferred[None]:
        d = Deferred.fromCoroutine(steps)
        if not d.called:
            self._ongoing.add(d)
            d.addBoth(self._over, d)
        return d

    async def shutDown(self) -> None:
        """
        Shut the executor down, if that's our business, and wait until nothing is left.
        """
        if not self.isOwned:
            return
        looper = ThreadLooper(reactor=self.reactor)
        try:
            await looper.deferToThread(self.executor.shutdown)
        except Exception:  # noqa: BLE001 - executors are of anybody's making
            log.failure("{executor} failed to shut down", executor=self.executor)
        await looper.stop()

    async def giveUp(self) -> None:
        """
        Do the same whatever the executor is at. Its processes are killed. Where threads
        are at something, they're left alone with it, and nobody waits.
        """
        for d in list(self._ongoing):
            d.cancel()
        left = [future for future in self._waiting if not future.cancel()]
        isBusy = not all(future.done() for future in left)
        if self.isOwned and not self._kill() and isBusy:
            self.executor.shutdown(wait=False)
        else:
            await self.shutDown()

    def _kill(self) -> bool:
        """Kill the processes of the executor, if it has any. Tells whether it has."""
        # Python 3.14 has kill_workers, after which shutdown doesn't wait any longer.
        processes = dict(getattr(self.executor, "_processes", None) or {})
        for process in processes.values():
            if process.is_alive():  # loky's can't be told to kill themselves
                os.kill(process.pid, signal.SIGKILL)
        return bool(processes)

    def _over(self, result: _T, d: Deferred[None]) -> _T:
        self._ongoing.discard(d)
        self._ended()
        return result

    def _done(self, future: Future[object]) -> None:
        done = self._waiting.pop(future, None)
        if done is not None:
            done(future)


def _raiseError(future: Future[object]) -> None:
    """Raise what a call has failed with, if it has."""
    if future.cancelled():
        raise CancelledError
    future.result()


class LossHistory:
    """
    The tasks that were there when the executors broke of a worker and those before it.
    """

    # An executor doesn't tell which call has broken it. So all that were there are
    # suspects, and are counted by the Deferreds of their calls, which further attempts
    # have, too.

    def __init__(self) -> None:
        # As many calls are to be run one at a time, as one may break the next, too.
        self.suspects = 0
        self._losses: WeakKeyDictionary[Deferred[object], int] = WeakKeyDictionary()

    def ran(self) -> None:
        if self.suspects:
            self.suspects -= 1

    def lost(
        self, task: ITask, workerID: int | None, cause: BaseException
    ) -> Exception:
        """Note that a task was lost, and make its error."""
        self.suspects += 1
        count = self._losses[task.d] = self._losses.get(task.d, 0) + 1
        text = f"{task!r} may have been running when its executor broke: {cause}"
        error: Exception = WorkerLost(text, workerID=workerID, task=task)
        if count >= MAX_LOSSES:
            error = WorkerError(f"{text} That has been so {count} times")
        error.__cause__ = cause
        return error


class PoolIteration:
    """
    An iterator that's iterated over in threads, one of which has it at a time.

    There's one job with the executor at a time, so that other calls get in between, and
    none while nobody takes the items.
    """

    # What a job writes, and others while there's none: _made has items that nobody has
    # taken, _isOver says that there are no more, and _error what has been raised. The
    # rest is the reactor's.

    def __init__(self, iterator: Iterator[object], context: Context) -> None:
        self._iterator = iterator
        self._context = context
        self._made: list[object] = []
        self._isOver = False
        self._error: BaseException | None = None
        # How many more items may be made, and who waits for that to be some.
        self._room = WINDOW
        self._waiting: Deferred[None] | None = None
        self.source = BufferedSource(self._taken, self._wake, every=WINDOW // 2)

    @property
    def isEmpty(self) -> bool:
        """Whether there were no items at all, as far as none has been pushed."""
        return self._isOver and not self._made and self._error is None

    def make(self, most: int) -> None:
        """Make items, not more than so many, and as they have come after a moment."""
        end = perf_counter() + SLICE_SECONDS
        try:
            for _ in range(most):
                item = self._context.run(next, self._iterator)
                checkDeliverable(item)
                self._made.append(item)
                if perf_counter() >= end:
                    break
        except StopIteration:
            self._isOver = True
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            self._isOver = True
            self._error = raisable(error, nameOf(self._iterator))

    async def run(self, pool: Pool) -> None:
        """
        Have items made as they're taken, until the end, or until nobody wants more.
        """
        source = self.source
        try:
            while not (self._isOver or source.stopped):
                self._push()
                if self._room > 0:
                    await pool.call(self.make, self._room)
                elif not source.stopped:  # by who takes items as they're pushed
                    self._waiting = Deferred()
                    await self._waiting
            self._push()
            if not self._isOver:
                await pool.call(self._close)
        except Exception as error:  # noqa: BLE001 - closing calls code of users
            if not source.stopped:
                self._error = WorkerLost("The executor was lost during an iteration")
                self._error.__cause__ = error
            elif not isinstance(error, (BrokenExecutor, CancelledError)):
                log.failure("An iterator failed to be closed")
        if self._error is None:
            source.end()
        else:
            source.fail(self._error)

    def _close(self) -> None:
        """Close the iterator, so that its C{finally} runs here."""
        self._isOver = True
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._context.run(close)

    def _push(self) -> None:
        made, self._made = self._made, []
        self._room -= len(made)
        self.source.push(made)

    def _taken(self, count: int) -> None:
        self._room += count
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
