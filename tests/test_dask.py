"""Tests of queues with a cluster of Dask's: a real scheduler and real workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from asynqueue import TaskQueue, ThreadWorker
from asynqueue.errors import (
    AuthenticationError,
    SerializationError,
    TimeoutError,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.testing import RecordingConsumer

from . import _dask as jobs
from ._certificates import SSL, Identity
from ._dask import SKIP, Cluster

if not SKIP:
    import psutil  # Dask needs it
    from distributed import LocalCluster, get_worker

    from asynqueue.dask import DaskQueue, DaskWorker, _connection
    from asynqueue.dask._worker import ClusterState


def openDescriptors() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def ownThreads() -> set[str]:
    """Name the threads, but for one that Dask keeps as long as the program runs."""
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if not name.startswith("Dask-Offload")}


def ownProcesses() -> set[int]:
    """List the child processes, but for one that Python keeps for its own use."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def ownPorts() -> set[int]:
    """List the ports that this process listens at."""
    found = psutil.Process().net_connections()
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


async def begun(path: str) -> None:
    """Wait until a call of C{waited} has begun."""
    await until(lambda: os.path.exists(path) and bool(Path(path).read_text()))


async def drained(deferator: Any) -> int:
    """Count the items up to the end."""
    count = 0
    async for _ in deferator:
        count += 1
    return count


async def pause(seconds: float) -> None:
    """Wait for what nobody tells."""
    await deferLater(cast(IReactorTime, reactor), seconds)


async def until(isSo: Callable[[], bool]) -> None:
    """Wait until something is so that nobody tells."""
    while not isSo():
        await pause(0.01)


class DaskTestCase(TestCase):
    """A test case that may lose clusters."""

    skip = SKIP
    timeout = 120

    def setUp(self) -> None:
        """Have Dask not log what is wanted here."""
        logger = logging.getLogger("distributed")
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)

    async def connected(self, address: str, **kw: Any) -> DaskQueue:
        """Make a queue with a cluster, and wait until that has its workers."""
        q = DaskQueue(address, **kw)
        self.addCleanup(q.shutdown, timeout=5)
        await q.d
        await until(lambda: q.worker is not None and q.worker.threads >= 2)
        return q

    async def failing(self, d: Deferred[Any]) -> BaseException:
        """Wait for an error."""
        error = await d.addBoth(lambda result: getattr(result, "value", result))
        self.assertIsInstance(error, BaseException)
        return error  # type: ignore[no-any-return]

    async def hold(self, q: DaskQueue, count: int = 2) -> tuple[list[Any], list[str]]:
        """Have calls of C{waited} run that end when their files are removed."""
        gates = [os.path.abspath(self.mktemp()) for _ in range(count)]
        held = [q.call(jobs.waited, gate, "result") for gate in gates]
        for gate in gates:
            await begun(gate)
        return held, gates


class ClusterTestCase(DaskTestCase):
    """
    A test case that shares a cluster with others, which is ended after the last test.
    """

    #: Those that share one have the same here.
    group = "shared"

    #: The clusters, and the tests that will still be run on them.
    clusters: ClassVar[dict[str, Cluster]] = {}
    left: ClassVar[dict[str, set[str]]] = {}

    def setUp(self) -> None:
        """Start the cluster, if this is the first test."""
        super().setUp()
        group = self.group
        if group not in self.clusters:
            self.clusters[group] = Cluster()
            self.left[group] = {
                f"{kind.__name__}.{name}"
                for kind in ClusterTestCase.__subclasses__()
                if kind.group == group
                for name in dir(kind)
                if name.startswith("test_")
            }
        self.left[group].discard(f"{type(self).__name__}.{self._testMethodName}")
        self.addCleanup(self.closeAfterLast)
        self.cluster = self.clusters[group]

    def closeAfterLast(self) -> None:
        """End the cluster, if this was the last test."""
        if not self.left[self.group] and self.group in self.clusters:
            self.clusters.pop(self.group).close()

    async def shared(self, **kw: Any) -> DaskQueue:
        """Make a queue with the cluster."""
        return await self.connected(self.cluster.address, **kw)


class CallTests(ClusterTestCase):
    """Tests of calls."""

    async def test_calls(self) -> None:
        """
        Results come back, and exceptions with their type, traceback and text; lambdas
        and closures can be called.
        """
        q = await self.shared()
        self.assertEqual(await q.call(jobs.doubled, 4), 8)
        n = 3
        self.assertEqual(await q.call(lambda x: x * n, 4), 12)
        self.assertIsNone(await q.call({}.get, 1))
        error = await self.failing(q.call(jobs.failed, "no"))
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), "no")
        self.assertIn("in failed", str(error.__cause__))

    async def test_keywords(self) -> None:
        """Keywords that Dask would take for itself reach the callable."""
        q = await self.shared()
        self.assertEqual(
            await q.call(dict, key="k", workers=2, pure=True, resources=3),
            {"key": "k", "workers": 2, "pure": True, "resources": 3},
        )

    async def test_hostile(self) -> None:
        """
        What ends an interpreter, and what can't be pickled, is an error of that one
        call.
        """
        q = await self.shared()
        error = await self.failing(q.call(lambda: exec("raise SystemExit(3)")))
        self.assertIsInstance(error, WorkerError)
        error = await self.failing(q.call(jobs.doubled, threading.Lock()))
        self.assertIsInstance(error, SerializationError)
        error = await self.failing(q.call(threading.Lock))
        self.assertIsInstance(error, SerializationError)
        self.assertEqual(await q.call(jobs.doubled, 1), 2)

    async def test_many(self) -> None:
        """
        Many short calls travel together, and each has its own result, or its own error.
        """
        q = await self.shared()
        results = [q.call(divmod, 1_000, n % 50) for n in range(2_000)]
        found = [await d.addErrback(lambda f: type(f.value)) for d in results]
        self.assertEqual(
            found,
            [
                divmod(1_000, n % 50) if n % 50 else ZeroDivisionError
                for n in range(2_000)
            ],
        )

    async def test_map(self) -> None:
        """So do chunks of a map."""
        q = await self.shared()
        self.assertEqual(await q.map(abs, range(5_000)), list(range(5_000)))

    async def test_priorities(self) -> None:
        """What is more urgent overtakes what hasn't been sent."""
        q = await self.shared(bundle=0)
        held, gates = await self.hold(q)
        path = os.path.abspath(self.mktemp())
        calls = [q.call(jobs.noted, path, str(n), niceness=5) for n in range(60)]
        urgent = q.call(jobs.noted, path, "urgent", niceness=-5)
        for gate in gates:
            os.remove(gate)
        for d in [*held, *calls, urgent]:
            await d
        # A worker accepts four calls for each thread, of which there are a few. Results
        # may come in another order.
        order = [line.split()[0] for line in Path(path).read_text().splitlines()]
        self.assertLess(order.index("urgent"), 30)

    async def test_large(self) -> None:
        """
        Large arguments and results come over whole. What the call was given may be
        changed afterwards, and a call may change what it has got.
        """
        q = await self.shared()
        data = bytearray(20 << 20)
        calls = [q.call(jobs.changed, memoryview(data)) for _ in range(3)]
        self.assertEqual([await d for d in calls], [(1, len(data))] * 3)
        self.assertEqual(await q.call(jobs.changed, memoryview(data)), (1, len(data)))
        self.assertEqual(data[0], 0)
        text = os.urandom(10 << 20)
        for value in (data, text):
            result = await q.call(jobs.doubled, value)
            self.assertIs(type(result), type(value))
            self.assertTrue(result == value + value)  # which isn't to be shown

    async def test_update(self) -> None:
        """
        Updates are run on all workers of the cluster, and those that stay are run on
        workers that come later, too.
        """
        q = await self.shared()
        path = os.path.abspath(self.mktemp())
        results = await q.update(jobs.noted, path, "once", ephemeral=True)
        pids = {int(line.split()[1]) for line in Path(path).read_text().splitlines()}
        self.assertEqual(len(pids), 2)
        self.assertIn(results[0], pids)
        await q.update(jobs.noted, path, "stays")
        large = bytearray(20 << 20)
        self.assertEqual(await q.update(len, large, ephemeral=True), [20 << 20])
        (text,) = await q.update(jobs.failed, "an update", ephemeral=True)
        self.assertIn("an update", text)
        another = self.cluster.startWorker()
        await until(lambda: Path(path).read_text().count("stays") == 3)
        self.assertEqual(Path(path).read_text().count("once"), 2)
        await until(lambda: q.worker is not None and q.worker.threads == 3)
        os.killpg(another.pid, signal.SIGKILL)
        await until(lambda: q.worker is not None and q.worker.threads == 2)

    async def test_otherWorkers(self) -> None:
        """
        In a queue with workers of other kinds, calls of its series go to the cluster.
        """
        q = TaskQueue(ThreadWorker(), DaskWorker(self.cluster.address, series=["far"]))
        self.addCleanup(q.shutdown)
        self.assertNotEqual(await q.call(jobs.pid, series="far"), os.getpid())
        self.assertNotEqual(await q.call(jobs.pid, series="dask"), os.getpid())
        self.assertEqual(await q.call(jobs.pid, series="local"), os.getpid())

    async def test_restrictions(self) -> None:
        """A series may be restricted to some workers."""
        q = await self.shared()
        address = await q.call(lambda: get_worker().address)
        restricted = await self.shared(
            series=["here"], restrictions={"here": [address]}
        )
        calls = [
            restricted.call(lambda n: get_worker().address, n, series="here")
            for n in range(10)
        ]
        self.assertEqual({await d for d in calls}, {address})


class StoppingTests(ClusterTestCase):
    """Tests of cancelling, of time limits, and of the end."""

    async def test_cancel(self) -> None:
        """What is cancelled before it has begun isn't run."""
        q = await self.shared(bundle=0)
        held, gates = await self.hold(q)
        path = os.path.abspath(self.mktemp())
        sent = q.call(jobs.noted, path, "cancelled")
        await pause(0.05)
        sent.cancel()
        self.assertIsInstance(await self.failing(sent), CancelledError)
        held[0].cancel()
        self.assertIsInstance(await self.failing(held[0]), CancelledError)
        # Dask takes its time to tell its workers.
        await pause(0.2)
        for gate in gates:
            os.remove(gate)
        await held[1]
        self.assertEqual(await q.call(jobs.doubled, 1), 2)
        self.assertFalse(os.path.exists(path))

    async def test_timeout(self) -> None:
        """
        A time limit counts from when the call begins. The slot is taken up until the
        call ends by itself.
        """
        q = await self.shared()
        held, gates = await self.hold(q)
        gates.append(os.path.abspath(self.mktemp()))
        limited = q.call(jobs.waited, gates[2], timeout=0.3)
        await pause(0.5)
        self.assertFalse(limited.called)
        os.remove(gates[0])
        self.assertIsInstance(await self.failing(limited), TimeoutError)
        for gate in gates[1:]:
            os.remove(gate)
        for d in held:
            await d

    async def test_shutdown(self) -> None:
        """
        What was accepted is done before the end, and nothing is left behind: neither
        thread nor descriptor.
        """
        q = await self.shared()  # the first one in a process leaves a pipe
        await q.shutdown()
        threads, descriptors = ownThreads(), openDescriptors()
        q = DaskQueue(self.cluster.address)
        await q.d
        calls = [q.call(jobs.doubled, n) for n in range(300)]
        await q.shutdown(drain=True)
        self.assertEqual([await d for d in calls], [2 * n for n in range(300)])
        self.assertEqual(ownThreads(), threads)
        self.assertEqual(openDescriptors(), descriptors)

    async def test_crash(self) -> None:
        """
        A worker that is crashed hands back what it hasn't done, in the order in which
        that was accepted, and others do it.
        """
        q = await self.shared()
        held, gates = await self.hold(q)
        calls = [q.call(jobs.doubled, n) for n in range(5)]
        for gate in gates:
            os.remove(gate)
        assert q.worker is not None
        tasks = await q.detachWorker(q.worker, crash=True, reassign=False)
        self.assertEqual(len(tasks), 7)
        for d in [*held, *calls]:
            d.addErrback(lambda _: None)

    async def test_reassigned(self) -> None:
        """A cluster takes over any number of tasks of another worker."""
        q = await self.shared()
        gate = os.path.abspath(self.mktemp())
        held = [q.call(jobs.waited, f"{gate}{n}") for n in range(2)]
        await begun(f"{gate}0")
        calls = [q.call(jobs.doubled, n) for n in range(3_000)]
        assert q.worker is not None
        ID = q.worker.ID
        another = DaskWorker(self.cluster.address)
        await q.attachWorker(another)
        assert ID is not None
        await begun(f"{gate}1")
        for n in range(2):
            os.remove(f"{gate}{n}")
        await q.detachWorker(ID, reassign=True)
        self.assertEqual([await d for d in calls], [2 * n for n in range(3_000)])
        for d in held:
            await d


class IterationTests(ClusterTestCase):
    """Tests of iterators that calls return."""

    async def test_items(self) -> None:
        """
        The items come in their order, also very many, and an empty iterator as an empty
        list.
        """
        q = await self.shared()
        items = [item async for item in await q.call(jobs.counted, 20_000)]
        self.assertEqual(items, list(range(20_000)))
        self.assertEqual(await q.call(jobs.counted, 0), [])

    async def test_consumer(self) -> None:
        """A consumer gets them."""
        q = await self.shared()
        consumer = RecordingConsumer()
        await q.call(jobs.counted, 100, consumer=consumer)
        self.assertEqual(consumer.items, list(range(100)))

    async def test_fails(self) -> None:
        """If it raises, that comes after the items before it."""
        q = await self.shared()

        def failing() -> Any:
            yield 1
            raise ValueError("no more")

        found: list[Any] = []
        try:
            async for item in await q.call(failing):
                found.append(item)  # noqa: PERF401 - those before the error count
        except ValueError as error:
            found.append(str(error))
        self.assertEqual(found, [1, "no more"])

    async def test_stopped(self) -> None:
        """
        One that nobody wants any longer is ended there, where it's waiting for its
        items to be taken.
        """
        q = await self.shared()
        path = os.path.abspath(self.mktemp())
        deferator = await q.call(jobs.counted, 10**9, path)
        self.assertEqual(await next(deferator), 0)
        # Others go on meanwhile.
        self.assertEqual(await q.call(jobs.doubled, 1), 2)
        self.assertFalse(os.path.exists(path))
        deferator.stop()
        await until(lambda: os.path.exists(path))

    async def test_lost(self) -> None:
        """It fails if the process ends that has the iterator."""
        q = await self.shared(heartbeat=0.3)

        def pids() -> Any:
            while True:
                yield os.getpid()

        deferator = await q.call(pids)
        os.kill(await next(deferator), signal.SIGKILL)
        with self.assertRaises(WorkerLost):
            await drained(deferator)
        # Its nanny starts another.
        self.assertEqual(await q.call(jobs.doubled, 1), 2)


class WorkerDeathTests(ClusterTestCase):
    """Tests of processes of the cluster that end."""

    async def test_killed(self) -> None:
        """What a process was running when it was killed is run by another."""
        q = await self.shared()
        gate = os.path.abspath(self.mktemp())
        d = q.call(jobs.waited, gate, "result")
        await begun(gate)
        first = int(Path(gate).read_text())
        os.kill(first, signal.SIGKILL)
        await until(lambda: Path(gate).read_text() not in ("", str(first)))
        os.remove(gate)
        self.assertEqual(await d, "result")

    async def test_killsOnce(self) -> None:
        """So is what has ended its process itself."""
        q = await self.shared()
        path = os.path.abspath(self.mktemp())
        self.assertEqual(await q.call(jobs.ended, path), "done")


class SchedulerTests(ClusterTestCase):
    """Tests of a scheduler that's lost."""

    group = "lost"

    async def test_hangs(self) -> None:
        """
        When the scheduler doesn't answer, calls fail that it may have had run. Those
        that weren't sent are run when it's there again.
        """
        q = await self.shared(
            heartbeat=0.3, bundle=0, connectTimeout=2, backoff=lambda n: 0.1
        )
        running, gates = await self.hold(q)
        waiting = [q.call(jobs.doubled, n) for n in range(50)]
        start = time.monotonic()
        self.cluster.scheduler.send_signal(signal.SIGSTOP)
        try:
            for d in running:
                self.assertIsInstance(await self.failing(d), WorkerLost)
            self.assertLess(time.monotonic() - start, 10)
        finally:
            self.cluster.scheduler.send_signal(signal.SIGCONT)
        for gate in gates:
            os.remove(gate)
        results = [await d.addErrback(lambda f: f.type) for d in waiting]
        for n, result in enumerate(results):
            self.assertIn(result, (2 * n, WorkerLost))
        self.assertGreater(len([r for r in results if r is not WorkerLost]), 40)

    async def test_killed(self) -> None:
        """When the scheduler is killed, the same holds at once."""
        q = await self.shared(
            heartbeat=0.3, bundle=0, connectTimeout=5, backoff=lambda n: 0.2
        )
        running, gates = await self.hold(q)
        waiting = [q.call(jobs.doubled, n) for n in range(50)]
        cluster = self.cluster
        cluster.scheduler.kill()
        for d in running:
            self.assertIsInstance(await self.failing(d), WorkerLost)
        for gate in gates:
            os.remove(gate)
        cluster.startScheduler(cluster.address.rpartition(":")[2])
        for _ in range(2):
            cluster.startWorker()
        results = [await d.addErrback(lambda f: f.type) for d in waiting]
        self.assertGreater(len([r for r in results if r is not WorkerLost]), 40)
        # The next test has a cluster of its own.
        self.clusters.pop(self.group).close()


class TLSTests(DaskTestCase):
    """Tests of certificates."""

    skip = SKIP or (None if SSL else "There are no certificates: asynqueue[tls]")

    def setUp(self) -> None:
        """Make an authority, and another."""
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def paths(self, name: str, authority: Identity) -> tuple[str, str, str]:
        """Write the files of a party."""
        own = str(Identity(name, authority).save(self.folder / f"{name}.pem").resolve())
        path = self.folder / f"{name}-authority.pem"
        path.write_bytes(authority.pem)
        return str(path.resolve()), own, own

    async def test_identities(self) -> None:
        """
        With certificates of one authority, calls are made. With another's, there's no
        connection; nor without any.
        """
        authority = Identity("authority", isAuthority=True)
        another = Identity("another", isAuthority=True)
        ca, certificate, key = self.paths("cluster", authority)
        options = ("--tls-ca-file", ca, "--tls-cert", certificate, "--tls-key", key)
        cluster = Cluster(1, *options, scheduler=("0", "--protocol", "tls"))
        self.addCleanup(cluster.close)
        q = DaskQueue(cluster.address, security=self.paths("client", authority))
        self.addCleanup(q.shutdown)
        self.assertNotEqual(await q.call(jobs.pid), os.getpid())
        with self.assertRaises(AuthenticationError):
            DaskWorker(cluster.address)
        mixed = (ca, *self.paths("stranger", another)[1:])
        for security in (self.paths("other", another), mixed):
            worker = DaskWorker(cluster.address, security=security, connectTimeout=1)
            refused = TaskQueue()
            error = await self.failing(refused.attachWorker(worker))
            self.assertIsInstance(error, WorkerStartError)
            await refused.shutdown()


class OtherClusterTests(DaskTestCase):
    """
    Tests of a cluster that is made on the spot, of one with resources, and of none.
    """

    async def test_own(self) -> None:
        """It's there for the queue alone, and ends with it."""
        threads = ownThreads()
        q = DaskQueue()
        pid = await q.call(jobs.pid)
        self.assertNotEqual(pid, os.getpid())
        self.assertEqual(await q.map(abs, range(100)), list(range(100)))
        await q.shutdown()
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)
        # Dask doesn't wait for the threads that watch its processes.
        await until(lambda: ownThreads() == threads)

    async def test_stopsWhileStarting(self) -> None:
        """
        Nothing of it is left when the queue has been shut down, though it had only
        begun to start: it was listening already, or had a process, too.
        """
        small = partial(LocalCluster, n_workers=1)
        self.patch(_connection, "LocalCluster", small)
        threads, processes, ports = ownThreads(), ownProcesses(), ownPorts()
        for look, before in ((ownPorts, ports), (ownProcesses, processes)):
            for limit in (None, 0):
                q = DaskQueue()
                while not look() - before:
                    await pause(0.01)
                self.assertEqual(
                    [worker.state for worker in q.workers()], [ClusterState.CONNECTING]
                )
                await q.shutdown(timeout=limit)
                self.assertEqual(ownProcesses() - processes, set())
                self.assertEqual(ownPorts() - ports, set())
                # Dask doesn't wait for the threads that watch its processes.
                await until(lambda: ownThreads() == threads)

    async def test_nobody(self) -> None:
        """It's an error if there's no scheduler, after a while."""
        threads = ownThreads()
        worker = DaskWorker("127.0.0.1:1", connectTimeout=0.5)
        q = TaskQueue()
        error = await self.failing(q.attachWorker(worker))
        self.assertIsInstance(error, WorkerStartError)
        await q.shutdown()
        self.assertEqual(ownThreads(), threads)

    async def test_resources(self) -> None:
        """
        A series may need resources: its calls are run where they're offered, and wait
        where they aren't.
        """
        cluster = Cluster(0)
        self.addCleanup(cluster.close)
        cluster.startWorker("--resources", "GPU=1")
        q = DaskQueue(cluster.address)
        await q.call(jobs.pid)  # the worker is there
        await q.shutdown()
        q = DaskQueue(
            cluster.address,
            series=["train", "fly"],
            resources={"train": {"GPU": 1}, "fly": {"wings": 2}},
            heartbeat=0.3,
            noWorkersTimeout=0.5,
            reconnect=False,
        )
        self.addCleanup(q.shutdown, timeout=0)
        waiting = q.call(jobs.pid, series="fly")
        pid = await q.call(jobs.pid, series="train")
        self.assertIsInstance(pid, int)
        self.assertFalse(waiting.called)
        # A cluster without workers counts as lost.
        os.killpg(cluster.processes[-1].pid, signal.SIGKILL)
        error = await self.failing(waiting)
        self.assertIsInstance(error, WorkerLost)
        self.assertIn("no workers", str(error))
