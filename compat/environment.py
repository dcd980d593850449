"""Virtual environments with a checkout, or with the reference."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .download import REFERENCE
from .processes import runCommand

__all__ = ["Target", "makeEnvironment"]


class Target(NamedTuple):
    """
    What is checked.

    @ivar checkout: The folder of a checkout of this library, or C{None} for the
        reference.
    """

    checkout: Path | None

    @property
    def kind(self) -> str:
        """Whose exceptions hold, those of C{checkout} or C{reference}."""
        return "checkout" if self.checkout else "reference"

    @property
    def requirement(self) -> str:
        """What pip is told to install."""
        return str(self.checkout or REFERENCE)


def makeEnvironment(
    folder: Path,
    name: str,
    requirements: Sequence[str],
    target: Target,
    modules: Path,
) -> Path:
    """
    Make a virtual environment of this Python, or use that of an earlier run. What is
    checked is installed anew each time.

    @param folder: Where environments are kept.

    @param name: What it's for.

    @param requirements: What it needs beside what is checked.

    @param modules: A folder with further modules. It's named in a file of the
        environment: the reference starts servers with an empty C{PYTHONPATH}.

    @return: Its Python.
    """
    key = "\n".join([sys.version, target.requirement, *requirements])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    home = folder / f"{name}-{target.kind}-{digest}"
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q"]
    complete = home / "complete"
    if complete.exists():
        # A checkout may have changed, though its version is the same.
        runCommand(*pip, "--force-reinstall", "--no-deps", target.requirement)
    else:
        shutil.rmtree(home, ignore_errors=True)
        runCommand(sys.executable, "-m", "venv", home)
        runCommand(*pip, *requirements, target.requirement)
        complete.touch()
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "compat.pth").write_text(f"{modules}\n")
    return python
