"""What open pages of the monitor take of a queue's throughput."""

from __future__ import annotations

import sys
from importlib import import_module
from statistics import median
from subprocess import PIPE, Popen
from time import perf_counter, process_time
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from ..contenders.deferreds import gather, runInReactor
from ..work import noop
from .pools import Report

#: So many calls are queued at once.
BATCH = 500

#: A program that has pages open: it says when they have something, and reads on.
READER = """
import select, socket, sys

port, pages = map(int, sys.argv[1:])
sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(pages)]
for page in sockets:
    page.sendall(b"GET /events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    page.recv(1)
print(flush=True)
while True:
    for page in select.select(sockets, [], [])[0]:
        page.recv(1 << 16)
"""


async def rate(q: Any, seconds: float) -> float:
    """
    Run calls that do nothing in the reactor, and count how many there were for each
    second of this process's processor time.
    """
    from twisted.internet import reactor as it

    reactor: Any = it
    calls, start, end = 0, process_time(), perf_counter() + seconds
    while perf_counter() < end:
        await gather([q.call(noop) for _ in range(BATCH)])
        await deferLater(reactor, 0)
        calls += BATCH
    return calls / (process_time() - start)


async def take(pages: int, seconds: float, rounds: int, report: Report) -> None:
    """Take the median of rounds, each without pages and with so many that are open."""
    from twisted.internet import reactor as it

    reactor: Any = it
    module = import_module("asynqueue")
    q = module.TaskQueue(module.AsyncWorker())
    site = Site(import_module("asynqueue.monitor").Monitor(q))
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    words = [sys.executable, "-c", READER, str(port.getHost().port), str(pages)]
    losses = []
    await rate(q, seconds)
    for _ in range(rounds):
        alone = await rate(q, seconds)
        with Popen(words, stdout=PIPE) as reader:
            assert reader.stdout is not None
            await deferToThread(reader.stdout.readline)
            losses.append(1 - await rate(q, seconds) / alone)
            reader.kill()
    report({"loss": median(losses) * 100})
    await port.stopListening()
    await q.shutdown()


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figure."""
    runInReactor(take(**sizes, report=report))
