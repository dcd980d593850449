"""Tests of the benchmarks: that they work, never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import harness
from benchmarks.catalogue import MEASURES, choose
from benchmarks.contenders.base import Lost
from benchmarks.contenders.deferreds import gather
from benchmarks.contenders.pipes import frame, split
from benchmarks.harness import Harness, Outcome, runLimited
from benchmarks.report import table
from benchmarks.summary import Row, summarize

ROOT = Path(__file__).resolve().parent.parent


class CommandTests(SynchronousTestCase):
    """Tests of C{python -m benchmarks}."""

    def run_(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the command. Returns how it ended, and what it printed."""
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *args],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    def test_smoke(self) -> None:
        """
        A measure is taken of this library and of its floor, printed as a table, and
        written to a file.
        """
        path = self.mktemp()
        ended = self.run_("async", "--smoke", "--json", str(Path(path).absolute()))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("asynqueue", ended.stdout)
        self.assertIn("(heapq + maybeDeferred)", ended.stdout)
        results = json.loads(Path(path).read_text())["results"]
        self.assertEqual([row["contender"] for row in results], ["ours", "heap"])
        for row in results:
            self.assertEqual(len(row["values"]), 1)
            self.assertEqual(row["errors"], [])

    def test_children(self) -> None:
        """So it is with a measure that has children do the work."""
        ended = self.run_("noop", "--smoke", "--only", "ours", "bare", "pipe")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertNotIn("failed", ended.stdout)

    def test_unknown(self) -> None:
        """A measure that there isn't is refused with the names of those there are."""
        ended = self.run_("nop")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("There's no measure 'nop', but floor, noop, single", ended.stderr)


class ChooseTests(SynchronousTestCase):
    """Tests of L{choose}."""

    def test_all(self) -> None:
        """Without names, all measures are chosen."""
        self.assertEqual(choose([]), list(MEASURES))

    def test_beginning(self) -> None:
        """What the names of several begin with chooses them all, in their order."""
        self.assertEqual(
            choose(["thread", "noop"]), ["noop", "thread-single", "thread-bulk"]
        )


class HarnessTests(SynchronousTestCase):
    """Tests of L{Harness} and L{runLimited}."""

    def ended(self, program: str, limit: float) -> str:
        """Run a program of Python with a time limit. Returns how it failed."""
        folder = Path(self.mktemp())
        folder.mkdir()
        return runLimited([sys.executable, "-c", program], folder, {}, limit)

    def test_hangs(self) -> None:
        """A contender that doesn't end is ended, and reported to hang."""
        self.assertEqual(self.ended("while True: pass", 0), "hung: no end within 0 s")

    def test_dies(self) -> None:
        """A contender that dies is reported with the last that it said."""
        program = "raise SystemExit('well\\nenough')"
        self.assertEqual(self.ended(program, 60), "died with exit code 1: enough")

    def test_ends(self) -> None:
        """A contender that ends by itself hasn't failed."""
        self.assertEqual(self.ended("", 60), "")

    def test_interleaved(self) -> None:
        """Each round has everybody's turn, and begins with another than the last."""
        rounds = Harness(only=["ours", "cf", "pool"]).rounds(["noop"], 2)
        turns = [(name, who) for name, who, _ in rounds]
        self.assertEqual(
            [who for _, who in turns], ["ours", "cf", "pool", "cf", "pool", "ours"]
        )

    def test_hungOnce(self) -> None:
        """A contender that has hung isn't asked again, and it's told that it hung."""
        impatient = MEASURES["noop"]._replace(limit=0.0)
        self.patch(harness, "MEASURES", {"noop": impatient})
        rounds = Harness(only=["ours"]).rounds(["noop"], 3)
        outcomes = [take() for _, _, take in rounds]
        self.assertEqual([o.error for o in outcomes], ["hung: no end within 0 s"])

    def test_reference(self) -> None:
        """The reference takes part only if it's said where it is."""
        measure = MEASURES["async"]
        self.assertEqual(Harness().contenders(measure), ["ours", "heap"])
        self.assertIn("reference", Harness(reference="python").contenders(measure))


class GatherTests(SynchronousTestCase):
    """Tests of L{gather}."""

    def setUp(self) -> None:
        """Gather two Deferreds."""
        self.clock = Clock()
        self.ds: list[Deferred[int]] = [Deferred(), Deferred()]
        self.d = gather(self.ds, 10, reactor=self.clock)

    def test_results(self) -> None:
        """
        The results come in the order of the Deferreds, whatever order they fire in.
        """
        self.ds[1].callback(2)
        self.ds[0].callback(1)
        self.assertEqual(self.successResultOf(self.d), [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """Those that don't fire in time are counted."""
        self.ds[0].callback(1)
        self.clock.advance(10)
        lost = self.failureResultOf(self.d, Lost).value
        self.assertEqual(str(lost), "1 of 2 calls were never answered")

    def test_failure(self) -> None:
        """One that fails is the failure of all."""
        self.ds[0].errback(KeyError())
        self.failureResultOf(self.d, KeyError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PipesTests(SynchronousTestCase):
    """Tests of the frames of the floors."""

    def test_split(self) -> None:
        """Frames are told apart, and what isn't whole is left for later."""
        data = frame(1) + frame("two")
        pickles, rest = split(data[:-1])
        self.assertEqual(len(pickles), 1)
        pickles, rest = split(rest + data[-1:])
        self.assertEqual(len(pickles), 1)
        self.assertEqual(rest, b"")


class SummaryTests(SynchronousTestCase):
    """Tests of L{summarize} and L{table}."""

    def rows(self) -> dict[str, Row]:
        """
        Summarize three rounds of calls a second, in one of which a contender has
        failed.
        """
        lost = Outcome(error="Lost: 7 of 10 calls were never answered")
        outcomes = {
            ("noop", "ours"): [Outcome({"rate": r}) for r in (100.0, 120.0, 90.0)],
            ("noop", "cf"): [Outcome({"rate": r}) for r in (40.0, 60.0)] + [lost],
            ("noop", "loky"): [Outcome(skip="it can't")],
        }
        return {row["contender"]: row for row in summarize(outcomes)}

    def test_median(self) -> None:
        """
        Of the rounds that have a figure there's the median, the least and the most.
        """
        row = self.rows()["ours"]
        self.assertEqual((row["least"], row["median"], row["most"]), (90, 100, 120))

    def test_ratio(self) -> None:
        """The ratio says how many times as good this library is."""
        rows = self.rows()
        self.assertEqual(rows["cf"]["ratio"], 2)
        self.assertEqual(rows["loky"]["ratio"], None)

    def test_ratioOfTimes(self) -> None:
        """So it does where less is better."""
        figures = {"ours": 2.0, "cf": 3.0}
        outcomes = {
            ("late", name): [Outcome({"late": value})]
            for name, value in figures.items()
        }
        self.assertEqual(summarize(outcomes)[1]["ratio"], 1.5)

    def test_failures(self) -> None:
        """The table tells who has failed how often and how, and who was left out."""
        text = table(self.rows().values())
        self.assertIn(
            "failed in 1 of 3 rounds: Lost: 7 of 10 calls were never answered", text
        )
        self.assertIn("left out: it can't", text)
