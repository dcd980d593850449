"""
Threads that tests run step by step in their own thread, and a reactor to go with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.threads import _jobs


class _Idle(BaseException):
    """There's nothing to do for a thread, where a real one would wait."""


class _FakeQueue:
    """A queue that doesn't wait."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> Any:
        if not self.items:
            raise _Idle
        return self.items.popleft()


class FakeThreads:
    """
    Threads of which each does what it has to do when it's told to L{run}.

    @ivar names: The names of all threads that have been started.

    @ivar alive: What the threads do that haven't ended, in order of their start.

    @ivar joined: How many threads have been waited for.

    @ivar most: How many may be started, C{None} for any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self.names: list[str] = []
        self.alive: list[Callable[[], object]] = []
        self.joined = 0
        self.most = most
        self._running: list[Callable[[], object]] = []

    def install(self, case: SynchronousTestCase) -> None:
        """Have all threads be of this kind during a test."""
        case.patch(_jobs, "SimpleQueue", _FakeQueue)
        case.patch(_jobs, "startThread", self.start)

    def start(self, target: Callable[[], object], name: str) -> Callable[[], object]:
        """Start a thread, which does nothing yet. Returns what waits for it."""
        if self.most is not None and len(self.names) >= self.most:
            raise RuntimeError("can't start new thread")
        self.names.append(name)
        self.alive.append(target)
        return self._join

    def run(self) -> None:
        """
        Have all threads do what there is to do, except those that are at it further up
        the stack, which are stuck there.
        """
        for target in list(self.alive):
            if target in self._running:
                continue
            self._running.append(target)
            try:
                target()
            except _Idle:
                pass
            else:
                self.alive.remove(target)
            finally:
                self._running.remove(target)

    def _join(self) -> None:
        self.joined += 1


class ThreadReactor(Clock):
    """
    A reactor that threads can call, and that counts how many times they have woken it.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.wakeUps = 0
        self.threads = FakeThreads(most)
        self._calls: deque[tuple[Callable[..., object], Any, Any]] = deque()

    def callFromThread(self, f: Callable[..., object], *args: Any, **kw: Any) -> None:
        self.wakeUps += 1
        self._calls.append((f, args, kw))

    def turn(self) -> None:
        """Do what threads have asked for, and what has become due."""
        while self._calls:
            f, args, kw = self._calls.popleft()
            f(*args, **kw)
        self.advance(0)

    def settle(self) -> None:
        """Let threads and reactor take turns until nothing happens any longer."""
        while True:
            self.threads.run()
            before = self.wakeUps
            self.turn()
            # What was done in that turn may have given threads something to do.
            self.threads.run()
            if self.wakeUps == before and not self._isDue():
                return

    def _isDue(self) -> bool:
        """Tell whether there's something to do at this moment."""
        return any(d.getTime() <= self.seconds() for d in self.getDelayedCalls())


class ThreadCase(SynchronousTestCase):
    """A test case with a reactor that has threads of the mind."""

    def setUp(self) -> None:
        self.reactor = ThreadReactor()
        self.threads = self.reactor.threads
        self.threads.install(self)
        self.notes: list[Any] = []

    def note(self, x: Any = None) -> Any:
        """Note that a call was made."""
        self.notes.append(x)
        return x

    def generate(self, *items: Any) -> Iterator[Any]:
        """
        Yield items, and note which are made, and the end. Items that are exceptions are
        raised.
        """
        try:
            for item in items:
                if isinstance(item, BaseException):
                    raise item
                yield self.note(item)
        finally:
            self.notes.append("end")

    def resultOf(self, d: Deferred[Any]) -> Any:
        """Let things happen. Returns the result of a Deferred."""
        self.reactor.settle()
        return self.successResultOf(d)

    def failureOf(self, d: Deferred[Any], *errors: type[BaseException]) -> Any:
        """Let things happen. Returns the exception that a Deferred has failed with."""
        self.reactor.settle()
        return self.failureResultOf(d, *errors).value
