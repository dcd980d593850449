"""
The contract of L{IWorker}, tested with each kind of worker there is: the same calls
have the same results and the same errors. What a kind can't do is said in L{KINDS}.
"""

from __future__ import annotations

import os
import select
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from asynqueue import (
    AsyncWorker,
    ProcessWorker,
    TaskQueue,
    ThreadWorker,
    WireWorker,
    WireWorkerUniverse,
)
from asynqueue.errors import (
    ImplementationError,
    QueueStopped,
    SerializationError,
    TimeoutError,
    WorkerError,
    WorkerLost,
)
from asynqueue.executor import ExecutorWorker
from asynqueue.interfaces import ICancellingWorker, IWorker
from asynqueue.iteration import Deferator, ListConsumer
from asynqueue.testing import MemoryWorker
from asynqueue.wire import WireServer

from . import _jobs as jobs


class Universe(WireWorkerUniverse):
    """Serves what the tests call."""

    exceptions = (jobs.OfTheTask,)


def _serve(f: Any) -> None:
    """Make a method of a function."""

    def method(self: Universe, *args: Any, **kw: Any) -> Any:
        return f(*args, **kw)

    setattr(Universe, f.__name__, method)


for _f in (
    jobs.add,
    jobs.atGate,
    jobs.count,
    jobs.countAndFail,
    jobs.countForEver,
    jobs.echo,
    jobs.exits,
    jobs.fail,
    jobs.givesLock,
    jobs.nothing,
    jobs.notes,
    jobs.raiseThat,
):
    _serve(_f)


class Gate:
    """
    Holds calls of L{jobs.atGate}, whose arguments are its paths, up until it's opened.
    """

    def __init__(self, folder: str) -> None:
        self.paths = [str(Path(folder, name)) for name in ("begun", "gate")]
        for path in self.paths:
            os.mkfifo(path)
        # With both ends open, nobody waits for who opens the other.
        self._begun, self._gate = (os.open(path, os.O_RDWR) for path in self.paths)

    async def begun(self) -> None:
        """Wait until a call has begun."""
        ready, _, _ = await deferToThread(select.select, [self._begun], [], [], 30)
        assert ready, "the call has not begun"
        os.read(self._begun, 1)

    def open(self, count: int = 1) -> None:
        """Let calls go on."""
        os.write(self._gate, b"x" * count)

    def close(self) -> None:
        """Let all go on."""
        self.open(100)
        os.close(self._begun)
        os.close(self._gate)


async def _asyncWorker(case: Contract, **kw: Any) -> Any:
    return AsyncWorker(**kw)


async def _threadWorker(case: Contract, **kw: Any) -> Any:
    return ThreadWorker(**kw)


async def _processWorker(case: Contract, **kw: Any) -> Any:
    return ProcessWorker(**kw)


async def _wireWorker(case: Contract, **kw: Any) -> Any:
    server = WireServer(f"unix:{case.folder}/s", Universe(), stopTimeout=0)
    await server.start()
    case.closers.append(server.stop)
    kw |= {"thread": True, "reconnect": True, "backoff": lambda attempts: 0.01}
    return WireWorker(Universe, f"unix:{case.folder}/s", **kw)


async def _threadExecutor(case: Contract, **kw: Any) -> Any:
    return ExecutorWorker(lambda: ThreadPoolExecutor(1), **kw)


async def _processExecutor(case: Contract, **kw: Any) -> Any:
    context = get_context("spawn")
    return ExecutorWorker(lambda: ProcessPoolExecutor(1, mp_context=context), **kw)


async def _daskWorker(case: Contract, **kw: Any) -> Any:
    cluster: Any = import_module("tests._daskcluster")
    return await cluster.workerOf(case, **kw)


def _asIs(f: Any) -> Any:
    return f


def _inReactor(f: Any) -> Any:
    """Have a job that blocks be done in a thread, and waited for in the reactor."""
    return partial(deferToThread, f) if f is jobs.atGate else f  # type: ignore[call-arg]


def _named(f: Any) -> Any:
    return f.__name__


def _killChild(worker: Any) -> None:
    worker.process.kill()


def _cutConnection(worker: Any) -> None:
    worker._client.transport.abortConnection()


def _killPool(worker: Any) -> None:
    for process in list(worker.executor._processes.values()):
        process.kill()


@frozen
class Kind:
    """
    A kind of worker, and what it promises besides the contract.

    @ivar make: Makes a worker that runs one call at a time.

    @ivar callable: Gives what a function is called by.

    @ivar cQualified: The series of its class.

    @ivar pickles: Whether results and arguments have to be pickled, or the like.

    @ivar streams: Whether iterations come here. Else they're refused.

    @ivar stops: Whether a call that is cancelled while it's run makes room at once, not
        when it has ended.

    @ivar updates: Whether it can be updated. Else that's refused.

    @ivar kill: Kills what runs the calls of a worker, or the connection to it. C{None}
        if that's this process, or can't be done here.

    @ivar needs: A module without which it isn't tested.
    """

    name: str
    make: Callable[..., Awaitable[Any]]
    cQualified: tuple[str, ...]
    callable: Callable[[Any], Any] = _asIs
    pickles: bool = True
    streams: bool = True
    stops: bool = True
    updates: bool = True
    kill: Callable[[Any], object] | None = None
    needs: str = "asynqueue"


KINDS = [
    Kind("Async", _asyncWorker, ("async", "local"), _inReactor, pickles=False),
    Kind("Thread", _threadWorker, ("thread", "local"), pickles=False),
    Kind("Process", _processWorker, ("process", "local"), kill=_killChild),
    Kind("Wire", _wireWorker, ("wire", "remote"), _named, kill=_cutConnection),
    Kind("ThreadExecutor", _threadExecutor, ("executor",), pickles=False, stops=False),
    Kind(
        "ProcessExecutor",
        _processExecutor,
        ("executor",),
        streams=False,
        stops=False,
        updates=False,
        kill=_killPool,
    ),
    Kind(
        "Dask",
        _daskWorker,
        ("dask", "remote"),
        stops=False,
        needs="tests._daskcluster",
    ),
]


def chain(error: BaseException | None) -> list[type[BaseException]]:
    """List the types of an exception and of what it has come from."""
    types: list[type[BaseException]] = []
    while error is not None:
        types.append(type(error))
        error = error.__cause__ or error.__context__
    return types


class Contract:
    """The tests, for one kind of worker."""

    kind: Kind
    timeout = 60

    def setUp(self: Any) -> None:
        """Make a folder and a gate."""
        try:
            import_module(self.kind.needs)
        except ImportError:
            self.skipTest(f"{self.kind.needs} isn't there")
        self.folder = tempfile.mkdtemp()
        self.gate = Gate(self.folder)
        self.notes = str(Path(self.folder, "notes"))
        self.closers: list[Callable[[], Any]] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.tidyUp()))

    async def tidyUp(self) -> None:
        """Let all calls go on, and shut everything down."""
        self.gate.close()
        while self.closers:
            await self.closers.pop()()
        shutil.rmtree(self.folder, True)

    async def start(self, **kw: Any) -> None:
        """Make a queue with a worker that is ready."""
        self.worker = await self.kind.make(self, **kw)
        self.q = TaskQueue()
        self.closers.append(lambda: self.q.shutdown(timeout=10))
        await self.q.attachWorker(self.worker)

    def call(self, f: Any, *args: Any, **kw: Any) -> Any:
        """Make a call."""
        return self.q.call(self.kind.callable(f), *args, **kw)

    async def hold(self, value: Any = None, **kw: Any) -> Any:
        """
        Have the worker be at a call, whose Deferred is given back in a list, until the
        gate is opened.
        """
        d = self.call(jobs.atGate, *self.gate.paths, value, **kw)
        await self.gate.begun()
        return [d]

    def noted(self) -> list[int]:
        """List what calls have noted."""
        path = Path(self.notes)
        return [int(x) for x in path.read_text().split()] if path.exists() else []

    async def failure(self, d: Any) -> BaseException:
        """Get the error of a call."""
        try:
            result = await d
        except BaseException as error:  # noqa: BLE001 - it's looked at
            return error
        raise AssertionError(f"it has a result: {result!r}")

    # The tests.

    async def test_interface(self: Any) -> None:
        """It provides the interface, and is of the series of its class and its own."""
        await self.start(series=["mine"])
        verifyObject(IWorker, self.worker)
        verifyObject(ICancellingWorker, self.worker)
        self.assertEqual(tuple(self.worker.cQualified), self.kind.cQualified)
        for series in ("mine", *self.kind.cQualified):
            self.assertEqual(await self.call(jobs.add, 1, 2, series=series), 3)

    async def test_tenLines(self: Any) -> None:
        """The same lines do the same."""
        await self.start()
        said: list[Any] = [
            await self.call(jobs.add, 1, 2),
            await self.call(jobs.add, "a", b="b"),
            await self.call(jobs.echo, (1, [2.5, None]), {"x": b"y"}, k={1, 2}),
            await self.call(jobs.nothing),
            await self.failure(self.call(jobs.add, 1, "b")),
            await self.failure(self.call(jobs.raiseThat, "no class")),
            await self.failure(self.call(jobs.fail, 7)),
            await self.failure(self.call(jobs.fail, 7, returnFailure=True)),
            await gatherResults([self.call(jobs.add, i, i) for i in range(20)]),
            len(await self.call(jobs.add, bytes(300_000), bytes(300_000))),
        ]
        self.assertEqual(said[:2], [3, "ab"])
        self.assertEqual(said[2], (((1, [2.5, None]), {"x": b"y"}), {"k": {1, 2}}))
        self.assertIsNone(said[3])
        self.assertEqual([type(error) for error in said[4:6]], [TypeError, TypeError])
        self.assertIn("unsupported operand", str(said[4]))
        self.assertIn("not callable", str(said[5]))
        error = said[6]
        self.assertIsInstance(error, jobs.OfTheTask)
        self.assertEqual((error.code, error.why), (7, "because"))
        self.assertEqual(str(error), "because (7)")
        self.assertEqual(error.__notes__, ["a note"])
        self.assertIn(KeyError, chain(error))
        self.assertIsInstance(said[7], WorkerError)
        self.assertIsInstance(said[7].__cause__, jobs.OfTheTask)
        self.assertEqual(said[8:], [list(range(0, 40, 2)), 600_000])

    async def test_map(self: Any) -> None:
        """
        C{map} and C{imap} give results in the order of the arguments, and an error at
        its place.
        """
        await self.start()
        f = self.kind.callable(jobs.add)
        sums = list(range(0, 400, 2))
        self.assertEqual(await self.q.map(f, range(200), range(200)), sums)
        items = self.q.imap(f, range(200), range(200))
        self.assertEqual([item async for item in items], sums)
        error = await self.failure(self.q.map(f, [1, 2, "3"], [1, 2, 3]))
        self.assertIsInstance(error, TypeError)

    async def test_exits(self: Any) -> None:
        """A call can't end what runs it by C{SystemExit}."""
        await self.start()
        error = await self.failure(self.call(jobs.exits))
        self.assertIsInstance(error, WorkerError)
        self.assertIn("SystemExit", str(error))
        self.assertEqual(await self.call(jobs.add, 1, 2), 3)

    async def test_unpicklable(self: Any) -> None:
        """What can't be brought over fails its own call only."""
        await self.start()
        if not self.kind.pickles:
            self.assertTrue(hasattr(await self.call(jobs.givesLock), "acquire"))
            return
        for d in (self.call(jobs.givesLock), self.call(jobs.echo, Lock())):
            error = await self.failure(d)
            self.assertIsInstance(error, SerializationError)
        self.assertEqual(await self.call(jobs.add, 1, 2), 3)

    async def test_order(self: Any) -> None:
        """Calls that wait are run by their priorities."""
        await self.start()
        (held,) = await self.hold()
        options: list[dict[str, Any]] = [
            {"doLast": True},
            {"niceness": 15},
            {},
            {"niceness": -15},
            {"doNext": True},
        ]
        calls = [
            self.call(jobs.notes, self.notes, i, **kw) for i, kw in enumerate(options)
        ]
        self.gate.open()
        await held
        await gatherResults(calls)
        self.assertEqual(self.noted(), [4, 3, 2, 1, 0])

    async def test_cancelQueued(self: Any) -> None:
        """A call that is cancelled before its turn is never run."""
        await self.start()
        (held,) = await self.hold("held")
        cancelled = self.call(jobs.notes, self.notes, 1)
        other = self.call(jobs.notes, self.notes, 2)
        cancelled.cancel()
        self.assertIsInstance(await self.failure(cancelled), CancelledError)
        self.gate.open()
        self.assertEqual((await held, await other), ("held", 2))
        self.assertEqual(self.noted(), [2])

    async def test_cancelRunning(self: Any) -> None:
        """
        One that is cancelled while it's run fails at once, and others are run, some
        kinds of workers have to wait for its end.
        """
        await self.start()
        (held,) = await self.hold()
        held.cancel()
        self.assertIsInstance(await self.failure(held), CancelledError)
        if not self.kind.stops:
            self.gate.open()
        self.assertEqual(await self.call(jobs.add, 1, 2), 3)

    async def test_timeout(self: Any) -> None:
        """The same with a time limit, which others that wait don't feel."""
        await self.start()
        long = self.call(jobs.atGate, *self.gate.paths, timeout=0.2)
        waiting = self.call(jobs.add, 1, 2, timeout=20)
        error = await self.failure(long)
        self.assertIsInstance(error, TimeoutError)
        self.assertIn("atGate", str(error))
        if not self.kind.stops:
            self.gate.open()
        self.assertEqual(await waiting, 3)

    async def test_within(self: Any) -> None:
        """A limit for the whole call counts while it waits, too."""
        await self.start()
        (held,) = await self.hold()
        waiting = self.call(jobs.notes, self.notes, 1, within=0.05)
        self.assertIsInstance(await self.failure(waiting), TimeoutError)
        self.gate.open()
        await held
        await self.q.shutdown(drain=True)
        self.assertEqual(self.noted(), [])

    async def test_iteration(self: Any) -> None:
        """
        Items come one by one, an error at its place, nothing as an empty list, and a
        consumer gets them; unless iterations are refused.
        """
        await self.start()
        if not self.kind.streams:
            error = await self.failure(self.call(jobs.count, 100))
            self.assertIsInstance(error, SerializationError)
            self.assertIn("ProcessQueue", str(error))
            self.assertEqual(await self.call(jobs.add, 1, 2), 3)
            return
        deferator = await self.call(jobs.count, 100)
        self.assertIsInstance(deferator, Deferator)
        self.assertEqual([item async for item in deferator], list(range(100)))
        self.assertEqual(await self.call(jobs.count, 0), [])
        items: list[int] = []
        with self.assertRaises(jobs.OfTheTask) as raised:
            async for item in await self.call(jobs.countAndFail, 3):
                items.append(item)  # noqa: PERF401 - it fails
        self.assertEqual((items, raised.exception.code), ([0, 1, 2], 3))
        consumer = ListConsumer()
        self.assertIs(await self.call(jobs.count, 30, consumer=consumer), consumer)
        self.assertEqual(await consumer(), list(range(30)))

    async def test_iterationStopped(self: Any) -> None:
        """
        An iteration without an end goes at the pace of who iterates, lets other calls
        get in between, and can be stopped.
        """
        if not self.kind.streams:
            self.skipTest("Iterations are refused.")
        await self.start()
        deferator = await self.call(jobs.countForEver)
        for i in range(50):
            self.assertEqual(await deferator.__anext__(), i)
        self.assertEqual(await self.call(jobs.add, 1, 2), 3)
        deferator.stop()
        self.assertEqual(await self.call(jobs.add, 3, 4), 7)

    async def test_update(self: Any) -> None:
        """An update is run on the worker, or is refused in words."""
        await self.start()
        f = self.kind.callable(jobs.notes)
        (result,) = await self.q.update(f, self.notes, 1)
        if not self.kind.updates:
            self.assertIn("would update", result)
            self.assertEqual(self.noted(), [])
            return
        self.assertEqual((result, self.noted()), (1, [1]))

    async def test_drain(self: Any) -> None:
        """A shutdown that drains runs what is queued."""
        await self.start()
        (held,) = await self.hold("held")
        waiting = self.call(jobs.add, 1, 2)
        done = self.q.shutdown(drain=True)
        self.gate.open()
        self.assertEqual((await done, await held, await waiting), ([], "held", 3))

    async def test_shutdown(self: Any) -> None:
        """One that doesn't, lets the worker finish what it's at, and fails the rest."""
        await self.start()
        (held,) = await self.hold("held")
        waiting = self.call(jobs.notes, self.notes, 1)
        done = self.q.shutdown()
        self.assertIsInstance(await self.failure(waiting), QueueStopped)
        self.gate.open()
        self.assertEqual(await held, "held")
        self.assertEqual(len(await done), 1)
        self.assertEqual(self.noted(), [])

    async def test_shutdownInTime(self: Any) -> None:
        """After a time limit, what is being run is given up."""
        await self.start()
        (held,) = await self.hold()
        unfinished = await self.q.shutdown(timeout=0.1)
        self.assertEqual(len(unfinished), 1)
        self.assertIsInstance(await self.failure(held), WorkerLost)

    async def test_crash(self: Any) -> None:
        """A worker that is crashed leaves its task unfinished."""
        await self.start()
        (held,) = await self.hold()
        (task,) = await self.q.detachWorker(self.worker, crash=True)
        self.assertEqual(task.callTuple[1], (*self.gate.paths, None))
        self.assertIsInstance(await self.failure(held), WorkerLost)
        self.assertEqual(len(self.q), 0)

    async def test_reassign(self: Any) -> None:
        """Its task goes to others if that's wanted."""
        await self.start()
        (held,) = await self.hold()
        other = MemoryWorker()
        await self.q.attachWorker(other)
        self.assertEqual(
            await self.q.detachWorker(self.worker, crash=True, reassign=True), []
        )
        other.complete("by the other")
        self.assertEqual(await held, "by the other")

    async def test_detach(self: Any) -> None:
        """One that is detached finishes its task first."""
        await self.start()
        (held,) = await self.hold("held")
        done = self.q.detachWorker(self.worker)
        self.gate.open()
        self.assertEqual((await held, await done, len(self.q)), ("held", [], 0))

    async def test_attachedAgain(self: Any) -> None:
        """One that has gone either works when it's attached again, or is refused."""
        await self.start()
        await self.call(jobs.add, 1, 2)
        await self.q.detachWorker(self.worker)
        try:
            await self.q.attachWorker(self.worker)
        except ImplementationError as error:
            self.assertIn("make another", str(error))
        else:
            self.assertEqual(await self.call(jobs.add, 1, 2), 3)

    async def test_resigns(self: Any) -> None:
        """One that somebody stops resigns. What waits is for others."""
        await self.start()
        await self.worker.stop()
        self.assertEqual(len(self.q), 0)
        waiting = self.call(jobs.add, 1, 2)
        other = MemoryWorker()
        await self.q.attachWorker(other)
        other.complete(3)
        self.assertEqual(await waiting, 3)

    async def test_killed(self: Any) -> None:
        """
        When what runs the calls dies, the one that was being run is lost, those that
        wait are run, and no others are lost. It's tried again if the call says so.
        """
        if self.kind.kill is None:
            self.skipTest("Nothing can be killed.")
        await self.start()
        for retries in (0, 1):
            (held,) = await self.hold("held", retries=retries)
            waiting = self.call(jobs.add, 1, 2)
            (worker,) = self.q.workers()
            self.kind.kill(worker)
            if retries:
                await self.gate.begun()
                self.gate.open(10)  # Those that are lost may go on, too.
                self.assertEqual(await held, "held")
            else:
                self.assertIsInstance(await self.failure(held), WorkerLost)
            self.assertEqual(await waiting, 3)

    async def test_killedIdle(self: Any) -> None:
        """
        When it dies while nothing is run, later calls are run by what takes its place.
        """
        if self.kind.kill is None:
            self.skipTest("Nothing can be killed.")
        await self.start()
        self.assertEqual(await self.call(jobs.add, 1, 2), 3)
        self.kind.kill(self.worker)
        # It may not have been noticed when the call is sent.
        self.assertEqual(await self.call(jobs.add, 3, 4, retries=1), 7)


for _kind in KINDS:
    _name = f"{_kind.name}Tests"
    globals()[_name] = type(_name, (Contract, TestCase), {"kind": _kind})
del _f, _kind, _name
