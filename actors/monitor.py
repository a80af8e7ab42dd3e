"""A run's figures for Ray's metrics agent, which Prometheus scrapes and Grafana and the dashboard show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "phase")


class Monitor:
    """Exports every metric as the gauge `rlhf_<metric>`, counts steps and tokens; Ray puts `ray_` before the names."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}
        self._steps = Counter("rlhf_steps", "Steps of a phase that are done", TAGS)
        self._tokens = Counter("rlhf_tokens", "Real tokens that went through training", TAGS)

    def report(self, metrics: Mapping[str, float], phase: str) -> None:
        """After one step. A value that is not finite is left out: the gauge keeps its last one."""
        tags = {"run": self._run, "phase": phase}
        self._steps.inc(1, tags)
        if metrics.get("tokens", 0) > 0:
            self._tokens.inc(metrics["tokens"], tags)
        for name, value in metrics.items():
            if math.isfinite(value) and name != "tokens":  # a gauge of a counter's name would be added to it
                self._gauge(name).set(value, tags)

    def _gauge(self, metric: str) -> Gauge:
        name = "rlhf_" + re.sub(r"\W+", "_", metric)
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, f"{metric} of the last step", TAGS)
        return self._gauges[name]
