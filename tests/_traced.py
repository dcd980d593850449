"""What tests of tracing have workers do."""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry import baggage, trace

from asynqueue.wire import WireWorkerUniverse


def current() -> tuple[int, int]:
    """Return the IDs of the current span's trace, and its own."""
    context = trace.get_current_span().get_span_context()
    return context.trace_id, context.span_id


def customer() -> object:
    """Return the entry C{customer} of the baggage."""
    return baggage.get_baggage("customer")


def generate(n: int) -> Iterator[tuple[int, int]]:
    """Tell several times which span is current."""
    for _ in range(n):
        yield current()


async def later() -> tuple[int, int]:
    """Tell it from a coroutine."""
    return current()


def divide(x: int) -> float:
    return x / 0


class Traced(WireWorkerUniverse):
    """The same on a server."""

    def current(self) -> tuple[int, int]:
        """Tell which span is current."""
        return current()

    async def later(self) -> tuple[int, int]:
        """Tell it from a coroutine."""
        return await later()

    def customer(self) -> object:
        return customer()
