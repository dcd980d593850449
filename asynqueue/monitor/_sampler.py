"""When samples are taken, and to whom they are sent."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..base import TaskQueue
from ..events import Event, EventKind
from ._recorder import RECORDED, Recorder
from ._stream import OpenPage

__all__ = ["Sampler"]

#: Seconds between samples.
INTERVAL_SECONDS = 1.0


class Sampler:
    """
    Takes a sample each second while the queue has work, or a page is open, and sends it
    to the open pages.

    Else it sleeps until a call is queued or a page is opened: an idle queue that nobody
    looks at wakes nobody.
    """

    # Either there's a _loop, or _wakened is an observer of the queue, or the queue has
    # been shut down: _isOver. Unless it's asleep, _latest is what pages that are up to
    # date had last. The loop is made when it's needed, as making it installs a reactor.

    def __init__(
        self, q: TaskQueue, recorder: Recorder, reactor: IReactorTime | None
    ) -> None:
        self._isOver = False
        self._q = q
        self._recorder = recorder
        self._reactor = reactor
        self._pages: set[OpenPage] = set()
        self._loop: LoopingCall | None = None
        self._latest = recorder.sample()
        q.addObserver(recorder.note, RECORDED)
        q.addObserver(self._stopped, {EventKind.STOPPED})
        self._sleep()

    def __len__(self) -> int:
        """The number of open pages."""
        return len(self._pages)

    def add(self, page: OpenPage) -> None:
        """
        Send samples to a page, until it's removed. If the queue has been shut down, it
        has the last, and ends.
        """
        if self._isOver:
            page.send(self._latest)
            page.end()
            return
        self._pages.add(page)
        if self._loop is None:
            self._wake(now=True)
        else:
            page.send(self._latest)

    def remove(self, page: OpenPage) -> None:
        """Send no more to a page."""
        self._pages.discard(page)

    def _wakened(self, event: Event) -> None:
        self._recorder.standStill(event.time)
        # Not now, in the middle of a call.
        self._wake(now=False)

    def _wake(self, now: bool) -> None:
        self._q.removeObserver(self._wakened)
        self._loop = LoopingCall(self._takeSample)
        self._loop.clock = orGlobalReactor(self._reactor)
        self._loop.start(INTERVAL_SECONDS, now).addErrback(
            lambda failure: log.failure("No more samples are taken", failure)
        )

    def _sleep(self) -> None:
        self._endLoop()
        self._q.addObserver(self._wakened, {EventKind.QUEUED})

    def _endLoop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def _takeSample(self) -> None:
        self._latest = self._recorder.sample()
        for page in list(self._pages):
            page.send(self._latest)
        if not self._pages and self._recorder.isIdle:
            self._sleep()

    def _stopped(self, _: Event) -> None:
        """End with the queue."""
        self._isOver = True
        for observer in (self._recorder.note, self._stopped, self._wakened):
            self._q.removeObserver(observer)
        self._endLoop()
        self._latest = self._recorder.sample(isOver=True)
        for page in list(self._pages):
            page.send(self._latest)
            page.end()
