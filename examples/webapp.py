#!/usr/bin/env python3
"""
A web site that renders the Mandelbrot set while you zoom into it.

    python examples/webapp.py
    python examples/webapp.py --host 0.0.0.0 --port 8080   # also for your phone

Then open the address that it prints. A picture is on its way from the first rows on:
child processes render strips of it, an L{OrderedItemProducer} puts them in order, and
has a blocking function write a PNG file of them, in a thread, to whoever has asked for
it, no faster than that is read. Small previews are less nice than large pictures, so
they're there first, however much is being rendered. Who goes away, or zooms on, has no
more rendered for the picture that nobody will see.

The extra C{asynqueue[examples]} has numpy, which it needs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, NamedTuple, cast

from fractal import View, renderStrip
from mandelbrot import PNG
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from asynqueue import ProcessQueue, TaskQueue
from asynqueue.threads import OrderedItemProducer

#: A strip has about so many samples: fewer than for C{mandelbrot.py}, since it matters
#: how soon there's something to be seen, and how soon a worker is free for others.
STRIP_SAMPLES = 16_384

#: So many strips for each worker are in the making for a picture. With few, another
#: picture that is asked for, of equal niceness, soon has its turn.
STRIPS_AHEAD = 2

#: When a client has gone, children have so many seconds to finish the strips that
#: they're at. It would take longer to end the children and start new ones.
GRACE = 0.25

#: So many pictures are rendered at a time. Each has a thread.
MOST_PICTURES = 40

#: The longest side of a picture, and the most samples that it may have in all.
LONGEST_SIDE = 4096
MOST_SAMPLES = 40_000_000

#: What is narrower can't be told apart by the numbers that are used.
NARROWEST = 1e-13

log = Logger()


class Order(NamedTuple):
    """What a client asks for: what is to be seen, and with which niceness."""

    view: View
    niceness: int


def readOrder(args: dict[bytes, list[bytes]]) -> Order:
    """
    Read the parameters of a request. If one makes no sense, that's a ValueError whose
    text says which and why.
    """
    texts = {name.decode(errors="replace"): values for name, values in args.items()}

    def take(
        name: str, default: Any, meaning: str, read: Callable[[str], Any | None]
    ) -> Any:
        values = texts.pop(name, [])
        if not values:
            return default
        text = b",".join(values).decode(errors="replace")
        try:
            value = read(text) if len(values) == 1 else None
        except ValueError:
            value = None
        if value is None:
            raise ValueError(f"{name} must be {meaning}, not {text[:60]!r}")
        return value

    def integer(low: int, high: int) -> Callable[[str], int | None]:
        return lambda text: int(text) if low <= int(text) <= high else None

    def real(low: float, high: float) -> Callable[[str], float | None]:
        return lambda text: float(text) if low <= float(text) <= high else None

    def center(text: str) -> complex | None:
        x, y = map(real(-10, 10), text.split(","))
        return None if x is None or y is None else complex(x, y)

    def size(text: str) -> tuple[int, int] | None:
        columns, rows = map(integer(1, LONGEST_SIDE), text.split("x"))
        return None if columns is None or rows is None else (columns, rows)

    width = take(
        *("width", 3.5, f"a number from {NARROWEST} to 20"), real(NARROWEST, 20)
    )
    view = View(
        size=take(
            *("size", (750, 500), f"as in 750x500, up to {LONGEST_SIDE} each"), size
        ),
        center=take(
            *("center", -0.7, "as in -0.7,0 with numbers from -10 to 10"), center
        ),
        width=width,
        iterations=take(
            *("iterations", enough(width), "an integer from 1 to 20000"),
            integer(1, 20_000),
        ),
        samples=take("samples", 1, "an integer from 1 to 4", integer(1, 4)),
    )
    niceness = take(
        "niceness", 0, "an integer from -20, which is first, to 20", integer(-20, 20)
    )
    if texts:
        known = ", ".join((*View._fields, "niceness"))
        raise ValueError(f"There's no parameter {min(texts)[:60]!r}, only {known}")
    if math.prod(view.size) * view.samples**2 > MOST_SAMPLES:
        raise ValueError(
            f"The picture would have more than {MOST_SAMPLES:,} samples:"
            " ask for a smaller size, or for fewer samples"
        )
    return Order(view, niceness)


def enough(width: float) -> int:
    """
    Estimate how many iterations it takes to see what there is to be seen in a part of
    the plane of this width.
    """
    depth = max(0.0, math.log10(4 / width))
    return round(150 * math.pow(1 + depth, 1.25))


def refuse(request: Request, code: int, text: str) -> bytes:
    """Tell a client that it doesn't get anything, and why."""
    request.setResponseCode(code)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    return f"{text}.\n".encode()


def writePicture(
    strips: Iterator[bytes], file: ResponseFile, size: tuple[int, int]
) -> None:
    """Write a PNG file of strips, from the top. It blocks, so it's for a thread."""
    png = PNG(cast(BinaryIO, file), size)  # for it, that's file enough
    for strip in strips:
        png.write(strip)
        file.flush()
    png.close()
    file.flush()


@implementer(IPushProducer)
class ResponseFile:
    """
    The body of a response as a file to which a thread writes. Flushing it blocks while
    the client doesn't read.
    """

    def __init__(self, request: Request, reactor: Any) -> None:
        self._request = request
        self._reactor = reactor
        self._unflushed: list[bytes] = []  # only for the thread
        # These are for the thread and the reactor.
        self._chunks: deque[bytes] = deque()
        self._flowing = Event()
        self._flowing.set()
        self._gone = False
        request.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Write something, in the thread."""
        self._unflushed.append(data)

    def flush(self) -> None:
        """
        Send what has been written, in the thread. It's a C{BrokenPipeError} if the
        client has gone.
        """
        self._flowing.wait()
        if self._gone:
            raise BrokenPipeError("Nobody waits for the picture any longer")
        self._chunks.append(b"".join(self._unflushed))
        self._unflushed.clear()
        self._reactor.callFromThread(self._send)

    def finish(self) -> None:
        """End the response, in the reactor, when all has been written."""
        self._send()
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        """Implement C{IPushProducer.pauseProducing}: have the thread wait."""
        self._flowing.clear()

    def resumeProducing(self) -> None:
        """Implement C{IPushProducer.resumeProducing}: have the thread go on."""
        self._flowing.set()

    def stopProducing(self) -> None:
        """Implement C{IPushProducer.stopProducing}: have the thread fail."""
        self._gone = True
        self._flowing.set()

    def _send(self) -> None:
        """Send what the thread has flushed."""
        while self._chunks and not self._gone:
            self._request.write(self._chunks.popleft())


class Picture:
    """A picture on its way from the workers to a client."""

    def __init__(
        self,
        request: Request,
        order: Order,
        q: TaskQueue,
        tell: Callable[[float], None],
        reactor: Any,
    ) -> None:
        """
        Begin to answer a request. C{tell} is called with the share of the rows that
        have been rendered.
        """
        self._request = request
        self._order = order
        self._q = q
        self._tell = tell
        self._reactor = reactor
        self._rendered = 0
        self._gone = False
        self._file = ResponseFile(request, reactor)
        self._strips = OrderedItemProducer(ahead=STRIPS_AHEAD * max(1, len(q)))
        request.notifyFinish().addErrback(lambda _: self.drop())

    async def render(self) -> None:
        """Render the picture, and send it."""
        view = self._order.view
        columns, height = view.size
        rows = max(1, STRIP_SAMPLES // (columns * view.samples**2))
        # A small picture is cut into small strips: there's work for all workers.
        rows = min(rows, math.ceil(height / (2 * max(1, len(self._q)))))
        try:
            self._strips.start(writePicture, self._file, view.size)
            for top in range(0, height, rows):
                count = min(rows, height - top)
                if not await self._strips.ready():
                    break
                self._strips.produceItem(self._renderStrip, top, count)
            await self._strips.stop()
        except Exception:  # noqa: BLE001 - whatever it is, the client must be told
            if not self._gone:
                self._fail()
        else:
            if not self._gone:
                self._file.finish()

    def drop(self) -> None:
        """Render no more of it: nobody will see it."""
        self._gone = True
        self._file.stopProducing()
        self._strips.stopProducing()

    def _renderStrip(self, top: int, rows: int) -> Deferred[bytes]:
        """Have a worker render a strip."""
        order = self._order
        call = self._q.call(renderStrip, order.view, top, rows, niceness=order.niceness)

        def leave(d: Deferred[bytes]) -> None:
            call.addTimeout(GRACE, self._reactor, lambda result, seconds: None)

        def passOn(result: bytes | Failure) -> None:
            # If it has been left, nobody wants to know what has become of it.
            if strip.called:
                return
            if isinstance(result, Failure):
                strip.errback(result)
            else:
                strip.callback(result)

        strip: Deferred[bytes] = Deferred(leave)
        call.addCallback(self._count, rows)
        call.addBoth(passOn)
        return strip

    def _count(self, strip: bytes, rows: int) -> bytes:
        """Count the rows of a strip."""
        self._rendered += rows
        self._tell(self._rendered / self._order.view.size[1])
        return strip

    def _fail(self) -> None:
        """Tell the client that there'll be no picture, or no more of it."""
        log.failure("A picture can't be rendered")
        self._file.stopProducing()
        self._request.unregisterProducer()
        if self._request.startedWriting:
            # An end in order would make it look complete.
            cast(ITCPTransport, self._request.transport).abortConnection()
        else:
            text = "The picture can't be rendered"
            self._request.write(refuse(self._request, 500, text))
            self._request.finish()


class Pictures(Resource):
    """
    All pictures that can be asked for.

    Those that are on their way are in C{running}, each with a Deferred that fires with
    C{None} when it has come to its end, whichever that is.
    """

    isLeaf = True

    def __init__(self, q: TaskQueue, progress: Progress, reactor: Any) -> None:
        super().__init__()
        self.running: dict[Picture, Deferred[Any]] = {}
        self._q = q
        self._progress = progress
        self._reactor = reactor

    def render_GET(self, request: Request) -> bytes | int:
        """Send a picture."""
        try:
            order = readOrder(request.args)
        except ValueError as error:
            return refuse(request, 400, str(error))
        if len(self.running) >= MOST_PICTURES or not self._q.isRunning():
            request.setHeader("Retry-After", "5")
            return refuse(request, 503, "Too much is being rendered, try again later")
        request.setHeader("Content-Type", "image/png")
        request.setHeader("Cache-Control", "max-age=3600")
        if request.method == b"HEAD":
            return b""
        tell = self._progress.teller(order)
        picture = Picture(request, order, self._q, tell, self._reactor)
        # It isn't at its end yet: a thread has to come to its own.
        d = self.running[picture] = Deferred.fromCoroutine(picture.render())
        d.addBoth(self._ended, picture)
        return NOT_DONE_YET

    def drop(self) -> Deferred[Any]:
        """Render nothing more. Fires when all pictures have come to their end."""
        pictures = dict(self.running)
        for picture in pictures:
            picture.drop()
        return DeferredList(list(pictures.values()))

    def _ended(self, _: None, picture: Picture) -> None:
        """Note that a picture has come to its end."""
        del self.running[picture]


class Progress(Resource):
    """
    Streams of events that tell how much of a picture is done. One asks for them with
    the parameters of the picture.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[Order, set[Request]] = {}

    def render_GET(self, request: Request) -> bytes | int:
        """Begin a stream of events."""
        try:
            order = readOrder(request.args)
        except ValueError as error:
            return refuse(request, 400, str(error))
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        if request.method == b"HEAD":
            return b""
        request.write(b": here it comes\n\n")
        self._streams.setdefault(order, set()).add(request)
        request.notifyFinish().addErrback(lambda _: self._end(order, request))
        return NOT_DONE_YET

    def teller(self, order: Order) -> Callable[[float], None]:
        """
        Make what tells those who want to know about a picture the share that is done.
        """
        last = 0

        def tell(share: float) -> None:
            nonlocal last
            percent = math.floor(100 * share)
            if percent > last:
                last = percent
                event = f"data: {json.dumps(percent)}\n\n".encode()
                for request in self._streams.get(order, ()):
                    request.write(event)

        return tell

    def _end(self, order: Order, request: Request) -> None:
        """Forget a client that has gone."""
        self._streams[order].discard(request)
        if not self._streams[order]:
            del self._streams[order]


class Page(Resource):
    """The page."""

    def __init__(self) -> None:
        super().__init__()
        self._text = Path(__file__).with_suffix(".html").read_bytes()

    def render_GET(self, request: Request) -> bytes:
        """Send it."""
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Cache-Control", "no-cache")
        request.setHeader("X-Content-Type-Options", "nosniff")
        return self._text


class WebSite(Site):
    """The web site."""

    def __init__(self, q: TaskQueue, reactor: Any) -> None:
        root = Resource()
        super().__init__(root, reactor=reactor)
        progress = Progress()
        self.pictures = Pictures(q, progress, reactor)
        root.putChild(b"", Page())
        root.putChild(b"picture.png", self.pictures)
        root.putChild(b"progress", progress)


async def main(
    reactor: Any,
    options: argparse.Namespace,
    makeSite: Callable[[TaskQueue, Any], WebSite] = WebSite,
) -> None:
    """Serve the web site until Ctrl-C is pressed."""
    q = ProcessQueue(options.workers)
    site = makeSite(q, reactor)
    try:
        port = reactor.listenTCP(options.port, site, interface=options.host)
    except CannotListenError as error:
        await q.shutdown()
        raise SystemExit(f"{error}") from None

    async def stop() -> None:
        """Shut everything down."""
        await port.stopListening()
        await site.pictures.drop()
        await q.shutdown(timeout=0)

    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(stop())
    )
    host = "localhost" if options.host in ("127.0.0.1", "0.0.0.0") else options.host
    print(f"http://{host}:{port.getHost().port}/", flush=True)
    await Deferred()


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        if (number := int(text)) < 1:
            raise ValueError
        return number

    def port(text: str) -> int:
        if not 0 <= (number := int(text)) < 65_536:
            raise ValueError
        return number

    parser = argparse.ArgumentParser(description="Serve the Mandelbrot set.")
    add = parser.add_argument
    add(
        "--host", default="127.0.0.1", metavar="IP", help="where to listen: %(default)s"
    )
    add("--port", type=port, default=8080, metavar="N", help="0 for any: %(default)s")
    add("--workers", type=count, metavar="N", help="one for each core")
    return parser.parse_args(argv)


if __name__ == "__main__":
    react(main, [parse(sys.argv[1:])])
