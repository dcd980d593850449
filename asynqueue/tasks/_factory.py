"""What makes tasks, and gives each its priority."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import copy_context
from typing import Any

from twisted.internet.interfaces import IReactorTime

from .._support.checks import checkHashable, checkSeconds
from ._task import Task

#: By what the serial number of a task is multiplied, for each niceness.
_FACTORS = {n: 1.0 + ((n + 20) / 10.0) ** 2 for n in range(-20, 21)}

#: A factory remembers the serial numbers of so many series.
_MAX_SERIES = 10_000


class TaskFactory:
    """
    Makes tasks, and gives each its priority.

    Each series counts its tasks on its own, and a new series starts at the largest
    number in use. With C{k} the number of a task in its series and C{n} its
    niceness, its priority is C{k * (1 + ((n + 20) / 10)**2)}. So two series
    interleave though each was queued in one batch, tasks of niceness C{n + 10} run at
    about half the rate of those of C{n}, and no task waits for ever, because C{k} grows
    for all.

    @cvar TaskClass: The class of the tasks, which subclasses may replace.

    @ivar seriesNumbers: The serial number of the last task of each series.
    """

    TaskClass: type[Task] = Task

    def __init__(
        self, klass: type[Task] | None = None, *, reactor: IReactorTime | None = None
    ) -> None:
        """
        @param klass: The class of the tasks, by default L{TaskClass}.

        @param reactor: The clock of their timeouts. By default, the global reactor.
        """
        if klass is not None:
            self.TaskClass = klass
        self.seriesNumbers: dict[Hashable, float] = {}
        self._largest = 0.0
        self._reactor = reactor

    def new(
        self,
        func: Any,
        args: tuple[Any, ...] | list[Any],
        kw: dict[str, Any],
        niceness: object,
        series: Hashable = None,
        timeout: float | None = None,
    ) -> Task:
        """
        Make a task. It takes the current context variables along.

        @param func: The callable.

        @param args: Positional arguments.

        @param kw: Keywords.

        @param niceness: An integer from -20 (first) to 20 (last), as in Unix.

        @param series: The series, any hashable.

        @param timeout: Seconds that the task may run, C{None} for no limit.

        @return: The task.

        @raise ValueError: If the niceness isn't an integer from -20 to 20, or the
            timeout not a positive number.

        @raise TypeError: If the series isn't hashable.
        """
        factor = _FACTORS.get(niceness) if isinstance(niceness, int) else None
        if factor is None or isinstance(niceness, bool):
            raise ValueError(
                f"niceness must be an integer from -20 to 20, not {niceness!r}"
            )
        if timeout is not None:
            checkSeconds("timeout", timeout)
        priority = self._serial(series) * factor
        task = self.TaskClass(
            func, args, kw, priority, series, timeout, reactor=self._reactor
        )
        context = copy_context()
        if context:  # Most programs use none, and it takes 64 bytes.
            task.context = context
        return task

    def _serial(self, series: Hashable) -> float:
        """Count one more task of a series."""
        try:
            number = self.seriesNumbers.get(series)
        except TypeError:
            checkHashable(series)
            raise
        if number is None:
            number = self._largest
            if len(self.seriesNumbers) >= _MAX_SERIES:
                self._forgetSeries()
        number += 1.0
        self.seriesNumbers[series] = number
        if number > self._largest:
            self._largest = number
        return number

    def _forgetSeries(self) -> None:
        """
        Forget the half of the series that have the lowest numbers. Should one of them
        be used again, it starts at the largest number, as a new one does.
        """
        numbers = sorted(self.seriesNumbers.items(), key=lambda item: item[1])
        self.seriesNumbers = dict(numbers[len(numbers) // 2 :])
