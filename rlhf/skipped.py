"""Optimizer steps that were skipped because the loss or the gradient was not finite, and which of them are failures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from data.errors import UserError

SMALLEST_SCALE = 1.0  # of the loss in float16


def failed(metrics: Mapping[str, float]) -> bool:
    """Whether the step was skipped (metric "skipped" of `Engine.train`) for another reason than a loss scale too large
    for float16; DeepSpeed lowers the scale and goes on."""
    if not metrics.get("skipped"):
        return False
    return not math.isfinite(metrics["loss"]) or metrics.get("loss_scale", SMALLEST_SCALE) <= SMALLEST_SCALE


def what_failed(metrics: Mapping[str, float]) -> str:
    return f"non-finite loss ({metrics['loss']}) or gradient norm ({metrics['grad_norm']})"


def expect_trained(role: str, step: int, metrics: Mapping[str, float], advice: str = "") -> None:
    """Raises UserError where the step (counted from 1) failed."""
    if failed(metrics):
        raise UserError(
            f"{role}, step {step}: {what_failed(metrics)}; the weights are unchanged; lower the learning rate or check the "
            f"data{advice}"
        )
