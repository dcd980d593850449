"""
Tests of queues with real children and threads whose arguments and results are large.
"""

from __future__ import annotations

import array
import functools
import gc
import importlib
import os
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest

from asynqueue import AsyncWorker, ProcessQueue, TaskQueue, ThreadQueue
from asynqueue._child.buffers import SPARE_BYTES, THRESHOLD

from . import _large as large
from .test_integration_process import ChildrenTestCase, reactor

MB = 1 << 20


def optional(name: str) -> Any:
    """Import what not everybody has, or skip the test."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SkipTest(f"{name} isn't installed") from None


def inUse() -> int:
    """Tell how many bytes this process has resident."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def takenUp(q: ProcessQueue) -> list[int]:
    """
    Tell how many bytes the files of a queue's only child take up, for arguments and for
    results.
    """
    [worker] = q.workers()
    transport = worker._life.transport
    fds = transport._buffers.fd, transport._reader.fd
    return [os.fstat(fd).st_blocks * 512 for fd in fds]


class LargeCase(ChildrenTestCase):
    """A test with something large."""

    async def back(self, q: TaskQueue, value: Any) -> Any:
        """Send something to a child and back."""
        return await q.call(large.same, value)

    async def same(self, q: TaskQueue, value: Any) -> Any:
        """Assert that something comes back as it was. Returns what has come back."""
        found = await self.back(q, value)
        self.assertIs(type(found), type(value))
        self.assertTrue(found == value)
        return found

    async def givenBack(self, q: ProcessQueue) -> None:
        """
        Wait until the files of a queue's only child take up no more than is kept to be
        used again. Who needs what no longer is told in passing, so this makes calls.
        """
        while max(takenUp(q)) > SPARE_BYTES + 2 * MB:
            await q.call(int)


class ValueTests(LargeCase):
    """Tests of what can be sent there and back."""

    async def test_sizes(self) -> None:
        """It makes no difference how large things are."""
        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            for size in (0, THRESHOLD - 1, THRESHOLD, MB, 5 * MB + 1):
                data = os.urandom(size)
                await self.same(q, data)
                await self.same(q, bytearray(data))
                await self.same(q, memoryview(data))
                found = await self.back(q, large.Thing(bytearray(data)))
                self.assertTrue(bytes(found.buffer) == data)
            await q.shutdown()

    async def test_veryLarge(self) -> None:
        """
        200 MB of bytes, or of something else, can be sent in either direction, and the
        reactor has its turn meanwhile.
        """
        q = self.queue()
        size = 200_000_000
        turns: list[None] = []

        def turn() -> None:
            turns.append(None)
            calls[0] = reactor.callLater(0.001, turn)

        calls = [reactor.callLater(0.001, turn)]
        for kind in (bytes, bytearray, large.Thing):
            value = bytes(size) if kind is bytes else large.Thing(bytearray(size))
            self.assertEqual(await q.call(self.length, value), size)
            del value
            found = await q.call(large.make, kind, size)
            self.assertEqual(self.length(found), size)
            del found
        calls[0].cancel()
        self.assertGreater(len(turns), 20)

    @staticmethod
    def length(value: Any) -> int:
        """Measure something."""
        return large.count(getattr(value, "buffer", value))

    async def test_views(self) -> None:
        """
        Views come back with their format, shape, and whether they may be written to.
        """
        q = self.queue()
        store = bytearray(b"some" * (MB // 2))
        for view in (
            memoryview(store),
            memoryview(bytes(store)),
            memoryview(store).cast("d"),
            memoryview(store).cast("i", (MB // 4, 2)),
            memoryview(store)[::2],
            memoryview(array.array("d", range(100_000))),
        ):
            found = await self.same(q, view)
            self.assertEqual((found.format, found.shape), (view.format, view.shape))
            self.assertEqual(found.readonly, view.readonly)

    async def test_subclasses(self) -> None:
        """Kinds of bytes of one's own come back as what they are."""
        q = self.queue()
        blob = large.Blob(os.urandom(MB))
        blob.note = "noted"
        self.assertEqual((await self.same(q, blob)).note, "noted")

    async def test_many(self) -> None:
        """Many things may be parts of others."""
        q = self.queue()
        value = {
            i: [
                bytes([i]) * (THRESHOLD // 2 + i),
                (i, bytearray([i]) * 100_000),
                str(i),
            ]
            for i in range(50)
        }
        await self.same(q, value)
        await self.same(q, [value, os.urandom(3 * MB), {"deep": [[value[3]]]}])

    async def test_identity(self) -> None:
        """What is there twice is one thing there, and is one when it has come back."""
        q = self.queue()
        one, two = os.urandom(MB), bytearray(os.urandom(MB))
        value = [one, two, one, large.Thing(two), two, bytes(bytearray(one))]
        value.append(value[3])
        expected = [0, 1, 0, 3, 1, 5, 3]
        there, found = await q.call(large.identities, value)
        self.assertEqual(there, expected)
        self.assertEqual(large.identities(found)[0], expected)

    async def test_forms(self) -> None:
        """Large things may come with a callable, or as keywords."""
        q = self.queue()
        data = os.urandom(MB)
        self.assertEqual(await q.call(large.Holder(data).length, data), 2 * MB)
        self.assertTrue(await q.call(functools.partial(large.same, data)) == data)
        self.assertTrue(await q.call(large.same, value=data) == data)
        size = await q.call(functools.partial(large.Holder(data).length, data), data)
        self.assertEqual(size, 3 * MB)

    async def test_updates(self) -> None:
        """All children may be given something large, also those that come later."""
        q = self.queue(2)
        data = os.urandom(2 * MB)
        pids = await q.update(large.hold, data)
        self.assertEqual(len(set(pids)), 2)
        for worker in q.workers():
            os.kill(worker.process.pid, signal.SIGKILL)
            await worker.deferUntilGone()
        for _ in range(5):
            self.assertTrue(await q.call(large.isHeld, data))

    async def test_map(self) -> None:
        """They may be what calls are mapped to, and what comes of that."""
        q = self.queue(2)
        data = [bytes([i]) * (MB + i) for i in range(12)]
        self.assertEqual(await q.map(len, data), [MB + i for i in range(12)])
        self.assertTrue(await q.map(large.same, data) == data)
        self.assertTrue(await q.map(large.same, data, chunksize=5) == data)

    async def test_items(self) -> None:
        """
        They may be items of an iteration, with a reactor in the child and without.
        """
        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            found = [item async for item in await q.call(large.items, 6, 2 * MB)]
            self.assertTrue(found == [bytes([i]) * 2 * MB for i in range(6)])
            await q.shutdown()

    async def test_deferred(self) -> None:
        """They may be what a Deferred fires with in the child."""
        q = self.queue(useReactor=True)
        data = os.urandom(2 * MB)
        calls = [q.call(large.later, data) for _ in range(5)]
        for call in calls:
            self.assertTrue(await call == data)

    async def test_errors(self) -> None:
        """
        An error brings over what it has if that isn't too large. If it is, the text
        tells of it.
        """
        q = self.queue()
        error = await self.failureOf(
            large.ArrayError, q.call(large.raises, bytes(THRESHOLD))
        )
        self.assertTrue(error.args == (bytes(THRESHOLD),))
        error = await self.failureOf(Exception, q.call(large.raises, bytes(5 * MB)))
        self.assertIn("ArrayError", str(error))
        self.assertLess(len(str(error)), MB)
        self.assertEqual(await q.call(abs, -1), 1)

    async def test_inOrder(self) -> None:
        """Large and small calls are run in order by one child, and come back so."""
        q = self.queue()
        order: list[int] = []
        calls = []
        for i in range(60):
            size = (10, THRESHOLD, 2 * MB)[i % 3]
            there, back = (size, 10) if i % 2 else (10, size)
            d = q.call(large.exchange, i, bytes(there), back)
            calls.append(d.addCallback(lambda result: order.append(result[0])))
        await gatherResults(calls)
        self.assertEqual(order, list(range(60)))

    async def test_references(self) -> None:
        """Threads, and the reactor, are given things themselves."""
        data, store = os.urandom(MB), bytearray(MB)
        threads = ThreadQueue()
        self.addCleanup(threads.shutdown)
        here = TaskQueue(AsyncWorker())
        self.addCleanup(here.shutdown)
        for q in (threads, here):
            for value in (data, store):
                self.assertIs(await q.call(large.same, value), value)


class ArrayTests(LargeCase):
    """
    Tests of objects of libraries that know how to be pickled without their contents.
    """

    timeout = 120

    async def test_numpy(self) -> None:
        """Arrays of any kind come back as they were."""
        numpy = optional("numpy")
        q = self.queue()
        plain = numpy.arange(200_000, dtype="f8").reshape(400, 500)
        fixed = plain.copy()
        fixed.flags.writeable = False
        pairs = numpy.zeros(50_000, dtype=[("a", "i4"), ("b", "f8", (2,))])
        pairs["b"][:, 1] = numpy.arange(50_000)
        arrays = {
            "C": plain,
            "Fortran": numpy.asfortranarray(plain),
            "transposed": plain.T,
            "not contiguous": plain[::2, ::3],
            "backwards": plain[::-1],
            "fixed": fixed,
            "structured": pairs,
            "one field": pairs["a"],
            "empty": numpy.zeros((0, 5)),
            "scalar": numpy.array(5.0),
            "objects": numpy.array([None, "a", b"b" * MB] * 3, dtype=object),
            "text": numpy.array(["text", "x" * 50] * 5_000),
            "times": numpy.arange(100_000).astype("M8[s]"),
            "small": numpy.arange(10),
            "other byte order": plain.astype(">f8"),
            "large": numpy.random.default_rng(5).integers(0, 255, 9 * MB, "u1"),
        }
        for name, each in arrays.items():
            found = await self.back(q, each)
            self.assertEqual(found.dtype, each.dtype, name)
            self.assertEqual(found.shape, each.shape, name)
            self.assertTrue(numpy.array_equal(found, each), name)
            self.assertEqual(
                found.flags.f_contiguous and not found.flags.c_contiguous,
                each.flags.f_contiguous and not each.flags.c_contiguous,
                name,
            )
        self.assertFalse((await self.back(q, fixed)).flags.writeable)
        self.assertTrue((await self.back(q, plain)).flags.writeable)
        found = await self.back(q, list(arrays.values()))
        for one, other in zip(found, arrays.values(), strict=True):
            self.assertTrue(numpy.array_equal(one, other))

    async def test_arithmetic(self) -> None:
        """Arrays that have come are as good as others."""
        numpy = optional("numpy")
        q = self.queue()
        values = numpy.arange(MB, dtype="f8")
        self.assertEqual(await q.call(numpy.sum, values), values.sum())
        found = await q.call(numpy.multiply, values, 2)
        found += 1
        found.resize((1024, 1024))
        self.assertTrue(numpy.array_equal(found.ravel(), values * 2 + 1))

    async def test_pandas(self) -> None:
        """So do tables."""
        pandas = optional("pandas")
        numpy = optional("numpy")
        q = self.queue()
        table = pandas.DataFrame(
            {
                "i": numpy.arange(100_000),
                "f": numpy.random.default_rng(5).random(100_000),
                "t": [f"text {i % 50}" for i in range(100_000)],
                "d": pandas.date_range("2020-01-01", periods=100_000, freq="s"),
                "c": pandas.Categorical(["a", "b"] * 50_000),
            }
        )
        for value in (table, table[::3], table.set_index("d"), table.iloc[:0]):
            pandas.testing.assert_frame_equal(await self.back(q, value), value)
        pandas.testing.assert_series_equal(await self.back(q, table["f"]), table["f"])

    async def test_pyarrow(self) -> None:
        """So do tables of another kind."""
        pyarrow = optional("pyarrow")
        q = self.queue()
        table = pyarrow.table(
            {"i": list(range(200_000)), "s": [f"text {i}" for i in range(200_000)]}
        )
        self.assertTrue((await self.back(q, table)).equals(table))
        column = table["i"].combine_chunks()
        self.assertTrue((await self.back(q, column)).equals(column))


class LifeTests(LargeCase):
    """Tests of how long things live, and who sees what is changed."""

    timeout = 120

    async def test_isolation(self) -> None:
        """What a child changes is changed nowhere else, nor is what is changed here."""
        q = self.queue()
        for kind in (bytearray, self.array):
            value = kind(MB)
            one = await q.call(large.change, value)
            two = await self.back(q, value)
            self.assertEqual((value[0], one[0], two[0]), (0, 77, 0))
            two[1] = 5
            three = await self.back(q, two)
            three[2] = 6
            self.assertEqual(bytes(value[:3]), b"\0\0\0")
            self.assertEqual(bytes(one[:3]), b"M\0\0")
            self.assertEqual(bytes(two[:3]), b"\0\5\0")
            self.assertEqual(bytes(three[:3]), b"\0\5\6")

    @staticmethod
    def array(size: int) -> memoryview:
        """Make something that isn't copied when it comes."""
        return memoryview(bytearray(size))

    async def test_heldInChild(self) -> None:
        """
        What a child has given, and goes on to use, isn't changed here; nor is what it
        holds on to changed by what comes next.
        """
        q = self.queue()
        await q.call(large.hold, memoryview(bytearray(b"mine" * MB)))
        result = await q.call(large.makeAndHold, bytearray, MB)
        view = await q.call(large.makeAndHold, large.Thing, MB)
        for _ in range(5):
            await self.back(q, bytes(4 * MB))
        del view
        with self.assertRaises(TypeError):
            await q.call(large.changeHeld)
        await q.call(large.held.clear)
        self.assertEqual(bytes(result[:4]), b"xxxx")

    async def test_heldArguments(self) -> None:
        """Arguments that a child holds on to stay as they are."""
        q = self.queue()
        for letter in b"abc":
            argument = memoryview(bytearray([letter]) * MB)
            await q.call(large.hold, argument)
            await self.back(q, memoryview(bytearray(MB)))
        self.assertEqual(await q.call(large.changeHeld), [b"aaaa", b"bbbb", b"cccc"])
        await self.back(q, memoryview(bytearray(MB)))
        self.assertEqual(await q.call(abs, -1), 1)

    async def test_results(self) -> None:
        """
        Results stay when their child has been lost, and when the queue has been shut
        down.
        """
        q = self.queue()
        one = await q.call(large.make, large.Thing, 3 * MB, 1)
        [worker] = q.workers()
        pid = await q.call(os.getpid)
        os.kill(pid, signal.SIGKILL)
        await worker.deferUntilGone()
        two = await q.call(large.make, large.Thing, 3 * MB, 2)
        await q.shutdown()
        one.buffer[0] = two.buffer[0] = 7
        self.assertEqual(bytes(one.buffer), b"\7" + b"\1" * (3 * MB - 1))
        self.assertEqual(bytes(two.buffer), b"\7" + b"\2" * (3 * MB - 1))
        del one, two

    async def test_held(self) -> None:
        """Results that are kept don't get in the way of others."""
        q = self.queue()
        kept = [await q.call(large.make, large.Thing, MB, i) for i in range(40)]
        for i in range(0, 40, 2):
            kept[i] = None
        for i in range(100):
            found = await q.call(large.make, large.Thing, MB, i)
            self.assertEqual(found.buffer[-1], i)
        for i in range(1, 40, 2):
            self.assertEqual({*kept[i].buffer[:: MB // 7]}, {i})
        self.assertLess(takenUp(q)[1], 64 * MB)
        del found, kept[:]

    async def test_manySmall(self) -> None:
        """A thousand results that are just large enough may be kept."""
        q = self.queue()
        calls = [
            q.call(large.make, large.Thing, THRESHOLD, i % 251) for i in range(1000)
        ]
        kept = await gatherResults(calls)
        self.assertEqual(
            [thing.buffer[-1] for thing in kept], [i % 251 for i in range(1000)]
        )
        self.assertGreaterEqual(takenUp(q)[1], 1000 * THRESHOLD)
        del kept, calls
        gc.collect()
        await self.givenBack(q)

    async def test_notHeldOn(self) -> None:
        """Neither side holds on to what has gone there and back."""
        q = self.queue()
        store = bytearray(3 * MB)
        view = memoryview(store)
        await self.back(q, view)
        await self.back(q, store)
        view.release()
        store += b"longer"

    async def test_memory(self) -> None:
        """Memory doesn't grow, however often something large goes there and back."""
        if sys.platform != "linux":
            raise SkipTest("There's no telling here")
        for useReactor in (False, True):
            q = self.queue(useReactor=useReactor)
            sizes: list[tuple[int, list[int], int]] = []
            value = memoryview(bytearray(8 * MB))
            for i in range(100):
                await self.back(q, value)
                if i % 10 == 9:
                    [worker] = q.workers()
                    sizes.append((inUse(), takenUp(q), worker.memUsage() or 0))
            for size, files, child in sizes[2:]:
                self.assertLess(size, sizes[1][0] + 32 * MB)
                self.assertLessEqual(max(files), 32 * MB)
                self.assertLess(child, sizes[1][2] + 32 * 1024)
            await q.shutdown()

    async def test_memoryGivenBack(self) -> None:
        """What something very large has taken up is given back when it isn't needed."""
        if sys.platform != "linux":
            raise SkipTest("There's no telling here")
        q = self.queue()
        found = await self.back(q, memoryview(bytearray(160 * MB)))
        self.assertGreaterEqual(takenUp(q)[1], 160 * MB)
        del found
        await self.givenBack(q)

    async def test_stressed(self) -> None:
        """Children of a queue that all have much to give don't confuse it."""
        q = self.queue(2)
        calls: list[Deferred[Any]] = []
        for i in range(80):
            size = THRESHOLD + i * 50_000
            kind = (bytes, bytearray, large.Thing)[i % 3]
            calls.append(q.call(large.make, kind, size, i))
            calls.append(q.call(large.same, bytes([i]) * size))
        for i, call in enumerate(calls):
            found = await call
            found = getattr(found, "buffer", found)
            self.assertEqual(len(found), THRESHOLD + i // 2 * 50_000)
            self.assertEqual((found[0], found[-1]), (i // 2, i // 2))
