"""
Calls that are run where they are, and the pickling of what goes with them.

Children import this when they start, so it imports only what is there anyway. Before
Twisted has been imported by somebody else, there are no Deferreds.
"""

from __future__ import annotations

import sys
from time import perf_counter
from types import AsyncGeneratorType, CoroutineType
from typing import Any

from .describe import (
    CONTAINERS,
    PLAIN,
    callText,
    errorText,
    failureText,
    isDeferred,
    message,
)
from .status import RAN, ErrorText, Status, StatusResult

__all__ = [
    "CallRunner",
    "isIteration",
    "isIterator",
    "kindOfAwaitable",
    "o2p",
    "p2o",
    "raisable",
]

#: The protocol of pickle, fixed so that peers with other versions of Python read it.
_PROTOCOL = 5


def o2p(obj: object) -> bytes:
    """Pickle an object, also an empty container, so that it comes back as it was."""
    import pickle

    return pickle.dumps(obj, _PROTOCOL)


def p2o(pickledString: bytes, defaultObj: Any = None) -> Any:
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


def isIteration(result: object) -> bool:
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

    def _fired(self, result: Any, start: float, raw: bool) -> StatusResult:
        self._note(start)
        iterates = not raw and isIteration(result)
        return (Status.ITERATOR if iterates else RAN), result

    def _failed(
        self, failure: Any, start: float, callTuple: tuple[Any, Any, Any]
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
