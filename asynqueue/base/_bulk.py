"""Calls of one function for many items, or on all workers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from twisted.internet.defer import Deferred

from .._support.awaitable import AwaitableDeferred, awaitable
from .._support.checks import checkCount
from ..errors import QueueStopped
from ..iteration import Deferator
from ..iteration._sources import BufferedSource
from ..tasks import Task, TaskFactory
from ._calls import Calls
from ._mapping import Mapping, Progress, progressOf
from ._options import UNSET, CallOptions, RetryDelay

if TYPE_CHECKING:
    from typing_extensions import Unpack

_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")

#: So many results of an C{imap} may wait to be taken before more chunks are queued.
_MAX_UNTAKEN = 1_000


class MapOptions(TypedDict, total=False):
    """The keywords of C{map} and C{imap}."""

    chunksize: int | None
    ordered: bool
    progress: Progress | bool | None
    niceness: int
    series: Hashable
    doNext: bool
    doLast: bool
    timeout: float | None
    retries: int | None
    retryDelay: RetryDelay | None
    name: str | None


class BulkCalls(Calls):
    """
    The part of a L{TaskQueue<asynqueue.base.TaskQueue>} that takes maps and updates.
    """

    @overload
    def map(
        self, f: str, /, *iterables: Iterable[object], **options: Unpack[MapOptions]
    ) -> Deferred[list[Any]]: ...
    @overload
    def map(
        self,
        f: Callable[[_A], _T],
        first: Iterable[_A],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferred[list[_T]]: ...
    @overload
    def map(
        self,
        f: Callable[[_A, _B], _T],
        first: Iterable[_A],
        second: Iterable[_B],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferred[list[_T]]: ...
    @overload
    def map(
        self,
        f: Callable[[_A, _B, _C], _T],
        first: Iterable[_A],
        second: Iterable[_B],
        third: Iterable[_C],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferred[list[_T]]: ...
    @overload
    def map(
        self,
        f: Callable[..., _T],
        first: Iterable[object],
        second: Iterable[object],
        third: Iterable[object],
        fourth: Iterable[object],
        /,
        *iterables: Iterable[object],
        **options: Unpack[MapOptions],
    ) -> Deferred[list[_T]]: ...
    def map(
        self,
        f: Callable[..., object] | str,
        /,
        *iterables: Iterable[object],
        chunksize: int | None = None,
        ordered: bool = True,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Deferred[list[Any]]:
        """
        Call a function for each item of an iterable, or for the first items of
        several, then the second ones, and so on.

        Items go to the workers in chunks, and so many at a time that all have
        something to do, so that the iterable is read as the work goes on.

        @param f: The function. For remote workers, the name of a method.

        @param iterables: Iterables, one for each argument of the function.

        @param chunksize: Items in a chunk. By default it's found by measuring: a chunk
            is to take some milliseconds.

        @param ordered: C{False} for the results as they finish.

        @param progress: Called with the number of items that are done and that of all,
            C{None} if it isn't known. C{True} for a bar by the extra
            C{asynqueue[progress]}. If it raises, the map fails with that.

        @param options: Keywords C{niceness}, C{series}, C{timeout}, C{retries},
            C{retryDelay}, C{doNext}, C{doLast}, C{name}, which are as for C{call} and
            hold for each chunk.

        @return: A Deferred that fires with the list of results. It fails with the
            first failure, whatever the queue's policy for errors is; the exception has
            a note with the index of the item. When it's cancelled, chunks that haven't
            been started aren't.

        @raise TypeError: If there's no iterable, or an unknown keyword.

        @raise ValueError: If a number is out of range.

        @raise QueueRunError: If the queue isn't running.
        """
        results: list[object] = []
        d: Deferred[list[object]] = AwaitableDeferred(lambda _: mapping.stop())
        mapping = self._mapping(
            f,
            iterables,
            options,
            chunksize,
            progress,
            ordered=ordered,
            deliver=results.extend,
            finish=lambda failure: d.callback(results if failure is None else failure),
        )
        mapping.fill()
        return d

    @overload
    def imap(
        self, f: str, /, *iterables: Iterable[object], **options: Unpack[MapOptions]
    ) -> Deferator[Any]: ...
    @overload
    def imap(
        self,
        f: Callable[[_A], _T],
        first: Iterable[_A],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferator[_T]: ...
    @overload
    def imap(
        self,
        f: Callable[[_A, _B], _T],
        first: Iterable[_A],
        second: Iterable[_B],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferator[_T]: ...
    @overload
    def imap(
        self,
        f: Callable[[_A, _B, _C], _T],
        first: Iterable[_A],
        second: Iterable[_B],
        third: Iterable[_C],
        /,
        **options: Unpack[MapOptions],
    ) -> Deferator[_T]: ...
    @overload
    def imap(
        self,
        f: Callable[..., _T],
        first: Iterable[object],
        second: Iterable[object],
        third: Iterable[object],
        fourth: Iterable[object],
        /,
        *iterables: Iterable[object],
        **options: Unpack[MapOptions],
    ) -> Deferator[_T]: ...
    def imap(
        self,
        f: Callable[..., object] | str,
        /,
        *iterables: Iterable[object],
        chunksize: int | None = None,
        ordered: bool = True,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Deferator[Any]:
        """
        Call a function for each item as L{map} does, and get the results one after the
        other. The input may be endless: it's read as far as results are taken.

        The parameters, and what is raised, are those of L{map}.

        @return: An iterator of Deferreds, and an asynchronous iterator, of the results.
            After the results of the items before it, it fails as the item did.
        """
        source = BufferedSource(
            lambda count: mapping.taken(count), lambda: mapping.stop()
        )
        mapping = self._mapping(
            f,
            iterables,
            options,
            chunksize,
            progress,
            ordered=ordered,
            deliver=source.push,
            finish=source.end,
            maxUntaken=_MAX_UNTAKEN,
        )
        mapping.fill()
        return Deferator(source)

    def update(
        self,
        f: Callable[..., object] | str,
        /,
        *args: object,
        ephemeral: bool = False,
        sequential: bool = False,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        retryDelay: RetryDelay | None = None,
        returnFailure: bool | None = UNSET,
        name: Any = UNSET,
        raw: bool | None = None,
        consumer: None = None,
        **kw: object,
    ) -> Deferred[list[Any]]:
        """
        Run a call on each worker that is qualified for its series, and first of all on
        each that is attached later.

        @param f: The callable.

        @param args: Positional arguments.

        @param ephemeral: C{True} not to keep it for workers that come later.

        @param sequential: C{True} to run it on one worker after the other.

        @param series: As for L{call}, like C{timeout}, C{name} and C{raw}. The other
            keywords of a call are accepted, but an update is run at once, and once.

        @param kw: The callable's keywords.

        @return: A Deferred that fires with a list of the results, one for each worker
            there is now. Where it failed, the result is text about the failure.

        @raise ValueError: If there is a consumer.

        @raise QueueRunError: If the queue isn't running.

        @raise TypeError: If the callable isn't callable, or the series not hashable.
        """
        if consumer is not None:
            raise ValueError("An update can't have a consumer: it runs on every worker")
        if not self._running:
            self._refuse(f"the update {f!r}")
        if not callable(f):
            self._checkName(f)
        name = self._takeOwn(f, name, raw, kw)
        options = CallOptions(
            niceness,
            series,
            doNext,
            doLast,
            timeout,
            None,
            retries,
            retryDelay,
            returnFailure,
            name,
        )
        task = options.makeTask(self.taskFactory, f, args, kw)
        return awaitable(self.th.update(task, ephemeral, sequential))

    def _mapping(
        self,
        f: Callable[..., object] | str,
        iterables: tuple[Iterable[object], ...],
        options: dict[str, Any],
        chunksize: int | None,
        progress: object,
        **kw: Any,
    ) -> Mapping:
        if not self._running:
            self._refuse(f"a map of {f!r}")
        if not callable(f):
            self._checkName(f)
        if not iterables:
            raise TypeError(f"Items are needed to map {f!r} over")
        if chunksize is not None:
            checkCount("chunksize", chunksize, 1)
        unknown = options.keys() - MapOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"Unknown keywords for a map: {', '.join(sorted(unknown))}")
        # Errors come as they are: the mapping has to know.
        checked = CallOptions(**options, returnFailure=None)
        checked.makeTask(TaskFactory(), f, (), {})  # To complain here, if at all.

        def submit(g: Callable[..., object] | str, args: tuple[object, ...]) -> Task:
            if not self._running:
                raise QueueStopped(f"The queue was shut down before all calls of {f!r}")
            task = checked.makeTask(self.taskFactory, g, args, {})
            self._put(task)
            return task

        return Mapping(
            submit,
            self._admission,
            self._concurrency,
            f,
            iterables,
            chunksize=chunksize,
            progress=progressOf(progress),
            **kw,
        )

    def _concurrency(self) -> int:
        """Count the calls that keep all workers busy, 1 at least."""
        workers = self.th.workers.values()
        return max(1, sum(getattr(worker, "concurrency", 1) for worker in workers))
