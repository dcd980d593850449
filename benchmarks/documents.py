"""The results as tables for the documentation, in reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from .catalogue import MEASURES
from .contenders import CONTENDERS
from .machine import inWords
from .summary import Row
from .targets import Verdict
from .wording import (
    Group,
    bestPeer,
    grouped,
    isMain,
    number,
    quantity,
    remarks,
    spread,
    times,
    verdicts,
)

_NOTHING = "Nothing has been measured yet."

_HEADS = (
    "What",
    "asynqueue",
    "Best peer",
    "Times as good",
    "Times the floor",
    "Must",
    "Aim",
)


def rst(results: dict[str, Any]) -> str:
    """Make tables in reStructuredText of all results."""
    if not results["results"]:
        return f"{_NOTHING}\n"
    rows: Sequence[Row] = results["results"]
    overview = _listTable("", _HEADS, _overview(rows), [28, 14, 22, 10, 10, 8, 8])
    lines = [*_source(results), "", *overview]
    for group in grouped(rows):
        lines += ["", *_details(group)]
    return "\n".join(lines) + "\n"


def _source(results: dict[str, Any]) -> Iterator[str]:
    """Say where the results are from, in lines."""
    rounds = max(row["rounds"] for row in results["results"])
    if results["smoke"]:
        yield "These are of a trial with tiny numbers, and mean nothing."
    yield f"Medians of {rounds} interleaved rounds of"
    yield f"``{results['command']}``:"
    yield inWords(results["machine"])


def _overview(rows: Iterable[Row]) -> Iterator[list[str]]:
    """Make lines of what this library has reached, each of cells."""
    for group in grouped(rows):
        own = group.own
        if own is None or not isMain(group):
            continue
        what = f"{group.name}: {group.figure.title}"
        if own["median"] is None:
            yield [what, "; ".join(remarks(own)), *[""] * 5]
            continue
        peer, unit = bestPeer(group), group.figure.unit
        other = ratio = ""
        if peer is not None:
            title = CONTENDERS[peer["contender"]].title
            other = f"{title}: {quantity(peer['median'], unit)}"
            ratio = times(peer["ratio"])
        figure = quantity(own["median"], unit)
        met = [_met(own[kind]) for kind in ("must", "aim")]
        yield [what, figure, other, ratio, times(own["floors"]), *met]


def _met(given: list[Verdict]) -> str:
    """Say in short whether targets have been met."""
    if not given:
        return ""
    met = {verdict["met"] for verdict in given}
    if False in met:
        return "not met"
    return "not compared" if None in met else "met"


def _details(group: Group) -> Iterator[str]:
    """Make a table of all who have a figure."""
    better = "more is better" if group.figure.more else "less is better"
    title = f"{group.name}. {MEASURES[group.name].title}: {group.title}, {better}"
    if group.name == "floor":
        title = f"{group.name}. {group.title}"
    heads = ("Who", "Median", "Least ... most", "asynqueue is", "Times the floor")
    cells = [_cells(row) for row in group.rows]
    yield from _listTable(title, heads, cells, [36, 14, 24, 13, 13])
    own = group.own or {}
    for kind in ("must", "aim"):
        if own.get(kind):
            yield ""
            yield f"{kind.capitalize()}: {_escape(verdicts(own[kind]))}."


def _cells(row: Row) -> list[str]:
    """Make the cells of a row."""
    title = CONTENDERS[row["contender"]].title
    name = f"({title})" if row["floor"] else title
    more = "; ".join(remarks(row))
    if row["median"] is None:
        return [f"{name}: {more}", "", "", "", ""]
    ratios = [times(row["ratio"]), times(row["floors"])]
    name = f"{name}; {more}" if more else name
    return [name, number(row["median"]), spread(row), *ratios]


def _listTable(
    title: str,
    heads: Iterable[str],
    rows: Iterable[Sequence[str]],
    widths: Iterable[int],
) -> Iterator[str]:
    """Write a table."""
    yield f".. list-table:: {_escape(title)}".rstrip()
    yield "   :header-rows: 1"
    yield f"   :widths: {' '.join(map(str, widths))}"
    yield ""
    for cells in chain([heads], rows):
        for index, cell in enumerate(cells):
            mark = "* -" if index == 0 else "  -"
            yield f"   {mark} {_escape(cell)}".rstrip()


def _escape(text: str) -> str:
    """Write a text so that nothing in it is markup."""
    return re.sub(r"([\\*`_|<>])", r"\\\1", text)
