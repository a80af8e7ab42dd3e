"""Exports a run's metrics to Ray's metrics agent. Prometheus scrapes it; Grafana and the dashboard show them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "phase")


class Monitor:
    """Exports every metric as the gauge `rlhf_<metric>`, and counts steps and tokens. Ray prefixes the names with `ray_`."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}
        self._steps = Counter("rlhf_steps", "Finished steps of a phase", TAGS)
        self._tokens = Counter("rlhf_tokens", "Trained tokens, without padding", TAGS)

    def report(self, metrics: Mapping[str, float], phase: str) -> None:
        """Reports one step. Skips values that are not finite: the gauge keeps its last one."""
        tags = {"run": self._run, "phase": phase}
        self._steps.inc(1, tags)
        if metrics.get("tokens", 0) > 0:
            self._tokens.inc(metrics["tokens"], tags)
        for name, value in metrics.items():
            if math.isfinite(value) and name != "tokens":  # `rlhf_tokens` is a counter
                self._gauge(name).set(value, tags)

    def _gauge(self, metric: str) -> Gauge:
        name = "rlhf_" + re.sub(r"\W+", "_", metric)
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, f"{metric} of the last step", TAGS)
        return self._gauges[name]
