"""
Converts sources from Python 2 to Python 3, by the standard library's C{lib2to3}, which
is there up to Python 3.12, and by edits for what that leaves. They divide by C{divide},
of C{jobs/classicdivision.py}, which must be beside them.
"""

from __future__ import annotations

import ast
import sys
import warnings
from pathlib import Path

from .edits import Edit, applyEdits
from .errors import CheckError

__all__ = ["convert"]

IMPLEMENTS = "an interface is declared by a decorator"
ATTRIBUTE = "the attribute has another name, which lib2to3 doesn't see in a string"

#: What lib2to3 leaves, of which each program has some.
EDITS = [
    Edit(
        "*",
        r"^(class \w+.*:\n(?:(?!class ).*\n)*?) +implements\((\w+)\)\n",
        r"@implementer(\2)\n\1",
        IMPLEMENTS,
    ),
    Edit(
        "*",
        r"^(from zope\.interface import) implements$",
        r"\1 implementer",
        IMPLEMENTS,
    ),
    Edit("*", r"(['\"])im_self\1", r"\1__self__\1", ATTRIBUTE),
    Edit("*", r"(['\"])func_code\1", r"\1__code__\1", ATTRIBUTE),
    Edit(
        "*", r"\bassertItemsEqual\b", "assertCountEqual", "the assertion is called so"
    ),
]


def convert(folder: Path) -> None:
    """
    Convert the Python files of a folder, and of those below it.

    @raise CheckError: If this Python can't do it.
    """
    if sys.version_info >= (3, 13):
        raise CheckError("lib2to3 is needed, which Python 3.12 was the last to have")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from lib2to3.refactor import RefactoringTool, get_fixers_from_package

        tool = RefactoringTool(get_fixers_from_package("lib2to3.fixes"))
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf8", "replace").expandtabs(8).rstrip() + "\n"
        path.write_text(str(tool.refactor_string(text, str(path))), "utf8")
    applyEdits(folder, EDITS, needed=False)
    for path in sorted(folder.rglob("*.py")):
        path.write_text(divideClassically(path.read_text("utf8")), "utf8")


class _Division(ast.NodeTransformer):
    """Replaces divisions by calls."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Replace this one, and those in its parts."""
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("divide", ast.Load()), [node.left, node.right], [])


def divideClassically(text: str) -> str:
    """Have a module divide as in Python 2, if it divides at all."""
    tree = ast.parse(text)
    changed = ast.unparse(_Division().visit(tree))
    if changed == ast.unparse(ast.parse(text)):
        return text
    tree = ast.parse(changed)
    start = int(ast.get_docstring(tree) is not None)
    tree.body[start:start] = ast.parse("from classicdivision import divide").body
    return ast.unparse(tree) + "\n"
