"""
What is expected of the tests, read from C{expected.json}, and how results differ.

That file is an object with a member for each set of tests. Such a member says how many
C{tests} there are, and which of them needn't pass: with a C{checkout} of this library,
with the C{reference}, and with C{both}. Each of these three is an object of tests by
name, with their C{outcome}, C{fails} or C{either} (it may pass or fail), and the
C{reason}, in a sentence. All other tests are expected to pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import CheckError
from .running import Result

__all__ = ["EXPECTED", "Exemption", "Expectation", "compare", "load"]

#: The file.
EXPECTED = Path(__file__).with_name("expected.json")

#: What may be said about a test's outcome.
OUTCOMES = ("fails", "either")


class Exemption(NamedTuple):
    """
    A test that may fail.

    @ivar outcome: C{fails} or C{either}.

    @ivar reason: Why, in a sentence.
    """

    outcome: str
    reason: str


class Expectation(NamedTuple):
    """
    What is expected of a set of tests.

    @ivar tests: How many there are.

    @ivar exemptions: Those that may fail, by name.
    """

    tests: int
    exemptions: Mapping[str, Exemption]


def load(section: str, kind: str, path: Path = EXPECTED) -> Expectation:
    """
    Read what is expected.

    @param section: Of which set of tests.

    @param kind: With a C{checkout} or the C{reference}.

    @raise CheckError: If the file doesn't say it as it should.
    """
    try:
        part = json.loads(path.read_text("utf8"))[section]
        exemptions = {
            name: _exemption(name, said)
            for whose in ("both", kind)
            for name, said in part[whose].items()
        }
        return Expectation(int(part["tests"]), exemptions)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckError(f"{path.name}, {section}, {kind}: {error!r}") from error


def _exemption(name: str, said: Mapping[str, Any]) -> Exemption:
    """Check what the file says about a test."""
    exemption = Exemption(**said)
    if exemption.outcome not in OUTCOMES:
        raise ValueError(f"{name}: the outcome is none of {', '.join(OUTCOMES)}")
    if not (exemption.reason[:1].isupper() and exemption.reason.endswith(".")):
        raise ValueError(f"{name}: the reason isn't a sentence")
    return exemption


def compare(
    expectation: Expectation,
    results: Mapping[str, Sequence[Result]],
    complete: bool = True,
) -> list[str]:
    """
    Compare results with what is expected.

    @param results: For each test its results, one for each round.

    @param complete: Whether all tests were to be run.

    @return: The differences, a text for each; there are none if all is as expected.
    """
    differences = []
    for name, rounds in sorted(results.items()):
        exemption = expectation.exemptions.get(name)
        failed = [result for result in rounds if not result.passed]
        if exemption is None and failed:
            how = f" in {len(failed)} of {len(rounds)} rounds" if rounds[1:] else ""
            why = f"{failed[0].outcome}: {failed[0].why}"
            differences.append(f"{name} fails{how}, which isn't expected\n    {why}")
        elif exemption and exemption.outcome == "fails" and not failed:
            differences.append(
                f"{name} passes, though it's expected to fail\n    {exemption.reason}"
            )
    if complete:
        differences += [
            f"{name} is expected to fail, and isn't there"
            for name in sorted(expectation.exemptions.keys() - results.keys())
        ]
        if len(results) != expectation.tests:
            differences.append(f"{len(results)} tests, not {expectation.tests}")
    return differences
