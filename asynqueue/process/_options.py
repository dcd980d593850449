"""
Options of the children of a worker or a queue: what they are, how often their start is
tried, and when they have done as much as they may.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from time import monotonic

from attrs import frozen

from .._child.mainmodule import preparation
from .._child.pickling import NotPicklable, dumpsPlain
from .._support.checks import checkCount, checkSeconds
from ..errors import SerializationError

#: Seconds that a child has until it's ready, if nothing else is said.
START_TIMEOUT = 120.0
#: Children that end by themselves before they're ready, in a row, until no other is
#: started.
_MAX_FAILURES = 3
#: The same for children that a signal ends, and how many seconds this must have been
#: going on. Somebody may be killing them, which says little about the next one.
_MAX_KILLED = 30
_KILLED_SECONDS = 30.0
#: Seconds to wait before another is started, doubled each time, and the most of that:
#: after children that have ended by themselves, and after those that were killed.
_BACK_OFF, _MAX_BACK_OFF = 0.1, 0.8
_KILLED_BACK_OFF, _MAX_KILLED_BACK_OFF = 0.05, 0.2
#: The same before the first of another row, after one has been given up.
_ROW_BACK_OFF, _MAX_ROW_BACK_OFF = 1.0, 8.0


@frozen
class ChildOptions:
    """Options of children, checked. The initializer is pickled."""

    env: Mapping[str, str] | None
    initializer: bytes | None
    niceness: int
    maxTasks: int | None
    maxMemory: float | None
    startTimeout: float | None
    cores: frozenset[int] | None = None

    @classmethod
    def checked(
        cls,
        env: Mapping[str, str] | None = None,
        initializer: object = None,
        niceness: int = 0,
        maxTasks: int | None = None,
        maxMemory: object = None,
        startTimeout: float | None = START_TIMEOUT,
    ) -> ChildOptions:
        checkCount("niceness", niceness, -20)
        if niceness > 19:
            raise ValueError(f"niceness must be an integer up to 19, not {niceness!r}")
        if maxTasks is not None:
            checkCount("maxTasks", maxTasks, 1)
        if maxMemory is not None and (
            isinstance(maxMemory, bool)
            or not isinstance(maxMemory, (int, float))
            or not 0 < maxMemory < float("inf")
        ):
            raise ValueError(
                f"maxMemory must be a positive number of MB, or None, not {maxMemory!r}"
            )
        if startTimeout is not None:
            checkSeconds("startTimeout", startTimeout)
        pickled = None if initializer is None else _pickled(initializer)
        return cls(env, pickled, niceness, maxTasks, maxMemory, startTimeout)

    def setup(self) -> bytes:
        own = {"niceness": self.niceness, "cores": self.cores}
        return dumpsPlain({**preparation(), **own, "initializer": self.initializer})


def coreSets(
    affinity: bool | Iterable[int | Iterable[int]] | None,
) -> list[frozenset[int]]:
    if affinity is None or affinity is False:
        return []
    if not hasattr(os, "sched_getaffinity"):
        raise ValueError(
            "This system can't bind processes to cores: leave affinity out"
        )
    own = os.sched_getaffinity(0)
    if affinity is True:
        affinity = sorted(own)
    sets: list[frozenset[int]] = []
    with suppress(TypeError):  # what can't be iterated over is no set of cores
        sets = [
            frozenset([cores] if isinstance(cores, int) else cores)
            for cores in affinity
        ]
    if not sets or not all(cores and cores <= own for cores in sets):
        raise ValueError(
            f"affinity must be True, or a core or several for each child, out of {own},"
            f" which this process may use, not {affinity!r}"
        )
    return sets


def _pickled(initializer: object) -> bytes:
    """Check an initializer, and pickle the callable and a tuple of its arguments."""
    f, args = initializer, ()
    if isinstance(initializer, tuple) and len(initializer) == 2:
        f, args = initializer
    if not callable(f) or not isinstance(args, (tuple, list)):
        raise TypeError(
            "The initializer must be a callable, or a tuple of a callable and a tuple"
            f" of its arguments, not {initializer!r}"
        )
    try:
        return dumpsPlain((f, tuple(args)))
    except NotPicklable as error:
        raise SerializationError(
            f"The initializer {initializer!r} can't be sent to child processes: {error}"
        ) from error.__cause__


class RestartPolicy:
    """Counts failed starts in a row of a queue's children, and says when to go on."""

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self.failures = 0
        self.killed = 0
        self._rows = 0
        self._seconds = seconds
        self._firstKilled = 0.0

    @property
    def exhausted(self) -> bool:
        return self.failures >= _MAX_FAILURES or (
            self.killed >= _MAX_KILLED
            and self._seconds() - self._firstKilled >= _KILLED_SECONDS
        )

    @property
    def delay(self) -> float:
        """Seconds to wait before another child is started."""
        if not self.failures and not self.killed:
            return _doubled(self._rows, _ROW_BACK_OFF, _MAX_ROW_BACK_OFF)
        return max(
            _doubled(self.failures, _BACK_OFF, _MAX_BACK_OFF),
            _doubled(self.killed, _KILLED_BACK_OFF, _MAX_KILLED_BACK_OFF),
        )

    def succeeded(self) -> None:
        self.failures = self.killed = self._rows = 0

    def startOver(self) -> None:
        if self.exhausted:
            self.failures = self.killed = 0
            self._rows = min(self._rows + 1, 10)

    def failed(self, signal: int | None) -> None:
        """Note that a child has ended, perhaps by a signal, before it was of use."""
        if signal is None:
            self.failures += 1
        else:
            if not self.killed:
                self._firstKilled = self._seconds()
            self.killed += 1


@frozen
class ChildConfig:
    options: ChildOptions
    policy: RestartPolicy
    isReplacement: bool = False


def _doubled(number: int, first: float, most: float) -> float:
    return min(first * 2.0 ** (min(number, 20) - 1), most) if number else 0.0


def residentSize(pid: int | None, *, private: bool = False) -> int | None:
    """
    Measure the memory of a process in kB, C{None} if there's none such. What is private
    is without what it shares with others, such as large arguments, where the system
    tells that.
    """
    with (
        suppress(OSError, ValueError),  # it's gone, or the system has no such files
        open(f"/proc/{pid}/statm", encoding="ascii") as file,
    ):
        _, resident, shared, *_ = [int(pages) for pages in file.read().split()]
        pages = resident - shared if private else resident
        return int(pages * os.sysconf("SC_PAGE_SIZE") // 1024)
    with suppress(OSError, ValueError):
        command = ["ps", "-o", "rss=", "-p", str(pid)]
        return int(subprocess.run(command, capture_output=True, check=False).stdout)
    return None


class Wear:
    """What a child has done, and whether that is as much as it may."""

    def __init__(self, options: ChildOptions) -> None:
        self.hasLimit = options.maxTasks is not None or options.maxMemory is not None
        # Updates don't count: the child must come to its tasks.
        self.taken = 0
        self._maxTasks = options.maxTasks
        self._maxMemory = options.maxMemory

    def limited(self, capacity: int, jobs: int) -> int:
        if self._maxTasks is None:
            return capacity
        return min(capacity, max(jobs + self._maxTasks - self.taken, 1))

    def isOver(self, pid: int | None) -> bool:
        if not self.taken:
            return False
        if self._maxTasks is not None and self.taken >= self._maxTasks:
            return True
        if self._maxMemory is None or pid is None:
            return False
        return (residentSize(pid, private=True) or 0) > self._maxMemory * 1024
