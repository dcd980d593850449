"""Quantiles of seconds, in bounded memory."""

from __future__ import annotations

from collections import Counter
from math import ceil, exp, log

#: By how much, relatively, a quantile may be off.
ERROR = 0.02

#: Quantiles are of the values of so many seconds, and of the same time before.
WINDOW_SECONDS = 300.0

#: What is shorter, or longer, counts as this: a microsecond, and 11 days.
_MIN_SECONDS, _MAX_SECONDS = 1e-6, 1e6

_LOG_GAMMA = log((1 + ERROR) / (1 - ERROR))

#: What is estimated for a bucket, of its upper bound, for the error to be the same to
#: both sides.
_MIDDLE = 2 / (1 + exp(_LOG_GAMMA))


class Quantiles:
    """
    The distribution of seconds: their number and mean, and for those of the last 5 to
    10 minutes the maximum, and quantiles that are off by 2 % at most.

    This is the sketch of Charles Masson, Jee E. Rim and Homin K. Lee, I{DDSketch: A
    Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees}, PVLDB
    12(12), 2019: it counts, for each C{i}, the values from C{gamma**(i-1)} to
    C{gamma**i}, with C{gamma = (1 + error) / (1 - error)}. So there are 692 counts at
    most, for each of two windows of time.
    """

    # _buckets and _max are of the values since the last turn, the other two of those
    # between that and the one before.

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0
        self._buckets: dict[int, int] = {}
        self._max = 0.0
        self._bucketsBefore: dict[int, int] = {}
        self._maxBefore = 0.0
        self._nextTurn = 0.0

    def add(self, seconds: float, now: float) -> None:
        """Count a value."""
        if now >= self._nextTurn:
            self._turn(now)
        self._count += 1
        self._sum += seconds
        if seconds > self._max:
            self._max = seconds
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            seconds = _MIN_SECONDS if seconds < _MIN_SECONDS else _MAX_SECONDS
        i = ceil(log(seconds) / _LOG_GAMMA)
        self._buckets[i] = self._buckets.get(i, 0) + 1

    def summary(self) -> dict[str, float]:
        """Give the figures by name, all 0 if there were no values."""
        most = max(self._max, self._maxBefore)
        buckets = Counter(self._buckets) + Counter(self._bucketsBefore)
        last = sum(buckets.values()) - 1
        quantiles = {"p50": 0.0, "p90": 0.0, "p99": 0.0}
        ranks = [("p50", 0.5 * last), ("p90", 0.9 * last), ("p99", 0.99 * last)]
        below = 0
        for i in sorted(buckets):
            below += buckets[i]
            while ranks and below > ranks[0][1]:
                value = exp(i * _LOG_GAMMA) * _MIDDLE
                quantiles[ranks.pop(0)[0]] = min(value, most)
        mean = self._sum / self._count if self._count else 0.0
        return {"count": self._count, "mean": mean, **quantiles, "max": most}

    def _turn(self, now: float) -> None:
        """Begin a new window."""
        if now < self._nextTurn + WINDOW_SECONDS:
            self._bucketsBefore, self._maxBefore = self._buckets, self._max
        else:
            self._bucketsBefore, self._maxBefore = {}, 0.0
        self._buckets, self._max = {}, 0.0
        self._nextTurn = now + WINDOW_SECONDS
