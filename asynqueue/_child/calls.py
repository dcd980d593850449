"""
Calls that are run where they are: plain ones, those of a part of a C{map}, and those in
the context of a trace that began elsewhere; what they have returned, and pickling.

Children import this when they start, so it imports only what is there anyway. Before
Twisted has been imported by somebody else, there are no Deferreds.

A span of OpenTelemetry's is current in a context, of C{contextvars}. Where that can't
go, its headers go (W3C Trace Context), and the span is current again, as a remote one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from itertools import starmap
from time import perf_counter
from types import AsyncGeneratorType, CoroutineType
from typing import Any, TypeGuard

from .describe import (
    CONTAINERS,
    PLAIN,
    callText,
    describe,
    errorText,
    failureText,
    isDeferred,
    message,
)
from .status import RAN, ErrorText, Status, StatusResult

__all__ = [
    "DONE",
    "CallRunner",
    "ContextIterator",
    "TracedCall",
    "contextOf",
    "isIteration",
    "isIterator",
    "kindOfAwaitable",
    "o2p",
    "p2o",
    "raisable",
    "runChunk",
]

#: The protocol of pickle, fixed so that peers with other versions of Python read it.
_PROTOCOL = 5
#: The attribute in which an exception brings along what a chunk had done before it.
DONE = "_asynqueueDone"


def o2p(obj: object) -> bytes:
    """Pickle an object, also an empty container, so that it comes back as it was."""
    import pickle

    return pickle.dumps(obj, _PROTOCOL)


def p2o(pickledString: bytes, defaultObj: object = None) -> Any:
    """
    Get an object out of its pickle.

    Unpickling runs whatever code the pickle names, so it's only for pickles of a peer
    that is trusted.

    @param defaultObj: What an empty pickle stands for, by which some peers mean an
        empty container, or nothing.
    """
    if not pickledString:
        return defaultObj
    import pickle

    return pickle.loads(pickledString)


def isIterator(x: object) -> bool:
    """
    Tell whether something is an iterator.

    @return: C{True} for generators, generator functions, and other objects with both
        C{__iter__} and C{__next__}, but never for Deferreds, strings, or containers.
        It never raises, whatever the thing is like.
    """
    from inspect import isgeneratorfunction

    try:
        return isIteration(x) or isgeneratorfunction(x)
    except BaseException:  # noqa: BLE001 - runs __getattribute__ of users
        return False


def isIteration(result: object) -> TypeGuard[Iterator[object]]:
    """
    Tell whether what a call has returned is an iteration: as L{isIterator} does, but a
    generator function is a result like any other.
    """
    # Looked up where next() does it, so not on instances.
    kind = type(result)
    try:
        return (
            kind not in PLAIN
            and getattr(kind, "__next__", None) is not None
            and getattr(kind, "__iter__", None) is not None
            and not issubclass(kind, CONTAINERS)
            and not isDeferred(result)
        )
    except BaseException:  # noqa: BLE001 - runs metaclasses of users
        return False


class CallRunner:
    """
    Runs calls and makes a status/result pair of what each comes to.

    Nothing that the callable raises gets out, not even C{SystemExit} or
    C{KeyboardInterrupt}: it becomes a pair like all else.

    @ivar callTimes: The seconds that each call took, with C{callStats}, in the order in
        which they were done. Nothing is ever removed; whoever reads it may clear it.
    """

    def __init__(
        self, raw: bool = False, callStats: bool = False, reactor: object = None
    ) -> None:
        """
        @param raw: C{True} for iterators to be results like any other. A keyword C{raw}
            of a call overrides it, and isn't passed on.

        @param callStats: C{True} to note how long each call takes, also one that fails.

        @param reactor: The reactor that runs in this thread, if there's one: Deferreds
            that callables return, and coroutines, are then waited for. Without it
            they are results like any other.
        """
        self.raw = raw
        self.callStats = callStats
        self.reactor = reactor
        self.callTimes: list[float] = []

    def __call__(self, callTuple: tuple[Any, Any, Any]) -> Any:
        """
        Run a call: a callable, its arguments, and its keywords.

        @return: The status/result pair: L{Status.RAN} and what was returned;
            L{Status.ITERATOR} and the iterator itself; or L{Status.ERROR} and an
            L{ErrorText} with the exception. If a reactor was given, and the callable
            returned a Deferred, it's a Deferred that fires with the pair.
        """
        f, args, kw = callTuple
        raw = self.raw
        if "raw" in kw:  # a copy, for the dict is the caller's
            kw = {**kw}
            raw = kw.pop("raw")
        start = perf_counter()
        try:
            result = f(*args, **kw)
        except BaseException as error:  # noqa: BLE001 - the callable is the user's
            self._note(start)
            _withoutOurFrame(error)
            call = callText(*callTuple)
            text = errorText(error, call)
            return Status.ERROR, ErrorText(text, raisable(error, call))
        if self.reactor is not None:
            if isinstance(result, CoroutineType):
                # There's a reactor, so somebody has imported this.
                defer = sys.modules["twisted.internet.defer"]
                result = defer.Deferred.fromCoroutine(result)
            if isDeferred(result):
                return result.addCallbacks(
                    self._fired,
                    self._failed,
                    callbackArgs=(start, raw),
                    errbackArgs=(start, callTuple),
                )
        return self._fired(result, start, raw)

    def _fired(self, result: object, start: float, raw: bool) -> StatusResult:
        self._note(start)
        iterates = not raw and isIteration(result)
        return (Status.ITERATOR if iterates else RAN), result

    def _failed(
        self, failure: Any, start: float, callTuple: tuple[object, object, object]
    ) -> StatusResult:
        self._note(start)
        call = callText(*callTuple)
        text = failureText(failure, call)
        error = raisable(failure.value, call)
        kept = failure if error is failure.value else None
        return Status.ERROR, ErrorText(text, error, kept)

    def _note(self, start: float) -> None:
        if self.callStats:
            self.callTimes.append(perf_counter() - start)


def _withoutOurFrame(error: BaseException) -> None:
    """Have a traceback begin in the user's code, and not keep our frame."""
    try:
        if error.__traceback__ is not None and error.__traceback__.tb_next:
            error.__traceback__ = error.__traceback__.tb_next
    except BaseException:  # noqa: BLE001 - it may be a property of the user's
        pass


def kindOfAwaitable(result: Any) -> str | None:
    """Name what only a reactor would wait for, C{None} for other results."""
    kind = type(result)
    if kind is CoroutineType:
        result.close()  # it isn't to be warned of besides
        return "a coroutine"
    if kind is AsyncGeneratorType:
        return "an asynchronous generator"
    return "a Deferred" if isDeferred(result) else None


def raisable(error: BaseException, call: str) -> BaseException:
    """
    Get an exception that can be raised wherever somebody waits for the call.

    C{StopIteration} can't: in a generator or coroutine it would mean something else. So
    a C{RuntimeError} carries it as the cause.
    """
    if not issubclass(type(error), StopIteration):  # __class__ may be the user's
        return error
    carrier = RuntimeError(f"{call} raised StopIteration({message(error)})")
    carrier.__cause__ = error
    return carrier


def runChunk(f: Callable[..., object], items: list[Any], first: int, star: bool) -> Any:
    """
    Call a function for each of some items, a part of those of a C{map}.

    What it raises passes on, with a note that has the index of the item, and with what
    was done before it in the attribute L{DONE}.

    @return: How many seconds it took, and the list of results; in the reactor, perhaps
        a Deferred of that.
    """
    start = perf_counter()
    results: list[object] = []
    try:
        results.extend(starmap(f, items) if star else map(f, items))
        if len(results) < len(items):
            # Seen from here, the items have come to their end.
            raise RuntimeError(f"{describe(f)} has raised StopIteration")
    except BaseException as error:
        _noteItem(error, first, results)
        raise
    # There may be very many results, of few types.
    examples = dict(zip(map(type, results), results, strict=True)).values()
    if any(isDeferred(example) for example in examples):
        return _gatherChunk(results, first, start)
    return perf_counter() - start, results


def _noteItem(error: BaseException, first: int, results: list[object]) -> None:
    index = first + len(results)
    notes = [*getattr(error, "__notes__", ()), f"Raised for item {index} of a map"]
    error.__notes__ = notes  # type: ignore[attr-defined, unused-ignore]
    setattr(error, DONE, (index, results))


def _gatherChunk(results: list[Any], first: int, start: float) -> object:
    # There is a Deferred, so it has been imported.
    defer = sys.modules["twisted.internet.defer"]

    async def gather() -> tuple[float, list[object]]:
        values: list[object] = []
        try:
            for result in results:  # not at once: those before a failure are kept
                values += [await result if isDeferred(result) else result]
        except BaseException as error:
            _noteItem(error, first, values)
            raise
        return perf_counter() - start, values

    return defer.Deferred.fromCoroutine(gather())


class TracedCall:
    """A callable, to be run in the context of a trace. It has the callable's name."""

    def __init__(self, f: Any, headers: dict[str, str], raw: bool) -> None:
        self._f = f
        self._headers = headers
        self._raw = raw

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") and name not in ("__name__", "__qualname__"):
            raise AttributeError(name)  # of what isn't unpickled yet, and for pickle
        return getattr(self._f, name)

    def runTraced(self, *args: object, **kw: object) -> object:
        """Run it. A method of this name is taken for the callable's code."""
        context = contextOf(self._headers)
        result = context.run(self._f, *args, **kw)
        if (
            isinstance(result, CoroutineType)
            and "twisted.internet.defer" in sys.modules
        ):
            defer = sys.modules["twisted.internet.defer"]
            return context.run(defer.Deferred.fromCoroutine, result)
        if not self._raw and isIteration(result):
            return ContextIterator(result, context)
        return result

    __call__ = runTraced


class ContextIterator:
    def __init__(self, iterator: Iterator[object], context: Context) -> None:
        self._iterator = iterator
        self._context = context

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._context.run(close)


def contextOf(headers: dict[str, str]) -> Context:
    """
    Make a context in which the span of headers is current, if anything here has
    imported OpenTelemetry. Else nobody would see it, and importing it takes long.
    """
    copied = copy_context()
    if "opentelemetry.context" in sys.modules:
        from opentelemetry import context, propagate

        copied.run(context.attach, propagate.extract(headers))
    return copied
