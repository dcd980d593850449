"""Tests of L{asynqueue._child.protocol}."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.protocol import (
    HEADER,
    MAX_PAYLOAD,
    Decoder,
    FrameError,
    Kind,
)


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """Make a frame."""
    return HEADER.pack(len(payload), kind, number) + payload


def feed(decoder: Decoder, data: bytes) -> list[tuple[int, int, bytes]]:
    """
    Give a decoder bytes. Returns the frames that it has put together, with payloads
    that can be compared.
    """
    return [(kind, number, bytes(view)) for kind, number, view in decoder.feed(data)]


class DecoderTests(SynchronousTestCase):
    """Tests of L{Decoder}."""

    frames = (
        (Kind.CALL, 7, b"payload"),
        (Kind.CLOSE, 0xFFFFFFFF, b""),
        (Kind.RESULT, 0, b"\x00" * 40),
    )

    def setUp(self) -> None:
        """Make a stream of frames."""
        self.stream = b"".join(frame(*parts) for parts in self.frames)

    def test_atOnce(self) -> None:
        """Frames that come in one piece are all returned, in order."""
        self.assertEqual(feed(Decoder(), self.stream), list(self.frames))

    def test_split(self) -> None:
        """It doesn't matter at which byte the stream is cut in two."""
        for i in range(len(self.stream) + 1):
            decoder = Decoder()
            got = feed(decoder, self.stream[:i]) + feed(decoder, self.stream[i:])
            self.assertEqual(got, list(self.frames), f"cut at {i}")

    def test_byteByByte(self) -> None:
        """Frames are whole with their last byte, and not before."""
        decoder = Decoder()
        ends = []
        end = 0
        for _, _, payload in self.frames:
            end += HEADER.size + len(payload)
            ends.append(end)
        got = []
        for i in range(len(self.stream)):
            whole = feed(decoder, self.stream[i : i + 1])
            self.assertEqual(bool(whole), i + 1 in ends, f"byte {i}")
            got += whole
        self.assertEqual(got, list(self.frames))

    def test_nothing(self) -> None:
        """No bytes make no frames."""
        self.assertEqual(Decoder().feed(b""), [])

    def test_large(self) -> None:
        """
        The pieces of a large frame are kept as they are, and not copied again with
        each that comes.
        """
        pieces = [bytes(10_000) for _ in range(100)]
        decoder = Decoder()
        self.assertEqual(decoder.feed(HEADER.pack(1_000_000, Kind.RESULT, 1)), [])
        before = [sys.getrefcount(piece) for piece in pieces]
        for piece in pieces[:-1]:
            self.assertEqual(decoder.feed(piece), [])
        kept = [sys.getrefcount(piece) for piece in pieces]
        # The last that was given is also known here, as the variable of the loop.
        self.assertEqual(kept[:-2], [count + 1 for count in before[:-2]])
        [(kind, number, payload)] = decoder.feed(pieces[-1])
        self.assertEqual((kind, number, len(payload)), (Kind.RESULT, 1, 1_000_000))

    def test_letsGo(self) -> None:
        """Nothing is kept of frames that have been returned."""
        decoder = Decoder()
        data = frame(Kind.RESULT, 1, bytes(10_000))
        before = sys.getrefcount(data)
        decoder.feed(data)
        self.assertEqual(sys.getrefcount(data), before)

    def test_tooLarge(self) -> None:
        """A length that no frame has is recognized as what it is."""
        error = self.assertRaises(
            FrameError, Decoder().feed, HEADER.pack(MAX_PAYLOAD + 1, Kind.RESULT, 1)
        )
        self.assertIn(str(MAX_PAYLOAD + 1), str(error))

    def test_text(self) -> None:
        """Text that was written to the pipe is no frame."""
        self.assertRaises(FrameError, Decoder().feed, b"Hello, I'm not a frame\n")

    def test_zeros(self) -> None:
        """Nor are zeros, for there's no such kind."""
        self.assertRaises(FrameError, Decoder().feed, bytes(HEADER.size))

    def test_garbageAfterFrame(self) -> None:
        """Garbage is found after a frame, too, also if it's in pieces."""
        decoder = Decoder()
        self.assertEqual(len(decoder.feed(frame(Kind.CALL, 1, b"x") + b"garb")), 1)
        self.assertRaises(FrameError, decoder.feed, b"age and more of it")
