"""What workers of all kinds have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred

from .._support.checks import checkFlag, seriesList

_T = TypeVar("_T")


class WorkerBase:
    """
    The attributes that L{IWorker<asynqueue.interfaces.IWorker>} asks for and that the
    employer sets, and resigning.
    """

    cQualified: list[Hashable] = []  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        exclusive: bool = False,
    ) -> None:
        checkFlag("raw", raw)
        checkFlag("exclusive", exclusive)
        self.iQualified = seriesList(series)
        self.raw = raw
        self.exclusive = exclusive
        # The employer sets these four while the worker is hired, or being let go.
        self.ID: int | None = None
        self.hired = False
        self.isLeaving = False
        self.assignments: dict[Hashable, list[Deferred[object]]] = {}
        self._resignator: Callable[[], object] | None = None
        # Whether another than the employer has stopped it, who doesn't want a worker in
        # its place.
        self.isDismissed = False

    @property
    def hasStopped(self) -> bool:
        """Whether nobody can employ it any longer."""
        return False

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        self._resignator = callableObject

    def _resign(self) -> None:
        """Tell the employer, if there is one, that the worker can't work any longer."""
        if self._resignator is not None:
            self._resignator()

    def _resignAfter(self, stopped: Deferred[_T]) -> Deferred[_T]:
        """
        Have C{stop} end in resigning when it's called by another than the employer,
        who takes the worker off its roster first.
        """
        if self.hired:
            self.isDismissed = True
            stopped.addCallback(self._passOnAndResign)
        return stopped

    def _passOnAndResign(self, result: _T) -> _T:
        self._resign()
        return result
