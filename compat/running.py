"""
Runs tests in an environment: each test case (a class of tests) in a process of its own,
so that one that hangs or crashes spoils no other.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .processes import runWatched

__all__ = ["Result", "TestRun"]

#: The script that runs tests.
RECORD = Path(__file__).with_name("record.py")

#: How long nothing may be heard of a test before its process is killed, in seconds.
SILENCE_SECONDS = 75.0

#: How much of a process's output is shown when it crashes.
MAX_OUTPUT = 600


class Result(NamedTuple):
    """
    What came of a test.

    @ivar outcome: C{pass}, C{fail} (an assertion), C{error} (an exception), C{skip},
        C{hang} or C{crash} (of the test's process).

    @ivar why: The reason, in one line.

    @ivar tries: How often it was run.
    """

    outcome: str
    why: str = ""
    seconds: float = 0.0
    tries: int = 1

    @property
    def passed(self) -> bool:
        """Whether all was well."""
        return self.outcome == "pass"


class TestRun:
    """
    Runs tests, and collects what came of them.

    @param python: The environment's Python.

    @param folder: Where the tests are, and where the files of a run are put. Modules
        are imported from there and from the environment, from nowhere else.

    @param environ: Further environment variables.

    @param silence: How long nothing may be heard of a test, in seconds.
    """

    __test__ = False  # its name makes it look like a test case

    def __init__(
        self,
        python: Path,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._python = python
        self._folder = folder
        self._silence = silence
        self._numbers = itertools.count(1)
        self._script = shutil.copy(RECORD, folder)
        self._environ = {**os.environ, "PYTHONWARNINGS": "ignore", **(environ or {})}
        self._environ.pop("PYTHONPATH", None)

    def find(self, modules: Sequence[str]) -> tuple[list[str], dict[str, Result]]:
        """
        Find the tests of modules.

        @return: Their names, and a result for each module that can't be imported.
        """
        events, code, output = self._record(["--list"], modules)
        found = [e["test"] for e in events if e["event"] == "found"]
        broken = {
            e["test"]: Result("error", e["why"])
            for e in events
            if e["event"] == "broken"
        }
        if not events or events[-1]["event"] != "finished":
            broken[" ".join(modules)] = Result("crash", f"exit code {code}: {output}")
        return found, broken

    def run(self, tests: Iterable[str]) -> Iterator[tuple[str, dict[str, Result]]]:
        """
        Run tests, those of each test case together.

        @return: An iterator over pairs: the name of a test case, and its results.
        """
        for case, group in itertools.groupby(tests, lambda x: x.rpartition(".")[0]):
            yield case, self.runCase(list(group))

    def runCase(self, tests: Sequence[str]) -> dict[str, Result]:
        """
        Run tests in one process, and in further ones those that a hang or a crash has
        kept from being run.
        """
        results: dict[str, Result] = {}
        left = list(tests)
        while left:
            begun = time.monotonic()
            events, code, output = self._record([], left)
            new = readEvents(events, code, output, time.monotonic() - begun)
            if not new.keys() & left:
                why = f"it didn't run (exit code {code}): {output}"
                new = dict.fromkeys(left, Result("crash", why))
            results |= new
            left = [name for name in left if name not in results]
        return results

    def _record(
        self, options: list[str], names: Sequence[str]
    ) -> tuple[list[dict[str, Any]], int | None, str]:
        """Run the script; the events, its exit code, and the end of its output."""
        number = next(self._numbers)
        events = self._folder / f"{number}.events"
        log = self._folder / f"{number}.log"
        events.touch()
        trial = self._folder / f"{number}.trial"
        command = [self._python, self._script, *options, events, trial, *names]
        code = runWatched(
            [str(word) for word in command],
            watched=events,
            silence=self._silence,
            log=log,
            folder=self._folder,
            environ=self._environ,
        )
        lines = events.read_text("utf8").splitlines()
        output = " ".join(log.read_text("utf8", "replace").split())
        return [json.loads(line) for line in lines], code, output[-MAX_OUTPUT:]


def readEvents(
    events: Iterable[Mapping[str, Any]],
    code: int | None,
    output: str,
    seconds: float,
) -> dict[str, Result]:
    """
    Make results of the events of one process.

    @param code: Its exit code, or C{None} if it was killed for its silence.

    @param output: What it printed at its end.

    @param seconds: How long it ran.
    """
    results: dict[str, Result] = {}
    running = None
    finished = False
    for event in events:
        name = event["test"]
        if event["event"] == "start":
            running = name
        elif event["event"] == "end":
            results[name] = Result(event["outcome"], event["why"], event["seconds"])
            running = None
        elif event["event"] == "broken":
            results[name] = Result("error", event["why"])
        finished = event["event"] == "finished"
    if running and code is None:
        results[running] = Result("hang", "its process was killed", seconds)
    elif running:
        why = f"its process ended with exit code {code}: {output}"
        results[running] = Result("crash", why, seconds)
    elif finished and code is None and results:
        last = list(results)[-1]
        results[last] = Result("hang", "its process doesn't end", seconds)
    return results
