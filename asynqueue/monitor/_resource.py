"""
The resource that an application mounts, which requests it answers, and what a browser
may do with the answers.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.iweb import IRequest
from twisted.web.pages import errorPage, forbidden
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.static import Data
from twisted.web.util import redirectTo

from .._support.log import log
from ..base import TaskQueue
from ..base._observed import seriesText
from ._recorder import OpenPage, Sampler

#: More pages than this are not open at once.
_MAX_PAGES = 100

#: Whether a request may change something, or what says so later.
Verdict = bool | Awaitable[bool]

#: The files of the page, with their types.
_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "chart.js": "text/javascript",
    "text.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

#: Sent with all that is served. The page takes nothing from elsewhere, has no text made
#: code, can't be framed, and tells nobody where it is.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self';"
    " style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Monitor(Resource):
    """
    A web page that shows what a queue is doing, while it does it.

    It's mounted like any resource::

        root.putChild(b"queue", Monitor(q))

    Below it are C{stats.json}, with what C{q.stats()} returns, and C{metrics}, for
    Prometheus, which needs the extra C{asynqueue[monitor]}.

    Whoever can open the page sees the calls with their arguments, and tracebacks. It's
    the application's to say who that is, by what it listens on, or by what it puts in
    front of the resource, as L{HTTPAuthSessionWrapper
    <twisted.web.guard.HTTPAuthSessionWrapper>}. Requests that pages of other sites have
    a browser make are refused in any case.

    While nobody looks, it costs nothing for calls that don't fail, and it wakes the
    reactor only while the queue has work, once a second.
    """

    def __init__(
        self,
        q: TaskQueue,
        *,
        authorize: Callable[[Request], Verdict] | None = None,
        hosts: Iterable[str] = (),
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param q: The queue.

        @param authorize: Called with each request that is to pause or resume the queue,
            or to cancel calls that wait. Returns C{True} if it may; or a Deferred, or a
            coroutine, of that. By default the page has no buttons for it.

        @param hosts: The names, without ports, by which browsers and Prometheus reach
            the application. Requests to any other name are refused, since anybody can
            have a name stand for this machine's address. Addresses and C{localhost}
            needn't be given.

        @param reactor: The clock. By default, the global reactor.
        """
        super().__init__()
        names = [hosts] if isinstance(hosts, str) else hosts
        self._hosts = {"localhost", *(name.lower() for name in names)}
        self._q = q
        self._sampler = Sampler(q, authorize is not None, reactor)
        page = files(__package__).joinpath("page")
        for name, kind in _FILES.items():
            content = page.joinpath(name).read_bytes()
            path = "" if name == "index.html" else name
            self._put(path, Data(content, f"{kind}; charset=utf-8"))
        self._put("stats.json", _Leaf(self._stats))
        self._put("metrics", _metrics(q))
        self._put("events", _Leaf(self._events))
        if authorize is not None:
            self._put("pause", _Action("pause", lambda _: q.pause(), authorize))
            self._put("resume", _Action("resume", lambda _: q.resume(), authorize))
            self._put("cancel", _Action("cancel", partial(_cancel, q), authorize))

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        """Find what is asked for, unless the request is to be refused."""
        _secure(request)
        refusal = _objection(request, self._hosts, isPage=path == b"")
        if refusal is not None:
            return forbidden("Refused", refusal)
        child: IResource = super().getChildWithDefault(path, request)
        return child

    def render_GET(self, request: Request) -> bytes:
        """Send browsers to the page, whose address ends with a slash."""
        _secure(request)
        return redirectTo(request.path.rpartition(b"/")[2] + b"/", request)

    def _put(self, path: str, resource: Resource) -> None:
        self.putChild(path.encode(), resource)

    def _stats(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self._q.stats(), indent=2).encode()

    def _events(self, request: Request) -> bytes | int:
        """Begin the stream of what an open page shows."""
        if len(self._sampler) >= _MAX_PAGES:
            request.setResponseCode(http.SERVICE_UNAVAILABLE)
            return b"There are too many pages open.\n"
        request.setHeader("Content-Type", "text/event-stream")
        if request.method == b"HEAD":
            return b""
        page = OpenPage(request)
        request.notifyFinish().addBoth(lambda _: self._sampler.remove(page))
        self._sampler.add(page)
        return NOT_DONE_YET


class _Leaf(Resource):
    """What a function makes of a request."""

    isLeaf = True

    def __init__(self, render: Callable[[Request], bytes | int]) -> None:
        super().__init__()
        self.render_GET = render


class _Action(Resource):
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


def _cancel(q: TaskQueue, request: Request) -> None:
    """Cancel the calls that wait of the series that a request names."""
    wanted = [text.decode(errors="replace") for text in request.args.get(b"series", ())]
    for series in q.th.assignmentFactory.backlog.series():
        if seriesText(series) in wanted:
            q.cancelSeries(series)


def _metrics(q: TaskQueue) -> Resource:
    if find_spec("prometheus_client") is None:
        return errorPage(
            http.NOT_IMPLEMENTED,
            "No metrics",
            "They need the package prometheus_client: install asynqueue[monitor].",
        )
    from ._metrics import Metrics

    return _Leaf(Metrics(q).render)


def _secure(request: IRequest) -> None:
    """Have browsers keep the answer to its own origin."""
    for name, value in _HEADERS.items():
        request.setHeader(name, value)


def _objection(request: IRequest, hosts: Collection[str], isPage: bool) -> str | None:
    """
    Say why a request to one of these hosts is refused, as a page of another origin
    could have a browser make it; C{None} if it's to be answered. Other sites may have
    links to the page itself.
    """
    host = request.getHeader("Host") or ""
    if not _isKnown(host, hosts):
        return (
            f"The host {host!r} isn't known here. The application can name it:"
            " Monitor(q, hosts=[...])."
        )
    origin = request.getHeader("Origin")
    if origin is not None and not _isAt(origin, host):
        return "Requests of other origins aren't answered."
    site = request.getHeader("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none") and not (
        isPage and request.getHeader("Sec-Fetch-Mode") == "navigate"
    ):
        return "Requests of other sites aren't answered."
    if request.method == b"POST" and origin is None and site != "same-origin":
        return "A request that changes something must say where it comes from."
    return None


def _isKnown(host: str, hosts: Collection[str]) -> bool:
    """
    Whether a host can be meant. A name that isn't known may be another site's, which
    lets it stand for this machine's address (DNS rebinding).
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in hosts or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _isAt(origin: str, host: str) -> bool:
    scheme, _, place = origin.lower().partition("://")
    return scheme in ("http", "https") and place == host.lower()
