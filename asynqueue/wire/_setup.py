"""
What a manager tells the process of a server.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from typing import Any

from attrs import asdict, field, frozen

from ..errors import SerializationError
from ._credentials import TLS, Key

__all__ = ["STOP", "Setup", "dumpOptions"]

#: Written to a server that is to stop, before its pipe is closed.
STOP = b"s"

_SIZE = struct.Struct("!Q")


@frozen
class Setup:
    """
    What a manager tells the process of a server, through a pipe of which nobody else
    has an end: there may be keys in it.

    @ivar description: Where the server is to listen.

    @ivar wwu: The dotted name of the universe.

    @ivar options: Further keywords of the server, pickled: what they need may be found
        only when the process is set up. They aren't shown, as there may be secrets.

    @ivar preparation: What the manager's interpreter is like.

    @ivar niceness: What is added to the niceness of the process.

    @ivar timeout: Seconds that the server has to stop, C{None} for no end of them.

    @ivar stdio: Whether it has the standard streams of the manager's process.

    @ivar folder: The folder to be removed if the manager is gone, C{None} for none.
    """

    description: str
    wwu: str
    options: bytes = field(repr=False)
    preparation: dict[str, Any]
    niceness: int
    timeout: float | None
    stdio: bool
    folder: str | None

    def dump(self) -> bytes:
        """
        Make bytes of it.

        @return: What is to be written to the pipe.
        """
        data = pickle.dumps(asdict(self))
        return _SIZE.pack(len(data)) + data

    @classmethod
    def read(cls, fd: int) -> Setup | None:
        """
        Read it from the pipe.

        @param fd: The pipe's descriptor.

        @return: What was said, C{None} if the pipe has ended before.
        """
        head = _read(fd, _SIZE.size)
        if len(head) < _SIZE.size:
            return None
        [size] = _SIZE.unpack(head)
        data = _read(fd, size)
        return cls(**pickle.loads(data)) if len(data) == size else None


def _read(fd: int, size: int) -> bytes:
    """
    Read from a pipe, and not a byte more.

    @param fd: The pipe's descriptor.

    @param size: How many bytes.

    @return: They, or fewer if the pipe has ended before.
    """
    pieces: list[bytes] = []
    while size and (piece := os.read(fd, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class _Pickler(pickle.Pickler):
    """
    Pickles keys and certificates, too, which otherwise can't be.
    """

    def reducer_override(self, value: Any) -> Any:
        """
        Say how something is pickled.

        @param value: It.

        @return: What makes it again, if that's a special way.
        """
        return value.handOver() if isinstance(value, (Key, TLS)) else NotImplemented


def dumpOptions(options: dict[str, Any]) -> bytes:
    """
    Pickle keywords of a server.

    @param options: The keywords.

    @return: The pickle, with whatever secrets there are.

    @raise SerializationError: If one can't be pickled.
    """
    file = io.BytesIO()
    try:
        _Pickler(file).dump(options)
    except Exception as error:  # whatever code of a value raises
        # Not what the values are: there may be secrets.
        raise SerializationError(
            f"The keywords {', '.join(options)} can't all be sent to the process of a"
            f" server: {error}"
        ) from error
    return file.getvalue()
