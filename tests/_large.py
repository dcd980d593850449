"""
What tests of large arguments and results have children do.

Children import this, so it imports nothing that takes its time.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

#: What is held on to in this interpreter.
held: list[Any] = []


class Thing:
    """Something that is pickled without its contents."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce__(self) -> Any:
        return Thing, (pickle.PickleBuffer(self.buffer),)


class Blob(bytes):
    """Bytes of a kind of their own, with an attribute."""

    note = ""


class ArrayError(Exception):
    """An error with something as its argument."""


class Holder:
    """Something with a large attribute."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def length(self, *more: Any) -> int:
        return len(self.data) + sum(map(len, more))


def same(value: Any) -> Any:
    return value


def later(value: Any) -> Any:
    """Give something back, later. It needs a reactor."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0, same, value)


def make(kind: Any, size: int, fill: int = 120) -> Any:
    return kind((bytearray if kind is Thing else bytes)([fill]) * size)


def exchange(number: int, value: Any, size: int) -> tuple[int, bytes]:
    """
    Give so many bytes in exchange for something, and the number that goes with it.
    """
    return number, bytes(size)


def count(value: Any) -> int:
    with memoryview(value) as view:
        return view.nbytes


def identities(value: list[Any]) -> tuple[list[int], list[Any]]:
    """
    For each of several things, tell the place of the first that is the same thing; and
    give them all.
    """
    ids = [id(thing) for thing in value]
    return [ids.index(each) for each in ids], value


def change(value: Any) -> Any:
    """Change something where it is."""
    value[0] = 77
    return value


def hold(value: Any) -> int:
    """Hold on to something. Returns the process ID."""
    held.append(value)
    return os.getpid()


def isHeld(value: Any) -> bool:
    """Tell whether something like it is held on to."""
    return value in held


def changeHeld() -> list[Any]:
    """Change all that is held on to, and let go of it. Returns it as it was."""
    before = [bytes(thing[:4]) for thing in held]
    for thing in held:
        thing[:4] = b"else"
    held.clear()
    return before


def makeAndHold(kind: Any, size: int) -> Any:
    """Make something large, and hold on to it."""
    held.append(make(kind, size))
    return held[-1]


def items(n: int, size: int) -> Iterator[bytes]:
    """Yield something large again and again."""
    for i in range(n):
        yield bytes([i]) * size


def raises(value: Any) -> None:
    """Raise an error that has something large."""
    raise ArrayError(value)


def takeMemory(most: int) -> None:
    """Have no more than so much memory from now on, beside what is in use."""
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(
        resource.RLIMIT_AS, (now + most, resource.getrlimit(resource.RLIMIT_AS)[1])
    )


def takeFiles(most: int) -> None:
    """Have no files of more bytes than this from now on."""
    import resource

    resource.setrlimit(
        resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )


def shorten(size: int) -> int:
    """
    Make files shorter, as a task might that takes them for its own. Returns how many
    can't be.
    """
    failed = 0
    for fd in (5, 6):
        try:
            os.ftruncate(fd, size)
        except OSError:  # noqa: PERF203 - there are two
            failed += 1
    return failed


def _dieAfter(n: int, f: Any, *args: Any) -> Any:
    """Do something, or be killed instead if it has been done n times."""
    held.append(None)
    if len(held) > n:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return f(*args)


def dieWhileReading(n: int) -> int:
    """
    Have this process be killed when it has read so many pieces of arguments. Returns
    its process ID.
    """
    from asynqueue._child import memfd as anonymous

    anonymous._read = partial(_dieAfter, n, anonymous._read)
    return os.getpid()


def dieWhileWriting(n: int, kind: Any, size: int) -> Any:
    """Return something large, and be killed when so many pieces of it are written."""
    os.pwrite = partial(_dieAfter, n, os.pwrite)
    return make(kind, size)


def forkAndDrop(value: Any) -> tuple[int, Any]:
    """
    Have a process that has the same things, drops them, and writes to them. Returns how
    it has ended, and the thing.
    """
    pid = os.fork()
    if not pid:
        held.append(memoryview(value)[:5])
        del value
        held.clear()
        gc.collect()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), value


def leaveProcess(value: Any) -> int:
    """
    Leave a process that has something, and does nothing for a while. Returns its
    process ID.
    """
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(len(value) & 1)
    return pid
