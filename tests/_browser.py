"""
A web browser for tests of pages: Chromium, driven by ChromeDriver over the WebDriver
protocol.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

reactor: Any = globalReactor

_NAMES = ["chromium", "chromium-browser", "google-chrome"]
_BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
_DRIVER = shutil.which("chromedriver")

#: Why there can be no tests with a browser, or C{None}.
MISSING = None if _BROWSER and _DRIVER else "Chromium or chromedriver isn't installed"

#: No window, and no business of the browser's own.
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@implementer(IBodyProducer)
class _Body:
    """The body of a request."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content = content

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Implement C{IBodyProducer.pauseProducing}."""

    def resumeProducing(self) -> None:
        """Implement C{IBodyProducer.resumeProducing}."""

    def stopProducing(self) -> None:
        """Implement C{IBodyProducer.stopProducing}."""


class _Driver(ProcessProtocol):
    """
    A ChromeDriver. C{port} fires with the port that it listens at, C{ended} when it has
    ended.
    """

    def __init__(self) -> None:
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._output = ""

    def outReceived(self, data: bytes) -> None:
        """Look for the port."""
        self._output += data.decode(errors="replace")
        found = re.search(r"started successfully on port (\d+)", self._output)
        if found and not self.port.called:
            self.port.callback(int(found[1]))

    def processEnded(self, reason: Failure) -> None:
        """Note that it has ended."""
        if not self.port.called:
            self.port.errback(reason)
        self.ended.callback(None)


class Browser:
    """A browser with one window."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._agent = Agent(reactor)
        self._driver = _Driver()
        self._process: Any = None
        self._session = ""

    async def open(self, width: int, height: int, phone: bool = False) -> None:
        """Open it. A phone has a touch screen of double density."""
        self._session = f"http://127.0.0.1:{await self._startDriver()}/session"
        screen = {
            "width": width,
            "height": height,
            "pixelRatio": 2 if phone else 1,
            "mobile": phone,
            "touch": phone,
        }
        options = {
            "binary": _BROWSER,
            "args": [*_FLAGS, f"--user-data-dir={self._folder / 'profile'}"],
            "mobileEmulation": {"deviceMetrics": screen},
        }
        wishes = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 60_000},
        }
        answer = await self._ask("POST", "", {"capabilities": {"alwaysMatch": wishes}})
        self._session += f"/{answer['sessionId']}"

    async def close(self) -> None:
        """Close it, and wait until it has gone."""
        if self._process is None:
            return
        try:
            await self._ask("DELETE", "")
        finally:
            if not self._driver.ended.called:
                self._process.signalProcess("TERM")
            await self._driver.ended

    async def goTo(self, url: str) -> None:
        await self._ask("POST", "/url", {"url": url})

    async def run(self, script: str, *args: Any) -> Any:
        """
        Run the body of a function with these C{arguments}. Gives what it returns, or
        what its promise is fulfilled with.
        """
        body = {"script": script, "args": args}
        return await self._ask("POST", "/execute/sync", body)

    async def click(self, x: int, y: int, pointer: str = "mouse") -> None:
        """Click at a point of the page with a kind of pointer, or C{"touch"}."""
        await self.drag([(x, y)], pointer)

    async def drag(self, points: list[tuple[int, int]], pointer: str = "mouse") -> None:
        """
        Press the button at the first of the points, move along the others, and release
        it.
        """
        moves = [
            {"type": "pointerMove", "x": x, "y": y, "duration": 0} for x, y in points
        ]
        down, up = ({"type": f"pointer{way}", "button": 0} for way in ("Down", "Up"))
        actions = {
            "type": "pointer",
            "id": pointer,
            "parameters": {"pointerType": pointer},
            "actions": [moves[0], down, *moves[1:], up],
        }
        await self._ask("POST", "/actions", {"actions": [actions]})

    async def preferScheme(self, scheme: str) -> None:
        """Prefer pages to be light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = {
            "cmd": "Emulation.setEmulatedMedia",
            "params": {"features": features},
        }
        await self._ask("POST", "/goog/cdp/execute", command)

    async def log(self) -> list[str]:
        """Get what has been logged to the console since the last time."""
        entries = await self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    async def _startDriver(self, attempts: int = 3) -> int:
        """
        Start the driver, and return its port. It ends at once if its port is taken for
        one of IPv4 and IPv6: then it's started again.
        """
        driver = str(_DRIVER)
        self._driver = _Driver()
        self._process = reactor.spawnProcess(
            self._driver,
            driver,
            [driver, "--port=0"],
            env={**os.environ, "HOME": str(self._folder)},
        )
        try:
            return await self._driver.port
        except ProcessTerminated:
            if attempts == 1:
                raise
            await self._driver.ended
            return await self._startDriver(attempts - 1)

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """
        Give a command, by a path below the session's. Returns the value in the answer.
        """
        response = await self._agent.request(
            method.encode(),
            f"{self._session}{path}".encode(),
            Headers({b"Content-Type": [b"application/json"]}),
            None if body is None else _Body(json.dumps(body).encode()),
        )
        value = json.loads(await readBody(response))["value"]
        if response.code != 200:
            raise AssertionError(f"{value['error']}: {value['message']}")
        return value
