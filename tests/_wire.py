"""A universe for tests of wire workers, and real servers for it."""

from __future__ import annotations

import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from asynqueue import TaskQueue
from asynqueue._support.reactor import globalReactor
from asynqueue.errors import AuthenticationError
from asynqueue.wire import WireServer, WireWorker, WireWorkerUniverse


def box(**fields: bytes) -> bytes:
    """Make a box of AMP's."""
    whole = b""
    for name, value in fields.items():
        for part in (name.encode("latin-1"), value):
            whole += struct.pack("!H", len(part)) + part
    return whole + b"\0\0"


class Point:
    """A class that the universe allows."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y


class Slotted:
    """A class with slots that the universe allows."""

    __slots__ = ("__hidden", "x")

    def __init__(self, x: Any) -> None:
        self.x = x
        self.__hidden = x

    def hidden(self) -> Any:
        return self.__hidden


class Secret:
    """A class that no universe allows."""


class Declared(Exception):
    """An exception that the universe declares."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class Undeclared(Exception):
    """An exception that it doesn't."""


class Base(WireWorkerUniverse):
    """A base of the universe, whose methods are served, too."""

    def inherited(self) -> str:
        """Be there."""
        return "inherited"


class Universe(Base):
    """A universe, with a log of what has happened in it."""

    allowed = (Point, Slotted)
    exceptions = (Declared,)
    attribute = 5

    def __init__(self, wireServer: Any = None) -> None:
        super().__init__(wireServer)
        self.log: list[Any] = []
        self.waiting: list[Deferred[Any]] = []
        self.event = threading.Event()
        self.lock = threading.Lock()
        self.data = bytearray(100_000)

    def add(self, a: Any, b: Any = 0) -> Any:
        return a + b

    def note(self, x: Any) -> Any:
        self.log.append(x)
        return x

    def nothing(self) -> None:
        """Do nothing."""

    def echo(self, *args: Any, **kw: Any) -> Any:
        """Give back what was given."""
        return args, kw

    def boom(self, text: str = "boom") -> None:
        error = ValueError(text, 3)
        if hasattr(error, "add_note"):
            error.add_note("a note")
        raise error

    def chained(self) -> None:
        """Fail because of something."""
        try:
            dict[str, int]()["x"]
        except KeyError as error:
            raise RuntimeError("chained") from error

    def fail(self, kind: str) -> None:
        """Fail by raising something of a certain kind."""
        if kind == "declared":
            raise Declared(7, hint="look")
        if kind == "undeclared":
            raise Undeclared("what it says")
        if kind == "exit":
            raise SystemExit(3)
        if kind == "stop":
            raise StopIteration(4)
        if kind == "os":
            open("/nonexistent/file")  # noqa: SIM115
        raise Undeclared(Secret())

    def zeros(self, size: int) -> bytes:
        return bytes(size)

    def size(self, data: Any) -> int:
        """Tell how large an argument is."""
        return len(data)

    def changing(self) -> bytearray:
        """Return what the next call changes."""
        with self.lock:
            value = (self.data[0] + 1) % 256
            self.data[:] = bytes([value]) * len(self.data)
            return self.data

    def changes(self, n: int) -> Iterator[bytearray]:
        """Yield one object again and again, and change it in between."""
        data = bytearray(1000)
        for i in range(n):
            data[:] = bytes([i]) * len(data)
            yield data

    def secret(self) -> Secret:
        """Return something that can't be sent."""
        return Secret()

    def count(self, n: int, fail: bool = False) -> Iterator[int]:
        try:
            for i in range(n):
                self.log.append(i)
                yield i
            if fail:
                raise ValueError("at the end")
        finally:
            self.log.append("closed")

    def these(self, items: list[Any]) -> Iterator[Any]:
        yield from items

    def blocks(self, n: int, size: int) -> Iterator[bytes]:
        for i in range(n):
            self.log.append(i)
            yield bytes([i]) * size

    def secrets(self) -> Iterator[Any]:
        """Yield something that can't be sent."""
        yield 1
        yield Secret()
        yield 2

    def threads(self, n: int) -> Iterator[str]:
        """Yield the name of the thread."""
        for _ in range(n):
            yield threading.current_thread().name

    def deferreds(self, n: int) -> Iterator[Deferred[int]]:
        for i in range(n):
            d: Deferred[int] = Deferred()
            assert self.ws is not None
            self.ws._reactor.callLater(0, d.callback, i)
            yield d

    def sleep(self, x: Any, seconds: float) -> Any:
        """Block a thread for so many seconds."""
        time.sleep(seconds)
        return x

    def block(self) -> str:
        """Block a thread until the test says otherwise. Returns its name."""
        self.log.append("blocking")
        self.event.wait(20)
        return threading.current_thread().name

    def wait(self, x: Any = None) -> Deferred[Any]:
        """Note something, and wait until the test says otherwise."""
        self.log.append(x)
        d: Deferred[Any] = Deferred(lambda d: self.log.append("cancelled"))
        self.waiting.append(d)
        return d

    def stubborn(self) -> Deferred[Any]:
        """Wait to be cancelled, and return an iterator then."""

        def items() -> Iterator[int]:
            try:
                yield from range(1000)
            finally:
                self.log.append("closed")

        def cancelled(_: object) -> Iterator[int]:
            """Heed it in another way."""
            begun = items()
            next(begun)
            return begun

        self.log.append("waiting")
        d: Deferred[Any] = Deferred()
        return d.addErrback(cancelled)

    async def coroutine(self, x: Any) -> Any:
        return x

    def _private(self) -> None:
        """Not be served."""


class WireTestCase(TestCase):
    """A test case with real servers on Unix sockets."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.closers: list[Callable[[], Any]] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.tidyUp()))
        self.universe = Universe()
        self.description = f"unix:{self.folder}/s"

    async def tidyUp(self) -> None:
        """Undo what the test has done, the last thing first."""
        while self.closers:
            await maybeDeferred(self.closers.pop())
        shutil.rmtree(self.folder, True)

    async def serve(self, **kw: Any) -> WireServer:
        """
        Start a server, which is stopped after the test. If it's not on a Unix socket,
        workers connect to its port.
        """
        kw.setdefault("stopTimeout", 0)
        description = kw.pop("description", self.description)
        universe = kw.pop("universe", self.universe)
        server = WireServer(description, universe, **kw)
        await server.start()
        self.closers.append(server.stop)
        kind = description.partition(":")[0]
        if kind != "unix":
            assert server.port is not None
            host: Any = server.port.getHost()
            self.description = f"{kind}:127.0.0.1:{host.port}"
        return server

    async def turn(self) -> None:
        """Let the reactor have a turn."""
        d: Deferred[None] = Deferred()
        globalReactor().callLater(0, d.callback, None)
        await d

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor run until something is so."""
        while not condition():
            await self.turn()

    def worker(self, **kw: Any) -> WireWorker:
        description = kw.pop("description", self.description)
        return WireWorker(Universe, description, **kw)

    async def queue(self, **kw: Any) -> TaskQueue:
        """
        Make a queue with a worker that is connected. It's shut down after the test.
        """
        q = TaskQueue()
        self.closers.append(lambda: q.shutdown(timeout=0))
        await q.attachWorker(self.worker(**kw))
        return q

    async def refused(
        self, kind: type[Exception] = AuthenticationError, **kw: Any
    ) -> str:
        """Try to connect a worker in vain. Returns why."""
        connecting = Deferred.fromCoroutine(self.queue(**kw))
        error = await self.assertFailure(connecting, kind)
        return str(error)
