"""The page, with a queue that has something to do: C{python -m asynqueue.monitor}."""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall, react
from twisted.web.server import Site

from ..base import TaskQueue
from ..process import ProcessQueue
from ..threads import ThreadWorker
from ._resource import Monitor

#: Seconds between bursts of calls, and from one rush to the next.
_BURST_SECONDS = 0.25
_RUSH_SECONDS = 90


def thumbnail(path: str) -> str:
    """Take some time."""
    time.sleep(random.uniform(0.02, 0.3))
    return path


def report(customer: int) -> int:
    """Take more."""
    time.sleep(random.expovariate(1 / 1.2))
    return customer


def extract(path: str) -> str:
    """Take some time, and crash now and then."""
    time.sleep(random.uniform(0.1, 0.6))
    if random.random() < 0.03:
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def send(address: str) -> None:
    """Take little time, in a thread, and fail now and then."""
    time.sleep(random.uniform(0.005, 0.05))
    if random.random() < 0.02:
        raise ConnectionRefusedError(f"The mail server of {address} doesn't answer")


def burst(q: TaskQueue) -> None:
    """Make some calls, more or fewer as they come in waves."""

    def call(f: Callable[..., object], *args: object, **options: Any) -> None:
        q.call(f, *args, **options).addErrback(lambda _: None)

    wave = 1 + math.sin(time.monotonic() * math.tau / _RUSH_SECONDS)
    number = random.randrange(10_000)
    for i in range(round(random.expovariate(1 / (2.5 * wave + 0.1)))):
        call(thumbnail, f"photos/IMG_{number + i}.jpg", series="thumbnails")
    for i in range(round(random.expovariate(1 / (3 * wave + 0.1)))):
        call(send, f"customer{number + i}@example.org", series="mail")
    if random.random() < 0.12 * wave:
        call(report, number, name=f"Report {number}", timeout=4)
    if random.random() < 0.15 * wave:
        call(extract, f"scans/{number}.pdf", series="scans", retries=1)


async def run(reactor: Any, port: int) -> None:
    """Serve the page, on this machine alone, until Ctrl-C is pressed."""
    q = ProcessQueue(3, series=["thumbnails", "scans"], name="Demonstration")
    await q.attachWorker(ThreadWorker(["mail"], exclusive=True))
    site = Site(Monitor(q, authorize=lambda request: True))
    try:
        listening = reactor.listenTCP(port, site, interface="127.0.0.1")
    except CannotListenError as error:
        await q.shutdown()
        raise SystemExit(str(error)) from None
    load = LoopingCall(burst, q)
    load.start(_BURST_SECONDS)

    async def stop() -> None:
        load.stop()
        await listening.stopListening()
        await q.shutdown(timeout=0)

    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(stop())
    )
    sys.stdout.write(f"http://localhost:{listening.getHost().port}/\n")
    sys.stdout.flush()
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m asynqueue.monitor",
        description="Show the page that watches a queue, with a queue of its own.",
    )
    parser.add_argument("--port", type=int, default=8050, metavar="N", help="0 for any")
    react(run, [parser.parse_args().port])
