"""
Tests of streams of chunks.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from asynqueue.wire._chunks import (
    CHUNK,
    WINDOW,
    ChunkyString,
    Incoming,
    Outgoing,
    Overrun,
)


class ChunkyStringTests(SynchronousTestCase):
    """
    Tests of L{ChunkyString}.
    """

    def test_slices(self) -> None:
        """
        It yields slices of its chunk size, which together are the whole.
        """
        for size in (0, 1, CHUNK, CHUNK + 1, 3 * CHUNK):
            whole = bytes(i % 251 for i in range(size))
            slices = list(ChunkyString(whole))
            self.assertEqual(b"".join(slices), whole)
            self.assertTrue(all(len(s) == CHUNK for s in slices[:-1]))
            self.assertTrue(all(slices))

    def test_text(self) -> None:
        """
        Text is cut as well, and the size can be another.
        """

        class Small(ChunkyString[str]):
            """
            Has small slices.
            """

            chunkSize = 2

        self.assertEqual(list(Small("abcde")), ["ab", "cd", "e"])


class StreamTests(SynchronousTestCase):
    """
    Tests of L{Outgoing} and L{Incoming}.
    """

    def test_records(self) -> None:
        """
        Records arrive as they were put, however they're cut.
        """
        records = [(b"a", b"x" * n) for n in (0, 1, 8, 9, 1000, 200_000, 0)]
        for size in (1, 7, 9, 4096, CHUNK):
            outgoing = Outgoing(credit=10**9)
            for kind, data in records:
                outgoing.put(kind, [data[:5], memoryview(data)[5:]])
            stream = bytearray()
            while outgoing.size:
                stream += outgoing.take()
            incoming = Incoming(10**6)
            got = [
                (kind, b"".join(pieces))
                for i in range(0, len(stream), size)
                for kind, pieces in incoming.feed(bytes(stream[i : i + size]))
            ]
            self.assertEqual(got, records)

    def test_window(self) -> None:
        """
        No more is taken than there's credit for.
        """
        outgoing = Outgoing()
        outgoing.put(b"v", [bytes(3 * WINDOW)])
        taken = 0
        while data := outgoing.take():
            self.assertLessEqual(len(data), CHUNK)
            taken += len(data)
        self.assertEqual(taken, WINDOW)
        outgoing.credit += 10
        self.assertEqual(len(outgoing.take()), 10)
        self.assertEqual(outgoing.take(), b"")

    def test_credit(self) -> None:
        """
        Credit is given for what has come, some of it at a time, and never too late for
        the window to be used up for good.
        """
        incoming = Incoming(10 * WINDOW)
        outgoing = Outgoing()
        outgoing.put(b"v", [bytes(5 * WINDOW)])
        count = 0
        while outgoing.size:
            data = outgoing.take()
            self.assertTrue(data)
            list(incoming.feed(data))
            credit = incoming.credit()
            count += bool(credit)
            outgoing.credit += credit
        self.assertLess(count, 25)

    def test_largest(self) -> None:
        """
        A record that is declared larger than it may be is refused before it has come.
        """
        outgoing = Outgoing()
        outgoing.put(b"v", [bytes(1001)])
        incoming = Incoming(1000)
        self.assertRaises(Overrun, list, incoming.feed(outgoing.take()))

    def test_declared(self) -> None:
        """
        So is one that has another size than was said.
        """
        outgoing = Outgoing()
        outgoing.put(b"v", [bytes(99)])
        incoming = Incoming(1000, 100)
        self.assertRaises(Overrun, list, incoming.feed(outgoing.take()))
