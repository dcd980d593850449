"""What this library is to reach at the least, and what it aims at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypedDict

from .catalogue import MEASURES
from .contenders import CONTENDERS

#: The sign of multiplication.
TIMES = "\N{MULTIPLICATION SIGN}"


class Target(NamedTuple):
    """
    A bound of a figure, from above or below, whichever is the worse side.

    @ivar bound: The number, or how many times the figure of another.

    @ivar than: The name of the other contender, if it's about one.
    """

    bound: float
    than: str = ""


class Targets(NamedTuple):
    """
    The targets of a figure: what it must reach at the least, and what is aimed at.
    """

    must: tuple[Target, ...] = ()
    aim: tuple[Target, ...] = ()


class Verdict(TypedDict):
    """
    Whether a target has been met: C{text} is the target in words, C{met} is C{None} if
    that can't be said, since somebody has no figure, and C{bound} is the number that
    had to be reached, C{None} if it isn't known.
    """

    text: str
    met: bool | None
    bound: float | None


def _times(must: float, aim: float, *than: str) -> Targets:
    """
    Describe targets that are compared with others' figures: how many times the first's,
    or the only one's, it must be, and how many times the last's is aimed at.
    """
    return Targets((Target(must, than[0]),), (Target(aim, than[-1]),))


def _at(must: float, aim: float) -> Targets:
    """Describe targets that are numbers."""
    return Targets((Target(must),), (Target(aim),))


#: The targets, by measure and figure.
TARGETS = {
    ("noop", "rate"): Targets(
        (Target(3.5, "cf"), Target(1.3, "pool")),
        (Target(6, "cf"), Target(2, "pool")),
    ),
    ("single", "median"): _times(0.8, 1.3, "cf", "bare"),
    ("single", "p99"): Targets((Target(1, "cf"),)),
    ("mixed", "used"): Targets((Target(95),)),
    ("late", "late"): _times(1.5, 1, "cf", "bare"),
    ("map", "rate"): _times(0.8, 1.2, "pool"),
    ("payload-array", "rate"): _times(4, 1, "pool", "ray"),
    ("payload-bytes", "rate"): _times(2, 1, "cf", "ray"),
    ("stall", "bytes"): _at(20, 5),
    ("stall", "array"): _at(20, 5),
    ("stream", "rate"): _times(20, 0.5, "reference", "bare"),
    ("items", "stall"): _at(20, 5),
    ("async", "cost"): _times(0.5, 1.5, "reference", "heap"),
    ("monitor", "loss"): Targets((Target(5),)),
    ("thread-single", "median"): _times(1.1, 0.8, "deferToThread"),
    ("thread-bulk", "rate"): _times(1, 2, "deferToThread"),
    ("queued", "growth"): _at(1.5, 1.2),
    ("queued", "bytes"): _at(1024, 614),
    ("queued", "stall"): Targets((Target(50),)),
    ("queued", "calm"): Targets((Target(50),)),
    ("idle", "cpu"): _at(5, 0.5),  # the aim is nothing, but for the two calls
    ("idle", "wakeUps"): Targets((Target(0),)),
    ("web", "p99"): Targets((Target(50),)),
    ("start", "start"): _times(1.5, 1, "cf-spawn", "cf-forkserver"),
    ("cluster", "alone"): Targets((Target(0.9, "dask"),)),
    ("cluster", "together"): Targets((Target(5, "dask"),)),
    ("cluster", "array"): Targets((Target(0.8, "dask"),)),
    ("wire-single", "median"): Targets((Target(1.5, "amp"),)),
    ("wire-bulk", "rate"): Targets((Target(3, "amp-chunks"),)),
}


def judge(
    name: str, key: str, medians: Mapping[str, float | None], own: float | None
) -> dict[str, list[Verdict]]:
    """
    Tell which targets of a figure have been met: the verdicts on C{must} and C{aim},
    from the medians of all and that of this library.
    """
    figure = MEASURES[name].figures[key]
    targets = TARGETS.get((name, key), Targets())

    def verdict(target: Target) -> Verdict:
        """Judge one."""
        bound: float | None = target.bound
        sign = "≥" if figure.more else "≤"
        if target.than:
            text = f"{sign} {target.bound:g} {TIMES} {CONTENDERS[target.than].title}"
            other = medians.get(target.than)
            bound = None if other is None else target.bound * other
        else:
            text = f"{sign} {target.bound:g} {figure.unit}".rstrip()
        if own is None or bound is None:
            return {"text": text, "met": None, "bound": bound}
        met = own >= bound if figure.more else own <= bound
        return {"text": text, "met": met, "bound": bound}

    return {
        "must": [verdict(target) for target in targets.must],
        "aim": [verdict(target) for target in targets.aim],
    }
