"""The results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from .catalogue import MEASURES
from .contenders import CONTENDERS
from .summary import Row
from .wording import Group, grouped, number, remarks, spread, times, verdicts

#: Widths of the columns.
_WIDTHS = (46, 9, 19, 9, 9)


def table(rows: Iterable[Row]) -> str:
    """
    Make a table of the results: medians, the least and the most, how many times as good
    as the contender this library is, and how many times the floor each is. Floors are
    in brackets.
    """
    lines: list[str] = []
    last = ""
    for group in grouped(rows):
        if group.name != last:
            lines += ["", f"{group.name}: {MEASURES[group.name].title}"]
            last = group.name
        lines += _figure(group)
    return "\n".join(lines[1:])


def _figure(group: Group) -> list[str]:
    """Make the lines of a figure."""
    unit = f" [{group.figure.unit}]" if group.figure.unit else ""
    better = "more is better" if group.figure.more else "less is better"
    title = f"  {group.figure.title}{unit}, {better}"
    heads = ("least ... most", "ours is", "of floor")
    own = group.own or {}
    told = [
        f"    {kind}: {verdicts(own[kind])}"
        for kind in ("must", "aim")
        if own.get(kind)
    ]
    return [_line(title, "", *heads), *map(_row, group.rows), *told]


def _row(row: Row) -> str:
    """Make a line of a row."""
    title = CONTENDERS[row["contender"]].title
    name = f"    ({title})" if row["floor"] else f"    {title}"
    more = "; ".join(remarks(row))
    if row["median"] is None:
        return f"{name:<{_WIDTHS[0]}} {more}"
    ratios = times(row["ratio"]), times(row["floors"])
    line = _line(name, number(row["median"]), spread(row), *ratios)
    return f"{line}  {more}".rstrip()


def _line(*cells: str) -> str:
    """Put cells side by side, the first to the left, the others to the right."""
    first, *others = zip(cells, _WIDTHS, strict=True)
    text = f"{first[0]:<{first[1]}}"
    return " ".join([text, *(f"{cell:>{width}}" for cell, width in others)]).rstrip()
