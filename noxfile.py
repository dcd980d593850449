"""
Runs the tests under each Python that there is, with the oldest and the newest packages
that C{pyproject.toml} admits: C{nox}, or C{nox -s "core-3.13(lowest)"} for one of them.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["core"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

PROJECT = nox.project.load_toml("pyproject.toml")["project"]

#: Tests that need no extra, and take some seconds: of the heart, and of each kind of
#: worker.
CORE = [
    f"tests.test_{name}"
    for name in (
        "exports",
        "document",
        "base",
        "gate",
        "mapping",
        "iteration",
        "asyncworker",
        "asyncio",
        "threads",
        "process",
        "resizing",
        "service",
        "wire_life",
    )
]


@nox.session(python=PYTHONS)
@nox.parametrize("packages", [nox.param(x, id=x) for x in ("lowest", "newest")])
def core(session: nox.Session, packages: str) -> None:
    """Run the tests that need no extra."""
    oldest = [each.replace(">=", "==") for each in PROJECT["dependencies"]]
    session.install(".", *(oldest if packages == "lowest" else []))
    session.run("python", "-m", "twisted.trial", *(session.posargs or CORE))


@nox.session(python=PYTHONS)
def whole(session: nox.Session) -> None:
    """Run all tests."""
    session.install(".[test]")
    session.run("python", "-m", "twisted.trial", *(session.posargs or ["tests"]))
