"""
Takes measures, each in a fresh interpreter with a time limit, in interleaved rounds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from compileall import compile_dir
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from .catalogue import MEASURES, Measure
from .contenders import BEFORE, CONTENDERS, OURS, REFERENCE

ROOT = Path(__file__).resolve().parent.parent

#: How the error of one begins that has hung.
_HUNG = "hung: "

#: The packages of the checkout that contenders other than the reference find.
_PACKAGES = ("benchmarks", "asynqueue")


class Outcome(NamedTuple):
    """
    What has come of a measure.

    @ivar figures: The figures, if there are any.

    @ivar skip: Why it wasn't taken, if it wasn't.

    @ivar error: How it failed, if it did.

    @ivar note: What there's to say about it in spite of its success.

    @ivar profile: The profile, if one was asked for.
    """

    figures: dict[str, float] = {}  # noqa: RUF012 - never changed
    skip: str = ""
    error: str = ""
    note: str = ""
    profile: str = ""

    @property
    def hung(self) -> bool:
        """Whether it had to be ended."""
        return self.error.startswith(_HUNG)


def runLimited(
    command: list[str], folder: Path, env: dict[str, str], limit: float
) -> str:
    """
    Run a program with all that it starts in a session of its own, and end them all
    after so many seconds at most. Returns how it failed, nothing if it didn't.
    """
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"{_HUNG}no end within {limit:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return ""
    said = (folder / "output").read_text(errors="replace").strip()
    last = said.splitlines()[-1:]
    return ": ".join([f"died with exit code {code}", *last])


class Harness:
    """
    Takes measures.

    Whoever has hung isn't asked again for the same, since that takes long.
    """

    def __init__(
        self,
        *,
        smoke: bool = False,
        reference: str | None = None,
        only: list[str] | None = None,
        before: str | None = None,
    ) -> None:
        self.smoke = smoke
        self._reference = reference
        self._only = only
        self._before = None if before is None else Path(before).resolve()
        self._hung: set[tuple[str, str]] = set()
        # Packages that are installed have been compiled.
        for root in (ROOT, self._before):
            if root is not None:
                compile_dir(root / _PACKAGES[-1], quiet=2)

    def contenders(self, measure: Measure) -> list[str]:
        """Find who takes part in a measure and is installed."""
        names = list(measure.contenders)
        if self._before is not None and OURS in names:
            names.insert(names.index(OURS) + 1, BEFORE)
        return [
            name
            for name in names
            if (self._only is None or name in self._only)
            and CONTENDERS[name].installed
            and (name != REFERENCE or self._reference is not None)
        ]

    def rounds(
        self, names: list[str], count: int
    ) -> Iterator[tuple[str, str, Callable[[], Outcome]]]:
        """
        Go through all that is to be taken, everybody's turn coming once in each round,
        at another place than in the last. Yields a measure, a contender, and what takes
        the one of the other.
        """
        for number in range(count):
            for name in names:
                contenders = self.contenders(MEASURES[name])
                turn = number % max(len(contenders), 1)
                for who in contenders[turn:] + contenders[:turn]:
                    if (name, who) not in self._hung:
                        yield name, who, partial(self.take, name, who)

    def take(self, name: str, contender: str, *, profile: bool = False) -> Outcome:
        """Take a measure of a contender in a fresh interpreter."""
        measure = MEASURES[name]
        spec: dict[str, Any] = {
            "module": measure.module,
            "contender": OURS if contender == BEFORE else contender,
            "sizes": {**measure.sizes, **(measure.smoke if self.smoke else {})},
            "profile": profile,
        }
        python = sys.executable
        if contender == REFERENCE and self._reference is not None:
            python = self._reference
        with _folder(contender, self._before) as (folder, env):
            path = folder / "outcome"
            command = [python, "-m", "benchmarks.one", json.dumps(spec), str(path)]
            failure = runLimited(command, folder, env, measure.limit)
            if path.exists():
                return Outcome(**json.loads(path.read_text()))
        outcome = Outcome(error=failure or "ended without a word")
        if outcome.hung:
            self._hung.add((name, contender))
        return outcome


@contextmanager
def _folder(
    contender: str, before: Path | None
) -> Iterator[tuple[Path, dict[str, str]]]:
    """
    Make a folder in which Python finds what a contender needs and nothing else of the
    checkout, since the reference is a package of the same name. Gives the folder, and
    the environment.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        packages = _PACKAGES[:1] if contender == REFERENCE else _PACKAGES
        for package in packages:
            root = ROOT
            if contender == BEFORE and before is not None and package != _PACKAGES[0]:
                root = before
            (folder / package).symlink_to(root / package, target_is_directory=True)
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        yield folder, env
