"""The figures of a queue for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.web.server import Request

from .._child.describe import cleaned
from ..base import TaskQueue

#: What the figures of the statistics are for Prometheus.
_QUANTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1": "max"}


class Metrics(Collector):
    """Makes metrics of what C{q.stats()} returns."""

    def __init__(self, q: TaskQueue) -> None:
        self._q = q
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, request: Request) -> bytes:
        """Answer Prometheus."""
        accept = request.requestHeaders.getRawHeaders("Accept", [])
        encode, kind = choose_encoder(",".join(accept))
        request.setHeader("Content-Type", kind)
        return encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        stats = self._q.stats()
        queue = cleaned(stats["name"] or "")
        gauge, counter = GaugeMetricFamily, CounterMetricFamily

        def metric(
            family: type[GaugeMetricFamily | CounterMetricFamily],
            name: str,
            text: str,
            values: Mapping[Any, float],
            *labels: str,
        ) -> Metric:
            made = family(f"asynqueue_{name}", text, labels=("queue", *labels))
            for key, value in values.items():
                made.add_metric((queue, *key), value)
            return made

        def single(number: float) -> dict[Any, float]:
            return {(): number}

        queued = {(series,): count for series, count in stats["queued"].items()}
        failed = {(kind,): count for kind, count in stats["failed"].items()}
        running = sum(worker["running"] for worker in stats["workers"])
        workers = Counter((w["kind"], w["state"]) for w in stats["workers"])
        yield metric(gauge, "load", "Calls without a result", single(stats["load"]))
        yield metric(gauge, "queued", "Calls that wait", queued, "series")
        yield metric(gauge, "running", "Calls that workers have", single(running))
        yield metric(gauge, "paused", "Whether it's paused", single(stats["paused"]))
        yield metric(gauge, "workers", "Workers", workers, "kind", "state")
        yield metric(counter, "done", "Calls with a result", single(stats["done"]))
        yield metric(counter, "failed", "Calls that failed", failed, "kind")
        yield metric(counter, "retried", "Further attempts", single(stats["retried"]))
        yield metric(counter, "replaced", "Workers replaced", single(stats["replaced"]))
        for name, text in [
            ("wait", "How long calls waited, in the last minutes"),
            ("run", "How long calls were run, in the last minutes"),
        ]:
            seconds = {(at,): stats[name][key] for at, key in _QUANTILES.items()}
            yield metric(gauge, f"{name}_seconds", text, seconds, "quantile")
