"""
How many tasks a server runs at once.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Applicant", "Slots"]


class Applicant(Protocol):
    """
    A task that is to be run.

    @ivar thread: Whether it needs a thread.
    """

    thread: bool

    def begin(self) -> None:
        """
        Use the slot that has become free.
        """


class Slots:
    """
    Has tasks wait while as many are running as may be.

    @ivar most: So many tasks may be running, C{None} for any number.

    @ivar mostThreads: So many of them may be running in threads.
    """

    def __init__(self, most: int | None, mostThreads: int) -> None:
        """
        Begin with none.

        @param most: See C{most}.

        @param mostThreads: See C{mostThreads}.
        """
        self.most = most
        self.mostThreads = mostThreads
        self._used = 0
        self._threads = 0
        self._waiting: deque[Applicant] = deque()

    def take(self, applicant: Applicant) -> bool:
        """
        Get a slot for a task, if one is free and none waits for it.

        @param applicant: The task.

        @return: Whether it has one now.
        """
        if not self._isFree(applicant.thread) or any(
            other.thread == applicant.thread for other in self._waiting
        ):
            return False
        self._use(applicant.thread, 1)
        return True

    def wait(self, applicant: Applicant) -> None:
        """
        Have a task wait for a slot. Its C{begin} is called when it has one.

        @param applicant: The task.
        """
        self._waiting.append(applicant)

    def forget(self, applicant: Applicant) -> None:
        """
        Don't have a task wait any longer.

        @param applicant: The task.
        """
        if applicant in self._waiting:
            self._waiting.remove(applicant)

    def give(self, thread: bool) -> None:
        """
        Give a slot back.

        @param thread: Whether there was a thread with it.
        """
        self._use(thread, -1)
        for applicant in list(self._waiting):
            if self._isFree(applicant.thread):
                self._waiting.remove(applicant)
                self._use(applicant.thread, 1)
                applicant.begin()
                return

    def _isFree(self, thread: bool) -> bool:
        """
        Tell whether there's a slot.

        @param thread: Whether a thread is needed with it.

        @return: Whether there is.
        """
        if self.most is not None and self._used >= self.most:
            return False
        return not thread or self._threads < self.mostThreads

    def _use(self, thread: bool, count: int) -> None:
        """
        Count slots.

        @param thread: Whether there's a thread with them.

        @param count: How many more are in use.
        """
        self._used += count
        if thread:
            self._threads += count
