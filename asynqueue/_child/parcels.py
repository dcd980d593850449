"""
What one process tells another, through the pipe, of buffers in a file that both have
open::

    4 bytes    how many buffers there are
    17 bytes   for each: what it is, where it is, its length
               those that aren't in the file
               the pickle

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from pickle import PickleBuffer

__all__ = ["COUNT", "ENTRY", "INLINE", "OFFSET", "THRESHOLD", "TYPES", "What"]

#: With fewer bytes than this, the pipe is as fast.
THRESHOLD = 1 << 18

#: How many buffers there are.
COUNT = struct.Struct("<I")

#: What a buffer is, where it is, its length.
ENTRY = struct.Struct("<BQQ")

#: Where regions begin that aren't needed any longer.
OFFSET = struct.Struct("<Q")

#: The offset of what isn't in the file.
INLINE = (1 << 64) - 1


class What(IntEnum):
    """
    What a buffer is.
    """

    #: Something of an object that knows how to be pickled without its contents.
    VIEW = 0

    #: C{bytes}.
    BYTES = 1

    #: C{bytearray}.
    BYTEARRAY = 2


TYPES = {bytes: What.BYTES, bytearray: What.BYTEARRAY, PickleBuffer: What.VIEW}
