"""
Frames on a pipe: what kind, of which call, and bytes. No input or output here.

A frame is a header of 13 bytes, little-endian, and a payload::

    8 bytes   length of the payload
    1 byte    kind
    4 bytes   number of the call
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias

__all__ = [
    "COUNT",
    "HEADER",
    "LARGEST",
    "SECONDS",
    "Decoder",
    "Frame",
    "FrameError",
    "Kind",
    "header",
]

HEADER = struct.Struct("<QBI")

#: Results and errors begin with the seconds that the call took.
SECONDS = struct.Struct("<d")

#: How many items of an iteration have been taken.
COUNT = struct.Struct("<I")

#: No payload is that large: whoever says so is talking nonsense.
LARGEST = 1 << 42

#: The kind (a plain integer), the number of the call, the payload.
Frame: TypeAlias = tuple[int, int, memoryview]


class Kind(IntEnum):
    """
    Kinds of frames.
    """

    # From the parent.

    #: How the parent's interpreter is set up.
    SETUP = 1

    #: A call to run.
    CALL = 2

    #: How many items of an iteration have been taken, so that others may be sent, and
    #: whether the consumer waits for them.
    TAKEN = 3

    #: An iteration is to be ended.
    CLOSE = 4

    #: A call to run, sent before it's its turn. The parent may take it back.
    AHEAD = 5

    #: A call to run, with arguments that don't come through the pipe.
    LARGE_CALL = 6

    #: The child is to end. The end of the pipe says so, too, unless a fork of the
    #: parent keeps it open.
    STOP = 7

    # From both.

    #: Parts of large things that aren't needed any longer.
    RELEASE = 8

    # From the child.

    #: The child is ready.
    HELLO = 16

    #: What the call returned.
    RESULT = 17

    #: How the call failed.
    ERROR = 18

    #: The call returned an iterator. Its items follow.
    ITERATOR = 19

    #: Items of an iteration: lists of them, one pickle after the other.
    ITEMS = 20

    #: The iteration has come to its end.
    END = 21

    #: The iteration has failed.
    FAILED = 22

    #: What the call returned, parts of which don't come through the pipe.
    LARGE_RESULT = 23

    #: Somebody has sent the child a signal that asks it to end.
    SIGNALLED = 24


_KINDS = frozenset(int(kind) for kind in Kind)


class FrameError(ValueError):
    """
    What came isn't a frame.
    """


def header(kind: int, number: int, length: int) -> bytes:
    """
    Make the header of a frame.

    @param kind: The kind.

    @param number: The number of the call.

    @param length: The length of the payload.

    @return: The header.
    """
    return HEADER.pack(length, kind, number)


class Decoder:
    """
    Puts frames together from bytes as they come.

    What has come of a frame is kept in the pieces that it came in until it's whole, so
    that a large frame isn't copied again with each piece.
    """

    __slots__ = ("_have", "_need", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = HEADER.size

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take the next bytes.

        @param data: The bytes.

        @return: The frames that are whole now.

        @raise FrameError: If what came isn't a frame.
        """
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        view = memoryview(data)
        size = len(data)
        frames: list[Frame] = []
        start, need = 0, HEADER.size
        while size - start >= HEADER.size:
            length, kind, number = HEADER.unpack_from(data, start)
            if length > LARGEST or kind not in _KINDS:
                raise FrameError(
                    f"No frame is of kind {kind} and has {length} bytes: something"
                    " else has been written to the pipe"
                )
            need = HEADER.size + length
            if size - start < need:
                break
            frames.append((kind, number, view[start + HEADER.size : start + need]))
            start += need
            need = HEADER.size
        if start < size:
            self._pieces = [data[start:] if start else data]
            self._have = size - start
            self._need = need
        return frames
