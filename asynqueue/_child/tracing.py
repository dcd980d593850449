"""
What runs in the context of a trace that began elsewhere.

A span of OpenTelemetry's is current in a context, of C{contextvars}. Where that can't
go, its headers go (W3C Trace Context), and the span is current again, as a remote one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any

from .calls import isIteration


class TracedCall:
    """A callable, to be run in the context of a trace. It has the callable's name."""

    def __init__(self, f: Any, headers: dict[str, str], raw: bool) -> None:
        self._f = f
        self._headers = headers
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name not in ("__name__", "__qualname__"):
            raise AttributeError(name)  # of what isn't unpickled yet, and for pickle
        return getattr(self._f, name)

    def runTraced(self, *args: Any, **kw: Any) -> Any:
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
    def __init__(self, iterator: Iterator[Any], context: Context) -> None:
        self._iterator = iterator
        self._context = context

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
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
