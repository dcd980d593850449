"""
The command line of a server.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

from .._support.reactor import orGlobalReactor
from .._version import __version__
from ._credentials import TLS, Key
from ._logs import explain, logTo
from ._server import runServer

__all__ = ["ServerOptions", "main"]


def _seconds(text: str) -> float:
    """
    Read a number of seconds.

    @param text: The number.

    @return: It.
    """
    return float(text)


class ServerOptions(usage.Options):  # type: ignore[misc, unused-ignore]
    """
    Options of a server on the command line.

    @ivar description: Where it's to listen.

    @ivar wwu: The dotted name of its universe.

    @ivar keywords: What L{WireServer} is made with besides.
    """

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
        ["concurrent", None, None, "How many tasks are run at once.", int],
        ["threads", None, 16, "How many of them in threads, at the most.", int],
        ["largest", None, 512 << 20, "The most bytes that a value may have.", int],
        ["heartbeat", None, 10.0, "Seconds between signs of life.", _seconds],
        [
            "stop-timeout",
            None,
            None,
            "Seconds that running tasks have to be done when the server is told to end."
            " By default, as many as they take.",
            _seconds,
        ],
    ]

    optFlags = [  # noqa: RUF012
        ["insecure", None, "Let every user of this machine in: for tcp, on loopback."],
        ["pickle", None, "Send and accept pickles, also under TLS."],
    ]

    def __init__(self) -> None:
        """
        Prepare to read them.
        """
        super().__init__()
        self.description = ""
        self.wwu = ""
        self.keywords: dict[str, Any] = {}
        self._peers: list[str] = []

    def opt_tls_peer(self, peer: str) -> None:
        """File with a client's certificate, or its digest. May be given again."""
        self._peers.append(peer)

    def opt_version(self) -> None:
        """
        Show the version, and exit.
        """
        sys.stdout.write(f"asynqueue {__version__}\n")
        sys.exit(0)

    def parseArgs(self, *args: str) -> None:
        """
        Take the arguments.

        @param args: The arguments.

        @raise usage.UsageError: If there are more or less than two.
        """
        if len(args) != 2:
            raise usage.UsageError(
                "Say where to listen, and the dotted name of what to serve: DESCRIPTION"
                " DOTTED.NAME"
            )
        self.description, self.wwu = args

    def postOptions(self) -> None:
        """
        Make keywords of the options.

        @raise usage.UsageError: If they don't go together, or if a file with
            credentials can't be used.
        """
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
        """
        Get the key.

        @return: It, C{None} if there's none.

        @raise usage.UsageError: If two are given.
        """
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
        """
        Get the certificates.

        @return: They, C{None} if there are none.

        @raise usage.UsageError: If one's own is missing.
        """
        if self["tls"] is not None:
            return TLS.fromFiles(self["tls"], self._peers, self["tls-ca"])
        if self._peers or self["tls-ca"] is not None:
            raise usage.UsageError("--tls-peer and --tls-ca need --tls, too")
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a server as the command line says, until the process is told to end.

    @param argv: The command line without the program, by default that of this process.

    @return: The exit code.
    """
    options = ServerOptions()
    options.synopsis = f"Usage: python -m asynqueue.wire {options.synopsis}"
    try:
        options.parseOptions(sys.argv[1:] if argv is None else argv)
    except usage.UsageError as error:
        sys.stderr.write(f"{error}\nTry python -m asynqueue.wire --help\n")
        return 2
    logTo(sys.stderr)
    reactor: Any = orGlobalReactor(None)
    reactor.addSystemEventTrigger("before", "shutdown", _impatient)
    try:
        runServer(options.description, options.wwu, **options.keywords)
    except Exception as error:  # noqa: BLE001 - it's told
        sys.stderr.write(f"{explain(error)}\n")
        return 1
    return 0


def _impatient() -> None:
    """
    Have the next signal end the process at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
