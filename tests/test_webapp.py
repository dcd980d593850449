"""Tests of the example C{webapp.py}, by requests, and in a browser."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from os import urandom
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredQueue,
    gatherResults,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, ResponseFailed, readBody

from asynqueue import ProcessQueue, TaskQueue
from asynqueue.testing import MemoryWorker

from ._browser import MISSING, Browser
from .test_examples import ExampleTestCase, Terminal, readPNG, run

reactor: Any = globalReactor
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NO_NUMPY = None if find_spec("numpy") else "numpy isn't installed"


def webapp() -> Any:
    """Import the example, as it's imported when it's run: its folder is on the path."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return import_module("webapp")


class WatchedQueue(TaskQueue):
    """A queue that tells of its calls: C{called} gets the keywords of each."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.called: DeferredQueue[dict[str, Any]] = DeferredQueue()

    def call(self, f: Any, /, *args: Any, **kw: Any) -> Deferred[Any]:
        """Queue a call."""
        d = super().call(f, *args, **kw)
        # Not at once: whoever waits for it isn't to act within the call.
        reactor.callLater(0, self.called.put, kw)
        return d


class HalfReactor:
    """The reactor, whose time doesn't pass unless it's told to."""

    def __init__(self, clock: Clock) -> None:
        self.callLater = clock.callLater
        self.seconds = clock.seconds
        self.callFromThread = reactor.callFromThread


class Stream(Protocol):
    """The body of a response, as it comes."""

    def __init__(self) -> None:
        self.content = b""
        self.ended: Deferred[None] = Deferred()
        self._enough: Callable[[bytes], bool] | None = None
        self._d: Deferred[bytes] = Deferred()

    def until(self, enough: Callable[[bytes], bool]) -> Deferred[bytes]:
        """
        Wait for enough of it. Returns a Deferred that fires with what has come then.
        """
        self._enough = enough
        self._d = Deferred()
        self.dataReceived(b"")
        return self._d

    def dataReceived(self, data: bytes) -> None:
        """Take a piece."""
        self.content += data
        if self._enough is not None and self._enough(self.content):
            self._enough = None
            self._d.callback(self.content)

    def connectionLost(self, reason: Any = None) -> None:
        """Note the end."""
        self.ended.callback(None)

    def drop(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()


class ParameterTests(SynchronousTestCase):
    """Tests of how parameters are read."""

    skip = NO_NUMPY

    def read(self, **parameters: str) -> Any:
        """Read parameters."""
        args = {name.encode(): [text.encode()] for name, text in parameters.items()}
        return webapp().readOrder(args)

    def test_defaults(self) -> None:
        """Without parameters it's the whole set."""
        view, niceness = self.read()
        self.assertEqual((view.size, view.center, view.width), ((750, 500), -0.7, 3.5))
        self.assertEqual((view.samples, niceness), (1, 0))

    def test_all(self) -> None:
        """Each parameter has its effect."""
        view, niceness = self.read(
            size="30x20",
            center="-0.5,0.25",
            width="1e-7",
            iterations="77",
            samples="2",
            niceness="-3",
        )
        self.assertEqual(view, ((30, 20), -0.5 + 0.25j, 1e-7, 77, 2))
        self.assertEqual(niceness, -3)

    def test_iterations(self) -> None:
        """The narrower the view, the more iterations there are, if nothing is said."""
        wide, narrow = (self.read(width=text)[0].iterations for text in ("3", "1e-9"))
        self.assertGreater(narrow, 5 * wide)

    def test_bad(self) -> None:
        """
        What makes no sense is named, with what would make sense, and what was said.
        """
        for name, text in [
            ("center", "1"),
            ("center", "1,2,3"),
            ("center", "nan,0"),
            ("center", "0,99"),
            ("width", "wide"),
            ("width", "0"),
            ("width", "inf"),
            ("width", "1e-14"),
            ("size", "0x5"),
            ("size", "5"),
            ("size", "5000x10"),
            ("iterations", "20001"),
            ("iterations", "1.5"),
            ("samples", "5"),
            ("samples", ""),
            ("niceness", "21"),
        ]:
            error = self.assertRaises(ValueError, self.read, **{name: text})
            self.assertRegex(str(error), f"^{name} must be .*, not '{text}'$")

    def test_twice(self) -> None:
        """A parameter that is there twice is refused: which is meant?"""
        read = webapp().readOrder
        error = self.assertRaises(ValueError, read, {b"width": [b"1", b"2"]})
        self.assertEqual(str(error)[-9:], "not '1,2'")

    def test_unknown(self) -> None:
        """A parameter that there isn't is refused, with those that there are."""
        error = self.assertRaises(ValueError, self.read, colour="red")
        self.assertIn("no parameter 'colour', only size, center", str(error))

    def test_tooMuch(self) -> None:
        """A picture with more samples than is reasonable is refused."""
        error = self.assertRaises(ValueError, self.read, size="4000x4000", samples="4")
        self.assertIn("smaller size, or for fewer samples", str(error))


class WebTestCase(TestCase):
    """A test of the site, with requests to it."""

    timeout = 60
    skip = NO_NUMPY

    def serve(self, q: TaskQueue, timed: Any = reactor) -> None:
        """Serve the site at a port of this machine."""
        self.q = q
        self.addCleanup(q.shutdown, timeout=0)
        self.site = webapp().WebSite(q, timed)
        port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: self.site.pictures.drop())
        self.base = f"http://127.0.0.1:{port.getHost().port}/"

    def get(self, path: str, method: str = "GET", **parameters: Any) -> Any:
        """Make a request."""
        url = f"{self.base}{path}?{urlencode(parameters)}"
        return Agent(reactor).request(method.encode(), url.encode())

    async def stream(self, path: str, **parameters: Any) -> Stream:
        """Make a request whose response comes in pieces. Returns its body."""
        response = await self.get(path, **parameters)
        self.assertEqual(response.code, 200)
        stream = Stream()
        response.deliverBody(stream)
        return stream


class PictureTests(WebTestCase):
    """Tests of pictures, with a worker that is single-stepped where that matters."""

    def setUp(self) -> None:
        """Serve the site with a worker that does nothing unless it's told to."""
        self.worker = MemoryWorker()
        self.clock = Clock()
        self.watched = WatchedQueue(self.worker)
        self.serve(self.watched, HalfReactor(self.clock))

    async def ask(self, strips: int, **parameters: Any) -> Any:
        """Ask for a picture, and wait until so many calls for it are queued."""
        d = self.get("picture.png", **parameters)
        for _ in range(strips):
            await self.watched.called.get()
        return d

    async def test_picture(self) -> None:
        """
        The picture is a PNG file with the rows in their order, whichever is ready
        first.
        """
        self.worker.capacity = 8
        d = await self.ask(2, size="60x41", width=3, center="-0.7,0")
        while self.worker.running:
            self.worker.step(self.worker.running[-1])
        response = await d
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["image/png"])
        path = Path(self.mktemp())
        path.write_bytes(await readBody(response))
        width, height, lines = readPNG(path)
        self.assertEqual((width, height), (60, 41))
        self.assertEqual(lines, lines[::-1])
        row = lines[20]
        black = [row[i : i + 3] == b"\0\0\0" for i in range(0, len(row), 3)]
        # From -2.2 to 0.8 on the real axis: the set is from -2 to 0.25.
        self.assertEqual(
            [black[x] for x in (24, 35, 44, 55)], [True, True, True, False]
        )

    async def test_niceness(self) -> None:
        """
        Strips of a picture that is asked for with a lower niceness are rendered before
        those of one that was asked for earlier.
        """
        nice = await self.ask(2, size="60x40", width=3, niceness=15)
        self.assertEqual(self.worker.calls[0][1].width, 3)
        rude = await self.ask(2, size="60x40", width=2, niceness=-15)
        order = []
        while self.worker.running:
            order.append(self.worker.calls[0][1].width)
            self.worker.step()
        self.assertEqual(order, [3, 2, 2, 3])
        for response in await gatherResults([nice, rude]):
            self.assertEqual(response.code, 200)
            await readBody(response)

    async def test_dropped(self) -> None:
        """
        When a client goes away, its strips that wait are never rendered, the worker is
        told to stop work on the one that it's at unless that's done soon, and no more
        are queued.
        """
        d = await self.ask(2, size="60x4000")
        d.cancel()
        await self.assertFailure(d, ResponseFailed)
        (ended,) = self.site.pictures.running.values()
        await ended
        self.assertEqual(len(self.worker.accepted), 1)
        self.clock.advance(webapp().GRACE)
        self.assertEqual(self.worker.cancelled, self.worker.accepted)
        self.assertEqual(self.q.th.waiting, 0)
        self.assertEqual(self.watched.called.pending, [])
        self.assertEqual(self.site.pictures.running, {})

    async def test_droppedAndDone(self) -> None:
        """
        When a client goes away, a worker that is soon done with what is queued isn't
        stopped.
        """
        d = await self.ask(2, size="60x4000")
        d.cancel()
        await self.assertFailure(d, ResponseFailed)
        (ended,) = self.site.pictures.running.values()
        await ended
        self.worker.step()
        self.worker.step()
        self.clock.advance(webapp().GRACE)
        self.assertEqual(self.worker.cancelled, [])

    async def test_slowClient(self) -> None:
        """
        A picture for a client that doesn't read isn't rendered to its end. It goes on
        when the client does.
        """
        paused: Deferred[None] = Deferred()
        pause = webapp().ResponseFile.pauseProducing

        def pauseProducing(file: Any) -> None:
            """Tell of the first time."""
            pause(file)
            if not paused.called:
                paused.callback(None)

        self.patch(webapp().ResponseFile, "pauseProducing", pauseProducing)
        side = webapp().LONGEST_SIDE
        d = await self.ask(2, size=f"{side}x{side}")
        rows = webapp().STRIP_SAMPLES // side
        noise = urandom(rows * (1 + 3 * side))  # It can't be compressed.
        while not paused.called:
            if self.worker.running:
                self.worker.complete(noise)
            else:
                either: list[Deferred[Any]] = [self.watched.called.get(), paused]
                await DeferredList(either, fireOnOneCallback=True)
        # What is queued now fills all that is between the worker and the client.
        while self.worker.running:
            self.worker.complete(noise)
        self.assertLess(len(self.worker.accepted), side // rows - 20)
        stream = Stream()
        (await d).deliverBody(stream)
        while not self.worker.running:
            await self.watched.called.get()
        stream.drop()
        await stream.ended

    async def test_failure(self) -> None:
        """
        If a strip can't be rendered before anything was sent, the answer is an error.
        """
        d = await self.ask(2, size="60x40")
        self.worker.fail(ZeroDivisionError("it went wrong"))
        response = await d
        self.assertEqual(response.code, 500)
        self.assertEqual(await readBody(response), b"The picture can't be rendered.\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_lateFailure(self) -> None:
        """
        If a strip can't be rendered when some have been sent, the response is cut off,
        so that nobody takes it for the whole.
        """
        d = await self.ask(2, size="60x40")
        self.worker.step()
        response = await d
        self.worker.fail(ZeroDivisionError("it went wrong"))
        await self.assertFailure(readBody(response), ResponseFailed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_bad(self) -> None:
        """
        Bad parameters are refused with status 400 and text that says what's wrong.
        """
        for path in ("picture.png", "progress"):
            response = await self.get(path, width="<wide>")
            self.assertEqual(response.code, 400)
            self.assertEqual(
                response.headers.getRawHeaders("Content-Type"),
                ["text/plain; charset=utf-8"],
            )
            self.assertEqual(
                await readBody(response),
                b"width must be a number from 1e-13 to 20, not '<wide>'.\n",
            )
        self.assertEqual(self.worker.accepted, [])

    async def test_head(self) -> None:
        """Nothing is rendered to answer C{HEAD}."""
        for path in ("picture.png", "progress"):
            response = await self.get(path, "HEAD")
            self.assertEqual(response.code, 200)
        self.assertEqual(self.worker.accepted, [])

    async def test_tooMany(self) -> None:
        """When very many pictures are being rendered, no more can be asked for."""
        self.patch(webapp(), "MOST_PICTURES", 1)
        first = await self.ask(2)
        response = await self.get("picture.png")
        self.assertEqual(response.code, 503)
        self.assertEqual(response.headers.getRawHeaders("Retry-After"), ["5"])
        self.assertIn(b"try again later", await readBody(response))
        first.cancel()
        await self.assertFailure(first, ResponseFailed)

    async def test_progress(self) -> None:
        """
        Whoever asks about a picture is told how much of it is done. Pictures with other
        parameters don't matter.
        """
        events = await self.stream("progress", size="60x40", width=3)
        other = await self.stream("progress", size="60x40", width=2)
        d = await self.ask(2, size="60x40", width=3)
        self.worker.step()
        await events.until(lambda content: b"data: 50\n\n" in content)
        self.worker.step()
        await events.until(lambda content: content.endswith(b"data: 100\n\n"))
        self.assertNotIn(b"data", other.content)
        await readBody(await d)
        for stream in (events, other):
            stream.drop()
            await stream.ended


class SiteTests(ExampleTestCase):
    """Tests of the program."""

    skip = NO_NUMPY

    async def test_run(self) -> None:
        """
        The program prints an address, where there's the page, and pictures that
        children have rendered. It ends at Ctrl-C, its children with it.
        """
        terminal = Terminal("webapp.py", "--port=0", "--workers=2")
        await terminal.expect("/\r\n")
        base = terminal.output.strip().replace("localhost", "127.0.0.1")
        agent = Agent(reactor)
        page = await agent.request(b"GET", base.encode())
        self.assertEqual(page.code, 200)
        self.assertIn(b"<title>The Mandelbrot set</title>", await readBody(page))
        url = f"{base}picture.png?size=120x81&center=-0.7,0&width=3"
        path = self.folder / "m.png"
        path.write_bytes(await readBody(await agent.request(b"GET", url.encode())))
        width, height, lines = readPNG(path)
        self.assertEqual((width, height), (120, 81))
        self.assertEqual(lines, lines[::-1])
        url = f"{base}picture.png?size=400x4000&iterations=20000&width=1e-3"
        d = agent.request(b"GET", url.encode())
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 0)
        self.assertNotIn("Traceback", terminal.output)
        self.assertNotIn("Unhandled", terminal.output)
        self.assertGroupGone(terminal.group)
        d.addBoth(lambda _: None)
        await d

    async def test_port(self) -> None:
        """
        If the port is taken, that's said, with exit code 1. What is no port is named,
        with exit code 2.
        """
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        option = f"--port={port.getHost().port}"
        _, err, code = await run("webapp.py", option, "--workers=1")
        self.assertEqual(code, 1)
        self.assertIn("Couldn't listen on 127.0.0.1", err)
        self.assertNotIn("Traceback", err)
        _, err, code = await run("webapp.py", "--port=65536")
        self.assertEqual(code, 2)
        self.assertIn("argument --port: invalid", err)


class DashboardTests(ExampleTestCase):
    """
    Tests of C{dashboard.py}, which has the page of the monitor beside the pictures.
    """

    skip = NO_NUMPY

    async def test_run(self) -> None:
        """The page is there, and its figures are those of the queue that renders."""
        terminal = Terminal("dashboard.py", "--port=0", "--workers=1")
        await terminal.expect("/\r\n")
        base = terminal.output.strip()
        agent = Agent(reactor)

        async def get(path: str) -> bytes:
            """Get what is at a path."""
            return await readBody(await agent.request(b"GET", f"{base}{path}".encode()))

        self.assertIn(b'src="page.js"', await get("queue/"))
        await get("picture.png?size=60x40")
        stats = json.loads(await get("queue/stats.json"))
        self.assertGreater(stats["done"], 0)
        self.assertEqual(stats["workers"][0]["kind"], "ProcessWorker")
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 0)
        self.assertNotIn("Traceback", terminal.output)
        self.assertGroupGone(terminal.group)


#: What is on the page for the middle of the whole, and before magnifications.
WHOLE = "\N{MINUS SIGN}0.650 + 0.000 i"
TIMES = "\N{MULTIPLICATION SIGN}"

#: Fulfilled when the page has come to a rest: with what has become of it.
SETTLED = """
    return new Promise(resolve => {
        const look = () => {
            if (document.body.dataset.state !== "rendering") {
                observer.disconnect();
                resolve(document.body.dataset.state);
            }
        };
        const observer = new MutationObserver(look);
        observer.observe(document.body, {attributes: true});
        look();
    });
"""

#: Goes back one page. Fulfilled when the page knows.
BACK = """
    return new Promise(resolve => {
        addEventListener("popstate", () => resolve(), {once: true});
        history.back();
    });
"""

#: What is on the page.
SEEN = """
    const text = id => document.getElementById(id).textContent;
    return {where: text("where"), zoom: text("zoom"), view: location.hash};
"""

#: The colours of some points of the picture, by their place on the page.
COLOURS = """
    const images = [...document.querySelectorAll("#stage img")];
    const img = images.find(img => img.complete && img.naturalWidth);
    const canvas = document.createElement("canvas");
    const scale = img.naturalWidth / innerWidth;
    [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(img, 0, 0);
    return arguments[0].map(([x, y]) =>
        [...context.getImageData(x * scale, y * scale, 1, 1).data].slice(0, 3));
"""


class BrowserTests(WebTestCase):
    """Tests of the page, in a browser."""

    timeout = 120
    skip = NO_NUMPY or MISSING

    async def look(self, width: int, height: int, phone: bool = False) -> Browser:
        """Open a browser, and see the page with the whole set."""
        webapp()  # which puts its folder on the path: the children want that, too
        self.serve(ProcessQueue(2, timeout=0))
        folder = Path(self.mktemp())
        folder.mkdir()
        browser = Browser(folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(browser.close()))
        await browser.open(width, height, phone)
        await browser.goTo(self.base)
        self.assertEqual(await browser.run(SETTLED), "ready")
        return browser

    async def test_zoom(self) -> None:
        """
        A click zooms in on its point, which stays where it is. The buttons zoom out
        and back to the whole, and so does the browser's own way back. What is on the
        page says where one is, and nothing goes wrong that the console tells of.
        """
        browser = await self.look(800, 600)
        # The whole set is 3.6 wide, its middle at -0.65: 2.7 high is what fits.
        seen = await browser.run(SEEN)
        self.assertEqual((seen["where"], seen["zoom"]), (WHOLE, f"{TIMES} 1"))
        black, *others = await browser.run(
            COLOURS, [[500, 300], [100, 300], [450, 550]]
        )
        self.assertEqual(black, [0, 0, 0])
        self.assertNotIn(black, others)

        # This point is -1.3 + 0.45 i.
        await browser.click(256, 200)
        self.assertEqual(await browser.run(SETTLED), "ready")
        seen = await browser.run(SEEN)
        self.assertEqual(seen["zoom"], f"{TIMES} 2.5")
        re, im, width = map(float, seen["view"][1:].split(","))
        self.assertAlmostEqual(width, 3.6 / 2.5)
        self.assertAlmostEqual(re + (256 - 400) * width / 800, -0.65 - 144 * 0.0045)
        self.assertAlmostEqual(im - (200 - 300) * width / 800, 100 * 0.0045)
        await browser.drag([(400, 300), (300, 350), (240, 380)])
        self.assertEqual(await browser.run(SETTLED), "ready")
        moved = (await browser.run(SEEN))["view"][1:].split(",")
        self.assertAlmostEqual(float(moved[0]), re + 160 * width / 800)
        self.assertAlmostEqual(float(moved[1]), im + 80 * width / 800)

        await browser.run("document.getElementById('out').click()")
        self.assertEqual(await browser.run(SETTLED), "ready")
        self.assertEqual((await browser.run(SEEN))["zoom"], f"{TIMES} 1")
        await browser.run(BACK)
        self.assertEqual(await browser.run(SETTLED), "ready")
        self.assertEqual((await browser.run(SEEN))["view"][1:].split(","), moved)
        await browser.run("document.getElementById('reset').click()")
        self.assertEqual(await browser.run(SETTLED), "ready")
        self.assertEqual((await browser.run(SEEN))["where"], WHOLE)
        save = await browser.run("return document.getElementById('save').href")
        self.assertIn("size=2560x1920", save)
        self.assertIn("niceness=15", save)
        self.assertEqual(await browser.log(), [])

    async def test_onward(self) -> None:
        """
        Who zooms on doesn't have the server render what isn't seen any longer. When
        the last picture is there, it's at most a smoother one that is still rendered.
        """
        browser = await self.look(800, 600)
        dropped = []
        drop = webapp().Picture.drop

        def dropOne(picture: Any) -> None:
            dropped.append(picture)
            drop(picture)

        self.patch(webapp().Picture, "drop", dropOne)
        # Where there's much to do.
        await browser.goTo(f"{self.base}#-0.7436447,0.1318252,0.00072")
        for _ in range(3):
            await browser.click(400, 300)
        self.assertEqual(await browser.run(SETTLED), "ready")
        self.assertEqual((await browser.run(SEEN))["zoom"], f"{TIMES} 78,100")
        self.assertGreater(len(dropped), 0)
        for picture in self.site.pictures.running:
            view, niceness = picture._order
            self.assertAlmostEqual(view.width * 15.625, 0.00072)
            self.assertEqual(niceness, 10)

    async def test_phone(self) -> None:
        """
        On a phone everything is on the screen and large enough for fingers, nothing
        scrolls sideways, and a tap zooms in.
        """
        browser = await self.look(360, 640, phone=True)
        boxes = await browser.run(
            """
            return ["title", "facts", "in", "out", "reset", "save"].map(id => {
                const {left, top, right, bottom} =
                    document.getElementById(id).getBoundingClientRect();
                return [left, top, right, bottom];
            });
            """
        )
        for left, top, right, bottom in boxes:
            self.assertGreaterEqual(min(left, top), 0)
            self.assertLessEqual(right, 360)
            self.assertLessEqual(bottom, 640)
            self.assertGreaterEqual(min(right - left, bottom - top), 44)
        facts, tools = boxes[1], boxes[2]
        self.assertLess(facts[2], tools[0])
        wide = await browser.run("return document.documentElement.scrollWidth")
        self.assertEqual(wide, 360)
        await browser.click(100, 320, "touch")
        self.assertEqual(await browser.run(SETTLED), "ready")
        self.assertEqual((await browser.run(SEEN))["zoom"], f"{TIMES} 2.5")
        self.assertEqual(await browser.log(), [])

    async def test_failure(self) -> None:
        """
        If a picture can't be had, the page says so, and gets it when it's asked to try
        again.
        """
        browser = await self.look(400, 300)
        pictures = webapp().MOST_PICTURES
        webapp().MOST_PICTURES = 0
        self.addCleanup(setattr, webapp(), "MOST_PICTURES", pictures)
        await browser.click(100, 150)
        self.assertEqual(await browser.run(SETTLED), "failed")
        notice = "document.getElementById('notice')"
        text = await browser.run(f"return {notice}.innerText")
        self.assertIn("The picture didn't come", text)
        webapp().MOST_PICTURES = pictures
        await browser.run(f"{notice}.querySelector('button').click()")
        self.assertEqual(await browser.run(SETTLED), "ready")
