"""A span for each call. Imported only in programs that have imported OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import lru_cache, wraps

from opentelemetry import context, propagate, trace
from twisted.python.failure import Failure

from .._child.describe import describe, nameOf
from .._support.log import log
from .._version import __version__
from ..tasks import Task


def activeTracer() -> trace.Tracer | None:
    """Get a tracer, C{None} if the program hasn't said where spans go."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    return _tracerOf(provider)


@lru_cache(maxsize=1)  # saves 30 us
def _tracerOf(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer("asynqueue", __version__)


def _logged(method: Callable[..., None]) -> Callable[..., None]:
    """Log what OpenTelemetry raises, or an exception that it asks for its text."""

    @wraps(method)
    def logging(*args: object) -> None:
        try:
            method(*args)
        except Exception:  # noqa: BLE001 - of the user's processors and exceptions
            log.failure("The span of a call failed")

    return logging


class CallSpan:
    """
    The span of a call, from when it's made to when it has its result.

    Its parent is the span that was current where the call was made. It's current itself
    where the call is run.
    """

    # _callers is the context that the task had, which callbacks of its result are to
    # be run in.

    __slots__ = ("_callers", "_context", "_span")

    def __init__(self, tracer: trace.Tracer, queue: str | None, task: Task) -> None:
        """Begin, in the caller's context, for the queue of a name."""
        f = nameOf(task.callTuple[0])
        attributes = {"code.function.name": f}
        if queue is not None:
            attributes["asynqueue.queue"] = queue
        if task.series is not None:
            attributes["asynqueue.series"] = describe(task.series)
        self._span = tracer.start_span(task.name or f, attributes=attributes)
        self._context = trace.set_span_in_context(self._span)
        self._callers = task.context
        task.context = Context() if task.context is None else task.context.copy()
        task.context.run(context.attach, self._context)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry the span to where contexts can't go."""
        headers: dict[str, str] = {}
        propagate.inject(headers, self._context)
        return headers

    @_logged
    def noteStarted(self, worker: object) -> None:
        self._span.add_event("started", {"worker": describe(worker)})

    @_logged
    def noteRetried(self, failure: Failure) -> None:
        self._span.add_event("retried", {"reason": failure.getErrorMessage()})

    def end(self, task: Task, failure: Failure | None = None) -> None:
        """End. No other task of the call will follow this one."""
        task.context = self._callers
        self._end(failure)

    @_logged
    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self._span.record_exception(failure.value)
            self._span.set_status(trace.StatusCode.ERROR, failure.getErrorMessage())
        self._span.end()
