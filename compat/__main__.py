"""The command: C{python -m compat}."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .environment import Target
from .errors import CheckError
from .expected import compare, load
from .programedits import PROGRAMS
from .programs import runProgram
from .rounds import Report
from .suite import SECTION, runSuite

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = {
    "suite": "Run the reference's own tests. This takes about two minutes.",
    "programs": "Run programs that were written for the reference: "
    f"{', '.join(PROGRAMS)}. This takes about four minutes.",
}

EPILOG = (
    "Exit code: 0 if everything is as expected.json says, 1 if something isn't, 2 if "
    "that can't be found out."
)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m compat",
        description="Check this library against AsynQueue 0.9.9, the reference. What "
        "that needs is downloaded with pip.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        add = commands.add_parser(
            name, help=text, description=text, epilog=EPILOG
        ).add_argument
        add(
            "checkout",
            nargs="?",
            type=Path,
            default=ROOT,
            metavar="CHECKOUT",
            help="the checkout of this library (default: that of this package)",
        )
        add("--reference", action="store_true", help="check the reference instead")
        if name == SECTION:
            add("--only", metavar="NAME", help="only tests with this in their names")
        else:
            add("--only", metavar="NAME", choices=PROGRAMS, help="only this program")
        add("--repeat", type=int, default=1, metavar="N", help="take N rounds")
        add("--json", type=Path, metavar="FILE", help="write the results to a file")
        add(
            "--folder",
            type=Path,
            help="work in this folder, use what earlier runs have downloaded and "
            "installed there, and leave it there (default: a temporary folder)",
        )
    return parser.parse_args(argv)


@contextmanager
def workFolder(given: Path | None) -> Iterator[Path]:
    """Provide a folder to work in, which is removed at the end unless it was given."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="compat") as name:
            yield Path(name).resolve()
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def check(options: argparse.Namespace, folder: Path) -> tuple[list[Report], list[str]]:
    """
    Run what the options say.

    @return: The results of each set of tests, and all differences from what is
        expected.
    """
    target = Target(None if options.reference else options.checkout.resolve())
    reports, differences = [], []
    if options.command == SECTION:
        sections = [SECTION]
    else:
        sections = [options.only] if options.only else list(PROGRAMS)
    for section in sections:
        expectation = load(section, target.kind)
        report = Report()
        if section == SECTION:
            runSuite(target, folder, report, options.only or "", options.repeat)
            complete = not options.only
        else:
            runProgram(section, target, folder, report, options.repeat)
            complete = True
        reports.append(report)
        differences += compare(expectation, report.results, complete)
    return reports, differences


def main(argv: list[str]) -> int:
    """
    Check, and say what isn't as expected.

    @return: The exit code.
    """
    options = parse(argv)
    try:
        with workFolder(options.folder) as folder:
            reports, differences = check(options, folder)
    except CheckError as error:
        print(error, file=sys.stderr)
        return 2
    results = {name: r for report in reports for name, r in report.results.items()}
    if options.json:
        rounds = {name: [x._asdict() for x in r] for name, r in results.items()}
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")
    passed = sum(all(result.passed for result in r) for r in results.values())
    print(f"{passed} of {len(results)} tests passed")
    if differences:
        print(f"{len(differences)} differences from what is expected:")
        print(*differences, sep="\n")
    return bool(differences)


if __name__ == "__main__":
    # Clean up also when it's told to terminate.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
