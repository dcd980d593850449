"""
The results as a picture: SVG, drawn by matplotlib.

A panel for each figure, a bar for each contender. Bars begin at the best peer and go to
the right as far as a contender is better, to the left as far as it's worse, on a
logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any, NamedTuple

from .catalogue import MEASURES
from .contenders import CONTENDERS
from .machine import inWords
from .summary import Row
from .targets import TIMES
from .wording import Group, bestPeer, grouped, number, short

#: Inches: the width of the picture, the height of a bar, of what else a panel has, and
#: of what is above and below all panels.
_WIDTH, _BAR, _PANEL, _ABOVE, _BELOW = 12.0, 0.22, 0.8, 1.2, 0.8

#: Bars go no further than so many times the best peer, to either side.
_FURTHEST = 100.0

#: The colours, by whether the page is dark: of the page, of text, and of the bars of
#: this library, of its peers, and of the floors' outlines.
_COLOURS = {
    False: ("#ffffff", "#27313c", "#2f73dd", "#a9b4c0", "#7b8794"),
    True: ("#12171d", "#dfe6ee", "#4d93f5", "#596675", "#8b97a5"),
}

_EXPLANATION = (
    "How many times as good as the best peer: right of the line is better, left is"
    " worse. Blue: asynqueue.\nDotted: floors, programs that do no more than the"
    " machine or the reactor must."
)


class Bar(NamedTuple):
    """
    What is shown of a contender.

    @ivar title: Its name.

    @ivar kind: C{"own"}, C{"floor"}, or empty.

    @ivar ratio: How many times as good as the best peer it is, C{None} if it has
        failed.

    @ivar figure: The median, or what has gone wrong.
    """

    title: str
    kind: str
    ratio: float | None
    figure: str


class Panel(NamedTuple):
    """
    What is shown of a figure: what is measured, what the figure is, the contenders.
    """

    title: str
    note: str
    bars: list[Bar]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Find what is to be shown: the figures that two peers at least have, too."""
    made = []
    for group in grouped(rows):
        best = bestPeer(group)
        if best and best["median"] and group.key in MEASURES[group.name].shown:
            note = f"{group.title}; {'more' if group.figure.more else 'less'} is better"
            bars = sorted(_bars(group, float(best["median"])), key=_place)
            if sum(not bar.kind for bar in bars) > 1:
                made.append(Panel(MEASURES[group.name].title, note, bars))
    return made


def _bars(group: Group, base: float) -> Iterator[Bar]:
    """Find the bars of a figure. Who was left out has none."""
    for row in group.rows:
        contender = CONTENDERS[row["contender"]]
        kind = "own" if contender.own else "floor" if contender.floor else ""
        if row["median"] is not None:
            # What is nothing at all is told apart from nothing by a millionth.
            value = max(row["median"], base * 1e-6)
            ratio = value / base if row["more"] else base / value
            figure = short(row["median"], group.figure.unit)
            yield Bar(contender.title, kind, ratio, figure)
        elif row["errors"]:
            failed = f"failed in {len(row['errors'])} of {row['rounds']} rounds"
            yield Bar(contender.title, kind, None, failed)


def _place(bar: Bar) -> tuple[int, float]:
    """
    Sort this library before its peers, the best first, and these before the floors.
    """
    return ("own", "", "floor").index(bar.kind), -(bar.ratio or 0)


def draw(results: dict[str, Any], dark: bool = False) -> str:
    """Draw the picture."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    page, text, *_ = _COLOURS[dark]
    style: Any = {
        "axes.edgecolor": text,
        "axes.labelcolor": text,
        "figure.facecolor": page,
        "axes.facecolor": page,
        "font.size": 9,
        "savefig.facecolor": page,
        "svg.fonttype": "none",
        "svg.hashsalt": "asynqueue",
        "text.color": text,
        "xtick.color": text,
        "ytick.color": text,
    }
    shown = panels(results["results"])
    pairs = [shown[i : i + 2] for i in range(0, len(shown), 2)]
    counts = [max(len(panel.bars) for panel in pair) for pair in pairs] or [1]
    height = _BAR * sum(counts) + _PANEL * len(counts) + _ABOVE + _BELOW
    with rc_context(style):
        figure = Figure((_WIDTH, height))
        title = f"asynqueue beside its peers\n{_EXPLANATION}"
        figure.suptitle(title, fontsize=10, y=1 - 0.1 / height)
        figure.supxlabel(_source(results), fontsize=8, y=0.1 / height)
        axes: Any = figure.subplots(
            *(len(counts), 2),
            squeeze=False,
            height_ratios=counts,
            gridspec_kw={
                "left": 0.19,
                "right": 0.88,
                "top": 1 - _ABOVE / height,
                "bottom": _BELOW / height,
                "wspace": 1.2,
                "hspace": _PANEL / (_BAR * sum(counts) / len(counts)),
            },
        )
        for place in axes.flat:
            place.set_axis_off()
        for i, panel in enumerate(shown):
            _drawPanel(axes.flat[i], panel, counts[i // 2], dark)
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _source(results: dict[str, Any]) -> str:
    """Say where the results are from."""
    if not results["results"]:
        return "Nothing has been measured yet."
    rounds = max(row["rounds"] for row in results["results"])
    said = f"Medians of {rounds} interleaved rounds: {results['command']}"
    return f"{said}\n{inWords(results['machine'])}"


def _drawPanel(axes: Any, panel: Panel, rows: int, dark: bool) -> None:
    _, text, own, peer, floor = _COLOURS[dark]
    axes.set_axis_on()
    axes.set_title(f"{panel.title}\n{panel.note}", fontsize=9, loc="left")
    axes.set_xscale("log")
    axes.set_xlim(1 / _FURTHEST, _FURTHEST)
    axes.set_xticks([1 / _FURTHEST, 1, _FURTHEST])
    axes.set_xticklabels([f"1/{_FURTHEST:g}", "best peer", f"{_FURTHEST:g} {TIMES}"])
    axes.minorticks_off()
    axes.axvline(1, color=text, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks(range(len(panel.bars)), [bar.title for bar in panel.bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(rows - 0.5, -0.5)
    colours = {"own": (own, own), "": (peer, peer), "floor": ("none", floor)}
    across = axes.get_yaxis_transform()
    for y, bar in enumerate(panel.bars):
        fill, edge = colours[bar.kind]
        style = ":" if bar.kind == "floor" else "-"
        ratio = min(max(bar.ratio or 1, 1 / _FURTHEST), _FURTHEST)
        axes.barh(y, ratio - 1, 0.7, 1, color=fill, edgecolor=edge, linestyle=style)
        cells = [(1.5, bar.figure)]
        if bar.ratio is not None:
            cells.append((1.16, f"{number(bar.ratio)} {TIMES}"))
        for x, words in cells:
            axes.text(x, y, words, transform=across, ha="right", va="center")
