"""The context of a trace, for calls that are pickled."""

from __future__ import annotations

from .._child.calls import TracedCall
from ..interfaces import ITask


def traced(f: object, task: ITask, raw: bool) -> object:
    """
    Have a callable take the context of its task's trace along, if there's any.

    @param raw: Whether an iterator is a result like any other.
    """
    headers = None if task.watch is None else task.watch.headers
    return f if headers is None else TracedCall(f, headers, raw)
