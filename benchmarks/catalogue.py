"""What can be measured, by whom, and how much work it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .contenders import OURS, REFERENCE

_POOLS = (OURS, "cf", "pool", "loky", "mpire", "ampoule", REFERENCE)

_MEBI = 1 << 20


class Figure(NamedTuple):
    """
    A number that a measure yields.

    @ivar title: What it is.

    @ivar unit: Its unit.

    @ivar more: Whether more is better.
    """

    title: str
    unit: str
    more: bool = False


class Measure(NamedTuple):
    """
    Something to measure.

    @ivar module: The module that does, of C{benchmarks.measures}.

    @ivar title: What is measured.

    @ivar figures: The figures, by their names in the module.

    @ivar contenders: The names of those that take part.

    @ivar sizes: How much work there is.

    @ivar smoke: What of that is otherwise when it's only tried whether it works.

    @ivar floor: The name of the contender that is the floor.

    @ivar shown: The figures in the picture.

    @ivar limit: Seconds after which a contender is given up.
    """

    module: str
    title: str
    figures: Mapping[str, Figure]
    contenders: tuple[str, ...]
    sizes: Mapping[str, Any] = MappingProxyType({})
    smoke: Mapping[str, Any] = MappingProxyType({})
    floor: str = ""
    shown: tuple[str, ...] = ()
    limit: float = 60.0


def _payload(kind: str) -> Measure:
    """Describe the measure of large things."""
    return Measure(
        "payload",
        f"64 MiB {kind} to a child and back",
        {"rate": Figure("there and back", "MB/s", more=True)},
        (*_POOLS, "ray", "shm", "memcpy"),
        {"size": 64 * _MEBI, "trips": 3, "kind": kind},
        {"size": _MEBI, "trips": 1},
        "shm",
        ("rate",),
    )


MEASURES = {
    "floor": Measure(
        "floor",
        "The floor of the machine",
        {
            "roundTrip": Figure("blocking pipe pair, round trip", "µs"),
            "latency": Figure("bare reactor pipe, one call at a time", "µs"),
            "one": Figure("bare reactor pipe, one call ahead", "1/s", more=True),
            "many": Figure("bare reactor pipe, 64 calls ahead", "1/s", more=True),
            "stream": Figure("bare reactor pipe, items with credit", "1/s", more=True),
            "memcpy": Figure("memcpy", "MB/s", more=True),
            "shm": Figure("one copy through shared memory", "MB/s", more=True),
            "task": Figure("heapq + maybeDeferred, per task", "µs"),
        },
        ("machine",),
        {"calls": 5_000, "items": 20_000, "size": 64 * _MEBI},
        {"calls": 50, "items": 200, "size": _MEBI},
    ),
    "noop": Measure(
        "noop",
        "5,000 calls that do nothing, queued at once, 2 children",
        {"rate": Figure("calls", "1/s", more=True)},
        (*_POOLS, "bare", "pipe"),
        {"calls": 5_000},
        {"calls": 50},
        "bare",
        ("rate",),
    ),
    "single": Measure(
        "single",
        "One call at a time",
        {"median": Figure("median", "µs"), "p99": Figure("99 %", "µs")},
        (*_POOLS, "bare", "pipe"),
        {"calls": 2_000},
        {"calls": 20},
        "bare",
        ("median",),
    ),
    "mixed": Measure(
        "mixed",
        "1 µs and 100 ms calls in any order, 2 children",
        {"used": Figure("time the children work", "%", more=True)},
        _POOLS,
        {"short": 2_000, "long": 40, "seconds": 0.1},
        {"short": 20, "long": 4, "seconds": 0.01},
    ),
    "late": Measure(
        "late",
        "The end of a task of 1 s is noticed late",
        {"late": Figure("delay", "ms")},
        (*_POOLS, "bare", "pipe"),
        {"tasks": 3, "seconds": 1.0},
        {"tasks": 1, "seconds": 0.01},
        "bare",
        ("late",),
    ),
    "map": Measure(
        "mapping",
        "map of a function over 200,000 small numbers, 2 children",
        {"rate": Figure("items", "1/s", more=True)},
        (OURS, "cf", "pool", "loky", "mpire", "bare"),
        {"items": 200_000},
        {"items": 2_000},
        "bare",
        ("rate",),
    ),
    "payload-array": _payload("array"),
    "payload-bytes": _payload("bytes"),
    "stall": Measure(
        "stall",
        "Longest stall of the reactor while 200 MB come back",
        {"bytes": Figure("bytes", "ms"), "array": Figure("array", "ms")},
        (OURS, REFERENCE, "quiet"),
        {"size": 200_000_000},
        {"size": 2_000_000},
        "quiet",
        ("bytes", "array"),
    ),
    "stream": Measure(
        "stream",
        "20,000 items from a generator in a child, one by one",
        {"rate": Figure("items", "1/s", more=True)},
        (OURS, "consumer", "pool", "pool-100", "mpire", REFERENCE, "bare"),
        {"items": 20_000},
        {"items": 200},
        "bare",
        ("rate",),
    ),
    "items": Measure(
        "items",
        "Items of 8 MiB from a generator in a child; longest stall with 64 MiB",
        {
            "streamed": Figure("streamed", "MB/s", more=True),
            "returned": Figure("as results of calls", "MB/s", more=True),
            "stall": Figure("longest stall", "ms"),
        },
        (OURS,),
        {"size": 8 * _MEBI, "count": 16, "largest": 64 * _MEBI},
        {"size": _MEBI, "count": 2, "largest": 2 * _MEBI},
    ),
    "async": Measure(
        "inreactor",
        "A task that does nothing, run in the reactor, 20,000 queued at once",
        {"cost": Figure("cost per task", "µs")},
        (OURS, REFERENCE, "heap"),
        {"tasks": 20_000},
        {"tasks": 200},
        "heap",
        ("cost",),
    ),
    "monitor": Measure(
        "monitor",
        "Calls that do nothing, run in the reactor, with 50 pages of the monitor open",
        {"loss": Figure("of the throughput lost", "%")},
        (OURS,),
        {"pages": 50, "seconds": 2.0, "rounds": 5},
        {"pages": 2, "seconds": 0.01, "rounds": 1},
    ),
    "thread-single": Measure(
        "threads",
        "One call at a time in a thread",
        {"median": Figure("median", "µs"), "p99": Figure("99 %", "µs")},
        (OURS, REFERENCE, "deferToThread", "thread"),
        {"calls": 5_000, "how": "single"},
        {"calls": 20},
        "thread",
        ("median",),
    ),
    "thread-bulk": Measure(
        "threads",
        "20,000 calls in a thread, queued at once",
        {"rate": Figure("calls", "1/s", more=True)},
        (OURS, REFERENCE, "deferToThread", "thread"),
        {"calls": 20_000, "how": "bulk"},
        {"calls": 50},
        "thread",
        ("rate",),
    ),
    "wire-single": Measure(
        "wire",
        "One call at a time over a Unix socket",
        {"median": Figure("median", "µs"), "p99": Figure("99 %", "µs")},
        (OURS, "amp", "socket"),
        {"calls": 3_000},
        {"calls": 20},
        "socket",
        ("median",),
    ),
    "wire-bulk": Measure(
        "wire",
        "8 MiB result over a Unix socket",
        {"rate": Figure("rate", "MB/s", more=True)},
        (OURS, "amp-chunks", "socket"),
        {"size": 8 * _MEBI, "trips": 10},
        {"size": 200_000, "trips": 1},
        "socket",
        ("rate",),
    ),
    "cluster": Measure(
        "cluster",
        "Calls that do nothing, and 128 MiB there and back, on a cluster of Dask's",
        {
            "alone": Figure("calls, each alone", "1/s", more=True),
            "together": Figure("calls, bundled", "1/s", more=True),
            "array": Figure("array there and back", "MB/s", more=True),
        },
        (OURS, "dask"),
        {"calls": 1_000, "size": 128 * _MEBI, "trips": 3},
        {"calls": 20, "size": _MEBI, "trips": 1},
    ),
    "queued": Measure(
        "queued",
        "Tasks waiting: 1,000 and 1,000,000, run in the reactor",
        {
            "few": Figure("cost per task, of 1,000", "µs"),
            "many": Figure("cost per task, of 1,000,000", "µs"),
            "growth": Figure("growth of the cost", "times"),
            "bytes": Figure("memory per task", "bytes"),
            "stall": Figure("longest stall", "ms"),
            "collection": Figure("longest garbage collection", "ms"),
            "calm": Figure("longest stall, collecting seldom", "ms"),
        },
        (OURS, REFERENCE, "heap"),
        {"few": 1_000, "many": 1_000_000},
        {"few": 10, "many": 100},
        "heap",
        ("many",),
        limit=120.0,
    ),
    "idle": Measure(
        "idle",
        "The parent while its children work for 3 s; its reactor, idle for 1 s",
        {"cpu": Figure("processor time", "ms"), "wakeUps": Figure("wake-ups", "")},
        (*_POOLS, "bare", "pipe"),
        {"seconds": 3.0, "idle": 1.0},
        {"seconds": 0.02, "idle": 0.02},
        "bare",
        ("cpu",),
    ),
    "web": Measure(
        "web",
        "A page of Klein while all children compute",
        {"median": Figure("median", "ms"), "p99": Figure("99 %", "ms")},
        (OURS, "ampoule", "quiet"),
        {"requests": 1_000},
        {"requests": 10},
        "quiet",
        ("p99",),
    ),
    "start": Measure(
        "start",
        "First results of two new children",
        {"start": Figure("time", "ms")},
        (
            OURS,
            "cf",
            "cf-spawn",
            "cf-forkserver",
            "pool",
            "loky",
            "mpire",
            "ampoule",
            REFERENCE,
            "bare",
        ),
        floor="bare",
        shown=("start",),
    ),
    "import": Measure(
        "imports",
        "Import of the package with the names in its root",
        {
            "own": Figure("its own", "ms"),
            "others": Figure("of the packages that it needs", "ms"),
        },
        (OURS, REFERENCE),
        shown=("own",),
    ),
}


def choose(names: list[str]) -> list[str]:
    """
    Find the measures whose names begin so, in the order of the catalogue; all if
    nothing is said.
    """
    chosen = []
    for name in names:
        found = [name] if name in MEASURES else _beginning(f"{name}-")
        if not found:
            raise ValueError(f"There's no measure {name!r}, but {', '.join(MEASURES)}")
        chosen += found
    return [name for name in MEASURES if not names or name in chosen]


def _beginning(start: str) -> list[str]:
    """Find measures by the beginning of their names."""
    return [name for name in MEASURES if name.startswith(start)]
