"""
What tests have children do.

Children import this, so it imports nothing that takes its time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from asynqueue._child.processbase import ProcessBase

#: Told to L{remember}, and by L{remembered}.
memory: list[Any] = []


class OfTheTask(Exception):
    """An exception of a task."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code
        self.why = why


class OnlyInChild(Exception):
    """An exception that can't be unpickled where nobody has set C{here}."""

    here = False

    def __reduce__(self) -> Any:
        """Say who is to unpickle it."""
        return makeOnlyInChild, ()


def makeOnlyInChild() -> OnlyInChild:
    """Unpickle an exception, which works in a child alone."""
    if not OnlyInChild.here:
        raise LookupError("not here")
    return OnlyInChild()


class Sum(ProcessBase):
    """Sums up what its copies in one interpreter were given."""

    def add(self, number: int) -> tuple[int, int]:
        """Add a number. Returns the process ID and the sum."""
        self.data["total"] = self.data.get("total", 0) + number
        return self.pid, self.total


def echo(*args: Any, **kw: Any) -> Any:
    return args, kw


def nothing() -> None:
    """Do nothing."""


def fail(code: int) -> None:
    """Fail, with all that an exception can have."""
    try:
        {"key": 1}["missing"]
    except KeyError as error:
        failure = OfTheTask(code, why="because")
        failure.__notes__ = ["a note"]  # type: ignore[attr-defined]
        raise failure from error


def raiseThat(kind: Any, *args: Any) -> None:
    raise kind(*args)


def givesLambda() -> Any:
    """Return something that pickle can't do."""
    return lambda: "from a lambda"


def givesLock() -> Any:
    """Return something that can't be pickled at all."""
    return threading.Lock()


def givesUnloadable() -> Any:
    """Return something that can't be unpickled in the parent."""
    return OnlyInChild()


def hideCloudpickle() -> None:
    """Have this interpreter be without cloudpickle."""
    sys.modules["cloudpickle"] = None  # type: ignore[assignment]


def ends(how: str) -> None:
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "crash":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)
    else:
        os.write(4, b"This is no frame, but a text that was written to the pipe.")
        time.sleep(60)


def sleepFor(seconds: float) -> float:
    """Take so many seconds, and return the number."""
    time.sleep(seconds)
    return seconds


def waitAtGate(path: str) -> str:
    """
    Write that it has begun, and wait until the gate, a pipe with a name, is opened.
    Returns what was written to it.
    """
    print("waiting at the gate")  # noqa: T201 - tests listen for it
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1).decode()
    finally:
        os.close(fd)


def remember(value: Any) -> int:
    """Remember something in this interpreter. Returns the process ID."""
    memory.append(value)
    return os.getpid()


def remembered() -> tuple[int, list[Any]]:
    """Return the process ID, and what is remembered."""
    return os.getpid(), list(memory)


def count(n: int) -> Iterator[int]:
    yield from range(n)


def countAndFail(n: int) -> Iterator[int]:
    """Count from 0 up, and fail."""
    yield from range(n)
    raise OfTheTask(n, why="after items")


def countForEver() -> Iterator[int]:
    """Count from 0 up, remembering how far it has come, and when it was ended."""
    i = 0
    try:
        while True:
            memory[:] = [i]
            yield i
            i += 1
    finally:
        memory.append("ended")


def countAtGate(path: str) -> Iterator[int]:
    """
    Count from 0 up, each time that the gate, a pipe with a name, is opened, until
    that's for the end.
    """
    for i in range(100):
        yield i
        if waitAtGate(path) == "!":
            return


def locks(n: int) -> Iterator[Any]:
    """Yield so many numbers, then something that can't be pickled."""
    try:
        yield from range(n)
        yield threading.Lock()
    finally:
        memory.append("closed")


def prints(text: str) -> None:
    """Write to both standard streams, and read the third."""
    print(text)  # noqa: T201 - what it's for
    print(text, "on stderr", file=sys.stderr)  # noqa: T201
    assert sys.stdin.read() == ""


def notes(path: str, number: int) -> int:
    """Note in a file that this has been called."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % number)
    return number


def hasDescriptors() -> list[int]:
    """List the open descriptors, but for that of the listing itself."""
    return [
        int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")
    ]


def deferred(value: Any, seconds: float = 0.0) -> Any:
    """
    Return a Deferred that fires with a value, or fails with an exception, in so many
    seconds. It needs a reactor.
    """
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    def give() -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return deferLater(reactor, seconds, give)


def deferreds(n: int, end: Any = None) -> Iterator[Any]:
    """
    Yield Deferreds that fire with numbers, and plain numbers, in turn. The last may
    fail. It needs a reactor.
    """
    for i in range(n):
        yield deferred(i) if i % 2 else i
    if end is not None:
        yield deferred(end)


async def coroutine(value: Any) -> Any:
    """Wait for a Deferred that fires with a value, and return that."""
    return await deferred(value)


def stopReactor() -> Any:
    """Stop the reactor, and return a Deferred that never fires."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    reactor.stop()
    return Deferred()


class _Refusing(type):
    """Classes that don't want to be looked at."""

    def __getattr__(cls, name: str) -> Any:
        raise ValueError(f"no {name}")


class Odd(metaclass=_Refusing):
    """Something that doesn't want to be looked at."""


def givesOdd() -> Any:
    """Return something that doesn't want to be looked at."""
    return Odd()


async def asyncItems(n: int) -> Any:
    """Yield integers, asynchronously."""
    for i in range(n):
        yield i


def forks(how: str) -> int:
    """
    Fork a process that leaves this function in one way or another. Returns its exit
    code, in the process that has forked it.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it's soon over
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("in the fork")
    return 77


def stopsIteration(x: int) -> int:
    """Raise C{StopIteration} for 7."""
    if x == 7:
        raise StopIteration
    return x


def leavesThread(path: str, count: int) -> None:
    """Leave a thread that writes lines to a file, slowly."""

    def write() -> None:
        with open(path, "w") as file:
            for i in range(count):
                file.write(f"{i}\n")
                time.sleep(0.01)

    threading.Thread(target=write).start()


def writesShared(name: str, value: int) -> None:
    """Write to a block of shared memory."""
    from multiprocessing.shared_memory import SharedMemory

    block = SharedMemory(name=name)
    memoryview(block.buf or b"")[0] = value
    block.close()


def add(a: Any, b: Any) -> Any:
    return a + b


def atGate(begun: str, gate: str, value: Any = None) -> Any:
    """
    Write to one pipe that this has begun, and return a value when something can be read
    from the other.
    """
    # Both are opened first: a test that is over has closed its ends.
    with open(begun, "wb", buffering=0) as told, open(gate, "rb", buffering=0) as held:
        told.write(b"x")
        held.read(1)
    return value


def exits() -> None:
    """Try to end the program."""
    raise SystemExit(3)
