"""Importance weights for the gap between rollout engine and trainer, which give the same token different probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf.ops import masked
from rlhf.ops.kl import LARGEST_LOG_RATIO


def importance_weights(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    kind: Literal["truncated", "masked", "sequence"],
    low: float,
    high: float,
) -> tuple[Tensor, dict[str, float]]:
    """(weights (B, T) to multiply the tokens' advantages by, 0 outside the mask; figures of the step).

    old_logprobs, rollout_logprobs: (B, T), the tokens' log-probs by the trainer and by the engine that sampled them, with
    the same weights. kind, of the ratio trainer / engine: "truncated" to [low, high] (Yao et al. 2025); "masked", 0 where
    it is outside (IcePop, Ling team 2025); "sequence", 0 on all tokens of a row whose geometric mean is outside, and else
    the ratio as it is (OpenRLHF's seq-mask-tis).

    Figures: ratio_mean and ratio_max before it is bounded; changed, the share of tokens whose weight is not their ratio;
    kl, of the engine's distribution from the trainer's in nats a token (k1).
    """
    gap = torch.where(mask, old_logprobs - rollout_logprobs, 0)
    ratio = gap.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    if kind == "truncated":
        weights = ratio.clamp(low, high)
    else:
        judged = ratio if kind == "masked" else masked.mean(gap, mask, dim=1).exp()[:, None]
        weights = torch.where((judged >= low) & (judged <= high), ratio, 0)
    figures = {
        "ratio_mean": float(masked.mean(ratio, mask)),
        "ratio_max": float(torch.where(mask, ratio, 0).max()) if mask.any() else 0.0,
        "changed": float(masked.mean((weights != ratio).to(ratio.dtype), mask)),
        "kl": float(masked.mean(-gap, mask)),
    }
    return torch.where(mask, weights, 0), figures
