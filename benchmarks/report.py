"""
The results as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from .catalogue import MEASURES
from .contenders import CONTENDERS
from .summary import Row

__all__ = ["table"]

#: Widths of the columns.
_WIDTHS = (46, 9, 19, 9)


def table(rows: Iterable[Row]) -> str:
    """
    Make a table of the results: medians, the least and the most, and how many times as
    good as the contender this library is. Floors are in brackets.

    @param rows: The rows.

    @return: Text.
    """
    lines: list[str] = []
    for name, measure in groupby(rows, lambda row: str(row["measure"])):
        lines += ["", f"{name}: {MEASURES[name].title}"]
        for key, group in groupby(measure, lambda row: str(row["figure"])):
            figure = MEASURES[name].figures[key]
            unit = f" [{figure.unit}]" if figure.unit else ""
            better = "more is better" if figure.more else "less is better"
            title = f"  {figure.title}{unit}, {better}"
            lines.append(_line(title, "", "least ... most", "ours is"))
            lines += map(_row, group)
    return "\n".join(lines[1:])


def _row(row: Row) -> str:
    """
    Make a line of a row.

    @param row: The row.

    @return: The line.
    """
    title = CONTENDERS[row["contender"]].title
    name = f"    ({title})" if row["floor"] else f"    {title}"
    remarks = "; ".join(_remarks(row))
    if row["median"] is None:
        return f"{name:<{_WIDTHS[0]}} {remarks or '-'}"
    spread = f"{_number(row['least'])} ... {_number(row['most'])}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} x"
    line = _line(name, _number(row["median"]), spread, ratio)
    return f"{line}  {remarks}".rstrip()


def _remarks(row: Row) -> Iterator[str]:
    """
    Tell what there's to say about a row besides its figures.

    @param row: The row.

    @return: An iterator of texts.
    """
    if row["skip"]:
        yield f"left out: {row['skip']}"
    if row["errors"]:
        count = len(row["errors"])
        yield f"failed in {count} of {row['rounds']} rounds: {row['errors'][0]}"
    yield from row["notes"]


def _line(*cells: str) -> str:
    """
    Put cells side by side, the first to the left, the others to the right.

    @param cells: The cells.

    @return: The line.
    """
    first, *others = zip(cells, _WIDTHS, strict=True)
    text = f"{first[0]:<{first[1]}}"
    return " ".join([text, *(f"{cell:>{width}}" for cell, width in others)])


def _number(value: float) -> str:
    """
    Write a number with three digits that mean something.

    @param value: The number.

    @return: Text.
    """
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
