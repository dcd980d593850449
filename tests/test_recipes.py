"""
Tests of the programs in the documentation's recipes, run as users run them: sites of
twisted.web and Klein, a spider of Scrapy, and the tests of a program.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from base64 import b64encode
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Site

from ._servers import Program, environment, freePort, processGone, runPython

reactor: Any = globalReactor

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "docs" / "recipes"

#: The environment in which modules of the recipes are found, and nothing is left there.
ENVIRONMENT = {**environment(RECIPES), "PYTHONDONTWRITEBYTECODE": "1"}

#: Its square root is too large to be found by trial division within a test.
PRIME = 2**89 - 1


def childrenOf(pid: int) -> set[int]:
    """Find the children of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return set(map(int, children.split()))


class WebTests(TestCase):
    """Tests of the site of twisted.web."""

    timeout = 60
    program = "webserver.py"

    async def start(self) -> None:
        """Start the site."""
        self.site = Program(
            str(RECIPES / self.program),
            "tcp:0:interface=127.0.0.1",
            env=ENVIRONMENT,
        )
        self.addCleanup(self.site.kill)
        self.agent = Agent(reactor)
        self.port = int((await self.site.line()).split()[-1])

    def get(self, what: object) -> Deferred[Any]:
        """Ask for a page."""
        url = f"http://127.0.0.1:{self.port}/{what}"
        return self.agent.request(b"GET", url.encode())

    async def test_answers(self) -> None:
        """It answers with factors, and says what it doesn't know."""
        await self.start()
        found = await self.get(360)
        self.assertEqual(await readBody(found), b"[2, 2, 2, 3, 3, 5]\n")
        missing = await self.get("x")
        self.assertEqual(missing.code, 404)
        await readBody(missing)

    async def test_goneAway(self) -> None:
        """
        Calls whose browsers go away are stopped, which makes room for others. When too
        many wait, further ones are refused.
        """
        await self.start()
        requests = [self.get(PRIME) for _ in range(2 + 10 + 1)]
        refused, index = await DeferredList(requests, fireOnOneCallback=True)
        self.assertEqual(refused.code, 503)
        await readBody(refused)
        for request in requests[:index] + requests[index + 1 :]:
            request.addErrback(lambda _: None)
            request.cancel()
        found = await self.get(15)  # The others would take minutes.
        self.assertEqual(await readBody(found), b"[3, 5]\n")

    async def test_terminated(self) -> None:
        """On SIGTERM it ends, and so do its children."""
        await self.start()
        await readBody(await self.get(360))
        children = childrenOf(self.site.pid)
        self.assertEqual(len(children), 2)
        self.site.signal(signal.SIGTERM)
        await self.site.ended
        self.assertEqual(self.site.errors, "")
        await gatherResults([processGone(pid) for pid in children])

    if not sys.platform.startswith("linux"):
        test_terminated.skip = "There's no /proc"  # type: ignore[attr-defined]


class KleinTests(WebTests):
    """Tests of the site of Klein."""

    program = "kleinserver.py"

    if find_spec("klein") is None:
        skip = "Klein isn't installed"


class MonitoredTests(TestCase):
    """Tests of the site with the monitor."""

    timeout = 60

    async def test_password(self) -> None:
        """Whoever has the password gets all that is there, others get nothing."""
        site = Program(
            str(RECIPES / "monitored.py"),
            "tcp:0:interface=127.0.0.1",
            env={**ENVIRONMENT, "PASSWORD": "secret"},
        )
        self.addCleanup(site.kill)
        port = (await site.line()).split()[-1]
        agent = Agent(reactor)
        token = b64encode(b"operator:secret")
        for path, text in [
            ("", b"page.js"),
            ("stats.json", b'"name": "Factors"'),
            ("metrics", b'asynqueue_done_total{queue="Factors"} 1.0'),
        ]:
            url = f"http://127.0.0.1:{port}/queue/{path}".encode()
            refused = await agent.request(b"GET", url)
            self.assertEqual(refused.code, 401)
            await readBody(refused)
            headers = Headers({b"Authorization": [b"Basic " + token]})
            shown = await agent.request(b"GET", url, headers)
            self.assertEqual(shown.code, 200)
            self.assertIn(text, await readBody(shown))

    if find_spec("prometheus_client") is None:
        skip = "prometheus_client isn't installed"


class Page(Resource):
    """A page with a link to the next."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Make the page."""
        n = int(request.postpath[0] or b"0")
        words = "many " * 3 + "other " * 2 + f"words{n}"
        link = f'<a href="/{n + 1}">next</a>' if n < 3 else ""
        return f"<html><p>{words}</p>{link}</html>".encode()


class ScrapyTests(TestCase):
    """Tests of the spider."""

    timeout = 60

    if find_spec("scrapy") is None:
        skip = "Scrapy isn't installed"

    async def crawl(self, *options: str, env: dict[str, str]) -> tuple[str, Any]:
        """Run the spider over a site, and return what it has logged and its items."""
        folder = self.mktemp()
        os.mkdir(folder)
        port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
        try:
            out, err, code = await runPython(
                *("-m", "scrapy", "runspider", str(RECIPES / "pages.py")),
                *("-a", f"site=http://127.0.0.1:{port.getHost().port}/"),
                *("-O", "pages.json", "-s", "LOG_LEVEL=WARNING"),
                *("-s", "TELNETCONSOLE_ENABLED=0", "-s", "REMOTE_CONTROL_ENABLED=0"),
                *options,
                folder=folder,
                env=env,
            )
        finally:
            await port.stopListening()
        self.assertEqual(code, 0, out + err)
        return out + err, json.loads(Path(folder, "pages.json").read_text())

    def assertPages(self, pages: list[Any]) -> None:
        """Fail unless all pages are there, with their words and topics."""
        self.assertEqual(len({page["url"] for page in pages}), 4)
        for page in pages:
            self.assertEqual((page["words"]["many"], page["words"]["other"]), (3, 2))
            self.assertEqual(page["topics"][:2], ["many", "other"])

    async def test_asyncio(self) -> None:
        """
        Under Scrapy's default reactor, that of asyncio, callbacks and pipelines await
        calls.
        """
        log, pages = await self.crawl(env=ENVIRONMENT)
        self.assertEqual(log, "")
        self.assertPages(pages)

    async def test_epoll(self) -> None:
        """They do so under Twisted's own reactors, too."""
        option = "TWISTED_REACTOR=twisted.internet.epollreactor.EPollReactor"
        log, pages = await self.crawl("-s", option, env=ENVIRONMENT)
        self.assertEqual(log, "")
        self.assertPages(pages)

    if not sys.platform.startswith("linux"):
        test_epoll.skip = "There's no epoll"  # type: ignore[attr-defined]

    async def test_notOnThePath(self) -> None:
        """
        Without the folder on the path, it's said which module is missing, and what
        helps.
        """
        log, pages = await self.crawl("-s", "ITEM_PIPELINES={}", env=environment())
        self.assertIn("No module named 'wordcount'", log)
        self.assertIn("PYTHONPATH", log)
        self.assertEqual(pages, [])


class ServiceTests(TestCase):
    """Tests of the site as a service."""

    timeout = 60

    if find_spec("klein") is None:
        skip = "Klein isn't installed"

    async def serve(self, *arguments: str, port: int) -> None:
        """Run the site, ask it something, and end it."""
        folder = Path(self.mktemp())
        folder.mkdir()
        program = Program(*arguments, env=ENVIRONMENT, folder=folder)
        self.addCleanup(program.kill)
        await program.outputWith("Site starting")
        agent = Agent(reactor)
        found = await agent.request(b"GET", f"http://127.0.0.1:{port}/15".encode())
        self.assertEqual(await readBody(found), b"[3, 5]\n")
        children = childrenOf(program.pid)
        program.signal(signal.SIGTERM)
        await program.ended
        await gatherResults([processGone(pid) for pid in children])

    async def test_twist(self) -> None:
        """C{twist} finds it as a plugin."""
        port = freePort()
        place = f"tcp:{port}:interface=127.0.0.1"
        await self.serve("-m", "twisted", "factors", "--listen", place, port=port)

    async def test_twistd(self) -> None:
        """C{twistd} runs the application of the file."""
        port = freePort()
        place = f"tcp:{port}:interface=127.0.0.1"
        run = (
            "from twisted.scripts.twistd import run; from factorsite import Options;"
            f" Options.optParameters[0][2] = {place!r}; run()"
        )
        tac = str(RECIPES / "factorsite.tac")
        await self.serve("-c", run, "-n", "--pidfile=", "-y", tac, port=port)


class TestingTests(TestCase):
    """Tests of the tests of a program."""

    timeout = 60

    async def test_pass(self) -> None:
        """They pass."""
        folder = self.mktemp()
        os.mkdir(folder)
        out, err, code = await runPython(
            *("-m", "twisted.trial", "test_prices"),
            folder=folder,
            env=ENVIRONMENT,
        )
        self.assertEqual(code, 0, out + err)
        self.assertIn("PASSED (successes=4)", out)
