"""The command that starts a Python interpreter like this one."""

from __future__ import annotations

import os
import sys
from multiprocessing.spawn import get_executable
from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

from .._child.startup import PARENT_VARIABLE
from ..errors import WorkerStartError

__all__ = ["interpreterCommand"]

#: What multiprocessing names if it hasn't been told otherwise.
_FOUND = sys.executable


def interpreterCommand() -> list[str]:
    """
    Give the interpreter and its options. Embedding programs name the interpreter by
    C{multiprocessing.set_executable}.

    @raise WorkerStartError: If there's none, or this program seems to have been started
        in its place.
    """
    named = os.fsdecode(get_executable() or "")
    executable = sys.executable if named in ("", _FOUND) else named
    problem = None
    if not executable:
        problem = "Python doesn't know the path of its interpreter (sys.executable)"
    elif executable == sys.executable and _isFrozen():
        problem = "This program is frozen, so that sys.executable is the program itself"
    elif PARENT_VARIABLE in os.environ:
        problem = (
            "This program has been started in place of a Python interpreter, because"
            " sys.executable names it"
        )
    if problem is not None:
        raise WorkerStartError(
            f"No child processes can be started: {problem}. Name an interpreter by"
            " multiprocessing.set_executable(), or use threads"
        )
    return [executable, *_args_from_interpreter_flags()]


def _isFrozen() -> bool:
    """Tell whether one of the usual freezers has made this program."""
    return (
        bool(getattr(sys, "frozen", False) or getattr(sys, "oxidized", False))
        or "__compiled__" in globals()  # Nuitka
        or hasattr(sys.modules["__main__"], "__compiled__")
    )
