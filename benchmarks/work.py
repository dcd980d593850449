"""
What the contenders run: functions that children can import.

Imports nothing but the standard library, since children of all kinds import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

__all__ = [
    "absolutes",
    "copyBack",
    "copyIn",
    "countTo",
    "echo",
    "identity",
    "makeArray",
    "makeBytes",
    "meet",
    "noop",
    "openShared",
    "pause",
    "sleepThenTime",
    "spin",
]


def noop() -> None:
    """Do nothing."""


def identity(x: int) -> int:
    """
    Give a number back.

    @param x: The number.

    @return: The same.
    """
    return x


def absolutes(xs: list[int]) -> list[int]:
    """
    Make many numbers absolute.

    @param xs: The numbers.

    @return: What C{abs} makes of them.
    """
    return list(map(abs, xs))


def echo(x: Any) -> Any:
    """
    Give a large thing back.

    @param x: The thing.

    @return: The same.
    """
    return x


def sleepThenTime(seconds: float) -> float:
    """
    Sleep, then tell the time.

    @param seconds: How long.

    @return: The time at the end, by the clock that all processes of the system share.
    """
    time.sleep(seconds)
    return time.monotonic()


def pause(seconds: float) -> None:
    """
    Sleep, or do nothing.

    @param seconds: How long. 0 for nothing.
    """
    if seconds:
        time.sleep(seconds)


def spin(seconds: float) -> None:
    """
    Keep a core busy.

    @param seconds: How long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def countTo(n: int) -> Iterator[int]:
    """
    Count, one item at a time.

    @param n: How many items there are.

    @return: An iterator of them.
    """
    yield from range(n)


def makeBytes(size: int) -> bytes:
    """
    Make a large result.

    @param size: Its size.

    @return: It.
    """
    return bytes(size)


def makeItems(count: int, size: int) -> Iterator[bytes]:
    """
    Yield large items.

    @param count: How many.

    @param size: The size of each.

    @return: An iterator of them.
    """
    for _ in range(count):
        yield bytes(size)


def makeArray(size: int) -> Any:
    """
    Make a large result that can be pickled out-of-band.

    @param size: Its size in bytes.

    @return: An array of numpy.
    """
    import numpy

    return numpy.ones(size, dtype=numpy.uint8)


def copyIn(value: Any) -> str:
    """
    Copy a large thing to shared memory.

    @param value: The thing, an array of bytes.

    @return: The path of the file that it's in, which whoever opens it is to remove.
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
    Open what has been copied to shared memory, without another copy.

    @param path: The path of the file, which is removed.

    @return: An array.
    """
    import mmap

    import numpy

    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.unlink(path)
    return numpy.frombuffer(shared, numpy.uint8)


def copyBack(path: str) -> str:
    """
    Give a large thing back that is in shared memory.

    @param path: The path of its file.

    @return: That of another.
    """
    return copyIn(openShared(path))


def meet(fifo: str, first: bool) -> int:
    """
    Wait for somebody in another process to do the same with the other end of a FIFO.

    @param fifo: The path of the FIFO.

    @param first: Which end is to be opened.

    @return: The ID of this process.
    """
    os.close(os.open(fifo, os.O_RDONLY if first else os.O_WRONLY))
    return os.getpid()
