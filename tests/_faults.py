"""
What the tests of faults have children do.

Children import this, so it imports nothing that takes its time.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from asynqueue._child.protocol import HEADER, Kind

#: What was set up in this interpreter.
ready: list[Any] = []


class Evil:
    """Does something bad when it's pickled, or when it's unpickled."""

    def __init__(self, when: str, how: str) -> None:
        self.when = when
        self.how = how

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            strike(self.how)
        return (strike, (self.how,)) if self.when == "unpickled" else (Evil, ("", ""))


class EvilOnlyHere(Evil):
    """Can be unpickled only in the process that has made it."""

    def __reduce__(self) -> Any:
        return strikeElsewhere, (os.getpid(),)


class Nameless(Exception):
    """An exception with an initializer of its own."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unspeakable(Exception):
    """An exception that can't be pickled, nor shown."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no text either")


def strike(how: str) -> None:
    if how == "raise":
        raise LookupError("evil")
    if how == "sys.exit":
        sys.exit(5)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how.startswith("exit"):
        os._exit(int(how.removeprefix("exit")))
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def strikeElsewhere(pid: int) -> None:
    """Raise in any other process."""
    if os.getpid() != pid:
        raise LookupError("elsewhere")


def make(kind: Any, *args: Any) -> Any:
    """Make something of a class, to be the result."""
    return kind(*args)


def raises(name: str) -> None:
    """Raise something that's hard to bring over."""
    if name == "nameless":
        raise Nameless(1, 2)
    if name == "unspeakable":
        raise Unspeakable
    if name == "huge":
        raise ValueError("x" * 3_000_000)
    if name == "base":
        raise BaseException("from the base")
    if name == "circular":
        error = ValueError("circular")
        error.args = (error,)
        error.__cause__ = OSError("cause")
        error.__cause__.__cause__ = error
        raise error
    if name == "local":

        class Local(Exception):
            pass

        raise Local("known nowhere else")
    # Older versions of Python have no groups.
    group = getattr(builtins, "ExceptionGroup", ValueError)
    raise group("two", [ValueError("one"), KeyError("other")])


def halfAFrame(size: int) -> None:
    """Send half of a result, and be killed."""
    data = memoryview(HEADER.pack(size, Kind.RESULT, 1) + bytes(size // 2))
    while data:
        data = data[os.write(4, data) :]
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def length(data: bytes) -> int:
    return len(data)


def ignoreTermAndSleep() -> None:
    """Be deaf to the soft signal, and never be done."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def loopInC() -> int:
    """Never come back from a loop that isn't Python's."""
    return sum(iter(int, 1))


def initialize(what: Any) -> None:
    """Note that the interpreter is set up."""
    ready.append(what)


def initialized() -> list[Any]:
    """Tell what was noted when the interpreter was set up."""
    return list(ready)


def noteTask() -> tuple[int, list[Any]]:
    """
    Tell the ID of the process that runs this, and what was noted when it was set up.
    """
    return os.getpid(), list(ready)


def failUnless(path: str) -> str:
    """Fail if there's no such file. Returns its path."""
    if not os.path.exists(path):
        raise LookupError(f"no {path} here")
    return path


def failIn(pid: int) -> int:
    """Fail in one process. Elsewhere, return the process ID."""
    if os.getpid() == pid:
        raise LookupError("not this one")
    return os.getpid()


def exhaustMemory(most: int) -> int:
    """
    Ask for more memory than there may be: so many bytes beside those that are in use.
    """
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + most, limits[1]))
    try:
        return len(bytearray(most * 4))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def hold(size: int) -> int:
    """Have so much memory in use from now on. Returns the process ID."""
    ready.append(b"x" * size)
    return os.getpid()


def flood(size: int) -> int:
    """Write much to the standard streams, of all bytes there are."""
    block = bytes(range(256)) * 4096
    for fd in (1, 2):
        for _ in range(size // 2 // len(block)):
            data = memoryview(block)
            while data:
                data = data[os.write(fd, data) :]
    return size


def fork() -> int:
    """
    Leave a child of one's own that does nothing for a while. Returns its process ID.
    """
    pid = os.fork()
    if not pid:
        time.sleep(20)
        os._exit(0)
    return pid


def leaveThread() -> None:
    """Leave a thread that never ends."""
    threading.Thread(target=threading.Event().wait).start()


def countTo(n: int, how: str = "raise") -> Iterator[int]:
    """Yield so many numbers, and do something bad: see L{strike}."""
    yield from range(n)
    # The items are on their way before.
    time.sleep(0.05)
    strike(how)


def niceness() -> int:
    """Tell the niceness of this process."""
    return os.nice(0)


def endsLater(size: int) -> bytes:
    """
    Return something large, and be killed when that has been sent, before anything else.
    """
    write = os.write

    def writeLast(fd: int, data: Any) -> int:
        written = write(fd, data)
        if fd == 4 and written == len(data):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return written

    os.write = writeLast
    return b"x" * size


def closeAllAndMake(size: int) -> bytes:
    os.closerange(0, 100)
    return bytes(size)
