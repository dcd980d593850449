"""The open pages, and what is sent to them as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.web.server import Request
from zope.interface import implementer

__all__ = ["OpenPage", "PageUpdate"]

#: A page that takes nothing for so many updates is disconnected.
_MAX_MISSED = 60


class PageUpdate:
    """What is sent to all pages at once. It's encoded once, for whichever need it."""

    def __init__(
        self, news: Callable[[], bytes], everything: Callable[[], bytes]
    ) -> None:
        self._news = news
        self._everything = everything

    @cached_property
    def news(self) -> bytes:
        """For pages that have had the last update."""
        return b"data: " + self._news() + b"\n\n"

    @cached_property
    def everything(self) -> bytes:
        """For pages that are new, or have missed some."""
        return b"data: " + self._everything() + b"\n\n"


@implementer(IPushProducer)
class OpenPage:
    """
    The response that a page takes its updates from.

    One that isn't read has at most one update in memory, beside what is in the buffers
    of its connection: it misses the others, and has everything when it's read again.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._isPaused = False
        self._isBehind = True
        self._missed = 0
        request.registerProducer(self, True)

    def send(self, update: PageUpdate) -> None:
        """Send an update, unless the page doesn't read."""
        if self._isPaused:
            self._isBehind = True
            self._missed += 1
            if self._missed > _MAX_MISSED:
                cast(ITCPTransport, self._request.transport).abortConnection()
            return
        data = update.everything if self._isBehind else update.news
        self._isBehind = False
        self._missed = 0
        self._request.write(data)

    def end(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        self._isPaused = True

    def resumeProducing(self) -> None:
        self._isPaused = False

    def stopProducing(self) -> None:
        self._isPaused = True
