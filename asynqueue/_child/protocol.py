"""
What goes through the pipes between a child process and its parent: frames, and claims.
No input or output of frames here.

A frame is a header of 13 bytes, little-endian, and a payload::

    8 bytes   length of the payload
    1 byte    kind, with BUFFERS added if the payload begins with a table of buffers
    4 bytes   number of the call; 0 for frames that belong to no call
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable
from typing import TypeAlias

HEADER = struct.Struct("<QBI")
_HEADER_BYTES = HEADER.size
#: How many items of an iteration have been taken.
COUNT = struct.Struct("<I")
#: No payload is that large: whoever says so is talking nonsense.
MAX_PAYLOAD = 1 << 36
#: So much is read from a pipe at a time. Larger reads take longer than two of these.
READ_BYTES = 65_536
#: Added to the kind of a frame some of whose contents are in the memory file.
BUFFERS = 0x80
#: The kind, the number of the call, the payload.
Frame: TypeAlias = tuple[int, int, memoryview]


class Kind:
    """Kinds of frames. Plain integers: an enum's members take longer to look up."""

    # From the parent.
    SETUP = 1  # how the parent's interpreter is set up
    CALL = 2  # a call to run, if the child gets it by ClaimReader.claim
    #: How many items of an iteration have been taken, so that others may be sent, and
    #: whether the consumer waits for them.
    TAKEN = 3
    CLOSE = 4  # an iteration, or a Deferred that a call has returned, is to be ended
    #: The child is to end when it has done what it was sent. The end of the pipe says
    #: that the parent has gone, unless a fork of the parent keeps it open.
    STOP = 5

    # From both.
    RELEASE = 8  # regions of the memory file that aren't needed any longer

    # From the child. RESULT, ERROR, ITERATOR begin with the seconds that the call took.
    HELLO = 16  # the child is ready
    RESULT = 17  # what the call returned
    ERROR = 18  # how it failed
    ITERATOR = 19  # it returned an iterator, whose items follow
    ITEMS = 20  # items of an iteration: lists of them, one pickle after the other
    END = 21  # the iteration has come to its end
    FAILED = 22  # the iteration has failed
    SIGNALLED = 23  # somebody has sent the child a signal that asks it to end


_PLAIN_KINDS = {kind for name, kind in vars(Kind).items() if name.isupper()}
_KINDS = frozenset(_PLAIN_KINDS | {kind | BUFFERS for kind in _PLAIN_KINDS})


class ChildFD:
    """What the child has its ends of the pipes, and the memory files, as."""

    CALLS = 3  # frames from the parent
    REPLIES = 4  # frames to the parent
    ARGUMENTS = 5  # the memory file of the parent's buffers
    RESULTS = 6  # the memory file of the child's buffers
    CLAIMS = 7  # who has which call
    ALL = range(3, 8)


class FrameError(ValueError):
    """What came isn't a frame."""


class Decoder:
    """
    Puts frames together from bytes as they come.

    What has come of a frame is kept in the pieces that it came in until it's whole, so
    that a large frame isn't copied again with each piece.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _HEADER_BYTES

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes, and return the frames that are whole now."""
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
        start, end = 0, _HEADER_BYTES
        while end <= size:
            length, kind, number = HEADER.unpack_from(data, start)
            if length > MAX_PAYLOAD or kind not in _KINDS:
                raise FrameError(
                    f"No frame is of kind {kind} and has {length} bytes: something"
                    " else has been written to the pipe"
                )
            payload, end = end, end + length
            if end > size:
                break
            frames.append((kind, number, view[payload:end]))
            start, end = end, end + _HEADER_BYTES
        if start < size:
            self._pieces = [data[start:] if start else data]
            self._have = size - start
            self._need = end - start
        return frames


# Claims say who has a call: the child, or still the parent. The number of each call is
# put into a pipe before its frame is sent. The child takes it out before it runs the
# call, and the parent does to revoke the call. What the system gives to one of them, it
# doesn't give to the other, so there's no moment at which a call that the parent gives
# to another child may be run by this one, nor one that nobody would run. In place of a
# number that it has taken out, the parent puts one that says so, so that there's always
# one for each frame of a call that the child hasn't come to yet, in the same order.
# What is in the pipe when the child has ended, it certainly hasn't begun.

#: The number of a call. All reads and writes are multiples of its size, and of less
#: than the system divides.
_NUMBER = struct.Struct("<I")
#: Added to the number of a call that was revoked.
_REVOKED = 1 << 31
#: So much is read at a time.
_CLAIM_BYTES = 4096


class ClaimWriter:
    def __init__(self, reader: int, writer: int) -> None:
        """Take the pipe, whose end to be read the child has as well."""
        self._reader = reader
        self._writer = writer
        self._isOpen = True

    def offer(self, numbers: list[int]) -> None:
        """Let the child have calls, whose frames are sent in this order."""
        if self._isOpen:
            os.write(self._writer, struct.pack(f"<{len(numbers)}I", *numbers))

    def revoke(self) -> list[int]:
        """Take back all calls that the child hasn't begun, and return their numbers."""
        numbers: list[int] = []
        while self._isOpen:
            try:
                data = os.read(self._reader, _CLAIM_BYTES)
            except BlockingIOError:
                break
            numbers += [number for (number,) in _NUMBER.iter_unpack(data)]
        if numbers:
            self.offer([number | _REVOKED for number in numbers])
        return [number for number in numbers if not number & _REVOKED]

    def close(self) -> None:
        if self._isOpen:
            self._isOpen = False
            os.close(self._reader)
            os.close(self._writer)


class ClaimReader:
    def __init__(self, fd: int, lost: Callable[[], object]) -> None:
        self._fd = fd
        self._lost = lost

    def claim(self, number: int) -> bool:
        """Claim the call whose frame has come, and tell whether it wasn't revoked."""
        try:
            data = os.read(self._fd, _NUMBER.size)
        except BlockingIOError:
            # The parent is about to put back what it has taken out.
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.poll()
            return self.claim(number)
        except OSError:
            data = b""
        if data == _NUMBER.pack(number):
            return True
        if data != _NUMBER.pack(number | _REVOKED):
            self._lost()
        return False
