#!/usr/bin/env python3
"""
The web site of C{webapp.py}, with a page beside it that shows what its queue is doing.

    python examples/dashboard.py

Then open the address that it prints, and in another window the same with C{queue/} at
its end: zoom into the one, and see in the other how strips of pictures wait, are
rendered, and aren't rendered any longer if nobody will see them. From the machine that
it runs on, the queue can be paused, too.

The extra C{asynqueue[examples]} has numpy, which it needs, and C{asynqueue[monitor]}
what it needs for C{queue/metrics}, which Prometheus reads.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import Any

from twisted.internet.task import react
from twisted.web.server import Request
from webapp import WebSite, main, parse

from asynqueue import TaskQueue
from asynqueue.monitor import Monitor


def isLocal(request: Request) -> bool:
    """Tell whether a request comes from this machine."""
    return ip_address(request.getClientAddress().host).is_loopback


class Dashboard(WebSite):
    """The web site, with the page."""

    def __init__(self, q: TaskQueue, reactor: Any) -> None:
        super().__init__(q, reactor)
        self.resource.putChild(b"queue", Monitor(q, authorize=isLocal))


if __name__ == "__main__":
    react(main, [parse(sys.argv[1:]), Dashboard])
