"""The reference's own tests."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from .download import REFERENCE, fetchSource
from .edits import applyEdits
from .environment import Target, makeEnvironment
from .rounds import Report, runRounds
from .running import TestRun
from .suiteedits import EDITS, PACKAGE, RETRIED

__all__ = ["SECTION", "layOut", "runSuite"]

#: The name of what is expected in C{expected.json}.
SECTION = "suite"

#: What the tests need beside Twisted.
REQUIREMENTS = ["numpy"]

#: Definitions in the reference's C{util.py} that only its tests use.
UTIL_HELPERS = ("testFunction", "TestStuff")


def layOut(source: Path, package: Path) -> None:
    """
    Copy the reference's tests and their helpers, and adapt them.

    @param source: The folder of the reference's package.

    @param package: The folder of the tests' package, which is made.
    """
    shutil.copytree(source / "test", package)
    (package / "__init__.py").write_text("")
    shutil.copy(source / "misc.py", package)
    text = (source / "util.py").read_text()
    helpers = [
        ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if getattr(node, "name", None) in UTIL_HELPERS
    ]
    (package / "helpers.py").write_text("\n\n".join(helpers) + "\n")
    applyEdits(package, EDITS)


def runSuite(
    target: Target, folder: Path, report: Report, only: str = "", rounds: int = 1
) -> None:
    """
    Run the reference's tests.

    @param target: What they are run with.

    @param folder: Where to work.

    @param report: What takes the results.

    @param only: If given, only tests are run that have this in their name.

    @param rounds: How often to run them.
    """
    source = fetchSource(REFERENCE, folder / "sources")
    work = folder / f"{SECTION}-{target.kind}"
    python = makeEnvironment(
        folder / "environments", SECTION, REQUIREMENTS, target, work
    )
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    layOut(source / "asynqueue", work / PACKAGE)
    modules = sorted(path.stem for path in (work / PACKAGE).glob("test_*.py"))
    runRounds(
        TestRun(python, work),
        modules,
        report,
        only=only,
        rounds=rounds,
        retried=RETRIED,
        prefix=f"{PACKAGE}.",
    )
