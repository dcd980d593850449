"""
A child's ends of the pipes, how it's made to be like the parent, and how it ends.

The standard streams are free for what runs here.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from .buffers import BufferReader, BufferWriter
from .mainmodule import adopt, leaveAttachedAlone
from .pickling import Packed, loads
from .protocol import (
    BUFFERS,
    HEADER,
    READ_BYTES,
    ChildFD,
    ClaimReader,
    Decoder,
    Frame,
    Kind,
)
from .startup import endWithParent

#: Seconds that functions registered with C{atexit} have when the parent has gone.
_ORPHAN_SECONDS = 1.0


class Pipes:
    def __init__(self, wake: Callable[[], object] | None = None) -> None:
        for descriptor in ChildFD.ALL:
            os.set_inheritable(descriptor, False)
        self.reader = BufferReader(ChildFD.ARGUMENTS, wake)
        self._writer = BufferWriter(ChildFD.RESULTS)
        self._decoder = Decoder()
        # Iterations send from a thread, too.
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(ChildFD.CALLS, select.POLLIN)
        # If it's lost, whatever ran here has closed what it shouldn't have.
        self.claim = ClaimReader(ChildFD.CLAIMS, partial(end, 1)).claim
        self._identity = _identityOf(ChildFD.CALLS)

    def fileno(self) -> int:
        return ChildFD.CALLS

    def send(self, kind: int, number: int, payload: bytes | Packed) -> None:
        """
        Send a frame, waiting until the parent takes it. It's a L{MemoryError} if
        there's no room for its buffers.
        """
        if type(payload) is Packed:
            data, kind = self._writer.put(payload), kind | BUFFERS
        else:
            data = payload  # type: ignore[assignment]  # it's no Packed
        head = HEADER.pack(len(data), kind, number)
        pieces = (head + data,) if len(data) < READ_BYTES else (head, data)
        with self._lock:
            try:
                for piece in pieces:
                    done = os.write(ChildFD.REPLIES, piece)
                    while done < len(piece):
                        done += os.write(ChildFD.REPLIES, memoryview(piece)[done:])
            except OSError:
                # The parent has gone, and nobody is there to hear of it.
                end()

    def receive(self, wait: bool) -> list[Frame] | None:
        """Get the frames that the parent has sent, C{None} if no more will come."""
        if not wait and not self._poll.poll(0):
            return []
        try:
            data = os.read(ChildFD.CALLS, READ_BYTES)
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def release(self, payload: memoryview) -> None:
        if self._writer.release(payload):
            self._writer.trim()

    def tellUnneeded(self) -> None:
        unneeded = self.reader.unneeded()
        if unneeded:
            self.send(Kind.RELEASE, 0, unneeded)

    def tellSignalled(self) -> None:
        self.send(Kind.SIGNALLED, 0, b"")

    def check(self) -> None:
        """End this process if a task has put something else in the place of a pipe."""
        if _identityOf(ChildFD.CALLS) != self._identity:
            end(1)


def _identityOf(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def setUp(payload: memoryview) -> object:
    """Be like the parent's interpreter, and return what the initializer does."""
    preparation = loads(payload)
    if preparation["niceness"]:
        os.nice(preparation["niceness"])
    if preparation["cores"]:
        os.sched_setaffinity(0, preparation["cores"])
    adopt(preparation)
    leaveAttachedAlone()
    if preparation["initializer"] is None:
        return None
    f, args = loads(preparation["initializer"])
    try:
        return f(*args)
    finally:
        # It may have changed the user, by which the system forgets this.
        endWithParent(preparation["parent"][1])


def giveUp(error: BaseException) -> NoReturn:
    """Say that the child can't be set up, and end it. The parent reads stderr."""
    with suppress(BaseException):
        sys.excepthook(type(error), error, error.__traceback__)
    end(1)


def end(code: int = 0, *, waits: bool = False) -> NoReturn:
    """
    End this process, with the functions that are to be run at its exit. Threads and
    executors that tasks have left may be waited for, as an interpreter does.
    """
    if waits:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
    else:
        timer = threading.Timer(_ORPHAN_SECONDS, os._exit, (code,))
        timer.daemon = True
        with suppress(RuntimeError):  # there are as many threads as there may be
            timer.start()
    with suppress(BaseException):
        atexit._run_exitfuncs()
    flushAndExit(code)


def flushAndExit(code: int) -> NoReturn:
    """End this process without any further ado."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code)
