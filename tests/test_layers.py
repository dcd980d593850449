"""Tests of how the modules of the package may import one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import asynqueue

PACKAGE = Path(asynqueue.__file__).parent

#: A layer a line, lowest first: modules at the root, and folders. Modules import from
#: lower lines, and from their own folder. The root package is above all.
LAYERS = """
_version errors
_child
interfaces _support info
iteration util events
tasks
base
_asyncworker threads
process wire executor dask
null workers credentials service
testing
monitor
"""

#: Modules that only re-export, for users.
FACADES = {"util", "workers"}

#: Modules that are run, and would exist twice if they were imported as well.
RUNNABLE = {"_child.child", "wire.__main__", "monitor.__main__"}

#: The kinds of workers. Nothing in one imports another, but for what is shared.
KINDS = {"_asyncworker", "dask", "executor", "process", "threads", "wire"}

#: Modules of one kind that others may import: threads for whatever needs one.
SHARED = {"threads._looper"}

#: A module that children import only if they are to have a reactor. It may import what
#: is above its folder.
REACTOR_CHILD = "_child.childreactor"


def layers() -> dict[str, int]:
    """
    Read the table: the number of its layer for each module at the root, and folder.
    """
    lines = LAYERS.split("\n")
    return {name: i for i, line in enumerate(lines) for name in line.split()}


def nameOf(path: Path) -> str:
    """
    Give the dotted name of a module without that of the root package, itself C{""}.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top(module: str) -> str:
    """Give the part of a module's name that stands in the table."""
    return module.partition(".")[0]


def imported(package: tuple[str, ...], source: str) -> Iterator[str]:
    """
    Find all that a module of a package imports, wherever in it the imports stand: also
    in functions, and under C{TYPE_CHECKING}.

    Names are absolute, those of the root package as C{asynqueue.…}. For C{from m import
    n} it's C{m.n}, which may be a module or a name in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ("asynqueue", *package)[: len(package) + 2 - node.level]
            base = above if node.level else ()
            names = (*base, *((node.module,) if node.module else ()))
            yield from (".".join((*names, alias.name)) for alias in node.names)


class ImportedTests(SynchronousTestCase):
    """Tests of L{imported}, on which the others rely."""

    def test_relative(self) -> None:
        """Relative imports are resolved from the package that the module is in."""
        source = "from .framing import f\nfrom .. import base\nfrom ..tasks import Task"
        self.assertEqual(
            list(imported(("_process",), source)),
            ["asynqueue._process.framing.f", "asynqueue.base", "asynqueue.tasks.Task"],
        )

    def test_anywhere(self) -> None:
        """Imports are found in functions and in guarded blocks, absolute ones too."""
        source = (
            "if TYPE_CHECKING:\n    import asynqueue.base\n"
            "def f():\n    from asynqueue import errors\n"
        )
        self.assertEqual(
            list(imported((), source)),
            ["asynqueue.base", "asynqueue.errors"],
        )


class LayerTests(SynchronousTestCase):
    """Tests of the package as it is."""

    def setUp(self) -> None:
        """Find all modules, and which of one another they import."""
        paths = {nameOf(path): path for path in PACKAGE.rglob("*.py")}
        self.modules = set(paths)
        self.edges: list[tuple[str, str]] = []
        self.outside: list[tuple[str, str]] = []
        for module, path in sorted(paths.items()):
            package = path.relative_to(PACKAGE).parent.parts
            for name in imported(package, path.read_text(encoding="utf-8")):
                root, _, rest = name.partition(".")
                if root != "asynqueue":
                    self.outside.append((module, root))
                    continue
                while rest not in self.modules:
                    rest = rest.rpartition(".")[0]
                self.edges.append((module, rest))

    def test_complete(self) -> None:
        """The table has each module at the root and each folder once, and no other."""
        names = LAYERS.split()
        self.assertEqual(sorted(names), sorted({top(m) for m in self.modules} - {""}))

    def test_downwards(self) -> None:
        """A module imports only from layers below its own, and from its own folder."""
        rank = layers()
        rank[""] = len(rank)
        wrong = [
            (m, t)
            for m, t in self.edges
            if t
            and m != REACTOR_CHILD
            and top(m) != top(t)
            and rank[top(t)] >= rank[top(m)]
        ]
        self.assertEqual(wrong, [])

    def test_acyclic(self) -> None:
        """No modules import one another in a circle, neither within a folder."""
        graph: dict[str, set[str]] = {module: set() for module in self.modules}
        for module, target in self.edges:
            if module and target:
                graph[module].add(target)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(" -> ".join(error.args[1]))

    def test_root(self) -> None:
        """No module imports from the root package, which is above all others."""
        self.assertEqual([m for m, t in self.edges if m and not t], [])

    def test_facades(self) -> None:
        """The facades are for users: no module imports one, save the root package."""
        self.assertEqual([e for e in self.edges if e[0] and e[1] in FACADES], [])

    def test_runnable(self) -> None:
        """No module imports one that is run."""
        self.assertEqual([e for e in self.edges if e[1] in RUNNABLE], [])

    def test_kinds(self) -> None:
        """No module of one kind of worker imports one of another kind."""
        wrong = [
            (m, t)
            for m, t in self.edges
            if {top(m), top(t)} <= KINDS and top(m) != top(t) and t not in SHARED
        ]
        self.assertEqual(wrong, [])

    def test_light(self) -> None:
        """
        What children import at their start imports neither Twisted nor anything else
        that takes its time.
        """
        light = {m for m in self.modules if top(m) in ("_child", "info")}
        light = light - {REACTOR_CHILD} | {"", "_version"}
        heavy = {"attr", "attrs", "twisted", "zope", "numpy"}
        self.assertEqual(
            [e for e in self.outside if e[0] in light and e[1] in heavy], []
        )
        wrong = [
            (m, t)
            for m, t in self.edges
            if m in light - {""} and t not in (*light, REACTOR_CHILD)
        ]
        self.assertEqual(wrong, [])
