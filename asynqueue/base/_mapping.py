"""
One function for many items: in chunks, on all workers, within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from .._child.chunks import DONE, runChunk
from .._support.log import log
from ..tasks._task import Task

__all__ = ["Mapping", "Progress", "progressOf"]

#: A chunk is to take about so many seconds, so that the way to the worker and back is
#: little beside it, and yet no worker idles long at the end.
_TARGET = 0.005

#: A chunk has so many items at the most.
_MOST_ITEMS = 16_384

#: A chunk has so many times the items of the last one at the most, because what was
#: measured of few items says little.
_MOST_GROWTH = 64

#: So many chunks are on their way for each worker.
_AHEAD = 2

Progress = Callable[[int, "int | None"], object]


class _Host(Protocol):
    """
    What a mapping asks of the queue.
    """

    def makeTask(
        self, f: Any, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> tuple[Task, Deferred[Any]]:
        """
        Queue a call.

        @param f: The callable.

        @param args: Its arguments.

        @param kw: The queue's own keywords.

        @return: The task, and the Deferred of the result.
        """

    def room(self) -> Deferred[None] | None:
        """
        Tell whether the queue has room for a call.

        @return: C{None} if it has, or a Deferred to wait for.
        """

    def __len__(self) -> int:
        """
        The number of workers.
        """


class Mapping:
    """
    Calls a function for each item of an input that may be endless.

    @ivar done: How many items have been done.
    """

    def __init__(
        self,
        host: _Host,
        f: Callable[..., Any] | str,
        iterables: tuple[Iterable[Any], ...],
        options: dict[str, Any],
        *,
        chunksize: int | None,
        ordered: bool,
        progress: Progress | None,
        deliver: Callable[[list[Any]], object],
        finish: Callable[[Failure | None], object],
        most: int | None = None,
    ) -> None:
        """
        Begin. Nothing is called before L{fill}.

        @param host: The queue.

        @param f: The function, or for remote workers the name of a method.

        @param iterables: Where the arguments come from.

        @param options: The queue's own keywords of the calls.

        @param chunksize: Items in a chunk, C{None} to find it by measuring.

        @param ordered: Whether results are delivered in the order of the items.

        @param progress: Called with the number of items that are done and of all.

        @param deliver: Called with lists of results.

        @param finish: Called at the end, with how it has failed if it has.

        @param most: So many results may be waiting to be taken, C{None} for any
            number. See L{taken}.
        """
        self.done = 0
        self._host = host
        self._named = isinstance(f, str)
        self._f = f
        self._star = len(iterables) > 1 or self._named
        sizes = [len(x) for x in iterables if isinstance(x, Sized)]
        self.total: int | None = min(sizes) if len(sizes) == len(iterables) else None
        self._items: Iterator[Any] = (
            zip(*iterables, strict=False) if self._star else iter(iterables[0])
        )
        self._options = options
        self._size = 1 if self._named or chunksize is None else chunksize
        self._tuning = chunksize is None and not self._named
        self._ordered = ordered
        self._progress = progress
        self._deliver = deliver
        self._finish = finish
        self._most = most
        self._untaken = 0
        self._read = 0
        self._next = 0
        self._exhausted = False
        self._inputFailure: Failure | None = None
        self._over = False
        self._filling = False
        self._again = False
        self._waiting: Deferred[None] | None = None
        self._pending: dict[int, tuple[Task, Deferred[Any]]] = {}
        self._results: dict[int, tuple[list[Any], Failure | None]] = {}

    def fill(self) -> None:
        """
        Queue as many chunks as are in order.
        """
        self._again = True
        if self._filling:
            return
        self._filling = True
        try:
            while self._again:
                self._again = False
                while self._wants():
                    self._queueOne()
        finally:
            self._filling = False
        self._maybeFinish()

    def taken(self, count: int) -> None:
        """
        Note that results have been taken.

        @param count: How many.
        """
        self._untaken -= count
        self.fill()

    def stop(self, failure: Failure | None = None) -> None:
        """
        Have no more items done. Those that are being done are left alone, and nobody
        hears of them.

        @param failure: What it ends with. C{None} if nobody wants to know.
        """
        if self._over:
            return
        self._over = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        pending = list(self._pending.values())
        for task, d in pending:
            if not task.accepted:
                d.cancel()
        close = getattr(self._items, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # noqa: BLE001 - the input is the user's
                log.failure("The input of a map failed to be closed")
        if failure is not None:
            self._finish(failure)

    def _wants(self) -> bool:
        """
        Tell whether another chunk is in order.

        @return: Whether it is.
        """
        if self._over or self._exhausted or self._waiting is not None:
            return False
        if len(self._pending) + len(self._results) >= _AHEAD * max(len(self._host), 1):
            return False
        if self._most is not None and self._untaken + len(self._results) >= self._most:
            return False
        room = self._host.room()
        if room is None:
            return True
        self._waiting = room
        room.addCallbacks(self._hasRoom, self._hasNoRoom)
        return False

    def _hasRoom(self, _: None) -> None:
        """
        Go on: the queue has room.

        @param _: Nothing.
        """
        self._waiting = None
        self.fill()

    def _hasNoRoom(self, failure: Failure) -> None:
        """
        End: the queue will have no room.

        @param failure: Why.
        """
        self._waiting = None
        if not failure.check(CancelledError):
            self.stop(failure)

    def _queueOne(self) -> None:
        """
        Queue the next chunk.
        """
        items: list[Any] = []
        try:
            items.extend(islice(self._items, self._size))
        except Exception:  # noqa: BLE001 - the input is the user's
            # What it has given before isn't lost.
            self._exhausted = True
            self._inputFailure = Failure()
        if not items:
            self._exhausted = True
            return
        number, first = self._next, self._read
        self._next += 1
        self._read += len(items)
        args: tuple[Any, ...] = (self._f, items, first, self._star)
        try:
            if self._named:
                task, d = self._host.makeTask(self._f, items[0], self._options)
            else:
                task, d = self._host.makeTask(runChunk, args, self._options)
        except Exception:  # noqa: BLE001 - whatever is wrong with the call
            self._exhausted = True
            self._keep(number, [], Failure())
            return
        self._pending[number] = task, d
        d.addCallbacks(
            self._ran,
            self._failed,
            callbackArgs=(number, len(items)),
            errbackArgs=(number,),
        )

    def _ran(self, result: Any, number: int, count: int) -> None:
        """
        Take the results of a chunk.

        @param result: The seconds it took, and the results.

        @param number: The number of the chunk.

        @param count: How many items it had.
        """
        if self._named:
            results = [result]
        else:
            seconds, results = result
            if self._tuning:
                self._tune(seconds / count)
        self._pending.pop(number, None)
        self._keep(number, results, None)

    def _failed(self, failure: Failure, number: int) -> None:
        """
        Take the failure of a chunk.

        @param failure: How it has failed.

        @param number: The number of the chunk.
        """
        self._pending.pop(number, None)
        _, results = getattr(failure.value, DONE, (0, []))
        if hasattr(failure.value, DONE):
            delattr(failure.value, DONE)
        self._keep(number, results, failure)

    def _tune(self, seconds: float) -> None:
        """
        Choose the size of the next chunks.

        @param seconds: How long an item takes.
        """
        most = min(self._size * _MOST_GROWTH, _MOST_ITEMS)
        if self.total is not None:
            # At the end all workers are to have something to do.
            left = max(self.total - self._read, 1)
            most = min(most, -(-left // (_AHEAD * max(len(self._host), 1))))
        wanted = _TARGET / seconds if seconds > 0 else _MOST_ITEMS
        self._size = max(1, min(int(wanted), most))

    def _keep(self, number: int, results: list[Any], failure: Failure | None) -> None:
        """
        Deliver results, or keep them until it's their turn.

        @param number: The number of the chunk.

        @param results: Its results.

        @param failure: What comes after them, if anything.
        """
        if self._isOver():
            return
        self._results[number] = results, failure
        while self._results:
            turn = min(self._results)
            if self._ordered and self._pending and turn > min(self._pending):
                break
            ready, broken = self._results.pop(turn)
            self._hand(ready)
            if broken is not None:
                self.stop(broken)
            if self._isOver():
                return
        self.fill()

    def _isOver(self) -> bool:
        """
        Tell whether nobody is to hear of results any longer.

        @return: Whether it is so.
        """
        return self._over

    def _hand(self, results: list[Any]) -> None:
        """
        Deliver results.

        @param results: The results.
        """
        self.done += len(results)
        self._untaken += len(results)
        self._deliver(results)
        if self._progress is not None and results:
            self._progress(self.done, self.total)

    def _maybeFinish(self) -> None:
        """
        Finish if there's nothing left to do.
        """
        if self._exhausted and not (self._over or self._pending or self._results):
            self._over = True
            failure, self._inputFailure = self._inputFailure, None
            self._finish(failure)


def progressOf(progress: Any) -> Progress | None:
    """
    Get what is to be told the progress.

    @param progress: A callable, or C{True} for a bar, or nothing.

    @return: A callable that takes the number of items that are done, and of all or
        C{None}.

    @raise ImportError: If a bar is wanted, and tqdm isn't installed.

    @raise TypeError: If it's something else.
    """
    if progress is None or progress is False:
        return None
    if progress is not True:
        if not callable(progress):
            raise TypeError(
                f"progress must be a callable (done, total), or True, not {progress!r}"
            )
        checked: Progress = progress
        return checked
    try:
        from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            "progress=True needs tqdm: install the extra asynqueue[progress]"
        ) from error
    bar = tqdm()

    def show(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show
