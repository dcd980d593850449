#!/usr/bin/env python3
"""
Render the Mandelbrot set to a PNG file on servers, one of which is killed half-way.

It's the picture of C{mandelbrot.py}, cut into strips. Each is a call that goes to one
of the servers, over TLS: both ends have certificates, and accept no others. When a
server is killed, what it was working on goes to another. It's started again, and gets
work again.

    python examples/remote.py
    python examples/remote.py --servers 3 --output m.png

These servers are processes of this machine. On another machine, with the file
C{server.pem} that the first line makes and this example::

    python -m asynqueue.credentials pair tls
    cd examples && python -m asynqueue.wire --tls server.pem tls:8700 remote.Fractal

and here, for each such server::

    python examples/remote.py --tls tls/client.pem --at tls:HOST:8700

The extras C{asynqueue[examples,tls]} have numpy and pyOpenSSL, which it needs.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from time import perf_counter
from typing import Any

from fractal import View, renderStrip
from mandelbrot import Progress, count, parse, render
from twisted.internet.task import react

from asynqueue import TaskQueue, WireWorker, WireWorkerUniverse
from asynqueue.credentials import makePair
from asynqueue.errors import QueueRunError, WorkerLost, WorkerStartError
from asynqueue.wire import TLS, ServerManager


class Fractal(WireWorkerUniverse):
    """What the servers can do."""

    def strip(self, view: tuple[Any, ...], top: int, rows: int) -> bytes:
        """Render some rows of the picture."""
        return renderStrip(View(*view), top, rows)


class Servers:
    """
    Servers on this machine. C{tls} is what their clients show of themselves, and
    accept.
    """

    def __init__(self, number: int, folder: str) -> None:
        server, client = makePair(folder)
        self.places = [f"tls:127.0.0.1:{freePort()}" for _ in range(number)]
        self.tls = TLS.fromFiles(client)
        # Restarted at once, as a picture doesn't take long.
        self._manager = ServerManager(
            Fractal, tls=TLS.fromFiles(server), backoff=lambda attempts: 0.1
        )
        self._pids: list[int] = []
        self.stop = self._manager.shutdown

    async def start(self) -> None:
        """Start them."""
        for place in self.places:
            port = place.rpartition(":")[2]
            pid = await self._manager.spawn(f"tls:{port}:interface=127.0.0.1")
            self._pids.append(pid)

    def killOne(self) -> None:
        """Kill one."""
        pid = self._pids[0]
        os.kill(pid, signal.SIGKILL)
        print(f"Server {pid} was killed.", file=sys.stderr)


def freePort() -> int:
    """Find a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Accident(Progress):
    """A progress bar, and what happens when half of the picture is done."""

    def __init__(self, file: Any, happen: Any) -> None:
        super().__init__(file)
        self._happen = happen

    def __call__(self, share: float) -> None:
        """Show how much is done."""
        super().__call__(share)
        if share >= 0.5 and self._happen is not None:
            happen, self._happen = self._happen, None
            happen()


async def renderAt(
    reactor: Any, options: argparse.Namespace, view: View, servers: Servers | None
) -> None:
    """
    Render the picture on servers: those of this machine, or else those of the command
    line.
    """
    q = TaskQueue()
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=0)
    part = f"{options.output}.part"
    try:
        if servers is None:
            places, tls, accident = options.at, TLS.fromFiles(options.tls), None
        else:
            await servers.start()
            places, tls, accident = servers.places, servers.tls, servers.killOne
        for place in places:
            await q.attachWorker(
                WireWorker(Fractal, place, tls=tls, thread=True, reconnect=True)
            )
        start = perf_counter()
        with open(part, "wb") as file:
            # A strip may be rendered twice: it's tried again if its server is lost.
            await render(
                q,
                view,
                file,
                Accident(sys.stderr, accident),
                lambda view, *rows: q.call("strip", tuple(view), *rows, retries=3),
            )
        os.replace(part, options.output)
        seconds = perf_counter() - start
        pixels = view.size[0] * view.size[1]
        print(f"{len(places)} servers: {pixels:,} pixels in {seconds:.2f} s")
        print(options.output)
    except (QueueRunError, WorkerLost, WorkerStartError):
        # Unless the reactor has shut down the queue, on Ctrl-C.
        if q.isRunning():
            raise
        print("\nInterrupted, no picture was written.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        await q.shutdown(timeout=5)
        if os.path.exists(part):
            os.unlink(part)


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    view = View(
        options.size, options.center, options.width, options.iterations, options.samples
    )
    try:
        if options.at:
            await renderAt(reactor, options, view, None)
            return
        with tempfile.TemporaryDirectory() as folder:
            servers = Servers(options.servers, folder)
            try:
                await renderAt(reactor, options, view, servers)
            finally:
                await servers.stop()
    except OSError as error:
        raise SystemExit(f"The picture can't be written: {error}") from None


def addServers(parser: argparse.ArgumentParser) -> None:
    """Add options about the servers to a command line."""
    add = parser.add_argument
    add("--servers", type=count, default=2, metavar="N", help="of this machine: 2")
    add("--at", action="append", metavar="tls:HOST:PORT", help="a server that is there")
    add("--tls", metavar="FILE", help="credentials for it")


if __name__ == "__main__":
    react(main, [parse(sys.argv[1:], addServers)])
