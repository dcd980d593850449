"""
Tests of L{asynqueue._child.buffers}: both sides of a file are in one
process here.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from asynqueue._child import buffers, memfd
from asynqueue._child.buffers import (
    SPARE_BYTES,
    THRESHOLD,
    BufferReader,
    BufferWriter,
    Incoming,
)
from asynqueue._child.memfd import PAGE, SLICE_BYTES, Allocator, openMemoryFile
from asynqueue._child.pickling import Packed, dumps

from ._fakes import replaceModule
from ._large import Thing


class Refuses:
    """Something that can't be unpickled."""

    def __reduce__(self) -> Any:
        """Be pickled."""
        return _refuse, ()


def _refuse() -> None:
    """Raise."""
    raise LookupError("refused")


class BufferCase(SynchronousTestCase):
    """A test of both sides of a file."""

    def setUp(self) -> None:
        """Make a file, and both sides."""
        self.fd = openMemoryFile()
        self.addCleanup(os.close, self.fd)
        self.woken: list[None] = []
        self.writer = BufferWriter(self.fd)
        self.reader = BufferReader(os.dup(self.fd), lambda: self.woken.append(None))
        self.addCleanup(lambda: os.close(self.reader.fd))

    def used(self) -> int:
        """Count the bytes of the file that are in use."""
        return sum(self.writer._allocator._lengths.values())

    def packed(self, value: Any) -> Packed:
        """Pickle something large."""
        packed = dumps(value)
        assert isinstance(packed, Packed)
        return packed

    def put(self, value: Any, **kw: Any) -> bytes:
        """Pickle something large, and put it into the file."""
        return self.writer.put(self.packed(value), **kw)

    def open(self, payload: bytes) -> Any:
        """Get what was put into the file."""
        incoming = Incoming(self.reader, memoryview(payload))
        incoming.read()
        return incoming.loads()

    def release(self) -> bool:
        """
        Tell the side that writes what isn't needed any longer. Returns whether it's
        time to trim.
        """
        return self.writer.release(self.reader.unneeded())

    def entries(self, payload: bytes) -> list[tuple[int, int, int]]:
        """
        List the buffers of a payload: of each what it is, its offset, and its length.
        """
        return buffers._readTable(memoryview(payload))[0]

    def size(self) -> int:
        """Tell how many bytes of memory the file takes up."""
        return os.fstat(self.fd).st_blocks * 512

    def pwrite(self, f: Callable[..., int]) -> None:
        """Have something called in place of C{os.pwrite}, which it's given."""
        pwrite = os.pwrite
        self.patch(os, "pwrite", lambda *args: f(pwrite, *args))

    def resize(self, size: int) -> None:
        """
        Put another file, of so many bytes, in the place of that of the side that reads.
        """
        with open(self.mktemp(), "w+b") as file:
            file.truncate(size)
            os.close(self.reader.fd)
            self.reader.fd = os.dup(file.fileno())


class WriterTests(BufferCase):
    """Tests of L{BufferWriter}."""

    def test_payload(self) -> None:
        """A payload tells where each buffer is, what it is, and has the pickle."""
        value = [b"a" * THRESHOLD, bytearray(100_000), Thing(b"t" * 100_000)]
        packed = self.packed(value)
        payload = self.writer.put(packed)
        self.assertTrue(payload.endswith(packed.pickle))
        after = PAGE + THRESHOLD + 102_400
        self.assertEqual(
            self.entries(payload),
            [
                (buffers._BYTES, PAGE, THRESHOLD),
                (buffers._BYTEARRAY, PAGE + THRESHOLD, 100_000),
                (buffers._VIEW, after, 100_000),
            ],
        )
        self.assertEqual(os.pread(self.fd, 5, PAGE), b"aaaaa")
        self.assertEqual(os.pread(self.fd, 100_000, after), b"t" * 100_000)
        self.assertEqual(self.used(), THRESHOLD + 2 * 102_400)

    def test_little(self) -> None:
        """
        With fewer bytes than are worth it, all is in the payload, and the file isn't
        touched.
        """
        half = THRESHOLD // 2
        value = [b"a" * half, b"b" * (half - 1)]
        payload = self.put(value)
        self.assertEqual(
            [where for _, where, _ in self.entries(payload)], [buffers._INLINE] * 2
        )
        self.assertGreater(len(payload), THRESHOLD - 1)
        self.assertEqual(self.used(), 0)
        self.assertEqual(os.fstat(self.fd).st_size, 0)
        value = [b"a" * half, b"b" * half]
        self.assertLess(len(self.put(value)), 200)
        self.assertEqual(self.used(), 2 * half)

    def test_growth(self) -> None:
        """The file is made longer when it must be, a power of two at a time."""
        whole = 1 << 26
        self.put(b"a" * THRESHOLD)
        self.assertEqual(os.fstat(self.fd).st_size, whole)
        self.put(bytes(whole - THRESHOLD - PAGE))
        self.assertEqual(os.fstat(self.fd).st_size, whole)
        self.put(b"b" * THRESHOLD)
        self.assertEqual(os.fstat(self.fd).st_size, 2 * whole)
        # It never gets shorter: others may look at its end.
        self.writer.discard(self.put(bytes(2 * whole)))
        self.put(b"c" * THRESHOLD)
        self.assertEqual(os.fstat(self.fd).st_size, 4 * whole)

    def test_slices(self) -> None:
        """
        What is large is written little by little, whatever the system takes at a time.
        """
        sizes: list[int] = []

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            sizes.append(len(data))
            written: int = pwrite(fd, data[:700_000], offset)
            return written

        self.pwrite(write)
        value = os.urandom(3 * SLICE_BYTES)
        self.assertEqual(self.open(self.put(value)), value)
        self.assertLessEqual(max(sizes), SLICE_BYTES)

    def test_regionsAreUsedAgain(self) -> None:
        """What the other side needs no longer is written over."""
        for i in range(5):
            value = bytes([i]) * THRESHOLD
            self.assertEqual(self.open(self.put(value)), value)
            self.release()
        self.assertEqual(self.used(), 0)
        self.assertLess(self.size(), 2 * THRESHOLD)

    def test_noRoom(self) -> None:
        """
        What there's no room for is in the payload, what there was room for isn't. The
        room is there for others.
        """
        written: list[int] = []

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            written.append(offset)
            if data[0] == 1:
                raise OSError(errno.ENOSPC, "full")
            return int(pwrite(fd, data, offset))

        self.pwrite(write)
        value: list[Any] = [bytes([i]) * THRESHOLD for i in range(3)]
        value += [bytearray(b"\1" * THRESHOLD)]
        more = [Thing(b"\1" * THRESHOLD), Thing(bytearray(b"\1" * THRESHOLD))]
        payload = self.put(value + more)
        inline = [where == buffers._INLINE for _, where, _ in self.entries(payload)]
        self.assertEqual(inline, [False, True, False, True, True, True])
        self.assertEqual(self.used(), 2 * THRESHOLD)
        self.assertEqual(written[1:3], [PAGE + THRESHOLD] * 2)
        found = self.open(payload)
        self.assertEqual(found[:4], value)
        self.assertEqual(
            [type(thing) for thing in found[:4]], [bytes] * 3 + [bytearray]
        )
        self.assertEqual([bytes(thing.buffer) for thing in found[4:]], [value[1]] * 2)
        self.assertRaises(TypeError, found[4].buffer.__setitem__, 0, 1)
        found[5].buffer[0] = 7
        self.release()
        self.assertEqual(self.used(), 0)

    def test_cannotGrow(self) -> None:
        """
        So is what there is when the file can't be made longer, at first or later on.
        """
        ftruncate = os.ftruncate

        def refuse(*_: Any) -> None:
            raise OSError(errno.EFBIG, "limit")

        self.patch(os, "ftruncate", refuse)
        value = b"x" * THRESHOLD
        payload = self.put(value)
        self.assertEqual(
            [where for _, where, _ in self.entries(payload)], [buffers._INLINE]
        )
        self.assertEqual(self.open(payload), value)
        self.patch(os, "ftruncate", ftruncate)
        self.assertLess(len(self.put(value)), 200)

    def test_halfWritten(self) -> None:
        """What had been written before there was no room is given back."""
        if not hasattr(mmap, "MADV_REMOVE"):
            raise SkipTest("This system can't")

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            if offset > SPARE_BYTES + 20 * SLICE_BYTES:
                raise OSError(errno.ENOSPC, "full")
            return int(pwrite(fd, data, offset))

        self.pwrite(write)
        payload = self.put([bytes(SPARE_BYTES + 50 * SLICE_BYTES)])
        self.assertEqual(
            [where for _, where, _ in self.entries(payload)], [buffers._INLINE]
        )
        self.assertLessEqual(self.size(), SPARE_BYTES)
        self.assertEqual(self.used(), 0)

    def test_noMemory(self) -> None:
        """If something else fails, nothing is in use."""

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            if offset > PAGE:
                raise MemoryError
            return int(pwrite(fd, data, offset))

        self.pwrite(write)
        store = bytearray(THRESHOLD)
        self.assertRaises(MemoryError, self.put, [bytes(THRESHOLD), store])
        self.assertEqual(self.used(), 0)
        # Nothing holds on to it.
        gc.collect()
        store += b"longer"

    def test_released(self) -> None:
        """That goes for buffers that can't be had any longer."""
        packed = self.packed([bytearray(THRESHOLD), Thing(bytearray(THRESHOLD))])
        buffer = packed.buffers[1]
        assert isinstance(buffer, pickle.PickleBuffer)
        buffer.release()
        self.assertRaises(ValueError, self.writer.put, packed)
        self.assertEqual(self.used(), 0)
        first = packed.buffers[0]
        assert isinstance(first, bytearray)
        first += b"longer"

    def test_emptied(self) -> None:
        """
        What has been emptied since it was pickled arrives empty, and has a region to
        itself.
        """
        store, other = bytearray(THRESHOLD), bytearray(THRESHOLD)
        packed = self.packed([store, b"x" * THRESHOLD, other])
        store.clear()
        other.clear()
        found = self.open(self.writer.put(packed))
        self.assertEqual(found, [b"", b"x" * THRESHOLD, b""])
        self.release()
        self.assertEqual(self.used(), 0)

    def test_letsGo(self) -> None:
        """What has been put isn't held on to: it may change its size."""
        store = bytearray(THRESHOLD)
        payload = self.put([store, Thing(store)])
        store += b"longer"
        self.assertEqual(self.open(payload)[0], bytes(THRESHOLD))

    def test_givenUp(self) -> None:
        """
        A copy that is of no use any longer comes to its end soon, and can be taken
        back.
        """
        asked: list[None] = []

        def isGivenUp() -> bool:
            asked.append(None)
            return len(asked) > 2

        payload = self.put(
            [bytes(5 * SLICE_BYTES), bytes(5 * SLICE_BYTES)], isGivenUp=isGivenUp
        )
        self.assertEqual(len(asked), 4)
        self.assertLess(self.size(), 3 * SLICE_BYTES)
        self.assertEqual(self.used(), 10 * SLICE_BYTES)
        self.writer.discard(payload)
        self.assertEqual(self.used(), 0)

    def test_discard(self) -> None:
        """What is taken back is all that is in the file, and nothing besides."""
        kept = self.put(b"k" * THRESHOLD)
        self.writer.discard(self.put([bytearray(THRESHOLD), Thing(bytes(THRESHOLD))]))
        self.writer.discard(self.put(bytes(THRESHOLD - 1)))
        self.assertEqual(self.used(), THRESHOLD)
        self.assertEqual(self.open(kept), b"k" * THRESHOLD)

    def test_threads(self) -> None:
        """Threads may put things at the same time as others are released."""
        failures: list[Any] = []

        def work(i: int) -> None:
            try:
                for n in range(30):
                    value = [bytes([i]) * (THRESHOLD + n * PAGE), bytearray([i, n])]
                    reader = BufferReader(self.fd)
                    arrival = Incoming(reader, memoryview(self.put(value)))
                    arrival.read()
                    if arrival.loads() != value:
                        failures.append((i, n))
                    self.writer.release(reader.unneeded())
            except BaseException as error:  # noqa: BLE001 - told by the test
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.used(), 0)


class TrimTests(BufferCase):
    """Tests of memory that is given back."""

    def fill(self, *sizes: int) -> list[int]:
        """
        Put things that are needed no longer at once. Returns how many bytes the file
        takes up after each.
        """
        found = []
        for size in sizes:
            self.writer.discard(self.put(bytes(size)))
            found.append(self.size())
        return found

    def test_little(self) -> None:
        """So much is kept for what comes next."""
        self.assertFalse(self.writer.release(b""))
        self.fill(SPARE_BYTES)
        self.assertFalse(self.writer.release(b""))
        self.writer.trim()
        self.assertEqual(self.size(), SPARE_BYTES)
        self.assertEqual(self.used(), 0)

    def test_much(self) -> None:
        """It's told when there's more than that, and that is given back."""
        if not hasattr(mmap, "MADV_REMOVE"):
            raise SkipTest("This system can't")
        held = self.put(b"h" * THRESHOLD)
        self.fill(SPARE_BYTES + 5 * SLICE_BYTES)
        self.assertTrue(self.writer.release(b""))
        self.writer.trim()
        self.assertEqual(self.size(), THRESHOLD + SPARE_BYTES)
        self.assertFalse(self.writer.release(b""))
        self.assertEqual(self.used(), THRESHOLD)
        self.assertEqual(self.open(held), b"h" * THRESHOLD)
        # What is put there now is whole.
        value = os.urandom(SLICE_BYTES) * 70
        self.assertEqual(self.open(self.put(value)), value)

    def test_whileWritten(self) -> None:
        """What is written meanwhile isn't given back with the rest."""
        self.fill(SPARE_BYTES + 5 * SLICE_BYTES)
        value = os.urandom(SLICE_BYTES) * 70
        payloads: list[bytes] = []
        mapping = mmap.mmap

        def slow(*args: Any, **kw: Any) -> Any:
            self.patch(mmap, "mmap", mapping)
            payloads.append(self.put(value))
            return mapping(*args, **kw)

        self.patch(mmap, "mmap", slow)
        self.writer.trim()
        self.assertEqual(self.open(payloads[0]), value)
        self.release()
        self.assertEqual(self.used(), 0)

    def test_cannot(self) -> None:
        """On systems where it can't be given back, nothing is lost."""

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EINVAL, "no")

        self.fill(SPARE_BYTES + 5 * SLICE_BYTES)
        self.patch(mmap, "mmap", refuse)
        self.writer.trim()
        self.assertEqual(self.used(), 0)
        self.assertFalse(self.writer.release(b""))


class ReaderTests(BufferCase):
    """Tests of L{BufferReader} and L{Incoming}."""

    def arrival(self, value: Any) -> Incoming:
        """Put something, and look at it as it has come."""
        return Incoming(self.reader, memoryview(self.put(value)))

    def test_kinds(self) -> None:
        """Things of all kinds come as they were put."""
        value = [
            os.urandom(THRESHOLD + 1),
            bytearray(os.urandom(2 * SLICE_BYTES + 5)),
            {"small": b"s" * 100},
            "text" * 100_000,
        ]
        things = [
            Thing(os.urandom(THRESHOLD)),
            Thing(bytearray(os.urandom(SLICE_BYTES))),
        ]
        found, foundThings = self.open(self.put([value, things]))
        self.assertEqual(found, value)
        self.assertEqual([type(x) for x in found], [type(x) for x in value])
        self.assertEqual(
            [bytes(thing.buffer) for thing in foundThings],
            [bytes(thing.buffer) for thing in things],
        )
        self.assertEqual(
            [thing.buffer.readonly for thing in foundThings], [True, False]
        )

    def test_copied(self) -> None:
        """
        It's told how much there is to be copied: not what is viewed, nor what is in the
        payload.
        """
        things = [Thing(bytes(THRESHOLD)), bytes(THRESHOLD), bytearray(THRESHOLD + 1)]
        self.assertEqual(self.arrival(things).copied, 2 * THRESHOLD + 1)
        self.assertEqual(self.arrival(bytes(THRESHOLD - 1)).copied, 0)

    def test_releases(self) -> None:
        """What is copied is let go at once; what is viewed, when nobody views it."""
        found = self.open(self.put([b"c" * THRESHOLD, Thing(bytes(THRESHOLD))]))
        self.release()
        self.assertEqual(self.used(), THRESHOLD)
        part = memoryview(found[1].buffer)[5:50].toreadonly()
        del found
        self.release()
        self.assertEqual(self.used(), THRESHOLD)
        del part
        self.release()
        self.assertEqual(self.used(), 0)
        self.assertEqual(self.reader.unneeded(), b"")

    def test_wakes(self) -> None:
        """When there's something to be told, that is said once until it's told."""
        found = [self.open(self.put(Thing(bytes(THRESHOLD)))) for _ in range(3)]
        self.assertEqual(self.woken, [])
        found.pop()
        found.pop()
        self.assertEqual(self.woken, [None])
        self.release()
        found.pop()
        self.assertEqual(self.woken, [None] * 2)
        self.assertEqual(len(self.reader.waiting), 1)

    def test_freedByAnyThread(self) -> None:
        """Things may end in any thread, also in the midst of anything."""
        found = [self.open(self.put(Thing(bytes(THRESHOLD)))) for _ in range(40)]

        def drop() -> None:
            while found:
                thing = found.pop()
                cycle: list[Any] = [thing]
                cycle.append(cycle)
                del thing, cycle
                gc.collect(0)

        threads = [threading.Thread(target=drop) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.release()
        gc.collect()
        self.release()
        self.assertEqual(self.used(), 0)

    def test_freedWhileLocked(self) -> None:
        """
        A collection of garbage that ends something while the same thread is at work at
        the file waits for nothing.
        """
        found = [self.open(self.put(Thing(bytes(THRESHOLD)))) for _ in range(3)]
        with self.writer._lock:
            found.pop()
        self.patch(Allocator, "free", lambda *_: found.clear())
        self.writer.release(self.reader.unneeded())
        self.assertEqual(len(self.reader.waiting), 2)

    def test_isolation(self) -> None:
        """Who changes what has come changes nobody else's."""
        store = bytearray(THRESHOLD)
        one, other = (self.open(self.put(Thing(store))) for _ in range(2))
        one.buffer[0] = 1
        self.assertEqual((store[0], other.buffer[0]), (0, 0))
        store[1] = 2
        self.assertEqual((one.buffer[1], other.buffer[1]), (0, 0))
        self.open(self.put(Thing(b"x" * THRESHOLD)))
        self.assertEqual((one.buffer[0], one.buffer[1]), (1, 0))

    def test_grown(self) -> None:
        """What was viewed before the file was made longer stays where it was."""
        first = self.open(self.put(Thing(b"1" * THRESHOLD)))
        second = self.open(self.put(Thing(b"2" * (1 << 26))))
        third = self.open(self.put(Thing(b"3" * THRESHOLD)))
        self.assertEqual(bytes(first.buffer), b"1" * THRESHOLD)
        self.assertEqual(bytes(second.buffer[-5:]), b"22222")
        self.assertEqual(bytes(third.buffer), b"3" * THRESHOLD)
        del first, second, third
        self.release()
        self.assertEqual(self.used(), 0)

    def test_close(self) -> None:
        """
        What somebody has stays when the file is closed, and nobody is told of its end.
        """
        thing = self.open(self.put(Thing(b"t" * THRESHOLD)))
        self.reader.close()
        os.close(self.reader.fd)
        self.reader.fd = os.open(os.devnull, os.O_RDONLY)
        self.assertEqual(bytes(thing.buffer), b"t" * THRESHOLD)
        thing.buffer[:3]
        del thing
        self.assertEqual(self.woken, [])

    def test_tooShort(self) -> None:
        """
        What isn't there, as the file isn't as long as it should be, is an error. All of
        its regions are given back, each once.
        """
        for value in (
            [b"1" * THRESHOLD, b"2" * THRESHOLD, Thing(bytes(THRESHOLD))],
            [Thing(bytes(THRESHOLD)), bytearray(THRESHOLD), b"3" * THRESHOLD],
            [Thing(bytes(THRESHOLD)), Thing(bytes(THRESHOLD)), Thing(bytes(THRESHOLD))],
        ):
            payload = self.put(value)
            self.resize(THRESHOLD + 100)
            self.reader._mapping = None
            self.assertRaises(OSError, self.open, payload)
            self.release()
            self.assertEqual(self.used(), 0)

    def test_noMemory(self) -> None:
        """If there's no room for what is copied, what was copied is let go."""
        read = memfd.readBytes

        def fail(fd: int, offset: int, length: int) -> Any:
            if offset > PAGE:
                raise MemoryError("no room")
            return read(fd, offset, length)

        self.patch(buffers, "readBytes", fail)
        arrival = self.arrival([bytes(THRESHOLD) for _ in range(3)])
        arrival.read()
        self.assertEqual(arrival._found, {})
        self.assertRaises(MemoryError, arrival.loads)
        self.release()
        self.assertEqual(self.used(), 0)

    def test_discarded(self) -> None:
        """What isn't wanted is let go, read or not."""
        value = [bytes(THRESHOLD), Thing(bytes(THRESHOLD))]
        arrivals = [self.arrival(value), self.arrival(value)]
        arrivals[1].read()
        for arrival in arrivals:
            arrival.discard()
        self.release()
        self.assertEqual(self.used(), 0)

    def test_interrupt(self) -> None:
        """It's told which call a signal is about, and nobody's buffer is there."""
        self.assertEqual(self.reader.interrupted(), 0)
        payload = self.put(b"x" * THRESHOLD)
        self.writer.interrupt(7)
        self.assertEqual(self.reader.interrupted(), 7)
        self.assertEqual(self.open(payload), b"x" * THRESHOLD)

    def test_nonsense(self) -> None:
        """So is it if something is told that can't be."""
        # More bytes than Python has numbers for.
        entry = buffers._ENTRY.pack(buffers._BYTES, 0, 1 << 63)
        payload = buffers._COUNT.pack(1) + entry + b"N."
        arrival = Incoming(self.reader, memoryview(payload))
        arrival.read()
        self.assertRaises(OverflowError, arrival.loads)

    def test_cannotBeViewed(self) -> None:
        """Where nothing can be viewed, it's copied."""
        thing = Thing(os.urandom(SLICE_BYTES))

        def assertCopied() -> None:
            found = self.open(self.put(thing))
            self.assertEqual(bytes(found.buffer), bytes(thing.buffer))
            self.release()
            self.assertEqual(self.used(), 0)

        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(errno.ENOMEM, "no room")

        patch = self.patch(buffers, "_map", refuse)
        assertCopied()
        patch.restore()
        replaceModule(self, "ctypes", None)
        assertCopied()

    def test_cannotBeMapped(self) -> None:
        """A system that can't have a file in memory says so."""
        reader = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, reader)
        self.assertRaises(OSError, buffers._map, reader, 4096)
        self.assertRaises(OSError, buffers._map, self.fd, 1 << 62)
        self.assertRaises(OverflowError, buffers._map, self.fd, 1 << 64)

    def test_noDescriptor(self) -> None:
        """What is viewed has no descriptor, and no memory when nobody views it."""
        before = os.listdir("/dev/fd")
        found = [self.open(self.put(Thing(bytes(1 << n)))) for n in (20, 26, 27)]
        self.assertEqual(len(os.listdir("/dev/fd")), len(before))
        if os.path.exists("/proc/self/maps"):
            [inode] = {str(os.fstat(self.fd).st_ino)}

            def mappings() -> int:
                with open("/proc/self/maps") as file:
                    return sum(f" {inode} " in line for line in file)

            self.assertGreater(mappings(), 0)
            self.reader.close()
            del found
            self.assertEqual(mappings(), 0)

    def test_refusesToBeUnpickled(self) -> None:
        """
        If something can't be unpickled, nothing is in use after that, though somebody
        has the error with its traceback.
        """
        payload = self.put([Thing(bytes(THRESHOLD)), bytes(THRESHOLD), Refuses()])
        error = self.assertRaises(LookupError, self.open, payload)
        self.release()
        self.assertEqual(self.used(), 0)
        self.assertIsNotNone(error.__traceback__)

    def test_manyHeld(self) -> None:
        """Hundreds of things may be held at a time, and let go in any order."""
        size = THRESHOLD + 5
        found = [
            self.open(self.put(Thing(bytes([i % 251]) * size))) for i in range(500)
        ]
        for i, thing in enumerate(found):
            self.assertEqual((thing.buffer[0], thing.buffer[-1]), (i % 251, i % 251))
        used = self.used()
        del found[::2], thing
        self.release()
        self.assertEqual(self.used(), used // 2)
        del found
        self.release()
        self.assertEqual(self.used(), 0)
