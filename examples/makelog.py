#!/usr/bin/env python3
"""
Make web logs of any size, as a server might have written them.

The same options make the same files. With C{--facts}, what is in them is printed as
JSON, which is what C{logs.py} should find.

    python examples/makelog.py --lines 1000000 access.log
    python examples/makelog.py --lines 50000 --seed 7 logs/mon.log logs/tue.log.gz
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import BinaryIO

# fmt: off
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun",
          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# fmt: on

#: What is asked for, how often, and how large it is, roughly.
PAGES = [
    ("GET /", 30, 9_000),
    ("GET /style.css", 25, 14_000),
    ("GET /app.js", 24, 88_000),
    ("GET /images/header.webp", 18, 120_000),
    ("GET /search?q=queue", 12, 6_000),
    ("GET /articles/{}", 40, 22_000),
    ("GET /feed.xml", 9, 31_000),
    ("POST /api/items", 8, 700),
    ("HEAD /health", 6, 0),
    ("GET /download/{}.zip", 1, 9_000_000),
    (r"GET /\"quoted\"", 1, 400),
]

#: How often which status is given, on a good and on a bad day.
STATUSES = [200, 204, 206, 301, 302, 304, 400, 401, 403, 404, 429, 500, 502, 503]
GOOD = [780, 10, 8, 15, 20, 110, 3, 5, 4, 35, 4, 3, 1, 2]
BAD = [520, 8, 5, 12, 15, 80, 4, 6, 5, 40, 15, 120, 90, 80]

AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0",
    "curl/8.14.1",
    "ExampleBot/2.1 (+https://example.com/bot)",
    "-",
]

#: Lines that a parser trips over: cut off, garbled, impossible, of another kind.
MALFORMED = [
    b"203.0.113.9 - - [12/Jan/2026:10:1\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xff\xfe\n",
    b'203.0.113.9 - - [42/Foo/2026:10:10:10 +0000] "GET / HTTP/1.1" 200 9\n',
    b'203.0.113.9 - - [12/Jan/2026:10:10:10 +0000] "GET / HTTP/1.1" OK 9\n',
    b"[error] worker process 4711 exited on signal 9\n",
]


def makeHosts(random: Random, count: int) -> list[str]:
    """
    Make so many addresses of clients, of the ranges that are set aside for
    documentation, and some names. Some may be equal.
    """
    kinds = [
        lambda: f"203.0.113.{random.randrange(256)}",
        lambda: f"198.51.100.{random.randrange(256)}",
        lambda: f"2001:db8::{random.randrange(65536):x}:{random.randrange(65536):x}",
        lambda: f"host-{random.randrange(10_000)}.example.net",
    ]
    return [random.choice(kinds)() for _ in range(count)]


class Log:
    """A log, made line by line, hour by hour, with counts of what is in it so far."""

    def __init__(self, random: Random, start: datetime) -> None:
        self.facts: dict[str, Counter[str]] = {
            name: Counter()
            for name in ("total", "statuses", "hosts", "hours", "errors")
        }
        self._random = random
        self._start = start

    def make(self, hours: int, lines: int, malformed: float) -> Iterator[bytes]:
        """
        Make the lines, of which a share is malformed. In one of the hours, the server
        has a bad time.
        """
        random = self._random
        hosts = makeHosts(random, 50 + math.isqrt(lines))
        # A few ask often, many now and then.
        ranks = list(accumulate(1 / rank for rank in range(1, len(hosts) + 1)))
        badHour = random.randrange(hours)
        # There's more to do by day than by night.
        begin = self._start.hour
        busy = [1.2 - math.cos((begin + h) * math.pi / 12) for h in range(hours)]
        until = [round(lines * share / sum(busy)) for share in accumulate(busy)]
        for h, (first, last) in enumerate(pairwise([0, *until])):
            n = last - first
            rows = zip(
                random.choices(hosts, cum_weights=ranks, k=n),
                random.choices(STATUSES, BAD if h == badHour else GOOD, k=n),
                random.choices(PAGES, [often for _, often, _ in PAGES], k=n),
                strict=True,
            )
            for i, (host, status, (request, _, typical)) in enumerate(rows):
                if random.random() < malformed:
                    self.facts["total"]["malformed"] += 1
                    yield random.choice(MALFORMED)
                else:
                    when = self._start + timedelta(hours=h, seconds=3600 * i / n)
                    size = round(typical * random.lognormvariate(0, 0.4))
                    size = size if status in (200, 206) else 0
                    self._count(host, status, size, when)
                    yield self._line(host, status, size, when, request)

    def _line(
        self, host: str, status: int, size: int, when: datetime, request: str
    ) -> bytes:
        """Write a line in Combined Log Format."""
        user = "alice" if request.startswith("POST") else "-"
        request = request.replace("{}", str(self._random.randrange(500)))
        return (
            f"{host} - {user} [{when:%d}/{MONTHS[when.month - 1]}/{when:%Y:%H:%M:%S}"
            f' +0000] "{request} HTTP/1.1" {status}'
            f' {size or "-"} "-" "{self._random.choice(AGENTS)}"\n'
        ).encode()

    def _count(self, host: str, status: int, size: int, when: datetime) -> None:
        """Count what is in a line."""
        hour = f"{when:%Y-%m-%d %H}:00"
        self.facts["total"].update(requests=1, bytes=size)
        self.facts["statuses"][str(status)] += 1
        self.facts["hosts"][host] += 1
        self.facts["hours"][hour] += 1
        self.facts["errors"][hour] += status >= 400


def openNew(path: Path) -> BinaryIO:
    """
    Open a file to be written, compressed if its name says so. Folders are made if there
    are none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        # Without the time in it, it's the same each time.
        return gzip.GzipFile(path, "wb", 6, mtime=0)  # type: ignore[return-value]
    return open(path, "wb")


def main(options: argparse.Namespace) -> None:
    """Make the files."""
    random = Random(options.seed)
    facts: dict[str, Counter[str]] = {}
    start = options.start
    for path in map(Path, options.paths):
        log = Log(random, start)
        try:
            with openNew(path) as file:
                for line in log.make(options.hours, options.lines, options.malformed):
                    file.write(line)
        except OSError as error:
            raise SystemExit(f"The log can't be written: {error}") from None
        start += timedelta(hours=options.hours)
        for name, counts in log.facts.items():
            facts.setdefault(name, Counter()).update(counts)
        print(f"{path}: {options.lines:,} lines", file=sys.stderr)
    if options.facts:
        print(json.dumps(facts, indent=2, sort_keys=True))


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        if (number := int(text)) < 1:
            raise ValueError
        return number

    def share(text: str) -> float:
        if not 0 <= (number := float(text)) <= 1:
            raise ValueError
        return number

    parser = argparse.ArgumentParser(description="Make web logs, plain or gzip.")
    add = parser.add_argument
    add("paths", nargs="+", metavar="FILE", help="gzip if its name ends in .gz")
    add("--lines", type=count, default=100_000, metavar="N", help="each: %(default)s")
    add("--seed", type=int, default=1, metavar="N", help="for other logs: %(default)s")
    add("--malformed", type=share, default=0.001, metavar="SHARE", help="%(default)s")
    add("--hours", type=count, default=24, metavar="N", help="each: %(default)s")
    add(
        "--start",
        type=datetime.fromisoformat,
        default="2026-11-23",
        metavar="DATE",
        help="of the first file; the others follow: %(default)s",
    )
    add("--facts", action="store_true", help="print what is in them, as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
