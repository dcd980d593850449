"""
Has type checkers look at L{tests.typed_client}, and compares what they find with what
stands there: C{python -m tests.typecheck}.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).with_name("typed_client.py")
ROOT = CLIENT.parent.parent

#: The command of each, which knows what is expected after a comment with its name.
CHECKERS = {
    "mypy-zope": [sys.executable, "-m", "mypy"],
    "mypy": [
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        f"--cache-dir={os.devnull}",
    ],
    "pyright": [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}"],
}

#: What they write about a line.
_FOUND = re.compile(
    r'typed_client\.py:(\d+):.*?(error|Revealed type is|Type of .* is)(?: "(.*)")?'
)


def expected(checker: str) -> set[tuple[int, str]]:
    """Read what is to be found: pairs of a line, and a type or C{"error"}."""
    wanted: set[tuple[int, str]] = set()
    for number, line in enumerate(CLIENT.read_text().splitlines(), 1):
        code, _, comment = line.partition("  # ")
        if comment in ("error", f"error of {checker}"):
            wanted.add((number, "error"))
        elif "reveal_type(" in code:
            wanted.add((number, comment))
    return wanted


def found(checker: str) -> set[tuple[int, str]]:
    """Run a checker, and read what it has found."""
    done = subprocess.run(
        [*CHECKERS[checker], str(CLIENT)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return {
        (int(line), "error" if kind == "error" else _short(revealed))
        for line, kind, revealed in _FOUND.findall(done.stdout)
    }


def _short(revealed: str) -> str:
    """Take the names of modules out of a type."""
    return re.sub(r"\b[a-z_]\w*\.", "", revealed)


def main() -> bool:
    """Say what differs. Returns whether nothing does."""
    good = True
    for checker in CHECKERS:
        wanted, seen = expected(checker), found(checker)
        print(f"{checker}: {len(wanted & seen)} of {len(wanted)} as expected")
        for line, what in sorted(wanted - seen):
            print(f"{CLIENT}:{line}: {checker} doesn't find: {what}")
        for line, what in sorted(seen - wanted):
            print(f"{CLIENT}:{line}: {checker} finds: {what}")
        good = good and wanted == seen
    return good


if __name__ == "__main__":
    sys.exit(not main())
