"""Medians, spreads and ratios of what has been measured."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from .catalogue import MEASURES, Measure
from .contenders import BEFORE, CONTENDERS, OURS
from .harness import Outcome
from .targets import judge

#: The outcomes of each round, by measure and contender.
Outcomes = dict[tuple[str, str], list[Outcome]]

#: A line of the results, as it is in JSON.
Row = dict[str, Any]


def summarize(outcomes: Outcomes) -> list[Row]:
    """
    Make rows of outcomes, one for each figure of each contender that has it, or has
    been left out or failed.

    C{ratio} is how many times as good as the contender this library is, C{floors} how
    many times as bad as the floor the contender is, each C{None} where either has no
    figure. This library's rows have verdicts.
    """
    rows = []
    for name, measure in MEASURES.items():
        for key in measure.figures:
            group = {
                contender: _row(name, key, contender, outcomes[name, contender])
                for contender in _with(measure.contenders, BEFORE)
                if outcomes.get((name, contender))
            }
            _compare(measure, group)
            if OURS in group:
                medians = {who: row["median"] for who, row in group.items()}
                group[OURS] |= judge(name, key, medians, medians[OURS])
            rows += [row for row in group.values() if _hasSomething(row)]
    return rows


def _with(contenders: tuple[str, ...], before: str) -> list[str]:
    """Put this library as it was beside it as it is."""
    names = list(contenders)
    if OURS in names:
        names.insert(names.index(OURS) + 1, before)
    return names


def _hasSomething(row: Row) -> bool:
    """Tell whether there's something to say in a row."""
    return row["median"] is not None or bool(row["skip"] or row["errors"])


def _compare(measure: Measure, group: dict[str, Row]) -> None:
    """Add the ratios to the rows of a figure."""
    own = group.get(OURS, {}).get("median")
    floor = group.get(measure.floor, {}).get("median")
    for row in group.values():
        row["ratio"] = _ratio(row, own)
        row["floors"] = None if row["floor"] else _ratio(row, floor)


def _row(name: str, key: str, contender: str, outcomes: list[Outcome]) -> Row:
    """Make a row."""
    figure = MEASURES[name].figures[key]
    values = [o.figures[key] for o in outcomes if key in o.figures]
    return {
        "measure": name,
        "figure": key,
        "unit": figure.unit,
        "more": figure.more,
        "contender": contender,
        "floor": CONTENDERS[contender].floor,
        "rounds": len(outcomes),
        "values": values,
        "median": median(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
        "skip": next((o.skip for o in outcomes if o.skip), ""),
        "errors": [o.error for o in outcomes if o.error],
        "must": [],
        "aim": [],
        "notes": list(Counter(o.note for o in outcomes if o.note)),
    }


def _ratio(row: Row, other: float | None) -> float | None:
    """
    Tell how many times as good as the contender of a row another with a figure is,
    C{None} if that can't be said.
    """
    one: float | None = row["median"]
    if not one or not other:
        return None
    return other / one if row["more"] else one / other
