"""
What the contenders run: functions that children can import.

Imports nothing but the standard library, since children of all kinds import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any


def noop() -> None:
    """Do nothing."""


def identity(x: int) -> int:
    """Give a number back."""
    return x


def absolutes(xs: list[int]) -> list[int]:
    """Make many numbers absolute."""
    return list(map(abs, xs))


def echo(x: Any) -> Any:
    """Give a large thing back."""
    return x


def sleepThenTime(seconds: float) -> float:
    """Sleep, then tell the time by the clock that all processes of the system share."""
    time.sleep(seconds)
    return time.monotonic()


def pause(seconds: float) -> None:
    """Sleep, or do nothing if that's 0 seconds."""
    if seconds:
        time.sleep(seconds)


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def countTo(n: int) -> Iterator[int]:
    """Count, one item at a time."""
    yield from range(n)


def makeBytes(size: int) -> bytes:
    """Make a large result."""
    return bytes(size)


def makeItems(count: int, size: int) -> Iterator[bytes]:
    """Yield large items."""
    for _ in range(count):
        yield bytes(size)


def makeArray(size: int) -> Any:
    """Make a large array of numpy, which can be pickled out-of-band."""
    import numpy

    return numpy.ones(size, dtype=numpy.uint8)


def copyIn(value: Any) -> str:
    """
    Copy a large thing, an array of bytes, to shared memory. Returns the path of the
    file that it's in, which whoever opens it is to remove.
    """
    import mmap
    import tempfile

    import numpy

    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    descriptor, path = tempfile.mkstemp(dir=where)
    os.ftruncate(descriptor, len(value))
    with mmap.mmap(descriptor, len(value)) as shared:
        numpy.copyto(numpy.frombuffer(shared, numpy.uint8), value)
    os.close(descriptor)
    return path


def openShared(path: str) -> Any:
    """
    Open what has been copied to shared memory, without another copy, and remove the
    file.
    """
    import mmap

    import numpy

    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.unlink(path)
    return numpy.frombuffer(shared, numpy.uint8)


def copyBack(path: str) -> str:
    """
    Give a large thing back that is in shared memory. Returns the path of the new file.
    """
    return copyIn(openShared(path))


def meet(fifo: str, first: bool) -> int:
    """
    Wait for somebody in another process to do the same with the other end of a FIFO.
    Returns the ID of this process.
    """
    os.close(os.open(fifo, os.O_RDONLY if first else os.O_WRONLY))
    return os.getpid()
