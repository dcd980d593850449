"""
The results as a picture: SVG, written without any library.

A panel for each figure, a bar for each contender. Bars begin at the best peer and go to
the right as far as a contender is better, to the left as far as it's worse, on a
logarithmic scale that is the same in all panels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10
from typing import Any, NamedTuple

from .catalogue import MEASURES
from .contenders import CONTENDERS
from .machine import inWords
from .summary import Row
from .targets import TIMES
from .wording import Group, bestPeer, grouped, number, short

__all__ = ["Bar", "Panel", "draw", "panels"]

#: The width of the picture, of a column, and of the space around them.
_WIDTH, _COLUMN, _MARGIN = 1080, 500, 24

#: Where in a column the names end, and the bars begin and end.
_NAMES, _LEFT, _RIGHT = 176, 186, 360

#: Where in a column the ratios and the figures end.
_RATIOS, _FIGURES = 414, 500

#: Heights: of what's above and below all panels, of a panel's head and foot, of a bar.
_TOP, _BOTTOM, _HEAD, _FOOT, _ROW = 124, 52, 44, 34, 19

#: The largest ratio that the scale may reach. Bars that go further are broken.
_FURTHEST = 100.0

_STYLE = """
  svg { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .page { fill: #ffffff; stroke: #d5dbe2 }
  text { fill: #27313c }
  .soft { fill: #5b6773 }
  .head { font-size: 13px; font-weight: 600 }
  .main { font-size: 21px; font-weight: 650 }
  .small { font-size: 10.5px }
  .own { fill: #1d5fc4; font-weight: 650 }
  .bad { fill: #b3261e }
  .line { stroke: #e4e8ed }
  .base { stroke: #5b6773 }
  .bar { fill: #a9b4c0 }
  .bar.own { fill: #2f73dd }
  .bar.floor { fill: none; stroke: #7b8794; stroke-dasharray: 3 2 }
  .whisker { stroke: #27313c; fill: none }
  .gap { stroke: #ffffff; stroke-width: 3; fill: none }
  .end { text-anchor: end }
  .middle { text-anchor: middle }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12171d; stroke: #303944 }
    text { fill: #dfe6ee }
    .soft { fill: #9fabb8 }
    .own { fill: #7db4ff }
    .bad { fill: #ff8f86 }
    .line { stroke: #29323c }
    .base { stroke: #9fabb8 }
    .bar { fill: #596675 }
    .bar.own { fill: #4d93f5 }
    .bar.floor { stroke: #8b97a5 }
    .whisker { stroke: #eef3f8 }
    .gap { stroke: #12171d }
  }
"""


class Bar(NamedTuple):
    """
    What is shown of a contender.

    @ivar title: Its name.

    @ivar kind: C{"own"}, C{"floor"}, or empty.

    @ivar ratio: How many times as good as the best peer it is, C{None} if it has
        failed.

    @ivar worst: The same of its worst round.

    @ivar best: The same of its best round.

    @ivar figure: The median, or what has gone wrong.
    """

    title: str
    kind: str
    ratio: float | None
    worst: float
    best: float
    figure: str


class Panel(NamedTuple):
    """
    What is shown of a figure.

    @ivar title: What is measured.

    @ivar note: What the figure is.

    @ivar bars: The contenders.
    """

    title: str
    note: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        """
        How much room it takes.
        """
        return _HEAD + _ROW * len(self.bars) + _FOOT


def panels(rows: Sequence[Row]) -> list[Panel]:
    """
    Find what is to be shown.

    @param rows: All rows.

    @return: The panels of the figures that somebody else has, too.
    """
    made = []
    for group in grouped(rows):
        base = bestPeer(group) or group.own
        if group.key in MEASURES[group.name].shown and base and base["median"]:
            note = f"{group.title}; {'more' if group.figure.more else 'less'} is better"
            if base is group.own:
                note += "; beside asynqueue itself, as no peer has a figure"
            bars = [*_bars(group, float(base["median"]))]
            bars.sort(key=_place)
            made.append(Panel(MEASURES[group.name].title, note, bars))
    return made


def _bars(group: Group, base: float) -> Iterator[Bar]:
    """
    Find the bars of a figure.

    @param group: Its results.

    @param base: The figure of the best peer.

    @return: An iterator of them. Who was left out has none.
    """
    for row in group.rows:
        contender = CONTENDERS[row["contender"]]
        kind = "own" if contender.own else "floor" if contender.floor else ""
        if row["median"] is not None:
            values = [_ratio(row[key], base, row["more"]) for key in _KEYS]
            figure = short(row["median"], group.figure.unit)
            ends = min(values), max(values)
            yield Bar(contender.title, kind, values[0], *ends, figure)
        elif row["errors"]:
            yield Bar(contender.title, kind, None, 1, 1, _failed(row))


def _place(bar: Bar) -> tuple[int, float]:
    """
    Tell where a bar comes: this library, then its peers, the best first, then floors.

    @param bar: The bar.

    @return: Something to sort by.
    """
    return ("own", "", "floor").index(bar.kind), -(bar.ratio or 0)


_KEYS = ("median", "least", "most")


def _failed(row: Row) -> str:
    """
    Say in short that somebody has failed.

    @param row: The row.

    @return: Text.
    """
    what, colon, _ = row["errors"][0].partition(":")
    return f"failed in {len(row['errors'])} of {row['rounds']} rounds" + (
        f" ({what})" if colon and len(what) < 14 else ""
    )


def _ratio(value: float, base: float, more: bool) -> float:
    """
    Compare a value with the best peer.

    @param value: The value.

    @param base: The best peer's.

    @param more: Whether more is better.

    @return: How many times as good it is. What is nothing at all is told apart from
        nothing by a millionth.
    """
    value = max(value, base * 1e-6)
    return value / base if more else base / value


def draw(results: dict[str, Any]) -> str:
    """
    Draw the picture.

    @param results: The results as in JSON.

    @return: SVG.
    """
    shown = panels(results["results"])
    left, right = _columns(shown)
    tallest = max(sum(p.height for p in column) for column in (left, right))
    height = _TOP + tallest + _BOTTOM
    scale = _Scale(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' role="img" aria-labelledby="title desc">',
        '<title id="title">asynqueue beside its peers</title>',
        f'<desc id="desc">{escape(_description(shown))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}"'
        f' height="{height - 1}" rx="10"/>',
        *_heading(),
    ]
    for x, column in ((_MARGIN, left), (_WIDTH - _MARGIN - _COLUMN, right)):
        y = _TOP
        for panel in column:
            parts.append(f'<g transform="translate({x} {y})">')
            parts += _panel(panel, scale)
            parts.append("</g>")
            y += panel.height
    parts += _footing(results, height)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


class _Scale:
    """
    Where ratios are, in a column.

    @ivar ticks: The ratios that are marked.

    @ivar between: Those of the small marks between them.
    """

    def __init__(self, shown: Sequence[Panel]) -> None:
        """
        Make a scale that has room for what is shown.

        @param shown: The panels.
        """
        bars = [bar for panel in shown for bar in panel.bars if bar.ratio is not None]
        self._low = self._end([1 / bar.worst for bar in bars])
        self._high = self._end([bar.best for bar in bars])
        decades = [10.0**n for n in range(-4, 5)]
        self.ticks = [tick for tick in decades if not self.beyond(tick)]
        finer = [n * tick for tick in decades for n in range(2, 10)]
        self.between = [tick for tick in finer if not self.beyond(tick)]

    def _end(self, ratios: list[float]) -> float:
        """
        Find out how far the scale goes to one side.

        @param ratios: The ratios.

        @return: A number of decades.
        """
        most = min(max(ratios, default=1.0), _FURTHEST)
        return max(0.5, -(-log10(max(most, 1.0)) * 4 // 1) / 4)

    def x(self, ratio: float) -> float:
        """
        Find the place of a ratio.

        @param ratio: It.

        @return: Its place, which is at an end of the scale if it's further away.
        """
        at = min(max(log10(ratio), -self._low), self._high)
        width = (_RIGHT - _LEFT) / (self._low + self._high)
        return _LEFT + (at + self._low) * width

    def beyond(self, ratio: float) -> bool:
        """
        Tell whether a ratio is further than the scale goes.

        @param ratio: It.

        @return: Whether it is.
        """
        return not -self._low <= log10(ratio) <= self._high


def _columns(shown: list[Panel]) -> tuple[list[Panel], list[Panel]]:
    """
    Put panels in two columns, in their order.

    @param shown: The panels.

    @return: The columns, of which none is much longer than the other.
    """

    def longer(count: int) -> int:
        """
        Tell how long the longer one is.
        """
        first, second = shown[:count], shown[count:]
        return max(sum(p.height for p in column) for column in (first, second))

    count = min(range(len(shown) + 1), key=longer)
    return shown[:count], shown[count:]


def _description(shown: Sequence[Panel]) -> str:
    """
    Say what the picture shows.

    @param shown: The panels.

    @return: Text.
    """
    said = [
        f"{panel.title} ({panel.note}): {bar.title} {bar.figure},"
        f" {number(bar.ratio)} times as good as the best peer."
        for panel in shown
        for bar in panel.bars
        if bar.kind == "own" and bar.ratio is not None
    ]
    return " ".join(said) or "Nothing has been measured yet."


def _heading() -> Iterator[str]:
    """
    Draw what is above the panels.

    @return: An iterator of elements.
    """
    yield _text(_MARGIN, 40, "asynqueue beside its peers", "main")
    yield _text(
        _MARGIN,
        62,
        "How many times as good as the best peer: to the right of the line is better,"
        " to the left is worse. Logarithmic scale.",
        "soft",
    )
    x = _MARGIN
    for kind, words, width in (
        ("own", "asynqueue", 116),
        ("", "peers", 90),
        ("floor", "floor: no more than what the machine or the reactor must do", 414),
    ):
        yield f'<rect class="bar {kind}" x="{x}.5" y="78.5" width="22" height="10"/>'
        yield _text(x + 30, 88, words, "soft")
        x += width
    yield f'<path class="whisker" d="M{x} 83.5h22m-22 -3v6m22 -6v6"/>'
    yield _text(x + 30, 88, "worst and best round", "soft")
    x += 174
    yield f'<rect class="bar" x="{x}" y="78" width="22" height="11"/>'
    yield f'<path class="gap" d="M{x + 14} 76l-4 15"/>'
    yield _text(x + 30, 88, "goes on beyond the scale", "soft")


def _footing(results: dict[str, Any], height: int) -> Iterator[str]:
    """
    Draw what is below the panels.

    @param results: The results.

    @param height: The height of the picture.

    @return: An iterator of elements.
    """
    if not results["results"]:
        yield _text(_MARGIN, height - 24, "Nothing has been measured yet.", "soft")
        return
    rounds = max(row["rounds"] for row in results["results"])
    said = f"Medians of {rounds} interleaved rounds: {results['command']}"
    yield _text(_MARGIN, height - 34, said, "soft small")
    yield _text(_MARGIN, height - 18, inWords(results["machine"]), "soft small")


def _panel(panel: Panel, scale: _Scale) -> Iterator[str]:
    """
    Draw a panel.

    @param panel: It.

    @param scale: Where ratios are.

    @return: An iterator of elements.
    """
    yield _text(0, 14, panel.title, "head")
    yield _text(0, 30, panel.note, "soft small")
    end = _HEAD + _ROW * len(panel.bars)
    small = "".join(f"M{scale.x(tick):.1f} {end + 2}v-3" for tick in scale.between)
    yield f'<path class="base" d="M{_LEFT} {end + 2}H{_RIGHT}{small}"/>'
    for tick in scale.ticks:
        x = round(scale.x(tick)) + 0.5
        kind = "base" if tick == 1 else "line"
        yield f'<path class="{kind}" d="M{x} {_HEAD - 4}V{end + 2}"/>'
        word = f"1/{1 / tick:.0f}" if tick < 1 else f"{tick:.0f} {TIMES}"
        yield _text(x, end + 16, word, "soft small middle")
    for index, bar in enumerate(panel.bars):
        yield from _bar(bar, scale, _HEAD + _ROW * index)


def _bar(bar: Bar, scale: _Scale, y: int) -> Iterator[str]:
    """
    Draw a bar, with its name and its figure.

    @param bar: It.

    @param scale: Where ratios are.

    @param y: Its upper end.

    @return: An iterator of elements.
    """
    middle = y + _ROW / 2
    text = "own" if bar.kind == "own" else "soft" if bar.kind == "floor" else ""
    yield _text(_NAMES, middle + 4, bar.title, f"{text} end")
    if bar.ratio is None:
        yield _text(_LEFT, middle + 4, bar.figure, "bad")
        return
    start, end = sorted((scale.x(1), scale.x(bar.ratio)))
    yield (
        f'<rect class="bar {bar.kind}" x="{start:.1f}" y="{y + 3.5}"'
        f' width="{max(end - start, 1):.1f}" height="{_ROW - 7}"/>'
    )
    if bar.worst < bar.best:
        low, high = scale.x(bar.worst), scale.x(bar.best)
        yield (
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}'
            f'M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"/>'
        )
    if scale.beyond(bar.ratio):
        x = scale.x(bar.ratio) + (-12 if bar.ratio > 1 else 12)
        yield f'<path class="gap" d="M{x + 2:.1f} {y + 1}l-4 {_ROW - 2}"/>'
    ratio = f"{number(bar.ratio)} {TIMES}"
    yield _text(_RATIOS, middle + 4, ratio, f"{text} end")
    yield _text(_FIGURES, middle + 4, bar.figure, f"{text} end")


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    """
    Draw text.

    @param x: Where it begins, or ends.

    @param y: Its base line.

    @param words: The text.

    @param kind: How it looks.

    @return: An element.
    """
    kind = f' class="{kind.strip()}"' if kind.strip() else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}>{escape(words)}</text>'
