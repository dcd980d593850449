"""
How many clients may be at a server that haven't proved who they are.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Doors"]

#: So many may be there at once. They take up little, and for seconds only.
_MOST = 64

#: A client that is refused learns so after so many seconds: at first, and at most.
_DELAY, _LONGEST = 0.01, 0.5


class _Waiting(Protocol):
    """
    A client that is at the gate.
    """

    def abort(self) -> None:
        """
        Send it away at once.
        """


class Doors:
    """
    The clients of a server that haven't proved who they are.
    """

    def __init__(self) -> None:
        """
        Begin with none.
        """
        # In the order in which they came.
        self._waiting: dict[_Waiting, None] = {}
        self._failures = 0

    def __len__(self) -> int:
        """
        Count them.
        """
        return len(self._waiting)

    def enter(self, client: _Waiting) -> None:
        """
        Have a client wait. If there are too many, the one that has waited longest is
        sent away: those who have a proof give it at once.

        @param client: The client.
        """
        if len(self._waiting) >= _MOST:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.abort()
        self._waiting[client] = None

    def leave(self, client: _Waiting) -> None:
        """
        Have a client wait no longer.

        @param client: The client.
        """
        self._waiting.pop(client, None)

    def failed(self) -> tuple[int, float]:
        """
        Note that one was refused.

        @return: How many have been in a row, and how many seconds that is to take. It's
            not for long: others, who aren't to blame, may come from the same address.
        """
        self._failures += 1
        return self._failures, min(_LONGEST, _DELAY * 2 ** min(self._failures - 1, 20))

    def opened(self) -> None:
        """
        Note that one was let in.
        """
        self._failures = 0

    def close(self) -> None:
        """
        Send them all away.
        """
        for client in list(self._waiting):
            client.abort()
