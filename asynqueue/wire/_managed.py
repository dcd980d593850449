"""
What a server does that a manager has started.

Its manager tells it through descriptor 3 what to serve, and is told through descriptor
4 that it listens, or why it doesn't. When descriptor 3 is at its end, so is the server:
the manager has said so, or is there no longer.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from .._child.mainmodule import MainModule
from .._support.reactor import orGlobalReactor
from ._logs import explain, logTo
from ._server import WireServer
from ._setup import STOP, Setup

__all__ = ["run"]

#: Descriptors of the pipes.
_IN, _OUT = 3, 4

#: Seconds that are left for the end itself, when all tasks are done or given up.
_ENDING = 1.0


class _Watch(threading.Thread):
    """
    Waits for the end of the pipe from the manager: in a thread, because what is served
    may block the reactor, and must not outlive the manager all the same.

    @ivar alone: Whether the manager has gone without a word.

    @ivar over: Whether the server is to stop.

    @ivar stop: Called in this thread to stop the server, C{None} before it's there.
    """

    def __init__(self, timeout: float | None) -> None:
        """
        Prepare to wait.

        @param timeout: Seconds that the server has then, C{None} for as many as it
            needs.
        """
        super().__init__(name="asynqueue manager", daemon=True)
        self.alone = False
        self.over = False
        self.stop: Callable[[], object] | None = None
        self._timeout = timeout

    def run(self) -> None:
        """
        Wait.
        """
        said = b""
        # Without a file around it, which would have a lock that is held at the end.
        while data := os.read(_IN, 1):
            said += data
        self.alone = STOP not in said
        # Before the other is looked at, as the main thread does it the other way round.
        self.over = True
        if self.stop is not None:
            self.stop()
        elif self._timeout is None:
            os._exit(1)
        if self._timeout is not None:
            # The end of the process is also that of this thread.
            threading.Event().wait(self._timeout + _ENDING)
            os._exit(1)


def run() -> None:
    """
    Serve what the manager says, until it says no more.
    """
    for fd in (_IN, _OUT):
        os.set_inheritable(fd, False)
    setup = Setup.read(_IN)
    if setup is None:
        return  # The manager has gone already.
    watch = _Watch(setup.timeout)
    watch.start()
    if sys.stdout is not None:
        with suppress(AttributeError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logTo(sys.stderr, times=setup.stdio)
    try:
        server = _makeServer(setup)
    except BaseException as error:  # noqa: BLE001 - whatever the universe's module does
        _tell(error=error)
        raise SystemExit(1) from None
    code = _serve(server, watch)
    if watch.alone and setup.folder is not None:
        # Nobody else is there to do that. The last server can.
        with suppress(OSError):
            os.rmdir(setup.folder)
    raise SystemExit(code)


def _makeServer(setup: Setup) -> WireServer:
    """
    Be like the manager's interpreter, and make the server.

    @param setup: What the manager has said.

    @return: The server, which doesn't listen yet.
    """
    if setup.niceness:
        os.nice(setup.niceness)
    sys.path[:] = setup.preparation["sys_path"]
    sys.argv[:] = setup.preparation.get("sys_argv", sys.argv)
    sys.modules["__main__"] = MainModule(setup.preparation)
    options: dict[str, Any] = pickle.loads(setup.options)
    return WireServer(setup.description, setup.wwu, **options)


def _serve(server: WireServer, watch: _Watch) -> int:
    """
    Run the server.

    @param server: The server.

    @param watch: What tells when it's to end.

    @return: The process's exit code.
    """
    reactor: Any = orGlobalReactor(None)
    failures: list[Failure] = []

    def failed(failure: Failure) -> None:
        failures.append(failure)
        _tell(error=failure.value)
        stop()

    def start() -> None:
        reactor.addSystemEventTrigger("before", "shutdown", server.stop)
        server.start().addCallbacks(lambda _: _tell(), failed)

    def stop() -> None:
        # Unless it's being stopped already.
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(start)
    watch.stop = lambda: reactor.callFromThread(stop)
    if watch.over:
        watch.stop()
    reactor.run()
    return 1 if failures else 0


def _tell(error: BaseException | None = None) -> None:
    """
    Tell the manager that the server listens, or why it doesn't.

    @param error: Why.
    """
    what = (
        {} if error is None else {"error": type(error).__name__, "text": explain(error)}
    )
    # The manager may have gone.
    with suppress(OSError):
        os.write(_OUT, json.dumps(what).encode() + b"\n")
