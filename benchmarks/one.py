"""
Takes one measure of one contender. Run by the harness in a fresh interpreter::

    python -m benchmarks.one SPECIFICATION FILE

The specification is JSON: an object with C{module}, C{contender}, C{sizes}, and
C{profile}. So is what is written to the file: an object with C{figures}, or C{skip} or
C{error} and a reason.
"""

from __future__ import annotations

import json
import os
import sys
from cProfile import Profile
from importlib import import_module
from io import StringIO
from pstats import Stats
from typing import Any

from .contenders.base import CannotDo
from .timing import profileWith

#: So many functions of a profile are shown.
_FUNCTIONS = 40


def write(path: str, outcome: dict[str, Any]) -> None:
    """Write an outcome, whole or not at all."""
    with open(f"{path}.new", "w") as file:
        json.dump(outcome, file)
    os.replace(f"{path}.new", path)


def main(specification: str, path: str) -> None:
    """Take a measure."""
    spec = json.loads(specification)
    profile = Profile() if spec.get("profile") else None
    if profile is not None:
        profileWith(profile)
    outcome: dict[str, Any] = {}

    def report(figures: dict[str, float]) -> None:
        outcome["figures"] = figures
        write(path, {**outcome, "note": "didn't shut down"})

    try:
        module = import_module(f"{__package__}.measures.{spec['module']}")
        module.run(spec["contender"], spec["sizes"], report)
    except CannotDo as reason:
        outcome["skip"] = str(reason)
    except Exception as error:  # noqa: BLE001 - contenders fail in ways of their own
        text = str(error).strip().partition("\n")[0]
        outcome["error"] = f"{type(error).__name__}: {text}"
    if profile is not None:
        out = StringIO()
        Stats(profile, stream=out).sort_stats("tottime").print_stats(_FUNCTIONS)
        outcome["profile"] = out.getvalue()
    write(path, outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
