"""Losses of policy and critic, one value an item and never a mean: whoever calls them sums, and the engine divides by the global count."""

from __future__ import annotations

import torch
from torch import Tensor

# exp(20) is 5e8, far beyond any clip; unbounded, exp overflows and its gradient is NaN even where it is clipped away
LARGEST_LOG_RATIO = 20.0


def clipped_policy(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), negated: (losses (B, T), clipped (B, T) bool), both 0
    outside the mask.

    logprobs, old_logprobs, advantages: (B, T). The ratio is clipped to [1 - clip_low, 1 + clip_high]. dual_clip: where
    the advantage is negative the loss stays below dual_clip * |advantage| (Ye et al. 2020, equation 5).
    """
    advantages = torch.where(mask, advantages, 0)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.maximum(free, bounded)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return losses, bounded > free


def clipped_value(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error, the larger of the free value's and that of the value kept within `clip` of the old one:
    (losses (B, T), clipped (B, T) bool), both 0 outside the mask. clip None: the free value's.

    values, old_values, returns: (B, T). Source: the PPO of OpenAI baselines, ppo2/model.py.
    """
    errors = torch.where(mask, values - returns, 0).square()
    if clip is None:
        return 0.5 * errors, torch.zeros_like(mask)
    bounded = values.clamp(old_values - clip, old_values + clip)
    bounded_errors = torch.where(mask, bounded - returns, 0).square()
    return 0.5 * torch.maximum(errors, bounded_errors), bounded_errors > errors
