"""
What starts servers on this machine, keeps them running, and stops them.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from random import random
from types import MappingProxyType
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import quoteStringArgument

from .._child.mainmodule import preparation
from .._support.checks import checkCallable, checkSeconds
from .._support.reactor import orGlobalReactor
from ..errors import WorkerStartError
from ._endpoints import checkText
from ._localserver import LocalServer, State
from ._server import WireServer
from ._setup import Setup, dumpOptions
from ._universe import WireWorkerUniverse

__all__ = ["ServerManager"]

#: The path of a Unix socket has so many bytes at most, with that of its lock.
_LONGEST_PATH = 90

#: Seconds until a server is started again: at first, at the most, and the factor by
#: which they grow from one to the next.
_FIRST_DELAY, _MOST_DELAY, _GROWTH = 0.1, 60.0, 2.0


class ServerManager:
    """
    Starts servers on this machine, each in a process of its own, starts one again that
    ends by itself, and stops them.

    A server ends when the process does that has the manager, however that ends. What it
    prints goes to the log, line by line, and so does its own log.

    @ivar wwuFQN: The dotted name of the universe.

    @ivar restart: Whether servers are started again.
    """

    def __init__(
        self,
        wwuFQN: str | type[WireWorkerUniverse],
        *,
        restart: bool = True,
        backoff: Callable[[int], float] | None = None,
        timeout: float | None = 5.0,
        reactor: Any = None,
        **options: Any,
    ) -> None:
        """
        Make a manager without servers.

        @param wwuFQN: The dotted name of the universe, or its class.

        @param restart: C{False} not to start a server again that has ended by itself.

        @param backoff: Called with how often in a row it has ended, gives the seconds
            until it's started again. By default, that's from 0.1 seconds to a minute.

        @param timeout: A server that is to stop has so many seconds for its tasks to be
            done. C{None} for as long as they take.

        @param reactor: The reactor. By default, the global one.

        @param options: Further keywords of each server, see L{WireServer}. A key is not
            seen on command lines, nor in the environment.

        @raise TypeError: If a server has no such keyword, or an argument is of a wrong
            kind.

        @raise ValueError: If a number is out of range.
        """
        if timeout is not None:
            checkSeconds("timeout", timeout, zero=True)
        if backoff is not None:
            checkCallable("backoff", backoff)
        if isinstance(wwuFQN, type):
            wwuFQN = f"{wwuFQN.__module__}.{wwuFQN.__qualname__}"
        elif not isinstance(wwuFQN, str):
            raise TypeError(
                f"A universe is named by its class or a dotted name, not {wwuFQN!r}"
            )
        _checkOptions(options)
        self.wwuFQN = wwuFQN
        self.restart = restart
        self._backoff = backoff or backoffPolicy(
            _FIRST_DELAY / _GROWTH, _MOST_DELAY, _GROWTH, lambda: random() / 10
        )
        self._timeout = timeout
        self._options = options
        self._reactor: Any = orGlobalReactor(reactor)
        self._servers: list[LocalServer] = []
        self._folder: str | None = None
        self._removal: weakref.finalize[Any, Any] | None = None
        self._sockets = 0
        self._trigger: Any = None
        self._ending: list[Deferred[None]] | None = None

    def __repr__(self) -> str:
        """
        Name the manager.
        """
        return f"<ServerManager {self.wwuFQN}, {len(self._servers)} servers>"

    @property
    def servers(self) -> Mapping[int, str]:
        """
        Where servers listen, by the IDs of their processes.
        """
        pairs = [
            (server.pid, server.description)
            for server in self._servers
            if server.state is State.LISTENING
        ]
        return MappingProxyType({pid: text for pid, text in pairs if pid is not None})

    def spawn(
        self, description: str, stdio: bool = False, niceness: int = 0, **options: Any
    ) -> Deferred[int]:
        """
        Start a server.

        @param description: Where it's to listen: one that L{newSocket} has given, or
            C{unix:PATH}, C{tcp:PORT:interface=127.0.0.1}, C{tls:PORT}.

        @param stdio: C{True} for it to have the standard streams of this process. By
            default, its input is empty, and its output goes to the log.

        @param niceness: What is added to the niceness of its process, from -20 to 19.

        @param options: Further keywords of this server, besides those of all.

        @return: A Deferred that fires with the ID of its process when it listens. The
            ID names the server, see L{done}, also when it has another process by then.
            The Deferred fails with L{WorkerStartError} if the server can't be started,
            and with L{AuthenticationError<asynqueue.errors.AuthenticationError>} if
            it lacks an identity that it needs. Cancelling it ends the process.

        @raise TypeError: If a server has no such keyword, or the place isn't described
            by text.

        @raise ValueError: If the niceness is out of range.

        @raise SerializationError: If what a keyword has can't be sent to the process.

        @raise WorkerStartError: If the manager is being shut down.
        """
        checkText(description)
        if isinstance(niceness, bool) or not isinstance(niceness, int):
            raise ValueError(f"niceness must be an integer, not {niceness!r}")
        if not -20 <= niceness <= 19:
            raise ValueError(f"niceness must be from -20 to 19, not {niceness}")
        _checkOptions(options)
        if self._ending is not None:
            raise WorkerStartError(f"{self!r} is being shut down")
        self._addTrigger()
        setup = Setup(
            description,
            self.wwuFQN,
            dumpOptions({"stopTimeout": self._timeout, **self._options, **options}),
            preparation(),
            niceness,
            self._timeout,
            stdio,
            self._folder,
        )
        backoff = self._backoff if self.restart else None
        server = LocalServer(setup, backoff, self._gone, reactor=self._reactor)
        self._servers.append(server)
        return server.start()

    def newSocket(self) -> str:
        """
        Choose a place for a server to listen at: a Unix socket in a folder that is
        private to this user, and removed in the end.

        @return: The place's description, for L{spawn} and for workers.
        """
        if self._folder is None:
            self._folder = _makeFolder()
            # In case that nobody shuts down the manager.
            self._removal = weakref.finalize(self, shutil.rmtree, self._folder, True)
            self._addTrigger()
        path = os.path.join(self._folder, f"worker-{self._sockets:03}.sock")
        self._sockets += 1
        return f"unix:{quoteStringArgument(path)}"

    def done(self, pid: int | None = None) -> Deferred[None]:
        """
        Stop a server, or all. Running tasks have their time to be done.

        @param pid: What L{spawn} has fired with for the server, or the ID of its
            process. C{None} for all servers.

        @return: A Deferred that fires with C{None} when it has ended. At once, if
            there's no such server.
        """
        servers = [
            server
            for server in self._servers
            if pid is None or pid in (server.pid, server.firstPID)
        ]
        stops = [server.stop() for server in servers]
        return DeferredList(stops).addCallback(lambda _: None)

    def shutdown(self) -> Deferred[None]:
        """
        Stop all servers, and remove the folder of their sockets. This is done by itself
        when the reactor stops.

        @return: A Deferred that fires with C{None} when nothing is left.
        """
        d: Deferred[None] = Deferred()
        if self._ending is not None:
            self._ending.append(d)
            return d
        self._ending = [d]
        self.done().addCallback(lambda _: self._finish())
        return d

    def _gone(self, server: LocalServer) -> None:
        """
        Forget a server that has ended for good.

        @param server: The server.
        """
        self._servers.remove(server)

    def _finish(self) -> None:
        """
        Remove what is left when all servers have ended.
        """
        self._folder = None
        if self._removal is not None:
            self._removal()
            self._removal = None
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        waiters, self._ending = self._ending or [], None
        for d in waiters:
            d.callback(None)

    def _addTrigger(self) -> None:
        """
        Have the servers be stopped when the reactor stops.
        """
        if self._trigger is None:
            self._trigger = self._reactor.addSystemEventTrigger(
                "before", "shutdown", self._reactorStops
            )

    def _reactorStops(self) -> Deferred[None]:
        """
        Shut down because the reactor stops.

        @return: A Deferred that fires with C{None} when nothing is left.
        """
        # It has done what it was there for, and can't be removed any longer.
        self._trigger = None
        return self.shutdown()


def _checkOptions(options: dict[str, Any]) -> None:
    """
    Check keywords of servers.

    @param options: The keywords.

    @raise TypeError: If there's none of such a name.
    """
    inspect.signature(WireServer).bind("", "", **options)


def _makeFolder() -> str:
    """
    Make a folder for sockets.

    @return: Its path.
    """
    folder = tempfile.mkdtemp(prefix="asynqueue-")
    if len(os.fsencode(folder)) + len("/worker-000.sock.lock") <= _LONGEST_PATH:
        return folder
    # No socket could be made there.
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="asynqueue-", dir="/tmp")
