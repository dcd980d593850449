"""Tests of the page that shows what a queue is doing, in a browser."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.server import Site

from asynqueue import ProcessQueue, TaskQueue
from asynqueue.monitor import Monitor, _recorder
from asynqueue.testing import MemoryWorker

from ._browser import MISSING, Browser
from ._cases import same
from ._jobs import raiseThat, sleepFor
from ._servers import Program

reactor: Any = globalReactor

HOSTILE = "<img src=x onerror=alert(1)><b>&amp;</b>"

#: Fulfilled when a condition comes true, as the page changes. The page's policy has no
#: text made code, so the condition stands in it.
UNTIL = """
    return new Promise(resolve => {
        const text = id => document.getElementById(id).innerText;
        const look = () => {
            if (!(%s)) return;
            observer.disconnect();
            resolve(true);
        };
        const observer = new MutationObserver(look);
        observer.observe(document, {
            subtree: true, childList: true, attributes: true, characterData: true});
        look();
    });
"""

#: What is in the cells of a table, row by row.
CELLS = """
    const rows = document.getElementById(arguments[0]).tBodies[0].rows;
    return [...rows].map(row => [...row.cells].filter(cell => cell.checkVisibility())
        .map(cell => cell.innerText.trim()));
"""

#: Elements whose text can't be told well from what is behind it: a contrast of less
#: than 4.5 to 1, as WCAG has it.
PALE = """
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = colour => {
        const [r, g, b] = channels(colour).map(c => c / 255)
            .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (channels(colour)[3] !== 0) return colour;
        }
    };
    return [...document.body.querySelectorAll("*")].filter(element => {
        const hasText = [...element.childNodes].some(
            node => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (!hasText || !element.checkVisibility()) return false;
        const [dark, light] = [getComputedStyle(element).color, behind(element)]
            .map(luminance).sort((a, b) => a - b);
        return (light + .05) / (dark + .05) < 4.5;
    }).map(element => element.outerHTML);
"""


class PageTestCase(TestCase):
    """A test with a queue, and a browser that shows its page."""

    timeout = 60
    skip = MISSING

    async def show(
        self, q: TaskQueue, width: int = 1280, phone: bool = False, **options: Any
    ) -> None:
        """Open the page."""
        # Not to have to wait for the seconds.
        self.patch(_recorder, "INTERVAL_SECONDS", 0.1)
        self.q = q
        self.addCleanup(q.shutdown, timeout=0)
        site = Site(Monitor(q, **options))
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.browser = Browser(folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.browser.close()))
        await self.browser.open(width, 900, phone)
        await self.browser.goTo(f"http://localhost:{port.getHost().port}/")
        await self.until("document.body.dataset.state === 'live'")

    async def until(self, condition: str) -> None:
        """Wait until a condition comes true on the page."""
        await self.browser.run(UNTIL % condition)

    async def cells(self, table: str) -> list[list[str]]:
        """Read a table."""
        rows: list[list[str]] = await self.browser.run(CELLS, table)
        return rows

    async def assertNoComplaints(self) -> None:
        """Fail if anything was logged to the console."""
        self.assertEqual(await self.browser.log(), [])


class LiveTests(PageTestCase):
    """Tests of how the page follows the queue."""

    async def test_figures(self) -> None:
        """
        The figures change as calls are made and run. What users have given names, and
        pass and raise, is text, whatever is in it. The page says when the queue has
        been shut down.
        """
        worker = MemoryWorker()
        await self.show(TaskQueue(worker, name=HOSTILE))
        self.assertEqual(await self.browser.run("return document.title"), HOSTILE)
        for i in range(4):
            for d in (
                self.q.call(same, HOSTILE, i, name=HOSTILE, series=HOSTILE),
                self.q.call(same, series="memory"),
            ):
                d.addErrback(lambda _: None)
        await self.until("text('waiting') === '7' && text('running') === '1'")
        [[name, state, call, since]] = await self.cells("workers")
        self.assertEqual((name, state), ("MemoryWorker 1", "busy"))
        self.assertEqual(call, "same()")
        self.assertIn("since", since)
        self.assertIn([HOSTILE, "4", "0", "0"], await self.cells("series"))
        worker.fail(ValueError(HOSTILE))
        for _ in range(3):
            worker.complete()
        self.q.attachWorker(MemoryWorker([HOSTILE]))
        await self.until("text('done') === '3' && text('failed') === '1'")
        row = (await self.cells("workers"))[1]
        self.assertEqual(
            row[2].split("\n"), [HOSTILE, f"same({HOSTILE!r}, 0)"], "name and call"
        )
        failure = await self.browser.run(
            "document.querySelector('summary').click();"
            "return document.querySelector('details').innerText"
        )
        self.assertIn(f"ValueError: {HOSTILE}", failure)
        self.assertIn("Traceback (most recent call last):", failure)
        strange = "return document.querySelectorAll('b b, img[src=x]').length"
        self.assertEqual(await self.browser.run(strange), 0)
        await self.q.shutdown(timeout=0)
        await self.until("text('state') === 'The queue has been shut down'")
        await self.browser.run("location.reload()")
        await self.until("text('state') === 'The queue has been shut down'")
        await self.assertNoComplaints()

    async def test_workers(self) -> None:
        """
        A worker shows what it runs, and since when. One that is killed is shown as lost
        and replaced, its call with the traceback, and the new one beside it.
        """
        await self.show(ProcessQueue(1))
        d = self.q.call(sleepFor, 600)
        await self.until("text('workers').includes('sleepFor(600)')")
        [worker] = self.q.stats()["workers"]
        self.assertIn(f"pid {worker['pid']}", (await self.cells("workers"))[0][0])
        os.kill(worker["pid"], signal.SIGKILL)
        d.addErrback(lambda _: None)
        await d
        await self.until("text('workers').includes('idle')")
        lost, new = await self.cells("workers")
        self.assertEqual(lost[:3], [lost[0], "lost, replaced", ""])
        self.assertTrue(lost[0].startswith(f"ProcessWorker {worker['ID']}"))
        self.assertEqual(new[1], "idle")
        self.q.call(raiseThat, ZeroDivisionError, "from the child").addErrback(
            lambda _: None
        )
        await self.until("text('failed') === '2'")
        texts = await self.browser.run(
            "return [...document.querySelectorAll('#failures pre')]"
            ".map(each => each.textContent)"
        )
        self.assertIn("in raiseThat", texts[0])
        self.assertIn("was ended by SIGKILL", texts[1])
        await self.assertNoComplaints()


class ControlTests(PageTestCase):
    """Tests of the buttons."""

    async def test_controls(self) -> None:
        """
        The queue is paused and resumed, and what waits of a series is cancelled if one
        says so twice. Who may not is told.
        """
        worker = MemoryWorker()
        may = [True, True, True, False]
        await self.show(
            TaskQueue(worker), authorize=lambda request: may.pop(0), width=400
        )
        await self.browser.run("document.getElementById('pause').click()")
        await self.until("text('state') === 'Paused' && text('pause') === 'Resume'")
        self.assertTrue(self.q.isPaused())
        self.q.call(same, series="memory").addErrback(lambda _: None)
        await self.until("text('waiting') === '1'")
        cancel = "document.querySelector('td button:enabled').click()"
        for answer in ("button[value='']", "button.danger"):
            self.assertEqual(self.q.th.waiting, 1)
            await self.browser.run(cancel)
            await self.until("document.getElementById('ask').open")
            await self.browser.run(f'document.querySelector("{answer}").click()')
        await self.until("text('waiting') === '0'")
        for _ in range(2):
            await self.browser.run("document.getElementById('pause').click()")
            await self.until("text('state') === 'Live'")
        await self.until("text('ask') === 'You may not do that.\\n\\nClose'")
        self.assertFalse(self.q.isPaused())


class DemonstrationTests(TestCase):
    """Tests of the program that shows the page."""

    timeout = 60

    async def test_run(self) -> None:
        """
        It serves the page at an address of this machine alone, with a queue that has
        something to do, and ends at Ctrl-C.
        """
        program = Program("-m", "asynqueue.monitor", "--port=0")
        self.addCleanup(lambda: Deferred.fromCoroutine(program.kill()))
        address = await program.line()
        self.assertTrue(address.startswith("http://localhost:"), address)
        url = address.replace("localhost", "127.0.0.1")
        agent = Agent(reactor)
        done = 0
        while not done:
            response = await agent.request(b"GET", f"{url}stats.json".encode())
            done = json.loads(await readBody(response))["done"]
        program.signal(signal.SIGINT)
        self.assertEqual(await program.ended, 0)
        self.assertNotIn("Traceback", program.errors)

    async def test_port(self) -> None:
        """If the port is taken, that's said."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        option = f"--port={port.getHost().port}"
        program = Program("-m", "asynqueue.monitor", option)
        self.assertEqual(await program.ended, 1)
        self.assertIn("Couldn't listen on 127.0.0.1", program.errors)


class LookTests(PageTestCase):
    """Tests of how the page can be read."""

    async def test_schemes(self) -> None:
        """
        All text can be read, light and dark, and nothing scrolls sideways on a phone.
        """
        q = TaskQueue(MemoryWorker(["a" * 60]), name="x" * 80)
        await self.show(q, 400, phone=True, authorize=lambda request: True)
        for d in (self.q.call(same, "y" * 200, series="a" * 60), self.q.call(same)):
            d.addErrback(lambda _: None)
        q.workers(1).fail(ValueError("z" * 300))
        q.workers(1).resign()
        await self.until("text('failed') === '1'")
        wide = await self.browser.run("return document.documentElement.scrollWidth")
        self.assertEqual(wide, 400)
        for scheme in ("light", "dark"):
            await self.browser.preferScheme(scheme)
            self.assertEqual(await self.browser.run(PALE), [], scheme)

    async def test_names(self) -> None:
        """
        Whoever can't see the page finds its way: there are landmarks, sections and
        tables have names, charts have text, and the keyboard gets to what it must.
        Those who may only look have no buttons.
        """
        await self.show(TaskQueue(MemoryWorker()))
        missing = await self.browser.run(
            """
            const named = element => element.getAttribute("aria-label")
                || document.getElementById(element.getAttribute("aria-labelledby"))
                || element.caption;
            return [...document.querySelectorAll("section, table, dl, svg, dialog")]
                .filter(element => !named(element)).map(element => element.outerHTML);
            """
        )
        self.assertEqual(missing, [])
        counts = await self.browser.run(
            """
            const shown = [...document.querySelectorAll("button")]
                .filter(button => button.checkVisibility());
            return [...["header", "main", "footer", "h1"]
                .map(name => document.querySelectorAll(name).length), shown.length];
            """
        )
        self.assertEqual(counts, [1, 1, 1, 1, 0])
        said = await self.browser.run(
            """
            const chart = document.querySelector("svg");
            chart.focus();
            chart.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
            return document.getElementById("news").textContent;
            """
        )
        self.assertRegex(said, r"Waiting 0.*Running 0.*at \d\d:\d\d:\d\d")
