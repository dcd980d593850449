"""Tests of L{asynqueue._child.pickling}."""

from __future__ import annotations

import array
import mmap
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child import pickling
from asynqueue._child.pickling import (
    MIN_BUFFER as LARGE,
    PROTOCOL,
    NotPicklable,
    Packed,
    _pack as packWith,
    _withViews as withViews,
    dumps,
    dumpsPlain,
    loads,
)

from ._large import Blob, Thing

ViewPickler = withViews(pickle.Pickler)
pack = dumps


class Text(str):
    """Text of a kind of its own."""


class Store(bytearray):
    """A C{bytearray} of a kind of its own."""


class Nested:
    """Something that pickles something else while it's pickled."""

    def __reduce__(self) -> Any:
        """Be pickled."""
        inner = pack((b"i" * LARGE, 5))
        assert isinstance(inner, Packed)
        return bytes, (inner.pickle,)


class Fails:
    """Something that can't be pickled after all."""

    def __reduce__(self) -> Any:
        """Refuse."""
        raise LookupError("no")


def restore(packed: bytes | Packed) -> Any:
    """Unpickle something with the very buffers that it was pickled with."""
    if isinstance(packed, bytes):
        return pickle.loads(packed)
    return pickle.loads(packed.pickle, buffers=iter(packed.buffers))


def like(pickled: bytes, size: int) -> bytes:
    """
    Make so many bytes that look like what picklers write of everything else, with these
    at their end.
    """
    frame = b"\x95" + (size - 9).to_bytes(8, "little")
    return (frame + bytes(size))[: size - len(pickled)] + pickled


class PackTests(SynchronousTestCase):
    """Tests of L{pack}."""

    def same(self, value: Any, buffers: int, kept: int | None = None) -> Any:
        """
        Assert that something comes back as it was, with so many buffers kept out of its
        pickle, which is no longer than C{kept} besides. Returns what has come back.
        """
        packed = pack(value)
        if not buffers:
            assert isinstance(packed, bytes)
        else:
            assert isinstance(packed, Packed)
            self.assertEqual(len(packed.buffers), buffers)
            self.assertLess(len(packed.pickle), kept or 1000)
        found = restore(packed)
        self.assertEqual(found, value)
        self.assertIs(type(found), type(value))
        return found

    def test_plain(self) -> None:
        """What is large is in the pickle itself where it's to be plain, views too."""
        store = bytearray(b"v" * LARGE)
        for large in (bytes(store), store, memoryview(bytes(store)), memoryview(store)):
            for other in (None, lambda: 1):  # which cloudpickle is needed for
                pickled = dumpsPlain((large, other))
                self.assertIs(type(pickled), bytes)
                self.assertGreater(len(pickled), LARGE)
                found, _ = loads(pickled)
                self.assertIs(type(found), type(large))
                self.assertEqual(found, large)

    def test_small(self) -> None:
        """What's small comes as one pickle, like any other."""
        values: list[Any] = [None, 1, "a", [b"x" * (LARGE - 1)], bytearray(100), {}]
        for value in values:
            self.assertEqual(pack(value), pickle.dumps(value, PROTOCOL))

    def test_threshold(self) -> None:
        """Bytes are kept out from a certain length on, and are not copied."""
        for kind in (bytes, bytearray):
            self.same(kind(LARGE - 1), 0)
            value = kind(LARGE)
            self.assertIs(self.same(value, 1), value)

    def test_many(self) -> None:
        """Any number of them keeps its order, between things of other kinds."""
        value: list[Any] = []
        for i in range(20):
            value += [i, bytes([i]) * (LARGE + i), str(i), bytearray([i]) * (LARGE + i)]
            value += [{"small": bytes([i]) * 100}, Thing(bytes([i]) * LARGE).buffer]
        found = self.same(value, 60, 5000)
        for one, other in zip(found, value, strict=True):
            if isinstance(one, bytes | bytearray) and len(one) >= LARGE:
                self.assertIs(one, other)

    def test_outOfBand(self) -> None:
        """
        Objects that know how to be pickled without their contents are, also between
        bytes, if they're large enough.
        """
        things = [bytes([i]) * LARGE for i in range(6)]
        value = [
            things[0],
            Thing(things[1]),
            Thing(things[2]),
            things[3],
            Thing(b"small"),
            things[4],
            Thing(things[5]),
        ]
        packed = pack(value)
        assert isinstance(packed, Packed)
        self.assertEqual([bytes(buffer) for buffer in packed.buffers], things)
        found = restore(packed)
        self.assertEqual(
            [bytes(getattr(thing, "buffer", thing)) for thing in found],
            [*things[:4], b"small", *things[4:]],
        )

    def test_size(self) -> None:
        """The bytes of all buffers are counted."""
        value = [bytes(LARGE), bytearray(LARGE + 1), Thing(bytearray(LARGE + 2))]
        packed = pack(value)
        assert isinstance(packed, Packed)
        self.assertEqual(packed.size, 3 * LARGE + 3)

    def test_identity(self) -> None:
        """What is there twice comes back as one."""
        blob, store = b"b" * LARGE, bytearray(LARGE)
        thing = Thing(bytearray(LARGE))
        packed = pack([blob, store, thing, blob, store, thing])
        assert isinstance(packed, Packed)
        self.assertEqual(len(packed.buffers), 3)
        found = restore(packed)
        for i in range(3):
            self.assertIs(found[i], found[i + 3])

    def test_cycle(self) -> None:
        """Things may contain themselves."""
        value: list[Any] = [b"c" * LARGE]
        value.append(value)
        found = restore(pack(value))
        self.assertIs(found[1], found)
        self.assertIs(found[0], value[0])

    def test_text(self) -> None:
        """Large text is part of the pickle, whatever it looks like."""
        self.same("t" * 2 * LARGE, 0)
        self.same(["é" * LARGE, "\ud800" * LARGE, Text("x" * LARGE)], 0)
        # The length after the opcode of text is that of its encoded form.
        head = "B" + (LARGE).to_bytes(4, "little").decode("latin-1")
        self.same([head, "t" * LARGE], 0)
        self.same([head * 20_000, "t" * LARGE, b"b" * LARGE], 1, 200_000)

    def test_numbers(self) -> None:
        """So are large numbers."""
        self.same([1 << (8 * LARGE), b"b" * LARGE, -1 << (9 * LARGE)], 1, 150_000)

    def test_subclasses(self) -> None:
        """Kinds of bytes of one's own come back as what they are."""
        blob = Blob(b"s" * LARGE)
        blob.note = "noted"
        found = self.same(blob, 1)
        self.assertEqual(found.note, "noted")
        self.same(Store(b"s" * LARGE), 1)

    def test_lookalike(self) -> None:
        """Bytes that look like a part of a pickle come back as they were, too."""
        for end in (b"", b".", b"B\x00\x00\x01\x00"):
            for size in (LARGE, LARGE + 5):
                value = like(end, size)
                self.assertEqual(restore(pack([value, 1, value])), [value, 1, value])
                found = restore(pack([b"B" + size.to_bytes(4, "little"), value]))
                self.assertEqual(found[1], value)

    def test_chunkThatLooksLikeAnObject(self) -> None:
        """
        What a pickler writes of other things isn't mistaken for bytes, though what
        comes before it ends as if there were bytes to come.
        """

        def floats(size: int) -> list[float]:
            ending = b"\x40\x09\x21B" + size.to_bytes(4, "little")
            return list(struct.unpack(">d", ending)) * 30_000

        def chunks(value: Any) -> list[bytes]:
            found: list[bytes] = []
            pickle.Pickler(SimpleNamespace(write=found.append), PROTOCOL).dump(value)
            return found

        size = len(chunks(floats(LARGE))[1])
        value = floats(size)
        one, other, *_ = chunks(value)
        self.assertTrue(one.endswith(pickling._bytesHead(len(other))))
        self.assertEqual(restore(pack(value)), value)
        self.assertEqual(restore(pack([value, b"b" * LARGE]))[0], value)

    def test_manyFrames(self) -> None:
        """Pickles of many parts are put together."""
        value = [[str(i) for i in range(30_000)], b"b" * LARGE, list(range(30_000))]
        self.same(value, 1, 1_000_000)

    def test_nested(self) -> None:
        """Something may be pickled in the course of pickling another."""
        packed = pack([b"o" * LARGE, Nested(), b"p" * LARGE])
        found = restore(packed)
        self.assertEqual([len(found[0]), len(found[2])], [LARGE, LARGE])
        self.assertEqual(
            pickle.loads(found[1], buffers=[b"i" * LARGE]), (b"i" * LARGE, 5)
        )

    def test_failure(self) -> None:
        """A failure leaves nothing behind that is seen by what is pickled next."""
        self.assertRaises(NotPicklable, pack, [b"x" * LARGE, Thing(b"o"), Fails()])
        self.same([1, 2], 0)
        self.same([b"y" * LARGE], 1)

    def test_picklersAreUsedAgain(self) -> None:
        """
        A pickler that has made a small pickle is used for the next, which doesn't refer
        to anything in that. After a large one, it's not.
        """
        self.patch(pickling, "_idle", [])
        shared = "shared" * 10
        self.assertEqual(pack([shared]), pickle.dumps([shared], PROTOCOL))
        [packer] = pickling._idle
        self.assertEqual(pack([shared]), pickle.dumps([shared], PROTOCOL))
        self.assertEqual(pickling._idle, [packer])
        pack(["x" * 5000])
        self.assertEqual(pickling._idle, [])
        pack([b"x" * LARGE])
        self.assertEqual(pickling._idle, [])

    def test_nothingIsKept(self) -> None:
        """A pickler that is used again keeps nothing of what it has pickled."""
        import weakref

        thing = Thing(b"small")
        gone = weakref.ref(thing)
        pack(thing)
        del thing
        self.assertIsNone(gone())

    def test_notContiguous(self) -> None:
        """Contents that aren't in one piece are refused as by any pickler."""
        view = memoryview(bytearray(4 * LARGE))[::2]
        error = self.assertRaises(NotPicklable, pack, Thing(view))
        self.assertIn("contiguous", str(error))

    def test_lengths(self) -> None:
        """The opcodes of bytes of any length are known."""
        known = pickling._head(b"a" * LARGE)
        self.assertEqual(known, b"B" + LARGE.to_bytes(4, "little"))
        self.assertEqual(pickling._bytesHead(0xFFFFFFFF), b"B\xff\xff\xff\xff")
        known = b"\x8e" + (1 << 32).to_bytes(8, "little")
        self.assertEqual(pickling._bytesHead(1 << 32), known)
        self.assertIsNone(pickling._head(memoryview(b"a")))


class PythonPicklerTests(SynchronousTestCase):
    """Tests of L{packWith} with picklers written in Python."""

    def test_large(self) -> None:
        """They keep bytes out, too."""
        value = [b"b" * LARGE, "t" * LARGE, bytearray(LARGE), 5]
        kind: Any = vars(pickle)["_Pickler"]
        packed = packWith(kind, value)
        assert isinstance(packed, Packed)
        self.assertEqual(packed.buffers, [value[0], value[2]])
        self.assertEqual(restore(packed), value)


class ViewTests(SynchronousTestCase):
    """Tests of views that are pickled."""

    def back(self, view: Any) -> Any:
        """Pickle a view, large or small, and restore it."""
        found = restore(packWith(ViewPickler, view))
        assert isinstance(found, memoryview)
        return found

    def same(self, view: Any) -> None:
        """Assert that a view comes back as it was."""
        found = self.back(view)
        self.assertEqual(found, view)
        self.assertEqual(found.format, view.format.removeprefix("@"))
        self.assertEqual(found.shape, view.shape)
        self.assertEqual(found.readonly, view.readonly)

    def views(self, size: int) -> Iterator[Any]:
        """Make views of different kinds, of so many bytes more or less."""
        contents = bytearray(i % 251 for i in range(size))
        yield memoryview(bytes(contents))
        yield memoryview(contents)
        yield memoryview(contents)[10:-6]
        yield memoryview(contents)[::2]
        yield memoryview(bytes(contents))[::-3]
        yield memoryview(contents).toreadonly()
        yield memoryview(array.array("d", range(size // 8)))
        yield memoryview(array.array("H", range(min(size // 2, 60_000))))
        yield memoryview(contents).cast("@i")
        yield memoryview(contents).cast("B", (size // 8, 8))
        yield memoryview(contents).cast("h", (size // 16, 2, 4))
        yield memoryview(contents).cast("B", (size // 8, 8))[::2]

    def test_large(self) -> None:
        """
        Large ones are restored in every respect, without being copied where they're
        in one piece.
        """
        for view in self.views(4 * LARGE):
            self.same(view)
        packed = packWith(ViewPickler, [memoryview(bytes(LARGE)), b"b" * LARGE])
        assert isinstance(packed, Packed)
        self.assertEqual(len(packed.buffers), 2)

    def test_small(self) -> None:
        """So are small ones."""
        for view in self.views(160):
            self.same(view)

    def test_empty(self) -> None:
        """Views of nothing, or of one element, are as well."""
        self.same(memoryview(b""))
        self.same(memoryview(array.array("d")))
        self.same(memoryview(b"12345678").cast("d", ()))
        # No view can be made that is empty and has several dimensions.
        self.assertEqual(
            self.back(memoryview(bytes(8)).cast("B", (2, 4))[:0]).nbytes, 0
        )

    def test_isACopy(self) -> None:
        """Small ones don't see changes of what they were views of."""
        contents = bytearray(b"before")
        packed = packWith(ViewPickler, memoryview(contents))
        contents[:] = b"after!"
        self.assertEqual(bytes(restore(packed)), b"before")

    def test_besides(self) -> None:
        """So are views among things that say themselves how they're pickled."""
        value = [memoryview(b"view"), Thing(b"o"), {1, 2}]
        found = restore(packWith(withViews(pickle.Pickler), value))
        self.assertEqual((bytes(found[0]), found[2]), (b"view", {1, 2}))

    def test_strangeFormat(self) -> None:
        """What no view could be made of is refused."""
        import ctypes

        class Pair(ctypes.Structure):
            _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))

        error = self.assertRaises(
            TypeError, packWith, ViewPickler, memoryview((Pair * 5)())
        )
        self.assertIn("cannot pickle a memoryview of elements", str(error))
        with self.assertRaises(NotPicklable) as caught:
            dumps(memoryview((Pair * 5)()))
        self.assertIn("memoryview", str(caught.exception))

    def test_ofAMapping(self) -> None:
        """Views of other things than bytes are pickled like those of bytes."""
        with mmap.mmap(-1, 4 * LARGE) as mapping, memoryview(mapping) as view:
            mapping[:3] = b"map"
            packed = packWith(ViewPickler, view)
            assert isinstance(packed, Packed)
            self.assertEqual(packed.size, 4 * LARGE)
            self.assertEqual(bytes(packed.buffers[0])[:3], b"map")
            for buffer in packed.buffers:
                assert isinstance(buffer, memoryview)
                buffer.release()
            del packed

    def test_garbage(self) -> None:
        """
        A view and its pickle may be garbage together, as the arguments of a call and
        what was sent of it are when the call has failed.
        """
        program = (
            "import gc; from asynqueue._child.pickling import dumps\n"
            f"view = memoryview(bytearray({LARGE})); cycle = [view, dumps(view)]\n"
            "cycle.append(cycle); del view, cycle; gc.collect(); print('collected')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(done.stdout, "collected\n")

    def test_kinds(self) -> None:
        """
        Any kind of pickler can be made one that pickles views, and keeps what it knew.
        """

        class Knows(pickle.Pickler):
            dispatch_table = {Thing: lambda thing: (len, ("known",))}  # noqa: RUF012

        kind = withViews(Knows)
        found = restore(packWith(kind, [Thing(b""), memoryview(b"view")]))
        self.assertEqual(found, [5, b"view"])
        self.assertRaises(TypeError, packWith, pickle.Pickler, memoryview(b"view"))

    def test_dumpsLarge(self) -> None:
        """Views among other things are found, also where cloudpickle is needed."""
        value = [memoryview(bytearray(LARGE)), b"b" * LARGE]
        packed = dumps(value)
        assert isinstance(packed, Packed)
        self.assertEqual(len(packed.buffers), 2)
        self.assertEqual(restore(packed), value)
