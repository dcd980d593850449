"""
What a worker runs for a part of a C{map}.

Children import it, so there's nothing of Twisted in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import starmap
from time import perf_counter
from typing import Any

from .describe import describe, isDeferred

__all__ = ["DONE", "runChunk"]

#: The attribute in which an exception brings along what was done before it.
DONE = "_asynqueueDone"


def runChunk(f: Callable[..., Any], items: list[Any], first: int, star: bool) -> Any:
    """
    Call a function for each of some items.

    @param f: The function.

    @param items: The items.

    @param first: The index of the first one among all items.

    @param star: Whether each item is a tuple of arguments, or the one argument.

    @return: How many seconds it took, and the list of results; in the reactor, perhaps
        a Deferred of that.

    @raise BaseException: What the function has raised, with a note that has the index
        of the item, and what was done before it in the attribute L{DONE}.
    """
    start = perf_counter()
    results: list[Any] = []
    try:
        results.extend(starmap(f, items) if star else map(f, items))
        if len(results) < len(items):
            # Seen from here, the items have come to their end.
            raise RuntimeError(f"{describe(f)} has raised StopIteration")
    except BaseException as error:
        _note(error, first, results)
        raise
    if any(isDeferred(example) for example in _examples(results)):
        return _gather(results, first, start)
    return perf_counter() - start, results


def _examples(results: list[Any]) -> list[Any]:
    """
    Find one result of each type, since there may be very many of few types.

    @param results: The results.

    @return: One of each type.
    """
    return list(dict(zip(map(type, results), results, strict=True)).values())


def _note(error: BaseException, first: int, results: list[Any]) -> None:
    """
    Note at which item an exception was raised.

    @param error: The exception.

    @param first: The index of the first item.

    @param results: The results of those before.
    """
    index = first + len(results)
    notes = [*getattr(error, "__notes__", ()), f"Raised for item {index} of a map"]
    error.__notes__ = notes  # type: ignore[attr-defined, unused-ignore]
    setattr(error, DONE, (index, results))


def _gather(results: list[Any], first: int, start: float) -> Any:
    """
    Wait for results that are Deferreds.

    @param results: The results.

    @param first: The index of the first item.

    @param start: When the first call was made.

    @return: A Deferred that fires with how many seconds it took, and the results.
    """
    # There is a Deferred, so it has been imported.
    defer = sys.modules["twisted.internet.defer"]

    async def gather() -> Any:
        """
        Wait for one after the other.
        """
        values: list[Any] = []
        try:
            for result in results:  # not at once: those before a failure are kept
                values += [await result if isDeferred(result) else result]
        except BaseException as error:
            _note(error, first, values)
            raise
        return perf_counter() - start, values

    return defer.Deferred.fromCoroutine(gather())
