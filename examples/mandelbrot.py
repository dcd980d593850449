#!/usr/bin/env python3
"""
Render the Mandelbrot set to a PNG file, on all cores.

The picture is cut into strips. Each is a call that a child process runs; the strips are
written in order, as they come, while the reactor remains free for other things.

    python examples/mandelbrot.py
    python examples/mandelbrot.py --center -0.7436447,0.1318252 --width 0.0012 \\
        --iterations 3000 --output seahorses.png
    python examples/mandelbrot.py --compare

The extra C{asynqueue[examples]} has numpy, which it needs.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, BinaryIO

from fractal import View, renderStrip
from twisted.internet.task import react

from asynqueue import ProcessQueue, TaskQueue
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.null import NullQueue

#: A strip has about so many samples. It takes some 30 ms, so that what the call itself
#: costs doesn't matter, and there are enough strips for all workers to be busy until
#: the end.
STRIP_SAMPLES = 100_000

#: So many strips for each worker are queued, or wait for their turn to be written. More
#: would need more memory, fewer would let workers wait for a strip that takes long.
STRIPS_AHEAD = 8


class PNG:
    """A PNG file that is written as its rows come."""

    def __init__(self, file: BinaryIO, size: tuple[int, int]) -> None:
        self._file = file
        self._compressor = zlib.compressobj()
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))

    def write(self, lines: bytes) -> None:
        """Write rows."""
        self._chunk(b"IDAT", self._compressor.compress(lines))

    def close(self) -> None:
        """End the file."""
        self._chunk(b"IDAT", self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, data: bytes) -> None:
        """
        Write a chunk of the file, unless it would be an empty piece of the picture.
        """
        if data or kind != b"IDAT":
            check = zlib.crc32(kind + data)
            self._file.write(struct.pack(">I", len(data)) + kind + data)
            self._file.write(struct.pack(">I", check))


async def render(
    q: TaskQueue,
    view: View,
    file: BinaryIO,
    progress: Callable[[float], None],
    call: Callable[[View, int, int], Any] | None = None,
) -> None:
    """
    Render a picture in the workers of a queue, into a PNG file.

    C{progress} is called with the share of the rows that have been written. C{call} has
    rows rendered in the queue, by default as a call of C{renderStrip}.
    """
    call = call or partial(q.call, renderStrip)
    columns, height = view.size
    png = PNG(file, view.size)
    rows = max(1, STRIP_SAMPLES // (columns * view.samples**2))
    tops = deque(range(0, height, rows))
    window: deque[Any] = deque()
    ahead = STRIPS_AHEAD * len(q)
    try:
        while tops or window:
            # Bounded feeding: not all strips are queued at once, so that their rows
            # don't gather here if the first of them takes the longest.
            while tops and len(window) < ahead:
                top = tops.popleft()
                window.append(call(view, top, min(rows, height - top)))
            # Strips are ready in any order, and waited for in theirs.
            png.write(await window.popleft())
            progress(1 - (len(tops) + len(window)) * rows / height)
    finally:
        for d in window:
            d.addErrback(lambda _: None)  # Nobody will wait for it any longer.
    png.close()


async def timed(
    reactor: Any, q: TaskQueue, name: str, view: View, file: BinaryIO
) -> float:
    """
    Render a picture, print how fast that was, and shut down the queue. Returns the
    seconds that it took. It's a C{SystemExit} if Ctrl-C was pressed.
    """
    # On Ctrl-C the reactor shuts down, which waits for this. The calls of strips that
    # are being rendered fail at once then, as do those that are still queued.
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=0)
    start = perf_counter()
    try:
        await render(q, view, file, Progress(sys.stderr))
    except (QueueRunError, WorkerLost):
        if q.isRunning():
            raise
        print("\nInterrupted, no picture was written.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        await q.shutdown()
    seconds = perf_counter() - start
    pixels = math.prod(view.size)
    speed = pixels / seconds
    print(f"{name}: {pixels:,} pixels in {seconds:.2f} s, {speed:,.0f} pixels/s")
    return seconds


class Progress:
    """A progress bar, or a line now and then where it can't be drawn."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._drawn = file.isatty()
        self._step = 2 if self._drawn else 25
        self._next = self._step

    def __call__(self, share: float) -> None:
        """Show how much is done."""
        percent = math.floor(100 * min(share, 1))
        if percent < self._next:
            return
        self._next = percent - percent % self._step + self._step
        if self._drawn:
            bar = "#" * (percent // 2)
            text = f"\r[{bar:50}] {percent:3} %" if percent < 100 else "\r\x1b[K"
            self._file.write(text)
        else:
            self._file.write(f"{percent} %\n")
        self._file.flush()


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    view = View(
        options.size, options.center, options.width, options.iterations, options.samples
    )
    serial = io.BytesIO()
    # Nobody is to find half a picture under the name of the whole.
    part = f"{options.output}.part"
    try:
        with open(part, "w+b") as file:
            if options.compare:
                before = await timed(reactor, NullQueue(), "serial", view, serial)
            if options.serial:
                await timed(reactor, NullQueue(), "serial", view, file)
            else:
                q = ProcessQueue(options.workers)
                name = "1 worker" if len(q) == 1 else f"{len(q)} workers"
                after = await timed(reactor, q, name, view, file)
            if options.compare:
                file.seek(0)
                same = "" if file.read() == serial.getvalue() else "not "
                times = before / after
                print(f"speed-up: {times:.2f}, the pictures are {same}the same")
        os.replace(part, options.output)
    except OSError as error:
        raise SystemExit(f"The picture can't be written: {error}") from None
    finally:
        if os.path.exists(part):
            os.unlink(part)
    print(options.output)


def count(text: str) -> int:
    """Read a number of things."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def addWorkers(parser: argparse.ArgumentParser) -> None:
    """Add options about the workers to a command line."""
    parser.add_argument("--workers", type=count, metavar="N", help="one for each core")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--serial", action="store_true", help="without child processes")
    how.add_argument("--compare", action="store_true", help="both, for the speed-up")


def parse(
    argv: list[str],
    addMore: Callable[[argparse.ArgumentParser], None] = addWorkers,
) -> argparse.Namespace:
    """
    Read the command line. C{addMore} adds options besides those about the picture.
    """

    def size(text: str) -> tuple[int, int]:
        columns, height = map(count, text.split("x"))
        return columns, height

    def real(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError
        return number

    def length(text: str) -> float:
        if (number := real(text)) <= 0:
            raise ValueError
        return number

    def point(text: str) -> complex:
        x, y = map(real, text.split(","))
        return complex(x, y)

    parser = argparse.ArgumentParser(description="Render the Mandelbrot set to a PNG.")
    add = parser.add_argument
    add("--output", default="mandelbrot.png", metavar="FILE", help="%(default)s")
    add("--size", type=size, default="1500x1000", metavar="WxH", help="%(default)s")
    add("--center", type=point, default="-0.7,0", metavar="RE,IM", help="%(default)s")
    add("--width", type=length, default=3.5, metavar="W", help="%(default)s")
    add("--iterations", type=count, default=1000, metavar="N", help="%(default)s")
    add("--samples", type=count, default=4, metavar="N", help="squared, for a pixel: 4")
    addMore(parser)
    # The center may start with a minus, as an option does.
    for i in [i for i, text in enumerate(argv[:-1]) if text == "--center"][::-1]:
        argv[i : i + 2] = [f"--center={argv[i + 1]}"]
    return parser.parse_args(argv)


if __name__ == "__main__":
    react(main, [parse(sys.argv[1:])])
