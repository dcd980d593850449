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
from ._admission import Admission

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
    results: list[object] = field(factory=list)
    # What comes after the results.
    failure: Failure | None = None


class _Input:
    """The items of a map, of which there may be no end."""

    def __init__(self, iterables: tuple[Iterable[object], ...], star: bool) -> None:
        sizes = [len(x) for x in iterables if isinstance(x, Sized)]
        # How many there are, None if that isn't known; and how many have been read.
        self.total = min(sizes) if len(sizes) == len(iterables) else None
        self.read = 0
        # Whether no more are to be read, and what reading them has raised.
        self.isExhausted = False
        self.failure: Failure | None = None
        self._items: Iterator[object] = (
            zip(*iterables, strict=False) if star else iter(iterables[0])
        )
        self._isReading = False
        self._isClosed = False

    def take(self, count: int) -> list[Any]:
        """Read so many items, or as many as there are."""
        items: list[object] = []
        self._isReading = True
        try:
            items.extend(islice(self._items, count))
        except Exception:  # noqa: BLE001 - the input is the user's
            # What it has given before isn't lost.
            self.isExhausted = True
            self.failure = Failure()
        self._isReading = False
        if self._isClosed:  # The input has cancelled the map.
            self.close()
        self.isExhausted = self.isExhausted or not items
        self.read += len(items)
        return items

    def close(self) -> None:
        """Close what the items come from, if it can be, once it isn't being read."""
        self._isClosed = True
        close = getattr(self._items, "close", None)
        if close is not None and not self._isReading:
            try:
                close()
            except Exception:  # noqa: BLE001 - the input is the user's
                log.failure("The input of a map failed to be closed")


class Mapping:
    """Calls a function for each item of an input, from the first L{fill} on."""

    # _chunks has those that aren't delivered, in the order of the input. _waiting is
    # for a place in the queue; _hasPlace is true from then until a chunk takes it.
    # _isOver is true once _finish has been called, or nobody wants to know.

    def __init__(
        self,
        submit: Callable[[Callable[..., object] | str, tuple[object, ...]], Task],
        admission: Admission,
        countWorkers: Callable[[], int],
        f: Callable[..., object] | str,
        iterables: tuple[Iterable[object], ...],
        *,
        chunksize: int | None,
        ordered: bool,
        progress: Progress | None,
        deliver: Callable[[list[object]], object],
        finish: Callable[[Failure | None], object],
        maxUntaken: int | None = None,
    ) -> None:
        # Queues a call, and returns its task.
        self._submit = submit
        self._admission = admission
        self._countWorkers = countWorkers
        # Of remote workers it's the name of a method. Its arguments are one item, or
        # a tuple of several if _star is true.
        self._f = f
        self._isNamed = isinstance(f, str)
        self._star = len(iterables) > 1 or self._isNamed
        self._input = _Input(iterables, self._star)
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
        self._done = 0
        self._isOver = False
        self._isFilling = False
        self._waiting: Deferred[None] | None = None
        self._hasPlace = False
        self._chunks: deque[_Chunk] = deque()

    def fill(self) -> None:
        """Queue as many chunks as are in order."""
        if self._isFilling:
            return
        self._isFilling = True
        try:
            while self._wantsChunk():
                self._queueChunk()
        finally:
            self._isFilling = False
        if self._input.isExhausted and not self._isOver and not self._chunks:
            self._isOver = True
            self._finish(self._input.failure)

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
        self._input.close()
        if failure is not None:
            self._finish(failure)

    def _wantsChunk(self) -> bool:
        """Whether another chunk is in order now."""
        if self._isOver or self._input.isExhausted or self._waiting is not None:
            return False
        if len(self._chunks) >= _CHUNKS_PER_WORKER * self._countWorkers():
            return False
        if (
            self._maxUntaken is not None
            and self._untaken + sum(c.isDone for c in self._chunks) >= self._maxUntaken
        ):
            return False
        if self._hasPlace or self._admission.hasRoom():
            return True
        self._waiting = self._admission.wait()
        self._waiting.addCallbacks(self._admitted, self._refused)
        return False

    def _admitted(self, _: None) -> None:
        self._waiting = None
        self._hasPlace = True
        self.fill()

    def _refused(self, failure: Failure) -> None:
        self._waiting = None
        if not failure.check(CancelledError):
            self.stop(failure)

    def _queueChunk(self) -> None:
        first = self._input.read
        items = self._input.take(self._size)
        if self._isOver or not items:
            return
        chunk = _Chunk()
        self._chunks.append(chunk)
        if self._hasPlace:
            self._hasPlace = False
            self._admission.take()
        try:
            if self._isNamed:
                chunk.task = self._submit(self._f, items[0])
            else:
                chunk.task = self._submit(runChunk, (self._f, items, first, self._star))
        except Exception:  # noqa: BLE001 - whatever is wrong with the call
            self._input.isExhausted = True
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
        results: list[object] = []
        for error in (failure.value, getattr(failure.value, "__cause__", None)):
            if hasattr(error, DONE):
                _, results = getattr(error, DONE)
                delattr(error, DONE)
                break
        self._arrived(chunk, results, failure)

    def _tune(self, seconds: float) -> None:
        """Choose the size of the next chunks by how long an item takes."""
        most = min(self._size * _MAX_GROWTH, _MAX_CHUNK_ITEMS)
        if self._input.total is not None:
            # At the end all workers are to have something to do.
            left = max(self._input.total - self._input.read, 1)
            parts = _CHUNKS_PER_WORKER * self._countWorkers()
            most = min(most, -(-left // parts))
        wanted = _CHUNK_SECONDS / seconds if seconds > 0 else _MAX_CHUNK_ITEMS
        self._size = max(1, min(int(wanted), most))

    def _arrived(
        self, chunk: _Chunk, results: list[object], failure: Failure | None
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
                self._progress(self._done, self._input.total)
            except Exception:  # noqa: BLE001 - the callable is the user's
                self.stop(Failure())
        if chunk.failure is not None:
            self.stop(chunk.failure)


def progressOf(progress: object) -> Progress | None:
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
