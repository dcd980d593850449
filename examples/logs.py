#!/usr/bin/env python3
"""
Summarise web logs, parsing several files at a time in child processes.

Each file is one call of a generator. It runs in a child, and what it yields streams
back to a consumer here, no faster than that takes it: however large the files are, only
a few batches of records are ever in memory.

    python examples/makelog.py --lines 200000 logs/monday.log logs/tuesday.log.gz
    python examples/logs.py logs
    python examples/logs.py --json logs/monday.log logs/tuesday.log.gz
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache, partial
from io import BufferedIOBase
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from twisted.internet.defer import DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import react
from zope.interface import implementer

from asynqueue import ProcessQueue
from asynqueue.errors import AsynQueueError

#: So many lines come back at a time. What sending them costs is then little for each,
#: and the reactor is free again after few milliseconds.
BATCH_LINES = 5_000

#: What is longer isn't a line of a log. It's read in pieces, in case it never ends.
LONGEST_LINE = 65_536

#: The table has so many hours, JSON has all.
HOURS_SHOWN = 24

#: What is raised if a file, or what is compressed in it, can't be read.
UNREADABLE = (OSError, EOFError, zlib.error)

#: A line in Common or Combined Log Format.
LINE = re.compile(
    rb"(?P<host>[\w.:-]+) \S+ [^\[\n]+ "
    rb"\[(?P<hour>\d\d/\w{3}/\d{4}:\d\d):\d\d:\d\d [+-]\d{4}\] "
    rb'"(?:[^"\\\n]|\\.)*" (?P<status>[1-5]\d\d) (?P<size>\d{1,18}|-)(?: .*)?\r?\n?'
)

# fmt: off
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun",
          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# fmt: on


# What the workers do.


class Batch(NamedTuple):
    """
    Records of some lines, by column: that's smaller to send, and faster to count.

    @ivar hosts: Who asked.

    @ivar hours: When, in the log's own time zone, to the hour.

    @ivar statuses: The status of the response.

    @ivar sizes: Its bytes.

    @ivar malformed: Number and beginning of each line that has no record.
    """

    hosts: list[str]
    hours: list[str]
    statuses: list[int]
    sizes: list[int]
    malformed: list[tuple[int, str]]


def parse(path: str) -> Iterator[Batch]:
    """Parse a log, plain or gzip."""
    batch = Batch([], [], [], [], [])
    with openLog(path) as file:
        lines = iter(partial(file.readline, LONGEST_LINE), b"")
        try:
            for number, line in enumerate(lines, start=1):
                match = LINE.fullmatch(line)
                hour = match and hourOf(match["hour"])
                if match and hour:
                    # Equal strings become one object, which is sent only once.
                    batch.hosts.append(sys.intern(match["host"].decode()))
                    batch.hours.append(hour)
                    batch.statuses.append(int(match["status"]))
                    size = match["size"]
                    batch.sizes.append(0 if size == b"-" else int(size))
                elif not line.isspace():
                    text = line[:100].rstrip().decode(errors="replace")
                    batch.malformed.append((number, text))
                if not number % BATCH_LINES:
                    yield batch
                    batch = Batch([], [], [], [], [])
        except UNREADABLE:
            # Damaged somewhere: what came before it is good.
            yield batch
            raise
    yield batch


def openLog(path: str) -> BufferedIOBase:
    """
    Open a file, which is found to be compressed by its content, whatever its name.
    """
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else open(path, "rb")


@lru_cache
def hourOf(text: bytes) -> str | None:
    """
    Bring an hour as logs have it, C{25/Nov/2026:13}, into the form that sorts,
    C{2026-11-25 13:00}. C{None} if there's no such hour.
    """
    day, month, year, hour = re.split("[/:]", text.decode())
    try:
        when = datetime(int(year), MONTHS.index(month) + 1, int(day), int(hour))
    except ValueError:
        return None
    return f"{when:%Y-%m-%d %H}:00"


# What remains here.


@implementer(IConsumer)
class LogFile:
    """
    A file whose records come from a worker, and are counted.

    @ivar path: Its path.

    @ivar lines: How many lines have come, blank ones left out.

    @ivar malformed: How many of them have no record.

    @ivar example: The first of those.

    @ivar problem: Why the file could not be read, or not to its end.
    """

    def __init__(self, path: str, summary: Summary) -> None:
        self.path = path
        self.lines = 0
        self.malformed = 0
        self.example: str | None = None
        self.problem: str | None = None
        self._summary = summary

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Implement C{IConsumer.registerProducer}. A consumer that can't keep up would
        call the producer's C{pauseProducing}; this one always can.
        """

    def unregisterProducer(self) -> None:
        """Implement C{IConsumer.unregisterProducer}."""

    def write(self, batch: Any) -> None:
        """
        Implement C{IConsumer.write}: count a L{Batch}, as the worker's generator has
        yielded it.
        """
        self.lines += len(batch.hosts) + len(batch.malformed)
        self.malformed += len(batch.malformed)
        if batch.malformed and self.example is None:
            number, text = batch.malformed[0]
            self.example = f"line {number}: {text!a}"
        self._summary.add(batch)


class Summary:
    """What is counted over all files."""

    def __init__(self) -> None:
        self.files: list[LogFile] = []
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.hours: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Count the records of a batch."""
        self.requests.update(batch.hosts)
        self.statuses.update(batch.statuses)
        self.hours.update(batch.hours)
        for host, size in zip(batch.hosts, batch.sizes, strict=True):
            self.bytes[host] += size
        self.errors.update(
            hour
            for hour, status in zip(batch.hours, batch.statuses, strict=True)
            if status >= 400
        )

    def asDict(self, top: int) -> dict[str, Any]:
        """Gather the results, with so many hosts, as what can be printed as JSON."""
        # Files come in any order. Results don't.
        ranked = sorted(self.requests.items(), key=lambda item: (-item[1], item[0]))
        return {
            "files": [
                {
                    "path": file.path,
                    "lines": file.lines,
                    "malformed": file.malformed,
                    "example": file.example,
                    "problem": file.problem,
                }
                for file in sorted(self.files, key=lambda file: file.path)
            ],
            "lines": sum(file.lines for file in self.files),
            "malformed": sum(file.malformed for file in self.files),
            "requests": self.requests.total(),
            "bytes": self.bytes.total(),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "hosts": [
                {"host": host, "requests": n, "bytes": self.bytes[host]}
                for host, n in ranked[:top]
            ],
            "hours": [
                {"hour": hour, "requests": n, "errors": self.errors[hour]}
                for hour, n in sorted(self.hours.items())
            ],
        }


def table(results: dict[str, Any]) -> Iterator[str]:
    """Lay out in lines what L{Summary.asDict} returns."""
    yield f"{results['requests']:>15,} requests"
    yield f"{results['bytes']:>15,} bytes"
    yield f"{results['malformed']:>15,} malformed lines"
    yield f"\n{'requests':>15} status"
    for status, n in results["statuses"].items():
        yield f"{n:>15,} {status}"
    yield f"\n{'requests':>15} {'bytes':>18} host"
    for row in results["hosts"]:
        yield f"{row['requests']:>15,} {row['bytes']:>18,} {row['host']}"
    worst = sorted(results["hours"], key=lambda row: -row["errors"])[:HOURS_SHOWN]
    left = len(results["hours"]) - len(worst)
    title = f"hour ({left:,} with fewer errors left out)" if left else "hour"
    yield f"\n{'requests':>15} {'errors':>9} {title}"
    for row in sorted(worst, key=lambda row: row["hour"]):
        bar = "#" * (30 * row["errors"] // max(1, worst[0]["errors"]))
        line = f"{row['requests']:>15,} {row['errors']:>9,} {row['hour']} {bar}"
        yield line.rstrip()
    for file in results["files"]:
        if file["malformed"]:
            which = f"{file['malformed']:,} malformed, {file['example']}"
            yield f"\n{file['path']}: {which}"
        if file["problem"]:
            yield f"\n{file['path']}: {file['problem']}"


async def read(q: ProcessQueue, path: str, summary: Summary) -> None:
    """
    Have a worker parse a file. If it can't be read, or not to its end, that is noted.
    """
    file = LogFile(path, summary)
    summary.files.append(file)
    try:
        await q.call(parse, path, consumer=file)
    except (*UNREADABLE, AsynQueueError) as error:
        # The child's exceptions arrive as what they were there.
        file.problem = f"{type(error).__name__}: {error}"


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    start = perf_counter()
    paths = findLogs(options.paths)
    if not paths:
        raise SystemExit(f"No files are in {', '.join(options.paths)}.")
    summary = Summary()
    q = ProcessQueue(options.workers)
    # On Ctrl-C the reactor shuts down, which waits for this. The calls of files that
    # are being parsed fail at once then, as do those that are still queued.
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=0)
    # A child can advance several iterations in turns. With two for each, it has another
    # when one ends; with all, all files would be open at the same time.
    turns = DeferredSemaphore(2 * len(q))
    await gatherResults([turns.run(read, q, path, summary) for path in paths])
    interrupted = not q.isRunning()
    await q.shutdown()
    if interrupted:
        print("\nInterrupted.", file=sys.stderr)
        raise SystemExit(130)
    seconds = perf_counter() - start
    results = summary.asDict(options.top)
    # End without a word if nobody reads the output any longer, as it is with "| head".
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print("\n".join(table(results)))
    count, speed = results["lines"], results["lines"] / seconds
    print(f"\n{count:,} lines, {speed:,.0f} lines/s", file=sys.stderr)
    if all(file.problem and not file.lines for file in summary.files):
        raise SystemExit("None of the files could be read.")


def findLogs(paths: list[str]) -> list[str]:
    """
    Find the files that are meant by paths of files, and of folders with files at any
    depth. The largest is the first, so that no worker begins with it when all others
    are done.
    """
    files: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            files.update(file for file in path.rglob("*") if file.is_file())
        else:
            # If there's no such file, the worker finds out.
            files.add(path)

    def size(file: Path) -> int:
        return file.stat().st_size if file.exists() else 0

    return [str(file) for file in sorted(files, key=size, reverse=True)]


def parseOptions(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        if (number := int(text)) < 1:
            raise ValueError
        return number

    parser = argparse.ArgumentParser(description="Summarise web logs.")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a log, or a folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--top", type=count, default=10, metavar="N", help="hosts: 10")
    parser.add_argument("--workers", type=count, metavar="N", help="one for each core")
    return parser.parse_args(argv)


# The children import this file, too, to find what they are to call.
if __name__ == "__main__":
    react(main, [parseOptions(sys.argv[1:])])
