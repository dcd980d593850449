"""Tests of large values on their way, in chunks."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.iteration import Deferator
from asynqueue.iteration._sources import BufferedSource
from asynqueue.wire import ChunkyString
from asynqueue.wire._iterations import ServedIteration
from asynqueue.wire._values import Codec, Payload

from ._wire import box
from ._wirememory import LOCAL, clientOf

MB = 1 << 20


class ChunkyStringTests(SynchronousTestCase):
    """Tests of L{ChunkyString}."""

    def test_slices(self) -> None:
        """
        It yields slices of its chunk size, which together are the whole. Nothing is
        one empty slice.
        """
        size = ChunkyString.chunkSize
        self.assertEqual(size, 32_768)
        for length in (1, size, size + 1, 3 * size):
            whole = bytes(i % 251 for i in range(length))
            slices = list(ChunkyString(whole))
            self.assertEqual(b"".join(slices), whole)
            self.assertTrue(all(len(s) == size for s in slices[:-1]))
            self.assertTrue(all(slices))
        self.assertEqual(list(ChunkyString("")), [""])

    def test_text(self) -> None:
        """Text is cut as well, and the size can be another."""

        one = ChunkyString("abc")
        one.chunkSize = 2
        self.assertEqual(list(one), ["ab", "c"])

        class Small(ChunkyString[str]):
            chunkSize = 2

        self.assertEqual(list(Small("abcde")), ["ab", "cd", "e"])


class ChunkTests(SynchronousTestCase):
    """Tests of a connection's large values."""

    def setUp(self) -> None:
        """Make two ends that trust each other."""
        self.ends: list[Any] = []
        for _ in range(2):
            end: Any = clientOf(Clock(), None, mock.Mock())
            end.handshake.begin = end.open
            end.makeConnection(StringTransport(peerAddress=LOCAL))
            self.ends.append(end)
        self.sender, self.receiver = self.ends

    def pump(self) -> list[int]:
        """
        Have bytes go to and fro. Returns how many bytes of data were in each chunk.
        """
        sizes = []
        isBusy = True
        while isBusy:
            isBusy = False
            for source, target in (self.ends, self.ends[::-1]):
                data = source.transport.value()
                source.transport.clear()
                if data:
                    isBusy = True
                    sizes += [len(b.get(b"data", b"")) for b in amp.parseString(data)]
                    target.dataReceived(data)
        return [size for size in sizes if size]

    def test_arrives(self) -> None:
        """
        Values of any size arrive as they are, however they're cut into pieces, once
        the other end asks for them.
        """
        for size in (1, 64_999, 65_001, 5 * MB + 1):
            data = bytes(i % 251 for i in range(size))
            pieces: list[bytes | memoryview]
            pieces = [data[:7], memoryview(data)[7:50_000], data[50_000:]]
            sent = self.sender.send(b"x", Payload(size, pieces))
            self.assertEqual(self.pump(), [])
            received = self.receiver.receive(b"x", size)
            self.assertTrue(all(n <= 65_000 for n in self.pump()))
            self.assertIsNone(self.successResultOf(sent))
            self.assertEqual(b"".join(self.successResultOf(received)), data)
        self.assertEqual((self.sender._outgoing, self.receiver._incoming), ({}, {}))

    def test_credit(self) -> None:
        """No more is sent than the other end has asked for."""
        self.sender.send(b"x", Payload(5 * MB, [bytes(5 * MB)]))
        for credit in (b"100", b"70000", b"0"):
            self.sender.dataReceived(box(_command=b"Credit", ID=b"x", bytes=credit))
        chunks = amp.parseString(self.sender.transport.value())
        self.assertEqual([len(c[b"data"]) for c in chunks], [100, 65_000, 5_000])

    def test_inTurn(self) -> None:
        """Several values are sent in turn, a chunk of each."""
        for ID in (b"x", b"y"):
            self.sender.send(ID, Payload(MB, [bytes(MB)]))
        self.sender.pauseProducing()
        for ID in (b"x", b"y"):
            credit = box(_command=b"Credit", ID=ID, bytes=b"130000")
            self.sender.dataReceived(credit)
        self.sender.resumeProducing()
        chunks = amp.parseString(self.sender.transport.value())
        self.assertEqual([c[b"ID"] for c in chunks], [b"x", b"y", b"x", b"y"])

    def test_congested(self) -> None:
        """
        Nothing is sent while the transport is full, whatever credit the other end
        gives.
        """
        self.sender.send(b"x", Payload(9 * MB, [bytes(9 * MB)]))
        self.sender.pauseProducing()
        self.sender.dataReceived(
            box(_command=b"Credit", ID=b"x", bytes=b"999999999999999")
        )
        self.assertEqual(self.sender.transport.value(), b"")
        self.sender.resumeProducing()
        self.assertGreater(len(self.sender.transport.value()), 9 * MB)

    def test_tooMuch(self) -> None:
        """Who sends more than it has declared is disconnected."""
        self.receiver.receive(b"x", 100_000)
        chunk = box(_command=b"Chunk", ID=b"x", data=bytes(60_000))
        self.receiver.dataReceived(chunk)
        self.assertFalse(self.receiver.transport.disconnecting)
        self.receiver.dataReceived(chunk)
        self.assertTrue(self.receiver.transport.disconnecting)

    def test_cancelled(self) -> None:
        """What isn't wanted any longer isn't sent, and dropped if it comes."""
        sent = self.sender.send(b"x", Payload(5 * MB, [bytes(5 * MB)]))
        received = self.receiver.receive(b"x", 5 * MB)
        credit = box(_command=b"Credit", ID=b"x", bytes=b"1000")
        self.sender.dataReceived(credit)
        self.receiver.transport.clear()
        received.cancel()
        self.failureResultOf(received)
        self.pump()
        self.assertNoResult(sent)
        sent.cancel()
        self.failureResultOf(sent)
        self.sender.dataReceived(credit)
        self.assertEqual(self.sender.transport.value(), b"")
        self.assertEqual((self.sender._outgoing, self.receiver._incoming), ({}, {}))

    def test_iteration(self) -> None:
        """No item of an iteration is sent any longer when it has been ended."""
        items = [bytes([i]) * MB for i in range(3)]
        buffered = BufferedSource()
        buffered.push(items)
        for source in (iter(items), buffered):
            iteration = ServedIteration(
                self.sender, Codec(), b"x", Deferator(source), lambda: None
            )
            asked = [Deferred.fromCoroutine(iteration.getNext(1)) for _ in range(3)]
            self.assertIn(b"size", self.successResultOf(asked[0]))
            self.assertIn(b"x", self.sender._outgoing)
            iteration.stop()
            for d in asked[1:]:
                self.assertEqual(self.successResultOf(d)[b"moreLeft"], b"False")
            self.assertEqual(self.sender._outgoing, {})
