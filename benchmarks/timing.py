"""The stopwatch of all measures."""

from __future__ import annotations

from cProfile import Profile
from time import perf_counter
from types import TracebackType

_profiles: list[Profile] = []


def profileWith(profile: Profile) -> None:
    """Have all that is timed from now on profiled as well."""
    _profiles[:] = [profile]


class Stopwatch:
    """Times a block, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> Stopwatch:
        """Begin."""
        for profile in _profiles:
            profile.enable()
        self._start = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.seconds = perf_counter() - self._start
        for profile in _profiles:
            profile.disable()
