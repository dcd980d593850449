"""What a worker runs for a part of a C{map}."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import starmap
from time import perf_counter
from typing import Any

from .describe import describe, isDeferred

#: The attribute in which an exception brings along what was done before it.
DONE = "_asynqueueDone"


def runChunk(f: Callable[..., Any], items: list[Any], first: int, star: bool) -> Any:
    """
    Call a function for each of some items.

    What it raises passes on, with a note that has the index of the item, and with what
    was done before it in the attribute L{DONE}.

    @return: How many seconds it took, and the list of results; in the reactor, perhaps
        a Deferred of that.
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
    # There may be very many results, of few types.
    examples = dict(zip(map(type, results), results, strict=True)).values()
    if any(isDeferred(example) for example in examples):
        return _gather(results, first, start)
    return perf_counter() - start, results


def _note(error: BaseException, first: int, results: list[Any]) -> None:
    index = first + len(results)
    notes = [*getattr(error, "__notes__", ()), f"Raised for item {index} of a map"]
    error.__notes__ = notes  # type: ignore[attr-defined, unused-ignore]
    setattr(error, DONE, (index, results))


def _gather(results: list[Any], first: int, start: float) -> Any:
    # There is a Deferred, so it has been imported.
    defer = sys.modules["twisted.internet.defer"]

    async def gather() -> Any:
        values: list[Any] = []
        try:
            for result in results:  # not at once: those before a failure are kept
                values += [await result if isDeferred(result) else result]
        except BaseException as error:
            _note(error, first, values)
            raise
        return perf_counter() - start, values

    return defer.Deferred.fromCoroutine(gather())
