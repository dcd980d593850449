"""Tests of what the benchmarks make of their results: verdicts, tables, a picture."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.catalogue import MEASURES
from benchmarks.documents import rst
from benchmarks.harness import Outcome
from benchmarks.picture import draw
from benchmarks.summary import summarize
from benchmarks.targets import TARGETS, TIMES, judge

_MACHINE = {
    "processor": "Some <Processor>",
    "cores": 2,
    "memory": None,
    "python": "CPython 3.11.7",
    "packages": {"Twisted": "26.10.0"},
    "load": [0.5, 0.5, 0.5],
    "time": "2026-11-25 12:00 UTC",
}


def results(**rates: float | str) -> dict[str, Any]:
    """
    Make results as they are in JSON, of the calls a second of each contender, or of how
    it has failed.
    """
    outcomes = {
        ("noop", who): [
            Outcome(error=rate) if isinstance(rate, str) else Outcome({"rate": rate})
        ]
        for who, rate in rates.items()
    }
    return {
        "command": "python -m benchmarks noop",
        "machine": _MACHINE,
        "smoke": False,
        "results": summarize(outcomes),
    }


class JudgeTests(SynchronousTestCase):
    """Tests of L{judge}."""

    def met(self, **medians: float | None) -> list[list[bool | None]]:
        """
        Judge the calls a second of this library by the medians of all. Returns whether
        each must, and each aim, has been met.
        """
        verdicts = judge("noop", "rate", medians, medians["ours"])
        return [[v["met"] for v in verdicts[kind]] for kind in ("must", "aim")]

    def test_met(self) -> None:
        """A bound that is just reached is met, and one that isn't, not."""
        self.assertEqual(
            self.met(ours=350, cf=100, pool=200), [[True, True], [False, False]]
        )
        self.assertEqual(
            self.met(ours=349, cf=100, pool=100), [[False, True], [False, True]]
        )

    def test_unknown(self) -> None:
        """Without somebody's figure, nothing is said."""
        self.assertEqual(self.met(ours=500, cf=100), [[True, None], [False, None]])
        self.assertEqual(
            self.met(ours=None, cf=100, pool=1), [[None, None], [None, None]]
        )

    def test_less(self) -> None:
        """Where less is better, the bound is one from above."""
        [must] = judge("idle", "wakeUps", {}, 1)["must"]
        self.assertEqual(must, {"text": "≤ 0", "met": False, "bound": 0})

    def test_complete(self) -> None:
        """All targets are about figures that there are."""
        for name, key in TARGETS:
            self.assertIn(key, MEASURES[name].figures)


class DocumentTests(SynchronousTestCase):
    """Tests of L{rst}."""

    def test_overview(self) -> None:
        """The overview tells how this library compares with the best peer."""
        text = rst(results(ours=300.0, cf=50.0, pool=200.0, bare=600.0))
        _, _, line = text.partition("* - noop")
        cells = [cell.strip() for cell in line.split("\n     - ")[:7]]
        self.assertEqual(cells[1:3], ["300/s", "multiprocessing.Pool: 200/s"])
        self.assertEqual(cells[3:5], [f"1.50 {TIMES}", f"2 {TIMES}"])
        self.assertEqual(
            [cell.split("\n")[0] for cell in cells[5:]], ["met", "not met"]
        )
        self.assertIn("``python -m benchmarks noop``", text)

    def test_failed(self) -> None:
        """Who has failed is reported, and isn't the best."""
        text = rst(results(ours=300.0, cf=50.0, loky="Lost: 3 calls"))
        self.assertIn("failed in 1 of 1 rounds: Lost: 3 calls", text)
        self.assertIn("concurrent.futures: 50/s", text)

    def test_nothing(self) -> None:
        """Where nothing has been measured, that's what is said."""
        self.assertEqual(rst(results()), "Nothing has been measured yet.\n")


class PictureTests(SynchronousTestCase):
    """Tests of L{draw}."""

    if find_spec("matplotlib") is None:
        skip = "matplotlib isn't installed"

    def draw(self, dark: bool, **rates: float | str) -> str:
        """Draw, and return all texts in the picture."""
        root = ElementTree.fromstring(draw(results(**rates), dark))
        return "\n".join(
            "".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")
        )

    def test_picture(self) -> None:
        """It's well-formed, and shows all contenders with their figures."""
        for dark in (False, True):
            texts = self.draw(dark, ours=300.0, cf=50.0, pool=25.0, loky="Lost: <3>")
            for text in ("asynqueue", "concurrent.futures", "loky", f"6 {TIMES}"):
                self.assertIn(text, texts)
            self.assertIn("Some <Processor>", texts)
            self.assertIn("failed in 1 of 1 rounds", texts)

    def test_nothing(self) -> None:
        """It says so where nothing has been measured."""
        self.assertIn("Nothing has been measured yet.", self.draw(False))
