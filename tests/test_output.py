"""Tests of L{asynqueue._support.log}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._support.log import OutputLog

from ._fakes import LogLines


class OutputLogTests(SynchronousTestCase):
    """Tests of L{OutputLog}."""

    def setUp(self) -> None:
        """Make a log, and listen to it."""
        self.clock = Clock()
        self.output = OutputLog("stdout", reactor=self.clock)
        self.output.who = "Worker 1"
        self.log = LogLines(self)

    def test_lines(self) -> None:
        """Each line is logged when it's complete, with whose it is."""
        self.output.write(b"one\ntw")
        self.assertEqual(self.log.take(), ["Worker 1, stdout: one"])
        self.output.write(b"o\r\n\nthree\n")
        self.assertEqual(
            self.log.take(),
            ["Worker 1, stdout: two", "Worker 1, stdout: ", "Worker 1, stdout: three"],
        )

    def test_unfinished(self) -> None:
        """A line that isn't complete is logged at the end."""
        self.output.write(b"no end")
        self.assertEqual(self.log.take(), [])
        self.output.write(b"")
        self.assertEqual(self.log.take(), ["Worker 1, stdout: no end"])
        self.output.write(b"")
        self.assertEqual(self.log.take(), [])

    def test_notText(self) -> None:
        """Bytes that aren't text, and braces, are logged as they are."""
        self.output.write(b"\xff {who} \xc3\xa4\n")
        self.assertEqual(self.log.take(), ["Worker 1, stdout: \\xff {who} \u00e4"])

    def test_longLine(self) -> None:
        """
        A line without an end is logged in pieces, and nothing is kept but the last.
        """
        for _ in range(10):
            self.output.write(b"x" * 10_000)
        lines = self.log.take()
        self.assertEqual(len(lines), 12)
        self.assertLess(max(map(len, lines)), 9_000)

    def test_longLineAtOnce(self) -> None:
        """A long line that comes in one piece is cut."""
        self.output.write(b"x" * 60_000 + b"\n")
        [line] = self.log.take()
        self.assertLess(len(line), 9_000)
        self.assertTrue(line.endswith("..."))

    def test_flood(self) -> None:
        """Of a flood, so many lines a second are logged; the others are counted."""
        self.output.write(b"x\n" * 1_500)
        self.assertEqual(len(self.log.take()), 1_000)
        self.clock.advance(1)
        self.output.write(b"y\n")
        self.assertEqual(
            self.log.take(),
            [
                "Worker 1, stdout: 500 lines were too many to be logged",
                "Worker 1, stdout: y",
            ],
        )

    def test_floodAtEnd(self) -> None:
        """They're also told of at the end."""
        self.output.write(b"x\n" * 1_001)
        self.output.write(b"")
        self.assertEqual(
            self.log.take()[-1], "Worker 1, stdout: 1 lines were too many to be logged"
        )

    def test_tail(self) -> None:
        """The end of all that was written is remembered."""
        self.output.write(b"a" * 10_000)
        self.output.write(b"the\nend\n")
        self.assertTrue(self.output.tail.endswith("aaathe\nend"))
        self.assertLess(len(self.output.tail), 3_000)
