"""Tests of L{asynqueue._child.memfd}."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from asynqueue._child import memfd as anonymous
from asynqueue._child.memfd import (
    SLICE_BYTES,
    openMemoryFile,
    readByteArray,
    readBytes,
)

from ._fakes import replaceModule


def isOpen(fd: int) -> bool:
    """Tell whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class AnonymousFileTests(SynchronousTestCase):
    """Tests of L{openMemoryFile}."""

    def make(self) -> int:
        """Make a file."""
        fd = openMemoryFile()
        self.addCleanup(os.close, fd)
        return fd

    def test_made(self) -> None:
        """
        A file is empty, can be written to and read, has no name, and isn't given to
        programs that are run.
        """
        fd = self.make()
        self.assertEqual(os.fstat(fd).st_size, 0)
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertFalse(os.get_inheritable(fd))
        os.pwrite(fd, b"written", 100)
        self.assertEqual(os.pread(fd, 7, 100), b"written")

    def test_cannotBeShortened(self) -> None:
        """
        Where the system can see to it, it can be made longer, but not shorter again,
        and nobody can undo that.
        """
        if not hasattr(os, "memfd_create"):
            raise SkipTest("There are no such files here")
        import fcntl

        fd = self.make()
        os.ftruncate(fd, 2 * SLICE_BYTES)
        self.assertRaises(OSError, os.ftruncate, fd, SLICE_BYTES)
        self.assertRaises(OSError, fcntl.fcntl, fd, fcntl.F_ADD_SEALS, 0)
        self.assertEqual(os.fstat(fd).st_size, 2 * SLICE_BYTES)

    def test_withoutSeals(self) -> None:
        """Where it can't, there is a file nevertheless."""
        replaceModule(self, "fcntl", None)
        os.ftruncate(self.make(), SLICE_BYTES)

    def test_elsewhere(self) -> None:
        """On systems without such files, it's a temporary one."""

        def refuse(*_: Any) -> int:
            raise OSError(errno.ENOSYS, "There's no such thing")

        self.patch(tempfile, "tempdir", self.mktemp())
        os.mkdir(str(tempfile.tempdir))
        if hasattr(os, "memfd_create"):
            self.patch(os, "memfd_create", refuse)
        self.test_made()
        self.assertEqual(os.listdir(str(tempfile.tempdir)), [])

    def test_cannotBeMade(self) -> None:
        """If there can't be a file, that's an L{OSError}."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(errno.EMFILE, "There are as many as there may be")

        self.patch(os, "memfd_create", refuse) if hasattr(os, "memfd_create") else None
        self.patch(tempfile, "TemporaryFile", refuse)
        self.assertRaises(OSError, openMemoryFile)


class ReadingTests(SynchronousTestCase):
    """Tests of L{readBytes} and L{readByteArray}."""

    def setUp(self) -> None:
        """Make a file that isn't empty."""
        self.fd = openMemoryFile()
        self.addCleanup(os.close, self.fd)
        self.contents = os.urandom(SLICE_BYTES) * 5 + b"the end"
        os.pwrite(self.fd, self.contents, 1000)

    def test_read(self) -> None:
        """Whatever is asked for is read, from a byte to more than is read at a time."""
        end = len(self.contents)
        for start, stop in ((0, 0), (0, 1), (5, 8200), (1, SLICE_BYTES + 2), (3, end)):
            expected = self.contents[start:stop]
            args = (self.fd, 1000 + start, stop - start)
            self.assertEqual(readBytes(*args), expected)
            self.assertIs(type(readBytes(*args)), bytes)
            self.assertEqual(readByteArray(*args), expected)
            self.assertIs(type(readByteArray(*args)), bytearray)

    def test_tooShort(self) -> None:
        """What ends before it should isn't given to anybody."""
        for length in (8, 100_000, 6 * SLICE_BYTES):
            start = 1000 + len(self.contents) - 7
            self.assertRaises(OSError, readBytes, self.fd, start, length)
            self.assertRaises(OSError, readByteArray, self.fd, start, length)
        self.assertRaises(
            OSError, readByteArray, self.fd, 100 * SLICE_BYTES, 5 * SLICE_BYTES
        )

    def test_readLittleByLittle(self) -> None:
        """Whatever the system reads at a time, all is read."""
        read = anonymous._read
        self.patch(
            anonymous,
            "_read",
            lambda fd, views, offset: read(fd, [views[0][:300_000]], offset),
        )
        self.test_read()

    def test_otherSystems(self) -> None:
        """
        It works on systems that can't read to where it's told, don't know of large
        pages, or have no C library to be asked for what Python itself can't.
        """
        self.patch(anonymous, "_read", anonymous._preadv)
        replaceModule(self, "ctypes", None)
        self.test_read()
        self.test_tooShort()

    def test_noRoom(self) -> None:
        """If there's no room for what is read, that's a L{MemoryError}."""
        for read in (readBytes, readByteArray):
            self.assertRaises(MemoryError, read, self.fd, 0, sys.maxsize - 1000)
