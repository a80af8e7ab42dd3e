"""Optimizer steps that left the weights as they were, because the loss or the gradient was not finite: which of them matter."""

from __future__ import annotations

import math
from collections.abc import Mapping

SMALLEST_SCALE = 1.0  # of a loss in float16


def failed(metrics: Mapping[str, float]) -> bool:
    """Whether the step was skipped (`Engine.train`'s "skipped") for another reason than a loss scale that was too large for
    float16, which is then lowered and is no fault of the run."""
    if not metrics.get("skipped"):
        return False
    return not math.isfinite(metrics["loss"]) or metrics.get("loss_scale", SMALLEST_SCALE) <= SMALLEST_SCALE
