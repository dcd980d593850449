"""
How calls are given to an executor, and what comes of them: as they are where threads of
this interpreter run them, else pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from inspect import isgeneratorfunction
from time import perf_counter
from typing import Any, Protocol

from .._child.calls import isIteration, raisable
from .._child.describe import PLAIN, callText, errorText, nameOf
from .._child.parcels import execute, pack, unpack
from .._child.pickling import NotPicklable, blame
from .._child.status import RAN, ErrorText, Status
from .._support.answers import cantBeSent, loadsAnswer
from .._support.checks import checkReturned
from ..errors import WorkerError
from ..interfaces import ITask
from ..tasks._tracing import traced
from ._iteration import PoolItems

__all__ = ["LocalCalls", "PickledCalls", "PoolCalls", "Submit"]

#: An executor's C{submit}.
Submit = Callable[..., "Future[Any]"]


class PoolCalls(Protocol):
    """A way of giving calls to an executor."""

    def submit(self, submit: Submit, task: ITask, call: Any, raw: bool) -> Future[Any]:
        """
        Give a call, with the keywords for the worker taken out, to the executor.

        @raise WorkerError: If it can't be.
        """

    def outcome(self, result: Any, task: ITask) -> tuple[float, Any]:
        """
        Get from the result of the future the seconds that the call took, and the status
        and result of its task, or a failure.
        """


class LocalCalls:
    """Calls in threads of this interpreter."""

    def submit(self, submit: Submit, task: ITask, call: Any, raw: bool) -> Future[Any]:
        # A copy, since a call that was cancelled may still be in the task's.
        context = Context() if task.context is None else task.context.copy()
        return submit(_runHere, context, call, raw)

    def outcome(self, result: Any, task: ITask) -> tuple[float, Any]:
        seconds, status, value = result
        return seconds, (status, value)


class PickledCalls:
    """Calls in other interpreters."""

    def __init__(self, foreign: bool) -> None:
        """@param foreign: Whether those don't import the program's main module."""
        self._foreign = foreign

    def submit(self, submit: Submit, task: ITask, call: Any, raw: bool) -> Future[Any]:
        f, args, kw = call
        if task.direct:
            raise WorkerError(
                f"{task!r} would update one process only of the executor's: give the"
                " executor an initializer instead"
            )
        if isgeneratorfunction(f):
            reason = NotPicklable(
                f"{nameOf(f)} is a generator function, and its items can't be brought"
                " here from there: have it return a list, or call it with a"
                " ProcessQueue, which brings the items"
            )
            raise cantBeSent(task, reason)
        try:
            payload = pack((traced(f, task, raw), args, kw, raw), f, self._foreign)
        except NotPicklable as error:
            raise cantBeSent(task, blame(f, args, kw, error)) from error
        return submit(execute, payload)

    def outcome(self, result: Any, task: ITask) -> tuple[float, Any]:
        kind, payload = result
        found: tuple[float, Any] = loadsAnswer(kind, unpack(payload), task)
        return found


def _runHere(context: Context, call: Any, raw: bool) -> tuple[float, Status, Any]:
    """
    Run a call in a thread, and give the seconds that it took, its status and its
    result. That of an iteration is L{PoolItems}.
    """
    f, args, kw = call
    start = perf_counter()
    try:
        status, result = RAN, context.run(f, *args, **kw)
        if type(result) not in PLAIN:
            checkReturned(result, f)
            if not raw and isIteration(result):
                status, result = Status.ITERATOR, PoolItems(result, context)
                result.make(1)
    except BaseException as error:  # noqa: BLE001 - the callable is the user's
        text = callText(f, args, kw)
        status = Status.ERROR
        result = ErrorText(errorText(error, text), raisable(error, text))
    return perf_counter() - start, status, result
