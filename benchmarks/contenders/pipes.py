"""
The floors: children at pipes that are spoken to in frames and pickles, and nothing
else. Whatever can go wrong does.

This file is the program of the child, too. A frame is the length of a pickle, and the
pickle. The child answers calls in order. The items of an iterator follow each other, so
many ahead as the parent has given it credit for, and an empty frame is its end.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

LENGTH = struct.Struct("<I")

#: So many calls, or items, may be under way.
AHEAD = 64

#: So much is read at a time.
READ_BYTES = 65_536


def frame(value: Any) -> bytes:
    """Make a frame."""
    data = pickle.dumps(value, 5)
    return LENGTH.pack(len(data)) + data


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """
    Split what has come into frames. Returns the pickles of those that are whole, and
    what is left.
    """
    pickles: list[bytes] = []
    start, size = 0, len(data)
    while size - start >= 4:
        [length] = LENGTH.unpack_from(data, start)
        end = start + 4 + length
        if end > size:
            break
        pickles.append(data[start + 4 : end])
        start = end
    return pickles, data[start:]


class PipeChild:
    """
    A child at two pipes, as the parent sees it. C{rest} is what has been read of a
    frame that isn't whole yet.
    """

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.to = self._process.stdin.fileno()
        self.back = self._process.stdout.fileno()
        self.rest = b""

    def receive(self) -> list[bytes]:
        """Read what has come. Returns the pickles of the frames that are whole."""
        pickles, self.rest = split(self.rest + os.read(self.back, READ_BYTES))
        return pickles

    def stop(self) -> None:
        """Stop it."""
        self._process.communicate()


class Calls:
    """
    Calls that are given to children, some of them ahead, and their results as they
    come.
    """

    def __init__(
        self, f: Callable[..., Any], argses: Sequence[tuple[Any, ...]]
    ) -> None:
        self._frames = (frame((f, args)) for args in argses)
        self._count = len(argses)
        self.results: list[Any] = []

    def give(self, child: PipeChild, count: int) -> int:
        """Give a child at most so many more calls. Returns how many."""
        frames = list(islice(self._frames, count))
        if frames:
            os.write(child.to, b"".join(frames))
        return len(frames)

    def take(self, child: PipeChild) -> int:
        """Take results from a child. Returns how many."""
        pickles = child.receive()
        self.results += map(pickle.loads, pickles)
        return len(pickles)

    @property
    def done(self) -> bool:
        """Whether all results have come."""
        return len(self.results) == self._count


def _receive(rest: bytes) -> tuple[list[bytes], bytes]:
    """
    Read frames in the child, given what has been read of the first. Returns the pickles
    of those that are whole, and what is left.
    """
    data = os.read(0, READ_BYTES)
    if not data:
        raise SystemExit
    return split(rest + data)


def _stream(items: Iterator[Any]) -> None:
    """Send the items of an iterator as far as there's credit."""
    credit, rest = AHEAD, b""
    while True:
        frames = [frame(item) for item in islice(items, credit)]
        if len(frames) < credit:
            os.write(1, b"".join([*frames, LENGTH.pack(0)]))
            return
        os.write(1, b"".join(frames))
        pickles, rest = _receive(rest)
        credit = sum(map(pickle.loads, pickles))


def main() -> None:
    """Answer calls in the child until no more will come."""
    rest = b""
    while True:
        pickles, rest = _receive(rest)
        answers = []
        for call in pickles:
            f, args = pickle.loads(call)
            result = f(*args)
            if isinstance(result, Iterator):
                _stream(result)
            else:
                answers.append(frame(result))
        if answers:
            os.write(1, b"".join(answers))


if __name__ == "__main__":
    main()
