"""
Where a child has its large arguments from, and where its large results go.

There are two files that it and its parent have open, and nobody else can, because they
have no names. When both have gone, so have the files.

Imported in child processes, so there's nothing of Twisted in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .inbox import Inbox
from .memfd import SharedFile
from .outbox import Outbox

__all__ = ["Boxes"]


class Boxes:
    """
    Both boxes of a child.

    @ivar done: Isn't empty if the parent is to be told what isn't needed any longer.
    """

    def __init__(
        self, reads: int, writes: int, wake: Callable[[], object] | None = None
    ) -> None:
        """
        Make them.

        @param reads: The descriptor of the file of arguments.

        @param writes: The descriptor of the file of results.

        @param wake: See L{Inbox}.
        """
        self.inbox = Inbox(SharedFile(reads), wake)
        self.done = self.inbox.offsets
        self.outbox = Outbox(SharedFile(writes))

    def load(self, payload: memoryview) -> Any:
        """
        Get what has come.

        @param payload: What the parent has told of it.

        @return: The thing.

        @raise OSError: If something isn't there.

        @raise MemoryError: If there's no room for it.
        """
        arrival = self.inbox.open(payload)
        arrival.read()
        return arrival.loads()

    def release(self, payload: memoryview) -> None:
        """
        Take back what the parent doesn't need any longer.

        @param payload: What it has told.
        """
        if self.outbox.release(payload):
            self.outbox.trim()
