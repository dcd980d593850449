"""
The command: C{python -m benchmarks}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import distributions
from typing import Any

from .catalogue import MEASURES, choose
from .contenders import CONTENDERS, OURS
from .harness import Harness, Outcome
from .report import table
from .summary import Outcomes, summarize

__all__ = ["main"]


def parse(argv: list[str]) -> argparse.Namespace:
    """
    Read the command line.

    @param argv: It.

    @return: The options.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this library beside its peers and the machine's floors.",
    )
    add = parser.add_argument
    add("measures", nargs="*", metavar="MEASURE", help="by default, all")
    add("--list", action="store_true", help="say what can be measured, and end")
    add("--rounds", type=int, default=5, help="how many (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        metavar="CONTENDER",
        choices=CONTENDERS,
        help="leave out others",
    )
    add("--reference", metavar="PYTHON", help="a Python that has AsynQueue 0.9.9")
    add("--json", metavar="FILE", help="write the results to a file")
    add("--smoke", action="store_true", help="only try whether everything works")
    add("--profile", action="store_true", help="profile this library's parent instead")
    options = parser.parse_args(argv)
    try:
        options.measures = choose(options.measures)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds < 1:
        parser.error(f"there's nothing to see after {options.rounds} rounds")
    return options


def machine() -> dict[str, Any]:
    """
    Describe what the measures are taken on.

    @return: A dict of plain values.
    """
    wanted = {"Twisted", "loky", "mpire", "ampoule", "numpy"}
    packages = {it.name: it.version for it in distributions() if it.name in wanted}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": packages,
    }


def takeAll(harness: Harness, names: list[str], rounds: int) -> Outcomes:
    """
    Take measures, and tell on stderr how it goes.

    @param harness: What takes them.

    @param names: The names of the measures.

    @param rounds: How many times.

    @return: The outcomes.
    """
    outcomes: Outcomes = {}
    for name, contender, take in harness.rounds(names, rounds):
        outcome = take()
        outcomes.setdefault((name, contender), []).append(outcome)
        told = outcome.error or outcome.skip or _figures(outcome)
        print(f"{name}, {CONTENDERS[contender].title}: {told}", file=sys.stderr)
    return outcomes


def _figures(outcome: Outcome) -> str:
    """
    Write the figures of an outcome in a line.

    @param outcome: The outcome.

    @return: Text.
    """
    return ", ".join(f"{key} {value:,.6g}" for key, value in outcome.figures.items())


def main(argv: list[str]) -> int:
    """
    Do what the command line says.

    @param argv: It.

    @return: The exit code: 1 if this library or a floor has failed.
    """
    options = parse(argv)
    if options.list:
        for name in options.measures:
            print(f"{name:<15} {MEASURES[name].title}")
        return 0
    harness = Harness(
        smoke=options.smoke, reference=options.reference, only=options.only
    )
    if options.profile:
        for name in options.measures:
            outcome = harness.take(name, OURS, profile=True)
            print(name, outcome.error or outcome.skip or outcome.profile, sep="\n")
        return 0
    rounds = 1 if options.smoke else options.rounds
    rows = summarize(takeAll(harness, options.measures, rounds))
    print(table(rows))
    if options.json:
        results = {"machine": machine(), "smoke": options.smoke, "results": rows}
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    failed = any(
        row["errors"] for row in rows if row["floor"] or row["contender"] == OURS
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
