"""Random courses of events of a queue with children that the test plays."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue import ProcessQueue
from asynqueue._child.pickling import dumpsPlain, loads
from asynqueue._child.protocol import BUFFERS, Kind

from . import _jobs as jobs
from ._fakes import FakeProcess
from .test_process import WorkerCase

#: More than a pipe takes, so that a child may be sent what it can't have read.
_LARGE = "x" * 300_000


class _Child:
    """
    A child that is played at random. C{begun} has the arguments of the calls that it
    has begun.
    """

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.begun: list[int] = []
        self._frames: deque[tuple[int, int, bytes]] = deque()
        self._running = 0
        self._iterations: list[int] = []
        process.send(Kind.HELLO, 0)

    def step(self, rng: random.Random) -> None:
        """Do one of the things that a child may do."""
        what = rng.random()
        if self._running:
            if what < 0.6:
                self._answer(rng)
        elif what < 0.2 and self._iterations:
            number = self._iterations.pop(rng.randrange(len(self._iterations)))
            self.process.send(Kind.END, number)
        elif self._frames:
            self._take(*self._frames.popleft())
        elif what < 0.8:
            self._frames.extend(self.process.received())

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind & ~BUFFERS == Kind.CALL and self.process.claim(number):
            self._running = number
            self.begun.append(loads(payload)[1][0])
        elif kind == Kind.CLOSE and number in self._iterations:
            self._iterations.remove(number)
            self.process.send(Kind.END, number)

    def _answer(self, rng: random.Random) -> None:
        number, self._running = self._running, 0
        if rng.random() < 0.3:
            self._iterations.append(number)
            self.process.send(Kind.ITERATOR, number, dumpsPlain(1e-6))
            if rng.random() < 0.5:
                self.process.send(Kind.ITEMS, number, dumpsPlain([1]))
        else:
            seconds = rng.choice([1e-6, 1e-6, 0.1])
            self.process.send(Kind.RESULT, number, dumpsPlain((seconds, None)))


class ProcessModelTests(WorkerCase):
    """Tests of what is promised of calls in children."""

    def course(self, seed: int) -> None:
        """Have anything happen, then everything end."""
        rng = random.Random(seed)
        q = ProcessQueue(2, reactor=self.reactor)
        children: dict[FakeProcess, _Child] = {}
        calls: list[Deferred[Any]] = []
        fired: list[int] = []
        kept: list[Any] = []

        def note(result: Any, number: int) -> None:
            fired.append(number)
            kept.append(result)

        for _ in range(200):
            what = rng.random()
            for process in self.reactor.processes:
                if process not in children:
                    children[process] = _Child(process)
            alive = [c for c in children.values() if not c.process.ended]
            if what < 0.25:
                number = len(calls)
                extra = rng.choice(["", "", _LARGE])
                timeout = rng.choice([None, None, 0.3])
                d = q.call(jobs.echo, number, extra, timeout=timeout, retries=0)
                calls.append(d.addBoth(note, number))
            elif what < 0.32 and calls:
                rng.choice(calls).cancel()
            elif what < 0.35 and alive:
                rng.choice(alive).process.end(None, 9)
            elif what < 0.4 and kept:
                getattr(kept.pop(rng.randrange(len(kept))), "stop", list)()
            elif what < 0.5:
                self.reactor.advance(rng.choice([0.0, 0.01, 0.2]))
            elif alive:
                rng.choice(alive).step(rng)
            self.reactor.serve()
            for child in alive:
                if child.process.signals and child.process.signals[-1] != "URG":
                    child.process.end(None, 15)
        q.shutdown(timeout=0.1)
        self.endAll()
        self.assertEqual(sorted(fired), list(range(len(calls))), seed)
        begun = [number for child in children.values() for number in child.begun]
        self.assertEqual(len(begun), len(set(begun)), seed)
        self.reactor.processes.clear()

    def test_courses(self) -> None:
        """
        Each Deferred fires once, and each call is begun once at most, whatever is
        cancelled, lost or late, and though what a child was sent is unread.
        """
        for seed in range(150):
            self.course(seed)
