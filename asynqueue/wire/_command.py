"""
Servers as programs: C{python -m asynqueue.wire}, a service of C{twist} and C{twistd},
and the process of a server that a manager has started.

That process reads a L{Setup} from descriptor 3, and writes a line of JSON to descriptor
4: that it listens, or why it can't. It ends when its manager closes descriptor 3, or is
there no longer.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from typing import Any, TextIO

import twisted
from attrs import field, frozen
from twisted.application.service import Service
from twisted.internet.error import BindError, ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import FileLogObserver, LogEvent, eventAsText, globalLogBeginner
from twisted.python import usage
from twisted.python.failure import Failure

from .._child.mainmodule import adopt
from .._support.reactor import IReactorAll, globalReactor, orGlobalReactor
from .._version import __version__
from ..errors import AsynQueueError
from ._credentials import TLS, Key
from ._runner import WireWorkerUniverse
from ._server import WireServer, WireService

#: Descriptors of a managed process's ends of the pipes.
IN, OUT = 3, 4

#: Said by a managed server that listens.
LISTENING = b"{}\n"

#: Seconds that the process of a managed server has to end, besides those that its
#: server has to stop.
_ENDING_SECONDS = 1.0

#: Where the code is that errors about wrong arguments pass through.
_OURS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    for file in (os.path.dirname(__file__), twisted.__file__)
)


class Options(usage.Options):  # type: ignore[misc, unused-ignore]
    """Options of a server on the command line."""

    synopsis = "[options] DESCRIPTION DOTTED.NAME"

    longdesc = (
        "Serves the universe DOTTED.NAME, a subclass of asynqueue's WireWorkerUniverse"
        " or an instance of one, to workers that connect. DESCRIPTION is where:"
        " unix:PATH for this user's programs, tls:PORT for a network, with --tls,"
        " tcp:PORT:interface=127.0.0.1 for this machine, with --key or --key-env. On"
        " SIGTERM or SIGINT it takes no more tasks, and ends when those that it has are"
        " done; a second such signal ends it at once."
    )

    optParameters = [  # noqa: RUF012 - Twisted has it so
        ["key", None, None, "File with the key that clients have, too."],
        ["key-env", None, None, "Environment variable with that key."],
        ["tls", None, None, "File with this end's private key and certificate."],
        ["tls-ca", None, None, "File with the authority's certificates."],
        ["concurrent", None, None, "How many tasks run at once. No limit: none.", int],
        ["threads", None, 16, "How many tasks run in threads at once.", int],
        ["largest", None, 512 << 20, "The most bytes that a value may have.", int],
        ["heartbeat", None, 10.0, "Seconds between signs of life; 0 for none.", float],
        [
            "stop-timeout",
            None,
            None,
            "Seconds that running tasks have when the server is told to end. By"
            " default, as many as they take.",
            float,
        ],
    ]

    optFlags = [  # noqa: RUF012
        ["insecure", None, "Let every user of this machine in: for tcp, on loopback."],
        ["pickle", None, "Send and accept pickles, also under TLS."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.description = ""
        self.wwu = ""
        self.keywords: dict[str, Any] = {}
        self._peers: list[str] = []

    def opt_tls_peer(self, peer: str) -> None:
        """File with a client's certificate. May be given again."""
        self._peers.append(peer)

    def opt_version(self) -> None:
        """Show the version, and exit."""
        sys.stdout.write(f"asynqueue {__version__}\n")
        sys.exit(0)

    def parseArgs(self, *args: str) -> None:
        if len(args) != 2:
            raise usage.UsageError(
                "Say where to listen, and the dotted name of what to serve: DESCRIPTION"
                " DOTTED.NAME"
            )
        self.description, self.wwu = args

    def postOptions(self) -> None:
        try:
            key, tls = self._key(), self._tls()
        except Exception as error:
            raise usage.UsageError(explain(error)) from error
        self.keywords = {
            "key": key,
            "tls": tls,
            "pickle": True if self["pickle"] else None,
            "insecure": bool(self["insecure"]),
            "concurrent": self["concurrent"],
            "threads": self["threads"],
            "largest": self["largest"],
            "heartbeat": self["heartbeat"] or None,
            "stopTimeout": self["stop-timeout"],
        }

    def _key(self) -> Key | None:
        if self["key"] is not None and self["key-env"] is not None:
            raise usage.UsageError(
                "A key comes from a file or the environment: --key or --key-env"
            )
        if self["key"] is not None:
            return Key.fromFile(self["key"])
        if self["key-env"] is not None:
            return Key.fromEnvironment(self["key-env"])
        return None

    def _tls(self) -> TLS | None:
        if self["tls"] is not None:
            return TLS.fromFiles(self["tls"], self._peers, self["tls-ca"])
        if self._peers or self["tls-ca"] is not None:
            raise usage.UsageError("--tls-peer and --tls-ca need --tls, too")
        return None


def makeService(options: Options) -> Service:
    """Make the service of C{twist} and C{twistd}, a program that does nothing else."""
    # As with C{python -m}.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    _logOnce()
    try:
        server = WireServer(options.description, options.wwu, **options.keywords)
    except Exception as error:  # noqa: BLE001 - it's told
        raise _StartError(error) from None
    service = WireService(server, failed=_cannotListen)
    service.setName("asynqueue-worker")
    return service


def _cannotListen(failure: Failure) -> None:
    error: Any = failure.value
    raise _StartError(error)


class _StartError(SystemExit, Exception):
    """
    Ends C{twist} with a line on stderr. C{twistd} in the background reports whatever is
    an C{Exception}, and waits for ever after another C{SystemExit}.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"asynqueue-worker: {explain(error)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server as the command line says, and return the exit code."""
    options = Options()
    options.synopsis = f"Usage: python -m asynqueue.wire {options.synopsis}"
    try:
        options.parseOptions(sys.argv[1:] if argv is None else argv)
    except usage.UsageError as error:
        sys.stderr.write(f"{error}\nTry python -m asynqueue.wire --help\n")
        return 2
    logTo(sys.stderr)
    reactor = globalReactor()
    reactor.addSystemEventTrigger("before", "shutdown", _endAtNextSignal)
    try:
        runServer(options.description, options.wwu, **options.keywords)
    except Exception as error:  # noqa: BLE001 - it's told
        sys.stderr.write(f"{explain(error)}\n")
        return 1
    return 0


def _endAtNextSignal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def runServer(description: str, wwuFQN: WireWorkerUniverse | str, **kw: Any) -> None:
    """
    Run a server, and the reactor for it, until the process is told to end. It's said on
    stdout when the server listens.

    @param description: See L{WireServer<asynqueue.wire.WireServer>}.

    @param wwuFQN: The dotted name of a universe, or the universe itself.

    @param kw: Further keywords of L{WireServer<asynqueue.wire.WireServer>}.
    """

    def announce() -> None:
        # Programs that start servers themselves wait for this line.
        sys.stdout.write(f"AsynQueue WireServer listening at {description}\n")
        sys.stdout.flush()

    server = WireServer(description, wwuFQN, **kw)
    runUntilStopped(server, announce, kw.get("reactor"))


def runUntilStopped(
    server: WireServer,
    listening: Callable[[], object],
    reactor: IReactorCore | None = None,
) -> None:
    """Run the reactor with a server, raising what keeps that from listening."""
    reactor = orGlobalReactor(reactor)
    failures: list[Failure] = []

    def start() -> None:
        reactor.addSystemEventTrigger("before", "shutdown", server.stop)
        server.start().addCallback(lambda _: listening()).addErrback(failed)

    def failed(failure: Failure) -> None:
        failures.append(failure)
        _stop(reactor)

    reactor.callWhenRunning(start)
    reactor.run()
    if failures:
        failures[0].raiseException()


def _stop(reactor: IReactorCore) -> None:
    with suppress(ReactorNotRunning):  # it's stopping already
        reactor.stop()


def logTo(file: TextIO, *, times: bool = True) -> None:
    """Write the log of this process to a file."""

    def text(event: LogEvent) -> str | None:
        line = eventAsText(event, includeTimestamp=times, includeSystem=False)
        return f"{line}\n" if line else None

    globalLogBeginner.beginLoggingTo(
        [FileLogObserver(file, text)], redirectStandardIO=False
    )
    _logOnce()


def _logOnce() -> None:
    """Keep the standard library from writing to stderr what Twisted's log has, too."""
    logging.getLogger("asynqueue").addHandler(logging.NullHandler())


def explain(error: BaseException) -> str:
    """
    Say what is wrong with the server that the user wants: in the error's own words, or
    with the whole traceback if the user's code, or a defect, has led to it.
    """
    first = error.__cause__ or error
    told = (AsynQueueError, BindError, OSError, TypeError, ValueError, usage.UsageError)
    if isinstance(error, told) and not (
        isinstance(error, TypeError) and _isElsewhere(first)
    ):
        return str(error) or type(error).__name__
    lines = traceback.format_exception(type(first), first, first.__traceback__)
    return "".join(lines) + (str(error) if first is not error else "")


def _isElsewhere(error: BaseException) -> bool:
    """Tell whether other code than this package's and Twisted's has led to an error."""
    return any(
        not frame.filename.startswith((*_OURS, "<"))
        for frame in traceback.extract_tb(error.__traceback__)
    )


@frozen
class Setup:
    """
    What a manager tells the process of a server, through a pipe of which nobody else
    has an end: there may be secrets in it.

    @ivar options: Further keywords of the server, pickled: what they need may be found
        only when the process is set up.

    @ivar preparation: What the manager's interpreter is like.

    @ivar timeout: Seconds that the server has to stop, C{None} for no limit.
    """

    description: str
    wwu: str
    options: bytes = field(repr=False)
    preparation: dict[str, object]
    niceness: int
    timeout: float | None
    stdio: bool


def serve() -> None:
    """Serve what the manager says, in the server's process, until it says no more."""
    for fd in (IN, OUT):
        os.set_inheritable(fd, False)
    try:
        with open(IN, "rb", closefd=False) as file:
            setup: Setup = pickle.load(file)
    except (EOFError, pickle.UnpicklingError):
        return  # The manager has gone already.
    reactors: SimpleQueue[IReactorAll] = SimpleQueue()
    name, args = "asynqueue manager", (setup.timeout, reactors)
    Thread(target=_stopAtEnd, name=name, args=args, daemon=True).start()
    if sys.stdout is not None:
        with suppress(AttributeError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logTo(sys.stderr, times=setup.stdio)
    try:
        if setup.niceness:
            os.nice(setup.niceness)
        adopt(setup.preparation)
        options: dict[str, Any] = pickle.loads(setup.options)
        server = WireServer(setup.description, setup.wwu, **options)
        reactor = globalReactor()
        reactors.put(reactor)
        runUntilStopped(server, lambda: _tell(LISTENING), reactor)
    except BaseException as error:  # noqa: BLE001 - whatever the universe's module does
        why = {"error": type(error).__name__, "text": explain(error)}
        _tell(json.dumps(why).encode())
        raise SystemExit(1) from None


def _tell(line: bytes) -> None:
    """Tell the manager that the server listens, or why it doesn't."""
    with suppress(OSError):  # The manager may have gone.
        os.write(OUT, line)


def _stopAtEnd(timeout: float | None, reactors: SimpleQueue[IReactorAll]) -> None:
    """
    Wait for the end of the pipe from the manager, then stop the reactor: in a thread,
    because what is served may block the reactor, and must end in time all the same.
    """
    # Without a file around it, which would have a lock that is held at the end.
    while os.read(IN, 1):
        pass
    seconds = 0.0 if timeout is None else min(timeout + _ENDING_SECONDS, TIMEOUT_MAX)
    end = time.monotonic() + seconds
    with suppress(Empty):
        reactor = reactors.get(timeout=seconds)
        reactor.callFromThread(_stop, reactor)
        if timeout is None:
            return
        # The end of the process is also that of this thread.
        time.sleep(max(0.0, end - time.monotonic()))
    os._exit(1)
