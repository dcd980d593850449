"""
Stands in for C{pingspice.analysis.evaluate}, which works with a program of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed


class Evaluator:
    """Multiplies sums by a factor."""

    def __init__(self, factor: float, *_: Any, **__: Any) -> None:
        self._factor = factor

    def setup(self, names: Sequence[int], *_: Any) -> Deferred[int]:
        """Count the names."""
        return succeed(len(names))

    def evaluateSSE(self, values: Sequence[float], *_: Any) -> float:
        """Compute something of the values."""
        return self._factor * sum(values)

    def shutdown(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)
