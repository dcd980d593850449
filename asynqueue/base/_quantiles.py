"""
Quantiles of seconds, in bounded memory.
"""

from __future__ import annotations

from math import ceil, exp, log

__all__ = ["Quantiles"]

#: By how much, relatively, a quantile may be off.
ERROR = 0.02

#: What is shorter, or longer, counts as this: a microsecond, and 11 days.
_MIN_SECONDS = 1e-6
_MAX_SECONDS = 1e6

_LOG_GAMMA = log((1 + ERROR) / (1 - ERROR))

#: A bucket's number is the logarithm of its upper bound, divided by that of gamma. This
#: is where, relatively to the upper bound, the error is the same to both sides.
_MIDDLE = 2 / (1 + exp(_LOG_GAMMA))


class Quantiles:
    """
    The distribution of seconds: their number, mean and maximum, which are exact, and
    quantiles, which are off by 2 % at most between a microsecond and 11 days.

    This is the sketch of Charles Masson, Jee E. Rim and Homin K. Lee, I{DDSketch: A
    Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees}, PVLDB
    12(12), 2019: it counts, for each C{i}, the values from C{gamma**(i-1)} to
    C{gamma**i}, with C{gamma = (1 + error) / (1 - error)}. So there are 692 counts at
    most.

    @ivar count: How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0
        self._max = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """
        Count a value.
        """
        self.count += 1
        self._sum += seconds
        if seconds > self._max:
            self._max = seconds
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            seconds = _MIN_SECONDS if seconds < _MIN_SECONDS else _MAX_SECONDS
        i = ceil(log(seconds) / _LOG_GAMMA)
        self._buckets[i] = self._buckets.get(i, 0) + 1

    def summary(self) -> dict[str, float]:
        """
        Give the figures by name, all 0 if there were no values.
        """
        result = {
            "count": self.count,
            "mean": self._sum / self.count if self.count else 0.0,
        }
        wanted = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]
        below = 0
        value = 0.0
        for i in sorted(self._buckets):
            below += self._buckets[i]
            value = min(exp(i * _LOG_GAMMA) * _MIDDLE, self._max)
            while wanted and below > wanted[0][1] * (self.count - 1):
                result[wanted.pop(0)[0]] = value
        for name, _ in wanted:
            result[name] = value
        result["max"] = self._max
        return result
