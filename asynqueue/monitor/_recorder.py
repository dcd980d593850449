"""
What the page shows of a queue, and of the last minutes of it: what samples are taken,
when, and to whom they are sent.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from typing import Any, cast

from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from twisted.web.server import Request
from zope.interface import implementer

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..base import TaskQueue
from ..base._observed import seriesText
from ..events import Event, EventKind

#: Seconds between samples.
INTERVAL_SECONDS = 1.0

#: So many of each are kept, and shown. Samples are of five minutes.
_MAX_SAMPLES = 300
_MAX_FAILURES = 20
_MAX_CHANGES = 40
_MAX_WORKERS = 200
_MAX_RUNNING = 400
_MAX_SERIES = 100

#: A page that takes nothing for so many updates is disconnected.
_MAX_MISSED = 60

#: What is longer is cut in the middle: the end of a traceback says most.
_MAX_TRACEBACK = 16_000

_FAILURES = {EventKind.FAILED, EventKind.TIMED_OUT, EventKind.RETRIED}

#: The events that are kept. None is of a call without fault, so those cost nothing.
_RECORDED = _FAILURES | {
    EventKind.HIRED,
    EventKind.LOST,
    EventKind.REPLACED,
    EventKind.UNSERVED,
}


class _PageUpdate:
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

    def send(self, update: _PageUpdate) -> None:
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


class _Recorder:
    """
    Keeps samples of a queue's figures, and the last failures and changes of workers.
    """

    # What is new since the last sample is in _failed and _changed. Failures are made
    # text with the next sample, at most 20 of them, as that takes 0.2 ms each.

    def __init__(self, q: TaskQueue, isControlled: bool) -> None:
        # Whether there was no call without a result at the last sample.
        self.isIdle = True
        self._q = q
        self._isControlled = isControlled
        self._kept: dict[str, deque[dict[str, object]]] = {
            "samples": deque(maxlen=_MAX_SAMPLES),
            "failures": deque(maxlen=_MAX_FAILURES),
            "changes": deque(maxlen=_MAX_CHANGES),
        }
        self._failed: deque[Event] = deque(maxlen=_MAX_FAILURES)
        self._changed: deque[dict[str, object]] = deque(maxlen=_MAX_CHANGES)

    def note(self, event: Event) -> None:
        if event.kind in _FAILURES:
            self._failed.append(event)
        else:
            self._changed.append(_change(event))

    def standStill(self, now: float) -> None:
        """Say that nothing has changed until now since the last sample."""
        samples = self._kept["samples"]
        samples.append({**samples[-1], "time": now})

    def sample(self, isOver: bool = False) -> _PageUpdate:
        """Take a sample: the last if it's over, as the queue has been shut down."""
        stats = self._q.stats()
        self.isIdle = stats["load"] == 0
        news = self._takeNews(stats)
        now = {
            "stats": self._bounded(stats),
            "isRunning": self._q.isRunning(),
            "isOver": isOver,
            "isControlled": self._isControlled,
        }
        return _PageUpdate(
            lambda: _encode({**now, **news, "whole": False}),
            lambda: _encode({**now, **self._everything(), "whole": True}),
        )

    def _takeNews(self, stats: dict[str, Any]) -> dict[str, list[Any]]:
        failed = stats["failed"]
        sample = {
            "time": stats["time"],
            "waiting": sum(stats["queued"].values()),
            "running": sum(worker["running"] for worker in stats["workers"]),
            "done": stats["done"],
            "failed": sum(failed.values()) - failed.get("cancelled", 0),
        }
        news = {
            "samples": [sample],
            "failures": [_failure(event) for event in self._failed],
            "changes": list(self._changed),
        }
        self._failed.clear()
        self._changed.clear()
        for name, items in news.items():
            self._kept[name].extend(items)
        return news

    def _everything(self) -> dict[str, list[Any]]:
        return {name: list(items) for name, items in self._kept.items()}

    def _bounded(self, stats: dict[str, Any]) -> dict[str, object]:
        """
        Leave out what is too much to be looked at, and to be sent each second. Add
        which series each worker was made for.
        """
        workers = {worker.ID: worker.iQualified for worker in self._q.workers()}
        return {
            **stats,
            "queued": dict(islice(stats["queued"].items(), _MAX_SERIES)),
            "running": stats["running"][:_MAX_RUNNING],
            "workers": [
                {**worker, "own": list(map(seriesText, workers[worker["ID"]]))}
                for worker in stats["workers"][:_MAX_WORKERS]
            ],
            "totalWorkers": len(stats["workers"]),
            "totalSeries": len(stats["queued"]),
        }


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
        self, q: TaskQueue, isControlled: bool, reactor: IReactorTime | None
    ) -> None:
        self._isOver = False
        self._q = q
        self._recorder = _Recorder(q, isControlled)
        self._reactor = reactor
        self._pages: set[OpenPage] = set()
        self._loop: LoopingCall | None = None
        self._latest = self._recorder.sample()
        q.addObserver(self._recorder.note, _RECORDED)
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
        self._isOver = True
        for observer in (self._recorder.note, self._stopped, self._wakened):
            self._q.removeObserver(observer)
        self._endLoop()
        self._latest = self._recorder.sample(isOver=True)
        for page in list(self._pages):
            page.send(self._latest)
            page.end()


def _encode(update: dict[str, object]) -> bytes:
    # JSON in ASCII has no line end of any kind, which would end the event.
    return json.dumps(update).encode("ascii")


def _change(event: Event) -> dict[str, object]:
    return {
        "time": event.time,
        "kind": event.kind.value,
        "worker": event.workerID,
        "series": seriesText(event.series),
        "error": None if event.failure is None else _summary(event.failure),
    }


def _failure(event: Event) -> dict[str, object]:
    return {
        **_change(event),
        "call": event.task,
        "name": event.name,
        "seconds": event.seconds,
        "traceback": None if event.failure is None else _traceback(event.failure),
    }


def _summary(failure: Failure) -> str:
    """Name the exception, as the last line of a traceback does."""
    text = safe_str(failure.value)
    kind = getattr(failure.type, "__qualname__", "")
    return f"{kind}: {text[:500]}" if text else kind


def _traceback(failure: Failure) -> str:
    try:
        text = failure.getTraceback()
    except Exception:  # noqa: BLE001 - the exception is the user's
        return "It can't be shown."
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return text
