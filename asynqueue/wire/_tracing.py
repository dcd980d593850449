"""
The context of a trace, in the fields of RunTask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._child.tracing import contextOf
from ..interfaces import ITask
from ._commands import TRACE_HEADERS

__all__ = ["runTraced", "traceFields"]

#: What W3C Baggage allows, which is the longest of these headers.
_MAX_BYTES = 8192

_FIELDS = {name.encode(): name for name in TRACE_HEADERS}


def traceFields(task: ITask) -> dict[str, bytes]:
    """
    Make fields of the headers that a task has.
    """
    headers = (None if task.watch is None else task.watch.headers) or {}
    fields = {name: headers.get(name, "").encode() for name in TRACE_HEADERS}
    return {name: data for name, data in fields.items() if 0 < len(data) <= _MAX_BYTES}


def runTraced(box: dict[bytes, bytes], f: Callable[[], Any]) -> Any:
    """
    Call something in the context that a box has the headers of, if it has any.
    """
    if _FIELDS.keys().isdisjoint(box):
        return f()
    headers = {
        name: box[field].decode("latin-1")
        for field, name in _FIELDS.items()
        if field in box
    }
    return contextOf(headers).run(f)
