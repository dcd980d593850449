"""What those who may can do to a queue from the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from .._support.log import log
from ..base import TaskQueue
from ..base._snapshot import seriesText

__all__ = ["Action", "Verdict", "actions"]

#: Whether a request may change something, or what says so later.
Verdict = bool | Awaitable[bool]


def actions(q: TaskQueue) -> dict[str, Callable[[Request], object]]:
    """List what can be done, by the paths of the requests for it."""

    def cancel(request: Request) -> None:
        wanted = [
            text.decode(errors="replace") for text in request.args.get(b"series", ())
        ]
        for series in q.th.assignmentFactory.backlog.series():
            if seriesText(series) in wanted:
                q.cancelSeries(series)

    return {
        "pause": lambda _: q.pause(),
        "resume": lambda _: q.resume(),
        "cancel": cancel,
    }


class Action(Resource):
    """Does something for those who may."""

    isLeaf = True

    def __init__(
        self,
        name: str,
        act: Callable[[Request], object],
        authorize: Callable[[Request], Verdict],
    ) -> None:
        super().__init__()
        self._name = name
        self._act = act
        self._authorize = authorize

    def render_POST(self, request: Request) -> int:
        Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        gone = request.notifyFinish().addErrback(lambda _: None)
        try:
            isAllowed = await maybeDeferred(self._authorize, request) is True
            if isAllowed:
                self._act(request)
        except Exception:  # noqa: BLE001 - authorize is the application's
            log.failure("{action} failed", action=self._name)
            code = http.INTERNAL_SERVER_ERROR
        else:
            log.info(
                "{action} by {client}: {verdict}",
                action=self._name,
                client=request.getClientAddress(),
                verdict="done" if isAllowed else "refused",
            )
            code = http.NO_CONTENT if isAllowed else http.FORBIDDEN
        if not gone.called:
            request.setResponseCode(code)
            request.finish()
