"""
The life of a worker with a child process.
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["USELESS", "State"]


class State(Enum):
    """
    The life of a worker, in order.
    """

    #: There's no word from the child yet. What is sent to it, it hasn't run.
    STARTING = auto()

    #: The child is there.
    READY = auto()

    #: The worker has been told to stop, and will when it has done what it has accepted.
    STOPPING = auto()

    #: The worker is of no use any longer, but its child has not ended yet.
    DYING = auto()

    #: Nothing is left.
    DEAD = auto()


#: States in which tasks are sent back.
USELESS = (State.DYING, State.DEAD)
