"""
Tests of L{asynqueue._child.boxes}, and of both sides of a file, which are in one
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

from asynqueue._child import inbox, outbox
from asynqueue._child.boxes import Boxes
from asynqueue._child.inbox import Arrival, Inbox
from asynqueue._child.memfd import SLICE, SharedFile, anonymousFile
from asynqueue._child.outbox import KEPT, Outbox
from asynqueue._child.parcels import COUNT, ENTRY, INLINE, THRESHOLD, What
from asynqueue._child.payloads import dumpsLarge
from asynqueue._child.pickling import Packed
from asynqueue._child.regions import PAGE

from ._fakes import replaceModule


class Thing:
    """
    Something that is pickled without its contents.

    @ivar buffer: Its contents.
    """

    def __init__(self, buffer: Any) -> None:
        """
        Make it.

        @param buffer: Its contents.
        """
        self.buffer = buffer

    def __reduce__(self) -> Any:
        """
        Be pickled.
        """
        return Thing, (pickle.PickleBuffer(self.buffer),)

    @property
    def bytes(self) -> bytes:
        """
        Its contents as C{bytes}.
        """
        return bytes(self.buffer)


class Refuses:
    """
    Something that can't be unpickled.
    """

    def __reduce__(self) -> Any:
        """
        Be pickled.
        """
        return _refuse, ()


def _refuse() -> None:
    """
    Raise.
    """
    raise LookupError("refused")


class BoxCase(SynchronousTestCase):
    """
    A test of both sides of a file.
    """

    def setUp(self) -> None:
        """
        Make a file, and both sides.
        """
        self.fd = anonymousFile()
        self.file = SharedFile(self.fd)
        self.addCleanup(self.file.close)
        self.woken: list[None] = []
        self.outbox = Outbox(self.file)
        self.inbox = Inbox(SharedFile(os.dup(self.fd)), lambda: self.woken.append(None))
        self.addCleanup(self.inbox.file.close)

    def packed(self, value: Any) -> Packed:
        """
        Pickle something large.

        @param value: The thing.

        @return: It.
        """
        packed = dumpsLarge(value)
        assert isinstance(packed, Packed)
        return packed

    def put(self, value: Any, **kw: Any) -> bytes:
        """
        Pickle something large, and put it into the file.

        @param value: The thing.

        @param kw: Keywords of L{Outbox.put}.

        @return: The payload.
        """
        return self.outbox.put(self.packed(value), **kw)

    def open(self, payload: bytes) -> Any:
        """
        Get what was put into the file.

        @param payload: The payload.

        @return: The thing.
        """
        arrival = self.inbox.open(memoryview(payload))
        arrival.read()
        return arrival.loads()

    def release(self) -> bool:
        """
        Tell the side that writes what isn't needed any longer.

        @return: Whether it's time to trim.
        """
        return self.outbox.release(self.inbox.done())

    def entries(self, payload: bytes) -> list[tuple[int, int, int]]:
        """
        List the buffers of a payload.

        @param payload: The payload.

        @return: Of each: what it is, its offset, its length.
        """
        [count] = COUNT.unpack_from(payload)
        end = COUNT.size + count * ENTRY.size
        return list(ENTRY.iter_unpack(payload[COUNT.size : end]))

    def pwrite(self, f: Callable[..., int]) -> None:
        """
        Have something called in place of C{os.pwrite}.

        @param f: It. It's called with that, too.
        """
        pwrite = os.pwrite
        self.patch(os, "pwrite", lambda *args: f(pwrite, *args))

    def resize(self, size: int) -> None:
        """
        Put another file in the place of that of the side that reads.

        @param size: Its length.
        """
        with open(self.mktemp(), "w+b") as file:
            file.truncate(size)
            self.inbox.file.close()
            self.inbox.file = SharedFile(os.dup(file.fileno()))


class OutboxTests(BoxCase):
    """
    Tests of L{Outbox}.
    """

    def test_payload(self) -> None:
        """
        A payload tells where each buffer is, what it is, and has the pickle.
        """
        value = [b"a" * THRESHOLD, bytearray(100_000), Thing(b"t" * 100_000)]
        packed = self.packed(value)
        payload = self.outbox.put(packed, b"head")
        self.assertTrue(payload.startswith(b"head"))
        self.assertTrue(payload.endswith(packed.pickle))
        after = THRESHOLD + 102_400
        self.assertEqual(
            self.entries(payload[4:]),
            [
                (What.BYTES, 0, THRESHOLD),
                (What.BYTEARRAY, THRESHOLD, 100_000),
                (What.VIEW, after, 100_000),
            ],
        )
        self.assertEqual(os.pread(self.fd, 5, 0), b"aaaaa")
        self.assertEqual(os.pread(self.fd, 100_000, after), b"t" * 100_000)
        self.assertEqual(self.outbox.used, after + 102_400)

    def test_little(self) -> None:
        """
        With fewer bytes than are worth it, all is in the payload, and the file isn't
        touched.
        """
        half = THRESHOLD // 2
        value = [b"a" * half, b"b" * (half - 1)]
        payload = self.put(value)
        self.assertEqual([where for _, where, _ in self.entries(payload)], [INLINE] * 2)
        self.assertGreater(len(payload), THRESHOLD - 1)
        self.assertEqual(self.outbox.used, 0)
        self.assertEqual(os.fstat(self.fd).st_size, 0)
        value = [b"a" * half, b"b" * half]
        self.assertLess(len(self.put(value)), 200)
        self.assertEqual(self.outbox.used, 2 * half)

    def test_growth(self) -> None:
        """
        The file is made longer when it must be, a power of two at a time.
        """
        whole = 1 << 26
        self.put(b"a" * THRESHOLD)
        self.assertEqual(os.fstat(self.fd).st_size, whole)
        self.put(bytes(whole - THRESHOLD))
        self.assertEqual(os.fstat(self.fd).st_size, whole)
        self.put(b"b" * THRESHOLD)
        self.assertEqual(os.fstat(self.fd).st_size, 2 * whole)
        # It never gets shorter: others may look at its end.
        self.outbox.discard(self.put(bytes(2 * whole)))
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
        value = os.urandom(3 * SLICE)
        self.assertEqual(self.open(self.put(value)), value)
        self.assertLessEqual(max(sizes), SLICE)

    def test_regionsAreUsedAgain(self) -> None:
        """
        What the other side needs no longer is written over.
        """
        for i in range(5):
            value = bytes([i]) * THRESHOLD
            self.assertEqual(self.open(self.put(value)), value)
            self.release()
        self.assertEqual(self.outbox.used, 0)
        self.assertLess(self.file.size(), 2 * THRESHOLD)

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
        inline = [where == INLINE for _, where, _ in self.entries(payload)]
        self.assertEqual(inline, [False, True, False, True, True, True])
        self.assertEqual(self.outbox.used, 2 * THRESHOLD)
        self.assertEqual(written[1:3], [THRESHOLD, THRESHOLD])
        found = self.open(payload)
        self.assertEqual(found[:4], value)
        self.assertEqual(
            [type(thing) for thing in found[:4]], [bytes] * 3 + [bytearray]
        )
        self.assertEqual([thing.bytes for thing in found[4:]], [value[1]] * 2)
        self.assertRaises(TypeError, found[4].buffer.__setitem__, 0, 1)
        found[5].buffer[0] = 7
        self.release()
        self.assertEqual(self.outbox.used, 0)

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
        self.assertEqual([where for _, where, _ in self.entries(payload)], [INLINE])
        self.assertEqual(self.open(payload), value)
        self.patch(os, "ftruncate", ftruncate)
        self.assertLess(len(self.put(value)), 200)

    def test_halfWritten(self) -> None:
        """
        What had been written before there was no room is given back.
        """
        if not hasattr(mmap, "MADV_REMOVE"):
            raise SkipTest("This system can't")

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            if offset > KEPT + 20 * SLICE:
                raise OSError(errno.ENOSPC, "full")
            return int(pwrite(fd, data, offset))

        self.pwrite(write)
        payload = self.put([bytes(KEPT + 50 * SLICE)])
        self.assertEqual([where for _, where, _ in self.entries(payload)], [INLINE])
        self.assertLessEqual(self.file.size(), KEPT)
        self.assertEqual(self.outbox.used, 0)

    def test_noMemory(self) -> None:
        """
        If something else fails, nothing is in use.
        """

        def write(pwrite: Any, fd: int, data: memoryview, offset: int) -> int:
            if offset:
                raise MemoryError
            return int(pwrite(fd, data, offset))

        self.pwrite(write)
        store = bytearray(THRESHOLD)
        self.assertRaises(MemoryError, self.put, [bytes(THRESHOLD), store])
        self.assertEqual(self.outbox.used, 0)
        # Nothing holds on to it.
        gc.collect()
        store += b"longer"

    def test_released(self) -> None:
        """
        That goes for buffers that can't be had any longer.
        """
        packed = self.packed([bytearray(THRESHOLD), Thing(bytearray(THRESHOLD))])
        buffer = packed.buffers[1]
        assert isinstance(buffer, pickle.PickleBuffer)
        buffer.release()
        self.assertRaises(ValueError, self.outbox.put, packed)
        self.assertEqual(self.outbox.used, 0)
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
        found = self.open(self.outbox.put(packed))
        self.assertEqual(found, [b"", b"x" * THRESHOLD, b""])
        self.release()
        self.assertEqual(self.outbox.used, 0)

    def test_letsGo(self) -> None:
        """
        What has been put isn't held on to: it may change its size.
        """
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

        def givenUp() -> bool:
            asked.append(None)
            return len(asked) > 2

        payload = self.put([bytes(5 * SLICE), bytes(5 * SLICE)], givenUp=givenUp)
        self.assertEqual(len(asked), 4)
        self.assertLess(self.file.size(), 3 * SLICE)
        self.assertEqual(self.outbox.used, 10 * SLICE)
        self.outbox.discard(payload)
        self.assertEqual(self.outbox.used, 0)

    def test_discard(self) -> None:
        """
        What is taken back is all that is in the file, and nothing besides.
        """
        kept = self.put(b"k" * THRESHOLD)
        self.outbox.discard(self.put([bytearray(THRESHOLD), Thing(bytes(THRESHOLD))]))
        self.outbox.discard(self.put(bytes(THRESHOLD - 1)))
        self.assertEqual(self.outbox.used, THRESHOLD)
        self.assertEqual(self.open(kept), b"k" * THRESHOLD)

    def test_closed(self) -> None:
        """
        When the file has been closed, all is in the payload.
        """
        self.file.close()
        payload = self.put(b"x" * THRESHOLD)
        self.assertEqual(self.open(payload), b"x" * THRESHOLD)
        self.assertEqual(self.outbox.used, 0)

    def test_threads(self) -> None:
        """
        Threads may put things at the same time as others are released.
        """
        failures: list[Any] = []

        def work(i: int) -> None:
            try:
                for n in range(30):
                    value = [bytes([i]) * (THRESHOLD + n * PAGE), bytearray([i, n])]
                    arrival = Inbox(self.inbox.file).open(memoryview(self.put(value)))
                    offsets = [where for _, where, _ in arrival._entries]
                    arrival.read()
                    if arrival.loads() != value:
                        failures.append((i, n))
                    done = Inbox(self.inbox.file)
                    for offset in offsets:
                        done.free(offset)
                    self.outbox.release(done.done())
            except BaseException as error:  # noqa: BLE001 - told by the test
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.outbox.used, 0)


class TrimTests(BoxCase):
    """
    Tests of memory that is given back.
    """

    def fill(self, *sizes: int) -> list[int]:
        """
        Put things that are needed no longer at once.

        @param sizes: How large they are.

        @return: How many bytes the file takes up after each.
        """
        found = []
        for size in sizes:
            self.outbox.discard(self.put(bytes(size)))
            found.append(self.file.size())
        return found

    def test_little(self) -> None:
        """
        So much is kept for what comes next.
        """
        self.assertFalse(self.outbox.release(b""))
        self.fill(KEPT)
        self.assertFalse(self.outbox.release(b""))
        self.outbox.trim()
        self.assertEqual(self.file.size(), KEPT)
        self.assertEqual(self.outbox.used, 0)

    def test_much(self) -> None:
        """
        It's told when there's more than that, and that is given back.
        """
        if not hasattr(mmap, "MADV_REMOVE"):
            raise SkipTest("This system can't")
        held = self.put(b"h" * THRESHOLD)
        self.fill(KEPT + 5 * SLICE)
        self.assertTrue(self.outbox.release(b""))
        self.outbox.trim()
        self.assertEqual(self.file.size(), THRESHOLD + KEPT)
        self.assertFalse(self.outbox.release(b""))
        self.assertEqual(self.outbox.used, THRESHOLD)
        self.assertEqual(self.open(held), b"h" * THRESHOLD)
        # What is put there now is whole.
        value = os.urandom(SLICE) * 70
        self.assertEqual(self.open(self.put(value)), value)

    def test_whileWritten(self) -> None:
        """
        What is written meanwhile isn't given back with the rest.
        """
        self.fill(KEPT + 5 * SLICE)
        value = os.urandom(SLICE) * 70
        payloads: list[bytes] = []
        mapping = mmap.mmap

        def slow(*args: Any, **kw: Any) -> Any:
            self.patch(mmap, "mmap", mapping)
            payloads.append(self.put(value))
            return mapping(*args, **kw)

        self.patch(mmap, "mmap", slow)
        self.outbox.trim()
        self.assertEqual(self.open(payloads[0]), value)
        self.release()
        self.assertEqual(self.outbox.used, 0)

    def test_cannot(self) -> None:
        """
        On systems where it can't be given back, nothing is lost.
        """

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EINVAL, "no")

        self.fill(KEPT + 5 * SLICE)
        self.patch(mmap, "mmap", refuse)
        self.outbox.trim()
        self.assertEqual(self.outbox.used, 0)
        self.assertFalse(self.outbox.release(b""))

    def test_closed(self) -> None:
        """
        Nor is there anything to be given back of a file that is closed.
        """
        self.fill(KEPT + SLICE)
        self.file.close()
        self.outbox.trim()
        self.assertEqual(self.outbox.used, 0)


class InboxTests(BoxCase):
    """
    Tests of L{Inbox} and L{Arrival}.
    """

    def arrival(self, value: Any) -> Arrival:
        """
        Put something, and look at it.

        @param value: The thing.

        @return: It as it has come.
        """
        return self.inbox.open(memoryview(self.put(value)))

    def test_kinds(self) -> None:
        """
        Things of all kinds come as they were put.
        """
        value = [
            os.urandom(THRESHOLD + 1),
            bytearray(os.urandom(2 * SLICE + 5)),
            {"small": b"s" * 100},
            "text" * 100_000,
        ]
        things = [Thing(os.urandom(THRESHOLD)), Thing(bytearray(os.urandom(SLICE)))]
        found, foundThings = self.open(self.put([value, things]))
        self.assertEqual(found, value)
        self.assertEqual([type(x) for x in found], [type(x) for x in value])
        self.assertEqual(
            [thing.bytes for thing in foundThings], [thing.bytes for thing in things]
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
        arrival = self.arrival(things)
        self.assertFalse(arrival.ready)
        arrival.read()
        self.assertTrue(arrival.ready)

    def test_releases(self) -> None:
        """
        What is copied is let go at once; what is viewed, when nobody views it.
        """
        found = self.open(self.put([b"c" * THRESHOLD, Thing(bytes(THRESHOLD))]))
        self.release()
        self.assertEqual(self.outbox.used, THRESHOLD)
        part = memoryview(found[1].buffer)[5:50].toreadonly()
        del found
        self.release()
        self.assertEqual(self.outbox.used, THRESHOLD)
        del part
        self.release()
        self.assertEqual(self.outbox.used, 0)
        self.assertEqual(self.inbox.done(), b"")

    def test_wakes(self) -> None:
        """
        When there's something to be told, that is said once until it's told.
        """
        found = [self.open(self.put(Thing(bytes(THRESHOLD)))) for _ in range(3)]
        self.assertEqual(self.woken, [])
        found.pop()
        found.pop()
        self.assertEqual(self.woken, [None])
        self.release()
        found.pop()
        self.assertEqual(self.woken, [None] * 2)
        self.assertEqual(len(self.inbox.offsets), 1)

    def test_freedByAnyThread(self) -> None:
        """
        Things may end in any thread, also in the midst of anything.
        """
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
        self.assertEqual(self.outbox.used, 0)

    def test_freedWhileLocked(self) -> None:
        """
        A collection of garbage that ends something while the same thread is at work at
        the file waits for nothing.
        """
        found = [self.open(self.put(Thing(bytes(THRESHOLD)))) for _ in range(3)]
        with self.outbox._lock, self.inbox.file._lock, self.file._lock:
            found.pop()
        with self.inbox.file.use():
            found.pop()
        self.patch(
            self.outbox._regions.__class__,
            "free",
            lambda *_: found.clear(),
        )
        self.outbox.release(self.inbox.done())
        self.assertEqual(len(self.inbox.offsets), 1)

    def test_isolation(self) -> None:
        """
        Who changes what has come changes nobody else's.
        """
        store = bytearray(THRESHOLD)
        one, other = (self.open(self.put(Thing(store))) for _ in range(2))
        one.buffer[0] = 1
        self.assertEqual((store[0], other.buffer[0]), (0, 0))
        store[1] = 2
        self.assertEqual((one.buffer[1], other.buffer[1]), (0, 0))
        self.open(self.put(Thing(b"x" * THRESHOLD)))
        self.assertEqual((one.buffer[0], one.buffer[1]), (1, 0))

    def test_grown(self) -> None:
        """
        What was viewed before the file was made longer stays where it was.
        """
        first = self.open(self.put(Thing(b"1" * THRESHOLD)))
        second = self.open(self.put(Thing(b"2" * (1 << 26))))
        third = self.open(self.put(Thing(b"3" * THRESHOLD)))
        self.assertEqual(first.bytes, b"1" * THRESHOLD)
        self.assertEqual(bytes(second.buffer[-5:]), b"22222")
        self.assertEqual(third.bytes, b"3" * THRESHOLD)
        del first, second, third
        self.release()
        self.assertEqual(self.outbox.used, 0)

    def test_close(self) -> None:
        """
        What somebody has stays when the file is closed, and nobody is told of its end.
        """
        thing = self.open(self.put(Thing(b"t" * THRESHOLD)))
        self.inbox.close()
        self.inbox.file.close()
        self.file.close()
        self.assertEqual(thing.bytes, b"t" * THRESHOLD)
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
            self.inbox._mapping = None
            self.assertRaises(OSError, self.open, payload)
            self.release()
            self.assertEqual(self.outbox.used, 0)

    def test_closedBeforeRead(self) -> None:
        """
        So is what is in a file that has been closed.
        """
        payload = self.put([bytearray(THRESHOLD), Thing(bytes(THRESHOLD))])
        self.inbox.file.close()
        self.assertRaises(OSError, self.open, payload)
        self.release()
        self.assertEqual(self.outbox.used, 0)

    def test_noMemory(self) -> None:
        """
        If there's no room for what is copied, what was copied is let go.
        """
        read = self.inbox.read

        def fail(what: int, offset: int, length: int) -> Any:
            if offset:
                raise MemoryError("no room")
            return read(what, offset, length)

        self.patch(self.inbox, "read", fail)
        arrival = self.arrival([bytes(THRESHOLD) for _ in range(3)])
        arrival.read()
        self.assertTrue(arrival.ready)
        self.assertEqual(arrival._found, {})
        self.assertRaises(MemoryError, arrival.loads)
        self.release()
        self.assertEqual(self.outbox.used, 0)

    def test_nonsense(self) -> None:
        """
        So is it if something is told that can't be.
        """
        # More bytes than Python has numbers for.
        entry = ENTRY.pack(What.BYTES, 0, 1 << 63)
        arrival = self.inbox.open(memoryview(COUNT.pack(1) + entry + b"N."))
        arrival.read()
        self.assertTrue(arrival.ready)
        self.assertRaises(OverflowError, arrival.loads)

    def test_cannotBeViewed(self) -> None:
        """
        Where nothing can be viewed, it's copied.
        """
        thing = Thing(os.urandom(SLICE))

        def assertCopied() -> None:
            found = self.open(self.put(thing))
            self.assertEqual(found.bytes, thing.bytes)
            self.release()
            self.assertEqual(self.outbox.used, 0)

        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(errno.ENOMEM, "no room")

        patch = self.patch(inbox, "_map", refuse)
        assertCopied()
        patch.restore()
        replaceModule(self, "ctypes", None)
        assertCopied()

    def test_cannotBeMapped(self) -> None:
        """
        A system that can't have a file in memory says so.
        """
        reader = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, reader)
        self.assertRaises(OSError, inbox._map, reader, 4096)
        self.assertRaises(OSError, inbox._map, self.fd, 1 << 62)
        self.assertRaises(OverflowError, inbox._map, self.fd, 1 << 64)

    def test_noDescriptor(self) -> None:
        """
        What is viewed has no descriptor, and no memory when nobody views it.
        """
        before = os.listdir("/dev/fd")
        found = [self.open(self.put(Thing(bytes(1 << n)))) for n in (20, 26, 27)]
        self.assertEqual(len(os.listdir("/dev/fd")), len(before))
        if os.path.exists("/proc/self/maps"):
            [inode] = {str(os.fstat(self.fd).st_ino)}

            def mappings() -> int:
                with open("/proc/self/maps") as file:
                    return sum(f" {inode} " in line for line in file)

            self.assertGreater(mappings(), 0)
            self.inbox.close()
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
        self.assertEqual(self.outbox.used, 0)
        self.assertIsNotNone(error.__traceback__)

    def test_manyHeld(self) -> None:
        """
        Hundreds of things may be held at a time, and let go in any order.
        """
        size = THRESHOLD + 5
        found = [
            self.open(self.put(Thing(bytes([i % 251]) * size))) for i in range(500)
        ]
        for i, thing in enumerate(found):
            self.assertEqual((thing.buffer[0], thing.buffer[-1]), (i % 251, i % 251))
        used = self.outbox.used
        del found[::2], thing
        self.release()
        self.assertEqual(self.outbox.used, used // 2)
        del found
        self.release()
        self.assertEqual(self.outbox.used, 0)


class BoxesTests(SynchronousTestCase):
    """
    Tests of L{Boxes}.
    """

    def setUp(self) -> None:
        """
        Make the boxes of a child, and what its parent has.
        """
        arguments, results = anonymousFile(), anonymousFile()
        self.boxes = Boxes(os.dup(arguments), os.dup(results))
        self.outbox = Outbox(SharedFile(arguments))
        self.inbox = Inbox(SharedFile(results))
        self.addCleanup(os.close, arguments)
        self.addCleanup(os.close, results)
        self.addCleanup(self.boxes.inbox.file.close)
        self.addCleanup(self.boxes.outbox._file.close)

    def test_thereAndBack(self) -> None:
        """
        Arguments come, results go, and both sides are told when they're needed no
        longer.
        """
        value = [b"a" * THRESHOLD, bytearray(THRESHOLD)]
        packed = dumpsLarge(value)
        assert isinstance(packed, Packed)
        argument = self.boxes.load(memoryview(self.outbox.put(packed)))
        self.assertEqual(argument, value)
        self.assertEqual(len(self.boxes.done), 2)
        self.outbox.release(self.boxes.inbox.done())
        self.assertEqual((len(self.boxes.done), self.outbox.used), (0, 0))
        arrival = self.inbox.open(memoryview(self.boxes.outbox.put(packed)))
        arrival.read()
        self.assertEqual(arrival.loads(), value)
        self.assertEqual(self.boxes.outbox.used, 2 * THRESHOLD)
        self.boxes.release(memoryview(self.inbox.done()))
        self.assertEqual(self.boxes.outbox.used, 0)

    def test_trims(self) -> None:
        """
        Memory is given back when it's time.
        """
        self.patch(outbox, "KEPT", THRESHOLD)
        packed = dumpsLarge(bytes(4 * THRESHOLD))
        assert isinstance(packed, Packed)
        self.boxes.outbox.discard(self.boxes.outbox.put(packed))
        self.boxes.release(memoryview(b""))
        self.assertEqual(self.boxes.outbox._regions.written, THRESHOLD)
