"""
Programs that were written for the reference: their own tests, and a test of ours for
each, which uses it as a user would.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .download import fetchSource
from .edits import applyEdits
from .environment import Target, makeEnvironment
from .programedits import PROGRAMS, REQUIREMENTS
from .python3 import convert
from .rounds import Report, runRounds
from .running import TestRun

__all__ = ["runProgram"]

JOBS = Path(__file__).with_name("jobs")

#: With the reference, bool(queue) is a TypeError in Python 3, and two programs use it.
MENDED_REFERENCE = """\
from asynqueue.base import TaskQueue

TaskQueue.__bool__ = lambda self: bool(self.isRunning() and len(self))
"""


def layOut(name: str, sources: Path, work: Path) -> None:
    """
    Copy a program's package, and adapt it; then so with those that it needs.

    @param name: The program's.

    @param sources: Where source distributions are kept.

    @param work: The folder that the packages are put in.
    """
    program = PROGRAMS[name]
    source = fetchSource(program.requirement, sources) / name
    package = work / name
    for pattern in program.files:
        for path in source.glob(pattern):
            copy = package / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    convert(package)
    applyEdits(package, program.edits)
    for need in program.needs:
        layOut(need, sources, work)


def runProgram(
    name: str, target: Target, folder: Path, report: Report, rounds: int = 1
) -> None:
    """
    Run the tests of a program.

    @param name: The program's.

    @param target: What it's run with.

    @param folder: Where to work.

    @param report: What takes the results.

    @param rounds: How often to run them.
    """
    work = folder / f"programs-{target.kind}"
    python = makeEnvironment(
        folder / "environments", "programs", REQUIREMENTS, target, work
    )
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(JOBS, work)
    layOut(name, folder / "sources", work)
    if target.checkout is None:
        (work / "sitecustomize.py").write_text(MENDED_REFERENCE)
    tests = sorted(path.stem for path in (work / name / "test").glob("test_*.py"))
    modules = [f"{name}job", *[f"{name}.test.{test}" for test in tests]]
    environ = {"HOME": str(work), "MPLBACKEND": "Agg"}
    run = TestRun(python, work, environ)
    runRounds(run, modules, report, rounds=rounds, retried=PROGRAMS[name].retried)
