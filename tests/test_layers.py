"""
Tests of how the modules of the package may import one another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import asynqueue

PACKAGE = Path(asynqueue.__file__).parent

#: A layer a line, lowest first. Modules import from lower lines only, and their
#: packages' C{__init__} counts as a module. The root package is above all.
LAYERS = """
_version errors _status _about _ended _process _process.shared _threads _wire
_mainmodule _process.claims _process.regions _process.pickling _process.anonymous
_process.parcels _process.states
_reactor _log interfaces _process.framing _process.payloads _process.memory
_calls _chunks info _delay _kill _sync _output _process.raised _process.starts
_process.stream
_process.options _process.outbox _process.inbox
_process.boxes
_sources _process.universe _process.exceptions _process.delivery
_threads.loop _threads.channel _process.transport _process.jobs _process.answers
_feed _process.reactorchild _process.handle
_handout
_deferator _process.loop
_prefetcherator _producer _listconsumer _process.child
iteration
_faraway
_process.iteration _threads.iteration
_threads.call
_threads.looper
_threads.pool
_threads.getter
_threads.consumerator _threads.filerator
_threads.ordered
_task _load _priority
_backlog _policy _mapping
_assignment _callopts
tasks
_outcome _queue
base
_asyncworker _process.worker _threads.worker
_wire.logs
_wire.plain _wire.chunks _wire.commands _wire.limits _wire.slots _wire.universe
_wire.encoder _wire.decoder _wire.places _wire.private _wire.doors
_wire.values _wire.peer _wire.keys _wire.certificates
_wire.tls
_wire.making _wire.gate _wire.setup
_wire.raised _wire.pushing _wire.iteration _wire.runner _wire.servergate
_wire.clientgate
_wire.served _wire.link _wire.ends _wire.serverprocess
_wire.client _wire.server
_wire.command _wire.managed _wire.localserver
_wire.child _wire.manager _wire.tap
null process threads
util workers wire credentials
testing
"""

#: Modules that only re-export, for users.
FACADES = {"credentials", "util", "workers", "wire"}

#: Modules that are run, and would exist twice if they were imported as well.
RUNNABLE = {"_process.child", "_wire.child"}

#: The kinds of workers. Each has modules of its own, named so or C{_}so.
KINDS = {"asyncworker", "dask", "executor", "process", "threads", "wire"}

#: Modules of one kind that others may import: threads for whatever needs one.
SHARED = {"_threads.looper"}

#: Modules that children import when they start, so nothing but the standard library
#: and each other.
LIGHT = {
    "",
    "_about",
    "_calls",
    "_chunks",
    "_mainmodule",
    "_process",
    "_process.anonymous",
    "_process.boxes",
    "_process.child",
    "_process.claims",
    "_process.framing",
    "_process.inbox",
    "_process.loop",
    "_process.outbox",
    "_process.parcels",
    "_process.payloads",
    "_process.pickling",
    "_process.raised",
    "_process.regions",
    "_process.shared",
    "_process.stream",
    "_process.universe",
    "_status",
    "_version",
    "info",
}

#: A module that children import only if they are to have a reactor.
REACTOR_CHILD = "_process.reactorchild"


def layers() -> dict[str, int]:
    """
    Read the table.

    @return: The number of its layer for each module.
    """
    lines = LAYERS.split("\n")
    return {name: i for i, line in enumerate(lines) for name in line.split()}


def nameOf(path: Path) -> str:
    """
    Name a module as it's named in the table.

    @param path: The module's file.

    @return: Its dotted name without that of the root package, which itself is C{""}.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(package: tuple[str, ...], source: str) -> Iterator[str]:
    """
    Find all that a module imports, wherever in it the imports stand: also in
    functions, and under C{TYPE_CHECKING}.

    @param package: The names of the package that the module is in, without the root.

    @param source: The module's text.

    @return: Absolute names, those of the root package as C{asynqueue.…}. For C{from m
        import n} it's C{m.n}, which may be a module or a name in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ("asynqueue", *package)[: len(package) + 2 - node.level]
            base = above if node.level else ()
            names = (*base, *((node.module,) if node.module else ()))
            yield from (".".join((*names, alias.name)) for alias in node.names)


def kindOf(module: str) -> str | None:
    """
    Tell which kind of worker a module belongs to.

    @param module: The module's name.

    @return: The kind, or C{None}.
    """
    top = module.partition(".")[0].lstrip("_")
    return top if top in KINDS else None


class ImportedTests(SynchronousTestCase):
    """
    Tests of L{imported}, on which the others rely.
    """

    def test_relative(self) -> None:
        """
        Relative imports are resolved from the package that the module is in.
        """
        source = "from .framing import f\nfrom .. import base\nfrom ..tasks import Task"
        self.assertEqual(
            list(imported(("_process",), source)),
            ["asynqueue._process.framing.f", "asynqueue.base", "asynqueue.tasks.Task"],
        )

    def test_anywhere(self) -> None:
        """
        Imports are found in functions and in guarded blocks, absolute ones too.
        """
        source = (
            "if TYPE_CHECKING:\n    import asynqueue.base\n"
            "def f():\n    from asynqueue import errors\n"
        )
        self.assertEqual(
            list(imported((), source)),
            ["asynqueue.base", "asynqueue.errors"],
        )


class LayerTests(SynchronousTestCase):
    """
    Tests of the package as it is.
    """

    def setUp(self) -> None:
        """
        Find all modules, and which of one another they import.
        """
        paths = {nameOf(path): path for path in PACKAGE.rglob("*.py")}
        self.modules = set(paths)
        self.edges: list[tuple[str, str]] = []
        self.outside: list[tuple[str, str]] = []
        for module, path in sorted(paths.items()):
            package = path.relative_to(PACKAGE).parent.parts
            for name in imported(package, path.read_text(encoding="utf-8")):
                top, _, rest = name.partition(".")
                if top != "asynqueue":
                    self.outside.append((module, top))
                    continue
                while rest not in self.modules:
                    rest = rest.rpartition(".")[0]
                self.edges.append((module, rest))

    def test_complete(self) -> None:
        """
        The table has each module of the package once, and no other.
        """
        names = LAYERS.split()
        self.assertEqual(sorted(names), sorted(self.modules - {""}))

    def test_downwards(self) -> None:
        """
        A module imports only from layers below its own.
        """
        rank = layers()
        rank[""] = len(rank)
        wrong = [(m, t) for m, t in self.edges if t and rank[t] >= rank[m]]
        self.assertEqual(wrong, [])

    def test_root(self) -> None:
        """
        No module imports from the root package, which is above all others.
        """
        self.assertEqual([m for m, t in self.edges if m and not t], [])

    def test_facades(self) -> None:
        """
        The facades are for users: no module imports one, save the root package.
        """
        self.assertEqual([e for e in self.edges if e[0] and e[1] in FACADES], [])

    def test_runnable(self) -> None:
        """
        No module imports one that is run.
        """
        self.assertEqual([e for e in self.edges if e[1] in RUNNABLE], [])

    def test_kinds(self) -> None:
        """
        No module of one kind of worker imports one of another kind.
        """

        wrong = [
            (m, t)
            for m, t in self.edges
            if m not in FACADES and t not in SHARED
            if kindOf(m) and kindOf(t) not in (None, kindOf(m))
        ]
        self.assertEqual(wrong, [])

    def test_light(self) -> None:
        """
        What children import at their start imports neither Twisted nor anything else
        that takes its time.
        """
        heavy = {"attr", "attrs", "twisted", "zope", "numpy"}
        light = LIGHT & self.modules
        self.assertEqual(
            [e for e in self.outside if e[0] in light and e[1] in heavy], []
        )
        wrong = [
            (m, t)
            for m, t in self.edges
            if m in light - {""} and t not in (*light, REACTOR_CHILD)
        ]
        self.assertEqual(wrong, [])
