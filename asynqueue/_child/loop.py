"""
The child's loop: what the parent has said is read, and done, until it says no more.

The pipe from the parent is descriptor 3, the one to it is 4, so that the standard
streams are free for what runs here; 7 is where calls are claimed, 5 and 6 are files for
large arguments and results. The child ends when it's told to, or its pipe ends.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from .boxes import Boxes
from .claims import Claimer
from .payloads import loads
from .preparation import adopt
from .protocol import Decoder, Frame, Kind, header
from .server import Universe
from .startup import endWithParent, handleSignals, openOutput

__all__ = ["Pipes", "end", "giveUp", "run", "setUp"]

#: Descriptors of the pipes, and of the files that large things go through.
_IN, _OUT, _CLAIMS = 3, 4, 7
_ARGUMENTS, _RESULTS = 5, 6

#: So much is read at a time.
_READ_BYTES = 65_536


def setUp(payload: memoryview) -> Any:
    """
    Be like the parent's interpreter, and run the initializer.

    @param payload: What the parent has said of it, pickled.

    @return: What the initializer returns.
    """
    preparation = loads(payload)
    if preparation["niceness"]:
        os.nice(preparation["niceness"])
    adopt(preparation)
    if preparation["initializer"] is None:
        return None
    f, args = loads(preparation["initializer"])
    try:
        return f(*args)
    finally:
        # It may have changed the user, by which the system forgets this.
        endWithParent(preparation["parent"][1])


def giveUp(error: BaseException) -> NoReturn:
    """
    Say that the child can't be set up, and end it.

    @param error: Why. It's written to stderr, where the parent hears it.
    """
    with suppress(BaseException):
        sys.excepthook(type(error), error, error.__traceback__)
    end(1)


class Pipes:
    """
    The pipes to and from the parent.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        # Iterations send from a thread, too.
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(_IN, select.POLLIN)
        self._claimer = Claimer(_CLAIMS)

    def fileno(self) -> int:
        """
        Tell the descriptor of the pipe from the parent.

        @return: The descriptor.
        """
        return _IN

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """
        Send a frame, waiting until the parent takes it.

        @param kind: The kind.

        @param number: The number of the call.

        @param payload: The payload.
        """
        head = header(kind, number, len(payload))
        with self._lock:
            try:
                if len(payload) < _READ_BYTES:
                    self._write(memoryview(head + payload))
                else:
                    self._write(memoryview(head))
                    self._write(memoryview(payload))
            except OSError:
                # The parent has gone, and nobody is there to hear of it.
                end()

    def receive(self, wait: bool) -> list[Frame] | None:
        """
        Get what the parent has sent.

        @param wait: Whether to wait for it.

        @return: The frames that are whole, C{None} if no more will come.
        """
        if not wait and not self._poll.poll(0):
            return []
        try:
            data = os.read(_IN, _READ_BYTES)
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def tellSignalled(self) -> None:
        """
        Tell the parent that somebody has asked this process to end.
        """
        self.send(Kind.SIGNALLED, 0, b"")

    def boxes(self, wake: Callable[[], object] | None = None) -> Boxes:
        """
        Get the way that large things go.

        @param wake: Called, in any thread, when the parent is to be told what isn't
            needed any longer.

        @return: It.
        """
        return Boxes(_ARGUMENTS, _RESULTS, wake)

    def claim(self, number: int) -> bool:
        """
        Claim a call that was sent ahead.

        @param number: Its number.

        @return: C{False} if the parent has taken it back.
        """
        try:
            return self._claimer.claim(number)
        except OSError:
            # Whatever ran here has closed what it shouldn't have.
            end(1)

    def _write(self, data: memoryview) -> None:
        """
        Write bytes.

        @param data: The bytes.
        """
        while data:
            data = data[os.write(_OUT, data) :]


def end(code: int = 0) -> NoReturn:
    """
    End this process, with the functions that are to be run at its exit, but without
    waiting for threads that somebody has left running.

    @param code: Its exit code.
    """
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code)


def run() -> NoReturn:
    """
    Do what the parent says until it says no more, then end this process.
    """
    for descriptor in (_IN, _OUT, _ARGUMENTS, _RESULTS, _CLAIMS):
        os.set_inheritable(descriptor, False)
    openOutput()
    pipes = Pipes()
    handleSignals(_IN, pipes.tellSignalled)
    if len(sys.argv) > 1:
        from .reactorloop import run as runReactor

        import_module(sys.argv[1]).install()
        runReactor(pipes, setUp, giveUp)
    else:
        universe = Universe(pipes.send, pipes.boxes())
        while _turn(pipes, universe):
            pass
        universe.close()
    end()


def _turn(pipes: Pipes, universe: Universe) -> bool:
    """
    Do what there is to do, waiting for it if need be.

    @param pipes: The pipes.

    @param universe: What goes on here.

    @return: Whether more may come.
    """
    frames = pipes.receive(universe.idle)
    if frames is None:
        return False
    frames.reverse()
    while frames:
        # Not to be kept in mind while the next are waited for: they may be large.
        frame = frames.pop()
        if frame[0] == Kind.STOP:
            return False
        if frame[0] == Kind.SETUP:
            try:
                setUp(frame[2])
            except BaseException as error:  # noqa: BLE001 - runs code of users
                giveUp(error)
            pipes.send(Kind.HELLO, 0, b"")
        elif frame[0] != Kind.AHEAD:
            universe.handle(frame)
        elif pipes.claim(frame[1]):
            universe.call(frame[1], frame[2])
    if not universe.idle:
        universe.advance()
    if universe.boxes.done:
        universe.tellDone()
    return True
