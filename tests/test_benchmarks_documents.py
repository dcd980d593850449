"""
Tests of what the benchmarks make of their results: verdicts, tables, a picture.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.catalogue import MEASURES
from benchmarks.documents import BEGIN, END, markdown, replaceBlock, rst
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
    Make results as they are in JSON, of calls a second.

    @param rates: The figure of each contender, or how it has failed.

    @return: The results.
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
    """
    Tests of L{judge}.
    """

    def met(self, **medians: float | None) -> list[list[bool | None]]:
        """
        Judge the calls a second of this library.

        @param medians: The medians of all.

        @return: Whether each must, and each aim, has been met.
        """
        verdicts = judge("noop", "rate", medians, medians["ours"])
        return [[v["met"] for v in verdicts[kind]] for kind in ("must", "aim")]

    def test_met(self) -> None:
        """
        A bound that is just reached is met, and one that isn't, not.
        """
        self.assertEqual(
            self.met(ours=350, cf=100, pool=200), [[True, True], [False, False]]
        )
        self.assertEqual(
            self.met(ours=349, cf=100, pool=100), [[False, True], [False, True]]
        )

    def test_unknown(self) -> None:
        """
        Without somebody's figure, nothing is said.
        """
        self.assertEqual(self.met(ours=500, cf=100), [[True, None], [False, None]])
        self.assertEqual(
            self.met(ours=None, cf=100, pool=1), [[None, None], [None, None]]
        )

    def test_less(self) -> None:
        """
        Where less is better, the bound is one from above.
        """
        [must] = judge("idle", "wakeUps", {}, 1)["must"]
        self.assertEqual(must, {"text": "≤ 0", "met": False, "bound": 0})

    def test_complete(self) -> None:
        """
        All targets are about figures that there are.
        """
        for name, key in TARGETS:
            self.assertIn(key, MEASURES[name].figures)


class DocumentTests(SynchronousTestCase):
    """
    Tests of L{markdown}, L{rst} and L{replaceBlock}.
    """

    def test_markdown(self) -> None:
        """
        The overview tells how this library compares with the best peer.
        """
        text = markdown(results(ours=300.0, cf=50.0, pool=200.0, bare=600.0))
        [line] = [line for line in text.splitlines() if line.startswith("| noop")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        self.assertEqual(cells[1:3], ["300/s", "multiprocessing.Pool: 200/s"])
        self.assertEqual(cells[3:5], [f"1.50 {TIMES}", f"2 {TIMES}"])
        self.assertEqual(cells[5:], ["met", "not met"])
        self.assertIn("`python -m benchmarks noop`", text)

    def test_failed(self) -> None:
        """
        Who has failed is reported, and isn't the best.
        """
        text = rst(results(ours=300.0, cf=50.0, loky="Lost: 3 calls"))
        self.assertIn("failed in 1 of 1 rounds: Lost: 3 calls", text)
        self.assertIn("concurrent.futures: 50/s", text)

    def test_nothing(self) -> None:
        """
        Where nothing has been measured, that's what is said.
        """
        for make in (markdown, rst):
            self.assertEqual(make(results()), "Nothing has been measured yet.\n")

    def test_block(self) -> None:
        """
        A table is put where the last one was, and needs marks for it.
        """
        text = f"before\n{BEGIN}\nold\n{END}\nafter"
        self.assertEqual(
            replaceBlock(text, "new"), f"before\n{BEGIN}\n\nnew\n{END}\nafter"
        )
        with self.assertRaisesRegex(ValueError, "no line"):
            replaceBlock("before\nafter", "new")


class PictureTests(SynchronousTestCase):
    """
    Tests of L{draw}.
    """

    def test_picture(self) -> None:
        """
        It's well-formed, and shows all contenders with their figures.
        """
        picture = draw(results(ours=300.0, cf=50.0, loky="Lost: <3> calls"))
        root = ElementTree.fromstring(picture)
        texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]
        for text in ("asynqueue", "concurrent.futures", "loky", f"6 {TIMES}"):
            self.assertIn(text, texts)
        self.assertIn("Some <Processor>", " ".join(texts))
        self.assertTrue(any("failed in 1 of 1 rounds" in text for text in texts))
