"""Tests of the resource that shows what a queue is doing, by requests in memory."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource
from twisted.web.server import Site

from asynqueue.monitor import Monitor
from asynqueue.monitor._recorder import _MAX_MISSED
from asynqueue.testing import MemoryWorker

from ._cases import QueueTestCase, same
from .test_exports import REPORT, fresh

HOSTILE = "<script>alert('&')</script>"


class Response(NamedTuple):
    """What was answered."""

    code: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection to a web site, in memory."""

    def __init__(self, site: Site) -> None:
        self.transport = StringTransportWithDisconnection()
        self._channel: Any = site.buildProtocol(None)
        self.transport.protocol = self._channel
        self._channel.makeConnection(self.transport)
        self._producer: Any = self.transport.producer

    def ask(self, path: str, method: str = "GET", **headers: str) -> None:
        """Make a request. Underscores in the names of headers are hyphens."""
        lines = [f"{method} {path} HTTP/1.1"]
        headers.setdefault("Host", "localhost:8080")
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self._channel.dataReceived("\r\n".join([*lines, "", ""]).encode())

    def response(self) -> Response:
        """Get what was answered so far."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if headers.get("Transfer-Encoding") == "chunked":
            body = unchunked(body)
        return Response(int(status.split()[1]), headers, body)

    def updates(self) -> list[dict[str, Any]]:
        """Get the events that were sent so far."""
        text = self.response().body.decode()
        return [json.loads(event[6:]) for event in text.split("\n\n") if event]

    def pause(self) -> None:
        """Be a client that doesn't read."""
        self._producer.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._producer.resumeProducing()

    def close(self) -> None:
        """Go away."""
        self.transport.loseConnection()


def unchunked(data: bytes) -> bytes:
    """Join the chunks of a body."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return body


class MonitorTestCase(QueueTestCase):
    """A test case with the resource at C{/queue} of a site."""

    def setUp(self) -> None:
        """Mount it."""
        super().setUp()
        self.site = self.mount()

    def mount(self, **options: Any) -> Site:
        """Make a site."""
        root = Resource()
        root.putChild(b"queue", Monitor(self.q, reactor=self.clock, **options))
        return Site(root, reactor=Clock())

    def get(self, path: str, method: str = "GET", **headers: str) -> Response:
        """Make a request, and get the answer."""
        connection = Connection(self.site)
        connection.ask(f"/queue/{path}", method, **headers)
        return connection.response()

    def open(self) -> Connection:
        """Open a page, as far as the server is concerned."""
        connection = Connection(self.site)
        connection.ask("/queue/events")
        return connection


class ResourceTests(MonitorTestCase):
    """Tests of what is served."""

    def test_page(self) -> None:
        """
        The page and its parts are served with their types. They ask for nothing that
        isn't there, and browsers are told to load nothing from elsewhere.
        """
        page = self.get("")
        self.assertEqual(page.code, 200)
        self.assertEqual(page.headers["Content-Type"], "text/html; charset=utf-8")
        for name, kind in [
            ("page.css", "text/css; charset=utf-8"),
            ("page.js", "text/javascript; charset=utf-8"),
            ("icon.svg", "image/svg+xml; charset=utf-8"),
        ]:
            self.assertIn(f'"{name}"'.encode(), page.body)
            part = self.get(name)
            self.assertEqual((part.code, part.headers["Content-Type"]), (200, kind))
        for name in ("page.js", "chart.js"):
            for line in self.get(name).body.decode().splitlines():
                if line.startswith("import"):
                    self.assertEqual(self.get(line.split('"./')[1][:-2]).code, 200)

    def test_headers(self) -> None:
        """All answers tell browsers to keep them to the page's own origin."""
        for path in ("", "page.js", "stats.json", "nothing"):
            headers = self.get(path).headers
            policy = headers["Content-Security-Policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(self.get("nothing").code, 404)

    def test_redirect(self) -> None:
        """
        Without the slash at the end, browsers are sent to where it has one, by a
        relative address, as a proxy may serve it below another path.
        """
        connection = Connection(self.site)
        connection.ask("/queue")
        response = connection.response()
        self.assertEqual(response.code, 302)
        self.assertEqual(response.headers["Location"], "queue/")

    def test_stats(self) -> None:
        """The figures are those of the queue."""
        self.q.call(same, HOSTILE, series="memory")
        response = self.get("stats.json")
        self.assertEqual(response.headers["Content-Type"], "application/json")
        stats = json.loads(response.body)
        self.assertEqual(stats["running"][0]["call"], f"same({HOSTILE!r})")
        self.assertEqual(stats["load"], 1)

    def test_noReactor(self) -> None:
        """Making a resource installs no reactor."""
        program = (
            "from asynqueue import TaskQueue; from asynqueue.monitor import Monitor\n"
            "Monitor(TaskQueue())\n"
        )
        self.assertEqual(fresh(program + REPORT), "True False 1")

    def test_onlyReads(self) -> None:
        """Without C{authorize}, nothing can be changed."""
        for path in ("pause", "resume", "cancel?series=memory"):
            response = self.get(path, "POST", Origin="http://localhost:8080")
            self.assertEqual(response.code, 404)
        self.assertFalse(self.q.isPaused())


class GuardTests(MonitorTestCase):
    """Tests of which requests are refused."""

    def test_hosts(self) -> None:
        """
        Addresses and this machine's own name are answered; of other names, those that
        the application has given.
        """
        known = ["localhost", "LOCALHOST:1", "a.localhost", "127.0.0.1:8080", "[::1]:1"]
        for hosts in (["example.org"], "example.org"):
            self.site = self.mount(hosts=hosts)
            for host in [*known, "192.0.2.7", "Example.org:443"]:
                self.assertEqual(self.get("stats.json", Host=host).code, 200, host)
        for host in ("evil.example", "example.org.evil.example", "", "[::1", "1.2.3"):
            for path in ("", "stats.json", "events", "metrics"):
                self.assertEqual(self.get(path, Host=host).code, 403, host)

    def test_refusalIsText(self) -> None:
        """What is said of a host that isn't known is text."""
        response = self.get("", Host=HOSTILE)
        self.assertEqual(response.code, 403)
        self.assertNotIn(b"<script", response.body)

    def test_origins(self) -> None:
        """Requests that pages of other origins make are refused."""
        for origin in (
            "http://evil.example",
            "http://localhost",
            "http://localhost:8081",
            "null",
            "",
            "file://localhost:8080",
        ):
            self.assertEqual(self.get("stats.json", Origin=origin).code, 403, origin)
        for origin in ("http://localhost:8080", "https://LOCALHOST:8080"):
            self.assertEqual(self.get("stats.json", Origin=origin).code, 200, origin)

    def test_sites(self) -> None:
        """So are those that browsers say are another site's. Links to the page work."""
        for site, code in [
            ("same-origin", 200),
            ("none", 200),
            ("same-site", 403),
            ("cross-site", 403),
        ]:
            for mode in ("no-cors", "navigate"):
                headers = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode}
                response = self.get("stats.json", **headers)
                self.assertEqual(response.code, code, headers)
                expected = 200 if mode == "navigate" else code
                self.assertEqual(self.get("", **headers).code, expected, headers)


class ActionTests(MonitorTestCase):
    """Tests of what can be done to the queue by those who may."""

    def setUp(self) -> None:
        """Mount a resource that asks for leave."""
        super().setUp()
        self.asked: list[Any] = []
        self.verdict: Any = True
        self.site = self.mount(authorize=self.authorize)

    def authorize(self, request: Any) -> Any:
        """Give the verdict."""
        self.asked.append(request)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def post(self, path: str) -> int:
        """Do what the page does. Returns the status code."""
        return self.get(path, "POST", Origin="http://localhost:8080").code

    def test_pause(self) -> None:
        """The queue is paused and resumed."""
        self.assertEqual(self.post("pause"), 204)
        self.assertTrue(self.q.isPaused())
        self.assertEqual(self.post("resume"), 204)
        self.assertFalse(self.q.isPaused())

    def test_cancel(self) -> None:
        """What waits of one series is cancelled. Series are known by their texts."""
        self.fillWorker()
        waiting = [
            self.q.call(same, series=series).addErrback(lambda _: "cancelled")
            for series in ("memory", None, ("a", "é"))
        ]
        self.assertEqual(self.post("cancel?series=None"), 204)
        self.assertEqual(self.successResultOf(waiting[1]), "cancelled")
        self.assertEqual(self.post("cancel?series=%28%27a%27%2C+%27%C3%A9%27%29"), 204)
        self.assertEqual(self.successResultOf(waiting[2]), "cancelled")
        self.assertEqual(self.post("cancel?series=%ff"), 204)
        self.assertEqual(self.post("cancel"), 204)
        self.assertNoResult(waiting[0])

    def test_refused(self) -> None:
        """
        Those who may not are told so, and so are those of whom that can't be found out.
        """
        for verdict, code in [
            (False, 403),
            ("yes", 403),
            (RuntimeError("no database"), 500),
        ]:
            self.verdict = verdict
            self.assertEqual(self.post("pause"), code)
            self.assertFalse(self.q.isPaused())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_later(self) -> None:
        """The verdict may come later, also when the client has gone."""
        verdicts: list[Deferred[bool]] = [Deferred(), Deferred()]
        for path, verdict in zip(("pause", "resume"), verdicts, strict=True):
            self.verdict = verdict
            connection = Connection(self.site)
            connection.ask(f"/queue/{path}", "POST", Sec_Fetch_Site="same-origin")
            self.assertEqual(connection.transport.value(), b"")
            if path == "resume":
                connection.close()
            verdict.callback(True)
            self.assertEqual(self.q.isPaused(), path == "pause")

    def test_foreign(self) -> None:
        """
        Requests that don't say that the page has made them aren't even considered.
        """
        self.assertEqual(self.get("pause", "POST").code, 403)
        self.assertEqual(self.get("pause", "POST", Origin="http://a.example").code, 403)
        self.assertEqual(self.get("pause").code, 405)
        self.assertEqual(self.asked, [])


class StreamTests(MonitorTestCase):
    """Tests of what open pages are sent."""

    def test_everything(self) -> None:
        """
        A page that is opened has all that there is; from then on it has what is new.
        """
        page = self.open()
        self.assertEqual(page.response().headers["Content-Type"], "text/event-stream")
        self.q.call(same, HOSTILE).addErrback(lambda _: None)
        self.worker.fail(ValueError(HOSTILE))
        self.clock.advance(1)
        self.clock.advance(1)
        first, second, third = page.updates()
        self.assertTrue(first["whole"])
        self.assertEqual(first["failures"], [])
        [failure] = second["failures"]
        self.assertEqual(failure["call"], f"same({HOSTILE!r})")
        self.assertEqual(failure["error"], f"ValueError: {HOSTILE}")
        self.assertIn("Traceback", failure["traceback"])
        self.assertEqual(second["samples"][0]["failed"], 1)
        self.assertEqual((third["whole"], third["failures"]), (False, []))
        later = self.open()
        [everything] = later.updates()
        self.assertEqual(everything["failures"], [failure])
        self.assertEqual(
            everything["samples"][-3:],
            [*first["samples"][-1:], *second["samples"], *third["samples"]],
        )

    def test_changes(self) -> None:
        """Pages are told of workers that come, and are lost."""
        page = self.open()
        worker = MemoryWorker()
        self.q.attachWorker(worker)
        worker.resign()
        self.q.call(same, series=HOSTILE)
        self.clock.advance(1)
        changes = page.updates()[1]["changes"]
        self.assertEqual(
            [(change["kind"], change["worker"]) for change in changes],
            [("hired", worker.ID), ("lost", worker.ID), ("unserved", None)],
        )
        self.assertEqual(changes[2]["series"], HOSTILE)

    def test_encodedOnce(self) -> None:
        """What is sent to all pages is encoded once."""
        pages = [self.open() for _ in range(5)]
        encoded = []
        dumps = json.dumps

        def countedDumps(*args: Any, **kw: Any) -> str:
            encoded.append(args)
            return dumps(*args, **kw)

        self.patch(json, "dumps", countedDumps)
        self.clock.advance(1)
        self.assertEqual([len(page.updates()) for page in pages], [2] * 5)
        self.assertEqual(len(encoded), 1)

    def test_unread(self) -> None:
        """
        Nothing is written to a page that doesn't read. When it does again, it's sent
        everything.
        """
        page, other = self.open(), self.open()
        page.pause()
        sent = len(page.transport.value())
        self.q.call(same).addErrback(lambda _: None)
        self.worker.fail(ValueError())
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(len(page.transport.value()), sent)
        self.assertEqual(len(other.updates()), 3)
        page.resume()
        self.clock.advance(1)
        last = page.updates()[-1]
        self.assertEqual((last["whole"], len(last["failures"])), (True, 1))
        self.clock.advance(1)
        self.assertFalse(page.updates()[-1]["whole"])

    def test_neverRead(self) -> None:
        """A page that doesn't read for a minute is disconnected."""
        page = self.open()
        page.pause()
        for _ in range(_MAX_MISSED):
            self.clock.advance(1)
        self.assertFalse(page.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(page.transport.disconnected)

    def test_tooMany(self) -> None:
        """Only so many pages are open at once. One that is closed makes room."""
        pages = [self.open() for _ in range(100)]
        self.assertEqual(self.open().response().code, 503)
        pages[0].close()
        self.assertEqual(self.open().response().code, 200)

    def test_head(self) -> None:
        """C{HEAD} doesn't open a page."""
        self.assertEqual(self.get("events", "HEAD").code, 200)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hostileFailures(self) -> None:
        """Exceptions that can't be shown do no harm, and endless ones are cut."""

        class Hostile(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        page = self.open()
        for error in (Hostile(), ValueError("x" * 100_000)):
            self.q.call(same).addErrback(lambda _: None)
            self.worker.fail(error)
        self.clock.advance(1)
        hostile, long = page.updates()[1]["failures"]
        self.assertIn("Hostile", hostile["traceback"])
        self.assertLess(len(long["error"]) + len(long["traceback"]), 20_000)

    def test_bounded(self) -> None:
        """However much there is, what is sent stays small."""
        page = self.open()
        for _ in range(301):
            self.clock.advance(1)
        for i in range(101):
            self.q.call(same).addErrback(lambda _: None)
            self.worker.fail(ValueError())
            self.q.call(same, series=f"series {i}")
        for _ in range(200):
            self.q.attachWorker(MemoryWorker())
        self.clock.advance(1)
        [everything] = self.open().updates()
        stats = everything["stats"]
        self.assertEqual((stats["totalWorkers"], stats["totalSeries"]), (201, 101))
        self.assertEqual((len(stats["workers"]), len(stats["queued"])), (200, 100))
        self.assertEqual(len(everything["samples"]), 300)
        self.assertEqual(len(everything["failures"]), 20)
        page.close()


class SamplingTests(MonitorTestCase):
    """Tests of when samples are taken."""

    def test_idle(self) -> None:
        """
        While the queue is idle and nobody looks, nothing is due. With the first call,
        samples are taken until all have their results.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.q.call(same)
        self.clock.advance(1)
        self.clock.advance(1)
        self.worker.complete()
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        [update] = self.open().updates()
        running = [sample["running"] for sample in update["samples"]]
        self.assertEqual(running, [0, 0, 1, 1, 0, 0])

    def test_closed(self) -> None:
        """When the last page is closed, nothing is due any longer."""
        page = self.open()
        self.clock.advance(5)
        page.close()
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unseen(self) -> None:
        """Calls without fault are told nobody of."""
        self.q.call(same)
        observers = self.q.q.watcher.observers
        self.assertFalse(observers.wantsEachCall)

    def test_shutdown(self) -> None:
        """
        With the queue, the pages end, and nothing is left behind. Pages that are opened
        later have the last figures.
        """
        page = self.open()
        self.q.call(same)
        d = self.q.shutdown()
        self.clock.advance(1)
        self.assertFalse(page.updates()[-1]["isRunning"])
        self.assertFalse(page.updates()[-1]["isOver"])
        self.worker.complete()
        self.successResultOf(d)
        self.assertTrue(page.updates()[-1]["isOver"])
        later = self.open()
        [update] = later.updates()
        self.assertEqual((update["whole"], update["isOver"]), (True, True))
        for ended in (page, later):
            self.assertTrue(ended.transport.value().endswith(b"\r\n0\r\n\r\n"))
            ended.close()
        self.assertEqual(self.q.q.watcher.observers.wanted, frozenset())

    def test_shutdownAsleep(self) -> None:
        """The same goes for a queue that is idle when it's shut down."""
        self.successResultOf(self.q.shutdown())
        self.assertEqual(self.q.q.watcher.observers.wanted, frozenset())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MetricTests(MonitorTestCase):
    """Tests of what Prometheus reads."""

    if find_spec("prometheus_client") is None:
        skip = "prometheus_client isn't installed"

    def read(self, accept: str) -> dict[str, dict[tuple[str, ...], float]]:
        """
        Read the metrics as Prometheus does: for each name, the values by those of the
        labels, in alphabetical order of their names.
        """
        response = self.get("metrics", Accept=accept)
        kind = accept.partition(";")[0]
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers["Content-Type"].partition(";")[0], kind)
        parser = import_module(
            "prometheus_client.parser"
            if kind == "text/plain"
            else "prometheus_client.openmetrics.parser"
        )
        samples: dict[str, dict[tuple[str, ...], float]] = {}
        for family in parser.text_string_to_metric_families(response.body.decode()):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[labels] = sample.value
        return samples

    def test_surrogates(self) -> None:
        """Names that can't be encoded are shown with what is odd in them escaped."""
        self.fillWorker()
        self.q.call(same, series="a\udcff")
        samples = self.read("text/plain")
        self.assertEqual(samples["asynqueue_queued"], {("", "a\\udcff"): 1})

    def test_figures(self) -> None:
        """Both formats can be read, and have the figures of the queue."""
        for error in (None, ValueError(), None):
            self.q.call(same).addErrback(lambda _: None)
            if error is None:
                self.worker.complete()
            else:
                self.worker.fail(error)
        self.fillWorker()
        self.q.call(same, series=HOSTILE)
        self.q.call(same, series='"\\\n')
        self.q.pause()
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            samples = self.read(accept)
            self.assertEqual(samples["asynqueue_done_total"], {("",): 2})
            self.assertEqual(samples["asynqueue_failed_total"], {("error", ""): 1})
            self.assertEqual(samples["asynqueue_load"], {("",): 3})
            self.assertEqual(samples["asynqueue_running"], {("",): 1})
            self.assertEqual(samples["asynqueue_paused"], {("",): 1})
            self.assertEqual(
                samples["asynqueue_queued"], {("", HOSTILE): 1, ("", '"\\\n'): 1}
            )
            self.assertEqual(
                samples["asynqueue_workers"], {("MemoryWorker", "", "ready"): 1}
            )
            self.assertEqual(
                [key[0] for key in samples["asynqueue_wait_seconds"]],
                ["0.5", "0.9", "0.99", "1"],
            )

    def test_missing(self) -> None:
        """Without the package, it's said what to install."""
        self.patch(sys, "modules", {**sys.modules, "prometheus_client": None})
        self.site = self.mount()
        response = self.get("metrics")
        self.assertEqual(response.code, 501)
        self.assertIn(b"asynqueue[monitor]", response.body)
