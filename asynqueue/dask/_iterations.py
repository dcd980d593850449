"""
Iterations in the cluster, as seen by the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from .._child.status import ErrorText
from ..errors import WorkerError
from ..interfaces import ITask
from ..iteration._remote import RemoteIteration
from ..iteration._sources import BufferedSource

__all__ = ["ClusterIteration"]

#: The thread hears of so many items that have been taken at a time.
_COUNT = 100


class ClusterIteration(RemoteIteration):
    """
    An iterator that is held in the cluster, and from which items are taken here.
    """

    # _ended is called once, when nothing more will come, or is wanted.

    def __init__(
        self,
        task: ITask,
        taken: Callable[[ClusterIteration, int], object],
        ended: Callable[[ClusterIteration], object],
    ) -> None:
        """
        @param taken: Called with this, and how many items have been taken.

        @param ended: Called with this when it has ended, whichever way.
        """
        super().__init__(
            task,
            BufferedSource(lambda count: taken(self, count), self.finish, every=_COUNT),
        )
        self._ended: Callable[[ClusterIteration], object] | None = ended

    def received(self, items: list[Any], end: ErrorText | str | None) -> None:
        """Take items."""
        if items and self._ended is not None:
            self._begin()
            self._source.push(items)
        if end is None or self._ended is None:
            return
        if isinstance(end, ErrorText):
            self._begin()
            self._source.fail(Failure(end.exception or WorkerError(str(end))))
        else:
            self.end()
        self.finish()

    def failed(self, error: BaseException) -> None:
        """Take it that nothing more will come."""
        if self._ended is not None:
            self.lose(Failure(error))
            self.finish()

    def finish(self) -> None:
        """Let go of it."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)
