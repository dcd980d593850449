"""The programs that were written for the reference, and what is changed in them."""

from __future__ import annotations

from typing import NamedTuple

from .edits import Edit

__all__ = ["PROGRAMS", "REQUIREMENTS", "Program"]

#: What the programs need, in versions that are about as old as they are.
REQUIREMENTS = [
    "ipcalc == 1.99.0",
    "matplotlib < 3.9",
    "numpy < 2",
    "pyDOE == 0.9.3",
    "scipy < 1.12",
    "setuptools < 80",
    "six",
    "sqlalchemy == 1.3.24",
    "twisted",
    "urwid",
    "yampex == 1.0.1",
]

IMPLICIT = "Python 2 looked for modules in the importing module's own package first"
SHADOWS = "it makes modules of the package hide those of the standard library"
DATABASE = "it's what the tests name as the alternative to a MySQL server"


class Program(NamedTuple):
    """
    A program.

    @ivar requirement: Its name and version, for pip.

    @ivar files: Patterns of the files of its package that are needed.

    @ivar edits: What is changed in them, after the conversion to Python 3.

    @ivar needs: The names of other programs that it imports.

    @ivar retried: Patterns of tests that get further tries when they fail.
    """

    requirement: str
    files: tuple[str, ...]
    edits: tuple[Edit, ...]
    needs: tuple[str, ...] = ()
    retried: tuple[str, ...] = ()


PROGRAMS = {
    "ade": Program(
        "ade==1.3.3",
        ("*.py", "test/*.py"),
        (
            Edit(
                "history.py",
                r"from io import StringIO",
                "from io import BytesIO as StringIO",
                "arrays are saved as bytes",
            ),
            Edit(
                "*",
                r"bytes\(self\.SSE\)",
                "repr(self.SSE).encode()",
                "bytes was another name of str",
            ),
            Edit(
                "test/testbase.py",
                r"^    def equals\(",
                "    def __ne__(self, other): return self is not other\n\n\\g<0>",
                "Python 2 didn't ask __eq__ whether objects differ",
            ),
        ),
        # They search for minima at random, and ask for what is only likely.
        retried=("ade.*",),
    ),
    "sasync": Program(
        "sasync==0.9.3",
        ("*.py", "test/*.py"),
        (
            Edit("test/__init__.py", r"(?s)\A.*", "", SHADOWS),
            Edit(
                "test/*",
                r"^from \.?database import",
                "from sasync.database import",
                IMPLICIT,
            ),
            Edit(
                "test/*",
                r"^from \.?people import",
                "from sasync.test.people import",
                IMPLICIT,
            ),
            Edit(
                "test/*",
                r"^from \.?testbase import",
                "from sasync.test.testbase import",
                IMPLICIT,
            ),
            Edit(
                "test/test_queue.py",
                r"^import queue$",
                "from sasync import queue",
                IMPLICIT,
            ),
            Edit("test/*", r"mysql://test@localhost/test", "sqlite://", DATABASE),
            Edit(
                "test/testbase.py",
                r"^    def __cmp__\(",
                "    def __eq__(self, other): return not self.__cmp__(other)\n\n\\g<0>",
                "Python 3 doesn't ask __cmp__ whether objects are equal",
            ),
        ),
    ),
    "logalyzer": Program(
        "logalyzer==0.4",
        # All tests but those of its windows in a terminal.
        ("*.py", "test/__init__.py", "test/testbase.py", "test/test_[!g]*.py"),
        (
            Edit("test/__init__.py", r"(?s)\A.*", "", SHADOWS),
            Edit(
                "test/*",
                r"^( *)(?:from \. )?import (database|gui|logread|parse|records|sift)$",
                r"\1from logalyzer import \2",
                IMPLICIT,
            ),
            Edit(
                "test/*",
                r"^from \.?testbase import",
                "from logalyzer.test.testbase import",
                IMPLICIT,
            ),
            Edit(
                "test/*",
                r"^(?:from \. )?import testbase as",
                "from logalyzer.test import testbase as",
                IMPLICIT,
            ),
            Edit("test/*", r"mysql://test@localhost/test", "sqlite://", DATABASE),
            Edit(
                "test/test_logread.py",
                r"def test_run\(",
                "def _untested_run(",
                "without a log that isn't in the source distribution it hangs",
            ),
        ),
        ("sasync",),
    ),
    "pingspice": Program(
        "pingspice==0.4.2",
        (
            "__init__.py",
            "errors.py",
            "util.py",
            "analysis/__init__.py",
            "analysis/evaluate.py",
            "analysis/wire.py",
        ),
        (
            Edit(
                "analysis/evaluate.py",
                r"(?s)\A.*",
                "from evaluator import Evaluator",
                "the real one needs a module that isn't in the source distribution",
            ),
            Edit(
                "analysis/wire.py",
                r'pickleString = ""',
                'pickleString = b""',
                "pickles are bytes",
            ),
        ),
        ("ade",),
    ),
}
