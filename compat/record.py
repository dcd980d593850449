"""
Runs tests with trial, and says in a file what comes of each as soon as it's known.

    python record.py [--list] EVENTS FOLDER NAME...

Each line of the file is a JSON object whose C{event} is C{found} (a test), C{broken}
(something that can't be loaded, or failed outside of tests), C{start}, C{end} (of a
test) or C{finished}. This file is run by its path, in environments without the rest of
this package.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import unittest
from collections.abc import Iterator
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.reporter import Reporter
from twisted.trial.runner import ErrorHolder, TestLoader, TrialRunner

#: How much of an error's text is passed on.
MAX_TEXT = 600


class EventFile:
    """A file of events."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf8")  # noqa: SIM115 - to the end

    def write(self, event: str, test: str = "", **details: object) -> None:
        """Add an event."""
        line = json.dumps({"event": event, "test": test, **details})
        self._file.write(line + "\n")
        self._file.flush()


class Recorder(Reporter):
    """Passes the outcomes of tests on to a file of events."""

    events: EventFile

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._begun: float | None = None
        self._outcome = "pass"
        self._why: list[str] = []

    def startTest(self, test: Any) -> None:
        """Record that a test starts."""
        super().startTest(test)
        self._begun, self._outcome, self._why = time.monotonic(), "pass", []
        self.events.write("start", test.id())

    def addError(self, test: Any, error: Any) -> None:
        """Note an exception in a test, or one that belongs to no test."""
        super().addError(test, error)
        if self._begun is None:
            self.events.write("broken", test.id(), why=describe(error))
        else:
            self._note("error", describe(error))

    def addFailure(self, test: Any, fail: Any) -> None:
        """Note that an assertion failed."""
        super().addFailure(test, fail)
        self._note("fail", describe(fail))

    def addSkip(self, test: Any, reason: Any) -> None:
        """Note that a test was skipped."""
        super().addSkip(test, reason)
        self._note("skip", str(reason))

    def stopTest(self, test: Any) -> None:
        """Record what came of the test."""
        super().stopTest(test)
        seconds = round(time.monotonic() - (self._begun or 0), 3)
        why = " | ".join(self._why)
        self._begun = None
        self.events.write(
            "end", test.id(), outcome=self._outcome, why=why, seconds=seconds
        )

    def _note(self, outcome: str, why: str) -> None:
        """Keep the first outcome, and all reasons."""
        if not self._why:
            self._outcome = outcome
        self._why.append(why)


def describe(error: Any) -> str:
    """Put an error into one line."""
    if not isinstance(error, Failure):
        error = Failure(error[1], error[0], error[2])
    text = f"{error.type.__name__}: {error.getErrorMessage()}"
    return " ".join(text.split())[:MAX_TEXT]


def flatten(suite: Any) -> Iterator[Any]:
    """Iterate over the tests of a suite, and of those in it."""
    if isinstance(suite, unittest.TestSuite):
        for part in suite:
            yield from flatten(part)
    else:
        yield suite


def main() -> None:
    """Find the tests, and run them if wanted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("events")
    parser.add_argument("folder")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    events = Recorder.events = EventFile(options.events)
    suite = TestLoader().loadByNames(options.names, recurse=True)
    if options.list:
        for test in flatten(suite):
            if isinstance(test, ErrorHolder):
                events.write("broken", test.id(), why=describe(test.error))
            else:
                events.write("found", test.id())
    else:
        TrialRunner(Recorder, workingDirectory=options.folder).run(suite)
    events.write("finished")
    sys.stdout.flush()
    if options.list:
        os._exit(0)  # whatever importing the tests has started


if __name__ == "__main__":
    main()
