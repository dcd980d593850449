"""One function for many items: in chunks, on all workers, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from .._child.calls import DONE, runChunk
from .._support.log import log
from ..errors import WorkerError
from ..tasks import Task

#: A chunk is to take about so long, so that the way to the worker and back is little
#: beside it, and yet no worker idles long at the end.
_CHUNK_SECONDS = 0.005

_MAX_CHUNK_ITEMS = 16_384

#: A chunk has so many times the items of the last one at the most, because what was
#: measured of few items says little.
_MAX_GROWTH = 64

_CHUNKS_PER_WORKER = 2

Progress = Callable[[int, "int | None"], object]


@define(eq=False)
class _Chunk:
    """Some items on their way."""

    task: Task | None = None
    isDone: bool = False
    results: list[Any] = field(factory=list)
    # What comes after the results.
    failure: Failure | None = None


class Mapping:
    """
    Calls a function for each item of an input that may be endless, from the first call
    of L{fill} on.
    """

    # _chunks has those that aren't delivered, in the order of the input.
    # _isOver is true once _finish has been called, or nobody wants to know.

    def __init__(
        self,
        submit: Callable[[Any, tuple[Any, ...]], Task],
        room: Callable[[], Deferred[None] | None],
        countWorkers: Callable[[], int],
        f: Callable[..., Any] | str,
        iterables: tuple[Iterable[Any], ...],
        *,
        chunksize: int | None,
        ordered: bool,
        progress: Progress | None,
        deliver: Callable[[list[Any]], object],
        finish: Callable[[Failure | None], object],
        maxUntaken: int | None = None,
    ) -> None:
        # Queues a call, and returns its task.
        self._submit = submit
        # Returns None if there's room for a call, or a Deferred to that.
        self._room = room
        self._countWorkers = countWorkers
        # Of remote workers it's the name of a method. Its arguments are one item, or
        # a tuple of several if _star is true.
        self._f = f
        self._isNamed = isinstance(f, str)
        self._star = len(iterables) > 1 or self._isNamed
        self._items: Iterator[Any] = (
            zip(*iterables, strict=False) if self._star else iter(iterables[0])
        )
        sizes = [len(x) for x in iterables if isinstance(x, Sized)]
        self._total = min(sizes) if len(sizes) == len(iterables) else None
        # Of the next chunks: found by measuring, unless it was given.
        self._size = 1 if self._isNamed or chunksize is None else chunksize
        self._isTuning = chunksize is None and not self._isNamed
        self._ordered = ordered
        # Called with the number of items that are done and of all,
        self._progress = progress
        # with lists of results,
        self._deliver = deliver
        # and at the end with how it has failed if it has.
        self._finish = finish
        # So many results may wait to be taken, None for any number.
        self._maxUntaken = maxUntaken
        self._untaken = 0
        self._read = 0
        self._done = 0
        self._isExhausted = False
        self._isReading = False
        self._inputFailure: Failure | None = None
        self._isOver = False
        self._isFilling = False
        self._fillAgain = False
        self._waiting: Deferred[None] | None = None
        self._chunks: deque[_Chunk] = deque()

    def fill(self) -> None:
        """Queue as many chunks as are in order."""
        self._fillAgain = True
        if self._isFilling:
            return
        self._isFilling = True
        try:
            while self._fillAgain:
                self._fillAgain = False
                while self._wantsChunk():
                    self._queueChunk()
        finally:
            self._isFilling = False
        if self._isExhausted and not self._isOver and not self._chunks:
            self._isOver = True
            self._finish(self._inputFailure)

    def taken(self, count: int) -> None:
        self._untaken -= count
        self.fill()

    def stop(self, failure: Failure | None = None) -> None:
        """
        Have no more items done. Those that are being done are left alone, and nobody
        hears of them; nor of the end, if there's no failure.
        """
        if self._isOver:
            return
        self._isOver = True
        if self._waiting is not None:
            self._waiting.cancel()
        for chunk in list(self._chunks):
            # There may have been another attempt since.
            task = None if chunk.task is None else chunk.task.d.task
            if task is not None and not task.accepted:
                task.d.cancel()
        if not self._isReading:
            self._closeInput()
        if failure is not None:
            self._finish(failure)

    def _closeInput(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # noqa: BLE001 - the input is the user's
                log.failure("The input of a map failed to be closed")

    def _wantsChunk(self) -> bool:
        """Whether another chunk is in order now."""
        if self._isOver or self._isExhausted or self._waiting is not None:
            return False
        if len(self._chunks) >= _CHUNKS_PER_WORKER * max(self._countWorkers(), 1):
            return False
        if (
            self._maxUntaken is not None
            and self._untaken + sum(c.isDone for c in self._chunks) >= self._maxUntaken
        ):
            return False
        room = self._room()
        if room is None:
            return True
        self._waiting = room
        room.addCallbacks(self._hasRoom, self._hasNoRoom)
        return False

    def _hasRoom(self, _: None) -> None:
        self._waiting = None
        self.fill()

    def _hasNoRoom(self, failure: Failure) -> None:
        self._waiting = None
        if not failure.check(CancelledError):
            self.stop(failure)

    def _queueChunk(self) -> None:
        items: list[Any] = []
        self._isReading = True
        try:
            items.extend(islice(self._items, self._size))
        except Exception:  # noqa: BLE001 - the input is the user's
            # What it has given before isn't lost.
            self._isExhausted = True
            self._inputFailure = Failure()
        self._isReading = False
        if self._isOver:  # The input has cancelled the map.
            self._closeInput()
            return
        if not items:
            self._isExhausted = True
            return
        chunk = _Chunk()
        self._chunks.append(chunk)
        first, self._read = self._read, self._read + len(items)
        try:
            if self._isNamed:
                chunk.task = self._submit(self._f, items[0])
            else:
                chunk.task = self._submit(runChunk, (self._f, items, first, self._star))
        except Exception:  # noqa: BLE001 - whatever is wrong with the call
            self._isExhausted = True
            self._arrived(chunk, [], Failure())
            return
        chunk.task.d.addCallbacks(
            self._ran,
            self._failed,
            callbackArgs=(chunk, len(items)),
            errbackArgs=(chunk,),
        )

    def _ran(self, result: Any, chunk: _Chunk, count: int) -> None:
        if self._isNamed:
            results = [result]
        else:
            try:
                seconds, results = result
            except (TypeError, ValueError):
                text = f"A worker handed back {result!r} for a part of a map"
                self._arrived(chunk, [], Failure(WorkerError(text)))
                return
            if self._isTuning:
                self._tune(seconds / count)
        self._arrived(chunk, results, None)

    def _failed(self, failure: Failure, chunk: _Chunk) -> None:
        # The exception, or what has been wrapped, brings along what was done before.
        results: list[Any] = []
        for error in (failure.value, getattr(failure.value, "__cause__", None)):
            if hasattr(error, DONE):
                _, results = getattr(error, DONE)
                delattr(error, DONE)
                break
        self._arrived(chunk, results, failure)

    def _tune(self, seconds: float) -> None:
        """Choose the size of the next chunks by how long an item takes."""
        most = min(self._size * _MAX_GROWTH, _MAX_CHUNK_ITEMS)
        if self._total is not None:
            # At the end all workers are to have something to do.
            left = max(self._total - self._read, 1)
            parts = _CHUNKS_PER_WORKER * max(self._countWorkers(), 1)
            most = min(most, -(-left // parts))
        wanted = _CHUNK_SECONDS / seconds if seconds > 0 else _MAX_CHUNK_ITEMS
        self._size = max(1, min(int(wanted), most))

    def _arrived(
        self, chunk: _Chunk, results: list[Any], failure: Failure | None
    ) -> None:
        """Deliver results, or keep them until it's their turn."""
        chunk.isDone = True
        chunk.results, chunk.failure = results, failure
        if self._ordered:
            while self._chunks and self._chunks[0].isDone and not self._isOver:
                self._hand(self._chunks.popleft())
        elif not self._isOver:
            self._chunks.remove(chunk)
            self._hand(chunk)
        if not self._isOver:
            self.fill()

    def _hand(self, chunk: _Chunk) -> None:
        """Deliver the results of a chunk, and fail if it has failed."""
        self._done += len(chunk.results)
        self._untaken += len(chunk.results)
        self._deliver(chunk.results)
        if self._progress is not None and chunk.results:
            try:
                self._progress(self._done, self._total)
            except Exception:  # noqa: BLE001 - the callable is the user's
                self.stop(Failure())
        if chunk.failure is not None:
            self.stop(chunk.failure)


def progressOf(progress: Any) -> Progress | None:
    """Get what is to be told of the progress; a bar for C{True}."""
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
