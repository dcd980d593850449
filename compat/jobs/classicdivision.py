"""Division as in Python 2, which converted programs call."""

from __future__ import annotations

from typing import Any


def divide(a: Any, b: Any) -> Any:
    """Divide integers with an integer as the result, and anything else exactly."""
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b
