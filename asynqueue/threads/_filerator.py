"""
A file for writing, over whose content blocking code iterates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from ._channel import Closed
from ._getter import LIMIT, IterationGetter, inReactorThread
from ._pool import ThreadPool

__all__ = ["Filerator"]


class Filerator(IterationGetter):
    """
    A file for writing, and an iterator over what is written to it for blocking code in
    a thread.

    It may be written to in any thread. While too much is on the way, writing waits,
    except in the reactor's thread, which mustn't.

    As a context manager, it's closed at the end of the block.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        ownPool: ThreadPool | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Open it.

        @param maxThreads: See L{PoolUser}.

        @param limit: See L{IterationGetter}.

        @param ownPool: See L{PoolUser}.

        @param reactor: The reactor. By default, the global one.
        """
        super().__init__(maxThreads, limit=limit, ownPool=ownPool, reactor=reactor)
        self.start()

    def __enter__(self) -> Filerator:
        """
        Begin a block at whose end it's closed.
        """
        return self

    def __exit__(self, *about: object) -> None:
        """
        Close it.
        """
        self.close()

    @property
    def closed(self) -> bool:
        """
        Whether it has been closed.
        """
        return self._channel.closed

    def write(self, data: Any) -> int:
        """
        Write something, which becomes an item unless it's empty.

        @param data: Text or bytes. What can be changed later is copied.

        @return: Its length.

        @raise ValueError: If the file is closed, or is closed while this waits.
        """
        item = data if isinstance(data, (bytes, str)) else bytes(data)
        try:
            if not item:
                if self._channel.closed:
                    raise Closed
            elif inReactorThread():
                self._channel.put(item)
            else:
                self._channel.putWaiting(item)
        except Closed:
            raise ValueError("Nothing can be written to a closed Filerator") from None
        return len(item)

    def writelines(self, lines: Iterable[Any]) -> None:
        """
        Write one thing after the other.

        @param lines: Texts or bytes.

        @raise ValueError: If the file is closed.
        """
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """
        Do nothing: what is written is there at once.
        """

    def close(self) -> None:
        """
        Close the file. The iteration ends after what was written. Nothing happens the
        second time.
        """
        self._channel.close()

    def readable(self) -> bool:
        """
        Tell whether it's a file for reading.

        @return: C{False}.
        """
        return False

    def seekable(self) -> bool:
        """
        Tell whether one can move about in it.

        @return: C{False}.
        """
        return False

    def writable(self) -> bool:
        """
        Tell whether it's a file for writing.

        @return: C{True}.
        """
        return True
