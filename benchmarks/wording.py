"""How results are put in words, wherever they're shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from .catalogue import MEASURES, Figure
from .contenders import CONTENDERS
from .summary import Row
from .targets import TARGETS, TIMES, Verdict


class Group(NamedTuple):
    """
    The results of a figure.

    @ivar name: The name of the measure.

    @ivar figure: The figure.

    @ivar key: Its name.

    @ivar rows: The rows of the contenders, this library's first if it has one.
    """

    name: str
    key: str
    figure: Figure
    rows: list[Row]

    @property
    def title(self) -> str:
        """What the figure is, and in which unit."""
        unit = f", {self.figure.unit}" if self.figure.unit else ""
        return f"{self.figure.title}{unit}"

    @property
    def own(self) -> Row | None:
        """The row of this library, if it has one."""
        return next((r for r in self.rows if CONTENDERS[r["contender"]].own), None)


def grouped(rows: Iterable[Row]) -> Iterator[Group]:
    """Put the rows of a figure together."""
    for (name, key), group in groupby(rows, lambda r: (r["measure"], r["figure"])):
        yield Group(name, key, MEASURES[name].figures[key], list(group))


def isMain(group: Group) -> bool:
    """
    Tell whether a figure belongs into an overview: it's shown in the picture, or has a
    target.
    """
    target = (group.name, group.key) in TARGETS
    return target or group.key in MEASURES[group.name].shown


def bestPeer(group: Group) -> Row | None:
    """
    Find the row of the best of those that are neither this library nor a floor, C{None}
    if there's none that has a figure.
    """
    peers = [
        row
        for row in group.rows
        if not row["floor"]
        and not CONTENDERS[row["contender"]].own
        and row["median"] is not None
    ]
    best = max if group.figure.more else min
    return best(peers, key=lambda row: float(row["median"]), default=None)


def number(value: float) -> str:
    """Write a number with three digits that mean something."""
    if abs(value) >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit."""
    if unit.startswith("1/"):
        return f"{number(value)}{unit[1:]}"
    return f"{number(value)} {TIMES if unit == 'times' else unit}".rstrip()


def short(value: float, unit: str) -> str:
    """Write a number with its unit where there's little room."""
    for factor, letter in ((1e6, " M"), (1e3, " k")):
        if unit.startswith("1/") and value >= factor:
            return f"{number(value / factor)}{letter}{unit[1:]}"
    return quantity(value, unit)


def times(value: float | None) -> str:
    """Write a ratio."""
    return "" if value is None else f"{number(value)} {TIMES}"


def spread(row: Row) -> str:
    """Write the least and the most."""
    return f"{number(row['least'])} ... {number(row['most'])}"


def remarks(row: Row) -> Iterator[str]:
    """Tell what there's to say about a row besides its figures."""
    if row["skip"]:
        yield f"left out: {row['skip']}"
    if row["errors"]:
        count = len(row["errors"])
        yield f"failed in {count} of {row['rounds']} rounds: {row['errors'][0]}"
    yield from row["notes"]


def verdicts(given: list[Verdict]) -> str:
    """Tell which targets have been met."""
    said = {True: "met", False: "not met", None: "not compared"}
    return "; ".join(f"{one['text']}: {said[one['met']]}" for one in given)
