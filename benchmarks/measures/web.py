"""How long a page of Klein takes while the site's children compute."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from statistics import median, quantiles
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutput
from twisted.web.server import Site

from ..contenders.base import CannotDo, Pool
from ..contenders.deferreds import runInReactor
from ..work import spin
from .pools import CHILDREN, Figures, Report, inPool

#: Each child computes for so long at a time, one request after the other.
_SECONDS = 0.02

#: A browser that asks for a page again and again, and prints how long that took.
_BROWSER = """
import http.client, json, sys, time

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
taken = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"Hello"
    taken.append(time.perf_counter() - start)
    time.sleep(0.001)
print(json.dumps(taken))
"""


async def browse(requests: int) -> Figures:
    """
    Ask for a page of a site, one time after the other. Takes median and 99th
    percentile.
    """
    if find_spec("klein") is None:
        raise CannotDo("Klein isn't installed")
    from klein import Klein
    from twisted.internet import reactor as it

    reactor: Any = it
    app = Klein()
    app.route("/")(lambda request: "Hello")
    port = reactor.listenTCP(0, Site(app.resource()), interface="127.0.0.1")
    try:
        told = await getProcessOutput(
            sys.executable, ["-c", _BROWSER, str(port.getHost().port), str(requests)]
        )
    finally:
        await port.stopListening()
    taken = json.loads(told)
    return {"median": median(taken) * 1e3, "p99": quantiles(taken, n=100)[98] * 1e3}


async def take(pool: Pool, requests: int) -> Figures:
    """Take the figures while all children are busy."""
    done = False

    async def work() -> None:
        """Have a child compute."""
        while not done:
            await pool.call(spin, _SECONDS)

    busy = [Deferred.fromCoroutine(work()) for _ in range(2 * CHILDREN)]
    figures = await browse(requests)
    done = True
    for d in busy:
        await d
    return figures


async def quiet(requests: int, report: Report) -> None:
    """Take the figures of the floor: a site whose children do nothing."""
    report(await browse(requests))


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""
    if contender == "quiet":
        runInReactor(quiet(sizes["requests"], report))
    else:
        inPool(take)(contender, sizes, report)
