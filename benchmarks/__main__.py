"""The command: C{python -m benchmarks}."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .catalogue import MEASURES, choose
from .contenders import CONTENDERS, OURS
from .documents import rst
from .harness import Harness, Outcome
from .machine import describe
from .picture import draw
from .report import table
from .summary import Outcomes, summarize

#: So many rounds are taken if nothing else is said.
ROUNDS = 5


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line: the options, and the names of measures that were given."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this library beside its peers and the machine's floors.",
    )
    add = parser.add_argument
    add("measures", nargs="*", metavar="MEASURE", help="by default, all")
    add("--list", action="store_true", help="say what can be measured, and end")
    add("--rounds", type=int, default=ROUNDS, help="how many (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        metavar="CONTENDER",
        choices=CONTENDERS,
        help="leave out others",
    )
    add("--reference", metavar="PYTHON", help="a Python that has AsynQueue 0.9.9")
    add("--before", metavar="CHECKOUT", help="measure that of another checkout, too")
    add("--json", metavar="FILE", help="write the results to a file")
    add("--from", metavar="FILE", dest="results", help="show those of such a file")
    add("--svg", metavar="FILE", help="draw a picture of them, and FILE-dark.svg")
    add("--rst", metavar="FILE", help="write them as tables for documentation")
    add("--smoke", action="store_true", help="only try whether everything works")
    add("--profile", action="store_true", help="profile this library's parent instead")
    options = parser.parse_args(argv)
    given = options.measures
    try:
        options.measures = choose(options.measures)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds < 1:
        parser.error(f"there's nothing to see after {options.rounds} rounds")
    return options, given


def takeAll(
    harness: Harness,
    names: list[str],
    rounds: int,
    save: Callable[[Outcomes], object],
) -> Outcomes:
    """
    Take measures so many times, and tell on stderr how it goes. C{save} is called with
    what is there, each time that there's more.
    """
    outcomes: Outcomes = {}
    for name, contender, take in harness.rounds(names, rounds):
        outcome = take()
        outcomes.setdefault((name, contender), []).append(outcome)
        told = outcome.error or outcome.skip or _figures(outcome)
        print(f"{name}, {CONTENDERS[contender].title}: {told}", file=sys.stderr)
        save(outcomes)
    return outcomes


def _figures(outcome: Outcome) -> str:
    """Write the figures of an outcome in a line."""
    return ", ".join(f"{key} {value:,.6g}" for key, value in outcome.figures.items())


def commandOf(options: argparse.Namespace, given: list[str]) -> str:
    """
    Write the command by which others get such results, with the names of measures as
    they were given.
    """
    words = ["python -m benchmarks", *given]
    if options.smoke:
        words.append("--smoke")
    elif options.rounds != ROUNDS:
        words.append(f"--rounds {options.rounds}")
    if options.only:
        words.append(f"--only {' '.join(options.only)}")
    if options.reference:
        words.append("--reference PYTHON")
    if options.before:
        words.append("--before CHECKOUT")
    return " ".join(words)


def measure(options: argparse.Namespace, given: list[str]) -> dict[str, Any]:
    """
    Take the measures that the command line asks for. Returns the results as in JSON.
    """
    results: dict[str, Any] = {
        "command": commandOf(options, given),
        "machine": describe(options.reference),
        "smoke": options.smoke,
        "results": [],
    }

    def save(outcomes: Outcomes) -> None:
        """Keep what there is, since a run takes long."""
        results["results"] = summarize(outcomes)
        if options.json:
            write(options.json, json.dumps(results, indent=1))

    rounds = 1 if options.smoke else options.rounds
    harness = Harness(
        smoke=options.smoke,
        reference=options.reference,
        only=options.only,
        before=options.before,
    )
    takeAll(harness, options.measures, rounds, save)
    return results


def write(path: str, text: str) -> None:
    """Write a file, whole or not at all, and the folder that it's in."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    new.write_text(text)
    new.replace(target)


def show(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the results, and write the files that are asked for."""
    print(table(results["results"]))
    if options.svg:
        write(options.svg, draw(results))
        dark = options.svg.removesuffix(".svg") + "-dark.svg"
        write(dark, draw(results, dark=True))
    if options.rst:
        write(options.rst, rst(results))


def profile(options: argparse.Namespace) -> None:
    """Print profiles of this library's parent."""
    harness = Harness(smoke=options.smoke)
    for name in options.measures:
        outcome = harness.take(name, OURS, profile=True)
        print(name, outcome.error or outcome.skip or outcome.profile, sep="\n")


def main(argv: list[str]) -> int:
    """
    Do what the command line says. The exit code is 1 if this library or a floor has
    failed.
    """
    options, given = parse(argv)
    if options.list:
        for name in options.measures:
            print(f"{name:<15} {MEASURES[name].title}")
        return 0
    if options.profile:
        profile(options)
        return 0
    if options.results:
        results = json.loads(Path(options.results).read_text())
    else:
        results = measure(options, given)
    show(options, results)
    failed = any(
        row["errors"]
        for row in results["results"]
        if row["floor"] or CONTENDERS[row["contender"]].own
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
