"""Starts servers on this machine, keeps them running, and stops them."""

from __future__ import annotations

import fcntl
import inspect
import itertools
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import random
from types import MappingProxyType
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import quoteStringArgument

from .._child.mainmodule import preparation
from .._support.awaitable import OneShot
from .._support.checks import checkCallable, checkSeconds
from .._support.reactor import orGlobalReactor
from ..errors import WorkerStartError
from ._command import Setup
from ._endpoints import checkText
from ._managedserver import ManagedServer, ProcessID, ServerState, dumpOptions
from ._runner import WireWorkerUniverse
from ._server import WireServer

#: The universe that is served if no other is named. It has no methods.
DEFAULT_WWU_FQN = "asynqueue.wire.WireWorkerUniverse"

#: A Unix socket of this user's, for a server that stands alone.
DEFAULT_SOCKET = "unix:{}/asynqueue-{}/socket".format(
    os.environ.get("XDG_RUNTIME_DIR", "/tmp"), os.getuid()
)

#: Bytes of the path of a Unix socket, with that of its lock.
_MAX_PATH_BYTES = 90

#: Seconds until a server is started again: at first, at the most, and the factor by
#: which they grow from one to the next.
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS, _GROWTH = 0.1, 60.0, 2.0

#: The names of folders of sockets, and of what is in them.
_FOLDER_PREFIX, _SOCKET_PREFIX = "asynqueue-sockets-", "worker-"

#: Seconds after which a folder of sockets is locked, if its manager is there.
_LOCKED_SECONDS = 60.0


class ServerManager:
    """
    Starts servers on this machine, each in a process of its own, starts one again that
    ends by itself, and stops them.

    A server ends with the process that owns its manager, however that ends. What it
    prints goes to the log, line by line, and so does its own log.

    @ivar wwuFQN: The dotted name of the universe.

    @ivar restart: Whether servers are started again.
    """

    # _trigger is there when there may be something to be shut down; _stopped while
    # that is being done.

    def __init__(
        self,
        wwuFQN: str | type[WireWorkerUniverse] = DEFAULT_WWU_FQN,
        *,
        restart: bool = True,
        backoff: Callable[[int], float] | None = None,
        timeout: float | None = 5.0,
        reactor: Any = None,
        **options: object,
    ) -> None:
        """
        Make a manager without servers.

        @param wwuFQN: The dotted name of the universe, or its class.

        @param restart: C{False} not to start a server again that has ended by itself.

        @param backoff: Called with how often in a row it has ended, gives the seconds
            until it's started again. By default, that's from 0.1 seconds to a minute.

        @param timeout: Seconds that a server which is to stop has for its running
            tasks. C{None} for as long as they take.

        @param reactor: The reactor. By default, the global one.

        @param options: Further keywords of each server, see L{WireServer}. They go to
            its process through a private pipe, so nobody sees a key.

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
            _FIRST_DELAY_SECONDS / _GROWTH,
            _MAX_DELAY_SECONDS,
            _GROWTH,
            lambda: random() / 10,
        )
        self._timeout = timeout
        self._options = options
        self._reactor = orGlobalReactor(reactor)
        self._servers: list[ManagedServer] = []
        self._folder: _SocketFolder | None = None
        self._socketNumbers = itertools.count()
        self._trigger: object = None
        self._stopped: OneShot[None] | None = None

    def __repr__(self) -> str:
        return f"<ServerManager {self.wwuFQN}, {len(self._servers)} servers>"

    @property
    def servers(self) -> Mapping[int, str]:
        """Where servers listen, by the IDs of their processes."""
        listening = {
            server.pid: server.description
            for server in self._servers
            if server.state is ServerState.LISTENING and server.pid is not None
        }
        return MappingProxyType(listening)

    def spawn(
        self, description: str, stdio: bool = False, niceness: int = 0, **options: Any
    ) -> Deferred[ProcessID]:
        """
        Start a server.

        @param description: Where it's to listen: one that L{newSocket} has given, or
            C{unix:PATH}, C{tcp:PORT:interface=127.0.0.1}, C{tls:PORT}.

        @param stdio: C{True} for it to have the standard streams of this process. By
            default, its input is empty, and its output goes to the log.

        @param niceness: What is added to the niceness of its process, from -20 to 19.

        @param options: Further keywords of this server, besides those of all.

        @return: A Deferred that fires with the ID of its process when it listens: an
            C{int}, with an attribute C{pid} that is the same. The ID names the server,
            see L{done}, also when it has another process by then. The Deferred fails
            with L{WorkerStartError} if the server can't be started, and with
            L{AuthenticationError<asynqueue.errors.AuthenticationError>} if it lacks an
            identity that it needs. Cancelling it ends the process.

        @raise TypeError: If a server has no such keyword, or the place isn't described
            by text.

        @raise ValueError: If the niceness is out of range.

        @raise SerializationError: If the value of a keyword can't be sent to the
            process.

        @raise WorkerStartError: If the manager is being shut down.
        """
        checkText(description)
        if isinstance(niceness, bool) or not isinstance(niceness, int):
            raise ValueError(f"niceness must be an integer, not {niceness!r}")
        if not -20 <= niceness <= 19:
            raise ValueError(f"niceness must be from -20 to 19, not {niceness}")
        _checkOptions(options)
        if self._stopped is not None:
            raise WorkerStartError(f"{self!r} is being shut down")
        setup = Setup(
            description=description,
            wwu=self.wwuFQN,
            options=dumpOptions(
                {"stopTimeout": self._timeout, **self._options, **options}
            ),
            preparation=preparation(),
            niceness=niceness,
            timeout=self._timeout,
            stdio=stdio,
        )
        self._addTrigger()
        server = ManagedServer(
            setup, self._backoff if self.restart else None, reactor=self._reactor
        )
        self._servers.append(server)
        server.gone.wait().addCallback(lambda _: self._servers.remove(server))
        return server.start()

    def newSocket(self) -> str:
        """
        Choose a place for a server to listen at: a Unix socket in a folder that is
        private to this user, and removed in the end.

        @return: The place's description, for L{spawn} and for workers.
        """
        if self._folder is None:
            self._folder = _SocketFolder()
            self._addTrigger()
        name = f"{_SOCKET_PREFIX}{next(self._socketNumbers):03}.sock"
        return f"unix:{quoteStringArgument(f'{self._folder.path}/{name}')}"

    def done(self, pid: int | None = None) -> Deferred[None]:
        """
        Stop a server, or all. Running tasks are waited for, within their time.

        @param pid: What L{spawn} has fired with for the server, or the ID of its
            process. C{None} for all servers.

        @return: A Deferred that fires with C{None} when it has ended. At once, if
            there's no such server.
        """
        stops = [
            server.stop()
            for server in list(self._servers)
            if pid is None or pid in (server.pid, server.firstPID)
        ]
        return DeferredList(stops).addCallback(lambda _: None)

    def shutdown(self) -> Deferred[None]:
        """
        Stop all servers, and remove the folder of their sockets. This is done by itself
        when the reactor stops.

        @return: A Deferred that fires with C{None} when nothing is left.
        """
        stopped = self._stopped
        if stopped is None:
            stopped = self._stopped = OneShot()
            self.done().addCallback(self._finish, stopped)
        return stopped.wait()

    def _finish(self, _: None, stopped: OneShot[None]) -> None:
        if self._folder is not None:
            self._folder.remove()
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
        self._folder = self._trigger = self._stopped = None
        stopped.fire(None)

    def _addTrigger(self) -> None:
        if self._trigger is None:
            self._trigger = self._reactor.addSystemEventTrigger(
                "before", "shutdown", self._beforeShutdown
            )

    def _beforeShutdown(self) -> Deferred[None]:
        # A trigger that has run can't be removed.
        self._trigger = None
        return self.shutdown()


def _checkOptions(options: dict[str, object]) -> None:
    """@raise TypeError: If a server has no such keywords."""
    inspect.signature(WireServer).bind("", "", **options)


class _SocketFolder:
    """
    A folder for sockets, private to this user. It's locked for as long as its manager
    is there, so that another manager can remove it if this one is killed.
    """

    def __init__(self) -> None:
        _removeAbandonedFolders()
        path = tempfile.mkdtemp(prefix=_FOLDER_PREFIX)
        longest = f"{path}/{_SOCKET_PREFIX}000.sock.lock"
        if len(os.fsencode(longest)) > _MAX_PATH_BYTES:
            os.rmdir(path)
            path = tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/tmp")
        self.path = path
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # At the end of the program at the latest, but not of its forks.
        self.remove = weakref.finalize(self, _removeInProcess, os.getpid(), path, lock)


def _removeInProcess(pid: int, path: str, lock: int) -> None:
    if os.getpid() == pid:
        with suppress(OSError):
            _removeFolder(path)
    os.close(lock)


def _removeFolder(path: str) -> None:
    """Remove a folder of sockets, if nothing else is in it."""
    for name in os.listdir(path):
        if name.startswith(_SOCKET_PREFIX):
            os.unlink(f"{path}/{name}")
    os.rmdir(path)


def _removeAbandonedFolders() -> None:
    """Remove folders of sockets of this user's whose manager was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        # Whatever can't be opened, locked or removed is somebody else's, or in use.
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                status = os.fstat(lock)
                isOld = time.time() - status.st_mtime > _LOCKED_SECONDS
                if status.st_uid == os.geteuid() and isOld:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _removeFolder(str(path))
            finally:
                os.close(lock)
