"""
What the chaos run has children do.

Children import this, so it imports nothing that takes its time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

#: What was set up in this interpreter.
prepared: list[str] = []


class Ordinary(Exception):
    """What a task raises that is meant to fail."""


def square(x: int) -> int:
    """Do next to nothing."""
    return x * x


def once(path: str, number: int) -> int:
    """Note that this is run."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % number)
    return number


def count(x: int) -> int:
    """Keep a core busy for a moment."""
    total = 0
    for i in range(x * 200):
        total += i
    return total


def nap(x: int) -> int:
    """Take some time."""
    time.sleep(x / 10_000)
    return x


def large(x: int, image: Any = None) -> bytes:
    """Have a large result, and change a large argument."""
    if image is not None:
        # Whatever others have done to theirs.
        assert not any(image[: 2 * x])
        image[x] = 1
    return bytes([x % 256]) * (x * 10_000)


def fail(x: int) -> None:
    raise Ordinary(x)


def leave(x: int) -> None:
    """End the child."""
    os._exit(x % 256)


def prepare(what: str) -> None:
    """Set up this interpreter."""
    prepared.append(what)


def isPrepared(x: int) -> list[str]:
    """Tell how this interpreter is set up."""
    return prepared


def items(x: int) -> Iterator[int]:
    yield from range(x)
