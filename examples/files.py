#!/usr/bin/env python3
"""
Count the values of a field in a large gzip file, parsing it while it's unpacked.

    python examples/makelog.py --lines 1000000 access.log.gz
    python examples/files.py access.log.gz --field 7
    python examples/files.py measurements.csv.gz --delimiter , --field 3

What unpacks wants a file that it can write to, and blocks while it writes. What parses,
C{csv} of the standard library, wants an iterator, and blocks while it waits for a line.
Neither knows of the other, nor of Twisted. A L{Filerator} is what each of them wants:
both run at the same time, each in a thread, and neither gets far ahead of the other. So
memory stays small however large the file is, and the reactor stays free.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import resource
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from asynqueue.threads import Filerator

#: So many bytes are unpacked at a time. As many pieces as a Filerator lets be on the
#: way are a few megabytes at most.
PIECE = 262_144

#: What is longer isn't a line. It isn't gathered, in case it never ends.
LONGEST_LINE = 1_000_000

#: What is raised if a file, or what is compressed in it, can't be read.
UNREADABLE = (OSError, EOFError, zlib.error)


def unpack(path: str, file: Filerator) -> None:
    """Unpack a gzip file into another, which is closed at the end, come what may."""
    with file, gzip.open(path) as packed:
        shutil.copyfileobj(packed, file, PIECE)


class Summary(NamedTuple):
    """
    What is in a file.

    @ivar rows: How many rows.

    @ivar bytes: How many bytes.

    @ivar short: How many rows don't have the field.

    @ivar values: How often each value of the field occurs.
    """

    rows: int
    bytes: int
    short: int
    values: Counter[str]


def parse(pieces: Iterable[bytes], delimiter: str, field: int) -> Summary:
    """
    Parse what is in a file, in pieces of any length, and count the values of a field,
    numbered from 1. What can't be parsed is a C{csv.Error}.
    """
    rows = size = short = 0
    values: Counter[str] = Counter()

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            size += len(piece)
            yield piece

    lines = linesOf(counted())
    for row in csv.reader(lines, delimiter=delimiter, escapechar="\\"):
        rows += 1
        if len(row) < field:
            short += 1
        else:
            values[row[field - 1]] += 1
    return Summary(rows, size, short, values)


def linesOf(pieces: Iterable[bytes]) -> Iterator[str]:
    """
    Cut what is in a file, in pieces of any length, into lines. One that is too long is
    a C{csv.Error}.
    """
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield f"{line.decode(errors='replace')}\n"
        if len(rest) > LONGEST_LINE:
            raise csv.Error(f"a line is longer than {LONGEST_LINE:,} bytes")
    if rest:
        yield rest.decode(errors="replace")


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    # Both need a thread at the same time, so it isn't left to others whether two are
    # free.
    file = Filerator(maxThreads=2)
    done: Deferred[None] = Deferred()
    interrupted = []

    def interrupt() -> Deferred[None]:
        """Let the parser come to its end, after what is on the way."""
        interrupted.append(True)
        file.stop()
        return done

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    # From when it runs, which is after this, Ctrl-C is the reactor's.
    await deferLater(reactor, 0)
    try:
        await count(file, options, interrupted)
    finally:
        done.callback(None)


async def count(
    file: Filerator, options: argparse.Namespace, interrupted: list[bool]
) -> None:
    """
    Unpack the file, parse it, and print what was found. It's a C{SystemExit} if Ctrl-C
    was pressed, or the file can't be read to its end.
    """
    start = perf_counter()
    problems: list[BaseException] = []
    unpacking = file.deferToThreadInPool(unpack, options.path, file)
    unpacking.addErrback(lambda failure: problems.append(failure.value))
    try:
        summary = await file.deferToThreadInPool(
            parse, file, options.delimiter, options.field
        )
    except csv.Error as error:
        raise SystemExit(f"{options.path} can't be parsed: {error}") from None
    finally:
        file.stop()  # else what unpacks might wait for ever for a parser that's gone
    if interrupted:
        print("\nInterrupted.", file=sys.stderr)
        raise SystemExit(130)
    await unpacking
    seconds = perf_counter() - start
    for value, number in summary.values.most_common(options.top):
        print(f"{number:>15,} {value!a:.100}")
    if summary.rows or not problems:
        report(summary, seconds)
    for problem in problems:
        if not isinstance(problem, UNREADABLE):
            raise problem
        kind = type(problem).__name__
        raise SystemExit(f"{options.path} can't be read to its end: {kind}: {problem}")


def peakMegabytes() -> int:
    """Tell how many megabytes this process has had in use at most."""
    try:
        # What getrusage tells may be of the program that has started this one.
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) // 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


def report(summary: Summary, seconds: float) -> None:
    """Tell how it went."""
    peak = peakMegabytes()
    different = len(summary.values)
    print(
        f"\n{summary.rows:,} rows, {summary.short:,} of them without the field, which"
        f" has {different:,} different values elsewhere\n"
        f"{summary.bytes:,} bytes unpacked and parsed in {seconds:.2f} s,"
        f" with {peak} MB of memory at most",
        file=sys.stderr,
    )


def parseOptions(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""

    def count(text: str) -> int:
        if (number := int(text)) < 1:
            raise ValueError
        return number

    def character(text: str) -> str:
        if len(text) != 1 or text in '"\\\r\n':
            raise ValueError
        return text

    parser = argparse.ArgumentParser(description="Count the values of a field.")
    add = parser.add_argument
    add("path", metavar="FILE", help="a gzip file of lines")
    add("--field", type=count, default=1, metavar="N", help="its number: %(default)s")
    add(
        "--delimiter",
        type=character,
        default=" ",
        metavar="C",
        help="a space by default",
    )
    add("--top", type=count, default=10, metavar="N", help="values: %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    react(main, [parseOptions(sys.argv[1:])])
