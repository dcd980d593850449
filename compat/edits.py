"""Changes to sources, as data: each says what is replaced where, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from .errors import CheckError

__all__ = ["Edit", "applyEdits"]


class Edit(NamedTuple):
    """
    A change to source files.

    @ivar files: The pattern of their paths in the folder of the sources.

    @ivar pattern: A regular expression of what is replaced; C{^} and C{$} stand for the
        ends of lines.

    @ivar replacement: By what.

    @ivar reason: Why.

    @ivar limit: How many places of a file are changed at most; 0 is all.
    """

    files: str
    pattern: str
    replacement: str
    reason: str
    limit: int = 0


def applyEdits(folder: Path, edits: Iterable[Edit], needed: bool = True) -> None:
    """
    Apply edits, in their order, to the Python files of a folder and those below it.

    @param needed: Whether each of them must change something.

    @raise CheckError: If one doesn't that must.
    """
    texts = {
        path: path.read_text("utf8", "replace") for path in sorted(folder.rglob("*.py"))
    }
    for edit in edits:
        places = 0
        for path, text in texts.items():
            if fnmatch(path.relative_to(folder).as_posix(), edit.files):
                texts[path], count = re.subn(
                    edit.pattern,
                    edit.replacement,
                    text,
                    count=edit.limit,
                    flags=re.MULTILINE,
                )
                places += count
        if needed and not places:
            raise CheckError(f"nothing in {folder.name} is changed by {edit}")
    for path, text in texts.items():
        path.write_text(text, "utf8")
