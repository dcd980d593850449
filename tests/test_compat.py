"""
Tests of the check against the reference: how results are compared, what may be in
C{expected.json}, and that tests which hang or crash spoil no others. Nothing is
downloaded here.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from compat import __main__ as command
from compat.edits import Edit, applyEdits
from compat.errors import CheckError
from compat.expected import EXPECTED, Exemption, Expectation, compare, load
from compat.processes import runCommand, runWatched
from compat.programedits import PROGRAMS
from compat.python3 import EDITS as PYTHON3_EDITS, divideClassically
from compat.rounds import MAX_TRIES, Report, runRounds
from compat.running import Result, TestRun, readEvents
from compat.suite import SECTION
from compat.suiteedits import EDITS as SUITE_EDITS, RETRIED

PASS = Result("pass")
FAIL = Result("fail", "FailTest: 1 != 2")

#: Tests with each outcome.
SAMPLE = """
import os
from twisted.trial.unittest import SkipTest, TestCase

class FirstTests(TestCase):
    def test_crash(self): os._exit(3)
    def test_error(self): raise ValueError("no")
    def test_fail(self): self.assertEqual(1, 2)
    def test_pass(self): pass
    def test_skip(self): raise SkipTest("why not")

class SecondTests(TestCase):
    def test_pass(self): pass
"""


class CompareTests(SynchronousTestCase):
    """Tests of L{compare}."""

    def compare(
        self, exemptions: dict[str, str], results: dict[str, list[Result]], **kw: Any
    ) -> list[str]:
        """Compare results of some tests of two."""
        expectation = Expectation(
            2, {name: Exemption(said, "It's so.") for name, said in exemptions.items()}
        )
        return compare(expectation, {"b": [PASS], **results}, **kw)

    def test_same(self) -> None:
        """All is as expected if each test passes that has no exemption."""
        self.assertEqual(self.compare({}, {"a": [PASS]}), [])
        self.assertEqual(self.compare({"a": "fails"}, {"a": [FAIL]}), [])
        self.assertEqual(self.compare({"a": "either"}, {"a": [FAIL]}), [])
        self.assertEqual(self.compare({"a": "either"}, {"a": [PASS]}), [])

    def test_fails(self) -> None:
        """A failing test without exemption is a difference."""
        (text,) = self.compare({}, {"a": [FAIL]})
        self.assertIn("a fails, which isn't expected", text)
        self.assertIn("fail: FailTest: 1 != 2", text)

    def test_fixed(self) -> None:
        """
        So is a test that passes though it's said to fail, with the outdated reason.
        """
        (text,) = self.compare({"a": "fails"}, {"a": [PASS]})
        self.assertIn("a passes, though it's expected to fail", text)
        self.assertIn("It's so.", text)

    def test_rounds(self) -> None:
        """A test passes if it does in all rounds."""
        (text,) = self.compare({}, {"a": [PASS, FAIL, FAIL]})
        self.assertIn("a fails in 2 of 3 rounds", text)
        self.assertEqual(self.compare({"a": "fails"}, {"a": [PASS, FAIL]}), [])

    def test_vanished(self) -> None:
        """A test that's gone is a difference, unless only some were run."""
        differences = self.compare({"a": "either"}, {})
        expected = ["a is expected to fail, and isn't there", "1 tests, not 2"]
        self.assertEqual(differences, expected)
        self.assertEqual(self.compare({"a": "either"}, {}, complete=False), [])

    def test_more(self) -> None:
        """So is a test that wasn't there before."""
        differences = self.compare({}, {"a": [PASS], "c": [PASS]})
        self.assertEqual(differences, ["3 tests, not 2"])


class ExpectedTests(SynchronousTestCase):
    """Tests of C{expected.json} and of reading it."""

    def test_complete(self) -> None:
        """The file can be read, and has all sets of tests and no others."""
        for section in (SECTION, *PROGRAMS):
            for kind in ("checkout", "reference"):
                self.assertGreater(load(section, kind).tests, 0)
        self.assertEqual(set(json.loads(EXPECTED.read_text())), {SECTION, *PROGRAMS})

    def test_both(self) -> None:
        """Exemptions for both are among those for each."""
        name = "logalyzer.test.test_parse.TestRedirectChecker.test_isRedirect"
        for kind in ("checkout", "reference"):
            self.assertEqual(load("logalyzer", kind).exemptions[name].outcome, "fails")

    def load(self, said: object) -> Expectation:
        """Read a file that says something about a test."""
        path = Path(self.mktemp())
        part = {"tests": 3, "both": {}, "checkout": {"a": said}}
        path.write_text(json.dumps({"set": part}))
        return load("set", "checkout", path)

    def test_read(self) -> None:
        """What the file says is what's expected."""
        expectation = self.load({"outcome": "fails", "reason": "It's so."})
        expected = Expectation(3, {"a": Exemption("fails", "It's so.")})
        self.assertEqual(expectation, expected)

    def test_faults(self) -> None:
        """
        An outcome that there isn't is refused, and so is what has no sentence as its
        reason, or has more than that.
        """
        for said, why in (
            ({"outcome": "passes", "reason": "It's so."}, "the outcome is none of"),
            ({"outcome": "fails", "reason": "flaky"}, "the reason isn't a sentence"),
            ({"outcome": "fails"}, "reason"),
            ({"outcome": "fails", "reason": "It's so.", "x": 1}, "x"),
            ("fails", "str"),
        ):
            error = self.assertRaises(CheckError, self.load, said)
            self.assertIn(why, str(error))

    def test_absent(self) -> None:
        """A set of tests must be there."""
        self.assertRaises(CheckError, load, "nothing", "checkout")


class EditTests(SynchronousTestCase):
    """Tests of edits."""

    def edit(self, text: str, *edits: Edit, **kw: bool) -> str:
        """Apply edits to a file C{test/one.py}."""
        folder = Path(self.mktemp())
        path = folder / "test" / "one.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        applyEdits(folder, edits, **kw)
        return path.read_text()

    def test_order(self) -> None:
        """Edits are applied one after the other, each to all places."""
        edits = [Edit("*", "^a", "b", "why"), Edit("test/*.py", "b", "c", "why")]
        self.assertEqual(self.edit("ax\nay", *edits), "cx\ncy")

    def test_limit(self) -> None:
        """An edit may be for the first places of a file alone."""
        self.assertEqual(self.edit("aaa", Edit("*", "a", "b", "why", 2)), "bba")

    def test_unfit(self) -> None:
        """One that changes nothing is an error, as then the sources are others."""
        edit = Edit("two.py", "a", "b", "why")
        self.assertRaises(CheckError, self.edit, "a", edit)
        self.assertEqual(self.edit("a", edit, needed=False), "a")

    def test_tables(self) -> None:
        """Each edit is a valid one, and has a reason."""
        programs = [edit for program in PROGRAMS.values() for edit in program.edits]
        for edit in (*SUITE_EDITS, *PYTHON3_EDITS, *programs):
            re.compile(edit.pattern)
            self.assertRegex(edit.reason, "^.{10}")

    def test_interfaces(self) -> None:
        """Declarations of interfaces become decorators."""
        text = 'class A:\n    """\n    It.\n    """\n    implements(IA)\n    x = 1\n'
        edited = self.edit(text, *PYTHON3_EDITS, needed=False)
        expected = '@implementer(IA)\nclass A:\n    """\n    It.\n    """\n    x = 1\n'
        self.assertEqual(edited, expected)

    def test_division(self) -> None:
        """Divisions become calls; a module without any stays as it is."""
        self.assertEqual(
            divideClassically('"""It."""\nx = 7 / (a / 2)  # x\n'),
            '"""It."""\nfrom classicdivision import divide\n'
            "x = divide(7, divide(a, 2))\n",
        )
        self.assertEqual(divideClassically("x = 1  # x\n"), "x = 1  # x\n")


class ProcessTests(SynchronousTestCase):
    """Tests of running commands."""

    def test_fails(self) -> None:
        """A command that fails is an error with what it printed."""
        self.assertEqual(runCommand("echo", "hi"), "hi\n")
        error = self.assertRaises(CheckError, runCommand, "sh", "-c", "echo hi; exit 1")
        self.assertIn("hi", str(error))

    def watch(self, script: str, silence: float) -> int | None:
        """Run a shell script that's given the name of a file to write to."""
        watched = Path(self.mktemp()).absolute()
        watched.touch()
        return runWatched(
            ["sh", "-c", script, "sh", str(watched)],
            watched=watched,
            silence=silence,
            log=watched.with_suffix(".log"),
            folder=watched.parent,
            environ=os.environ,
        )

    def test_ends(self) -> None:
        """A process that keeps writing isn't killed; its exit code is the result."""
        script = "for n in 1 2 3 4 5 6; do sleep 0.2; echo >>$1; done; exit 3"
        self.assertEqual(self.watch(script, 0.9), 3)

    def test_silence(self) -> None:
        """One that writes nothing is killed, and with it what it has started."""
        pids = Path(self.mktemp()).absolute()
        self.assertIs(self.watch(f"sleep 60 & echo $! >{pids}; wait", 0.5), None)
        pid, deadline = int(pids.read_text()), time.monotonic() + 30
        while self.runs(pid):
            self.assertLess(time.monotonic(), deadline, f"{pid} is still there")
            time.sleep(0.01)

    def runs(self, pid: int) -> bool:
        """Look whether there is a process, and is no zombie."""
        state = os.popen(f"ps -o stat= -p {pid}").read().strip()
        return bool(state) and not state.startswith("Z")


class ScriptedRun(TestRun):
    """Has events from a list instead of from a process."""

    def __init__(self, *records: tuple[Sequence[tuple[str, str]], int | None]) -> None:
        self.records = list(records)
        self.names: list[list[str]] = []

    def _record(
        self, options: list[str], names: Sequence[str]
    ) -> tuple[list[dict[str, Any]], int | None, str]:
        """Take the next events; for an C{end} the outcome is in the name."""
        self.names.append(list(names))
        events, code = self.records.pop(0)
        made = [
            {
                "event": event,
                "test": test,
                "outcome": test.rpartition("_")[2],
                "why": "why",
                "seconds": 1,
            }
            for event, test in events
        ]
        return made, code, "output"


class RunTests(SynchronousTestCase):
    """Tests of running tests."""

    def test_hang(self) -> None:
        """The tests after one that hangs are run in another process."""
        first = [("start", "A.a_pass"), ("end", "A.a_pass"), ("start", "A.b")]
        last = [("start", "A.c_fail"), ("end", "A.c_fail"), ("finished", "")]
        run = ScriptedRun((first, None), (last, 0))
        results = run.runCase(["A.a_pass", "A.b", "A.c_fail"])
        outcomes = [results[name].outcome for name in ("A.a_pass", "A.b", "A.c_fail")]
        self.assertEqual(outcomes, ["pass", "hang", "fail"])
        self.assertEqual(run.names[1], ["A.c_fail"])

    def test_nothing(self) -> None:
        """A process that says nothing isn't started for ever."""
        results = ScriptedRun(([], 1)).runCase(["A.a", "A.b"])
        self.assertEqual({x.outcome for x in results.values()}, {"crash"})
        self.assertIn("output", results["A.b"].why)

    def test_unending(self) -> None:
        """A process that doesn't end after its last test is that test's fault."""
        events: list[dict[str, Any]] = [
            {"event": "start", "test": "a"},
            {"event": "end", "test": "a", "outcome": "pass", "why": "", "seconds": 1},
            {"event": "finished", "test": ""},
        ]
        self.assertEqual(readEvents(events, 0, "", 1)["a"].outcome, "pass")
        self.assertEqual(readEvents(events, None, "", 1)["a"].outcome, "hang")

    def test_real(self) -> None:
        """All outcomes are told apart, with real tests."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "sampletests.py").write_text(SAMPLE)
        run = TestRun(Path(sys.executable), folder)
        found, broken = run.find(["sampletests", "nothing"])
        self.assertEqual(list(broken), ["nothing"])
        results: dict[str, Result] = {}
        for _, part in run.run(found):
            results |= {name.partition(".")[2]: x for name, x in part.items()}
        outcomes = {name: result.outcome for name, result in results.items()}
        self.assertEqual(
            outcomes,
            {
                "FirstTests.test_crash": "crash",
                "FirstTests.test_error": "error",
                "FirstTests.test_fail": "fail",
                "FirstTests.test_pass": "pass",
                "FirstTests.test_skip": "skip",
                "SecondTests.test_pass": "pass",
            },
        )
        self.assertIn("exit code 3", results["FirstTests.test_crash"].why)
        self.assertEqual(results["FirstTests.test_error"].why, "ValueError: no")


class RoundsTests(SynchronousTestCase):
    """Tests of rounds and further tries."""

    def run_(self, run: TestRun, **kw: Any) -> tuple[Report, str]:
        """Run tests. Returns their results, and what was printed."""
        report, output = Report(), StringIO()
        with redirect_stdout(output):
            runRounds(run, ["m"], report, **kw)
        return report, output.getvalue()

    def test_tries(self) -> None:
        """Only a test that matches a pattern is tried again."""
        found = [("found", "p.m.A.a_fail"), ("found", "p.m.A.b_fail")]
        both = [("end", name) for _, name in found]
        once = [("end", "p.m.A.b_fail")]
        tries = [(once, 0)] * (MAX_TRIES - 1)
        run = ScriptedRun(([*found, ("finished", "")], 0), (both, 0), *tries)
        report, output = self.run_(run, prefix="p.", retried=["m.*.b_*"])
        tries_ = {name: x.tries for name, (x,) in report.results.items()}
        self.assertEqual(tries_, {"m.A.a_fail": 1, "m.A.b_fail": MAX_TRIES})
        self.assertEqual(run.names[0], ["p.m"])
        self.assertIn("m.A: 0 of 2 passed, 2.0 s, 1 tried again", output)

    def test_repeat(self) -> None:
        """Each round adds a result to each chosen test."""
        found = [("found", "m.A.a_pass"), ("found", "m.A.b_fail"), ("finished", "")]
        run = ScriptedRun((found, 0), *[([("end", "m.A.a_pass")], 0)] * 3)
        report, _ = self.run_(run, rounds=3, only="a_")
        self.assertEqual(list(report.results), ["m.A.a_pass"])
        self.assertEqual(len(report.results["m.A.a_pass"]), 3)

    def test_patterns(self) -> None:
        """The patterns of tests that are tried again have the form of names."""
        for pattern in RETRIED:
            self.assertRegex(pattern, r"^test_\w+\.\w+\.[\w*]+$")


class CommandTests(SynchronousTestCase):
    """Tests of C{python -m compat}."""

    def main(self, *argv: str) -> tuple[int, str]:
        """Run the command. Returns its exit code, and what it printed."""
        output = StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            return command.main(list(argv)), output.getvalue()

    def test_differs(self) -> None:
        """
        Differences are printed, and make the exit code 1; the results are written.
        """

        def run(target: Any, folder: Path, report: Report, *_: Any) -> None:
            report.results.update({"a": [FAIL], "b": [PASS]})

        self.patch(command, "runSuite", run)
        path = self.mktemp()
        code, output = self.main("suite", "--only", "x", "--json", path)
        self.assertEqual(code, 1)
        self.assertIn("1 of 2 tests passed", output)
        self.assertIn("1 differences from what is expected:\na fails", output)
        self.assertEqual(json.loads(Path(path).read_text())["a"][0]["outcome"], "fail")

    def test_impossible(self) -> None:
        """What keeps the check from being made is printed, and the exit code is 2."""

        def run(*_: Any) -> None:
            raise CheckError("no index")

        self.patch(command, "runProgram", run)
        self.assertEqual(self.main("programs", "--only", "ade"), (2, "no index\n"))

    def test_unknown(self) -> None:
        """So it is for a program that there isn't."""
        error = self.assertRaises(SystemExit, self.main, "programs", "--only", "x")
        self.assertEqual(error.code, 2)
