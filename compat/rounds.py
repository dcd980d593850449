"""Runs tests several times over, and keeps the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

from .running import Result, TestRun

__all__ = ["MAX_TRIES", "Report", "runRounds"]

#: How often a test is run in a round that depends on the machine's speed, or on chance.
MAX_TRIES = 5


class Report:
    """
    The results of tests, which are printed as they come.

    @ivar results: For each test its results, one for each round.
    """

    def __init__(self) -> None:
        self.results: dict[str, list[Result]] = {}

    def add(self, title: str, results: Mapping[str, Result]) -> None:
        """
        Add results of one round, and print how many tests passed.

        @param title: What they have in common.
        """
        for name, result in results.items():
            self.results.setdefault(name, []).append(result)
        passed = sum(result.passed for result in results.values())
        seconds = sum(result.seconds for result in results.values())
        line = f"{title}: {passed} of {len(results)} passed, {seconds:.1f} s"
        again = sum(result.tries > 1 for result in results.values())
        print(line + (f", {again} tried again" if again else ""), flush=True)


def runRounds(
    run: TestRun,
    modules: Sequence[str],
    report: Report,
    *,
    only: str = "",
    rounds: int = 1,
    retried: Sequence[str] = (),
    prefix: str = "",
) -> None:
    """
    Run the tests of modules.

    @param report: What takes the results.

    @param only: If given, only tests are run that have this in their name.

    @param rounds: How often they are run.

    @param retried: Patterns of tests that get further tries when they fail.

    @param prefix: What all names begin with, which isn't reported.
    """
    found, broken = run.find([prefix + module for module in modules])
    if broken:
        report.add("not loaded", _shorten(broken, prefix))
    names = [name for name in found if only in name.removeprefix(prefix)]
    for number in range(1, rounds + 1):
        if rounds > 1:
            print(f"Round {number} of {rounds}", flush=True)
        for case, results in run.run(names):
            tried = _tryAgain(run, results, [prefix + pattern for pattern in retried])
            report.add(case.removeprefix(prefix), _shorten(tried, prefix))


def _tryAgain(
    run: TestRun, results: Mapping[str, Result], retried: Sequence[str]
) -> dict[str, Result]:
    """Give failed tests that match a pattern further tries, each one alone."""
    tried = dict(results)
    for name in results:
        if any(fnmatch(name, pattern) for pattern in retried):
            while not tried[name].passed and tried[name].tries < MAX_TRIES:
                tries = tried[name].tries + 1
                tried[name] = run.runCase([name])[name]._replace(tries=tries)
    return tried


def _shorten(results: Mapping[str, Result], prefix: str) -> dict[str, Result]:
    """Leave out what all names begin with."""
    return {name.removeprefix(prefix): result for name, result in results.items()}
