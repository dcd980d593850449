"""Tests that the public names are where users look for them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import getdoc
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy

import asynqueue

ROOT = Path(asynqueue.__file__).parent.parent

#: For each public module, its names, each with the module that defines it where that
#: is another one.
PUBLIC = {
    "interfaces": "IWorker WorkerLike",
    "errors": """
        AsynQueueError AuthenticationError ImplementationError InvariantError
        NotReadyError ProcessError QueueFull QueueRunError QueueStopped RemoteTraceback
        SerializationError ThreadError TimeoutError WorkerError WorkerLost
        WorkerStartError
    """,
    "events": "Event EventKind logEvent",
    "tasks": """
        Assignment=tasks._assignment AssignmentFactory=tasks._assignment
        Task=tasks._task TaskFactory=tasks._factory TaskHandler=tasks._handler
    """,
    "base": """
        LoadInfoProducer=base._load Priority=base._queue Queue=base._queue
        TaskQueue=base._taskqueue
    """,
    "workers": """
        AsyncWorker=_asyncworker ExecutorWorker=executor._worker IWorker=interfaces
        ProcessWorker=process._worker
        ThreadWorker=threads._queue WireWorker=wire._worker
    """,
    "wire": """
        ChunkyString=wire._commands GetNext=wire._commands Key=wire._credentials
        RunTask=wire._commands TLS=wire._credentials ServerManager=wire._manager
        WireRunner=wire._runner WireServer=wire._server WireWorker=wire._worker
        WireWorkerUniverse=wire._runner runServer=wire._command
    """,
    "credentials": """
        Key=wire._credentials TLS=wire._credentials
        makeKey=credentials makePair=credentials
    """,
    "executor": """
        ExecutorQueue=executor._worker ExecutorWorker=executor._worker
    """,
    "null": "NullQueue",
    "process": """
        ProcessBase=_child.processbase ProcessQueue=process._queue
        ProcessWorker=process._worker
    """,
    "threads": """
        Consumerator=threads._bridge Filerator=threads._getter
        IterationGetter=threads._getter IterationStopper=threads._getter
        OrderedItemProducer=threads._bridge PoolUser=threads._pool
        TaskQueue=base._taskqueue ThreadLooper=threads._looper
        ThreadQueue=threads._queue ThreadWorker=threads._queue
        deferToThread=threads._looper
    """,
    "iteration": """
        Deferator=iteration._deferator Delay=iteration._delay
        IterationProducer=iteration._producer ListConsumer=iteration._producer
        Prefetcherator=iteration._deferator deferToDelay=iteration._delay
        isIterator=_child.calls iteratorToProducer=iteration._producer
    """,
    "util": """
        CallRunner=_child.calls DeferredLock=util._sync DeferredTracker=util._sync
        ProcessProtocol=util._processes callAfterDeferred=util._sync
        killProcess=util._processes o2p=_child.calls p2o=_child.calls
    """,
    "monitor": "Monitor=monitor._resource",
    "service": "QueueService",
    "testing": "MemoryWorker RecordingConsumer",
    "dask": "DaskQueue=dask._queue DaskWorker=dask._worker",
    "info": """
        Converter=info._objects Info=info._info InfoHolder=info._info
        hashIt=info._objects showResult=info._show whichThread=info._show
    """,
}

#: Those whose names can be had without an extra that isn't installed.
AVAILABLE = {
    module: names
    for module, names in PUBLIC.items()
    if module != "dask" or find_spec("distributed")
}

#: The names that the root package has too, each with the public module it's from.
STARRED = {
    "AsyncWorker": "workers",
    "DeferredLock": "util",
    "DeferredTracker": "util",
    "Info": "info",
    "ProcessBase": "process",
    "ProcessQueue": "process",
    "ProcessWorker": "process",
    "TaskQueue": "base",
    "ThreadQueue": "threads",
    "ThreadWorker": "threads",
    "WireWorker": "workers",
    "WireWorkerUniverse": "wire",
    "deferToDelay": "iteration",
    "deferToThread": "threads",
    "showResult": "info",
}

#: Prints what a fresh interpreter has after it has done as it's told.
REPORT = """
import sys, threading
print("twisted" in sys.modules, "twisted.internet.reactor" in sys.modules,
      threading.active_count())
"""


def fresh(program: str) -> str:
    """Run a program in an interpreter of its own. Returns what it has printed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class PublicNameTests(SynchronousTestCase):
    """Tests of the public names' places."""

    def test_places(self) -> None:
        """
        Each public name can be had from its public module, and is the very object of
        the module that defines it.
        """
        for module, names in AVAILABLE.items():
            place = import_module(f"asynqueue.{module}")
            for entry in names.split():
                name, _, home = entry.partition("=")
                with self.subTest(module=module, name=name):
                    origin = import_module(f"asynqueue.{home or module}")
                    self.assertIs(getattr(place, name), getattr(origin, name))
                    self.assertIn(name, place.__all__)

    def test_defined(self) -> None:
        """
        The module that a class or function is listed for is the one that defines it.
        """
        for module, names in AVAILABLE.items():
            for entry in names.split():
                name, _, home = entry.partition("=")
                with self.subTest(name=name):
                    value = getattr(import_module(f"asynqueue.{module}"), name)
                    origin = f"asynqueue.{home or module}"
                    self.assertEqual(value.__module__, origin)

    def test_documented(self) -> None:
        """
        Each public name has a docstring, and so has each of its public methods and
        properties, unless it implements an interface or has its base's.
        """
        missing = []
        for module, names in AVAILABLE.items():
            place = import_module(f"asynqueue.{module}")
            for entry in names.split():
                name = entry.partition("=")[0]
                value = getattr(place, name)
                members = vars(value) if isinstance(value, type) else {}
                wanted = {name: value} | {
                    f"{name}.{key}": getattr(value, key)
                    for key, member in list(members.items())
                    if not key.startswith("_") and not isinstance(member, type)
                    if callable(getattr(value, key)) or isinstance(member, property)
                    if not any(key in each for each in implementedBy(value))
                }
                missing += [key for key, each in wanted.items() if not getdoc(each)]
        self.assertEqual(missing, [])

    def test_all(self) -> None:
        """What a public module lists in C{__all__} exists."""
        for module in AVAILABLE:
            place = import_module(f"asynqueue.{module}")
            with self.subTest(module=module):
                self.assertEqual(
                    [n for n in place.__all__ if not hasattr(place, n)], []
                )


class RootTests(SynchronousTestCase):
    """Tests of the root package."""

    def test_names(self) -> None:
        """The most used names can be had from the root package, as the same objects."""
        for name, module in STARRED.items():
            with self.subTest(name=name):
                place = import_module(f"asynqueue.{module}")
                self.assertIs(getattr(asynqueue, name), getattr(place, name))

    def test_noOthers(self) -> None:
        """It lists those names and its version, and no others."""
        self.assertEqual(sorted(asynqueue.__all__), sorted({*STARRED, "__version__"}))

    def test_star(self) -> None:
        """A star import brings exactly the listed names."""
        names: dict[str, object] = {}
        exec("from asynqueue import *", names)
        self.assertEqual(sorted(names.keys() - {"__builtins__"}), asynqueue.__all__)

    def test_dir(self) -> None:
        """C{dir} shows the names and the public modules, whether used before or not."""
        shown = fresh("import asynqueue; print(*dir(asynqueue))").split()
        self.assertEqual({*asynqueue.__all__, *PUBLIC} - {*shown}, set())

    def test_modules(self) -> None:
        """The public modules are attributes without having been imported."""
        program = "import asynqueue; print(asynqueue.base.TaskQueue.__name__)"
        self.assertEqual(fresh(program), "TaskQueue")

    def test_unknown(self) -> None:
        """A name that isn't there is an C{AttributeError}, as in any module."""
        with self.assertRaisesRegex(AttributeError, "'asynqueue'.*'TaskQeue'"):
            asynqueue.TaskQeue  # type: ignore[attr-defined]  # noqa: B018

    def test_version(self) -> None:
        """The version is that of the installed distribution."""
        try:
            installed = version("asynqueue")
        except PackageNotFoundError:
            self.skipTest("The package isn't installed.")
        hint = "Install the checkout again: pip install -e ."
        self.assertEqual(asynqueue.__version__, installed, hint)


class ImportTests(SynchronousTestCase):
    """Tests of what importing does, and doesn't do, in an interpreter of its own."""

    def test_root(self) -> None:
        """Importing the root package imports no Twisted, and starts no thread."""
        self.assertEqual(fresh(f"import asynqueue\n{REPORT}"), "False False 1")

    def test_names(self) -> None:
        """
        Importing all names of the root package installs no reactor, and starts no
        thread.
        """
        self.assertEqual(fresh(f"from asynqueue import *\n{REPORT}"), "True False 1")

    def test_publicModules(self) -> None:
        """Nor does importing all public modules."""
        modules = ", ".join(f"asynqueue.{module}" for module in PUBLIC)
        self.assertEqual(fresh(f"import {modules}\n{REPORT}"), "True False 1")

    def test_childModules(self) -> None:
        """What children import at their start imports no Twisted."""
        modules = (
            "import asynqueue._child.calls, asynqueue._child.status, asynqueue.info"
        )
        self.assertEqual(fresh(f"{modules}\n{REPORT}"), "False False 1")
