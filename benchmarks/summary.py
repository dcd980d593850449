"""
Medians, spreads and ratios of what has been measured.
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from .catalogue import MEASURES
from .contenders import CONTENDERS, OURS
from .harness import Outcome

__all__ = ["Row", "summarize"]

#: The outcomes of each round, by measure and contender.
Outcomes = dict[tuple[str, str], list[Outcome]]

#: A line of the results, as it is in JSON.
Row = dict[str, Any]


def summarize(outcomes: Outcomes) -> list[Row]:
    """
    Make rows of outcomes, one for each figure of each contender.

    @param outcomes: The outcomes.

    @return: The rows, with C{ratio} how many times as good as the contender this
        library is, C{None} where either has no figure.
    """
    rows = []
    for name, measure in MEASURES.items():
        for key in measure.figures:
            own = _row(name, key, OURS, outcomes.get((name, OURS), []))
            for contender in measure.contenders:
                taken = outcomes.get((name, contender))
                if taken:
                    row = _row(name, key, contender, taken)
                    row["ratio"] = _ratio(row, own)
                    rows.append(row)
    return rows


def _row(name: str, key: str, contender: str, outcomes: list[Outcome]) -> Row:
    """
    Make a row.

    @param name: The name of the measure.

    @param key: The name of the figure.

    @param contender: The name of the contender.

    @param outcomes: Its outcomes.

    @return: The row.
    """
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
        "notes": list(Counter(o.note for o in outcomes if o.note)),
    }


def _ratio(row: Row, own: Row) -> float | None:
    """
    Compare a contender with this library.

    @param row: The contender's row.

    @param own: This library's row.

    @return: How many times as good as the contender this library is, C{None} if that
        can't be said.
    """
    theirs, ours = row["median"], own["median"]
    if not theirs or not ours:
        return None
    ratio: float = ours / theirs if row["more"] else theirs / ours
    return ratio
