"""
What a child process runs. Nobody imports it: it's started by its path.

The pipe from the parent is descriptor 3, the one to it is 4, so that the standard
streams are free for what runs here. The child ends when its pipe does, so it never
outlives the parent by more than the task it's running.
"""

from __future__ import annotations

import signal

# Ctrl-C is for the parent, who decides what it means. First of all, because it may
# come at any time.
signal.signal(signal.SIGINT, signal.SIG_IGN)

import os  # noqa: E402
import sys  # noqa: E402

if __name__ == "__main__":
    # The folder of the package in place of the one of this file.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

import atexit  # noqa: E402
import select  # noqa: E402
import threading  # noqa: E402
from contextlib import suppress  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

from asynqueue._process.framing import Decoder, Kind, header  # noqa: E402
from asynqueue._process.payloads import loads  # noqa: E402
from asynqueue._process.universe import Universe  # noqa: E402

#: Descriptors of the pipes.
IN, OUT = 3, 4

#: So much is read at a time.
READ_BYTES = 65_536

_preparation: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    """
    Find what a function of the parent's C{__main__} refers to.

    That is looked for here, in the child's C{__main__}, when such a function is
    unpickled. The parent's main module is only imported when that happens.

    @param name: The name of an attribute.

    @return: Its value in the main module of the parent.
    """
    if name.startswith("__") or not _preparation:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprocessing.spawn import prepare

    data = dict(_preparation)
    _preparation.clear()
    prepare(data)
    return getattr(sys.modules["__main__"], name)


def setUp(payload: memoryview) -> None:
    """
    Be like the parent's interpreter.

    @param payload: What the parent has said of it, pickled.
    """
    data = loads(payload)
    sys.path[:] = data["sys_path"]
    sys.argv[:] = data.get("sys_argv", sys.argv)
    _preparation.update(data)


class Pipes:
    """
    The pipes to and from the parent.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        # Iterations send from a thread, too.
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(IN, select.POLLIN)

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
                if len(payload) < READ_BYTES:
                    self._write(memoryview(head + payload))
                else:
                    self._write(memoryview(head))
                    self._write(memoryview(payload))
            except OSError:
                # The parent has gone, and nobody is there to hear of it.
                end()

    def receive(self, wait: bool) -> list[Any] | None:
        """
        Get what the parent has sent.

        @param wait: Whether to wait for it.

        @return: The frames that are whole, C{None} if no more will come.
        """
        if not wait and not self._poll.poll(0):
            return []
        try:
            data = os.read(IN, READ_BYTES)
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def _write(self, data: memoryview) -> None:
        """
        Write bytes.

        @param data: The bytes.
        """
        while data:
            data = data[os.write(OUT, data) :]


def end() -> NoReturn:
    """
    End this process, with the functions that are to be run at its exit, but without
    waiting for threads that somebody has left running.
    """
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(0)


def main() -> None:
    """
    Do what the parent says until it says no more.
    """
    for descriptor in (IN, OUT):
        os.set_inheritable(descriptor, False)
    pipes = Pipes()
    if "--reactor" in sys.argv:
        from asynqueue._process.reactorchild import run

        run(pipes, IN, setUp)
        return
    universe = Universe(pipes.send)
    while True:
        frames = pipes.receive(universe.idle)
        if frames is None:
            break
        for frame in frames:
            if frame[0] == Kind.SETUP:
                setUp(frame[2])
                pipes.send(Kind.HELLO, 0, b"")
            else:
                universe.handle(frame)
        if not universe.idle:
            universe.advance()
    universe.close()


if __name__ == "__main__":
    main()
    end()
