"""
Who has a call that was sent to a child before it was its turn: the child, or still the
parent. Both ask a pipe.

The number of each such call is put into the pipe. The child takes it out before it runs
the call, and the parent does to have the call back. What the system gives to one of
them, it doesn't give to the other, so there's no moment at which a call that the parent
gives to another child may be run by this one, nor one that nobody would run. When a
child has been killed, what is left in the pipe it certainly hasn't started.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import struct

__all__ = ["Claimer", "Claims"]

#: The number of a call. All reads and writes are multiples of its size, and of less
#: than the system divides.
_NUMBER = struct.Struct("<I")

#: So much is read at a time.
_READ_BYTES = 4096


class Claims:
    """
    The parent's side.
    """

    def __init__(self, reader: int, writer: int) -> None:
        """
        Take the pipe.

        @param reader: The descriptor of the end that is read here, and by the child.

        @param writer: The descriptor of the other end.
        """
        self._reader = reader
        self._writer = writer
        self._open = True

    def offer(self, numbers: list[int]) -> None:
        """
        Let the child have calls.

        @param numbers: Their numbers, in the order in which they're sent. There must
            never be more than a few hundred in the pipe.
        """
        if self._open:
            os.write(self._writer, struct.pack(f"<{len(numbers)}I", *numbers))

    def reclaim(self) -> set[int]:
        """
        Take back all calls that the child hasn't begun.

        @return: Their numbers.
        """
        numbers: set[int] = set()
        while self._open:
            try:
                data = os.read(self._reader, _READ_BYTES)
            except BlockingIOError:
                break
            numbers.update(number for (number,) in _NUMBER.iter_unpack(data))
        return numbers

    def close(self) -> None:
        """
        Close the pipe.
        """
        if self._open:
            self._open = False
            os.close(self._reader)
            os.close(self._writer)


class Claimer:
    """
    The child's side.
    """

    def __init__(self, fd: int) -> None:
        """
        Take the pipe.

        @param fd: The descriptor of the end that is read.
        """
        self._fd = fd
        # What was taken out that is the number of a later call.
        self._held: int | None = None

    def claim(self, number: int) -> bool:
        """
        Claim a call.

        @param number: Its number.

        @return: C{False} if the parent has taken it back.
        """
        if self._held is None:
            try:
                data = os.read(self._fd, _NUMBER.size)
            except BlockingIOError:
                return False
            if not data:
                return False
            [self._held] = _NUMBER.unpack(data)
        if self._held != number:
            return False
        self._held = None
        return True
