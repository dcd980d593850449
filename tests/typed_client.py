"""
A client, as type checkers see it. After each C{reveal_type} stands the type that they
must find, after each mistake that they must find one. C{python -m tests.typecheck} has
them look.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from typing_extensions import reveal_type
from zope.interface import implementer

from asynqueue import (
    AsyncWorker,
    ProcessQueue,
    ProcessWorker,
    TaskQueue,
    ThreadQueue,
    WireWorker,
    WireWorkerUniverse,
)
from asynqueue.interfaces import IWorker
from asynqueue.null import NullQueue
from asynqueue.service import QueueService
from asynqueue.tasks import Task
from asynqueue.testing import RecordingConsumer


class Page:
    """Something of the client's own."""


def load(url: str, size: int = 0) -> Page:
    """Return it."""
    return Page()


def lines(path: str) -> Iterator[str]:
    """Return an iterator."""
    yield path


def numbers() -> Generator[int, None, str]:
    """Be a generator."""
    yield 1
    return "end"


async def fetch(url: str) -> bytes:
    """Be a coroutine function."""
    return url.encode()


def later(x: float) -> Deferred[float]:
    """Return a Deferred."""
    return succeed(x)


async def calls(q: TaskQueue, anything: Any) -> None:
    """Make calls of all kinds."""
    reveal_type(q.call(pow, 2, 3))  # Deferred[int]
    reveal_type(await q.call(os.getpid))  # int
    reveal_type(await q.call(load, "x", size=3))  # Page
    reveal_type(await q.call(load, "x", niceness=3, timeout=1.5, series="x"))  # Page
    reveal_type(await q.call(partial(load, "x"), within=5))  # Page
    reveal_type(await q.call(lines, "x"))  # Deferator[str]
    reveal_type(await q.call(lines, "x", series="files"))  # Deferator[str]
    reveal_type(await q.call(lines, "x", raw=True))  # Iterator[str]
    reveal_type(await q.call(numbers))  # Deferator[int]
    reveal_type(await q.call(fetch, "x"))  # bytes
    reveal_type(await q.call(later, 1.5, doNext=True))  # float
    consumer = RecordingConsumer()
    reveal_type(await q.call(lines, "x", consumer=consumer))  # RecordingConsumer
    reveal_type(await q.call("method", 1, timeout=3))  # Any
    reveal_type(await q.call(anything))  # Any
    q.call(load, "x", niceness="3")  # error
    q.call(load, "x", timeout="3")  # error
    q.call(3)  # error
    q.call(partial(load, 3))  # error


async def iterations(q: TaskQueue) -> None:
    """Iterate."""
    async for line in await q.call(lines, "x"):
        reveal_type(line)  # str
    for d in await q.call(lines, "x"):
        reveal_type(d)  # Deferred[str]
    async for size in q.imap(len, ["a", "b"], ordered=False):
        reveal_type(size)  # int


async def maps(q: TaskQueue) -> None:
    """Map functions of one argument, and of several."""
    reveal_type(await q.map(len, ["a", "b"]))  # list[int]
    reveal_type(await q.map(load, ["a"], [1], chunksize=3))  # list[Page]
    reveal_type(q.imap(load, ["a"], [1]))  # Deferator[Page]
    reveal_type(await q.map("method", [1]))  # list[Any]
    q.map(load, ["a"], ["b"])  # error
    q.map(len, ["a"], nice=3)  # error
    q.map(len)  # error


async def queues() -> None:
    """Make queues."""
    async with ProcessQueue(2, limits={"files": 1}, affinity=True) as q:
        reveal_type(q)  # ProcessQueue
        reveal_type(await q.resize(3))  # None
    async with ThreadQueue(threads=2) as threads:
        reveal_type(threads)  # ThreadQueue
    reveal_type(QueueService(ProcessQueue).queue)  # ProcessQueue
    reveal_type(q.stats()["load"])  # Any
    ProcessQueue(2, limit={"files": 1})  # error
    NullQueue(retries="x")  # error


class OwnWorker:
    """Does what a worker must."""

    cQualified: list[str] = []  # noqa: RUF012 - IWorker has it so

    def __init__(self) -> None:
        self.iQualified: list[str] = ["own"]

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        """Never resign."""

    def run(self, task: Task) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    def crash(self) -> list[Task]:
        """Do nothing."""
        return []


@implementer(IWorker)
class BadWorker:  # error of mypy-zope
    """Lacks almost all."""

    def stop(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


def workers(universe: WireWorkerUniverse) -> None:
    """Pass workers."""
    q = TaskQueue(AsyncWorker(), ProcessWorker(), WireWorker(universe, "unix:s"))
    reveal_type(q.attachWorker(OwnWorker()))  # Deferred[int]
    q.attachWorker(AsyncWorker)  # error
    q.attachWorker("worker")  # error
