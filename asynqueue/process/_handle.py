"""
The child process of a worker as its users see it.
"""

from __future__ import annotations

from collections.abc import Callable

from ._transport import Child

__all__ = ["ChildHandle"]


class ChildHandle:
    """
    The child process as users see it.
    """

    def __init__(self, child: Callable[[], Child | None]) -> None:
        """
        Make a handle.

        @param child: Gets the child, if there's one.
        """
        self._child = child

    @property
    def pid(self) -> int | None:
        """
        The process ID, C{None} if it isn't running.
        """
        child = self._child()
        return None if child is None else child.pid

    def is_alive(self) -> bool:
        """
        Tell whether the process is running.

        @return: Whether it is.
        """
        return self.pid is not None
