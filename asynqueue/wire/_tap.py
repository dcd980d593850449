"""
A server as a service of C{twist} and C{twistd}.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ._command import ServerOptions
from ._logs import explain, onlyTwisted
from ._server import WireServer

__all__ = ["Options", "makeService"]


class Options(ServerOptions):
    """
    Options of the service.
    """


class _WorkerService(Service):  # type: ignore[misc, unused-ignore]
    """
    A server as a service without which the program is of no use.
    """

    def __init__(self, server: WireServer) -> None:
        """
        Make a service.

        @param server: The server.
        """
        self.setName("asynqueue-worker")
        self._server = server

    def startService(self) -> None:
        """
        Start the server.

        @raise SystemExit: If it can't listen.
        """
        super().startService()
        failures: list[Failure] = []
        started = self._server.start().addErrback(failures.append)
        if failures:
            error: Any = failures[0].value
            raise SystemExit(f"asynqueue-worker: {explain(error)}")
        started.addCallback(lambda _: self._check(failures))

    def stopService(self) -> Deferred[None]:
        """
        Stop the server when its tasks are done.

        @return: A Deferred that fires with C{None} then.
        """
        super().stopService()
        return self._server.stop()

    def _check(self, failures: list[Failure]) -> None:
        """
        End the program if the server can't listen.

        @param failures: Why it can't.
        """
        if failures:
            log.failure("The server can't be started", failures[0])
            reactor: Any = orGlobalReactor(None)
            reactor.stop()


def makeService(options: ServerOptions) -> Service:
    """
    Make the service.

    @param options: What the command line says.

    @return: The service.

    @raise SystemExit: If there can't be such a server.
    """
    # As with C{python -m}.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    onlyTwisted()
    try:
        server = WireServer(options.description, options.wwu, **options.keywords)
    except Exception as error:  # noqa: BLE001 - it's told
        raise SystemExit(f"asynqueue-worker: {explain(error)}") from None
    return _WorkerService(server)
