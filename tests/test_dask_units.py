"""
Tests of how calls for a cluster are bundled, and of who may be let near one, without
any cluster.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from asynqueue._child.parcels import Parcel, pack
from asynqueue._child.protocol import Kind
from asynqueue.errors import (
    AuthenticationError,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from asynqueue.interfaces import ICancellingWorker, IReplaceableWorker, IWorker

from ._cases import same, task
from ._dask import SKIP

if not SKIP:
    from asynqueue.dask import DaskQueue, DaskWorker, _remote
    from asynqueue.dask._accepted import Accepted
    from asynqueue.dask._buffers import MIN_SCATTERED, Scattering
    from asynqueue.dask._bundles import CallQueue, ClusterCall
    from asynqueue.dask._connection import checkReach, differences
    from asynqueue.dask._iterations import HeldItems
    from asynqueue.dask._runner import BundleRunner
    from asynqueue.dask._session import ClusterSession


#: What has been made by C{endless}, and whether that has been ended.
_numbers = count()
_ended = threading.Event()


def endless() -> Iterator[int]:
    """Yield numbers."""
    try:
        yield from _numbers
    finally:
        _ended.set()


def call(name: str = "f", **kw: Any) -> ClusterCall:
    """Make a call."""
    return ClusterCall(task(same, **kw), b"", None, name, False)


class BundleTests(SynchronousTestCase):
    """Tests of L{CallQueue}."""

    skip = SKIP

    def setUp(self) -> None:
        """Make one for a cluster of two threads."""
        self.queue = CallQueue(0.05)
        self.queue.threads = 2

    def take(self) -> list[list[ClusterCall]]:
        """Take all that may be sent."""
        found = []
        while (bundle := self.queue.take()) is not None:
            found.append(bundle.calls)
        return found

    def put(self, *calls: ClusterCall) -> list[ClusterCall]:
        """Put calls in."""
        for each in calls:
            self.queue.put(each)
        return list(calls)

    def test_unknown(self) -> None:
        """
        As long as it isn't known how long they take, calls travel alone, and only a few
        for each thread.
        """
        calls = self.put(*[call() for _ in range(10)])
        self.assertEqual(self.take(), [[each] for each in calls[:4]])

    def test_short(self) -> None:
        """Short calls travel together, and leave some to the other thread."""
        self.queue.note("f", 0.001)
        self.put(*[call() for _ in range(40)])
        self.assertEqual([len(calls) for calls in self.take()][:4], [20, 10, 5, 2])

    def test_asLongAsWanted(self) -> None:
        """They take no longer than they should together."""
        self.queue.note("f", 0.01)
        self.put(*[call() for _ in range(40)])
        self.assertEqual([len(calls) for calls in self.take()], [5, 5, 5, 5])

    def test_sameKind(self) -> None:
        """
        Only calls of the same function and series go together, in the order of their
        priorities.
        """
        for name in "fg":
            self.queue.note(name, 0.001)
        calls = self.put(
            call("f"), call("f"), call("g"), call("f", series="s"), call("f")
        )
        urgent = self.put(call("f", priority=-1))
        taken = self.take()
        self.assertEqual(taken[0], urgent + calls[:2])
        self.assertEqual(taken[1:3], [[calls[2]], [calls[3]]])

    def test_off(self) -> None:
        """Without bundles, many short calls are on their way at once."""
        self.queue = CallQueue(0)
        self.queue.threads = 2
        self.queue.note("f", 0.001)
        self.put(*[call() for _ in range(100)])
        self.assertEqual([len(calls) for calls in self.take()], [1] * 64)

    def test_longer(self) -> None:
        """A call that takes longer counts at once, one that takes less by and by."""
        self.queue.note("f", 0.001)
        self.queue.note("f", 1.0)
        self.queue.note("f", 0.001)
        self.put(*[call() for _ in range(10)])
        self.assertEqual([len(calls) for calls in self.take()], [1] * 4)

    def test_dropped(self) -> None:
        """What nobody wants isn't sent."""
        calls = self.put(call(), call())
        calls[0].isDropped = True
        self.assertEqual(self.take(), [[calls[1]]])

    def test_capacity(self) -> None:
        """It follows the threads, and more short calls are accepted."""
        self.assertEqual(self.queue.capacity, 8)
        self.queue.threads = 10
        self.assertEqual(self.queue.capacity, 40)
        self.queue.note("f", 0.0001)
        self.assertEqual(self.queue.capacity, 1280)
        self.queue.note("f", 10.0)
        self.assertEqual(self.queue.capacity, 40)


class ReachTests(SynchronousTestCase):
    """Tests of L{checkReach}, and of what a worker is given."""

    skip = SKIP

    def test_loopback(self) -> None:
        """On this machine, nothing else is needed."""
        for address in (
            "tcp://127.0.0.1:8786",
            "127.0.0.1:8786",
            "tcp://[::1]:8786",
            "localhost:8786",
            "inproc://1/2/3",
        ):
            checkReach(address, None, False)

    def test_others(self) -> None:
        """Other machines need certificates, or somebody who says that they don't."""
        for address in ("tcp://10.0.0.1:8786", "scheduler:8786", "ws://10.0.0.1:8786"):
            with self.assertRaisesRegex(AuthenticationError, "isn't on this machine"):
                checkReach(address, None, False)
            checkReach(address, None, True)

    def test_incomplete(self) -> None:
        """With an authority alone, there would be no encryption."""
        from distributed import Security

        for security in (None, Security(tls_ca_file="ca.pem")):
            with self.assertRaisesRegex(AuthenticationError, "needs security"):
                checkReach("tls://10.0.0.1:8786", security, True)

    def test_worker(self) -> None:
        """A worker isn't made, nor a queue, if it can't connect safely."""
        for make in (DaskWorker, DaskQueue):
            with self.assertRaises(AuthenticationError):
                make("tcp://10.0.0.1:8786", reactor=Clock())

    def test_arguments(self) -> None:
        """Nonsense is found at once."""
        for kw, kind in (
            ({"schedulerFile": "f"}, TypeError),
            ({"heartbeat": 0}, ValueError),
            ({"connectTimeout": -1}, ValueError),
            ({"noWorkersTimeout": 0}, ValueError),
            ({"bundle": -1}, ValueError),
            ({"N_concurrent": 0}, ValueError),
            ({"backoff": 3}, TypeError),
            ({"allowInsecure": 1}, TypeError),
        ):
            with self.subTest(kw=kw), self.assertRaises(kind):
                DaskWorker("127.0.0.1:1", reactor=Clock(), **kw)

    def test_interfaces(self) -> None:
        """It provides what a worker must, and more."""
        worker = DaskWorker("127.0.0.1:1", reactor=Clock(), series=["a"])
        for interface in (IWorker, ICancellingWorker, IReplaceableWorker):
            verifyObject(interface, worker)
        self.assertEqual(worker.iQualified, ["a"])

    def test_neverStarted(self) -> None:
        """One that is stopped before it has begun to connect leaves nothing behind."""
        clock = Clock()
        worker = DaskWorker("127.0.0.1:1", reactor=clock)
        ready = worker.deferUntilReady()
        self.successResultOf(worker.stop())
        self.failureResultOf(ready, WorkerStartError)
        self.assertEqual(clock.getDelayedCalls(), [])


class DifferenceTests(SynchronousTestCase):
    """Tests of L{differences}."""

    skip = SKIP

    def versions(self, **kw: Any) -> dict[str, Any]:
        """Make what Dask tells."""
        packages = {"python": "3.12.1.final.0", "asynqueue": "1.0", "dask": "2026.1"}
        return {
            "client": {"packages": packages},
            "scheduler": {"packages": packages},
            "workers": {"tcp://w": {"packages": packages | kw}},
        }

    def test_none(self) -> None:
        """Nothing is said if there are none that matter."""
        self.assertEqual(differences(self.versions()), ([], []))
        same = self.versions(python="3.12.9.final.0")
        self.assertEqual(differences(same), ([], []))

    def test_vital(self) -> None:
        """Another Python, or another of this package, is of no use."""
        for kw, text in (
            (
                {"python": "3.11.1.final.0"},
                "python is 3.12 here and 3.11 on worker tcp://w",
            ),
            (
                {"asynqueue": None},
                "asynqueue is 1.0 here and missing on worker tcp://w",
            ),
        ):
            self.assertEqual(differences(self.versions(**kw)), ([text], []))

    def test_minor(self) -> None:
        """Others may do no harm."""
        text = "dask is 2026.1 here and 2026.2 on worker tcp://w"
        self.assertEqual(differences(self.versions(dask="2026.2")), ([], [text]))


class FakeClient:
    """Counts what is scattered."""

    def __init__(self) -> None:
        self.scattered: list[Any] = []

    async def scatter(self, parcel: Parcel, direct: bool, hash: bool) -> Any:  # noqa: A002
        """Implement what is used of the client's."""
        if parcel.buffers:
            self.scattered.append(parcel)
        return object()


class ScatteringTests(SynchronousTestCase):
    """Tests of L{Scattering}."""

    skip = SKIP

    def inLoop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of asyncio's."""
        return asyncio.run(coroutine)

    async def two(self, first: Any, second: Any, change: Any = None) -> list[Any]:
        """Have two calls hold a buffer, and scatter it."""
        scattering = Scattering(client := FakeClient())
        held = []
        for value in (first, second):
            parcel = pack(value)
            assert isinstance(parcel, Parcel)
            held.append(await scattering.hold(parcel))
            if change is not None:
                change(first)
        for _, large in held:
            for copy in large.values():
                await scattering.scatter(copy)
        for _, large in held:
            scattering.release(large)
        return client.scattered

    def test_once(self) -> None:
        """What two calls have is brought to the cluster once."""
        data = bytearray(MIN_SCATTERED)
        self.assertEqual(len(self.inLoop(self.two(data, data))), 1)
        text = bytes(MIN_SCATTERED)
        self.assertEqual(len(self.inLoop(self.two(text, text))), 1)

    def test_changed(self) -> None:
        """If it's changed between the calls, each gets what it was given."""
        data = bytearray(MIN_SCATTERED)

        def change(data: bytearray) -> None:
            data[-1] += 1

        scattered = self.inLoop(self.two(data, data, change))
        self.assertEqual([bytes(p.buffers[0])[-1] for p in scattered], [0, 1])

    def test_mixed(self) -> None:
        """Small buffers stay with the call, and all are put where they belong."""
        large, small = bytearray(MIN_SCATTERED), bytearray(100_000)

        async def hold() -> Any:
            parcel: Any = pack((small, large, small + b"x"))
            scattering = Scattering(FakeClient())
            rest, copies = await scattering.hold(parcel)
            scattering.release(copies)
            return rest, list(copies)

        rest, places = self.inLoop(hold())
        self.assertEqual(places, [1])
        self.assertEqual([len(b) for b in rest.buffers], [100_000, 100_001])

    def test_dropped(self) -> None:
        """Nothing is kept of a call that is dropped before it's sent."""

        async def drop() -> Any:
            runner = BundleRunner(FakeClient(), cast(Any, None), "topic")
            dropped = call()
            dropped.payload = pack(bytearray(MIN_SCATTERED))
            await runner.hold(dropped)
            (copy,) = dropped.large.values()
            found = weakref.ref(copy)
            del copy
            runner.drop(dropped)
            await asyncio.sleep(0)
            gc.collect()
            return runner, found()

        self.assertIsNone(self.inLoop(drop())[1])


class AcceptedTests(SynchronousTestCase):
    """Tests of what becomes of the calls of a bundle."""

    skip = SKIP

    def setUp(self) -> None:
        """Accept three calls that travel together."""
        self.clock = Clock()
        self.asked: list[tuple[Any, ...]] = []
        self.finished = 0
        self.accepted = Accepted(
            0.05,
            lambda *args: self.asked.append(args),
            self.finish,
            lambda task, why: WorkerLost(why, task=task),
            self.clock,
        )
        self.accepted.open()
        self.accepted.resized(1)
        self.accepted.queue.note("f", 0.001)
        self.calls = [call() for _ in range(3)]
        for each in self.calls:
            self.accepted.add(each)
        self.clock.advance(0)
        (self.bundle,) = self.bundles()

    def finish(self) -> None:
        """Count how often something has been finished."""
        self.finished += 1

    def bundles(self) -> list[Any]:
        """Take the bundles that were to be sent."""
        asked = [args[1] for args in self.asked if args[0] is ClusterSession.submit]
        self.asked.clear()
        return [bundle for bundles in asked for bundle in bundles]

    def test_killed(self) -> None:
        """
        If a bundle has ended all processes that ran it, its calls are run one by one,
        and only the guilty one fails.
        """
        self.accepted.killed(self.bundle, RuntimeError("killed"))
        self.clock.advance(0)
        again = self.bundles()
        self.assertEqual([b.calls for b in again], [[each] for each in self.calls])
        self.accepted.killed(again[0], RuntimeError("killed"))
        self.failureResultOf(self.calls[0].task.d, WorkerError)
        self.assertNoResult(self.calls[1].task.d)
        self.accepted.answered(again[1], [(0.001, (b"r", 5))])
        self.assertEqual(self.successResultOf(self.calls[1].task.d), (b"r", 5))

    def test_failed(self) -> None:
        """If Dask can't run a bundle, its calls fail with that, or as lost."""
        self.accepted.failed(self.bundle, RuntimeError("why"))
        for each in self.calls:
            failure = self.failureResultOf(each.task.d, WorkerError)
            self.assertIn("why", failure.getErrorMessage())
        self.assertTrue(self.accepted.isEmpty)
        self.assertEqual(self.finished, 1)

    def test_dropped(self) -> None:
        """A bundle is cancelled when nobody wants any of its calls."""
        for each in self.calls[:2]:
            self.accepted.drop(each.task)
        self.assertEqual(self.asked, [])
        self.accepted.drop(self.calls[2].task)
        self.assertEqual(self.asked, [(ClusterSession.cancel, self.bundle)])
        self.assertEqual(
            [self.successResultOf(c.ready) for c in self.calls], [None] * 3
        )

    def test_iterations(self) -> None:
        """The iterators of a bundle are released when the last of them isn't wanted."""
        held = [(0.0, HeldItems(str(n), "a")) for n in range(2)]
        self.accepted.answered(self.bundle, [*held, (0.001, (b"r", 5))])
        iterations = [
            args[1] for args in self.asked if args[0] is ClusterSession.iterate
        ]
        self.asked.clear()
        iterations[0].received([1, 2], None)
        _, deferator = self.successResultOf(self.calls[0].task.d)
        deferator.stop()
        self.assertEqual(self.asked, [(ClusterSession.cancel, iterations[0])])
        iterations[1].received([], "")
        self.assertEqual(self.successResultOf(self.calls[1].task.d), (b"i", []))
        self.assertIn((ClusterSession.release, self.bundle), self.asked)
        self.assertTrue(self.accepted.isEmpty)

    def test_lost(self) -> None:
        """
        What was sent fails when the scheduler is lost, but not before the worker has
        resigned. What wasn't is given back.
        """
        unsent = call("g")
        self.accepted.add(unsent)
        resigned: list[int] = []

        def resign() -> None:
            for each in self.calls:
                self.assertNoResult(each.task.d)
            resigned.append(len(self.accepted.tasks))

        self.accepted.lose("why", resign)
        self.assertEqual(resigned, [1])
        for each in self.calls:
            failure = self.failureResultOf(each.task.d, WorkerLost)
            self.assertIn("why", failure.getErrorMessage())
        self.assertEqual(self.accepted.takeCalls(), [unsent])
        self.accepted.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crashed(self) -> None:
        """
        Of iterations that are ended by a crash, those without a first item give their
        tasks back. The others fail after the items that have come.
        """
        held = [(0.0, HeldItems(str(n), "a")) for n in range(2)]
        self.accepted.answered(self.bundle, [*held, (0.001, (b"r", 5))])
        iteration = next(
            args[1] for args in self.asked if args[0] is ClusterSession.iterate
        )
        iteration.received([1], None)
        _, deferator = self.successResultOf(self.calls[0].task.d)
        tasks = self.accepted.releaseIterations("why")
        self.assertEqual(tasks, [self.calls[1].task])
        self.assertEqual(self.successResultOf(deferator.__anext__()), 1)
        self.failureResultOf(deferator.__anext__(), WorkerLost)
        self.assertTrue(self.accepted.isEmpty)

    def test_connects(self) -> None:
        """What was accepted before there was a connection is sent when there's one."""
        accepted = Accepted(
            0,
            lambda *args: self.asked.append(args),
            self.finish,
            lambda task, why: WorkerLost(why, task=task),
            self.clock,
        )
        calls = [call(), call(), call()]
        for each in calls:
            accepted.add(each)
        accepted.drop(calls[0].task)
        self.asked.clear()
        accepted.resized(1)
        self.clock.advance(0)
        self.assertEqual(self.asked, [])
        accepted.open()
        self.clock.advance(0)
        self.assertEqual([b.calls for b in self.bundles()], [[c] for c in calls[1:]])


class RemoteTests(SynchronousTestCase):
    """Tests of what is run in the cluster."""

    skip = SKIP

    def execute(self, f: Any, *args: Any) -> Any:
        """Make a call as a Dask worker does."""
        worker = SimpleNamespace(address="tcp://w", log_event=lambda *event: None)
        self.patch(_remote, "get_worker", lambda: worker)
        return _remote.execute("key", _remote.RemoteCalls([pack((f, args, {}, False))]))

    def held(self, iterator: Any) -> Any:
        """Have an iterator be held."""
        answers = self.execute(iter, iterator)
        (held,) = answers.held
        return answers, held

    def test_result(self) -> None:
        """What isn't large is just bytes, whatever it was."""
        ((kind, answer),) = pickle.loads(self.execute(abs, -3))
        self.assertEqual((kind, pickle.loads(answer)[1]), (Kind.RESULT, 3))
        ((kind, _),) = pickle.loads(self.execute(sys.exit))
        self.assertEqual(kind, Kind.ERROR)

    def test_large(self) -> None:
        """What is large is kept beside, and Dask told of its size."""
        answers = self.execute(bytes, 1_000_000)
        self.assertGreater(sys.getsizeof(answers), 1_000_000)
        ((_, parcel),) = answers.answers
        self.assertEqual(parcel.loads()[1], bytes(1_000_000))

    def test_items(self) -> None:
        """A held iterator gives its items, and then its end."""
        _, held = self.held(iter("abc"))

        async def takeAll() -> list[Any]:
            found: list[Any] = []
            while True:
                items = await _remote.take(held.ID)
                found += [pickle.loads(cast(bytes, item)) for item in items.items]
                if items.end is not None:
                    return [*found, items.end]

        self.assertEqual(asyncio.run(takeAll()), [*"abc", b""])

    def test_bounded(self) -> None:
        """It's held up when its items aren't taken, and ended when Dask forgets it."""
        answers = self.execute(endless)
        (held,) = answers.held
        items = asyncio.run(held.take()).items
        self.assertGreater(len(items), 0)
        del answers
        gc.collect()
        self.assertTrue(_ended.wait(30))
        self.assertLess(next(_numbers), 5_000)
        self.assertRaises(LookupError, asyncio.run, _remote.take(held.ID))

    def test_fails(self) -> None:
        """An error of the iterator comes after the items before it."""
        _, held = self.held(map(int, ["1", "x"]))

        async def take() -> Any:
            items = await held.take()
            return items if items.end else await held.take()

        self.assertIn(b"ValueError", asyncio.run(take()).end)

    def test_update(self) -> None:
        """
        An update is made when it's registered. Its failure is told, and its result.
        """
        plugin = _remote.RemoteUpdate("good", pack((abs, (-1,), {}, False)))
        asyncio.run(plugin.setup(None))
        kind, answer = asyncio.run(_remote.updated("good"))
        self.assertEqual(kind, Kind.RESULT)
        self.assertEqual(pickle.loads(cast(bytes, answer))[1], 1)
        plugin = _remote.RemoteUpdate("bad", pack((int, ("x",), {}, False)))
        with self.assertRaisesRegex(RuntimeError, "An update has failed"):
            asyncio.run(plugin.setup(None))
        self.assertEqual(asyncio.run(_remote.updated("bad"))[0], Kind.ERROR)

    def test_withoutTwisted(self) -> None:
        """It imports nothing of Twisted's."""
        from .test_exports import fresh

        program = (
            "import sys, asynqueue.dask._remote as r; print('twisted' in sys.modules)"
        )
        self.assertEqual(fresh(program), "False")

    def test_missing(self) -> None:
        """Without Dask, it's said what to install."""
        from .test_exports import fresh

        program = (
            "import sys; sys.modules['distributed'] = None\n"
            "try: from asynqueue.dask import DaskQueue\n"
            "except ImportError as error: print(error)"
        )
        self.assertIn("asynqueue[dask]", fresh(program))
